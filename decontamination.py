"""Drop generated text that overlaps an evaluation set, on both sides of the pairs, and report every overlap.

Benchmarks from the Hub:

    python decontamination.py --input_dir outputs/gemma/nllb-200-3.3B --languages Basque Hausa

Offline, from a directory with the benchmarks as published (flores200_dataset/, NTREX-128/, tico19-testset/, xquad/), and
with near-duplicates; the second command only reports:

    python decontamination.py --input_dir outputs/gemma/nllb-200-3.3B --languages Basque \\
        --benchmark_dir ~/benchmarks --benchmarks flores ntrex xquad --near_duplicate_threshold 0.6
    python decontamination.py --input_dir outputs/demo/apertium --benchmarks udhr --audit

Reads {Language}_translate.jsonl and writes {Language}_translate_filtered.jsonl beside it, every overlap to
{Language}_translate_contaminated.jsonl, and decontamination_report.md and .json. An interrupted run leaves no incomplete
file: re-run the same command.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

from topxgen import distributed
from topxgen.common import hub, shards
from topxgen.common.cli import FLAG, Parser, choice, count, float_range, int_range, run_main
from topxgen.common.console import show
from topxgen.common.locks import OutputLock, wait_for_lock
from topxgen.common.needs import Need
from topxgen.common.records import FilteredLayout
from topxgen.corpora import benchmarks
from topxgen.decontamination import benchmark_texts, filter, report
from topxgen.decontamination.run import (
    RULES,
    check_allowed,
    check_kept,
    check_paths,
    filter_file,
    input_files,
    layout_of,
    shared,
    take_shard,
    target_language,
    write_reports,
)
from topxgen.flags import SHARD_RULE, add_language_flags, add_partial_benchmark_flag, add_shard_flags
from topxgen.text import languages, ngram_hashes, ngram_index

logger = logging.getLogger(__name__)
EXIT_UNCHECKED = 3  # some texts were compared with nothing


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        __doc__,
        section="decontamination",
        rules=(*RULES, SHARD_RULE),
        check=check_allowed,
        incomplete="texts that were compared with nothing",
    )

    add = parser.add_argument_group("what to check").add_argument
    # fmt: off
    add("--input_dir", type=Path, required=True, metavar="DIR",
        help="directory with {Language}_translate.jsonl, as datagen.py writes it")
    add("--languages", nargs="+", metavar="LANGUAGE",
        help="languages to check: English names or FLORES codes [all in --input_dir]")
    add_language_flags(add)
    add("--target_language", metavar="LANGUAGE",
        help="language of the translations [that in settings_translate.json of --input_dir, else English]")

    add = parser.add_argument_group("benchmarks").add_argument
    add("--benchmarks", nargs="+", default=["flores", "ntrex", "tico", "xquad"], metavar="BENCHMARK",
        help=f"evaluation sets to check against: {', '.join(benchmarks.LOADERS)}; a txt, tsv, jsonl or parquet file or a "
             "directory of them; a Hub id [flores ntrex tico xquad]")
    add("--benchmark_dir", type=Path, metavar="DIR", help="local copies of the benchmarks, as published [$TOPXGEN_BENCHMARK_DIR, else the Hub]")
    add("--allow_missing", nargs="+", default=[], metavar="BENCHMARK",
        help="benchmarks to skip if they cannot be loaded; the report lists them [none: the run stops]")
    add_partial_benchmark_flag(add)
    add("--demonstration_pool", nargs="+", default=[], metavar="SOURCE",
        help="few-shot demonstrations, named as in --benchmarks; their overlaps with the benchmarks are reported")

    add = parser.add_argument_group("what counts as an overlap").add_argument
    add("--ngram_size", type=int_range(1, 1000), default=10, metavar="WORDS",
        help="consecutive words that overlapping texts share")
    add("--tokenizer", choices=ngram_hashes.TOKENIZERS, default="unicode",
        help="what a word is; unicode: of any script; original: as published, which splits Indic words")
    add("--near_duplicate_threshold", type=float_range(0.05, 0.99), metavar="F1",
        help="texts whose ROUGE-L F1 with a benchmark text is above this overlap, too; try 0.6 [off]")
    add("--short_text_rule", choices=ngram_index.SHORT_TEXT_RULES, default="inside",
        help="when a benchmark text shorter than --ngram_size counts; whole: if it is a whole text; inside: also inside a "
             f"text, if it has {ngram_index.MIN_CONTAINED_SHARE:.0%}% of --ngram_size words; ignore: never")

    add = parser.add_argument_group("what is dropped, and output").add_argument
    add("--drop_on_sentence_overlap", choices=filter.DROP_ON_SENTENCE_OVERLAP, default="paragraph",
        help="what to drop when a target-language text overlaps")
    add("--drop_on_translation_overlap", choices=filter.DROP_ON_TRANSLATION_OVERLAP, default="pair",
        help="what to drop when a translation overlaps")
    add("--audit", "--report_only", **FLAG, help="drop nothing, only write the report, as decontamination_audit")
    add("--output_dir", type=Path, metavar="DIR", help="where files are written [--input_dir]")
    add("--report", type=Path, metavar="PATH",
        help="the report, with or without .json or .md [decontamination_report in --output_dir]")
    add_shard_flags(add)
    add("--num_workers",
        **count(1, "number of worker processes [one per core; with --distributed, per core of the cluster]"))
    add("--distributed",
        **choice(distributed.SCHEDULERS, None, "run the worker processes on the nodes of a cluster", "off"))
    # fmt: on
    return parser


def needs(args: argparse.Namespace, names: Collection[str] = ()) -> list[Need]:
    """What a command loads that does not come with the package; `names`: the languages in --input_dir."""
    texts = [*(args.languages or names), args.target_language or "English"]
    chosen = [languages.find(name, args.languages_file) for name in dict.fromkeys(texts)]
    sources = dict.fromkeys([*args.benchmarks, *args.demonstration_pool])
    loaded = [name for name in sources if name not in args.allow_missing]
    folder = benchmarks.folder_or_default(args.benchmark_dir)
    return [need for name in loaded for need in benchmarks.needs(name, chosen, folder)]


def decontaminate(args: argparse.Namespace) -> int:
    args.benchmarks = list(dict.fromkeys(args.benchmarks))
    args.demonstration_pool = list(dict.fromkeys(args.demonstration_pool))
    args.output_dir = args.output_dir or args.input_dir
    take_shard(args)
    inputs = input_files(args)
    args.target_language = target_language(args)
    reports = FilteredLayout(args.output_dir).reports(args.report, args.audit)
    check_paths(args, inputs, reports)
    distributed.check(args.distributed)
    hub.require(needs(args, inputs))
    target = languages.find(args.target_language, args.languages_file).name
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="decontamination-")))
        layout = layout_of(args, scratch)
        for name in () if args.audit and args.shard is None else inputs:
            stack.enter_context(OutputLock(args.output_dir, name))
        for name in () if args.shard is None else inputs:
            stage = shards.AUDIT if args.audit else "decontaminate"
            shards.write_note(layout.output_dir, args.shard, "decontamination", stage, name)
        texts = benchmark_texts.load(inputs, args)
        parts = {name: filter_file(args, path, layout, texts[name], texts[target]) for name, path in inputs.items()}
        with wait_for_lock(reports[0].parent):
            write_reports(args, reports, layout, parts, *shared(texts))
    show(report.summary(parts, args.audit))
    show(f"report: {reports[1]} (to read), {reports[0]} (with every hit)")
    checked = report.all_checked(parts, args.audit)
    check_kept(parts)
    return 0 if checked else EXIT_UNCHECKED


def main() -> int:
    return run_main(
        build_parser(), decontaminate, "the input files are unchanged; re-run the same command to start over"
    )


if __name__ == "__main__":
    sys.exit(main())
