"""What may lie where a stage writes: another file's name, a pipe. The file stays as it is, and nothing is waited for."""

from collections.abc import Iterator
from pathlib import Path

from tests.attack.faults import Undisturbed
from tests.attack.hostile import KINDS
from tests.attack.shooting_range import Outcome, Range

PRECIOUS = "in/thesis.jsonl"
_TEXT = b'{"text": "do not lose me"}\n'


def _link(path: Path, precious: Path) -> None:
    path.symlink_to(precious)


PUT = {
    "a symbolic link": _link,
    "a hard link": lambda path, precious: path.hardlink_to(precious),
    "a link to a folder": lambda path, precious: path.symlink_to(precious.parent),
    "a pipe": lambda path, precious: KINDS["a FIFO"](path),
}


def attacks(stage: Undisturbed) -> Iterator[tuple[str, tuple[str, str]]]:
    """Temporary files, locks, and files that are written as a whole. Whoever links a file of records means it to be there."""
    written = dict.fromkeys(path for operation, path in stage.outcome.seen if operation == "create")
    for path in written:
        if path.startswith("out/") and not path.endswith(" (deleted)"):
            for what in PUT:
                yield f"{what} as {path}", (path, what)


def attack(place: Range, stage: Undisturbed, command: tuple[str, ...], path: str, what: str) -> list[Outcome]:
    folder = place.new_folder(stage.ready)
    precious, at = folder / PRECIOUS, folder / path
    precious.write_bytes(_TEXT)
    others = sorted(precious.parent.iterdir())
    at.parent.mkdir(parents=True, exist_ok=True)
    if at.is_dir():
        return []
    at.unlink(missing_ok=True)
    PUT[what](at, precious)
    outcome = place.run(folder, command, expect=(0, 2, 3, 4))
    now = precious.read_bytes()
    appends = path.endswith((".jsonl", ".log")) and now.startswith(_TEXT)
    if not (now == _TEXT or appends) or sorted(precious.parent.iterdir()) != others:
        outcome.problems.append("an input was changed")
    return [outcome] if outcome.problems else []
