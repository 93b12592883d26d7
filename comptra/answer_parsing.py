"""Parse LLM responses: a translation after a marker, the items of a list."""

import json
import re
from collections.abc import Iterable
from contextlib import suppress

from topxgen.common.lines import split_lines
from topxgen.prompting.answers import behind_last_label, content, cut_repetition, unwrapped
from topxgen.prompting.answers import chat_answer as line
from topxgen.text.thoughts import without_thoughts

# 1. 1) (1) 1: 1、 **1.** and dashes or bullets; \d matches the digits of all scripts. 1.5 and 12:30 are not items.
_ITEM = re.compile(r"^\s*\**(?:\(?(\d{1,3})\s*(?:[.):]\)?\**(?:\s+|(?![\d\s]))|[、．]\**\s*)|[-*•–]\**\s+)(\S.*)$")
_INLINE = re.compile(r"\s+(?=\(?\d{1,3}[.)]\s)")


def translation(text: str, marker: str, source: str = "", target: str = "") -> str:
    """The translation of `source`: the line behind the last `marker` ("Translation:") that has one; without markers behind the last
    label ("Final translation"), else the first line.

    The marker begins a line, in any letter case, and may be bold.
    """
    text = without_thoughts(text)
    word = re.escape(marker.strip().rstrip(":"))
    _, *sections = re.split(rf"(?im)^[\s*_#>-]*{word}[\s*_]*[:：][ \t*_]*", text)
    if not sections:
        return line(behind_last_label(split_lines(text), source, target) or text, source, target)
    return _first_line(reversed(sections), source, target)


def section(text: str, heading: str, source: str = "", target: str = "") -> str:
    """The translation of `source` in the last section `heading` that has text; "" if there is none.

    A heading begins a line, in any letter case, numbered or bold or not, and ends it or has a colon after it.
    """
    text = without_thoughts(text)
    start = rf"(?mi)^[\s*_#>\d.)(-]*{re.escape(heading)}[ \t*_]*(?:\([^()\n]*\))?[ \t*_]*(?:[:：][*_]*[ \t]*|$)"
    _, *sections = re.split(start, text)
    return _first_line((re.split(r"(?m)^\s*#{1,6}\s", section)[0] for section in sections[::-1]), source, target)


def _first_line(bodies: Iterable[str], source: str, target: str) -> str:
    """The translation in the first body that has one. Bold type may begin before a body and end in it."""
    lines = (line(body, source, target).rstrip("*_ ") for body in bodies)
    return next(filter(None, (unwrapped(text, source) for text in lines)), "")


def list_items(text: str) -> list[str]:
    """The items of the first list in `text`, numbered or with dashes, one per line, or in JSON, without repetition at their ends.

    A list that starts again at 1 is another one. If no line is marked as an item, each line is one.
    """
    text = content(text)
    with suppress(ValueError, RecursionError):
        if isinstance(found := json.loads(text), list):
            return list(filter(None, (_plain(item) for item in found if isinstance(item, str))))
    lines = [line for line in split_lines(text) if line.strip()]
    matches = list(filter(None, map(_ITEM.match, lines)))
    if len(matches) <= 1:  # the whole list may be on one line
        lines = [part for line in lines for part in _INLINE.split(line)]
        matches = list(filter(None, map(_ITEM.match, lines)))
    items, last = [], 0
    for match in matches:
        number = int(match[1]) if match[1] else last + 1
        if items and number == 1:
            break
        items.append(match[2])
        last = number
    return list(filter(None, map(_plain, items if matches else lines)))


def _plain(item: str) -> str:
    item = cut_repetition(" ".join(item.split())).strip("*_ ")
    return "" if item in ('""', "“”", "«»") else unwrapped(item)
