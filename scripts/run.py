"""Run the stages of a run file, one after the other; those that are complete are skipped.

    python scripts/run.py configs/runs/demo.yaml
    python scripts/run.py configs/runs/demo.yaml --dry_run
    python scripts/run.py configs/runs/demo.yaml --stages main evaluate

A stage runs if it has not run yet, or if its flags, the files that it reads or its results have changed since. The run stops at
the first stage that fails, with that stage's message and exit code; start it again to go on. All flags of all stages are
checked before the first one starts. With `rounds` in the file, the stages are repeated on what the trained model translates.
docs/experiments.md describes run files.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from topxgen.common.cli import Parser, int_range, run_main
from topxgen.common.console import show
from topxgen.common.errors import UsageError, unknown_choice
from topxgen.common.locks import OutputLock
from topxgen.common.run_files import SECTIONS, RunFile, read_changed
from topxgen.experiments import assets, rounds
from topxgen.experiments.chain import (
    RECORDS,
    Chain,
    add_flags,
    add_running_flags,
    check_folders,
    commands,
    folder_of,
    stops,
)


def build_parser() -> Parser:
    parser = Parser(__doc__, incomplete="a stage ended with this code, and the run stopped there", uses_apis=True)
    add_flags(parser, "run")
    # fmt: off
    parser.add_argument("--patience", type=int_range(0), metavar="N",
                        help="rounds: how many in a row may fail to raise the held-out score before the run stops [the file's, else 0]")
    parser.add_argument("--until", metavar="ROUND-STAGE",
                        help="rounds: stop after this command, such as round-1-train or round-0-held-out-evaluate [the last one]")
    # fmt: on
    add_running_flags(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    tree = read_changed(args.file, args.set)
    if "variants" in tree:
        raise UsageError(f"{args.file} has variants: python scripts/compare.py {args.file} runs them")
    if rounds.KEY in tree:
        return run_rounds(args, tree)
    for flag in ("patience", "until"):
        if getattr(args, flag) is not None:
            raise UsageError(f"--{flag} has no effect: {args.file} has no {rounds.KEY}")
    file = RunFile(tree, args.file)
    if not file.sections:
        raise UsageError(f"{args.file} has no section of a stage; write at least one of {', '.join(SECTIONS)}")
    todo = commands(file, args.stages)
    check_folders(todo)
    folder = folder_of(file)
    chain = Chain(folder)
    for command in todo:
        chain.check_results(command)
    if args.dry_run:
        for command in todo:
            show(f"# {chain.state(command)}")
        return 0
    assets.require((folder, command) for command in todo)
    incomplete = 0
    with OutputLock(folder / RECORDS):
        chain = Chain(folder)
        for number, command in enumerate(todo, start=1):
            code = chain.complete(command, f"=== {number}/{len(todo)}  {command.name}", args.allow_incomplete)
            if stops(code, args.allow_incomplete):
                return code
            incomplete = incomplete or code
    return incomplete


def run_rounds(args: argparse.Namespace, tree: dict) -> int:
    if args.stages:
        raise UsageError(f"--stages has no effect on a run with {rounds.KEY}: a round needs all of its stages")
    settings, todo = rounds.plan(tree, args.file, args.patience)
    known = [name for number, one in enumerate(todo) for name in rounds.names(number, one)]
    if args.until is not None and args.until not in known:
        raise unknown_choice("--until", args.until, known)
    check_folders(command for one in todo for _, _, command in one.jobs())
    for folder, _, command in (job for one in todo for job in one.jobs()):
        Chain(folder).check_results(command)
    if args.dry_run:
        rounds.show_plan(todo)
        return 0
    assets.require((folder, command) for one in todo for folder, _, command in one.jobs())
    with OutputLock(todo[0].folder / RECORDS):
        return rounds.run(settings, todo, args.allow_incomplete, args.until or "")


def main() -> int:
    return run_main(build_parser(), run, "finished stages are recorded; start again to go on")


if __name__ == "__main__":
    sys.exit(main())
