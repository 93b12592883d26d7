"""main.py as users run it: small real models, the embedded UDHR and hand-made files."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from conftest import lines_in, records, script, snapshot

from comptra import languages, samplers, test_sets
from comptra.prompts.templates import clean_answer, get_template

NAME = "English_to_Basque_{k}_shot_seed_122_{divide}_vanilla_{n}_{steps}_0"


@pytest.fixture
def main_here(script_here, tiny_lm):
    return partial(script_here, "main.py", *options(tiny_lm))


def options(model: str, *more, **changes) -> list:
    flags = {
        "model_name_or_path": model, "inference_api": "hf", "dataset_name_or_path": "udhr", "tgt": "Basque", "k": 2,
        "max_samples": 4, "max_new_tokens": 24, "prompt_style": "raw", "dtype": "float32", **changes,
    }  # fmt: skip
    return [*more, *(word for name, value in flags.items() if value is not None for word in (f"--{name}", value))]


def folder_of(output: Path, model: str, k=2, divide="llm", n=None, steps=0) -> Path:
    return output / Path(model).name / NAME.format(k=k, divide=divide, n=n, steps=steps)


def udhr(count: int) -> test_sets.TestSet:
    sides = map(languages.find, ("English", "Basque"))
    return test_sets.load("udhr", *sides, folder=None, max_samples=count)


def texts(path: Path, key: str = "translation") -> list[str]:
    return [record[key] for record in records(path)]


def test_without_steps_it_is_plain_few_shot(main_here, tiny_lm, tmp_path):
    import bm25s

    from comptra.words import unicode_words

    result = main_here("--output_dir", tmp_path)
    assert result.returncode == 0, result.stderr
    found = records(folder_of(tmp_path, tiny_lm) / "translate_0.jsonl")
    data = udhr(4)
    assert [record["sentence"] for record in found] == data.sources

    import Stemmer

    stem = Stemmer.Stemmer("english").stemWords
    index = bm25s.BM25(method="robertson", k1=1.5, b=0.7)
    index.index([stem(unicode_words(source)) for source, _ in data.pool], show_progress=False)
    rows, _ = index.retrieve([stem(unicode_words(text)) for text in data.sources], k=2, show_progress=False)
    template = get_template(11, "English", "Basque")
    prompts = [
        template.get_prompt([data.pool[i] for i in reversed(row)], sentence)
        for row, sentence in zip(rows.tolist(), data.sources, strict=True)
    ]
    sampler = samplers.load("hf", samplers.ModelSettings(tiny_lm, dtype="float32"))
    requests = [samplers.Request(str(i), prompt, 1) for i, prompt in enumerate(prompts)]
    sampling = samplers.SamplingSettings(max_new_tokens=24, temperature=0.0, stop=template.stops)
    answers = {answer.id: answer.texts[0] for answer in sampler.generate(samplers.from_list(requests), sampling)}
    sampler.close()
    assert [record["translation"] for record in found] == [clean_answer(answers[str(i)], "###") for i in range(4)]
    manifest = json.loads((folder_of(tmp_path, tiny_lm) / "manifest_translate.json").read_text())
    assert manifest["settings"]["dataset_name_or_path"] == "udhr" and manifest["sentences"] == 4


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


def test_comptra_divides_translates_and_merges(main_here, tiny_lm, tmp_path):
    flags = ("--steps", 2, "--method_divide", "space", "--number_of_subproblems", 2, "--lid_model", "cld2")
    result = main_here("--output_dir", tmp_path, *flags, "--max_samples", 2, "--verbose")
    assert result.returncode == 0, result.stderr
    room, folder = tmp_path / Path(tiny_lm).name, folder_of(tmp_path, tiny_lm, divide="space", n=2, steps=2)
    sentences = udhr(2).sources
    assert texts(room / "divide_0.jsonl", "sentence") == sentences
    phrases = [phrase for row in texts(room / "divide_0.jsonl", "propositions") for phrase in row]
    assert texts(room / "divide_1.jsonl", "sentence") == phrases == texts(folder / "translate_1.jsonl", "sentence")
    assert json.loads((room / "parent_0.jsonl").read_text()) == {"0": 0, "1": 0, "2": 1, "3": 1}
    assert [" ".join(row) for row in texts(room / "divide_0.jsonl", "propositions")] == [
        " ".join(sentence.split()) for sentence in sentences
    ]
    # The merge is asked with exactly the phrase pairs that are in Basque, in order.
    from comptra import language_id

    basque = languages.find("Basque")
    lower = records(folder / "translate_1.jsonl")[:2]
    fits = language_id.load("cld2").is_language([record["translation"] for record in lower], basque)
    shots = [
        (record["sentence"], record["translation"])
        for record, fit in zip(lower, fits, strict=True)
        if fit and record["translation"]
    ]
    prompt = get_template(11, "English", "Basque").get_prompt(shots, sentences[0])
    shown = result.stdout
    assert "\n".join(f"  | {line}" for line in prompt.splitlines()) in shown, "the trace shows the merge's prompt"
    final = records(folder / "translate_0.jsonl")[0]
    assert shown.splitlines()[0] == final["sentence"] and f"=> {final['translation']}" in shown
    for phrase in phrases[:2]:
        assert f"    {phrase}" in shown


def kill_twice(whole_run, model: str, tmp_path, steps: int, counts: tuple[int, int], **changes) -> None:
    """kill -9 as soon as so many answers are there; the outcome is that of an undisturbed run, and nothing is asked twice."""
    more = ("--steps", steps, "--method_divide", "space", "--number_of_subproblems", 2, "--request_batch_size", 1)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = ("main.py", *options(model, *more, max_samples=5, **changes))
    assert whole_run(*command, "--output_dir", whole).returncode == 0
    folder, other = (folder_of(output, model, divide="space", n=2, steps=steps) for output in (killed, whole))
    for count in counts:
        kill_when = lambda count=count: lines_in(folder / "answers.jsonl") >= count  # noqa: E731
        script(*command, "--output_dir", killed, kill_when=kill_when)
        assert not (folder / "manifest_translate.json").exists()
    assert whole_run(*command, "--output_dir", killed).returncode == 0
    for step in range(steps + 1):
        name = f"translate_{step}.jsonl"
        assert (folder / name).read_bytes() == (other / name).read_bytes()
    ids = texts(folder / "answers.jsonl", "id")
    assert len(ids) == len(set(ids)) == lines_in(other / "answers.jsonl")


@pytest.mark.parametrize(
    ("steps", "counts"),
    [
        pytest.param(0, (2, 4), marks=pytest.mark.slow),
        (1, (4, 12)),  # while phrases are translated, and while sentences are
        pytest.param(2, (12, 25), marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_time_and_resumed(steps, counts, script_here, tiny_lm, tmp_path):
    kill_twice(script_here, tiny_lm, tmp_path, steps, counts)


@pytest.mark.slow
def test_killed_and_resumed_with_vllm(gemma, tmp_path):
    kill_twice(script, gemma, tmp_path, 1, (3, 12), inference_api="vllm", max_in_flight=2)


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
    assert manifest["inherited_lines"] == 2
    assert records(path)[:2] == lines and texts(path, "sentence") == data.sources


def test_a_nested_directory_of_the_originals_is_continued(main_here, tiny_lm, tmp_path):
    """Divisions of one sentence and the translation of its first phrase are there; the rest is made."""
    data = udhr(2)
    first = {"sentence": data.sources[0], "propositions": ["Everyone has the right", "to take part"]}
    room, folder = tmp_path / Path(tiny_lm).name, folder_of(tmp_path, tiny_lm, divide="space", n=2, steps=1)
    folder.mkdir(parents=True)
    (room / "divide_0.jsonl").write_text(json.dumps(first) + "\n")
    phrase = {"sentence": "Everyone has the right", "translation": "Pertsona orok eskubidea du"}
    (folder / "translate_1.jsonl").write_text(json.dumps(phrase) + "\n")
    flags = ("--steps", 1, "--method_divide", "space", "--number_of_subproblems", 2, "--max_samples", 2, "--verbose")
    result = main_here("--output_dir", tmp_path, *flags)
    assert result.returncode == 0, result.stderr
    assert records(room / "divide_0.jsonl")[0] == first and lines_in(room / "divide_0.jsonl") == 2
    lower = records(folder / "translate_1.jsonl")
    assert lower[0] == phrase and [record["sentence"] for record in lower[:2]] == first["propositions"]
    assert json.loads((room / "parent_0.jsonl").read_text()) == {"0": 0, "1": 0, "2": 1, "3": 1}
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


def test_results_of_two_runs_do_not_mix(main_here, tiny_lm, tmp_path):
    assert main_here("--output_dir", tmp_path).returncode == 0
    path = folder_of(tmp_path, tiny_lm) / "translate_0.jsonl"
    before = path.read_bytes()
    other = main_here("--output_dir", tmp_path, "--max_new_tokens", 20)
    assert other.returncode == 2 and "max_new_tokens was 24, now 20" in other.stderr
    for name in ("settings_translate.json", "manifest_translate.json"):
        (path.parent / name).unlink()
    record = json.loads(before.splitlines()[0]) | {"sentence": "Another sentence."}
    path.write_text(json.dumps(record) + "\n")
    other = main_here("--output_dir", tmp_path)
    assert other.returncode == 2 and "line 1 holds 'Another sentence.'" in other.stderr
    assert lines_in(path) == 1, "nothing is written to it"


@pytest.mark.parametrize("method", ["cot", "step_by_step", "TEaR"])
def test_what_a_method_could_not_ask_on_the_way_is_asked_again(method, main_here, tiny_lm, tmp_path):
    """The thoughts have no room, the translation has; then there is room. The trace of a method without shots is shown."""
    flags = ("--output_dir", tmp_path, "--method_translate", method, "--max_samples", 2, "--verbose")
    first = main_here(*flags, "--max_model_len", 1200)
    assert first.returncode == 3 and "are marked as unanswered" in first.stderr, first.stderr
    path = folder_of(tmp_path, tiny_lm) / "translate_0.jsonl"
    assert [line["unanswered"] for line in records(path)] == [True, True] and all(texts(path))
    assert (first.stdout.count("demonstration: ") == 2) == (method == "TEaR")
    manifest = json.loads((path.parent / "manifest_translate.json").read_text())
    assert manifest["unanswered_prompts"] == 2 and "exceed --max_model_len" in manifest["unanswered"][0]
    again = main_here(*flags)
    assert again.returncode == 0 and "unanswered" not in path.read_text()
    assert len(texts(path)) == 2


def test_a_run_with_nothing_to_do_keeps_its_record(main_here, tiny_lm, tmp_path):
    first = main_here("--output_dir", tmp_path)
    assert "answers ended at the 24 tokens of --max_new_tokens" in first.stderr
    path = folder_of(tmp_path, tiny_lm) / "manifest_translate.json"
    before = path.read_bytes()
    again = main_here("--output_dir", tmp_path)
    assert again.returncode == 0 and path.read_bytes() == before
    assert "answers ended at the 24 tokens of --max_new_tokens" in again.stderr
    longer = main_here("--output_dir", tmp_path, "--max_samples", 5)
    manifest = json.loads(path.read_text())
    assert longer.returncode == 0 and manifest["sentences"] == 5
    assert manifest["answers_cut_at_limit"]["24"] >= json.loads(before)["answers_cut_at_limit"]["24"]


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


def test_keyword_divides_by_the_pool_whatever_the_method(main_here, tiny_lm, tmp_path):
    flags = ("--output_dir", tmp_path, "--steps", 1, "--method_divide", "keyword", "--max_samples", 2)
    assert main_here(*flags, "--method_translate", "none").returncode == 0
    divided = (tmp_path / Path(tiny_lm).name / "divide_0.jsonl").read_bytes()
    assert main_here(*flags).returncode == 0
    assert (tmp_path / Path(tiny_lm).name / "divide_0.jsonl").read_bytes() == divided


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
    made = (room / "divide_0.jsonl").stat().st_mtime_ns
    assert main_here(*flags, "--tgt", "Swahili").returncode == 0
    assert (room / "divide_0.jsonl").stat().st_mtime_ns == made
    back = main_here(*flags, "--src", "Basque", "--tgt", "English")
    assert back.returncode == 2 and "src was 'English', now 'Basque'" in back.stderr
    assert main_here(*flags, "--src", "Basque", "--tgt", "English", "--metadata_dir", tmp_path / "eu").returncode == 0


def test_candidates_and_their_selection(main_here, tiny_lm, tmp_path):
    sacrebleu = pytest.importorskip("sacrebleu")
    flags = ("--num_return_sequences", 4, "--temperature", 1.0, "--selection_method", "chrf")
    assert main_here("--output_dir", tmp_path, *flags, "--max_samples", 2).returncode == 0
    folder = folder_of(tmp_path, tiny_lm)
    answers = texts(folder / "answers.jsonl", "texts")
    assert all(len(set(candidates)) > 1 for candidates in answers)
    best = []
    for candidates in answers:
        cleaned = [clean_answer(text, "###") for text in candidates]
        scores = [
            sum(sacrebleu.sentence_chrf(one, [other]).score for j, other in enumerate(cleaned) if j != i)
            for i, one in enumerate(cleaned)
        ]
        best.append(cleaned[scores.index(max(scores))])
    # Two prompts of one batch, the shorter one first.
    assert texts(folder / "translate_0.jsonl") in (best, best[::-1]) and best[0] != best[1]


def test_beams_are_candidates(main_here, tiny_lm, tmp_path):
    flags = ("--num_beams", 3, "--num_return_sequences", 3, "--max_samples", 1)
    assert main_here("--output_dir", tmp_path, *flags).returncode == 0
    folder = folder_of(tmp_path, tiny_lm)
    (beams,) = texts(folder / "answers.jsonl", "texts")
    assert len(set(beams)) == 3
    assert texts(folder / "translate_0.jsonl") == [clean_answer(beams[0], "###")], "greedy: the best beam"


def test_an_encoder_decoder_needs_no_llm(script_here, tiny_nllb, tmp_path):
    result = script_here(
        "main.py", "--method_translate", "nllb", "--nllb_name_or_path", tiny_nllb, "--dataset_name_or_path", "udhr", "--src",
        "Basque", "--tgt", "English", "--max_samples", 3, "--k", 0, "--nllb_compute_type", "float32", "--cache_dir",
        tmp_path / "cache", "--output_dir", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (path,) = (tmp_path / "out" / Path(tiny_nllb).name).glob("Basque_to_English_0_shot_*/translate_0.jsonl")
    assert all(texts(path)) and len(texts(path)) == 3
    command = (
        "main.py", "--method_translate", "nllb", "--dataset_name_or_path", "udhr", "--src", "Basque", "--tgt", "English",
        "--k", 0, "--nllb_compute_type", "float32", "--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out",
    )  # fmt: skip
    other = script_here(*command, "--nllb_name_or_path", f"{tiny_nllb}/", "--max_samples", 3, "--inference_api", "hf")
    assert other.returncode == 0, other.stderr
    refused = script_here(*command, "--nllb_name_or_path", tiny_nllb, "--num_beams", 4)
    assert refused.returncode == 2 and "gives one translation" in refused.stderr


def make_adapters(model_name: str, root: Path) -> list[str]:
    """Two LoRA adapters of rank 8 with weights large enough to change the answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(model_name),
            LoraConfig(r=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
        )
        folders.append(str(root / f"checkpoint-{seed}"))
        model.save_pretrained(folders[-1])
    return folders


