"""Responses of a model into texts: a template names the format as its `answer`."""

import re

from topxgen.common.lines import unix_lines

# "1. ", "2) ", "**3.** ": a number that opens a line; \d takes the digits of every script.
_MARKER = re.compile(r"^[ \t]*[*#_]{0,3}[ \t]*(\d{1,3})[.)]+[*_]{0,3}(?=\s|$)", re.MULTILINE)


def numbered_texts(response: str, n: int) -> list[str] | None:
    """The `n` texts of a list numbered 1 to n, line breaks turned into spaces; None if it has not exactly n, none empty.

    Only the next number of the list begins a text: a line may begin with a year or an ordinal ("20. mendean").
    """
    response, markers = unix_lines(response), []
    for marker in _MARKER.finditer(response):
        if int(marker.group(1)) == len(markers) + 1:
            markers.append(marker)
    if len(markers) != n:
        return None
    ends = [marker.start() for marker in markers[1:]] + [len(response)]
    texts = [_one_line(response[marker.end() : end]) for marker, end in zip(markers, ends, strict=True)]
    return texts if all(texts) else None


def whole_text(response: str, n: int = 1) -> list[str] | None:
    """The whole response as one text, as a base model continues a document; None if it is empty."""
    text = _one_line(response)
    return [text] if text else None


def _one_line(text: str) -> str:
    return " ".join(text.split())


PARSERS = {"numbered": numbered_texts, "text": whole_text}
