"""Texts as they were before a crawl or a converter encoded them: without HTML tags, with characters for HTML entities, %C3%A9,
\\u00e9, Ã©, and Cyrillic letters that stand for Latin ones."""

import html
import re
import unicodedata
from urllib.parse import unquote, unquote_plus

from topxgen.text.words import as_utf8

# A lead byte of UTF-8 and the bytes that follow it, read as Latin-1 or Windows-1252
_MISREAD = "[\xc2-\xf4][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
_IS_MISREAD, _MISREAD_RUN = re.compile(_MISREAD), re.compile(f"(?:{_MISREAD}{{1,3}})+")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_PERCENT = re.compile("%[0-9A-F]{2}")
# ё may be written е. Of the letters behind the space, the capitals alone look Latin.
_LIKE_LATIN, _LATIN = "аеёосрхуіјѕһԁԛԝАЕЁОСРХУІЈЅҺԀԚԜ ВКМНТ", "aeëocpxyijshdqwAEËOCPXYIJSHDQW BKMHT"
_LOOKALIKES, _CAPITALS_ALONE = str.maketrans(_LIKE_LATIN, _LATIN), _LIKE_LATIN.partition(" ")[2]
_OTHERS = "".join(char for char in map(chr, range(0x400, 0x530)) if char not in _LIKE_LATIN)
_HAS_CYRILLIC = re.compile("[Ѐ-ԯ]")
# A word without other Cyrillic letters; with a Latin one if it would not look Latin in small letters, so that case makes no difference
_LOOKS_LATIN = re.compile(rf"(?<!\w)(?:[^\W{_OTHERS}{_CAPITALS_ALONE}]++|(?=\w*[a-zA-Z])[^\W{_OTHERS}]++)(?!\w)")


def decoded(text: str) -> str:
    """`text` without encodings, also if it was encoded twice (&amp;eacute;)."""
    if "&" in text:
        text = html.unescape(html.unescape(text))
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "\\u" in text:
        text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    if "%" in text and " " not in text:  # others have percentages (Turkish %90)
        text = _percent_decoded(text)
    if text.isascii():
        return text
    for _ in range(2):
        if not _IS_MISREAD.search(text):
            break
        text = _MISREAD_RUN.sub(lambda found: as_utf8(found[0]), text)
    if _HAS_CYRILLIC.search(text):  # by words, so that a sentence in a paragraph is decoded as it is alone
        text = unicodedata.normalize("NFC", text)
        text = _LOOKS_LATIN.sub(lambda found: found[0].translate(_LOOKALIKES), text)
    return text


def _percent_decoded(text: str) -> str:
    if "%20" in text:
        return unquote(text)
    return unquote_plus(text) if "+" in text and _PERCENT.search(text) else text
