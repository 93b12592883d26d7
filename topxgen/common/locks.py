"""One process at a time in a directory, or in one part of it: a POSIX record lock, or a file with a heartbeat where there are none."""

import errno
import fcntl
import json
import logging
import os
import re
import signal
import socket
import stat
import struct
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Required

import msgspec

from topxgen.common.errors import UsageError
from topxgen.common.provenance import command_line
from topxgen.common.schemas import decode, fields

logger = logging.getLogger(__name__)

LOCK_FILE, HEARTBEAT_FILE = ".lock", ".lock.heartbeat"
RETRY_S, LOG_WAITING_AFTER_S = 0.2, 2.0
HEARTBEAT_S, SETTLE_S = 10.0, 0.5
STALE_AFTER_S = 60.0  # without a heartbeat: its process was killed, or its machine is gone
_FLOCK = "@hhqqi0q"  # struct flock of Linux with 64 bits: type, whence, start, length, process
_NO_RECORD_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


class DirectoryLocked(UsageError):
    """Another process is using the directory."""


class OutputLock:
    """Holds `directory` for this process until it is released or the process ends, however it ends.

    With `part`, a language say, it holds only what belongs to that part: processes with different parts work side by side,
    and take the lock of the whole directory (`wait_for_lock`) for the moments in which they write files that they share.

    A POSIX record lock: the kernel drops it when the process dies, and forked engine processes do not inherit it. It also
    drops it when any descriptor of the file is closed, so that a process opens the file once: further OutputLocks of the
    same directory share it. On file systems without record locks (some Lustre and NFS mounts) a file with this process's
    name is kept fresh instead, and is stale after STALE_AFTER_S without a heartbeat.

    `note`: what the run is up to, for those who look at it (`holders`), such as how many sentences it is going to translate.

    Raises DirectoryLocked, naming the owner, if another process holds the directory, and UsageError if it is not writable.
    """

    _held: dict[tuple, "_Held"] = {}  # noqa: RUF012 (one table per process, by device, inode and part)

    def __init__(
        self,
        directory: Path,
        part: str | None = None,
        flag: str = "--output_dir",
        note: Mapping[str, Any] | None = None,
    ):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            status = directory.stat()
            self._key = status.st_dev, status.st_ino, part
            held = self._held.get(self._key)
            if held is None or held.process != os.getpid():
                held = self._held[self._key] = _Held(directory, part, note or {})
        except OSError as error:
            if error.errno == errno.ELOOP and error.filename:
                raise UsageError(f"{error.filename} is a symbolic link, which is not followed; remove it") from None
            raise UsageError(
                f"cannot write to the output directory {directory}: {error.strerror}; pass another {flag}"
            ) from None
        held.users += 1
        self._released = False

    def release(self) -> None:
        if self._released:
            return
        self._released = True
        held = self._held.get(self._key)
        if held is not None:
            held.users -= 1
            if not held.users:
                del self._held[self._key]
                held.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()


def no_record_locks(error: OSError) -> bool:
    """Whether a lock failed because the file system has no record locks."""
    return error.errno in _NO_RECORD_LOCKS


def wait_for_lock(directory: Path, part: str | None = None, flag: str = "--output_dir") -> OutputLock:
    """The lock of a directory or a part of it, once the process that holds it releases it."""
    logged, began = False, time.monotonic()
    while True:
        try:
            return OutputLock(directory, part, flag)
        except DirectoryLocked as error:
            if not logged and time.monotonic() - began > LOG_WAITING_AFTER_S:
                logger.info(f"{error}: waiting")
                logged = True
            time.sleep(RETRY_S)


