"""Checkpoints that tell whether they are whole: a list of their files, written last.

A run that is killed while it saves leaves a folder that looks like a checkpoint. Only one whose list is there, and
whose files have the sizes it says, is gone on from.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from comptra.errors import UserError, reason
from comptra.files import read_json, write_json

LIST = "checkpoint_files.json"
CARD = "README.md"
# Of a checkpoint, what belongs to the run rather than to the model.
RUN_STATE = ("optimizer", "scheduler", "scaler", "rng_state", "trainer_state", "training_args", "global_step", "latest")
RUN_STATE += ("zero_to", LIST.removesuffix(".json"), "pytorch_model_fsdp")


def mark_complete(folder: Path, **facts) -> None:
    """Write the list of the files in `folder`, with their sizes in bytes, and what else is to be known of it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != LIST)
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in files}
    write_json(folder / LIST, {**facts, "files": sizes})


def fault(folder: Path) -> str | None:
    """Why a checkpoint cannot be gone on from, or None when it can."""
    try:
        files = read_json(folder / LIST).get("files")
    except UserError as error:
        return str(error)
    if not files:
        return f"it was not written to its end (no {LIST})"
    for name, size in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    for path in folder.glob("*.safetensors"):
        if why := _broken(path):
            return f"{path.name} cannot be read ({why})"
    return None


def _broken(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except (OSError, SafetensorError) as error:
        return reason(error)
    return None


def step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def every(output_dir: Path) -> list[Path]:
    """The folders that look like checkpoints, oldest first."""
    found = [path for path in output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted((path for path in found if path.is_dir()), key=step_of)


def newest(output_dir: Path, say: Callable[[str], None], set_aside: bool = True) -> Path | None:
    """The newest checkpoint that is whole; `say` hears of each newer one that is not.

    With `set_aside` such a one is renamed to unusable-checkpoint-N, so that what the run writes next does not mix
    with it and no tool takes it for a model.
    """
    for folder in reversed(every(output_dir)):
        why = fault(folder)
        if why is None:
            return folder
        say(f"{folder} is left out: {why}")
        if set_aside:
            aside = folder.with_name(f"unusable-{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
    return None


def publish(folder: Path, output_dir: Path) -> None:
    """Copy the model of a checkpoint into `output_dir` itself, without what belongs to the run; the weights go last.

    What an earlier publication left there and this one has not (shards, say) is removed.
    """
    chosen = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(RUN_STATE)]
    for old in (*output_dir.glob("*.safetensors"), *output_dir.glob("*.safetensors.index.json")):
        old.unlink()
    for path in sorted(chosen, key=lambda path: path.suffix == ".safetensors"):
        partial = output_dir / f"{path.name}.partial"
        shutil.copyfile(path, partial)
        partial.replace(output_dir / path.name)
