"""The report of a decontamination: JSON with every hit, and Markdown to read."""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, Required, TypedDict

from topxgen.common.console import markdown_table, printable
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, read_jsonl
from topxgen.corpora.splits import Split
from topxgen.text.ngram_index import MIN_CONTAINED_SHARE, SHORT_TEXT_RULES, ContaminationIndex
from topxgen.text.words import is_blank

logger = logging.getLogger(__name__)

MAX_EXAMPLES = 10  # of each benchmark, split and side in the Markdown report
# Splits that few-shot demonstrations are drawn from: what they share with a test set inflates its scores.
DEMONSTRATION_SPLITS = {("flores", "dev"), ("ntrex", "pool"), ("tico", "dev"), ("udhr", "dev")}
MATCH_KINDS = ("ngram", "short_text", "near_duplicate")


class Hit(TypedDict, total=False):
    """A line of {Language}_translate_contaminated.jsonl."""

    line: Required[int]
    side: Required[str]
    pair: Required[int | None]
    pairs: int
    text: Required[str]
    dropped: Required[Literal["paragraph", "pair", "none"]]
    match: Required[Literal[MATCH_KINDS]]
    shared_ngram: Required[str]
    tokens: Required[int]
    similarity: float
    benchmark: Required[str]
    split: Required[str]
    benchmark_id: Required[str]
    benchmark_text: Required[str]


class Overlaps(TypedDict):
    side: str
    benchmark: str
    split: str
    language: str
    hits: int
    benchmark_texts_hit: int
    benchmark_texts: int


class Rules(TypedDict):
    """The flags that decide what overlaps and what is dropped."""

    ngram_size: int
    tokenizer: str
    near_duplicate_threshold: float | None
    short_text_rule: Literal[SHORT_TEXT_RULES]
    drop_on_sentence_overlap: Literal["paragraph", "pair", "keep"]
    drop_on_translation_overlap: Literal["pair", "paragraph", "keep"]


class Part(TypedDict, total=False):
    """What the report says of a language."""

    input: Required[str]
    input_sha256: Required[str]
    tokens_per_ngram: Required[int]
    settings: Rules  # missing in reports of older versions, as is not_checked
    counts: Required[dict[str, int]]
    not_checked: list[str]
    overlaps: Required[list[Overlaps]]
    partial: Required[list[tuple[str, str]]]
    language_not_covered: Required[list[tuple[str, str]]]
    not_loaded: Required[list[tuple[str, str]]]


class SharedPair(TypedDict):
    """A text of each of two splits that overlap."""

    first_id: str
    second_id: str
    first_text: str
    second_text: str


class SharedRow(TypedDict):
    """What two splits share."""

    language: str
    first: tuple[str, str]
    second: tuple[str, str]
    pairs: list[SharedPair]


class Report(TypedDict):
    """decontamination_report.json, as far as it is read again."""

    languages: dict[str, Part]
    hits: dict[str, list[Hit]]
    benchmarks: dict[str, list[dict]]
    between_benchmarks: list[SharedRow]


Hits = Callable[[], Iterable[Hit]]


def overlaps(hits: Path, splits: Iterable[tuple[str, Split]]) -> list[dict]:
    """A row for each side ("sentence" or "translation"), benchmark and split: how many texts of the file overlap it
    ("hits"), how many of these by each kind of match, and how many of its own texts are overlapped."""
    rows = [
        {
            "side": side,
            "benchmark": split.benchmark,
            "split": split.name,
            "language": split.language,
            **_NO_HITS,
            "benchmark_texts": sum(1 for text in split.texts if not is_blank(text)),
        }
        for side, split in splits
    ]
    return counted_overlaps(read_jsonl(hits, Hit), rows)


_NO_HITS = {"hits": 0, **dict.fromkeys(MATCH_KINDS, 0), "benchmark_texts_hit": 0}


