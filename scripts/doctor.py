"""Check, before a run starts, what would stop it on this machine or make it slow.

    python scripts/doctor.py
    python scripts/doctor.py configs/runs/topxgen.yaml
    python scripts/doctor.py configs/runs/topxgen.yaml --gpu A100-80 --num_gpus 4    # on a login node
    python scripts/doctor.py configs/runs/topxgen.yaml --prices 0.1 0.4 --json

Python, GPUs and driver, packages, COMET's environment; with a run file, an experiment or rounds also memory for the models, disk,
file locks, models and data that are missing, access to gated ones, and hours and cost of each stage. Each problem has a remedy.
The Hub is asked for the size of models that are not downloaded; with HF_HUB_OFFLINE=1 no network is used. What cannot be
determined is reported as unknown and counted in the last line. Nothing is downloaded, and no file is left behind. docs/hardware.md explains the arithmetic.
"""

import argparse
import json
import os
import shutil
import socket
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 (older ones do not get as far as the check)
    sys.exit("doctor.py: error: Python %d.%d is not supported; use 3.11 to 3.13" % sys.version_info[:2])  # noqa: UP031
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from topxgen.common import flag_rules
from topxgen.common.cli import FLAG, Parser, count, run_main
from topxgen.common.console import aligned, counted, one_line, show, width
from topxgen.common.flag_rules import Rule
from topxgen.common.run_files import RunFile
from topxgen.doctor import NOTE, OK, PROBLEM, UNKNOWN, Finding, arithmetic, examine, hours
from topxgen.doctor.gpus import of_kind
from topxgen.doctor.situation import Situation
from topxgen.doctor.software import PACKAGES, imports
from topxgen.experiments.assets import read_commands
from topxgen.experiments.chain import add_set_flag
from topxgen.experiments.job_resources import training_nodes
from topxgen.flags import add_reported_prices_flag
from topxgen.inference.costs import Prices, span

EXIT_PROBLEM = 1
CODES = {
    0: "no problem",
    1: "at least one problem; what is unknown is counted in the last line",
    130: "interrupted (Ctrl-C)",
}
MAX_WIDTH, MAX_SUBJECT, MAX_STAGE, MAX_WORK = 100, 28, 34, 40
COLOURS = {OK: "\x1b[32m", NOTE: "\x1b[33m", PROBLEM: "\x1b[31m"}
PLAIN = "\x1b[0m"
RULES = (
    Rule(("set", "prices"), "RUN.yaml", lambda args: args.file is not None),
    Rule(("num_gpus",), "--gpu", lambda args: args.gpu is not None),
)


def build_parser() -> Parser:
    parser = Parser(__doc__, codes=CODES)
    # fmt: off
    parser.add_argument("file", nargs="?", type=Path, metavar="RUN.yaml",
                        help="a run file, an experiment or rounds [the machine alone]")
    add_set_flag(parser)
    parser.add_argument("--imports", nargs="*", choices=PACKAGES, metavar="PACKAGE",
                        help="also import these, each in a process of its own; without names torch, vLLM and all that are installed (a minute)")
    add_reported_prices_flag(parser.add_argument)
    parser.add_argument("--gpu", metavar="NAME|MEMORY",
                        help=f"check against such GPUs instead of this machine's: {', '.join(arithmetic.CARDS)}, or the memory of one, such as 24GB")
    # fmt: on
    parser.add_argument("--num_gpus", **count(1, "how many of --gpu the run gets", 1, maximum=10_000))
    parser.add_argument("--json", **FLAG, help="print JSON instead of the screen")
    return parser


def run(args: argparse.Namespace) -> int:
    flag_rules.check(RULES, args)
    prices = Prices.of(args.prices)
    commands = read_commands(args.file, args.set) if args.file else []
    nodes = training_nodes(RunFile.read(args.file, args.set)) if args.file else ()
    situation = Situation(commands, of_kind(args.gpu, args.num_gpus) if args.gpu is not None else None, *nodes)
    findings = list(examine(situation))
    if args.imports is not None:
        findings += [("imports", finding) for finding in imports(args.imports)]
    estimates = hours.needed(situation, prices)
    problems = sum(finding.level == PROBLEM for _, finding in findings)
    if args.json:
        show(json.dumps(to_json(args.file, findings, estimates), indent=2))
        return EXIT_PROBLEM if problems else 0
    what = f"{args.file}, {counted(len(commands), 'command')}" if args.file else "the machine alone"
    show(f"{what}, on {socket.gethostname()}\n")
    show_findings([finding for _, finding in findings])
    if estimates:
        show_estimates(estimates)
    unknown = sum(finding.level == NOTE and UNKNOWN in finding.text for _, finding in findings)
    notes = sum(finding.level == NOTE for _, finding in findings) - unknown
    counts = [(problems, "problem"), (notes, "note")]
    words = [counted(count, word) for count, word in counts]
    show("\n" + ", ".join([words[0], *([f"{unknown} unknown"] if unknown else []), words[1]]))
    return EXIT_PROBLEM if problems else 0


