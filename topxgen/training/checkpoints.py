"""Checkpoints that show whether they are complete: a list of their files with checksums, written last.

A run that is killed while it saves leaves a folder that looks like a checkpoint. Training resumes only from one whose list
exists and whose files match it, and loads no pickle that names anything but tensors and numbers.
"""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Required

import msgspec

from topxgen.common import checksums
from topxgen.common.errors import UsageError, reason
from topxgen.common.files import read_json, remove, replacing, write_json
from topxgen.common.schemas import check, decode, fields

logger = logging.getLogger(__name__)

CHECKSUM_FILE = "checkpoint_files.json"
SUMS = "PairTrainer"  # the key of PairTrainer's own state in trainer_state.json
CARD_FILE, STATE_FILE = "README.md", "trainer_state.json"
# Checkpoints of earlier versions have digests, of this many digits, of the first and the last 64 KiB of each file.
ENDS_DIGITS, ENDS_BYTES = 16, 1 << 16
# Prefixes of a checkpoint's files that belong to the run, not to the model.
RUN_STATE = ("optimizer", "scheduler", "scaler", "rng_state", "trainer_state", "training_args", "global_step", "latest")
RUN_STATE += ("zero_to", CHECKSUM_FILE.removesuffix(".json"), "pytorch_model_fsdp")
# What DeepSpeed's pickles, which it loads without restrictions, name besides tensors and plain Python values.
DEEPSPEED_GLOBALS = (
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
)


