"""Evaluation in the page: phrases, drafts and answers of merges."""

import json
from pathlib import Path

import pytest

from comptra.report.sections import evaluation_phrases
from tests.comptra.report.test_evaluation import collected, notices, run
from tests.support.evaluations import original, udhr, worse
from tests.support.main_runs import folder_of
from tests.support.runs import records
from topxgen.text import languages


def phrases_of(tree: dict) -> list[tuple[str, str]]:
    return [(node["s"], node["t"]) for node in tree["c"]]


@pytest.mark.medium
def test_the_tree_of_a_real_run_of_comptra(main_here, tiny_lm, tmp_path):
    flags = ("--steps", 2, "--method_divide", "space", "--number_of_subproblems", 2, "--lid_model", "cld2")
    result = main_here("--output_dir", tmp_path, *flags, "--max_samples", 3)
    assert result.returncode == 0, result.stderr
    folder = folder_of(tmp_path, tiny_lm, divide="space", n=2, steps=2)
    data, options = collected(tmp_path)
    (system,) = data["sentences"][0]["systems"]
    lines = [records(folder / f"translate_{s}.jsonl") for s in range(3)]
    assert set(system["trees"]) == {"0", "1", "2"} and not notices(options, "missing")
    for number in range(3):
        tree = system["trees"][str(number)]
        assert (tree["s"], tree["t"]) == (lines[0][number]["sentence"], lines[0][number]["translation"])
        parts = lines[1][2 * number : 2 * number + 2]
        assert phrases_of(tree) == [(line["sentence"], line["translation"]) for line in parts]
        smaller = lines[2][4 * number : 4 * number + 4]
        assert [pair for node in tree["c"] for pair in phrases_of(node)] == [
            (line["sentence"], line["translation"]) for line in smaller
        ]
    from topxgen.text import language_id

    fits = language_id.load("cld2").is_language([line["translation"] for line in lines[1]], languages.find("Basque"))
    marked = [
        evaluation_phrases.LEFT_OUT in node.get("m", ()) for n in range(3) for node in system["trees"][str(n)]["c"]
    ]
    assert marked == [not (fit and line["translation"]) for fit, line in zip(fits, lines[1], strict=True)]


