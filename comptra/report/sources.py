"""Which files a page was made from, with their SHA-256: whoever has both can check that they still fit."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from topxgen.common.checksums import sha256_of

_watchers: list["Sources"] = []


class Sources:
    """The files below some folders that were opened for reading while it watched, however a library opened them."""

    def __init__(self, roots: Sequence[Path]):
        self.roots = [root.resolve() for root in roots]
        self._seen: dict[Path, tuple[int, int] | None] = {}  # size and time of change when first opened

    def opened(self, path: str) -> None:
        name = Path(os.path.abspath(path))
        if name in self._seen or not any(map(name.is_relative_to, self.roots)):
            return
        if name.is_file() and os.access(name, os.R_OK):  # the hook comes before the opening, which may fail
            self._seen[name] = _state(name)

    def listing(self) -> list[dict]:
        """Per file `path` (from the first folder, whole if it is not below that), `size` and `sha256`; null, and `changed`, of one
        that changed while it was read.

        Raises OSError for a file that is there and cannot be read again.
        """
        files = []
        for path, before in sorted(self._seen.items()):
            try:
                sha256 = sha256_of(path)
            except FileNotFoundError:
                sha256 = None
            first = self.roots[0]
            name = (path.relative_to(first) if path.is_relative_to(first) else path).as_posix()
            is_same = sha256 is not None and _state(path) == before
            files.append(
                {"path": name, "size": before and before[0], "sha256": sha256 if is_same else None}
                | ({} if is_same else {"changed": True})
            )
        return files


@contextmanager
def watching(*roots: Path) -> Iterator[Sources]:
    """Note the files that the block opens. Python calls the hook for every open, so no reader has to report its files."""
    if not _hook.installed:
        sys.addaudithook(_hook)  # it cannot be removed
        _hook.installed = True
    sources = Sources(roots)
    _watchers.append(sources)
    try:
        yield sources
    finally:
        _watchers.remove(sources)


def _hook(event: str, args: tuple) -> None:
    if event == "open" and _watchers and isinstance(args[0], str | os.PathLike):
        path, _, flags = args
        if not flags & (os.O_WRONLY | os.O_RDWR):
            for watcher in _watchers:
                watcher.opened(os.fspath(path))


_hook.installed = False


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
