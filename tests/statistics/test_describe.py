"""The figures of small corpora by hand; equal samples for those of other sizes."""

import math

import numpy as np
import pytest

from topxgen.statistics import diversity
from topxgen.statistics.corpus import Corpus, Pair
from topxgen.statistics.describe import Options, describe, first_words, summary, topic_statistics
from topxgen.text import languages
from topxgen.text.words import unicode_words

BASQUE, ENGLISH = languages.find("Basque"), languages.find("English")


def paired(*pairs: tuple, topics=None) -> Corpus:
    pairs = [Pair(*pair) for pair in pairs]
    paragraphs = [pair.sentence for pair in pairs]
    return Corpus("x", "pairs", BASQUE, ENGLISH, paragraphs, topics or [None] * len(pairs), pairs)


def native(*paragraphs: str) -> Corpus:
    return Corpus("n", "native", BASQUE, paragraphs=list(paragraphs))


def test_sizes_and_lengths():
    corpus = paired(("Bat bi hiru.", "One, two."), ("Lau! Bost sei.", "Four five six seven."))
    described = describe([corpus], Options(count_tokens=lambda texts: sum(map(len, texts))))[0]
    assert described["counts"] == {
        "paragraphs": 2, "sentences": 3, "pairs": 2, "words_of_sentences": 6, "words_of_translations": 6,
        "tokens_of_sentences": 26, "tokens_of_translations": 29,
    }  # fmt: skip
    lengths = described["lengths"]["words_per_translation"]
    assert (lengths["mean"], lengths["min"], lengths["p50"], lengths["max"]) == (3, 2, 3, 4)
    assert (described["language"], described["target_language"]) == ("Basque", "English")


def test_native_text_has_sentences_and_no_pairs():
    described = describe([native("Bat bi hiru da. Lau bost sei da.", "Zazpi.")], Options())[0]
    assert described["counts"]["sentences"] == described["sentences"]["sample"] == 3
    assert described["counts"]["pairs"] is described["translations"] is described["topics"] is None
    assert described["scores"] == {} and described["counts"]["words_of_translations"] is None


def test_percentiles_are_interpolated():
    values = summary(range(101))
    assert [values[f"p{p}"] for p in (5, 25, 50, 75, 95)] == [5, 25, 50, 75, 95] and values["mean"] == 50
    assert summary([1, 2])["p25"] == 1.25 and summary([]) is None


def test_scores_of_two_scorers_are_not_mixed():
    corpus = paired(("a", "b", 0.25, "blaser"), ("a", "b", 0.75, "blaser"), ("a", "b", 3.5), ("a", "b", None, "blaser"))
    scores = describe([corpus], Options())[0]["scores"]
    assert list(scores) == ["", "blaser"] and scores[""]["scored"] == 1 and scores[""]["p50"] == 3.5
    assert scores["blaser"]["scored"] == 2 and scores["blaser"]["mean"] == 0.5 and scores["blaser"]["p95"] == 0.725


def test_topics_and_their_coverage():
    corpus = Corpus("x", "paragraphs", BASQUE, paragraphs=["p"] * 5, topics=["A", "A", "B", None, ""])
    values = topic_statistics(corpus, ["A", "C", "D", "C"])
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert values == {
        "with_topic": 3, "topics": 2, "effective_topics": pytest.approx(math.exp(entropy)), "in_file": 3, "covered": 1,
        "coverage": pytest.approx(1 / 3), "not_in_file": 1, "by_category": {},
    }  # fmt: skip
    by_category = topic_statistics(
        corpus, ["A", "C", "D", "B", "E"], {"A": "x", "B": "y", "C": "x", "D": "x", "Z": "z"}
    )
    assert by_category["by_category"] == {
        "x": {"in_file": 3, "covered": 1, "coverage": pytest.approx(1 / 3)}, "y": {"in_file": 1, "covered": 1, "coverage": 1}
    }  # fmt: skip
    assert "coverage" not in topic_statistics(corpus, None)
    assert topic_statistics(native("p"), ["A"]) is None


def numbered(count: int, length: int, prefix: str) -> Corpus:
    return paired(*((" ".join(f"{prefix}{i}x{j}" for j in range(length)), f"t{i}") for i in range(count)))