def counted_overlaps(hits: Iterable[Hit], rows: Iterable[Overlaps]) -> list[dict]:
    """The same from the rows of a part of the file, or of a report to be checked."""
    rows = {(row["side"], row["benchmark"], row["split"]): {**row, **_NO_HITS} for row in rows}
    last_text, benchmark_ids = {}, {key: set() for key in rows}
    for hit in hits:
        key = (hit["side"], hit["benchmark"], hit["split"])
        benchmark_ids[key].add(hit["benchmark_id"])
        text = (hit["line"], hit["pair"])
        if last_text.get(key) != text:  # the hits of a text are consecutive
            rows[key]["hits"] += 1
            rows[key][hit["match"]] += 1
            last_text[key] = text
    for key, row in rows.items():
        row["benchmark_texts_hit"] = len(benchmark_ids[key])
    return list(rows.values())


def between_benchmarks(language: str, index: ContaminationIndex, pool: set[tuple[str, str]]) -> list[dict]:
    """What the splits in the index of a language share: a row, with the pairs of texts, for each two splits that overlap.

    Variants of a split (NTREX's fra and fra-CA) count as one. `pool`: the user's own demonstrations (benchmark, split).
    """
    number_of = {id(entry): number for number, entry in enumerate(index.entries)}
    pairs = {}
    for number, matches in index.find([entry.text for entry in index.entries], between_splits=True).items():
        for match in matches:
            # A short text inside a longer one is found from one side only.
            pairs.setdefault(tuple(sorted((number, number_of[id(match.entry)]))), match)
    pairs_of_splits = defaultdict(list)
    for (first, second), match in sorted(pairs.items()):
        first, second = index.entries[first], index.entries[second]
        pairs_of_splits[first.base, second.base].append(
            {
                "first_id": first.id,
                "second_id": second.id,
                "match": match.kind,
                "shared_ngram": match.shared_ngram,
                "first_text": first.text,
                "second_text": second.text,
            }
        )
    return [
        {
            "language": language,
            "first": splits[0],
            "second": splits[1],
            "pool": not (DEMONSTRATION_SPLITS | pool).isdisjoint(splits),
            "pairs": split_pairs,
            "texts_of_first": len({pair["first_id"] for pair in split_pairs}),
            "texts_of_second": len({pair["second_id"] for pair in split_pairs}),
        }
        for splits, split_pairs in sorted(pairs_of_splits.items())
    ]


def _kept(counts: dict[str, int]) -> tuple[int, int]:
    """Paragraphs and pairs that were kept."""
    pairs = counts["pairs"] - counts["pairs_dropped_with_paragraph"] - counts["pairs_dropped"]
    return counts["records"] - counts["paragraphs_dropped"], pairs


def summary(languages: dict[str, dict], audit: bool) -> str:
    """What is kept of each language and which benchmarks were hit, for a terminal."""
    lines = []
    for language, part in languages.items():
        counts = part["counts"]
        paragraphs, pairs = _kept(counts)
        lines.append(
            f"{language}: {paragraphs} of {counts['records']} paragraphs and {pairs} of {counts['pairs']} pairs "
            f"{'would be kept' if audit else 'kept'}"
            + (f"; WARNING: {counts['malformed']} malformed lines were not checked" if counts["malformed"] else "")
        )
        lines += [
            f"  {row['side']:12} {row['benchmark']} {row['split']:12} {row['hits']:>8} hits, "
            f"{row['benchmark_texts_hit']} of its {row['benchmark_texts']} texts"
            for row in part["overlaps"]
            if row["hits"]
        ] or ([] if part["not_checked"] else ["  no overlap"])
        lines += [f"  NOT CHECKED: {reason}" for reason in part["not_checked"]]
        lines += [f"  {name} ({split_language})" for name, split_language in part["partial"]]
    return "\n".join(lines)


def without_records(path: Path, counts: Counter) -> str:
    """Why nothing of a file was checked."""
    malformed = f"all {counts['malformed']:,} lines are malformed"
    return f"{path}: {malformed if counts['malformed'] else 'the file is empty'}"


