"""The page's distributions: numbers of the files, and of nothing else."""

import json
import shutil
import statistics
import tracemalloc
from datetime import datetime

import pytest

from comptra.report import Options
from comptra.report.sections import distributions, funnel
from tests.runs.test_folders import tree
from tests.runs.test_rows import lines, pair
from tests.support import finished_run, pages
from tests.support.runs import records
from topxgen.corpora.topics import read_categories
from topxgen.runs.folders import find


@pytest.fixture(scope="module")
def run(tiny_lm, tiny_nllb, tmp_path_factory):
    return finished_run.make(tmp_path_factory.mktemp("run"), tiny_nllb, lm=tiny_lm)


def collect(root, **options):
    options = Options(**options)
    return distributions.collect(find(root), options), options


def texts_of(options, level):
    return [notice.text for notice in options.notices if notice.level == level]


def test_measures_are_those_of_the_filtered_file(run):
    data, options = collect(run)
    assert texts_of(options, "problem") == []
    (one,) = data["pairs"]
    filtered = records(run / finished_run.NAME / "Basque_translate_filtered.jsonl")
    pairs = [p for r in filtered for p in zip(r["propositions"], r["translations"], r["scores"], strict=True)]
    assert one["stage"] == "decontaminated" and one["pairs"] == len(pairs) >= 5
    expected = {
        "sentence_characters": [len(s) for s, _, _ in pairs],
        "translation_characters": [len(t) for _, t, _ in pairs],
        "sentence_words": [len(s.split()) for s, _, _ in pairs],
        "translation_words": [len(t.split()) for _, t, _ in pairs],
        "ratio": [len(t) / len(s) for s, t, _ in pairs],
        "sentences_per_paragraph": [len(r["propositions"]) for r in filtered],
    }
    scores = [score for *_, score in pairs]
    for values, shown in [
        *((v, one["measures"][name]) for name, v in expected.items()),
        (scores, one["scores"]["confidence"]),
    ]:
        assert shown["count"] == len(values) == sum(shown["bins"])
        assert shown["mean"] == pytest.approx(statistics.fmean(values)) and shown["high"] == pytest.approx(max(values))
        assert shown["p50"] == pytest.approx(statistics.median_low(values), abs=0.011)
    assert one["unscored"] == 0 and set(one["scores"]) == {"confidence"}


def test_topics_by_category_of_the_list_that_was_used(run):
    (one,) = collect(run)[0]["pairs"]
    categories = read_categories(distributions.TOPICS)
    filtered = records(run / finished_run.NAME / "Basque_translate_filtered.jsonl")
    topics = one["topics"]
    assert (topics["list"], topics["of"]) == ("wikipedia_vital_topics.txt", 10_032)
    assert topics["distinct"] == len({record["topic"] for record in filtered})
    counted = {name: [paragraphs, pairs] for name, paragraphs, pairs in topics["categories"]}
    for name, (paragraphs, pairs) in counted.items():
        own = [record for record in filtered if categories[record["topic"]] == name]
        assert (paragraphs, pairs) == (len(own), sum(len(record["propositions"]) for record in own))
    assert sum(topics["of_categories"].values()) == 10_032


def test_near_duplicates_by_prompt_number(run):
    (part,) = collect(run)[0]["repetition"]
    reasons = json.loads((run / "manifest_generate_Basque.json").read_text())["counts"]["rejected"]
    assert sum(part["near_duplicate"]) == reasons.get("near_duplicate", 0) and sum(part["kept"]) == 24
    assert sum(part["rejected"]) == sum(count for name, count in reasons.items() if name != "near_duplicate")


