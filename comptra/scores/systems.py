"""What is scored: the translations of a system, checked against the test set they translate."""

import argparse
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from comptra import evaluation_sets
from comptra.ordered_jsonl import UNANSWERED
from topxgen.common import provenance
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json
from topxgen.common.provenance import TRANSLATE_MANIFEST as MANIFEST
from topxgen.common.provenance import TRANSLATE_SETTINGS as SETTINGS
from topxgen.text import languages
from topxgen.text.languages import Language

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class System:
    """A folder with translations, and what they are translations of."""

    folder: Path
    dataset: str
    src: Language
    tgt: Language
    sentences: list[str]
    translations: list[str]
    references: list[str] | None
    missing: int  # sentences of the test set that have no translation yet
    unanswered: int  # lines that lack an answer: empty, or made without it
    settings: dict  # of main.py; {} for the original's
    facts: dict  # of the test set

    @property
    def short_name(self) -> str:
        """Model and settings; the direction is the same for all it is shown with."""
        direction = _DIRECTION.match(self.folder.name)
        return (
            f"{self.folder.parent.name}/{self.folder.name[direction.end(1) + 1 :] if direction else self.folder.name}"
        )

    @cached_property
    def test(self) -> tuple:
        """What must be equal for two systems to be comparable."""
        references = provenance.digest(self.references) if self.references is not None else ""
        digest = provenance.digest(self.sentences)
        return self.src.name, self.tgt.name, len(self.sentences), digest, references


_DIRECTION = re.compile(r"(.+_to_.+)_\d+_shot_seed_")


def find_runs(folders: list[Path], step: int) -> list[Path]:
    """The folders that hold translate_{step}.jsonl, in `folders` or below, each once. Raises UsageError where there is none."""
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder; pass the --output_dir of main.py, or a folder of a run in it")
        files = sorted(folder.rglob(f"translate_{step}.jsonl"))
        if not files:
            raise UsageError(f"there is no translate_{step}.jsonl in {folder} nor below; main.py writes it")
        for file in files:
            found.setdefault(file.parent.resolve(), file.parent)
    return list(found.values())


def direction_of(name: str, languages_file: str | None = None) -> tuple[Language, Language]:
    """The languages in the name of a run's folder, English names or FLORES codes. Raises UsageError when it has none."""
    match = _DIRECTION.match(name)
    if not match:
        raise UsageError(
            f"{name!r} does not say what was translated: there is no {MANIFEST} in it, and it is not named "
            "{src}_to_{tgt}_{k}_shot_seed_…"
        )
    words = match[1].split("_to_")
    failure = None
    for i in range(1, len(words)):
        try:
            src, tgt = (_language("_to_".join(side), languages_file) for side in (words[:i], words[i:]))
            return src, tgt
        except UsageError as error:
            failure = error
    raise UsageError(f"{name!r}: {failure}")


def _language(name: str, languages_file: str | None) -> Language:
    try:
        return languages.find(name, languages_file)
    except UsageError:
        if "_" not in name:
            raise
        return languages.find(name.replace("_", " "), languages_file)


