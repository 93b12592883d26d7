"""Phrases of a sentence: how many, how long, which are none."""

from types import SimpleNamespace

import pytest

from comptra.compositional import divide
from comptra.compositional.divide import DividerSettings, clean_phrases
from topxgen.common.errors import UsageError
from topxgen.text import languages

TASK = SimpleNamespace(src=languages.find("Basque"))
WORDS = "bat bi hiru lau bost sei zazpi zortzi bederatzi hamar"


def test_what_is_no_phrase():
    settings = DividerSettings()
    text = "Etxe handia da"
    assert clean_phrases(text, ["Etxe", "etxe,", "  handia   da ", "...", "ETXE HANDIA DA."], settings) == [
        "Etxe",
        "handia da",
    ]
    assert clean_phrases(text, ["...", text], settings) == [text]
    assert clean_phrases("abc", ["x" * 9, "y" * 10], settings) == ["x" * 9], "at most three times as long"
    assert clean_phrases(text, ["bat", "bi", "hiru"], DividerSettings(number_of_subproblems=2)) == ["bat", "bi"]
    assert clean_phrases(text, ["bat", "bi", "hiru"], DividerSettings(number_of_subproblems=0)) == ["bat", "bi", "hiru"]


@pytest.mark.parametrize(
    "count, phrases",
    [
        (-1, ["bat bi", "hiru lau bost", "sei zazpi zortzi", "bederatzi hamar"]),  # bounds at 2.5, 5, 7.5
        (3, ["bat bi hiru", "lau bost sei zazpi", "zortzi bederatzi hamar"]),
        (20, WORDS.split()),
    ],
)
def test_pieces_of_equal_length(count, phrases):
    assert divide.space([WORDS], TASK, DividerSettings(number_of_subproblems=count)) == [phrases]


def test_characters_keep_their_marks():
    assert divide.char(["नमस्ते"], TASK, DividerSettings(number_of_subproblems=2)) == [["नम", "स्ते"]]


@pytest.mark.parametrize("name", ["space", "keyword"])
def test_words_without_spaces_are_not_divided_at_spaces(name):
    for language in ("Chinese (Simplified)", "Khmer"):
        with pytest.raises(UsageError, match=f"{name} divides at spaces, and .* without: pass char or llm"):
            divide.check(name, languages.find(language), DividerSettings())
    divide.check(name, languages.find("Korean"), DividerSettings())


def test_keywords_are_runs_of_at_most_three_rare_words():
    settings = DividerSettings(pool=("da eta da eta", "eta da hori"))

    def keywords(text: str) -> list[str]:
        return divide.keyword([text], TASK, settings)[0]

    assert keywords("da zuhaitz handi berde zahar eta da eta da") == ["zuhaitz handi berde", "zahar"]
    assert keywords("da zuhaitz handi, berde eta da eta da da") == ["zuhaitz handi", "berde"]


def test_copies_of_the_sentence():
    assert divide.identity(["bat"], TASK, DividerSettings(number_of_repetitions=3)) == [["bat"] * 3]
