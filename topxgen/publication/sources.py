"""What a run has to publish: for each language the pairs of one or more back-translators, read as streams."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from topxgen.common import freshness, shards
from topxgen.common.errors import UsageError
from topxgen.common.masks import masked
from topxgen.common.records import (
    CONFIDENCE,
    PARALLEL,
    FilteredLayout,
    TranslationRecord,
    back_translator_in,
    read_translations,
)
from topxgen.runs.folders import BackTranslation, Run
from topxgen.text import languages
from topxgen.text.languages import Language
from topxgen.text.words import is_blank

ALL = "all"  # the config of all languages together


class Pair(NamedTuple):
    """A row of the data set: `source` is the translation, `target` the sentence in the language that data was made for, as in
    training. Codes are those of FLORES-200."""

    id: str
    source: str
    target: str
    src: str
    tgt: str
    score: float | None
    scorer: str | None
    confidence: float | None
    topic: str | None
    paragraph_id: str
    paragraph: str
    back_translator: str


class Paragraph(NamedTuple):
    """A paragraph with the pairs of it that are published, at least one."""

    config: str
    text: str
    language: Language
    target: Language
    pairs: list[Pair]


@dataclass(frozen=True)
class Source:
    """The pairs of a language by one back-translator: those that decontamination left, if it ran."""

    path: Path
    all_pairs: Path | None  # the file that was decontaminated; ids have the numbers of its pairs, as pages of runs have
    name: str  # of the language, in names of files
    language: Language
    target: Language
    back_translator: str
    folder: Path  # of the back-translations
    generation: Path | None
    filtered: Path | None  # the folder of the decontaminated files; None: this language was not decontaminated
    prefix: str = ""  # of the ids of paragraphs, where those of several runs are published together
    infix: str = ""  # of the ids of pairs, where a paragraph was translated several times


@dataclass(frozen=True)
class Config:
    """What `datasets` loads by one name; its files are in `folder`."""

    name: str
    folder: str
    sources: tuple[Source, ...]

    @property
    def language(self) -> Language:
        return self.sources[0].language

    @property
    def target(self) -> Language:
        return self.sources[0].target


def plan(run: Run, names: Collection[str] | None = None, languages_file: str | None = None) -> list[Config]:
    """The configs of a run, in order of their names: one for each language, and for each target language if there are several.

    Raises UsageError if there are no pairs, and for languages that are unknown or not there.
    """
    wanted = None if names is None else {languages.find(name, languages_file).flores: name for name in names}
    found: dict[tuple[str, str], list[Source]] = {}
    for one in run.back_translations:
        for name in one.languages:
            source = _source(one, name, languages_file)
            if wanted is None or source.language.flores in wanted:
                freshness.check(source.path)
                shards.check_merged(one.layout().translations(name))
                found.setdefault((source.language.name, source.target.name), []).append(source)
    there = {source.language.flores for sources in found.values() for source in sources}
    if missing := [name for flores, name in (wanted or {}).items() if flores not in there]:
        raise UsageError(
            f"{run.root} has no pairs of {' and '.join(missing)}, only of "
            f"{', '.join(sorted({name for one in run.back_translations for name in one.languages})) or 'none'}"
        )
    if not found:
        raise UsageError(
            f"no {{Language}}_translate.jsonl in or below {run.root}: there is nothing to publish; pass the --output_dir of datagen.py"
        )
    targets = Counter(language for language, _ in found)
    configs, folders = [], set()
    for language, target in sorted(found):
        name = language if targets[language] == 1 else f"{language} to {target}"
        folder = re.sub(r"[^\w.-]+", "_", name)
        folder += f"-{len(folders)}" * (folder in folders)
        folders.add(folder)
        configs.append(Config(name, folder, _with_ids(found[language, target], run.root)))
    return configs


def _source(one: BackTranslation, name: str, languages_file: str | None) -> Source:
    layout, all_pairs = one.filtered and FilteredLayout(one.filtered), one.layout().translations(name)
    is_filtered = layout is not None and layout.filtered(name).exists()
    path = layout.filtered(name) if is_filtered else all_pairs
    try:
        language, target = (languages.find(side, languages_file) for side in (name, one.target_language))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return Source(
        path,
        all_pairs if is_filtered and all_pairs.is_file() else None,
        name,
        language,
        target,
        masked(back_translator_in(one.folder)),
        one.folder,
        one.generation,
        one.filtered if is_filtered else None,
    )


def _with_ids(sources: list[Source], root: Path) -> tuple[Source, ...]:
    """The sources, with what makes the ids of their paragraphs and pairs unique."""
    generations = dict.fromkeys(source.generation or source.folder for source in sources)
    folders = dict.fromkeys(source.folder for source in sources)

    def part(path: Path, among: Iterable[Path]) -> str:
        try:
            return path.relative_to(root).as_posix()
        except ValueError:  # a file of decontamination somewhere else
            return f"{list(among).index(path)}-{path.name}"

    return tuple(
        replace(
            source,
            prefix=f"{part(source.generation or source.folder, generations)}/" if len(generations) > 1 else "",
            infix=f"{part(source.folder, folders)}/" if len(folders) > len(generations) else "",
        )
        for source in sources
    )


@dataclass
class Measured:
    """What a config has before and after the selection of pairs."""

    paragraphs: int = 0  # with and without pairs
    without_pairs: int = 0
    pairs: int = 0
    empty: int = 0  # pairs with an empty side, which are left out
    kept: int = 0
    scorers: dict[str, int] = field(default_factory=dict)  # scored pairs by scorer, "" where it is not named
    threshold: float | None = None  # of --percentile


@dataclass(frozen=True)
class Selection:
    """`min_score`: pairs with at least this score; `percentile`: those with a score above this percentile of their config's, as
    in train.py. None: all pairs."""

    min_score: float | None = None
    percentile: float | None = None

    def measure(self, config: Config, on_cut: Callable[[Path], object]) -> Measured:
        """Raises UsageError for a selection by scores that are missing or come from several scorers, and one that leaves nothing."""
        from array import array

        measured, scores, scorers = Measured(), array("d"), Counter()
        for source in config.sources:
            for _, record in read_translations(source.path, PARALLEL[2:], on_cut):
                pairs = list(_pairs_in(record))
                measured.paragraphs += 1
                measured.without_pairs += not pairs
                measured.pairs += len(record["propositions"])
                measured.empty += len(record["propositions"]) - len(pairs)
                for _, _, _, score, _ in pairs:
                    scorers[record.get("scorer") or ""] += score is not None
                    if self.percentile is not None and score is not None:
                        scores.append(score)
                    measured.kept += self.min_score is None or (score is not None and score >= self.min_score)
        measured.scorers = {name: count for name, count in sorted(scorers.items()) if count}
        if self != Selection():
            self._check(config, measured)
        if self.percentile is not None:
            import numpy as np

            measured.threshold = float(np.percentile(np.frombuffer(scores), self.percentile))
            measured.kept = sum(score > measured.threshold for score in scores)
        if not measured.kept:
            raise UsageError(
                f"no pair of {config.name} is left to publish ({_left(measured, self)}); --languages chooses others"
            )
        return measured

    def _check(self, config: Config, measured: Measured) -> None:
        flag = f"--min_score {self.min_score:g}" if self.percentile is None else f"--percentile {self.percentile:g}"
        scorers = [masked(name) or "an unnamed scorer" for name in measured.scorers]
        if measured.scorers.keys() == {CONFIDENCE}:
            scorers = sorted({f"{CONFIDENCE} of {source.back_translator}" for source in config.sources})
        if len(scorers) > 1:
            names = " and ".join(scorers)
            raise UsageError(
                f"{flag}: the pairs of {config.name} were scored by {names}, whose scores are not comparable: score all with one "
                "(datagen.py --stages score --scorer NAME, then decontamination.py), or drop the flag"
            )
        unscored = measured.pairs - measured.empty - sum(measured.scorers.values())
        if not measured.scorers or (unscored and self.percentile is not None):
            raise UsageError(
                f"{flag} needs scores, but {unscored:,} of {measured.pairs:,} pairs of {config.name} have none: run datagen.py --stages "
                "score and decontamination.py again, or drop the flag"
            )

    def keeps(self, score: float | None, measured: Measured) -> bool:
        if self.percentile is not None:
            return score is not None and score > measured.threshold
        return self.min_score is None or (score is not None and score >= self.min_score)


def _left(measured: Measured, selection: Selection) -> str:
    if not measured.pairs:
        return f"its {measured.paragraphs:,} paragraphs have no pairs"
    if selection == Selection():
        return "all are empty"
    return f"{measured.pairs:,} pairs before --min_score or --percentile"


def paragraphs(config: Config, selection: Selection, measured: Measured) -> Iterator[Paragraph]:
    """The paragraphs of a config with the pairs that are published; those without any are left out. `Selection.measure` has
    reported lines that are cut off."""
    for source in config.sources:
        place_of = _Places(source)
        for name, record in read_translations(source.path, PARALLEL[2:], lambda _: None):
            pairs = [pair for pair in _pairs_in(record) if selection.keeps(pair[3], measured)]
            if not pairs:
                continue
            text = record.get("sentence") or " ".join(record["propositions"])
            scorer, place = record.get("scorer"), place_of(name, record)
            common = (record.get("topic"), f"{source.prefix}{name}", text, source.back_translator)
            rows = [
                Pair(
                    f"{source.prefix}{name}/{source.infix}p{place(i)}",
                    translation,
                    sentence,
                    source.target.flores,
                    source.language.flores,
                    score,
                    masked(scorer) if scorer and score is not None else None,
                    confidence,
                    *common,
                )
                for i, sentence, translation, score, confidence in pairs
            ]
            yield Paragraph(config.name, text, source.language, source.target, rows)


def _pairs_in(record: TranslationRecord) -> Iterator[tuple[int, str, str, float | None, float | None]]:
    """(place, sentence, translation, score, confidence) of each pair that has two sides."""
    scores, confidences = record.get("scores"), record.get("confidences")
    for i, (sentence, translation) in enumerate(zip(record["propositions"], record["translations"], strict=True)):
        if not (is_blank(sentence) or is_blank(translation)):
            yield i, sentence, translation, scores[i] if scores else None, confidences[i] if confidences else None


class _Places:
    """Indices that the pairs of a decontaminated paragraph had before, from the file of all pairs, which is read in parallel."""

    def __init__(self, source: Source):
        self._left = read_translations(source.all_pairs, on_cut=lambda _: None) if source.all_pairs else iter(())

    def __call__(self, name: str, record: TranslationRecord) -> Callable[[int], int]:
        for other, before in self._left:
            if other == name:
                return self._places(record, before).__getitem__
        return int

    @staticmethod
    def _places(record: TranslationRecord, before: TranslationRecord) -> list[int]:
        pairs = list(zip(record["propositions"], record["translations"], strict=True))
        all_pairs = list(zip(before["propositions"], before["translations"], strict=True))
        if pairs == all_pairs:
            return list(range(len(pairs)))
        places, start = [], 0
        for pair in pairs:
            if pair not in all_pairs[start:]:  # another file than that which was decontaminated
                return list(range(len(pairs)))
            start = all_pairs.index(pair, start) + 1
            places.append(start - 1)
        return places
