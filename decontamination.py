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
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from comptra import benchmarks, languages
from comptra.arguments import FLAG, real, whole
from comptra.errors import UserError
from comptra.languages import Language
from topxgen import contamination, ngrams, overlap, stages
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
    group.add_argument("--ngram_size", type=whole(1), default=10, metavar="WORDS", help="shared in a row [%(default)s]")
    group.add_argument(
        "--tokenizer",
        choices=ngrams.TOKENIZERS,
        default="unicode",
        help="original: as published, tears Indic words [%(default)s]",
    )
    group.add_argument(
        "--near_duplicates",
        type=real(0, 1),
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
    group.add_argument("--report_only", **FLAG, help="write the report (decontamination_audit) and nothing else")
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
    stem = args.report or output_dir / ("decontamination_audit" if args.report_only else "decontamination_report")
    if stem.suffix in (".json", ".md"):
        stem = stem.with_suffix("")
    return stem.with_name(stem.name + ".json"), stem.with_name(stem.name + ".md")


def check_paths(read: list[Path], written: list[Path]) -> None:
    """Raise UserError when a file to write is one of those that are read, by whatever name."""
    for output in written:
        if output.is_dir():
            raise UserError(f"{output} is a directory; a file of that name is to be written there")
        for path in read:
            if output.exists() and path.exists() and output.samefile(path):
                raise UserError(
                    f"{output} would be written over {path}, which is read: pass another --output_dir or --report"
                )


@dataclass
class Side:
    """The benchmarks in one language: what they hold, and those that lack it or are missing (and may be)."""

    language: Language
    args: argparse.Namespace
    splits: list[benchmarks.Split] = field(default_factory=list)
    pool: list[benchmarks.Split] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Tokens of an n-gram in this language."""
        return ngrams.tokens_per_ngram(self.args.ngram_size, self.language.script, self.args.tokenizer)

    @cached_property
    def index(self):
        from topxgen.contamination_report import entries
        from topxgen.splitting import Sentencex

        args = self.args
        return overlap.Index(
            entries(self.splits, self.language.name),
            self.n,
            args.tokenizer,
            args.near_duplicates,
            args.short_texts,
            Sentencex(self.language).split,
        )

    def facts(self) -> list[dict]:
        """What a third person needs to tell whether they have the same benchmarks."""
        return [
            {
                "benchmark": split.benchmark,
                "split": split.name,
                "language": split.language,
                "texts": len(split.texts),
                "source": split.source,
                "sha256": split.fingerprint,
            }
            for split in self.splits
        ]


def check(args: argparse.Namespace, paths: dict[str, Path], layout: FilteredLayout, reports: tuple[Path, Path]) -> None:
    """Fail now on what would be lost or written over later."""
    for name in args.allow_missing:
        if name not in args.benchmarks:
            raise UserError(f"--allow_missing {name}: not among --benchmarks {' '.join(args.benchmarks)}")
    own = (Path(name) for name in (*args.benchmarks, *args.pool) if name not in benchmarks.LOADERS)
    read = [*paths.values(), *(path for path in own if path.is_file())]
    outputs = [] if args.report_only else [file for name in paths for file in layout.files(name)]
    for output in (*reports, *outputs):
        if output.is_dir():
            raise UserError(
                f"{output} is a directory, but a file of that name is to be written; pass another --output_dir"
            )
        for path in read:
            if output.exists() and path.exists() and output.samefile(path):
                raise UserError(
                    f"{output} would be written over {path}, which is read: pass another --output_dir or --report"
                )


def load_sides(args: argparse.Namespace, found: list[Language]) -> dict[str, Side]:
    """The benchmarks in each language. Raises UserError when one that is not in --allow_missing cannot be loaded."""
    sides, errors = {}, {}
    for language in found:
        side = sides[language.name] = Side(language, args)
        for name in args.benchmarks:
            try:
                side.splits += benchmarks.load(name, language, args.benchmark_dir)
            except benchmarks.LacksLanguage:
                side.lacking.append(name)
            except benchmarks.CannotLoad as error:
                if name in args.allow_missing:
                    side.missing.append(name)
                else:
                    errors.setdefault(name, error)
        for name in args.pool:
            try:
                side.pool += benchmarks.load(name, language, args.benchmark_dir)
            except benchmarks.LacksLanguage:
                continue
            except benchmarks.CannotLoad as error:
                raise UserError(f"--pool: {error}") from None
    if errors:
        first, *others = errors
        also = f" (nor can {', '.join(others)} be loaded)" if others else ""
        copy = "--benchmark_dir FOLDER with a copy of it, " if first in benchmarks.LOADERS else ""
        raise UserError(f"{errors[first]}; pass {copy}--allow_missing {first}, or drop it from --benchmarks{also}")
    return sides


def inventory(side: Side) -> str:
    """A line about the benchmarks in one language."""
    held = ", ".join(f"{split.benchmark} {split.name} {len(split.texts):,}" for split in side.splits) or "nothing"
    lacking = f"; not in {', '.join(side.lacking)}" if side.lacking else ""
    missing = f"; MISSING, allowed: {', '.join(side.missing)}" if side.missing else ""
    return f"benchmarks in {side.language.name}: {held}{lacking}{missing}"


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


def filter_file(args: argparse.Namespace, path: Path, layout: FilteredLayout, ours: Side, theirs: Side) -> dict:
    """Decontaminate the file of one language; its part of the report."""
    from topxgen import chunks
    from topxgen.contamination_report import overlaps
    from topxgen.progress import Progress

    name = ours.language.name
    judge = contamination.Judge(
        ours.index, theirs.index, contamination.Rules(args.on_sentence_overlap, args.on_translation_overlap)
    )
    settings = {
        **settings_of(args),
        "tokens_per_ngram": {side.language.name: side.n for side in (ours, theirs)},
        "benchmarks": {"sentence": ours.facts(), "translation": theirs.facts()},
        "rules_version": contamination.VERSION,
    }
    absent = {
        key: [(benchmark, side.language.name) for side in (ours, theirs) for benchmark in getattr(side, key)]
        for key in ("lacking", "missing")
    }
    with Progress(f"decontaminate {name}", path.stat().st_size // 1000, "kB") as bar:
        done = 0

        def tick(end: int, counts: Counter) -> None:
            nonlocal done
            step, done = end // 1000 - done, end // 1000
            bar.update(step, records=counts["records"], overlapping=counts["records_overlapping"])

        manifest = chunks.run(
            path,
            judge,
            layout.files(name),
            layout.manifest(name),
            settings,
            {"stage": "decontaminate", "command": stages.command_line(()), "versions": stages.versions(), **absent},
            args.num_workers or len(os.sched_getaffinity(0)),
            tick,
        )
    sides = [(side, split) for side, which in (("sentence", ours), ("translation", theirs)) for split in which.splits]
    return {
        "input": str(path),
        "input_sha256": manifest["input_sha256"],
        "output": None if args.report_only else str(layout.filtered(name)),
        "tokens_per_ngram": ours.n,
        "counts": {key: manifest["counts"].get(key, 0) for key in contamination.COUNTS},
        "overlaps": overlaps(layout.hits(name), sides),
        **absent,
    }


def write_report(
    args: argparse.Namespace, parts: dict, sides: Iterable[Side], hits: dict[str, Path], paths: tuple[Path, Path]
) -> None:
    from comptra.files import write_atomic
    from topxgen import contamination_report

    rows = []
    for side in sides:
        rows += contamination_report.audit(side.index, contamination_report.entries(side.pool, side.language.name))
    report = {
        "report_only": args.report_only,
        "command": stages.command_line(()),
        "settings": settings_of(args),
        "benchmarks": {side.language.name: side.facts() for side in sides},
        "languages": parts,
        "audit": rows,
    }
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    write_atomic(paths[0], contamination_report.as_json(report, hits))
    write_atomic(paths[1], contamination_report.as_markdown(report, hits))


def main() -> int:
    args = build_parser().parse_args()
    try:
        paths = inputs(args)
        output_dir = args.output_dir or args.input_dir
        reports = report_paths(args, output_dir)
        check(args, paths, FilteredLayout(output_dir), reports)
        target = languages.find(args.target_language, args.languages_file)
        found = {name: languages.find(name, args.languages_file) for name in paths}
        sides = load_sides(args, list(dict.fromkeys([*found.values(), target])))
        for name in paths:
            if not sides[name].splits and not sides[target.name].splits:
                raise UserError(f"nothing to hold {name} against: none of {' '.join(args.benchmarks)} has it")
        for side in sides.values():
            say(inventory(side))

        from comptra.files import OutputLock

        with OutputLock(output_dir), tempfile.TemporaryDirectory(prefix="decontamination-") as aside:
            layout = FilteredLayout(Path(aside) if args.report_only else output_dir)
            parts = {
                name: filter_file(args, path, layout, sides[name], sides[target.name]) for name, path in paths.items()
            }
            write_report(args, parts, sides.values(), {name: layout.hits(name) for name in paths}, reports)
        from topxgen.contamination_report import summary

        print(summary(parts))
        print(f"report: {reports[1]} (to read), {reports[0]} (with every hit)")
        return 0
    except UserError as error:
        say(f"decontamination.py: error: {error}")
        return error.exit_code
    except OSError as error:  # a full disk, a read-only file
        say(f"decontamination.py: error: {error}; nothing that was read is changed, and the same command goes on")
        return 2
    except KeyboardInterrupt:
        say("\nstopped; the same command goes on from here")
        return 130


if __name__ == "__main__":
    sys.exit(main())
