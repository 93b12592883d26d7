"""A file of JSON lines through a function, a chunk at a time, on all cores; a killed run goes on where it was.

Chunks are whole lines, read by whichever process is free; results are written in the order of the input, so the
output does not depend on the number of processes. Memory is set by the chunks in flight, not by the file.
"""

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.common.files import partial, read_json, to_line, write_json
from topxgen.common.provenance import now

CHUNK = 4 << 20  # bytes
SAVE_EVERY_S = 0.5  # at most so much work is done again after a kill


@dataclass
class ChunkResult:
    """What became of a chunk: `kept` are the parts of it that stay, as (start, end) in bytes, and what stands in the
    place of others. Line numbers in `hits` and `malformed` count from the start of the chunk."""

    kept: list[tuple[int, int] | bytes] = field(default_factory=list)
    hits: list[dict] = field(default_factory=list)
    malformed: list[dict] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)


def run(
    path: Path,
    judge: Callable[[bytes], ChunkResult],
    kept: Path | None,
    hits: Path,
    malformed: Path,
    manifest: Path,
    settings: dict,
    facts: dict,
    workers: int,
    tick: Callable[[int, Counter], None],
) -> dict:
    """Judge the lines of `path`; what stays goes to `kept` (None: nowhere), the hits and the malformed lines to theirs.

    `settings` are what decides the result: with other ones, or another input, `manifest` is begun anew; with the
    same ones a killed run goes on, and a finished one is not repeated. `facts` are noted beside them. `tick` is told
    the bytes done and the counts so far. Outputs get their names when all is done; `malformed` only if it holds
    anything. Returns the manifest, which then has "finished".
    Raises UsageError when the file changes meanwhile, or a process is killed.
    """
    source = _identity(path)
    names = [output for output in (kept, hits, malformed) if output is not None]
    state = read_json(manifest)
    if state.get("settings") != settings or state.get("input") != source or not _there(state, names):
        state = {"started": now(), "settings": settings, **facts, "input": source, "counts": {}, "done": 0}
        state["outputs"] = {output.name: {"bytes": 0} for output in names}
        for output in names:
            partial(output).write_bytes(b"")
        write_json(manifest, state)
    counts = Counter(state["counts"])
    tick(state["done"], counts)
    if "finished" in state:
        for output in names:
            partial(output).unlink(missing_ok=True)  # of a run with other settings that was killed
        return state

    with ExitStack() as stack:
        outputs = {name: stack.enter_context(_Output(name, state["outputs"][name.name]["bytes"])) for name in names}
        lines = stack.enter_context(open(path, "rb", buffering=0))
        # The disk is waited for, and files fingerprinted, in threads beside the work.
        threads = stack.enter_context(ThreadPoolExecutor(2))
        leaving = threading.Event()
        stack.callback(leaving.set)
        fingerprint = threads.submit(sha256, path, leaving)

        def save(sizes: dict[Path, int], progress: dict) -> None:
            for name, size in sizes.items():
                outputs[name].sync(size)
            written = {name.name: {"bytes": size} for name, size in sizes.items()}
            write_json(manifest, {**state, **progress, "outputs": written})

        saved, saving = float("-inf"), None
        for start, end, judged in _judged(path, judge, state["done"], source["bytes"], workers):
            if kept is not None:
                for part in judged.kept:
                    if isinstance(part, tuple):
                        outputs[kept].copy(lines, start + part[0], part[1] - part[0])
                    else:
                        outputs[kept].write(part)
            for name, records in ((hits, judged.hits), (malformed, judged.malformed)):
                for record in records:
                    line = to_line({**record, "line": counts["lines"] + 1 + record["line"]})
                    outputs[name].write(line.encode("utf-8", "replace"))
            counts.update(judged.counts)
            tick(end, counts)
            if time.monotonic() - saved >= SAVE_EVERY_S and (saving is None or saving.done()):
                if saving is not None:
                    saving.result()  # a full disk is told at once
                sizes = {name: output.size() for name, output in outputs.items()}
                saving = threads.submit(save, sizes, {"done": end, "counts": dict(counts)})
                saved = time.monotonic()
        if saving is not None:
            saving.result()
        state["input_sha256"] = fingerprint.result()
        if _identity(path) != source:
            raise UsageError(f"{path} changed while it was read; wait until nothing writes to it, and run this again")
        state |= {"done": source["bytes"], "counts": dict(counts)}
        state["outputs"] = {name.name: output.finish() for name, output in outputs.items()}
    for name in reversed(names):  # what stays comes last: who waits for that file finds the others
        os.replace(partial(name), name)
    if not counts["malformed"]:
        del state["outputs"][malformed.name]
        malformed.unlink()
    state["finished"] = now()
    write_json(manifest, state)
    return state


