"""What runs below a folder and how far it is: stages with their progress, speed, rejects and cost, and who works on them.

    python scripts/status.py outputs/demo
    python scripts/status.py outputs/demo --watch
    python scripts/status.py outputs/demo --json

It reads the files that the stages write and asks who holds their locks, also of jobs on other machines that share the file
system; it changes nothing, takes no lock and may run at any time. Speed is measured between two looks (--watch), between the
last two checkpoints, or over a stage that one process did from its beginning; the line below a stage says which.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from topxgen.common import flag_rules
from topxgen.common.cli import FLAG, Parser, float_range, run_main
from topxgen.common.console import aligned, one_line, show, width
from topxgen.common.flag_rules import Rule
from topxgen.flags import add_reported_prices_flag
from topxgen.inference.costs import Prices
from topxgen.runs.stages import FINISHED, RUNNING, STATES, UNKNOWN, Stage, Status, merged_before
from topxgen.runs.status import Watcher

RULES = (Rule(("interval",), "--watch", lambda args: args.watch),)
UNITS = (("s", 1), ("min", 60), ("h", 3600))
COLUMNS = ("stage", "language", "state", "done", "", "rate", "left", "written")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    # fmt: off
    parser.add_argument("dir", type=Path, metavar="DIR",
                        help="the output directory of a run, or a folder above several")
    parser.add_argument("--watch", **FLAG, help="look again and again, until nothing runs any more")
    parser.add_argument("--interval", type=float_range(0.05, 86_400), default=10.0, metavar="SECONDS",
                        help="time between two looks")
    # fmt: on
    parser.add_argument("--json", **FLAG, help="print JSON, with --watch a line for each look")
    add_reported_prices_flag(parser.add_argument)
    return parser


def run(args: argparse.Namespace) -> int:
    flag_rules.check(RULES, args)
    watcher = Watcher(args.dir, Prices.of(args.prices))
    while True:
        status = watcher.look()
        text = (
            json.dumps(asdict(status), indent=None if args.watch else 2)
            if args.json
            else "\n".join(map(one_line, lines(status)))
        )
        if args.watch and not args.json and sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[2J")  # clears the screen
        show(text)
        if not args.watch or not active(status):
            return 0
        time.sleep(args.interval)


def active(status: Status) -> bool:
    """Whether a process is at work: one that has not written anything yet, too."""
    return any(process["state"] in (RUNNING, UNKNOWN) for process in status.processes)


def lines(status: Status) -> Iterator[str]:
    """The status as it is shown in a terminal."""
    yield f"{status.root}, seen from {status.host} at {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(status.at))}"
    for process in status.processes:
        held = [part for part in process["holds"] if part]
        what = f"{', '.join(held)} in {process['folder']}" if held else process["folder"]
        since = time.strftime("%m-%d %H:%M:%S", time.localtime(process["since"]))
        yield f"{process['state']}: process {process['process'] or '?'} on {process['host'] or '?'} since {since}: {what}"
        if process["command"]:
            yield f"  {process['command']}"
    if not status.stages:
        yield "no files of a stage yet"
        yield from _footer(status)
        return
    yield ""
    rows = aligned([COLUMNS, *(_row(stage, status.at) for stage in status.stages)], left=4)
    wide = max(map(width, rows))
    yield _with_folder(rows[0], "folder", wide)
    for stage, row in zip(status.stages, rows[1:], strict=True):
        yield _with_folder(row, one_line(stage.folder), wide)
        yield from (f"  {line}" for line in _details(stage))
    yield from _footer(status)


def _with_folder(row: str, folder: str, wide: int) -> str:
    """The folder stands last: those of main.py are longer than a terminal is wide."""
    return f"{row}{' ' * (wide - width(row))}  {folder}"


def _row(stage: Stage, now: float) -> tuple[str, ...]:
    done = "" if stage.done is None else f"{stage.done:,}" + ("" if stage.of is None else f"/{stage.of:,}")
    share = f"{100 * min(stage.done, stage.of) // stage.of}%" if stage.done is not None and stage.of else ""
    left = "" if stage.seconds_left is None else _clock(stage.seconds_left)
    written = "" if stage.changed is None else f"{_clock(now - stage.changed)} ago"
    name = stage.language or "-"
    return (stage.stage, one_line(name), stage.state, f"{done} {stage.unit}", share, _rate(stage.rate), left, written)


def _details(stage: Stage) -> Iterator[str]:
    if stage.state != FINISHED:
        counts = [f"{_number(value)} {name.replace('_', ' ')}" for name, value in stage.counts.items() if value]
        yield from [", ".join(counts)] if counts else []
        if stage.rejected:
            yield f"rejected: {_reasons(stage.rejected)}"
        if sum(stage.last_rejects.values()) < sum(stage.rejected.values()):
            yield f"the last {sum(stage.last_rejects.values())} rejects: {_reasons(stage.last_rejects)}"
    if stage.of_all is not None:
        yield f"of {stage.of_all:,} {stage.unit} in all languages of its process together"
    if stage.state == RUNNING:
        yield f"rate: {stage.rate_from}" if stage.rate else "rate: not known yet; --watch measures it"
    if stage.tokens and (stage.state != FINISHED or stage.usd is not None):
        prompts, answers, cached = stage.tokens.values()
        cost = "" if stage.usd is None else f"; {stage.usd:,.2f} USD"
        yield f"{prompts:,} prompt tokens ({cached:,} cached), {answers:,} new tokens{cost}"


def _footer(status: Status) -> Iterator[str]:
    shown = {stage.state for stage in status.stages} - {FINISHED, RUNNING}
    if shown or status.records or status.failures or status.problems or status.usd is not None:
        yield ""
    for state in (name for name in STATES if name in shown):
        yield f"{state}: {STATES[state]}"
    if status.usd is not None:
        unknown = sorted({stage.stage for stage in status.stages if stage.tokens and stage.usd is None})
        without = f", without {', '.join(unknown)}: pass --prices" if unknown else ""
        without += ", without what shards have cost since their last merge" if merged_before(status.stages) else ""
        yield f"cost so far: {status.usd:,.2f} USD{without}"
    for record in status.records:
        code = "" if not record["exit_code"] else f" with exit code {record['exit_code']}"
        hours = "" if record["hours"] is None else f" in {_clock(record['hours'] * 3600)}"
        yield f"{record['folder']}: {record['stage']} finished{code}{hours}, {record['finished'] or 'when is not known'}"
    for failure in status.failures:
        error = f": {failure['error']}" if failure["error"] else ""
        yield f"{failure['folder']}: {failure['stage']} failed with exit code {failure['exit_code']}, {failure['failed']}{error}"
    yield from (f"not shown: {problem}" for problem in status.problems)


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def _rate(per_second: float | None) -> str:
    if not per_second:
        return ""
    unit, seconds = next((one for one in UNITS if per_second * one[1] >= 1), UNITS[-1])
    return f"{per_second * seconds:.3g}/{unit}"


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(max(seconds, 0)), 3600)
    days, hours = divmod(hours, 24)
    minutes, seconds = divmod(rest, 60)
    return f"{days} d {hours:02d}:{minutes:02d}" if days else f"{hours}:{minutes:02d}:{seconds:02d}"


def main() -> int:
    return run_main(build_parser(), run, "nothing was changed")


if __name__ == "__main__":
    sys.exit(main())