@pytest.fixture(scope="module")
def adapters(tiny_lm, tmp_path_factory) -> list[str]:
    return make_adapters(tiny_lm, tmp_path_factory.mktemp("run"))


def test_all_checkpoints_of_a_run_in_one_call(script_here, tiny_lm, adapters, tmp_path):
    command = ("main.py", *options(tiny_lm, "--base_model_name_or_path", tiny_lm, model_name_or_path=None))
    result = script_here(*command, "--model_name_or_path", *adapters, "--output_dir", tmp_path / "both")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("loading") == 1, "the base is loaded once"
    found = [texts(folder_of(tmp_path / "both", adapter) / "translate_0.jsonl") for adapter in adapters]
    assert found[0] != found[1]
    base = script_here(
        *command, "--model_name_or_path", tiny_lm, adapters[0], "--enable_lora", "--output_dir", tmp_path
    )
    assert base.returncode == 0 and base.stderr.count("loading") == 1, base.stderr
    assert texts(folder_of(tmp_path, tiny_lm) / "translate_0.jsonl") != found[0]
    assert texts(folder_of(tmp_path, adapters[0]) / "translate_0.jsonl") == found[0]
    alone = script_here(
        *command, "--model_name_or_path", adapters[1], "--enable_lora", "--output_dir", tmp_path / "one"
    )
    assert alone.returncode == 0, alone.stderr
    assert texts(folder_of(tmp_path / "one", adapters[1]) / "translate_0.jsonl") == found[1]


