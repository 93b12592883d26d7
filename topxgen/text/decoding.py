"""Texts as they were before a crawl or a converter encoded them: without HTML tags, with characters for HTML entities, %C3%A9,
\\u00e9, Ã©, and Cyrillic letters that stand for Latin ones."""

import html
import re
from urllib.parse import unquote, unquote_plus

from topxgen.text.words import as_utf8

# A lead byte of UTF-8 and the byte that follows it, read as Latin-1 or Windows-1252
_MISREAD = re.compile("[\xc2-\xf4][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_PERCENT = re.compile("%[0-9A-F]{2}")
_LATIN, _CYRILLIC = re.compile("[a-zA-Z]"), re.compile("[Ѐ-ԯ]")
_LOOKALIKES = str.maketrans("аеосрхуіјѕһԁԛԝАВЕКМНОРСТХІЈЅ", "aeocpxyijshdqwABEKMHOPCTXIJS")


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
        if _MISREAD.search(text):
            text = as_utf8(text)
    cyrillic = len(_CYRILLIC.findall(text))
    return text.translate(_LOOKALIKES) if cyrillic and len(_LATIN.findall(text)) > cyrillic else text


def _percent_decoded(text: str) -> str:
    if "%20" in text:
        return unquote(text)
    return unquote_plus(text) if "+" in text and _PERCENT.search(text) else text
