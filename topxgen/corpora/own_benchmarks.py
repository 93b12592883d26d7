"""The files and Hub data sets of a user's own benchmark, with their columns (rules: tables.py)."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from topxgen.common.errors import UsageError
from topxgen.common.files import walk
from topxgen.corpora import hub_sets, tables
from topxgen.corpora.slices import ALL, Slice
from topxgen.corpora.tables import SUFFIXES, Column
from topxgen.text.languages import Language


class Part(NamedTuple):
    """A file, or a split of a Hub data set."""

    name: str  # its path below the source, or the split
    where: str  # it as named on the command line
    source: str  # for benchmarks.Split
    columns: list[Column]


def file_parts(path: Path, cut: Slice, mapping: dict[str, list[str]], known: tuple[Language, ...]) -> Iterator[Part]:
    """The file, or all files of the folder. Raises UsageError for what is not a table or text."""
    if not path.exists():
        raise UsageError(f"there is no file or folder {path}")
    if path.is_dir() and cut != ALL:
        raise UsageError(f"{path}{cut} is a slice of a folder; name a file in it")
    files = {str(file.relative_to(path)): file for file in files_below(path)} if path.is_dir() else {path.name: path}
    if not files:
        raise UsageError(f"{path} is empty")
    for file in files.values():
        if file.suffix.lower() not in SUFFIXES:
            advice = f"; name the files to read, such as {path}/*.txt" if path.is_dir() else ""
            raise UsageError(f"{file} is not a {', '.join(SUFFIXES)} file{advice}")
    for title, file in files.items():
        name = f"{file}{cut}"
        yield Part(title, name, name, tables.read_columns(file, mapping, known, part=cut))


def hub_parts(name: str, repo: str, config: str) -> Iterator[Part]:
    """The splits of a data set of the Hub."""
    for split, data in hub_sets.dataset(repo, config or None, None).items():
        data = data.select_columns([column for column, kind in data.features.items() if not hasattr(kind, "decode")])
        columns = tables.columns_of(enumerate(data, start=1))
        yield Part(split, name, hub_sets.source(repo, config or "default", split), columns)


def files_below(folder: Path) -> list[Path]:
    """The files in a folder and below, without hidden ones; links are followed, but not in circles."""
    paths = []
    for root, folders, files in walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        paths += [Path(root) / name for name in files if name[0] != "." and (Path(root) / name).is_file()]
    return sorted(paths)
