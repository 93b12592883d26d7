"""Files that survive a kill: whole-line appends, atomic rewrites, repair of a half-written last line.

What changes a file removes its entry in SHA256SUMS first; one that is replaced as a whole gets its new one.
"""

import csv
import fcntl
import io
import json
import logging
import os
import re
import shutil
import stat
import tempfile
import threading
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import IO, TypeVar

from topxgen.common import checksums
from topxgen.common.errors import UsageError
from topxgen.common.schemas import decode

logger = logging.getLogger(__name__)
T = TypeVar("T")
LOG_WAITING_AFTER_S = 2.0
_LEAVES_OUT_CUT_LINES = ContextVar("leaves_out_cut_lines", default=False)
_LFS_POINTER = re.compile(rb"(?:\xef\xbb\xbf)?version https://(?:git-lfs|hawser)\.github\.com/spec/")
_ANNEX_POINTER = re.compile(rb"(?:[./]*git)?/annex/objects/")
# What a cut leaves of a JSON token that cannot be read: of a literal, of an escape in a string; of a number behind its digits.
_CUT_TOKEN = re.compile(r"t|tr|tru|f|fa|fal|fals|n|nu|nul|N|Na|-|-?I[a-z]{0,6}|\\?u[0-9A-Fa-f]{0,4}|")
_CUT_NUMBER = re.compile(r"(?:\.|[eE][+-]?)")


