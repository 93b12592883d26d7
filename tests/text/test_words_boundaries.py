"""What a word is, script by script."""

import pytest

from topxgen.text.words import ascii_words, is_blank, length, unicode_words


def test_what_cannot_be_seen_is_blank():
    for text in (
        "",
        " \t\u3000",
        "\u200b",
        "\u200c\u200d\u2060\ufeff",
        "\u00ad",
        "\u202a\u202c",
        "\x00\x85",
        "\u2800",
        "\u3164\ufe0f",
        "\U000e0020",
    ):
        assert is_blank(text), ascii(text)
    for text in (".", "\u200bа\u200b", "می\u200cخواهم", "ー", "1", "\u0301", "😀"):
        assert not is_blank(text), ascii(text)


@pytest.mark.parametrize(
    "text, words",
    [
        ("Etxe-an, 25 LAGUN!", ["etxe", "an", "25", "lagun"]),
        ("Straße", ["strasse"]),  # casefolded, not lower-cased
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),  # marks stay with their letters
        ("e\u0301a \u00e9a", ["éa", "éa"]),  # composed and decomposed are the same word
        ("می\u200cخواهم", ["میخواهم"]),  # joiners only shape letters
        ("so\u00adft", ["soft"]),
        ("سلا\u200eم \u2067ab\u2069c d\u202be", ["سلام", "abc", "de"]),  # marks of direction inside words
        ("İki iki ılık", ["iki", "iki", "ılık"]),  # Turkish, whose stemmer tells i from ı
        ("日本語abc", ["日", "本", "語", "abc"]),
        ("ที่นี่", ["ที่", "นี่"]),  # a character with its marks
        ("བོད", ["བོ", "ད"]),
        ("ກຂ", ["ກ", "ຂ"]),
        ("កខ", ["ក", "ខ"]),
        ("ကခ", ["က", "ခ"]),
        ("ひらカタ", ["ひ", "ら", "カ", "タ"]),
        ("... — ।", []),
        ("กA\u200bB", ["ก", "ab"]),
        ("Ab\0Cd", ["ab", "cd"]),
        ("\u0301a", ["\u0301a"]),  # a mark without a letter
        ("aก\u0301b", ["a", "ก\u0301", "b"]),
        ("ŉﬁ", ["ʼnfi"]),  # casefolded into several letters
    ],
)
def test_unicode_words(text, words):
    assert unicode_words(text) == words


def test_words_of_the_original_system():
    assert ascii_words("Kaixo 25 ñandú!") == ["kaixo", "25", "and"]
    assert ascii_words("नमस्ते") == []


@pytest.mark.parametrize(
    "text, characters",
    [("e\u0323ko\u0323 to\u0301 da\u0301ra", 11), ("cafe\u0301", 4), ("so\u00adft \u2067ab\u2069", 7), ("한국어", 9), ("\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165", 9)],
)  # fmt: skip
def test_a_text_is_as_long_in_each_unicode_form(text, characters):
    assert length(text) == characters
