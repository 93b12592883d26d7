"""Statistics as a table for the terminal, as Markdown, and as CSV."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from topxgen.common import files
from topxgen.common.console import aligned, markdown_table, printable

MAX_TITLE_CHARS = 24  # of a column; longer ones are listed above the table
_DIVERSITY = (
    ("sample", "sentences in the sample", "count"),
    ("sample_words", "words in the sample", "count"),
    ("type_token_ratio", "type/token, windows of 500", "ratio"),
    *((f"distinct_{n}", f"distinct-{n}", "ratio") for n in range(1, 5)),
    ("compression_ratio", "compression ratio", "number"),
    ("self_bleu", "self-BLEU", "number"),
    ("vendi_score", "Vendi score", "number"),
)
# (section, its title, (key, label, format) of its rows)
SECTIONS = (
    (
        "counts",
        "size",
        (
            ("paragraphs", "paragraphs", "count"),
            ("sentences", "sentences in them", "count"),
            ("pairs", "pairs", "count"),
            ("words_of_sentences", "words, sentences", "count"),
            ("words_of_translations", "words, translations", "count"),
            ("tokens_of_sentences", "tokens, sentences", "count"),
            ("tokens_of_translations", "tokens, translations", "count"),
        ),
    ),
    (
        "lengths",
        "length in words: mean (5 % to 95 %)",
        (
            ("words_per_paragraph", "paragraph", "spread"),
            ("words_per_sentence", "sentence", "spread"),
            ("words_per_translation", "translation", "spread"),
        ),
    ),
    ("sentences", "diversity of the sentences", _DIVERSITY),
    ("translations", "diversity of the translations", _DIVERSITY),
    (
        "topics",
        "topics",
        (
            ("with_topic", "paragraphs with a topic", "count"),
            ("topics", "topics", "count"),
            ("effective_topics", "effective topics", "tenths"),
            ("coverage", "share of the file's topics", "percent"),
            ("not_in_file", "paragraphs on other topics", "count"),
        ),
    ),
    (
        "judge",
        "topics, by the judge: share (95 % interval)",
        (
            ("on_topic", "on their topic", "share"),
            ("control", "control: on another's topic", "share"),
            ("on_topic", "yes or no, of all answers", "read"),
            ("control", "control: yes or no, of all", "read"),
        ),
    ),
)
_FORMATS: dict[str, Callable] = {
    "count": "{:,}".format,
    "ratio": "{:.3f}".format,
    "number": "{:.2f}".format,
    "tenths": "{:,.1f}".format,
    "percent": lambda share: f"{share:.1%}",
    "spread": lambda values: f"{values['mean']:.1f} ({values['p5']:.0f} to {values['p95']:.0f})",
    "share": lambda v: "-" if v["share"] is None else f"{v['share']:.0%} ({v['low']:.0%} to {v['high']:.0%})",
    "read": lambda v: f"{v['yes'] + v['no']} of {v['asked']}",
    "scores": lambda v: f"{v['mean']:.3f} ({v['p5']:.3f} to {v['p95']:.3f})",
}


def by_language(described: list[dict]) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = {}
    for part in described:
        groups.setdefault(part["language"], []).append(part)
    return groups


def table(described: list[dict]) -> str:
    """For the terminal: a table for each language, a column for each corpus."""
    return "\n\n".join(_text_table(language, parts) for language, parts in by_language(described).items())


def _text_table(language: str, parts: list[dict]) -> str:
    titles, legend = names(parts), []
    if max(map(len, titles)) > MAX_TITLE_CHARS:
        legend = [f"  {number}: {title}" for number, title in enumerate(titles, start=1)]
        titles = [str(number) for number in range(1, len(titles) + 1)]
    head = [f"{language}, columns:", *legend] if legend else []
    rows = list(_rows(parts))
    lines = aligned([[language, *titles], *([f"  {label}", *cells] for label, *cells in rows if cells)])
    body = iter(lines[1:])
    return "\n".join([*head, lines[0], *(next(body) if row[1:] else row[0] for row in rows)])


def markdown(described: list[dict]) -> str:
    blocks = []
    for language, parts in by_language(described).items():
        rows = [
            [title, *map(_escaped, cells)] if cells else [f"**{title}**"] + [""] * len(parts)
            for title, *cells in _rows(parts)
        ]
        head = [language, *map(_escaped, names(parts))]
        blocks.append(markdown_table(head, rows, right=len(parts)) + "\n")
    return "\n".join(blocks)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _rows(parts: list[dict]) -> Iterator[list[str]]:
    """A title alone, or a label and a cell for each corpus; without sections and rows that are empty in all."""
    for section, title, rows in SECTIONS:
        filled = [
            [label, *(_cell((part.get(section) or {}).get(key), form) for part in parts)] for key, label, form in rows
        ]
        filled = [row for row in filled if set(row[1:]) != {"-"}]
        if filled:
            yield [title]
            yield from filled
    yield from _by_category(parts)
    scorers = sorted({scorer for part in parts for scorer in part["scores"]})
    if scorers:
        yield ["quality scores: mean (5 % to 95 %)"]
    for scorer in scorers:
        cells = [part["scores"].get(scorer) for part in parts]
        yield [printable(scorer) or "scorer not named", *(_cell(cell, "scores") for cell in cells)]
        yield ["pairs scored", *(_cell(cell and cell["scored"], "count") for cell in cells)]


def _by_category(parts: list[dict]) -> Iterator[list[str]]:
    found = [(part["topics"] or {}).get("by_category", {}) for part in parts]
    categories = sorted({category for by_category in found for category in by_category})
    if categories:
        yield ["share of the file's topics, by category"]
    for category in categories:
        cells = (by_category.get(category, {}).get("coverage") for by_category in found)
        yield [printable(category), *(_cell(cell, "percent") for cell in cells)]


def _cell(value, form: str) -> str:
    return "-" if value is None else _FORMATS[form](value)


def names(parts: list[dict]) -> list[str]:
    """Short names of corpora: their paths without what all have in common, and the stage."""
    folders = [str(Path(part["path"]).parent) if part["path"].endswith(".jsonl") else part["path"] for part in parts]
    common = os.path.commonpath(folders) if len({Path(f).is_absolute() for f in folders}) == 1 else ""
    short = []
    for part, folder in zip(parts, folders, strict=True):
        name = os.path.relpath(folder, common) if common and folder != common else Path(folder).name
        short.append(printable(f"{name or '.'} ({part['stage']})"))
    return short


def csv_text(described: list[dict]) -> str:
    """A row for each corpus; the keys of the JSON joined by dots."""
    return files.csv_text(dict(_flat(part)) for part in described)


def _flat(value: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{key}.")
        elif item is not None:
            yield f"{prefix}{key}", item
