"""Kills, signals and failing file operations in a stage; then the same command again, which must end as if nothing had
happened."""

import errno
import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.attack.file_operations import ACTIONS, ERRORS, KILLS, PURGES
from tests.attack.shooting_range import CHECKERS, Outcome, Range, differences, digests, results
from tests.attack.table import STAGES

CODES = {
    **dict.fromkeys(KILLS, (-9, 0)),
    **dict.fromkeys((*ERRORS, *PURGES), (2, 3, 0)),
    "SIGTERM": (143, -15, 0),
    "SIGINT": (130, 0),
    "short": (0,),
    "random kill": (-9, 0),
}


CHECKPOINT = re.compile(r"checkpoint-\d+/")
IN_USE = re.compile(r"is in use by|exists: pass another|already")


@dataclass(frozen=True)
class Undisturbed:
    """A stage that ran to its end: where it started, the file operations, the results."""

    name: str
    ready: Path
    finished: Path
    outcome: Outcome
    results: dict[str, str]
    inputs: dict[str, str]

    @property
    def plans(self) -> Iterator[dict]:
        """Each action at each file operation that it can happen to."""
        for at, (operation, _) in enumerate(self.outcome.seen):
            for action in ACTIONS:
                if operation == "write" or action not in ("torn", "short"):
                    yield {"at": at, "action": action}


def ready_folder(place: Range, clean: Path, name: str) -> Path:
    """The folder in which a stage can run: with its inputs and the results of the stages before it."""
    stage = STAGES[name]
    ready = place.folder / (f"after-{'-'.join(stage.before)}" if stage.before else f"before-{name}")
    if not ready.exists():
        place.new_folder(clean).rename(ready)
        for earlier in stage.before:
            assert place.run(ready, STAGES[earlier].command).code == 0
        stage.prepare(ready)
    return ready


def undisturbed(place: Range, clean: Path, name: str, command: tuple[str, ...]) -> Undisturbed:
    """Run a stage's command without a fault."""
    ready = ready_folder(place, clean, name)
    folder = place.new_folder(ready)
    outcome = place.run(folder, command)
    is_checker = command[0] in CHECKERS  # which may find something
    assert (outcome.code == 0 or (is_checker and outcome.code == 1)) and not outcome.problems, str(outcome)
    found = results(folder / "out")
    assert found or command != STAGES[name].command, f"{name} wrote nothing"
    return Undisturbed(name, ready, folder, outcome, found, digests(ready / "in"))


def attack(place: Range, stage: Undisturbed, plan: dict) -> list[Outcome]:
    """The outcomes with something wrong: of the run that suffers `plan`, and of the one after it.

    A plan {"kill_after": seconds} kills whatever the process does at that moment.
    """
    command, folder = STAGES[stage.name].command, place.new_folder(stage.ready)
    fault = None if "kill_after" in plan else plan
    expect, purged = CODES[plan.get("action", "random kill")], plan.get("action") in PURGES
    hit = place.run(folder, command, fault=fault, kill_after=plan.get("kill_after"), expect=expect)
    if purged:  # what nothing makes again stays lost
        again = place.run(folder, command, expect=(0, 2, 3))
        return [outcome for outcome in (hit, again) if outcome.problems]
    found = results(folder / "out")
    is_shown = plan.get("action") in ERRORS and os.strerror(getattr(errno, plan["action"])) in found.get(
        "report.html", ""
    )
    if hit.code == 0 and not is_shown and (wrong := differences(stage.results, found)):
        hit.problems.append(f"exit 0, but {'; '.join(wrong)}")
    if hit.code == 143 and (left := [path.name for path in folder.rglob("*.partial")]):
        hit.problems.append(f"temporary files are left: {', '.join(left)}")
    again = place.run(folder, command, expect=(0,) if STAGES[stage.name].resumes else (0, 2))
    found = results(folder / "out")
    if hit.code in (143, 130):
        found = _without_extra_checkpoints(found, stage.results)
    if again.code in (0, 2) and (wrong := differences(stage.results, found)):
        again.problems.append(f"after it, {'; '.join(wrong)}")
    if digests(folder / "in") != stage.inputs:
        again.problems.append("an input was changed")
    return [outcome for outcome in (hit, again) if outcome.problems]


def _without_extra_checkpoints(found: dict[str, str], results: dict[str, str]) -> dict[str, str]:
    """A training that a signal stops saves its step, and keeps the checkpoint, which manifests list."""
    folders = [{match[0] for name in names if (match := CHECKPOINT.match(name))} for names in (found, results)]
    for folder in folders[0] - folders[1]:
        listed = re.compile(rf'"{folder}[^"]*", ')
        found = {name: listed.sub("", text) for name, text in found.items() if not name.startswith(folder)}
    return found


def random_kill(stage: Undisturbed, rng: random.Random) -> dict:
    return {"kill_after": round(rng.uniform(0, 1.1 * stage.outcome.seconds), 4)}


# What somebody may look with, while a stage runs, and what reads its outputs for the next one.
READERS = (
    ("scripts/status.py", "out"),
    ("scripts/verify.py", "out"),
    ("scripts/sample.py", "out", "-n", "2"),
    ("scripts/data_stats.py", "out"),
    ("scripts/report.py", "out", "-o", "report.html"),
    ("decontamination.py", "--input_dir", "out", "--output_dir", "filtered", "--languages", "Basque", "--benchmarks", "udhr"),
    ("scripts/publish.py", "out", "--out", "pairs", "--allow_undecontaminated"),
    ("comptra.evaluate", "out", "--trials", "50", "--json", "scores.json"),
)  # fmt: skip


def race(place: Range, stage: Undisturbed, others: tuple[tuple[str, ...], ...], delay: float) -> list[Outcome]:
    """The outcomes with something wrong of a stage that runs at the same time as `others`, itself maybe, and of one after them.

    They start `delay` seconds after each other."""
    command, folder = STAGES[stage.name].command, place.new_folder(stage.ready)
    outcomes = place.run_at_once(folder, (command, *others), delay=delay)
    for outcome in outcomes:
        if outcome.code == 2 and outcome.arguments == outcomes[0].arguments and not IN_USE.search(outcome.err):
            outcome.problems.append("exit 2, but not since it is in use")
    if all(outcome.code for outcome in outcomes if outcome.arguments == outcomes[0].arguments):
        outcomes[0].problems.append("none of them succeeds")
    elif wrong := differences(stage.results, results(folder / "out")):
        outcomes[0].problems.append(f"exit 0, but {'; '.join(wrong)}")
    again = place.run(folder, command, expect=(0,) if STAGES[stage.name].resumes else (0, 2))
    if again.code in (0, 2) and (wrong := differences(stage.results, results(folder / "out"))):
        again.problems.append(f"after it, {'; '.join(wrong)}")
    if digests(folder / "in") != stage.inputs:
        again.problems.append("an input was changed")
    return [outcome for outcome in (*outcomes, again) if outcome.problems]
