"""Pairs from any table with a column for each side, read into memory or streamed.

A table is a jsonl, json, csv, tsv or parquet file, a folder with one for each split, a folder that `datasets` saved, an
export (see export.py), or a data set on the Hub.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from os.path import expanduser
from pathlib import Path

from topxgen.common.errors import UsageError, unknown_choice
from topxgen.common.files import read_jsonl
from topxgen.common.hub import hub_call
from topxgen.common.records import replace_surrogates
from topxgen.corpora import hub_sets, tables
from topxgen.text import languages
from topxgen.text.words import is_blank
from topxgen.training.dataset_spec import INPUT_COLUMN, DatasetSpec
from topxgen.training.named_datasets import NAMED
from topxgen.training.pairs import Pair

PAIR_COLUMNS = ("source", "target", "src", "tgt", "group")
STREAM_COLUMNS = PAIR_COLUMNS[:4]  # a stream is split by its order, not by groups
SAVED_DATASET = "dataset"  # the folder of an export that `datasets` loads


def missing_columns(spec: DatasetSpec, columns: Collection[str], where: str) -> UsageError:
    wanted = dict.fromkeys(filter(None, (spec.input_column_name or INPUT_COLUMN, spec.output_column_name)))
    return UsageError(
        f"{where} has no column {' and '.join(name for name in wanted if name not in columns)}, only "
        f"{', '.join(column[:40] for column in columns)}; name them with --input_column_name and "
        "--output_column_name, or call them source and target"
    )


class PairReader:
    """The pairs in the rows of a table. A row with an empty side is counted under its direction and skipped.

    Columns src and tgt, if there are any, name the languages (English name or FLORES code); `group` is the pair's group.
    Iterating raises UsageError, naming the row, for a missing text, a value that is not a text and an unknown language.
    """

    def __init__(self, rows: Iterable[dict], where: str, spec: DatasetSpec):
        """Raises UsageError if there are no rows or no columns of texts; `where` names the table in messages."""
        rows = iter(rows)
        head = next(rows, None)
        if head is None:
            raise UsageError(f"{where} is empty")
        text_columns = spec.text_columns(head)
        if text_columns is None:
            raise missing_columns(spec, head, where)
        self._rows, self._spec, self._where = chain([head], rows), spec, where
        self._source, self._target = text_columns
        self._has_languages = not {"src", "tgt"} & set(text_columns)  # in SMOL, src is the column of the source text
        self._names = {key: row.name for row in (spec.src, *spec.target_languages) for key in (row.name, row.flores)}
        self.counts: dict[str, Counter] = defaultdict(Counter)

    def __iter__(self) -> Iterator[Pair]:
        for number, row in enumerate(self._rows, start=1):
            try:
                source, target = self._text(row, self._source), self._text(row, self._target)
                src, tgt = self._languages(row, source)
            except UsageError as error:
                raise UsageError(f"{self._where}, row {number}: {error}") from None
            group = row.get("group")
            pair = Pair(source, target, src, tgt, f"row {number}" if group in (None, "") else str(group))
            counts = self.counts[pair.direction]
            counts["read"] += 1
            if not is_blank(target) and not (src and is_blank(source)):
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
            raise UsageError(f"{column} holds {str(value)[:40]}, which is not a text")
        return replace_surrogates(value)

    def _languages(self, row: dict, source: str) -> tuple[str, str]:
        """Language names of source and target; "" for raw text."""
        if self._source is None:
            return "", ""
        names = [row.get("src"), row.get("tgt")] if self._has_languages else [None, None]
        if names == ["", ""] and not source:  # raw text in an export
            return "", ""
        if not any(names):
            if len(self._spec.target_languages) != 1:
                raise UsageError(
                    "no columns src and tgt name its languages: pass one language to --target_languages, not "
                    f"{len(self._spec.target_languages)}"
                )
            return self._spec.src.name, self._spec.target_languages[0].name
        for name in names:
            if not name or not isinstance(name, str):
                raise UsageError(f"src and tgt are {names[0]!r} and {names[1]!r} instead of two languages")
            if name not in self._names:
                self._names[name] = self._language(name)
        return self._names[names[0]], self._names[names[1]]

    def _language(self, name: str) -> str:
        """The language of that name. Raises UsageError if the command asks for others."""
        language, spec = languages.find(name, self._spec.languages_file), self._spec
        if spec.target_languages and language not in (spec.src, *spec.target_languages):
            raise UsageError(
                f"{language.name} is not among --src and --target_languages; add it, or drop --target_languages to train on all "
                "languages of the table"
            )
        return language.name


def open_rows(spec: DatasetSpec, hub_data=None) -> tuple[list[Path], Iterator[dict], str]:
    """(local files, rows, name for messages) of a table; `hub_data`, if it was loaded from the Hub before.

    Raises UsageError, at once or on iteration, if there is no such table or it cannot be read.
    """
    name, split = spec.dataset_name_or_path, spec.split or "train"
    if (path := local_path(name)) is not None:
        return *_local_rows(path, split, spec), str(path)
    hub_data = hub_sets.dataset(name, spec.subset, split) if hub_data is None else hub_data
    return [], _dataset_rows(hub_data, spec), hub_sets.source(name, spec.subset or "default", split)


def local_path(name: str) -> Path | None:
    """The path that --dataset_name_or_path names; None if it is a Hub id. Raises UsageError if it is neither."""
    path = Path(expanduser(name))
    if name and path.exists():
        return path
    if path.suffix.lower() not in tables.TABLE_SUFFIXES and re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
        return None
    if "/" in name or path.suffix.lower() in tables.TABLE_SUFFIXES:
        raise UsageError(f"--dataset_name_or_path {path}: no such file or folder")
    raise unknown_choice(
        "--dataset_name_or_path", name, NAMED, ", or pass a file, a folder, or a Hub id such as org/name"
    )


def _local_rows(path: Path, split: str, spec: DatasetSpec) -> tuple[list[Path], Iterator[dict]]:
    """The files of a table on disk, and its rows, read on iteration; `split` names one of a folder's tables."""
    if path.is_file():
        return [path], _rows_of_file(path, spec)
    if (path / "dataset_dict.json").is_file():
        splits = sorted(folder.name for folder in path.iterdir() if (folder / "state.json").is_file())
        if split not in splits:
            raise UsageError(f"{path} has no split {split!r}, only {', '.join(splits)}; pass --split")
        path = path / split
    if (path / "state.json").is_file():
        return sorted(path.glob("*.arrow")), _saved_rows(path, spec)
    for suffix in (".parquet", *tables.TABLE_SUFFIXES):
        if (file := path / f"{split}{suffix}").is_file():
            return [file], _rows_of_file(file, spec)
    if (path / SAVED_DATASET).is_dir():
        return _local_rows(path / SAVED_DATASET, split, spec)
    codes = {file: file.name.removeprefix(f"{split}.").removesuffix(".src") for file in sorted(path.glob("*.src"))}
    codes = {file: pair for file, pair in codes.items() if re.fullmatch(r"\w+-\w+", pair)}
    if codes:
        files = [file.with_suffix(side) for file in codes for side in (".src", ".tgt")]
        return files, chain.from_iterable(_parallel_rows(file, pair) for file, pair in codes.items())
    content = ", ".join(sorted(file.name for file in path.iterdir())[:8]) or "nothing"
    raise UsageError(
        f"{path} holds no {split} set: no {split}{f', {split}'.join(tables.TABLE_SUFFIXES)}, no {split}.eng_Latn-eus_Latn.src and .tgt, "
        f"nothing that `datasets` saved, but {content}; pass a file, or --split"
    )


