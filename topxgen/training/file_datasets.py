"""Pairs out of any table that has a column for each side, into memory or streamed.

A table is a jsonl, json, csv, tsv or parquet file, a folder with one for each split, what `datasets` saved to disk, an
export of ours, or a data set of the Hub.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from topxgen.common.errors import UsageError, reason
from topxgen.common.files import read_jsonl
from topxgen.corpora.benchmarks import hub_dataset, hub_name
from topxgen.corpora.tables import KINDS, csv_rows, language_of, lines, parquet_rows, read_json
from topxgen.text import languages
from topxgen.text.languages import Language
from topxgen.training.pairs import Pair

COLUMNS = ("source", "target", "src", "tgt", "group")
SAVED = "dataset"  # the folder in an export that `datasets` saved


@dataclass(frozen=True)
class ColumnMapping:
    """Which columns hold the sides, and the languages these are in where the rows do not say."""

    input_column: str
    output_column: str | None
    src: Language
    targets: tuple[Language, ...]

    def sides(self, columns: Collection[str]) -> tuple[str | None, str] | None:
        """The columns of source and target; (None, column) when one holds finished text; None when they are not there."""
        if self.output_column is not None:
            sides = (self.input_column, self.output_column)
            return sides if set(sides) <= set(columns) else None
        if {"source", "target"} <= set(columns):
            return "source", "target"
        return (None, self.input_column) if self.input_column in columns else None

    def lacking(self, columns: Collection[str], where: str) -> UsageError:
        sides = dict.fromkeys(filter(None, (self.input_column, self.output_column)))
        return UsageError(
            f"{where} has no column {' and '.join(side for side in sides if side not in columns)}, only "
            f"{', '.join(column[:40] for column in columns)}; name them with --input_column_name and "
            "--output_column_name, or call them source and target"
        )


class PairReader:
    """The pairs of a table's rows; a row with an empty side is counted under its direction and left out.

    Columns src and tgt, where there are any, tell the languages (English name or FLORES code), `group` what belongs
    together. Iterating raises UsageError naming the row whose sides are missing or no texts, or of unknown languages.
    """

    def __init__(self, rows: Iterable[dict], wanted: ColumnMapping, where: str, first: int = 1):
        """Raises UsageError when there is no row, or none of the columns that are wanted."""
        rows = iter(rows)
        head = next(rows, None)
        if head is None:
            raise UsageError(f"{where} is empty")
        sides = wanted.sides(head)
        if sides is None:
            raise wanted.lacking(head, where)
        self._rows, self._wanted, self._where, self._first = chain([head], rows), wanted, where, first
        self._source, self._target = sides
        self._tells = not {"src", "tgt"} & set(sides)  # SMOL has its texts in a column of that name
        self._names = {key: row.name for row in (wanted.src, *wanted.targets) for key in (row.name, row.flores)}
        self.counts: dict[str, Counter] = defaultdict(Counter)

    def __iter__(self) -> Iterator[Pair]:
        for number, row in enumerate(self._rows, start=self._first):
            try:
                source, target = self._text(row, self._source), self._text(row, self._target)
                src, tgt = self._languages(row, source)
            except UsageError as error:
                raise UsageError(f"{self._where}, row {number}: {error}") from None
            group = row.get("group")
            pair = Pair(source, target, src, tgt, f"row {number}" if group in (None, "") else str(group))
            counts = self.counts[pair.direction]
            counts["read"] += 1
            if target.strip() and (source.strip() or not src):
                yield pair
            else:
                counts["empty"] += 1

    @staticmethod
    def _text(row: dict, column: str | None) -> str:
        if column is None:
            return ""
        if column not in row:
            raise UsageError(f"no column {column}, only {', '.join(row)}")
        value = "" if row[column] is None else row[column]
        if not isinstance(value, str):
            raise UsageError(f"{column} holds {str(value)[:40]}, which is no text")
        return replace_surrogates(value)

    def _languages(self, row: dict, source: str) -> tuple[str, str]:
        if self._source is None:
            return "", ""
        told = [row.get("src"), row.get("tgt")] if self._tells else [None, None]
        if told == ["", ""] and not source:  # raw text, as an export has it
            return "", ""
        if not any(told):
            if len(self._wanted.targets) != 1:
                raise UsageError(
                    f"no columns src and tgt tell its languages: pass one language to --target_languages, not "
                    f"{len(self._wanted.targets)}"
                )
            return self._wanted.src.name, self._wanted.targets[0].name
        for name in told:
            if not name or not isinstance(name, str):
                raise UsageError(f"src and tgt are {told[0]!r} and {told[1]!r} instead of two languages")
            if name not in self._names:
                self._names[name] = languages.find(name).name
        return self._names[told[0]], self._names[told[1]]


def replace_surrogates(text: str) -> str:
    """Half a character, as JSON can hold it, becomes "?": neither Arrow nor a tokenizer takes it."""
    return text.encode("utf-8", "replace").decode("utf-8")


def local_rows(path: Path, split: str, wanted: ColumnMapping) -> tuple[list[Path], Iterator[dict]]:
    """The files of a table on disk, and its rows as they are asked for; `split` says which of a folder's tables.

    Raises UsageError when there is none, here or as the rows are read.
    """
    if path.is_file():
        return [path], _rows_of_file(path, wanted)
    if (path / "dataset_dict.json").is_file():
        splits = sorted(folder.name for folder in path.iterdir() if (folder / "state.json").is_file())
        if split not in splits:
            raise UsageError(f"{path} has no split {split!r}, only {', '.join(splits)}; pass --split")
        path = path / split
    if (path / "state.json").is_file():
        return sorted(path.glob("*.arrow")), _saved_rows(path, wanted)
    for kind in (".parquet", *KINDS):
        if (file := path / f"{split}{kind}").is_file():
            return [file], _rows_of_file(file, wanted)
    if (path / SAVED).is_dir():
        return local_rows(path / SAVED, split, wanted)
    directions = {file: file.name.removeprefix(f"{split}.").removesuffix(".src") for file in path.glob("*.src")}
    directions = {file: codes for file, codes in sorted(directions.items()) if re.fullmatch(r"\w+-\w+", codes)}
    if directions:
        files = [file.with_suffix(side) for file in directions for side in (".src", ".tgt")]
        return files, chain.from_iterable(_parallel_rows(file, codes) for file, codes in directions.items())
    there = ", ".join(sorted(file.name for file in path.iterdir())[:8]) or "nothing"
    raise UsageError(
        f"{path} holds no {split} set: no {split}{f', {split}'.join(KINDS)}, no {split}.eng_Latn-eus_Latn.src and .tgt, "
        f"nothing that `datasets` saved (there is {there}); pass a file, or --split"
    )


def _rows_of_file(path: Path, wanted: ColumnMapping) -> Iterator[dict]:
    kind = path.suffix.lower()
    if kind == ".jsonl":
        return read_jsonl(path)
    if kind == ".parquet":
        return parquet_rows(path)
    if kind == ".json":
        rows = read_json(path)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UsageError(f"{path} is no JSON list of objects; one object a line is .jsonl")
        return iter(rows)
    if kind in (".tsv", ".csv"):
        return _table_rows(path, wanted)
    raise UsageError(f"{path} is no {', '.join(KINDS[:-1])} or {KINDS[-1]} file")


def _table_rows(path: Path, wanted: ColumnMapping) -> Iterator[dict]:
    """Rows by the header; two columns of a TSV file that has none are source and target."""
    is_csv = path.suffix.lower() == ".csv"
    cells = csv_rows(path) if is_csv else enumerate((line.split("\t") for line in lines(path)), start=1)
    filled = ((number, row) for number, row in cells if row not in ([], [""]))
    number, header = next(filled, (0, None))
    if header is None:
        return
    if not wanted.sides(header):
        # "English" and "eus_Latn" are labels; "I speak English" is a text.
        if is_csv or any(map(language_of, header)) or len(header) != 2 or wanted.output_column is not None:
            raise wanted.lacking(header, str(path))
        filled, header = chain([(number, header)], filled), ["source", "target"]
    for number, row in filled:
        if len(row) != len(header):
            raise UsageError(f"{path}, line {number}: {len(row)} columns instead of {len(header)}")
        yield dict(zip(header, row, strict=True))


def _parallel_rows(path: Path, codes: str) -> Iterator[dict]:
    src, _, tgt = codes.partition("-")
    try:
        for source, target in zip(lines(path), lines(path.with_suffix(".tgt")), strict=True):
            yield {"source": source, "target": target, "src": src, "tgt": tgt}
    except ValueError:
        raise UsageError(f"{path} and {path.stem}.tgt have not the same number of lines") from None


def _saved_rows(path: Path, wanted: ColumnMapping) -> Iterator[dict]:
    import datasets

    try:
        data = datasets.load_from_disk(str(path))
    except Exception as error:  # of dozens of types; the cause is in the message
        raise UsageError(f"cannot read {path}: {reason(error)}") from None
    yield from dataset_rows(data, wanted)


def dataset_rows(data, wanted: ColumnMapping) -> Iterator[dict]:
    """The rows of a Dataset, which lies in files that are mapped into memory."""
    for batch in _select(data, wanted).with_format("arrow").iter(batch_size=4096):
        yield from batch.to_pylist()


def _select(data, wanted: ColumnMapping):
    """Without the columns that no pair comes from."""
    columns = data.column_names or list(next(iter(data), {}))
    if not wanted.sides(columns):
        return data
    return data.select_columns([name for name in columns if name in {*wanted.sides(columns), *COLUMNS}])


def stream_local(path: Path, split: str, wanted: ColumnMapping):
    """An IterableDataset of strings source, target, src, tgt; the first pair is read at once, to fail early."""
    import datasets

    if next(_records(path, split, wanted), None) is None:
        raise UsageError(f"{path} holds no pairs: in every row a side is empty")
    return datasets.IterableDataset.from_generator(
        _records, features=features(COLUMNS[:4]), gen_kwargs={"path": path, "split": split, "wanted": wanted}
    )


def _records(path: Path, split: str, wanted: ColumnMapping) -> Iterator[dict]:
    for pair in PairReader(local_rows(path, split, wanted)[1], wanted, str(path)):
        yield {column: getattr(pair, column) for column in COLUMNS[:4]}


def stream_hub(name: str, config: str | None, split: str, wanted: ColumnMapping):
    """The same of a data set of the Hub."""
    data = _select(hub_dataset(name, config, split, streaming=True), wanted)
    where = hub_name(name, config or "default", split)
    head = list(data.take(1))
    list(PairReader(head, wanted, where))
    return data.map(
        _records_of_batch,
        batched=True,
        with_indices=True,
        remove_columns=list(head[0]),
        features=features(COLUMNS[:4]),
        fn_kwargs={"wanted": wanted, "where": where},
    )


def _records_of_batch(batch: dict[str, list], indices: list[int], wanted: ColumnMapping, where: str) -> dict[str, list]:
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    pairs = list(PairReader(rows, wanted, where, first=indices[0] + 1))
    return {column: [getattr(pair, column) for pair in pairs] for column in COLUMNS[:4]}


def features(columns: Iterable[str]):
    """Of a data set whose columns are all strings."""
    import datasets

    return datasets.Features({column: datasets.Value("string") for column in columns})
