"""Paragraphs into sentence pairs: split, filter, back-translate, filter, as in the TopXGen paper."""

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from topxgen.common import signals
from topxgen.common.console import Progress
from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_jsonl, read_placed_jsonl, to_line, write_atomic
from topxgen.common.records import (
    Candidate,
    Layout,
    Paragraph,
    ParagraphRecord,
    TranslationRecord,
    TranslationRejects,
    with_ids,
)
from topxgen.text import sentence_splitting
from topxgen.text.languages import Language
from topxgen.translation import Translation, by_steps, translate_lists

logger = logging.getLogger(__name__)

UNANSWERED = "translation_unanswered"
_NO_FULL_STOPS = frozenset("!?…؟;！？፧߹")  # among the marks that end sentences


@dataclass
class SplitParagraph:
    """A paragraph with its sentences to translate and its rejected ones."""

    paragraph: Paragraph
    sentences: list[str]
    rejects: list[dict]


def read_paragraphs(layout: Layout, language: Language) -> Iterator[Paragraph]:
    """The paragraphs of a language's file, generated or published. Raises UsageError for a missing file or text."""
    path = layout.paragraphs(language.name)
    if not path.exists():
        raise UsageError(f"no paragraphs to translate: {path} is missing; run --stages generate first")
    for paragraph_id, record in with_ids(read_jsonl(path, ParagraphRecord), "text"):
        if not isinstance(record.get("text"), str):
            raise UsageError(f'{path}: record {paragraph_id} has no "text"')
        yield Paragraph(paragraph_id, record["text"], record.get("topic"), bool(record.get("truncated")))


def translated_ids(layout: Layout, language: Language) -> set[str]:
    """Ids of the paragraphs that the translations file has."""
    records = read_jsonl(layout.translations(language.name), TranslationRecord)
    return {paragraph_id for paragraph_id, _ in with_ids(records, "sentence")}


def check_translated(layout: Layout, language: Language) -> None:
    """Raise UsageError for the translation of another text than its paragraph has now; warn of those without a paragraph."""
    path, paragraphs, without = layout.translations(language.name), layout.paragraphs(language.name), []
    texts = {paragraph.id: hash(paragraph.text) for paragraph in read_paragraphs(layout, language)}
    for number, *_, record in read_placed_jsonl(path, TranslationRecord):
        key, text = record.get("id"), record.get("sentence")
        if key is None or text is None:
            continue
        if str(key) not in texts:
            without.append(key)
        elif texts[str(key)] != hash(text):
            raise UsageError(
                f"{path}, line {number}: paragraph {key} has another text in {paragraphs}: pass another --translate_dir to translate all "
                f"anew, or remove the line, and that of {key} in {layout.translation_rejects(language.name).name}"
            )
    if without:
        logger.warning(
            f"{path} has the pairs of {len(without)} paragraphs, such as {without[0]}, that {paragraphs} does not have: remove their lines if "
            "they are not wanted"
        )


def unanswered_ids(layout: Layout, language: str) -> set[str]:
    """Ids of the paragraphs with a sentence for which an API had no answer."""
    rejects = read_jsonl(layout.translation_rejects(language), TranslationRejects, on_cut=lambda _: None)
    return {line["id"] for line in rejects if any(one["reason"] == UNANSWERED for one in line["rejected"])}


def forget_unanswered(layout: Layout, language: str) -> None:
    """Take out the paragraphs with a sentence for which an API had no answer: they are translated again, and only that sentence
    is asked for."""
    unanswered, path = unanswered_ids(layout, language), layout.translation_rejects(language)
    # The rejects come last: after a kill they still say what is to be taken out.
    for file in (layout.translations(language), layout.other_candidates(language), path) if unanswered else ():
        if file.exists():
            write_atomic(file, (to_line(line) for line in read_jsonl(file) if line.get("id") not in unanswered))


def back_translate(config, language: Language, identifier, progress: Progress) -> None:
    """Append a record for each paragraph of `language` that the translations file does not have yet.

    `config`: a GenerationConfig, its translator loaded; `identifier`: see topxgen.text.language_id.
    Rejected sentences and pairs go to the rejects file, one line for a paragraph, before the record itself, so that a
    kill between the two loses neither. A paragraph in both files is never written again.
    """
    layout, target = config.layout, config.target_language
    done = translated_ids(layout, language)
    rejects = layout.translation_rejects(language.name)
    with Appender(layout.translations(language.name)) as out, Appender(rejects) as rejected:
        rejects_done = {record["id"] for record in read_jsonl(rejects, TranslationRejects)}
        for block in translated_blocks(config, language, identifier, progress, done, "translate"):
            for item, translations in block:
                record = _pairs(item, translations, identifier, target)
                if item.rejects and item.paragraph.id not in rejects_done:
                    rejected.write({"id": item.paragraph.id, "rejected": item.rejects})
                out.write(record)
                show_pairs(config, record, progress)
            rejected.sync()
            out.sync()


