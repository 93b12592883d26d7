"""The funnel: the same numbers as the manifests, steps that add up, and a line where files do not."""

import errno
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.generation.test_knn_instruct import SEEDS, command, write_seeds
from tests.runs.test_folders import tree
from tests.runs.test_rows import lines, pair
from tests.support import finished_run
from tests.support.runs import in_process, records
from tests.support.training_runs import flags
from topxgen.runs import reading
from topxgen.runs.counts import funnels
from topxgen.runs.folders import find
from topxgen.runs.reading import Problems
from topxgen.runs.training_data import training_data


def read(root, on_row=lambda folder, row: None):
    """The funnels below a folder, and all problems."""
    problems = Problems()
    found = funnels(find(root), problems, on_row)
    return found, [*problems.lines(), *(line for one in found for line in one.problems)]


def one(root):
    """The only funnel of a folder, as {step: (count, removed)}, and all problems."""
    (found,), problems = read(root)
    return {step.name: (step.count, step.removed) for step in found.steps}, problems


@pytest.fixture(scope="module")
def run(tiny_lm, tiny_nllb, tmp_path_factory):
    """Of a model's texts; trained on once."""
    folder = tmp_path_factory.mktemp("counts")
    root = finished_run.make(folder, tiny_nllb, "--min_score", "0.45", lm=tiny_lm)
    data = ("--dataset_name_or_path", "topxgen", "--data_dir", str(root / finished_run.NAME))
    words = flags(tiny_lm, root / "train", dataset_name_or_path=None, max_steps=1, num_warmup_steps=0, eval_steps=1,
                  save_steps=1, test_size_ratio=2, gradient_accumulation_steps=1)  # fmt: skip
    result = in_process("train.py", *words, *data)
    assert result.returncode == 0, result.stderr
    return root


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def test_the_steps_of_a_run_are_those_of_its_manifests(run):
    rows = Counter()
    (found,), problems = read(run, lambda folder, row: rows.update([(folder, row.state, row.reason)]))
    assert problems == []
    folder = run / finished_run.NAME
    made = json.loads((run / "manifest_generate_Basque.json").read_text())
    scored = json.loads((folder / "manifest_score_Basque.json").read_text())["counts"]
    cleaned = json.loads((folder / "manifest_decontaminate_Basque.json").read_text())["counts"]
    steps = {step.name: step for step in found.steps}
    names = ["prompts", "responses", "texts", "paragraphs", "sentences", "pairs", "decontaminated"]
    assert list(steps) == names and steps["prompts"].count == made["prompts_asked"]
    assert steps["responses"].count == made["counts"]["answers"] and steps["paragraphs"].count == 24
    removed = {**steps["responses"].removed, **steps["texts"].removed}
    assert removed.pop("not_needed", 0) == made["counts"]["not_needed"] and removed == made["counts"]["rejected"]
    assert (steps["sentences"].count, steps["sentences"].removed) == (scored["sentences"], scored["rejected"])
    assert steps["pairs"].count == scored["pairs"] == steps["sentences"].left > steps["decontaminated"].count > 0
    left = sum(len(record["propositions"]) for record in records(folder / "Basque_translate_filtered.jsonl"))
    assert steps["decontaminated"].count == left == steps["pairs"].left
    assert sum(steps["pairs"].removed.values()) == cleaned["pairs_dropped_with_paragraph"] + cleaned["pairs_dropped"]
    assert found.usage == {key: made["counts"][key] for key in ("prompt_tokens", "completion_tokens")}
    assert found.not_chosen == rows[folder, "not_chosen", "not_chosen"] + sum(
        count for (_, state, reason), count in rows.items() if state == "not_chosen" and reason != "not_chosen"
    )
    assert {reason: rows[folder, "rejected", reason] for reason in scored["rejected"]} == scored["rejected"]
    assert {reason: rows[run, "text", reason] for reason in made["counts"]["rejected"]} == made["counts"]["rejected"]
    assert sum(count for (_, state, _), count in rows.items() if state == "kept") == left


