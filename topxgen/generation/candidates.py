"""Several translations of each sentence, of which the best by quality estimation is kept (`--number_of_candidates`).

In two steps, so that the translator and the quality estimation are never in memory together: `collect` writes all candidates
of a paragraph to {Language}_candidates.jsonl, `select` writes the best ones to the translations and the others, with their
scores, to {Language}_translate_others.jsonl. A candidate that the filters reject is never chosen.
"""

import math
from collections.abc import Iterator
from itertools import chain

from topxgen.common.blocks import in_blocks
from topxgen.common.console import Progress
from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_jsonl, read_placed_jsonl
from topxgen.common.records import Candidate, CandidatesRecord, Layout, OthersRecord, TranslationRejects
from topxgen.generation.back_translation import (
    judged,
    pairs_record,
    read_paragraphs,
    reject_of,
    show_pairs,
    translated_blocks,
    translated_ids,
)
from topxgen.generation.scoring import SCORERS
from topxgen.text.languages import Language
from topxgen.translation import Translation

SELECTORS = {name: SCORERS[name] for name in ("blaser", "metricx-qe", "confidence")}
PARAGRAPHS_PER_BLOCK = 128  # whose candidates are scored together, and synced to disk together


def collected_ids(layout: Layout, language: Language) -> set[str]:
    """Ids of the paragraphs whose candidates wait for the selection."""
    return {record["id"] for record in read_jsonl(layout.candidates(language.name), CandidatesRecord)}


def collect(config, language: Language, identifier, progress: Progress) -> None:
    """Append the candidates of each paragraph that has neither these nor translations yet.

    `config`: a GenerationConfig, its translator loaded; `identifier`: see topxgen.text.language_id.
    """
    layout, target = config.layout, config.target_language
    done = translated_ids(layout, language) | collected_ids(layout, language)
    with Appender(layout.candidates(language.name)) as out:
        for block in translated_blocks(config, language, identifier, progress, done, "candidates"):
            for item, found in block:
                distinct = [_without_duplicates(several) for several in found]
                flat = iter(judged(list(chain(*distinct)), identifier, target))
                candidates = [[next(flat) for _ in several] for several in distinct]
                record = {"id": item.paragraph.id, "sentences": item.sentences, "candidates": candidates}
                out.write(record | {"rejected": item.rejects})
            out.sync()


def _without_duplicates(translations: list[Translation]) -> list[Translation]:
    """The first of those with one text."""
    first: dict[str, Translation] = {}
    for translation in translations:
        first.setdefault(translation.text, translation)
    return list(first.values())


def select(config, language: Language, progress: Progress) -> None:
    """Append the record of each paragraph whose candidates were collected and that the translations do not have yet.

    `config`: a GenerationConfig, its selector loaded. Rejects, other candidates and the record are written in this order, and
    the first two not again, so that a kill between them loses and doubles nothing. What else is in a batch changes the last bits of
    a score, so a block is scored as a whole, after a kill as before it.
    """
    layout, name = config.layout, language.name
    paragraphs = {paragraph.id: paragraph for paragraph in read_paragraphs(layout, language)}
    done, paths = translated_ids(layout, language), (layout.translation_rejects(name), layout.other_candidates(name))
    with Appender(layout.translations(name)) as out, Appender(paths[0]) as rejects, Appender(paths[1]) as others:
        has_rejects = {record["id"] for record in read_jsonl(paths[0], TranslationRejects)}
        has_others = {record["id"] for record in read_jsonl(paths[1], OthersRecord)}
        for block in in_blocks(_collected(layout, name), PARAGRAPHS_PER_BLOCK):
            todo = [record["id"] for record in block if record["id"] not in done]
            if not todo:
                continue
            scores = _scores(config.selector, block, language, config.target_language)
            for record, values in zip(block, scores, strict=True):
                if record["id"] in done:
                    continue
                if record["id"] not in paragraphs:
                    raise UsageError(
                        f"{layout.candidates(name)} has the paragraph {record['id']}, which {layout.paragraphs(name)} has not: "
                        "remove the file of candidates, to translate again, or restore the paragraphs"
                    )
                kept, rejected, left = choose(record["sentences"], record["candidates"], values)
                rejected = [*record["rejected"], *rejected]
                if rejected and record["id"] not in has_rejects:
                    rejects.write({"id": record["id"], "rejected": rejected})
                if left and record["id"] not in has_others:
                    others.write({"id": record["id"], "others": left})
                pairs = pairs_record(paragraphs[record["id"]], [(sentence, one) for sentence, one, _ in kept])
                out.write(pairs | {"scores": [score for _, _, score in kept], "scorer": config.selector.id})
                show_pairs(config, pairs, progress)
            for file in (rejects, others, out):
                file.sync()
            progress.update(len(todo))


def choose(
    sentences: list[str], candidates: list[list[Candidate]], scores: list[list[float | None]]
) -> tuple[list[tuple[str, Candidate, float | None]], list[dict], list[dict]]:
    """(pairs with their scores, rejects, other candidates) of a paragraph; `scores` are parallel to `candidates`.

    The best of a sentence is the one with the highest score, of equal ones the first, among those that may be chosen; one without a
    score (None, NaN) comes last. If none may be chosen, the first is the reject.
    """
    kept, rejected, others = [], [], []
    for sentence, several, values in zip(sentences, candidates, scores, strict=True):
        allowed = [i for i, candidate in enumerate(several) if "reason" not in candidate]
        best = max(allowed, key=lambda i: _or_lowest(values[i]), default=0)
        if allowed:
            kept.append((sentence, several[best], values[best]))
        else:
            rejected.append(reject_of(sentence, several[0]))
        others += [
            {"sentence": sentence, **candidate, "score": value}
            for i, (candidate, value) in enumerate(zip(several, values, strict=True))
            if i != best
        ]
    return kept, rejected, others


def _or_lowest(score: float | None) -> float:
    return score if score is not None and math.isfinite(score) else -math.inf


def _scores(
    selector, block: list[CandidatesRecord], source: Language, target: Language
) -> list[list[list[float | None]]]:
    """For each record and sentence the scores of its candidates; None for those that cannot be chosen."""
    records = []
    for record in block:
        allowed = [
            (sentence, candidate)
            for sentence, several in zip(record["sentences"], record["candidates"], strict=True)
            for candidate in several
            if "reason" not in candidate
        ]
        records.append(
            {
                "propositions": [sentence for sentence, _ in allowed],
                "translations": [candidate["translation"] for _, candidate in allowed],
                "confidences": [candidate.get("confidence") for _, candidate in allowed],
            }
        )
    scores, found = [], selector.score(records, source, target)
    if any(found) and all(score is None for values in found for score in values):
        raise UsageError(
            f"no candidate has a score by {selector.id}, so nothing can be chosen by it; pass another --select_by"
        )
    for record, values in zip(block, found, strict=True):
        flat = iter(values)
        scores.append(
            [[None if "reason" in one else next(flat) for one in several] for several in record["candidates"]]
        )
    return scores


def _collected(layout: Layout, language: str) -> Iterator[CandidatesRecord]:
    """The collected records. Raises UsageError for lists that are not parallel."""
    path = layout.candidates(language)
    for number, *_, record in read_placed_jsonl(path, CandidatesRecord):
        if len(record["sentences"]) != len(record["candidates"]):
            raise UsageError(
                f"{path}, line {number}: field candidates: expected {len(record['sentences'])} items, one per sentence, got "
                f"{len(record['candidates'])}; remove the line: it is translated again"
            )
        yield record
