"""What statistics are computed on: each file of texts or pairs below a folder, or a source of native text."""

import logging
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from pathlib import Path

from topxgen.common import freshness, shards
from topxgen.common.errors import UsageError
from topxgen.common.files import read_jsonl, walk
from topxgen.common.records import ParagraphRecord, read_translations, target_language_of
from topxgen.corpora import benchmarks
from topxgen.text import languages
from topxgen.text.languages import Language
from topxgen.text.words import is_blank

logger = logging.getLogger(__name__)

# Stages by the end of their files' names, the longest first.
STAGES = {"filtered": "_translate_filtered.jsonl", "pairs": "_translate.jsonl", "paragraphs": ".jsonl"}
NATIVE = "native"


@dataclass(frozen=True)
class Pair:
    sentence: str
    translation: str
    score: float | None = None
    scorer: str | None = None


@dataclass
class Corpus:
    """The texts of one language in one file or source. `pairs` is None where there are no translations."""

    path: str
    stage: str  # of STAGES, or NATIVE
    language: Language
    target: Language | None = None  # of the translations
    paragraphs: list[str] = field(default_factory=list)
    topics: list[str | None] = field(default_factory=list)  # of the paragraphs
    pairs: list[Pair] | None = None
    is_cut: bool = False  # the last line of the file is not complete, and left out


@dataclass(frozen=True)
class Sources:
    """Where to look. `names`: languages, None for all; `languages_file`, `benchmark_dir` and `allow_partial`: the flags."""

    names: tuple[str, ...] | None = None
    stages: Collection[str] = tuple(STAGES)
    languages_file: str | None = None
    benchmark_dir: Path | None = None
    allow_partial: bool = False

    @cached_property
    def languages(self) -> list[Language] | None:
        return None if self.names is None else [languages.find(name, self.languages_file) for name in self.names]


def read_all(paths: Iterable[str], sources: Sources) -> list[Corpus]:
    """The corpora of several folders and sources, in their order, each once.

    Raises UsageError for one that holds nothing, a language that none has, and damaged files, naming the line.
    """
    corpora: dict[tuple, Corpus] = {}
    for path in paths:
        for corpus in read(path, sources):
            key = os.path.realpath(corpus.path), corpus.stage, corpus.language.flores
            if key in corpora:
                logger.info(f"{corpus.path} is given twice; it is counted once")
            corpora.setdefault(key, corpus)
    found = {corpus.language.flores: corpus.language.name for corpus in corpora.values()}
    for language in sources.languages or ():
        if language.flores not in found:
            raise UsageError(f"there is no {language.name} in {', '.join(paths)}, only {', '.join(found.values())}")
    return list(corpora.values())


def read(path: str, sources: Sources) -> list[Corpus]:
    """The corpora of `path`: a folder (the files of STAGES in it and below), one such file, or native text as --benchmarks takes
    it (ntrex, udhr, a file or folder of texts). Raises UsageError if there are none; see `read_all`."""
    files = list(_files(Path(path), sources))
    wanted = None if sources.languages is None else {language.flores for language in sources.languages}
    chosen = [file for file in files if wanted is None or file[2].flores in wanted]
    if chosen:
        return [_read_file(*file, sources.languages_file) for file in chosen]
    if files:
        there = ", ".join(sorted({language.name for _, _, language in files}))
        raise UsageError(f"{path} has none of --languages {' '.join(sources.names)}, only {there}")
    if sources.languages is None:
        if path in benchmarks.LOADERS or Path(path).is_file():
            raise UsageError(f"{path} is native text: pass --languages to say what to read in it")
        suffixes = " or ".join(f"{{Language}}{STAGES[stage]}" for stage in sources.stages)
        raise UsageError(f"no {suffixes} in or below {path}; pass another folder, or --languages for native text")
    corpora = []
    for language in sources.languages:
        try:
            splits = benchmarks.load(
                path, language, sources.benchmark_dir, sources.languages_file, sources.allow_partial
            )
        except benchmarks.LacksLanguage as error:
            if language is sources.languages[-1] and not corpora:
                raise UsageError(f"{path} holds no texts: {error}") from None
            continue
        # Of several translations of a published text, as NTREX has them (fra and fra-CA), the first: others are no further texts.
        chosen = [split for split in splits if not (split.published_size and " (" in split.name)]
        texts = [text for split in chosen for text in split.texts if not is_blank(text)]
        corpora.append(Corpus(path, NATIVE, language, paragraphs=texts))
    return corpora


def _files(source: Path, sources: Sources) -> Iterator[tuple[Path, str, Language]]:
    """(path, stage, language) of each file, in order of the paths. Shards are parts of the folder that they are in."""
    paths = {source} if source.is_file() else set()
    for name, folders, names in walk(source, _cannot_read) if source.is_dir() else ():
        paths |= {Path(name, file) for file in names}
        if any(shards.folders(Path(name))):
            folders.remove(shards.FOLDER)
            paths |= shards.files_of(Path(name))
    for path in sorted(paths):
        stage = next((stage for stage, suffix in STAGES.items() if path.name.endswith(suffix)), None)
        if stage not in sources.stages:
            continue
        name = path.name.removesuffix(STAGES[stage])
        try:
            language = languages.find(name, sources.languages_file)
        except UsageError:
            if stage == "paragraphs" or sources.languages is not None:  # any other file, or one that is not asked for
                continue
            raise UsageError(
                f"{path}: unknown language {name!r}; pass --languages, or its row in --languages_file"
            ) from None
        shards.check_merged(path)
        if problem := freshness.outdated(path):
            logger.warning(problem)
        if path.exists():
            yield path, stage, language
        elif path.is_symlink():
            raise UsageError(f"{path} is a link to a file that does not exist; remove it, or put the file there")


def _cannot_read(error: OSError) -> None:
    raise UsageError(f"cannot read {error.filename}: {error.strerror}")


def _read_file(path: Path, stage: str, language: Language, languages_file: str | None) -> Corpus:
    corpus = Corpus(str(path), stage, language)

    def on_cut(_: Path) -> None:
        corpus.is_cut = True
        logger.warning(f"{path}: the last line is not complete and left out; a run is writing the file, or was killed")

    if stage == "paragraphs":
        for record in read_jsonl(path, ParagraphRecord, on_cut=on_cut):
            corpus.paragraphs.append(record["text"])
            corpus.topics.append(record.get("topic"))
        return corpus
    corpus.target, corpus.pairs = languages.find(target_language_of(path.parent), languages_file), []
    for _, record in read_translations(path, ("scores",), on_cut):
        if not record["propositions"]:  # all its sentences were rejected, or all its pairs dropped
            continue
        corpus.paragraphs.append(record.get("sentence") or " ".join(record["propositions"]))
        corpus.topics.append(record.get("topic"))
        scores = record.get("scores") or repeat(None)
        for sentence, translation, score in zip(record["propositions"], record["translations"], scores, strict=False):
            corpus.pairs.append(Pair(sentence, translation, score, record.get("scorer")))
    return corpus
