"""Texts out of files of any kind, as columns; and which language a file's or a column's name tells."""

import csv
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from topxgen.common.errors import UsageError, reason
from topxgen.text import languages
from topxgen.text.languages import Language

Column = tuple[str, list[tuple[str, str]]]  # label, (number of the line or row, text) of each row
# What columns may be called where they do not name languages: those of sources, and of translations.
ROLES = (("source", "src", "sentence"), ("target", "tgt", "reference", "translation"))
KINDS = (".tsv", ".csv", ".jsonl", ".json", ".parquet")  # any other file holds one text a line


def read_columns(path: Path, nulls: bool = False) -> list[Column]:
    """The columns of a file by its suffix; all rows of a table, as any but a header that names languages may be text.

    `nulls`: null in JSON and parquet is an empty text, instead of none at all.
    Raises UsageError when the file cannot be read or is not what its suffix says.
    """
    kind = path.suffix.lower()
    if kind == ".csv":
        return _table(list(csv_rows(path)))
    if kind == ".json":
        content = read_json(path)
        return columns_of(enumerate(content if isinstance(content, list) else [content], start=1), nulls)
    if kind == ".parquet":
        return columns_of(enumerate(parquet_rows(path), start=1), nulls)
    numbered = list(enumerate(read_lines(path), start=1))
    if kind == ".tsv":
        return _table([(number, line.split("\t")) for number, line in numbered])
    if kind == ".jsonl":
        records = ((number, _json(line, f"{path}, line {number}")) for number, line in numbered if line.strip())
        return columns_of(records, nulls)
    return [("", [(str(number), line) for number, line in numbered])]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises UsageError when it cannot be read."""
    return list(lines(path))


def lines(path: Path) -> Iterator[str]:
    """The same one by one, split at line feeds only: other breaks inside a sentence would shift all that follow."""
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for line in file:
                yield line.removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None


def read_json(path: Path):
    """What a JSON file holds. Raises UsageError when it cannot be read."""
    return _json("\n".join(read_lines(path)), str(path))


def _json(text: str, where: str):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON: {error}") from None


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file, one by one, each with the number of its first line. Raises UsageError."""
    reader = csv.reader((line + "\n" for line in lines(path)), strict=True)
    first = 1
    try:
        for row in reader:
            yield first, row
            first = reader.line_num + 1  # a quoted cell may go over several lines
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}") from None


def parquet_rows(path: Path) -> Iterator[dict]:
    """The rows of a parquet file, a row group's batch in memory at a time. Raises UsageError."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise UsageError(f"cannot read {path}: {reason(error)}") from None


def _table(rows: list[tuple[int, list[str]]]) -> list[Column]:
    header = rows[0][1] if rows else []
    # "Basque" and "English text" are labels, and so are source and target; "I speak English" is a text.
    named = all(len(cell.split()) <= 2 for cell in header) and any(map(languages_named, header))
    if named or (len(header) > 1 and {cell.strip() for cell in header} <= {role for side in ROLES for role in side}):
        rows = rows[1:]
    else:
        header = []
    width = max((len(row) for _, row in rows), default=0)
    labels = [*header, *(f"column {i + 1}" for i in range(len(header), width))]
    return [
        (label, [(str(number), row[i] if i < len(row) else "") for number, row in rows])
        for i, label in enumerate(labels)
    ]


def columns_of(rows: Iterable[tuple[int, object]], nulls: bool = False) -> list[Column]:
    """All strings of numbered objects, however deep in lists and objects, by the innermost key. `nulls`: see read_columns."""
    columns: dict[str, list[tuple[str, str]]] = {}

    def collect(label: str, place: str, value: object) -> None:
        if isinstance(value, str) or (nulls and value is None):
            columns.setdefault(label, []).append((place, value or ""))
        elif isinstance(value, dict):
            for key, inner in value.items():
                collect(str(key), place, inner)
        elif isinstance(value, (list, tuple)):  # parquet's maps are lists of pairs
            for i, inner in enumerate(value, start=1):
                collect(label, f"{place}.{i}", inner)

    for number, row in rows:
        collect("", str(number), row)
    return list(columns.items())


def languages_of_title(title: str, mine: Language) -> set[str]:
    """FLORES codes of the languages that the path of a file tells: by FLORES code anywhere in it, or by an English name
    that is all of the name of a folder or the file ("Basque/test.txt", but not "from_basque.txt")."""
    found, path = languages_named(title, mine, codes_only=True), Path(title)
    for part in (*path.parent.parts, path.stem):
        found |= _names(mine)[0].get(" ".join(_parts(part)), set())
    return found


def languages_named(name: str, mine: Language | None = None, codes_only: bool = False) -> set[str]:
    """FLORES codes of the languages that a name of a file or column tells, by FLORES code or (unless `codes_only`)
    English name.

    Names count as whole parts, as in dev_eus_Latn.txt and "Basque sentence". `mine` joins the built-in table.
    """
    names, longest = _names(mine, codes_only)
    words = _parts(name)
    found: set[str] = set()
    while words:
        # The longest first, so that "Modern Standard Arabic (Romanized)" is one language.
        count = next((n for n in range(longest, 0, -1) if " ".join(words[:n]) in names), 0)
        found.update(names.get(" ".join(words[:count]), ()))
        words = words[count or 1 :]
    return found


@cache
def _names(mine: Language | None, codes_only: bool = False) -> tuple[dict[str, set[str]], int]:
    """FLORES codes by name, and the most words of a name."""
    names: dict[str, set[str]] = {}
    for row in (*languages.load().values(), *filter(None, [mine])):
        for name in (row.flores,) if codes_only else (row.name, row.flores):
            names.setdefault(" ".join(_parts(name)), set()).add(row.flores)
    return names, max(len(name.split()) for name in names)


def _parts(name: str) -> list[str]:
    return name_parts(unicodedata.normalize("NFC", name).casefold())


def name_parts(name: str) -> list[str]:
    """A name or code at its separators: srp-Latn, dev.eus_Latn."""
    return re.split(r"[._/\s-]+", name)
