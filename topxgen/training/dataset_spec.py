"""Which training data to read, by train.py's flags, and what reading it gives."""

import argparse
import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from topxgen.common.settings import Settings
from topxgen.text import languages
from topxgen.text.languages import Language
from topxgen.text.words import is_blank
from topxgen.training.pairs import Pair, direction

INPUT_COLUMN = "prompt"  # the default of --input_column_name where there are no columns source and target


@dataclass(frozen=True)
class DatasetSpec(Settings):
    """train.py's flags that name the data and select from it; languages are looked up."""

    dataset_name_or_path: str
    src: Language
    target_languages: tuple[Language, ...]
    data_dir: tuple[Path, ...] | Path = ()  # one is made a tuple
    allow_partial_benchmark: bool = False
    subset: str | None = None
    split: str | None = None
    input_column_name: str | None = None
    output_column_name: str | None = None
    percentile: float | None = None
    dataset_size: int = -1
    strategy: str = "soonest"
    drop_duplicates: str = "after"
    seed: int = 122
    languages_file: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "target_languages", tuple(dict.fromkeys(self.target_languages)))
        one = isinstance(self.data_dir, Path)
        object.__setattr__(self, "data_dir", (self.data_dir,) if one else tuple(self.data_dir))

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "DatasetSpec":
        src, *targets = (languages.find(name, args.languages_file) for name in (args.src, *args.target_languages))
        column = args.input_column_name
        if column == INPUT_COLUMN and "input_column_name" not in getattr(args, "given", ()):
            column = None
        return super().from_args(args, src=src, target_languages=tuple(targets), input_column_name=column)

    def text_columns(self, columns: Collection[str]) -> tuple[str | None, str] | None:
        """The columns of source and target among a table's `columns`; (None, column) for raw text; None if it has neither."""
        column, named = self.input_column_name or INPUT_COLUMN, self.input_column_name in columns
        if self.output_column_name is not None:
            sides = (column, self.output_column_name)
            return sides if set(sides) <= set(columns) else None
        if {"source", "target"} <= set(columns) and column == INPUT_COLUMN and not named:
            return "source", "target"
        return (None, column) if column in columns else None


@dataclass
class LoadedPairs:
    """The pairs of a data set; `scores`, `scorers` and `folders` are parallel to `pairs`, the dicts are by direction."""

    pairs: list[Pair] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)
    scorers: list[str | None] = field(default_factory=list)
    folders: list[int] = field(default_factory=list)  # indices into --data_dir
    counts: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    origins: dict[str, dict] = field(default_factory=dict)  # "path", and "sha256" of the file or of its texts

    def add(self, pair: Pair, score: float | None = None, scorer: str | None = None, folder: int = 0) -> None:
        self.pairs.append(pair)
        self.scores.append(score)
        self.scorers.append(scorer)
        self.folders.append(folder)

    def add_texts(self, src: Language, tgt: Language, rows: Iterable[tuple[str, str, str]]) -> None:
        """Add pairs given as (source, target, group); one with an empty side is counted and dropped."""
        counts = self.counts[direction(src.name, tgt.name)]
        for source, target, group in rows:
            counts["read"] += 1
            if not (is_blank(source) or is_blank(target)):
                self.add(Pair(source.strip(), target.strip(), src.name, tgt.name, group))
            else:
                counts["empty"] += 1


def sha256_of_files(*paths: Path) -> str:
    """SHA-256 of the concatenated files, in hex."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def sha256_of_texts(rows: Iterable[tuple[str, ...]]) -> str:
    """SHA-256 of all texts, each followed by a line feed, in hex."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update("".join(f"{text}\n" for text in row).encode("utf-8", "replace"))
    return digest.hexdigest()
