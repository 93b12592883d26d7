"""Processes that tests start, kill or wait for; never forks of the tests' own process.

That one has threads (servers, progress bars, BLAS): a fork of it can wait for ever for a lock that one of them held.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.support.runs import ROOT

# What the scripts import when they train and answer: loaded once, in a server of forks that has no threads.
LIBRARIES = ("torch", "transformers", "peft", "datasets", "accelerate", "topxgen.training.trainer", "main", "datagen")

HOLDER = """
import sys, time
from pathlib import Path
from topxgen.common.locks import OutputLock
with OutputLock(Path(sys.argv[1]), *sys.argv[2:]):
    print("held", flush=True)
    time.sleep(600)
"""


def start(function: Callable, *args: Any, with_libraries: bool = False) -> BaseProcess:
    """Call a function of a module in a process of its own; `with_libraries`: one that need not import them first."""
    context = multiprocessing.get_context("forkserver" if with_libraries else "spawn")
    if with_libraries:
        context.set_forkserver_preload(list(LIBRARIES))
    process = context.Process(target=function, args=args, daemon=True)
    process.start()
    return process


def kill_when(process: BaseProcess, condition: Callable[[], bool], delay: float = 0, limit: float = 300) -> bool:
    """kill -9 a process `delay` seconds after a condition holds; whether it was still at work."""
    end = time.monotonic() + limit
    while process.is_alive() and not condition():
        assert time.monotonic() < end, f"after {limit} s it has neither ended nor come so far"
        time.sleep(0.002)
    process.join(delay)
    process.kill()
    process.join()
    return process.exitcode < 0


def await_stop(process: subprocess.Popen) -> None:
    """Until a process has sent itself SIGSTOP (see tests/support/signalled.py)."""
    state = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert state.si_status == signal.SIGSTOP, f"it has ended: {state}"


@contextmanager
def locked(folder: Path, *part: str) -> Iterator[subprocess.Popen]:
    """Another process that holds a folder, or a part of it."""
    command = [sys.executable, "-c", HOLDER, folder.resolve(), *part]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()
