"""Files of a user's own: the columns of texts in them, and which column is in which language.

Your own benchmark is SOURCE or SOURCE:MAPPING. SOURCE is a file, a folder of files or a Hub data set (org/name
or org/name:config). Files end in .txt (one text a line), .tsv, .csv, .json, .jsonl or .parquet; any other file, in a
folder too, is an error. Cells of .tsv are read as they are, unless the file is quoted as CSV is. A file may end in a slice of
its lines: my.txt[:900], my.tsv[1000:]:Basque=2 (topxgen/corpora/slices.py).

MAPPING names the language of each column:

    my.tsv:Basque=2,English=3             .tsv and .csv: by number, from 1
    my.csv:Basque=target,English=source   by the name in the header, or the innermost key of .json, .jsonl and .parquet
    org/name:config:Basque=eu             the same for a Hub data set
    my.txt:Basque                         a source of one column

Languages are English names or FLORES codes. A language may be given several columns; columns that are not mapped are
ignored. With column numbers, the first row is text, unless it is a header as in 1 below, or names source and target or has
the ISO codes of the languages in these columns. A mapping of a folder applies to each file in it.

Without MAPPING the language of a text is read from

1. labels: a header row, or keys, of which at least one is a language, all of the label (Basque, eus_Latn); columns
   under other labels are ignored;
2. for a source of one column, names: that of the file (Hausa.txt, hau_Latn.jsonl), else of its folder below SOURCE,
   the nearest first (Hausa/dev.txt), or the config of a Hub data set (org/name:hau_Latn).

Letter case does not matter here, nor whether words are separated by spaces, "_", "-" or ".". A source whose languages
cannot be read in this way is an error, which shows how to write the mapping.
"""

import csv
import json
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from os.path import expanduser
from pathlib import Path

from topxgen.common.console import ONCE
from topxgen.common.errors import UsageError, did_you_mean, reason
from topxgen.common.files import encoding_hint, refuse_stand_in
from topxgen.corpora import quoting
from topxgen.corpora.slices import ALL, Slice, split_slice
from topxgen.text import languages
from topxgen.text.languages import Language

logger = logging.getLogger(__name__)

Column = tuple[str, list[tuple[str, str]]]  # label, (number of the line or row, text) of each row
# Labels of the columns of a parallel text that do not name languages: those of sources, and of translations.
ROLES = (("source", "src", "sentence"), ("target", "tgt", "reference", "ref", "translation"))
TABLE_SUFFIXES = (".tsv", ".csv", ".jsonl", ".json", ".parquet")  # files of several columns
SUFFIXES = (".txt", *TABLE_SUFFIXES)
PARQUET_ROWS = 4096  # of a batch; documents can be long
MAX_EXPANSION = 200  # how much more a file may hold than its bytes; text is packed to a third or a tenth
SMALL_BYTES = 1 << 28
BYTES_OF_ROW = 100  # in memory, at least


def split_source(name: str) -> tuple[Path, Slice, str]:
    """SOURCE, slice and MAPPING of a local SOURCE[slice][:MAPPING].

    SOURCE is what exists, a file whose name ends like a slice included, else what has a slice or ends like a file, else all
    of the name. Raises UsageError for a slice that cannot be.
    """
    cuts = [*(match.start() for match in re.finditer(":", name)), len(name)]
    sources = {cut: Path(expanduser(name[:cut])) for cut in cuts if name[:cut]}
    existing = [cut for cut, source in sources.items() if source.exists()][-1:]
    for cut in () if existing else sources:
        source, rows = split_slice(name[:cut])
        if source != name[:cut]:
            return Path(expanduser(source)), rows, name[cut + 1 :]
    like_files = [cut for cut, source in sources.items() if source.suffix.lower() in SUFFIXES]
    for cut in (*existing, *like_files):
        return sources[cut], ALL, name[cut + 1 :]
    return Path(expanduser(name)), ALL, ""


