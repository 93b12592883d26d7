"""The systems that are scored: translations in the folders of main.py's runs, checked against their test set."""

import argparse
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from comptra import evaluation_sets
from comptra.evaluation_sets import TestSet
from comptra.manifest import Manifest, RunSettings
from comptra.ordered_jsonl import TRUNCATED, UNANSWERED, TranslationLine, shortened
from comptra.scores import original_trees
from comptra.scores.columns import columns_of
from topxgen.common import checksums, provenance, shards
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, refuse_stand_in, walk
from topxgen.common.provenance import TRANSLATE_MANIFEST as MANIFEST
from topxgen.common.provenance import TRANSLATE_SETTINGS as SETTINGS
from topxgen.common.schemas import decode
from topxgen.common.translation_folders import variant
from topxgen.corpora import benchmarks, tables
from topxgen.text import languages
from topxgen.text.languages import Language

logger = logging.getLogger(__name__)


_RUN_NAME = re.compile(r"((.+?)_to_(.+?))_\d+_shot_seed_")


@dataclass(frozen=True)
class System:
    """The translations in a folder, and the part of the test set that they translate."""

    folder: Path
    dataset: str
    src: Language
    tgt: Language
    sentences: list[str]
    translations: list[str]
    references: list[str] | None
    missing: int  # sentences of the test set without a translation yet
    # The indices of translations that are empty, or made without an answer, because the LLM gave none.
    unanswered: frozenset[int]
    settings: dict  # of main.py; {} for the original's
    facts: dict  # of the test set
    truncated: frozenset[int] = frozenset()  # the indices of translations that are marked as cut
    is_edited: bool = False  # the file is not as main.py left it, by SHA256SUMS

    @property
    def short_name(self) -> str:
        """Model and settings; the direction is the same for all systems it is shown with."""
        return name_without_direction(self.folder, self.settings)

    @cached_property
    def test(self) -> tuple:
        """Systems are comparable if their keys are equal."""
        references = provenance.digest(self.references) if self.references is not None else ""
        digest = provenance.digest(self.sentences)
        return self.src.name, self.tgt.name, len(self.sentences), digest, references


def find_runs(folders: list[Path], step: int) -> list[Path]:
    """The folders that hold translate_{step}.jsonl, in `folders` or below, each once. Raises UsageError if there is none."""
    runs: dict[Path, Path] = {}
    filename = f"translate_{step}.jsonl"
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder; pass the --output_dir of main.py, or a folder of a run in it")
        files = sorted(Path(name) / filename for name, _, names in walk(folder) if filename in names)
        if not files:
            raise UsageError(f"there is no {filename} in {folder} or below; main.py writes it")
        wholes = [file for file in files if shards.folder_of(file.relative_to(folder)) is None]
        if not wholes:
            raise UsageError(f"{folder} has only shards of translations: run scripts/merge.py {folder} first")
        for file in wholes:
            shards.check_merged(file)
            runs.setdefault(file.parent.resolve(), file.parent)
    return list(runs.values())


def name_without_direction(folder: Path, settings: Mapping) -> str:
    """Model and settings of a run, equal for all directions: what names of today say of the settings is added to one of an older
    version. An ensemble has the names of its members."""
    name = folder.name
    if "ensembled_by" in settings:
        return f"best of {' and '.join(settings.get('systems', ()))} by {settings['ensembled_by']}"
    if run := _RUN_NAME.match(name):
        parts = [part for part in variant(settings) if f"_{part}" not in name] if settings else []
        name = "_".join([name[run.end(1) + 1 :], *parts])
    return f"{folder.parent.name}/{name}"


def system_names(groups: Iterable[Iterable[tuple[str, Mapping]]]) -> dict[str, str]:
    """By the path of a run the name of its system, which is the same in all directions.

    `groups`: for each test set (path, settings) of its systems. Where two of them have the same name, or two of different test sets
    that do not translate alike, the folders above it are added, or the whole path.
    """
    groups = [dict(group) for group in groups]
    settings = {path: own for group in groups for path, own in group.items()}
    short = {path: name_without_direction(Path(path), own) for path, own in settings.items()}
    ways = {path: repr((columns_of(own, Path(path)), own.get("weights"))) for path, own in settings.items()}
    names = dict(short)
    for longer in (lambda path: str(Path(path).parent.parent / short[path]), str):
        counts = [Counter(names[path] for path in group) for group in groups]
        counts.append(Counter(name for name, _ in {(names[path], way) for path, way in ways.items()}))
        twice = {name for count in counts for name, number in count.items() if number > 1}
        names |= {path: longer(path) for path, name in names.items() if name in twice}
    return names