@pytest.mark.slow
def test_vllm_and_transformers_answer_alike_for_all_checkpoints(gemma, tmp_path):
    """The base model and two adapters in one call, greedily and in float32."""
    adapters = make_adapters(gemma, tmp_path / "run")
    found = {}
    for api in ("vllm", "hf"):
        flags = options(
            gemma, *adapters, "--output_dir", tmp_path / api, inference_api=api, k=0, max_samples=3, max_new_tokens=16
        )
        flags.remove("--model_name_or_path")
        flags.remove(gemma)
        result = script("main.py", "--model_name_or_path", gemma, *flags)
        assert result.stderr.count("main.py: loading") == 1
        found[api] = [texts(folder_of(tmp_path / api, name, k=0) / "translate_0.jsonl") for name in (gemma, *adapters)]
    assert found["vllm"] == found["hf"]
    assert len({tuple(answers) for answers in found["hf"]}) == 3


@pytest.mark.slow
def test_comptra_traced_on_gemma(gemma, tmp_path):
    """The model divides; the trace shows its phrases, their demonstrations and the prompt of the merge."""
    flags = options(gemma, "--steps", 1, "--max_new_tokens_divide", 160, "--verbose", max_samples=1, k=2)
    shown = script("main.py", *flags, "--output_dir", tmp_path).stdout
    (division,) = records(tmp_path / Path(gemma).name / "divide_0.jsonl")
    lower = records(folder_of(tmp_path, gemma, k=2, steps=1) / "translate_1.jsonl")
    assert len(division["propositions"]) > 1
    assert [record["sentence"] for record in lower] == division["propositions"]
    for record in lower:
        assert f"    {record['sentence']}\n" in shown and f"    => {record['translation']}" in shown
    assert (
        shown.count("      demonstration: ") == 2 * len(lower)
        and "  prompt of the merge:\n  | English sentence" in shown
    )


