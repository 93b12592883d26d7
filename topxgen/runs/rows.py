"""Every sentence of a run and its outcome: kept, rejected and why, dropped as contaminated, not chosen.

Files are read as streams: memory does not grow with their length.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Required

import msgspec

from topxgen.common.records import (
    PARALLEL,
    Candidate,
    FilteredLayout,
    Layout,
    ParagraphRecord,
    RejectRecord,
    TranslationRecord,
    TranslationRejects,
    check_lengths,
    with_ids,
)
from topxgen.common.schemas import fields
from topxgen.decontamination.report import Hit
from topxgen.generation import min_score
from topxgen.runs.folders import BackTranslation, layout_of
from topxgen.runs.reading import Problems, read_file, read_lines

# Reasons of contaminated pairs. The last ones overlap with nothing, but another sentence of their paragraph does.
CONTAMINATED = ("overlap_in_sentence", "overlap_in_translation", "overlap_in_paragraph", "not_in_filtered_file")
NOT_CHOSEN = "not_chosen"
MAX_LOOKUPS_IN_VAIN = 20  # of paragraphs that a file does not have, each of which reads all of it


class Row(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A sentence with its translation, or ("text") a paragraph or response that was rejected as a whole.

    `id`: that of the paragraph, and a letter and the place in its list: p (pair), r (reject), s (reject for its score), o (other
    candidate), t (text). It is the same each time the files are read.
    """

    id: str
    state: Literal["kept", "contaminated", "rejected", "not_chosen", "text"]
    language: str
    target_language: str
    paragraph_id: str
    index: int
    sentence: str
    translation: str | None = None
    reason: str = ""  # a code: of docs/files.md, CONTAMINATED or NOT_CHOSEN; "" if the pair was kept
    detail: str = ""
    topic: str | None = None
    score: float | None = None
    scorer: str | None = None
    confidence: float | None = None


# A line of {Language}_translate_others.jsonl.
_Others = fields(id=Required[str], others=Required[list[Candidate]])
_Settings = fields(select_by=str | None)


def rows(
    back_translation: BackTranslation, language: str, *, rejected: bool = True, problems: Problems | None = None
) -> Iterator[Row]:
    """The pairs of a language in the order of their file; with `rejected` then the rejects and the other candidates.

    `problems` collects what cannot be read.
    """
    problems = Problems() if problems is None else problems
    layout, target = back_translation.layout(), back_translation.target_language
    path = pairs_file(back_translation, language)
    dropped = _dropped(back_translation, language, problems)
    for number, name, record in records(path, problems):
        drops = dropped(number, record)
        scores, confidences = record.get("scores"), record.get("confidences")
        topic, scorer = record.get("topic"), record.get("scorer")
        for i, (sentence, translation) in enumerate(zip(record["propositions"], record["translations"], strict=True)):
            reason, detail = drops.get(i, ("", ""))
            yield _row(
                (language, target, name, "p", i),
                state="contaminated" if reason else "kept",
                sentence=sentence,
                translation=translation,
                reason=reason,
                detail=detail,
                topic=topic,
                score=scores[i] if scores else None,
                scorer=scorer,
                confidence=confidences[i] if confidences else None,
            )
    if rejected:
        yield from _rejects(layout, language, target, problems)
        yield from _other_candidates(layout, language, target, problems)


def texts(generation: Path, language: str, *, problems: Problems | None = None) -> Iterator[Row]:
    """The paragraphs and responses of a language that were rejected."""
    problems = Problems() if problems is None else problems
    for _, record in read_lines(layout_of(generation).rejects(language), RejectRecord, problems):
        reason, _, detail = record["reason"].partition(" ")
        place, text = (language, "", record["id"], "t", 0), record.get("text") or ""
        yield _row(place, state="text", sentence=text, reason=reason, detail=detail, topic=record.get("topic"))


def paragraphs(
    back_translation: BackTranslation, language: str, ids: Collection[str], *, problems: Problems | None = None
) -> dict[str, str]:
    """The texts of the paragraphs with these ids, as far as the files have them."""
    problems, wanted = Problems() if problems is None else problems, set(ids)
    found = {
        name: record["sentence"]
        for _, name, record in records(pairs_file(back_translation, language), problems)
        if name in wanted and record.get("sentence")
    }
    if back_translation.generation and len(found) < len(wanted):
        path = layout_of(back_translation.generation).paragraphs(language)
        kept = (record for _, record in read_lines(path, ParagraphRecord, problems))
        found |= {name: record["text"] for name, record in with_ids(kept, "text") if name in wanted}
    return found


def pairs_file(back_translation: BackTranslation, language: str) -> Path:
    """The file with all pairs of a language, or the filtered one if that is all there is."""
    path = back_translation.layout().translations(language)
    if back_translation.filtered and not path.exists():
        return FilteredLayout(back_translation.filtered).filtered(language)
    return path


def records(path: Path, problems: Problems) -> Iterator[tuple[int, str, TranslationRecord]]:
    """(line, id, record) of each paragraph in a file of pairs; the ids are those of `with_ids`."""
    number = 0

    def sound() -> Iterator[TranslationRecord]:
        nonlocal number
        for number, record in read_lines(path, TranslationRecord, problems):
            try:
                check_lengths(record, PARALLEL[2:])
            except ValueError as error:
                problems.add(path, f", line {number} is left out: {error}")
                continue
            yield record

    for name, record in with_ids(sound(), "sentence"):
        yield number, name, record