def direction_of(name: str, languages_file: str | None = None) -> tuple[Language, Language]:
    """The languages in the name of a run's folder, English names (with _ for spaces, too) or FLORES codes.

    Raises UsageError if there are none.
    """
    match = _RUN_NAME.match(name)
    if not match:
        raise UsageError(
            f"{name!r} does not say what was translated: it has no {MANIFEST} and is not named "
            "{src}_to_{tgt}_{k}_shot_seed_…"
        )
    codes = re.compile("[a-z]{3}_[a-z]{4}", re.IGNORECASE)
    names = (side if codes.fullmatch(side) else side.replace("_", " ") for side in match.groups()[1:])
    try:
        src, tgt = (languages.find(side, languages_file) for side in names)
    except UsageError as error:
        raise UsageError(f"{name!r}: {error}") from None
    return src, tgt


def read_lines(path: Path) -> tuple[list[tuple[str, str, bool, bool]], str | None]:
    """(sentence, translation, whether it is unanswered, and marked as cut) of each line, and what is wrong with the last line.

    A broken last line is left out. Raises UsageError for another line that is not {"sentence": text, "translation": text}.
    """
    rows = []
    refuse_stand_in(path)
    lines = path.read_bytes().rstrip().split(b"\n")
    for number, line in enumerate(lines if lines != [b""] else [], start=1):
        try:
            record = decode(line, TranslationLine)
        except ValueError as error:
            problem = f"{path}, line {number}: {error}"
            if number < len(lines):
                raise UsageError(f"{problem}; fix or remove the line") from None
            return rows, f"{problem}, written in part by a run that was stopped or is still running"
        text = record["translation"]  # some programs write null where a model gave no answer
        is_unanswered = bool(record.get(UNANSWERED)) or text is None
        rows.append((record["sentence"], text or "", is_unanswered, bool(record.get(TRUNCATED))))
    return rows, None


def loader_of_test_sets(
    folders: Iterable[Path], benchmark_dir: Path | None, allow_partial: bool
) -> Callable[..., TestSet]:
    """`evaluation_sets.load` for read_system; each test set is loaded once. Without `benchmark_dir` a benchmark is looked for where
    the manifests in `folders` say that main.py read it, then in $TOPXGEN_BENCHMARK_DIR or on the Hub."""
    rooms = [benchmark_dir] if benchmark_dir else [*recorded_rooms(folders), None]

    @cache
    def load(dataset: str, src: Language, tgt: Language, **options) -> TestSet:
        options |= {"need_pool": False, "allow_partial": allow_partial}
        return benchmarks.from_first_of(
            rooms, lambda room: evaluation_sets.load(dataset, src, tgt, folder=room, **options)
        )

    return load


def recorded_rooms(folders: Iterable[Path]) -> list[Path]:
    """Where the manifests in folders of translations say that main.py read their benchmark."""
    found: dict[Path, None] = {}
    for folder in folders:
        with suppress(UsageError, OSError, KeyError):
            source = read_json(folder / MANIFEST, Manifest)["test_set"]["test"]["sources"]["from"]
            found |= dict.fromkeys(benchmarks.folders_of(source))
    return list(found)


