"""Files that survive a kill: whole-line appends, atomic rewrites, one owner per directory."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from topxgen.common.errors import UsageError


def read_jsonl(path: Path) -> Iterator[dict]:
    """The objects of a JSONL file in order; nothing when the file does not exist.

    Raises UsageError naming the line that is not a JSON object.
    """
    return (record for _, record in read_numbered_jsonl(path))


def read_numbered_jsonl(path: Path) -> Iterator[tuple[int, dict]]:
    """The same, each with the number of its line, from 1."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("not a JSON object")
            except ValueError as error:  # covers broken JSON and broken UTF-8
                raise UsageError(f"{path}, line {number}: {error}; fix or remove the line") from None
            yield number, record


def repair_tail(path: Path) -> int:
    """Drop a half-written last line (its record was never finished); returns the bytes dropped.

    A last line that is whole JSON but lacks its line break, as hand-edited files have, is kept.
    """
    if not path.exists():
        return 0
    with open(path, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        tail, start = b"", size
        while start and b"\n" not in tail:
            step = min(1 << 16, start)
            start -= step
            file.seek(start)
            tail = file.read(step) + tail
        tail = tail[tail.rfind(b"\n") + 1 :]
        if not tail:
            return 0
        try:
            json.loads(tail)
        except ValueError:
            file.truncate(size - len(tail))
            return len(tail)
        file.seek(size)
        file.write(b"\n")
        return 0


def to_line(record: dict) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


class Appender:
    """Appends JSON objects, each as one whole line in one write; `sync` makes them survive a power cut."""

    def __init__(self, path: Path):
        repair_tail(path)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, *records: dict) -> None:
        # A lone surrogate cannot be UTF-8: it becomes "?" rather than end a run.
        lines = "".join(map(to_line, records))
        data = lines.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._fd, data) :]

    def sync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        os.fsync(self._fd)
        os.close(self._fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def partial(path: Path) -> Path:
    """The temporary name of a file until all of it is on the disk."""
    return path.with_name(path.name + ".partial")


def write_atomic(path: Path, text: Iterable[str]) -> None:
    """Write `text` to a temporary name, flush it to disk, rename it to `path`."""
    with open(partial(path), "w", encoding="utf-8", errors="replace") as file:
        file.writelines(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial(path), path)


def write_json(path: Path, value: dict) -> None:
    write_atomic(path, [json.dumps(value, ensure_ascii=False, indent=2) + "\n"])


def read_json(path: Path) -> dict:
    """The JSON object in `path`, or {} when there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON ({error}); restore it or remove it") from None


class DirectoryLocked(UsageError):
    """Another process holds the directory."""


class OutputLock:
    """Holds `directory` for this process until it exits, however it exits.

    A POSIX record lock: the kernel lets go of it when the process dies, and forked engine processes
    do not inherit it. Raises DirectoryLocked naming the owner when another process holds it, UsageError when the
    directory cannot be written.
    """

    def __init__(self, directory: Path):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = open(directory / ".lock", "a+", encoding="utf-8")  # noqa: SIM115 (held for the run)
        except OSError as error:
            raise UsageError(
                f"cannot write to the output directory {directory}: {error.strerror}; pass another --output_dir"
            ) from None
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise UsageError(
                    f"cannot lock {directory} ({error.strerror}): its file system has no record locks; pass an "
                    "--output_dir on another one"
                ) from None
            self._file.seek(0)
            owner = self._file.read().strip() or "an unknown process"
            self._file.close()
            raise DirectoryLocked(
                f"{directory} is in use by {owner}; wait for it, stop it, or pass another --output_dir"
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def release(self) -> None:
        if not self._file.closed:
            self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()
