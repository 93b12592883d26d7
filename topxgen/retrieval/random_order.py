"""Random demonstrations."""

import hashlib

from topxgen.text.languages import Language


class Random:
    """A random order of the pool that depends on the seed and the query only, not on other queries or earlier calls."""

    def __init__(self, pool: list[str], language: Language, settings):
        self._count, self._seed = len(pool), settings.seed

    def scores(self, queries: list[str]):
        import numpy as np

        scores = np.empty((len(queries), self._count))
        for row, query in zip(scores, queries, strict=True):
            digest = hashlib.sha256(f"{self._seed} {query}".encode("utf-8", "surrogatepass")).digest()
            # Raw bits: numpy guarantees that they are the same in all its versions.
            row[:] = np.random.PCG64(int.from_bytes(digest, "big")).random_raw(self._count) >> np.uint64(11)
        return scores
