"""The browser of pairs: all of them, or a sample that fits into the page, as columns that compress well.

The unit is the paragraph with all its sentences, so that a reader sees why the siblings of a pair were rejected. Two passes: the
first counts and decides which paragraphs to show, the second reads those. Memory depends on what is shown, not on the run.
"""

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from comptra.report import Options, packing
from comptra.report.sections.contamination import MAX_TEXT, order, units_before
from topxgen.runs.folders import BackTranslation, Run, languages_of, relative
from topxgen.runs.reading import Problems
from topxgen.runs.rows import Row, paragraphs, rows, texts

BUCKETS = 1 << 16  # of the orders of paragraphs, each with the characters that it would take
MAX_CHARS_PER_BYTE = 6  # more than gzip gets into a byte of any text that was not made to be compressed
PROBE = 2000  # paragraphs, to estimate how well they compress


@dataclass(frozen=True)
class Source:
    """Where rows come from: a folder of pairs, or one of paragraphs, for its rejected texts."""

    name: str
    pairs: BackTranslation | None
    generation: Path | None
    languages: tuple[str, ...]

    def rows(self, language: str, problems: Problems) -> Iterator[Row]:
        if self.pairs:
            return rows(self.pairs, language, problems=problems)
        return texts(self.generation, language, problems=problems)


@dataclass
class Unit:
    """A paragraph of the page: its text, if it is known, and its rows."""

    source: int
    language: str
    id: str
    rows: list[Row] = field(default_factory=list)
    text: str | None = None


def collect(run: Run, options: Options) -> dict | None:
    """The rows as columns (`encoded`), and `counts`: [source, language, state, reason, of how many, shown] of each kind.

    None if there is neither a pair nor a rejected text.
    """
    sources = [Source(relative(run.root, one.folder), one, None, one.languages) for one in run.back_translations]
    sources += [Source(relative(run.root, one), None, one, languages_of(one)) for one in run.generations]
    problems = Problems()
    choice = choose(sources, options, problems)
    units = _read(sources, choice, problems)
    options.note_problems(problems)
    if not choice.totals:
        return None
    room = None
    if options.max_bytes is not None:
        room = options.max_bytes - packing.size_of([[*key, count, count] for key, count in choice.totals.items()])
    data = _fitting(units, room, sources)
    shown, total = len(data["rows"]["state"]), choice.totals.total()
    units = data.pop("units")
    counts = Counter((unit.source, unit.language, row.state, row.reason) for unit in units for row in unit.rows)
    if shown < total:
        options.notice(
            "missing",
            f"{shown:,} of {total:,} rows are in this page, as many as fit (--max_mb). Whole paragraphs were drawn at random (seed "
            f"{options.seed}), first some of each language, state and reason, then of all alike",
        )
    return {**data, "total": total, "counts": [[*key, count, counts[key]] for key, count in choice.totals.items()]}


@dataclass
class Choice:
    """Which paragraphs to read: those whose order is below `threshold`, and some of each kind of row.

    `ranks`: of the latter by (source, language, paragraph id) the best rank in any of their kinds.
    """

    seed: int
    totals: Counter
    ranks: dict[tuple[int, str, str], int]
    threshold: int

    def __contains__(self, key: tuple[int, str, str]) -> bool:
        return key in self.ranks or order(self.seed, key[2]) < self.threshold

    def priority(self, unit: Unit) -> tuple[int, int]:
        """Units in the order in which they get room."""
        rank = self.ranks.get((unit.source, unit.language, unit.id))
        return len(self.ranks) if rank is None else rank, order(self.seed, unit.id)