def test_what_a_checkpoint_was_trained_on(main_here, tiny_lm, tmp_path):
    """Its template is the default; another one is told. A dry run shows the prompt and loads nothing."""
    model = tmp_path / "trained"
    shutil.copytree(tiny_lm, model)
    (model / "settings_train.json").write_text('{"template_key": "14"}')
    dry = main_here("--model_name_or_path", model, "--output_dir", tmp_path / "out", "--dry_run")
    assert dry.returncode == 0 and "Translate this from English to Basque:" in dry.stdout
    assert not (tmp_path / "out").exists()
    told = main_here("--model_name_or_path", model, "--output_dir", tmp_path, "--template_key", 9, "--dry_run")
    assert "was fine-tuned on template 14, but is asked with 9" in told.stderr
    named = get_template(14, "English", "Basque").name
    same = main_here("--model_name_or_path", model, "--output_dir", tmp_path, "--template_key", named, "--dry_run")
    assert same.returncode == 0 and "fine-tuned" not in same.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--template_key", 18), "--template_key 18"),
        (("--retriever_type", "bm26"), "invalid choice: 'bm26'"),
        (("--method_translate", "magic"), "invalid choice: 'magic'"),
        (("--k", 500), "--k 500 is more than the"),
        (("--k", 2, "--dataset_name_or_path", "validation"), "cannot load flores"),
        (("--tgt", "Klingon"), "unknown language 'Klingon'"),
        (("--tgt", "English"), "both English"),
        (("--num_return_sequences", 4), "greedy decoding gives one answer"),
        (("--selection_method", "bleu"), "nothing to choose from"),
        (("--number_of_subproblems", 0), "--number_of_subproblems 0"),
        (("--method_translate", "none"), "pass --steps 1"),
        (("--retriever_type", "structural"), "spaCy"),
        (("--steps", 1, "--mode_divide", "vanila"), "vanilla"),
        (("--base_model_name_or_path", "x"), "is for adapters"),
        (("--prompt_style", "chat"), "no chat template"),
        (("--metadata_dir", "x", "--steps", 1, "--model_name_or_path", "a", "b"), "holds the divisions of one model"),
    ],
)
def test_bad_input_is_told_before_anything_is_loaded(flags, message, main_here, tmp_path):
    result = main_here("--output_dir", tmp_path / "out", *flags)
    assert result.returncode == 2 and message in result.stderr and "loading" not in result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "out").exists()


