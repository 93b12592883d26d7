"""Rows of a run: each sentence of each file once, with what became of it, and the same numbers as the manifests."""

import json
import os
import random
from collections import Counter

import pytest

from tests.runs.test_folders import tree
from tests.support import finished_run
from tests.support.runs import records
from topxgen.common.records import PARALLEL
from topxgen.runs import rows as rows_module
from topxgen.runs.folders import find, layout_of
from topxgen.runs.reading import Problems
from topxgen.runs.rows import paragraphs, rows, texts


@pytest.fixture(scope="module")
def run(tiny_nllb, tmp_path_factory):
    return finished_run.make(tmp_path_factory.mktemp("rows"), tiny_nllb, "--min_score", "0.45")


def read(root, language="Basque", number=0, **options):
    problems = Problems()
    found = list(rows(find(root).back_translations[number], language, problems=problems, **options))
    assert len({row.id for row in found}) == len(found)
    return found, problems.lines()


def counts_of(found, *states):
    return Counter(row.reason for row in found if row.state in states)


def manifest(folder, stage):
    return json.loads((folder / f"manifest_{stage}_Basque.json").read_text())["counts"]


def test_rows_of_a_run_are_those_of_its_files_and_manifests(run):
    folder = run / finished_run.NAME
    found, problems = read(run)
    assert problems == ()
    score, cleaned = manifest(folder, "score"), manifest(folder, "decontaminate")
    assert counts_of(found, "rejected") == score["rejected"] and score["rejected"]["score_below_min"]
    kept = [(row.sentence, row.translation, row.score, row.confidence) for row in found if row.state == "kept"]
    keys = ("propositions", "translations", "scores", "confidences")
    filtered = records(folder / "Basque_translate_filtered.jsonl")
    assert kept == [item for r in filtered for item in zip(*(r[key] for key in keys), strict=True)] and len(kept) > 10
    dropped = counts_of(found, "contaminated")
    assert dropped.total() == cleaned["pairs_dropped_with_paragraph"] + cleaned["pairs_dropped"] > 0
    assert len(kept) + dropped.total() == score["pairs"] == cleaned["pairs"]
    assert all(row.detail for row in found if row.state == "contaminated")
    others = [other for line in records(folder / "Basque_translate_others.jsonl") for other in line["others"]]
    shown = [row for row in found if row.state == "not_chosen"]
    assert [(row.translation, row.score) for row in shown] == [
        (o["translation"], o["score"]) for o in others
    ] and others
    assert {row.scorer for row in found if row.state in ("kept", "not_chosen")} == {"confidence"}
    assert {row.scorer for row in found if row.reason == "score_below_min"} == {"confidence"}
    assert [row for row in found if row.state in ("kept", "contaminated")] == read(run, rejected=False)[0]


def test_rejected_texts_and_the_texts_of_paragraphs(run):
    found = list(texts(run, "Basque"))
    reasons = json.loads((run / "manifest_generate_Basque.json").read_text())["counts"]["rejected"]
    assert Counter(row.reason for row in found) == reasons and "near_duplicate" in reasons
    assert all(row.state == "text" and row.target_language == "" for row in found)
    assert next(row.detail for row in found if row.reason == "near_duplicate").startswith("of Basque-native-1.0 (")
    pairs, _ = read(run)
    (one,) = find(run).back_translations
    wanted = {row.paragraph_id for row in pairs}
    assert paragraphs(one, "Basque", wanted) == {r["id"]: r["text"] for r in records(run / "Basque.jsonl")}
    assert all(row.sentence in paragraphs(one, "Basque", [row.paragraph_id])[row.paragraph_id] for row in pairs[:3])


def test_without_the_file_of_hits_the_filtered_file_says_what_was_dropped(run, tmp_path):
    tree(tmp_path, {f"t/{name}": (run / finished_run.NAME / name).read_text() for name in (
        "Basque_translate.jsonl", "Basque_translate_filtered.jsonl")})  # fmt: skip
    state = {row.id: row.state for row in read(run, rejected=False)[0]}
    assert {row.id: row.state for row in read(tmp_path)[0]} == state
    assert counts_of(read(tmp_path)[0], "contaminated").keys() == {"not_in_filtered_file"}


def pair(name=None, count=1, **more):
    lists = {key: [f"{key} {name} {i}" for i in range(count)] for key in PARALLEL[:2]}
    return {"sentence": f"paragraph {name}", **lists, **({} if name is None else {"id": name}), **more}


def lines(*found) -> str:
    return "".join(json.dumps(record) + "\n" for record in found)


def hit(line, side, number, dropped, **more):
    return {"line": line, "side": side, "pair": number, "text": "", "dropped": dropped, "match": "ngram", "shared_ngram": "a b",
            "tokens": 2, "benchmark": "flores", "split": "dev", "benchmark_id": "7", "benchmark_text": "", **more}  # fmt: skip


def test_which_pairs_of_a_paragraph_overlap(tmp_path):
    hits = [
        hit(2, "sentence", 1, "paragraph"),
        hit(4, "translation", 0, "pair", pairs=2),
        hit(4, "sentence", 2, "none"),
        hit(5, "sentence", None, "paragraph"),
    ]
    tree(tmp_path, {
        "t/Basque_translate.jsonl": lines(pair("a", 1), pair("b", 2)) + "\n" + lines(pair("c", 3), pair("d", 1), pair("e", 1)),
        "t/Basque_translate_filtered.jsonl": lines(pair("a")),
        "t/Basque_translate_contaminated.jsonl": lines(*hits),
    })  # fmt: skip
    assert [(row.id, row.state, row.reason) for row in read(tmp_path)[0]] == [
        ("a/p0", "kept", ""),
        ("b/p0", "contaminated", "overlap_in_paragraph"),
        ("b/p1", "contaminated", "overlap_in_sentence"),
        ("c/p0", "contaminated", "overlap_in_translation"),
        ("c/p1", "contaminated", "overlap_in_translation"),
        ("c/p2", "kept", ""),
        ("d/p0", "contaminated", "overlap_in_paragraph"),
        ("e/p0", "kept", ""),
    ]
    os.remove(tmp_path / "t" / "Basque_translate.jsonl")  # the pairs were moved away: what is left is kept
    assert [(row.id, row.state) for row in read(tmp_path)[0]] == [("a/p0", "kept")]