def choose(sources: Sequence[Source], options: Options, problems: Problems) -> Choice:
    """Count the rows of each kind, and choose: `max_examples` paragraphs of each kind, others as far as `max_bytes` may hold."""
    totals: Counter = Counter()
    lowest: dict[tuple, dict[int, tuple]] = {}  # of each kind the paragraphs of lowest order: (key by order)
    heaps: dict[tuple, list[int]] = {}
    chars = np.zeros(BUCKETS, np.int64)
    last = place = None
    for number, language, row in _all_rows(sources, problems):
        kind = (number, language, row.state, row.reason)
        totals[kind] += 1
        if row.paragraph_id != last:
            last, place = row.paragraph_id, order(options.seed, row.paragraph_id)
        chars[place * BUCKETS >> 64] += len(row.sentence) + len(row.translation or "")
        heap, known = heaps.setdefault(kind, []), lowest.setdefault(kind, {})
        if place in known or (len(heap) >= options.max_examples and place > -heap[0]):
            continue
        known[place] = (number, language, row.paragraph_id)
        heapq.heappush(heap, -place)
        if len(heap) > options.max_examples:
            del known[-heapq.heappop(heap)]
    ranks: dict[tuple, int] = {}
    for known in lowest.values():
        for rank, place in enumerate(sorted(known)):
            ranks[known[place]] = min(rank, ranks.get(known[place], rank))
    threshold = 1 << 64
    if options.max_bytes is not None:
        buckets = int(np.searchsorted(np.cumsum(chars), options.max_bytes * MAX_CHARS_PER_BYTE, "right"))
        threshold = buckets * (1 << 64) // BUCKETS
    return Choice(options.seed, totals, ranks, threshold)


def _all_rows(sources: Iterable[Source], problems: Problems) -> Iterator[tuple[int, str, Row]]:
    for number, source in enumerate(sources):
        for language in source.languages:
            for row in source.rows(language, problems):
                yield number, language, row


def _read(sources: Sequence[Source], choice: Choice, first: Problems) -> list[Unit]:
    """The chosen paragraphs with their rows and texts, the most important first. Files that could be read at the `first` reading, and
    no longer, are added to its problems."""
    problems = Problems()
    units: dict[tuple, Unit] = {}
    for number, language, row in _all_rows(sources, problems):
        key = (number, language, row.paragraph_id)
        if key in choice:
            units.setdefault(key, Unit(*key)).rows.append(row)
    for number, source in enumerate(sources):
        for language in source.languages if source.pairs else ():
            ids = [key[2] for key in units if key[:2] == (number, language)]
            for name, text in paragraphs(source.pairs, language, ids, problems=problems).items():
                units[number, language, name].text = text
    first.add_of_second_reading(problems)
    return sorted(units.values(), key=choice.priority)


def _fitting(units: list[Unit], max_bytes: int | None, sources: Sequence[Source]) -> dict:
    """As many of the units as fit into `max_bytes`, encoded, with the `units`."""

    def encode(count: int) -> dict:
        kept = sorted(units[:count], key=lambda unit: (unit.source, unit.language, _natural(unit.id)))
        return {**encoded(kept, sources), "units": kept}

    def size(data: dict) -> int:
        return packing.size_of({key: value for key, value in data.items() if key != "units"})

    count = len(units)
    if max_bytes is None:
        return encode(count)
    if count > PROBE:
        count = min(count, int(PROBE * max_bytes / size(encode(PROBE))))
    best, fits, over = encode(0), 0, len(units) + 1
    for _ in range(8):  # towards the limit, by the sizes so far; halfway where they mislead
        used = size(data := encode(count))
        if used <= max_bytes:
            best, fits = data, count
            if used > 0.93 * max_bytes or fits + 1 == over:
                break
        else:
            over = count
        guess = int(count * 0.97 * max_bytes / used)
        count = guess if fits < guess < over else (fits + over) // 2
    return best


