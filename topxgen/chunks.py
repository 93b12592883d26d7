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
from contextlib import ExitStack
from pathlib import Path

from comptra.errors import UserError
from comptra.files import read_json, to_line, write_json
from topxgen.contamination import Judged
from topxgen.stages import now

CHUNK = 4 << 20  # bytes
SAVE_EVERY_S = 0.5  # at most so much work is done again after a kill


def run(
    path: Path,
    judge: Callable[[bytes], Judged],
    outputs: list[Path],
    manifest: Path,
    settings: dict,
    facts: dict,
    workers: int,
    tick: Callable[[int, Counter], None],
) -> dict:
    """Judge the lines of `path`; what stays, the hits and the malformed lines go to the three `outputs`.

    `settings` are what decides the result: with other ones, or another input, `manifest` is begun anew; with the
    same ones a killed run goes on, and a finished one is not repeated. `facts` are noted beside them. `tick` is told
    the bytes done and the counts so far. Outputs get their names when all is done; the last one only if it holds
    anything. Returns the manifest, which then has "finished".
    Raises UserError when the file changes meanwhile, or a process is killed.
    """
    source = _identity(path)
    state = read_json(manifest)
    if state.get("settings") != settings or state.get("input") != source or not _there(state, outputs):
        state = {"started": now(), "settings": settings, **facts, "input": source, "counts": {}, "done": 0}
        state["outputs"] = {output.name: {"bytes": 0} for output in outputs}
        for output in outputs:
            _partial(output).write_bytes(b"")
        write_json(manifest, state)
    counts = Counter(state["counts"])
    tick(state["done"], counts)
    if "finished" in state:
        return state

    with ExitStack() as stack:
        files = [stack.enter_context(open(_partial(output), "r+b")) for output in outputs]
        # The disk is waited for, and the input fingerprinted, in threads beside the work.
        threads = stack.enter_context(ThreadPoolExecutor(2))
        fingerprint = threads.submit(sha256, path)
        for output, file in zip(outputs, files, strict=True):
            file.truncate(state["outputs"][output.name]["bytes"])
            file.seek(0, os.SEEK_END)

        def save(sizes: list[int], facts: dict) -> None:
            for file in files:
                os.fsync(file.fileno())
            written = {output.name: {"bytes": size} for output, size in zip(outputs, sizes, strict=True)}
            write_json(manifest, {**state, **facts, "outputs": written})

        saved, saving = float("-inf"), None
        lines = stack.enter_context(open(path, "rb"))
        for start, end, judged in _judged(path, judge, state["done"], source["bytes"], workers):
            first = counts["lines"] + 1
            for part in judged.kept:
                if isinstance(part, tuple):
                    part = os.pread(lines.fileno(), part[1] - part[0], start + part[0])
                    part += b"" if part.endswith(b"\n") else b"\n"  # the last line of a file may lack its end
                files[0].write(part)
            for file, records in zip(files[1:], (judged.hits, judged.malformed), strict=True):
                for record in records:
                    line = to_line({**record, "line": first + record["line"]})
                    file.write(line.encode("utf-8", "replace"))
            counts.update(judged.counts)
            tick(end, counts)
            if time.monotonic() - saved >= SAVE_EVERY_S and (saving is None or saving.done()):
                if saving is not None:
                    saving.result()  # a full disk is told at once
                for file in files:
                    file.flush()
                facts = {"done": end, "counts": dict(counts)}
                saving = threads.submit(save, [file.tell() for file in files], facts)
                saved = time.monotonic()
        if saving is not None:
            saving.result()
        for file in files:
            file.flush()
            os.fsync(file.fileno())
        state["input_sha256"] = fingerprint.result()
        if _identity(path) != source:
            raise UserError(f"{path} changed while it was read; wait until nothing writes to it, and run this again")
        state |= {"done": source["bytes"], "counts": dict(counts)}
    for output in outputs:
        facts = {"bytes": _partial(output).stat().st_size, "sha256": sha256(_partial(output))}
        state["outputs"][output.name] = facts
    for output in reversed(outputs):  # what stays comes last: who waits for that file finds the others
        os.replace(_partial(output), output)
    if not counts["malformed"]:
        del state["outputs"][outputs[-1].name]
        outputs[-1].unlink()
    state["finished"] = now()
    write_json(manifest, state)
    return state


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _identity(path: Path) -> dict:
    facts = path.stat()
    return {"path": str(path.resolve()), "bytes": facts.st_size, "modified_ns": facts.st_mtime_ns}


def _there(state: dict, outputs: list[Path]) -> bool:
    """Whether the outputs hold at least what the manifest says they do."""
    for output in outputs:
        recorded = state.get("outputs", {}).get(output.name)
        if recorded is None:
            if "finished" in state and output is outputs[-1]:
                continue
            return False
        file = output if "finished" in state else _partial(output)
        size = file.stat().st_size if file.is_file() else -1
        if size < recorded["bytes"] or ("finished" in state and size > recorded["bytes"]):
            return False
    return True


def _judged(path: Path, judge: Callable, start: int, size: int, workers: int) -> Iterator[tuple[int, int, Judged]]:
    """(start and end of a chunk, what became of it), in order."""
    if workers == 1 or size - start <= CHUNK:
        for begin, end in _ranges(path, start, size):
            yield begin, end, judge(_read(path, begin, end))
        return
    context = multiprocessing.get_context("spawn")  # forking a process that holds threads can hang
    with ProcessPoolExecutor(workers, context, _begin, (judge,)) as pool:
        waiting: deque = deque()
        try:
            for begin, end in _ranges(path, start, size):
                waiting.append((begin, end, pool.submit(_work, path, begin, end)))
                if len(waiting) > 2 * workers:
                    *done, future = waiting.popleft()
                    yield *done, future.result()
            for *done, future in waiting:
                yield *done, future.result()
        except BrokenProcessPool:
            raise UserError(
                f"a worker process was killed (out of memory?); the same command with fewer --num_workers than {workers} "
                "goes on from here"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _ranges(path: Path, start: int, size: int) -> Iterator[tuple[int, int]]:
    """Pieces of the file that end with a line, about CHUNK bytes each."""
    with open(path, "rb") as file:
        while start < size:
            file.seek(min(start + CHUNK, size) - 1)
            file.readline()
            end = min(file.tell(), size)
            yield start, end
            start = end


def _read(path: Path, start: int, end: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(end - start)


_judge: Callable[[bytes], Judged]


def _begin(judge: Callable[[bytes], Judged]) -> None:
    """What each worker does first."""
    global _judge
    _judge = judge
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the run
    # A parent killed with -9 cannot stop its workers: they must see it themselves.
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _work(path: Path, start: int, end: int) -> Judged:
    return _judge(_read(path, start, end))
