"""Runs of Trackio: on this machine, with every step once however often a run is killed, and no network."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runs import ROOT, in_process, signalled
from tests.support.training_runs import flags, log

pytest.importorskip("trackio", reason="trackio is not installed")
# Python runs a module of this name at its start.
NO_NETWORK = """
import socket

def refuse(self, address):
    with open({log!r}, "a") as file:
        file.write(repr(address) + chr(10))
    raise OSError("no network here")

socket.socket.connect = socket.socket.connect_ex = refuse
"""


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    start = tmp_path / "start"
    start.mkdir()
    (start / "sitecustomize.py").write_text(NO_NETWORK.format(log=str(tmp_path / "connections.txt")))
    variables = {"TRACKIO_DIR": str(tmp_path / "trackio"), "PYTHONPATH": str(start), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **variables, "HF_HUB_OFFLINE": "0"}


def train(environment: dict, words: list[str], before: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    command = [sys.executable, *before, "train.py", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def runs(folder: Path) -> dict[str, list[dict]]:
    """By run, what was logged, step by step."""
    found: dict[str, list[dict]] = {}
    with sqlite3.connect(folder / "topxgen.db") as database:
        for name, step, metrics in database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id"):
            found.setdefault(name, []).append({"step": step, **json.loads(metrics)})
    return found


@pytest.mark.medium
def test_a_killed_run_has_every_step_once_and_nothing_left_the_machine(tiny_lm, tmp_path, environment):
    output = tmp_path / "run"
    words = flags(tiny_lm, output, report_to="trackio", save_steps=4, eval_steps=4, max_steps=12)
    killed = train(environment, words, signalled(output / "train_log.jsonl", 9))
    assert killed.returncode == -9 and (output / "checkpoint-4").is_dir()
    result = train(environment, words)
    assert result.returncode == 0, result.stderr
    assert "resuming from" in result.stderr and "Trackio" not in result.stdout
    (name, points), *others = runs(tmp_path / "trackio").items()
    assert not others and name.startswith("run-")
    losses = [(point["step"], point["train/loss"]) for point in points if "train/loss" in point]
    assert losses == [(entry["step"], pytest.approx(entry["loss"])) for entry in log(output) if "loss" in entry]
    held_out = [(point["step"], point["eval/loss"]) for point in points if "eval/loss" in point]
    assert held_out == [(e["step"], pytest.approx(e["eval_loss"])) for e in log(output) if "eval_loss" in e]
    # Killed after its last checkpoint, or of the same name in another place.
    (output / "manifest_train.json").unlink()
    assert train(environment, words).returncode == 0
    assert {n: len(p) for n, p in runs(tmp_path / "trackio").items()} == {name: len(points)}
    assert train(environment, flags(tiny_lm, tmp_path / "b" / "run", report_to="trackio", max_steps=1)).returncode == 0
    assert len(runs(tmp_path / "trackio")) == 2 and len(runs(tmp_path / "trackio")[name]) == len(points)
    assert not (tmp_path / "connections.txt").exists()


def test_it_would_log_elsewhere(tiny_lm, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_SPACE_ID", "someone/place")
    result = in_process("train.py", *flags(tiny_lm, tmp_path / "run", report_to="trackio"))
    assert result.returncode == 2 and "but TRACKIO_SPACE_ID is set: unset it" in result.stderr


@pytest.mark.parametrize("tracker", ["tensorboard", "trackio", "wandb"])
def test_a_tracker_that_is_not_installed(tracker, tiny_lm, tmp_path, monkeypatch):
    found = __import__("importlib").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == tracker else found(name, *a))
    result = in_process("train.py", *flags(tiny_lm, tmp_path / "run", report_to=tracker))
    assert result.returncode == 2 and f"--report_to {tracker} needs {tracker}" in result.stderr
    assert f"pip install '{tracker}'" in result.stderr and "Traceback" not in result.stderr
