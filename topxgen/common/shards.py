"""Shards: a run split over processes that need not know of each other (--num_shards, --shard_index).

Each is an ordinary run in a folder of its own, OUTPUT_DIR/shards/0003-of-0016/ (shards count from 0), and takes its part of what
one run would do: prompts, blocks, lines and sentences by their numbers. scripts/merge.py makes one run of them.
"""

import argparse
import logging
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypedDict

from topxgen.common import checksums
from topxgen.common.console import ONCE
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, write_json
from topxgen.common.locks import wait_for_lock
from topxgen.common.provenance import command_line
from topxgen.common.schemas import fields

logger = logging.getLogger(__name__)
FOLDER = "shards"
SETTING = "shard"  # in the settings of a shard, besides those of the one run
SLURM = "slurm"
AUDIT = "audit"  # the stage, and in a shard the folder, of decontamination.py --audit, of which the whole directory has a report alone
MAX_SHARDS = 9999
_NAME = re.compile(r"(\d{4})-of-(\d{4})")
_Manifest = fields(checksums=list[str])
_NOTE_NAME = re.compile(r"shard_([a-z]+)_(.+)\.json")


@dataclass(frozen=True)
class Shard:
    """The `index`-th of `count`, from 0."""

    index: int
    count: int

    def takes(self, number: int) -> bool:
        """Whether what has this number, of a prompt or row or sentence, is this shard's."""
        return number % self.count == self.index

    def share(self, total: int) -> int:
        """Its part of a number that all shards have to reach together, rounded up."""
        return -(-total // self.count)

    def bounds(self, size: int) -> tuple[int, int]:
        """Where its part of `size` consecutive things begins and ends."""
        return size * self.index // self.count, size * (self.index + 1) // self.count

    @property
    def name(self) -> str:
        return f"{self.index:04d}-of-{self.count:04d}"

    def folder(self, output_dir: Path) -> Path:
        return output_dir / FOLDER / self.name

    @classmethod
    def of_folder(cls, folder: Path) -> "Shard | None":
        """The shard of a folder by its name; None for another folder."""
        match = _NAME.fullmatch(folder.name)
        index, count = map(int, match.groups()) if match else (0, 0)
        return cls(index, count) if index < count and folder.parent.name == FOLDER else None


def chosen(args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Shard | None:
    """The shard of a command line; None without --num_shards, also in a SLURM array, which may be one over languages.

    Raises UsageError for numbers that fit neither each other nor the array.
    """
    if args.num_shards is None:
        if args.shard_index is not None:
            raise UsageError(f"--shard_index {args.shard_index} needs --num_shards: how many shards there are")
        return None
    tasks = _number(environ, "SLURM_ARRAY_TASK_COUNT")
    count = tasks if args.num_shards == SLURM else args.num_shards
    if count is None:
        raise UsageError("--num_shards slurm is for a SLURM array (SLURM_ARRAY_TASK_COUNT is not set); pass a number")
    index = args.shard_index
    if index is None:
        index = _index_in_array(environ, count)
    if not 0 <= index < count:
        raise UsageError(f"--shard_index {index}: shards are numbered from 0 to {count - 1} (--num_shards {count})")
    return Shard(index, count)


def _index_in_array(environ: Mapping[str, str], count: int) -> int:
    """A task's place in an array of `count` tasks. One of other tasks, as of those that are run again, would be another shard's."""
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT")
    task, first, last, tasks = (_number(environ, name) for name in names)
    if task is None:
        raise UsageError(f"--num_shards {count} needs --shard_index: which shard this is, from 0 to {count - 1}")
    first = task if first is None else first
    steps = (last - first) // (count - 1) if last is not None and count > 1 else 1
    if tasks != count or (last is not None and first + steps * (count - 1) != last) or (task - first) % steps:
        raise UsageError(
            f"the tasks of this SLURM array are not {count} at equal distances, so that a task's number does not determine its shard: pass "
            "--num_shards as a number, and --shard_index"
        )
    return (task - first) // steps


def _number(environ: Mapping[str, str], name: str) -> int | None:
    value = environ.get(name, "")
    return int(value) if value.isdecimal() else None


class Note(TypedDict):
    """shard_{stage}_{part}.json in a shard's folder: with which command a shard works on a stage, from its start on."""

    script: str
    shard: str
    started: str
    command: list[str]


class Noted(NamedTuple):
    """A shard with a note: its folder, and the folder in it that has the note and the stage's files."""

    shard: Shard
    root: Path
    folder: Path
    note: Note


class Work(NamedTuple):
    """A stage of a part, such as a language, in all shards that have worked on it, sorted by number of shards, then by index."""

    script: str
    folder: Path  # of the stage's files, from a shard's folder or the whole directory
    stage: str
    part: str
    noted: tuple[Noted, ...]

    @property
    def newest(self) -> Noted:
        """The shard whose command is the latest: its number of shards is the one that counts."""
        return max(self.noted, key=lambda one: (one.note["started"], one.shard.count, one.shard.index))

    def split(self) -> list[tuple[Shard, Noted | None]]:
        """All shards of the newest split; None for those that have not begun."""
        count = self.newest.shard.count
        known = {one.shard: one for one in self.noted}
        return [(shard, known.get(shard)) for shard in (Shard(i, count) for i in range(count))]

    def warn_of_unfinished(self, is_finished: Callable[[Noted], bool]) -> int:
        """How many shards of the newest split have not begun or not finished; of each the command that finishes it is logged."""
        unfinished, newest = 0, self.newest.note
        for shard, one in self.split():
            if one is not None and is_finished(one):
                continue
            state = "is missing" if one is None else "is not finished"
            command = shlex.join(["python", f"{self.script}.py", *with_shard(newest["command"], shard)])
            what = f"{self.stage} of {self.part}" if self.part != self.script else self.folder
            logger.warning(f"shard {shard.name} {state} ({what}): {command}", extra=ONCE)
            unfinished += 1
        return unfinished


def works(output_dir: Path) -> list[Work]:
    """What the shards of a directory have worked on. Raises UsageError for a folder that is the copy of another shard."""
    found: dict[tuple, list[Noted]] = {}
    for shard, root in folders(output_dir):
        for path in sorted(root.rglob("shard_*_*.json")):
            if (match := _NOTE_NAME.fullmatch(path.name)) is None:
                continue
            note = read_json(path, Note, "remove it; the shard writes it when it is run again")
            if note["shard"] != shard.name:
                raise UsageError(
                    f"{root} is a copy of shard {note['shard']} ({path.name}); remove it, or rename it to that"
                )
            key = (note["script"], path.parent.relative_to(root), *match.groups())
            found.setdefault(key, []).append(Noted(shard, root, path.parent, note))
    return [Work(*key, tuple(noted)) for key, noted in sorted(found.items())]


def check_files(noted: Iterable[Noted]) -> None:
    """Raise UsageError for a file that is not as its shard has left it, such as one that was cut off while it was copied."""
    for folder, root, script in sorted({(one.folder, one.root, one.note["script"]) for one in noted}):
        digests, sums = checksums.read(folder), folder / checksums.NAME
        finished = "manifest_*.json" if script == "main" else "manifest_*_*.json"  # of a run, or of a language
        for path in sorted(folder.glob(finished)):
            names = [name for name in read_json(path, _Manifest).get(checksums.KEY) or () if name.endswith(".jsonl")]
            if lacking := next((name for name in names if name not in digests), None):
                state = f"lacks {lacking}" if sums.exists() else "is missing"
                raise UsageError(
                    f"{sums} {state}, by which files are compared with those of the run: copy the shard again with it, or move {root} away "
                    "and run the shard again"
                )
        for name, digest in digests.items():
            path = folder / name
            if not path.is_file() or checksums.sha256_of(path) != digest:
                state = "was changed" if path.is_file() else "is missing"
                raise UsageError(
                    f"{path} {state} after its run ({checksums.NAME} beside it): restore it, or move {root} away and run the shard again"
                )


def write_note(folder: Path, shard: Shard, script: str, stage: str, part: str) -> None:
    """Leave the command with which a shard works on a part, such as a language, for the merge and for those who look for it."""
    path, words = folder / f"shard_{stage}_{part}.json", with_shard(command_line(("--api_key",))[1:], shard)
    if read_json(path).get("command") != words:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, Note(script=script, shard=shard.name, started=datetime.now(UTC).isoformat(), command=words))


def without_flags(command: list[str], *flags: str) -> list[str]:
    """The words of a command without these flags, which have one value each."""
    words, skip = [], False
    for word in command:
        if not skip and word.split("=")[0] not in flags:
            words.append(word)
        skip = word in flags
    return words


def with_shard(command: list[str], shard: Shard) -> list[str]:
    words = without_flags(command, "--num_shards", "--shard_index")
    return [*words, "--num_shards", str(shard.count), "--shard_index", str(shard.index)]


def folder_of(path: Path) -> Path | None:
    """The folder of the shard that a path is in; None if it is in none."""
    return next((folder for folder in (path, *path.parents) if Shard.of_folder(folder)), None)


def whole_of(shard_folder: Path) -> Path:
    """The directory that a shard is a part of."""
    return shard_folder.parent.parent


def is_merged(shard_folder: Path, folder: Path, stage: str, part: str) -> bool:
    """Whether the whole directory has what a shard has done of a stage in `folder`: its last merge noted the shard as it is now."""
    whole, below = whole_of(shard_folder), folder.relative_to(shard_folder)
    noted = _merged(whole, part).get("stages", {}).get(_key(below, stage), {}).get(shard_folder.name)
    is_there = stage in ("generate", AUDIT) or (whole / below / _file(stage, part)).exists()
    return is_there and noted == _state(folder, stage, part)


def _file(stage: str, part: str) -> str:
    """What a stage writes, by its default name."""
    end = {"generate": "", "decontaminate": "_translate_filtered"}.get(stage, "_translate")
    return "translate_0.jsonl" if part == "main" else f"{part}{end}.jsonl"


def files_of(whole: Path) -> set[Path]:
    """The files in the whole directory that its shards have parts of, whether or not these are merged."""
    notes = ((root, path.parent) for _, root in folders(whole) for path in root.rglob("shard_*_*.json"))
    noted = ((root, at, *one) for root, at in notes for one in stages_in(at))
    return {whole / at.relative_to(root) / _file(stage, part) for root, at, stage, part in noted if stage != AUDIT}


def check_merged(path: Path, paragraphs_of: str = "") -> None:
    """Raise UsageError if shards have done for this file what their last merge has not put into it. `paragraphs_of`: the language whose
    paragraphs it has, which its name may not say (--output_filenames)."""
    path = path.absolute()
    for whole in path.parents:
        for _, root in folders(whole):
            folder = root / path.parent.relative_to(whole)
            for stage, part in stages_in(folder):
                is_later = stage == "decontaminate" and not path.name.endswith("_filtered.jsonl")
                of_file = stage != "generate" and (part == "main" or path.name.startswith(f"{part}_"))
                if stage == "generate":  # pairs lack nothing that was not translated yet
                    of_file = part == paragraphs_of or path.name == _file(stage, part)
                if of_file and not is_later and not is_merged(root, folder, stage, part):
                    command = shlex.join(["python", "scripts/merge.py", str(whole)])
                    raise UsageError(
                        f"{path} lacks what shard {root.name} has done since the last merge ({stage}): {command}"
                    )


def _state(folder: Path, stage: str, part: str) -> str:
    """How far a stage of a part is, the same in a copy: what its manifest is, which is there once it is finished; else the size of
    its files. (Two runs may end in the same second, so that the time in the manifest is not enough.)"""
    name, files = ("", ("translate_*.jsonl",)) if part == "main" else (f"_{part}", (f"{part}.jsonl", f"{part}_*.jsonl"))
    manifest = folder / f"manifest_{stage}{name}.json"
    if manifest.is_file():
        return checksums.sha256_of(manifest)
    return f"{sum(path.stat().st_size for pattern in files for path in folder.glob(pattern))} bytes"


# shards/merged_{part}.json: of each {folder}/{stage} the states (`_state`) of the shards at the last merge.
Merged = fields(stages=dict[str, dict[str, str]])


def write_merged(output_dir: Path, works: Iterable[Work]) -> None:
    """Note that the directory has what the shards have done. To be called while they are locked, when their files are merged."""
    with wait_for_lock(output_dir / FOLDER):
        for work in works:
            before = _merged(output_dir, work.part).get("stages", {})
            states = {one.shard.name: _state(one.folder, work.stage, work.part) for one in work.noted}
            if before != (now := before | {_key(work.folder, work.stage): states}):
                write_json(_merged_path(output_dir, work.part), {"stages": now})


def _key(folder: Path, stage: str) -> str:
    return (folder / stage).as_posix()


def _merged(output_dir: Path, part: str) -> Merged:
    return read_json(_merged_path(output_dir, part), Merged, "remove it and merge again")


def _merged_path(output_dir: Path, part: str) -> Path:
    return output_dir / FOLDER / f"merged_{part}.json"


def stages_in(folder: Path) -> list[tuple[str, str]]:
    """(stage, part) of the notes in a folder of a shard."""
    found = (_NOTE_NAME.fullmatch(path.name) for path in sorted(folder.glob("shard_*_*.json")))
    return [match.groups() for match in found if match]


def folders(output_dir: Path) -> Iterator[tuple[Shard, Path]]:
    """The shards that are there, sorted by number of shards, then by index."""
    names = sorted((output_dir / FOLDER).glob("*-of-*"), key=lambda path: (path.name.partition("-of-")[2], path.name))
    for folder in names:
        if (shard := Shard.of_folder(folder)) is not None and folder.is_dir():
            yield shard, folder
