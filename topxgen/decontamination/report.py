"""The report of a decontamination: JSON with every hit, and Markdown to read."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from topxgen.common.files import read_jsonl
from topxgen.corpora.benchmarks import Split
from topxgen.decontamination.ngram_index import MIN_CONTAINED_SHARE, ContaminationIndex

EXAMPLES = 10  # of each benchmark, split and side in the Markdown
# Splits that few-shot demonstrations are taken from (SPEC, evaluation): what they share with a test set helps there.
POOLS = {("flores", "dev"), ("ntrex", "pool"), ("tico", "dev"), ("udhr", "dev")}


def overlaps(path: Path, splits: Iterable[tuple[str, Split]]) -> list[dict]:
    """A row for each side ("sentence" or "translation"), benchmark and split: how many texts of the file overlap it
    ("hits"), by which rule, and how many of its own texts are overlapped."""
    rows, last, reached = {}, {}, {}
    for side, split in splits:
        key = (side, split.benchmark, split.name)
        rows[key] = {
            "side": side,
            "benchmark": split.benchmark,
            "split": split.name,
            "language": split.language,
            "hits": 0,
            **{"ngram": 0, "whole": 0, "near": 0},
            "benchmark_texts_hit": 0,
            "benchmark_texts": sum(1 for text in split.texts if text.strip()),
        }
        reached[key] = set()
    for hit in read_jsonl(path):
        key = (hit["side"], hit["benchmark"], hit["split"])
        reached[key].add(hit["benchmark_id"])
        text = (hit["line"], hit["pair"])
        if last.get(key) != text:  # the hits of one text stand together
            rows[key]["hits"] += 1
            rows[key][hit["match"]] += 1
            last[key] = text
    for key, row in rows.items():
        row["benchmark_texts_hit"] = len(reached[key])
    return list(rows.values())


def audit(index: ContaminationIndex, pool: set[tuple[str, str]]) -> list[dict]:
    """What the splits in `index` share with each other: one row for each two that share anything, with the pairs of texts.

    Variants of a split (NTREX's fra and fra-CA) are one. `pool`: benchmarks and splits that are demonstrations of the
    user's, beside POOLS.
    """
    number_of = {id(entry): number for number, entry in enumerate(index.entries)}
    pairs = {}
    for number, matches in index.find([entry.text for entry in index.entries], own=True).items():
        for match in matches:
            # A short text that stands in a longer one is found from that side alone.
            pairs.setdefault(tuple(sorted((number, number_of[id(match.entry)]))), match)
    rows: dict[tuple, dict] = {}
    for (first, second), match in sorted(pairs.items()):
        one, other = index.entries[first], index.entries[second]
        row = rows.setdefault(
            (one.base, other.base),
            {
                "language": one.language,
                "first": one.base,
                "second": other.base,
                "pool": not (POOLS | pool).isdisjoint((one.base, other.base)),
                "pairs": [],
            },
        )
        row["pairs"].append(
            {
                "first_id": one.id,
                "second_id": other.id,
                "match": match.how,
                "shared": match.shared,
                "first_text": one.text,
                "second_text": other.text,
            }
        )
    for row in rows.values():
        row["texts_of_first"] = len({pair["first_id"] for pair in row["pairs"]})
        row["texts_of_second"] = len({pair["second_id"] for pair in row["pairs"]})
    return [rows[key] for key in sorted(rows)]


def summary(parts: dict[str, dict], report_only: bool = False) -> str:
    """What stays of each language, and what was hit, as tables for a terminal."""
    lines = []
    for language, part in parts.items():
        counts = part["counts"]
        pairs = counts["pairs"] - counts["pairs_dropped_with_paragraph"] - counts["pairs_dropped"]
        lines.append(
            f"{language}: {counts['records'] - counts['paragraphs_dropped']} of {counts['records']} paragraphs and {pairs} of "
            f"{counts['pairs']} pairs {'would stay' if report_only else 'stay'}"
            + (f"; malformed lines: {counts['malformed']}" if counts["malformed"] else "")
        )
        lines += [
            f"  {row['side']:12} {row['benchmark']} {row['split']:12} {row['hits']:>8} hits, "
            f"{row['benchmark_texts_hit']} of its {row['benchmark_texts']} texts"
            for row in part["overlaps"]
            if row["hits"]
        ] or ["  no overlap"]
    return "\n".join(lines)


def as_json(report: dict, hits: dict[str, Path]) -> Iterator[str]:
    """The report and, under "hits", those of every language, a line each; they are never all in memory."""
    head = json.dumps(report, ensure_ascii=False, indent=1)
    yield head.removesuffix("\n}") + ',\n "hits": {'
    for number, (language, path) in enumerate(hits.items()):
        yield (",\n  " if number else "\n  ") + json.dumps(language, ensure_ascii=False) + ": ["
        for place, hit in enumerate(read_jsonl(path)):
            yield (",\n" if place else "\n") + json.dumps(hit, ensure_ascii=False)
        yield "]"
    yield "}\n}\n"


def as_markdown(report: dict, hits: dict[str, Path]) -> Iterator[str]:
    """Counts in tables; the first EXAMPLES hits of each benchmark, split and side."""
    settings = report["settings"]
    yield "# Decontamination report\n\n"
    yield "Nothing was removed (`--audit`).\n\n" if report["report_only"] else ""
    yield (
        f"Two texts overlap when they share {settings['ngram_size']} words in a row (tokenizer "
        f"`{settings['tokenizer']}`). A benchmark text with fewer words {_SHORT[settings['short_texts']]}."
    )
    if settings["near_duplicates"] is not None:
        yield f" Near-duplicates: ROUGE-L F1 above {settings['near_duplicates']:g}."
    yield (
        f" A sentence that overlaps: {_consequence(settings['on_sentence_overlap'])}. A translation that overlaps: "
        f"{_consequence(settings['on_translation_overlap'])}.\n\n"
    )
    for language, part in report["languages"].items():
        yield f"## {language}\n\n"
        yield from _language(part)
        yield from _examples(part["overlaps"], hits[language])
    yield "## The benchmarks themselves\n\n"
    yield from _audit(report["audit"])


_SHORT = {
    "inside": f"counts when it is the whole of a text or, if it has {MIN_CONTAINED_SHARE:.0%} of them, stands in it",
    "whole": "counts when it is the whole of a text",
    "ignore": "is left out",
}


def _consequence(choice: str) -> str:
    return {"paragraph": "its paragraph goes", "pair": "its pair goes", "keep": "it stays"}[choice]


def _language(part: dict) -> Iterator[str]:
    counts = part["counts"]
    yield f"{part['input']}, {part['tokens_per_ngram']} tokens an n-gram in this language.\n\n"
    yield from _table(
        ("", "paragraphs", "pairs"),
        [
            ("read", counts["records"], counts["pairs"]),
            ("overlapping", counts["records_overlapping"], ""),
            ("dropped with their paragraph", counts["paragraphs_dropped"], counts["pairs_dropped_with_paragraph"]),
            ("dropped alone", "", counts["pairs_dropped"]),
            (
                "kept",
                counts["records"] - counts["paragraphs_dropped"],
                counts["pairs"] - counts["pairs_dropped_with_paragraph"] - counts["pairs_dropped"],
            ),
        ],
    )
    if counts["malformed"]:
        yield f"Malformed lines, kept aside: {counts['malformed']}.\n\n"
    yield from _table(
        ("benchmark", "split", "side", "hits", "by n-gram", "whole", "near", "of its texts"),
        [
            (
                _plain(row["benchmark"]),
                _plain(row["split"]),
                f"{row['side']} ({row['language'] or 'any language'})",
                *(row[name] for name in ("hits", "ngram", "whole", "near")),
                f"{row['benchmark_texts_hit']} of {row['benchmark_texts']}",
            )
            for row in part["overlaps"]
        ],
    )
    for title, key in (
        ("Benchmarks without the language (nothing to compare with)", "lacking"),
        ("**Missing, allowed by `--allow_missing`: not checked**", "missing"),
    ):
        if part[key]:
            yield title + ": " + ", ".join(f"{_plain(name)} ({side})" for name, side in part[key]) + ".\n\n"


def _examples(rows: list[dict], path: Path) -> Iterator[str]:
    first: dict[tuple, list[dict]] = {}
    for hit in read_jsonl(path):
        shown = first.setdefault((hit["side"], hit["benchmark"], hit["split"]), [])
        if len(shown) < EXAMPLES:
            shown.append(hit)
    for row in rows:
        shown = first.get((row["side"], row["benchmark"], row["split"]), [])
        if not shown:
            continue
        title = f"{row['benchmark']} {row['split']}, {row['side']} ({row['language'] or 'any language'})"
        yield f"### {_plain(title)}{', the first of them' if row['hits'] > len(shown) else ''}\n\n"
        for hit in shown:
            where = f"line {hit['line']}" + ("" if hit["pair"] is None else f", pair {hit['pair']}")
            where += f" to {hit['pair'] + hit['pairs'] - 1}" if "pairs" in hit else ""
            goes = {"paragraph": "dropped with its paragraph", "pair": "dropped", "nothing": "kept"}[hit["dropped"]]
            yield f"- {where}, {goes}: {_plain(hit['text'])}\n"
            how = {
                "ngram": f"shares {hit['tokens']} words, from “{_plain(hit['shared'])}” on, with",
                "whole": "holds the whole of",
                "near": f"is like (F1 {hit.get('similarity', 0):.2f})",
            }[hit["match"]]
            yield f"  - {how} {_plain(hit['benchmark_id'])}: {_plain(hit['benchmark_text'])}\n"
        yield "\n"


def _audit(rows: list[dict]) -> Iterator[str]:
    if not rows:
        yield "No two splits share anything.\n"
        return
    yield "What splits share with each other; a pool of demonstrations that shares texts with a test set flatters it.\n\n"
    yield from _table(
        ("language", "split", "its texts", "shares with", "its texts", "pool"),
        [
            (
                row["language"],
                _plain(" ".join(row["first"])),
                row["texts_of_first"],
                _plain(" ".join(row["second"])),
                row["texts_of_second"],
                "yes" if row["pool"] else "",
            )
            for row in rows
        ],
    )
    for row in rows:
        yield f"### {row['language']}: {_plain(' '.join(row['first']))} and {_plain(' '.join(row['second']))}\n\n"
        for pair in row["pairs"][:EXAMPLES]:
            yield f"- {_plain(pair['first_id'])}: {_plain(pair['first_text'])}\n"
            yield f"  - {_plain(pair['second_id'])}: {_plain(pair['second_text'])}\n"
        yield "\n"


def _table(header: tuple, rows: list[tuple]) -> Iterator[str]:
    for row in (header, ["---"] * len(header), *rows):
        yield "| " + " | ".join(str(cell) for cell in row) + " |\n"
    yield "\n"


def _plain(text: str) -> str:
    """Text on one line that Markdown shows as it stands."""
    text = " ".join(str(text).split())
    return "".join("\\" + char if char in "\\`*_{}[]<>#|~" else char for char in text)
