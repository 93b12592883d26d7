"""Filtering lines in chunks: files are absent or complete whenever it is killed, and chunks stay in order and bounded."""

import hashlib
import os
import signal
from collections import Counter
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.support.runs import records
from topxgen.common import checksums
from topxgen.common.errors import UsageError
from topxgen.decontamination import parallel_jsonl
from topxgen.decontamination.parallel_jsonl import ChunkResult


def drop_a(chunk: bytes) -> ChunkResult:
    """Lines that begin with "a" are dropped and are hits; instead of the real filter, where only the files matter."""
    lines = [line + b"\n" for line in chunk.removesuffix(b"\n").split(b"\n")]
    hits = [{"line": i} for i, line in enumerate(lines) if line.startswith(b"a")]
    malformed = [{"line": i} for i, line in enumerate(lines) if line.startswith(b"?")]
    counts = Counter(lines=len(lines), malformed=len(malformed))
    return ChunkResult(b"".join(line for line in lines if line.startswith(b"b")), hits, malformed, counts)


def filter_lines(tmp_path: Path, workers: int = 1, on_chunk=lambda *_: None, chunk_filter=drop_a, settings=()) -> dict:
    outputs = [tmp_path / name for name in ("kept", "hits", "malformed")]
    return parallel_jsonl.filter_jsonl(
        tmp_path / "in.txt", chunk_filter, *outputs, tmp_path / "manifest.json", dict(settings), workers, on_chunk
    )


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(parallel_jsonl, "CHUNK_BYTES", 100)


class Killed(BaseException):
    pass


def kill_at(step: int, monkeypatch) -> Counter:
    """Raise Killed at the step-th operation on the disk, and leave the disk as it is then (clean-up does nothing)."""
    done = Counter()

    def count(function, kind: str):
        def counted(*args, **kwargs):
            if done["killed"]:
                return None if kind in ("unlink", "rename") else function(*args, **kwargs)
            if sum(done.values()) == step:
                done["killed"] += 1
                raise Killed
            done[kind] += 1
            return function(*args, **kwargs)

        return counted

    monkeypatch.setattr(parallel_jsonl.os, "fsync", count(os.fsync, "fsync"))
    monkeypatch.setattr(parallel_jsonl.os, "replace", count(os.replace, "rename"))
    monkeypatch.setattr(parallel_jsonl._Output, "write", count(parallel_jsonl._Output.write, "write"))
    monkeypatch.setattr(Path, "unlink", count(Path.unlink, "unlink"))
    return done


@pytest.mark.parametrize("earlier", [False, True])
def test_killed_at_any_moment_the_files_are_absent_or_complete(tmp_path, monkeypatch, small_chunks, earlier):
    lines = [f"{'ab?b'[i % 4]} {i}" for i in range(60)]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")
    names = ("kept", "hits", "malformed")

    def contents() -> list:
        return [(tmp_path / name).read_bytes() if (tmp_path / name).exists() else None for name in names]

    def keep_all(chunk: bytes) -> ChunkResult:
        return ChunkResult(chunk, [], [], Counter(lines=chunk.count(b"\n")))

    manifest = filter_lines(tmp_path)
    complete = contents()
    assert complete[0].decode().splitlines() == lines[1::2] and None not in complete
    assert manifest["outputs"]["kept"]["sha256"] == hashlib.sha256(complete[0]).hexdigest()
    moments = set()
    for step in range(1000):
        for path in tmp_path.iterdir():
            if path.name != "in.txt":
                path.unlink()
        if earlier:  # an earlier run with other settings is complete
            filter_lines(tmp_path, chunk_filter=keep_all, settings={"other": 1})
        before = contents()
        with monkeypatch.context() as patched:
            done = kill_at(step, patched)
            with suppress(Killed):
                filter_lines(tmp_path)
        if not done["killed"]:
            assert contents() == complete
            break
        moments |= done.keys() - {"killed"}
        for now, old, new in zip(contents(), before, complete, strict=True):
            assert now in (None, old, new), "never half a file under its final name"
        for name, digest in checksums.read(tmp_path).items():
            assert checksums.sha256_of(tmp_path / name) == digest, "an entry may be missing, but is never wrong"
        if contents() != before:
            assert not (tmp_path / "manifest.json").exists() or contents() == complete
        filter_lines(tmp_path)
        assert contents() == complete
        there = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".lock")}
        assert there == {"in.txt", "manifest.json", "SHA256SUMS", *names}
        assert checksums.read(tmp_path).keys() == {"manifest.json", *names}
    assert step > 10 and moments >= {"write", "fsync", "rename", "unlink"}


