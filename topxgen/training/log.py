"""What a training run reports while it runs: a progress bar, train_log.jsonl, loss curves."""

import hashlib
import importlib.util
import logging
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import rewrite_logs

from topxgen.common import rates
from topxgen.common.console import Progress
from topxgen.common.files import Appender, replacing, to_line, write_atomic
from topxgen.training.checkpoints import SUMS
from topxgen.training.model_card import regressions

logger = logging.getLogger(__name__)

CURVES_FILE = "loss_curves.png"
CURVES_S = 60.0  # between two drawings, before the last at the end


class RunLog(TrainerCallback):
    """Progress bar and log file `path` of the main process. A resumed run drops the lines after its checkpoint."""

    def __init__(self, path: Path):
        self._path, self._curves = path, path.with_name(CURVES_FILE)
        self._bar: Progress | None = None
        self._log: Appender | None = None
        self._warned: set[str] = set()
        self._drawn = time.monotonic()

    def on_train_begin(self, args, state, control, **kwargs):
        write_atomic(self._path, map(to_line, state.log_history))
        self._log = Appender(self._path)
        self._bar = Progress("train", state.max_steps, "steps", done=state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        self._bar.update(1)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self._log is None:
            return
        entry = state.log_history[-1]
        self._log.write(entry)
        metrics = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
        if "loss" in entry:
            self._bar.update(0, loss=round(entry["loss"], 4), tokens_per_second=round(entry["tokens_per_second"]))
        elif metrics:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if name != "runtime")
            self._bar.write(f"step {state.global_step}: held-out {shown}")
            for name, now, before in regressions(state.log_history):
                if name not in self._warned:
                    self._warned.add(name)
                    logger.warning(
                        f"held-out {name} at step {state.global_step} is {now:.4g}, worse than {before:.4g} before training"
                    )

    def on_save(self, args, state, control, **kwargs):
        self._log.sync()
        if state.global_step < state.max_steps and time.monotonic() > self._drawn + CURVES_S:
            draw_curves(state.log_history, self._curves)
            self._drawn = time.monotonic()

    def on_train_end(self, args, state, control, **kwargs):
        self.close()
        draw_curves(state.log_history, self._curves)

    def close(self) -> None:
        if self._bar is not None:
            if rate := self._bar.rate():  # with evaluations and checkpoints
                rates.record(self._path.parent, {"train": rate})
            self._bar.close()
            self._log.close()
            self._bar = self._log = None


class TrackioLog(TrainerCallback):
    """The log as a run of Trackio, on this machine only (in TRACKIO_DIR). A resumed run is written anew, as its log file is, so
    that no step is there twice."""

    PROJECT = "topxgen"

    def __init__(self, output_dir: Path, settings: dict):
        place = str(output_dir.resolve())  # two runs may have folders of one name
        self._name = f"{output_dir.resolve().name}-{hashlib.sha256(place.encode()).hexdigest()[:6]}"
        self._settings = {**settings, "output_dir": place}

    def on_train_begin(self, args, state, control, **kwargs):
        self.write(state.log_history, ends=False)

    def write(self, history: list[dict], ends: bool = True) -> None:
        """Replace the run by this history; `ends`: nothing will follow."""
        import trackio

        with redirect_stdout(sys.stderr):
            projects = trackio.Api()
            try:
                earlier = [run for run in projects.runs(self.PROJECT) if run.name == self._name]
            except ValueError:  # no such project yet
                earlier = []
            for run in earlier:
                run.delete()
            options = dict(embed=False, auto_log_cpu=False, auto_log_gpu=False)
            trackio.init(self.PROJECT, name=self._name, config=self._settings, **options)
            for entry in history:
                self._log(entry)
            if ends:
                trackio.finish()

    def _log(self, entry: dict) -> None:
        import trackio

        metrics = {name: value for name, value in entry.items() if name != "step"}
        trackio.log(rewrite_logs(metrics), step=entry["step"])

    def on_log(self, args, state, control, **kwargs):
        self._log(state.log_history[-1])

    def on_train_end(self, args, state, control, **kwargs):
        import trackio

        with redirect_stdout(sys.stderr):
            trackio.finish()


def complete(path: Path, state) -> None:
    """Complete the log of a run that was killed between its last checkpoint and its last line."""
    last = path.read_bytes().rpartition(b"\n{")[2] if path.exists() else b""
    sums = state.stateful_callbacks.get(SUMS)
    if sums and not (b'"train_loss"' in last and last.endswith(b"\n")):
        train_loss = (sums["logged"] + sums["unlogged"][0]) / state.global_step
        summary = {
            "total_flos": state.total_flos,
            "train_loss": train_loss,
            "epoch": state.epoch,
            "step": state.global_step,
        }
        write_atomic(path, map(to_line, [*state.log_history, summary]))


def draw_curves(history: list[dict], path: Path) -> None:
    """Plot training and held-out loss, and held-out chrF++ if there is any, over steps, as a PNG."""
    if importlib.util.find_spec("matplotlib") is None:  # at the end of days of training, and only a picture
        logger.warning(f"no {path.name}: matplotlib is not installed")
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [("loss", {"loss": "training", "eval_loss": "held-out"})]
    if chrf := sorted({name for entry in history for name in entry if name.startswith("eval_chrf_")}):
        panels.append(("chrF++", {name: name.removeprefix("eval_chrf_") for name in chrf}))
    figure = Figure(figsize=(7 * len(panels), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, labels) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, label in labels.items():
            points = [(entry["step"], entry[name]) for entry in history if name in entry]
            if points:
                axes.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 60 else None)
        axes.set(xlabel="step", ylabel=title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    with replacing(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)
