"""One page to look at a run: an HTML file that needs no network and nothing beside it.

    python scripts/report.py outputs/demo -o report.html
    python scripts/report.py configs/runs/demo.yaml -o report.html
    python scripts/report.py outputs/demo -o all.html --max_mb 60

DIR is the output directory of a run, at any stage: it may still be written to, lack stages, or be of an older version or of the
original code. A run file stands for its output_dir, and those of its stages. The page has a section for each kind of file that is
there: paragraphs and pairs with the reasons of rejects, distributions, contamination, training, evaluation, and the commands and
settings of all stages. It says what it does not show. Open it in any current browser; nothing is fetched, and texts of models
cannot run in it.

All pairs are in the page as long as it stays below --max_mb; beyond that a sample is, with all reasons and languages, and the page
says how many of how many. Nothing in DIR is changed, unless you write the page there. docs/report.md describes the sections.
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from topxgen.common import checksums
from topxgen.common.cli import EXIT_INCOMPLETE, Parser, count, float_range, int_range, run_main
from topxgen.common.console import show
from topxgen.common.errors import UsageError
from topxgen.common.files import check_output_files, write_atomic
from topxgen.common.provenance import command_line
from topxgen.corpora import benchmarks

logger = logging.getLogger("topxgen.report")
MB = 1_000_000


def build_parser() -> Parser:
    parser = Parser(
        __doc__, incomplete="files or lines could not be read, which the page names, or it is larger than --max_mb"
    )
    parser.add_argument("run", type=Path, metavar="DIR|RUN.yaml", help="output directory of a run, or a run file")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="HTML", help="the page to write")
    # fmt: off
    parser.add_argument("--max_mb", type=float_range(1, 2000), default=5.0, metavar="MB",
                        help="size of the page in megabytes (1,000,000 bytes); pairs beyond it are left out")
    parser.add_argument("--max_examples", **count(1, "examples of each reject reason in each language", 20))
    parser.add_argument("--seed", type=int_range(0, 2**32 - 1), default=122, help="seed of the samples")
    parser.add_argument("--benchmark_dir", type=Path, metavar="DIR",
                        help="local copies of benchmarks, for sources and references of translations that their files lack [what the run names]")
    # fmt: on
    return parser


def run(args: argparse.Namespace) -> int:
    from comptra.report import Options, packing, page
    from comptra.report.sources import watching
    from topxgen.runs.folders import find

    check_output_files({"--output": args.output})
    if args.output.exists() and args.output.stat().st_size and not packing.is_page(args.output):
        raise UsageError(f"--output {args.output} exists and is not a page of a run; remove it, or pass another name")
    if args.benchmark_dir:
        benchmarks.existing_folder(args.benchmark_dir)
    root, *others = _folders(args.run)
    options = Options(args.seed, args.max_examples, benchmark_dir=args.benchmark_dir)
    limit = int(args.max_mb * MB)
    with watching(root, *others) as sources:
        pieces = page.build(find(root, *others), sources, options, limit, command_line(()))
    write_atomic(args.output, pieces)
    checksums.claim_file(args.output)
    size = args.output.stat().st_size
    problems = [notice for notice in options.notices if notice.level == "problem"]
    for notice in {notice.text: notice for notice in reversed(problems)}.values():  # of several sections' the first
        logger.warning(f"{notice.section or root}: {notice.text}")
    show(f"{args.output}: {size / MB:.1f} MB")
    if size > limit:
        logger.warning(
            f"{args.output} is larger than --max_mb {args.max_mb:g}: the sections without pairs need as much"
        )
    return EXIT_INCOMPLETE if problems or size > limit else 0


def _folders(path: Path) -> list[Path]:
    """The folder of a run, given itself or by its run file, and others that stages of a run file write to."""
    if path.is_dir():
        return [path]
    if not path.exists():
        raise UsageError(f"{path} does not exist; pass the output directory of a run, or its run file")
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{path} is neither a directory nor a run file (.yaml); pass the output directory of a run")
    from topxgen.common.run_files import RunFile
    from topxgen.experiments.chain import flags_by_section, folder_of

    file = RunFile.read(path)
    folder = folder_of(file)
    if not folder.is_dir():
        raise UsageError(
            f"{folder}, the output_dir of {path}, does not exist: run it first (python scripts/run.py {path})"
        )
    flags = flags_by_section()
    named = [entry.get("output_dir") for section in file.sections for entry in file.stage(section, flags[section])]
    return [folder, *(Path(name) for name in dict.fromkeys(filter(None, named)) if Path(name).is_dir())]


def main() -> int:
    return run_main(build_parser(), run, "no page was written, and the run is unchanged")


if __name__ == "__main__":
    sys.exit(main())
