"""Checkpoints that tell whether they are whole: a list of their files, written last.

A run that is killed while it saves leaves a folder that looks like a checkpoint. Only one whose list is there, and
whose files have the sizes, beginnings and ends that it says, is gone on from.
"""

import hashlib
import logging
import os
import re
import shutil
from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.common.files import partial, read_json, write_json

logger = logging.getLogger(__name__)

CHECKSUM_FILE = "checkpoint_files.json"
CARD_FILE = "README.md"
CHECKSUM_BYTES = 1 << 16  # bytes at a file's beginning and end that are fingerprinted: what a broken write spoils
# Of a checkpoint, what belongs to the run rather than to the model.
RUN_STATE = ("optimizer", "scheduler", "scaler", "rng_state", "trainer_state", "training_args", "global_step", "latest")
RUN_STATE += ("zero_to", CHECKSUM_FILE.removesuffix(".json"), "pytorch_model_fsdp")


def mark_complete(folder: Path, **facts) -> None:
    """Flush the files in `folder` to the disk and list them, with sizes in bytes and fingerprints; and `facts`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUM_FILE)
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    write_json(
        folder / CHECKSUM_FILE, {**facts, "files": {str(path.relative_to(folder)): _mark(path) for path in files}}
    )


def _mark(path: Path) -> list:
    """[bytes, fingerprint of the beginning and the end]."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        begin = file.read(CHECKSUM_BYTES)
        file.seek(max(0, size - CHECKSUM_BYTES))
        return [size, hashlib.sha256(begin + file.read()).hexdigest()[:16]]


def fault(folder: Path) -> str | None:
    """Why a checkpoint cannot be gone on from, or None when it can."""
    try:
        files = read_json(folder / CHECKSUM_FILE).get("files")
    except UsageError as error:
        return str(error)
    if not files:
        return f"it was not written to its end (no {CHECKSUM_FILE})"
    for name, mark in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != mark[0]:
            return f"{name} has {path.stat().st_size} bytes instead of {mark[0]}"
        if _mark(path) != mark:
            return f"{name} is not as it was written"
    return None


def step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def every(output_dir: Path) -> list[Path]:
    """The folders that look like checkpoints, oldest first."""
    found = [path for path in output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted((path for path in found if path.is_dir()), key=step_of)


def newest(output_dir: Path) -> Path | None:
    """The newest checkpoint that is whole; `say` hears of each newer one that is not.

    Such a one is renamed to unusable-checkpoint-N, so that what the run writes next does not mix with it and no tool
    takes it for a model.
    """
    for folder in reversed(every(output_dir)):
        why = fault(folder)
        if why is None:
            return folder
        logger.info(f"{folder} is left out: {why}")
        aside = folder.with_name(f"unusable-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    return None


def rotate(output_dir: Path, limit: int | None, best_step: int | None) -> None:
    """Remove the oldest checkpoints beyond `limit`; never the newest nor the best."""
    spare = [path for path in every(output_dir)[:-1] if step_of(path) != best_step]
    for path in spare[: max(0, len(every(output_dir)) - limit)] if limit else []:
        shutil.rmtree(path)


def conflicting_files(output_dir: Path) -> list[str]:
    """Files in `output_dir` that `publish` would write over."""
    names = ("*.safetensors", "*.bin", "*config.json", "tokenizer*", CARD_FILE)
    return sorted({path.name for name in names for path in output_dir.glob(name)})


def copy_best_model(folder: Path, output_dir: Path) -> None:
    """Copy the model of a checkpoint into `output_dir` itself, without what belongs to the run; the weights go last.

    Weights of an earlier publication are removed first, so that shards of two models never lie together.
    Raises UsageError when the checkpoint is not whole.
    """
    if why := fault(folder):
        raise UsageError(
            f"{folder}, the best checkpoint, cannot be used: {why}; remove it, and the same command goes on"
        )
    chosen = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(RUN_STATE)]
    for old in (*output_dir.glob("*.safetensors"), *output_dir.glob("*.safetensors.index.json")):
        old.unlink()
    for path in sorted(chosen, key=lambda path: path.suffix == ".safetensors"):
        unfinished = partial(output_dir / path.name)
        shutil.copyfile(path, unfinished)
        unfinished.replace(output_dir / path.name)
