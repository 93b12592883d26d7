"""Checkpoints of a training as a series: their scores against the step, as a plot."""

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from comptra.tables import finite, metric_info, own_file
from comptra.tables.matrix import Systems, metric_names
from topxgen.common.console import printable
from topxgen.common.errors import UsageError
from topxgen.common.files import replacing

FORMATS = (".png", ".svg", ".pdf")


@dataclass
class Series:
    """The scores of a training's checkpoints in a direction: (step, score, low, high) by step; without an interval low and high
    are the score."""

    label: str
    direction: str
    points: list[tuple[int, float, float, float]] = field(default_factory=list)


@dataclass
class Panel:
    """A metric on a test set; `baselines` are scores by direction."""

    title: str
    axis: str
    series: list[Series]
    baselines: dict[str, float]
    digits: int  # decimals of its scores


def check_format(path: Path) -> None:
    """Raise UsageError for a file whose name does not end in one of FORMATS."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"--plot {path}: a plot is {', '.join(FORMATS)}; end the name of the file in one of these")


def panels(report: dict) -> list[Panel]:
    """What is to be plotted: series of two checkpoints or more."""
    systems, found = Systems(report["groups"]), []
    trainings = {_training(systems, row) for group in report["groups"] for row in group["systems"]} - {None}
    common = os.path.commonpath([folder for folder, _ in trainings]) if len(trainings) > 1 else ""
    for dataset in dict.fromkeys(group["dataset"] for group in report["groups"]):
        groups = [group for group in report["groups"] if group["dataset"] == dataset]
        directions = [(group["src"], group["tgt"]) for group in groups]
        for name in metric_names(groups):
            series: dict[tuple, Series] = {}
            baselines: dict[str, float] = {}
            for group in groups:
                direction = f"{group['src']} to {group['tgt']}"
                if directions.count((group["src"], group["tgt"])) > 1:  # as its first 100 sentences and all of them
                    sentences = f"{group['sentences']:,} sentences"
                    direction += f" ({own_file(group) or sentences})"
                for row in group["systems"]:
                    value = row["scores"].get(name) or {}
                    if (score := finite(value.get("score"))) is None:
                        continue
                    if training := _training(systems, row):
                        folder, settings = training
                        parts = [direction, *([os.path.relpath(folder, common), settings] if common else [])]
                        step = int(systems.columns[systems.key(row)]["checkpoint"])
                        low, high = map(finite, value.get("interval") or (None, None))
                        point = step, score, score if low is None else low, score if high is None else high
                        key = group["sources_digest"], direction, training
                        series.setdefault(key, Series(", ".join(parts), direction)).points.append(point)
                    elif row["path"] == group.get("baseline"):
                        baselines[direction] = score
            drawn = [replace(one, points=sorted(one.points)) for one in series.values() if len(one.points) > 1]
            if drawn:
                info = next(metric_info(group, name) for group in groups if name in group["titles"])
                axis = info.title + ("" if info.higher_is_better else " (lower is better)")
                found.append(Panel(f"{info.title}, {dataset}", axis, drawn, baselines, info.digits))
    return found


def _training(systems: Systems, row: dict) -> tuple[str, str] | None:
    """What a checkpoint has in common with the others of its training, folder and settings; None for what is no checkpoint."""
    own = systems.columns[systems.key(row)]
    if not own.get("checkpoint"):
        return None
    values = [f"{name} {value}" for name, value in own.items() if name != "checkpoint" and value]
    return os.path.abspath(Path(row["path"]).parent.parent), ", ".join(values)


def plot(report: dict, path: Path) -> None:
    """Plot scores against steps: a panel for each metric and test set, a line for each direction (and training, if there are
    several), bands for 95% intervals, dashed lines for the baseline.

    Raises UsageError if there are no two checkpoints of a training.
    """
    made = panels(report)
    if not made:
        raise UsageError(
            f"--plot {path} is not written: no two of the systems are checkpoints of one training (translations in folders "
            "checkpoint-N); pass the folders of several"
        )
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4 * len(made)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(len(made), 1, squeeze=False)[:, 0], made, strict=True):
        for one in panel.series:
            steps, scores, low, high = zip(*one.points, strict=True)
            (line,) = axes.plot(steps, scores, marker=".", label=_plain(one.label))
            if (low, high) != (scores, scores):
                axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
            if one.direction in panel.baselines:
                axes.axhline(panel.baselines[one.direction], color=line.get_color(), linestyle="--", linewidth=1)
        notes = ["bands: 95% intervals"] * any(p[2] < p[3] for one in panel.series for p in one.points)
        notes += ["dashed: baseline"] * bool(panel.baselines)
        axes.set(xlabel="step" + (f" ({', '.join(notes)})" if notes else ""), ylabel=_plain(panel.axis))
        axes.set_title(_plain(panel.title))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    with replacing(path, "wb") as file:
        figure.savefig(file, format=path.suffix.lower()[1:], dpi=110)


def _plain(text: str) -> str:
    """As matplotlib shows it: "$" begins a formula there."""
    return re.sub(r"([$\\])", r"\\\1", " ".join(printable(text).split()))