def mark_complete(folder: Path, **facts) -> None:
    """Flush the files in `folder` to disk and list them with their checksums; `facts` are added to the list."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUM_FILE)
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    with ThreadPoolExecutor() as pool:
        listed = dict(zip([str(path.relative_to(folder)) for path in files], pool.map(_checksum, files), strict=True))
    write_json(folder / CHECKSUM_FILE, {**facts, "files": listed})


def _checksum(path: Path, ends_only: bool = False) -> list[int | str]:
    """[size in bytes, SHA-256 in hex]."""
    size = path.stat().st_size
    if not ends_only:
        return [size, checksums.sha256_of(path)]
    with open(path, "rb") as file:
        head = file.read(ENDS_BYTES)
        file.seek(max(0, size - ENDS_BYTES))
        return [size, hashlib.sha256(head + file.read()).hexdigest()[:ENDS_DIGITS]]


_FileList = fields(processes=int, sharding=str, files=Required[dict[str, tuple[int, str]]])
_LogEntry = fields(step=Required[int])


_Sums = fields(
    unlogged=Required[Annotated[list[float], msgspec.Meta(min_length=1)]],
    logged=Required[float],
    last_logged_step=Required[int],
)
# The fields of transformers' TrainerState that training reads.
_TrainerState = fields(
    global_step=Required[int], max_steps=Required[int], log_history=Required[list[_LogEntry]],
    best_global_step=int | None, best_metric=float | None, best_model_checkpoint=str | None, total_flos=float,
    stateful_callbacks=dict[str, Any],
)  # fmt: skip


def file_list(folder: Path) -> dict:
    """What `mark_complete` wrote."""
    return read_json(folder / CHECKSUM_FILE, _FileList)


def find_corruption(folder: Path) -> str | None:
    """How the files of a checkpoint differ from those that were written; None if they do not."""
    if not (folder / CHECKSUM_FILE).exists():
        return f"it is incomplete (no {CHECKSUM_FILE})"
    try:
        saved = file_list(folder)
    except UsageError as error:
        return str(error)
    files = saved["files"]
    needed = (STATE_FILE, "optimizer.pt") if saved.get("sharding") == "none" else (STATE_FILE,)
    if unlisted := [name for name in (*needed, *_files_of_zero(folder, saved)) if name not in files]:
        return f"{CHECKSUM_FILE} lists no {unlisted[0]}"
    with ThreadPoolExecutor() as pool:
        problems = pool.map(lambda item: find_change(folder / item[0], item[1]), files.items())
        return next((f"{name} {problem}" for name, problem in zip(files, problems, strict=True) if problem), None)


def _files_of_zero(folder: Path, saved: dict) -> Iterator[str]:
    """What DeepSpeed needs to resume: `latest`, which names a folder, and in that the files of each process, some of which names
    say their precision first. Where a process could not write its own, the list of files is whole without them."""
    stage, files = saved.get("sharding", ""), saved["files"]
    if not stage.startswith("ZeRO-"):
        return
    yield "latest"
    if not (path := folder / "latest").is_file():
        return
    step = path.read_text("utf-8", "replace").strip()
    for rank in range(saved.get("processes", 1)):
        for kind in ("optim", "model") if stage == "ZeRO-3" else ("optim",):
            name = f"zero_pp_rank_{rank}_mp_rank_00_{kind}_states.pt"
            written = re.compile(rf"{re.escape(step)}/(\w+_)?{name}")
            yield next(filter(written.fullmatch, files), f"{step}/{name}")


def find_change(path: Path, checksum: list[int | str]) -> str | None:
    """How a file differs from the one that was written, if it does."""
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != checksum[0]:
        return f"has {path.stat().st_size} bytes instead of {checksum[0]}"
    if _checksum(path, ends_only=len(checksum[1]) == ENDS_DIGITS) != checksum:
        return "does not match its checksum"
    return None


def find_unloadable(folder: Path, names: str = "*") -> str | None:
    """Which of its files of these names cannot be loaded, or is a pickle that would run code, and why. Tensors are not read."""
    for path in sorted(folder.rglob(names)):
        try:
            _load_without_tensors(path)
        except Exception as error:  # of a damaged pickle whatever its bytes happen to mean
            why = error if type(error) is ValueError else reason(error)
            return f"{path.relative_to(folder)} cannot be loaded ({why})"
    return None


def _load_without_tensors(path: Path) -> None:
    import safetensors
    import torch
    from transformers import TrainerState
    from transformers.trainer_pt_utils import safe_globals

    if path.suffix == ".safetensors":
        with safetensors.safe_open(path, "pt") as file:
            file.keys()
    elif path.suffix in (".pt", ".pth", ".bin"):
        allowed = [(_StandIn, name) for name in DEEPSPEED_GLOBALS]
        with safe_globals(), torch.serialization.safe_globals(allowed):
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    elif path.name == STATE_FILE:
        state = decode(path.read_bytes(), _TrainerState)
        if state["global_step"] != step_of(path.parent):
            raise ValueError(f"it is of step {state['global_step']}")
        check(state.get("stateful_callbacks", {}).get(SUMS), _Sums | None)
        TrainerState.load_from_json(str(path))


class _StandIn:
    """An object in a pickle of DeepSpeed, which need not be installed."""

    def __new__(cls, *_):
        return object.__new__(cls)


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
        problem = find_corruption(folder) or find_unloadable(folder)
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


def copy_best_model(folder: Path, output_dir: Path) -> dict[str, str]:
    """Copy a checkpoint's model, without the state of the run, to `output_dir` itself; the weights last.

    Older weights are removed first, so that shards of two models never mix.
    Returns the SHA-256 of each file; raises UsageError if the checkpoint is incomplete.
    """
    if problem := find_corruption(folder) or find_unloadable(folder, STATE_FILE):
        raise UsageError(f"the best checkpoint {folder} cannot be used: {problem}; remove it and re-run the command")
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(RUN_STATE)]
    for old in (*output_dir.glob("*.safetensors"), *output_dir.glob("*.safetensors.index.json")):
        remove(old)
    for path in sorted(files, key=lambda path: path.suffix == ".safetensors"):
        with open(path, "rb") as source, replacing(output_dir / path.name, "wb") as copy:
            shutil.copyfileobj(source, copy)
    known = {name: digest for name, (_, digest) in file_list(folder)["files"].items() if len(digest) > ENDS_DIGITS}
    return {path.name: known.get(path.name) or checksums.sha256_of(path) for path in files}
