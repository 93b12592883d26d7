"""The stages of decontamination.py: find the input, check the output paths, filter, report."""

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial as partial_call
from pathlib import Path

from topxgen.common import checksums, flag_rules, lineage, provenance, shards
from topxgen.common.console import Progress
from topxgen.common.errors import UsageError, unknown_choice
from topxgen.common.files import partial, read_json, read_jsonl, write_atomic
from topxgen.common.flag_rules import Rule
from topxgen.common.records import FilteredLayout, folders_below, translations_name
from topxgen.common.schemas import fields
from topxgen.corpora import benchmarks, own_benchmarks
from topxgen.decontamination import parallel_jsonl, report
from topxgen.decontamination.benchmark_texts import BenchmarkTexts
from topxgen.decontamination.filter import RULES_VERSION, ContaminationFilter
from topxgen.distributed import Plan
from topxgen.inference import ENGINE_LOG
from topxgen.text import languages

# The flags that decide what overlaps and what is dropped.
SETTINGS = (
    *("ngram_size", "tokenizer", "near_duplicate_threshold", "short_text_rule"),
    *("drop_on_sentence_overlap", "drop_on_translation_overlap"),
)
RULES = (
    Rule(
        ("benchmark_dir", "allow_partial_benchmark"),
        f"one of {', '.join(benchmarks.SIZES)} in --benchmarks or --demonstration_pool",
        lambda args: not benchmarks.SIZES.keys().isdisjoint([*args.benchmarks, *args.demonstration_pool]),
        harmless=True,
    ),
    Rule(("short_text_rule",), "--ngram_size above 1", lambda args: args.ngram_size > 1),
    Rule(
        ("output_dir",),
        "files to write (--audit with --report writes the report alone)",
        lambda args: not (args.audit and args.report),
    ),
)


def input_files(args: argparse.Namespace) -> dict[str, Path]:
    """The file of each language, by the language's name. Raises UsageError if one does not exist."""
    suffix = translations_name("")
    if not args.input_dir.is_dir():
        raise UsageError(f"--input_dir {args.input_dir} is not a directory; pass the one with {{Language}}{suffix}")
    available = sorted(path.name.removesuffix(suffix) for path in args.input_dir.glob(f"*{suffix}"))
    if not (args.languages or available):
        below = folders_below(args.input_dir, f"*{suffix}")
        remedy = f"pass one of {below}" if below else "run datagen.py's translate stage first"
        raise UsageError(f"{args.input_dir} has no {{Language}}{suffix}: {remedy}")
    paths = {}
    for name in args.languages or available:
        language = languages.find(name, args.languages_file).name
        paths[language] = args.input_dir / translations_name(language)
        if not paths[language].is_file():
            raise UsageError(
                f"no {paths[language].name} in {args.input_dir} (languages there: {', '.join(available) or 'none'}): change "
                "--languages or --input_dir, or run datagen.py's translate stage first"
            )
        shards.check_merged(paths[language])
    return paths


def target_language(args: argparse.Namespace) -> str:
    """--target_language, or that of the folder. Raises UsageError if they differ."""
    settings = read_json(args.input_dir / provenance.TRANSLATE_SETTINGS, fields(target_language=str))
    of_folder = settings.get("target_language", args.target_language or "English")
    given = args.target_language or of_folder
    if len({languages.find(name, args.languages_file).name for name in (given, of_folder)}) > 1:
        raise UsageError(
            f"--target_language {given}: the translations in {args.input_dir} are in {of_folder} (settings_translate.json); "
            "drop the flag, or pass another --input_dir"
        )
    return given


def take_shard(args: argparse.Namespace) -> None:
    """Set the shard of the command line, and its folder as the output directory; --report is where the merge writes. Raises UsageError."""
    args.shard = shards.chosen(args)
    if args.shard is None:
        return
    args.output_dir, args.report = args.shard.folder(args.output_dir), None


def layout_of(args: argparse.Namespace, scratch: Path) -> FilteredLayout:
    """Where the files of a run are; those of an audit are in `scratch`, of a shard of one in a folder of their own for the merge."""
    if not args.audit:
        return FilteredLayout(args.output_dir)
    return FilteredLayout(scratch if args.shard is None else args.output_dir / shards.AUDIT)


def check_allowed(args: argparse.Namespace) -> None:
    """Raise UsageError for an --allow_missing that is none of the benchmarks, such as a language."""
    for name in args.allow_missing:
        if name not in args.benchmarks:
            raise unknown_choice("--allow_missing", name, args.benchmarks)


