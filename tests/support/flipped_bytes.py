"""One random byte after another of the files of a run is changed: scripts/verify.py finds each, or says why nothing claims the file."""

import random
import re
from pathlib import Path

from comptra import verify

QUICK = verify.Options(with_scores=False)


def kinds(run: Path) -> dict[str, list[Path]]:
    """The files that have a byte, by their kind."""
    found: dict[str, list[Path]] = {}
    for path in sorted(path for path in run.rglob("*") if path.is_file() and path.stat().st_size):
        kind = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "{uuid}", path.name.replace("Basque", "{Language}"))
        found.setdefault(kind, []).append(path)
    return found


def is_found(run: Path, path: Path, rng: random.Random) -> bool:
    """Whether a changed byte is found; else the file is one of those that nothing claims, and why is known."""
    before = path.read_bytes()
    data = bytearray(before)
    place = rng.randrange(len(data))
    data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    audit = verify.verify(run, QUICK)
    path.write_bytes(before)
    free = verify.unclaimed(audit).get(str(path))
    assert bool(audit.problems) != bool(free), f"{path}, byte {place}: {free!r}, {audit.problems}"
    return free is None


def flip_each(run: Path, seed: int, only: str = "*") -> set[str]:
    """A byte of a file of each kind; the kinds of which it was found. `only`: the names of the files."""
    rng = random.Random(seed)
    chosen = {kind: [path for path in paths if path.match(only)] for kind, paths in kinds(run).items()}
    found = {kind for kind, paths in chosen.items() if paths and is_found(run, rng.choice(paths), rng)}
    assert not verify.verify(run, QUICK).problems
    return found
