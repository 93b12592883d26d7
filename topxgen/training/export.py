"""Write the training and test set to files for other tools: a `datasets` folder, parquet, or parallel text."""

import os
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from topxgen.common import checksums, files, lineage
from topxgen.common.errors import UsageError
from topxgen.common.files import partial
from topxgen.common.locks import OutputLock
from topxgen.text import languages
from topxgen.training.file_datasets import PAIR_COLUMNS, SAVED_DATASET, features
from topxgen.training.pairs import Pair, by_direction

Parts = dict[str, list[Pair]]  # "train" and "test"


def check(train: list[Pair], test: list[Pair], folder: Path, formats: Collection[str]) -> list[str]:
    """Names of the earlier export that `export` would replace; nothing is written.

    Raises UsageError if the folder holds anything else or cannot be written to, or a format cannot hold the pairs.
    """
    if "text" in formats and not all(pair.src for pair in (*train, *test)):
        raise UsageError("--export_formats text: raw text has no two sides; choose datasets or parquet")
    try:
        files.check_output_directory(folder, f"--export_dir {folder}")
        return _earlier_export(folder, formats, partial(folder / "export"))
    except OSError as error:
        raise _cannot_export(folder, error) from None


def export(
    train: list[Pair],
    test: list[Pair],
    folder: Path,
    formats: Collection[str],
    languages_file: str | None = None,
    link: lineage.Link | None = None,
) -> list[Path]:
    """Write both sets (unless empty) in each of `formats`, with all columns as strings, and a manifest that holds `link`,
    where they come from; returns the paths of the sets.

    An earlier export in these formats is replaced once the new one is complete. One process at a time writes to the folder.
    Raises UsageError as `check` does.
    """
    check(train, test, folder, formats)
    parts = {part: pairs for part, pairs in (("train", train), ("test", test)) if pairs}
    staging = partial(folder / "export")
    try:
        with OutputLock(folder, flag="--export_dir"):
            earlier = check(train, test, folder, formats)
            if staging.is_dir():
                shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            try:
                for name in dict.fromkeys(formats):
                    FORMATS[name](parts, staging, languages_file)
            except BaseException:  # a full disk needs the room
                shutil.rmtree(staging, ignore_errors=True)
                raise
            new_names = sorted(path.name for path in staging.iterdir())
            is_known = link is not None and files.read_json(folder / lineage.EXPORT_MANIFEST).get(lineage.KEY) == link
            if is_known and _digests(staging, new_names) == _digests(folder, earlier):
                shutil.rmtree(staging)  # whatever goes by the times of files need not do anything again
                return [folder / name for name in new_names]
            (staging / "replaced").mkdir()
            files.remove(folder / lineage.EXPORT_MANIFEST)
            checksums.drop_from(
                folder, (n for n in checksums.read(folder) if n.split("/")[0] in {*earlier, *new_names})
            )
            for name in earlier:
                os.replace(folder / name, staging / "replaced" / name)
            for name in new_names:
                os.replace(staging / name, folder / name)
            shutil.rmtree(staging)
            if link is not None:
                written = [path for name in new_names for path in (folder / name, *(folder / name).rglob("*"))]
                names = checksums.existing(folder, written)
                checksums.claim(folder, names)
                manifest = {"files": new_names, checksums.KEY: names, lineage.KEY: link}
                files.write_json(folder / lineage.EXPORT_MANIFEST, manifest)
                checksums.claim_file(folder / lineage.EXPORT_MANIFEST)
    except OSError as error:
        raise _cannot_export(folder, error) from None
    return [folder / name for name in new_names]


def _digests(folder: Path, names: Collection[str]) -> dict[Path, str]:
    paths = [path for name in names for path in (folder / name, *(folder / name).rglob("*")) if path.is_file()]
    return {path.relative_to(folder): checksums.sha256_of(path) for path in paths}


def _cannot_export(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot export to {folder}: {error.strerror or error}; pass another --export_dir")


def _earlier_export(folder: Path, formats: Collection[str], staging: Path) -> list[str]:
    """Names of what an earlier export left in the folder. Raises UsageError if there is anything else."""
    patterns = {
        "datasets": re.escape(SAVED_DATASET),
        "parquet": r"(train|test)\.parquet",
        "text": r"(train|test)\.\w+-\w+\.(src|tgt)",
    }
    exported, others = [], []
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        if path == staging or path.name.startswith(".") or path.name in (lineage.EXPORT_MANIFEST, checksums.NAME):
            continue
        is_export = any(re.fullmatch(patterns[name], path.name) for name in formats)
        is_export &= (path / "dataset_dict.json").is_file() if path.name == SAVED_DATASET else path.is_file()
        (exported if is_export else others).append(path.name)
    if others:
        raise UsageError(
            f"--export_dir {folder} holds other files ({', '.join(others[:5])}), but an export in {' and '.join(formats)} "
            "replaces only an earlier one; pass another folder"
        )
    return exported


def _columns(pairs: list[Pair]) -> dict[str, list[str]]:
    return {column: [getattr(pair, column) for pair in pairs] for column in PAIR_COLUMNS}


def _write_dataset(parts: Parts, folder: Path, languages_file: str | None) -> None:
    import datasets

    tables = {
        part: datasets.Dataset.from_dict(_columns(pairs), features=features(PAIR_COLUMNS))
        for part, pairs in parts.items()
    }
    datasets.DatasetDict(tables).save_to_disk(str(folder / SAVED_DATASET))


def _write_parquet(parts: Parts, folder: Path, languages_file: str | None) -> None:
    import pyarrow
    from pyarrow import parquet

    for part, pairs in parts.items():
        parquet.write_table(pyarrow.table(_columns(pairs)), folder / f"{part}.parquet")


def _write_text(parts: Parts, folder: Path, languages_file: str | None) -> None:
    """{part}.{src}-{tgt}.src and .tgt with FLORES codes, one text per line: line breaks in a text become spaces."""
    for part, pairs in parts.items():
        for indices in by_direction(pairs).values():
            codes = [languages.find(getattr(pairs[indices[0]], side), languages_file).flores for side in ("src", "tgt")]
            for suffix, side in (("src", "source"), ("tgt", "target")):
                path = folder / f"{part}.{'-'.join(codes)}.{suffix}"
                with open(path, "w", encoding="utf-8", newline="\n") as file:
                    texts = (getattr(pairs[i], side) for i in indices)
                    file.writelines(re.sub(r"\r\n|[\r\n]", " ", text) + "\n" for text in texts)


FORMATS: dict[str, Callable[[Parts, Path, str | None], None]] = {
    "datasets": _write_dataset,
    "parquet": _write_parquet,
    "text": _write_text,
}
