"""BM25 through bm25s (Lù 2024, arXiv 2407.03618), over words of any script, stemmed where a stemmer exists.

bm25s computes what each word adds to each sentence when it builds its index. Its own `retrieve` takes one query after the
other and breaks ties as it likes, so the sums are made here, for all queries in one sparse product, in the same order and
precision.
"""

from itertools import chain

from comptra.languages import Language
from comptra.words import unicode_words


class BM25:
    """A similarity (see comptra.retrievers): `method`, `k1` and `b` as bm25s has them."""

    def __init__(self, pool: list[str], language: Language, *, method: str, k1: float, b: float):
        import bm25s
        import numpy as np
        import Stemmer
        from scipy.sparse import csr_array

        name = language.name.lower()
        # Stemmers carry English names of languages, as our table does ("Modern Standard Arabic": arabic).
        algorithm = next((a for a in Stemmer.algorithms() if a in name.split()), None)
        self._stem = Stemmer.Stemmer(algorithm).stemWords if algorithm else list
        self._numbers: dict[str, int] = {}
        ids = [[self._numbers.setdefault(word, len(self._numbers)) for word in self._words(text)] for text in pool]
        index = bm25s.BM25(method=method, k1=k1, b=b)
        # What each word adds to each sentence: (words, sentences).
        self._weights = csr_array((len(self._numbers), len(pool)), dtype=np.float32)
        if self._numbers:  # bm25s refuses a pool without a single word
            index.index((ids, self._numbers), create_empty_token=False, show_progress=False)
            parts = (index.scores[name] for name in ("data", "indices", "indptr"))
            self._weights = csr_array(tuple(parts), shape=self._weights.shape)

    def _words(self, text: str) -> list[str]:
        return self._stem(unicode_words(text))

    def scores(self, queries: list[str]):
        import numpy as np
        from scipy.sparse import csr_array

        rows = [[self._numbers[word] for word in self._words(query) if word in self._numbers] for query in queries]
        words = np.fromiter(chain.from_iterable(rows), dtype=np.int32)
        starts = np.cumsum([0, *map(len, rows)])
        # A word that a query has twice stands there twice: it is added twice, in its place.
        asked = csr_array((np.ones(len(words), dtype=np.float32), words, starts), shape=(len(rows), len(self._numbers)))
        return (asked @ self._weights).toarray()


class Robertson(BM25):
    """The published retriever: robertson, k1 1.5, b 0.7 (SPEC section 7)."""

    def __init__(self, pool: list[str], language: Language, settings=None):
        super().__init__(pool, language, method="robertson", k1=1.5, b=0.7)


class Okapi(BM25):
    """Okapi BM25 as ATIRE has it (inverse document frequency log N/df, never negative), k1 1.5, b 0.75."""

    def __init__(self, pool: list[str], language: Language, settings=None):
        super().__init__(pool, language, method="atire", k1=1.5, b=0.75)
