"""Find and remove generated text that overlaps an evaluation set, on both sides of the pairs, and say what was done.

    python decontamination.py --input_dir outputs/gemma/nllb-200-3.3B --languages Basque Hausa

reads {Language}_translate.jsonl there and writes {Language}_translate_filtered.jsonl beside it, with every hit in
{Language}_translate_contaminated.jsonl and a report in decontamination_report.md and .json. On a node without internet
the benchmarks come from a folder that holds them as their publishers ship them (flores200_dataset/, NTREX-128/,
tico19-testset/, xquad/), and test sets of your own from any file:

    python decontamination.py --input_dir outputs/gemma/nllb-200-3.3B --languages Basque \\
        --benchmark_dir ~/benchmarks --benchmarks flores ntrex xquad my_test_set.tsv

`--report_only` looks and removes nothing. Killed? The same command goes on where it stopped.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

from comptra import benchmarks, languages, provenance
from comptra.arguments import FLAG, real, whole
from comptra.errors import UserError
from comptra.files import OutputLock, partial, write_atomic
from comptra.progress import Progress
from topxgen import chunks, contamination, ngrams, overlap, sides
from topxgen import contamination_report as report
from topxgen.records import FilteredLayout, translations_name


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )

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
        "--languages_file", metavar="TSV", help="rows of your own, with the columns of comptra/languages.tsv"
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
        "--ngram_size", type=whole(1, 1000), default=10, metavar="WORDS", help="shared in a row [%(default)s]"
    )
    group.add_argument(
        "--tokenizer",
        choices=ngrams.TOKENIZERS,
        default="unicode",
        help="original: as published, tears Indic words [%(default)s]",
    )
    group.add_argument(
        "--near_duplicates",
        type=real(0.05, 0.99),
        metavar="F1",
        help="also texts whose ROUGE-L F1 with a benchmark text is above this; 0.6 is a good value [off]",
    )
    group.add_argument(
        "--short_texts",
        choices=overlap.SHORT,
        default="inside",
        help="benchmark texts of fewer words count when they are the whole of a text, or (from 6 words of 10 on) stand "
        "inside one too [%(default)s]",
    )

    group = parser.add_argument_group("what becomes of it")
    group.add_argument(
        "--on_sentence_overlap",
        choices=contamination.ON_SENTENCE,
        default="paragraph",
        help="what goes when a text in the language overlaps [%(default)s]",
    )
    group.add_argument(
        "--on_translation_overlap",
        choices=contamination.ON_TRANSLATION,
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
    group.add_argument("--report_only", **FLAG, help="write the report (decontamination_audit), drop nothing")
    group.add_argument("--num_workers", type=whole(1), metavar="N", help="processes [one a core]")
    return parser


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def inputs(args: argparse.Namespace) -> dict[str, Path]:
    """The file of each language, by its name. Raises UserError when there is none."""
    suffix = translations_name("")
    if not args.input_dir.is_dir():
        raise UserError(f"--input_dir {args.input_dir} is no folder; pass the one that holds {{Language}}{suffix}")
    there = sorted(path.name.removesuffix(suffix) for path in args.input_dir.glob(f"*{suffix}"))
    named = args.languages or there
    if not named:
        raise UserError(f"{args.input_dir} holds no {{Language}}{suffix}: run datagen.py's translate stage first")
    found = {}
    for name in named:
        language = languages.find(name, args.languages_file).name
        found[language] = args.input_dir / translations_name(language)
        if not found[language].is_file():
            raise UserError(
                f"no {found[language].name} in {args.input_dir} (there is {', '.join(there) or 'none for any language'}): "
                "mend --languages or --input_dir, or run datagen.py's translate stage first"
            )
    return found


def report_paths(args: argparse.Namespace, output_dir: Path) -> tuple[Path, Path]:
    """Where the report goes, as JSON and as Markdown."""
    name = "decontamination_audit" if args.report_only else "decontamination_report"
    stem = args.report or output_dir / name
    if stem.is_dir():
        stem = stem / name
    if stem.suffix in (".json", ".md"):
        stem = stem.with_suffix("")
    return stem.with_name(stem.name + ".json"), stem.with_name(stem.name + ".md")


def check(args: argparse.Namespace, paths: dict[str, Path], layout: FilteredLayout, reports: tuple[Path, Path]) -> None:
    """Fail now on what would be lost or written over later."""
    for name in args.allow_missing:
        if name not in args.benchmarks:
            raise UserError(f"--allow_missing {name}: not among --benchmarks {' '.join(args.benchmarks)}")
    outputs = [] if args.report_only else [f for name in paths for f in (*layout.files(name), layout.manifest(name))]
    outputs += [partial(path) for path in outputs]
    own = [Path(name).expanduser() for name in (*args.benchmarks, *args.pool) if name not in benchmarks.LOADERS]
    for output in (*reports, *outputs):
        if output.is_dir():
            raise UserError(
                f"{output} is a directory, but a file of that name is to be written; pass another --output_dir"
            )
        for path in (*paths.values(), *own):
            if output.exists() and path.exists() and output.samefile(path):
                raise UserError(
                    f"{output} would be written over {path}, which is read: pass another --output_dir or --report"
                )
    for output in reports:
        if output in outputs:
            raise UserError(f"--report {output} is a file that this run writes for another purpose; pass another path")
    for source in own:
        read = benchmarks.files_below(source) if source.is_dir() else [source] if source.exists() else []
        same = {(found.st_dev, found.st_ino) for found in map(Path.stat, read)}
        for path in (*paths.values(), *reports, *outputs):
            inside = source.is_dir() and source.resolve() in path.resolve().parents
            if inside or (path.exists() and (path.stat().st_dev, path.stat().st_ino) in same):
                raise UserError(
                    f"{path} is part of {source}, which is given as a benchmark: its texts would be held against themselves; "
                    "keep what is generated and the benchmarks in folders of their own"
                )
    for folder in {path.parent for path in (*reports, *outputs)}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write to {folder}: {error.strerror}; pass another --output_dir or --report"
            ) from None


def settings_of(args: argparse.Namespace) -> dict:
    """The flags that decide what overlaps and what becomes of it."""
    names = (
        "ngram_size",
        "tokenizer",
        "near_duplicates",
        "short_texts",
        "on_sentence_overlap",
        "on_translation_overlap",
    )
    return {name: getattr(args, name) for name in names}


def filter_file(
    args: argparse.Namespace, path: Path, layout: FilteredLayout, sides: tuple, indexes: tuple, workers: int
) -> dict:
    """Decontaminate the file of one language; its part of the report."""
    ours, theirs = sides
    name, settings = ours.language.name, settings_of(args)
    judge = contamination.Judge(*indexes, contamination.Rules(args.on_sentence_overlap, args.on_translation_overlap))
    absent = {
        key: [[benchmark, side.language.name] for side in sides for benchmark in getattr(side, key)]
        for key in ("lacking", "missing")
    }
    decisive = {
        **settings,
        "rules_version": contamination.VERSION,
        "tokens_per_ngram": {side.language.name: side.n(settings) for side in sides},
        "benchmarks": {"sentence": ours.facts(), "translation": theirs.facts()},
        **absent,
    }
    with Progress(f"decontaminate {name}", path.stat().st_size // 1000, "kB") as bar:
        done = None

        def tick(end: int, counts: Counter) -> None:
            nonlocal done
            bar.update(end // 1000 - (done or 0), records=counts["records"], overlapping=counts["records_overlapping"])
            if done is None:
                bar.restart_clock()  # what an earlier run did says nothing of the rate
            done = end // 1000

        manifest = chunks.run(
            path,
            judge,
            None if args.report_only else layout.filtered(name),
            layout.hits(name),
            layout.malformed(name),
            layout.manifest(name),
            decisive,
            {"stage": "decontaminate", "command": provenance.command_line(()), "versions": provenance.versions()},
            workers,
            tick,
        )
    splits = [(side, split) for side, which in (("sentence", ours), ("translation", theirs)) for split in which.splits]
    return {
        "input": str(path),
        "input_sha256": manifest["input_sha256"],
        "output": None if args.report_only else str(layout.filtered(name)),
        "tokens_per_ngram": ours.n(settings),
        "counts": {key: manifest["counts"].get(key, 0) for key in contamination.COUNTS},
        "overlaps": report.overlaps(layout.hits(name), splits),
        **absent,
    }


def main() -> int:
    args = build_parser().parse_args()
    try:
        args.benchmarks, args.pool = list(dict.fromkeys(args.benchmarks)), list(dict.fromkeys(args.pool))
        paths = inputs(args)
        output_dir = args.output_dir or args.input_dir
        reports = report_paths(args, output_dir)
        check(args, paths, FilteredLayout(output_dir), reports)
        target = languages.find(args.target_language, args.languages_file)
        found = {name: languages.find(name, args.languages_file) for name in paths}
        every = dict.fromkeys([*found.values(), target])
        loaded = sides.load(every, args.benchmarks, args.pool, args.benchmark_dir, args.allow_missing)
        for side in loaded.values():
            say(str(side))
        for name in paths:
            if not loaded[name].splits and not loaded[target.name].splits:
                raise UserError(f"nothing to hold {name} against: none of {' '.join(args.benchmarks)} has it")

        settings = settings_of(args)
        indexes = {name: side.index(settings) for name, side in loaded.items()}
        workers = args.num_workers or len(os.sched_getaffinity(0))
        parts = {}
        with (
            OutputLock(reports[0].parent if args.report_only else output_dir),
            tempfile.TemporaryDirectory(prefix="decontamination-") as aside,
        ):
            layout = FilteredLayout(Path(aside) if args.report_only else output_dir)
            for name, path in paths.items():
                both = (name, target.name)
                parts[name] = filter_file(
                    args, path, layout, [loaded[x] for x in both], [indexes[x] for x in both], workers
                )
            content = {
                "report_only": args.report_only,
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
        print(report.summary(parts, args.report_only))
        print(f"report: {reports[1]} (to read), {reports[0]} (with every hit)")
        return 0
    except UserError as error:
        say(f"decontamination.py: error: {error}")
        return error.exit_code
    except OSError as error:  # a full disk, a read-only file
        again = "run it again" if args.report_only else "the same command goes on"
        say(f"decontamination.py: error: {error}; nothing that was read is changed, and once that is mended {again}")
        return 2
    except KeyboardInterrupt:
        say("\nstopped; " + ("nothing is changed" if args.report_only else "the same command goes on from here"))
        return 130


if __name__ == "__main__":
    sys.exit(main())