def check_paths(args: argparse.Namespace, inputs: dict[str, Path], reports: tuple[Path, Path]) -> None:
    """Raise UsageError for what would fail later, has no effect, overwrites what is read, or compares texts with themselves."""
    flag_rules.check(RULES, args)
    check_allowed(args)
    if (target := languages.find(args.target_language, args.languages_file).name) in inputs:
        raise UsageError(f"{target} is one of the --languages and the language of the translations; pass another one")
    layout = FilteredLayout(args.output_dir)
    outputs = [] if args.audit else [f for name in inputs for f in (*layout.files(name), layout.manifest(name))]
    outputs += [partial(path) for path in outputs]
    sources = [path for name in (*args.benchmarks, *args.demonstration_pool) if (path := benchmarks.local_source(name))]
    _refuse_overwriting((*reports, *map(partial, reports), *outputs), (*inputs.values(), *sources))
    for name, path in () if args.audit else inputs.items():
        _refuse_replacing(layout, name, path)
    report.earlier(reports[0])
    if reports[1].exists() and not reports[0].exists():
        raise UsageError(
            f"{reports[1]} exists without {reports[0].name}: it may be your own; remove it, or pass another --report"
        )
    for output in reports:
        if output in outputs:
            raise UsageError(f"--report {output} is another output of this run; pass another path")
    for source in sources:
        _refuse_parts(source, (*inputs.values(), *reports, *outputs))
    for flag, folder in (("--report", reports[0].parent), *([] if args.audit else [("--output_dir", args.output_dir)])):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise UsageError(f"cannot write to {folder}: {error.strerror}; pass another {flag}") from None


def _refuse_overwriting(outputs: Iterable[Path], inputs: Sequence[Path]) -> None:
    read = {inode: path for path in reversed(inputs) for inode in _inodes([path])}
    for output in outputs:
        if _is_dir(output):
            raise UsageError(
                f"{output} is a directory, but this run writes a file of that name; pass another --output_dir"
            )
        for inode in _inodes([output]) & read.keys():
            raise UsageError(f"{output} would overwrite the input {read[inode]}: pass another --output_dir or --report")


def _refuse_replacing(layout: FilteredLayout, name: str, path: Path) -> None:
    """Raise UsageError for filtered pairs of another input than `path`, or of another program."""
    if not (filtered := layout.filtered(name)).exists():
        return
    other, own = _input_of(layout.manifest(name)), path.resolve()  # beside it, in a folder that was copied
    if other.is_file() and other != own and own.parent != filtered.parent.resolve():
        raise UsageError(
            f"{filtered} has the pairs of {other}, which those of {path} would replace: pass another --output_dir, or remove it"
        )
    if not layout.hits(name).exists():  # ours gets its name after that
        raise UsageError(
            f"{filtered} was not written by this script, which leaves {layout.hits(name).name} beside it, and would "
            "be replaced: pass another --output_dir, or remove it"
        )


def _refuse_parts(source: Path, paths: Iterable[Path]) -> None:
    """Raise UsageError for those of `paths` that are in the benchmark `source`, or are it."""
    inodes = _inodes(own_benchmarks.files_below(source) if source.is_dir() else [source])
    for path in paths:
        if source.resolve() in path.resolve().parents or _inodes([path]) & inodes:
            raise UsageError(
                f"{path} is part of the benchmark {source}, so it would be compared with itself; keep generated files "
                "and benchmarks in separate directories"
            )


def _input_of(manifest: Path) -> Path:
    """What a filtered file was made from; no file if that is not known."""
    with suppress(UsageError):  # a damaged manifest is made again
        return Path(read_json(manifest, fields(input=fields(path=str))).get("input", {}).get("path", ""))
    return Path()


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; pass a shorter path") from None


def _inodes(paths: list[Path]) -> set[tuple[int, int]]:
    return {(path.stat().st_dev, path.stat().st_ino) for path in paths if path.exists()}


