"""Significance in the report of comptra.evaluate: both tests, intervals, directions, clusters, languages, missing scores."""

import json
from pathlib import Path

import numpy as np
import pytest

from comptra.scores import metrics
from comptra.scores.systems import system_names
from comptra.significance import resampling
from tests.support.compared_runs import evaluate, system
from tests.support.evaluations import RUN, udhr, worse
from topxgen.text import languages


def test_both_tests_and_all_intervals_are_in_the_report(workplace):
    references = udhr().references
    for model, share in (("base", 0.4), ("good", 0.05), ("same", 0.4)):
        system(model, worse(references, share, seed=len(model)))
    report, _ = evaluate("--baseline", "runs/base", "--bootstrap", 300, names=("chrf", "ter"))
    (group,) = report["groups"]
    rows = {Path(row["path"]).parts[1]: row["scores"] for row in group["systems"]}
    for name in ("chrf", "ter"):
        value = rows["good"][name]
        low, high = value["difference_interval"]
        assert low < value["difference"] < high and not low < 0 < high
        assert value["p"] == pytest.approx(1 / 501) and value["p_bootstrap"] == pytest.approx(1 / 301)
        assert value["better"] is True and rows["same"][name]["better"] is None
        assert value["interval"][0] < value["score"] < value["interval"][1]
        assert group["clusters"][name] == [row["path"] for row in group["systems"] if "good" in row["path"]]
        assert "p" not in rows["base"][name]
    assert rows["good"]["chrf"]["difference"] > 0 > rows["good"]["ter"]["difference"]
    assert report["trials"] == 500 and report["summary"] == [] and report["notes"] == []


