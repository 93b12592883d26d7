"""Download everything that runs load from elsewhere into one folder, for nodes without internet.

    python scripts/prefetch.py configs/runs/topxgen.yaml --folder /shared/topxgen
    python scripts/prefetch.py configs/runs/topxgen.yaml --folder /shared/topxgen --check
    source /shared/topxgen/env.sh    # in a job on a node without internet

Models, tokenizers, data sets, metrics and sacreBLEU's tokenizers: of each repository only the files that are used, of data
sets the languages of the run. Every file is compared with the size and digest that the Hub lists. If interrupted, run it again: it
continues with what is missing. What cannot be downloaded, such as a gated repository whose terms are not accepted, is listed at
the end, all at once. The folder has the layout of HF_HOME and may be copied to another machine. Experiments and rounds are run files, too.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from topxgen.common.cli import EXIT_INCOMPLETE, FLAG, Parser, run_main
from topxgen.common.console import aligned, show
from topxgen.common.locks import OutputLock
from topxgen.experiments import fetching
from topxgen.experiments.assets import Asset, assets, read_commands
from topxgen.experiments.chain import add_set_flag


def build_parser() -> Parser:
    parser = Parser(__doc__, incomplete="something that the runs need is missing or damaged")
    parser.add_argument("files", nargs="+", type=Path, metavar="RUN.yaml", help="run files, experiments or rounds")
    parser.add_argument("--folder", type=Path, metavar="DIR",
                        help="folder to download to, in the layout of HF_HOME [$HF_HOME, else ~/.cache/huggingface]")  # fmt: skip
    add_set_flag(parser)
    parser.add_argument("--check", **FLAG, help="only list what is missing, without a network")
    parser.add_argument(
        "--hashes",
        **FLAG,
        help="also read each file and compare its digest; without --check, download again those that differ",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    found = [command for file in args.files for command in read_commands(file, args.set)]
    whole = fetching.is_intact if args.hashes else fetching.has_size
    if args.check:
        return check(args, assets(found, args.folder), whole)
    from huggingface_hub import constants

    folder = args.folder or Path(constants.HF_HOME)
    with OutputLock(folder, "prefetch", flag="--folder"):
        fetching.quiet_downloads()
        fetcher = fetching.Fetcher(folder, whole)
        rows = fetcher.fetch(found)
        script = fetching.write_environment(folder)
    code = report(rows, fetcher.problems)
    show(f"{script}: source it in jobs on nodes without internet\n\n{fetching.environment()}")
    return code


def check(args: argparse.Namespace, rows: list[Asset], whole: Callable[[Path, dict], bool]) -> int:
    from huggingface_hub import constants

    folder = args.folder or Path(constants.HF_HOME)
    problems = dict(fetching.damaged(folder, whole))
    return report(rows, problems | (dict(fetching.damaged_blobs(folder, rows)) if args.hashes else {}))


def report(rows: list[Asset], problems: dict[str, str]) -> int:
    """Print a table of all, and what is missing or wrong; the exit code."""
    table = [["", "kind", "name", "for", "MB", "commit"]]
    lines, optional = [], []
    for asset in rows:
        problem = problems.get(asset.name) or asset.problem
        users = ", ".join(dict.fromkeys(asset.stages))
        state = "optional" if asset.fallback else "missing" if problem else "ok"
        size = f"{asset.size / 1e6:,.1f}" if asset.size else "-"
        table.append([state, asset.kind, asset.name, users, size, asset.revision[:8]])
        if problem:
            remedy = f"; {asset.remedy}" if asset.remedy and asset.name not in problems else ""
            without = f"; {asset.fallback}" if asset.fallback else ""
            line = f"{asset.kind} {asset.name} (for {users}): {problem}{without}{remedy}"
            (optional if asset.fallback else lines).append(line)
    show("\n".join(aligned(table, left=4)))
    there = f"all {len(rows)} are there" if not optional else "everything that the runs need is there"
    show(f"\n{len(lines)} of {len(rows)} missing:\n" + "\n".join(lines) if lines else f"\n{there}")
    if optional:
        show("\nmissing, but optional:\n" + "\n".join(optional))
    return EXIT_INCOMPLETE if lines else 0


def main() -> int:
    return run_main(build_parser(), run, "downloaded files are kept; re-run to continue")


if __name__ == "__main__":
    sys.exit(main())
