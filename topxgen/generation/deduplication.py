"""The near-duplicate check of a run's flags, and what share of near-duplicates it finds."""

import logging
import re

from topxgen.common.files import read_jsonl
from topxgen.common.records import ParagraphRecord, RejectRecord, with_ids
from topxgen.generation.manifests import language_manifest
from topxgen.text.near_duplicates import NearDuplicates

logger = logging.getLogger(__name__)
# Kept paragraphs of a language with which the others are compared exactly, at least if there are as many.
SAMPLE = 2_000
RECALL = "dedup_recall"
_NEAR_DUPLICATE = re.compile(r"near_duplicate of (.+) \(ROUGE-L F1 [\d.]+\)")


def reason(kept_id: str, f1: float) -> str:
    """Why a text is rejected that is nearly the same as a kept one."""
    return f"near_duplicate of {kept_id} (ROUGE-L F1 {f1:.3f})"


def new_index(args) -> NearDuplicates:
    """Of one language."""
    return NearDuplicates(args.threshold, args.rouge_tokenizer, args.dedup_prefilter)


def recall(config, language: str) -> dict[str, dict[str, int]]:
    """{"dedup_recall": {"found", "missed"}} of a language whose files are complete; {} if no near-duplicate can be missed."""
    args, layout = config.args, config.layout
    if args.dedup_prefilter == "exact" or args.threshold >= 1:
        return {}
    earlier = language_manifest(layout, "generate", language)
    if RECALL in earlier:  # it is removed as soon as there is work
        return {RECALL: earlier[RECALL]}
    counts, sampled = measured_recall(layout, language, args.threshold, args.rouge_tokenizer)
    found, missed = counts["found"], counts["missed"]
    share = f" ({found / (found + missed):.1%})" if found + missed else ""
    logger.info(
        f"generate: {language}: --dedup_prefilter {args.dedup_prefilter} found {found} of {found + missed} near-duplicates{share} of "
        f"{sampled} paragraphs that were also compared exactly with all others"
    )
    return {RECALL: counts}


def measured_recall(layout, language: str, threshold: float, tokenizer: str) -> tuple[dict[str, int], int]:
    """({"found", "missed"}, size of the sample). Of the texts whose first near-duplicate is one of a sample of the kept paragraphs,
    those that were rejected for it are found; those that were kept, by an exact search, are missed.

    A function of the files alone: that of a run which was stopped is the same.
    """
    kept = sum(1 for _ in read_jsonl(layout.paragraphs(language), ParagraphRecord))
    every = max(kept // SAMPLE, 1)
    index, sample, missed = NearDuplicates(threshold, tokenizer), set(), 0
    paragraphs = with_ids(read_jsonl(layout.paragraphs(language), ParagraphRecord), "text")
    for number, (paragraph_id, record) in enumerate(paragraphs):
        text = str(record.get("text", ""))
        missed += index.match(text) is not None
        if number % every == 0:
            index.add(paragraph_id, text)
            sample.add(paragraph_id)
    reasons = (record["reason"] for record in read_jsonl(layout.rejects(language), RejectRecord))
    found = sum(1 for reason in reasons if (match := _NEAR_DUPLICATE.fullmatch(reason)) and match[1] in sample)
    return {"found": found, "missed": missed}, len(sample)