def test_all_corpora_have_samples_of_one_size():
    """The same number of sentences, and of words: distinct-n of longer sentences, or of more, would be lower for that alone."""
    small, long = numbered(10, 4, "a"), numbered(40, 9, "b")
    empty = paired()
    described = describe([small, long, empty], Options(sample=25))
    assert [part["sentences"] and part["sentences"]["sample"] for part in described] == [10, 10, None]
    assert [part["sentences"] and part["sentences"]["sample_words"] for part in described] == [40, 40, None]
    assert describe([long], Options(sample=25))[0]["sentences"]["sample"] == 25
    assert describe([long], Options(sample=1000))[0]["sentences"]["sample"] == 40, "more than there are: all"
    assert describe([long, long], Options())[0] == describe([long, long], Options())[1]


def test_the_seed_alone_decides_the_sample():
    corpus = numbered(200, 5, "a")
    corpus.pairs[0] = Pair(corpus.pairs[1].sentence, "t")  # so that samples differ in distinct-n
    first = describe([corpus], Options(sample=20, seed=1))
    assert first == describe([corpus], Options(sample=20, seed=1))
    seen = []
    for seed in (1, 1, 2):
        describe([corpus], Options(sample=20, seed=seed, encode=lambda texts, _: seen.append(texts) or np.eye(20)))
    assert seen[0] == seen[2] and seen[0] != seen[4] and sorted(seen[0]) != sorted(seen[4])
    assert len(seen[0]) == 20 and len(set(seen[0])) > 18


def test_measures_are_those_of_the_sample():
    texts = [
        f"{word} eta {word} dira etxe handi batean {i % 7}"
        for i, word in enumerate(["bat", "bi", "hiru", "lau", "bost"] * 6)
    ]
    corpus = paired(*((text, "x") for text in texts))
    vectors = {}

    def encode(sample, language):
        if language.name != "Basque":
            return None
        return vectors.setdefault("given", np.random.default_rng(0).normal(size=(len(sample), 16)))

    described = describe([corpus], Options(encode=encode))[0]
    tokens = [unicode_words(text) for text in texts]
    assert described["sentences"]["self_bleu"] == pytest.approx(diversity.self_bleu(tokens))
    assert described["sentences"]["distinct_2"] == pytest.approx(diversity.distinct_n(tokens, 2))
    assert described["sentences"]["vendi_score"] == diversity.vendi_score(vectors["given"])
    assert described["translations"]["vendi_score"] is None, "a language that the encoder does not know"
    assert described["sentences"]["type_token_ratio"] is None, "fewer words than one window"


def test_texts_of_a_language_are_encoded_together_and_told_apart():
    """Each corpus gets the score of its own sentences: of n different ones n, by vectors that are orthogonal if texts differ."""
    asked = []

    def encode(texts, language):
        asked.append(language.name)
        place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        return np.eye(len(place))[[place[text] for text in texts]]

    different, equal = numbered(6, 3, "a"), paired(*[("a b c", "one")] * 6)
    half = paired(*[("a b c", "one")] * 3, *[("d e f", "two")] * 3)
    described = describe([different, native("bat bi."), paired(), equal, half], Options(encode=encode, sample=6))
    scores = [part["sentences"] and part["sentences"]["vendi_score"] for part in described]
    assert scores == [pytest.approx(1), pytest.approx(1), None, pytest.approx(1), pytest.approx(1)]  # samples of 1
    described = describe([different, paired(), equal, half], Options(encode=encode))
    scores = [part["sentences"] and part["sentences"]["vendi_score"] for part in described]
    assert scores == [pytest.approx(6), None, pytest.approx(1), pytest.approx(2)]
    assert [part["translations"] and part["translations"]["vendi_score"] for part in described][2:] == [
        pytest.approx(1), pytest.approx(2)
    ]  # fmt: skip
    assert asked == ["Basque", "English"] * 2


def test_empty_texts_are_not_sampled():
    corpus = paired(("bat bi", "one"), ("", " "), ("hiru", ""))
    described = describe([corpus], Options())[0]
    assert described["sentences"]["sample"] == 2 and described["translations"]["sample"] == 1
    assert described["counts"]["pairs"] == 3


def test_first_words():
    texts = [["a", "b"], ["c"], ["d", "e", "f"]]
    assert first_words(texts, 0) == []
    assert first_words(texts, 2) == [["a", "b"]]
    assert first_words(texts, 3) == [["a", "b"], ["c"]]
    assert first_words(texts, 4) == [["a", "b"], ["c"], ["d"]]
    assert first_words(texts, 9) == texts
