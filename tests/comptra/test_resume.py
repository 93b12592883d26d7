"""main.py goes on where it stopped, with what another run or program left, and only where the settings are the same."""

import json
import re
import shutil
from pathlib import Path

import pytest

from comptra import evaluation_sets, runner
from tests.support.main_runs import folder_of, options, texts, udhr
from tests.support.runs import in_process, lines_in, records, script
from topxgen.text import languages


def test_a_finished_run_loads_nothing_and_a_longer_one_goes_on(main_here, tiny_lm, tmp_path):
    assert main_here("--output_dir", tmp_path).returncode == 0
    path = folder_of(tmp_path, tiny_lm) / "translate_0.jsonl"
    before = path.read_bytes()
    again = main_here("--output_dir", tmp_path)
    assert again.returncode == 0 and "loading" not in again.stderr and path.read_bytes() == before
    longer = main_here("--output_dir", tmp_path, "--max_samples", 6)
    assert longer.returncode == 0 and "loading" in longer.stderr
    assert path.read_bytes().startswith(before) and texts(path, "sentence") == udhr(6).sources
    shorter = main_here("--output_dir", tmp_path, "--max_samples", 5)
    assert shorter.returncode == 2 and "more lines than the 5 sentences" in shorter.stderr


def kill_at(counts: tuple[int, ...], whole_run, model: str, tmp_path, steps: int, **changes) -> None:
    """kill -9 as soon as so many answers are there; the outcome is that of an undisturbed run, and nothing is asked twice."""
    more = ("--steps", steps, "--method_divide", "space", "--number_of_subproblems", 2, "--request_batch_size", 1)
    more += ("--metadata_dir", "run")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = ("main.py", *options(model, *more, max_samples=5, **changes))
    assert whole_run(*command, "--output_dir", whole).returncode == 0
    folder, other = (output / Path(model).name / "run" for output in (killed, whole))
    for count in counts:
        script(*command, "--output_dir", killed, killed_at=(folder / "answers.jsonl", count))
        assert not (folder / "manifest_translate.json").exists()
    assert whole_run(*command, "--output_dir", killed).returncode == 0
    made = [{path.name: path.read_bytes() for path in one.glob("*_[0-9]*.jsonl")} for one in (folder, other)]
    assert made[0] == made[1] and f"translate_{steps}.jsonl" in made[0]
    assert sum(name.startswith("draft_") for name in made[0]) == changes.get("number_of_refining_steps", 0)
    ids = texts(folder / "answers.jsonl", "id")
    assert len(ids) == len(set(ids)) == lines_in(other / "answers.jsonl")


@pytest.mark.medium
@pytest.mark.parametrize(
    ("steps", "counts", "changes"),
    [
        pytest.param(0, (2, 4), {}, marks=pytest.mark.slow),
        (1, (4, 12), {}),  # while phrases are translated, and while sentences are
        pytest.param(2, (12, 25), {}, marks=pytest.mark.slow),
        (0, (7, 12), {"number_of_refining_steps": 2}),  # in each of both, with the drafts of all sentences on disk
    ],
)
def test_killed_at_any_time_and_resumed(steps, counts, changes, tiny_lm, tmp_path):
    kill_at(counts, in_process, tiny_lm, tmp_path, steps, **changes)


@pytest.mark.slow
def test_killed_and_resumed_with_vllm(gemma, tmp_path):
    kill_at((7,), script, gemma, tmp_path, 1, inference_api="vllm", max_concurrent_requests=2)


def test_a_directory_of_the_originals_is_continued(main_here, tiny_lm, tmp_path):
    folder = folder_of(tmp_path, tiny_lm)
    folder.mkdir(parents=True)
    data = udhr(4)
    lines = [{"sentence": source, "translation": f"itzulpena {i}"} for i, source in enumerate(data.sources[:2])]
    path = folder / "translate_0.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"sentence": "half a li')
    result = main_here("--output_dir", tmp_path)
    assert result.returncode == 0 and "has 2 lines of another program" in result.stderr
    manifest = main_here("--output_dir", tmp_path) and json.loads((folder / "manifest_translate.json").read_text())
    assert manifest["lines_from_original"] == 2
    assert records(path)[:2] == lines and texts(path, "sentence") == data.sources


