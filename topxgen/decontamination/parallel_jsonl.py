"""Filter a file of JSON lines on all cores in one pass.

Chunks of whole lines go to worker processes and come back in the order of the input, so the output does not depend on
the number of workers, and memory is bounded by the chunks in flight. Outputs get their final names once all of them are
complete, and the manifest is written last: a killed run leaves no incomplete file under a final name and is run again.
"""

import hashlib
import logging
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import tee
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TypedDict

from topxgen import distributed
from topxgen.common import checksums
from topxgen.common.errors import UsageError
from topxgen.common.files import open_partial, partial, read_json, remove, to_line, write_json
from topxgen.common.provenance import command_line, now, versions
from topxgen.common.shards import Shard
from topxgen.common.signals import SIGNALS, blocked_in_children, finishing, noting_interrupts
from topxgen.distributed import Call, Plan

logger = logging.getLogger(__name__)

CHUNK_BYTES = 4 << 20


@dataclass
class ChunkResult:
    """What a filter makes of a chunk: the lines to keep, hits, malformed lines (`line` counts from 0 in the chunk)."""

    kept: bytes = b""
    hits: list[dict] = field(default_factory=list)
    malformed: list[dict] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)


class Manifest(TypedDict):
    """manifest_decontaminate_{Language}.json, as far as it is read again; written when all files are complete."""

    settings: dict
    input: dict
    input_sha256: str
    counts: dict[str, int]
    outputs: dict[str, dict]
    finished: str


ChunkFilter = Callable[[bytes], ChunkResult]


