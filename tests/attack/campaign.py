"""All attacks, or a random part of them, and a table of what came of it.

    PYTHONPATH=. python tests/attack/campaign.py --rounds 50 --seed 1
    PYTHONPATH=. python tests/attack/campaign.py --kinds files --only "generate: out/Basque.jsonl" --what "text is null"

Needs no network and no model; with --heavy the stages that load torch are attacked instead, on a model made on the spot.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attack import answers, faults, flags, formats, links
from tests.attack.shooting_range import Outcome, Range
from tests.attack.table import STAGES, has_apertium, make_inputs, make_models

KINDS = ("kills", "races", "faults", "files", "answers", "flags", "links")
COLUMNS = {
    "tracebacks": ("traceback",),
    "hangs": ("hang",),
    "results lost, doubled or different": ("exit 0, but", "exit 3, but", "after it,"),
    "a user's file changed": ("an input was changed", "the file was changed", "writes outside"),
    "other": ("",),
}
Attack = Callable[[], list[Outcome]]


class Campaign:
    """Attacks as (row, what, function to call); the function returns the outcomes with something wrong."""

    def __init__(self, folder: Path, seed: int, lm: str | None = None):
        self.heavy, self.seed = lm is not None, seed
        self.place = Range(folder, self.heavy)
        self.clean = folder / "clean"
        make_inputs(self.clean)
        if lm:
            make_models(self.clean / "in", lm)
        self._undisturbed: dict[tuple, faults.Undisturbed] = {}

    def close(self) -> None:
        self.place.close()

    def rng(self, row: str) -> random.Random:
        """Each row has its own, so that its attacks do not depend on which others run."""
        return random.Random(f"{self.seed} {row}")

    def undisturbed(self, stage: str, command: tuple[str, ...] | None = None) -> faults.Undisturbed:
        command = command or STAGES[stage].command
        if command not in self._undisturbed:
            self._undisturbed[command] = faults.undisturbed(self.place, self.clean, stage, command)
        return self._undisturbed[command]

    def rows(self, kind: str) -> list[str]:
        stages = [
            name
            for name, stage in STAGES.items()
            if stage.heavy == self.heavy and (stage.needs != "apertium" or has_apertium())
        ]
        if kind in ("kills", "races", "faults", "links"):
            return stages
        if kind == "answers":
            return [row for row, (stage, _) in answers.ROWS.items() if stage in stages]
        if kind == "files":
            return [row.id for row in formats.FORMATS if row.stage in stages]
        return [script for script in flags.BASES if (script in flags.HEAVY) == self.heavy]

    def attacks(self, kind: str, row: str, rounds: int, what: str = "") -> Iterator[tuple[str, Attack]]:
        """At most `rounds` random attacks of a kind on a row (0: all there are); `what`: those with it in their description."""
        return getattr(self, f"_{kind}")(row, rounds, what)

    def _chosen(self, attacks: list, row: str, rounds: int, what: str) -> list:
        attacks = [attack for attack in attacks if what in str(attack[0])]
        return self.rng(row).sample(attacks, min(rounds or len(attacks), len(attacks)))

    def _kills(self, row: str, rounds: int, what: str):
        stage, rng = self.undisturbed(row), self.rng(row)
        for _ in range(rounds or 100):
            plan = faults.random_kill(stage, rng)
            if what in str(plan):
                yield str(plan), lambda plan=plan: faults.attack(self.place, stage, plan)

    def _races(self, row: str, rounds: int, what: str):
        stage, rng = self.undisturbed(row), self.rng(row)
        itself = [("itself, twice", (STAGES[row].command,) * 2)]
        readers = [(" ".join(reader[:2]), (reader,)) for reader in faults.READERS]
        for name, others in [*itself, *self._chosen(readers, row, max(rounds - 1, 0), what)]:
            delay = rng.uniform(0, 0.8 * stage.outcome.seconds) * rng.randint(0, 1)
            yield f"{name}, {delay:.3f} s later", lambda o=others, d=delay: faults.race(self.place, stage, o, d)

    def _faults(self, row: str, rounds: int, what: str):
        stage = self.undisturbed(row)
        plans = [
            (f"{plan['action']} at {plan['at']}, {' '.join(stage.outcome.seen[plan['at']])}", plan)
            for plan in stage.plans
        ]
        for name, plan in self._chosen(plans, row, rounds, what):
            yield name, lambda plan=plan: faults.attack(self.place, stage, plan)

    def _files(self, row: str, rounds: int, what: str):
        format_ = next(entry for entry in formats.FORMATS if entry.id == row)
        prepared = formats.prepare(self.place, format_, self.undisturbed(format_.stage, format_.arguments))
        for name, content in self._chosen(list(prepared.attacks()), row, rounds, what):
            yield name, lambda name=name, content=content: [formats.attack(self.place, prepared, name, content)]

    def _answers(self, row: str, rounds: int, what: str):
        name, api = answers.ROWS[row]
        command = answers.command_of(row)
        stage = self.undisturbed(name, command)
        for what_, response in self._chosen(list(answers.attacks(api)), row, rounds, what):
            yield what_, lambda n=what_, r=response: answers.attack(self.place, stage, command, n, r)

    def _links(self, row: str, rounds: int, what: str):
        stage = self.undisturbed(row)
        for what_, place in self._chosen(list(links.attacks(stage)), row, rounds, what):
            yield what_, lambda p=place: links.attack(self.place, stage, STAGES[row].command, *p)

    def _flags(self, row: str, rounds: int, what: str):
        ready, rng = self.flags_folder, self.rng(row)
        per_flag, pairs = max(1, rounds // 100), rounds or 100
        every = list(flags.attacks(row, rng, per_flag, pairs))
        for more in self._chosen([(" ".join(more), more) for more in every], row, rounds, what):
            yield more[0], lambda more=more[1]: [flags.attack(self.place, ready, row, more)]

    @cached_property
    def flags_folder(self) -> Path:
        return flags.make_ready(self.place, self.clean)

    def run(self, kind: str, row: str, rounds: int, what: str = "") -> Iterator[tuple[str, list[Outcome]]]:
        """Attack; (what was done, the outcomes with something wrong) of each attack. Folders of failures are kept."""
        for name, attack in self.attacks(kind, row, rounds, what):
            before = self.place.count
            wrong = [outcome for outcome in attack() if outcome.problems]
            kept = {outcome.folder for outcome in wrong}
            for folder in self.place.folders_since(before):
                if folder not in kept:
                    shutil.rmtree(folder, ignore_errors=True)
            yield name, wrong

    def reproduce(self, kind: str, row: str, what: str) -> str:
        heavy = " --heavy" if self.heavy else ""
        return f"PYTHONPATH=. python tests/attack/campaign.py --kinds {kind} --only {row!r} --what {what[:200]!r} --rounds 0 --seed {self.seed}{heavy}"


def described(campaign: Campaign, kind: str, row: str, name: str, outcome: Outcome) -> str:
    return f"{kind}, {row}: {name[:300]}\n  {outcome}\n  again: {campaign.reproduce(kind, row, name)}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="[all]")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows with this in their names")
    parser.add_argument("--what", default="", metavar="TEXT", help="attacks with this in their descriptions")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="attacks per row; 0: all there are [20]")
    parser.add_argument("--seed", type=int, default=0, help="[0]")
    parser.add_argument(
        "--minutes", type=float, metavar="N", help="end each kind after N minutes, rows in random order [no limit]"
    )
    parser.add_argument(
        "--heavy",
        nargs="?",
        const="",
        metavar="MODEL",
        help="stages that load torch, with this small Llama [one made on the spot]",
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="attack-", ignore_cleanup_errors=True) as folder:
        lm = args.heavy
        if lm == "":
            from tests.support.tiny_lm import build_lm

            lm = f"{folder}/lm"
            Path(lm).mkdir()
            build_lm(Path(lm))
        campaign, total = Campaign(Path(folder) / "range", args.seed, lm), Counter()
        try:
            for kind in args.kinds:
                args.end = time.monotonic() + 60 * args.minutes if args.minutes else None
                rows = [row for row in campaign.rows(kind) if args.only in row]
                for row in campaign.rng(kind).sample(rows, len(rows)):
                    total += attack_row(campaign, kind, row, args)
        finally:
            campaign.close()
    print(f"\nseed {args.seed}, {args.rounds or 'all'} per row\n")
    print("\n".join(table(total)))
    return 1 if any(count for (_, column), count in total.items() if column in COLUMNS) else 0


def attack_row(campaign: Campaign, kind: str, row: str, args) -> Counter:
    total, began = Counter(), time.monotonic()
    attacks = campaign.run(kind, row, args.rounds, args.what)
    while args.end is None or time.monotonic() < args.end:
        try:
            name, wrong = next(attacks)
        except StopIteration:
            break
        except AssertionError as error:  # it fails without an attack
            print(f"{kind}, {row}: {error}", flush=True)
            total[kind, "other"] += 1
            break
        total[kind, "inputs"] += 1
        for outcome in wrong:
            for problem in outcome.problems:
                total[kind, next(column for column, starts in COLUMNS.items() if problem.startswith(starts))] += 1
            print(described(campaign, kind, row, name, outcome), flush=True)
    print(f"{kind}, {row}: {total[kind, 'inputs']} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return total


def table(total: Counter) -> Iterator[str]:
    """Markdown."""
    yield f"| attack | tried | {' | '.join(COLUMNS)} |"
    yield "| --- " * (len(COLUMNS) + 2) + "|"
    for kind in KINDS:
        if total[kind, "inputs"]:
            yield f"| {kind} | {total[kind, 'inputs']:,} | {' | '.join(str(total[kind, column]) for column in COLUMNS)} |"


if __name__ == "__main__":
    sys.exit(main())