@pytest.mark.parametrize("lost", ["settings_translate.json", "settings_translate.json manifest_translate.json"])
def test_without_its_settings_a_run_is_not_continued_with_others(lost, main_here, tiny_lm, tmp_path):
    """As when a cluster purges old files: its lines are no other program's."""
    assert main_here("--output_dir", tmp_path).returncode == 0
    folder = folder_of(tmp_path, tiny_lm)
    before = (folder / "translate_0.jsonl").read_bytes()
    for name in lost.split():
        (folder / name).unlink()
    for more in ((), ("--max_samples", 6, "--max_new_tokens", 7), ("--dry_run",)):
        result = main_here("--output_dir", tmp_path, *more)
        assert result.returncode == 2 and f"{folder / 'settings_translate.json'} is missing" in result.stderr
    assert (folder / "translate_0.jsonl").read_bytes() == before


def test_the_published_evaluation_command_continues_a_published_folder(tiny_lm, tmp_path):
    """Its settings are those of the original's README; only the model, the data and the engine are small."""
    data, folder = udhr(4), folder_of(tmp_path, tiny_lm, n=0)
    assert folder.name == "English_to_Basque_2_shot_seed_122_llm_vanilla_0_0_0"
    folder.mkdir(parents=True)
    lines = [{"sentence": source, "translation": f"itzulpena {i}"} for i, source in enumerate(data.sources[:3])]
    path = folder / "translate_0.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    unscored = in_process("comptra.evaluate", tmp_path)
    assert unscored.returncode == 2 and "pass --dataset_name_or_path" in unscored.stderr
    score = ("comptra.evaluate", tmp_path, "--dataset_name_or_path", "udhr", "--metrics", "chrf")
    assert in_process(*score, "--allow_partial").returncode == 0
    result = in_process(
        "main.py", *options(tiny_lm, "--tokenizer_name_or_path", tiny_lm, "--seed", 122, "--request_batch_size", 64),
        "--num_return_sequences", 1, "--num_beams", 1, "--temperature", 0.0, "--top_p", 1.0, "--repetition_penalty", 1.0,
        "--method_divide", "llm", "--merge_prompt", "vanilla", "--method_translate", "vanilla", "--selection_method", "greedy",
        "--steps", 0, "--verbose", "--number_of_subproblems", 0, "--number_of_refining_steps", 0, "--template_key", 11,
        "--retriever_type", "bm25s", "--number_of_merge_demonstrations", 0, "--output_dir", tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert records(path)[:3] == lines and texts(path, "sentence") == data.sources
    scored = in_process(*score, "--csv", tmp_path / "scores.csv")
    assert scored.returncode == 0, scored.stderr
    assert "2_shot_seed_122_llm_vanilla_0_0_0" in (tmp_path / "scores.csv").read_text()


def test_a_folder_that_has_another_name_of_the_language_is_continued(main_here, tiny_lm, tmp_path):
    """As the original's names, which are not all ours."""
    ours = folder_of(tmp_path, tiny_lm)
    folder = ours.with_name(ours.name.replace("Basque", "eus_Latn"))
    folder.mkdir(parents=True)
    line = {"sentence": udhr(1).sources[0], "translation": "itzulpena"}
    (folder / "translate_0.jsonl").write_text(json.dumps(line) + "\n")
    assert main_here("--output_dir", tmp_path, "--tgt", "eus_Latn").returncode == 0
    assert records(folder / "translate_0.jsonl")[0] == line and lines_in(folder / "translate_0.jsonl") == 4
    assert not ours.exists()


def test_a_nested_directory_of_the_originals_is_continued(main_here, tiny_lm, tmp_path):
    """Divisions of one sentence and the translation of its first phrase are there; the rest is made."""
    data = udhr(2)
    first = {"sentence": data.sources[0], "propositions": ["Everyone has the right", "to take part"]}
    room, folder = tmp_path / Path(tiny_lm).name, folder_of(tmp_path, tiny_lm, divide="space", n=2, steps=1)
    folder.mkdir(parents=True)
    (room / "divide_1.jsonl").write_text(json.dumps(first) + "\n")
    phrase = {"sentence": "Everyone has the right", "translation": "Pertsona orok eskubidea du"}
    (folder / "translate_1.jsonl").write_text(json.dumps(phrase) + "\n")
    flags = ("--steps", 1, "--method_divide", "space", "--number_of_subproblems", 2, "--max_samples", 2, "--verbose")
    result = main_here("--output_dir", tmp_path, *flags)
    assert result.returncode == 0, result.stderr
    assert records(room / "divide_1.jsonl")[0] == first and lines_in(room / "divide_1.jsonl") == 2
    lower = records(folder / "translate_1.jsonl")
    assert lower[0] == phrase and [record["sentence"] for record in lower[:2]] == first["propositions"]
    assert json.loads((room / "parent_1.jsonl").read_text()) == {"0": 0, "1": 0, "2": 1, "3": 1}
    assert "  | Pertsona orok eskubidea du" in result.stdout, "its phrase is a demonstration of the merge"
    assert texts(folder / "translate_0.jsonl", "sentence") == data.sources


def test_edited_prompts_are_other_settings(main_here, tiny_lm, tmp_path):
    template = tmp_path / "mine.toml"
    template.write_text('prefix = "{src}: "\nmiddle = "\\n{tgt}: "\nsuffix = "\\n\\n"\n')
    flags = ("--output_dir", tmp_path / "out", "--template_key", template, "--max_samples", 1)
    assert main_here(*flags).returncode == 0
    template.write_text('prefix = "{src} - "\nmiddle = "\\n{tgt} - "\nsuffix = "\\n\\n"\n')
    result = main_here(*flags)
    assert result.returncode == 2 and "template_digest was" in result.stderr


@pytest.mark.parametrize(
    ("flag", "more"),
    [
        ("method_translate", ()),
        ("method_divide", ("--steps", 1)),
        ("selection_method", ("--num_return_sequences", 2, "--temperature", 1)),
    ],
)
def test_edited_code_of_ones_own_is_other_settings(flag, more, main_here, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        "def method_translate(sentences, task): return enumerate(sentences)\n"
        "def method_divide(sentences, task, settings): return [[sentence] for sentence in sentences]\n"
        "def selection_method(src, tgt, settings): return lambda sentences, candidates: [own[0] for own in candidates]\n"
    )
    flags = ("--output_dir", tmp_path / "out", f"--{flag}", f"{own}:{flag}", *more, "--max_samples", 1)
    assert main_here(*flags).returncode == 0
    own.write_text(own.read_text() + "# edited\n")
    result = main_here(*flags)
    assert result.returncode == 2 and f"{flag}_code was" in result.stderr


def test_results_of_two_runs_do_not_mix(main_here, tiny_lm, tmp_path):
    assert main_here("--output_dir", tmp_path).returncode == 0
    path = folder_of(tmp_path, tiny_lm) / "translate_0.jsonl"
    before = path.read_bytes()
    other = main_here("--output_dir", tmp_path, "--max_new_tokens", 20)
    assert other.returncode == 2 and "max_new_tokens was 12, now 20" in other.stderr
    for name in ("settings_translate.json", "manifest_translate.json", "SHA256SUMS"):
        (path.parent / name).unlink()
    record = json.loads(before.splitlines()[0]) | {"sentence": "Another sentence."}
    path.write_text(json.dumps(record) + "\n")
    other = main_here("--output_dir", tmp_path)
    assert other.returncode == 2 and "line 1 holds 'Another sentence.'" in other.stderr
    assert lines_in(path) == 1, "nothing is written to it"


@pytest.mark.parametrize("method, room", [("cot", 540), ("step_by_step", 840), ("TEaR", 540)])
@pytest.mark.medium
def test_what_a_method_could_not_ask_on_the_way_is_asked_again(method, room, main_here, tiny_lm, tmp_path, monkeypatch):
    """The thoughts have no room, the translation has; then there is room. The trace of a method without shots is shown."""
    monkeypatch.setattr("comptra.methods.conversation.THOUGHT_TOKENS", room - 290)
    flags = ("--output_dir", tmp_path, "--method_translate", method, "--max_samples", 2, "--verbose")
    first = main_here(*flags, "--max_model_len", room)
    assert first.returncode == 3 and "lines that depend on one are marked as unanswered" in first.stderr, first.stderr
    path = folder_of(tmp_path, tiny_lm) / "translate_0.jsonl"
    assert [line["unanswered"] for line in records(path)] == [True, True] and all(texts(path))
    assert (first.stdout.count("demonstration: ") == 2) == (method == "TEaR")
    manifest = json.loads((path.parent / "manifest_translate.json").read_text())
    assert manifest["unanswered_prompts"] == 2 and "exceed --max_model_len" in manifest["unanswered"][0]
    lines, prompts = path.read_bytes(), r"translate 0 +[1-9]\d* "
    assert re.search(prompts, main_here(*flags, "--dry_run").stdout), "what is sent again costs, too"
    accepted = (*flags, "--max_model_len", room, "--accept_unanswered")
    assert not re.search(prompts, main_here(*accepted, "--dry_run").stdout)
    for _ in range(2):
        second = main_here(*accepted)
        assert second.returncode == 0 and "2 translations marked as unanswered for good" in second.stderr
        assert "loading" not in second.stderr and path.read_bytes() == lines
        manifest = json.loads((path.parent / "manifest_translate.json").read_text())
        assert (manifest["unanswered_prompts"], manifest["unanswered_translations"]) == (0, 2)
    again = main_here(*flags)
    assert again.returncode == 0 and "unanswered" not in path.read_text()
    assert len(texts(path)) == 2


@pytest.mark.parametrize("name", ["translate_0.jsonl", "answers.jsonl", "settings_translate.json"])
def test_a_file_that_is_removed_meanwhile_is_no_success(name, main_here, tiny_lm, tmp_path, monkeypatch):
    path, real = folder_of(tmp_path, tiny_lm) / name, runner.translate.translate

    def then_purged(*args):
        translations = real(*args)
        path.unlink()
        return translations

    with monkeypatch.context() as patch:
        patch.setattr(runner.translate, "translate", then_purged)
        result = main_here("--output_dir", tmp_path)
    if name.startswith("settings"):  # this run still knows them
        assert (
            result.returncode == 0
            and name in json.loads((path.parent / "manifest_translate.json").read_text())["checksums"]
        )
    else:
        assert result.returncode == 2 and f"{name} was removed or replaced while this run was writing" in result.stderr
    assert main_here("--output_dir", tmp_path).returncode == 0 and path.exists()


def test_a_run_with_nothing_to_do_keeps_its_record(main_here, tiny_lm, tmp_path):
    first = main_here("--output_dir", tmp_path)
    assert "responses ended at the limit of 12 tokens of --max_new_tokens" in first.stderr
    path = folder_of(tmp_path, tiny_lm) / "manifest_translate.json"
    before = path.read_bytes()
    again = main_here("--output_dir", tmp_path)
    assert again.returncode == 0 and path.read_bytes() == before
    assert "responses ended at the limit of 12 tokens of --max_new_tokens" in again.stderr
    longer = main_here("--output_dir", tmp_path, "--max_samples", 5)
    manifest = json.loads(path.read_text())
    assert longer.returncode == 0 and manifest["sentences"] == 5
    assert manifest["truncated_answers"]["12"] >= json.loads(before)["truncated_answers"]["12"]


@pytest.mark.medium
def test_a_model_that_did_not_load_leaves_no_settings(main_here, tiny_lm, tmp_path):
    empty = tmp_path / "bad" / Path(tiny_lm).name
    shutil.copytree(tiny_lm, empty)
    (empty / "model.safetensors").write_bytes(b"")
    bad = main_here("--model_name_or_path", empty, "--output_dir", tmp_path / "out")
    assert bad.returncode == 2 and "cannot load" in bad.stderr
    assert main_here("--output_dir", tmp_path / "out").returncode == 0
    # The same model by another name of its folder.
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / Path(tiny_lm).name).symlink_to(tiny_lm)
    again = main_here("--model_name_or_path", tmp_path / "link" / Path(tiny_lm).name, "--output_dir", tmp_path / "out")
    assert again.returncode == 0 and "loading" not in again.stderr


