"""Where sentences end, and which stand as source sentences."""

import pytest

from topxgen.text import languages
from topxgen.text.sentence_splitting import MIN_CHARACTERS, Sentencex, sentence_reject_reasons

BASQUE = languages.find("Basque")


def split(text: str, language: str = "Basque") -> list[str]:
    return Sentencex(languages.find(language)).split(text)


class Identifier:
    def __init__(self, right: list[bool]):
        self._right = right

    def knows(self, language) -> bool:
        return True

    def is_language(self, texts, language) -> list[bool]:
        return self._right


def test_forty_characters_are_enough():
    assert MIN_CHARACTERS == 40
    assert sentence_reject_reasons(["a" * 39, "a" * 40, "a" * 41], None, BASQUE) == ["too_short", None, None]


def test_the_first_reason_counts():
    sentences = ["a" * 39, "." * 40, "a" * 40, "a" * 40]
    reasons = sentence_reject_reasons(sentences, Identifier([False, False, False, True]), BASQUE)
    assert reasons == ["too_short", "no_words", "other_language", None]


@pytest.mark.parametrize(
    "language, text, sentences",
    [
        ("Basque", "Etxea handia da. Mendia ere bai.", ["Etxea handia da.", "Mendia ere bai."]),
        (
            "Basque",
            "Hori 17. mendean gertatu zen. Gero etorri zen.",
            ["Hori 17. mendean gertatu zen.", "Gero etorri zen."],
        ),
        ("Basque", 'Esan zuen: "Bai. Noski." Gero joan zen.', ['Esan zuen: "Bai.', 'Noski."', "Gero joan zen."]),
        ("Basque", "Hasi da (berriz. Gero amaitu da.", ["Hasi da (berriz.", "Gero amaitu da."]),
        ("Basque", 'Esan du "bai." Gero joan da.', ['Esan du "bai."', "Gero joan da."]),
        ("Nepali", "यो घर हो।त्यो पहाड हो।", ["यो घर हो।", "त्यो पहाड हो।"]),
        ("Urdu", "یہ گھر ہے۔وہ پہاڑ ہے۔", ["یہ گھر ہے۔", "وہ پہاڑ ہے۔"]),
        ("Nepali", 'उसले भन्यो "यो घर हो।" त्यो गयो।', ['उसले भन्यो "यो घर हो।"', "त्यो गयो।"]),
        ("Basque", "Prezioa 2.50 da eta etxe.eus webgunea da.", ["Prezioa 2.50 da eta etxe.eus webgunea da."]),
    ],
)
def test_sentences(language, text, sentences):
    assert split(text, language) == sentences
