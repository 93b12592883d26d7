"""Submit the stages of a run file to SLURM: arrays for stages with shards, jobs that merge them, each job after the one before.

    python scripts/slurm/submit.py run.yaml --dry_run
    python scripts/slurm/submit.py run.yaml
    squeue --me

The section `slurm` of the file says what the jobs request. Complete stages are left out. When a job fails, the jobs that depend on
it are cancelled; its log says why. Submit again, and only what is missing runs. Details: docs/cluster.md.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from topxgen.common.cli import FLAG, Parser, run_main
from topxgen.common.console import show
from topxgen.common.errors import UsageError
from topxgen.common.files import write_atomic
from topxgen.common.locks import OutputLock
from topxgen.common.run_files import SECTIONS, RunFile, read_changed
from topxgen.experiments import rounds, slurm
from topxgen.experiments.chain import RECORDS, Chain, commands, folder_of


def build_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument("file", type=Path, metavar="RUN.yaml", help="a file with a section for each stage")
    parser.add_argument(
        "--stages", nargs="+", default=[], metavar="STAGE",
        help=f"which stages to submit: {', '.join(SECTIONS)}; train-2 is the second entry of train [all that the file has]",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE",
        help="values instead of the file's: name=value of one at the top, section.flag=value; null is none",
    )  # fmt: skip
    parser.add_argument(
        "--python", default=sys.executable, metavar="PROGRAM",
        help="the Python of the jobs, which all nodes must see [the one that runs this command]",
    )  # fmt: skip
    parser.add_argument("--allow_incomplete", **FLAG, help="continue after a stage that finished with exit code 3")
    parser.add_argument("--dry_run", **FLAG, help="print the scripts of the jobs; submit and write nothing")
    return parser


def run(args: argparse.Namespace) -> int:
    tree = read_changed(args.file, args.set)
    for key, script in (("variants", "compare"), (rounds.KEY, "run")):
        if key in tree:
            raise UsageError(
                f"{args.file} has {key}, whose stages depend on results: submit it as one job, sbatch --requeue --wrap 'python "
                f"scripts/{script}.py {args.file}'"
            )
    file = RunFile(tree, args.file)
    if not file.sections:
        raise UsageError(f"{args.file} has no section of a stage; write at least one of {', '.join(SECTIONS)}")
    todo, folder = commands(file, args.stages), folder_of(file)
    title = folder.absolute().name
    copied = folder / RECORDS / slurm.FOLDER / "run.yaml"  # jobs run what was submitted, whatever becomes of the file
    words = [str(copied), *(["--set", *args.set] if args.set else []), *["--allow_incomplete"] * args.allow_incomplete]
    jobs = slurm.jobs(file, todo, args.python, words)
    by_name = {command.name: command for command in todo}
    if args.dry_run:
        planned = slurm.plan(jobs, by_name, Chain(folder), args.allow_incomplete)
        for one in planned:
            show(slurm.script(one, folder, title, args.allow_incomplete))
        show(f"# {_summary(jobs, planned)}")
        return 0
    with OutputLock(folder / RECORDS):
        if active := slurm.queued(folder):
            raise UsageError(
                f"{len(active)} jobs of this run are queued or running, such as {active[0]}: wait for them, or scancel them first"
            )
        planned = slurm.plan(jobs, by_name, Chain(folder), args.allow_incomplete)
        copied.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(copied, [args.file.read_text(encoding="utf-8-sig")])
        submitted = slurm.submit(planned, folder, title, args.allow_incomplete)
    for one, job in zip(planned, submitted, strict=True):
        number = len(one.tasks)
        some = f", {number} of {one.job.shards} tasks" if one.job.shards else ""
        show(f"{job['id']}  {one.job.name}{some}: {one.reason}")
    show(_summary(jobs, planned) + (f"; logs: {copied.parent}/logs" if planned else ""))
    return 0


def _summary(jobs: list[slurm.Job], planned: list[slurm.Planned]) -> str:
    left = len(jobs) - len(planned)
    if not planned:
        return "all stages are complete"
    return f"{len(planned)} jobs" + (f"; {left} are done" if left else "")


def main() -> int:
    return run_main(build_parser(), run, "submit again to continue")


if __name__ == "__main__":
    sys.exit(main())