def test_lines_of_another_data_set_are_found_before_anything_is_divided(main_here, tiny_lm, tmp_path):
    folder = folder_of(tmp_path, tiny_lm, divide="space", steps=1)
    folder.mkdir(parents=True)
    (folder / "translate_0.jsonl").write_text('{"sentence": "Another one.", "translation": "Beste bat."}\n')
    result = main_here("--output_dir", tmp_path, "--steps", 1, "--method_divide", "space")
    assert result.returncode == 2 and "line 1 holds 'Another one.'" in result.stderr
    assert "loading" not in result.stderr and not list(folder.parent.glob("divide_*"))


def test_divisions_serve_every_target_language(main_here, tiny_lm, tmp_path):
    flags = ("--output_dir", tmp_path, "--steps", 1, "--method_divide", "space", "--max_samples", 2)
    assert main_here(*flags).returncode == 0
    room = tmp_path / Path(tiny_lm).name
    made = (room / "divide_1.jsonl").stat().st_mtime_ns
    assert main_here(*flags, "--tgt", "Swahili").returncode == 0
    assert (room / "divide_1.jsonl").stat().st_mtime_ns == made
    for _ in range(2):
        back = main_here(*flags, "--src", "Basque", "--tgt", "English")
        assert back.returncode == 0, back.stderr
        (own,) = room.glob("divisions_*")
        assert (
            texts(own / "divide_1.jsonl", "sentence")
            == evaluation_sets.load(
                "udhr", languages.find("Basque"), languages.find("English"), folder=None, max_samples=2
            ).sources
        )
        assert sorted(path.name for path in own.iterdir()) == [
            "SHA256SUMS",
            "divide_1.jsonl",
            "parent_1.jsonl",
            "settings_divide.json",
        ]
    assert (room / "divide_1.jsonl").stat().st_mtime_ns == made