def _rows_of_file(path: Path, spec: DatasetSpec) -> Iterator[dict]:
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return read_jsonl(path)
    if suffix == ".parquet":
        return tables.parquet_rows(path)
    if suffix == ".json":
        rows = tables.read_json(path)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UsageError(f"{path} is not a JSON list of objects; name a file with one object per line .jsonl")
        return iter(rows)
    if suffix in (".tsv", ".csv"):
        return _table_rows(path, spec)
    raise UsageError(f"{path} is not a {', '.join(tables.TABLE_SUFFIXES[:-1])} or {tables.TABLE_SUFFIXES[-1]} file")


def _table_rows(path: Path, spec: DatasetSpec) -> Iterator[dict]:
    """Rows by the header; the two columns of a TSV file without one are source and target."""
    is_csv = path.suffix.lower() == ".csv"
    rows = tables.csv_rows(path) if is_csv else tables.tsv_rows(path)
    rows = ((number, row) for number, row in rows if row not in ([], [""]))
    number, header = next(rows, (0, None))
    if header is None:
        return
    if not spec.text_columns(header):
        # "English", "eus_Latn", "Source" and "en" are labels; "I speak English" is a text.
        sides = {spec.src.flores: ["1"]} | {language.flores: ["2"] for language in spec.target_languages[:1]}
        if is_csv or tables.is_header(header, mapping=sides) or len(header) != 2 or spec.output_column_name is not None:
            raise missing_columns(spec, header, str(path))
        rows, header = chain([(number, header)], rows), ["source", "target"]
    if twice := [name for name in spec.text_columns(header) or () if header.count(name) > 1]:
        raise UsageError(f"{path} has {header.count(twice[0])} columns {twice[0][:40]!r}; rename or remove the others")
    for number, row in rows:
        if len(row) != len(header):
            raise UsageError(f"{path}, line {number}: {len(row)} columns instead of {len(header)}")
        yield dict(zip(header, row, strict=True))


