"""Put one-line faults into a copy of the code, one at a time, and report those that no test notices.

    python scripts/inject_faults.py                        # all rows of scripts/faults.toml: some minutes
    python scripts/inject_faults.py --only packing --jobs 2

A row of the table is a text that occurs once in a file, and what replaces it. The tests of the file's table have to fail
with the fault and to pass without. Exit code 1 if a fault survives, 2 if a row does not fit the code.
"""

import argparse
import fnmatch
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "scripts" / "faults.toml"
LIMIT_S = 300  # a fault that makes a test hang longer is noticed, too
LINKED = (".venv", ".venv-comet", "models")
NOT_COPIED = {".git", *LINKED, "outputs", "build", "__pycache__", ".pytest_cache", ".ruff_cache"}
CAUGHT, SURVIVED = "caught", "SURVIVED"


@dataclass(frozen=True)
class Fault:
    """`old` becomes `new` in the file `path`; `tests`: arguments of pytest."""

    path: str
    old: str
    new: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path}: {_short(self.old)} -> {_short(self.new)}"

    def apply(self, root: Path) -> None:
        file = root / self.path
        file.write_text(file.read_text(encoding="utf-8").replace(self.old, self.new), encoding="utf-8")


def read_table(path: Path, root: Path) -> list[Fault]:
    """The rows of a table. Raises ValueError naming those that do not fit the files below `root`."""
    faults, errors = [], []
    for table in tomllib.loads(path.read_text(encoding="utf-8"))["file"]:
        file = root / table["path"]
        text = file.read_text(encoding="utf-8") if file.is_file() else None
        if text is None:
            errors.append(f"{table['path']}: no such file")
            continue
        errors += [
            f"{test}: no such test file" for test in table["tests"] if not (root / test.partition("::")[0]).exists()
        ]
        rows = [Fault(table["path"], old, new, tuple(table["tests"])) for old, new in table["faults"]]
        faults += rows
        counts = [text.count(fault.old) for fault in rows]
        errors += [
            f"{fault}: the old text occurs {count} times, not once"
            for fault, count in zip(rows, counts, strict=True)
            if count != 1
        ]
        if file.suffix == ".py":
            errors += _syntax_errors(text, [fault for fault, count in zip(rows, counts, strict=True) if count == 1])
    if errors:
        raise ValueError("\n".join(errors))
    return faults


def _syntax_errors(text: str, faults: list[Fault]) -> list[str]:
    """Of each fault that makes `text` no Python. Faults that leave each other in place are compiled together."""
    errors = []
    while faults:
        together, left, changed = [], [], text
        for fault in faults:
            if changed.count(fault.old) == 1:
                together.append(fault)
                changed = changed.replace(fault.old, fault.new)
            else:
                left.append(fault)
        if _syntax_error(changed):
            problems = [(fault, _syntax_error(text.replace(fault.old, fault.new))) for fault in together]
            errors += [f"{fault}: {problem}" for fault, problem in problems if problem]
        faults = left
    return errors


def _syntax_error(text: str) -> str | None:
    try:
        compile(text, "fault", "exec")
    except SyntaxError as error:
        return f"not Python: {error}"
    return None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"


def copy_tree(folder: Path) -> Path:
    """A copy of the project in which the tests run: environments and models are links."""
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=lambda _, names: NOT_COPIED.intersection(names), symlinks=True)
    for name in LINKED:
        if (ROOT / name).exists():
            (tree / name).symlink_to((ROOT / name).resolve())
    if (ROOT.parent / "shared").exists():  # evaluation data that some tests read
        (folder / "shared").symlink_to((ROOT.parent / "shared").resolve())
    return tree


def run_tests(tree: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Exit code and output of pytest, which stops at the first failure."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "--durations=0", "-m", "not slow"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    # Python checks bytecode by size and time of the source; a fault may have the size of the original.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return 1, "timed out"
    return done.returncode, done.stdout


def try_fault(tree: Path, fault: Fault) -> tuple[str, float]:
    """CAUGHT or SURVIVED, and the seconds that took."""
    start, file = time.monotonic(), tree / fault.path
    before = file.read_bytes()
    try:
        fault.apply(tree)
        code, output = run_tests(tree, fault.tests)
    finally:
        file.write_bytes(before)
    if code not in (0, 1, 2):
        raise RuntimeError(f"{fault}: pytest ended with {code}\n{output[-2000:]}")
    return (CAUGHT if code else SURVIVED), time.monotonic() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", metavar="PATTERN", help="faults whose file or text matches (*packing*, or part of it)"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), metavar="N", help="copies tested at a time [all cores]"
    )
    parser.add_argument(
        "--table", type=Path, default=TABLE, metavar="TOML", help="the table of faults [scripts/faults.toml]"
    )
    parser.add_argument("--check", action="store_true", help="only check that every row fits the code; run no tests")
    args = parser.parse_args()
    try:
        faults = read_table(args.table, ROOT)
    except ValueError as error:
        print(f"{args.table}: rows that do not fit the code:\n{error}", file=sys.stderr)
        return 2
    if args.only:
        faults = [fault for fault in faults if args.only in str(fault) or fnmatch.fnmatch(str(fault), args.only)]
    if args.check or not faults:
        print(f"{len(faults)} faults")
        return 0 if faults else 2

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        trees: Queue[Path] = Queue()
        for job in range(args.jobs):
            (Path(folder) / str(job)).mkdir()
            trees.put(copy_tree(Path(folder) / str(job)))

        def in_a_tree(work, *values):
            tree = trees.get()
            try:
                return work(tree, *values)
            finally:
                trees.put(tree)

        selections = list(dict.fromkeys(fault.tests for fault in faults))
        failing = False
        without_fault = pool.map(lambda tests: in_a_tree(run_tests, tests), selections)
        for tests, (code, output) in zip(selections, without_fault, strict=True):
            if code:
                print(f"without any fault, {' '.join(tests)} fails:\n{output[-3000:]}", file=sys.stderr)
                failing = True
        if failing:
            return 2

        by_file: dict[str, list[str]] = defaultdict(list)
        survivors = []
        tried = pool.map(lambda fault: in_a_tree(try_fault, fault), faults)
        for fault, (result, seconds) in zip(faults, tried, strict=True):
            print(f"{result:8}  {seconds:5.1f} s  {fault}", flush=True)
            by_file[fault.path].append(result)
            if result == SURVIVED:
                survivors.append(fault)

    width = max(map(len, by_file))
    print(f"\n{'file':{width}}  faults  survived")
    for path, results in sorted(by_file.items()):
        print(f"{path:{width}}  {len(results):6}  {results.count(SURVIVED):8}")
    print(f"{'all':{width}}  {len(faults):6}  {len(survivors):8}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
