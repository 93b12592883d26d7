"""Hostile values for every flag of every script, alone and in pairs, as dry runs and as real ones."""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

from tests.attack.hostile import NUMBERS, TEXTS, make_hostile_files
from tests.attack.shooting_range import KEY, Outcome, Range, digests
from tests.attack.table import COMPARE, DATAGEN, GENERATE, STAGES, TRAIN
from tests.support.documentation import parser_of

# The command that flags are added to.
BASES = {
    "datagen.py": (*DATAGEN, *GENERATE, "--demonstration_pool", "udhr", "--scorer", "none"),
    "decontamination.py": STAGES["decontaminate"].command,
    "main.py": STAGES["comptra"].command,
    "comptra.evaluate": STAGES["evaluate"].command,
    "train.py": (*TRAIN, "--dry_run"),
    "scripts/merge_lora.py": STAGES["merge"].command,
    "scripts/merge.py": STAGES["merge shards"].command,
    "scripts/data_stats.py": STAGES["statistics"].command,
    "scripts/run.py": STAGES["run"].command,
    "scripts/slurm/submit.py": ("scripts/slurm/submit.py", "in/run.yaml", "--dry_run"),
    "scripts/compare.py": COMPARE,
    "scripts/probe_contamination.py": STAGES["probe"].command,
    "scripts/report.py": STAGES["report"].command,
    "scripts/publish.py": STAGES["publish"].command,
    "scripts/verify.py": ("scripts/verify.py", "in"),
    "scripts/status.py": ("scripts/status.py", "in"),
    "scripts/prefetch.py": ("scripts/prefetch.py", "in/run.yaml", "--check"),
    "scripts/doctor.py": ("scripts/doctor.py", "in/run.yaml"),
    "scripts/sample.py": ("scripts/sample.py", "in", "--language", "Basque"),
}
HEAVY = ("train.py", "scripts/merge_lora.py")
# Where a user may write outside the folder, if they say so.
WHERE_TO_WRITE = (
    "--output_dir",
    "--csv",
    "--json",
    "--report",
    "--export_dir",
    "--cache_dir",
    "--markdown",
    "output",
    "--out",
)
WHERE_TO_WRITE += (
    "--output",
    "-o",
    "--latex",
    "--segments",
    "--plot",
    "--every_eval_ever",
    "--ensemble_dir",
    "--folder",
)
# Any number of these is right, and a large one takes long.
WORK = ("--number_of_instructions", "--number_of_instructions_per_language", "--num_workers")


def flags_of(script: str) -> dict[str, argparse.Action]:
    actions = parser_of(script)._actions
    return {
        (action.option_strings or [action.dest])[0]: action
        for action in actions
        if action.dest not in ("help", "version")
    }


def values_for(action: argparse.Action, flag: str) -> list[str]:
    """All values, those first that are near to what the flag takes."""
    values = [*map(str, action.choices or ()), *NUMBERS, *TEXTS]
    if flag == "--base_url":
        values = [f"{{url}}?api_key={KEY}", f"http://{KEY}@127.0.0.1/v1", *TEXTS]
    if flag in WORK:
        values = [value for value in values if not value.isdecimal() or int(value) < 10]
    return values


def words_for(flag: str, action: argparse.Action, rng: random.Random) -> list[str]:
    """The flag with random values, as many as it takes, give or take one."""
    count = action.nargs if isinstance(action.nargs, int) else rng.choice((1, 1, 2)) if action.nargs == "+" else 1
    values = [rng.choice(values_for(action, flag)) for _ in range(count)]
    if not action.option_strings:
        return values
    if len(values) == 1 and rng.random() < 0.5:
        return [f"{flag}={values[0]}"]
    return [flag, *values]


def attacks(script: str, rng: random.Random, per_flag: int, pairs: int) -> Iterator[list[str]]:
    """What is added to the script's command: `per_flag` times each flag, then `pairs` random pairs of flags."""
    flags = flags_of(script)
    dry = ["--dry_run"] if "--dry_run" in flags and "--dry_run" not in BASES[script] else []
    for flag, action in flags.items():
        for _ in range(per_flag):
            yield [*words_for(flag, action, rng), *(dry if rng.random() < 0.5 else [])]
    for _ in range(pairs):
        chosen = rng.sample(sorted(flags), 2)
        words = [word for flag in chosen for word in words_for(flag, flags[flag], rng)]
        yield [*words, *(dry if rng.random() < 0.5 else [])]


def attack(place: Range, ready: Path, script: str, more: list[str]) -> Outcome:
    """The outcome of a script's command with more flags; `ready` holds its inputs."""
    folder = place.new_folder(ready)
    base = BASES[script]
    if any(not word.startswith("-") for word in more[:1]):  # positional: instead of the first
        base, more = (base[0], *more[:1], *base[2:]), more[1:]
    outcome = place.run(folder, [*base, *more])
    now = digests(folder / "in")
    changed = [name for name, digest in digests(ready / "in").items() if now.get(name) != digest]
    outcome.problems += [f"an input was changed: in/{name}" for name in changed]
    if any(word.split("=")[0] in WHERE_TO_WRITE for word in more):
        outcome.problems = [problem for problem in outcome.problems if not problem.startswith("writes outside")]
    for path in folder.rglob("*"):
        if path.is_file() and path.parts[len(folder.parts)] != "in" and KEY.encode() in path.read_bytes():
            outcome.problems.append(f"the API key is in {path.relative_to(folder)}")
    return outcome


def make_ready(place: Range, clean: Path) -> Path:
    """The inputs, and the files that the values name."""
    ready = place.folder / "flags"
    place.new_folder(clean).rename(ready)
    make_hostile_files(ready / "in")
    (ready / "out").mkdir()
    return ready
