"""--distributed ray: the same files as one process writes, whatever becomes of the workers; nothing is left behind."""

import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.inference.test_samplers import assert_no_engine_left, vllm_run
from tests.support import tiny_models
from tests.support.ray_runs import (
    RAY,
    TRANSLATED,
    Driver,
    decontaminate,
    differences,
    kill_all,
    ray_start,
    running_cluster,
    small_command,
    token,
    workers,
)
from tests.support.runs import ROOT, in_process, lines_in, records
from tests.support.tiny_metricx import build_metricx
from topxgen.generation import scoring

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # each worker loads its own models


@pytest.fixture(scope="module")
def command(tiny_lm, tiny_nllb, tmp_path_factory):
    """LLM, NLLB and BLASER, small ones."""
    return small_command(tiny_lm, tiny_nllb, tmp_path_factory.mktemp("scorers"), 120)


@pytest.fixture(scope="module")
def one(command, tmp_path_factory):
    """What one process leaves."""
    import torch

    folder, threads = tmp_path_factory.mktemp("one"), torch.get_num_threads()
    torch.set_num_threads(1)
    in_process("datagen.py", *command, "--output_dir", folder)
    torch.set_num_threads(threads)
    return folder


def test_two_workers_write_what_one_process_does(command, one, tmp_path):
    result = in_process("datagen.py", *command, *RAY, "--output_dir", tmp_path)
    assert differences(tmp_path, one) == []
    assert result.returncode in (0, 3) and "(raylet)" not in result.stderr, "Ray's own words are in the log"


def test_workers_and_the_driver_killed_in_each_stage(command, one, tmp_path):
    """kill -9 of a worker while it generates, translates and scores, and of the driver; the same files in the end."""
    answers, translated = tmp_path / "Basque_answers.jsonl", tmp_path / TRANSLATED / "Basque_translate.jsonl"
    driver, killed = Driver("datagen.py", *command, "--output_dir", tmp_path), 0
    for reached in (lambda: lines_in(answers) > 10, lambda: (tmp_path / "manifest_generate.json").exists()):
        if driver.wait_for(reached) and driver.wait_for(driver.workers):
            driver.workers()[0].kill()
            killed += 1
    assert driver.wait_for(lambda: lines_in(translated) > 0)
    driver.process.kill()
    assert driver.ended()[0] == -signal.SIGKILL and killed == 2
    driver = Driver("datagen.py", *command, "--output_dir", tmp_path)
    assert driver.ended()[0] in (0, 3)
    assert differences(tmp_path, one) == []


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_to_all_processes(command, one, tmp_path, number, code):
    """As from a terminal or a scheduler: it ends in time, no process of Ray is left, and it goes on where it was."""
    answers = tmp_path / "Basque_answers.jsonl"
    driver = Driver("datagen.py", *command, "--output_dir", tmp_path)
    assert driver.wait_for(lambda: lines_in(answers) > 5)
    os.killpg(driver.process.pid, number)
    returned, err = driver.ended(120)
    assert returned == code
    assert "; finished work is on disk; re-run the same command to resume" in err and "Traceback" not in err
    assert Driver("datagen.py", *command, "--output_dir", tmp_path).ended()[0] in (0, 3)
    assert differences(tmp_path, one) == []


def free_cores(environment: dict[str, str]) -> float:
    """Of a cluster, right now."""
    code = "import ray; ray.init(log_to_driver=False, logging_level=40); print('\\n', ray.available_resources()['CPU'])"
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return float(result.stdout.split()[-1])


