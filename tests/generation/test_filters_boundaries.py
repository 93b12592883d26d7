"""The filters at their limits: one below keeps a text, the limit itself rejects it."""

import itertools

import pytest
from topxgen.generation.filters import FILTERS, load_filters, reject_reason

from topxgen.text import languages

BASQUE = languages.find("Basque")
WORDS = ["".join(letters) for letters in itertools.product("bdgklmnprstz", "aeiou", "bdgklmnprstz", "aeiou", "rst")]


def reason(text: str, language: str = "Basque") -> str | None:
    return reject_reason(text, languages.find(language), load_filters(FILTERS))


def test_number_of_words():
    assert reason("bat bi hiru") is None
    assert reason("bat bi") == "too_few_words"
    assert reason("") == "too_few_words"


@pytest.mark.parametrize(
    "language, text", [("Thai", "กขค"), ("Japanese", "日本語"), ("Lao", "ກຂຄ"), ("Khmer", "កខគ"), ("Burmese", "ကခဂ")]
)
def test_scripts_without_spaces_have_a_word_a_character(language, text):
    assert reason(text, language) is None
    assert reason(text[:2], language) == "too_few_words"


def test_word_bigrams():
    def text(times: int) -> str:
        # The pair stands between words that occur once, so that no other pair repeats. Short: they count for no other rule.
        return " ".join(f"ur bi {WORDS[i]}" for i in range(times))

    assert reason(text(74)) is None
    assert reason(text(75)) == "repeated_word_bigram"


def test_character_bigrams_of_the_longest_word_alone():
    assert reason("bat bi " + "xy" * 74 + "z") is None
    assert reason("bat bi " + "xy" * 75) == "repeated_character_bigram"
    # 75 times, but in a shorter word than the longest one.
    longest = "".join(chr(ord("一") + i) for i in range(200))
    assert reason(f"bat {'xy' * 75} {longest}") is None


def test_word_pairs_at_any_distance():
    def text(first: int, second: int, word: str = "etxea", other: str = "mendi") -> str:
        """`word` `first` times, then `other` `second` times; words between them that occur once."""
        fillers = iter(WORDS)
        return " ".join(f"{name} {next(fillers)}" for name in [word] * first + [other] * second)

    assert reason(text(10, 14)) is None  # 140 pairs
    assert reason(text(10, 15)) == "repeated_word_pair"  # 150
    # A word before itself, n (n - 1) / 2 times: 17 give 136, 18 give 153. With 14 of another one 17 x ... stays below.
    assert reason(text(17, 0)) is None
    assert reason(text(18, 0)) == "repeated_word_pair"


def test_word_pairs_149_and_150():
    fillers = iter(WORDS)
    words = ["etxea"] * 10 + ["mendi"] * 15
    # One "mendi" comes before one "etxea" only: 9 + 14 x 10 = 149.
    words = [*words[:9], "mendi", "etxea", *["mendi"] * 14]
    assert sum(a == "etxea" and b == "mendi" for i, a in enumerate(words) for b in words[i:]) == 149
    assert reason(" ".join(f"{word} {next(fillers)}" for word in words)) is None


def test_only_words_of_five_characters_count_for_pairs():
    def text(word: str) -> str:
        fillers = iter(WORDS)
        return " ".join(f"{word} {next(fillers)[:4]}{i}" for i in range(30))

    assert reason(text("mendi")) == "repeated_word_pair"
    assert reason(text("mend")) is None


def test_order_of_a_pair_counts():
    fillers = iter(WORDS)
    words = ["etxea", "mendi"] * 12  # "etxea" before "mendi" 78 times, the other way round 66, before itself 66
    assert reason(" ".join(f"{word} {next(fillers)}" for word in words)) is None


@pytest.mark.parametrize("character", ["\x00", "\x07", "\ue000", "\ufffd", "\u0378", "\ud800"])
def test_characters_that_are_no_text(character):
    assert reason(f"bat bi{character} hiru") == "binary"
    assert reason("bat bi hiru") is None


def test_a_filter_of_ones_own_may_give_a_detail():
    assert (
        reject_reason("x", BASQUE, {"mine": lambda text, language: f"{len(text)} characters"}) == "mine (1 characters)"
    )
    assert reject_reason("x", BASQUE, {"mine": lambda text, language: True}) == "mine"
    assert (
        reject_reason("x", BASQUE, {"mine": lambda text, language: None, "other": lambda text, language: 1}) == "other"
    )
