"""The filter on chunks of lines: which paragraphs and pairs go, what is reported, what is malformed."""

import json

import pytest

from topxgen.decontamination.filter import ContaminationFilter, parse_record
from topxgen.text.ngram_index import BenchmarkText, ContaminationIndex

SENTENCE = "bat bi hiru lau bost sei"
TRANSLATION = "one two three four five six"


def index(*texts: str, **options) -> ContaminationIndex:
    return ContaminationIndex(
        [BenchmarkText("set", "test", "L", f"id{i}", t) for i, t in enumerate(texts)], 5, **options
    )


def record(*pairs: tuple[str, str], sentence: str | None = None, **more) -> dict:
    propositions, translations = [list(texts) for texts in zip(*pairs, strict=True)] if pairs else ([], [])
    return {
        "sentence": " ".join(propositions) if sentence is None else sentence,
        "propositions": propositions,
        "translations": translations,
        **more,
    }


def run(*records: dict | str, on_sentence: str = "paragraph", on_translation: str = "pair", **options):
    chunk = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records).encode()
    indexes = index(SENTENCE, **options), index(TRANSLATION, **options)
    return ContaminationFilter(*indexes, on_sentence, on_translation)(chunk)


CLEAN = ("garbia", "clean")
RECORD = record(CLEAN, (SENTENCE, "x"), ("y", TRANSLATION), ("z", "w"), id="r")
KEPT = {
    # (rule for sentences, rule for translations): pairs kept, (dropped of the sentence's hit, of the translation's)
    ("paragraph", "pair"): (None, ("paragraph", "paragraph")),
    ("paragraph", "paragraph"): (None, ("paragraph", "paragraph")),
    ("paragraph", "keep"): (None, ("paragraph", "paragraph")),
    ("pair", "pair"): ([0, 3], ("pair", "pair")),
    ("pair", "paragraph"): (None, ("paragraph", "paragraph")),
    ("pair", "keep"): ([0, 2, 3], ("pair", "none")),
    ("keep", "pair"): ([0, 1, 3], ("none", "pair")),
    ("keep", "paragraph"): (None, ("paragraph", "paragraph")),
    ("keep", "keep"): ([0, 1, 2, 3], ("none", "none")),
}


@pytest.mark.parametrize("rules", KEPT)
def test_each_rule_for_sentences_with_each_for_translations(rules):
    pairs, dropped = KEPT[rules]
    result = run(RECORD, record(CLEAN), on_sentence=rules[0], on_translation=rules[1])
    kept = [json.loads(line) for line in result.kept.splitlines()]
    clean = kept.pop()
    assert clean == record(CLEAN)
    if pairs is None:
        assert kept == []
    else:
        assert kept[0]["propositions"] == [RECORD["propositions"][pair] for pair in pairs]
        assert kept[0]["translations"] == [RECORD["translations"][pair] for pair in pairs]
    assert [(hit["line"], hit["id"], hit["side"], hit["pair"], hit["dropped"]) for hit in result.hits] == [
        (0, "r", "sentence", 1, dropped[0]),
        (0, "r", "translation", 2, dropped[1]),
    ]
    assert result.counts == {
        "lines": 2,
        "malformed": 0,
        "records": 2,
        "records_overlapping": 1,
        "paragraphs_dropped": int(pairs is None),
        "pairs": 5,
        "pairs_dropped_with_paragraph": 4 if pairs is None else 0,
        "pairs_dropped": 0 if pairs is None else 4 - len(pairs),
    }


@pytest.mark.parametrize(("side", "rule"), [("sentence", "paragraph"), ("translation", "pair")])
def test_one_side_alone(side, rule):
    pair = (SENTENCE, "x") if side == "sentence" else ("y", TRANSLATION)
    result = run(record(CLEAN, pair))
    assert [(hit["side"], hit["dropped"]) for hit in result.hits] == [(side, rule)]
    assert (result.counts["paragraphs_dropped"], result.counts["pairs_dropped"]) == (
        (1, 0) if side == "sentence" else (0, 1)
    )


