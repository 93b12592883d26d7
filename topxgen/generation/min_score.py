"""`--min_score`: pairs below it move from the translations file to the rejects file.

They are written to the rejects first, then removed from the translations in one rename; a kill between the two is made good
at the next start, since the rejects tell what is to be removed.
"""

import math
from collections import Counter
from collections.abc import Iterator

from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_jsonl, to_line, write_atomic
from topxgen.common.records import PARALLEL, Layout, TranslationRejects, read_translations

BELOW, MISSING = REASONS = ("score_below_min", "score_missing")


def check(scorer, minimum: float) -> None:
    """Raise UsageError for a minimum that no score of `scorer` can miss, or reach: it is meant for another one's."""
    lowest, highest = getattr(scorer, "scale", (-math.inf, math.inf))
    if not lowest <= minimum <= highest:
        hint = f"; an error of at most {minimum:g} is {-minimum:g}" if highest == 0 and minimum <= -lowest else ""
        raise UsageError(
            f"--min_score {minimum:g}: scores of {scorer.id} are from {lowest:g} to {highest:g}, higher is better{hint}; pass one of "
            "them, or another --scorer"
        )


def rejects_below(layout: Layout, language: str, minimum: float) -> list[dict]:
    """Lines for the rejects file with the pairs whose score is below `minimum`, or that have none.

    Raises UsageError if no pair of the language has a score.
    """
    lines, pairs, scored = [], 0, 0
    for record_id, record in read_translations(layout.translations(language), PARALLEL[2:]):
        rejects = []
        for i, score in enumerate(record.get("scores") or [None] * len(record["propositions"])):
            pairs, scored = pairs + 1, scored + (score is not None)
            if score is not None and score >= minimum:
                continue
            reject = {"sentence": record["propositions"][i], "translation": record["translations"][i]}
            reject |= {"reason": MISSING} if score is None else {"reason": BELOW, "score": score}
            segments = (record.get("segments") or record.get("pieces") or {i: 1})[i]
            reject |= {"segments": segments} if segments > 1 else {}
            rejects.append(reject | ({"truncated": True} if (record.get("truncated") or {i: False})[i] else {}))
        if rejects:
            lines.append({"id": record_id, "rejected": rejects})
    if pairs and not scored:
        raise UsageError(
            f"no pair of {language} has a score, so --min_score would drop all of them; choose another --scorer"
        )
    return lines


def move(layout: Layout, language: str, lines: list[dict]) -> None:
    """Write `lines` to the rejects, and remove their pairs from the translations."""
    with Appender(layout.translation_rejects(language)) as rejects:
        rejects.write(*lines)
    remove_rejected(layout, language)


def remove_rejected(layout: Layout, language: str) -> None:
    """Remove from the translations the pairs that the rejects have for their scores, as far as they are still there."""
    path, rejected = layout.translations(language), {}
    for line in read_jsonl(layout.translation_rejects(language), TranslationRejects):
        for reject in line["rejected"]:
            if reject["reason"] in REASONS:
                pair = (reject.get("sentence"), reject.get("translation"))
                rejected.setdefault(line["id"], Counter())[pair] += 1
    left = sum(count.total() for count in rejected.values())
    lines = list(_without(layout, language, rejected)) if rejected else []
    if sum(count.total() for count in rejected.values()) < left:
        write_atomic(path, lines)


def _without(layout: Layout, language: str, rejected: dict[str, Counter]) -> Iterator[str]:
    """The lines of the translations file without the pairs of `rejected`, from which those found are taken out."""
    for record_id, record in read_translations(layout.translations(language), PARALLEL[2:]):
        if count := rejected.get(record_id):
            kept = []
            for i, pair in enumerate(zip(record["propositions"], record["translations"], strict=True)):
                if count[pair]:
                    count[pair] -= 1
                else:
                    kept.append(i)
            for name in PARALLEL:
                if record.get(name):
                    record[name] = [record[name][i] for i in kept]
        yield to_line(record)
