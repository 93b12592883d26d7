"""Whether the files of a run are what manifests, checksums, reports and cards claim (scripts/verify.py). A kind of claim is a row of
CHECKS: a function that is called for each folder with the names of its files, and tells an Audit what it finds."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from topxgen.common import checksums, locks
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json
from topxgen.common.registry import Choice

T = TypeVar("T")

CHECKS = {
    "checksums": Choice("comptra.verify.sums:check", "files against SHA256SUMS, and manifests against that"),
    "checkpoints": Choice("comptra.verify.training:check_checkpoint", "files of a checkpoint against its list"),
    "training": Choice("comptra.verify.training:check", "steps, best checkpoint, weights, data, tables of model cards"),
    "generation": Choice("comptra.verify.generation:check", "counts of the stages of datagen.py; vectors"),
    "decontamination": Choice("comptra.verify.decontamination:check", "digests, counts, the report, benchmarks"),
    "translations": Choice("comptra.verify.translations:check", "counts and test sets of runs of main.py"),
    "evaluations": Choice(
        "comptra.verify.evaluations:check", "scores of comptra.evaluate: JSON, CSV, tables, segments"
    ),
    "derived": Choice(
        "comptra.verify.derived:check", "scores in model cards and records of Every Eval Ever, by the reports"
    ),
    "statistics": Choice("comptra.verify.statistics:check", "figures and tables of scripts/data_stats.py"),
    "comparisons": Choice("comptra.verify.comparisons:check", "scores and tables of scripts/compare.py, rounds"),
    "records": Choice("comptra.verify.records:check", "inputs and outputs of the stages of a run file"),
    "pages": Choice("comptra.verify.pages:check", "the files that a page was made from"),
    "published": Choice("comptra.verify.published:check", "sizes of splits; TMX and Moses by the parquet files"),
}
# Files that change after a stage is finished, or may be removed at any time: why nothing claims them.
UNCLAIMED = {
    ".lock*": "a lock",
    ".running": "a lock",
    "engine.log": "messages of the engine, which grow with every run",
    "shard_*.json": "with which command a shard works",
    "rates.json": "speed of the last run",
    "*.partial": "half a file, which a killed run has left",
    "*.torn": "half a line, which a killed run has left",
    "events.out.tfevents.*": "TensorBoard's log",
    "last.json": "a cache",
    "shards/merged_*.json": "which states of the shards were merged last",
    "run/failed/*.json": "how a stage failed, until its next start",
}


@dataclass(frozen=True)
class Problem:
    """Something that does not hold: `what` of `file` is `claimed`, and was `found` to be something else."""

    file: str
    what: str
    claimed: Any = None
    found: Any = None

    def __str__(self) -> str:
        if self.claimed is None and self.found is None:
            return f"{self.file}: {self.what}"
        return f"{self.file}: {self.what}: claimed {_short(self.claimed)}, is {_short(self.found)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


@dataclass(frozen=True)
class Options:
    """`benchmark_dir`: local copies of benchmarks; `languages_file`: as elsewhere; `with_scores`: recompute scores, too."""

    benchmark_dir: Path | None = None
    languages_file: str | None = None
    with_scores: bool = True


@dataclass
class Audit:
    """What was found. Bytes are read once: `sha256` is kept for the other claims of the same file."""

    root: Path
    options: Options = Options()
    problems: list[Problem] = field(default_factory=list)
    unchecked: dict[str, list[str]] = field(default_factory=dict)  # reasons by file
    running: list[str] = field(default_factory=list)
    claimed: set[Path] = field(default_factory=set)
    checked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("files", "bytes", "counts", "scores"), 0))
    folders: dict[Path, set[str]] = field(default_factory=dict)
    reports: dict[Path, dict] = field(default_factory=dict)  # of comptra.evaluate, for what is made from them
    _digests: dict[Path, str | None] = field(default_factory=dict)

    def problem(self, path: Path, what: str, claimed: Any = None, found: Any = None) -> None:
        one = Problem(str(path), what, claimed, found)
        if one not in self.problems:
            self.problems.append(one)

    def skip(self, path: Path, why: str) -> None:
        """Name what was not checked."""
        reasons = self.unchecked.setdefault(str(path), [])
        if why not in reasons:
            reasons.append(why)

    def claim(self, *paths: Path) -> None:
        """Something else claims the bytes of these files."""
        self.claimed.update(map(_absolute, paths))

    def sha256(self, path: Path) -> str | None:
        """Of the bytes that are there now; None if there is no such file."""
        key = _absolute(path)
        if key not in self._digests:
            self._digests[key] = self._read(path)
        return self._digests[key]

    def _read(self, path: Path) -> str | None:
        if not path.is_file():  # to open a pipe could wait for ever
            return None
        try:
            size, digest = path.stat().st_size, checksums.sha256_of(path)
        except OSError:
            return None
        self.checked["files"] += 1
        self.checked["bytes"] += size
        return digest

    def sha256_of_all(self, paths: Iterable[Path]) -> None:
        """Read several files at once, for those who ask for them afterwards."""
        with ThreadPoolExecutor(4) as pool:  # hashlib lets other threads run
            list(pool.map(self.sha256, paths))

    def forget(self, path: Path) -> None:
        self._digests.pop(_absolute(path), None)

    def equal(self, path: Path, what: str, claimed: Any, found: Any, kind: str = "counts") -> bool:
        """Compare a claim of `path` with what was recomputed; of mappings, each key that is claimed."""
        if isinstance(claimed, Mapping) and isinstance(found, Mapping):
            same = [self.equal(path, f"{what}.{key}", claimed[key], found.get(key), kind) for key in claimed]
            return all(same)
        self.checked[kind] += 1
        if claimed != found:
            self.problem(path, what, claimed, found)
        return claimed == found

    def attempt(self, path: Path, make: Callable[..., T], *args, why: str = "") -> T | None:
        """What `make(*args)` gives; None, and a problem of `path`, or with `why` a line on what was not checked, if it raises UsageError."""
        try:
            return make(*args)
        except (UsageError, OSError) as error:
            if why:
                self.skip(path, f"{why}: {error}")
            else:
                self.problem(path, f"cannot be read: {str(error).removeprefix(f'{path}: ')}")
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            self.problem(path, f"has not the form of such a file ({type(error).__name__}: {error})")
        return None

    def json(self, path: Path) -> dict:
        """The JSON object in a file; {} and a problem if it has none."""
        return self.attempt(path, read_json, path, dict) or {}

    def locate(self, named: str, by: Path) -> Path | None:
        """Where the file or folder is that `by`, a file, names: folders may have been moved or copied since. The longest end of its
        path that is there counts, seen from the root or from a folder between it and `by`; else the path itself."""
        if Path(named).exists() and _absolute(self.root) in _absolute(Path(named)).parents:
            return Path(named)
        parts = [part for part in Path(named).parts if part not in ("/", ".", "..")]
        above = [*reversed(by.parent.parents), by.parent]
        inside = [folder for folder in above if folder == self.root or self.root in folder.parents]
        for i in range(len(parts)):
            for folder in inside:
                if (path := folder.joinpath(*parts[i:])).exists():
                    return path
        return Path(named) if Path(named).exists() else None


def beginning(path: Path, count: int = 100) -> bytes:
    """The first bytes of a file; none if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except OSError:
        return b""


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def verify(root: Path, options: Options | None = None) -> Audit:
    """Check all claims of the files below `root`. Nothing is written. Raises UsageError if `root` is not a folder."""
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder; pass the output directory of a run")
    audit = Audit(root, options or Options())
    audit.folders = dict(_walk(root, audit))
    for folder in audit.folders:
        for holder in locks.holders(folder):
            if holder.state != "left" and holder.part != checksums.NAME:
                what = f"{holder.part} in {folder}" if holder.part else str(folder)
                unsure = "" if holder.state == "held" else " (or was killed: locks of other machines are not seen here)"
                audit.running.append(f"{what} is written by process {holder.process} on {holder.host} now{unsure}")
    for check in [choice.load() for choice in CHECKS.values()]:
        for folder, names in audit.folders.items():
            check(audit, folder, names)
    return audit