def encoded(units: Sequence[Unit], sources: Sequence[Source]) -> dict:
    """Units as columns. `paragraphs` and `rows` are lists in parallel, in each: {"values", "codes"} for what recurs.

    A sentence that its paragraph has is there but once: `gap` is how far it begins behind the end of the row before, `length`
    its length, both as JavaScript counts. Other sentences have the length null and are in `others`, in order.
    """
    paragraph = {"source": [], "id": [], "text": [], "rows": []}
    names = ("state", "letter", "index", "translation", "score", "confidence", "gap", "length")
    row_columns: dict[str, list] = {name: [] for name in names}
    languages, topics, reasons, scorers, details = ([] for _ in range(5))
    others: list[str] = []
    cut: dict[str, dict[int, int]] = {"paragraph": {}, "sentence": {}, "translation": {}}

    def short(text: str, kind: str, number: int) -> str:
        if len(text) > MAX_TEXT:
            cut[kind][number] = len(text)
        return text[:MAX_TEXT]

    for unit in units:
        whole = unit.text if unit.text is not None else unit.rows[0].sentence if unit.rows[0].state == "text" else None
        text = short(whole, "paragraph", len(paragraph["id"])) if whole is not None else None
        at = units_before(text or "")
        for name, value in (("source", unit.source), ("id", unit.id), ("text", text), ("rows", len(unit.rows))):
            paragraph[name].append(value)
        languages.append(unit.language)
        topics.append(next((row.topic for row in unit.rows if row.topic), None))
        end = 0
        for start, row in sorted(_placed(unit.rows, text or ""), key=lambda placed: placed[0]):
            number = len(row_columns["state"])
            length = None
            if start < len(text or ""):
                first, last = at(start), at(start + len(row.sentence))
                row_columns["gap"].append(first - end)
                length, end = last - first, last
            else:
                row_columns["gap"].append(0)
                others.append(short(row.sentence, "sentence", number))
            row_columns["length"].append(length)
            row_columns["state"].append(STATES.index(row.state))
            row_columns["letter"].append(row.id.rpartition("/")[2][:1])
            row_columns["index"].append(row.index)
            translation = None if row.translation is None else short(row.translation, "translation", number)
            row_columns["translation"].append(translation)
            for name, value in (("score", row.score), ("confidence", row.confidence)):
                row_columns[name].append(None if value is None else round(value, 4))
            for column, value in ((reasons, row.reason), (scorers, row.scorer), (details, row.detail)):
                column.append(value or "")
    return {
        "sources": [
            {
                "name": one.name,
                "target_language": one.pairs.target_language if one.pairs else "",
                "has_pairs": bool(one.pairs),
            }
            for one in sources
        ],
        "states": STATES,
        "max_text": MAX_TEXT,
        "paragraphs": {**paragraph, "language": _coded(languages), "topic": _coded(topics)},
        "rows": {**row_columns, "reason": _coded(reasons), "scorer": _coded(scorers), "detail": _coded(details)},
        "others": others,
        "cut": cut,
    }


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts ids by their numbers: Basque-2 before Basque-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


STATES = ("kept", "contaminated", "rejected", "not_chosen", "text")


def _placed(unit_rows: Iterable[Row], text: str) -> Iterator[tuple[int, Row]]:
    """Each row with the place of its sentence in the text, behind the end of the text if it is not there or is cut off."""
    used: dict[str, int] = {}
    for row in unit_rows:
        sentence = row.sentence
        if row.state == "text":
            start = 0 if sentence.startswith(text) else -1  # the text, which may be cut
        elif not sentence:
            start = -1
        else:
            # The same sentence twice in a paragraph is two rows, but candidates share theirs.
            start = text.find(sentence, used.get(sentence, 0))
            if start < 0:
                start = text.find(sentence)
            if row.state != "not_chosen" and start >= 0:
                used[sentence] = start + len(sentence)
        yield (start if start >= 0 else len(text)), row


def _coded(values: list[str | None]) -> dict[str, list]:
    """A column whose values recur: those that there are, the most frequent first, and the number of each row's."""
    common = [value for value, _ in Counter(values).most_common()]
    number = {value: i for i, value in enumerate(common)}
    return {"values": common, "codes": [number[value] for value in values]}