def parse_mapping(text: str, known: tuple[Language, ...] = ()) -> dict[str, list[str]]:
    """The columns of each language, by FLORES code; "" is the only column. {} for no mapping.

    Raises UsageError if `text` is not Language=column,Language=column with languages of the table or of `known`.
    """
    mapping: dict[str, list[str]] = {}
    for part in text.split(",") if text else ():
        name, equals, column = (word.strip() for word in part.partition("="))
        code = language_of(name, known)
        if not code or bool(equals) != bool(column):
            names = (row.name for row in (*languages.load().values(), *known))
            hint = "" if code else did_you_mean(name, names)
            raise UsageError(
                f"{part!r} in the mapping {text!r} is not Language=column{hint}; write, for example, "
                "my.tsv:Basque=2,English=3 or my.txt:Basque, with English names or FLORES codes"
            )
        mapping.setdefault(code, []).append(column)
    return mapping


def columns_in(
    language: Language,
    columns: list[Column],
    where: str,
    mapping: dict[str, list[str]],
    title: str = "",
    known: tuple[Language, ...] = (),
) -> list[Column]:
    """The columns in `language`, by the rules above; [] if all are in other languages.

    `where` is the file or data set, `title` its path below the source. Raises UsageError if there is no text, a mapped
    column does not exist, or the languages cannot be determined.
    """
    if mapping:
        chosen = [_column(columns, column, where) for column in mapping.get(language.flores, ())]
        if not all(rows for _, rows in chosen):
            raise UsageError(f"{where} is empty")
        return chosen
    columns = [(label, rows) for label, rows in columns if any(text.strip() for _, text in rows)]
    if not columns:
        raise UsageError(f"{where} is empty")
    codes = [language_of(label, known) for label, _ in columns]
    if not any(codes) and len(columns) == 1:
        names = (Path(title).stem, *reversed(Path(title).parent.parts))
        codes = [next(filter(None, (language_of(name, known) for name in names)), "")]
    if not any(codes):
        column = "" if len(columns) == 1 else "=COLUMN,English=COLUMN"
        raise UsageError(
            f"the language of {where} cannot be determined from its name or column labels ({_labels(columns)}); pass "
            f"{where}:{language.name}{column}"
        )
    return [column for column, code in zip(columns, codes, strict=True) if code == language.flores]


def _column(columns: list[Column], wanted: str, where: str) -> Column:
    """The column of that label or number; "" is the only one."""
    labels = [label for label, _ in columns]
    if labels.count(wanted) > 1:
        raise UsageError(f"{where} has {labels.count(wanted)} columns {wanted[:40]!r}; rename or remove the others")
    if wanted in labels:
        return columns[labels.index(wanted)]
    numbered = Path(where).suffix.lower() in (".txt", ".tsv", ".csv")  # others keep no order of columns
    if numbered and wanted.isdecimal() and 0 < int(wanted) <= len(columns):
        return columns[int(wanted) - 1]
    if not wanted and len(columns) == 1:
        return columns[0]
    what = f"no column {wanted}" if wanted else f"{len(columns)} columns"
    raise UsageError(
        f"{where} has {what} ({_labels(columns)}); name one as in {where}:Basque=COLUMN, or pass {where} alone if the columns "
        "are named after their languages"
    )


def _labels(columns: list[Column]) -> str:
    labels = [label[:40] for label, _ in columns[:8] if label] or ["no labels"]
    return ", ".join(labels + ["…"] * (len(columns) > 8))


def language_of(label: str, known: tuple[Language, ...] = ()) -> str:
    """The FLORES code of the language that `label` names, all of it, by English name or FLORES code; "" if it names none.

    `known` are languages besides those of the table.
    """
    return _codes_by_name(known).get(_normalized(label), "")


@cache
def _codes_by_name(known: tuple[Language, ...]) -> dict[str, str]:
    rows = (*languages.load().values(), *known)
    others = {_normalized(name): code for name, code in languages.other_names().items()}
    return others | {_normalized(name): row.flores for row in rows for name in (row.name, row.flores)}