class _Output:
    """A file under a temporary name, cut to `size` bytes to go on from there; its SHA-256 is taken as it grows."""

    def __init__(self, path: Path, size: int):
        self._file = open(partial(path), "r+b")  # noqa: SIM115 (closed by __exit__)
        self._file.truncate(size)
        self._file.seek(size)
        self._sha256, self._summed = hashlib.sha256(), 0
        self._buffer = memoryview(bytearray(1 << 20))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def copy(self, source, start: int, length: int) -> None:
        """Write `length` bytes of the open file `source` from `start` on."""
        while length:
            read = os.preadv(source.fileno(), [self._buffer[:length]], start)
            if not read:
                raise UsageError(f"{source.name} became shorter while it was read; run this again")
            self._file.write(self._buffer[:read])
            start, length = start + read, length - read

    def size(self) -> int:
        self._file.flush()
        return self._file.tell()

    def sync(self, size: int) -> None:
        """Have the first `size` bytes on the disk, and in the fingerprint."""
        os.fsync(self._file.fileno())
        while self._summed < size:
            data = os.pread(self._file.fileno(), min(1 << 20, size - self._summed), self._summed)
            if not data:
                raise UsageError(f"{self._file.name} was cut by another process; run this again")
            self._sha256.update(data)
            self._summed += len(data)

    def finish(self) -> dict:
        size = self.size()
        self.sync(size)
        modified = os.fstat(self._file.fileno()).st_mtime_ns
        return {"bytes": size, "modified_ns": modified, "sha256": self._sha256.hexdigest()}


def sha256(path: Path, leaving: threading.Event) -> str:
    """The SHA-256 of a file; given up when `leaving` is set."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while not leaving.is_set() and (data := file.read(1 << 20)):
            total.update(data)
    return total.hexdigest()


def _identity(path: Path) -> dict:
    facts = path.stat()
    return {"path": str(path.resolve()), "bytes": facts.st_size, "modified_ns": facts.st_mtime_ns}


def _there(state: dict, outputs: list[Path]) -> bool:
    """Whether the outputs are as the manifest says: when finished the same, else at least as long."""
    recorded = state.get("outputs", {})
    if "finished" not in state:
        partials = {output.name: partial(output) for output in outputs}
        return recorded.keys() == partials.keys() and all(
            partials[name].is_file() and partials[name].stat().st_size >= facts["bytes"]
            for name, facts in recorded.items()
        )
    for output in outputs:
        facts = recorded.get(output.name)
        if facts is None and output is not outputs[-1]:  # malformed lines are there only if there are any
            return False
        if facts is not None:
            if not output.is_file():
                return False
            found = output.stat()
            if (found.st_size, found.st_mtime_ns) != (facts["bytes"], facts["modified_ns"]):
                return False
    return True


def _judged(path: Path, judge: Callable, start: int, size: int, workers: int) -> Iterator[tuple[int, int, ChunkResult]]:
    """(start and end of a chunk, what became of it), in order."""
    if workers == 1 or size - start <= CHUNK:
        for begin, end in _ranges(path, start, size):
            yield begin, end, judge(_read(path, begin, end))
        return
    context = multiprocessing.get_context("spawn")  # forking a process that holds threads can hang
    with ProcessPoolExecutor(workers, context, _init_worker, (judge,)) as pool:
        waiting: deque = deque()
        try:
            for begin, end in _ranges(path, start, size):
                with _defer_sigint():
                    waiting.append((begin, end, pool.submit(_run_chunk, path, begin, end)))
                if len(waiting) > 2 * workers:
                    *done, future = waiting.popleft()
                    yield *done, future.result()
            for *done, future in waiting:
                yield *done, future.result()
        except BrokenProcessPool:
            raise UsageError(
                f"a worker process was killed (out of memory?); the same command with fewer --num_workers than {workers} "
                "goes on from here"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _defer_sigint():
    """Ctrl-C waits until the end. Processes started here never hear it (they inherit what is blocked): the parent ends
    the run."""
    heard = []
    handler = signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
    if heard:
        raise KeyboardInterrupt


def _ranges(path: Path, start: int, size: int) -> Iterator[tuple[int, int]]:
    """Pieces of the file that end with a line, about CHUNK bytes each."""
    with open(path, "rb") as file:
        while start < size:
            file.seek(min(start + CHUNK, size) - 1)
            if not file.readline():
                raise UsageError(f"{path} became shorter while it was read; run this again")
            end = min(file.tell(), size)
            yield start, end
            start = end


def _read(path: Path, start: int, end: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(end - start)


_judge: Callable[[bytes], ChunkResult]


def _init_worker(judge: Callable[[bytes], ChunkResult]) -> None:
    """What each worker does first."""
    global _judge
    _judge = judge
    # A parent killed with -9 cannot stop its workers: they must see it themselves.
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _run_chunk(path: Path, start: int, end: int) -> ChunkResult:
    return _judge(_read(path, start, end))