def test_near_duplicates_of_native_texts_and_of_foreign_ones(tmp_path):
    """By row of the source; ids that are not of ours have no place in time."""
    near = "near_duplicate of Basque-native-1.0 (ROUGE-L F1 0.812)"
    tree(tmp_path, {
        "Basque.jsonl": lines(*({"text": "t", "id": name} for name in ("Basque-native-1.0", "Basque-native-9.2", "mine", "Hausa-1.0"))),
        "Basque_rejects.jsonl": lines({"id": "Basque-native-5.0", "reason": near}, {"id": "Basque-native-5.1", "reason": "empty"}),
    })  # fmt: skip
    (part,) = collect(tmp_path)[0]["repetition"]
    assert (part["start"], part["width"], part["kept"]) == (1, 1, [1, 0, 0, 0, 0, 0, 0, 0, 1])
    assert part["near_duplicate"] == part["rejected"] == [0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_tokens_cost_and_times_are_those_of_manifests(run, tmp_path):
    root = shutil.copytree(run, tmp_path / "run")
    path = root / "manifest_generate.json"
    manifest = json.loads(path.read_text())
    counts = manifest["counts"]["Basque"]
    (usage,) = collect(root)[0]["usage"]
    tokens = [counts["prompt_tokens"], counts["completion_tokens"]]
    assert [usage["prompt_tokens"], usage["completion_tokens"]] == tokens and usage["usd"] is None
    assert any("--prices" in line for line in texts_of(collect(root)[1], "info"))
    path.write_text(json.dumps(manifest | {"command": [*manifest["command"], "--prices", "2", "8"]}))
    data, options = collect(root)
    assert data["usage"][0]["usd"] == pytest.approx((2 * tokens[0] + 8 * tokens[1]) / 1e6)
    assert not any("--prices" in line for line in texts_of(options, "info"))
    rates = json.loads((root / "rates.json").read_text())
    work = {part["stage"]: part for part in data["work"]}
    assert list(work) == ["generate", "translate", "score", "decontaminate"]
    made = json.loads((root / "manifest_generate_Basque.json").read_text())
    seconds = (datetime.fromisoformat(made["finished"]) - datetime.fromisoformat(made["started"])).total_seconds()
    assert (work["generate"]["seconds"], work["generate"]["count"]) == (seconds, 24)
    assert work["generate"]["rate"] == rates["generate"] and work["decontaminate"]["rate"] is None
    (root / "rates.json").write_text("{}")
    assert all(part["rate"] is None for part in collect(root)[0]["work"])


def test_half_of_a_run_has_what_is_known(run, tmp_path):
    """No manifests: no times and no list of topics; a line that is being written is left out and named."""
    root = shutil.copytree(run, tmp_path / "run")
    for pattern in ("**/manifest_*", "*/*filtered*", "*/*contam*", "rates.json"):
        for path in root.glob(pattern):
            path.unlink()
    with open(root / finished_run.NAME / "Basque_translate.jsonl", "a") as file:
        file.write('{"sentence": "cut')
    data, options = collect(root)
    (one,) = data["pairs"]
    assert one["stage"] == "pairs" and data["work"] == [] and one["topics"]["of"] is None
    assert any("is being written" in text for text in texts_of(options, "info")) and not texts_of(options, "problem")


@pytest.mark.parametrize("section", [funnel, distributions])
def test_files_that_vanish_while_they_are_read(run, tmp_path, section):
    root = shutil.copytree(run, tmp_path / "run")
    found = find(root)
    shutil.rmtree(root / finished_run.NAME)
    assert section.collect(found, Options()) is not None
    shutil.rmtree(root)
    assert section.collect(found, Options()) is None


def test_published_pairs_several_scorers_and_scripts_without_spaces(tmp_path):
    burmese = {"sentence": "x", "propositions": ["မြန်မာ စာ"], "translations": ["Burmese writing"]}
    tree(tmp_path, {
        "a/Basque_translate.jsonl": lines(pair(None, 2), pair("y", 2, scores=[1.5, None], scorer="blaser"), pair("z", 1, scores=[-3.0])),
        "b/Burmese_translate.jsonl": lines(burmese),
        "b/Elvish_translate.jsonl": lines(pair("e", 1)),
    })  # fmt: skip
    data, options = collect(tmp_path)
    basque, burmese, elvish = data["pairs"]
    assert {scorer: shown["count"] for scorer, shown in basque["scores"].items()} == {"blaser": 1, "unnamed scorer": 1}
    assert basque["unscored"] == 3 and basque["topics"] is None and elvish["pairs"] == 1
    assert burmese["measures"]["sentence_words"]["p50"] == 4 and burmese["measures"]["translation_words"]["p50"] == 2
    assert data["repetition"] == data["usage"] == data["work"] == [] and options.notices == []


def test_topics_of_a_list_of_ones_own(tmp_path):
    topics = [{"topic": name, "category": "sea" if i < 3 else "land"} for i, name in enumerate("abcd")]
    made = {"command": ["datagen.py", "--seed_topics_path", str(tmp_path / "mine.jsonl")], "counts": {}}
    tree(tmp_path, {
        "mine.jsonl": lines(*topics), "Basque.jsonl": lines({"text": "t", "topic": "a", "id": "Basque-0.0"}),
        "manifest_generate.json": made,
        "n/Basque_translate.jsonl": lines(pair("1", 2, topic="a"), pair("2", 0, topic="b"), pair("3", 1, topic="d"), pair("4", 1)),
    })  # fmt: skip
    (one,) = collect(tmp_path)[0]["pairs"]
    assert one["topics"]["categories"] == [["sea", 2, 2], ["land", 1, 1]] and one["topics"]["of_categories"] == {
        "sea": 3,
        "land": 1,
    }
    assert (one["topics"]["distinct"], one["topics"]["with_pairs"], one["topics"]["without"]) == (3, 2, [1, 1])
    assert one["topics"]["most"] == [["a", 1, 2], ["d", 1, 1], ["b", 1, 0]]
    others = [pair(f"5{name}", 1, topic=name) for name in "xyz"]  # no more than half of the topics are in the list
    tree(tmp_path / "few", {"n/Basque_translate.jsonl": lines(pair("1", 2, topic="a"), *others),
                            "Basque.jsonl": lines({"text": "t"}), "manifest_generate.json": made})  # fmt: skip
    assert collect(tmp_path / "few")[0]["pairs"][0]["topics"]["categories"] == []
    (tmp_path / "mine.jsonl").write_text("no json")
    data, options = collect(tmp_path)
    assert data["pairs"][0]["topics"]["categories"] == [] and "no categories" in texts_of(options, "info")[0]


def test_more_topics_than_are_held(tmp_path, monkeypatch):
    monkeypatch.setattr(distributions, "MAX_TOPICS", 2)
    tree(tmp_path, {"n/Basque_translate.jsonl": lines(*(pair(f"{i}", 2, topic=f"t{i % 4}") for i in range(8)))})
    topics = collect(tmp_path)[0]["pairs"][0]["topics"]
    assert topics["distinct"] == 2 and topics["beyond"] == [4, 8]


def test_tokens_of_translated_test_sets_by_model(tmp_path):
    usage = {"responses": 5, "prompt_tokens": 50, "completion_tokens": 9, "cached_tokens": 0, "usd": 0.25}
    times = {"started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:01:00+00:00", "sentences": 5}
    tree(tmp_path, {f"t/m/{name}_0_shot_seed_1/{file}": content for name in ("eng_to_eus", "eus_to_eng") for file, content in (
        ("translate_0.jsonl", ""), ("manifest_translate.json", {"usage": usage, **times}))})  # fmt: skip
    data, _ = collect(tmp_path)
    (row,) = data["usage"]
    assert (row["folder"], row["responses"], row["prompt_tokens"], row["usd"]) == ("t/m", 10, 100, 0.5)
    assert [part["seconds"] for part in data["work"]] == [60.0, 60.0]
    manifest = next(tmp_path.rglob("eng_to_eus*/manifest_translate.json"))
    del usage["usd"]
    manifest.write_text(json.dumps({"usage": usage, **times}))
    assert collect(tmp_path)[0]["usage"][0]["usd"] is None, "the cost of one of two is not that of both"


def test_failed_requests_are_no_responses(tmp_path):
    answer = {"id": "Basque-000000", "texts": ["t"], "prompt_tokens": 5, "completion_tokens": 40}
    failed = {**answer, "texts": [], "prompt_tokens": 3, "completion_tokens": 0, "error": "HTTP 500"}
    tree(tmp_path, {"Basque.jsonl": lines({"text": "t"}), "Basque_answers.jsonl": lines(failed, failed, answer)})
    (row,) = collect(tmp_path)[0]["usage"]
    assert (row["responses"], row["prompt_tokens"], row["completion_tokens"]) == (1, 11, 40)
    assert row["lengths"]["count"] == 1 and row["lengths"]["p5"] == row["lengths"]["p50"] == 40


def test_nothing_to_show(tmp_path):
    tree(tmp_path, {"notes.txt": "none", "t/Basque_translate.jsonl": ""})
    assert collect(tmp_path)[0] is None


@pytest.mark.medium
def test_charts_and_their_numbers_in_a_browser(run, browser, tmp_path):
    pages.build(run, tmp_path / "page.html")
    shown = pages.opened(browser, tmp_path / "page.html")
    pages.render(shown, "distributions")
    titles = [figure.text.split("\n")[0] for figure in shown.all("#distributions figcaption")]
    assert titles[:2] == ["Length of sentences", "Length of translations"] and "Scores: confidence" in titles
    assert {"Topics by category", "Near-duplicates over time, in % of the texts", "When the stages ran"} <= set(titles)
    assert shown.run(
        "return [...document.querySelectorAll('#distributions figure .plot')].every(p => p.querySelector('svg path, svg rect') && p.ariaLabel.length > 30)"
    )
    (one,) = collect(run)[0]["pairs"]
    shown.click(shown.one("#distributions figure summary"))
    assert str(int(one["measures"]["sentence_characters"]["p50"])) in shown.text("#distributions figure table")
    assert shown.faults() == []


@pytest.mark.parametrize("section", [funnel, distributions])
def test_memory_does_not_grow_with_the_number_of_pairs(tmp_path, section):
    peaks = []
    for count in (500, 500, 2_500):  # the first one loads what stays
        root = tmp_path / f"{count}-{len(peaks)}"
        names = [f"Basque-{i:06}" for i in range(count)]
        usage = {"texts": ["x"], "prompt_tokens": 9, "completion_tokens": 3}
        tree(root, {
            "Basque.jsonl": lines(*({"text": "t", "id": f"{name}.0", "topic": f"t{i % 50}"} for i, name in enumerate(names))),
            "Basque_answers.jsonl": lines(*({"id": name, **usage} for name in names)),
            "Basque_rejects.jsonl": lines(*({"id": f"{name}.1", "reason": "empty"} for name in names)),
            "n/Basque_translate.jsonl": lines(*(pair(f"{name}.0", 3, topic=f"t{i % 50}", scores=[i / 500 % 1] * 3) for i, name in enumerate(names))),
            "n/Basque_translate_rejects.jsonl": lines(*({"id": f"{n}.0", "rejected": [{"reason": "sentence_too_short"}]} for n in names)),
        })  # fmt: skip
        tracemalloc.start()
        assert section.collect(find(root), Options()) is not None
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 20_000, peaks