def test_the_sets_of_a_training(run):
    found, _ = read(run)
    (training,) = training_data(find(run), found, Problems())
    facts = json.loads((run / "train" / "data_manifest.json").read_text())
    read_, selected = training.directions["English to Basque"]
    assert training.problems == [] and training.both_directions
    assert (training.train, training.test) == (facts["train_pairs"], facts["test_pairs"])
    assert (
        read_.count
        == found[0].step("decontaminated").count
        == facts["languages"]["English to Basque"]["counts"]["read"]
    )
    assert training.sources == {"English to Basque": found}
    assert 2 * selected.count == training.train + training.test > 0


def test_all_lines_that_are_left_out_are_counted():
    problems = Problems()
    for path, count in (("a", 1), ("b", 2)):
        for number in range(count):
            problems.add(Path(path), f", line {number} is left out: x")
    assert problems.lines() == ("a, line 0 is left out: x", "b, line 0 is left out: x; 1 more lines of it are left out")


def test_pairs_are_dropped_alone_or_with_their_paragraph(copy):
    path = copy / finished_run.NAME / "manifest_decontaminate_Basque.json"
    manifest = json.loads(path.read_text())
    dropped = manifest["counts"]["pairs_dropped"] + manifest["counts"]["pairs_dropped_with_paragraph"]
    for alone in (0, 1, dropped):
        manifest["counts"] |= {"pairs_dropped": alone, "pairs_dropped_with_paragraph": dropped - alone}
        path.write_text(json.dumps(manifest))
        assert dropped and read(copy)[1] == []


def test_files_that_changed_behind_their_manifests(copy):
    folder = copy / finished_run.NAME
    filtered = folder / "Basque_translate_filtered.jsonl"
    whole = filtered.read_text().splitlines(keepends=True)
    number = next(i for i, line in enumerate(whole) if json.loads(line)["propositions"])
    gone = len(json.loads(whole[number])["propositions"])
    filtered.write_text("".join(whole[:number] + whole[number + 1 :]))
    (found,), problems = read(copy)
    left = found.step("pairs").left
    assert (
        sum(f"less what was removed are {left}, but decontaminated are {left - gone}" in line for line in problems) == 1
    )
    assert sum(f"says that {left} pairs were left, but {filtered} has {left - gone}" in line for line in problems) == 1
    (training,) = training_data(find(copy), [found], Problems())
    assert [line for line in training.problems if f"{left} pairs of English to Basque were read" in line]
    (copy / "Basque.jsonl").open("a").write(lines({"text": "Bat gehiago.", "id": "Basque-999999.0"}))
    (folder / "Basque_translate.jsonl").open("a").write(lines(pair("Basque-999998.0"), pair("Basque-999999.0")))
    problems = read(copy)[1]
    assert any("manifest_generate_Basque.json says kept 24, but the files have 25" in line for line in problems)
    assert any("not translated is -1" in line for line in problems)
    assert any("manifest_score_Basque.json says paragraphs 24, but the files have 26" in line for line in problems)
    assert any("run decontamination.py again" in line for line in problems)


def test_a_file_that_vanished_is_named_once(copy):
    (copy / "Basque.jsonl").unlink()
    [line] = [line for line in one(copy)[1] if "manifest_generate_Basque.json" in line]
    assert line.startswith(f"Basque: {copy / 'Basque.jsonl'} is missing")


def test_half_of_a_stage(copy):
    """No manifests, paragraphs that wait for their translations, a last line that is being written."""
    folder = copy / finished_run.NAME
    for pattern in ("**/manifest_*", "*/*filtered*", "*/*contam*"):
        for path in copy.glob(pattern):
            path.unlink()
    path = folder / "Basque_translate.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:10]) + '{"sentence": "Hau ez da')
    (folder / "Basque_translate_rejects.jsonl").unlink()
    steps, problems = one(copy)
    assert steps["paragraphs"] == (24, {"not_translated": 14}) and "decontaminated" not in steps
    assert steps["sentences"] == steps["pairs"] and len(problems) == 1 and "is being written" in problems[0]
    shutil.rmtree(folder)
    assert list(one(copy)[0]) == ["prompts", "responses", "texts", "paragraphs"] and one(copy)[1] == []


