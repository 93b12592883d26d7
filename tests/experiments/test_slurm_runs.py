"""Whole runs, trainings, experiments and rounds under a SLURM of the test's own, killed and not, leave what one process does."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.perf import slurm_kills
from tests.attack.shooting_range import KEY, Stub
from tests.experiments.test_comparison_run import small
from tests.experiments.test_rounds import write as rounds_file
from tests.support import slurm as support
from tests.support.run_files import write
from tests.support.runs import ROOT, in_process
from tests.support.slurm import log, submit

pytestmark = pytest.mark.slow


def train_section(model: str) -> str:
    return (
        f"train: {{model_name_or_path: {model}, dataset_name_or_path: udhr, target_languages: Basque, max_length: 256, max_steps: 30, "
        "num_warmup_steps: 1, test_size_ratio: 4, per_device_train_batch_size: 1, gradient_accumulation_steps: 1, eval_steps: 10, "
        "save_steps: 10, logging_steps: 5, num_workers: 0, learning_rate: 1e-3, "
        f"launcher: [accelerate, launch, --config_file, {ROOT}/configs/two_cpu_processes.yaml]}}"
    )


def test_training_on_two_nodes(here, cluster, tiny_lm, monkeypatch):
    """A process on each, stopped in the middle: the model of two processes on one node that are not stopped."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("MAIN_PROCESS_IP", "127.0.0.1")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    write(here, train_section(tiny_lm), "slurm: {train: {gres: none, cpus: 1, nodes: 2}}")
    result = subprocess.run(
        [sys.executable, ROOT / "scripts/run.py", "run.yaml", "--set", "output_dir=one"], capture_output=True
    )
    assert result.returncode == 0, result.stderr
    assert submit().returncode == 0
    (number,) = (job["id"] for job in support.last_jobs(here))
    cluster.wait(lambda: list(here.glob("out/train/checkpoint-10/checkpoint_files.json")), 300)
    cluster.call("scancel", "--signal=USR1", "--batch", number)
    assert cluster.outcome(number, 240) == {str(number): "COMPLETED"}, log(here)
    said = log(here)
    assert "x 2 processes" in said and "stopped by a signal after saving step" in said and "restart 1" in said
    assert (here / "out/train/model.safetensors").read_bytes() == (here / "one/train/model.safetensors").read_bytes()
    assert json.loads((here / "out/run/train.json").read_text())["exit_code"] == 0
    assert submit().stdout == "all stages are complete\n"


@pytest.fixture
def whole(here, tiny_nllb, monkeypatch):
    """A folder with a run file of all stages, and what scripts/run.py makes of it, in `one`."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Stub() as stub:
        write(here, support.whole_run(stub.url("openai"), tiny_nllb))
        command = [sys.executable, ROOT / "scripts/run.py", "run.yaml", "--set", "output_dir=one"]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        yield here


def test_a_whole_run(whole, cluster):
    assert submit().returncode == 0
    again = submit()
    assert again.returncode == 2 and "jobs of this run are queued or running, such as" in again.stderr
    states = support.wait_for_all(cluster, whole)
    assert set(states.values()) == {"COMPLETED"}, log(whole)
    assert support.results(whole / "out") == support.results(whole / "one")
    assert in_process("scripts/verify.py", "out").returncode == 0
    assert submit().stdout == "all stages are complete\n"
    # Flags of a stage, and all behind it
    first = [line.split()[1] for line in submit("--set", "decontamination.ngram_size=9").stdout.splitlines()[:-1]]
    assert first == ["decontamination,", "decontamination-merge:", "main,", "main-merge:", "evaluate:"]
    cluster.call("scancel", "--user=root")
    cluster.wait(lambda: set(cluster.jobs().values()) <= support.ENDED)


def test_a_task_that_failed_runs_alone(whole, cluster):
    """kill -9 of one task's process: the jobs behind are cancelled, and submitting again runs that task and what is behind it."""
    killed = []

    def kill_one() -> None:
        for pid in support.processes_of(whole, "datagen.py", "--stages generate", "--shard_index 1"):
            if not killed:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    assert submit().returncode == 0
    states = support.wait_for_all(cluster, whole, kill_one)
    assert states["generate_1"] == "FAILED" and {states["generate_0"], states["generate_2"]} == {"COMPLETED"}
    others = {state for name, state in states.items() if not name.startswith("generate_")}
    assert others == {"CANCELLED"} and "exit code 137, killed, perhaps for its memory: see above" in log(whole)
    result = submit()
    assert "generate, 1 of 3 tasks: not run yet" in result.stdout and support.last_jobs(whole)[0]["tasks"] == [1], (
        result.stdout
    )
    assert set(support.wait_for_all(cluster, whole).values()) == {"COMPLETED"}, log(whole)
    assert support.results(whole / "out") == support.results(whole / "one")


