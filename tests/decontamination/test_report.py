"""The report by itself: what is counted once, which examples are shown, what splits share."""

import json

import pytest

from topxgen.corpora.benchmarks import Split
from topxgen.decontamination import report
from topxgen.text.ngram_index import BenchmarkText, ContaminationIndex

SHARED = "bat bi hiru lau bost sei"


def hit(line: int, **more) -> dict:
    return {
        "line": line,
        "side": "sentence",
        "pair": 0,
        "text": f"text {line}",
        "dropped": "pair",
        "match": "short_text",
        "shared_ngram": "",
        "tokens": 3,
        "benchmark": "own",
        "split": "test",
        "benchmark_id": "1",
        "benchmark_text": "of the benchmark",
        **more,
    }


def markdown(hits: list[dict], **counts: int) -> str:
    split = Split("own", "test", "Basque", ["1", "2"], ["Egun on.", " "], "own.tsv")
    (row,) = report.counted_overlaps(hits, [{"side": "sentence", "benchmark": "own", "split": "test"}])
    part = {
        "input": "in.jsonl",
        "tokens_per_ngram": 10,
        "counts": counts,
        "overlaps": [{**row, "language": split.language, "benchmark_texts": 1}],
        **dict.fromkeys(("partial", "language_not_covered", "not_loaded"), ()),
    }
    rules = {"ngram_size": 10, "tokenizer": "unicode", "near_duplicate_threshold": None, "short_text_rule": "inside"}
    rules |= {"drop_on_sentence_overlap": "paragraph", "drop_on_translation_overlap": "pair"}
    content = {"audit": False, "settings": rules, "languages": {"Basque": part}, "between_benchmarks": []}
    return "".join(report.as_markdown(content, {"Basque": lambda: hits}))


NO_COUNTS = dict.fromkeys(
    ("records", "pairs", "paragraphs_dropped", "pairs_dropped_with_paragraph", "pairs_dropped"), 0
)


def test_blank_texts_of_a_benchmark_are_not_counted(tmp_path):
    (tmp_path / "hits.jsonl").write_text(json.dumps(hit(0)) + "\n")
    split = Split("own", "test", "Basque", ["1", "2", "3"], ["Egun on.", " ", "Bai."], "own.tsv")
    (row,) = report.overlaps(tmp_path / "hits.jsonl", [("sentence", split)])
    assert (row["hits"], row["benchmark_texts_hit"], row["benchmark_texts"]) == (1, 1, 2)


@pytest.mark.parametrize("count, shown, says_so", [(10, 10, False), (11, 10, True)])
def test_the_first_ten_hits_are_examples(count, shown, says_so):
    text = markdown([hit(line) for line in range(count)], **NO_COUNTS)
    assert text.count("\n- line ") == shown and (", the first 10 hits" in text) == says_so


def test_an_example_says_what_was_dropped_and_the_table_how_much():
    counts = {"records": 9, "records_overlapping": 4, "pairs": 50, "paragraphs_dropped": 2}
    hits = [hit(0, dropped="paragraph", pair=None), hit(1), hit(2, dropped="none")]
    text = markdown(hits, **counts, pairs_dropped_with_paragraph=11, pairs_dropped=3)
    for line in (
        "| dropped with their paragraph | 2 | 11 |",
        "| dropped alone |  | 3 |",
        "| kept | 7 | 36 |",
        "- line 0, dropped with its paragraph: text 0",
        "- line 1, pair 0, dropped: text 1",
        "- line 2, pair 0, kept: text 2",
    ):
        assert f"{line}\n" in text


def test_texts_that_two_splits_share_are_counted_once_and_variants_are_one_split():
    places = [("one", "test", "1"), ("one", "test (fra-CA)", "2"), *(("two", "dev", id) for id in "345")]
    entries = [BenchmarkText(*place[:2], "French", place[2], SHARED) for place in places]
    (row,) = report.between_benchmarks("French", ContaminationIndex(entries, 5), set())
    assert (row["first"], row["second"]) == (("one", "test"), ("two", "dev"))
    assert (len(row["pairs"]), row["texts_of_first"], row["texts_of_second"]) == (6, 2, 3)