def _normalized(name: str) -> str:
    return " ".join(name_parts(unicodedata.normalize("NFC", name).casefold())).strip()


def name_parts(name: str) -> list[str]:
    """A name or code at its separators: srp-Latn, dev.eus_Latn."""
    return re.split(r"[._/\s-]+", name)


def read_columns(
    path: Path,
    mapping: dict[str, list[str]] | None = None,
    known: tuple[Language, ...] = (),
    nulls: bool = False,
    part: Slice = ALL,
) -> list[Column]:
    """The columns of a file by its suffix, in `part` of its rows; a file that is none of TABLE_SUFFIXES has one, a text a line.

    The first row of .tsv and .csv holds labels if `mapping` names columns by label, or by is_header. `nulls`: null in JSON and
    parquet is an empty text, instead of no text. Raises UsageError when the file cannot be read or is not what its suffix says.
    """
    kind = path.suffix.lower()
    if kind in (".tsv", ".csv"):
        rows = list(csv_rows(path) if kind == ".csv" else tsv_rows(path))
        _refuse_other_separator(path, rows[:1], known)
        by_label = any(name and not name.isdecimal() for names in (mapping or {}).values() for name in names)
        labels = rows.pop(0)[1] if rows and (by_label or is_header(rows[0][1], known, mapping)) else []
        return _table(path, labels, list(part.of(rows, str(path))))
    content = parquet_rows(path) if kind == ".parquet" else read_json(path) if kind == ".json" else lines(path)
    numbered = enumerate(content if kind != ".json" or isinstance(content, list) else [content], start=1)
    if kind == ".jsonl":
        numbered = ((number, line) for number, line in numbered if line.strip())
    rows = list(part.of(numbered, str(path)))
    if kind not in TABLE_SUFFIXES:
        return [("", [(str(number), line) for number, line in rows])]
    if kind == ".jsonl":
        rows = [(number, _json(line, f"{path}, line {number}")) for number, line in rows]
    return _refuse_no_texts(path, rows, columns_of(rows, nulls), mapping, known)


def _refuse_other_separator(path: Path, first: list[tuple[int, list[str]]], known: tuple[Language, ...]) -> None:
    """Raise UsageError if the first row is one cell that is a header with another separator."""
    cells = first[0][1] if first else []
    for mark in ",;\t|" if len(cells) == 1 else "":
        parts = [part.strip(' "') for part in cells[0].split(mark)]
        if len(parts) > 1 and is_header(parts, known):
            shown = "a tab" if mark == "\t" else repr(mark)
            raise UsageError(
                f"{path}: cells are separated by {shown}, which is not read in {path.suffix}; write .tsv with tabs, or .csv with commas"
            )


def is_header(cells: list[str], known: tuple[Language, ...] = (), mapping: dict[str, list[str]] | None = None) -> bool:
    """Whether a cell is a language, two are ROLES of both sides, or those that `mapping` numbers are all ROLES or ISO codes of
    their languages."""
    words, roles = [cell.strip().casefold() for cell in cells], {role for side in ROLES for role in side}
    if any(language_of(cell, known) for cell in cells) or all(not set(side).isdisjoint(words) for side in ROLES):
        return True
    codes = {row.flores: {row.iso639_1, row.iso639_3} for row in (*languages.load().values(), *known)}
    numbered = [(code, int(n)) for code, names in (mapping or {}).items() for n in names if n.isdecimal()]
    labels = [words[n - 1] in roles | codes[code] - {""} for code, n in numbered if 0 < n <= len(words)]
    return bool(labels) and all(labels)