def to_json(file: Path | None, findings: list[tuple[str, Finding]], estimates: list[hours.Needed]) -> dict:
    return {
        "file": None if file is None else str(file),
        "host": socket.gethostname(),
        "findings": [{"check": name, **asdict(finding)} for name, finding in findings],
        "estimates": [row._asdict() for row in estimates],
    }


def show_findings(findings: list[Finding]) -> None:
    """A line for each finding, wrapped, its remedy below it, or below the last of those in a row that have it in common."""
    terminal = sys.stdout.isatty()
    coloured = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    columns = min(MAX_WIDTH, shutil.get_terminal_size().columns) if terminal else MAX_WIDTH
    subjects = [cut(one_line(finding.subject), MAX_SUBJECT) for finding in findings]
    wide = max(map(width, subjects), default=0)
    indent, alike = len(PROBLEM) + wide + 4, 0
    for number, (finding, subject) in enumerate(zip(findings, subjects, strict=True), start=1):
        level = f"{finding.level:{len(PROBLEM)}}"
        level = f"{COLOURS[finding.level]}{level}{PLAIN}" if coloured else level
        # Names that were cut are whole in the text.
        text = finding.text if subject == one_line(finding.subject) else f"{finding.subject}: {finding.text}"
        first, *rest = wrapped(one_line(text), columns - indent)
        alike += 1
        following = findings[number] if number < len(findings) else None
        if following is None or (finding.level, finding.remedy) != (following.level, following.remedy):
            about = f"these {alike}: " if alike > 1 and finding.remedy else ""
            remedy = wrapped(one_line(about + finding.remedy), columns - indent - 3)
            rest += [f"{'   ' if i else '-> '}{line}" for i, line in enumerate(remedy)]
            alike = 0
        print(f"{level}  {subject}{' ' * (wide - width(subject))}  {first}")
        for line in rest:
            print(f"{' ' * indent}{line}")


def cut(text: str, most: int) -> str:
    """`text` in at most that many columns: the end of a path or Hub id says more than its beginning."""
    if width(text) <= most:
        return text
    while width(text) > most - 3:
        text = text[1:]
    return f"...{text}"


def shortened(stage: str) -> str:
    """The name of a command, and as much as fits of what it does; "generate" and "translate" always fit."""
    name, colon, what = stage.partition(": ")
    return f"{name}{colon}{cut(what, max(MAX_STAGE - width(name + colon), 10))}"


def wrapped(text: str, columns: int) -> list[str]:
    return textwrap.wrap(text, max(20, columns), break_on_hyphens=False)


def show_estimates(estimates: list[hours.Needed]) -> None:
    rows = [("stage", "work", "M in", "M out", "hours", "by", "USD")]
    unknown = []
    for row in estimates:
        work = row.work
        if work.startswith(UNKNOWN):
            unknown.append(f"{row.stage}: {work}")
            work = ""
        tokens = [span([n / 1e6 for n in pair]) if pair else "-" for pair in (row.prompt_tokens, row.completion_tokens)]
        time = "< 0.01" if row.hours and row.hours[1] < 0.01 else span(row.hours) or "unknown"
        by, usd = row.by or "-", span(row.usd) or "-"
        rows.append((shortened(row.stage), cut(work or "-", MAX_WORK), *tokens, time, by, usd))
    columns = [column for column in zip(*rows, strict=True) if {*column[1:]} != {"-"}]
    lines = aligned(list(zip(*columns, strict=True)), left=2)
    show("\nestimates, lowest to highest; M: million tokens\n" + "\n".join(lines))
    for line in unknown:
        show("\n".join(wrapped(one_line(line), MAX_WIDTH)))


def main() -> int:
    return run_main(build_parser(), run, "nothing was changed; start it again")


if __name__ == "__main__":
    sys.exit(main())
