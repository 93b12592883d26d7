"""Decontaminate the files of a directory, one language at a time."""

import argparse
from collections import Counter
from pathlib import Path

from topxgen.common import provenance
from topxgen.common.console import Progress
from topxgen.common.errors import UsageError
from topxgen.common.files import partial
from topxgen.common.records import FilteredLayout, translations_name
from topxgen.corpora import benchmarks
from topxgen.decontamination import filter, parallel_jsonl
from topxgen.decontamination import report as report
from topxgen.text import languages


def inputs(args: argparse.Namespace) -> dict[str, Path]:
    """The file of each language, by its name. Raises UsageError when there is none."""
    suffix = translations_name("")
    if not args.input_dir.is_dir():
        raise UsageError(f"--input_dir {args.input_dir} is no folder; pass the one that holds {{Language}}{suffix}")
    there = sorted(path.name.removesuffix(suffix) for path in args.input_dir.glob(f"*{suffix}"))
    named = args.languages or there
    if not named:
        raise UsageError(f"{args.input_dir} holds no {{Language}}{suffix}: run datagen.py's translate stage first")
    found = {}
    for name in named:
        language = languages.find(name, args.languages_file).name
        found[language] = args.input_dir / translations_name(language)
        if not found[language].is_file():
            raise UsageError(
                f"no {found[language].name} in {args.input_dir} (there is {', '.join(there) or 'none for any language'}): "
                "mend --languages or --input_dir, or run datagen.py's translate stage first"
            )
    return found


def report_paths(args: argparse.Namespace, output_dir: Path) -> tuple[Path, Path]:
    """Where the report goes, as JSON and as Markdown."""
    name = "decontamination_audit" if args.audit else "decontamination_report"
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
            raise UsageError(f"--allow_missing {name}: not among --benchmarks {' '.join(args.benchmarks)}")
    outputs = [] if args.audit else [f for name in paths for f in (*layout.files(name), layout.manifest(name))]
    outputs += [partial(path) for path in outputs]
    own = [path for name in (*args.benchmarks, *args.pool) if (path := benchmarks.local_source(name))]
    for output in (*reports, *outputs):
        if output.is_dir():
            raise UsageError(
                f"{output} is a directory, but a file of that name is to be written; pass another --output_dir"
            )
        for path in (*paths.values(), *own):
            if output.exists() and path.exists() and output.samefile(path):
                raise UsageError(
                    f"{output} would be written over {path}, which is read: pass another --output_dir or --report"
                )
    for output in reports:
        if output in outputs:
            raise UsageError(f"--report {output} is a file that this run writes for another purpose; pass another path")
    for source in own:
        read = benchmarks.files_below(source) if source.is_dir() else [source] if source.exists() else []
        same = {(found.st_dev, found.st_ino) for found in map(Path.stat, read)}
        for path in (*paths.values(), *reports, *outputs):
            inside = source.is_dir() and source.resolve() in path.resolve().parents
            if inside or (path.exists() and (path.stat().st_dev, path.stat().st_ino) in same):
                raise UsageError(
                    f"{path} is part of {source}, which is given as a benchmark: its texts would be held against themselves; "
                    "keep what is generated and the benchmarks in folders of their own"
                )
    for folder in {path.parent for path in (*reports, *outputs)}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
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
    judge = filter.ContaminationFilter(
        *indexes, filter.DropRules(args.drop_on_sentence_overlap, args.drop_on_translation_overlap)
    )
    absent = {
        key: [[benchmark, side.language.name] for side in sides for benchmark in getattr(side, key)]
        for key in ("lacking", "missing")
    }
    decisive = {
        **settings,
        "rules_version": filter.VERSION,
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

        manifest = parallel_jsonl.run(
            path,
            judge,
            None if args.audit else layout.filtered(name),
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
        "output": None if args.audit else str(layout.filtered(name)),
        "tokens_per_ngram": ours.n(settings),
        "counts": {key: manifest["counts"].get(key, 0) for key in filter.COUNTS},
        "overlaps": report.overlaps(layout.hits(name), splits),
        **absent,
    }
