"""What became of everything that was generated, counted from the files of a run.

At each step, what goes in is what is kept, rejected, or not needed because the target was reached before its turn came.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from topxgen.common.files import read_jsonl
from topxgen.common.id_counts import IdCounts
from topxgen.common.records import (
    Layout,
    ParagraphRecord,
    RejectRecord,
    TranslationRecord,
    TranslationRejects,
    with_ids,
)
from topxgen.generation import min_score
from topxgen.generation.back_translation import UNANSWERED
from topxgen.generation.filters import FILTERS, TOPXGEN_FILTERS
from topxgen.generation.paragraphs import is_generated, is_native
from topxgen.inference.response_cache import read_responses

logger = logging.getLogger(__name__)

# Reason codes in {Language}_rejects.jsonl, in the order of the checks; those of a user's own filters follow.
RESPONSE_REASONS = ("prompt_too_long", "answer_failed", "empty", "unparseable")
NATIVE_REASONS = ("empty", "too_long")  # of native texts, before those of all texts:
TEXT_REASONS = ("unfinished", *FILTERS, "near_duplicate")
# Reason codes in {Language}_translate_rejects.jsonl.
PAIR_REASONS = (
    "sentence_too_short",
    "sentence_no_words",
    "sentence_other_language",
    "sentence_unfinished",
    UNANSWERED,
    "translation_failed",
    "translation_too_short",
    "translation_no_words",
    "translation_other_language",
    "translation_no_full_stop",
    *min_score.REASONS,
)
SCORE_COUNTS = ("scored", "mean_score")  # of translation_counts
# Shown only if there are any.
RARE_REASONS = (
    "prompt_too_long", "answer_failed", "unfinished", "too_long", "binary", "too_short", "sentence_no_words",
    "sentence_unfinished", UNANSWERED, "translation_failed", "translation_no_words", *min_score.REASONS,
)  # fmt: skip


def generation_counts(layout: Layout, language: str) -> dict:
    """Responses (rejected by reason, not needed, all) and kept paragraphs of a language."""
    return count_generation(
        language,
        read_responses(layout.responses(language)),
        read_jsonl(layout.rejects(language), RejectRecord),
        read_jsonl(layout.paragraphs(language), ParagraphRecord),
    )


def count_generation(
    language: str, responses: Iterable[dict], rejects: Iterable[RejectRecord], paragraphs: Iterable[ParagraphRecord]
) -> dict:
    """The same of the records of the three files; memory does not grow with their number."""
    reasons, judged, answers_of = Counter(), IdCounts(), IdCounts()
    native = kept = generated = 0
    for record in rejects:
        reasons[record["reason"].split()[0]] += 1
        native += is_native(record["id"], language)
        judged[record["id"].rpartition(".")[0]] = 1
    for paragraph_id, _ in with_ids(paragraphs, "text"):
        kept += 1
        if is_generated(paragraph_id, language):
            generated += 1
            native += is_native(paragraph_id, language)
            judged[paragraph_id.rpartition(".")[0]] = 1
    counts = Counter(dict.fromkeys(("prompts", "answers", "not_needed", "prompt_tokens", "completion_tokens"), 0))
    for record in responses:
        name, earlier = record["id"], answers_of[record["id"]]  # the last one of an id counts
        answers_of[name] = answers = len(record["texts"]) or 1  # one that failed has no text
        counts.update(
            prompts=not earlier, answers=answers - earlier, not_needed=0 if judged[name] else answers - earlier
        )
        counts.update({key: record[key] for key in ("prompt_tokens", "completion_tokens")})
    result = {**counts, "rejected": dict(reasons), "kept": kept, "brought_along": kept - generated}
    return result | ({"native": native} if native else {})


def translation_counts(layout: Layout, language: str) -> dict:
    """Sentences, pairs, rejects and scores of a language."""
    return count_translation(
        read_jsonl(layout.translations(language), TranslationRecord),
        read_jsonl(layout.translation_rejects(language), TranslationRejects),
    )


def count_translation(translations: Iterable[TranslationRecord], rejects: Iterable[TranslationRejects]) -> dict:
    """The same of the records of the two files; memory does not grow with their number."""
    pairs = paragraphs = in_pieces = truncated = scored = 0

    def scores() -> Iterator[float]:
        nonlocal pairs, paragraphs, in_pieces, truncated, scored
        for record in translations:
            paragraphs += 1
            pairs += len(record["propositions"])
            in_pieces += sum(count > 1 for count in record.get("segments") or record.get("pieces") or [])
            truncated += sum(record.get("truncated") or [])
            for score in record.get("scores") or []:
                if score is not None:
                    scored += 1
                    yield score

    total, reasons = sum(scores()), Counter()
    for record in rejects:
        reasons.update(reject["reason"] for reject in record["rejected"])
        in_pieces += sum(reject.get("segments", reject.get("pieces", 1)) > 1 for reject in record["rejected"])
        truncated += sum(reject.get("truncated", False) for reject in record["rejected"])
    return {
        "paragraphs": paragraphs,
        "sentences": pairs + reasons.total(),
        "rejected": dict(reasons),
        "translated_in_pieces": in_pieces,
        **({"truncated_translations": truncated} if truncated else {}),
        "pairs": pairs,
        "scored": scored,
        "mean_score": total / scored if scored else None,
    }


def translate_result(translator: str, counts: dict, accepts_unanswered: bool) -> dict:
    """What the translate stage's manifest has of a language: nothing of the score stage, whose work must not change it."""
    complete = accepts_unanswered if counts["rejected"].get(UNANSWERED) else None
    stated = {} if complete is None else {"complete": complete}
    return {"translator_version": translator, **stated, "counts": before_scores(counts)}


