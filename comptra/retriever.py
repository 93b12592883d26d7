"""Demonstrations for a sentence: the sentences of a pool that are most like it."""

from comptra.errors import UserError
from comptra.languages import Language
from comptra.words import unicode_words


class BM25:
    """Robertson's BM25 (k1 1.5, b 0.7) through bm25s, over words of any script, stemmed where a stemmer exists."""

    def __init__(self, pool: list[str], language: Language):
        import bm25s
        import Stemmer

        name = language.name.lower()
        # Stemmers carry English names of languages, as our table does ("Modern Standard Arabic": arabic).
        algorithm = next((a for a in Stemmer.algorithms() if a in name.split()), None)
        self._stem = Stemmer.Stemmer(algorithm).stemWords if algorithm else list
        self._pool = pool
        self._index = bm25s.BM25(method="robertson", k1=1.5, b=0.7)
        self._index.index([self._words(text) for text in pool], show_progress=False)

    def _words(self, text: str) -> list[str]:
        return self._stem(unicode_words(text))

    def nearest(self, queries: list[str], k: int) -> list[list[int]]:
        """For each query the indices of the `k` sentences most like it, the most similar first.

        A sentence equal to the query is left out: it would give the answer away. Raises UserError when the
        pool is too small.
        """
        if k > len(self._pool):
            raise UserError(f"{k} demonstrations are more than the {len(self._pool)} pairs of the pool; ask for fewer")
        if not k or not queries:
            return [[] for _ in queries]
        count = min(k + 1, len(self._pool))
        tokens = [self._words(query) for query in queries]
        found, _ = self._index.retrieve(tokens, k=count, show_progress=False, n_threads=0)
        return [[int(i) for i in row if self._pool[i] != query][:k] for query, row in zip(queries, found, strict=True)]