def test_metadata_dir_names_the_folder_of_the_run(main_here, tiny_lm, tmp_path):
    flags = ("--output_dir", tmp_path, "--max_samples", 2, "--metadata_dir", "mine")
    assert main_here(*flags, "--steps", 1, "--method_divide", "space").returncode == 0
    room = tmp_path / Path(tiny_lm).name
    assert {path.name for path in room.iterdir() if path.suffix == ".jsonl"} == {"divide_1.jsonl", "parent_1.jsonl"}
    assert [path.name for path in room.iterdir() if path.is_dir()] == ["mine"]
    other = main_here(*flags, "--steps", 1, "--method_divide", "space", "--k", 1)
    assert other.returncode == 2 and "k was 2, now 1" in other.stderr
    assert main_here(*flags, "--k", 1, "--metadata_dir", "another").returncode == 0
    assert lines_in(room / "another" / "translate_0.jsonl") == 2
    scored = in_process("comptra.evaluate", tmp_path, "--metrics", "chrf", "--csv", tmp_path / "scores.csv")
    assert scored.returncode == 0, scored.stderr
    assert all(f"/{name}," in (tmp_path / "scores.csv").read_text() for name in ("mine", "another"))


@pytest.mark.parametrize("shifted", [(), ("divide_2", "divide_1", "parent_2")])
def test_divisions_of_older_versions_are_renumbered(shifted, main_here, tiny_lm, tmp_path):
    """Also when a kill fell between two renames."""
    flags = ("--output_dir", tmp_path, "--steps", 2, "--method_divide", "space", "--number_of_subproblems", 2)
    assert main_here(*flags, "--max_samples", 1).returncode == 0
    room = tmp_path / Path(tiny_lm).name
    before = {path.name: path.read_bytes() for path in room.glob("*_*.jsonl")}
    assert sorted(before) == ["divide_1.jsonl", "divide_2.jsonl", "parent_1.jsonl", "parent_2.jsonl"]
    for kind in ("divide", "parent"):
        for r in (1, 2):
            if f"{kind}_{r}" not in shifted:
                (room / f"{kind}_{r}.jsonl").rename(room / f"{kind}_{r - 1}.jsonl")
    other = main_here(*flags, "--max_samples", 1, "--number_of_subproblems", 3)
    (own,) = room.glob("divisions_*")
    assert other.returncode == 0 and (own / "divide_2.jsonl").is_file(), other.stderr
    again = main_here(*flags, "--max_samples", 1)
    assert again.returncode == 0 and "loading" not in again.stderr, again.stderr
    assert {path.name: path.read_bytes() for path in room.glob("*_*.jsonl")} == before
    longer = main_here(*flags, "--max_samples", 2)
    assert longer.returncode == 0 and lines_in(room / "divide_1.jsonl") == 2


