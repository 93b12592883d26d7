"""Records of Every Eval Ever: against its schema, and against its own validator where the package is installed."""

import copy
import json
import re
from pathlib import Path

import pytest

from comptra.scores.columns import COLUMNS
from comptra.tables import every_eval_ever
from tests.comptra.test_tables import HOSTILE
from tests.support.runs import in_process
from tests.support.score_reports import group, report, system, value, with_all_marks
from topxgen.common.errors import UsageError

NOW = 1_790_000_000
PATH = re.compile(
    r"data/[\w.+-]+/[\w.+-]+/[\w.+-]+/[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\.json"
)


def reports() -> list[dict]:
    """With all marks; with names that break paths; with scores that are none or beyond the range of their metric."""
    hostile = []
    for name in [*HOSTILE, "", ".", "..", "../../x", "data", "NUL.x", "unknown", "a/b/c"]:
        row = system("few-shot", "English", "Igbo", {"chrf": value(100.0000000001), "bleu": value(float("nan"))})
        row["columns"] = dict.fromkeys(COLUMNS, "") | {"model": name}
        row["settings"] = row["settings"] | {"model": name}
        hostile.append(report(group("English", name, [row], dataset=name)))
    rows = [system("few-shot", "English", "Igbo", {"ter": value(180.5)})]
    ter = group("English", "Igbo", rows, [], titles={"ter": "TER"}, signatures={"ter": "s"})
    ter["metrics"] = {"ter": {"higher_is_better": False, "low": 0.0, "high": 100.0}}
    endless = copy.deepcopy(ter)
    endless["metrics"]["ter"]["high"] = float("inf")
    return [with_all_marks(), *hostile, report(ter), report(endless)]


def test_a_record_for_each_system_with_all_its_scores():
    given = with_all_marks()
    given["groups"][0]["systems"][1] |= {"edited": True, "unanswered": 2}
    made = dict(every_eval_ever.records(given, NOW))
    assert len(made) == 5 and all(PATH.fullmatch(str(path)) for path in made)
    assert {"/".join(path.parts[:4]) for path in made} == {"data/flores/local/gemma-3-27b-it"}
    sizes = sorted(len(one["evaluation_results"]) for one in made.values())
    assert sizes == [20, 24, 24, 24, 24], "TEaR lacks a direction"
    for one in made.values():
        every_eval_ever.check(one, "record")
        assert one["model_info"]["id"] == "local/gemma-3-27b-it" and one["retrieved_timestamp"] == str(NOW)
    results = {one["evaluation_result_id"]: one for one in list(made.values())[1]["evaluation_results"]}
    bleu = results["flores/English-Basque/bleu/1"]
    assert bleu["score_details"]["score"] == 11 and bleu["metric_config"]["lower_is_better"] is False
    assert bleu["score_details"]["uncertainty"]["confidence_interval"]["upper"] == 15.5
    assert bleu["score_details"]["details"]["better"] == "True" and bleu["score_details"]["details"]["p_holm"] == "0.02"
    assert {bleu["score_details"]["details"][key] for key in ("edited", "unanswered")} == {"True", "2"}
    assert (
        results["flores/English-Basque/metricx/1"]["metric_config"] | {"max_score": 25.0, "lower_is_better": True}
        == (results["flores/English-Basque/metricx/1"]["metric_config"])
    )
    comet = results["flores/English-Basque/comet/1"]["metric_config"]["additional_details"]
    assert comet["reliability_status"] == "weak"


def test_flores_dev_is_the_validation_split():
    found = []
    for name in ("flores", "validation"):
        of_set = with_all_marks()
        for one in of_set["groups"]:
            one["dataset"] = name
        results = [made["evaluation_results"][0] for made in dict(every_eval_ever.records(of_set, NOW)).values()]
        found.append({result["source_data"]["hf_split"] for result in results})
    assert found == [{"test"}, {"val"}]


def test_the_same_results_have_the_same_files_and_others_have_others():
    first, again = (dict(every_eval_ever.records(with_all_marks(), at)) for at in (NOW, NOW + 9))
    assert list(first) == list(again)
    changed = with_all_marks()
    changed["groups"][0]["systems"][0]["scores"]["chrf"]["score"] += 1
    assert len(dict(every_eval_ever.records(changed, NOW)).keys() - first.keys()) == 1


