"""Words of any script: the tokenizers of near-duplicate detection, retrieval and text filters."""

import contextlib
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import NamedTuple


class UnspacedScript(NamedTuple):
    """A script that is written without spaces between words."""

    unicode_scripts: tuple[str, ...]  # values of the Unicode property Script
    bleu_tokenizer: str  # sacrebleu's tokenizer for it


# By the ISO 15924 codes of languages.tsv. Each character (with its marks) counts as a word, with one exception: for
# contamination a Tibetan word is a syllable, since these end in a visible sign, the tsheg.
UNSPACED_SCRIPTS = {
    "Hans": UnspacedScript(("Han",), "zh"),
    "Hant": UnspacedScript(("Han",), "zh"),
    "Hani": UnspacedScript(("Han",), "zh"),
    "Jpan": UnspacedScript(("Han", "Hiragana", "Katakana"), "char"),
    "Thai": UnspacedScript(("Thai",), "char"),
    "Laoo": UnspacedScript(("Lao",), "char"),
    "Khmr": UnspacedScript(("Khmer",), "char"),
    "Mymr": UnspacedScript(("Myanmar",), "char"),
    "Tibt": UnspacedScript(("Tibetan",), "char"),
}
# Soft hyphens, zero-width spaces, marks of direction.
_INVISIBLE = dict.fromkeys(
    (0xAD, 0x61C, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), 0x2060, *range(0x2066, 0x206A), 0xFEFF), ""
)
_INVISIBLE_RUN = re.compile(f"[{''.join(map(chr, _INVISIBLE))}]+")  # translate() takes four times as long
# Letters and symbols without a shape: of Hangul, Braille, and selectors of variants.
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5" + "".join(map(chr, range(0xFE00, 0xFE10))))
_JOINERS = dict.fromkeys((0x200C, 0x200D), "")  # only shape glyphs
# İ loses its dot, which i has: a case-folded İ is i with a combining dot.
_FOLDED = _INVISIBLE | _JOINERS | {ord("İ"): "i"}
# What programs show for the bytes that are control characters in Latin-1: those of Windows-1252.
_LATIN_1 = {ord(char): byte for byte in range(0x80, 0xA0) for char in bytes([byte]).decode("cp1252", errors="ignore")}
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_SYLLABLES = re.compile(r"[\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def visible(text: str) -> str:
    """`text` in normalization form C without invisible characters; joiners, which are part of Persian words, stay."""
    return _INVISIBLE_RUN.sub("", unicodedata.normalize("NFC", text))


def as_utf8(text: str) -> str:
    """`text` with é for Ã©, if its UTF-8 was read as Latin-1 or Windows-1252."""
    with contextlib.suppress(UnicodeError):
        return text.translate(_LATIN_1).encode("latin-1").decode()
    return text


def is_blank(text: str) -> bool:
    """Whether nothing of `text` can be seen: white space, zero-width and other format characters, fillers, alone."""
    return all(char.isspace() or char in _FILLERS or unicodedata.category(char) in ("Cf", "Cc") for char in text)


def length(text: str) -> int:
    """Characters, as alphabets have them for as long a text: a Han, Kana or Hangul one is about three (embedded UDHR: 3.8, 2.7, 2.4)."""
    if text.isascii():
        return len(text)
    text = visible(text)
    return len(text) + 2 * len(_SYLLABLES.findall(text))


def unspaced_classes() -> str:
    r"""The characters of unspaced scripts inside a regular expression's brackets (\p{Han}\p{Thai}...)."""
    scripts = dict.fromkeys(script for row in UNSPACED_SCRIPTS.values() for script in row.unicode_scripts)
    return "".join(rf"\p{{{script}}}" for script in scripts)


@cache
def _pattern():
    import regex

    unspaced = unspaced_classes()
    return regex.compile(rf"[{unspaced}--\p{{M}}]\p{{M}}*|[\p{{L}}\p{{N}}\p{{M}}--[{unspaced}]]+", regex.V1)


class _Letters(dict):
    """Code point -> what it is in lower-cased text of words: letters, marks and digits, or a space; filled as texts need it."""

    def __missing__(self, code: int) -> str:
        letters, unspaced = _letters()
        folded = _FOLDED.get(code, chr(code).casefold())
        # One that stands alone is for the pattern, which knows what marks belong to it.
        self[code] = value = "".join(_ALONE if unspaced.match(c) else c if letters.match(c) else " " for c in folded)
        return value


@cache
def _letters():
    import regex

    return regex.compile(r"[\p{L}\p{N}\p{M}]", regex.V1), regex.compile(rf"[{unspaced_classes()}]", regex.V1)


@cache
def is_unspaced(character: str) -> bool:
    """Whether a character is of a script without spaces, where a word of `unicode_words` is a single one."""
    return _letters()[1].match(character) is not None


_ALONE = "\0"
_LETTERS = _Letters()


def unicode_words(text: str) -> list[str]:
    """Lower-cased runs of letters, marks and digits; single characters in unspaced scripts.

    Marks stay with their letters, so that words in Devanagari or Arabic script are not torn apart.
    """
    text = unicodedata.normalize("NFC", text)
    words = text.translate(_LETTERS)
    if _ALONE in words:
        return _pattern().findall(text.translate(_FOLDED).casefold())
    return words.split()


def ascii_words(text: str) -> list[str]:
    """Tokens of the package `rouge_score` without a stemmer: runs of a-z and 0-9 in the lower-cased text.

    Text in another script has no tokens; for comparison with the published system, which used that package.
    """
    return _ASCII_WORD.findall(text.lower())


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"unicode": unicode_words, "rouge_score": ascii_words}