def test_a_rank_that_does_not_fit(script_here, tiny_lm, adapters, tmp_path):
    command = ("main.py", *options(adapters[0], "--lora_rank", 4, "--output_dir", tmp_path))
    result = script_here(*command, "--base_model_name_or_path", tiny_lm)
    assert result.returncode == 2 and "--lora_rank 4 is less than the rank of" in result.stderr
    assert "pass --lora_rank 8" in result.stderr


def test_an_encoder_decoder_is_no_llm(main_here, tiny_nllb, tmp_path, monkeypatch):
    cached = snapshot(tmp_path / "hub", "org/nllb", monkeypatch)
    (cached / "config.json").write_text('{"model_type": "m2m_100", "is_encoder_decoder": true}')
    for name in (tiny_nllb, "org/nllb"):
        result = main_here("--model_name_or_path", name, "--output_dir", tmp_path / "out")
        assert result.returncode == 2 and "pass --method_translate nllb --nllb_name_or_path" in result.stderr


def test_an_adapter_from_the_hub_is_known_as_one(main_here, adapters, tmp_path, monkeypatch):
    cached = snapshot(tmp_path / "hub", "org/adapter", monkeypatch)
    shutil.copy(Path(adapters[0]) / "adapter_config.json", cached)
    result = main_here("--model_name_or_path", "org/adapter", "--lora_rank", 4, "--output_dir", tmp_path / "out")
    assert result.returncode == 2 and "--lora_rank 4 is less than the rank of org/adapter" in result.stderr


