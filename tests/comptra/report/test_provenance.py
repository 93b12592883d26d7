"""The provenance section: what manifests say is what the page has, and what is not there is said."""

import json
from pathlib import Path

import pytest

from comptra.report import Options
from comptra.report.sections import provenance
from tests.support import finished_run
from tests.support.runs import in_process
from topxgen.runs.folders import find


def collected(root: Path) -> tuple[dict | None, list[tuple[str, str]]]:
    options = Options()
    data = provenance.collect(find(root), options)
    return data, [(notice.level, notice.text) for notice in options.notices]


def write(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


@pytest.fixture(scope="module")
def run(tiny_nllb, tmp_path_factory) -> Path:
    """Basque pairs by the real stages."""
    return finished_run.make(tmp_path_factory.mktemp("run"), tiny_nllb)


def test_each_stage_is_there_as_its_manifest_has_it(run):
    data, notices = collected(run)
    shown = {step["stage"]: step for step in data["steps"]}
    assert set(shown) == {"generate", "translate", "score", "decontaminate"}
    for stage, step in shown.items():
        manifest = json.loads((run / step["folder"] / step["files"][0]).read_text())
        assert {key: step[key] for key in ("command", "settings", "versions", "finished")} == {
            key: manifest[key] for key in ("command", "settings", "versions", "finished")
        }, stage
        assert step["complete"] and step["facts"]["counts"] and step["languages"] == ["Basque"]
    assert [step["started"] for step in data["steps"]] == sorted(step["started"] for step in data["steps"])
    assert shown["decontaminate"]["lineage"]["kind"] == "data"
    texts = [text for level, text in notices if level == "missing"]
    assert texts == ["no model was trained here", "no test set was translated here"]


def test_manifests_of_languages_are_one_step_if_one_command_wrote_them(tmp_path):
    for language, size in (("Basque", 10), ("Hausa", 8)):
        manifest = {"stage": "decontaminate", "command": ["decontamination.py"], "settings": {"n": size, "rule": "x"}}
        manifest |= {"started": f"2026-01-0{size // 5}", "finished": f"2026-01-0{size // 3}", "counts": {"pairs": size}}
        write(tmp_path / "nllb" / f"manifest_decontaminate_{language}.json", manifest)
        write(tmp_path / "nllb" / f"{language}_translate_filtered.jsonl", "")
    write(
        tmp_path / "nllb" / "manifest_decontaminate_Igbo.json",
        {"stage": "decontaminate", "command": ["other"], "settings": {}},
    )
    steps = {tuple(step["languages"]): step for step in collected(tmp_path)[0]["steps"]}
    assert set(steps) == {("Basque", "Hausa"), ("Igbo",)}
    both = steps["Basque", "Hausa"]
    assert both["facts"] == {"Basque": {"counts": {"pairs": 10}}, "Hausa": {"counts": {"pairs": 8}}}
    assert both["settings"] == {"Basque": {"n": 10, "rule": "x"}, "Hausa": {"n": 8, "rule": "x"}}
    assert (both["started"], both["finished"]) == ("2026-01-01", "2026-01-03")


def test_a_stage_that_began_is_not_finished(tmp_path):
    write(tmp_path / "Basque.jsonl", '{"text": "Kaixo", "id": "Basque-0.0"}\n')
    write(tmp_path / "settings_generate.json", {"model": "m"})
    write(tmp_path / "train" / "settings_train.json", {"seed": 1})
    data, notices = collected(tmp_path)
    assert {(step["stage"], step["complete"]) for step in data["steps"]} == {("generate", False), ("train", False)}
    assert ("missing", "generate in . began and has no manifest: it is still running, or was interrupted") in notices
    assert ("missing", "paragraphs were not back-translated: there are no pairs") in notices


def test_the_error_line_of_a_stage_names_no_folder_of_the_machine(tmp_path):
    write(tmp_path / "settings_generate.json", {"pipeline": "topxgen", "model": "m"})
    failure = {"exit_code": 2, "failed": "2026-01-01T00:00:00+00:00", "error": "/home/someone/topics.txt is not there"}
    write(tmp_path / "run/failed/generate.json", failure)
    (said,) = [text for _, text in collected(tmp_path)[1] if "failed with exit code 2" in text]
    assert said.endswith(": …/topics.txt is not there") and said.startswith("generate in . failed")


def test_pairs_of_the_original_have_no_manifest_and_the_page_says_so(tmp_path):
    record = {"sentence": "Kaixo.", "propositions": ["Kaixo."], "translations": ["Hello."]}
    write(tmp_path / "nllb" / "Basque_translate.jsonl", json.dumps(record) + "\n")
    write(tmp_path / "nllb" / "Hausa_translate.jsonl", json.dumps(record) + "\n")
    write(tmp_path / "nllb" / "Hausa_translate_filtered.jsonl", json.dumps(record) + "\n")
    data, notices = collected(tmp_path)
    assert data == {"steps": [], "records": []}
    assert ("missing", "nllb has no manifest of its pairs: how they were made is not known") in notices
    assert ("missing", "nllb was not decontaminated in Basque") in notices
    result = in_process("scripts.report", tmp_path, "-o", tmp_path / "page.html")
    assert result.returncode == 0, result.stderr


def test_damaged_manifests_are_named_and_others_shown(tmp_path):
    write(tmp_path / "Basque.jsonl", "")
    write(tmp_path / "manifest_generate.json", '{"stage": "gen')
    write(tmp_path / "manifest_generate_Basque.json", "[]")
    write(tmp_path / "manifest_train.json", {"stage": "train", "command": "train.py"})
    write(tmp_path / "settings_generate.json", {"model": "m", "many": list(range(500)), "long": "x" * 10_000})
    data, notices = collected(tmp_path)
    [step] = data["steps"]
    assert (
        not step["complete"] and step["settings"]["many"][-1] == "… 440 more" and len(step["settings"]["long"]) < 4100
    )
    problems = [text for level, text in notices if level == "problem"]
    for place, text in enumerate(("json: field stage: not JSON", "not a JSON object", "field command: expected list")):
        assert text in problems[place]
    assert len(problems) == 3


def test_records_of_a_run_file_are_shown(tmp_path):
    write(
        tmp_path / "run" / "train-1.json",
        {"words": ["--seed", "1"], "inputs": {}, "outputs": {"a": {"size": 1}}, "exit_code": 3, "hours": 0.5},
    )
    data, _ = collected(tmp_path)
    [record] = data["records"]
    assert record["stage"] == "train-1" and record["exit_code"] == 3 and record["outputs"] == {"a": {"size": 1}}
