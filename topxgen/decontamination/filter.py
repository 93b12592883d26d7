"""Which paragraphs and pairs to drop: the contamination rules, applied to a chunk of a file's lines.

Lines from which nothing is dropped are kept byte for byte.
"""

from bisect import bisect_right
from codecs import BOM_UTF8
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain
from typing import Required

from topxgen.common.files import to_line
from topxgen.common.records import PARALLEL, TranslationRecord, check_lengths
from topxgen.common.schemas import decode
from topxgen.decontamination.parallel_jsonl import ChunkResult
from topxgen.text.ngram_index import ContaminationIndex

RULES_VERSION = 6  # of the rules below and of the tokens; results of another version are not reused
MAX_DEPTH = 100  # of lists and objects in each other: what is much deeper can be read, but not written
MAX_REPORTED_CHARS = 5000  # of a text in the hits file
DROP_ON_SENTENCE_OVERLAP = ("paragraph", "pair", "keep")
DROP_ON_TRANSLATION_OVERLAP = ("pair", "paragraph", "keep")


@dataclass
class ContaminationFilter:
    """Checks sentences and translations against the benchmarks in their languages; keeps what does not overlap.

    `drop_on_*_overlap`: the whole "paragraph", the "pair" alone, or nothing ("keep": the overlap is only reported).
    """

    sentences: ContaminationIndex
    translations: ContaminationIndex
    drop_on_sentence_overlap: str = "paragraph"
    drop_on_translation_overlap: str = "pair"

    def __call__(self, chunk: bytes) -> ChunkResult:
        result = ChunkResult()
        lines = chunk.removesuffix(b"\n").split(b"\n")
        records: dict[int, dict] = {}  # by line
        for number, line in enumerate(lines):
            try:
                if line.strip():
                    records[number] = parse_record(line)
                    continue
            except ValueError as error:
                text = line.decode("utf-8", "backslashreplace")
                result.malformed.append({"line": number, "reason": str(error), "text": text})
            lines[number] = b""
        # All texts of the chunk are looked up at once: those of record i are a group from firsts[i] on.
        numbers, firsts, ends, sentences, translations = list(records), [], [], [], []
        for record in records.values():
            firsts.append(len(sentences))
            sentences += record["propositions"]
            translations += record["translations"]
            ends += [len(sentences)] * len(record["propositions"])
        matches = defaultdict(list)  # of each line: (side, pair, match)
        for i, paragraph_matches in self.sentences.find([record["sentence"] for record in records.values()]).items():
            matches[numbers[i]] += [("sentence", None, match) for match in paragraph_matches]
        sides = ("sentence", self.sentences, sentences), ("translation", self.translations, translations)
        for side, index, texts in sides:
            for text, text_matches in sorted(index.find(texts, ends).items()):
                i = bisect_right(firsts, text) - 1
                matches[numbers[i]] += [(side, text - firsts[i], match) for match in text_matches]
        result.counts.update(
            lines=len(lines),
            malformed=len(result.malformed),
            records=len(records),
            records_overlapping=len(matches),
            paragraphs_dropped=0,
            pairs=len(sentences),
            pairs_dropped_with_paragraph=0,
            pairs_dropped=0,
        )
        for number in sorted(matches):
            lines[number] = self._drop(lines[number], number, records[number], matches[number], result)
        result.kept = b"".join(line + b"\n" for line in lines if line)
        return result

    def _drop(self, line: bytes, number: int, record: dict, matches: list, result: ChunkResult) -> bytes:
        """What is kept of a line with matches, b"" if nothing; its hits and counts are added to `result`.

        `matches`: (side, pair, match); `pair` is None for a match of the whole paragraph.
        """
        rules = {"sentence": self.drop_on_sentence_overlap, "translation": self.drop_on_translation_overlap}
        drop_paragraph = any(rules[side] == "paragraph" for side, _, _ in matches)
        dropped = [False] * len(record["propositions"])
        for side, pair, match in matches:
            if rules[side] == "pair" and pair is not None:
                dropped[pair : pair + match.texts] = [True] * match.texts
        in_sentences = {match.entry for side, pair, match in matches if side == "sentence" and pair is not None}
        for side, pair, match in matches:
            text = record["sentence"]
            if pair is not None:
                texts = record["propositions" if side == "sentence" else "translations"]
                text = " ".join(texts[pair : pair + match.texts])
            elif match.entry in in_sentences:  # the hits of its sentences say more precisely where
                continue
            what_is_dropped = "none"
            if drop_paragraph:
                what_is_dropped = "paragraph"
            elif pair is not None and all(dropped[pair : pair + match.texts]):  # of a span that is kept, some may be
                what_is_dropped = "pair"
            if len(text) > MAX_REPORTED_CHARS:
                text = f"{text[:MAX_REPORTED_CHARS]}… ({len(text)} characters)"
            result.hits.append(
                {
                    "line": number,
                    "id": record.get("id"),
                    "side": side,
                    "pair": pair,
                    **({} if match.texts == 1 else {"pairs": match.texts}),
                    "text": text,
                    "dropped": what_is_dropped,
                    "match": match.kind,
                    "shared_ngram": match.shared_ngram,
                    "tokens": match.tokens,
                    **({} if match.similarity is None else {"similarity": round(match.similarity, 4)}),
                    "benchmark": match.entry.benchmark,
                    "split": match.entry.split,
                    "language": match.entry.language,
                    "benchmark_id": match.entry.id,
                    "benchmark_text": match.entry.text,
                }
            )
        if drop_paragraph:
            result.counts.update(paragraphs_dropped=1, pairs_dropped_with_paragraph=len(dropped))
            return b""
        if not any(dropped):
            return line
        result.counts["pairs_dropped"] += sum(dropped)
        kept = {
            key: [value for value, drop in zip(record[key], dropped, strict=True) if not drop]
            for key in PARALLEL
            if record.get(key)
        }
        return to_line({**record, **kept}).removesuffix("\n").encode("utf-8", "replace")


class _Record(TranslationRecord):
    sentence: Required[str]


def parse_record(line: bytes) -> _Record:
    """The record of a line. Raises ValueError with the reason if it is malformed."""
    record = decode(line.removeprefix(BOM_UTF8), _Record)
    check_lengths(record)
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _depth(record) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    return record


def _depth(value: object) -> int:
    depth, level = -1, [value]
    while level:
        containers = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level, depth = list(chain.from_iterable(containers)), depth + 1
    return depth
