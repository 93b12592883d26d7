"""A few pairs of a run in the terminal, or of what was rejected: sentence and translation side by side.

    python scripts/sample.py outputs/demo --language Basque -n 5
    python scripts/sample.py outputs/demo --language Basque --rejected sentence_other_language
    python scripts/sample.py outputs/demo --rejected | cut -f 3,5

Pairs are drawn at random, the same ones for the same --seed, in one pass over the files, which may still be growing. In a pipe each
pair is a line with tabs between: id, language, reason (empty: kept), score, sentence, translation.
"""

import argparse
import os
import random
import shutil
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import wcwidth

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from topxgen.common import freshness, shards
from topxgen.common.cli import Parser, int_range, run_main
from topxgen.common.console import printable
from topxgen.common.errors import UsageError, did_you_mean
from topxgen.common.records import FilteredLayout
from topxgen.common.reservoir import Reservoir
from topxgen.runs.folders import Run, code_of, find
from topxgen.runs.reading import Problems
from topxgen.runs.rows import Row, rows, texts
from topxgen.text import languages

ANY = "any"
MIN_WIDTH, GAP = 40, "  "
DIM, RED, GREEN, PLAIN = "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[0m"
# Around text of a column, so that a terminal that orders right-to-left text leaves the columns where they are.
LEFT_TO_RIGHT_MARK, ISOLATE, END_OF_ISOLATE = "\u200e", "\u2068", "\u2069"


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    # fmt: off
    parser.add_argument("dir", type=Path, metavar="DIR",
                        help="the output directory of a run, or a folder above several")
    parser.add_argument("--language", metavar="LANGUAGE", help="English name or code [all languages]")
    parser.add_argument("-n", "--number", type=int_range(1, 10_000), default=5, metavar="N",
                        help="how many pairs are drawn")
    parser.add_argument("--rejected", nargs="?", const=ANY, metavar="REASON",
                        help="pairs, candidates and paragraphs that were rejected for this reason, or without one for any; see docs/files.md")
    parser.add_argument("--seed", type=int_range(0), default=122, metavar="SEED", help="seed of the draw")
    parser.add_argument("--width", type=int_range(MIN_WIDTH, 10_000), metavar="COLUMNS",
                        help="columns of this width, also in a pipe [that of the terminal]")
    # fmt: on
    return parser


def run(args: argparse.Namespace) -> int:
    found, problems, reasons = find(args.dir), Problems(), Counter()
    chosen = _languages(found, args.language)
    wanted = (
        row for row in _rows(found, chosen, args.rejected is not None, problems) if _fits(row, args.rejected, reasons)
    )
    drawn = Reservoir(args.number, random.Random(args.seed))
    for row in wanted:
        drawn.add(row)
    sample = drawn.in_order()
    for problem in (*found.problems, *problems.lines()):
        print(f"not read: {printable(problem)}", file=sys.stderr)
    if not sample:
        raise _nothing(args, found, chosen, reasons)
    in_terminal = sys.stdout.isatty()
    colours = in_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    if args.width or in_terminal:
        width = args.width or max(MIN_WIDTH, shutil.get_terminal_size().columns)
        for row in sample:
            print("\n".join(side_by_side(row, width, colours, isolate=in_terminal)), end="\n\n")
    else:
        for row in sample:
            print(tabbed(row))
    return 0


def _languages(found: Run, name: str | None) -> tuple[str, ...]:
    """Those of the run that a name or code means. Raises UsageError if it has none."""
    if name is None:
        return found.languages
    chosen = tuple(own for own in found.languages if code_of(own) == code_of(name))
    if not chosen:
        there = ", ".join(found.languages) or "none"
        raise UsageError(
            f"--language {name}: {found.root} has no pairs of it (languages: {there}){did_you_mean(name, found.languages)}"
        )
    return chosen


def _rows(found: Run, chosen: Sequence[str], rejected: bool, problems: Problems) -> Iterator[Row]:
    for language in chosen:
        for one in found.back_translations:
            if language in one.languages:
                shards.check_merged(one.layout().translations(language))
                if one.filtered:
                    freshness.check(FilteredLayout(one.filtered).filtered(language))
                yield from rows(one, language, rejected=rejected, problems=problems)
        for folder in found.generations if rejected else ():
            yield from texts(folder, language, problems=problems)


def _fits(row: Row, rejected: str | None, reasons: Counter[str]) -> bool:
    reasons[row.reason] += 1
    return row.state == "kept" if rejected is None else bool(row.reason) and rejected in (ANY, row.reason)


def _nothing(args: argparse.Namespace, found: Run, chosen: Sequence[str], reasons: Counter[str]) -> UsageError:
    where = f"{args.dir}{f', {chosen[0]}' if args.language else ''}"
    kept = reasons.pop("", 0)
    others = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common())
    if args.rejected is None and not kept + reasons.total():
        return UsageError(f"{where}: no pairs yet{', only paragraphs' if found.generations else ''}")
    if args.rejected is None:
        return UsageError(f"{where}: no pair was kept{f'; --rejected shows others: {others}' if others else ''}")
    if args.rejected == ANY or not others:
        return UsageError(f"{where}: nothing was rejected, of {kept:,} pairs")
    hint = did_you_mean(args.rejected, reasons)
    return UsageError(f"--rejected {args.rejected}: {where} has none; its reasons are {others}{hint}")


def tabbed(row: Row) -> str:
    """A line of a pipe."""
    score = "" if row.score is None else f"{row.score:.4g}"
    cells = row.id, row.language, row.reason, score, row.sentence, row.translation or ""
    return "\t".join(printable(" ".join(cell.split())) for cell in cells)


def side_by_side(row: Row, width: int, colours: bool, isolate: bool) -> list[str]:
    """The lines of a pair: a head, then both texts in columns. A text alone (a paragraph) has all the width."""
    head = [row.id, "" if row.score is None else f"score {row.score:.3g}", row.topic or ""]
    verdict = f"{row.reason}{f' ({row.detail})' if row.detail else ''}" if row.reason else row.state
    lines = [
        f"{_painted(verdict, RED if row.reason else GREEN, colours)}  {_painted('  '.join(filter(None, head)), DIM, colours)}"
    ]
    single = row.translation is None
    each = width if single else (width - len(GAP)) // 2
    isolate &= any(unicodedata.bidirectional(char) in ("R", "AL") for char in row.sentence + (row.translation or ""))
    columns = [_wrapped(row.sentence, row.language, each)]
    if not single:
        columns.append(_wrapped(row.translation, row.target_language, each))
    for i in range(max(map(len, columns))):
        cells = [column[i] if i < len(column) else " " * each for column in columns]
        if isolate:
            cells = [f"{ISOLATE}{cell}{END_OF_ISOLATE}" for cell in cells]
        lines.append((LEFT_TO_RIGHT_MARK if isolate else "") + GAP.join(cells).rstrip())
    return lines


def _wrapped(text: str, language: str, width: int) -> list[str]:
    """The lines of a text, as wide as its column; aligned to the right if the language is written from there."""
    try:
        align = wcwidth.rjust if languages.find(language).right_to_left else wcwidth.ljust
    except UsageError:  # a language of the run's own
        align = wcwidth.ljust
    return [align(line, width) for line in wcwidth.wrap(printable(" ".join(text.split())), width)] or [" " * width]


def _painted(text: str, colour: str, colours: bool) -> str:
    text = printable(" ".join(text.split()))
    return f"{colour}{text}{PLAIN}" if colours and text else text


def main() -> int:
    return run_main(build_parser(), run, "nothing was changed")


if __name__ == "__main__":
    sys.exit(main())
