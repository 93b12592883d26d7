"""Texts as they were before a crawl or a converter encoded them: without HTML tags, with characters for HTML entities, %C3%A9,
\\u00e9, Ã©, and Cyrillic letters that stand for Latin ones."""

import html
import re
from urllib.parse import unquote, unquote_plus

from topxgen.text.words import as_utf8

# Lead bytes of UTF-8 and the bytes that follow them, read as Latin-1 or Windows-1252
_MISREAD = re.compile("(?:[\xc2-\xf4][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]{1,3})+")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_PERCENT = re.compile("%[0-9A-F]{2}")
_CYRILLIC, _LIKE_LATIN, _LATIN = "Ѐ-ԯ", "аеосрхуіјѕһԁԛԝАВЕКМНОРСТХІЈЅ", "aeocpxyijshdqwABEKMHOPCTXIJS"
_HAS_CYRILLIC, _LOOKALIKES = re.compile(f"[{_CYRILLIC}]"), str.maketrans(_LIKE_LATIN, _LATIN)
# A word without Cyrillic letters but those
_LOOKS_LATIN = re.compile(rf"(?<!\w)(?:[^\W{_CYRILLIC}]|[{_LIKE_LATIN}])+(?!\w)")


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
        if not _MISREAD.search(text):
            break
        text = _MISREAD.sub(lambda found: as_utf8(found[0]), text)
    if _HAS_CYRILLIC.search(text):  # by words, so that a sentence in a paragraph is decoded as it is alone
        text = _LOOKS_LATIN.sub(lambda found: found[0].translate(_LOOKALIKES), text)
    return text


def _percent_decoded(text: str) -> str:
    if "%20" in text:
        return unquote(text)
    return unquote_plus(text) if "+" in text and _PERCENT.search(text) else text
