"""SIGTERM and SIGUSR1 at any moment: exit code 143, what is in flight is finished, the same command goes on, nothing is lost."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.runs import ROOT, lines_in, records, script
from tests.support.tiny_models import udhr_texts
from tests.support.writer import Writer, command, serve
from topxgen.common import signals

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
LIMITS = "import sys; from topxgen.common import signals; signals.FINISH_S, signals.CLOSE_S, signals.REPEATED_S = {}; "


def start(*arguments, limits: tuple | None = None) -> subprocess.Popen:
    """Run a script in a process group of its own; `limits`: other values of signals.FINISH_S, CLOSE_S and REPEATED_S."""
    name, *rest = map(str, arguments)
    how = [name] if limits is None else ["-c", f"{LIMITS.format(limits)}import {name[:-3]} as s; sys.exit(s.main())"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *how, *rest], cwd=ROOT, text=True, start_new_session=True, **pipes)


def end(process: subprocess.Popen, codes=(143,)) -> str:
    """What it wrote on stderr, once it has ended; it leaves no process behind."""
    _, err = process.communicate(timeout=300)
    assert process.returncode in codes, err
    assert "Traceback" not in err
    deadline = time.monotonic() + 120
    while left := _of_group(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    return err


def _of_group(group: int) -> list[psutil.Process]:
    """The processes of a group; others may end while they are looked at."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_for(process: subprocess.Popen, condition) -> None:
    while not condition():
        assert process.poll() is None
        time.sleep(0.01)


@pytest.fixture
def api(monkeypatch):
    serve(monkeypatch)


@pytest.mark.medium
@pytest.mark.parametrize("number", SIGNALS)
def test_requests_in_flight_are_finished_and_none_is_sent(api, tmp_path, number):
    answers = tmp_path / "Basque_answers.jsonl"
    started: Future = Future()

    def delay(_) -> float:
        if len(server.arrivals) == 6:
            os.killpg(started.result().pid, number)
        return 2.5

    with Writer(delay=delay) as server:
        started.set_result(start("datagen.py", *command(server, tmp_path, "--stages", "generate")))
        err = end(started.result())
        assert len(server.arrivals) == 6 and lines_in(answers) == server.given.total() == 6
    assert "stopped by a signal; finished work is on disk; re-run the same command to resume" in err


@pytest.mark.medium
def test_requests_that_do_not_finish_are_given_up(api, tmp_path):
    answers = tmp_path / "Basque_answers.jsonl"
    with Writer(delay=lambda name: 0.1 if len(server.arrivals) < 3 else 3600) as server:
        process = start("datagen.py", *command(server, tmp_path, "--stages", "generate"), limits=(1, 50, 1))
        wait_for(process, lambda: lines_in(answers) == 2)
        process.send_signal(signal.SIGTERM)
        err = end(process)
    assert lines_in(answers) == 2
    assert "stopped by a signal; " in err


@pytest.mark.medium
def test_a_second_signal_ends_at_once(api, tmp_path):
    with Writer(delay=60) as server:
        process = start("datagen.py", *command(server, tmp_path, "--stages", "generate"), limits=(500, 500, 2))
        wait_for(process, lambda: len(server.arrivals) == 6)
        for _ in range(3):  # what a launcher forwards at the same moment is no second one
            os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None
        while process.poll() is None:
            process.send_signal(signal.SIGUSR1)
            time.sleep(0.1)
        assert "stopped at once by a second signal; re-run the same command to resume" in end(process)