def _table(path: Path, labels: list[str], rows: list[tuple[int, list[str]]]) -> list[Column]:
    """Raises UsageError for a row with more texts than the first: one that holds a separator would be cut there."""
    width = max((len(row) for _, row in rows), default=0)
    first = len(labels) or next((len(row) for _, row in rows if row not in ([], [""])), 0)
    for number, row in rows:
        if any(cell.strip() for cell in row[first:]):
            raise UsageError(
                f"{path}, line {number}: {len(row)} columns instead of {first}; quote cells that hold a separator"
            )
    labels = [*labels, *(f"column {i + 1}" for i in range(len(labels), width))]
    return [
        (label, [(str(number), row[i] if i < len(row) else "") for number, row in rows])
        for i, label in enumerate(labels)
    ]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises UsageError when it cannot be read."""
    return list(lines(path))


def lines(path: Path) -> Iterator[str]:
    """The same one by one: LF or CR LF ends a line, or CR in a file without LF. Other breaks inside a sentence would shift all
    that follow."""
    try:
        refuse_stand_in(path)
        with open(path, "rb") as file:
            if b"\0" in file.read(1 << 12):
                raise UsageError(f"cannot read {path}{encoding_hint(path)}")
            file.seek(0)
            newline = "\n" if any(b"\n" in block for block in iter(lambda: file.read(1 << 20), b"")) else "\r"
        with open(path, encoding="utf-8-sig", newline=newline) as file:
            for line in file:
                yield line.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read {path}{encoding_hint(path) or f': {error}'}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error}") from None


def read_json(path: Path):
    """The content of a JSON file. Raises UsageError when it cannot be read."""
    return _json("\n".join(read_lines(path)), str(path))


def _json(text: str, where: str):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON: {error}") from None


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file, one by one, each with the number of its first line. Raises UsageError."""
    quoting.refuse_other_quoting(path, lines(path), ",")
    reader = csv.reader((line + "\n" for line in lines(path)), strict=True, skipinitialspace=True)
    first = 1
    try:
        for row in reader:
            yield first, row
            first = reader.line_num + 1  # a quoted cell may span several lines
    except csv.Error as error:
        what = "a CR is in a cell that is not quoted" if "new-line" in str(error) else error
        raise UsageError(
            f"{path}, line {reader.line_num}: {what}; quote the cell, or convert the file to .jsonl"
        ) from None


def tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a TSV file, one by one, each with the number of its first line.

    Cells are read as they are, unless the file is quoted as CSV is (by pandas, Excel). Raises UsageError if then a cell with a
    quotation mark is not quoted.
    """
    read = partial(lines, path)
    if quoting.is_quoted(path, read):
        return quoting.quoted_rows(path, read())
    return ((number, line.split("\t")) for number, line in enumerate(lines(path), start=1))


def _refuse_no_texts(
    path: Path,
    rows: list[tuple[int, object]],
    columns: list[Column],
    mapping: dict[str, list[str]] | None,
    known: tuple[Language, ...],
) -> list[Column]:
    """`columns`, if no row is of another type than the others, and all values in a language's column are texts or null.

    columns_of passes over others, such as metadata. A text lost in this way from an evaluation set is an overlap not seen.
    """
    mapped = {name for names in (mapping or {}).values() for name in names if name}
    only = columns[0][0] if len(columns) == 1 else None
    none = (None, []) if path.suffix.lower() == ".parquet" else (None,)

    @cache
    def holds_texts(label: str) -> bool:
        return label == only or (label in mapped if mapping else bool(language_of(label, known)))

    unit = "line" if path.suffix.lower() == ".jsonl" else "item"
    usual = Counter(type(row) for _, row in rows).most_common(1)
    for number, row in rows:
        if type(row) is not usual[0][0]:
            raise UsageError(
                f"{path}, {unit} {number}: {_shown(row)} where other rows are of type {usual[0][0].__name__}; remove it"
            )
    for number, row in rows:
        for label, value in _values(row):
            is_list = bool(value) and isinstance(value, (list, tuple))
            if holds_texts(label) and not (is_list or isinstance(value, str) or value in none):
                raise UsageError(
                    f"{path}, {unit} {number}: {label} is {_shown(value)}, not a text; null stands for no text"
                )
    for label, texts in columns:
        without = len(rows) - len({place.split(".")[0] for place, text in texts if text.strip()})
        if holds_texts(label) and without:
            logger.info(f"{path}: {without} of {len(rows)} rows have no text in {label or 'their column'}", extra=ONCE)
    return columns


def _values(row: object) -> Iterator[tuple[str, object]]:
    """What is in a row at any depth, with the key of the mapping that it is in; a mapping or list before what it holds."""
    stack = [("", row)]
    while stack:
        label, value = stack.pop()
        yield label, value
        if isinstance(value, dict):
            stack += [(str(key), item) for key, item in value.items()]
        elif isinstance(value, (list, tuple)):
            stack += [(label, item) for item in value]


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)  # parquet has bytes and dates
    return text if len(text) <= 40 else f"{text[:40]}..."


def parquet_rows(path: Path, columns: Sequence[str] = ()) -> Iterator[dict]:
    """The rows of a parquet file, with one batch of them in memory at a time. Raises UsageError.

    Only `columns` are read, if there are any and the first one exists.
    """
    from pyarrow import parquet

    with readable(path):
        refuse_stand_in(path)
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise UsageError(
                    f"{path} has {names.count(twice[0])} columns {twice[0][:40]!r}; rename or remove the others"
                )
            _check_rows(path, file.metadata)
            chosen = [name for name in columns if name in names] if columns and columns[0] in names else None
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=chosen):
                yield from arrow_rows(batch)


def _check_rows(path: Path, metadata) -> None:
    """Raise UsageError for a footer whose numbers of rows differ, and for a small file that would fill the memory: repetitions without
    end, or rows without contents."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    if (rows := sum(group.num_rows for group in groups)) != metadata.num_rows:  # fewer could be read than there are
        raise UsageError(
            f"{path} is damaged: its footer says {metadata.num_rows:,} rows, but its row groups have {rows:,}; write it again"
        )
    size, packed = sum(group.total_byte_size for group in groups), path.stat().st_size
    size = max(size, metadata.num_rows * BYTES_OF_ROW)
    if size > MAX_EXPANSION * packed and size > SMALL_BYTES:
        raise UsageError(
            f"{path} would expand from {packed / 1e6:,.1f} MB to {size / 1e6:,.0f} MB ({metadata.num_rows:,} rows): no text is that repetitive; "
            "if it is meant, write its rows to another file, or as JSONL"
        )


@contextmanager
def readable(name: object) -> Iterator[None]:
    """A block that reads `name`: whatever damage makes Arrow raise is a UsageError."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # no date, no UTF-8, no memory, a connection that ends
        raise UsageError(f"cannot read {name}: {reason(error)}") from None


def arrow_rows(table) -> list[dict]:
    """The rows of an Arrow batch or table. What many rows have of a dictionary is one object: it may be large."""
    columns = {}
    for name, column in zip(table.schema.names, table.columns, strict=True):
        if getattr(column.type, "index_type", None) is not None and not hasattr(column, "chunks"):
            values = column.dictionary.to_pylist()
            columns[name] = [None if i is None else values[i] for i in column.indices.to_pylist()]
        else:
            columns[name] = column.to_pylist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def columns_of(rows: Iterable[tuple[int, object]], nulls: bool = False) -> list[Column]:
    """All strings of numbered objects, however deep in lists and objects, by the innermost key. `nulls`: see read_columns."""
    columns: dict[str, dict[str, str]] = {}

    def collect(label: str, place: str, value: object) -> None:
        if isinstance(value, str) or (nulls and value is None):
            column = columns.setdefault(label, {})
            while place in column:  # the key is in another object, too
                place += ".1"
            column[place] = value or ""
        elif isinstance(value, dict):
            for key, inner in value.items():
                collect(str(key), place, inner)
        elif isinstance(value, (list, tuple)):  # parquet's maps are lists of pairs
            for i, inner in enumerate(value, start=1):
                collect(label, f"{place}.{i}", inner)

    for number, row in rows:
        collect("", str(number), row)
    return [(label, list(texts.items())) for label, texts in columns.items()]
