"""Records that stages pass to each other, and the names of the files that hold them (docs/files.md)."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Required, TypedDict

import msgspec

from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, read_placed_jsonl
from topxgen.common.id_counts import IdCounts
from topxgen.common.schemas import fields

JUDGE_RESPONSES = "topic_judge_answers.jsonl"  # of scripts/data_stats.py, whose folder may be that of the run
# Fields of one item per sentence.
PARALLEL = ("propositions", "translations", "scores", "confidences", "segments", "pieces", "truncated")


class ParagraphRecord(TypedDict, total=False):
    """A line of {Language}.jsonl. Published ones have no id."""

    text: Required[str]
    topic: str | None
    id: str | int | None
    truncated: bool | None


class TranslationRecord(TypedDict, total=False):
    """A line of {Language}_translate.jsonl; the lists are parallel. Published ones have no id and no scores."""

    id: str | int | None
    topic: str | None
    sentence: str
    propositions: Required[list[str]]
    translations: Required[list[str]]
    scores: list[float | None] | None
    confidences: list[float | None] | None
    segments: list[int] | None
    pieces: list[int] | None  # the name of segments in older versions
    truncated: list[bool] | None
    scorer: str | None
    truncated_by_scorer: int | None  # texts of the records that were scored together; with the first of them


class RejectRecord(TypedDict, total=False):
    """A line of {Language}_rejects.jsonl."""

    id: Required[str]
    reason: Required[Annotated[str, msgspec.Meta(pattern=r"\S")]]
    prompt: str
    text: str
    topic: str | None


class RejectedPair(TypedDict, total=False):
    reason: Required[str]
    sentence: str
    translation: str | None
    detail: str | None
    score: float
    pieces: int
    segments: int
    truncated: bool


class TranslationRejects(TypedDict):
    """A line of {Language}_translate_rejects.jsonl."""

    id: str
    rejected: list[RejectedPair]


class Candidate(TypedDict, total=False):
    """A translation; `reason`: why it cannot be chosen, with a `detail`."""

    translation: Required[str]
    confidence: float | None
    segments: int
    truncated: bool
    reason: str
    detail: str


class CandidatesRecord(TypedDict):
    """A line of {Language}_candidates.jsonl: a paragraph, what was found for each of its sentences, and rejected sentences."""

    id: str
    sentences: list[str]
    candidates: list[Annotated[list[Candidate], msgspec.Meta(min_length=1)]]
    rejected: list[RejectedPair]


# A line of {Language}_translate_others.jsonl, as far as it is read.
OthersRecord = fields(id=Required[str])


class ScoreRecord(TypedDict, total=False):
    """A line of {Language}_scores.jsonl."""

    id: Required[str]
    scorer: Required[str]
    scores: Required[list[float | None]]
    pairs: str
    version: str  # of the scorer: a digest of its weights and code
    truncated: int


_TranslateSettings = fields(target_language=str)
_Filtering = fields(settings=fields(tokens_per_ngram=dict[str, int]), input=fields(path=str))


@dataclass(frozen=True)
class Paragraph:
    """A text in the language that data is generated for; `id` is unique in the file of that language. `truncated`: it ends where
    the response was cut."""

    id: str
    text: str
    topic: str | None = None
    truncated: bool = False

    def to_json(self) -> dict:
        more = {} if self.topic is None else {"topic": self.topic}
        more |= {"truncated": True} if self.truncated else {}
        return {"text": self.text, **more, "id": self.id}


def with_ids(records: Iterable[dict], text_key: str) -> Iterator[tuple[str, dict]]:
    """(id, record) for each record; ids are unique and the same each time the file is read.

    A record without an id, as in published data, gets one from its text. Duplicate ids, as in concatenated runs, get a
    numeric suffix.
    """
    seen = IdCounts()
    for record in records:
        name = record.get("id")
        if name is None:
            name = hashlib.sha256(str(record.get(text_key)).encode("utf-8", "replace")).hexdigest()[:16]
        name = unique = str(name)
        count = seen.add(name)
        while count > 1 and seen.add(unique := f"{name}#{count}") > 1:  # a file that was translated has such ids itself
            count = seen.add(name)
        yield unique, record


def replace_surrogates(text: str) -> str:
    """`text` with lone surrogates, which an answer's JSON can hold, as "?": neither Arrow nor a tokenizer takes them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def check_lengths(record: TranslationRecord, optional: Iterable[str] = PARALLEL[2:]) -> None:
    """Raise ValueError unless the parallel lists of a record have one length. Those of `optional` may be missing or empty, as
    in files of the original."""
    count = len(record["propositions"])
    for name in ("translations", *optional):
        value = record.get(name)
        if (name == "translations" or value) and len(value) != count:
            raise ValueError(f"field {name}: expected {count} items, one per proposition, got {len(value)}")