def read_translations(path: Path) -> tuple[list[tuple[str, str, bool]], str | None]:
    """(sentence, translation, whether it lacks an answer) a line, and what is wrong with the last line, if it is (left out then).

    A line in the middle that is not {"sentence": text, "translation": text} raises UsageError.
    """
    pairs = []
    lines = path.read_bytes().split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            pair = record["sentence"], record["translation"], bool(record.get(UNANSWERED))
            if pair[1] is None:  # as some programs write where a model said nothing
                pair = pair[0], "", True
            if not all(isinstance(text, str) for text in pair[:2]):
                raise TypeError("sentence and translation must be texts")
        except (ValueError, KeyError, TypeError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            problem = f"{path}, line {number}: not a sentence with its translation ({what})"
            if number < len(lines):
                raise UsageError(f"{problem}; mend or remove the line") from None
            return pairs, f"{problem}, half-written by a run that was stopped or goes on"
        pairs.append(pair)
    return pairs, None


def read_system(folder: Path, args: argparse.Namespace, load_test_set: Callable) -> System | None:
    """The translations in `folder`, held against the test set line by line; None: nothing in it yet, which is said.

    Raises UsageError when they are of another test set, or not complete without --allow_partial.
    """
    manifest = read_json(folder / MANIFEST)
    settings = manifest.get("settings") or read_json(folder / SETTINGS)
    if "src" in settings and "tgt" in settings:
        src, tgt = (languages.find(settings[side], args.languages_file) for side in ("src", "tgt"))
    else:
        src, tgt = direction_of(folder.name, args.languages_file)
    path = folder / f"translate_{args.step}.jsonl"
    pairs, problem = read_translations(path)
    if problem and not args.allow_partial:
        raise UsageError(f"{problem}; let main.py finish it, or pass --allow_partial")
    if problem:
        logger.info(f"{problem}: left out")
    sentences, translations = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    unanswered = sum(pair[2] for pair in pairs)
    if unanswered:
        logger.warning(
            f"{unanswered} lines of {path} lack an answer (a prompt too long, refused by an API) and count as they "
            "stand; main.py asks again"
        )
    dataset = args.dataset_name_or_path or ("files" if args.test_files else settings.get("dataset_name_or_path"))
    references, missing, facts = None, 0, {}
    if args.step == 0:
        if not dataset:
            raise UsageError(
                f"{folder} does not say which test set it is of (no {MANIFEST}); pass --dataset_name_or_path, one of "
                + ", ".join(evaluation_sets.DATASETS)
            )
        files = args.test_files or (_files_of(manifest) if dataset == "files" else None)
        test_set = load_test_set(dataset, src, tgt, settings.get("max_samples"), files and tuple(files))
        what = f"{dataset} from {src.name} into {tgt.name}"
        _check_sentences(path, sentences, test_set.sources, what)
        missing = len(test_set.sources) - len(sentences)
        if missing and not args.allow_partial:
            raise UsageError(
                f"{path} has {len(sentences)} translations, {missing} of {len(test_set.sources)} sentences of {what} are missing; let "
                "main.py finish it, or pass --allow_partial"
            )
        sentences, references = test_set.sources[: len(pairs)], test_set.references[: len(pairs)]
        facts = test_set.facts
        if _references_digest(manifest.get("test_set", {})) not in (None, _references_digest(facts)):
            logger.warning(
                f"{what} has other references now than when main.py finished {folder} (another release, an edited "
                "file?): scores are against those of now"
            )
    if not pairs:
        if not args.allow_partial:
            raise UsageError(f"{path} is empty")
        logger.info(f"{path} has no translations yet: left out")
        return None
    return System(
        folder, dataset or "", src, tgt, sentences, translations, references, missing, unanswered, settings, facts
    )


def _references_digest(facts: dict) -> str | None:
    """Of a test set's facts, as in a manifest."""
    return facts.get("test", {}).get("references", {}).get("sha256")


def _files_of(manifest: dict) -> list[Path] | None:
    """The test files of a run with --dataset_name_or_path files; None where it does not tell (yet)."""
    sides = manifest.get("test_set", {}).get("test", {})
    paths = [Path(sides[side]["from"]) for side in ("sources", "references") if "from" in sides.get(side, {})]
    return paths if len(paths) == 2 else None


def _check_sentences(path: Path, sentences: list[str], sources: list[str], what: str) -> None:
    for number, (sentence, source) in enumerate(zip(sentences, sources, strict=False), start=1):
        if sentence.split() != source.split():
            raise UsageError(
                f"{path}, line {number} translates {_short(sentence)}, {what} has {_short(source)} there: another data set or "
                "direction; see --dataset_name_or_path"
            )
    if len(sentences) > len(sources):
        raise UsageError(f"{path} has {len(sentences)} lines, {what} only {len(sources)} sentences: another data set?")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