def test_a_hit_of_the_paragraph_alone():
    # Its sentences have it in another order; translations are not checked as a paragraph.
    paragraph = record(("bost sei", "four five six"), ("bat bi hiru lau", "one two three"), sentence=f"a {SENTENCE}")
    (hit,) = run(paragraph).hits
    assert (hit["pair"], hit["text"], hit["dropped"]) == (None, f"a {SENTENCE}", "paragraph")
    for rule in ("pair", "keep"):
        result = run(paragraph, on_sentence=rule)
        assert result.hits[0]["dropped"] == "none" and json.loads(result.kept) == paragraph


def test_a_span_that_is_kept_is_not_listed_as_dropped_where_one_of_its_pairs_is():
    spanning = record(("a bat bi hiru", TRANSLATION), ("lau bost sei b", "clean"))
    result = run(spanning, on_sentence="keep")
    assert json.loads(result.kept)["translations"] == ["clean"] and result.counts["pairs_dropped"] == 1
    hits = [(hit["side"], hit["pair"], hit.get("pairs", 1), hit["dropped"]) for hit in result.hits]
    assert ("sentence", 0, 2, "none") in hits and ("translation", 0, 1, "pair") in hits
    result = run(spanning, on_sentence="pair")
    assert [hit["dropped"] for hit in result.hits if hit["pair"] is not None] == ["pair", "pair"]


def test_a_paragraph_is_not_listed_for_what_its_sentences_are_listed_for():
    indexed = ContaminationFilter(
        index(SENTENCE, "zazpi zortzi bederatzi hamar hamaika"), index(TRANSLATION), "paragraph", "pair"
    )
    paragraph = record((SENTENCE, TRANSLATION), sentence=f"{SENTENCE} zazpi zortzi bederatzi hamar hamaika")
    hits = indexed(json.dumps(paragraph).encode()).hits
    assert [(hit["side"], hit["pair"], hit["benchmark_id"]) for hit in hits] == [
        ("sentence", None, "id1"),
        ("sentence", 0, "id0"),
        ("translation", 0, "id0"),
    ]


def test_a_hit_has_these_keys_and_values():
    (hit,) = run(record(("x", f"Zero, {TRANSLATION} and seven"), id=7)).hits
    assert hit == {
        "line": 0,
        "id": 7,
        "side": "translation",
        "pair": 0,
        "text": f"Zero, {TRANSLATION} and seven",
        "dropped": "pair",
        "match": "ngram",
        "shared_ngram": "one two three four five",
        "tokens": 6,
        "benchmark": "set",
        "split": "test",
        "language": "L",
        "benchmark_id": "id0",
        "benchmark_text": TRANSLATION,
    }
    near = f"{TRANSLATION} and seven eight nine ten eleven twelve"
    filter = ContaminationFilter(index(), index(near, near_duplicate_threshold=0.6), "keep", "pair")
    (hit,) = filter(json.dumps(record(("x", "one two tree four five six or seven eight nin ten"))).encode()).hits
    # 8 words in common of 11 and 13.
    assert (hit["match"], hit["shared_ngram"], hit["tokens"], hit["similarity"]) == ("near_duplicate", "", 0, 0.6667)


@pytest.mark.parametrize("length", [4999, 5000, 5001])
def test_long_texts_are_cut_in_the_hits_file_alone(length):
    text = f"{SENTENCE} ".ljust(length, "a")
    (hit,) = run(record((text, "x")), on_sentence="keep").hits
    assert hit["text"] == (text if length <= 5000 else f"{text[:5000]}… (5001 characters)")


@pytest.mark.parametrize("key", ["scores", "confidences", "pieces"])
def test_lists_parallel_to_the_pairs_stay_parallel(key):
    values = [2, 1, 3] if key == "pieces" else [1.5, None, 3]
    data = record(CLEAN, ("y", TRANSLATION), ("z", "w"), **{key: values}, other=values)
    kept = json.loads(run(data).kept)
    assert (kept[key], kept["other"]) == ([values[0], 3], values)
    assert run({**data, key: values[:2]}).malformed[0]["reason"] == (
        f"field {key}: expected 3 items, one per proposition, got 2"
    )
    assert run({**data, key: "abc"}).malformed[0]["reason"] == (f"field {key}: expected list or null, got text")
    for empty in ([], None):
        assert json.loads(run({**data, key: empty}).kept)[key] == empty


