"""Trainings as train.py left them, or is leaving them: what its log says of loss and held-out scores, and which checkpoint was chosen."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Required

from topxgen.common.lineage import DATA_MANIFEST, TRAIN_MANIFEST
from topxgen.common.schemas import fields
from topxgen.runs.reading import Problems, read_file, read_lines
from topxgen.training.checkpoints import STATE_FILE
from topxgen.training.model import SKIPPED_PAIRS_FILE
from topxgen.training.model_card import regressions
from topxgen.training.run import LOG_FILE, SETTINGS_FILE

CURVES = ("loss", "learning_rate", "grad_norm", "tokens_per_second")
MAX_POINTS = 400  # of a curve; more become means of as many steps each


_Entry = fields(step=Required[int])
Direction = fields(path=str, counts=Required[dict[str, int]])
# data_manifest.json, as far as it is read.
Data = fields(name=str, streamed=str, languages=dict[str, Direction], train_pairs=int, test_pairs=int)
# manifest_train.json, as far as it is read.
Manifest = fields(
    complete=bool, steps=int, stopped_early=bool, best_checkpoint=str | None, metric_for_best_model=str | None,
    settings=dict, data=Data,
)  # fmt: skip
# trainer_state.json of a checkpoint, as far as it is read.
_State = fields(best_global_step=int | None, max_steps=int)
# A line of left_out_pairs.jsonl.
LeftOut = fields(set=Required[str], tokens=int)


@dataclass(frozen=True)
class HeldOut:
    """A figure of an evaluation: `metric` is loss, chrf or bleu; `direction` such as "English to Basque", "" for all."""

    step: int
    metric: str
    direction: str
    value: float | None  # None: not a number


@dataclass(frozen=True)
class Training:
    """`curves`: (step, value) by name in CURVES. `chosen`: the step of the checkpoint that was chosen, or is the best so far."""

    folder: Path
    is_complete: bool
    stopped_early: bool
    steps: int  # done
    max_steps: int | None
    settings: dict
    data: Data
    metric: str  # that chooses the checkpoint
    chosen: int | None
    checkpoints: tuple[int, ...]  # that are there
    curves: dict[str, list[tuple[float, float | None]]]
    averaged: int  # entries that a point of the curves is the mean of
    held_out: tuple[HeldOut, ...]
    worse: tuple[tuple[str, float, float], ...]  # (metric, at the chosen step, before training)
    left_out: dict[str, int]  # pairs that were too long, by set


def read_manifest(folder: Path, problems: Problems) -> Manifest:
    """With `complete`, `settings` and `data`, also of a training that has no manifest: it runs, or was interrupted."""
    manifest = read_file(folder / TRAIN_MANIFEST, Manifest, problems)
    return {
        **manifest,
        "complete": manifest.get("complete", bool(manifest)),
        "settings": manifest.get("settings") or read_file(folder / SETTINGS_FILE, dict, problems),
        "data": read_file(folder / DATA_MANIFEST, Data, problems) or manifest.get("data", {}),
    }


def read(folder: Path, problems: Problems) -> Training:
    """A training that has finished, runs, or was interrupted; of older versions, too."""
    manifest = read_manifest(folder, problems)
    settings = manifest["settings"]
    log = [entry for _, entry in read_lines(folder / LOG_FILE, _Entry, problems)]
    checkpoints = tuple(
        sorted(filter(None, (_step_of(path.name) for path in folder.glob("checkpoint-*") if path.is_dir())))
    )
    state = read_file(folder / f"checkpoint-{checkpoints[-1]}" / STATE_FILE, _State, problems) if checkpoints else {}
    chosen = _step_of(manifest.get("best_checkpoint") or "") or state.get("best_global_step")
    curves, averaged = _curves(log)
    evaluations = [entry for entry in log if "eval_runtime" in entry]
    until = [entry for entry in evaluations if chosen is None or entry["step"] <= chosen]
    # A loss that is not finite is null in the log.
    sound = [entry for entry in until if all(figure.value is not None for figure in _figures(entry))]
    return Training(
        folder,
        manifest["complete"],
        bool(manifest.get("stopped_early")),
        max([entry["step"] for entry in log] + [manifest.get("steps") or 0]),
        state.get("max_steps") or settings.get("max_steps"),
        settings,
        manifest["data"],
        manifest.get("metric_for_best_model") or settings.get("metric_for_best_model") or "loss",
        chosen,
        checkpoints,
        curves,
        averaged,
        tuple(figure for entry in evaluations for figure in _figures(entry)),
        tuple(regressions(sound)),
        dict(Counter(row["set"] for _, row in read_lines(folder / SKIPPED_PAIRS_FILE, LeftOut, problems))),
    )


def _step_of(name: str) -> int | None:
    match = re.fullmatch(r"checkpoint-(\d+)", name)
    return int(match[1]) if match else None


def _figures(entry: dict) -> list[HeldOut]:
    figures = []
    for name, value in entry.items():
        if name.startswith("eval_") and name != "eval_runtime" and isinstance(value, int | float | None):
            metric, _, direction = name.removeprefix("eval_").partition("_")
            figures.append(HeldOut(entry["step"], metric, direction, value))
    return figures


def _curves(log: list[dict]) -> tuple[dict[str, list[tuple[float, float | None]]], int]:
    steps = [entry for entry in log if "loss" in entry]
    size = -(-len(steps) // MAX_POINTS) or 1
    curves = {name: [] for name in CURVES}
    for start in range(0, len(steps), size):
        part = steps[start : start + size]
        for name in CURVES:
            values = [entry.get(name) for entry in part]
            if name in part[0]:
                mean = sum(values) / len(values) if all(isinstance(value, int | float) for value in values) else None
                curves[name].append((sum(entry["step"] for entry in part) / len(part), mean))
    return {name: points for name, points in curves.items() if points}, size
