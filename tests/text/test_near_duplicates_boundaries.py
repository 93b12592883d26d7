"""ROUGE-L F1 at the threshold: equal is no duplicate; bounds that save comparisons never hide one."""

import random

import pytest

from topxgen.text.near_duplicates import NearDuplicates, rouge_l_f1


def words(first: int, last: int) -> str:
    return " ".join(f"w{i}" for i in range(first, last))


def lcs(a: list[str], b: list[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def test_only_above_the_threshold():
    kept = NearDuplicates(0.7)
    kept.add("a", words(0, 10))
    assert kept.match(f"{words(0, 7)} x y z") is None  # F1 7/10
    assert kept.match(f"{words(0, 8)} y z") == ("a", pytest.approx(0.8))
    half = NearDuplicates(0.5)
    half.add("a", words(0, 4))
    assert half.match("w0 w1 x y") is None


def test_f1_is_the_harmonic_mean():
    assert rouge_l_f1(2, 2, 8) == 2 * 0.25 * 1 / 1.25
    assert rouge_l_f1(0, 5, 5) == 0


def test_repeated_words_count_as_often_as_both_have_them():
    kept = NearDuplicates(0.7)
    kept.add("a", "bai " * 10 + "ez")
    assert kept.match("bai ez " + words(0, 9)) is None
    assert kept.match("bai " * 9 + "ez") is not None


def test_a_duplicate_that_shares_only_the_commonest_words_is_found():
    """What saves looking at the commonest words must not skip so many that such a text is missed."""
    common, rare = [f"c{i}" for i in range(71)], [f"r{i}" for i in range(29)]
    kept = NearDuplicates(0.7)
    kept.add("duplicate", " ".join([*common, *(f"u{i}" for i in range(29))]))
    kept.add("reversed", " ".join(reversed(common)))
    kept.add("rare", " ".join(reversed(rare)))
    assert kept.match(" ".join([*common, *rare])) == ("duplicate", pytest.approx(0.71))


def test_no_bound_hides_a_duplicate():
    """Against comparing every pair; texts over few words, so that many are near the threshold."""
    rng = random.Random(5)
    for threshold in (0.3, 0.5, 0.7, 0.9):
        kept, texts = NearDuplicates(threshold), []
        for number in range(90):
            if texts and rng.random() < 0.6:
                text = list(rng.choice(texts))
                for _ in range(rng.randint(1, 6)):
                    text[rng.randrange(len(text))] = rng.choice("abcdefghijklmnop")
                text = text[: rng.randint(4, 40)]
            else:
                text = [rng.choice("abcdefghijklmnop") for _ in range(rng.randint(4, 40))]
            scores = [rouge_l_f1(lcs(text, other), len(other), len(text)) for other in texts]
            match = kept.match(" ".join(text))
            assert (match is not None) == any(score > threshold for score in scores)
            if match is not None:
                assert match[1] == scores[int(match[0])]
            kept.add(str(number), " ".join(text))
            texts.append(text)