def test_a_prompt_too_long_is_told(main_here, tiny_lm, tmp_path):
    result = main_here("--output_dir", tmp_path, "--max_model_len", 64)
    assert result.returncode == 3 and "4 prompts got no response" in result.stderr
    assert "exceed --max_model_len 64" in result.stderr
    path = folder_of(tmp_path, tiny_lm) / "translate_0.jsonl"
    assert texts(path) == [""] * 4
    again = main_here("--output_dir", tmp_path, "--max_model_len", 64)
    assert again.returncode == 3, "it stays a failure"
    second = main_here("--output_dir", tmp_path)
    assert second.returncode == 0 and all(texts(path)) and lines_in(path) == 4
    assert "unanswered" not in path.read_text()


def test_what_cannot_be_divided_is_told_and_asked_again(main_here, tiny_lm, tmp_path):
    flags = ("--output_dir", tmp_path, "--steps", 1, "--max_samples", 2)
    result = main_here(*flags, "--max_new_tokens_divide", 2040)
    assert result.returncode == 2 and "2 of 2 sentences could not be divided" in result.stderr
    assert "raise --max_model_len" in result.stderr
    result = main_here(*flags, "--max_new_tokens_divide", 30)
    assert result.returncode == 0, result.stderr
    assert len([*tmp_path.glob("*/divisions_*/divide_1.jsonl")]) == 1


