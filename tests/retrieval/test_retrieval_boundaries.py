"""Ties, equal sentences and sizes of pools; similarities against sacrebleu and the published BM25."""

import math

import numpy as np
import pytest
import sacrebleu

from topxgen.common.errors import UsageError
from topxgen.retrieval import Retriever, RetrieverSettings, create, top_k
from topxgen.text import languages

ENGLISH = languages.find("English")
POOL = [
    "the cat sat on the mat",
    "a dog barked at the cat in the night",
    "the the the the cat",
    "it rains",
    "cats and dogs are animals of the house",
    "the night is dark and full of rain in the hills of the north",
]


class Table:
    """A similarity that is written down."""

    def __init__(self, rows):
        self._rows = rows

    def scores(self, queries):
        return np.array([self._rows[query] for query in queries], float)


def test_of_equals_the_first():
    rng = np.random.default_rng(0)
    for columns, k in ((7, 3), (200, 3), (200, 200), (1000, 5), (65, 1)):
        scores = rng.integers(0, 4, size=(20, columns)).astype(float)
        expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        assert (top_k(scores, k) == expected).all()
    close = np.array([[1.0, 1.0 + 1e-9, 1.0 - 1e-9, 0.5]])
    assert top_k(close, 3).tolist() == [[1, 0, 2]]


def test_sentences_equal_to_the_query_are_left_out():
    pool = ["a", "b", "a", "c"]
    retriever = Retriever(pool, Table({"a": [9, 1, 9, 2], "x": [1, 2, 3, 4]}))
    assert retriever.nearest(["a", "x"], 2) == [[3, 1], [3, 2]]
    assert retriever.nearest(["x"], 4) == [[3, 2, 1, 0]] and retriever.nearest(["a"], 0) == [[]]
    with pytest.raises(UsageError, match="3 demonstrations are more than the 4 sentences of the pool"):
        retriever.nearest(["a"], 3)
    with pytest.raises(UsageError, match="5 demonstrations"):
        retriever.nearest(["x"], 5)


def scores(name: str, queries: list[str], language=ENGLISH, pool=POOL):
    return create(name, pool, language, RetrieverSettings())._similarity.scores(queries)


QUERIES = ["the cat in the night", "rain rain and the cat cat", "it", "zzz", "animals of the house are cats and dogs"]


def test_chrf_and_bleu_are_sacrebleus():
    for name, score in (("chrf", sacrebleu.sentence_chrf), ("bleu", sacrebleu.sentence_bleu)):
        expected = [[score(text, [query]).score for text in POOL] for query in QUERIES]
        assert scores(name, QUERIES) == pytest.approx(np.array(expected), abs=1e-6)


def test_bleu_tokens_by_script():
    from topxgen.retrieval.ngram_similarity import bleu_tokenizer_name

    names = ("English", "Japanese", "Thai", "Burmese", "Khmer", "Lao", "Nepali", "Chinese (Simplified)")
    assert [bleu_tokenizer_name(languages.find(name)) for name in names] == ["13a", *["char"] * 5, "13a", "zh"]


def robertson(query: str, pool: list[list[str]], k1: float, b: float) -> list[float]:
    """BM25 with Robertson's inverse document frequency, not below 0 (Robertson and Zaragoza 2009)."""
    average = sum(map(len, pool)) / len(pool)
    values = []
    for text in pool:
        total = 0.0
        for word in query.split():
            df, tf = sum(word in other for other in pool), text.count(word)
            idf = max(0.0, math.log((len(pool) - df + 0.5) / (df + 0.5))) if df else 0.0
            total += idf * tf / (tf + k1 * (1 - b + b * len(text) / average)) if tf else 0.0
        values.append(total)
    return values


def okapi(query: str, pool: list[list[str]], k1: float, b: float) -> list[float]:
    average = sum(map(len, pool)) / len(pool)
    values = []
    for text in pool:
        total = 0.0
        for word in query.split():
            df, tf = sum(word in other for other in pool), text.count(word)
            if tf:
                total += math.log(len(pool) / df) * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(text) / average))
        values.append(total)
    return values


@pytest.mark.parametrize("name, formula, k1, b", [("bm25s", robertson, 1.5, 0.7), ("bm25", okapi, 1.5, 0.75)])
def test_bm25(name, formula, k1, b):
    # A language without a stemmer, words that no casefolding changes.
    xhosa = languages.find("Xhosa")
    pool = ["a b c", "a d", "e f g h e", "e a", "i j k l m n o", "p q r s t u v w"]
    queries = ["b e", "e e j", "p", "z", "a c"]
    expected = [formula(query, [text.split() for text in pool], k1, b) for query in queries]
    assert scores(name, queries, xhosa, pool) == pytest.approx(np.array(expected), abs=1e-5)


def test_words_are_stemmed_where_a_stemmer_exists():
    assert scores("bm25s", ["animal"])[0].argmax() == 4, "animals"


@pytest.mark.parametrize(
    "name, word, query",
    [("Bokmål", "husene", "huset"), ("Farsi", "کتابها", "کتاب"), ("Southern Sotho", "motho", "batho")],
)
def test_the_stemmer_is_that_of_the_language_by_whichever_name(name, word, query):
    for other in languages.names_of(languages.find(name)):
        [row] = scores("bm25s", [query], languages.find(other), ["a", "b", word, "c"])
        assert row.argmax() == 2 and row[2] > 0, other
