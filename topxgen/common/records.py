"""Records that stages pass to each other, and the names of the files that hold them (docs/files.md)."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Paragraph:
    """A text in the language that data is generated for; `id` is unique in the file of that language."""

    id: str
    text: str
    topic: str | None = None

    def to_json(self) -> dict:
        topic = {} if self.topic is None else {"topic": self.topic}
        return {"text": self.text, **topic, "id": self.id}


def with_ids(records: Iterable[dict], text_key: str) -> Iterator[tuple[str, dict]]:
    """(id, record) for each record; ids are unique and the same each time the file is read.

    A record without an id, as in published data, gets one from its text. Duplicate ids, as in concatenated runs, get a
    numeric suffix.
    """
    seen = Counter()
    for record in records:
        name = record.get("id")
        if name is None:
            name = hashlib.sha256(str(record.get(text_key)).encode("utf-8", "replace")).hexdigest()[:16]
        seen[str(name)] += 1
        yield str(name) if seen[str(name)] == 1 else f"{name}#{seen[str(name)]}", record


def translations_name(language: str) -> str:
    return f"{language}_translate.jsonl"


@dataclass(frozen=True)
class Layout:
    """The files of a datagen.py run (docs/files.md)."""

    output_dir: Path
    translate_dir_name: str
    output_filenames: Mapping[str, str] = field(default_factory=dict)  # by language; {Language}.jsonl for all others

    @property
    def translate_dir(self) -> Path:
        return self.output_dir / self.translate_dir_name

    def paragraphs(self, language: str) -> Path:
        return self.output_dir / self.output_filenames.get(language, f"{language}.jsonl")

    def responses(self, language: str) -> Path:
        return self.output_dir / f"{language}_answers.jsonl"

    def rejects(self, language: str) -> Path:
        return self.output_dir / f"{language}_rejects.jsonl"

    def translations(self, language: str) -> Path:
        return self.translate_dir / translations_name(language)

    def translation_rejects(self, language: str) -> Path:
        return self.translate_dir / f"{language}_translate_rejects.jsonl"

    @property
    def translation_responses(self) -> Path:
        """The responses of an LLM that back-translates, all languages together."""
        return self.translate_dir / "translate_answers.jsonl"

    def score_cache(self, language: str) -> Path:
        return self.translate_dir / f"{language}_scores.jsonl"

    def jsonl_files(self, language: str) -> list[Path]:
        return [
            self.paragraphs(language),
            self.responses(language),
            self.rejects(language),
            self.translations(language),
            self.translation_rejects(language),
            self.score_cache(language),
        ]

    def manifest(self, stage: str) -> Path:
        return self._folder(stage) / f"manifest_{stage}.json"

    def settings(self, stage: str) -> Path:
        return self._folder(stage) / f"settings_{stage}.json"

    def _folder(self, stage: str) -> Path:
        return self.output_dir if stage == "generate" else self.translate_dir


@dataclass(frozen=True)
class FilteredLayout:
    """The files of a decontamination (docs/files.md)."""

    output_dir: Path

    def filtered(self, language: str) -> Path:
        return self.output_dir / f"{language}_translate_filtered.jsonl"

    def hits(self, language: str) -> Path:
        return self.output_dir / f"{language}_translate_contaminated.jsonl"

    def malformed(self, language: str) -> Path:
        return self.output_dir / f"{language}_translate_malformed.jsonl"

    def manifest(self, language: str) -> Path:
        return self.output_dir / f"manifest_decontaminate_{language}.json"

    def files(self, language: str) -> list[Path]:
        return [self.filtered(language), self.hits(language), self.malformed(language)]