def test_a_retrained_model_is_another(main_here, tiny_lm, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_lm, model)
    flags = ("--model_name_or_path", model, "--output_dir", tmp_path / "out", "--max_samples", 1)
    assert main_here(*flags).returncode == 0
    tokenizer = (model / "tokenizer.json").read_text()
    (model / "tokenizer.json").write_text(tokenizer + " ")
    result = main_here(*flags)
    assert result.returncode == 2 and "base_model_config was" in result.stderr
    (model / "tokenizer.json").write_text(tokenizer)
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    result = main_here(*flags)
    assert result.returncode == 2 and "weights was" in result.stderr


def test_a_retrained_model_does_not_take_the_divisions_of_the_first(main_here, tiny_chat, tmp_path):
    """Nor one whose chat template was edited."""
    model = tmp_path / "model"
    shutil.copytree(tiny_chat, model)
    flags = ("--model_name_or_path", model, "--output_dir", tmp_path / "out", "--max_samples", 1, "--steps", 1)
    flags = (*flags, "--prompt_style", "auto", "--max_new_tokens_divide", 30)
    assert main_here(*flags).returncode == 0
    template = (model / "chat_template.jinja").read_text()
    (model / "chat_template.jinja").write_text(template.replace("[assistant]", "[model]"))
    result = main_here(*flags, "--tgt", "Hausa")
    assert result.returncode == 2 and "chat_template_digest was" in result.stderr
    result = main_here(*flags)
    assert result.returncode == 2 and "template_digest was" in result.stderr
    (model / "chat_template.jinja").write_text(template)
    assert main_here(*flags).returncode == 0
    (model / "optimizer.pt").write_bytes(b"no weights")
    hausa = main_here(*flags, "--tgt", "Hausa")
    assert hausa.returncode == 0, hausa.stderr
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    result = main_here(*flags, "--tgt", "Swahili")
    assert result.returncode == 2 and "weights was" in result.stderr and "pass another --output_dir" in result.stderr


