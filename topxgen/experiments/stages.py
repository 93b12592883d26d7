"""The stages of a run: the script of each, and the files that it reads and writes."""

import argparse
import glob
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from itertools import product
from os.path import expanduser
from pathlib import Path
from typing import NamedTuple

from topxgen.common import checksums, hub_files, own_code, rates
from topxgen.common import translation_folders as folders
from topxgen.common.cli import Parser
from topxgen.common.errors import UsageError
from topxgen.common.files import walk
from topxgen.common.provenance import TRANSLATE_MANIFEST, TRANSLATE_SETTINGS, read_settings
from topxgen.common.records import FilteredLayout, Layout, default_translate_dir, translations_name
from topxgen.common.shards import AUDIT, Shard
from topxgen.corpora import benchmarks
from topxgen.corpora.tables import split_source
from topxgen.prompting.mt_templates import get_template
from topxgen.text import languages

Parsed = argparse.Namespace


def real(path: str | Path) -> Path:
    """The path without links and "..", by which two names of one folder are equal. Path.resolve ends with an error where links lead in a circle."""
    return Path(os.path.realpath(path))


def _generated(args: Parsed) -> Iterator[Path]:
    names = [languages.find(name, args.languages_file).name for name in args.languages]
    files = (f"{file.removesuffix('.jsonl')}.jsonl" for file in args.output_filenames or ())
    named = dict(zip(names, files, strict=False))  # datagen.py itself counts them
    layout = Layout(args.output_dir, args.translate_dir or default_translate_dir(vars(args)), named)
    for name in names:
        yield from layout.jsonl_files(name)
        yield from (layout.manifest(stage, name) for stage in args.stages)


def _decontaminated(args: Parsed) -> Iterator[Path]:
    folder = args.output_dir or args.input_dir
    if args.audit and Shard.of_folder(folder) is None:
        yield from FilteredLayout(folder).reports(args.report, args.audit)
        return
    layout = FilteredLayout(folder / AUDIT if args.audit else folder)
    suffix = translations_name("")
    found = [path.name.removesuffix(suffix) for path in args.input_dir.glob(f"*{suffix}")]
    for name in args.languages or found:
        name = languages.find(name, args.languages_file).name
        yield from (*layout.files(name), layout.manifest(name))


def _model(folder: Path) -> Iterator[Path]:
    """The (best) model; checkpoints may be removed, and scores added to its card."""
    return (path for path in folder.glob("*.*") if path.name != "README.md")


def translation_folders(args: Parsed) -> list[str]:
    """What decides the folders in --output_dir of a run of main.py, one for each model and direction (docs/files.md)."""
    merge_prompt = Path(args.merge_prompt).stem
    differs = [*folders.variant(folders.values_of(args)), args.template_key or ""]
    runs = [args.metadata_dir]
    if not args.metadata_dir:
        names = [folders.original_name(*pair, args, merge_prompt) for pair in _directions(args)]
        runs = ["_".join([name, *differs]) for name in names]
    return [f"{name}/{run}" for name in _models(args) for run in runs]


def _models(args: Parsed) -> list[str]:
    return [Path(name).name for name in args.model_name_or_path or [args.nllb_name_or_path]]


def _directions(args: Parsed) -> list[tuple[str, str]]:
    sides = ([languages.find(name, args.languages_file).name for name in names] for names in (args.src, args.tgt))
    return list(dict.fromkeys((src, tgt) for src, tgt in product(*sides) if src != tgt))


def _translated(args: Parsed) -> Iterator[Path]:
    for model in _models(args):
        room = args.output_dir / model
        for run in [room / args.metadata_dir] if args.metadata_dir else sorted(_runs_in(room, args)):
            yield from sorted(run.glob("translate_*.jsonl"))
            yield run / TRANSLATE_MANIFEST


def _runs_in(room: Path, args: Parsed) -> Iterator[Path]:
    """The folders of translations with the flags of `args`, of those with names of the original's that are alike."""
    for src, tgt in _directions(args):
        pattern = "*".join(map(glob.escape, folders.original_name(src, tgt, args, "\0").split("\0")))
        values = folders.values_of(args)
        if args.template_key is not None:
            key = get_template(args.template_key, src, tgt, extra=args.languages_file).key
            values["template_key"] = Path(key).name
        for run in (*room.glob(pattern), *room.glob(f"{pattern}_*")):
            if not folders.differing(read_settings(run / TRANSLATE_SETTINGS), values):
                yield run