def all_checked(languages: dict[str, dict], audit: bool) -> bool:
    """Whether everything was checked; what was not is logged, and languages of whose pairs none is kept."""
    unchecked = [f"{language}: {reason}" for language, part in languages.items() for reason in part["not_checked"]]
    for line in unchecked:
        logger.warning("not checked: %s", line)
    for language, count in () if audit else ((language, part["counts"]) for language, part in languages.items()):
        if count["pairs"] and not _kept(count)[1]:
            logger.warning(
                f"{language}: nothing is left of {count['pairs']} pairs: are they a benchmark's, or is --ngram_size small?"
            )
    return not unchecked


def earlier(path: Path) -> Report:
    """The report at `path`, as `write_reports` wrote it, to add languages to; an empty one if there is none, or if it is of a
    version whose reports were other. Raises UsageError if the file is something else."""
    try:
        remedy = "it is no decontamination report: pass another --report, or remove it"
        if content := read_json(path, Report, remedy):
            return content
    except UsageError as error:
        if path.is_file() and b'"between_benchmarks"' not in path.read_bytes():
            raise
        reason = str(error).removesuffix(f"; {remedy}")
        logger.warning(
            f"{reason}: the report is damaged or of another version, and is written anew without earlier languages"
        )
    return Report(languages={}, hits={}, benchmarks={}, between_benchmarks=[])


def as_json(report: dict, hits: dict[str, Hits]) -> Iterator[str]:
    """The report with the hits of each language under "hits", one per line; they are streamed, not held in memory."""
    yield json.dumps(report, ensure_ascii=False, indent=1).removesuffix("\n}") + ',\n "hits": {'
    for number, (language, read) in enumerate(hits.items()):
        yield (",\n  " if number else "\n  ") + json.dumps(language, ensure_ascii=False) + ": ["
        for place, hit in enumerate(read()):
            yield (",\n" if place else "\n") + json.dumps(hit, ensure_ascii=False)
        yield "]"
    yield "}\n}\n"


def as_markdown(report: dict, hits: dict[str, Hits]) -> Iterator[str]:
    """Tables of counts, and the first MAX_EXAMPLES hits of each benchmark, split and side."""
    yield "# Decontamination report\n\n"
    yield "Nothing was dropped (`--audit`).\n\n" if report["audit"] else ""
    yield from rules(report["settings"])
    for language, part in report["languages"].items():
        yield f"## {language}\n\n"
        if part.get("settings", report["settings"]) != report["settings"]:
            yield "Checked by other rules. "
            yield from rules(part["settings"])
        yield from language_tables(part)
        yield from _examples(part["overlaps"], hits[language]())
    yield "## Overlaps between benchmarks\n\n"
    yield from _between_benchmarks(report["between_benchmarks"])


def rules(settings: Rules) -> Iterator[str]:
    """What counts as an overlap, and what is dropped, as Markdown."""
    short_texts = {
        "inside": "counts if it is the whole of a text or, if it has at least "
        f"{MIN_CONTAINED_SHARE:.0%} of these words, if a text contains it",
        "whole": "counts if it is the whole of a text",
        "ignore": "is ignored",
    }[settings["short_text_rule"]]
    what = {"paragraph": "its paragraph is dropped", "pair": "its pair is dropped", "keep": "it is kept"}
    yield (
        f"Two texts overlap if they share {settings['ngram_size']} consecutive words (tokenizer "
        f"`{settings['tokenizer']}`). A benchmark text with fewer words {short_texts}."
    )
    if settings["near_duplicate_threshold"] is not None:
        yield f" Near-duplicates: ROUGE-L F1 above {settings['near_duplicate_threshold']:g}."
    yield (
        f" If a sentence overlaps, {what[settings['drop_on_sentence_overlap']]}. If a translation overlaps, "
        f"{what[settings['drop_on_translation_overlap']]}.\n\n"
    )


