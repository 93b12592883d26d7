"""SHA256SUMS: what the files of a folder were when they were finished, in the format of `sha256sum -c`.

An entry is removed before its file changes (topxgen/common/files.py sees to it) and made again when the file is finished, so that
a killed run leaves files without an entry, but no wrong entry. Entries are never made anew for files that already have one: what
somebody else has changed stays visible (scripts/verify.py).
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

NAME = "SHA256SUMS"
KEY = "checksums"  # of manifests: the names of their files that have an entry; the manifest itself has one, too
_LINE = re.compile(r"(\\?)([0-9a-f]{64})  (.+)")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}


def parse(text: str) -> tuple[dict[str, str], list[tuple[int, str]]]:
    """(digest by file name, lines with their numbers that are no such entries)."""
    digests, others = {}, []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), start=1):
        match = _LINE.fullmatch(line)
        name = match and (_unescaped(match[3]) if match[1] else match[3])
        if name and name not in digests:
            digests[name] = match[2]
        else:
            others.append((number, line))
    return digests, others


def _unescaped(name: str) -> str:
    plain = {escaped: character for character, escaped in _ESCAPES.items()}
    return re.sub(r"\\[\\nr]", lambda match: plain[match[0]], name)


def _line(name: str, digest: str) -> str:
    escaped = "".join(_ESCAPES.get(character, character) for character in name)
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"


def _text(folder: Path) -> str:
    path = folder / NAME
    # A pipe in its place would be waited for.
    return path.read_bytes().decode("utf-8", "surrogateescape") if path.is_file() else ""


def read(folder: Path) -> dict[str, str]:
    """SHA-256 in hex by the names of files, relative to `folder`; {} if it has no SHA256SUMS."""
    return parse(_text(folder))[0]


def _lock(folder: Path):
    from topxgen.common.locks import wait_for_lock  # imports files, which imports this module

    return wait_for_lock(folder, NAME)


def drop(path: Path) -> bool:
    """Remove the entry of a file that is about to change or to be removed; whether it had one."""
    return drop_from(path.parent, [path.name])


def drop_from(folder: Path, names: Iterable[str]) -> bool:
    """The same for files in `folder` or below it that have their entries there."""
    names = set(names) - {NAME}  # which has no entry
    if names.isdisjoint(read(folder)):
        return False
    with _lock(folder):
        digests, others = parse(_text(folder))
        _write(folder, {name: digest for name, digest in digests.items() if name not in names}, others)
    return True


def claim(folder: Path, names: Iterable[str], known: Mapping[str, str] | None = None) -> None:
    """Add entries for those of `names`, paths relative to `folder`, that exist and have none.

    `known`: digests that need not be computed. Nothing is written if there is nothing to add.
    """
    known, entries = known or {}, read(folder)
    missing = [name for name in dict.fromkeys(names) if name not in entries and (folder / name).is_file()]
    digests = {name: known.get(name) or sha256_of(folder / name) for name in missing}
    if digests:
        with _lock(folder):
            entries, others = parse(_text(folder))
            _write(folder, entries | digests, others)


def claim_file(path: Path) -> None:
    """Add an entry for a file that was written as a whole."""
    claim(path.parent, [path.name])


def sha256_of(path: Path) -> str:
    """SHA-256 of the bytes of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_changed(path: Path) -> bool:
    """Whether a file is another one than its entry says; False without an entry."""
    entry = read(path.parent).get(path.name)
    return entry is not None and sha256_of(path) != entry


def existing(folder: Path, paths: Iterable[Path]) -> list[str]:
    """The names, relative to `folder`, of those of `paths` that exist, sorted: for KEY of a manifest."""
    return sorted({path.relative_to(folder).as_posix() for path in paths if path.is_file()})


def _write(folder: Path, digests: Mapping[str, str], others: Iterable[tuple[int, str]]) -> None:
    from topxgen.common.files import replacing  # imports this module

    lines = [line + "\n" for _, line in others] + [_line(name, digests[name]) for name in sorted(digests)]
    with replacing(folder / NAME, "wb") as file:
        file.write("".join(lines).encode("utf-8", "surrogateescape"))