def filter_file(
    args: argparse.Namespace,
    path: Path,
    layout: FilteredLayout,
    sentence_texts: BenchmarkTexts,
    translation_texts: BenchmarkTexts,
) -> dict:
    """Filter the file of one language; returns its part of the report."""
    name = sentence_texts.language.name
    sides = {"sentence": sentence_texts, "translation": translation_texts}
    not_checked = {
        key: [[benchmark, texts.language.name] for texts in sides.values() for benchmark in getattr(texts, key)]
        for key in ("language_not_covered", "not_loaded")
    }
    settings = {
        **{flag: getattr(args, flag) for flag in SETTINGS},
        "rules_version": RULES_VERSION,
        "tokens_per_ngram": {texts.language.name: texts.tokens_per_ngram for texts in sides.values()},
        "benchmarks": {side: texts.provenance() for side, texts in sides.items()},
        **not_checked,
        **({} if args.shard is None else {shards.SETTING: args.shard.name}),
    }
    splits = [(side, split) for side, texts in sides.items() for split in texts.splits]
    unchecked = [reason for side, texts in sides.items() if (reason := texts.unchecked(f"{side}s"))]
    with Progress(f"decontaminate {name}", path.stat().st_size // 1000, "kB") as bar:
        manifest = parallel_jsonl.filter_jsonl(
            path,
            ContaminationFilter(
                sentence_texts.index,
                translation_texts.index,
                args.drop_on_sentence_overlap,
                args.drop_on_translation_overlap,
            ),
            None if args.audit else layout.filtered(name),
            layout.hits(name),
            layout.malformed(name),
            layout.manifest(name),
            settings,
            args.num_workers or len(os.sched_getaffinity(0)),
            lambda start, end, counts: bar.update(
                end // 1000 - start // 1000, records=counts["records"], overlapping=counts["records_overlapping"]
            ),
            {lineage.KEY: lineage.of_back_translation(path, name)},
            args.shard,
            args.distributed
            and Plan(args.distributed, "decontamination", args.num_workers, 0, args.output_dir.absolute() / ENGINE_LOG),
        )
    counts = Counter(manifest["counts"])  # an empty file has no counts
    if not counts["records"] and (args.shard is None or counts["malformed"]):
        unchecked = [report.without_records(path, counts)]
    return {
        "input": str(path),
        "input_sha256": manifest["input_sha256"],
        "output": None if args.audit else str(layout.filtered(name)),
        "tokens_per_ngram": sentence_texts.tokens_per_ngram,
        "settings": {flag: getattr(args, flag) for flag in SETTINGS},
        "counts": counts,
        "not_checked": unchecked,
        "overlaps": report.overlaps(layout.hits(name), splits),
        "partial": [[f"{s.benchmark} {s.name}, {s.count}", s.language] for _, s in splits if s.is_partial],
        **not_checked,
    }


def check_kept(parts: Mapping[str, dict]) -> None:
    """Raise UsageError if a file of kept pairs has been removed since it was written."""
    if removed := [part["output"] for part in parts.values() if part["output"] and not Path(part["output"]).exists()]:
        raise UsageError(f"{removed[0]} was removed while this run was going on: re-run the same command")


def _is_current(part: report.Part, manifest: Path) -> bool:
    """Whether a part of an earlier report describes the files that are there."""
    try:
        return read_json(manifest).get("input_sha256") == part["input_sha256"]
    except UsageError:
        return False  # its own run says what is wrong


def shared(texts: dict[str, BenchmarkTexts]) -> tuple[dict[str, list[dict]], list[dict]]:
    """What the benchmarks of each language are, and what they share with each other."""
    between = []
    for name, of_language in texts.items():
        pool = {entry.base for entry in of_language.entries(of_language.demonstration_pool)}
        between += report.between_benchmarks(name, of_language.index_with_pool, pool)
    return {name: of_language.provenance() for name, of_language in texts.items()}, between


def write_reports(
    args: argparse.Namespace,
    paths: tuple[Path, Path],
    layout: FilteredLayout,
    parts: dict[str, dict],
    loaded: dict[str, list[dict]],
    between: list[dict],
) -> None:
    """Write the report as JSON and Markdown, with what the benchmarks that were `loaded` for some languages are and share.

    It has the languages of earlier runs, too, whose results are still there.
    """
    earlier = report.earlier(paths[0])
    if not args.audit:
        earlier["languages"] = {
            name: part for name, part in earlier["languages"].items() if _is_current(part, layout.manifest(name))
        }
    languages_of_report = dict(sorted((earlier["languages"] | parts).items()))
    between = [*(row for row in earlier["between_benchmarks"] if row["language"] not in loaded), *between]
    content = {
        "audit": args.audit,
        "command": provenance.command_line(()),
        "settings": {flag: getattr(args, flag) for flag in SETTINGS},
        "benchmarks": earlier["benchmarks"] | loaded,
        "languages": languages_of_report,
        "between_benchmarks": sorted(between, key=lambda row: row["language"]),
    }
    hits = {
        name: partial_call(read_jsonl, layout.hits(name)) if name in parts else earlier["hits"].get(name, []).copy
        for name in languages_of_report
    }
    write_atomic(paths[0], report.as_json(content, hits))
    write_atomic(paths[1], report.as_markdown(content, hits))
    for path in paths:
        checksums.claim_file(path)
