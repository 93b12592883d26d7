"""The page's funnel: numbers of the manifests, examples of every reason, what it says where files do not fit."""

import json
import shutil
from functools import partial

import pytest

from comptra.report import Options
from comptra.report.sections import funnel
from tests.comptra.report.test_page import HOSTILE
from tests.runs.test_folders import tree
from tests.runs.test_rows import lines, pair
from tests.support import finished_run, pages
from topxgen.generation import funnel as generation_funnel
from topxgen.runs.folders import find
from topxgen.runs.rows import CONTAMINATED, rows, texts


@pytest.fixture(scope="module")
def run(tiny_nllb, tmp_path_factory):
    return finished_run.make(tmp_path_factory.mktemp("funnel"), tiny_nllb, "--min_score", "0.45")


def collect(root, **options):
    options = Options(section="funnel", **options)
    return funnel.collect(find(root), options), options


def test_every_number_and_an_example_of_every_reason(run):
    data, options = collect(run, max_examples=3)
    assert options.notices == [] and data["trainings"] == []
    (one,) = data["funnels"]
    scored = json.loads((run / finished_run.NAME / "manifest_score_Basque.json").read_text())["counts"]
    steps = {step["name"]: step for step in one["steps"]}
    assert steps["sentences"]["count"] == scored["sentences"] and steps["sentences"]["removed"] == scored["rejected"]
    assert (one["language"], one["target_language"], one["folder"]) == ("Basque", "English", finished_run.NAME)
    all_rows = {row.id: row for row in [*texts(run, "Basque"), *rows(find(run).back_translations[0], "Basque")]}
    counts = {reason: count for step in one["steps"] for reason, count in step["removed"].items()}
    assert set(one["examples"]) == {*counts, "not_chosen"} and len(counts) >= 4
    for reason, examples in one["examples"].items():
        assert len(examples) == min(3, counts.get(reason, one["not_chosen"]))
        for example in examples:
            row = all_rows[example["id"]]
            shown_as = "not_chosen" if row.state == "not_chosen" else row.reason
            assert (shown_as, row.sentence, row.translation) == (
                reason,
                example.get("sentence", ""),
                example.get("translation"),
            )
    assert data["reasons"].keys() == set(one["examples"])
    headlines = {headline.label: headline.value for headline in options.headlines}
    assert headlines == {
        "languages": 1,
        "paragraphs": steps["paragraphs"]["count"],
        "pairs": steps["decontaminated"]["count"],
    }


def test_every_reason_of_ours_is_explained():
    known = {*generation_funnel.RESPONSE_REASONS, *generation_funnel.TEXT_REASONS, *generation_funnel.NATIVE_REASONS}
    assert {*known, *generation_funnel.PAIR_REASONS, *CONTAMINATED} <= funnel.REASONS.keys()


