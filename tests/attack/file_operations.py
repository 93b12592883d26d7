"""Counts the file operations of this process below a folder, and at one of them fails as a disk, a signal or a kill would.

    PYTHONPATH=. python tests/attack/child.py --fault '{"root": "/tmp/x", "at": 12, "action": "EIO"}' datagen.py …

Operations of C++ and Rust writers (torch.save, safetensors) are not seen: kills at random moments are for these.
"""

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

# What can happen at an operation. ENOSPC lasts, as a full disk does, and leaves half of what was being written; EROFS lasts, as
# of a file system that is mounted read-only after an error.
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EROFS")
PURGES = (
    "lost",
    "gone",
)  # what a purge of a scratch folder, or a user, removes meanwhile: one file, or the output folder
KILLS = ("kill", "torn")  # before the operation; in the middle of a write
SIGNALS = ("SIGTERM", "SIGINT")
ACTIONS = (*KILLS, *SIGNALS, *ERRORS, *PURGES, "short")  # short: a write that takes half, without an error
_FAIL_WHEN_FULL = ("write", "create", "mkdir")
_LASTING = {
    "ENOSPC": _FAIL_WHEN_FULL,
    "EROFS": (*_FAIL_WHEN_FULL, "rename", "replace", "link", "symlink", "unlink", "remove", "rmdir", "truncate", "ftruncate"),
}  # fmt: skip
_real_open, _Raw = io.open, io.FileIO


def purge(folder: Path, number: int | None) -> None:
    """Remove a folder, or one of its files, in a process of its own: it is no operation of this one."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".lock"))
    if number is None:
        subprocess.run(["rm", "-rf", folder], check=True)
    elif files:
        subprocess.run(["rm", files[number % len(files)]], check=True)


class FileOperations:
    """The operations below `root` so far: (operation, path). The one numbered `at` suffers `action`."""

    def __init__(self, root: str, at: int = -1, action: str = "", scratch: str = "/tmp"):
        self.root, self.at, self.action = os.path.realpath(root) + "/", at, action
        self._scratch = (os.path.realpath(scratch) + "/", "/dev/shm/", "/proc/self/")
        self.seen: list[tuple[str, str]] = []
        self.outside: list[str] = []  # what would have been written elsewhere: it is not
        self._process, self._full = os.getpid(), False

    def path(self, file) -> str:
        if isinstance(file, int):
            try:
                return os.readlink(f"/proc/self/fd/{file}")
            except OSError:
                return ""
        path = os.path.abspath(os.fsdecode(file))
        return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))

    def __call__(self, operation: str, file) -> int | None:
        """Count one; None, or the share of a write that takes place. May raise, or not return at all."""
        path = self.path(file)
        if not f"{path}/".startswith(self.root):
            harmless = operation in ("open", "close") or path.startswith(self._scratch) or not path.startswith("/")
            if not harmless and not (path == "/dev/null" and operation in ("write", "create")):
                self.outside.append(f"{operation} {path}")
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return None
        if os.getpid() != self._process:
            return None
        self.seen.append((operation, path[len(self.root) :]))
        if self._full and operation in _LASTING[self.action]:
            number = getattr(errno, self.action)
            raise OSError(number, os.strerror(number), path)
        if len(self.seen) - 1 != self.at:
            return None
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.action in SIGNALS:
            os.kill(os.getpid(), getattr(signal, self.action))
        elif self.action in _LASTING:
            self._full = True
            if operation == "write" and self.action == "ENOSPC":
                return 2
            if operation in _LASTING[self.action]:
                number = getattr(errno, self.action)
                raise OSError(number, os.strerror(number), path)
        elif self.action in PURGES:
            purge(Path(self.root, "out"), None if self.action == "gone" else self.at)
        elif self.action in ERRORS:
            number = getattr(errno, self.action)
            raise OSError(number, os.strerror(number), path)
        elif self.action in ("short", "torn") and operation == "write":
            return 2
        elif self.action == "torn":
            os.kill(os.getpid(), signal.SIGKILL)
        return None

    def after_half(self) -> None:
        if self.action == "torn":
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """From here on, os and open() of this process are ours."""
        for name in ("rename", "replace", "link", "symlink"):
            self._wrap(name, name, 1)
        for name in ("unlink", "remove", "rmdir", "mkdir", "truncate", "ftruncate", "close"):
            self._wrap(name, name, 0)
        os.fsync = lambda descriptor: (
            self("fsync", descriptor) and None
        )  # a kill of a process loses nothing of the kernel's
        real_write, real_pwrite, real_open = os.write, os.pwrite, os.open

        def write(descriptor, data, *where):
            share = self("write", descriptor)
            data = memoryview(data)
            if share is not None and len(data) > 1:
                data = data[: len(data) // share]
            written = (real_pwrite if where else real_write)(descriptor, data, *where)
            if share is not None:
                self.after_half()
            return written

        def opened(path, flags, *args, **options):
            writes = flags & (os.O_WRONLY | os.O_RDWR)
            if options.get("dir_fd") is None:
                self("create" if writes and flags & os.O_CREAT else "open", path)
            return real_open(path, flags, *args, **options)

        os.write, os.pwrite, os.open = write, write, opened
        operations = self

        class Raw(io.FileIO):
            def write(self, data):
                share = operations("write", self.fileno())
                data = memoryview(data).cast("B")
                if share is not None and len(data) > 1:
                    data = data[: len(data) // share]
                written = super().write(data)
                if share is not None:
                    operations.after_half()
                return written

            def truncate(self, size=None):
                operations("truncate", self.fileno())
                return super().truncate(size)

            def close(self):
                try:
                    if not self.closed and self.closefd:
                        operations("close", self.fileno())
                finally:
                    super().close()

        def open_(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
            if not set(mode) & set("wax+"):
                if not isinstance(file, int):
                    operations("open", file)
                return _real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
            if not isinstance(file, int) and opener is None:
                operations("open" if "r" in mode else "create", file)
            raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
            if buffering == 0:
                return raw
            buffer = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
            if "b" in mode:
                return buffer
            text = io.TextIOWrapper(buffer, io.text_encoding(encoding), errors, newline, buffering == 1)
            text.mode = mode
            return text

        io.open = open_
        sys.modules["builtins"].open = open_
        shutil._USE_CP_SENDFILE = False  # copies go through write

    def _wrap(self, name: str, operation: str, position: int) -> None:
        real = getattr(os, name)

        def wrapped(*args, **options):
            if options.get("dir_fd") is None and not (name == "close" and not self._is_written(args[0])):
                self(operation, args[position])
            return real(*args, **options)

        setattr(os, name, wrapped)

    def _is_written(self, descriptor: int) -> bool:
        """Whether a descriptor is a file below the root: others are closed without further ado."""
        return self.path(descriptor).startswith(self.root)