def _parallel_rows(path: Path, codes: str) -> Iterator[dict]:
    src, _, tgt = codes.partition("-")
    try:
        for source, target in zip(tables.lines(path), tables.lines(path.with_suffix(".tgt")), strict=True):
            yield {"source": source, "target": target, "src": src, "tgt": tgt}
    except ValueError:
        raise UsageError(f"{path} and {path.stem}.tgt do not have the same number of lines") from None


def _saved_rows(path: Path, spec: DatasetSpec) -> Iterator[dict]:
    import datasets

    yield from _dataset_rows(hub_call(str(path), lambda: datasets.load_from_disk(str(path))), spec)


def _dataset_rows(data, spec: DatasetSpec) -> Iterator[dict]:
    """The rows of a datasets.Dataset or IterableDataset, in batches, without columns that pairs do not need."""
    columns = data.column_names or list(next(iter(data), {}))
    if text_columns := spec.text_columns(columns):
        data = data.select_columns([name for name in columns if name in {*text_columns, *PAIR_COLUMNS}])
    with tables.readable(spec.dataset_name_or_path):
        for batch in data.with_format("arrow").iter(batch_size=4096):
            yield from batch.to_pylist()


def stream(spec: DatasetSpec):
    """A datasets.IterableDataset of strings source, target, src, tgt; the first pair is read now, to fail early."""
    import datasets

    name, hub_data = spec.dataset_name_or_path, None
    if local_path(name) is None:
        hub_data = hub_sets.dataset(name, spec.subset, spec.split or "train", streaming=True)
    options = {"spec": spec, "hub_data": hub_data}
    if next(_stream_records(**options), None) is None:
        raise UsageError(f"{name} holds no pairs: every row has an empty side")
    return datasets.IterableDataset.from_generator(
        _stream_records, features=features(STREAM_COLUMNS), gen_kwargs=options
    )


def _stream_records(spec: DatasetSpec, hub_data) -> Iterator[dict]:
    for pair in PairReader(*open_rows(spec, hub_data)[1:], spec):
        yield {column: getattr(pair, column) for column in STREAM_COLUMNS}


def features(columns: Iterable[str]):
    """datasets.Features of string columns."""
    import datasets

    return datasets.Features({column: datasets.Value("string") for column in columns})