def test_random_kills(cluster, tmp_path, tiny_nllb):
    """A few of the campaign of scripts/perf/slurm_kills.py, in each stage one."""
    found = slurm_kills.campaign(cluster, tmp_path / "runs", tiny_nllb, kills=7, seed=1)
    assert found["by_stage"] == dict.fromkeys(slurm_kills.STAGES, 1) and found["equal"]


def test_an_experiment_under_slurm(cluster, in_cluster, tmp_path, tiny_lm, monkeypatch):
    """Its jobs leave the table that scripts/compare.py makes of the same folders, and nothing to be done."""
    monkeypatch.chdir(ROOT)
    section = "[generate, translate]\nslurm: {gres: none, cpus: 1, generate: {shards: 2}}"
    path = small(tmp_path, tiny_lm, **{"[generate, translate]": section, "seeds: [1, 2]": "seeds: [1]"})
    result = submit(file=str(path))
    assert result.returncode == 0, result.stderr
    states = support.wait_for_all(cluster, tmp_path, seconds=1200)
    assert set(states.values()) == {"COMPLETED"}, log(tmp_path)
    table = (tmp_path / "out/comparison.json").read_bytes()
    assert [one["name"] for one in json.loads(table)["variants"]] == ["cold", "hot", "mixed", "nothing"]
    assert submit(file=str(path)).stdout == "all stages are complete\n"
    assert in_process("scripts.compare", path).returncode == 0
    assert (tmp_path / "out/comparison.json").read_bytes() == table


def test_rounds_under_slurm(cluster, in_cluster, tmp_path, tiny_lm, monkeypatch):
    """The held-out score falls in round 1: they end, the jobs of round 2 do nothing, and scripts/run.py finds all done."""
    monkeypatch.chdir(ROOT)
    changed = {"evaluate: {": "slurm: {gres: none, cpus: 1, translate: {shards: 2}}\nevaluate: {"}
    for seed in range(1, 13):  # until the model of one writes English, as in test_rounds.py
        here = tmp_path / str(seed)
        seeded = {"patience: 1": "patience: 0", "  learning_rate: 3e-3": f"  learning_rate: 3e-3\n  seed: {seed}"}
        path = rounds_file(here, tiny_lm, **changed, **seeded)
        result = submit(file=str(path))
        assert result.returncode == 0, result.stderr
        states = support.wait_for_all(cluster, here, seconds=1200)
        if "holds no pairs" not in log(here):
            break
    assert set(states.values()) == {"COMPLETED"} and "round-2-evaluate" in states, log(here)
    table = (here / "out/rounds.json").read_bytes()
    found = json.loads(table)
    assert [one["round"] for one in found["rounds"]] == [0, 1] and "has not risen for 1 round" in found["stopped"]
    assert not list(here.glob("out/round-2/*"))
    assert submit(file=str(path)).stdout == "all stages are complete\n"
    assert in_process("scripts.run", path).returncode == 0
    assert (here / "out/rounds.json").read_bytes() == table
