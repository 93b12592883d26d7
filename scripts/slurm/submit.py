"""Submit the stages of a run file to SLURM: arrays for stages with shards, jobs that merge them, each job after those that it needs.

    python scripts/slurm/submit.py run.yaml --dry_run
    python scripts/slurm/submit.py run.yaml
    squeue --me

A file may have rounds, or be an experiment with variants: then all rounds, or all variants and seeds and the table, are submitted.
The section `slurm` of the file says what the jobs request. Complete stages are left out. When a job fails, the jobs that depend on
it are cancelled; its log says why. Submit again, and only what is missing runs. Details: docs/cluster.md.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from topxgen.common import hub
from topxgen.common.cli import FLAG, Parser, run_main
from topxgen.common.console import aligned, counted, show
from topxgen.common.errors import UsageError
from topxgen.common.files import write_atomic
from topxgen.common.locks import OutputLock
from topxgen.common.run_files import SECTIONS, RunFile, read_changed
from topxgen.experiments import assets, comparison, rounds, slurm
from topxgen.experiments.chain import RECORDS, Command, add_flags, check_folders, commands, folder_of

logger = logging.getLogger(__name__)


def build_parser() -> Parser:
    parser = Parser(__doc__)
    add_flags(parser, "submit")
    # fmt: off
    parser.add_argument("--python", default=sys.executable, metavar="PROGRAM",
                        help="the Python of the jobs, which all nodes must see [the one that runs this command]")
    parser.add_argument("--allow_incomplete", **FLAG, help="continue after a stage that finished with exit code 3")
    parser.add_argument("--dry_run", **FLAG,
                        help="print the scripts of the jobs and a table of them; submit and write nothing")
    # fmt: on
    return parser


def plan(jobs: list[slurm.Job], folder: Path, args: argparse.Namespace) -> list[slurm.Planned]:
    """The jobs to submit; what their budgets come to is logged."""
    planned = slurm.plan(jobs, folder, args.allow_incomplete)
    for line in slurm.budgets(planned):
        logger.warning(line)
    return planned


def check_assets(planned: list[slurm.Planned]) -> None:
    """Raise UsageError for what the Hub's cache lacks of all jobs, if they do not ask the Hub: each would say so as it starts."""
    if os.environ.get("HF_HUB_OFFLINE", "1") not in ("", "0"):  # as their scripts have it
        with hub.offline():
            assets.require((one.job.step.records, one.job.step.command) for one in planned)


def run(args: argparse.Namespace) -> int:
    tree = read_changed(args.file, args.set)
    file = RunFile(
        {name: value for name, value in tree.items() if name not in (*comparison.KEYS, rounds.KEY)}, args.file
    )
    if not file.sections and comparison.VARIANTS not in tree:
        raise UsageError(f"{args.file} has no section of a stage; write at least one of {', '.join(SECTIONS)}")
    folder = folder_of(file)
    title = folder.absolute().name
    # Jobs run what was submitted, whatever becomes of the file. Its name is the title of the table of an experiment.
    copied = slurm.place(folder) / f"{args.file.stem}.yaml"
    words = [str(copied), *(["--set", *args.set] if args.set else []), *["--allow_incomplete"] * args.allow_incomplete]
    jobs = slurm.jobs(file, steps(args, tree, file, words), args.python)
    if args.dry_run:
        planned = plan(jobs, folder, args)
        for one in planned:
            show(slurm.script(one, folder, title, args.allow_incomplete))
        for line in (*aligned(_table(planned), left=7), _summary(jobs, planned)):
            show(f"# {line}")
        return 0
    with OutputLock(folder / RECORDS):
        if active := slurm.queued(folder):
            raise UsageError(
                f"{counted(len(active), 'job')} of this run {'is' if len(active) == 1 else 'are'} queued or running, such as {active[0]}: wait "
                "for the end, or scancel first"
            )
        planned = plan(jobs, folder, args)
        check_assets(planned)
        copied.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(copied, [args.file.read_text(encoding="utf-8-sig")])
        submitted = slurm.submit(planned, folder, title, args.allow_incomplete)
    for one, job in zip(planned, submitted, strict=True):
        number = len(one.tasks)
        some = f", {number} of {one.job.shards} tasks" if one.job.shards else ""
        show(f"{job['id']}  {one.job.name}{some}: {one.reason}")
    show(_summary(jobs, planned) + (f"; logs: {copied.parent}/logs" if planned else ""))
    return 0


