"""--distributed ray: the same files as one process writes, whatever becomes of the workers; refusals; nothing is left behind."""

import hashlib
import json
import os
import pickle
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import psutil
import pytest

from tests.inference.test_samplers import assert_no_engine_left, vllm_run
from tests.support import tiny_models
from tests.support.ray_runs import RAY, TRANSLATED, Driver, differences, running_cluster, small_command, token, workers
from tests.support.runs import ROOT, in_process, lines_in, records
from tests.support.tiny_metricx import build_metricx
from topxgen import distributed
from topxgen.common.errors import UsageError
from topxgen.decontamination import parallel_jsonl
from topxgen.distributed import Call, Plan, ray_cluster, worker
from topxgen.distributed.ray_pool import share
from topxgen.generation import scoring

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed here (pip install 'ray>=2.60')"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One local cluster for all tests of this process. One thread in each process: how many there are changes the last bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield
        ray_cluster.disconnect()


# A pool, with an object that costs nothing to load


@dataclass(frozen=True)
class Slow:
    """Notes its calls."""

    folder: Path

    def __call__(self):
        return self

    def square(self, number: int, seconds: float = 0.0) -> int:
        with open(self.folder / "calls", "a", encoding="utf-8") as file:
            file.write(f"{number}\n")
        time.sleep(seconds)
        return number * number

    def fails(self, message: str) -> None:
        raise UsageError(message)

    def dies(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def noted(tmp_path_factory):
    return tmp_path_factory.mktemp("calls")


@pytest.fixture(scope="module")
def pool(noted):
    pool = distributed.start(Slow(noted), Plan("ray", "squares", 2, gpus=0))
    yield pool
    pool.close()


@pytest.mark.medium
def test_results_come_in_order_and_only_as_many_calls_are_taken_as_keep_the_workers_busy(pool):
    taken = count()
    calls = (Call("square", (next(taken), 0.0 if i else 0.5)) for i in range(200))  # the others overtake the first
    results = pool.map(calls)
    assert next(results) == 0 and next(taken) <= 2 * pool.capacity + 1
    results.close()  # what is in work is dropped
    assert list(pool.map([Call("square", (i,)) for i in range(60)])) == [i * i for i in range(60)]
    assert list(pool.map([])) == []


@pytest.mark.medium
def test_a_killed_worker_costs_its_calls_alone(pool, noted):
    results, before = [], lines_in(noted / "calls")
    for number in pool.map(Call("square", (i, 0.1)) for i in range(30)):
        results.append(number)
        if len(results) == 8:
            workers()[0].kill()
    assert results == [i * i for i in range(30)]
    assert 0 <= lines_in(noted / "calls") - before - 30 <= 2, "what was in work in one worker"
    assert list(pool.map(Call("square", (i, 0.05)) for i in range(8))) == [i * i for i in range(8)]
    assert len(workers()) == 2, "another one was started"


@pytest.mark.medium
def test_an_error_of_a_worker_is_the_drivers(pool):
    with pytest.raises(UsageError, match=r"^one clear line$"):
        list(pool.map([Call("square", (2,)), Call("fails", ("one clear line",))]))


@pytest.mark.medium
def test_a_local_cluster_listens_on_the_loopback_address_alone_and_needs_a_token(pool):
    me = psutil.Process()
    assert list(pool.map([Call("square", (3,))])) == [9]
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for process in [me, *me.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 3 and set(listening) <= {"127.0.0.1", "::1"}
    assert os.environ["RAY_AUTH_MODE"] == "token" and len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.slow
def test_a_call_that_ends_every_worker_ends_the_run(pool):
    with pytest.raises(UsageError, match=r"5 Ray workers were lost one after the other with the same work .*re-run"):
        list(pool.map([Call("dies")]))


@pytest.mark.parametrize(
    "nodes, workers, gpus, expected",
    [
        ([{"CPU": 16, "GPU": 8}], None, 1, (8, 1, 1)),
        ([{"CPU": 16, "GPU": 8}, {"CPU": 16, "GPU": 4}], None, 4, (3, 1, 4)),
        ([{"CPU": 16, "GPU": 3}, {"CPU": 16, "GPU": 3}], None, 2, (2, 1, 2)),  # one of each node is left
        ([{"CPU": 16, "GPU": 8}], 2, 2, (2, 1, 2)),
        ([{"CPU": 16}], None, 1, (1, 16, 0)),  # no GPUs: one of each node, with all its cores
        ([{"CPU": 3}, {"CPU": 3}], 3, 1, (3, 1, 0)),  # two cores each would leave the third without a node
        ([{"CPU": 8}, {"CPU": 8}, {}], None, 1, (2, 8, 0)),
        ([{"CPU": 8, "GPU": 2}, {"CPU": 8}], None, 0, (16, 1, 0)),  # decontamination
    ],
)
def test_workers_by_the_nodes_resources(nodes, workers, gpus, expected):
    assert share(nodes, Plan("ray", "work", workers, gpus)) == expected


@pytest.mark.parametrize(
    "nodes, workers, gpus, problem",
    [
        ([{"CPU": 8, "GPU": 2}], 3, 1, r"room for 2 workers \(2 GPUs on 1 nodes, .*fewer than the 3 of --num_workers"),
        ([{"CPU": 8, "GPU": 2}] * 2, None, 4, "no room for a worker .*smaller --tensor_parallel_size"),
        ([{"CPU": 2}], 3, 1, r"room for 2 workers \(2 cores\)"),
    ],
)
def test_more_workers_than_there_is_room_for(nodes, workers, gpus, problem):
    with pytest.raises(UsageError, match=problem):
        share(nodes, Plan("ray", "work", workers, gpus))


# Decontamination: no model, so it is quick


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A file of several chunks, with one leak and one malformed line."""
    folder = tmp_path_factory.mktemp("pairs")
    text = next(text for text in tiny_models.udhr_texts("Basque") if len(text.split()) > 15)
    rng, words = random.Random(3), text.split()
    with open(folder / "Basque_translate.jsonl", "w", encoding="utf-8") as file:
        for i in range(600):
            sentence = text if i == 400 else " ".join(rng.sample(words * 3, 15))
            record = {"id": str(i), "sentence": sentence, "propositions": [sentence], "translations": [sentence[::-1]]}
            file.write("{\n" if i == 77 else json.dumps(record | {"scores": [None]}, ensure_ascii=False) + "\n")
    return folder


def decontaminate(pairs, folder, *more):
    words = ("--input_dir", pairs, "--output_dir", folder, "--benchmarks", "udhr", *more)
    result = in_process("decontamination.py", *words)
    assert result.returncode == 0, result.stderr
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.jsonl")}


@pytest.mark.medium
def test_decontamination_in_two_workers_one_of_which_is_killed(pairs, pool, tmp_path, monkeypatch):
    pool.close()  # its workers have all cores
    monkeypatch.setattr(parallel_jsonl, "CHUNK_BYTES", 4000)
    expected = decontaminate(pairs, tmp_path / "one", "--num_workers", 1)
    assert len(expected) == 3 and lines_in(tmp_path / "one" / "Basque_translate_contaminated.jsonl") >= 1
    results, killed = parallel_jsonl._map_in_pool, []

    def killing(*arguments):
        for number, result in enumerate(results(*arguments)):
            if number == 5:
                killed.append(workers()[0])
                killed[0].kill()
            yield result

    monkeypatch.setattr(parallel_jsonl, "_map_in_pool", killing)
    assert decontaminate(pairs, tmp_path / "many", *RAY) == expected
    assert killed
    manifests = [json.loads((tmp_path / n / "manifest_decontaminate_Basque.json").read_text()) for n in ("one", "many")]
    assert manifests[0]["counts"] == manifests[1]["counts"]


# What is refused


def decontaminate_in_a_process(pairs, folder, **environment) -> tuple[int, str, float]:
    command = [
        sys.executable,
        "decontamination.py",
        "--input_dir",
        pairs,
        "--output_dir",
        folder,
        "--benchmarks",
        "udhr",
    ]
    began = time.monotonic()
    result = subprocess.run(
        [*map(str, command), *map(str, RAY)], cwd=ROOT, capture_output=True, text=True, env=os.environ | environment
    )
    return result.returncode, result.stderr, time.monotonic() - began


@pytest.fixture
def silent():
    """A server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    "address, problem",
    [
        (
            "127.0.0.1:1",
            r"no Ray cluster answers at RAY_ADDRESS 127\.0\.0\.1:1 \(Connection refused\): start it, or unset",
        ),
        ("SILENT", r"no Ray cluster answers at .* \(timed out\)"),
        (
            "ray://head:10001",
            "is an address of Ray Client, which is not supported: run the command on a node of the cluster",
        ),
        ("head", "is neither HOST:PORT nor auto"),
        ("head:port", "is neither HOST:PORT nor auto"),
    ],
)
def test_an_address_that_does_not_answer(address, problem, silent, monkeypatch):
    monkeypatch.setattr(ray_cluster, "CONNECT_S", 0.5)
    monkeypatch.setenv("RAY_ADDRESS", silent if address == "SILENT" else address)
    began = time.monotonic()
    with pytest.raises(UsageError, match=problem):
        distributed.check("ray")
    assert time.monotonic() - began < 5


def test_a_server_that_is_not_ray(monkeypatch, silent):
    """It answers, in another protocol; one that answers as gRPC servers do is taken for a cluster."""
    import threading

    for reply, problem in (
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what listens there is not Ray"),
        (bytes((0, 0, 6, 4, 0, 0, 0, 0, 0, 0)), ""),
    ):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer(server=server, reply=reply):
                connection, _ = server.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(reply)
                    time.sleep(0.2)

            threading.Thread(target=answer).start()
            assert ray_cluster._no_grpc(*server.getsockname()) == problem


def test_one_line_exit_2_from_a_script(pairs, tmp_path):
    code, err, seconds = decontaminate_in_a_process(pairs, tmp_path, RAY_ADDRESS="127.0.0.1:1")
    assert (
        code == 2 and err.count("\n") == 1 and "decontamination.py: error: no Ray cluster answers at RAY_ADDRESS" in err
    )
    assert seconds < 30 and not list(tmp_path.glob("*.jsonl"))


def test_without_ray_one_line_says_how_to_install_it(pairs, tmp_path):
    (tmp_path / "hidden" / "ray").mkdir(parents=True)
    (tmp_path / "hidden" / "ray" / "__init__.py").write_text("raise ImportError('No module named ray')\n")
    path = os.pathsep.join([str(tmp_path / "hidden"), str(ROOT)])
    code, err, _ = decontaminate_in_a_process(pairs, tmp_path / "out", PYTHONPATH=path)
    assert (
        code == 2 and err.count("\n") == 1 and "--distributed ray needs Ray" in err and "pip install 'ray>=2.60'" in err
    )


PAIRS = ("--languages", "Basque", "--stages", "translate", "score", "--output_dir", "/nowhere/out")


@pytest.mark.parametrize(
    "script, flags, problem",
    [
        ("datagen.py", (*PAIRS, "--use_nllb", "--num_workers", 2), "--num_workers has no effect without --distributed"),
        (
            "datagen.py",
            (*PAIRS, "--distributed", "ray", "--model_name_or_path", "gpt-x", "--inference_api", "openai", "--scorer", "none"),
            "--distributed has no effect without a model to run in workers",
        ),
        (
            "datagen.py",
            (*PAIRS, "--use_nllb", "--distributed", "ray", "--data_parallel_size", 2, "--model_name_or_path", "m"),
            "--data_parallel_size has no effect without one machine (--distributed has --num_workers)",
        ),
        ("datagen.py", (*PAIRS, "--distributed", "rai"), "'rai' is not one of ray (did you mean ray?)"),
        (
            "main.py",
            ("--model_name_or_path", "m", "--output_dir", "/nowhere/out", "--tgt", "Basque", "--distributed", "ray",
             "--inference_api", "cohere"),
            "--distributed has no effect without a model in this process",
        ),
    ],
)  # fmt: skip
def test_flags_without_effect(script, flags, problem):
    from topxgen.common import flag_rules
    from topxgen.common.cli import Parser

    parser: Parser = __import__(script.removesuffix(".py")).build_parser()
    try:
        args = parser.parse_args([str(flag) for flag in flags])
        with pytest.raises(UsageError) as raised:
            flag_rules.check(parser.rules, args, quiet=True)
        assert problem in str(raised.value)
    except SystemExit as end:
        assert end.code == 2 and "rai" in problem


def test_no_secret_leaves_the_driver(tmp_path, monkeypatch):
    from datagen import build_parser
    from topxgen.generation import scoring

    for name in ("HF_TOKEN", "OPENAI_API_KEY", "VLLM_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "sk-secret")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    assert worker.environment()["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert "sk-secret" not in worker.environment().values()
    words = ["--languages", "Basque", "--output_dir", str(tmp_path), "--api_key", "sk-secret", "--distributed", "ray"]
    args, built = build_parser().parse_args(words), []
    monkeypatch.setattr(distributed, "start", lambda build, plan: built.append(build))
    scoring.create("blaser", args).load()
    assert b"sk-secret" not in pickle.dumps(built[0]) and args.api_key == "sk-secret"


def test_a_worker_that_would_score_or_translate_otherwise(tiny_nllb, tmp_path):
    from datagen import build_parser
    from topxgen import translation
    from topxgen.generation import scoring

    args = build_parser().parse_args(
        ["--languages", "Basque", "--output_dir", str(tmp_path), "--scorer_dtype", "bfloat16"]
    )
    with pytest.raises(
        UsageError, match=r"would score by blaser \(.*bfloat16\), and .* by blaser \(x, float32\): pass --scorer_dtype"
    ):
        scoring._loaded("blaser", args, "blaser (x, float32)")
    settings = translation.TranslatorSettings(
        nllb_name_or_path=tiny_nllb, nllb_compute_type="float32", cache_dir=str(tmp_path)
    )
    decided = {"nllb_name_or_path": tiny_nllb, "nllb_engine": "ctranslate2", "nllb_compute_type": "int8"}
    with pytest.raises(
        UsageError, match=r"a worker would translate with the settings .*float32.*, not with those of the run, .*int8"
    ):
        translation._loaded("nllb", settings, decided)


def test_a_worker_without_the_drivers_folder(tmp_path):
    import asyncio

    with pytest.raises(UsageError, match=r"does not have /nowhere/here .*: all nodes must see the project"):
        asyncio.run(worker.Worker().load(list, "/nowhere/here", {}, None))


# With models: slow, as each worker loads its own


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


@pytest.mark.slow
def test_two_workers_write_what_one_process_does(command, one, tmp_path):
    result = in_process("datagen.py", *command, *RAY, "--output_dir", tmp_path)
    assert differences(tmp_path, one) == []
    assert result.returncode in (0, 3) and "(raylet)" not in result.stderr, "Ray's own words are in the log"


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_to_all_processes(command, one, tmp_path, number, code):
    """As from a terminal or a scheduler: it ends in time, no process of Ray is left, and it goes on where it was."""
    answers = tmp_path / "Basque_answers.jsonl"
    driver = Driver("datagen.py", *command, "--output_dir", tmp_path)
    assert driver.wait_for(lambda: lines_in(answers) > 5)
    began = time.monotonic()
    os.killpg(driver.process.pid, number)
    returned, err = driver.ended(30)
    assert returned == code and time.monotonic() - began < 30
    assert "; finished work is on disk; re-run the same command to resume" in err and "Traceback" not in err
    assert Driver("datagen.py", *command, "--output_dir", tmp_path).ended()[0] in (0, 3)
    assert differences(tmp_path, one) == []


# A cluster that runs already


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


@pytest.mark.slow
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
                assert time.monotonic() - began < 60
        # More than it has room for
        err = script_in(environment, *clean, tmp_path / "refused", "--num_workers", 5, exit_code=2).stderr
        assert "the Ray cluster has room for 4 workers (4 cores), fewer than the 5 of --num_workers" in err


@pytest.mark.slow
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
        until = time.monotonic() + 60
        while workers(head.pid) or free_cores(environment) < 4:
            assert time.monotonic() < until, "its workers are still there"
            time.sleep(0.5)
        kept = answers.read_bytes()
        driver = Driver("datagen.py", *command, "--output_dir", tmp_path)
        assert driver.ended()[0] in (0, 3) and head.is_running()
        assert answers.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1]) and differences(tmp_path, one) == []


@pytest.mark.slow
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


# main.py


MAIN = {
    "CompTra": ("--steps", 1, "--method_divide", "llm", "--number_of_subproblems", 2, "--max_new_tokens_divide", 24),
    "beams": ("--num_beams", 3, "--num_return_sequences", 2),
    "sampling": ("--num_return_sequences", 3, "--temperature", 0.8, "--selection_method", "chrf"),
    "adapter": (),
    "nllb": (),
    "nllb transformers": ("--nllb_engine", "transformers"),
}


@pytest.mark.slow
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


@pytest.mark.slow
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