def test_native_texts(tiny_nllb, tmp_path):
    root = finished_run.make(tmp_path, tiny_nllb)
    steps, problems = one(root)
    made = json.loads((root / "manifest_generate_Basque.json").read_text())["counts"]
    assert problems == [] and "prompts" not in steps and "responses" not in steps
    assert steps["native_texts"] == (made["native"], made["rejected"]) and steps["paragraphs"][0] == made["kept"]


def test_rounds_of_knn_instruct(tmp_path):
    """Files of rounds, vectors and their manifests are no languages, and no paragraphs of their own."""
    result = in_process("datagen.py", *command(write_seeds(tmp_path / "seeds", SEEDS), tmp_path / "run"))
    assert result.returncode == 0, result.stderr
    steps, problems = one(tmp_path / "run")
    made = json.loads((tmp_path / "run" / "manifest_generate_Basque.json").read_text())["counts"]
    assert problems == [] and steps["paragraphs"] == (made["kept"], {}) and made["kept"] > 3
    assert (tmp_path / "run" / "Basque_1.jsonl").exists() and find(tmp_path / "run").languages == ("Basque",)


def test_several_back_translations_of_one_generation_and_none(tmp_path):
    tree(tmp_path, {
        "Basque.jsonl": lines({"text": "a", "id": "Basque-1.0"}, {"text": "b", "id": "mine"}),
        "Basque_answers.jsonl": lines({"id": "Basque-1", "answers": ["1. a"], "prompt_tokens": 5, "completion_tokens": 2}),
        "Hausa_rejects.jsonl": lines({"id": "Hausa-1.0", "reason": "too_few_words"}),
        "nllb/Basque_translate.jsonl": lines(pair("Basque-1.0", 2), pair("mine", 1)),
        "apertium/Basque_translate.jsonl": lines(pair("Basque-1.0", 2)),
        "clean/Basque_translate_filtered.jsonl": lines(pair("Basque-1.0", 2)),
        "clean/manifest_decontaminate_Basque.json": json.dumps({"lineage": {"name": str(tmp_path / "nllb")}}),
    })  # fmt: skip
    found, problems = read(tmp_path)
    assert problems == []
    shown = {(f.language, f.back_translation and f.back_translation.folder.name): f for f in found}
    assert list(shown) == [("Hausa", None), ("Basque", "apertium"), ("Basque", "nllb")]
    counts = {key: [(step.name, step.count, step.removed, step.added) for step in f.steps] for key, f in shown.items()}
    assert counts["Hausa", None] == [("texts", 1, {"too_few_words": 1}, {}), ("paragraphs", 0, {}, {})]
    begin = [("prompts", 1, {}, {}), ("responses", 1, {}, {}), ("texts", 1, {}, {"brought_along": 1})]
    assert counts["Basque", "apertium"] == [
        *begin, ("paragraphs", 2, {"not_translated": 1}, {}), ("sentences", 2, {}, {}), ("pairs", 2, {}, {}),
    ]  # fmt: skip
    assert counts["Basque", "nllb"] == [
        *begin, ("paragraphs", 2, {}, {}), ("sentences", 3, {}, {}), ("pairs", 3, {"not_in_filtered_file": 1}, {}),
        ("decontaminated", 2, {}, {}),
    ]  # fmt: skip


