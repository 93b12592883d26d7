"""What leaves a record for each rule, and what is counted."""

import json

import pytest

from topxgen.decontamination.filter import ContaminationFilter
from topxgen.decontamination.ngram_index import BenchmarkText, ContaminationIndex

BASE = [f"w{i}" for i in range(60)]


def words(first: int, last: int) -> str:
    return " ".join(BASE[first:last])


def index(*texts: str) -> ContaminationIndex:
    return ContaminationIndex([BenchmarkText("set", "test", "any", str(i), text) for i, text in enumerate(texts)], 10)


def record(propositions: list[str], translations: list[str]) -> bytes:
    count = range(len(propositions))
    return json.dumps(
        {
            "id": "a", "sentence": " ".join(propositions), "propositions": propositions, "translations": translations,
            "scores": [float(i) for i in count], "confidences": [i / 10 for i in count], "pieces": [1 for _ in count],
        }
    ).encode() + b"\n"  # fmt: skip


CLEAN = [f"clean sentence {i}" for i in range(4)]
FOREIGN = [f"clean translation {i}" for i in range(4)]
OVERLAPPING = record([CLEAN[0], words(0, 12), *CLEAN[2:]], FOREIGN)
TRANSLATED = record(CLEAN, [FOREIGN[0], words(20, 32), *FOREIGN[2:]])


def run(chunk: bytes, **rules):
    return ContaminationFilter(index(words(0, 12)), index(words(20, 32)), **rules)(chunk)


def test_by_default_a_sentence_takes_the_paragraph_and_a_translation_its_pair():
    result = run(OVERLAPPING + TRANSLATED)
    (kept,) = result.kept.splitlines()
    kept = json.loads(kept)
    assert kept["propositions"] == [CLEAN[0], *CLEAN[2:]] and kept["translations"] == [FOREIGN[0], *FOREIGN[2:]]
    assert kept["scores"] == [0.0, 2.0, 3.0] and kept["confidences"] == [0.0, 0.2, 0.3] and kept["pieces"] == [1, 1, 1]
    assert {key: value for key, value in result.counts.items() if value} == {
        "lines": 2, "records": 2, "records_overlapping": 2, "paragraphs_dropped": 1, "pairs": 8,
        "pairs_dropped_with_paragraph": 4, "pairs_dropped": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "line, rule, kept",
    [
        (OVERLAPPING, {"drop_on_sentence_overlap": "keep"}, 4),
        (OVERLAPPING, {"drop_on_sentence_overlap": "pair"}, 3),
        (OVERLAPPING, {"drop_on_sentence_overlap": "paragraph"}, 0),
        (TRANSLATED, {"drop_on_translation_overlap": "keep"}, 4),
        (TRANSLATED, {"drop_on_translation_overlap": "pair"}, 3),
        (TRANSLATED, {"drop_on_translation_overlap": "paragraph"}, 0),
    ],
)
def test_rules(line, rule, kept):
    result = run(line, **rule)
    pairs = [len(json.loads(line)["propositions"]) for line in result.kept.splitlines()]
    assert pairs == ([kept] if kept else [])
    assert {hit["dropped"] for hit in result.hits} <= {"paragraph" if not kept else "pair" if kept == 3 else "none"}
    if kept == 4:
        assert result.kept == line, "byte for byte"


def test_a_match_across_sentences_drops_all_of_them():
    line = record([CLEAN[0], words(0, 6), words(6, 12), CLEAN[3]], FOREIGN)
    result = run(line, drop_on_sentence_overlap="pair")
    assert json.loads(result.kept)["propositions"] == [CLEAN[0], CLEAN[3]] and result.counts["pairs_dropped"] == 2
    assert result.counts["paragraphs_dropped"] == result.counts["pairs_dropped_with_paragraph"] == 0


def test_all_pairs_may_go_and_the_paragraph_stays():
    result = run(record([words(0, 12)], FOREIGN[:1]), drop_on_sentence_overlap="pair")
    assert json.loads(result.kept)["propositions"] == [] and result.counts["paragraphs_dropped"] == 0