def test_an_edited_output_is_made_again_and_a_complete_one_is_not(tmp_path, small_chunks):
    lines = [f"{'ab'[i % 2]} {i}" for i in range(1000)]
    (tmp_path / "in.txt").write_text("\n".join(lines))
    (tmp_path / "malformed").write_text("of an earlier input")
    progress = []
    first = filter_lines(tmp_path, on_chunk=lambda *chunk: progress.append(chunk[:2]))
    size = (tmp_path / "in.txt").stat().st_size
    assert [start for start, _ in progress] == [0, *(end for _, end in progress[:-1])] and progress[-1][1] == size
    assert (tmp_path / "kept").read_text().splitlines() == lines[1::2]
    assert [hit["line"] for hit in records(tmp_path / "hits")] == [*range(1, 1001, 2)]
    assert {path.name for path in tmp_path.iterdir()} == {"in.txt", "kept", "hits", "manifest.json", "SHA256SUMS"}
    (tmp_path / "kept.partial").write_text("of a killed run with other settings")
    assert filter_lines(tmp_path, on_chunk=lambda *chunk: progress.append(chunk)) == first
    assert progress[-1] == (0, size, Counter(first["counts"])) and not (tmp_path / "kept.partial").exists()
    for name in ("kept", "hits"):
        (tmp_path / name).write_text((tmp_path / name).read_text().replace("1", "2"))
        assert filter_lines(tmp_path)["counts"]["lines"] == 1000
        assert (tmp_path / "kept").read_text().splitlines() == lines[1::2], "an output that was edited is made anew"
        (tmp_path / name).unlink()
        filter_lines(tmp_path)
        assert (tmp_path / name).exists()
    assert filter_lines(tmp_path, settings={"other": 1})["settings"] == {"other": 1}


@pytest.mark.parametrize("change", [lambda path: os.truncate(path, 50), lambda path: path.open("a").write("b 2\n")])
def test_a_file_that_changes_meanwhile_is_refused(tmp_path, small_chunks, change):
    (tmp_path / "in.txt").write_text("b 1\n" * 100)
    changes = iter([change])
    with pytest.raises(UsageError, match=r"in\.txt changed while it was read"):
        filter_lines(tmp_path, on_chunk=lambda *_: [change(tmp_path / "in.txt") for change in changes])
    assert {path.name for path in tmp_path.iterdir()} == {"in.txt"}


def test_an_empty_file_and_one_of_a_chunk(tmp_path, small_chunks):
    for text in ("", "b\n", "b" * 99 + "\n", "b" * 100 + "\n", "b" * 101 + "\nb\n", "b\n" * 50 + "b\n"):
        (tmp_path / "in.txt").write_text(text)
        for workers in (1, 2):
            (tmp_path / "manifest.json").unlink(missing_ok=True)
            filter_lines(tmp_path, workers)
            assert (tmp_path / "kept").read_text() == text


def die(chunk: bytes) -> ChunkResult:
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_sending(chunk: bytes) -> ChunkResult:
    def send_half(connection: Connection, data: bytes) -> None:
        os.write(connection.fileno(), bytes(data)[:100_000])
        if len(data) > 100_000:
            os.kill(os.getpid(), signal.SIGKILL)

    Connection._send = send_half
    return ChunkResult(bytes(1 << 20))


@pytest.mark.parametrize("chunk_filter", [die, die_while_sending])
def test_a_worker_that_is_killed_ends_the_run(tmp_path, small_chunks, chunk_filter):
    (tmp_path / "in.txt").write_text("b 1\n" * 100)
    with pytest.raises(UsageError, match=r"a worker process was killed, .* re-run with --num_workers below 2"):
        filter_lines(tmp_path, workers=2, chunk_filter=chunk_filter)
    assert {path.name for path in tmp_path.iterdir()} == {"in.txt"}
    assert filter_lines(tmp_path)["counts"] == {"lines": 100, "malformed": 0}


def test_chunks_in_flight_are_bounded(tmp_path, small_chunks):
    """Memory does not grow with the file: so many chunks are read ahead, and no more."""
    read, ahead = 0, []

    def chunks():
        nonlocal read
        for _ in range(40):
            read += 1
            yield b"b\n"

    for number, (size, result) in enumerate(parallel_jsonl._map_in_order(drop_a, chunks(), 2), start=1):
        assert (size, result.kept) == (2, b"b\n")
        ahead.append(read - number)
    assert max(ahead) == 3 and read == 40