def test_a_call_that_never_returns_is_ended(tmp_path):
    code = (
        "import hashlib; from topxgen.common import signals; signals.FINISH_S, signals.CLOSE_S = 0.3, 0.3\n"
        "with signals.handled():\n    print(flush=True); hashlib.pbkdf2_hmac('sha512', b'', b'', 1 << 30)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=-1, stderr=-1, text=True)
    process.stdout.readline()
    started = psutil.Process(process.pid).cpu_times().user
    wait_for(process, lambda: psutil.Process(process.pid).cpu_times().user > started + 0.2)  # in the call
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 143 and err == "\nstopped 1 s after a signal; re-run the same command to resume\n"


def test_an_exit_that_takes_too_long_is_ended():
    """An engine that shuts down when the interpreter ends may wait for its processes."""
    code = (
        "import atexit, sys, time; from topxgen.common import cli, signals; signals.FINISH_S, signals.CLOSE_S = 0.3, 0.3\n"
        "atexit.register(time.sleep, 60)\ndef run(args):\n    print(flush=True); time.sleep(60)\n"
        "sys.exit(cli.run_main(cli.Parser('', prog='x'), run, 'nothing is lost'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=-1, stderr=-1, text=True)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    ends = "stopped by a signal; nothing is lost", "stopped 1 s after a signal; re-run the same command to resume"
    assert process.returncode == 143 and tuple(err.split("\n")[1::2]) == ends, err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_python_ignores_in_a_destructor_is_raised_again(monkeypatch):
    monkeypatch.setattr(signals, "_state", signals._state)  # samplers of later tests would stop, too

    class Ignoring:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)  # the handler raises here, and Python ignores it

    with signals.handled():
        Ignoring()
        assert signals.stop_requested()
        with pytest.raises(signals.Stopped), signals.finishing():
            pass


def handles_signals(process: subprocess.Popen) -> bool:
    """Whether it is past the start of the interpreter and the reading of its flags."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGUSR1 - 1) & 1)


def interrupt_at_random(arguments: list, seed: int, longest: float, most: int = 3) -> None:
    """Signals at random moments to the whole process group, `most` times or until the command is done."""
    rng = random.Random(seed)
    print(f"seed {seed}")
    for _ in range(most):
        process = start(*arguments)
        while process.poll() is None and not handles_signals(process):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, longest))
        if process.poll() is not None:
            process.communicate()
            return
        os.killpg(process.pid, rng.choice(SIGNALS))
        end(process, codes=(143, 0))  # 0: the work was done, the interpreter about to end


@pytest.mark.medium
def test_generation_loses_and_doubles_nothing(api, tmp_path):
    with Writer(delay=0.1) as server:
        flags = command(server, tmp_path / "stopped")
        interrupt_at_random(["datagen.py", *flags], random.randrange(1 << 30), 2.5)
        script("datagen.py", *flags)
        assert set(server.given.values()) == {1}, "no answer is paid for twice"
        script("datagen.py", *command(server, tmp_path / "whole"))
    for name in ("Basque.jsonl", "writer-1/Basque_translate.jsonl"):
        stopped, whole = ({line["id"]: line for line in records(tmp_path / run / name)} for run in ("stopped", "whole"))
        assert stopped == whole and lines_in(tmp_path / "stopped" / name) == len(whole)


@pytest.mark.medium
def test_decontamination_leaves_no_worker_and_no_half_file(tmp_path):
    rng, texts = random.Random(3), udhr_texts("Basque")
    path = tmp_path / "in" / "Basque_translate.jsonl"
    path.parent.mkdir()
    with open(path, "w", encoding="utf-8") as file:
        for number in range(12_000):
            pairs = [" ".join(rng.sample(texts, 3)) for _ in range(2)]
            line = {"sentence": " ".join(pairs), "propositions": pairs, "translations": pairs, "id": str(number)}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    flags = ["--input_dir", path.parent, "--benchmarks", "udhr", "--num_workers", 2, "--output_dir"]
    interrupt_at_random(["decontamination.py", *flags, tmp_path / "stopped"], random.randrange(1 << 30), 1.5, most=2)
    for name in ("stopped", "whole"):
        script("decontamination.py", *flags, tmp_path / name)
        assert not list((tmp_path / name).glob("*.partial"))
    stopped, whole = (tmp_path / name / "Basque_translate_filtered.jsonl" for name in ("stopped", "whole"))
    assert stopped.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_translation_and_evaluation(tiny_lm, tmp_path):
    flags = [
        "--model_name_or_path",
        tiny_lm,
        "--inference_api",
        "hf",
        "--dataset_name_or_path",
        "udhr",
        "--tgt",
        "Basque",
    ]
    flags += ["--k", 1, "--max_samples", 12, "--max_new_tokens", 200, "--prompt_style", "raw", "--dtype", "float32"]
    flags += ["--request_batch_size", 1, "--output_dir"]
    interrupt_at_random(["main.py", *flags, tmp_path / "stopped"], random.randrange(1 << 30), 9, most=2)
    outcomes = []
    for name in ("stopped", "whole"):
        script("main.py", *flags, tmp_path / name)
        [file] = (tmp_path / name).rglob("translate_0.jsonl")
        outcomes.append(file.read_bytes())
    assert outcomes[0] == outcomes[1]
    evaluation = ["-m", "comptra.evaluate", tmp_path / "whole", "--bootstrap", 400_000, "--csv"]
    interrupt_at_random([*evaluation, tmp_path / "scores.csv"], random.randrange(1 << 30), 1, most=2)
    assert not list(tmp_path.glob("*.partial"))
    if (tmp_path / "scores.csv").exists():  # it was finished: whole
        script(*evaluation, tmp_path / "undisturbed.csv")
        assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "undisturbed.csv").read_bytes()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_interpreter_ends_changes_no_exit_code(number):
    code = (
        "import os, sys, time; from topxgen.common import cli\n"
        "class Late:\n    def __del__(self, sleep=time.sleep, write=os.write): write(1, b'x\\n'); sleep(1)\n"
        "sys.late = Late()  # deleted when Python has given signals back their own effect\n"
        "sys.exit(cli.run_main(cli.Parser('', prog='x'), lambda args: 3, 'nothing is lost'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=-1, stderr=-1, text=True)
    process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 3, err


STAGE = """
import sys, time
sys.path.insert(0, {root!r})
from topxgen.common import signals
signals.stop_with_parent()
print("ready", flush=True)
time.sleep(600)
"""
STARTER = """
import os, subprocess, sys, time
sys.path.insert(0, {root!r})
from topxgen.common import signals
stage = subprocess.Popen([sys.executable, "-c", {stage!r}], env={{**os.environ, signals.PARENT: str(os.getpid())}}, stdout=subprocess.PIPE)
stage.stdout.readline()
print(stage.pid, flush=True)
time.sleep(600)
"""


def test_a_stage_ends_with_the_process_that_started_it():
    """kill -9 of scripts/run.py leaves no stage at work."""
    code = STARTER.format(root=str(ROOT), stage=STAGE.format(root=str(ROOT)))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as starter:
        stage = psutil.Process(int(starter.stdout.readline()))
        assert stage.status() != psutil.STATUS_ZOMBIE
        starter.kill()
    deadline = time.monotonic() + 120
    with suppress(psutil.NoSuchProcess):  # between the two questions
        while stage.is_running() and stage.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the stage goes on"
            time.sleep(0.05)