def test_published_pairs_alone_and_filtered_pairs_alone(tmp_path):
    tree(tmp_path, {"a/Basque_translate.jsonl": lines(pair(None, 2), pair(None, 2)),
                    "b/Hausa_translate_filtered.jsonl": lines(pair("x", 2))})  # fmt: skip
    found, problems = read(tmp_path)
    assert problems == []
    assert [[(step.name, step.count) for step in f.steps] for f in found] == [
        [("paragraphs", 2), ("sentences", 4), ("pairs", 4)],
        [("paragraphs", 1), ("decontaminated", 2)],
    ]


def manifest(counts: dict, train: int, test: int, name: str = "topxgen") -> dict:
    part = {"path": "data/nllb/Basque_translate_filtered.jsonl", "counts": counts}
    return {"name": name, "languages": {"English to Basque": part}, "train_pairs": train, "test_pairs": test}


@pytest.mark.parametrize(
    "counts, sets, both, removed",
    [
        ({"read": 10, "too_short": 2, "pairs": 8}, (6, 2), False, {"too_short": 2}),
        ({"read": 10, "duplicates": 1, "pairs": 9}, (18, 0), True, {"duplicates": 1}),
        ({"read": 10, "empty": 1, "by_percentile": 5, "duplicates": 1, "pairs": 4}, (3, 1), False,
         {"empty": 1, "duplicates": 1, "not_selected": 4}),
        ({"read": 10, "duplicates": 2, "asked": 5, "by_size": 5, "pairs": 5}, (5, 0), False,
         {"duplicates": 2, "not_selected": 3}),
        ({"read": 10, "unaligned": 7, "pairs": 10}, (10, 0), False, {}),
    ],
)  # fmt: skip
def test_selections_of_training_data_add_up(tmp_path, counts, sets, both, removed):
    tree(tmp_path, {"t/data_manifest.json": manifest(counts, *sets), "t/settings_train.json": {"reverse": both}})
    (training,) = training_data(find(tmp_path), [], Problems())
    assert training.problems == [] and training.directions["English to Basque"][0].removed == removed
    tree(tmp_path, {"t/data_manifest.json": manifest(counts, sets[0] + 1, sets[1])})
    (training,) = training_data(find(tmp_path), [], Problems())
    assert [f"are not the {sum(sets)} that were selected" in line for line in training.problems] == [True]
    for number in (3, 30):
        wrong = counts | ({"by_size": number} if "by_size" in counts else {"by_percentile": number})
        tree(tmp_path, {"t/data_manifest.json": manifest(wrong, *sets)})
        problems = training_data(find(tmp_path), [], Problems())[0].problems
        assert any(f"{number} pairs of English to Basque were selected" in line for line in problems)
    tree(tmp_path, {"t/data_manifest.json": manifest({"read": 10, "pairs": 9}, 9, 0)})
    assert any("are 10, but 9 are used" in line for line in training_data(find(tmp_path), [], Problems())[0].problems)


def test_a_training_that_streams_and_one_without_facts(tmp_path):
    tree(tmp_path, {"a/train_log.jsonl": "", "b/train_log.jsonl": "",
                    "b/data_manifest.json": {"streamed": "pairs.jsonl", "test_pairs": 5, "sha256": "0"}})  # fmt: skip
    first, second = training_data(find(tmp_path), [], Problems())
    assert (first.train, first.test, first.problems) == (None, None, [])
    assert (second.name, second.train, second.test, second.problems) == ("pairs.jsonl", None, 5, [])


def test_a_disk_that_fails_when_a_file_is_read_again(tmp_path, monkeypatch):
    tree(tmp_path, {"Basque_translate.jsonl": lines(pair("Basque-1.0", 2), pair("Basque-2.0", 2))})
    times, check = Counter(), reading.refuse_stand_in

    def fails_later(path):
        times[path] += 1
        if times[path] > 1:
            raise OSError(errno.EIO, "Input/output error")
        check(path)

    monkeypatch.setattr(reading, "refuse_stand_in", fails_later)
    assert f"{tmp_path / 'Basque_translate.jsonl'} cannot be read: Input/output error" in read(tmp_path)[1]