def script_in(environment: dict[str, str], *command, exit_code: int = 0) -> subprocess.CompletedProcess:
    words = [sys.executable, *map(str, command)]
    result = subprocess.run(words, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    assert result.returncode == exit_code, result.stderr
    return result


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("environment", [{"RAY_AUTH_MODE": "disabled"}, token()], ids=["no token", "token"])
def test_a_running_cluster(environment, pairs, command, one, tmp_path):
    """It is joined, does the work, and goes on as it was; without its token it is not."""
    expected = decontaminate(pairs, tmp_path / "one", "--num_workers", 1)
    clean = ("decontamination.py", "--input_dir", pairs, "--benchmarks", "udhr", *RAY, "--output_dir")
    with running_cluster(**environment) as (head, environment):
        by_name = environment | {"RAY_ADDRESS": "auto"}
        script_in(by_name, *clean, tmp_path / "many")
        found = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "many").glob("*.jsonl")
        }
        assert found == expected
        result = script_in(environment, "datagen.py", *command, *RAY, "--output_dir", tmp_path / "out")
        assert differences(tmp_path / "out", one) == [] and "(raylet)" not in result.stderr
        assert head.is_running() and workers(head.pid) == [] and free_cores(environment) == 4
        other = "import ray, runpy, sys; ray.__version__ = '1.0'; del sys.argv[0]; runpy.run_path(*sys.argv[:1], run_name='__main__')"
        err = script_in(environment, "-c", other, *clean, tmp_path / "other", exit_code=2).stderr
        assert "This process on node" in err and err.endswith(
            "all nodes need the same versions; see the end of engine.log\n"
        )
        if "RAY_AUTH_TOKEN" in environment:
            for wrong in (secrets.token_hex(32), None):
                without = environment | {"RAY_AUTH_TOKEN": wrong or "", "HOME": str(tmp_path)}
                began = time.monotonic()
                err = script_in(without, *clean, tmp_path / "refused", exit_code=2).stderr
                last = err.splitlines()[-1]
                assert (
                    "error: cannot join the Ray cluster at" in last
                    and "RAY_AUTH_TOKEN must be those of the cluster" in last
                )
                assert "Traceback" not in err
                assert time.monotonic() - began < 300
        # More than it has room for
        err = script_in(environment, *clean, tmp_path / "refused", "--num_workers", 5, exit_code=2).stderr
        assert "the Ray cluster has room for 4 workers (4 cores), fewer than the 5 of --num_workers" in err


def test_a_killed_command_leaves_a_running_cluster_as_it_was(command, one, tmp_path, monkeypatch):
    """kill -9 of the command: its workers end, the cluster goes on, and the same command resumes on it."""
    answers = tmp_path / "Basque_answers.jsonl"
    with running_cluster(RAY_AUTH_MODE="disabled") as (head, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        driver = Driver("datagen.py", *command, "--output_dir", tmp_path)
        assert driver.wait_for(lambda: lines_in(answers) > 10) and len(workers(head.pid)) == 2
        driver.process.kill()
        assert driver.ended()[0] == -signal.SIGKILL
        until = time.monotonic() + 300
        while workers(head.pid) or free_cores(environment) < 4:
            assert time.monotonic() < until, "its workers are still there"
            time.sleep(0.5)
        kept = answers.read_bytes()
        driver = Driver("datagen.py", *command, "--output_dir", tmp_path)
        assert driver.ended()[0] in (0, 3) and head.is_running()
        assert answers.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1]) and differences(tmp_path, one) == []


ON_NODES = """
import logging, os, sys, time
from itertools import count, takewhile
from topxgen import distributed
from topxgen.distributed import Call, Plan

class Where:
    def __call__(self): return self
    def where(self, number):
        time.sleep(0.5)
        return number, os.getppid()

logging.basicConfig(level=logging.INFO)
pool = distributed.start(Where(), Plan("ray", "test", None, lambda *of_a_node: print(*of_a_node) or 1))
print(len(pool._actors), flush=True)
numbers = takewhile(lambda _: not os.path.exists(sys.argv[1]), count())
calls = (Call("where", (number,)) for number in numbers)
for number, node in pool.map(calls):
    print(number, node, flush=True)
"""


TORCH_WITH_80_GB = """
from types import SimpleNamespace

class cuda:
    device_count = lambda: 1
    get_device_properties = lambda number: SimpleNamespace(total_memory=80_000_000_000)
"""