def test_files_that_do_not_fit_their_manifests_are_problems(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / finished_run.NAME / "Basque_translate.jsonl"
    path.write_text(path.read_text() + '{"sentence": "cut')
    (tmp_path / "run" / "Basque.jsonl").write_text("")
    _, options = collect(tmp_path / "run")
    texts = [notice.text for notice in options.notices if notice.level != "missing" and notice.section == "funnel"]
    assert any("manifest_generate_Basque.json says kept" in text for text in texts)
    assert any("is being written" in text for text in texts) and len(texts) == len(options.notices)


def test_what_a_training_read(run, tmp_path):
    """It is of the funnel whose filtered file it names, wherever that is now."""
    root = shutil.copytree(run, tmp_path / "run")
    left = collect(run)[0]["funnels"][0]["steps"][-1]["count"]
    part = {
        "path": f"/old/{finished_run.NAME}/Basque_translate_filtered.jsonl",
        "counts": {"read": left, "too_short": 1, "pairs": left - 1},
    }
    facts = {"name": "topxgen", "languages": {"English to Basque": part}, "train_pairs": left - 3, "test_pairs": 2}
    tree(root, {"train/data_manifest.json": facts, "train/settings_train.json": {"reverse": False}})
    data, options = collect(root)
    (training,) = data["trainings"]
    assert options.notices == [] and training["sources"] == {"English to Basque": [0]}
    assert [step["count"] for step in training["directions"]["English to Basque"]] == [left, left - 1]
    assert (training["train"], training["test"]) == (left - 3, 2)
    part["path"] = "/old/another/Basque_translate_filtered.jsonl"
    tree(root, {"train/data_manifest.json": facts})
    assert collect(root)[0]["trainings"][0]["sources"] == {"English to Basque": []}


def test_nothing_to_show(tmp_path):
    tree(tmp_path, {"notes.txt": "none", "scores.json": {"groups": []}, "Basque.jsonl": ""})
    assert collect(tmp_path)[0] is None


def test_two_names_of_a_language_are_one(tmp_path):
    for name in ("Basque", "eus_Latn", "Urdu"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "Kaixo.", "id": "x-0.0"}\n')
        (tmp_path / f"manifest_generate_{name}.json").write_text("{}")
    options = Options()
    assert len(funnel.collect(find(tmp_path), options)["funnels"]) == 3
    assert next(one.value for one in options.headlines if one.label == "languages") == 2


def test_long_texts_are_cut_and_many_reasons_share_the_room(tmp_path):
    names = [f"reason_{i}" for i in range(400)]
    rejects = [
        {"id": f"p{i}", "rejected": [{"reason": name, "sentence": "x" * 3_000} for name in names]} for i in range(4)
    ]
    tree(tmp_path, {"t/Basque_translate.jsonl": lines(pair("p0")), "t/Basque_translate_rejects.jsonl": lines(*rejects)})
    data, _ = collect(tmp_path)
    (one,) = data["funnels"]
    assert {len(examples) for examples in one["examples"].values()} == {funnel.MAX_SHOWN // 400}
    assert all(e["sentence"] == f"{'x' * funnel.MAX_CHARS} … (3,000 characters)" for e in one["examples"]["reason_7"])
    assert one["steps"][1]["removed"] == dict.fromkeys(names, 4)


def test_examples_are_drawn_from_the_whole_file(tmp_path):
    rejected = [{"id": f"p{i}", "rejected": [{"reason": "sentence_too_short", "sentence": str(i)}]} for i in range(600)]
    tree(
        tmp_path, {"t/Basque_translate.jsonl": lines(pair("p0")), "t/Basque_translate_rejects.jsonl": lines(*rejected)}
    )

    def drawn(seed):
        (one,) = collect(tmp_path, seed=seed, max_examples=20)[0]["funnels"]
        return [int(example["sentence"]) for example in one["examples"]["sentence_too_short"]]

    assert drawn(1) == drawn(1) != drawn(2)
    for seed in (1, 2, 3):
        assert len(set(drawn(seed))) == 20 and 150 < sum(drawn(seed)) / 20 < 450


def test_paragraphs_of_several_back_translations_are_counted_once(tmp_path):
    tree(tmp_path, {"Basque.jsonl": lines({"text": "a", "id": "a"}), "Hausa.jsonl": lines({"text": "b"}, {"text": "c"}),
                    "x/Basque_translate.jsonl": lines(pair("a", 2)), "y/Basque_translate.jsonl": lines(pair("a", 3)),
                    "elsewhere/z/Hausa_translate.jsonl": lines(pair("a", 1))})  # fmt: skip
    _, options = collect(tmp_path)
    assert {headline.label: headline.value for headline in options.headlines} == {
        "languages": 2,
        "paragraphs": 4,
        "pairs": 6,
    }


# In a browser

HAUSA = {"id": "h0", "rejected": [{"reason": "sentence_too_short", "sentence": "Sannu."}]}


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    """Two languages, one of them with hostile texts as examples."""
    folder = tmp_path_factory.mktemp("page")
    root = shutil.copytree(run, folder / "run")
    hostile = [{"reason": "sentence_no_words", "sentence": text, "translation": text} for text in HOSTILE.values()]
    tree(root / finished_run.NAME, {"Hausa_translate.jsonl": lines(pair("h0")),
                                    "Hausa_translate_rejects.jsonl": lines(HAUSA, {"id": "h1", "rejected": hostile})})  # fmt: skip
    pages.build(root, folder / "page.html")
    return folder / "page.html"


@pytest.fixture
def opened(browser, page):
    return partial(pages.opened, browser, page)


def button(browser, name):
    return next(one for one in browser.all("#funnel table.steps button") if one.text == name)


@pytest.mark.medium
def test_a_click_on_a_reason_opens_its_examples(opened):
    shown = opened()
    pages.render(shown, "funnel")
    assert not shown.all("#funnel tr.examples:not([hidden])")
    shown.click(button(shown, "near duplicate"))
    text = shown.text("#funnel tr.examples:not([hidden])")
    assert "ROUGE-L F1" in text and "Basque-native-" in text
    assert shown.run("return location.hash") == "#funnel?language=Basque&reason=near_duplicate"
    assert button(shown, "near duplicate").get_attribute("aria-expanded") == "true"
    shown.click(button(shown, "near duplicate"))
    assert not shown.all("#funnel tr.examples:not([hidden])") and shown.faults() == []


def test_a_link_opens_a_language_and_a_reason(opened):
    shown = opened("funnel?language=Hausa&reason=sentence_too_short")
    assert "Sannu." in shown.text("#funnel tr.examples:not([hidden])")
    assert "Hausa" in shown.text("#funnel table.steps caption")
    shown.run("document.querySelector('#funnel-of').value = 0; document.querySelector('#funnel-of').onchange?.()")
    shown.run("document.querySelector('#funnel-of').dispatchEvent(new Event('change'))")
    assert "Basque" in shown.text("#funnel table.steps caption")
    assert shown.run("return location.hash") == "#funnel?language=Basque"


@pytest.mark.medium
def test_all_rows_of_a_reason_are_a_click_away(opened, run):
    reasons = json.loads((run / finished_run.NAME / "manifest_score_Basque.json").read_text())["counts"]["rejected"]
    shown = opened("funnel?language=Basque&reason=score_below_min")
    pages.render(shown)
    shown.click(shown.one("#funnel tr.examples:not([hidden]) a"))
    assert shown.run("return location.hash") == "#pairs?language=Basque&reason=score_below_min"
    shown.wait("return [...document.querySelectorAll('#pairs select')].some(s => s.value === 'score_below_min')")
    shown.wait(lambda: f"{reasons['score_below_min']} of" in shown.text("#pairs"))
    assert shown.faults() == []


def test_hostile_examples_are_text(opened):
    shown = opened("funnel?language=Hausa&reason=sentence_no_words")
    text = shown.text("#funnel tr.examples:not([hidden])")
    assert "<script>document.title" in text and "U+202E" in text and "U+0000" in text
    assert shown.run("return document.title").endswith("TopXGen run") and shown.faults() == []
    assert not shown.all("#funnel tr.examples img") and not shown.all("#funnel tr.examples script")


def test_numbers_of_the_table_and_of_the_chart(opened, run):
    shown = opened()
    pages.render(shown, "funnel")
    counts = json.loads((run / finished_run.NAME / "manifest_score_Basque.json").read_text())["counts"]
    cells = {row.split("\n")[0].rsplit(" ", 1)[0]: row for row in shown.text("#funnel table.steps").split("\n")}
    assert f"sentences {counts['sentences']}" in cells.values() and f"pairs {counts['pairs']}" in cells.values()
    assert len(shown.all("#funnel figure svg g[aria-label=bar] rect")) >= 6
