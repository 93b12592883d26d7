"""Slices of local text sources: `texts.txt[:900]` is the first 900 lines, `texts.txt[1000:]` all but the first 1,000.

Lines are counted from 0, empty ones too, and the last number is not part of the slice, as in Python and in the splits of the
Hub. In tables and JSON, rows are counted, a header not. Unlike there, numbers of lines that do not exist are an error, not
fewer lines: a test set that is silently shorter is a wrong number. So are empty and reversed slices, negative numbers (a
file that grows would shift them, and a stream has no end to count from) and steps.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from topxgen.common.errors import UsageError

T = TypeVar("T")
_SLICE = re.compile(r"(?s:(.+))\[([-\d:\s]*)\]")


class Slice(NamedTuple):
    """Lines `start` to `stop` - 1 (None: the last), counted from 0."""

    start: int = 0
    stop: int | None = None

    def __str__(self) -> str:
        """As on the command line; "" for all lines."""
        return f"[{self.start or ''}:{'' if self.stop is None else self.stop}]" if self != ALL else ""

    def of(self, rows: Iterable[T], where: str) -> Iterator[T]:
        """The rows in the slice, read no further than its end. Raises UsageError, after the last, if `where` has too few."""
        number = 0
        for number, row in enumerate(rows, start=1):
            if number > self.start:
                yield row
            if number == self.stop:
                return
        if self.stop is not None or 0 < self.start >= number:
            raise UsageError(f"{where}{self} goes beyond the end: {where} has {number} lines")


ALL = Slice()


def split_slice(name: str) -> tuple[str, Slice]:
    """The source and the slice of `source[start:stop]`; any other name is a source. Raises UsageError for a slice that cannot be."""
    match = _SLICE.fullmatch(name)
    if match is None:
        return name, ALL
    source, text = match.groups()
    bounds = re.fullmatch(r"([0-9]{0,18}):([0-9]{0,18})", text)
    if bounds is None:
        raise UsageError(
            f"{name}: {text!r} is no slice: write [start:stop] with numbers of lines from 0, such as {source}[:900] or "
            f"{source}[1000:]; negative numbers and steps are not supported"
        )
    part = Slice(int(bounds[1] or 0), int(bounds[2]) if bounds[2] else None)
    if part.stop is not None and part.stop <= part.start:
        raise UsageError(f"{name} is empty: it ends at line {part.stop}, before its first, {part.start}")
    return source, part