def test_where_lower_is_better_a_lower_score_is_marked_as_better(workplace):
    references = udhr().references
    system("long", references)
    system("short", [text[: len(text) // 2] for text in references])
    report, shown = evaluate("--baseline", "runs/long", names=("own.py:Length", "own.py:Excess"))
    (group,) = report["groups"]
    length, excess = group["systems"][1]["scores"].values()
    assert length["difference"] == excess["difference"] < 0
    assert (length["better"], excess["better"]) == (False, True)
    long, short = (row["path"] for row in group["systems"])
    assert group["clusters"] == {"own.py:Length": [long], "own.py:Excess": [short]}
    cells = next(line for line in shown.splitlines() if line.startswith("short")).split()
    assert [cells[i].strip("0123456789.~^=") for i in (1, 3)] == ["-", "+"]


def test_clusters_need_no_baseline_and_one_system_has_none(workplace):
    references = udhr().references
    first = system("one", worse(references, 0.1))
    report, _ = evaluate("--bootstrap", 50)
    assert "clusters" not in report["groups"][0] and report["trials"] == 0
    assert "interval" in report["groups"][0]["systems"][0]["scores"]["chrf"]
    system("two", worse(references, 0.6))
    third = system("three", worse(references, 0.1, seed=9))
    report, _ = evaluate()
    assert set(report["groups"][0]["clusters"]["chrf"]) == {str(first), str(third)}
    assert all("p" not in row["scores"]["chrf"] for row in report["groups"][0]["systems"])


def test_segments_without_a_score_are_left_out_for_both_and_said(workplace):
    """As if the test set lacked them, for that comparison alone."""
    references = udhr().references
    short = [text[: 2 * len(text) // 3] for text in references]
    system("base", references)
    system("partly", ["null"] * 5 + short[5:])
    system("none", ["null"] * len(short))
    system("whole", short)
    report, _ = evaluate("--baseline", "runs/base", "--bootstrap", 100, names=("own.py:Length",))
    (group,) = report["groups"]
    rows = {Path(row["path"]).parts[1]: row["scores"]["own.py:Length"] for row in group["systems"]}
    assert rows["none"] is None
    ratio = [len(text) / len(source) for text, source in zip(references, udhr().sources, strict=True)]
    cut = [len(text) / len(source) for text, source in zip(short, udhr().sources, strict=True)]
    assert rows["partly"]["difference"] == pytest.approx(np.mean(cut[5:]) - np.mean(ratio[5:]))
    assert rows["whole"]["difference"] == pytest.approx(np.mean(cut) - np.mean(ratio))
    assert rows["partly"]["segments_compared"] == len(short) - 5 and "segments_compared" not in rows["whole"]
    low, high = rows["partly"]["difference_interval"]
    assert low < rows["partly"]["difference"] < high < 0
    (warning,) = [line for line in group["warnings"] if "both systems" in line]
    assert f"of {len(short)} segments" in warning and f"by length on {len(short) - 5}" in warning


def test_of_many_systems_that_lack_scores_three_are_named(workplace):
    references = udhr().references
    system("base", references)
    for number in range(1, 6):
        system(f"partly-{number}", ["null"] * number + references[number:])
    report, _ = evaluate("--baseline", "runs/base", names=("own.py:Length",))
    (warning,) = [line for line in report["groups"][0]["warnings"] if "both systems" in line]
    assert warning.count("by length on") == 3 and warning.endswith("; 2 more")


def test_systems_without_a_common_score_are_not_compared(workplace):
    references = udhr().references
    half = len(references) // 2
    system("base", ["null"] * half + references[half:])
    system("other", references[:half] + ["null"] * (len(references) - half))
    report, _ = evaluate("--baseline", "runs/base", "--bootstrap", 20, names=("own.py:Length",))
    (group,) = report["groups"]
    assert all("p" not in row["scores"]["own.py:Length"] for row in group["systems"])


def test_a_system_that_cannot_be_compared_with_the_best_one_stays_in_its_cluster(workplace):
    references = udhr().references
    half = len(references) // 2
    best = system("best", ["null"] * half + [3 * text for text in references[half:]])
    apart = system("apart", references[:half] + ["null"] * (len(references) - half))
    system("worse", references)
    report, _ = evaluate(names=("own.py:Length",))
    assert report["groups"][0]["clusters"]["own.py:Length"] == [str(best), str(apart)]


def test_a_sum_of_zero_is_a_score(workplace):
    """Of a metric that is a function of a Test each segment counts, also where its statistics are all zero."""
    references = udhr().references
    system("base", ["bat"] * len(references))
    system("other", ["1"] * 20 + ["bat"] * (len(references) - 20))
    report, _ = evaluate("--baseline", "runs/base", "--bootstrap", 20, names=("own.py:digits",))
    value = report["groups"][0]["systems"][1]["scores"]["own.py:digits"]
    assert value["difference"] == 20 and value["p"] == pytest.approx(1 / 501)
    assert "segments_compared" not in value


def test_wins_losses_and_means_over_languages(workplace):
    for tgt, shares in (("Basque", (0.4, 0.1, 0.4)), ("Hausa", (0.3, 0.1, 0.3)), ("Swahili", (0.1, 0.4, 0.1))):
        for model, share in zip(("base", "mixed", "alike"), shares, strict=True):
            system(model, worse(udhr("English", tgt).references, share, seed=len(model)), tgt)
    report, _ = evaluate("--baseline", "runs/base")
    (entry,) = report["summary"]
    assert (entry["metric"], entry["direction"], entry["groups"], entry["of"]) == ("chrf", "eng->xx", 3, 3)
    assert entry["segments"] == sum(len(udhr("English", tgt).sources) for tgt in ("Basque", "Hausa", "Swahili"))
    systems = {name.split("/")[0]: value for name, value in entry["systems"].items()}
    assert [systems["mixed"][key] for key in ("wins", "losses", "ties")] == [2, 1, 0]
    assert [systems["alike"][key] for key in ("wins", "losses", "ties")] == [0, 0, 3]
    for model, value in systems.items():
        scores = [
            row["scores"]["chrf"]["score"]
            for group in report["groups"]
            for row in group["systems"]
            if f"/{model}/" in row["path"]
        ]
        assert value["mean"] == pytest.approx(np.mean(scores)) and value["groups"] == 3
    assert "p" not in systems["base"] and systems["alike"]["better"] is None and systems["alike"]["p"] > 0.05
    assert systems["mixed"]["difference"] == pytest.approx(systems["mixed"]["mean"] - systems["base"]["mean"])
    expected = by_hand(report, ("base", "mixed"))
    assert systems["mixed"]["p"] == pytest.approx(expected) and report["notes"] == []
    tested = [systems[model] for model in ("mixed", "alike")]
    assert [one["p_holm"] for one in tested] == resampling.holm([one["p"] for one in tested])


def by_hand(report: dict, models: tuple[str, str], trials: int = 500) -> float:
    """Each trial in a loop: the swaps of a language are those of its own generator, equal for equal numbers of segments."""
    observed, totals = 0.0, np.zeros(trials)
    for group in report["groups"]:
        test = udhr("English", group["tgt"])
        scorer = metrics.create(
            "chrf", metrics.Test(*map(languages.find, ("English", group["tgt"])), test.sources, test.references)
        )
        one, other = (
            scorer.statistics([json.loads(line)["translation"] for line in file.read_text().splitlines()])
            for model in models
            for file in Path("runs", model, RUN.format("English", group["tgt"])).glob("translate_0.jsonl")
        )  # fmt: skip
        observed += float(scorer.scores(other.sum(axis=0)) - scorer.scores(one.sum(axis=0)))
        swaps = np.random.default_rng(resampling.SEED).integers(2, size=(trials, len(one)), dtype=bool)
        for trial, swap in enumerate(swaps):
            swapped = (np.where(swap[:, None], *pair).sum(axis=0) for pair in ((one, other), (other, one)))
            totals[trial] += float(np.subtract(*(scorer.scores(sums) for sums in swapped)))
    return ((np.abs(totals) >= abs(observed) - 1e-9).sum() + 1) / (trials + 1)


def test_means_are_over_the_languages_that_all_systems_have_and_say_so(workplace):
    for tgt in ("Basque", "Hausa", "Swahili"):
        for model in ("base", "other", *(("new",) if tgt != "Hausa" else ())):
            system(model, worse(udhr("English", tgt).references, 0.1 * len(model), seed=len(model)), tgt)
    report, _ = evaluate("--baseline", "runs/base")
    (entry,) = report["summary"]
    assert (entry["groups"], entry["of"]) == (2, 3)
    assert entry["segments"] == sum(len(udhr("English", tgt).sources) for tgt in ("Basque", "Swahili"))
    (name, without), *others = entry["lacking"].items()
    assert name.startswith("new/") and without == ["English-Hausa"] and not others
    assert {value["groups"] for value in entry["systems"].values()} == {2}
    (note,) = report["notes"]
    assert "over the 2 of 3 directions" in note and "English-Hausa" in note
    systems = {name.split("/")[0]: value for name, value in entry["systems"].items()}
    assert sum(systems["other"][key] for key in ("wins", "losses", "ties")) == 3
    assert systems["other"]["difference"] == pytest.approx(systems["other"]["mean"] - systems["base"]["mean"])


def test_where_lower_is_better_a_lower_mean_is_marked_as_better(workplace):
    for tgt in ("Basque", "Hausa"):
        references = udhr("English", tgt).references
        system("long", references, tgt)
        system("short", [text[: len(text) // 2] for text in references], tgt)
    report, _ = evaluate("--baseline", "runs/long", names=("own.py:Length", "own.py:Excess"))
    better = {entry["metric"]: list(entry["systems"].values())[1]["better"] for entry in report["summary"]}
    assert better == {"own.py:Length": False, "own.py:Excess": True}


def test_means_have_no_test_where_a_direction_has_no_segment_to_compare(workplace):
    for tgt in ("Basque", "Hausa"):
        references = udhr("English", tgt).references
        for number, model in enumerate(("base", "other")):
            gaps = [i % 2 == number and tgt == "Basque" for i in range(len(references))]
            texts = ["null" if gap else text[: 20 + 20 * number] for gap, text in zip(gaps, references, strict=True)]
            system(model, texts, tgt)
    report, _ = evaluate("--baseline", "runs/base", names=("own.py:Length",))
    (entry,) = report["summary"]
    (other,) = (value for name, value in entry["systems"].items() if name.startswith("other/"))
    assert other["groups"] == 2 and other["wins"] == 1
    assert not {"difference", "p", "p_holm", "better"} & other.keys()  # of Hausa alone they would be


def test_no_language_in_common(workplace):
    for model, tgt in (("one", "Basque"), ("two", "Hausa")):
        system(model, udhr("English", tgt).references, tgt)
    report, _ = evaluate()
    (entry,) = report["summary"]
    assert entry["groups"] == 0 and [value["mean"] for value in entry["systems"].values()] == [None, None]
    assert "over the 0 of 2 directions" in report["notes"][0]


def test_systems_of_one_test_set_have_different_names():
    run = "{}_0_shot_seed_1"
    basque, coded = (f"a/m/{run.format(way)}" for way in ("English_to_Basque", "eng_Latn_to_eus_Latn"))
    igbo, elsewhere = (f"{folder}/m/{run.format('English_to_Igbo')}" for folder in "ab")
    names = system_names([[(basque, {})], [(igbo, {})]])
    assert names[basque] == names[igbo] == "m/0_shot_seed_1"
    names = system_names([[(basque, {})], [(igbo, {}), (elsewhere, {})]])
    assert names == {basque: "a/m/0_shot_seed_1", igbo: "a/m/0_shot_seed_1", elsewhere: "b/m/0_shot_seed_1"}
    assert system_names([[(basque, {}), (coded, {})]]) == {basque: basque, coded: coded}
