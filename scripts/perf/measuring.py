"""What the measurements share; a script that imports it finds the project, whatever the current folder."""

import argparse
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from topxgen.corpora.tables import read_lines
from topxgen.text import languages


def command_line(doc: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def as_flags(**values: object) -> list[str]:
    """`--name value` of each; True stands for a flag without a value."""
    words = []
    for name, value in values.items():
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


def ntrex(folder: Path, *names: str) -> list[list[str]]:
    """The lines of NTREX-128 in these languages, one for one."""
    codes = [languages.find(name).ntrex.split("_")[0] for name in names]
    return [read_lines(folder / f"newstest2019-{'src' if code == 'eng' else 'ref'}.{code}.txt") for code in codes]


def peak_mib() -> int:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def in_child(work: Callable[..., T], *arguments) -> T:
    """What `work` returns, in a process with memory of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(work, *arguments).result()


def run_measured(words: Sequence[object], fine: Sequence[int] = (0,)) -> dict:
    """Run a script of this project: "seconds", those of its CPU, and the peak of its memory. Ends if its exit code is not `fine`."""
    began = time.perf_counter()
    command = [sys.executable, *map(str, words)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in fine:
        raise SystemExit(f"{' '.join(command)}: exit {process.returncode}\n{errors}")
    cpu = usage.ru_utime + usage.ru_stime
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(cpu, 1),
        "peak_mib": usage.ru_maxrss // 1024,
    }


def in_turns(sides: dict[str, Callable[[], float]], rounds: int, unit: str) -> None:
    """Print how many `unit` per second two functions make, which take turns at going first, and the ratio of the second to the first.
    Each returns how many it made."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            began = time.perf_counter()
            count = sides[name]()
            seconds = time.perf_counter() - began
            rates[name].append(count / seconds)
            print(
                f"round {turn}, {name}: {count} {unit} in {seconds:.1f} s, {count / seconds:.2f} a second", flush=True
            )
    ratios = [rate / base for base, rate in zip(*rates.values(), strict=True)]
    base, other = sides
    print(f"{other} / {base}: {', '.join(f'{r:.3f}' for r in ratios)}, median {statistics.median(ratios):.3f}")