class _Held:
    """What keeps other processes out of a directory, or of a part of it."""

    def __init__(self, directory: Path, part: str | None, note: Mapping[str, Any]):
        self.process, self.users = os.getpid(), 0
        self._note = {"command": command_line(("--api_key",)), **note}
        self._heartbeat: _Heartbeat | None = None
        self._path = directory / (LOCK_FILE if part is None else f"{LOCK_FILE}-{part}")
        what = f"{part} in {directory}" if part else str(directory)
        while not self._lock(directory, what):
            pass

    def _lock(self, directory: Path, what: str) -> bool:
        """Lock the file; False if its owner removed it meanwhile."""
        # Never through a symbolic link: it would be truncated wherever it points.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o644)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(self._descriptor)
            raise UsageError(f"{self._path} is a pipe, a device or another name of a file (a hard link); remove it")
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._descriptor, 4096, 0).decode(errors="replace").partition("\n")[0].strip()
            os.close(self._descriptor)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise _in_use(what, owner or "an unknown process") from None
            if not no_record_locks(error):
                raise
            self._descriptor = None
            self._heartbeat = _Heartbeat(self._path.with_name(f"{self._path.name}.heartbeat"), what, self._note)
            return True
        try:
            removed = not os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            removed = True
        if removed:
            os.close(self._descriptor)
            return False
        os.ftruncate(self._descriptor, 0)
        owner = f"process {os.getpid()} on {socket.gethostname()}\n{json.dumps(self._note, default=str)}\n"
        os.pwrite(self._descriptor, owner.encode(), 0)
        return True

    def close(self) -> None:
        if self.process == os.getpid():  # not in a forked child
            self._path.unlink(missing_ok=True)  # while it is locked: whoever has opened it sees that it is gone
        if self._descriptor is not None:
            os.close(self._descriptor)
        if self._heartbeat is not None:
            self._heartbeat.stop()


# What a run records about itself in its lock; a note that does not fit is ignored.
Note = fields(
    command=list[str], stages=list[str], translate_dir=str | None, paragraphs=int | None, paragraphs_of_all=int | None,
    steps=int | None, sentences=int | None, prices=list[float] | None,
)  # fmt: skip
_Owner = fields(
    host=Required[str],
    process=Required[Annotated[int, msgspec.Meta(gt=0, lt=1 << 31)]],
    token=Required[str],
    note=dict[str, Any],
)


class _Heartbeat:
    """A lock file that its owner touches every HEARTBEAT_S, for file systems without record locks."""

    def __init__(self, path: Path, what: str, note: Mapping[str, Any]):
        self._path, self._what, self._note = path, what, note
        self._token = f"{socket.gethostname()} {os.getpid()} {time.time_ns()}"
        if not self._create():
            if (owner := _owner(path)) is None:  # damaged, or being written
                time.sleep(SETTLE_S)
                owner = _owner(path)
            if owner is not None and not (_is_stale(path, owner) and _is_still(path, owner)):
                raise self._in_use(owner)
            self._take_over(owner)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock heartbeat", daemon=True)
        self._thread.start()

    def _in_use(self, owner: _Owner | None) -> DirectoryLocked:
        return _in_use(self._what, f"process {owner['process']} on {owner['host']}" if owner else "another process")

    def _create(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            owner = {"host": socket.gethostname(), "process": os.getpid(), "token": self._token}
            json.dump({**owner, "note": self._note}, file, default=str)
        return True

    def _is_ours(self) -> bool:
        owner = _owner(self._path)
        return owner is not None and owner["token"] == self._token

    def _take_over(self, stale: _Owner | None) -> None:
        """Of several processes that find it stale one gets it."""
        aside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with suppress(FileNotFoundError):
            os.rename(self._path, aside)
            is_new = _owner(aside) != stale  # another process was faster: it gets its own back
            if is_new:
                with suppress(OSError):
                    os.link(aside, self._path)
            os.unlink(aside)
            if is_new:
                raise self._in_use(None)
        if self._create():
            time.sleep(SETTLE_S)  # until those that found it stale, too, have done the above
        if not self._is_ours():
            raise self._in_use(_owner(self._path))

    def _beat(self) -> None:
        while not self._stopped.wait(HEARTBEAT_S):
            with suppress(OSError):
                if (owner := _owner(self._path)) is None:  # removed, or the file system is away
                    self._create()
                elif (
                    owner["token"] != self._token
                ):  # this process did nothing for a while: a scheduler had stopped it, say
                    logger.error(f"{self._in_use(owner)}: this run had left it for more than {STALE_AFTER_S:.0f} s")
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
                else:
                    os.utime(self._path)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(HEARTBEAT_S)
        if self._is_ours():
            self._path.unlink(missing_ok=True)


def _owner(heartbeat: Path) -> _Owner | None:
    try:
        descriptor = os.open(heartbeat, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)  # as in _asked
    except OSError:
        return None
    try:
        return decode(os.read(descriptor, 1 << 20), _Owner)
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)


