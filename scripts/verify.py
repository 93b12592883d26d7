"""Check that the files of a run are what they claim: every digest, count and score that can be computed again.

    python scripts/verify.py outputs/demo
    python scripts/verify.py outputs/demo --verbose
    python scripts/verify.py outputs/experiment --benchmark_dir ~/benchmarks --json verified.json

DIR is the output directory of a run, or any folder in or above one. SHA256SUMS, manifests, lists of checkpoints, decontamination
reports, scores, tables, records of run files and pages are compared with the files that are there: what does not hold is printed,
one line each with both values, then what was not checked and why. Scores of metrics of strings are computed again from
translations and test sets; scores of models are not. Nothing is written to DIR, downloaded or repaired; a run may be going on.

Exit code 0: all that was checked holds; 1: something does not. docs/verification.md says what each kind of file is checked by.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from topxgen.common.cli import FLAG, Parser, run_main
from topxgen.common.console import show
from topxgen.common.errors import UsageError
from topxgen.common.files import check_output_files, write_json
from topxgen.corpora import benchmarks

EXIT_WRONG = 1
MAX_LISTED = 20  # lines of a list, without --verbose


def build_parser() -> Parser:
    parser = Parser(__doc__, codes={0: "all that was checked holds", 1: "something does not hold"})
    add = parser.add_argument
    add("dir", type=Path, metavar="DIR", help="output directory of a run, or a folder in or above one")
    add("--benchmark_dir", type=Path, metavar="DIR",
        help="local copies of benchmarks in their publishers' layout, to compare texts and compute scores again [where the "
             "run read them, else $TOPXGEN_BENCHMARK_DIR]")  # fmt: skip
    add("--languages_file", metavar="TSV", help="languages that the run knew besides those of the table")
    add("--no_scores", **FLAG, help="do not compute scores again, which takes the longest")
    add("--verbose", **FLAG, help="list all that was not checked, and the files that nothing claims")
    add("--json", type=Path, metavar="FILE", help="also write the result to this file, outside DIR")
    return parser


def run(args: argparse.Namespace) -> int:
    from comptra import verify

    if not args.dir.is_dir():
        raise UsageError(f"{args.dir} is not a folder; pass the output directory of a run")
    if args.json:
        check_output_files({"--json": args.json}, {"--json": r'\{\s*"root": '})
        if args.dir.resolve() in args.json.resolve().parents:
            raise UsageError(f"--json {args.json} is in {args.dir}, in which nothing is written; pass another path")
    benchmarks.existing_folder(args.benchmark_dir)  # a wrong flag or variable is not a wrong result
    audit = verify.verify(args.dir, verify.Options(args.benchmark_dir, args.languages_file, not args.no_scores))
    for line in lines(audit, args.verbose):
        show(line)
    if args.json:
        write_json(args.json, verify.as_json(audit))
    return EXIT_WRONG if audit.problems else 0


def lines(audit, verbose: bool):
    """What a terminal shows."""
    from comptra import verify

    yield from audit.running
    yield from map(str, audit.problems)
    unclaimed = verify.unclaimed(audit)
    skipped = [f"{file}: {reason}" for file, reasons in audit.unchecked.items() for reason in reasons]
    for title, found in (
        ("not checked", skipped),
        ("claimed by nothing", [f"{file}{f': {why}' if why else ''}" for file, why in unclaimed.items()]),
    ):
        if found and (verbose or title == "not checked"):
            shown = found if verbose else found[:MAX_LISTED]
            yield f"{title}:"
            yield from (f"  {line}" for line in shown)
            if len(shown) < len(found):
                yield f"  and {len(found) - len(shown)} more (--verbose)"
    checked = audit.checked
    more = " (--verbose lists them)" if unclaimed and not verbose else ""
    yield (
        f"{checked['files']:,} files ({checked['bytes'] / 1e6:,.1f} MB), {checked['counts']:,} counts and digests, "
        f"{checked['scores']:,} scores checked; {len(unclaimed):,} files claimed by nothing{more}"
    )
    yield f"{len(audit.problems):,} claims do not hold" if audit.problems else "everything checked holds"


def main() -> int:
    return run_main(build_parser(), run, "nothing was changed")


if __name__ == "__main__":
    sys.exit(main())
