"""What overlaps an evaluation set leaves the generated data: the rules, applied to a chunk of a file's lines.

Lines from which nothing is dropped stay as they were read, byte for byte.
"""

import json
from bisect import bisect_right
from dataclasses import dataclass

from topxgen.common.files import to_line
from topxgen.decontamination.ngram_index import ContaminationIndex, Match
from topxgen.decontamination.parallel_jsonl import ChunkResult

VERSION = 1  # of the rules below and of the tokens: what another version kept is judged anew
MAX_REPORTED_CHARS = 5000  # characters of a text in the list of hits
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
class DropRules:
    """What goes when a text overlaps: the whole paragraph, the pair alone, or nothing ("keep")."""

    on_sentence: str = "paragraph"
    on_translation: str = "pair"


@dataclass
class ContaminationFilter:
    """Judges records by the benchmarks in the language of their sentences and in that of their translations."""

    sentences: ContaminationIndex
    translations: ContaminationIndex
    rules: DropRules

    def __call__(self, chunk: bytes) -> ChunkResult:
        judged, records, numbers = ChunkResult(), [], []
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
        # All texts of a side at once, each record a group; the texts of record i begin at firsts[i] there.
        paragraphs = [record["sentence"] for record in records]
        sentences, translations, firsts, ends = [], [], [], []
        for record in records:
            firsts.append(len(sentences))
            sentences += record["propositions"]
            translations += record["translations"]
            ends += [len(sentences)] * (len(sentences) - firsts[-1])
        in_paragraphs = self.sentences.find(paragraphs)
        in_sentences = self.sentences.find(sentences, ends)
        in_translations = self.translations.find(translations, ends)
        touched = {bisect_right(firsts, text) - 1 for text in (*in_sentences, *in_translations)} | set(in_paragraphs)
        for i in sorted(touched):
            pairs = range(len(records[i]["propositions"]))
            left = self._apply(
                records[i],
                numbers[i],
                in_paragraphs.get(i, []),
                [in_sentences.get(firsts[i] + pair, []) for pair in pairs],
                [in_translations.get(firsts[i] + pair, []) for pair in pairs],
                judged,
            )
            if left is not None:
                others[numbers[i]] = left
        judged.kept = _parts(lines, others, chunk)
        judged.counts.update(
            lines=len(lines), records=len(records), pairs=len(translations), malformed=len(judged.malformed)
        )
        return judged

    def _apply(
        self,
        record: dict,
        number: int,
        of_paragraph: list[Match],
        of_sentences: list[list[Match]],
        of_translations: list[list[Match]],
        judged: ChunkResult,
    ) -> bytes | None:
        """The line that is left of a record that overlaps, b"" when all of it goes, None when all of it stays.

        The matches of sentences and translations stand with the first pair that they are of.
        """
        rules = self.rules
        all_goes = (rules.on_sentence == "paragraph" and (bool(of_paragraph) or any(of_sentences))) or (
            rules.on_translation == "paragraph" and any(of_translations)
        )
        dropped = [False] * len(of_sentences)
        for rule, found in ((rules.on_sentence, of_sentences), (rules.on_translation, of_translations)):
            for pair, matches in enumerate(found if rule == "pair" else ()):
                for match in matches:
                    dropped[pair : pair + match.texts] = [True] * match.texts

        def report(side: str, pair: int | None, text: str, match: Match) -> None:
            goes = "paragraph" if all_goes else "pair" if pair is not None and dropped[pair] else "nothing"
            judged.hits.append(
                {
                    "line": number,
                    "id": record.get("id"),
                    "side": side,
                    "pair": pair,
                    **({} if match.texts == 1 else {"pairs": match.texts}),
                    "text": text
                    if len(text) <= MAX_REPORTED_CHARS
                    else f"{text[:MAX_REPORTED_CHARS]}… ({len(text)} characters)",
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
        for match in of_paragraph:
            if match.entry not in listed:  # its sentences say more precisely where
                report("sentence", None, record["sentence"], match)
        for side, texts, found in (
            ("sentence", record["propositions"], of_sentences),
            ("translation", record["translations"], of_translations),
        ):
            for pair, matches in enumerate(found):
                for match in matches:
                    report(side, pair, " ".join(texts[pair : pair + match.texts]), match)

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


def _parts(lines: list[bytes], others: dict[int, bytes], chunk: bytes) -> list[tuple[int, int] | bytes]:
    """The chunk, cut at the lines in whose place `others` stand; whole lines, also where a file's last lacks its end."""
    parts, start, end = [], 0, 0
    for number, line in enumerate(lines) if others else ():
        if number in others:
            parts += [(start, end)] if end > start else []
            parts += [others[number]] if others[number] else []
            start = end + len(line) + 1
        end += len(line) + 1
    if start < len(chunk):
        parts += [(start, len(chunk))] if chunk.endswith(b"\n") else [(start, len(chunk)), b"\n"]
    return parts


def _parse(line: bytes) -> dict:
    """The record of a line. Raises ValueError with the reason when it is not one."""
    import orjson

    try:
        record = orjson.loads(line)
    except ValueError:
        try:
            record = json.loads(line.decode("utf-8-sig"))  # takes NaN and lone surrogates; its message names the place
        except RecursionError:
            raise ValueError("nested too deeply") from None
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
