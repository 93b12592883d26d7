"""What became of everything that was asked for, counted from the files of a run."""

from collections import Counter
from itertools import zip_longest
from pathlib import Path

from comptra.files import read_jsonl
from topxgen.records import Layout

ANSWER_REASONS = ("prompt_too_long", "empty", "unparseable")
TEXT_REASONS = (
    "binary",
    "too_few_words",
    "repeated_word_bigram",
    "repeated_character_bigram",
    "repeated_word_pair",
    "near_duplicate",
)
SENTENCE_REASONS = ("sentence_too_short", "sentence_other_language")
PAIR_REASONS = ("translation_too_short", "translation_other_language", "translation_no_full_stop")


def generation_counts(layout: Layout, language: str, filename: str | None = None) -> dict:
    """Answers, texts and kept paragraphs of a language, and what each filter turned away."""
    answers = prompt_tokens = completion_tokens = 0
    for record in read_jsonl(layout.answers(language)):
        answers += len(record["answers"]) or 1
        prompt_tokens += record["prompt_tokens"]
        completion_tokens += record["completion_tokens"]
    reasons = Counter(record["reason"].split()[0] for record in read_jsonl(layout.rejects(language)))
    kept = sum(1 for _ in read_jsonl(layout.paragraphs(language, filename)))
    return {
        "answers": answers,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "rejected": dict(reasons),
        "kept": kept,
    }


def translation_counts(layout: Layout, language: str) -> dict:
    """Sentences and pairs of a language, and what each filter turned away."""
    pairs = paragraphs = 0
    scores = []
    for record in read_jsonl(layout.translations(language)):
        paragraphs += 1
        pairs += len(record["propositions"])
        scores += [score for score in record.get("scores") or [] if score is not None]
    reasons = Counter(
        reject["reason"] for record in read_jsonl(layout.translation_rejects(language)) for reject in record["rejected"]
    )
    return {
        "paragraphs": paragraphs,
        "sentences": pairs + sum(reasons.values()),
        "rejected": dict(reasons),
        "pairs": pairs,
        "scored": len(scores),
        "mean_score": sum(scores) / len(scores) if scores else None,
    }


def render(asked: int | None, generation: list[dict], translation: list[dict]) -> str:
    """The funnel as a table: each row what is left after a step, and how many the step turned away."""
    rows: list[tuple[str, int | str, int | str]] = []
    if generation:
        rejected = sum((Counter(counts["rejected"]) for counts in generation), Counter())
        answers = sum(counts["answers"] for counts in generation)
        rows += [("prompts asked", asked if asked is not None else "?", ""), ("answers", answers, "")]
        kept = sum(counts["kept"] for counts in generation)
        texts = kept + sum(rejected[reason] for reason in TEXT_REASONS)
        failed = sum(rejected[reason] for reason in ANSWER_REASONS)
        rows.append(("texts parsed", texts, f"-{failed} answers"))
        rows += _falling(texts, rejected, TEXT_REASONS)
        rows.append(("paragraphs kept", kept, ""))
    if translation:
        rejected = sum((Counter(counts["rejected"]) for counts in translation), Counter())
        sentences = sum(counts["sentences"] for counts in translation)
        rows.append(("sentences", sentences, ""))
        rows += _falling(sentences, rejected, SENTENCE_REASONS + PAIR_REASONS)
        rows.append(("pairs kept", sum(counts["pairs"] for counts in translation), ""))
        rows.append(("pairs scored", sum(counts["scored"] for counts in translation), ""))
    return "\n".join(f"  {name:34} {left!s:>8} {away!s:>14}".rstrip() for name, left, away in rows)


def _falling(left: int, rejected: Counter, reasons: tuple[str, ...]) -> list[tuple[str, int, str]]:
    rows = []
    for reason in reasons:
        left -= rejected[reason]
        rows.append((f"  after {reason.replace('_', ' ')}", left, f"-{rejected[reason]}"))
    return rows


def sample_pairs(path: Path, count: int = 5) -> list[tuple[str, str, float | None]]:
    """Up to `count` (sentence, translation, score) from across the file."""
    pairs = [
        pair
        for record in read_jsonl(path)
        for pair in zip_longest(record["propositions"], record["translations"], record.get("scores") or [])
    ]
    return pairs[:: max(1, len(pairs) // count)][:count]
