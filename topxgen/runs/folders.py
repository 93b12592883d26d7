"""Which folders below a directory are of which stage, by the names and contents of their files (docs/files.md)."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topxgen.common import checksums, failures, shards
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, walk
from topxgen.common.lineage import EXPORT_MANIFEST, MERGE_MANIFEST, TRAIN_MANIFEST
from topxgen.common.records import FilteredLayout, Layout, target_language_of, translations_name
from topxgen.common.schemas import fields
from topxgen.text import languages

PAIRS, FILTERED = translations_name(""), "_translate_filtered.jsonl"
RESPONSES, REJECTS = "_answers.jsonl", "_rejects.jsonl"
_DATA_SET_FILES = {EXPORT_MANIFEST, "dataset_dict.json", "dataset_info.json", "manifest_publish.json"}
# In a checkpoint of a training; main.py's folder for the translations of a checkpoint has its name, too.
_WEIGHTS_FILES = {
    "config.json",
    "adapter_config.json",
    "checkpoint_files.json",
    "trainer_state.json",
    "data_manifest.json",
}
# Never looked into: they may be large.
_OTHER_JSON = re.compile(
    r"(tokenizer|config|adapter_|generation_|vocab|trainer_state|manifest_|settings_|decontamination_).*"
)
MAX_JSON = 200_000_000  # bytes of a file that may be a report
_TRAINING_FILES = {TRAIN_MANIFEST, "settings_train.json", "train_log.jsonl"}


@dataclass(frozen=True)
class BackTranslation:
    """Pairs of some languages, and what is left of them after a decontamination.

    Where the decontaminations of languages are in several folders, each is a back-translation of its own: no language of a
    folder is in two of them.
    """

    folder: Path
    generation: Path | None  # the folder with the paragraphs and responses
    languages: tuple[str, ...]
    target_language: str
    filtered: Path | None  # the folder of the filtered files; a language without one there was not decontaminated

    def layout(self) -> Layout:
        return Layout(self.folder.parent, self.folder.name)


@dataclass(frozen=True)
class Run:
    """Everything that was found below `root`, each list in the order of the paths."""

    root: Path
    generations: tuple[Path, ...] = ()
    back_translations: tuple[BackTranslation, ...] = ()
    trainings: tuple[Path, ...] = ()
    merges: tuple[Path, ...] = ()
    translations: tuple[Path, ...] = ()  # folders of main.py with translate_{step}.jsonl
    evaluations: tuple[Path, ...] = ()  # JSON files of comptra.evaluate
    experiments: tuple[Path, ...] = ()  # JSON files of scripts/compare.py
    records: tuple[Path, ...] = ()  # folders `run` of scripts/run.py and compare.py
    failures: tuple[Path, ...] = ()  # files of stages that have failed
    problems: tuple[str, ...] = ()  # what could not be read, a line each

    @property
    def languages(self) -> tuple[str, ...]:
        """Of all paragraphs and pairs."""
        named = {name for one in self.back_translations for name in one.languages}
        return tuple(sorted(named.union(*map(languages_of, self.generations))))


def find(root: Path, *others: Path, shows_shard: Callable[[Path], bool] | None = None) -> Run:
    """The stages' folders below `root` and below `others`, such as those that a run file names elsewhere.

    Shards are parts of the directory that they are in, and of `problems` if they are not merged; with `shows_shard` their folders
    are found, too: of those that it is true of, and the stages of others that are not merged.

    Links to directories are not followed; checkpoints, hidden folders and exported data sets are not looked into.
    Raises UsageError if `root` is not a directory.
    """
    if not root.is_dir():
        raise UsageError(f"{root} is not a directory; pass the output directory of a run")
    found = _Found()
    unmerged: dict[Path, set[Path]] = defaultdict(set)
    for base, folder, files in _walk((root, *others), found.problems):
        below = shards.folder_of(folder.relative_to(base))
        if below is None:
            found.add(folder, files)
            continue
        shard = base / below
        noted = shards.stages_in(folder)
        left = {stage for stage, part in noted if not shards.is_merged(shard, folder, stage, part)}
        if shows_shard is not None:
            merged = {stage for stage, _ in noted} - left
            found.add(
                folder, files, set() if shows_shard(shard) else merged - ({"translate"} if "score" in left else set())
            )
        elif left:
            unmerged[shards.whole_of(shard)].add(shard)
    found.problems += [
        f"{whole} has {len(folders)} shards that are not merged, and not shown: python scripts/merge.py {whole}"
        for whole, folders in sorted(unmerged.items())
    ]
    return found.run(root)


def languages_of(generation: Path) -> tuple[str, ...]:
    """The languages whose paragraphs, responses or rejects are in a folder, sorted."""
    try:
        return tuple(sorted(_generated(sorted(os.listdir(generation)))))
    except OSError:  # vanished
        return ()


def _walk(roots: Iterable[Path], problems: list[str]) -> Iterator[tuple[Path, Path, list[str]]]:
    """(root, folder, names of its files, sorted) of each folder; one in two roots comes once."""

    def cannot_read(error: OSError) -> None:
        problems.append(f"{error.filename} cannot be read: {error.strerror}")

    seen: set[str] = set()
    for root in roots:
        for name, folders, files in walk(root, cannot_read, seen):
            is_checkpoint = re.fullmatch(r"checkpoint-\d+", Path(name).name) and not _WEIGHTS_FILES.isdisjoint(files)
            if is_checkpoint or not _DATA_SET_FILES.isdisjoint(files):
                folders.clear()
                continue
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            yield root, Path(name), sorted(files)


def _names(files: Iterable[str], suffix: str) -> set[str]:
    return {name.removesuffix(suffix) for name in files if name.endswith(suffix) and name != suffix}


def _generated(files: list[str]) -> set[str]:
    """Languages of which a folder has paragraphs, responses or rejects by the names of its files."""
    responses = {name for name in _names(files, RESPONSES) if not name.endswith("translate")}
    sure = responses - {"topic_judge"} | {
        name for name in _names(files, REJECTS) if not name.endswith("_translate") and _is_language(name)
    }
    sure |= {match[1] for name in files if (match := re.fullmatch(r"manifest_generate_(.+)\.json", name))}
    return sure | {name for name in _names(files, ".jsonl") if _is_language(name)}


def code_of(language: str) -> str:
    """The same for all names and codes of a language."""
    try:
        return languages.find(language).flores
    except UsageError:  # of --languages_file
        return language.casefold()


def _is_language(name: str) -> bool:
    """Whether the scripts name files of a language so."""
    return name in languages.load() or name in languages.other_names()


# What tells the JSON files of scripts apart.
_Head = fields(groups=list, experiment=Any, words=Any, outputs=Any)
# manifest_decontaminate_{Language}.json: `lineage` names the folder of the input.
_Decontamination = fields(lineage=fields(name=str), finished=str)


class _Found:
    def __init__(self):
        self.problems: list[str] = []
        self.generations, self.trainings, self.merges, self.translations = [], [], [], []
        self.evaluations, self.experiments, self.records, self.failures = [], [], [], []
        self.merged: set[Path] = set()  # shards whose paragraphs the whole directory has
        self.pairs: dict[Path, set[str]] = {}
        self.filtered: dict[Path, set[str]] = {}

    def add(self, folder: Path, files: list[str], without: Collection[str] = ()) -> None:
        """`without`: stages that are another folder's."""
        names = set(files)
        if pairs := "translate" not in without and _names(files, PAIRS):
            self.pairs[folder] = pairs
        if filtered := "decontaminate" not in without and _names(files, FILTERED):
            self.filtered[folder] = filtered
        if "generate" in without:
            self.merged.add(folder)
        elif _generated(files) or "manifest_generate.json" in names or "settings_generate.json" in names:
            self.generations.append(folder)
        if names & _TRAINING_FILES:
            self.trainings.append(folder)
        if MERGE_MANIFEST in names:
            self.merges.append(folder)
        if "translate" not in without and any(re.fullmatch(r"translate_\d+\.jsonl", name) for name in files):
            self.translations.append(folder)
        if folder.name == failures.FOLDER and folder.parent.name == "run":
            self.failures += [folder / name for name in files if name.endswith(".json")]
            return
        is_record = folder.name == "run"
        for name in files:
            if name.endswith(".json") and not _OTHER_JSON.fullmatch(name):
                kind = self._kind(folder / name)
                if kind == "record" and is_record and folder not in self.records:
                    self.records.append(folder)
                elif kind in ("evaluations", "experiments"):
                    getattr(self, kind).append(folder / name)

    def _kind(self, path: Path) -> str | None:
        """What a JSON file is, by its contents."""
        try:
            if not path.is_file():  # a pipe, a device or a link to nothing
                return None
            if path.stat().st_size > MAX_JSON:
                self.problems.append(f"{path} is larger than {MAX_JSON // 10**6} MB and was not read")
                return None
            data = path.read_bytes()
            if b'"groups"' not in data and b'"words"' not in data:
                return None
            head = read_json(path, _Head)
        except (OSError, UsageError) as error:
            self.problems.append(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")
            return None
        if "groups" in head:
            return "experiments" if "experiment" in head else "evaluations"
        return "record" if {"words", "outputs"} <= head.keys() else None

    def run(self, root: Path) -> Run:
        back_translations = sorted(self._back_translations(), key=lambda one: (one.folder, one.languages))
        generations = {*self.generations, *(one.generation for one in back_translations if one.generation)}
        lists = ("trainings", "merges", "translations", "evaluations", "experiments", "records", "failures")
        return Run(
            root,
            tuple(sorted(generations)),
            tuple(back_translations),
            **{name: tuple(sorted(getattr(self, name))) for name in lists},
            problems=tuple(self.problems),
        )

    def _back_translations(self) -> Iterator[BackTranslation]:
        filtered = self._filtered_by_input()
        for folder, named in self.pairs.items():
            by_output = defaultdict(set)
            for language in named:
                by_output[filtered.get((folder, language))].add(language)
            # Languages that were not decontaminated go with those that were: in the same folder, or in the first.
            outputs = sorted((output for output in by_output if output), key=lambda path: (path != folder, path))
            if outputs and None in by_output:
                by_output[outputs[0]] |= by_output.pop(None)
            for output, of_output in by_output.items():
                yield self._back_translation(folder, of_output, output)
        inputs = {key: output for key, output in filtered.items() if key[0] not in self.pairs}
        for output in dict.fromkeys(inputs.values()):  # without the pairs that they were made from
            yield self._back_translation(output, {name for _, name in inputs if inputs[_, name] == output}, output)

    def _back_translation(self, folder: Path, named: set[str], filtered: Path | None) -> BackTranslation:
        try:
            target = target_language_of(folder)
        except (OSError, UsageError) as error:
            self.problems.append(f"the language of the translations is taken for English: {error}")
            target = "English"
        return BackTranslation(folder, self._generation(folder, named), tuple(sorted(named)), target, filtered)

    def _generation(self, folder: Path, named: set[str]) -> Path | None:
        """The folder above, if it has paragraphs or responses of these languages, or of none by their names (as with
        --output_filenames), but the settings of a generation."""
        above = folder.parent
        if above in self.merged:
            return shards.whole_of(above)
        if above in self.generations:
            return above
        try:
            files = os.listdir(above)
        except OSError:
            return None
        return above if named & _generated(files) or "settings_generate.json" in files else None

    def _filtered_by_input(self) -> dict[tuple[Path, str], Path]:
        """By the folder and language of pairs, the folder of the filtered ones; by that folder itself if the pairs are not there.

        One in the same folder comes first, else the latest.
        """
        found: dict[tuple[Path, str], list[tuple[bool, str, Path]]] = defaultdict(list)
        for output, named in self.filtered.items():
            for language in named:
                source, finished = self._input_of(output, language)
                found[source, language].append((source == output, finished, output))
        for (source, language), outputs in found.items():
            outputs.sort(reverse=True)
            self.problems += [
                f"{output}: another decontamination of {language} in {source}, not shown" for *_, output in outputs[1:]
            ]
        return {key: outputs[0][2] for key, outputs in found.items()}

    def _input_of(self, output: Path, language: str) -> tuple[Path, str]:
        """The folder whose pairs of a language were filtered into `output` (itself, if it is not known or not here), and when."""
        try:
            manifest = read_json(FilteredLayout(output).manifest(language), _Decontamination)
        except (OSError, UsageError) as error:
            self.problems.append(str(error))
            manifest = {}
        finished = manifest.get("finished", "")
        if language in self.pairs.get(output, ()):
            return output, finished
        folders = [folder for folder, named in self.pairs.items() if language in named]
        recorded = Path(manifest.get("lineage", {}).get("name") or output)
        best = max((common_end(recorded, folder) for folder in folders), default=0)
        nearest = [folder for folder in folders if common_end(recorded, folder) == best]
        return (nearest[0] if len(nearest) == 1 and (best or len(folders) == 1) else output), finished


def relative(root: Path, path: Path) -> str:
    """How messages and the page name a folder or file: from `root`, whole if it is not below that."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def common_end(first: Path, second: Path) -> int:
    """How many of the last parts of two paths are the same: folders may have been moved since their paths were recorded."""
    pairs = zip(reversed(first.absolute().parts), reversed(second.absolute().parts), strict=False)
    return next((i for i, (one, other) in enumerate(pairs) if one != other), len(second.parts))


def layout_of(generation: Path) -> Layout:
    """The files of a folder of paragraphs, also where --output_filenames named them otherwise: their manifests alone know."""
    named = {}
    for path in generation.glob("manifest_generate_*.json"):
        try:
            manifest = read_json(path, _Generated)
        except (OSError, UsageError):
            continue
        language = manifest.get("language", "")
        own = re.compile(rf"{re.escape(language)}_(answers|rejects|\d+)\.jsonl")
        texts = [
            name for name in manifest.get(checksums.KEY, ()) if name.endswith(".jsonl") and not own.fullmatch(name)
        ]
        named |= {language: texts[0]} if len(texts) == 1 else {}
    return Layout(generation, "", named)


_Generated = fields(language=str, checksums=list[str])