def test_models_of_the_hub_and_of_an_api_are_named_as_such():
    cases = [
        (
            {"model": "google/gemma-3-27b-it", "inference_api": "vllm"},
            "google/gemma-3-27b-it",
            "self_deployed",
            "open_weights",
        ),
        ({"model": "gpt-9", "inference_api": "openai"}, "local/gemma-3-27b-it", "externally_managed", "unknown"),
        (
            {"model": "m", "inference_api": "openai", "base_url": "http://x"},
            "local/gemma-3-27b-it",
            "unknown",
            "unknown",
        ),
        ({}, "local/gemma-3-27b-it", "unknown", "unknown"),
    ]
    for settings, name, deployment, availability in cases:
        row = system("few-shot", "English", "Igbo", {"chrf": value(40)})
        row["settings"] = settings
        ((_, one),) = every_eval_ever.records(report(group("English", "Igbo", [row])), NOW)
        details = one["model_info"]["additional_details"]
        assert one["model_info"]["id"] == name
        assert (details["deployment_type"], details["model_availability"]) == (deployment, availability)


@pytest.mark.parametrize("number", range(len(HOSTILE) + 11))
def test_records_fit_the_schema_and_stay_in_the_folder(number, tmp_path):
    given = reports()[number]
    for path in every_eval_ever.write(given, tmp_path, NOW):
        assert PATH.fullmatch(str(path.relative_to(tmp_path))) and path.resolve().is_relative_to(tmp_path.resolve())
        one = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
        every_eval_ever.check(one, "record")
        for result in one["evaluation_results"]:
            low, high = (float(result["metric_config"][key]) for key in ("min_score", "max_score"))
            assert low <= result["score_details"]["score"] <= high


def test_a_record_that_does_not_fit_is_one_line_and_none_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(every_eval_ever.topxgen, "__version__", 3)
    with pytest.raises(
        UsageError, match=r"does not fit the schema of Every Eval Ever: eval_library/version: 3 is not of type"
    ):
        every_eval_ever.write(with_all_marks(), tmp_path, NOW)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_them(tmp_path):
    from tests.support.evaluations import settings, udhr, worse, write

    test = udhr()
    write(
        tmp_path / "in" / "m" / "run", test.sources, worse(test.references, 0.2), settings(k=5, method_translate="TEaR")
    )
    flags = ("--metrics", "bleu", "chrf", "--bootstrap", "20", "--every_eval_ever", tmp_path / "out")
    for _ in range(2):
        result = in_process("comptra.evaluate", tmp_path / "in", *flags)
        assert result.returncode == 0, result.stderr
        (path,) = (path for path in (tmp_path / "out").rglob("*") if path.suffix == ".json")
    one = json.loads(path.read_text(encoding="utf-8"))
    assert [result["metric_config"]["metric_id"] for result in one["evaluation_results"]] == ["chrf", "bleu"]
    assert one["evaluation_results"][0]["score_details"]["uncertainty"]["num_bootstrap_samples"] == 20
    assert one["evaluation_results"][0]["generation_config"]["additional_details"]["method"] == "TEaR"
    (tmp_path / "file").write_text("")
    result = in_process("comptra.evaluate", tmp_path / "in", "--every_eval_ever", tmp_path / "file")
    assert result.returncode == 2 and "--every_eval_ever" in result.stderr and not result.stdout


def test_the_schema_and_the_records_are_those_of_the_package(tmp_path):
    """pip install --no-deps every-eval-ever (with --ignore-requires-python below Python 3.12) has the validator."""
    package = pytest.importorskip("every_eval_ever", reason="every-eval-ever is not installed")
    validation = pytest.importorskip("every_eval_ever.validator.validation_core")
    theirs = Path(package.__file__).parent / "schemas" / "eval.schema.json"
    assert json.loads(theirs.read_text()) == json.loads(every_eval_ever.SCHEMA.read_text()), "the schema has changed"
    checked = 0
    for number, given in enumerate(reports()):
        for path in every_eval_ever.write(given, tmp_path / str(number), NOW):
            found = validation.validate_file(
                path, repo_path=str(path.relative_to(tmp_path / str(number))), run_semantic_checks=True
            )
            assert found.valid and not found.errors and not found.warnings, (given["groups"][0]["dataset"], found)
            checked += 1
    assert checked >= 25
