"""The one reader of {Language}_translate.jsonl."""

import json

import pytest

from topxgen.common.errors import UsageError
from topxgen.common.records import FilteredLayout, Layout, read_translations, target_language_of

RECORD = {
    "sentence": "Bat. Bi.",
    "propositions": ["Bat.", "Bi."],
    "translations": ["One.", "Two."],
    "scores": [0.5, None],
}


def test_records_of_any_run_get_ids_and_whole_characters(tmp_path):
    path = tmp_path / "Basque_translate.jsonl"
    lines = [
        RECORD | {"id": "a"},
        RECORD | {"id": "a", "propositions": ["\ud800 bat", "Bi."]},
        RECORD,
        {**RECORD, "scores": []},
    ]
    path.write_text("\n" + "".join(json.dumps(line) + "\n" for line in lines))
    (first, one), (second, other), (third, _), (fourth, without) = read_translations(path)
    assert (first, second) == ("a", "a#2") and one == lines[0] and other["propositions"] == ["? bat", "Bi."]
    assert len(third) == 16 and fourth == f"{third}#2" and without["scores"] == []
    assert [id_ for id_, _ in read_translations(path)] == [first, second, third, fourth]
    assert list(read_translations(tmp_path / "none.jsonl")) == []


@pytest.mark.parametrize(
    "change, part",
    [
        ({"propositions": None}, "field propositions: expected list, got null"),
        ({"propositions": ["Bat.", 2]}, "field propositions[1]: expected text, got integer"),
        ({"translations": "ab"}, "field translations: expected list, got text"),
        ({"translations": ["One."]}, "field translations: expected 2 items, one per proposition, got 1"),
        ({"translations": []}, "field translations: expected 2 items, one per proposition, got 0"),
        ({"scores": [1.0]}, "field scores: expected 2 items, one per proposition, got 1"),
        ({"scores": 3}, "field scores: expected list or null, got integer"),
        ({"scores": ["high", 1]}, "field scores[0]: expected number or null, got text"),
        ({"scores": [True, 1]}, "field scores[0]: expected number or null, got true or false"),
        ({"confidences": [1, 1, 1]}, "field confidences: expected 2 items, one per proposition, got 3"),
        ({"id": {}}, "field id: expected integer or text or null, got object"),
    ],
)
def test_the_line_and_the_field_that_are_wrong(tmp_path, change, part):
    path = tmp_path / "Basque_translate.jsonl"
    path.write_text(f"{json.dumps(RECORD)}\n\n{json.dumps(RECORD | change)}\n")
    with pytest.raises(UsageError) as error:
        list(read_translations(path, ("scores", "confidences")))
    assert str(error.value) == f"{path}, line 3: {part}; fix or remove the line"


def test_fields_that_a_reader_does_not_use_are_not_its_business(tmp_path):
    path = tmp_path / "Basque_translate.jsonl"
    path.write_text(json.dumps(RECORD | {"scores": [1]}) + "\n")
    assert len(list(read_translations(path))) == 1


def test_the_target_language(tmp_path):
    assert target_language_of(tmp_path) == "English" and target_language_of(tmp_path, "French") == "French"
    (tmp_path / "settings_translate.json").write_text('{"target_language": "Spanish"}')
    assert target_language_of(tmp_path, "French") == "Spanish"


@pytest.mark.parametrize("name", ["r", "r.json", "r.md", "r.v2"])
def test_a_report_has_two_files_however_it_is_named(name, tmp_path):
    stem = name.removesuffix(".json").removesuffix(".md")
    found = FilteredLayout(tmp_path).reports(tmp_path / name, audit=False)
    assert found == (tmp_path / f"{stem}.json", tmp_path / f"{stem}.md")
    (tmp_path / "folder.d").mkdir()
    of_folder = FilteredLayout(tmp_path).reports(tmp_path / "folder.d", audit=True)
    assert [path.name for path in of_folder] == ["decontamination_audit.json", "decontamination_audit.md"]


def test_responses_of_a_judge_in_the_folder_of_a_run_are_not_the_runs(tmp_path):
    for name in ("Basque_answers.jsonl", "topic_judge_answers.jsonl"):
        (tmp_path / name).touch()
    assert Layout(tmp_path, "t").all_responses()["generate"] == [tmp_path / "Basque_answers.jsonl"]