def divided(root: Path, room: Path, parts: list[list[str]], first: int = 1, parents: bool = True) -> Path:
    """A run with phrases, whose division is in `room`."""
    test = udhr()
    folder = run(root, "m", 0.1)
    phrases = [phrase for own in parts for phrase in own]
    room.mkdir(exist_ok=True)
    lines = [{"sentence": source, "propositions": own} for source, own in zip(test.sources, parts, strict=True)]
    (room / f"divide_{first}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if parents:
        flat = {str(n): i for n, i in enumerate(i for i, own in enumerate(parts) for _ in own)}
        (room / f"parent_{first}.jsonl").write_text(json.dumps(flat))
    lines = [{"sentence": phrase, "translation": phrase[::-1]} for phrase in phrases]
    (folder / "translate_1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def parts() -> list[list[str]]:
    return [[" ".join(source.split()[:3]), f"rest {n}"] for n, source in enumerate(udhr().sources)]


@pytest.mark.parametrize(("name", "first"), [(".", 1), ("divisions_12345678", 1), (".", 0)])
def test_divisions_are_found_by_their_phrases(tmp_path, parts, name, first):
    """In the room of the model, one of their own, or counted from 0 as by older versions; others beside them do not matter."""
    room = tmp_path / "m" / name
    divided(tmp_path, room, parts, first)
    other = tmp_path / "m" / "divisions_00000000"
    other.mkdir()
    (other / "divide_1.jsonl").write_text('{"sentence": "x", "propositions": ["y"]}\n')
    trees = collected(tmp_path)[0]["sentences"][0]["systems"][0]["trees"]
    assert [phrases_of(trees[str(n)]) for n in range(21)] == [[(text, text[::-1]) for text in own] for own in parts]


def test_phrases_of_another_division_are_not_shown(tmp_path, parts):
    divided(tmp_path, tmp_path / "m", parts)
    lines = (tmp_path / "m" / "divide_1.jsonl").read_text().replace("rest 7", "other")
    (tmp_path / "m" / "divide_1.jsonl").write_text(lines)
    data, options = collected(tmp_path)
    assert data["sentences"][0]["systems"][0]["trees"] == {}
    assert "are of no division in" in notices(options, "missing")
    (tmp_path / "m" / "divide_1.jsonl").unlink()
    trees = collected(tmp_path)[0]["sentences"][0]["systems"][0]["trees"]
    assert phrases_of(trees["7"])[1][0] == "rest 7", "parent_1.jsonl alone says whose they are"


def test_a_language_identifier_that_a_run_names_is_not_loaded(tmp_path, parts):
    """The file could be anything; phrases are not marked then, and the page says so."""
    folder = divided(tmp_path, tmp_path / "m", parts)
    marks = [node.get("m") for node in collected(tmp_path)[0]["sentences"][0]["systems"][0]["trees"]["0"]["c"]]
    assert marks == [[evaluation_phrases.LEFT_OUT]] * 2, "reversed English is not Basque"
    (tmp_path / "model.bin").write_bytes(b"no model")
    manifest = json.loads((folder / "manifest_translate.json").read_text())
    manifest["settings"]["lid_model"] = str(tmp_path / "model.bin")
    (folder / "manifest_translate.json").write_text(json.dumps(manifest))
    data, options = collected(tmp_path)
    assert not any("m" in node for node in data["sentences"][0]["systems"][0]["trees"]["0"]["c"])
    assert "model.bin is not asked here" in notices(options, "missing")


def test_drafts_and_marks_of_lines(tmp_path):
    test = udhr()
    folder = run(tmp_path, "m", 0.1)
    drafts = worse(test.references, 0.3)
    lines = [{"sentence": source, "translation": text} for source, text in zip(test.sources, drafts, strict=True)]
    (folder / "draft_0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    final = records(folder / "translate_0.jsonl")
    final[2] |= {"truncated": True}
    final[5] |= {"translation": test.sources[5]}  # only phrases are left out for their language
    (folder / "translate_0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in final))
    trees = collected(tmp_path)[0]["sentences"][0]["systems"][0]["trees"]
    assert [trees[str(n)]["d"] for n in range(21)] == [[draft] for draft in drafts]
    assert trees["2"]["m"] == ["truncated"] and "m" not in trees["3"] and "m" not in trees["5"]


def test_drafts_between_refining_steps_and_the_answer_of_a_merge(tmp_path, parts):
    """An answer is shown with the translation that it gave, unless two answers gave the same."""
    folder = divided(tmp_path, tmp_path / "m", parts)
    final = [line["translation"] for line in records(folder / "translate_0.jsonl")]
    sources = [line["sentence"] for line in records(folder / "translate_0.jsonl")]
    first, second = [f"{text} once" for text in final], [None, *(f"{text} twice" for text in final[1:])]
    for name, drafts in (("draft_0.jsonl", first), ("draft_0_1.jsonl", second)):
        lines = [{"sentence": source, "translation": text} for source, text in zip(sources, drafts, strict=True)]
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    answer = "### Refined phrases\n{}\n### Final translation\n{} once"
    answers = [answer.format(number, text) for number, text in enumerate(final)] + [answer.format("other", final[2])]
    tokens = {"prompt_tokens": 1, "completion_tokens": 1}
    rows = [{"id": str(number), "texts": [text], **tokens} for number, text in enumerate(answers)]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = json.loads((folder / "manifest_translate.json").read_text())
    manifest["settings"]["merge_prompt"] = "refine (version 2)"
    (folder / "manifest_translate.json").write_text(json.dumps(manifest))
    trees = collected(tmp_path)[0]["sentences"][0]["systems"][0]["trees"]
    assert trees["0"]["d"] == [first[0]] and trees["1"]["d"] == [first[1], second[1]]
    assert trees["0"]["a"] == answers[0] and trees["1"]["a"] == answers[1] and "a" not in trees["2"]
    manifest["settings"]["merge_prompt"] = "vanilla"
    (folder / "manifest_translate.json").write_text(json.dumps(manifest))
    assert "a" not in collected(tmp_path)[0]["sentences"][0]["systems"][0]["trees"]["0"]


def test_the_original_s_trees_are_read(tmp_path):
    original(tmp_path / "FLORES", "gemma")
    data, options = collected(tmp_path)
    assert len(data["sentences"]) == 1 and "no references" in notices(options, "missing")
