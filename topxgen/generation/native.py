"""Native texts (--paragraphs) in place of an LLM's: cleaned, filtered and de-duplicated in the order of their source.

A row may be a document: each of its lines is a paragraph. What a run keeps is a function of the source and the settings, and each
decision is on disk when it is made, so that a run that was stopped goes on behind the last one.
"""

from collections import Counter
from collections.abc import Callable

from topxgen.common.console import Progress
from topxgen.common.files import Appender, read_jsonl
from topxgen.common.lines import split_lines
from topxgen.common.records import Paragraph, ParagraphRecord, RejectRecord, with_ids
from topxgen.corpora.monolingual import Text
from topxgen.generation import deduplication
from topxgen.generation.paragraphs import native_id, reason_against
from topxgen.text.languages import Language

# Paragraphs have some hundreds of characters: this is a document without line breaks, or no running text.
MAX_CHARS = 20_000
# Soft hyphens, word joiners, byte order marks: NLLB's vocabulary has none, so that they tear words.
_TYPESETTING = dict.fromkeys((0xAD, 0x2060, 0xFEFF), "")


def total(config) -> int | None:
    """How many texts there are, or with a limit, how many are wanted; None if it is not known."""
    if config.limited:
        return config.target.paragraphs
    sizes = [source.size for source in config.sources.values()]
    size = None if None in sizes else sum(sizes)
    return size if size is None or config.shard is None else config.shard.share(size)


def clean(config, progress: Progress, begin: Callable[[str], None]) -> Counter:
    """The kept paragraphs of each language, earlier runs' included, after all texts or as many paragraphs as are wanted.

    `config`: a GenerationConfig; `begin` is called with the language before each decision is written.
    """
    kept = Counter()
    for language in config.languages.values():
        _clean_language(config, language, kept, progress, begin)
    return kept


def _clean_language(
    config, language: Language, kept: Counter, progress: Progress, begin: Callable[[str], None]
) -> None:
    args, layout, name = config.args, config.layout, language.name
    near_duplicates, judged = deduplication.new_index(args), set()
    for paragraph_id, record in with_ids(read_jsonl(layout.paragraphs(name), ParagraphRecord), "text"):
        near_duplicates.add(paragraph_id, record["text"])
        judged.add(paragraph_id)
    kept[name] = len(judged)
    judged.update(record["id"] for record in read_jsonl(layout.rejects(name), RejectRecord))
    rejected = len(judged) - kept[name]
    source = config.sources[name]
    streamed = source.revision and layout.rejects(name).exists()
    takes = (lambda _: True) if config.shard is None else config.shard.takes
    done = _rows_done(name, judged, takes) if streamed else 0  # files are read again, quickly
    progress.update(kept[name] if config.limited else done, rejected=rejected)

    def wanted() -> bool:
        return not config.limited or config.target.wants(kept, name)

    with Appender(layout.paragraphs(name)) as out, Appender(layout.rejects(name)) as rejects:
        for row in source.rows(done):
            if not wanted():
                break
            if not takes(row.number):
                continue
            for index, text in enumerate(_paragraphs(row) or [""]):
                paragraph_id = native_id(name, row.number, index)
                if paragraph_id in judged or not wanted():
                    continue
                begin(name)
                if not text or len(text) > MAX_CHARS:
                    reason = f"too_long ({len(text)} characters)" if text else "empty"
                else:
                    reason = reason_against(paragraph_id, text, language, config.filters, near_duplicates)
                if reason is None:
                    out.write(Paragraph(paragraph_id, text, row.topic).to_json())
                    kept[name] += 1
                    progress.update(1 if config.limited else 0)
                else:
                    topic = {} if row.topic is None else {"topic": row.topic}
                    rejects.write({"id": paragraph_id, "reason": reason, "text": text, **topic})
                    rejected += 1
                if args.verbose:
                    progress.write(f"[{paragraph_id}] {f'rejected, {reason}: ' if reason else ''}{text}")
            progress.update(0 if config.limited else 1, kept=kept.total(), rejected=rejected)


def _rows_done(language: str, judged: set[str], takes: Callable[[int], bool]) -> int:
    """Rows at the beginning of which all that this run takes is judged: those before the last of an unbroken series."""
    number = last = 0
    while not takes(number + 1) or native_id(language, number + 1, 0) in judged:
        number += 1
        last = number if takes(number) else last
    return max(last - 1, 0)


def _paragraphs(row: Text) -> list[str]:
    """The lines of a text, white space in them made single spaces, as in generated texts, without marks of typesetting."""
    text = (row.text or "").translate(_TYPESETTING)
    return [line for line in (" ".join(line.split()) for line in split_lines(text)) if line]