def _dropped(back_translation: BackTranslation, language: str, problems: Problems):
    """A function from the line and the record of a paragraph to {index of a dropped pair: (reason, detail)}."""
    if back_translation.filtered is None:
        return lambda number, record: {}
    layout = FilteredLayout(back_translation.filtered)
    if layout.filtered(language) == pairs_file(back_translation, language) or not layout.filtered(language).exists():
        return lambda number, record: {}
    if layout.hits(language).exists():
        return _ByHits(layout.hits(language), problems)
    return _ByComparison(layout.filtered(language), problems)


class _ByHits:
    """Which pairs were dropped, by the file of hits, whose lines are in the order of the pairs' file."""

    def __init__(self, path: Path, problems: Problems):
        self._hits = (hit for _, hit in read_lines(path, Hit, problems))
        self._next = next(self._hits, None)

    def __call__(self, number: int, record: TranslationRecord) -> dict[int, tuple[str, str]]:
        dropped, paragraph = {}, None
        while self._next is not None and self._next["line"] <= number:
            hit, self._next = self._next, next(self._hits, None)
            if hit["line"] < number or hit["dropped"] == "none":
                continue
            detail = f"{hit['benchmark']} {hit['split']} {hit['benchmark_id']}: {hit['shared_ngram']}"
            if hit["dropped"] == "paragraph":
                paragraph = paragraph or detail
            if hit["pair"] is not None:
                for i in range(hit["pair"], hit["pair"] + hit.get("pairs", 1)):
                    dropped.setdefault(i, (f"overlap_in_{hit['side']}", detail))
        if paragraph:
            everything = dict.fromkeys(range(len(record["propositions"])), ("overlap_in_paragraph", paragraph))
            return everything | dropped
        return dropped


class _ByComparison:
    """Which pairs were dropped, by the filtered file itself, where there is no file of hits, as in the original's folders."""

    def __init__(self, path: Path, problems: Problems):
        self._kept = (record for _, _, record in records(path, problems))
        self._next = next(self._kept, None)

    def __call__(self, number: int, record: TranslationRecord) -> dict[int, tuple[str, str]]:
        pairs, left = list(zip(record["propositions"], record["translations"], strict=True)), iter(())
        if self._next is not None and _key(self._next) == _key(record):
            left = zip(self._next["propositions"], self._next["translations"], strict=True)
            self._next = next(self._kept, None)
        dropped, kept = {}, next(left, None)
        for i, pair in enumerate(pairs):
            if pair == kept:
                kept = next(left, None)
            else:
                dropped[i] = ("not_in_filtered_file", "")
        return dropped


def _key(record: TranslationRecord) -> tuple:
    return record.get("id"), record.get("sentence")


def _row(place: tuple[str, str, str, str, int], **values) -> Row:
    """`place`: language, target language, id of the paragraph, letter of its list and index in it."""
    language, target, name, letter, index = place
    where = {"language": language, "target_language": target, "paragraph_id": name, "index": index}
    return Row(id=f"{name}/{letter}{index}", **where, **values)


def _rejects(layout: Layout, language: str, target: str, problems: Problems) -> Iterator[Row]:
    about = _About(layout.translations(language))
    for _, line in read_lines(layout.translation_rejects(language), TranslationRejects, problems):
        topic, scorer = about.get(line["id"])
        for i, reject in enumerate(line["rejected"]):
            for_score = reject["reason"] in min_score.REASONS
            letter, of_score = ("s", scorer) if for_score else ("r", None)
            place = (language, target, line["id"], letter, i)
            yield _row(place, state="rejected", topic=topic, scorer=of_score, **_of_pair(reject))


def _other_candidates(layout: Layout, language: str, target: str, problems: Problems) -> Iterator[Row]:
    about = _About(layout.translations(language))
    selector = read_file(layout.settings("translate"), _Settings, problems).get("select_by")
    for _, line in read_lines(layout.other_candidates(language), _Others, problems):
        topic, _ = about.get(line["id"])
        for i, other in enumerate(line["others"]):
            place = (language, target, line["id"], "o", i)
            yield _row(place, state=NOT_CHOSEN, topic=topic, scorer=selector, **_of_pair(other))


def _of_pair(record: Mapping) -> dict:
    """What a row has of a rejected pair, or of a candidate that was not chosen."""
    return {
        "sentence": record.get("sentence") or "",
        "translation": record.get("translation"),
        "reason": record.get("reason", NOT_CHOSEN),
        "detail": record.get("detail") or "",
        "score": record.get("score"),
        "confidence": record.get("confidence"),
    }


class _About:
    """Topic and scorer of paragraphs that are asked for in the order in which the file of pairs has them, or nearly so: it is read
    along, and from its beginning again for an earlier one. Holding all would need gigabytes for millions of paragraphs."""

    def __init__(self, path: Path):
        self._path, self._left, self._vain = path, iter(()), 0
        self._current: tuple[str | None, tuple] = (None, (None, None))

    def get(self, name: str) -> tuple[str | None, str | None]:
        for left in (self._left, None):
            if self._current[0] == name:
                return self._current[1]
            if left is None:
                if self._vain >= MAX_LOOKUPS_IN_VAIN:
                    break
                self._left = self._read()
            for current in self._left:
                self._current = current
                if current[0] == name:
                    return current[1]
        self._vain += 1
        return None, None

    def _read(self) -> Iterable[tuple[str, tuple[str | None, str | None]]]:
        for _, name, record in records(self._path, Problems()):  # its problems are known from the pairs
            yield name, (record.get("topic"), record.get("scorer"))