def read_system(folder: Path, args: argparse.Namespace, load_test_set: Callable | None) -> System | None:
    """The translations in `folder`, compared with the test set line by line; None, with a log line, if there are none yet.

    Without `load_test_set` they are read alone, without references. Raises UsageError if they are of another test set, or
    incomplete without --allow_partial.
    """
    manifest = read_json(folder / MANIFEST, Manifest)
    settings = manifest.get("settings") or read_json(folder / SETTINGS, RunSettings)
    if manifest.get("own_temperature"):  # the model refused the one of the settings
        settings = {key: value for key, value in settings.items() if key != "temperature"} | {"own_temperature": True}
    if "src" in settings and "tgt" in settings:
        src, tgt = (languages.find(settings[side], args.languages_file) for side in ("src", "tgt"))
    else:
        src, tgt = direction_of(folder.name, args.languages_file)
    path = folder / f"translate_{args.step}.jsonl"
    rows = _rows_to_score(path, args)
    if is_edited := checksums.is_changed(path):
        logger.warning(f"{path} was changed after it had been written (its digest in {checksums.NAME} is another one)")
    sentences, translations = [row[0] for row in rows], [row[1] for row in rows]
    unanswered, truncated = (frozenset(i for i, row in enumerate(rows) if row[mark]) for mark in (2, 3))
    if unanswered:
        logger.warning(
            f"{len(unanswered)} lines of {path} have no response of the LLM (a prompt too long, refused by an API) and are scored "
            "as they are; re-run main.py to retry them"
        )
    dataset = args.dataset_name_or_path or ("files" if args.test_files else settings.get("dataset_name_or_path"))
    if args.step == 0 and not (dataset or settings):
        dataset = original_trees.dataset_of(folder)
    references, missing, facts = None, 0, {}
    if args.step == 0 and load_test_set:
        files = _test_files(folder, manifest, dataset, args)
        limits = [limit for limit in (settings.get("max_samples"), args.max_samples) if limit is not None]
        test_set = load_test_set(dataset, src, tgt, max_samples=min(limits, default=None), test_files=files)
        what = f"{dataset} from {src.name} into {tgt.name}"
        _check_sentences(path, sentences, test_set.sources, what)
        missing = len(test_set.sources) - len(sentences)
        if missing and not args.allow_partial:
            raise UsageError(
                f"{path} has {len(sentences)} translations, {missing} of {len(test_set.sources)} sentences of {what} are "
                "missing; let main.py finish it, or pass --allow_partial"
            )
        sentences, references = test_set.sources[: len(rows)], test_set.references[: len(rows)]
        facts = test_set.facts
        if _references_digest(manifest.get("test_set", {})) not in (None, _references_digest(facts)):
            logger.warning(
                f"the references of {what} are not those of {folder} (another release, an edited file, the --benchmark_dir of another "
                f"run?): the scores use {facts['test']['references']['from']}"
            )
    if not rows:
        if not args.allow_partial:
            raise UsageError(f"{path} is empty")
        logger.info(f"{path} has no translations yet: skipped")
        return None
    texts = sentences, translations, references
    return System(folder, dataset or "", src, tgt, *texts, missing, unanswered, settings, facts, truncated, is_edited)


def _rows_to_score(path: Path, args: argparse.Namespace) -> list[tuple[str, str, bool, bool]]:
    """The rows of `read_lines`, at most --max_samples. Raises UsageError for a broken line among them, unless --allow_partial."""
    rows, problem = read_lines(path)
    if args.max_samples is not None and len(rows) >= args.max_samples:
        return rows[: args.max_samples]
    if problem and not args.allow_partial:
        raise UsageError(f"{problem}; let main.py finish it, or pass --allow_partial")
    if problem:
        logger.info(f"{problem}: skipped")
    return rows


def _test_files(folder: Path, manifest: dict, dataset: str | None, args: argparse.Namespace) -> tuple[Path, ...] | None:
    """The user's own files of the test set; None for another one. Raises UsageError if it is not known which test set that is."""
    if not dataset:
        raise UsageError(
            f"{folder} does not say which test set it translates (no {MANIFEST}); pass --dataset_name_or_path, one of "
            + ", ".join(evaluation_sets.DATASETS)
        )
    files = args.test_files or (_files_of(folder, manifest) if dataset == "files" else None)
    if dataset == "files" and not files:
        raise UsageError(
            f"{folder} has no {MANIFEST} that names its test files: let main.py finish it, or pass --test_files SRC REF"
        )
    return files and tuple(files)


def _references_digest(facts: dict) -> str | None:
    """The digest in the facts of a test set, as a manifest holds them."""
    return facts.get("test", {}).get("references", {}).get("sha256")


def _files_of(folder: Path, manifest: dict) -> list[Path] | None:
    """The test files of a run with --dataset_name_or_path files; None if the manifest does not name them (yet).

    Raises UsageError if they are not where they were: moved, or recorded by an older version by a relative path.
    """
    sides = manifest.get("test_set", {}).get("test", {})
    paths = [Path(sides[side]["from"]) for side in ("sources", "references") if "from" in sides.get(side, {})]
    for path in paths:
        if not tables.split_source(str(path))[0].exists():
            relative = "" if path.is_absolute() else " (relative to the folder where main.py ran)"
            raise UsageError(
                f"{folder / MANIFEST} names the test file {path}{relative}, which does not exist; pass --test_files SRC REF"
            )
    return paths if len(paths) == 2 else None


def _check_sentences(path: Path, sentences: list[str], sources: list[str], what: str) -> None:
    for number, (sentence, source) in enumerate(zip(sentences, sources, strict=False), start=1):
        if sentence.split() != source.split():
            raise UsageError(
                f"{path}, line {number} translates {shortened(sentence)}, but sentence {number} of {what} is {shortened(source)}: "
                "another data set or direction; see --dataset_name_or_path"
            )
    if len(sentences) > len(sources):
        raise UsageError(f"{path} has {len(sentences)} lines, {what} only {len(sources)} sentences: another data set?")