def translated_blocks(
    config, language: Language, identifier, progress: Progress, done: Collection[str], method: str
) -> Iterator[list[tuple[SplitParagraph, list]]]:
    """Paragraphs that are not `done`, each with what `method` of the translator returns for its sentences.

    Some at a time; signals wait until the caller is done with them.
    """
    paragraphs = list(read_paragraphs(config.layout, language))
    if all(paragraph.id in done for paragraph in paragraphs):
        return
    waiting: deque[tuple[list[SplitParagraph], Callable[[int], None]]] = deque()  # blocks that are being translated

    def lists() -> Iterator[list[str]]:
        for block in split_blocks(config, language, identifier, paragraphs):
            if signals.stop_requested():
                return
            if todo := [item for item in block if item.paragraph.id not in done]:
                # What else is in a batch can change a translation, so a block is translated as a whole, after a kill as before it.
                sentences = [sentence for item in block for sentence in item.sentences]
                waiting.append((block, by_steps(progress.update, len(todo), len(sentences))))
                yield sentences

    def on_done(n: int) -> None:
        progress.count(sentences=n)
        waiting[0][1](n)

    results = translate_lists(config.translator, method, lists(), language, config.target_language, on_done)
    while True:
        with signals.finishing():
            found = next(results, None)
            if found is None:
                return
            block, _ = waiting.popleft()
            of_sentences = iter(found)
            together = [(item, [next(of_sentences) for _ in item.sentences]) for item in block]
            yield [(item, result) for item, result in together if item.paragraph.id not in done]


def show_pairs(config, record: dict, progress: Progress) -> None:
    """With --verbose, the pairs of a record."""
    if config.args.verbose:
        for sentence, translation in zip(record["propositions"], record["translations"], strict=True):
            progress.write(f"[{record['id']}] {sentence} = {translation}")


def split_blocks(config, language: Language, identifier, paragraphs: list[Paragraph]) -> Iterator[list[SplitParagraph]]:
    """The paragraphs that are translated together, block by block."""
    whole = read_paragraphs(config.whole, language) if config.layout.translates_taken else paragraphs
    split = sentence_splitting.load(config.args.splitter, language, (one.text for one in whole)).split
    return _blocks(paragraphs, split, identifier, language, config.translator.block_size)


def _blocks(
    paragraphs: list[Paragraph], split, identifier, language: Language, size: int
) -> Iterator[list[SplitParagraph]]:
    """Consecutive paragraphs with about `size` sentences to translate together."""
    block, count = [], 0
    for paragraph in paragraphs:
        sentences = split(paragraph.text)
        reasons = sentence_splitting.sentence_reject_reasons(sentences, identifier, language)
        if paragraph.truncated and sentences and not sentence_splitting.has_end(sentences[-1], language):
            reasons[-1] = reasons[-1] or "unfinished"
        item = SplitParagraph(paragraph, [], [])
        for sentence, reason in zip(sentences, reasons, strict=True):
            if reason is None:
                item.sentences.append(sentence)
            else:
                item.rejects.append({"sentence": sentence, "reason": f"sentence_{reason}"})
        block.append(item)
        count += len(item.sentences)
        if count >= size:
            yield block
            block, count = [], 0
    if block:
        yield block


def _pairs(item: SplitParagraph, translations: list[Translation], identifier, target: Language) -> dict:
    """The record of a paragraph, with the pairs that are kept; the others are added to `item.rejects`."""
    kept = []
    for sentence, candidate in zip(item.sentences, judged(translations, identifier, target), strict=True):
        if "reason" in candidate:
            item.rejects.append(reject_of(sentence, candidate))
        else:
            kept.append((sentence, candidate))
    return pairs_record(item.paragraph, kept)


def judged(translations: list[Translation], identifier, target: Language) -> list[Candidate]:
    """Each translation as a record, with the reason if its pair is rejected."""
    reasons = pair_reject_reasons([translation.text for translation in translations], identifier, target)
    candidates = []
    for translation, reason in zip(translations, reasons, strict=True):
        candidate = {"translation": translation.text, "confidence": translation.confidence}
        if translation.error is not None or reason is not None:
            candidate["reason"] = f"translation_{'failed' if translation.error is not None else reason}"
        if translation.unanswered:
            candidate["reason"] = UNANSWERED
        if translation.error:
            candidate["detail"] = translation.error
        if translation.segments > 1:
            candidate["segments"] = translation.segments
        if translation.truncated:
            candidate["truncated"] = True
        candidates.append(candidate)
    return candidates


def reject_of(sentence: str, candidate: Candidate) -> dict:
    return {"sentence": sentence, **{key: value for key, value in candidate.items() if key != "confidence"}}


def pairs_record(paragraph: Paragraph, kept: list[tuple[str, Candidate]]) -> dict:
    """The record of a paragraph with these sentences and translations, not scored yet."""
    segments = [candidate.get("segments", 1) for _, candidate in kept]
    truncated = [candidate.get("truncated", False) for _, candidate in kept]
    return {
        "sentence": paragraph.text,
        "propositions": [sentence for sentence, _ in kept],
        "translations": [candidate["translation"] for _, candidate in kept],
        "scores": [None] * len(kept),
        **({} if paragraph.topic is None else {"topic": paragraph.topic}),
        "id": paragraph.id,
        "confidences": [candidate.get("confidence") for _, candidate in kept],
        **({"segments": segments} if any(count > 1 for count in segments) else {}),
        **({"truncated": truncated} if any(truncated) else {}),
    }


def pair_reject_reasons(translations: list[str], identifier, target: Language) -> list[str | None]:
    """For each translation None, or why its pair is rejected: the reasons of sentences, or no full stop (। in Hindi) at its end."""
    stops = (".", *(set(target.terminators) - _NO_FULL_STOPS))
    has_stops = target.script not in sentence_splitting.UNMARKED_SCRIPTS
    reasons = sentence_splitting.sentence_reject_reasons(translations, identifier, target)
    return [
        "no_full_stop" if reason is None and has_stops and not text.rstrip().endswith(stops) else reason
        for text, reason in zip(translations, reasons, strict=True)
    ]