class Stage(NamedTuple):
    """A script, as the words that start it, with its parser and what it loads; `writes` gives the files of its result that may be there.

    `reads`: flags that name folders, and which of their files it reads; of all other flags that name one, it reads it whole.
    `no_input`: flags whose files it does not read.
    """

    script: tuple[str, ...]
    writes: Callable[[Parsed], Iterator[Path]]
    reads: dict[str, tuple[str, ...]] = {}  # noqa: RUF012
    no_input: tuple[str, ...] = ("output_dir",)
    always: bool = False  # its result is what it prints

    def function(self, name: str) -> Callable | None:
        """A function of the script, None if it has none of that name: `needs`, of flags and the languages of the stages before: what a
        command loads from elsewhere; `estimates`, of flags: what it is going to need, as far as that is known in seconds; `check_results`
        raises UsageError for results of other flags where its own would be; `check_early`, for what is wrong in flags, alone or together,
        and what they name."""
        module = self.script[-1].removesuffix(".py").replace("/", ".")
        return getattr(importlib.import_module(module), name, None)

    def parser(self) -> Parser:
        return self.function("build_parser")()


PAIRS = ("*_translate.jsonl", "*_translate_filtered.jsonl")
STAGES = {
    "datagen": Stage(("datagen.py",), _generated, no_input=("output_dir", "cache_dir")),
    "decontamination": Stage(
        ("decontamination.py",), _decontaminated, {"input_dir": PAIRS[:1]}, ("output_dir", "report")
    ),
    "train": Stage(
        ("train.py",),
        lambda args: _model(args.output_dir),
        {"data_dir": (*PAIRS, "*/en_*.jsonl")},  # generated pairs, SMOL
        ("output_dir", "export_dir"),
    ),
    "main": Stage(("main.py",), _translated, {"data_dir": PAIRS}, ("output_dir", "cache_dir")),
    "evaluate": Stage(
        ("-m", "comptra.evaluate"),
        lambda args: filter(None, (args.csv, args.json)),
        {"dirs": ("**/translate_*.jsonl",), "baseline": ("**/translate_*.jsonl",)},
        ("csv", "json", "model_card"),
        always=True,
    ),
    # No section of run files; of comparisons (merge_adapters).
    "merge": Stage(("scripts/merge_lora.py",), lambda args: _model(args.output), no_input=("output",)),
}
# Not all JSON files: the folder of a trained model has manifests with times, too.
_READ_OF_MODELS = (*hub_files.WEIGHTS, *hub_files.SMALL, *hub_files.TOKENIZERS, *hub_files.LOADED_JSON)
MODEL_FILES = {*_READ_OF_MODELS, "tokenizer*", "*vocab*", "*tokens*.json"} - {"*.json"}


# Values of flags that are names whatever folders there are.
NAMES = {*benchmarks.LOADERS, "topxgen", "ours", "smol", "files"}
# Flags that name languages, and those that name files or folders that have to be there.
LANGUAGES = ("languages", "target_languages", "target_language", "src", "tgt")
EXISTING = ("languages_file", "seed_topics_path", "benchmark_dir", "test_files", "deepspeed")


def check(args: Parsed, folder: Path) -> None:
    """Raise UsageError for languages and benchmarks that are not known, and for files of the user that are not there, before a stage that runs
    days later does. What is in `folder`, that of the run, may be yet to come."""
    if getattr(args, "num_shards", None) is not None:
        raise UsageError(
            "--num_shards is a flag of single commands: no stage of a run file reads a shard; its section slurm has shards"
        )
    values = {
        flag: value if isinstance(value, list) else [value] for flag, value in vars(args).items() if value is not None
    }
    pools = [value for value in values.get("demonstration_pool", ()) if isinstance(value, Path)]  # of datagen.py: names
    for flag, paths in (*((flag, values.get(flag, ())) for flag in EXISTING), ("demonstration_pool", pools)):
        for path in paths:
            if _local(path) is None and real(folder) not in real(path).parents:
                raise UsageError(f"--{flag} {path} does not exist; paths are relative to the folder of the command")
    for name in values.get("benchmarks", ()):
        if real(folder) not in real(name).parents and name not in args.allow_missing:
            benchmarks.check(name, args.languages_file)
    for flag in LANGUAGES:
        for name in values.get(flag, ()):
            languages.find(name, args.languages_file)
    _check_copies(args, values)
    for value in (item for items in values.values() for item in items if isinstance(item, str)):
        file = value.rpartition(":")[0]
        if file.endswith(".py") and not Path(expanduser(file)).is_file():
            raise UsageError(f"{value}: there is no file {file}")


def _copies(args: Parsed) -> Path | None:
    """The folder with local copies of published benchmarks that a stage reads."""
    if "benchmark_dir" in vars(args):
        return benchmarks.folder_or_default(args.benchmark_dir)
    if getattr(args, "dataset_name_or_path", None) in benchmarks.REPOS:  # a benchmark to train on
        return benchmarks.folder_or_default(next(iter(args.data_dir), None))
    return None


