"""Demonstrations by chance."""

import hashlib

from topxgen.text.languages import Language


class Random:
    """An order of the pool that depends on the seed and the query alone, not on other queries or how often it is asked."""

    def __init__(self, pool: list[str], language: Language, settings):
        self._count, self._seed = len(pool), settings.seed

    def scores(self, queries: list[str]):
        import numpy as np

        found = np.empty((len(queries), self._count))
        for row, query in zip(found, queries, strict=True):
            digest = hashlib.sha256(f"{self._seed} {query}".encode("utf-8", "surrogatepass")).digest()
            # Raw bits: numpy promises that they stay the same from version to version.
            row[:] = np.random.PCG64(int.from_bytes(digest, "big")).random_raw(self._count) >> np.uint64(11)
        return found