def steps(args: argparse.Namespace, tree: dict, file: RunFile, words: list[str]) -> list[slurm.Step]:
    """What is to be run of a run, of its rounds, or of all variants and seeds of an experiment. Raises UsageError."""
    if comparison.VARIANTS not in tree and rounds.KEY not in tree:
        check_folders(commands(file))
        return slurm.steps(commands(file, args.stages), folder_of(file), words)
    if args.stages:
        raise UsageError(
            f"--stages has no effect: {args.file} has {rounds.KEY if rounds.KEY in tree else comparison.VARIANTS}"
        )
    if comparison.VARIANTS in tree:
        experiment = comparison.plan(tree, args.file)
        check_folders(job.command for job, _ in experiment.order())
        return _of_experiment(experiment, words)
    settings, todo = rounds.plan(tree, args.file)
    check_folders(command for one in todo for _, _, command in one.jobs())
    found = []
    for number, one in enumerate(todo[: rounds.ended(settings, todo, args.allow_incomplete) + 1]):
        for name, (records, _, command) in zip(rounds.names(number, one), one.jobs(), strict=True):
            record, needs = ("scripts/run.py", *words, "--until", name), (len(found) - 1,) if found else ()
            prefix = name.removesuffix(command.name)
            found.append(slurm.Step(command, records, record, prefix, needs, in_shards=number == 0))
    return found


def _of_experiment(experiment: comparison.Experiment, words: list[str]) -> list[slurm.Step]:
    found = []
    for job, needs in experiment.order():
        prefix = experiment.job_name(job).removesuffix(job.command.name)
        record = ("scripts/compare.py", *words, "--jobs", job.id)
        found.append(slurm.Step(job.command, job.folder, record, prefix, tuple(needs)))
    scoring = argparse.Namespace(**vars(experiment.scoring) | {"json": experiment.folder / "comparison.json"})
    # What the mark of the table is compared with: the file may have other variants, seeds, baseline or metrics under the same words.
    shown = (*(job.id for job in experiment.run_jobs(experiment.variants)), f"baseline {experiment.baseline}")
    flags = (f"{flag} {vars(scoring)[flag]}" for flag in sorted(experiment.scoring.given))
    table = Command("evaluate", "comparison", ("comparison", *words, *shown, *flags), scoring)
    return [*found, slurm.Step(table, experiment.folder, ("scripts/compare.py", *words), "", tuple(range(len(found))))]


def _table(planned: list[slurm.Planned]) -> list[tuple[str, ...]]:
    """What each job requests, and after which jobs it starts."""
    heading = ("job", "tasks", "nodes", "gres", "cpus", "time limit", "after")
    names, rows = {one.job.name for one in planned}, []
    for job, tasks, _ in planned:
        asked, after = job.resources, [name for name in job.needs if name in names]
        if len(after) > 3:
            after = [*after[:2], f"{len(after) - 2} more"]
        at_once = f", {asked.at_once} at once" if asked.at_once and job.shards else ""
        row = (f"{len(tasks)}{at_once}" if job.shards else "1", asked.nodes, asked.gres, asked.cpus, asked.time)
        rows.append((job.name, *(str(cell or "-") for cell in row), ", ".join(after) or "-"))
    return [heading, *rows] if rows else []


def _summary(jobs: list[slurm.Job], planned: list[slurm.Planned]) -> str:
    left = len(jobs) - len(planned)
    if not planned:
        return "all stages are complete"
    return counted(len(planned), "job") + (f"; {left} {'is' if left == 1 else 'are'} done" if left else "")


def main() -> int:
    return run_main(build_parser(), run, "submit again to continue")


if __name__ == "__main__":
    sys.exit(main())