def test_published_files_without_ids_topics_and_scores(tmp_path):
    twice = {**pair(), "scores": None}
    tree(tmp_path, {"t/Basque_translate.jsonl": lines(twice, twice, {**pair(), "sentence": "another", "scores": []})})
    found, problems = read(tmp_path)
    assert problems == () and [row.state for row in found] == ["kept"] * 3
    first = found[0].paragraph_id
    assert [row.paragraph_id for row in found][:2] == [first, f"{first}#2"] and len(first) == 16
    assert {(row.topic, row.score, row.scorer, row.confidence) for row in found} == {(None,) * 4}
    assert read(tmp_path)[0] == found


def test_topics_of_rejects_come_from_the_pairs_file_in_any_order(tmp_path, monkeypatch):
    names = [f"p{i}" for i in range(40)]
    shuffled = random.Random(3).sample(names, len(names))
    reject = [
        {"id": name, "rejected": [{"reason": "sentence_too_short", "sentence": "x"}]} for name in [*names, *shuffled]
    ]
    tree(tmp_path, {
        "t/Basque_translate.jsonl": lines(*(pair(name, 0, topic=f"topic {name}") for name in names)),
        "t/Basque_translate_rejects.jsonl": lines(*reject),
    })  # fmt: skip
    found = list(rows(find(tmp_path).back_translations[0], "Basque"))
    assert [row.topic for row in found] == [f"topic {name}" for name in [*names, *shuffled]]
    monkeypatch.setattr(rows_module, "MAX_LOOKUPS_IN_VAIN", 2)
    unknown = [{**line, "id": f"no {i}"} for i, line in enumerate(reject[:5])]
    tree(tmp_path, {"t/Basque_translate_rejects.jsonl": lines(*unknown, *reject[:1])})
    assert [row.topic for row in read(tmp_path)[0]] == [
        None
    ] * 6  # no more full readings for paragraphs that are not there


def test_rejects_of_one_paragraph_for_its_score_and_before(tmp_path):
    """They are in two lines; scores are of the scorer of the pairs that are left."""
    rejects = [
        {"id": "a", "rejected": [{"reason": "sentence_too_short", "sentence": "x"}]},
        {"id": "a", "rejected": [{"reason": "score_below_min", "score": 0.5}, {"reason": "score_missing"}]},
    ]
    tree(tmp_path, {"t/Basque_translate.jsonl": lines(pair("a", 1, scores=[2.0], scorer="blaser")),
                    "t/Basque_translate_rejects.jsonl": lines(*rejects)})  # fmt: skip
    assert [(row.id, row.score, row.scorer) for row in read(tmp_path)[0]] == [
        ("a/p0", 2.0, "blaser"), ("a/r0", None, None), ("a/s0", 0.5, "blaser"), ("a/s1", None, "blaser"),
    ]  # fmt: skip


def test_damaged_lines_are_left_out_and_named(tmp_path):
    short = pair("short", 2) | {"translations": ["one"]}
    text = lines(pair("a")) + "nonsense\n" + lines(short, pair("b")) + '{"sentence": "cut'
    tree(tmp_path, {"t/Basque_translate.jsonl": text, "t/Basque_translate_rejects.jsonl": "[]\n"})
    found, problems = read(tmp_path)
    assert [row.paragraph_id for row in found] == ["a", "b"]
    path = tmp_path / "t" / "Basque_translate.jsonl"
    assert problems[0].startswith(f"{path}, line 2 is left out: ") and problems[0].endswith(
        "; 1 more lines of it are left out"
    )
    assert (
        len(problems) == 3
        and problems[2].startswith(f"{path}, line 5 is left out")
        and "is being written" in problems[2]
    )
    assert "Basque_translate_rejects.jsonl, line 1" in problems[1]
    path.write_text('{"sentence": "cut')
    assert any("is being written" in problem for problem in read(tmp_path)[1])
    path.unlink()
    os.mkfifo(path)
    assert "is a pipe" in read(tmp_path)[1][0]


def test_files_that_vanish_end_quietly(tmp_path):
    tree(tmp_path, {"t/Basque_translate.jsonl": lines(pair("a"))})
    (one,) = find(tmp_path).back_translations
    os.remove(tmp_path / "t" / "Basque_translate.jsonl")
    assert list(rows(one, "Basque")) == [] == list(texts(tmp_path, "Basque"))
    assert paragraphs(one, "Basque", ["a"]) == {}


def test_renamed_files_of_paragraphs(tmp_path):
    """Of languages that were run one after the other."""
    files = {"Basque": ["Basque_1.jsonl", "Basque_answers.jsonl", "one.jsonl"], "Hausa": ["two.jsonl"]}
    own = {name: {"language": name, "checksums": [*names, "settings_generate.json"]} for name, names in files.items()}
    tree(tmp_path, {f"manifest_generate_{name}.json": manifest for name, manifest in own.items()})
    assert layout_of(tmp_path).paragraphs("Hausa") == tmp_path / "two.jsonl"
    assert layout_of(tmp_path).paragraphs("Basque") == tmp_path / "one.jsonl"
    assert layout_of(tmp_path).paragraphs("Igbo") == tmp_path / "Igbo.jsonl"