def walk(
    root: str | Path, onerror: Callable[[OSError], None] | None = None, seen: set[str] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """os.walk, also through links to folders that are left in the list, each folder once: what is behind a link after all that has a path of its own.

    `seen`: the real paths of folders that are left out; those found are added.
    """
    seen, rooms = set() if seen is None else seen, [root]
    for room in rooms:  # it grows
        for name, folders, files in os.walk(room, onerror=onerror):
            if (real := os.path.realpath(name)) in seen:
                folders.clear()
                continue
            seen.add(real)
            yield name, folders, files
            rooms += sorted(path for one in folders if os.path.islink(path := os.path.join(name, one)))


def refuse_stand_in(path: Path) -> None:
    """Raise UsageError for what may be found in place of a file: a directory, a pipe, a device, the pointer that a clone without
    Git LFS has. Files are read more than once, a pipe that nobody writes to is waited for, and some devices have no end."""
    if path.is_dir():
        raise UsageError(f"{path} is a directory, not a file; move it away, or pass another path")
    if path.exists() and not path.is_file():
        raise UsageError(
            f"{path} is a pipe or a device, which can be read only once or has no end; write its content to a file and pass that"
        )
    with open(path, "rb") as file:
        beginning = file.read(80)
    if _LFS_POINTER.match(beginning):
        raise UsageError(
            f"{path} is a Git LFS pointer, not the file itself; run git lfs pull in that clone, or download it"
        )
    if _ANNEX_POINTER.match(beginning):
        raise UsageError(f"{path} is a git-annex pointer, not the file itself; run git annex get in that clone")


@contextmanager
def leaving_out_cut_lines() -> Iterator[None]:
    """A block, or as a decorator a function, that reads files before `repair_tail`: a last line that is cut off is left out."""
    token = _LEAVES_OUT_CUT_LINES.set(True)
    try:
        yield
    finally:
        _LEAVES_OUT_CUT_LINES.reset(token)


def read_jsonl(
    path: Path,
    schema: type[T] = dict,
    remedy: str = "fix or remove the line",
    on_cut: Callable[[Path], object] | None = None,
) -> Iterator[T]:
    """The records of a JSONL file in order; nothing when the file does not exist.

    `on_cut`: called with the path instead of an error for a last line that is cut off, as in a file that is being written.

    Raises UsageError naming the line and the field that does not fit `schema` (topxgen/common/schemas.py), and what to do.
    """
    return (record for *_, record in read_placed_jsonl(path, schema, remedy, on_cut))


def read_placed_jsonl(
    path: Path,
    schema: type[T] = dict,
    remedy: str = "fix or remove the line",
    on_cut: Callable[[Path], object] | None = None,
) -> Iterator[tuple[int, int, int, T]]:
    """The same, each with the number of its line, from 1, its offset and its size in bytes."""
    if not path.exists():
        return
    refuse_stand_in(path)
    end = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            end += len(line)
            if number == 1:
                line = line.removeprefix(BOM_UTF8)
            if line.isspace():
                continue
            try:
                record = decode(line, schema)
            except ValueError as error:
                leaves_out = on_cut or _LEAVES_OUT_CUT_LINES.get()
                if leaves_out and not line.endswith(b"\n") and _begins_json_object(line):
                    if on_cut:
                        on_cut(path)
                    return
                raise UsageError(f"{path}, line {number}: {error}{encoding_hint(path)}; {remedy}") from None
            yield number, end - len(line), len(line), record


def read_json(path: Path, schema: type[T] = dict, remedy: str = "restore it or remove it") -> T:
    """The JSON in `path`, {} when there is no file. Raises UsageError as `read_jsonl` does."""
    if not path.exists():
        return {}
    refuse_stand_in(path)
    try:
        return decode(path.read_bytes().removeprefix(BOM_UTF8), schema)
    except ValueError as error:
        raise UsageError(f"{path}: {error}{encoding_hint(path)}; {remedy}") from None


def repair_tail(path: Path) -> int:
    """Remove the half-written last record that a killed run leaves; returns the bytes removed.

    What is removed is kept in `{name}.torn` beside the file. A last line that is a whole JSON object but lacks its line break, as
    hand-edited files have, gets one. Raises UsageError, leaving the file as it is, for a last line that is not the beginning of
    a JSON object: this program did not write it.
    """
    if not path.exists():
        return 0
    with open(path, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        pieces, start, newline = [], size, -1
        while start and newline < 0:
            step = min(1 << 16, start)
            start -= step
            file.seek(start)
            pieces.append(file.read(step))
            newline = pieces[-1].rfind(b"\n")
        tail = b"".join(reversed(pieces))[newline + 1 :]
        if not tail:
            return 0
        if _is_json_object(tail):
            checksums.drop(path)
            file.seek(size)
            file.write(b"\n")
            return 0
        if not _begins_json_object(tail):
            raise UsageError(f"{path}: the last line is not a JSON object{encoding_hint(path)}; fix or remove it")
        # No link, and no pipe to wait for
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        with open(os.open(path.with_name(f"{path.name}.torn"), flags, 0o644), "ab") as torn:
            torn.write(tail + b"\n")
            torn.flush()
            os.fsync(torn.fileno())
        checksums.drop(path)
        file.truncate(size - len(tail))
    logger.warning(
        f"{path}: the last line was half-written, as after a kill: {len(tail)} bytes moved to {path.name}.torn; its record is "
        "made again"
    )
    return len(tail)


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8")), dict)  # bytes would be taken for UTF-16, too
    except (ValueError, RecursionError):
        return False


def _begins_json_object(line: bytes) -> bool:
    """Whether `line`, which is not JSON, is the beginning of a JSON object in UTF-8, possibly cut inside a character."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return False
        text = line[: error.start].decode("utf-8")
    if not text.startswith("{"):
        return False
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg.startswith("Unterminated string"):
            return True
        # Up to the cut it is JSON; {"a": 1}, or {"a": True} is somebody's own, and no beginning.
        rest, is_number = text[error.pos : error.pos + 20].rstrip(), text[error.pos - 1].isdecimal()
        is_whole = error.msg.startswith("Extra data")
        return not is_whole and bool(_CUT_TOKEN.fullmatch(rest) or (is_number and _CUT_NUMBER.fullmatch(rest)))
    except RecursionError:
        return False
    return True


def encoding_hint(path: Path) -> str:
    """What a file that is no UTF-8 text in lines may be instead, from a colon on; "" if its beginning does not say."""
    with open(path, "rb") as file:
        head = file.read(4096)
    if head.startswith(b"\x1f\x8b"):
        return ": it is gzip-compressed (gunzip it)"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ": it is UTF-16 (convert it to UTF-8)"
    if b"\0" in head:
        return ": it holds NUL characters (UTF-16? convert it to UTF-8)"
    if b"\r" in head and b"\n" not in head:
        return ": its lines end in CR alone (convert them to LF)"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return ": it is not UTF-8 (Latin-1? convert it to UTF-8)"
    return ""


def check_output_files(paths: dict[str, Path | None], beginnings: Mapping[str, str] = MappingProxyType({})) -> None:
    """Raise UsageError, before the work that they are to hold, for files by their flags that could not be written, and for those of
    another content, such as a paper as --latex: `beginnings` has by flag what ours begin with, as a regular expression."""
    chosen = {flag: path for flag, path in paths.items() if path is not None}
    for flag, path in chosen.items():
        if path.is_dir():
            raise UsageError(f"{flag} {path} is a directory; pass the name of a file")
        if path.exists() and not path.is_file():  # a file that is written replaces what has its name
            raise UsageError(f"{flag} {path} is a device or a pipe; pass the name of a file")
        check_output_directory(path.parent, f"{flag} {path}", must_exist=True)
        if flag in beginnings and path.exists() and not _begins(path, beginnings[flag]):
            raise UsageError(
                f"{flag} {path} exists and was not written by this command; remove it, or pass the name of another file"
            )
    if len({path.resolve() for path in chosen.values()}) < len(chosen):
        raise UsageError(f"{' and '.join(chosen)} name the same file; pass two")


def _begins(path: Path, pattern: str) -> bool:
    """Whether a file is empty, or its text begins as `pattern` says."""
    with open(path, "rb") as file:
        start = file.read(4096).decode("utf-8", "replace")
    return not start or re.match(pattern, start) is not None


def check_output_directory(path: Path, named: str, must_exist: bool = False) -> None:
    """Raise UsageError if nothing could be written to the directory, which need not exist and is not made; `named` begins the message."""
    nearest = next(parent for parent in (path, *path.absolute().parents) if os.path.lexists(parent))
    if must_exist and nearest != path:
        raise UsageError(f"{named}: there is no directory {path}; create it, or pass another one")
    if not nearest.is_dir():
        raise UsageError(f"{named}: {nearest} is not a directory; pass another one")
    try:
        # Some file systems, such as /proc, show only by trying, which also says why: they may be read-only.
        if nearest != path.absolute() or not os.access(nearest, os.W_OK | os.X_OK):
            tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise UsageError(f"{named}: cannot write to {nearest}: {error.strerror}; pass another one") from None


def csv_text(rows: Iterable[Mapping[str, object]], columns: Sequence[str] | None = None) -> str:
    """Rows as CSV below a header; `columns`: all keys, in the order in which they come, if None."""
    rows = list(rows)
    out = io.StringIO()
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def to_line(record: dict) -> str:
    return _dumps(record) + "\n"


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode  # json.dumps makes an encoder for each call


def _dumps(value: dict, indent: int | None = None) -> str:
    """`value` as JSON; null for NaN and Infinity, which JSON does not have."""
    try:
        if indent is None:
            return _encode(value)
        return json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    except ValueError:
        return _dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), indent)


def check_are_there(paths: Iterable[Path]) -> None:
    """Raise UsageError for a file that this run has written, before its manifest says that it is complete."""
    for path in paths:
        if not path.is_file():
            raise _lost(path)


def _lost(path: Path) -> UsageError:
    return UsageError(
        f"{path} was removed or replaced while this run was writing to it, and what it held is lost; re-run the same command to "
        "make it again"
    )


class Appender:
    """Appends JSON objects, each as one whole line in one write; `sync` makes them survive a power cut."""

    def __init__(self, path: Path):
        repair_tail(path)
        if not path.exists():  # somebody may have removed it
            checksums.drop(path)
        self._path, self._fd = path, os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._has_begun = False

    def write(self, *records: dict) -> int:
        """The number of bytes."""
        if not self._has_begun:
            checksums.drop(self._path)
            self._has_begun = True
        # A lone surrogate cannot be UTF-8: it becomes "?" rather than end a run.
        lines = "".join(map(to_line, records))
        data = lines.encode("utf-8", "replace")
        size = len(data)
        while data:
            data = data[os.write(self._fd, data) :]
        return size

    def sync(self) -> None:
        os.fsync(self._fd)
        try:
            is_there = os.path.samestat(os.fstat(self._fd), self._path.stat())
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise _lost(self._path)

    def close(self) -> None:
        try:
            self.sync()
        finally:
            os.close(self._fd)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.close()
        else:  # the error that ends the run is the one to show
            os.fsync(self._fd)
            os.close(self._fd)


def partial(path: Path) -> Path:
    """The temporary name of a file until all of it is on the disk."""
    return path.with_name(path.name + ".partial")


def open_partial(path: Path, mode: str, **options) -> IO:
    """The temporary file of `path`, empty and open for writing: always a new one. What has its name may be a link, hard or symbolic,
    to a file that it would empty, or a pipe. Raises UsageError for what is no file.

    It is locked until it is closed: another process that writes the same file waits, and neither renames what the other has
    written half. One that a killed process left is not locked, and is removed."""
    temporary = partial(path)
    while True:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(temporary.lstat().st_mode):
                raise UsageError(
                    f"{temporary}: a symbolic link, pipe or folder is in the place of a temporary file; remove it"
                )
            _remove_unlocked(temporary)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        except FileExistsError:
            continue
        if _is_locked(descriptor, temporary):
            return open(descriptor, mode, **options)
        os.close(descriptor)


def _remove_unlocked(temporary: Path) -> None:
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except PermissionError:  # of another user, say
        temporary.unlink()
        return
    try:
        if _is_locked(descriptor, temporary):
            temporary.unlink()
    finally:
        os.close(descriptor)


def _log_waiting(descriptor: int, path: Path) -> None:
    """Name the process that writes a file, where Linux knows it."""
    with suppress(OSError):
        locks = Path("/proc/locks").read_text()
        held = re.search(rf" FLOCK .* (\d+) \S+:{os.fstat(descriptor).st_ino} 0 EOF", locks)
        writer = f"process {held[1]}" if held else "another process"
        logger.info(f"{path} is being written by {writer}: waiting until it is done, or stopped")


def _is_locked(descriptor: int, path: Path) -> bool:
    """Wait for the lock of an open file; whether it is still the one at `path`. Some file systems have no such locks."""
    with suppress(OSError):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a suspended process may hold it for long
            waiting = threading.Timer(LOG_WAITING_AFTER_S, _log_waiting, (descriptor, path))
            waiting.start()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            finally:
                waiting.cancel()
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def replacing(path: Path, mode: str, **options) -> Iterator[IO]:
    """A file of a temporary name, which is flushed to disk and renamed to `path` after the block, unless that raises or the run
    is stopped: then it is removed. A file with the same content keeps its time: make and rsync go by it."""
    with open_partial(path, mode, **options) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if _have_same_content(partial(path), path):
                partial(path).unlink()
                return
            had_checksum = checksums.drop(path)
            os.replace(partial(path), path)
        except BaseException:  # a full disk needs the room
            with suppress(OSError):
                partial(path).unlink()
            raise
    if had_checksum:
        checksums.claim_file(path)


def _have_same_content(new: Path, path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != new.stat().st_size:
        return False
    return checksums.sha256_of(path) == checksums.sha256_of(new)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder of a temporary name, which is renamed to `path` after the block, unless that raises: then it is removed."""
    temporary = partial(path)
    if temporary.is_dir():  # a pipe would be waited for
        shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()  # not a link
    try:
        yield temporary
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove(path: Path) -> None:
    """Remove a file, if it exists, and its entry in SHA256SUMS."""
    checksums.drop(path)
    path.unlink(missing_ok=True)


def write_atomic(path: Path, text: Iterable[str]) -> None:
    """Write `text` to a temporary name, flush it to disk, rename it to `path`."""
    with replacing(path, "w", encoding="utf-8", errors="replace") as file:
        file.writelines(text)


def write_json(path: Path, value: dict) -> None:
    write_atomic(path, [_dumps(value, indent=2) + "\n"])
