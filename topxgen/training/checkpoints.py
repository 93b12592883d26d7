"""Checkpoints that show whether they are complete: a list of their files with checksums, written last.

A run that is killed while it saves leaves a folder that looks like a checkpoint. Training resumes only from one whose list
exists and whose files match it, and loads no pickle that names anything but tensors and numbers.
"""

import hashlib
import logging
import os
import re
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from topxgen.common.errors import UsageError, reason
from topxgen.common.files import partial, read_json, write_json

logger = logging.getLogger(__name__)

CHECKSUM_FILE = "checkpoint_files.json"
CARD_FILE = "README.md"
# Checkpoints of earlier versions have digests, of this many digits, of the first and the last 64 KiB of each file.
ENDS_DIGITS, ENDS_BYTES = 16, 1 << 16
# Prefixes of a checkpoint's files that belong to the run, not to the model.
RUN_STATE = ("optimizer", "scheduler", "scaler", "rng_state", "trainer_state", "training_args", "global_step", "latest")
RUN_STATE += ("zero_to", CHECKSUM_FILE.removesuffix(".json"), "pytorch_model_fsdp")
# What DeepSpeed's pickles, which it loads without restrictions, name besides tensors and plain Python values.
DEEPSPEED_GLOBALS = {
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
}


def mark_complete(folder: Path, **facts) -> None:
    """Flush the files in `folder` to disk and list them with their checksums; `facts` are added to the list."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUM_FILE)
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    with ThreadPoolExecutor() as pool:
        checksums = dict(
            zip([str(path.relative_to(folder)) for path in files], pool.map(_checksum, files), strict=True)
        )
    write_json(folder / CHECKSUM_FILE, {**facts, "files": checksums})


def _checksum(path: Path, ends_only: bool = False) -> list:
    """[size in bytes, SHA-256 in hex]."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        if not ends_only:
            return [size, hashlib.file_digest(file, "sha256").hexdigest()]
        head = file.read(ENDS_BYTES)
        file.seek(max(0, size - ENDS_BYTES))
        return [size, hashlib.sha256(head + file.read()).hexdigest()[:ENDS_DIGITS]]


def find_corruption(folder: Path) -> str | None:
    """Why training cannot resume from a checkpoint; None if it can."""
    try:
        files = read_json(folder / CHECKSUM_FILE).get("files")
    except UsageError as error:
        return str(error)
    if not files:
        return f"it is incomplete (no {CHECKSUM_FILE})"
    with ThreadPoolExecutor() as pool:
        problems = pool.map(lambda item: _find_damage(folder / item[0], item[1]), files.items())
        return next((f"{name} {problem}" for name, problem in zip(files, problems, strict=True) if problem), None)


def _find_damage(path: Path, checksum: list) -> str | None:
    """What is wrong with a file of a checkpoint; None if it is as it was written, and can be loaded."""
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != checksum[0]:
        return f"has {path.stat().st_size} bytes instead of {checksum[0]}"
    if _checksum(path, ends_only=len(checksum[1]) == ENDS_DIGITS) != checksum:
        return "does not match its checksum"
    if path.suffix in (".pt", ".pth", ".bin"):
        return _find_foreign_pickle(path)
    return None


def _find_foreign_pickle(path: Path) -> str | None:
    """Why the pickle that torch saved in `path` must not be loaded; it is searched for names, never run."""
    import torch
    from transformers.trainer_pt_utils import safe_globals

    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                return f"is damaged ({damaged})"
        with safe_globals():
            foreign = set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - DEEPSPEED_GLOBALS
    except Exception as error:  # of a damaged pickle whatever its bytes happen to mean
        return f"cannot be loaded ({reason(error)})"
    return f"would run code that no checkpoint has ({', '.join(sorted(foreign)[:3])})" if foreign else None


def step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def all_checkpoints(output_dir: Path) -> list[Path]:
    """The folders that look like checkpoints, oldest first."""
    folders = [path for path in output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted((path for path in folders if path.is_dir()), key=step_of)


def newest_complete(output_dir: Path) -> Path | None:
    """The newest complete checkpoint, if any; newer ones are skipped with a warning.

    They are renamed to unusable-checkpoint-N, so that neither this run nor another tool takes them for a model.
    """
    folders = all_checkpoints(output_dir)
    for folder in reversed(folders):
        problem = find_corruption(folder)
        if problem is None:
            return folder
        unusable = folder.with_name(f"unusable-{folder.name}")
        logger.warning(f"skipping {folder}: {problem}; it is renamed to {unusable.name}")
        shutil.rmtree(unusable, ignore_errors=True)
        folder.rename(unusable)
    if folders:
        logger.warning(f"{output_dir} has no usable checkpoint: training starts from the beginning")
    return None


def rotate(output_dir: Path, limit: int | None, best_step: int | None) -> None:
    """Remove the oldest checkpoints beyond `limit`, but neither the newest nor the best."""
    folders = all_checkpoints(output_dir)
    removable = [path for path in folders[:-1] if step_of(path) != best_step]
    for path in removable[: max(0, len(folders) - limit)] if limit else []:
        shutil.rmtree(path)


def conflicting_files(output_dir: Path) -> list[str]:
    """Names of files in `output_dir` that `copy_best_model` would overwrite."""
    patterns = ("*.safetensors", "*.bin", "*config.json", "tokenizer*", CARD_FILE)
    return sorted({path.name for pattern in patterns for path in output_dir.glob(pattern)})


def copy_best_model(folder: Path, output_dir: Path) -> None:
    """Copy a checkpoint's model, without the state of the run, to `output_dir` itself; the weights last.

    Older weights are removed first, so that shards of two models never mix.
    Raises UsageError if the checkpoint is incomplete.
    """
    if problem := find_corruption(folder):
        raise UsageError(f"the best checkpoint {folder} cannot be used: {problem}; remove it and re-run the command")
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(RUN_STATE)]
    for old in (*output_dir.glob("*.safetensors"), *output_dir.glob("*.safetensors.index.json")):
        old.unlink()
    for path in sorted(files, key=lambda path: path.suffix == ".safetensors"):
        unfinished = partial(output_dir / path.name)
        shutil.copyfile(path, unfinished)
        unfinished.replace(output_dir / path.name)