def test_what_is_kept_is_kept_byte_for_byte():
    lines = [
        b'{"translations": ["a"],  "propositions":["b"], "sentence": "\\u0062", "n": 1.50}\r',
        b'\xef\xbb\xbf{"sentence": "", "propositions": [], "translations": []}',
        b'{"sentence": "\\ud800", "propositions": [], "translations": [], "scores": [NaN][0:]}',
        b'{"sentence": "\\ud800", "propositions": ["y"], "translations": ["z"], "scores": [NaN]}',
    ]
    for end in (b"", b"\n"):
        result = ContaminationFilter(index(SENTENCE), index(TRANSLATION), "pair", "pair")(
            b"\n \n" + b"\n\n\t\r\n".join(lines) + end
        )
        assert result.kept == b"".join(line + b"\n" for line in (lines[0], lines[1], lines[3]))
        assert [malformed["line"] for malformed in result.malformed] == [8]
        assert result.counts["lines"] == 12 and result.counts["records"] == 3


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1]", "not a JSON object, but list"),
        ("3", "not a JSON object, but integer"),
        ('{"propositions": [], "translations": []}', "object missing required field sentence"),
        ('{"sentence": 1, "propositions": [], "translations": []}', "field sentence: expected text, got integer"),
        ('{"sentence": "", "translations": []}', "object missing required field propositions"),
        ('{"sentence": "", "propositions": "ab", "translations": []}', "field propositions: expected list, got text"),
        (
            '{"sentence": "", "propositions": ["a", 1], "translations": ["b", "c"]}',
            "field propositions[1]: expected text, got integer",
        ),
        (
            '{"sentence": "", "propositions": ["a"], "translations": [null]}',
            "field translations[0]: expected text, got null",
        ),
        (
            '{"sentence": "", "propositions": ["a"], "translations": []}',
            "field translations: expected 1 items, one per proposition, got 0",
        ),
        (
            '{"sentence": "", "propositions": [], "translations": ["a"]}',
            "field translations: expected 0 items, one per proposition, got 1",
        ),
        (
            '{"sentence": "", "propositions": [], "translations": [], "scores": [1]}',
            "field scores: expected 0 items, one per proposition, got 1",
        ),
        (
            '{"sentence": "", "propositions": [], "translations": [], "more": ' + "[" * 200 + "]" * 200 + "}",
            "nested too deeply",
        ),
        (
            '{"sentence": "", "propositions": [], "translations": [], "more": ' + '{"a": ' * 990 + "1" + "}" * 991,
            "nested too deeply",
        ),
        ('{"sentence": "", "propositions": [], "translations": [], "more": ' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_malformed_lines_are_reported_with_the_reason(line, reason):
    with pytest.raises(ValueError) as error:
        parse_record(line.encode())
    assert str(error.value) == reason
    result = run(record(CLEAN), line, record(CLEAN))
    assert result.malformed == [{"line": 1, "reason": reason, "text": line}]
    assert result.counts["records"] == 2 and len(result.kept.splitlines()) == 2


def test_brackets_in_a_text_are_no_depth():
    many = record(("[" * 200, "{" * 200))
    assert json.loads(run(many).kept) == many


def test_a_match_over_several_pairs_drops_them_all_but_no_others():
    first, second = TRANSLATION.split(" three ")
    data = record(("a", "0"), ("b", first), ("c", f"three {second}"), ("d", "4"))
    result = run(data)
    assert json.loads(result.kept)["propositions"] == ["a", "d"]
    (hit,) = result.hits
    assert (hit["pair"], hit["pairs"], hit["text"]) == (1, 2, TRANSLATION)
    # Matches do not run on from one record into the next.
    assert run(record(("a", first)), record(("c", f"three {second}"))).hits == []