def _walk(root: Path, audit: Audit) -> Iterator[tuple[Path, set[str]]]:
    def cannot_read(error: OSError) -> None:
        audit.problem(Path(error.filename), f"cannot be read: {error.strerror}")

    for name, folders, files in os.walk(root, onerror=cannot_read):
        folder = Path(name)
        for link in [one for one in folders if (folder / one).is_symlink()]:
            audit.skip(folder / link, "a link to a folder, which is not followed")
        folders[:] = sorted(set(folders) - {".git"})
        pipes = {one for one in files if (folder / one).exists() and not (folder / one).is_file()}
        for one in pipes:  # to open one could wait for ever
            audit.skip(folder / one, "a pipe, socket or device, which is not read")
        yield folder, set(files) - pipes


def unclaimed(audit: Audit) -> dict[str, str]:
    """The files that nothing claims, each with the reason, "" if there is none."""
    found = {}
    for folder, names in audit.folders.items():
        for name in sorted(names - {checksums.NAME}):
            if _absolute(folder / name) not in audit.claimed:
                found[str(folder / name)] = why_unclaimed(folder / name)
    return found


def why_unclaimed(path: Path) -> str:
    """Why nothing claims a file of that path; "" if it should be claimed."""
    return next((why for pattern, why in UNCLAIMED.items() if path.match(pattern)), "")


def as_json(audit: Audit) -> dict:
    """The result for programs."""
    return {
        "root": str(audit.root),
        "holds": not audit.problems,
        "checked": audit.checked,
        "problems": [asdict(problem) for problem in audit.problems],
        "not_checked": audit.unchecked,
        "unclaimed": unclaimed(audit),
        "running": audit.running,
    }