def _is_stale(heartbeat: Path, owner: _Owner) -> bool:
    return _is_gone(owner) or _age(heartbeat) > STALE_AFTER_S


def _is_gone(owner: _Owner) -> bool:
    """Whether the owner was a process of this machine."""
    if owner["host"] == socket.gethostname():
        try:
            os.kill(owner["process"], 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
    return False


def _age(heartbeat: Path) -> float:
    """By this machine's clock; one from the future is as old as it is early."""
    return abs(time.time() - (_time_of(heartbeat) or 0) / 1e9)


def _is_still(heartbeat: Path, owner: _Owner) -> bool:
    """Whether an old heartbeat stays as it is, however the clocks of two machines differ or were set."""
    before, end = _time_of(heartbeat), time.monotonic() + 2.5 * HEARTBEAT_S
    if not _is_gone(owner):
        logger.info(f"{heartbeat} of process {owner['process']} on {owner['host']} looks old: is it touched again?")
    while not _is_gone(owner) and time.monotonic() < end:
        if _time_of(heartbeat) != before:
            return False
        time.sleep(HEARTBEAT_S / 10)
    return True


def _time_of(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


class Holder(NamedTuple):
    """A lock file. `state`: `left` by a process that was killed, or `unknown`: one of another machine, whose locks this file
    system may not show."""

    path: Path
    part: str | None
    state: Literal["held", "left", "unknown"]
    process: int | None
    host: str
    since: float  # time.time() when it was taken
    note: dict[str, Any]  # `command`, and what the run says


def holders(directory: Path) -> list[Holder]:
    """The lock files in a directory, sorted. Nothing is taken, written or released: record locks are only asked for."""
    try:
        names = sorted(name for name in os.listdir(directory) if re.fullmatch(rf"{re.escape(LOCK_FILE)}(-.+)?", name))
    except OSError:
        return []
    names = [name for name in names if not re.search(r"\.heartbeat(\.\d+)?$", name)]
    return [found for name in names if (found := _holder(directory, name)) is not None]


def _holder(directory: Path, name: str) -> Holder | None:
    path, heartbeat = directory / name, directory / f"{name}.heartbeat"
    part = name[len(LOCK_FILE) + 1 :] or None
    try:
        if (owner := _owner(heartbeat)) is not None:
            state = "left" if _is_stale(heartbeat, owner) else "held"
            since = path.stat().st_mtime  # empty, and written once
            return Holder(path, part, state, owner["process"], owner["host"], since, owner.get("note", {}))
        status = directory.stat()
        held = OutputLock._held.get((status.st_dev, status.st_ino, part))
        if held is not None and held.process == os.getpid():  # closing its file would release it
            return Holder(path, part, "held", os.getpid(), socket.gethostname(), path.stat().st_mtime, held._note)
        return _asked(path, part)
    except OSError:  # released meanwhile, or not ours to read
        return None


def _asked(path: Path, part: str | None) -> Holder:
    """Who holds a lock file, by the kernel; by what the file says, if it is not locked."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not stop it
    try:
        text = os.pread(descriptor, 1 << 20, 0).decode(errors="replace")
        since = os.fstat(descriptor).st_mtime
        question = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        try:
            kind, *_, process = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
        except OSError:  # no record locks here
            kind, process = fcntl.F_UNLCK, 0
    finally:
        os.close(descriptor)
    first, _, second = text.partition("\n")
    named = re.fullmatch(r"process (\d+) on (.+)", first.strip())
    host = named[2] if named else ""
    try:
        note = decode(second.encode(), Note) if second.strip() else {}
    except ValueError:
        note = {}
    state = "held" if kind != fcntl.F_UNLCK else "unknown" if host not in ("", socket.gethostname()) else "left"
    return Holder(path, part, state, int(named[1]) if named else process or None, host, since, note)


def _in_use(what: str, owner: str) -> DirectoryLocked:
    return DirectoryLocked(f"{what} is in use by {owner}; wait for it, stop it, or pass another directory")
