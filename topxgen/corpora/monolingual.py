"""Texts in one language, of any number: read one by one from a file, a folder or the Hub, and never held in memory.

A source is FILE[slice][:column], FOLDER or HUB_ID[:config[:column[:split]]]. FILE ends in .txt (a text is a line), .jsonl or .parquet (a
text is the value in the column, "text" by default). FOLDER has one of these for each language, named after it (Basque.txt,
eus_Latn.jsonl). FOLDER:config[:column[:split]] is read by `datasets`, as a Hub id is; config and column may be empty. A column "topic" is kept.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from os.path import expanduser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from topxgen.common.errors import UsageError
from topxgen.common.files import read_placed_jsonl
from topxgen.common.hub import dataset_revision, hub_call
from topxgen.common.records import replace_surrogates
from topxgen.corpora import tables
from topxgen.corpora.slices import ALL, Slice
from topxgen.text.languages import Language

COLUMN, TOPIC = "text", "topic"
SUFFIXES = (".txt", ".jsonl", ".parquet")
HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)((?::[\w. -]*){0,3})")
SPLIT = "train"  # of a data set that has several, unless another one is named


class Text(NamedTuple):
    """`number`: of its line or row in the source, from 1. `text` is None where a row has none."""

    number: int
    text: str | None
    topic: str | None = None


@dataclass(frozen=True)
class TextSource:
    """Texts in one language. Raises UsageError, when they are read, for what is not such a source."""

    name: str  # as on the command line
    rows: Callable[[int], Iterable[Text]]  # reads the source behind the row of that number
    revision: str = ""  # of a data set from the Hub, which is only read as far as it is needed

    @cached_property
    def size(self) -> int | None:
        """The number of texts; None if it is not known."""
        return None if self.revision else self._scan[0]

    @cached_property
    def fingerprint(self) -> str:
        """What tells it apart from another source."""
        if self.revision:
            return f"{self.name} at revision {self.revision}"
        size, sha256 = self._scan
        return f"{size} texts, SHA-256 {sha256[:16]}"

    @cached_property
    def _scan(self) -> tuple[int, str]:
        """All of a local source, so that whatever is wrong in it is found before the work."""
        sha256, size = hashlib.sha256(), 0
        for row in self.rows(0):
            size += 1
            sha256.update(f"{row.number} {row.text}\0{row.topic}\n".encode("utf-8", "replace"))  # ids have the number
        if not size:
            raise UsageError(f"{self.name} is empty")
        return size, sha256.hexdigest()


def open_sources(names: Sequence[str], languages: Sequence[Language]) -> dict[str, TextSource]:
    """The source of each language, by its name: one for each, in the order of `languages`, or a folder for all of them.

    Raises UsageError.
    """
    each = list(names) if len(names) > 1 else list(names) * len(languages)
    if len(each) != len(languages):
        raise UsageError(
            f"--paragraphs has {len(names)} sources for {len(languages)} languages; pass one for each of "
            f"{', '.join(language.name for language in languages)}, or a folder with a file for each"
        )
    for language in languages if len(names) < len(languages) else ():
        folder = Path(expanduser(names[0]))
        if not (folder.is_dir() and _file_of(folder, language)):
            raise UsageError(
                f"--paragraphs {names[0]} is no folder with {language.name}{f' or {language.name}'.join(SUFFIXES)}; pass a source "
                f"for each of {', '.join(language.name for language in languages)}"
            )
    return {language.name: open_source(name, language) for name, language in zip(each, languages, strict=True)}


def hub_id(name: str) -> str | None:
    """The data set on the Hub that `name` is one of; None if it names a file or folder."""
    path, hub = tables.split_source(name)[0], HUB_ID.fullmatch(name)
    return hub[1] if hub and not path.exists() and path.suffix.lower() not in tables.SUFFIXES else None


def open_source(name: str, language: Language) -> TextSource:
    """The texts of `name` in `language`. Raises UsageError if it is no source."""
    path, part, rest = tables.split_source(name)
    if path.is_dir():
        file = _file_of(path, language)
        if part != ALL:
            raise UsageError(f"--paragraphs {name} is a slice of a folder; name a file in it")
        if rest:
            return _dataset(name, str(path), rest)
        if file is None:  # files in it may be in other languages
            wanted = f" or {language.name}".join(SUFFIXES)
            raise UsageError(
                f"--paragraphs {name} has no {language.name}{wanted}; rename its file, or pass {name}:CONFIG for a folder that "
                "`datasets` reads"
            )
        return open_source(str(file), language)
    if repository := hub_id(name):
        return _dataset(name, repository, name.removeprefix(repository).removeprefix(":"))
    if path.exists() and path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--paragraphs {name}: {path.name} is not a {', '.join(SUFFIXES)} file; convert or rename it")
    if path.suffix.lower() == ".txt" and rest:
        raise UsageError(f"--paragraphs {name}: a text file has no column {rest}")
    if not path.exists():
        raise UsageError(f"--paragraphs {name}: there is no file or folder {path}")
    return TextSource(name, lambda after: (row for row in _file_rows(path, part, rest or COLUMN) if row.number > after))


def _file_of(folder: Path, language: Language) -> Path | None:
    names = [f"{stem}{suffix}" for stem in (language.name, language.flores) for suffix in SUFFIXES]
    files = [folder / name for name in names if (folder / name).is_file()]
    if len(files) > 1:
        raise UsageError(f"--paragraphs {folder} has {files[0].name} and {files[1].name}; pass one of them")
    return files[0] if files else None


def _file_rows(path: Path, part: Slice, column: str) -> Iterator[Text]:
    kind = path.suffix.lower()
    if kind == ".txt":
        for number, line in part.of(enumerate(tables.lines(path), start=1), str(path)):
            if line.strip():
                yield Text(number, line)
        return
    if kind == ".jsonl":
        rows = ((number, record) for number, *_, record in read_placed_jsonl(path))
    else:
        rows = enumerate(tables.parquet_rows(path, (column, TOPIC)), start=1)
    yield from _texts(part.of(rows, str(path)), column, str(path))


def _texts(rows: Iterable[tuple[int, dict]], column: str, where: str) -> Iterator[Text]:
    for number, row in rows:
        if column not in row:
            names = ", ".join(str(name)[:40] for name in row) or "nothing"
            raise UsageError(
                f"{where}, row {number} has no column {column!r}, only {names}; name another as in {where}:COLUMN, or write null "
                "where there is no text"
            )
        text, topic = row.get(column), row.get(TOPIC)
        if not isinstance(text, str | None):
            raise UsageError(f"{where}, row {number}: {column} holds {str(text)[:40]}, which is not a text")
        topic = replace_surrogates(topic) if isinstance(topic, str) and column != TOPIC else None
        yield Text(number, text and replace_surrogates(text), topic)


def _dataset(name: str, repository: str, rest: str) -> TextSource:
    """A data set of the Hub, or a folder that `datasets` reads."""
    import datasets

    config, column, split = (*rest.split(":", 2), "", "")[:3]
    wanted = column or COLUMN
    if Path(repository).is_dir():
        # In its cache `datasets` knows a folder by its last name and config alone: another one's columns would be expected.
        with tables.readable(f"--paragraphs {name}"), TemporaryDirectory() as cache:
            splits = datasets.load_dataset(repository, config or None, streaming=True, cache_dir=cache)
        revision = ""
    else:
        folder, revision = dataset_revision(repository)
        options = {"revision": revision} if folder == repository else {}
        splits = hub_call(repository, lambda: datasets.load_dataset(folder, config or None, streaming=True, **options))
    split = split or (next(iter(splits)) if len(splits) == 1 else SPLIT)
    if split not in splits:
        raise UsageError(
            f"--paragraphs {name}: it has no split {split}, only {', '.join(splits)}; name one as in "
            f"{repository}:{config}:{column}:{next(iter(splits))}"
        )

    def rows(after: int) -> Iterator[Text]:
        stream = splits[split].skip(after) if after else splits[split]
        if wanted in (names := stream.column_names or ()):
            stream = stream.select_columns([key for key in names if key in (wanted, TOPIC)])
        with tables.readable(f"--paragraphs {name}"):
            batches = stream.with_format("arrow").iter(batch_size=1024)
            numbered = enumerate((row for batch in batches for row in batch.to_pylist()), start=after + 1)
            yield from _texts(numbered, wanted, name)

    return TextSource(name, rows, revision)
