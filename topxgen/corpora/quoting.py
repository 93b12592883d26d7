"""How the cells of a table are quoted: as CSV has it, not at all, or in a way that is not read."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from topxgen.common.errors import UsageError

_QUOTED_CELL = re.compile(r'"([^"]*(?:""[^"]*)*)"')
_MARK = re.compile(r'\\?"')
_MARK_IN_CSV = re.compile(r'\\"(?!"|\Z)|""')  # others are ends of cells, which split at the comma may be in two
_TSV_CELL = re.compile(rf'(?:{_QUOTED_CELL.pattern}|([^"\t]*))(?=\t|\Z)')
_SINGLE_QUOTED = re.compile(r"(?!'''.*'''\Z)'(?:[^']|'')*''(?:[^']|'')*'")  # but for '''bold type''' of wikis


def refuse_other_quoting(path: Path, lines: Iterator[str], separator: str) -> None:
    """Raise UsageError if all quotation marks in cells have a backslash before them, or if a cell is quoted by single quotes, those
    in it doubled: the text would be read with them."""
    escaped: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        for cell in line.split(separator) if "''" in line or '"' in line else ():
            if _SINGLE_QUOTED.fullmatch(cell):
                raise UsageError(
                    f"{path}, line {number}: {cell[:40]} is quoted by single quotes, which are not read; write double quotes (pandas: "
                    "quotechar='\"'), or convert the file to .jsonl"
                )
            marks = _MARK if separator == "\t" else _MARK_IN_CSV
            for mark in marks.findall(cell[1:-1] if cell[:1] == cell[-1:] == '"' else cell):
                escaped.setdefault(mark, number)
    if escaped.keys() == {'\\"'}:
        raise UsageError(
            f"{path}, line {escaped.popitem()[1]}: a backslash escapes a quotation mark, as R and Spark write it; write quotation marks as they "
            'are, or doubled (R: qmethod = "double"), or convert the file to .jsonl'
        )


def is_quoted(path: Path, read: Callable[[], Iterator[str]]) -> bool:
    """Whether the cells of a TSV file are quoted as in CSV, rather than holding quotation marks of their texts: a quoted cell
    has quotation marks doubled or a CR, all cells of a column (but a header) are quoted, those with commas are (as by Excel), or a
    quoted cell holds a tab or line feed. Raises UsageError if it
    is quoted in another way."""
    refuse_other_quoting(path, read(), "\t")
    quoted, bare, widths, with_comma = Counter(), set(), set(), set()
    for number, line in enumerate(read(), start=1):
        cells = line.split("\t")
        if line:
            widths.add(len(cells))
        for i, cell in enumerate(cells):
            is_quoted = cell.startswith('"') and _QUOTED_CELL.fullmatch(cell)
            with_comma.add((bool(is_quoted), "," in cell))
            if is_quoted:
                if '""' in cell[1:-1] or "\r" in cell:
                    return True
                quoted[i] += 1
                continue
            if cell and number > 1:
                bare.add(i)
    if any(count > 1 and i not in bare for i, count in quoted.items()):
        return True
    if quoted.total() > 1 and not with_comma & {(True, False), (False, True)}:
        return True
    try:
        return len(widths) > 1 and len({len(row) for _, row in quoted_rows(path, read()) if row != [""]}) == 1
    except UsageError:
        return False


def quoted_rows(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    numbered = enumerate(lines, start=1)
    for first, line in numbered:
        while line.count('"') % 2:  # a quoted cell may span several lines
            _, following = next(numbered, (0, None))
            if following is None:
                break
            line += f"\n{following}"
        cells, start = [], 0
        while start <= len(line):
            match = _TSV_CELL.match(line, start)
            if match is None:
                cell = re.split(r"[\t\n]", line[start:])[0]
                raise UsageError(
                    f"{path}, line {first}: {cell[:40]!r} has a quotation mark but is not quoted as "
                    'other cells are, as in CSV ("a ""b"" c"); quote all cells that have one, or convert the file to .jsonl'
                )
            quoted, plain = match.groups()
            cells.append(plain if quoted is None else quoted.replace('""', '"'))
            start = match.end() + 1
        yield first, cells