def read_translations(
    path: Path, optional: Iterable[str] = (), on_cut: Callable[[Path], object] | None = None
) -> Iterator[tuple[str, TranslationRecord]]:
    """(id, record) for each record of a {Language}_translate.jsonl, whose parallel lists, with those of `optional`, are sound.

    `on_cut`: see read_jsonl.
    Raises UsageError naming the line, the field and what it must hold.
    """

    def checked() -> Iterator[TranslationRecord]:
        for number, *_, record in read_placed_jsonl(path, TranslationRecord, on_cut=on_cut):
            try:
                check_lengths(record, optional)
            except ValueError as error:
                raise UsageError(f"{path}, line {number}: {error}; fix or remove the line") from None
            yield record

    return with_ids(checked(), "sentence")


def target_language_of(folder: Path, default: str = "English") -> str:
    """The language that the back-translations in `folder` are in, by English name, also where they were only decontaminated to;
    `default` in folders of the original."""
    recorded = read_json(folder / "settings_translate.json", _TranslateSettings).get("target_language")
    for path in () if recorded else folder.glob(FilteredLayout(folder).manifest("*").name):
        sides = read_json(path, _Filtering).get("settings", {}).get("tokens_per_ngram", {})
        recorded = next(reversed(sides), recorded)
    return recorded or default


def translations_name(language: str) -> str:
    return f"{language}_translate.jsonl"


def folders_below(folder: Path, name: str) -> str:
    """The folders in `folder` that have such files, for an error about the folder above them; "" if there are none."""
    return ", ".join(sorted({str(path.parent) for path in folder.glob(f"*/{name}")}))


CONFIDENCE = "confidence"  # the scorer that takes the back-translator's own
NLLB = "facebook/nllb-200-3.3B"  # back-translates unless datagen.py's flags name another model


def back_translator_of(flags: Mapping[str, Any]) -> str:
    """The name of the back-translator that datagen.py's flags choose."""
    return flags.get("back_translator") or ("nllb" if flags.get("use_nllb") else "llm")


def scorer_of(flags: Mapping[str, Any]) -> str:
    """The name of the scorer that datagen.py's flags choose."""
    # Apertium is for machines without models; its own confidence costs nothing.
    return flags.get("scorer") or (CONFIDENCE if back_translator_of(flags) == "apertium" else "blaser")


def selector_of(flags: Mapping[str, Any]) -> str | None:
    """What chooses among candidates by datagen.py's flags; None if there is one translation of a sentence."""
    return (flags.get("select_by") or "blaser") if flags["number_of_candidates"] > 1 else None


# Of the stages generate and translate of datagen.py.
TranslateSettings = fields(
    pipeline=str, back_translator=str, nllb_name_or_path=str | None, model=str | None, adapter=str | None
)


def model_of(settings: dict) -> str | None:
    """The model that wrote texts or translations, by the settings of a stage of datagen.py."""
    names = ("adapter", "model", "nllb_name_or_path")
    return next((settings[name] for name in names if settings.get(name)), None)


def back_translator_in(folder: Path) -> str:
    """Its model, or its name (apertium), also where pairs were only decontaminated to; in folders of the original code the folder's
    name, which was the model's."""
    settings = read_json(folder / "settings_translate.json", TranslateSettings)
    for path in () if settings else sorted(folder.glob(FilteredLayout(folder).manifest("*").name)):
        if recorded := read_json(path, _Filtering).get("input", {}).get("path"):
            folder = Path(recorded).parent
            settings = read_json(folder / "settings_translate.json", TranslateSettings)
            break
    return model_of(settings) or settings.get("back_translator") or folder.resolve().name


TRANSLATE_DIR_FLAGS = ("back_translator", "use_nllb", "nllb_name_or_path", "adapter_name_or_path", "model_name_or_path")


def default_translate_dir(flags: Mapping[str, Any]) -> str:
    """The folder of the translations that datagen.py's flags lead to without --translate_dir: the back-translator's name."""
    name = back_translator_of(flags)
    llm = flags.get("adapter_name_or_path") or flags.get("model_name_or_path") or "llm"
    return Path({"nllb": flags.get("nllb_name_or_path") or NLLB, "llm": llm}.get(name, name)).name


def _file(folder: str, ending: str) -> Callable[[Any, str], Path]:
    """A method: the path of a language's file by the end of its name, in the folder that this attribute of the layout names."""
    return lambda self, language: getattr(self, folder) / f"{language}{ending}"