def test_files_of_ones_own(main_here, tmp_path):
    (tmp_path / "a.txt").write_text("One house.\n\nTwo houses.\n")
    (tmp_path / "b.txt").write_text("Etxe bat.\nEz.\nBi etxe.\n")
    command = ("--dataset_name_or_path", "files", "--k", 0, "--output_dir", tmp_path / "out")
    empty = main_here(*command, "--test_files", tmp_path / "a.txt", tmp_path / "b.txt")
    assert empty.returncode == 2 and "a.txt" in empty.stderr and "2" in empty.stderr
    (tmp_path / "a.txt").write_text("One house.\nNo.\nTwo houses.\n")
    assert main_here(*command, "--test_files", tmp_path / "a.txt", tmp_path / "b.txt").returncode == 0


def test_a_prompt_too_long_is_told(main_here, tiny_lm, tmp_path):
    result = main_here("--output_dir", tmp_path, "--max_model_len", 64)
    assert result.returncode == 3 and "4 prompts got no answer" in result.stderr
    assert "exceed --max_model_len 64" in result.stderr
    path = folder_of(tmp_path, tiny_lm) / "translate_0.jsonl"
    assert texts(path) == [""] * 4
    again = main_here("--output_dir", tmp_path, "--max_model_len", 64)
    assert again.returncode == 3, "it stays a failure"
    mended = main_here("--output_dir", tmp_path)
    assert mended.returncode == 0 and all(texts(path)) and lines_in(path) == 4
    assert "unanswered" not in path.read_text()


