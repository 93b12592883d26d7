"""--distributed ray: the same files as one process writes, whatever becomes of the workers; refusals; nothing is left behind."""

import hashlib
import json
import os
import random
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

from tests.support import tiny_models, tiny_sonar
from tests.support.runs import ROOT, TOPICS, in_process, lines_in, records
from topxgen import distributed
from topxgen.common.errors import UsageError
from topxgen.decontamination import parallel_jsonl
from topxgen.distributed import Call, Plan, ray_pool
from topxgen.distributed.ray_pool import share

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed here (pip install 'ray>=2.60')"),
    pytest.mark.timeout(600),
]
TRANSLATED = "nllb-tiny"
RAY = ("--distributed", "ray", "--num_workers", 2)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One local cluster for all tests of this process. One thread in each process: how many there are changes the last bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield
        ray_pool.disconnect()


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


def workers(parent: int | None = None) -> list[psutil.Process]:
    """The processes of workers of this process's cluster, or another's."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Worker"):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def test_results_come_in_order_and_only_as_many_calls_are_taken_as_keep_the_workers_busy(pool):
    taken = count()
    calls = (Call("square", (next(taken), 0.02 if i % 3 else 0.0)) for i in range(40))
    results = pool.map(calls)
    assert next(results) == 0 and next(taken) <= 2 * pool.capacity + 1
    results.close()  # what is in work is dropped
    mixed = [Call("square", (i,)) if i > 40 and i % 2 else None for i in range(60)]  # what a resumed run has, first
    assert list(pool.map(mixed)) == [i * i if call else None for i, call in enumerate(mixed)]
    assert list(pool.map([])) == list(pool.map([None, None]))[2:] == []


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


def test_an_error_of_a_worker_is_the_drivers(pool):
    with pytest.raises(UsageError, match=r"^one clear line$"):
        list(pool.map([Call("square", (2,)), Call("fails", ("one clear line",))]))


def test_a_local_cluster_listens_on_the_loopback_address_alone_and_needs_a_token(pool):
    me = psutil.Process()
    assert list(pool.map([Call("square", (3,))])) == [9]
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for process in [me, *me.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 3 and set(listening) == {"127.0.0.1"}
    assert os.environ["RAY_AUTH_MODE"] == "token" and len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


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


def test_decontamination_in_two_workers_one_of_which_is_killed(pairs, tmp_path, monkeypatch):
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
        ("ray://head:10001", "is of Ray Client, which cannot be used here: run the command on a node of the cluster"),
        ("head", "is neither HOST:PORT nor auto"),
        ("head:port", "is neither HOST:PORT nor auto"),
    ],
)
def test_an_address_that_does_not_answer(address, problem, silent, monkeypatch):
    monkeypatch.setattr(ray_pool, "CONNECT_S", 0.5)
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
            assert ray_pool._no_grpc(*server.getsockname()) == problem


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


# With models: slow, as each worker loads its own


@pytest.fixture(scope="module")
def command(tiny_lm, tiny_nllb, tmp_path_factory):
    """LLM, NLLB and BLASER, small ones."""
    folder = tmp_path_factory.mktemp("scorers")
    texts = [text for pair in tiny_models.udhr_pairs("Basque") for text in pair]
    tiny_sonar.build_blaser(folder / "blaser.pt", hidden=(32, 16))
    sonar = tiny_sonar.build_sonar(folder / "sonar", texts)
    return (
        "--model_name_or_path", tiny_lm, "--inference_api", "hf", "--dtype", "float32", "--languages", "Basque", "Swahili",
        "--seed_topics_path", TOPICS, "--example_paragraphs", "udhr", "--example_sentences", "udhr",
        "--number_of_icl_demonstrations", 1, "--number_of_icl_phrases", 2, "--prompt_template", "continuation",
        "--max_new_tokens", 48, "--temperature", 0.7, "--number_of_instructions_per_language", 120, "--use_nllb",
        "--nllb_name_or_path", tiny_nllb, "--cache_dir", folder / "cache", "--translate_dir", TRANSLATED,
        "--blaser_name_or_path", folder / "blaser.pt", "--sonar_name_or_path", sonar,
    )  # fmt: skip


@pytest.fixture(scope="module")
def one(command, tmp_path_factory):
    """What one process leaves."""
    import torch

    folder, threads = tmp_path_factory.mktemp("one"), torch.get_num_threads()
    torch.set_num_threads(1)
    in_process("datagen.py", *command, "--output_dir", folder)
    torch.set_num_threads(threads)
    return folder


def assert_same(folder: Path, other: Path) -> None:
    """Byte for byte; responses, which are in the order in which they arrived, by id: of those that both have."""
    names = [path.relative_to(other) for path in sorted(other.rglob("*.jsonl"))]
    assert names == [path.relative_to(folder) for path in sorted(folder.rglob("*.jsonl"))]
    for name in names:
        if "_answers" in name.name:
            by_id = [{record["id"]: record for record in records(where / name)} for where in (folder, other)]
            assert len(by_id[0]) == lines_in(folder / name), f"{name}: twice"
            both = by_id[0].keys() & by_id[1].keys()
            assert both and all(by_id[0][key] == by_id[1][key] for key in both)
        else:
            assert (folder / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.slow
def test_two_workers_write_what_one_process_does(command, one, tmp_path):
    result = in_process("datagen.py", *command, *RAY, "--output_dir", tmp_path)
    assert_same(tmp_path, one)
    assert result.returncode in (0, 3) and "(raylet)" not in result.stderr, "Ray's own words are in the log"


class Driver:
    """datagen.py in a process and a session of its own."""

    def __init__(self, command, folder):
        words = [sys.executable, "datagen.py", *map(str, (*command, *RAY, "--output_dir", folder))]
        self.process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.seen: set[psutil.Process] = set()  # what it has started

    def workers(self) -> list[psutil.Process]:
        try:
            self.seen |= set(psutil.Process(self.process.pid).children(recursive=True))
            return workers(self.process.pid)
        except psutil.NoSuchProcess:
            return []

    def wait_for(self, reached) -> bool:
        while self.process.poll() is None and not reached():
            self.workers()
            time.sleep(0.05)
        return self.process.poll() is None

    def ended(self, timeout: float = 120) -> tuple[int, str]:
        """Exit code and stderr; nothing that it started is left."""
        _, err = self.process.communicate(timeout=timeout)
        until = time.monotonic() + 10
        while left := [one for one in self.seen if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]:
            assert time.monotonic() < until, left
            time.sleep(0.1)
        return self.process.returncode, err


@pytest.mark.slow
def test_workers_and_the_driver_killed_in_each_stage(command, one, tmp_path):
    """kill -9 of a worker while it generates, translates and scores, and of the driver; the same files in the end."""
    answers, translated = tmp_path / "Basque_answers.jsonl", tmp_path / TRANSLATED / "Basque_translate.jsonl"
    driver, killed = Driver(command, tmp_path), 0
    for reached in (lambda: lines_in(answers) > 10, lambda: (tmp_path / "manifest_generate.json").exists()):
        if driver.wait_for(reached) and driver.wait_for(driver.workers):
            driver.workers()[0].kill()
            killed += 1
    assert driver.wait_for(lambda: lines_in(translated) > 0)
    driver.process.kill()
    assert driver.ended()[0] == -signal.SIGKILL and killed == 2
    driver = Driver(command, tmp_path)
    assert driver.ended()[0] in (0, 3)
    assert_same(tmp_path, one)


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_to_all_processes(command, one, tmp_path, number, code):
    """As from a terminal or a scheduler: it ends in time, no process of Ray is left, and it goes on where it was."""
    answers = tmp_path / "Basque_answers.jsonl"
    driver = Driver(command, tmp_path)
    assert driver.wait_for(lambda: lines_in(answers) > 5)
    began = time.monotonic()
    os.killpg(driver.process.pid, number)
    returned, err = driver.ended(30)
    assert returned == code and time.monotonic() - began < 30
    assert "; finished work is on disk; re-run the same command to resume" in err and "Traceback" not in err
    assert Driver(command, tmp_path).ended()[0] in (0, 3)
    assert_same(tmp_path, one)
