"""Find and remove generated text that overlaps an evaluation set, on both sides of the pairs, and say what was done.

    python decontamination.py --input_dir outputs/gemma/nllb-200-3.3B --languages Basque Hausa

reads {Language}_translate.jsonl there and writes {Language}_translate_filtered.jsonl beside it, with every hit in
{Language}_translate_contaminated.jsonl and a report in decontamination_report.md and .json. On a node without internet
the benchmarks come from a folder that holds them as their publishers ship them (flores200_dataset/, NTREX-128/,
tico19-testset/, xquad/), and test sets of your own from any file:

    python decontamination.py --input_dir outputs/gemma/nllb-200-3.3B --languages Basque \\
        --benchmark_dir ~/benchmarks --benchmarks flores ntrex xquad my_test_set.tsv

`--audit` looks and removes nothing. Killed? The same command goes on where it stopped.
"""

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path

from topxgen.common import provenance
from topxgen.common.cli import FLAG, Parser, float_range, int_range, run_main
from topxgen.common.errors import UsageError
from topxgen.common.files import write_atomic
from topxgen.common.locks import OutputLock
from topxgen.common.records import FilteredLayout
from topxgen.corpora import benchmarks
from topxgen.decontamination import benchmark_texts, filter, ngram_hashes, ngram_index
from topxgen.decontamination import report as report
from topxgen.decontamination.run import check, filter_file, inputs, report_paths, settings_of
from topxgen.text import languages

logger = logging.getLogger("topxgen.decontaminate")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)

    group = parser.add_argument_group("what to check")
    group.add_argument(
        "--input_dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="holds {Language}_translate.jsonl, as datagen.py leaves it",
    )
    group.add_argument(
        "--languages",
        nargs="+",
        metavar="LANGUAGE",
        help="English names or FLORES codes [all that lie in the input directory]",
    )
    group.add_argument(
        "--languages_file", metavar="TSV", help="rows of your own, with the columns of topxgen/text/languages.tsv"
    )
    group.add_argument("--target_language", default="English", help="of the translations [%(default)s]")

    group = parser.add_argument_group("against what")
    group.add_argument(
        "--benchmarks",
        nargs="+",
        default=["flores", "ntrex", "tico", "xquad"],
        metavar="BENCHMARK",
        help=f"{', '.join(benchmarks.LOADERS)}; a txt, tsv, jsonl or parquet file or a folder of them; a Hub id "
        "[flores ntrex tico xquad]",
    )
    group.add_argument(
        "--benchmark_dir", type=Path, metavar="DIR", help="local copies in their publishers' layouts [the Hub]"
    )
    group.add_argument(
        "--allow_missing",
        nargs="+",
        default=[],
        metavar="BENCHMARK",
        help="go on when this one cannot be loaded; the report says so [any stops the run]",
    )
    group.add_argument(
        "--pool",
        nargs="+",
        default=[],
        metavar="SOURCE",
        help="demonstrations to hold against the benchmarks too, named as in --benchmarks; only reported",
    )

    group = parser.add_argument_group("what overlaps")
    group.add_argument(
        "--ngram_size", type=int_range(1, 1000), default=10, metavar="WORDS", help="shared in a row [%(default)s]"
    )
    group.add_argument(
        "--tokenizer",
        choices=ngram_hashes.TOKENIZERS,
        default="unicode",
        help="original: as published, tears Indic words [%(default)s]",
    )
    group.add_argument(
        "--near_duplicate_threshold",
        type=float_range(0.05, 0.99),
        metavar="F1",
        help="also texts whose ROUGE-L F1 with a benchmark text is above this; 0.6 is a good value [off]",
    )
    group.add_argument(
        "--short_text_rule",
        choices=ngram_index.SHORT_TEXT_RULES,
        default="inside",
        help="benchmark texts of fewer words count when they are the whole of a text, or (from 6 words of 10 on) stand "
        "inside one too [%(default)s]",
    )

    group = parser.add_argument_group("what becomes of it")
    group.add_argument(
        "--drop_on_sentence_overlap",
        choices=filter.ON_SENTENCE,
        default="paragraph",
        help="what goes when a text in the language overlaps [%(default)s]",
    )
    group.add_argument(
        "--drop_on_translation_overlap",
        choices=filter.ON_TRANSLATION,
        default="pair",
        help="what goes when a translation overlaps [%(default)s]",
    )
    group.add_argument("--output_dir", type=Path, metavar="DIR", help="[the input directory]")
    group.add_argument(
        "--report",
        type=Path,
        metavar="PATH",
        help="without or with .json or .md [decontamination_report in the output directory]",
    )
    group.add_argument("--audit", **FLAG, help="write the report (decontamination_audit), drop nothing")
    group.add_argument("--num_workers", type=int_range(1), metavar="N", help="processes [one a core]")
    return parser


def decontaminate(args: argparse.Namespace) -> int:
    args.benchmarks, args.pool = list(dict.fromkeys(args.benchmarks)), list(dict.fromkeys(args.pool))
    paths = inputs(args)
    output_dir = args.output_dir or args.input_dir
    reports = report_paths(args, output_dir)
    check(args, paths, FilteredLayout(output_dir), reports)
    target = languages.find(args.target_language, args.languages_file)
    found = {name: languages.find(name, args.languages_file) for name in paths}
    every = dict.fromkeys([*found.values(), target])
    loaded = benchmark_texts.load(every, args.benchmarks, args.pool, args.benchmark_dir, args.allow_missing)
    for side in loaded.values():
        logger.info(str(side))
    for name in paths:
        if not loaded[name].splits and not loaded[target.name].splits:
            raise UsageError(f"nothing to hold {name} against: none of {' '.join(args.benchmarks)} has it")

    settings = settings_of(args)
    indexes = {name: side.index(settings) for name, side in loaded.items()}
    workers = args.num_workers or len(os.sched_getaffinity(0))
    parts = {}
    with (
        OutputLock(reports[0].parent if args.audit else output_dir),
        tempfile.TemporaryDirectory(prefix="decontamination-") as aside,
    ):
        layout = FilteredLayout(Path(aside) if args.audit else output_dir)
        for name, path in paths.items():
            both = (name, target.name)
            parts[name] = filter_file(
                args, path, layout, [loaded[x] for x in both], [indexes[x] for x in both], workers
            )
        content = {
            "report_only": args.audit,
            "command": provenance.command_line(()),
            "settings": settings,
            "benchmarks": {name: side.facts() for name, side in loaded.items()},
            "languages": parts,
            "audit": [
                row
                for name, side in loaded.items()
                for row in report.audit(
                    side.index({**settings, "near_duplicates": None}, pool=True) if side.pool else indexes[name],
                    {entry.base for entry in side.entries(side.pool)},
                )
            ],
        }
        hits = {name: layout.hits(name) for name in paths}
        write_atomic(reports[0], report.as_json(content, hits))
        write_atomic(reports[1], report.as_markdown(content, hits))
    print(report.summary(parts, args.audit))
    print(f"report: {reports[1]} (to read), {reports[0]} (with every hit)")
    return 0


def main() -> int:
    return run_main(build_parser(), decontaminate, "the input files are unchanged; fix the problem and re-run")


if __name__ == "__main__":
    sys.exit(main())