def language_tables(part: dict) -> Iterator[str]:
    """What was found in a language and what was not checked, as Markdown, without the texts."""
    counts = Counter(part["counts"])
    for reason in part.get("not_checked", []):
        yield f"**Not checked: {_escape(reason)}.**\n\n"
    yield f"{_escape(part['input'])}, {part['tokens_per_ngram']} tokens per n-gram in this language.\n\n"
    kept_paragraphs, kept_pairs = _kept(counts)
    yield from _table(
        {"": name, "paragraphs": paragraphs, "pairs": pairs}
        for name, paragraphs, pairs in (
            ("read", counts["records"], counts["pairs"]),
            ("overlapping", counts["records_overlapping"], ""),
            ("dropped with their paragraph", counts["paragraphs_dropped"], counts["pairs_dropped_with_paragraph"]),
            ("dropped alone", "", counts["pairs_dropped"]),
            ("kept", kept_paragraphs, kept_pairs),
        )
    )
    if counts["malformed"]:
        yield f"Malformed lines, written to a file of their own: {counts['malformed']}.\n\n"
    yield from _table(part["overlaps"])
    for title, key in (
        ("Benchmarks that do not cover the language", "language_not_covered"),
        ("**Not loaded, so not checked (`--allow_missing`)**", "not_loaded"),
        ("**Partial copies, so the rest is not checked (`--allow_partial_benchmark`)**", "partial"),
    ):
        if part[key]:
            yield title + ": " + ", ".join(f"{_escape(name)} ({language})" for name, language in part[key]) + ".\n\n"


def _examples(rows: list[dict], hits: Iterable[Hit]) -> Iterator[str]:
    examples: dict[tuple, list[Hit]] = {}
    for hit in hits:
        shown = examples.setdefault((hit["side"], hit["benchmark"], hit["split"]), [])
        if len(shown) < MAX_EXAMPLES:
            shown.append(hit)
    for row in rows:
        shown = examples.get((row["side"], row["benchmark"], row["split"]), [])
        if not shown:
            continue
        title = f"{row['benchmark']} {row['split']}, {row['side']} ({row['language']})"
        more = f", the first {len(shown)} hits" if row["hits"] > len(shown) else ""
        yield f"### {_escape(title)}{more}\n\n"
        for hit in shown:
            where = f"line {hit['line']}" + ("" if hit["pair"] is None else f", pair {hit['pair']}")
            where += f" to {hit['pair'] + hit['pairs'] - 1}" if "pairs" in hit else ""
            what = {"paragraph": "dropped with its paragraph", "pair": "dropped", "none": "kept"}[hit["dropped"]]
            yield f"- {where}, {what}: {_escape(hit['text'])}\n"
            how = {
                "ngram": f"shares {hit['tokens']} tokens, beginning with “{_escape(hit['shared_ngram'])}”, with",
                "short_text": "contains the whole of",
                "near_duplicate": f"is a near-duplicate (F1 {hit.get('similarity', 0):.2f}) of",
            }[hit["match"]]
            yield f"  - {how} {_escape(hit['benchmark_id'])}: {_escape(hit['benchmark_text'])}\n"
        yield "\n"


def _between_benchmarks(rows: list[dict]) -> Iterator[str]:
    if not rows:
        yield "No two splits overlap.\n"
        return
    yield "Demonstrations that overlap a test set inflate its scores.\n\n"
    yield from _table({key: value for key, value in row.items() if key != "pairs"} for row in rows)
    for row in rows:
        yield f"### {row['language']}: {_escape(row['first'])} and {_escape(row['second'])}\n\n"
        for pair in row["pairs"][:MAX_EXAMPLES]:
            yield f"- {_escape(pair['first_id'])}: {_escape(pair['first_text'])}\n"
            yield f"  - {_escape(pair['second_id'])}: {_escape(pair['second_text'])}\n"
        yield "\n"


def _table(rows: Iterable[dict]) -> Iterator[str]:
    """Rows as a Markdown table under their keys."""
    if rows := list(rows):
        names = [key.replace("_", " ") for key in rows[0]]
        yield markdown_table(names, (map(_escape, row.values()) for row in rows)) + "\n"
    yield "\n"


def _escape(value: object) -> str:
    """A value on one line, with Markdown's special characters escaped."""
    text = " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return "".join("\\" + char if char in "\\`*_{}[]<>#|~" else char for char in printable(" ".join(text.split())))