def filter_jsonl(
    path: Path,
    chunk_filter: ChunkFilter,
    kept: Path | None,
    hits: Path,
    malformed: Path,
    manifest: Path,
    settings: dict,
    num_workers: int,
    on_chunk: Callable[[int, int, Counter], None],
    origin: dict | None = None,
    shard: Shard | None = None,
    plan: Plan | None = None,
) -> dict:
    """Filter the lines of `path`, or of a shard's part of it, into `kept` (None: not written), `hits` and, if there are any, `malformed`.

    `settings` decide the result: if `manifest` records a complete run with the same settings, input and output files,
    nothing is done. `plan`: for workers over the nodes of a cluster. `origin` is added to the manifest. `on_chunk` gets start and end of each finished chunk, in bytes, and the counts so far.
    Returns the manifest. Raises UsageError if the input changes during the run or a worker process dies.
    """
    source, finished = identity(path), _read_manifest(manifest)
    paths = [output for output in (hits, malformed, kept) if output is not None]
    if (
        finished
        and (finished["settings"], finished["input"]) == (settings, source)
        and ("lines" in finished["counts"] or not source["bytes"])
        and all(
            _size_and_time(manifest.parent / name).items() <= facts.items()
            for name, facts in finished["outputs"].items()
        )
    ):
        for output in paths:  # of a killed run with other settings
            partial(output).unlink(missing_ok=True)
        on_chunk(0, source["bytes"], Counter(finished["counts"]))
        _claim(manifest, finished)
        return finished

    started, end, counts, input_sha256 = now(), 0, Counter(), hashlib.sha256()
    first, last, lines_before = part_of(path, shard)
    with ExitStack() as stack:
        outputs = {output: stack.enter_context(closing(_Output(output))) for output in paths}
        chunks = _read_chunks(path, input_sha256, first, last)
        num_workers = min(num_workers, -(-(last - first) // CHUNK_BYTES))
        if plan is not None:
            results = _map_in_pool(chunk_filter, chunks, plan)
        elif num_workers <= 1:
            results = ((len(chunk), chunk_filter(chunk)) for chunk in chunks)
        else:
            results = _map_in_order(chunk_filter, chunks, num_workers)
        for size, result in stack.enter_context(closing(results)):
            if kept is not None:
                outputs[kept].write(result.kept)
            for output, records in ((hits, result.hits), (malformed, result.malformed)):
                for record in records:
                    line = to_line({**record, "line": lines_before + counts["lines"] + 1 + record["line"]})
                    outputs[output].write(line.encode("utf-8", "replace"))
            counts.update(result.counts)
            on_chunk(end, end + size, counts)
            end += size
        if identity(path) != source:
            raise UsageError(f"{path} changed while it was read; wait until nothing writes to it, then re-run")
        if not counts["malformed"]:
            del outputs[malformed]
        written = _publish(outputs, malformed, manifest)
    whole_sha256 = input_sha256.hexdigest() if shard is None else checksums.sha256_of(path)
    facts = {"settings": settings, "input": source, "input_sha256": whole_sha256, "counts": dict(counts)}
    return _finish(manifest, {"started": started, **facts, **(origin or {})}, written)


def concatenate(parts: list[Path], names: Collection[str], malformed: str, manifest: Path, facts: dict) -> dict:
    """The outputs of all shards, whose folders `parts` are, as one run would have written them; the manifest.

    `facts`: what the manifest says besides the outputs. `names`: of the outputs; of `malformed` some shards have none.
    """
    folder, started = manifest.parent, now()
    with ExitStack() as stack:
        outputs = {folder / name: stack.enter_context(closing(_Output(folder / name))) for name in sorted(names)}
        for part in parts:
            for output, file in outputs.items():
                if (part / output.name).exists():
                    for chunk in _read_chunks(part / output.name, hashlib.sha256()):
                        file.write(chunk)
        written = _publish(outputs, folder / malformed, manifest)
    return _finish(manifest, {"started": started, **facts}, written)


def _publish(outputs: "dict[Path, _Output]", malformed: Path, manifest: Path) -> dict[str, dict]:
    """Give the outputs their names; size, time and digest of each by its name."""
    written = {output.name: file.finish() for output, file in outputs.items()}
    remove(manifest)  # it describes the outputs that are replaced now
    remove(malformed)
    for output in outputs:
        checksums.drop(output)
        os.replace(partial(output), output)
    return written


def _finish(manifest: Path, facts: dict, written: dict[str, dict]) -> dict:
    """Write the manifest, last of the files."""
    finished = {
        "stage": "decontaminate",
        **facts,
        "command": command_line(()),
        "versions": versions(),
        "outputs": written,
        checksums.KEY: sorted(written),
        "finished": now(),
    }
    checksums.claim(manifest.parent, written, {name: facts["sha256"] for name, facts in written.items()})
    write_json(manifest, finished)
    _claim(manifest, finished)
    return finished


def _claim(manifest: Path, finished: dict) -> None:
    """Complete the entries in SHA256SUMS, which a killed run may lack."""
    checksums.claim(manifest.parent, [*finished["outputs"], manifest.name])


def _read_manifest(path: Path) -> Manifest | None:
    """The manifest of a complete run; None if it is missing or unreadable, so that the run starts again."""
    try:
        return read_json(path, Manifest, "the file is filtered anew") or None
    except UsageError as error:
        logger.warning("%s", error)
        return None


class _Output:
    """A file under its temporary name; its SHA-256 is computed as it is written."""

    def __init__(self, path: Path):
        self._path, self._sha256 = partial(path), hashlib.sha256()
        self._file = open_partial(path, "wb")  # closed by `close`

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)

    def finish(self) -> dict:
        self._file.flush()
        os.fsync(self._file.fileno())
        return {**_size_and_time(self._path), "sha256": self._sha256.hexdigest()}

    def close(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def identity(path: Path) -> dict:
    """What differs once a file has been changed."""
    return {"path": str(path.resolve()), **_size_and_time(path)}


def _size_and_time(path: Path) -> dict:
    status = path.stat() if path.is_file() else None
    return {"bytes": status and status.st_size, "modified_ns": status and status.st_mtime_ns}


def part_of(path: Path, shard: Shard | None) -> tuple[int, int, int]:
    """Where a shard's lines begin and end, in bytes, and how many lines are before them."""
    size = path.stat().st_size
    if shard is None:
        return 0, size, 0
    bounds, lines = [], 0
    with open(path, "rb") as file:
        for place in shard.bounds(size):
            file.seek(max(place - 1, 0))
            if place:
                file.readline()  # of the line in whose middle it is
            bounds.append(file.tell())
        file.seek(0)
        while (left := bounds[0] - file.tell()) > 0:
            lines += file.read(min(left, CHUNK_BYTES)).count(b"\n")
    return *bounds, lines


def _read_chunks(path: Path, sha256, first: int = 0, last: int | None = None) -> Iterator[bytes]:
    """The lines from one byte to another, some at a time."""
    with open(path, "rb") as file:
        last = file.seek(0, os.SEEK_END) if last is None else last
        file.seek(first)
        while chunk := file.read(min(CHUNK_BYTES, last - file.tell())):
            chunk += b"" if file.tell() == last else file.readline()
            sha256.update(chunk)
            yield chunk


def _map_in_pool(chunk_filter: ChunkFilter, chunks: Iterator[bytes], plan: Plan) -> Iterator:
    """(bytes of a chunk, its result), in order, from workers over the nodes of a cluster."""
    asked, given = tee(chunks)
    with closing(distributed.start(lambda: chunk_filter, plan)) as pool:
        results = pool.map(Call("__call__", (chunk,)) for chunk in asked)
        for result, chunk in zip(
            results, given, strict=False
        ):  # a result first: what was given is behind what was asked
            yield len(chunk), result


def _map_in_order(chunk_filter: ChunkFilter, chunks: Iterator[bytes], num_workers: int) -> Iterator:
    """(bytes of a chunk, its result), in order, from worker processes with a pipe each.

    A pipe shared by all workers, as ProcessPoolExecutor has it, blocks the run if a worker is killed while it writes there.
    """
    context = multiprocessing.get_context("spawn")  # forking a process that has threads can deadlock
    resource_tracker.ensure_running()  # its start unblocks SIGINT, so not inside _undisturbed
    workers, idle, busy, results, number = [], [], {}, {}, 0
    numbered_chunks = enumerate(chunks)

    def start_worker() -> Connection:
        connection, worker_end = context.Pipe()
        workers.append(context.Process(target=_run_worker, args=(worker_end,), daemon=True))
        with _undisturbed():
            workers[-1].start()
        worker_end.close()  # only the worker has this end now, so that its death ends the pipe
        with _died_as_usage_error(num_workers):
            # Not as an argument: `start` would block if the worker died while it reads it.
            connection.send(chunk_filter)
        return connection

    try:
        while True:
            while (
                (idle or len(workers) < num_workers)
                and len(busy) + len(results) < 2 * num_workers
                and (item := next(numbered_chunks, None))
            ):
                connection = idle.pop() if idle else start_worker()
                busy[connection] = item[0], len(item[1])
                with _died_as_usage_error(num_workers):
                    connection.send_bytes(item[1])
            if number in results:
                yield results.pop(number)
                number += 1
            elif busy:
                for connection in wait(busy):
                    finished, size = busy.pop(connection)
                    with _died_as_usage_error(num_workers):
                        results[finished] = size, connection.recv()
                    idle.append(connection)
            else:
                return
    finally:
        for worker in workers:
            if worker.pid is not None:
                worker.kill()
                worker.join()


def _run_worker(connection: Connection) -> None:
    with suppress(EOFError, OSError):  # the pipe ends with the parent, even if that is killed
        chunk_filter = connection.recv()
        while True:
            connection.send(chunk_filter(connection.recv_bytes()))


@contextmanager
def _died_as_usage_error(num_workers: int) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):  # a pipe that ends, also in the middle of a message
        raise UsageError(
            f"a worker process was killed, probably out of memory; re-run with --num_workers below {num_workers}"
        ) from None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Defer Ctrl-C and signals to stop to the end of the block; processes started in it get none of them.

    A worker interrupted while it starts would print a traceback; the parent ends the workers instead.
    """
    with noting_interrupts(lambda: None), finishing(), blocked_in_children(signal.SIGINT, *SIGNALS):
        yield
