"""Training sets in files for other tools: what `datasets` loads, parquet, or parallel text."""

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path

from topxgen.common.errors import UsageError, closest
from topxgen.common.files import partial
from topxgen.text import languages
from topxgen.training.file_datasets import COLUMNS, SAVED, features
from topxgen.training.pairs import Pair


def export(
    train: list[Pair], test: list[Pair], folder: Path, formats: Collection[str], languages_file: str | None = None
) -> list[Path]:
    """Write both parts (but no empty one) in each of `formats`, all columns as strings; what was written.

    An earlier export in these formats is replaced, once the new one is whole.

    Raises UsageError when the folder holds anything else, or a format cannot hold the pairs.
    """
    for name in formats:
        if name not in FORMATS:
            near = closest(name, FORMATS, n=1)
            raise UsageError(
                f"unknown export format {name!r}: {f'did you mean {near[0]}? ' if near else ''}choose from "
                f"{', '.join(FORMATS)}"
            )
    if "text" in formats and not all(pair.src for pair in (*train, *test)):
        raise UsageError("text of one column has no two sides to export: choose datasets or parquet, not text")
    parts = {part: pairs for part, pairs in (("train", train), ("test", test)) if pairs}
    stage = partial(folder / "export")
    try:
        earlier = _earlier(folder, formats, stage)
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
        for name in dict.fromkeys(formats):
            FORMATS[name](parts, stage, languages_file)
        old = stage / "earlier"
        old.mkdir()
        written = []
        for new in sorted(set(stage.iterdir()) - {old}):
            if (folder / new.name) in earlier:
                os.replace(folder / new.name, old / new.name)
            os.replace(new, folder / new.name)
            written.append(folder / new.name)
        for path in set(earlier) - set(written):  # a test set that there is no more
            os.replace(path, old / path.name)
        shutil.rmtree(stage)
    except OSError as error:
        raise UsageError(f"cannot export to {folder}: {error.strerror or error}; pass another folder") from None
    return written


def _earlier(folder: Path, formats: Collection[str], stage: Path) -> list[Path]:
    """What an earlier export left in the folder. Raises UsageError when there is anything else."""
    patterns = {
        "datasets": re.escape(SAVED),
        "parquet": r"(train|test)\.parquet",
        "text": r"(train|test)\.\w+-\w+\.(src|tgt)",
    }
    ours, others = [], []
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        if path == stage or path.name.startswith("."):
            continue
        known = any(re.fullmatch(patterns[name], path.name) for name in formats)
        known = known and (path.is_file() if path.name != SAVED else (path / "dataset_dict.json").is_file())
        (ours if known else others).append(path)
    if others:
        raise UsageError(
            f"{folder} holds other files ({', '.join(path.name for path in others[:5])}): an export in "
            f"{' and '.join(formats)} replaces nothing but an earlier one; pass another folder"
        )
    return ours


def _columns(pairs: list[Pair]) -> dict[str, list[str]]:
    return {column: [getattr(pair, column) for pair in pairs] for column in COLUMNS}


def _save(parts: dict[str, list[Pair]], folder: Path, languages_file: str | None) -> None:
    import datasets

    tables = {
        part: datasets.Dataset.from_dict(_columns(pairs), features=features(COLUMNS)) for part, pairs in parts.items()
    }
    datasets.DatasetDict(tables).save_to_disk(str(folder / SAVED))


def _write_parquet(parts: dict[str, list[Pair]], folder: Path, languages_file: str | None) -> None:
    import pyarrow
    from pyarrow import parquet

    for part, pairs in parts.items():
        parquet.write_table(pyarrow.table(_columns(pairs)), folder / f"{part}.parquet")


def _write_text(parts: dict[str, list[Pair]], folder: Path, languages_file: str | None) -> None:
    """{part}.{src}-{tgt}.src and .tgt with FLORES codes, a sentence a line: line breaks inside one become spaces."""
    for part, pairs in parts.items():
        directions: dict[tuple[str, str], list[Pair]] = defaultdict(list)
        for pair in pairs:
            directions[pair.src, pair.tgt].append(pair)
        for (src, tgt), some in directions.items():
            stem = "-".join(languages.find(name, languages_file).flores for name in (src, tgt))
            for side, texts in (("src", (pair.source for pair in some)), ("tgt", (pair.target for pair in some))):
                with open(folder / f"{part}.{stem}.{side}", "w", encoding="utf-8", newline="\n") as file:
                    file.writelines(re.sub(r"\r\n|[\r\n]", " ", text) + "\n" for text in texts)


FORMATS: dict[str, Callable] = {"datasets": _save, "parquet": _write_parquet, "text": _write_text}