def _check_copies(args: Parsed, values: Mapping[str, list]) -> None:
    """Raise UsageError for local copies of published benchmarks that lack a language of a stage, or have other texts."""
    folder = _copies(args)
    if folder is None or not folder.is_dir():
        return
    named = {*values.get("benchmarks", ()), *values.get("dataset_name_or_path", ())} - {
        *values.get("allow_missing", ())
    }
    chosen = dict.fromkeys(name for flag in LANGUAGES for name in values.get(flag, ()))
    for name, language in product(sorted(named & benchmarks.REPOS.keys()), chosen):
        try:
            _check_copy(name, language, folder, args.languages_file, args.allow_partial_benchmark)
        except UsageError as error:
            flag = "benchmark_dir" if "benchmark_dir" in vars(args) else "data_dir"
            raise UsageError(f"{error}; copy it there, or pass another --{flag}") from None


@cache  # the stages and variants of an experiment read the same copies
def _check_copy(name: str, language: str, folder: Path, languages_file: str | None, allow_partial: bool) -> None:
    with suppress(benchmarks.LacksLanguage):
        benchmarks.load(name, languages.find(language, languages_file), folder, languages_file, allow_partial)


def outputs(stage: str, args: Parsed) -> list[Path]:
    """The files of a stage's result that are there."""
    return sorted({path for path in STAGES[stage].writes(args) if path.is_file() and not _is_temporary(path)})


def is_complete(stage: str, args: Parsed) -> bool:
    """Whether the manifests, which stages write last, of all languages or directions are there; of an evaluation or audit, its files."""
    files = list(STAGES[stage].writes(args))
    manifests = {path for path in files if path.name.startswith("manifest_")}
    if stage == "evaluate" or (stage == "decontamination" and args.audit and not manifests):
        return all(path.is_file() for path in files)
    if stage == "main":
        runs = len(_models(args)) * (1 if args.metadata_dir else len(_directions(args)))
        return len([path for path in manifests if path.is_file()]) >= runs
    return bool(manifests) and all(path.is_file() for path in manifests)


def inputs(stage: str, args: Parsed) -> list[Path]:
    """The files that a stage reads, as far as its flags and $TOPXGEN_BENCHMARK_DIR name them; files in the Hub's cache are not among them."""
    row, copies = STAGES[stage], _copies(args)
    found = _files_below(copies, None) if copies is not None else []
    for flag in sorted({*args.given, "dirs"} - {*row.no_input, *LANGUAGES, "benchmark_dir"}):  # dirs is positional
        value = getattr(args, flag, None)
        for item in value if isinstance(value, list) else [value]:
            path = _local(item) if isinstance(item, str | Path) and str(item) not in NAMES else None
            if path is not None:
                found += [path] if path.is_file() else _files_below(path, row.reads.get(flag))
            found += _own_code(item) if isinstance(item, str) else []
    written = {path.resolve() for path in outputs(stage, args)}
    return sorted({path for path in found if path.resolve() not in written})


def _local(value: str | Path) -> Path | None:
    """The file or folder that a value names, also with lines or columns behind it (NTREX.eus[:900]:Basque)."""
    try:
        path = split_source(str(value))[0] if str(value) else None
        return path if path is not None and path.exists() else None
    except (OSError, ValueError, UsageError):
        return None


def _own_code(value: str) -> list[Path]:
    """The files of code of the user's own that a value names ("file.py:attribute", "module:attribute"), with those that it imports."""
    location = value.rpartition(":")[0]
    if not (location.endswith(".py") or location.replace(".", "").isidentifier()):
        return []
    with suppress(ImportError, ValueError):  # of what is no module
        return [Path(os.path.relpath(file)) for file in own_code.files_of(location)]
    return []


def _files_below(folder: Path, patterns: Iterable[str] | None) -> list[Path]:
    if patterns is None:
        is_model = any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))
        patterns = MODEL_FILES if is_model else ("**/*",)
    paths = {path for pattern in patterns for path in _matches(folder, pattern)}
    return [path for path in paths if path.is_file() and not _is_temporary(path)]


def _matches(folder: Path, pattern: str) -> Iterator[Path]:
    """As folder.glob, but `**` goes through links to folders, too: stages read what is behind them."""
    anywhere = pattern.removeprefix("**/")
    if anywhere == pattern:
        yield from folder.glob(pattern)
        return
    for name, _, _ in walk(folder):
        yield from Path(name).glob(anywhere)


UNREAD = ("engine.log", rates.NAME, checksums.NAME)


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(".") or path.suffix in (".partial", ".torn") or path.name in UNREAD
