"""A pool of Ray workers: what it does as they are lost, how many there are, and decontamination in it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil
import pytest

from tests.support.ray_runs import RAY, decontaminate, workers
from tests.support.runs import ROOT, lines_in
from topxgen import distributed
from topxgen.common.errors import UsageError
from topxgen.decontamination import parallel_jsonl
from topxgen.distributed import Call, Plan
from topxgen.distributed.ray_pool import share

pytestmark = pytest.mark.timeout(600)


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


def listening() -> set[str]:
    """The addresses on which this process and its children wait for connections."""
    me = psutil.Process()
    connections = [one for process in [me, *me.children(recursive=True)] for one in process.net_connections("inet")]
    return {one.laddr.ip.removeprefix("::ffff:") for one in connections if one.status == psutil.CONN_LISTEN}


@pytest.fixture(scope="module")
def noted(tmp_path_factory):
    return tmp_path_factory.mktemp("calls")


@pytest.fixture(scope="module")
def pools():
    started = []
    yield started
    for pool in started:
        pool.close()


@pytest.fixture
def pool(noted, pools):
    """That of the test before, unless that one closed it."""
    if not pools or not pools[-1]._actors:
        pools.append(distributed.start(Slow(noted), Plan("ray", "squares", 2, gpus=0)))
    return pools[-1]


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


ALONE = """
import json, os, sys
from pathlib import Path
from tests.distributed.test_ray import Slow, listening
from topxgen import distributed

pool = distributed.start(Slow(Path(sys.argv[1])), distributed.Plan("ray", "squares", 1, gpus=0))
results = list(pool.map([distributed.Call("square", (3,))]))
ray = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
print(json.dumps([results, sorted(listening()), ray]))
pool.close()
"""


@pytest.mark.medium
def test_a_local_cluster_listens_on_the_loopback_address_alone_and_needs_a_token(noted):
    """In a process of its own, since Ray reads these variables as it is imported, which vLLM does, too."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", ALONE, noted]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**own, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    results, addresses, ray = json.loads(done.stdout.splitlines()[-1])
    assert results == [9] and {"127.0.0.1"} <= set(addresses) <= {"127.0.0.1", "::1"}
    assert ray["RAY_AUTH_MODE"] == "token" and len(ray["RAY_AUTH_TOKEN"]) == 64
    assert ray["RAY_USAGE_STATS_ENABLED"] == "0"


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
        ([{"CPU": 8, "GPU": 2}], 3, 1, r"room for 2 workers \(2 GPUs on 1 node, .*fewer than the 3 of --num_workers"),
        ([{"CPU": 8, "GPU": 2}] * 2, None, 4, "no room for a worker .*smaller --tensor_parallel_size"),
        ([{"CPU": 2}], 3, 1, r"room for 2 workers \(2 cores\)"),
    ],
)
def test_more_workers_than_there_is_room_for(nodes, workers, gpus, problem):
    with pytest.raises(UsageError, match=problem):
        share(nodes, Plan("ray", "work", workers, gpus))


@pytest.mark.medium
def test_decontamination_in_two_workers_one_of_which_is_killed(pairs, pool, tmp_path, monkeypatch):
    pool.close()  # its workers have all cores
    with pytest.raises(RuntimeError, match="closed"):
        list(pool.map([Call("square", (1,))]))
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
