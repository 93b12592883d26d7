"""Run a script as a user does, and read what it wrote."""

import importlib
import io
import json
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
GEMMA = ROOT / "models" / "gemma-3-270m"
BENCHMARKS = ROOT.parent / "shared" / "benchmarks"


def signalled(files: Path | str, lines: int, name: str = "SIGKILL") -> tuple[str, ...]:
    """Words before a script's: it sends itself this signal once the files of this pattern have so many lines (0: exist)."""
    return "tests/support/signalled.py", str(files), str(lines), name


def script(name: str, *args, killed_at=(), kill_when=None, check: int | None = 0) -> subprocess.CompletedProcess:
    """Run a script as a user does; kill -9 it at so many lines of a file (`signalled`) or as soon as `kill_when()` is true."""
    command = [sys.executable, *(signalled(*killed_at) if killed_at else ()), name, *map(str, args)]
    check = -signal.SIGKILL if killed_at else check
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if kill_when is not None:
            while process.poll() is None and not kill_when():
                time.sleep(0.002)
            process.kill()
            check = -signal.SIGKILL
        out, err = process.communicate()
    if check is not None:
        assert process.returncode == check, f"exit {process.returncode}\n{out}\n{err}"
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def in_process(name: str, *args) -> subprocess.CompletedProcess:
    """Run a script's main() in this process, where libraries are loaded already: seconds less than `script`."""
    command, out, err = [name, *map(str, args)], io.StringIO(), io.StringIO()
    main = importlib.import_module(name.removesuffix(".py").replace("/", ".")).main
    with mock.patch.object(sys, "argv", command), redirect_stdout(out), redirect_stderr(err):
        try:
            code = main()
        except SystemExit as end:  # argparse
            code = end.code
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def datagen(*args, killed_at=(), kill_when=None, check: int = 0) -> subprocess.CompletedProcess:
    if killed_at or kill_when is not None:
        return script("datagen.py", *args, killed_at=killed_at, kill_when=kill_when)
    result = in_process("datagen.py", *args)
    assert result.returncode == check, result.stderr
    return result


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def snapshot(cache: Path, model: str, monkeypatch) -> Path:
    """An empty snapshot of a model in a Hub cache of its own, as a download leaves it."""
    folder = cache / f"models--{model.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return folder / "snapshots" / commit


TOPICS = "topics/wikipedia_vital_topics.txt"


def contents(folder: Path) -> dict[str, list[str]]:
    return {
        str(path.relative_to(folder)): sorted(path.read_text(encoding="utf-8").splitlines())
        for path in sorted(folder.rglob("*.jsonl"))
        if "_answers" not in path.name
    }
