"""Runs a script of ours in this process, or, as a server, many of them in forks that need not import anything again.

PYTHONPATH=. python tests/attack/child.py [--fault JSON] datagen.py --languages Basque …
"""

import atexit
import importlib
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attack.file_operations import FileOperations

# Imported before the first fork: what the scripts import when they run.
LIGHT = (
    "openai",
    "anthropic",
    "cohere",
    "sacrebleu",
    "rapidfuzz",
    "pycld2",
    "bm25s",
    "sentencex",
    "httpx",
    "msgspec",
    "datagen",
    "main",
)
LIGHT += (
    "decontamination",
    "train",
    "comptra.evaluate",
    "scripts.merge_lora",
    "scripts.run",
    "scripts.slurm.submit",
    "scripts.data_stats",
    "scripts.probe_contamination",
    "scripts.report",
    "scripts.status",
    "scripts.verify",
    "scripts.prefetch",
    "scripts.doctor",
    "scripts.publish",
    "pyarrow.parquet",
    "scripts.sample",
    "ruamel.yaml",
    "topxgen.inference.openai",
)
HEAVY = ("torch", "transformers", "peft", "datasets", "accelerate", "safetensors.torch", "transformers.trainer")
HEAVY += ("transformers.models.llama.modeling_llama", "topxgen.training.trainer")


def our_modules() -> list[str]:
    """All modules but those that import torch."""
    root = Path(__file__).resolve().parents[2]
    paths = [path for name in ("topxgen", "comptra") for path in (root / name).rglob("*.py")]
    torch = re.compile(r"^(import|from) (torch|transformers)\b", re.MULTILINE)
    light = [path.relative_to(root) for path in paths if not torch.search(path.read_text(encoding="utf-8"))]
    return [".".join(path.with_suffix("").parts) for path in light]


def module_of(script: str) -> str:
    return script.removesuffix(".py").replace("/", ".")


def run_script(arguments: list[str], fault: dict | None, record: str | None = None) -> int:
    """The exit code of a script's main(), as Python would give it."""
    operations = FileOperations(**fault) if fault else None
    if operations:
        operations.install()
    sys.argv = list(arguments)
    try:
        code = importlib.import_module(module_of(arguments[0])).main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    if record and operations:
        content = json.dumps({"seen": operations.seen, "outside": operations.outside})
        Path(f"{record}.partial").write_text(content)
        os.replace(f"{record}.partial", record)  # a kill leaves no half of it
    return code or 0


def fork(job: dict) -> int:
    process = os.fork()
    with suppress(OSError):  # in both: it has its group before it can be killed
        os.setpgid(process, process)
    if process:
        return process
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
    os.environ.update(job["environment"])
    tempfile.tempdir = job["environment"]["TMPDIR"]
    os.chdir(job["cwd"])
    code = 1
    time.sleep(job["delay"])
    try:
        code = run_script(job["arguments"], job.get("fault"), job.get("record"))
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def wait(process: int, seconds: float, kill_after: float | None) -> tuple[int | None, float]:
    """The exit status of a child, negative for a signal, None if it had to be stopped; and the seconds it took."""
    began, pause = time.monotonic(), 0.001
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        took = time.monotonic() - began
        if done:
            return os.waitstatus_to_exitcode(status), took
        if took > seconds or (kill_after is not None and took > kill_after):
            os.killpg(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            return (None if took > seconds else os.waitstatus_to_exitcode(status)), took
        time.sleep(pause if kill_after is None else min(pause, max(0.0, kill_after - took)))
        pause = min(2 * pause, 0.02)


def import_all(heavy: bool) -> None:
    for name in (*LIGHT, *our_modules(), *(HEAVY if heavy else ())):
        importlib.import_module(name)
    for name, client in (("openai", "AsyncOpenAI"), ("anthropic", "AsyncAnthropic")):  # they import what they need
        getattr(sys.modules[name], client)(api_key="x", base_url="http://127.0.0.1:1")


def serve() -> None:
    """Jobs to run at once, as a list, on each line on stdin; the list of their results on stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        jobs = json.loads(line)
        results = [result(process, job) for process, job in [(fork(job), job) for job in jobs]]
        print(json.dumps(results), file=answers, flush=True)


def result(process: int, job: dict) -> dict:
    code, seconds = wait(process, job["timeout"], job.get("kill_after"))
    try:
        os.killpg(process, signal.SIGKILL)
        left = True
    except ProcessLookupError:
        left = False
    return {"code": code, "seconds": seconds, "left": left}


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        if sys.argv[2] == "--modules":
            sys.path.insert(0, sys.argv[3])
        else:
            import_all("--heavy" in sys.argv)
        serve()
    else:
        words = sys.argv[1:]
        fault = json.loads(words[1]) if words[0] == "--fault" else None
        sys.exit(run_script(words[2:] if fault else words, fault))
