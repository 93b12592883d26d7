"""BM25 through bm25s (Lù 2024, arXiv 2407.03618), over words of any script, stemmed where a stemmer exists.

The index of bm25s holds what each word adds to the score of each sentence. Its own `retrieve` breaks ties arbitrarily, so the
scores are summed here, in the same order and precision.
"""

import logging
from functools import partial

from topxgen.common.console import ONCE
from topxgen.common.registry import Choice
from topxgen.text import languages
from topxgen.text.languages import Language
from topxgen.text.words import UNSPACED_SCRIPTS, unicode_words

logger = logging.getLogger(__name__)

ORIGINAL = "original"
TOKENS = {
    "unicode": Choice("", "words of any script, stemmed"),
    ORIGINAL: Choice("", "as the original: bm25s' words, without English stop words in any language, stemmed"),
}


class BM25:
    """A similarity (see topxgen.retrieval): `method`, `k1` and `b` as bm25s has them."""

    def __init__(self, pool: list[str], language: Language, settings, *, method: str, k1: float, b: float):
        import bm25s
        import Stemmer

        # Stemmers have English names of languages, as the table does ("Modern Standard Arabic": arabic).
        words = {word for name in languages.names_of(language) for word in name.lower().split()}
        algorithm = next((a for a in Stemmer.algorithms() if a in words), None)
        self._stem = Stemmer.Stemmer(algorithm).stemWords if algorithm else list
        self._tokens = settings.retriever_tokens
        if self._tokens == ORIGINAL and language.script in UNSPACED_SCRIPTS:
            text = f"--retriever_tokens original reads {language.name}, written without spaces, as one word: demonstrations are hardly similar"
            logger.warning(text, extra=ONCE)
        self._numbers: dict[str, int] = {}
        ids = [[self._numbers.setdefault(word, len(self._numbers)) for word in self._words(text)] for text in pool]
        index = bm25s.BM25(method=method, k1=k1, b=b)
        if self._numbers:  # bm25s rejects a pool without words
            index.index((ids, self._numbers), create_empty_token=False, show_progress=False)
            # A word adds the weights data[start:end] to the sentences indices[start:end].
            self._data, self._indices = index.scores["data"], index.scores["indices"]
            self._starts = index.scores["indptr"].tolist()
        self._count = len(pool)

    def _words(self, text: str) -> list[str]:
        if self._tokens == ORIGINAL:
            import bm25s

            options = {"stopwords": "en", "return_ids": False, "show_progress": False}
            return bm25s.tokenize([text], stemmer=self._stem, **options)[0]
        return self._stem(unicode_words(text))

    def scores(self, queries: list[str]):
        import numpy as np

        scores = np.zeros((len(queries), self._count), dtype=np.float32)
        # Word by word: one sparse product for all queries takes twice as long for a pool of 100,000 sentences, and saves
        # 0.02 s for one of 1,000.
        for row, query in zip(scores, queries, strict=True):
            for word in self._words(query):
                if (number := self._numbers.get(word)) is not None:
                    part = slice(self._starts[number], self._starts[number + 1])
                    np.add.at(row, self._indices[part], self._data[part])
        return scores


# Robertson's as published, and Okapi BM25 as ATIRE has it (inverse document frequency log N/df, never negative).
Robertson = partial(BM25, method="robertson", k1=1.5, b=0.7)
Okapi = partial(BM25, method="atire", k1=1.5, b=0.75)
