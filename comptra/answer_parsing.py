"""What stands in the answer of a model that was asked in words: after its thoughts, behind a marker, in a list.

`thinking` says that the prompt itself opened the model's thoughts, as some chat templates do.
"""

import re

from topxgen.prompting.mt_templates import clean_answer, cut_repetition

# 1. 1) (1) 1: 1、 **1.** and dashes or bullets; \d knows the digits of all scripts. 1.5 and 12:30 are no items.
_ITEM = re.compile(r"^\s*\**(?:\(?(\d{1,3})\s*(?:[.):]\)?\**(?:\s+|(?![\d\s]))|[、．]\**\s*)|[-*•–]\**\s+)(\S.*)$")
_INLINE = re.compile(r"\s+(?=\(?\d{1,3}[.)]\s)")
_QUOTES = {'"': '"', "“": "”", "«": "»", "„": "“"}


def without_thoughts(text: str, thinking: bool = False) -> str:
    """`text` after </think>; "" when thoughts were opened, by the prompt itself (`thinking`) or in it, and never closed."""
    _, closed, rest = text.rpartition("</think>")
    if not closed and (thinking or text.lstrip().startswith("<think>")):
        return ""
    return rest.strip()


def line(text: str, thinking: bool = False) -> str:
    """The translation in what a chat model says: its first line, without bold; one that only announces it is passed over."""
    lines = [found for found in without_thoughts(text, thinking).splitlines() if found.strip()]
    if len(lines) > 1 and lines[0].rstrip(" *_").endswith((":", "：")):
        del lines[0]
    found = clean_answer("\n".join(lines))
    if len(found) > 4 and found.startswith("**") and found.endswith("**"):
        found = found[2:-2].strip()
    return found


def translation(text: str, marker: str, thinking: bool = False) -> str:
    """The line behind the last `marker` ("Translation:") that has one; without markers the first line.

    The marker opens a line, in any letter case, and may be bold.
    """
    text = without_thoughts(text, thinking)
    word = re.escape(marker.strip().rstrip(":"))
    pieces = re.split(rf"(?im)^[\s*_#>-]*{word}[\s*_]*[:：][ \t*_]*", text)
    if len(pieces) == 1:
        return line(text)
    return next((found for piece in reversed(pieces[1:]) if (found := clean_answer(piece).rstrip("*_ "))), "")


def list_items(text: str, thinking: bool = False) -> list[str]:
    """The items of the first list in `text`, numbered or with dashes, each on one line, repetition at its end cut.

    A list that begins again at 1 is another one. Where nothing is marked, each line is an item.
    """
    lines = [line for line in without_thoughts(text, thinking).splitlines() if line.strip()]
    found = [match for line in lines if (match := _ITEM.match(line))]
    if len(found) <= 1:  # all of it on one line?
        lines = [part for line in lines for part in _INLINE.split(line)]
        found = [match for line in lines if (match := _ITEM.match(line))]
    items, last = [], 0
    for match in found:
        number = int(match[1]) if match[1] else last + 1
        if items and number == 1:
            break
        items.append(match[2])
        last = number
    return [item for line in (items if found else lines) if (item := _plain(line))]


def _plain(item: str) -> str:
    item = cut_repetition(" ".join(item.split())).strip("*_ ")
    if len(item) > 1 and _QUOTES.get(item[0]) == item[-1]:
        item = item[1:-1].strip()
    return item
