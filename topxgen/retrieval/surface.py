"""Surface similarity of a query and a sentence of the pool: longest common subsequence, chrF, BLEU.

For chrF and BLEU the query is the reference and the sentence the hypothesis: a demonstration should contain what the query
contains.
"""

from topxgen.retrieval import ngram_similarity
from topxgen.text.languages import Language
from topxgen.text.words import unicode_words

SLICE_SENTENCES = 512  # scored together, so that the arrays fit the processor's cache


class LCS:
    """The longest common subsequence of words: F1 = 2 LCS / (m + n), as ROUGE-L (Lin 2004), by rapidfuzz."""

    def __init__(self, pool: list[str], language: Language, settings=None):
        numbers: dict[str, int] = {}
        self._pool = [[numbers.setdefault(word, len(numbers)) for word in unicode_words(text)] for text in pool]
        self._numbers = numbers

    def scores(self, queries: list[str]):
        import numpy as np
        from rapidfuzz.distance import LCSseq
        from rapidfuzz.process import cdist

        rows = [[self._numbers.get(word, -1) for word in unicode_words(query)] for query in queries]
        common = cdist(rows, self._pool, scorer=LCSseq.similarity, dtype=np.int32, workers=-1)
        lengths = np.array([len(row) for row in rows])[:, None] + np.array([len(row) for row in self._pool])
        return 2 * common / np.maximum(lengths, 1)


class ChrF:
    """sacrebleu's sentence_chrf: character n-grams up to 6, no words, beta 2 (Popović 2015)."""

    def __init__(self, pool: list[str], language: Language, settings=None):
        self._index = ngram_similarity.NgramIndex(ngram_similarity.characters(pool), ngram_similarity.CHRF_ORDER)

    def scores(self, queries: list[str]):
        sequences = ngram_similarity.characters(queries)
        return _against_pool(ngram_similarity.chrf, self._index, sequences)


class Bleu:
    """sacrebleu's sentence_bleu, with the tokenizer for the script of the language (Papineni et al. 2002)."""

    def __init__(self, pool: list[str], language: Language, settings=None):
        self._tokenize = ngram_similarity.bleu_tokenizer(language)
        self._numbers: dict[str, int] = {}
        sequences = ngram_similarity.words(pool, self._tokenize, self._numbers)
        self._index = ngram_similarity.NgramIndex(sequences, ngram_similarity.BLEU_ORDER)

    def scores(self, queries: list[str]):
        # Words that the pool lacks get new numbers, which match nothing in it.
        sequences = ngram_similarity.words(queries, self._tokenize, dict(self._numbers))
        return _against_pool(ngram_similarity.bleu, self._index, sequences)


def _against_pool(score, index: ngram_similarity.NgramIndex, queries: ngram_similarity.Sequences):
    """`score` of each sentence of the index with each query as reference: (queries, sentences)."""
    import numpy as np

    matches = index.matches(queries)
    scores = np.empty((len(queries.lengths), len(index.lengths)))
    for start in range(0, len(index.lengths), SLICE_SENTENCES):
        part = slice(start, start + SLICE_SENTENCES)
        scores[:, part] = score([m[part] for m in matches], index.lengths[part, None], queries.lengths).T
    return scores
