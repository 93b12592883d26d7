"""Training: loss and held-out curves, the checkpoint that was chosen, and what became worse."""

import math
from pathlib import Path

from comptra.report import Options
from topxgen.runs.folders import Run, relative
from topxgen.runs.reading import Problems
from topxgen.runs.trainings import Training, read

METRICS = {"loss": "loss", "chrf": "chrF++", "bleu": "BLEU"}
# Of the settings, what tells trainings apart.
SHOWN = ("model_name_or_path", "dataset_name_or_path", "use_peft", "learning_rate", "seed")


def collect(run: Run, options: Options) -> dict | None:
    """`trainings`: each as topxgen.runs.trainings has it, with its `folder` as text; figures as [step, value]."""
    problems = Problems()
    trainings = [read(folder, problems) for folder in run.trainings]
    options.note_problems(problems)
    if not trainings:
        return None
    described = [_described(run.root, training) for training in trainings]
    for training, name in zip(trainings, (one["folder"] for one in described), strict=True):
        _add_notices(training, name, options)
    options.headline("models trained", sum(training.is_complete for training in trainings), "#training")
    return {"trainings": described}


def _described(root: Path, training: Training) -> dict:
    held_out: dict[str, dict[str, list]] = {}  # by metric and direction
    for one in training.held_out:
        of_metric = held_out.setdefault(METRICS.get(one.metric, one.metric), {})
        of_metric.setdefault(one.direction, []).append([one.step, _short(one.value)])
    kept = ("is_complete", "stopped_early", "steps", "max_steps", "chosen", "checkpoints", "averaged", "left_out")
    return {
        "folder": relative(root, training.folder),
        **{name: getattr(training, name) for name in kept},
        "metric": METRICS.get(training.metric, training.metric),
        "settings": {name: training.settings.get(name) for name in SHOWN},
        "pairs": [training.data.get("train_pairs"), training.data.get("test_pairs")],
        "curves": {
            name: [[round(step, 1), _short(value)] for step, value in points]
            for name, points in training.curves.items()
        },
        "held_out": held_out,
        "worse": [[_label(name), _short(now), _short(before)] for name, now, before in training.worse],
    }


def _short(value: float | None) -> float | None:
    """With six significant digits."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _label(name: str) -> str:
    metric, _, direction = name.partition("_")
    return f"{METRICS.get(metric, metric)}{f' of {direction}' if direction else ''}"


def _add_notices(training: Training, name: str, options: Options) -> None:
    """Notices of what a reader should know before trusting a model."""
    of_all = [worse for worse in training.worse if "_" not in worse[0]]
    for metric, now, before in of_all or training.worse:
        what = f"{name}: held-out {_label(metric)}"
        options.notice("warning", f"{what} is {now:.4g} at the checkpoint, worse than {before:.4g} before training")
    if any(value is None for _, value in training.curves.get("loss", ())):
        options.notice("warning", f"{name}: the loss was not a finite number at some steps")
    if not training.is_complete:
        of = f" of {training.max_steps:,}" if training.max_steps else ""
        at = f"at step {training.steps:,}{of}"
        options.notice("missing", f"{name} has no manifest: {at} it is running, or was interrupted")
    if training.curves and not training.held_out:
        options.notice("missing", f"{name}: nothing was held out, so the last checkpoint was taken")
    if not training.curves and not training.held_out:
        options.notice("missing", f"{name} has no log of its steps (train_log.jsonl)")
    last = max((one.step for one in training.held_out), default=0)
    is_last = training.chosen and training.chosen == last
    if training.is_complete and is_last and not (training.stopped_early or training.worse):
        options.notice("info", f"{name}: the last evaluation is the best, so more steps may help")
