"""Diversity by hand, and by the definitions and libraries that it must equal."""

import gzip
import math
import random
import tracemalloc

import numpy as np
import pytest
from sacrebleu import sentence_bleu

from tests.support.tiny_models import udhr_texts
from topxgen.statistics import diversity
from topxgen.statistics.diversity import (
    compression_ratio,
    distinct_n,
    moving_type_token_ratio,
    self_bleu,
    vendi_score,
)


def words(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


@pytest.mark.parametrize("n, share", [(1, 4 / 7), (2, 4 / 5), (3, 3 / 3), (4, 1 / 1), (5, None)])
def test_distinct_n_by_hand(n, share):
    """Words a b c d of 7; pairs ab ba ac cd of 5 (ab twice); aba bab acd; abab."""
    assert distinct_n(words("a b a b", "a c d"), n) == share


def test_distinct_n_counts_no_ngram_across_texts():
    assert distinct_n(words("a", "b", "a"), 1) == pytest.approx(2 / 3)
    assert distinct_n(words("a", "b", "a"), 2) is None
    assert distinct_n([], 1) is None


@pytest.mark.parametrize("window", [1, 3, 7, 60])
def test_moving_type_token_ratio_is_the_mean_over_all_windows(window):
    rng = random.Random(0)
    tokens = [rng.choice("abcdefgh") for _ in range(60)]
    shares = [len(set(tokens[i : i + window])) / window for i in range(60 - window + 1)]
    assert moving_type_token_ratio(tokens, window) == pytest.approx(sum(shares) / len(shares))


def test_moving_type_token_ratio_needs_a_whole_window():
    assert moving_type_token_ratio(["a"] * 499) is None
    assert moving_type_token_ratio(["a"] * 500) == 1 / 500
    assert moving_type_token_ratio([str(i) for i in range(2000)]) == 1


def test_compression_ratio():
    text = "Gizon-emakume guztiak aske jaiotzen dira. " * 50
    data = text.encode()
    assert compression_ratio([text]) == pytest.approx(len(data) / len(gzip.compress(data, mtime=0)))
    assert compression_ratio(["ñ", "a"]) == 4 / len(gzip.compress("ñ\na".encode(), mtime=0))
    assert compression_ratio([text]) > compression_ratio(udhr_texts("Basque")[:10])
    assert compression_ratio([]) is None


def test_self_bleu_is_the_mean_of_sacrebleus_sentence_bleu():
    """With repeated n-grams, texts of one word, equal texts, and references of other lengths."""
    texts = [text.split() for text in udhr_texts("Basque")[:40]]
    texts += words("aske jaiotzen dira aske jaiotzen dira aske", "aske", "aske jaiotzen", "aske", "zz yy")
    expected = [
        sentence_bleu(" ".join(text), [" ".join(other) for j, other in enumerate(texts) if j != i], tokenize="none").score
        for i, text in enumerate(texts)
    ]  # fmt: skip
    assert self_bleu(texts) == pytest.approx(np.mean(expected), abs=1e-9)


def test_self_bleu_at_its_ends():
    assert self_bleu(words("a b c d e", "a b c d e")) == pytest.approx(100)
    assert self_bleu(words("a b c d e", "f g h i j")) == 0
    assert self_bleu(words("a b c")) is None


def by_definition(vectors) -> float:
    """exp(-sum of λ log λ) of the n x n matrix of cosine similarities over n."""
    rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(rows @ rows.T / len(rows))
    return math.exp(-sum(value * math.log(value) for value in values if value > 1e-15))


@pytest.mark.parametrize("n, d", [(1, 8), (5, 8), (8, 8), (40, 8), (500, 64), (300, 384)])
def test_vendi_score_equals_its_definition(n, d, monkeypatch):
    monkeypatch.setattr(diversity, "_BLOCK_ROWS", 64)
    vectors = np.random.default_rng(n).normal(size=(n, d)).astype(np.float32) * 3 + 0.5
    assert vendi_score(vectors) == pytest.approx(by_definition(vectors.astype(np.float64)), rel=1e-6)


def test_vendi_score_needs_no_matrix_of_all_pairs():
    vectors = np.random.default_rng(0).normal(size=(3000, 4)).astype(np.float32)
    tracemalloc.start()
    assert 1 < vendi_score(vectors) < 4.001
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6, "3,000 x 3,000 numbers are 72 MB"


def test_vendi_score_counts_different_vectors():
    identity = np.eye(32, dtype=np.float32)
    assert vendi_score(identity) == pytest.approx(32)
    assert vendi_score(identity[:7]) == pytest.approx(7)
    assert vendi_score(np.ones((50, 32), np.float32)) == pytest.approx(1)
    assert vendi_score(np.repeat(identity[:4], 25, axis=0)) == pytest.approx(4)
    assert vendi_score(identity * np.arange(1, 33, dtype=np.float32)[:, None]) == pytest.approx(32)  # cosine: no length
    assert vendi_score(np.vstack([identity[:1], identity[:1], identity[1:2]])) == pytest.approx(
        math.exp(-(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)))
    )


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_vendi_score_refuses_vectors_without_direction(bad):
    vectors = np.ones((3, 4), np.float32)
    vectors[1] = bad
    with pytest.raises(ValueError, match="length 0, or a number that is not finite"):
        vendi_score(vectors)
    with pytest.raises(ValueError, match="no vector"):
        vendi_score(vectors[:0])
