"""scripts/perf/gpu.py: figures are kept whatever becomes of a part."""

import importlib.util
import json
import subprocess
import sys
import time

import psutil
import pytest

from tests.support.runs import ROOT

SCRIPT = ROOT / "scripts" / "perf" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "1")
    spec = importlib.util.spec_from_file_location("gpu_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.medium
def test_a_part_in_its_small_shape(tmp_path):
    output, kept = tmp_path / "gpu.json", set()
    command = [sys.executable, SCRIPT, "--tiny", "--parts", "decontamination", "--output", output]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:  # what a run that is cut here leaves
            figures = json.loads(output.read_text()).get("decontamination", {}) if output.exists() else {}
            kept |= figures.keys() if "seconds" not in figures else set()
            time.sleep(0.02)
    assert process.returncode == 0 and "pairs_per_second_1_cores" in kept
    found = json.loads(output.read_text())
    assert found["tiny"] and found["versions"].keys() == {"torch", "transformers", "accelerate", "peft"}
    assert found["decontamination"]["pairs_per_second_1_cores"] > 0 and "problem" not in found["decontamination"]


@pytest.mark.medium
def test_a_part_that_fails_or_takes_too_long(gpu, tmp_path):
    assert gpu.run_limited([sys.executable, "-c", "pass"], 60) is None
    assert "ValueError: no memory" in gpu.run_limited([sys.executable, "-c", "raise ValueError('no memory')"], 60)
    marker = tmp_path / "child"
    child = f"import os, time; open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    began = time.monotonic()
    assert gpu.run_limited([sys.executable, "-c", parent], 2) == "not done after 2 s"
    assert time.monotonic() - began < 60
    if marker.exists() and marker.read_text():  # it had the time to write
        for _ in range(1200):
            if not psutil.pid_exists(int(marker.read_text())):
                break
            time.sleep(0.05)
        else:
            assert psutil.Process(int(marker.read_text())).status() == psutil.STATUS_ZOMBIE


def test_all_parts_fit_in_eight_minutes(gpu):
    assert sum(limit for limit, _ in gpu.PARTS.values()) <= 480
