"""Run the stages of a run file, one after the other; those that are complete are skipped.

    python scripts/run.py configs/runs/demo.yaml
    python scripts/run.py configs/runs/demo.yaml --dry_run
    python scripts/run.py configs/runs/demo.yaml --stages main evaluate

A stage runs if it has not run yet, or if its flags, the files that it reads or its results have changed since. The run stops at
the first stage that fails, with that stage's message and exit code; start it again to go on. All flags of all stages are
checked before the first one starts. docs/experiments.md describes run files.
"""

import argparse
import logging
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from topxgen.common.cli import FLAG, Parser, run_main
from topxgen.common.console import show
from topxgen.common.errors import UsageError
from topxgen.common.locks import OutputLock
from topxgen.common.run_files import SECTIONS, RunFile
from topxgen.experiments.chain import EXIT_INCOMPLETE, RECORDS, SIGNALLED, Chain, commands, folder_of

logger = logging.getLogger("topxgen.run")


def build_parser() -> Parser:
    parser = Parser(__doc__, incomplete="a stage ended with this code, and the run stopped there", uses_apis=True)
    parser.add_argument("file", type=Path, metavar="RUN.yaml", help="a file with a section for each stage")
    parser.add_argument(
        "--stages", nargs="+", choices=SECTIONS, default=[], metavar="STAGE",
        help=f"which stages to run: {', '.join(SECTIONS)} [all that the file has]",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE",
        help="values instead of the file's: name=value of one at the top, section.flag=value; null is none",
    )  # fmt: skip
    parser.add_argument("--allow_incomplete", **FLAG, help="go on after a stage that finished with exit code 3")
    parser.add_argument("--dry_run", **FLAG, help="show each command, and whether and why it would run; run nothing")
    return parser


def run(args: argparse.Namespace) -> int:
    file = RunFile.read(args.file, args.set)
    if not file.sections:
        raise UsageError(f"{args.file} has no section of a stage; write at least one of {', '.join(SECTIONS)}")
    todo = commands(file, args.stages)
    folder = folder_of(file)
    if args.dry_run:
        chain = Chain(folder)
        for command in todo:
            reason = chain.reason_to_run(command)
            show(f"# {command.name}: {f'will run ({reason})' if reason else 'complete'}\n{command.shown()}")
        return 0
    incomplete = 0
    with OutputLock(folder / RECORDS):
        chain = Chain(folder)
        for number, command in enumerate(todo, start=1):
            reason = chain.reason_to_run(command)
            title = f"=== {number}/{len(todo)}  {command.name}"
            if not reason:
                logger.info(f"{title}: complete")
                continue
            logger.info(f"{title}: {reason}\n{command.shown()}")
            code = chain.run(command)
            if code == EXIT_INCOMPLETE and not args.allow_incomplete:
                logger.error(
                    f"{command.name} finished, but incomplete: start again to try again, or pass --allow_incomplete"
                )
            elif code > SIGNALLED and code - SIGNALLED not in (signal.SIGINT, signal.SIGTERM):
                logger.error(f"{command.name} was ended by signal {code - SIGNALLED}; start again to go on from there")
            if code and not (code == EXIT_INCOMPLETE and args.allow_incomplete):
                return code  # all else the stage itself has said
            incomplete = incomplete or code
    return incomplete


def main() -> int:
    return run_main(build_parser(), run, "finished stages are recorded; start again to go on")


if __name__ == "__main__":
    sys.exit(main())