def test_divisions_of_more_sentences_serve_fewer(main_here, tiny_lm, tmp_path):
    flags = ("--output_dir", tmp_path, "--steps", 2, "--method_divide", "space", "--number_of_subproblems", 2)
    assert main_here(*flags, "--max_samples", 3).returncode == 0
    room = tmp_path / Path(tiny_lm).name
    before = {path.name: path.read_bytes() for path in room.glob("*_?.json*")}
    result = main_here(*flags, "--max_samples", 2, "--tgt", "Swahili")
    assert result.returncode == 0, result.stderr
    assert {path.name: path.read_bytes() for path in room.glob("*_?.json*")} == before and len(before) == 4
    (path,) = room.glob("English_to_Swahili*/translate_1.jsonl")
    assert lines_in(path) == 4 and lines_in(path.with_name("translate_0.jsonl")) == 2


def test_null_translations_of_another_program_are_asked_for(main_here, tiny_lm, tmp_path):
    folder = folder_of(tmp_path, tiny_lm)
    folder.mkdir(parents=True)
    lines = [{"sentence": text, "translation": new} for text, new in zip(udhr(2).sources, ("bat", None), strict=True)]
    (folder / "translate_0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main_here("--output_dir", tmp_path).returncode == 0
    found = texts(folder / "translate_0.jsonl")
    assert found[0] == "bat" and found[1] and len(found) == 4
    (folder / "translate_0.jsonl").write_text(json.dumps(lines[0] | {"translation": 7}) + "\n")
    result = main_here("--output_dir", tmp_path)
    assert result.returncode == 2 and "line 1: field translation: expected text or null" in result.stderr


def test_the_record_of_an_older_version_is_read(main_here, tiny_lm, tmp_path):
    """Lines of the original's, counted under the name of older versions."""
    assert main_here("--output_dir", tmp_path).returncode == 0
    path = folder_of(tmp_path, tiny_lm) / "settings_translate.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"inherited_lines": 3}))
    assert main_here("--output_dir", tmp_path, "--max_samples", 5).returncode == 0
    assert json.loads((path.parent / "manifest_translate.json").read_text())["lines_from_original"] == 3


def test_tokens_of_the_retriever_decide_the_result(main_here, tiny_lm, tmp_path):
    """An older run, which does not name them, is continued; one with other tokens has a folder of its own."""
    assert main_here("--output_dir", tmp_path).returncode == 0
    path = folder_of(tmp_path, tiny_lm) / "settings_translate.json"
    settings = json.loads(path.read_text())
    assert settings["retriever_tokens"] == "unicode"
    del settings["retriever_tokens"]
    path.write_text(json.dumps(settings))
    assert main_here("--output_dir", tmp_path).returncode == 0
    path.write_text(json.dumps(settings))
    before = path.with_name("translate_0.jsonl").stat().st_mtime_ns
    assert main_here("--output_dir", tmp_path, "--retriever_tokens", "original").returncode == 0
    assert path.with_name("translate_0.jsonl").stat().st_mtime_ns == before
    other = path.parent.with_name(f"{path.parent.name}_original-words") / "settings_translate.json"
    assert json.loads(other.read_text())["retriever_tokens"] == "original"
