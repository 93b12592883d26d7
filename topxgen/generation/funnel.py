"""What became of everything that was asked for, counted from the files of a run."""

from collections import Counter
from itertools import zip_longest
from pathlib import Path

from topxgen.common.files import read_jsonl
from topxgen.common.records import Layout

ANSWER_REASONS = ("prompt_too_long", "answer_failed", "empty", "unparseable")
TEXT_REASONS = (
    "binary",
    "too_few_words",
    "repeated_word_bigram",
    "repeated_character_bigram",
    "repeated_word_pair",
    "near_duplicate",
)
SENTENCE_REASONS = ("sentence_too_short", "sentence_no_words", "sentence_other_language")
PAIR_REASONS = (
    "translation_failed",
    "translation_too_short",
    "translation_no_words",
    "translation_other_language",
    "translation_no_full_stop",
)
# Rare: shown only when there are any.
RARE_REASONS = ("prompt_too_long", "binary", "sentence_no_words", "translation_failed", "translation_no_words")


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
    pairs = paragraphs = in_pieces = 0
    scores = []
    for record in read_jsonl(layout.translations(language)):
        paragraphs += 1
        pairs += len(record["propositions"])
        in_pieces += sum(count > 1 for count in record.get("pieces", []))
        scores += [score for score in record.get("scores") or [] if score is not None]
    reasons = Counter()
    for record in read_jsonl(layout.translation_rejects(language)):
        reasons.update(reject["reason"] for reject in record["rejected"])
        in_pieces += sum(reject.get("pieces", 1) > 1 for reject in record["rejected"])
    return {
        "paragraphs": paragraphs,
        "sentences": pairs + sum(reasons.values()),
        "rejected": dict(reasons),
        "translated_in_pieces": in_pieces,
        "pairs": pairs,
        "scored": len(scores),
        "mean_score": sum(scores) / len(scores) if scores else None,
    }


def tokens(path: Path) -> tuple[int, int]:
    """Prompt and answer tokens of a journal of answers."""
    prompt = completion = 0
    for record in read_jsonl(path):
        prompt += record["prompt_tokens"]
        completion += record["completion_tokens"]
    return prompt, completion


def usage(stage: str, prompt: int, completion: int, prices: list[float] | None) -> str:
    """A line about tokens and, with prices of a million prompt and answer tokens, what they cost."""
    cost = ""
    if prices:
        cost = f"; {(prompt * prices[0] + completion * prices[1]) / 1e6:,.2f} at --price_per_million_tokens {prices[0]:g} {prices[1]:g}"
    return f"{stage}: {prompt:,} prompt tokens, {completion:,} answer tokens{cost}"


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
        if in_pieces := sum(counts["translated_in_pieces"] for counts in translation):
            rows.append(("  (too long, translated in pieces)", in_pieces, ""))
        rows.append(("pairs kept", sum(counts["pairs"] for counts in translation), ""))
        rows.append(("pairs scored", sum(counts["scored"] for counts in translation), ""))
    return "\n".join(f"  {name:34} {left!s:>8} {away!s:>14}".rstrip() for name, left, away in rows)


def _falling(left: int, rejected: Counter, reasons: tuple[str, ...]) -> list[tuple[str, int, str]]:
    rows = []
    for reason in reasons:
        if reason in RARE_REASONS and not rejected[reason]:
            continue
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
