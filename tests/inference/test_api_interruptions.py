"""API samplers that are interrupted or killed lose no response and repeat no request that was answered."""

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.support.api_runs import LATER, VARIABLES, chats, load
from tests.support.api_server import KEY, ApiServer
from tests.support.runs import ROOT, lines_in, records
from topxgen.inference import REMOTE, SamplingSettings, from_list

# The three share all of the code that is at stake.
one_api = pytest.mark.parametrize("api", ["openai", *(pytest.param(api, marks=pytest.mark.slow) for api in REMOTE[1:])])


@pytest.mark.medium
def test_ctrl_c_leaves_the_client_in_order(caplog):
    """At random moments, many of them inside the client: always a plain KeyboardInterrupt, and no complaint after."""
    for _ in range(12):
        with ApiServer(delay=0.003) as server:
            sampler = load("openai", server)
            answers = sampler.generate(from_list(chats(20_000)), SamplingSettings())
            with pytest.raises(KeyboardInterrupt):
                threading.Timer(random.uniform(0.02, 0.06), os.kill, (os.getpid(), signal.SIGINT)).start()
                list(answers)
            sampler.close()
            del answers, sampler
            gc.collect()
    assert not caplog.records


def test_what_is_finished_is_delivered_before_ctrl_c():
    waiting, names = chats(4), []

    def next_request():
        if not waiting:
            raise KeyboardInterrupt
        return waiting.pop(0)

    with ApiServer() as server:
        sampler = load("openai", server)
        with pytest.raises(KeyboardInterrupt):
            for answer in sampler.generate(next_request, SamplingSettings()):
                names.append(answer.id)
                while sampler._succeeded < 4:
                    time.sleep(0.01)
        sampler.close()
    assert sorted(names) == ["p0", "p1", "p2", "p3"]


CONSUMER = """
import json, logging, os, sys, time
from topxgen import inference
from topxgen.inference import ModelSettings, Request, SamplingSettings, from_list
# Python's development mode, which is on for what asyncio and warnings report of an untidy end, also logs slow callbacks.
logging.getLogger("asyncio").setLevel(logging.ERROR)
api, url, path, count = sys.argv[1:]
done = {json.loads(line)["id"] for line in open(path)} if os.path.exists(path) else set()
requests = [Request(f"p{i}", [{"role": "user", "content": f"p{i} please"}], i) for i in range(int(count))]
sampler = inference.load(api, ModelSettings("m", base_url=url, max_concurrent_requests=4, request_timeout=60))
answers = sampler.generate(from_list(r for r in requests if r.id not in done), SamplingSettings())
try:
    with open(path, "a") as out:
        for answer in answers:
            time.sleep(float(os.environ.pop("SLOW_WRITE_S", 0)))
            print(json.dumps({"id": answer.id, "texts": answer.texts}), file=out, flush=True)
            os.fsync(out.fileno())
except KeyboardInterrupt:
    sys.exit(130)
finally:
    answers.close()
    sampler.close()
"""


@one_api
@pytest.mark.medium
def test_kill_9_or_ctrl_c_at_any_moment_loses_nothing(api, tmp_path):
    path, count, stops, checks = tmp_path / "answers.jsonl", 60, (signal.SIGKILL, signal.SIGINT, None), []
    with ApiServer() as server:
        for stop in stops:
            # The server falls silent soon after the stop is due, so that no run finishes before a slow test stops it.
            lines_to_stop = random.randint(1, 15)
            answered = server.delivered.total() + lines_to_stop + 6 if stop else 3 * count
            server.delay = lambda name, most=answered: 0.02 if server.delivered.total() < most else 3600
            noisy = ("-X", "dev", "-W", "ignore") if stop == signal.SIGINT else ()
            command = [sys.executable, *noisy, "-c", CONSUMER, api, server.url(api), str(path), str(count)]
            env, before = {**os.environ, **dict.fromkeys(VARIABLES, KEY)}, lines_in(path)
            with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as process:
                if stop is not None:
                    while lines_in(path) < before + lines_to_stop and process.poll() is None:
                        time.sleep(0.002)
                    process.send_signal(stop)
                _, err = process.communicate(timeout=300)
            assert not err
            assert process.returncode == {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, None: 0}[stop]
            on_disk = {record["id"] for record in records(path)}
            assert len(on_disk) == lines_in(path) and (len(on_disk) < count or stop is None)
            checks.append((on_disk, len(server.arrivals)))
        assert on_disk == {f"p{i}" for i in range(count)}
        for on_disk, asked in checks:
            assert not on_disk & {name for name, _, _ in server.arrivals[asked:]}, "asked again for what is on disk"
        # Only what was in flight, or come home but not yet on disk, at a stop can have been delivered twice.
        assert server.delivered.total() <= count + 2 * 4


@one_api
@pytest.mark.medium
def test_ctrl_c_during_a_write_loses_no_response_that_has_arrived(api, tmp_path):
    path, first = tmp_path / "answers.jsonl", {"p0", "p1", "p2", "p3"}
    with ApiServer(delay=lambda name: 0 if name in first else 3600) as server:
        command = [sys.executable, "-c", CONSUMER, api, server.url(api), str(path), "60"]
        env = {**os.environ, **dict.fromkeys(VARIABLES, KEY), "SLOW_WRITE_S": str(10 * LATER)}
        with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as process:
            limit = time.monotonic() + 120
            while server.delivered.total() < 4 and process.poll() is None and time.monotonic() < limit:
                time.sleep(0.01)
            time.sleep(5 * LATER)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "")
    assert {record["id"] for record in records(path)} == first