@dataclass(frozen=True)
class Layout:
    """The files of a datagen.py run (docs/files.md)."""

    output_dir: Path
    translate_dir_name: str
    output_filenames: Mapping[str, str] = field(default_factory=dict)  # by language; {Language}.jsonl for all others
    translates_taken: bool = False  # a shard that translates its part of the paragraphs of the whole directory

    @property
    def translate_dir(self) -> Path:
        return self.output_dir / self.translate_dir_name

    def paragraphs(self, language: str) -> Path:
        if self.translates_taken:
            return self.translate_dir / f"{language}_paragraphs.jsonl"
        return self.output_dir / self.output_filenames.get(language, f"{language}.jsonl")

    responses = _file("output_dir", "_answers.jsonl")
    rejects = _file("output_dir", "_rejects.jsonl")

    def round_texts(self, language: str, number: int) -> Path:
        """The texts of a round of knn-instruct; round 0 has the seeds, of which there are vectors only."""
        return self.output_dir / f"{language}_{number}.jsonl"

    def vectors(self, language: str, number: int) -> Path:
        return self.output_dir / f"{language}_{number}.bin"

    translations = _file("translate_dir", translations_name(""))
    translation_rejects = _file("translate_dir", "_translate_rejects.jsonl")
    candidates = _file("translate_dir", "_candidates.jsonl")  # of paragraphs, until the best have been chosen
    other_candidates = _file("translate_dir", "_translate_others.jsonl")  # that were not chosen
    translation_responses = _file("translate_dir", "_translate_answers.jsonl")  # of an LLM that back-translates
    score_cache = _file("translate_dir", "_scores.jsonl")

    def all_responses(self) -> dict[str, list[Path]]:
        """The files of the responses of LLMs by stage: of all languages and back-translators of the folder."""
        return {
            "generate": sorted({*self.output_dir.glob("*_answers.jsonl")} - {self.output_dir / JUDGE_RESPONSES}),
            "translate": sorted(self.output_dir.glob("*/*_translate_answers.jsonl")),
        }

    def jsonl_files(self, language: str) -> list[Path]:
        generated = (self.paragraphs, self.responses, self.rejects)
        translated = (self.translations, self.translation_rejects, self.candidates, self.other_candidates)
        return [path(language) for path in (*generated, *translated, self.translation_responses, self.score_cache)]

    def finished_files(self, stage: str, language: str) -> list[Path]:
        """Files that a finished stage may have written for a language, without its manifest."""
        if stage != "generate":
            pairs = [self.translations(language), self.translation_rejects(language), self.other_candidates(language)]
            return [*pairs, self.translation_responses(language), self.settings(stage)]
        rounds = re.compile(re.escape(language) + r"_\d+\.(jsonl|bin|bin\.json)")
        return [
            self.paragraphs(language),
            self.responses(language),
            self.rejects(language),
            *(path for path in self.output_dir.glob("*_*") if rounds.fullmatch(path.name)),
            self.settings(stage),
        ]

    def manifest(self, stage: str, language: str | None = None) -> Path:
        """Of a stage for a language, or for all languages of the folder."""
        return self._folder(stage) / f"manifest_{stage}{f'_{language}' if language else ''}.json"

    def settings(self, stage: str) -> Path:
        return self._folder(stage) / f"settings_{stage}.json"

    def _folder(self, stage: str) -> Path:
        return self.output_dir if stage == "generate" else self.translate_dir


def other_language(path: Path, manifest: Mapping) -> str | None:
    """What is wrong with a manifest_{stage}_{Language}.json that says it is of another language than its name; None if nothing is."""
    name = re.fullmatch(r"manifest_(?:generate|translate|score)_(.+)\.json", path.name)
    if name is None or (language := manifest.get("language")) in (None, name[1]):
        return None
    return f"field language: expected {name[1]!r}, as in its name, got {language!r}"


@dataclass(frozen=True)
class FilteredLayout:
    """The files of a decontamination (docs/files.md)."""

    output_dir: Path

    filtered = _file("output_dir", "_translate_filtered.jsonl")
    hits = _file("output_dir", "_translate_contaminated.jsonl")
    malformed = _file("output_dir", "_translate_malformed.jsonl")

    def manifest(self, language: str) -> Path:
        return self.output_dir / f"manifest_decontaminate_{language}.json"

    def files(self, language: str) -> list[Path]:
        return [self.filtered(language), self.hits(language), self.malformed(language)]

    def reports(self, report: Path | None, audit: bool) -> tuple[Path, Path]:
        """The report as JSON and as Markdown. `report`: --report, None without."""
        name = "decontamination_audit" if audit else "decontamination_report"
        stem = report or self.output_dir / name
        if stem.is_dir():
            stem = stem / name
        if stem.suffix in (".json", ".md"):
            stem = stem.with_suffix("")
        return stem.with_name(stem.name + ".json"), stem.with_name(stem.name + ".md")