def test_what_cannot_be_divided_is_told_and_asked_again(main_here, tiny_lm, tmp_path):
    flags = ("--output_dir", tmp_path, "--steps", 1, "--max_samples", 2)
    result = main_here(*flags, "--max_new_tokens_divide", 2040)
    assert result.returncode == 2 and "2 of 2 sentences could not be divided" in result.stderr
    assert "raise --max_model_len" in result.stderr
    result = main_here(*flags, "--max_new_tokens_divide", 30)
    assert result.returncode == 2 and "max_new_tokens_divide was 2040, now 30" in result.stderr


def test_weights_are_told_apart_wherever_they_differ(tmp_path, monkeypatch):
    from comptra import models

    path = tmp_path / "model.safetensors"
    monkeypatch.setattr(models, "SAMPLE", 100)
    seen = set()
    for place in (None, 0, 26_000, 99_999):  # a part of it is read
        weights = bytearray(100_000)
        for i in range(place or 0, min((place or 0) + 600, 100_000) if place is not None else 0):
            weights[i] = 1
        path.write_bytes(weights)
        seen.add(models.fingerprint(str(tmp_path)))
        assert models.fingerprint(str(path)) == models.fingerprint(str(tmp_path))
    assert len(seen) == 4 and models.fingerprint("org/model") == "" == models.fingerprint(str(tmp_path / "none"))


def test_a_retrained_model_is_another(main_here, tiny_lm, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_lm, model)
    flags = ("--model_name_or_path", model, "--output_dir", tmp_path / "out", "--max_samples", 1)
    assert main_here(*flags).returncode == 0
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
    assert result.returncode == 2 and "weights was" in result.stderr and "--metadata_dir" in result.stderr


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
    assert result.returncode == 2 and "line 1: translation is '7'" in result.stderr


def test_a_chat_models_preface_is_no_translation():
    from comptra import answers

    assert answers.line("Here is the translation:\n\n**Kaixo mundua.**") == "Kaixo mundua."
    assert answers.line("Kaixo:\n") == "Kaixo:" and answers.line("Kaixo.\nNote: it is.") == "Kaixo."
    assert answers.line("so I must", thinking=True) == "" and answers.line("hm</think>\nBai.", thinking=True) == "Bai."


def test_its_directories_are_scored(main_here, script_here, tiny_lm, tmp_path):
    assert main_here("--output_dir", tmp_path).returncode == 0
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    result = script("-m", "comptra.evaluate", tmp_path, "--json", tmp_path / "scores.json")
    assert "BLEU" in result.stdout and "chrF++" in result.stdout
    assert json.loads((tmp_path / "scores.json").read_text())
