"""What overlaps an evaluation set leaves the generated data: the rules, applied to a chunk of a file's lines.

Lines from which nothing is dropped stay as they were read, byte for byte.
"""

import json
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

from comptra.files import to_line
from topxgen.overlap import Index, Match

VERSION = 1  # of the rules below and of the tokens: what another version kept is judged anew
ON_SENTENCE = ("paragraph", "pair", "keep")
ON_TRANSLATION = ("pair", "paragraph", "keep")
COUNTS = (
    "lines",
    "malformed",
    "records",
    "records_overlapping",
    "paragraphs_dropped",
    "pairs",
    "pairs_dropped_with_paragraph",
    "pairs_dropped",
)
_PARALLEL = ("propositions", "translations", "scores", "confidences", "pieces")


@dataclass(frozen=True)
class Rules:
    """What goes when a text overlaps: the whole paragraph, the pair alone, or nothing ("keep")."""

    on_sentence: str = "paragraph"
    on_translation: str = "pair"


@dataclass
class Judged:
    """What became of a chunk: `kept` are the parts of it that stay, as (start, end) in bytes, and what stands in the
    place of others. Line numbers in `hits` and `malformed` count from the start of the chunk."""

    kept: list[tuple[int, int] | bytes] = field(default_factory=list)
    hits: list[dict] = field(default_factory=list)
    malformed: list[dict] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)


@dataclass
class Judge:
    """Judges records by the benchmarks in the language of their sentences and in that of their translations."""

    sentences: Index
    translations: Index
    rules: Rules

    def __call__(self, chunk: bytes) -> Judged:
        judged, records, numbers = Judged(), [], []
        lines = chunk.removesuffix(b"\n").split(b"\n")
        others: dict[int, bytes] = {}  # what stands in the place of the lines of these numbers
        for number, line in enumerate(lines):
            try:
                if line and not line.isspace():
                    records.append(_parse(line))
                    numbers.append(number)
                else:
                    others[number] = b""
            except ValueError as error:
                text = line.decode("utf-8", "backslashreplace")
                judged.malformed.append({"line": number, "reason": str(error), "text": text})
                others[number] = b""
        # All texts of a side at once; the texts of record i begin at firsts[i] there.
        sources, source_firsts, translations, translation_firsts = [], [], [], []
        for record in records:
            source_firsts.append(len(sources))
            translation_firsts.append(len(translations))
            sources.append(record["sentence"])
            sources += record["propositions"]
            translations += record["translations"]
        in_sources, in_translations = self.sentences.find(sources), self.translations.find(translations)
        touched = {bisect_right(source_firsts, text) - 1 for text in in_sources}
        touched |= {bisect_right(translation_firsts, text) - 1 for text in in_translations}
        for i in sorted(touched):
            number = numbers[i]
            first, pairs = source_firsts[i], range(len(records[i]["propositions"]))
            sides = (
                [in_sources.get(first + 1 + pair, []) for pair in pairs],
                [in_translations.get(translation_firsts[i] + pair, []) for pair in pairs],
            )
            left = self._apply(records[i], number, in_sources.get(first, []), sides, judged)
            if left is not None:
                others[number] = left
        judged.kept = _parts(lines, others, len(chunk))
        judged.counts.update(
            lines=len(lines), records=len(records), pairs=len(translations), malformed=len(judged.malformed)
        )
        return judged

    def _apply(
        self,
        record: dict,
        number: int,
        paragraph: list[Match],
        sides: tuple[list[list[Match]], list[list[Match]]],
        judged: Judged,
    ) -> bytes | None:
        """The line that is left of a record that overlaps, b"" when all of it goes, None when all of it stays."""
        of_sentences, of_translations = sides
        rules = self.rules
        sentence_overlaps = bool(paragraph) or any(of_sentences)
        all_goes = (sentence_overlaps and rules.on_sentence == "paragraph") or (
            any(of_translations) and rules.on_translation == "paragraph"
        )
        dropped = [
            (bool(ours) and rules.on_sentence == "pair") or (bool(theirs) and rules.on_translation == "pair")
            for ours, theirs in zip(of_sentences, of_translations, strict=True)
        ]

        def report(side: str, pair: int | None, text: str, match: Match) -> None:
            goes = "paragraph" if all_goes else "pair" if pair is not None and dropped[pair] else "nothing"
            judged.hits.append(
                {
                    "line": number,
                    "id": record.get("id"),
                    "side": side,
                    "pair": pair,
                    "text": text,
                    "dropped": goes,
                    "match": match.how,
                    "shared": match.shared,
                    "tokens": match.tokens,
                    **({} if match.similarity is None else {"similarity": round(match.similarity, 4)}),
                    "benchmark": match.entry.benchmark,
                    "split": match.entry.split,
                    "language": match.entry.language,
                    "benchmark_id": match.entry.id,
                    "benchmark_text": match.entry.text,
                }
            )

        listed = {match.entry for matches in of_sentences for match in matches}
        for match in paragraph:
            if match.entry not in listed:  # its sentences say more precisely where
                report("sentence", None, record["sentence"], match)
        for side, key, found in (
            ("sentence", "propositions", of_sentences),
            ("translation", "translations", of_translations),
        ):
            for pair, matches in enumerate(found):
                for match in matches:
                    report(side, pair, record[key][pair], match)

        counts = judged.counts
        counts["records_overlapping"] += 1
        if all_goes:
            counts.update(paragraphs_dropped=1, pairs_dropped_with_paragraph=len(dropped))
            return b""
        if not any(dropped):
            return None
        counts["pairs_dropped"] += sum(dropped)
        kept = {
            key: [value for value, goes in zip(record[key], dropped, strict=True) if not goes]
            for key in _PARALLEL
            if record.get(key)
        }
        return to_line({**record, **kept}).encode("utf-8", "replace")


def _parts(lines: list[bytes], others: dict[int, bytes], length: int) -> list[tuple[int, int] | bytes]:
    """A chunk of `length` bytes, cut at the lines in whose place `others` stand."""
    parts, start, end = [], 0, 0
    for number, line in enumerate(lines) if others else ():
        if number in others:
            parts += [(start, end)] if end > start else []
            parts += [others[number]] if others[number] else []
            start = end + len(line) + 1
        end += len(line) + 1
    return parts + ([(start, length)] if length > start else [])


def _parse(line: bytes) -> dict:
    """The record of a line. Raises ValueError with the reason when it is not one."""
    import orjson

    try:
        record = orjson.loads(line)
    except ValueError:
        record = json.loads(line)  # takes NaN and lone surrogates too; its message names the place
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    if not isinstance(record.get("sentence"), str):
        raise ValueError("no text in 'sentence'")
    for key in ("propositions", "translations"):
        if not isinstance(record.get(key), list) or not {str}.issuperset(map(type, record[key])):
            raise ValueError(f"no list of texts in {key!r}")
    pairs = len(record["propositions"])
    for key in _PARALLEL:
        value = record.get(key)
        # The original's files may lack scores, or hold an empty list of them.
        if key != "translations" and not value:
            continue
        if not isinstance(value, list) or len(value) != pairs:
            raise ValueError(f"{len(value) if isinstance(value, list) else value!r} {key} for {pairs} propositions")
    return record