def before_scores(counts: dict) -> dict:
    """translation_counts as they were before the score stage: without scores, and with the pairs that these dropped."""
    rejected = {reason: count for reason, count in counts["rejected"].items() if reason not in min_score.REASONS}
    dropped = sum(counts["rejected"].values()) - sum(rejected.values())
    before = {key: value for key, value in counts.items() if key not in SCORE_COUNTS}
    return before | {"rejected": rejected, "pairs": counts["pairs"] + dropped}


def render(
    prompts_sent: int | None,
    generation: Collection[dict],
    translation: Collection[dict],
    filters: Collection[str] = TOPXGEN_FILTERS,
) -> str:
    """The funnel as a table: each row how many remain after a step, and how many the step removed.

    `filters`: which are in use; others have a row if they rejected something.
    """
    rows: list[tuple[str, int, int | None]] = []
    if generation:
        rejected, total = _sums(generation)
        if prompts_sent is not None:
            rows.append(("prompts sent", prompts_sent, None))
            rows += _steps(prompts_sent, Counter(not_needed=prompts_sent - total["prompts"]), ())
        native = total["native"]
        if not native:
            rows.append(("responses", total["answers"], None))
            removed = Counter({reason: rejected.pop(reason, 0) for reason in RESPONSE_REASONS})
            rows += _steps(total["answers"], removed + Counter(not_needed=total["not_needed"]), RESPONSE_REASONS)
        texts = total["kept"] - total["brought_along"] + rejected.total()
        rows.append(("native paragraphs read" if native else "texts parsed", texts, None))
        reasons = [reason for reason in TEXT_REASONS if reason not in FILTERS or reason in filters]
        rows += _steps(texts, rejected, (*NATIVE_REASONS, *reasons) if native else reasons)
        if total["brought_along"]:
            rows.append(("  paragraphs of the file that were not generated", total["brought_along"], None))
        rows.append(("paragraphs kept", total["kept"], None))
    if translation:
        rejected, total = _sums(translation)
        rows.append(("sentences", total["sentences"], None))
        rows += _steps(total["sentences"], rejected, PAIR_REASONS)
        if total["translated_in_pieces"]:
            rows.append(("  (too long, translated in pieces)", total["translated_in_pieces"], None))
        if total["truncated_translations"]:
            rows.append(("  (cut at the limit of tokens)", total["truncated_translations"], None))
        rows.append(("pairs kept", total["pairs"], None))
        rows.append(("pairs scored", total["scored"], None))
    return "\n".join(
        f"  {name:34} {remaining:>8} {'' if removed is None else f'-{removed}':>8}".rstrip()
        for name, remaining, removed in rows
    )


def _sums(languages: Collection[dict]) -> tuple[Counter, Counter]:
    """Rejects by reason, and all other counts, over all languages."""
    rejected, total = Counter(), Counter()
    for counts in languages:
        rejected.update(counts["rejected"])
        total.update({name: value for name, value in counts.items() if isinstance(value, int)})
    return rejected, total


def _steps(remaining: int, removed: Counter, reasons: Iterable[str]) -> list[tuple[str, int, int]]:
    """A row for each reason, of those in `reasons` in their order, of others that occur after them."""
    rows = []
    for reason in (*reasons, *(reason for reason in removed if reason not in reasons)):
        if removed[reason] or (reason in reasons and reason not in RARE_REASONS):
            remaining -= removed[reason]
            rows.append((f"  after {reason.replace('_', ' ')}", remaining, removed[reason]))
    return rows


def warn_of_none(what: str, languages: Collection[str]) -> None:
    if languages:
        logger.warning(f"no {what} were kept in {', '.join(sorted(languages))}; see the reasons in *_rejects.jsonl")


def sample_pairs(path: Path, count: int = 5) -> list[tuple[str, str, float | None]]:
    """Up to `count` (sentence, translation, score) from across the file."""
    pairs = []
    for record in read_jsonl(path, TranslationRecord):
        pairs += zip_longest(record["propositions"], record["translations"], record.get("scores") or [])
    return pairs[:: max(1, len(pairs) // count)][:count]
