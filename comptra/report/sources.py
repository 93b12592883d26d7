"""Which files a page was made from, with their SHA-256: whoever has both can check that they still fit."""

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_watchers: list["Sources"] = []


class Sources:
    """The files below `root` that were opened for reading while it watched, however a library opened them."""

    def __init__(self, root: Path):
        self._root = root.resolve()
        self._seen: dict[Path, tuple[int, int] | None] = {}  # size and time of change when first opened

    def opened(self, path: str) -> None:
        name = Path(os.path.abspath(path))
        if name not in self._seen and name.is_relative_to(self._root) and name.is_file():
            self._seen[name] = _state(name)

    def listing(self) -> list[dict]:
        """Per file `path` (from the root), `size` and `sha256`; null, and `changed`, of one that changed while it was read."""
        files = []
        for path, before in sorted(self._seen.items()):
            try:
                with open(path, "rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:
                sha256 = None
            changed = sha256 is None or _state(path) != before
            entry = {"path": path.relative_to(self._root).as_posix(), "size": before and before[0]}
            files.append(entry | ({"sha256": None, "changed": True} if changed else {"sha256": sha256}))
        return files


@contextmanager
def watching(root: Path) -> Iterator[Sources]:
    """Note the files that the block opens. Python calls the hook for every open, so no reader has to report its files."""
    if not _hook.installed:
        sys.addaudithook(_hook)  # it cannot be removed
        _hook.installed = True
    sources = Sources(root)
    _watchers.append(sources)
    try:
        yield sources
    finally:
        _watchers.remove(sources)


def _hook(event: str, args: tuple) -> None:
    if event == "open" and _watchers and isinstance(args[0], str | os.PathLike):
        path, mode, flags = args
        if not (mode or "").strip("rbtU") and not flags & (os.O_WRONLY | os.O_RDWR):
            for watcher in _watchers:
                watcher.opened(os.fspath(path))


_hook.installed = False


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
