"""Paragraphs into sentence pairs: split, filter, translate, filter (SPEC section 4)."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from topxgen.common.console import Progress, printable
from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_jsonl
from topxgen.common.records import Layout, Paragraph, TranslatedParagraph, with_ids
from topxgen.text import sentence_splitting
from topxgen.text.languages import Language


@dataclass
class _Work:
    """A paragraph with its sentences that wait for translation, and those already turned away."""

    paragraph: Paragraph
    sentences: list[str]
    rejects: list[dict] = field(default_factory=list)


def paragraphs(layout: Layout, language: Language, filename: str | None = None) -> Iterator[Paragraph]:
    """The paragraphs of a language's file, ours or the original's."""
    path = layout.paragraphs(language.name, filename)
    if not path.exists():
        raise UsageError(f"no paragraphs to translate: {path} is missing; run --stages generate first")
    for name, record in with_ids(read_jsonl(path), "text"):
        if not isinstance(record.get("text"), str):
            raise UsageError(f'{path}: record {name} has no "text"')
        # Lone surrogates are valid JSON, but no library takes them.
        yield Paragraph(name, record["text"].encode("utf-8", "replace").decode(), record.get("topic"))


def translated(layout: Layout, language: Language) -> set[str]:
    """Ids of the paragraphs that have been through the stage."""
    return {name for name, _ in with_ids(read_jsonl(layout.translations(language.name)), "sentence")}


def back_translate(
    layout: Layout,
    language: Language,
    target: Language,
    *,
    translator,
    identifier,
    splitter: str,
    filename: str | None,
    progress: Progress,
    verbose: bool = False,
) -> None:
    """Append a record for each paragraph of `language` that the translations file does not hold yet.

    Turned-away sentences and pairs go to the rejects file, a line a paragraph, before the record itself, so
    that a kill between the two loses neither; a paragraph found in both files is never written again.
    """
    output, rejects = layout.translations(language.name), layout.translation_rejects(language.name)
    done = translated(layout, language)
    rejects_done = {record["id"] for record in read_jsonl(rejects)}
    todo = [paragraph for paragraph in paragraphs(layout, language, filename) if paragraph.id not in done]
    if not todo:
        return
    split = sentence_splitting.load(splitter, language, (p.text for p in paragraphs(layout, language, filename))).split
    ticks = Counter()

    def tick(n: int) -> None:
        ticks["sentences"] += n
        progress.update(0, sentences=ticks["sentences"])

    with Appender(output) as out, Appender(rejects) as rejected:
        for block in _blocks(todo, split, identifier, language, translator.block_size):
            sentences = [sentence for work in block for sentence in work.sentences]
            translations = translator.translate(sentences, language, target, tick)
            position = 0
            for work in block:
                own = translations[position : position + len(work.sentences)]
                position += len(work.sentences)
                record = _pairs(work, own, identifier, target)
                if work.rejects and work.paragraph.id not in rejects_done:
                    rejected.write({"id": work.paragraph.id, "rejected": work.rejects})
                out.write(record.to_json())
                progress.update(1)
                if verbose:
                    for sentence, translation in zip(record.propositions, record.translations, strict=True):
                        progress.write(f"[{work.paragraph.id}] {printable(sentence)} = {printable(translation)}")
            rejected.sync()
            out.sync()


def _blocks(todo: list[Paragraph], split, identifier, language: Language, size: int) -> Iterator[list[_Work]]:
    """Paragraphs with at most about `size` sentences to translate between them."""
    block, count = [], 0
    for paragraph in todo:
        sentences = split(paragraph.text)
        reasons = sentence_splitting.sentence_reject_reasons(sentences, identifier, language)
        work = _Work(paragraph, [s for s, reason in zip(sentences, reasons, strict=True) if reason is None])
        work.rejects = [
            {"sentence": s, "reason": f"sentence_{reason}"}
            for s, reason in zip(sentences, reasons, strict=True)
            if reason is not None
        ]
        block.append(work)
        count += len(work.sentences)
        if count >= size:
            yield block
            block, count = [], 0
    if block:
        yield block


def _pairs(work: _Work, translations, identifier, target: Language) -> TranslatedParagraph:
    """The record of a paragraph, its bad pairs moved to `work.rejects`."""
    record = TranslatedParagraph(work.paragraph)
    texts = [translation.text for translation in translations]
    for sentence, translation, reason in zip(
        work.sentences, translations, pair_reject_reasons(texts, identifier, target), strict=True
    ):
        if translation.error is not None:
            reason = "failed"
        if reason is not None:
            detail = {"detail": translation.error} if translation.error else {}
            pieces = {"pieces": translation.pieces} if translation.pieces > 1 else {}
            work.rejects.append(
                {
                    "sentence": sentence,
                    "translation": translation.text,
                    "reason": f"translation_{reason}",
                    **detail,
                    **pieces,
                }
            )
            continue
        record.propositions.append(sentence)
        record.translations.append(translation.text)
        record.scores.append(None)
        record.confidences.append(translation.confidence)
        record.pieces.append(translation.pieces)
    return record


def pair_reject_reasons(translations: list[str], identifier, target: Language) -> list[str | None]:
    """For each translation None, or why its pair is dropped (SPEC section 4)."""
    reasons = sentence_splitting.sentence_reject_reasons(translations, identifier, target)
    return [
        "no_full_stop" if reason is None and not text.rstrip().endswith(".") else reason
        for text, reason in zip(translations, reasons, strict=True)
    ]
