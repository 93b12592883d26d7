"""Words of any script: the tokenizer behind near-duplicate detection and retrieval."""

import unicodedata
from functools import cache

# Scripts written without spaces between words: each character (with its marks) is a token.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_JOINERS = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))


@cache
def _pattern():
    import regex

    letter = rf"[\p{{L}}\p{{N}}\p{{M}}--[{_UNSPACED}]]"
    return regex.compile(rf"[{_UNSPACED}--\p{{M}}]\p{{M}}*|{letter}+", regex.V1)


def unicode_words(text: str) -> list[str]:
    """Lower-cased runs of letters, marks and digits; single characters in unspaced scripts.

    Marks stay with their letters, so that Devanagari and Arabic-script words stay whole; zero-width
    joiners, which only shape glyphs, are dropped.
    """
    return _pattern().findall(unicodedata.normalize("NFC", text).translate(_JOINERS).casefold())


@cache
def _ascii_pattern():
    import re

    return re.compile(r"[a-z0-9]+")


def ascii_words(text: str) -> list[str]:
    """Tokens as `rouge_score` makes them without a stemmer: runs of a-z and 0-9 of the lower-cased text.

    Text in another script has no tokens at all; kept for comparison with the original system.
    """
    return _ascii_pattern().findall(text.lower())


TOKENIZERS = {"unicode": unicode_words, "original": ascii_words}