def test_a_node_that_joins_and_one_of_many_workers_that_is_lost(tmp_path):
    """Workers start on the node that joins; when the first one is lost with its six, the second does the rest. The nodes measure
    their GPUs (a module in place of torch says how large they are)."""
    (tmp_path / "gpus").mkdir()
    (tmp_path / "gpus" / "torch.py").write_text(TORCH_WITH_80_GB)
    with (
        running_cluster(0, RAY_AUTH_MODE="disabled", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="1") as (_, environment),
        ExitStack() as nodes,
    ):

        def node(gpus: int):
            options = (f"--address={environment['RAY_ADDRESS']}", f"--num-cpus={gpus}", f"--num-gpus={gpus}")
            facts = environment | {"PYTHONPATH": f"{tmp_path}/gpus:{ROOT}"}
            return nodes.enter_context(ray_start(tmp_path / f"{gpus}", facts, *options))

        enough = tmp_path / "enough"
        first, words, answers = node(6), [sys.executable, "-c", ON_NODES, enough], []
        with open(tmp_path / "log", "w") as log:
            process = subprocess.Popen(
                words, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert [process.stdout.readline() for _ in range(2)] == ["6 80000000000\n", "6\n"]
        node(1)
        for line in process.stdout:
            answers.append(line.split())
            if first.is_running() and len({parent for _, parent in answers}) == 2:
                kill_all(first)
                last = len(answers) + 40
            if not first.is_running() and len(answers) == last:
                enough.touch()
        said = (tmp_path / "log").read_text()
        assert process.wait(60) == 0 and [int(number) for number, _ in answers] == list(range(len(answers))), said
        assert not first.is_running() and "joined the Ray cluster: 1 more workers" in said and "was lost" in said


def test_metricx_in_two_workers(tmp_path):
    """Scores of several blocks are those of one process."""
    pairs = [pair for pair in tiny_models.udhr_pairs("Basque") for _ in range(30)]
    model = build_metricx(tmp_path / "metricx-24-tiny", [text for pair in pairs for text in pair])
    flags = (
        "--languages", "Basque", "--stages", "score", "--translate_dir", "t", "--scorer", "metricx-qe",
        "--metricx_name_or_path", model,
    )  # fmt: skip
    scored = []
    for folder, more in ((tmp_path / "one", ()), (tmp_path / "many", RAY)):
        (folder / "t").mkdir(parents=True)
        path = folder / "t" / "Basque_translate.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            for i, (text, sentence) in enumerate(pairs):
                record = {"id": f"Basque-{i:06}.0", "sentence": sentence, "propositions": [sentence]}
                record |= {"translations": [text], "scores": [None]}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        script_in({}, "datagen.py", *flags, "--output_dir", folder, *more)
        scored.append(path.read_bytes())
    assert scored[0] == scored[1] and len(pairs) > scoring.RECORDS_PER_BLOCK
    assert len({record["scores"][0] for record in records(path)}) > 20


MAIN = {
    "CompTra": ("--steps", 1, "--method_divide", "llm", "--number_of_subproblems", 2, "--max_new_tokens_divide", 24),
    "beams": ("--num_beams", 3, "--num_return_sequences", 2),
    "sampling": ("--num_return_sequences", 3, "--temperature", 0.8, "--selection_method", "chrf"),
    "adapter": (),
    "nllb": (),
    "nllb transformers": ("--nllb_engine", "transformers"),
}


@pytest.mark.parametrize("name", MAIN)
def test_translations_of_main_py(name, tiny_lm, tiny_nllb, tmp_path):
    """Those of one process, also when a worker is killed."""
    model, flags = tiny_lm, ("--tgt", "Basque", "--max_samples", 8, "--dataset_name_or_path", "udhr", *MAIN[name])
    if name.startswith("nllb"):
        flags = (
            *flags, "--method_translate", "nllb", "--nllb_name_or_path", tiny_nllb, "--nllb_compute_type", "float32", "--k", 0,
            "--cache_dir", tmp_path / "cache",
        )  # fmt: skip
    else:
        if name == "adapter":
            model = tmp_path / "adapter"
            tiny_models.adapter_of(tiny_lm, model, ["q_proj", "v_proj"])
        flags = (
            *flags, "--model_name_or_path", model, "--inference_api", "hf", "--dtype", "float32", "--k", 2, "--prompt_style", "raw",
            "--max_new_tokens", 24, "--max_new_tokens_merge", 24,
        )  # fmt: skip
    script_in({}, "main.py", *flags, "--output_dir", tmp_path / "one")
    driver = Driver("main.py", *flags, "--output_dir", tmp_path / "many")
    if name == "CompTra":
        assert driver.wait_for(lambda: any(map(lines_in, (tmp_path / "many").rglob("*answers*"))))
        driver.workers()[0].kill()
    code, err = driver.ended()
    assert code == 0 and ("was lost" in err) == (name == "CompTra"), err
    found = [
        {str(path.relative_to(tmp_path / folder)): sorted_lines(path) for path in (tmp_path / folder).rglob("*.jsonl")}
        for folder in ("one", "many")
    ]
    assert any(name.endswith("translate_0.jsonl") for name in found[0])
    assert found[0] == found[1]


@pytest.mark.timeout(1200)
def test_vllm_in_two_workers(gemma, tmp_path):
    """Greedy responses of Gemma 3 270M on vLLM's CPU build: the files are those of one process; no engine is left."""
    pytest.importorskip("vllm", reason="vLLM is not installed here (scripts/setup.sh tries)")
    for folder, more in (("one", ()), ("many", RAY)):
        flags = (*vllm_run(gemma, tmp_path / folder), "--dtype", "float32", "--temperature", 0, *more)
        flags = (*flags, "--number_of_instructions", 16)
        script_in({"VLLM_CPU_KVCACHE_SPACE": "1"}, "datagen.py", *flags)
    assert differences(tmp_path / "many", tmp_path / "one") == []
    assert lines_in(tmp_path / "one" / "Basque_answers.jsonl") >= 16
    assert_no_engine_left()


def sorted_lines(path: Path) -> list[bytes]:
    """Answers are written as they arrive."""
    lines = path.read_bytes().splitlines()
    return sorted(lines) if "answers" in path.name else lines
