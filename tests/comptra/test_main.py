"""main.py as users run it: small real models, the embedded UDHR and hand-made files."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.support.main_runs import folder_of, options, texts, udhr
from tests.support.runs import in_process, records, script, snapshot
from topxgen import inference, translation
from topxgen.prompting.answers import clean_answer
from topxgen.prompting.mt_templates import get_template
from topxgen.text import languages
from topxgen.translation import TranslatorSettings


def test_without_steps_it_is_plain_few_shot(main_here, tiny_lm, tmp_path):
    import bm25s

    from topxgen.text.words import unicode_words

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
    sampler = inference.load("hf", inference.ModelSettings(tiny_lm, dtype="float32"))
    requests = [inference.Request(str(i), prompt, 1) for i, prompt in enumerate(prompts)]
    sampling = inference.SamplingSettings(max_new_tokens=12, temperature=0.0, stop=template.stops)
    answers = {answer.id: answer.texts[0] for answer in sampler.generate(inference.from_list(requests), sampling)}
    sampler.close()
    assert [record["translation"] for record in found] == [clean_answer(answers[str(i)], "###") for i in range(4)]
    manifest = json.loads((folder_of(tmp_path, tiny_lm) / "manifest_translate.json").read_text())
    assert manifest["settings"]["dataset_name_or_path"] == "udhr" and manifest["sentences"] == 4


def test_max_samples_of_minus_1_is_all(main_here, tmp_path):
    count = len(udhr(None).sources)
    for flags in (("--max_samples", -1), ("--max_samples", 100000)):
        assert f": {count} sentences to" in main_here("--output_dir", tmp_path, "--dry_run", *flags).stdout
    none = main_here("--output_dir", tmp_path, "--max_samples", 0)
    assert (
        none.returncode == 2 and "--max_samples: '0' is not a whole number of 1 or more, nor -1 for all" in none.stderr
    )


def test_comptra_divides_translates_and_merges(main_here, tiny_lm, tmp_path):
    flags = ("--steps", 2, "--method_divide", "space", "--number_of_subproblems", 2, "--lid_model", "cld2")
    result = main_here("--output_dir", tmp_path, *flags, "--max_samples", 2, "--verbose")
    assert result.returncode == 0, result.stderr
    room, folder = tmp_path / Path(tiny_lm).name, folder_of(tmp_path, tiny_lm, divide="space", n=2, steps=2)
    sentences = udhr(2).sources
    assert texts(room / "divide_1.jsonl", "sentence") == sentences
    phrases = [phrase for row in texts(room / "divide_1.jsonl", "propositions") for phrase in row]
    assert texts(room / "divide_2.jsonl", "sentence") == phrases == texts(folder / "translate_1.jsonl", "sentence")
    assert json.loads((room / "parent_1.jsonl").read_text()) == {"0": 0, "1": 0, "2": 1, "3": 1}
    assert [" ".join(row) for row in texts(room / "divide_1.jsonl", "propositions")] == [
        " ".join(sentence.split()) for sentence in sentences
    ]
    # The merge is asked with exactly the phrase pairs that are in Basque, in order.
    from topxgen.text import language_id

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


def test_keyword_divides_by_the_pool_whatever_the_method(main_here, tiny_lm, tmp_path):
    flags = ("--output_dir", tmp_path, "--steps", 1, "--method_divide", "keyword", "--max_samples", 2)
    assert main_here(*flags, "--method_translate", "none").returncode == 0
    divided = (tmp_path / Path(tiny_lm).name / "divide_1.jsonl").read_bytes()
    assert main_here(*flags).returncode == 0
    assert (tmp_path / Path(tiny_lm).name / "divide_1.jsonl").read_bytes() == divided


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


def test_an_encoder_decoder_needs_no_llm(tiny_nllb, tmp_path):
    result = in_process(
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
    idle = ("--inference_api", "hf", "--enable_lora", "--base_model_name_or_path", "x")
    other = in_process(*command, "--nllb_name_or_path", f"{tiny_nllb}/", "--max_samples", 3, *idle)
    assert other.returncode == 0, other.stderr
    assert "--enable_lora, --base_model_name_or_path" in other.stderr and "no effect without an LLM" in other.stderr
    refused = in_process(*command, "--nllb_name_or_path", tiny_nllb, "--num_beams", 4)
    assert refused.returncode == 2 and "gives one translation" in refused.stderr


def test_translations_of_an_encoder_decoder_that_are_cut_are_marked(tiny_nllb, tmp_path, monkeypatch):
    monkeypatch.setattr("topxgen.translation.nllb.LENGTH_STEP", 1)  # twice the tokens of one word are few
    sources = ["Gizon-emakume", "guztiak", "Gizon-emakume guztiak aske jaiotzen dira."]
    for name, lines in (("sources", sources), ("references", ["Men and women", "all", "All are born free."])):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    result = in_process(
        "main.py", "--method_translate", "nllb", "--nllb_name_or_path", tiny_nllb, "--dataset_name_or_path", "files", "--test_files",
        tmp_path / "sources", tmp_path / "references", "--src", "Basque", "--tgt", "English", "--k", 0, "--nllb_compute_type",
        "float32", "--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    settings = TranslatorSettings(
        nllb_name_or_path=str(tiny_nllb), nllb_compute_type="float32", cache_dir=tmp_path / "cache"
    )
    translator = translation.create("nllb", settings)
    translator.load()
    cut = [one.truncated for one in translator.translate(sources, *map(languages.find, ("Basque", "English")))]
    translator.close()
    (path,) = (tmp_path / "out").rglob("translate_0.jsonl")
    assert any(cut) and [record.get("truncated", False) for record in records(path)] == cut
    assert f"{sum(cut)} translations cut at the limit of new tokens" in result.stderr
    assert "twice the tokens of the source" in result.stderr and "raise" not in result.stderr


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


@pytest.mark.medium
def test_all_checkpoints_of_a_run_in_one_call(tiny_lm, adapters, tmp_path):
    command = ("main.py", *options(tiny_lm, "--base_model_name_or_path", tiny_lm, model_name_or_path=None))
    result = in_process(*command, "--model_name_or_path", *adapters, "--output_dir", tmp_path / "both")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("loading") == 1, "the base is loaded once"
    found = [texts(folder_of(tmp_path / "both", adapter) / "translate_0.jsonl") for adapter in adapters]
    assert found[0] != found[1]
    base = in_process(*command, "--model_name_or_path", tiny_lm, adapters[0], "--enable_lora", "--output_dir", tmp_path)
    assert base.returncode == 0 and base.stderr.count("loading") == 1, base.stderr
    assert texts(folder_of(tmp_path, tiny_lm) / "translate_0.jsonl") != found[0]
    assert texts(folder_of(tmp_path, adapters[0]) / "translate_0.jsonl") == found[0]
    alone = in_process(*command, "--model_name_or_path", adapters[1], "--enable_lora", "--output_dir", tmp_path / "one")
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
        assert result.stderr.count("loading ") == 1
        found[api] = [texts(folder_of(tmp_path / api, name, k=0) / "translate_0.jsonl") for name in (gemma, *adapters)]
    assert found["vllm"] == found["hf"]
    assert len({tuple(answers) for answers in found["hf"]}) == 3


@pytest.mark.slow
def test_comptra_traced_on_gemma(gemma, tmp_path):
    """The model divides; the trace shows its phrases, their demonstrations and the prompt of the merge."""
    flags = options(gemma, "--steps", 1, "--max_new_tokens_divide", 160, "--verbose", max_samples=1, k=2)
    shown = script("main.py", *flags, "--output_dir", tmp_path).stdout
    (division,) = records(tmp_path / Path(gemma).name / "divide_1.jsonl")
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
    """Its template is the default; another one is reported. A dry run shows the prompt and loads nothing."""
    model = tmp_path / "trained"
    shutil.copytree(tiny_lm, model)
    (model / "settings_train.json").write_text('{"template_key": "14"}')
    dry = main_here("--model_name_or_path", model, "--output_dir", tmp_path / "out", "--dry_run")
    assert dry.returncode == 0 and "Translate this from English to Basque:" in dry.stdout
    assert not (tmp_path / "out").exists()
    told = main_here("--model_name_or_path", model, "--output_dir", tmp_path, "--template_key", 9, "--dry_run")
    assert "was fine-tuned on template 14, but is prompted with 9" in told.stderr
    named = get_template(14, "English", "Basque").name
    same = main_here("--model_name_or_path", model, "--output_dir", tmp_path, "--template_key", named, "--dry_run")
    assert same.returncode == 0 and "fine-tuned" not in same.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--template_key", 18), "--template_key '18' does not exist"),
        (("--retriever_type", "bm26"), "--retriever_type: 'bm26' is not one of bm25s, "),
        (("--method_translate", "magic"), "--method_translate: 'magic' is not one of vanilla, "),
        (("--k", 500), "--k 500 is more than the"),
        (("--k", 2, "--dataset_name_or_path", "validation"), "data set openlanguagedata/flores_plus"),
        (("--tgt", "Klingon"), "unknown language 'Klingon'"),
        (("--tgt", "English"), "both English"),
        (("--num_return_sequences", 4), "greedy decoding gives one response"),
        (("--selection_method", "bleu"), "nothing to choose from"),
        (("--number_of_subproblems", 0, "--steps", 1), "--number_of_subproblems 0: pass a number of phrases, or -1"),
        (("--number_of_subproblems", -2), "--number_of_subproblems: '-2' is not a whole number of -1 or more"),
        (("--number_of_subproblems", "x"), "--number_of_subproblems: 'x' is not a whole number of -1 or more"),
        (("--method_translate", "none"), "pass --steps 1"),
        (("--refine_after_merge",), "--refine_after_merge has no effect without --steps 1 or more"),
        (("--refine_after_merge", "twice"), "--refine_after_merge: 'twice' is not a whole number from 0 to 100"),
        (("--refine_after_merge", 1000), "--refine_after_merge: '1000' is not a whole number from 0 to 100"),
        (("--retriever_type", "structural"), "spaCy"),
        (("--steps", 1, "--mode_divide", "vanila"), "vanilla"),
        (("--base_model_name_or_path", "x"), "is for adapters"),
        (("--prompt_style", "chat"), "no chat template"),
        (("--metadata_dir", "a/b"), "--metadata_dir 'a/b' must be a plain name without slashes"),
        (
            ("--metadata_dir", "a\n\x1b[2Jb"),
            r"--metadata_dir 'a\n\x1b[2Jb' must be a plain name without slashes and control",
        ),
        (("--metadata_dir", ""), "--metadata_dir is empty; is a shell variable unset?"),
        (("--metadata_dir", ".lock"), "--metadata_dir '.lock' is a name of files that runs keep beside their results"),
    ],
)
def test_bad_input_is_told_before_anything_is_loaded(flags, message, main_here, tmp_path):
    result = main_here("--output_dir", tmp_path / "out", *flags)
    assert result.returncode == 2 and message in result.stderr and "loading" not in result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "out").exists()


def test_a_rank_that_does_not_fit(tiny_lm, adapters, tmp_path):
    command = ("main.py", *options(adapters[0], "--lora_rank", 4, "--output_dir", tmp_path))
    result = in_process(*command, "--base_model_name_or_path", tiny_lm)
    assert result.returncode == 2 and "--lora_rank 4 is less than the rank of" in result.stderr
    assert "pass --lora_rank 8" in result.stderr


def test_an_encoder_decoder_is_no_llm(main_here, tiny_nllb, tmp_path, monkeypatch):
    cached = snapshot(tmp_path / "hub", "org/nllb", monkeypatch)
    (cached / "config.json").write_text('{"model_type": "m2m_100", "is_encoder_decoder": true}')
    (cached / "pytorch_model.bin").write_bytes(b"weights")
    (cached / "tokenizer.json").write_text("{}")
    for name in (tiny_nllb, "org/nllb"):
        result = main_here("--model_name_or_path", name, "--output_dir", tmp_path / "out")
        assert result.returncode == 2 and "pass --method_translate nllb --nllb_name_or_path" in result.stderr


def test_an_adapter_from_the_hub_is_known_as_one(main_here, adapters, tmp_path, monkeypatch):
    cached = snapshot(tmp_path / "hub", "org/adapter", monkeypatch)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(Path(adapters[0]) / name, cached)
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


def test_a_chat_models_preface_is_no_translation():
    from comptra import answer_parsing

    assert answer_parsing.line("Here is the translation:\n\n**Kaixo mundua.**") == "Kaixo mundua."
    assert answer_parsing.line("Kaixo:\n") == "Kaixo:" and answer_parsing.line("Kaixo.\nNote: it is.") == "Kaixo."
    assert answer_parsing.line("hm</think>\nBai.") == "Bai."


def test_its_directories_are_scored(main_here, tiny_lm, tmp_path):
    assert main_here("--output_dir", tmp_path).returncode == 0
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    result = script("-m", "comptra.evaluate", tmp_path, "--json", tmp_path / "scores.json")
    assert "BLEU" in result.stdout and "chrF++" in result.stdout
    assert json.loads((tmp_path / "scores.json").read_text())


STEPS = ("--steps", 1, "--method_divide", "space", "--lid_model", "cld2")
IDLE = [
    (("--method_divide", "llm"), "--method_divide has no effect without --steps 1 or more"),
    (("--merge_prompt", "refine", "--mode_divide", "paraphrase"), "have no effect without --steps 1 or more"),
    (("--number_of_merge_demonstrations", 2), "without --steps"),
    (("--number_of_subproblems", 3), "without --steps"),
    (("--lid_model", "cld2"), "without --steps"),
    ((*STEPS, "--mode_divide", "paraphrase"), "--mode_divide has no effect without --method_divide llm"),
    ((*STEPS, "--max_new_tokens_divide", 100), "without --method_divide llm"),
    ((*STEPS, "--number_of_repetitions", 2), "without --method_divide identity"),
    ((*STEPS, "--method_divide", "identity", "--number_of_subproblems", 3), "without a --method_divide other than"),
    (
        (*STEPS, "--method_translate", "none", "--merge_prompt", "refine"),
        "without a --method_translate other than none",
    ),
    ((*STEPS, "--method_translate", "none", "--temperature", 0.5), "without a --method_translate other than none"),
    (("--retriever_type", "LCS"), "--retriever_type has no effect without demonstrations (--k"),
    (
        ("--k", 2, "--retriever_type", "Random", "--retriever_tokens", "original"),
        "--retriever_tokens has no effect without --retriever_type bm25s or bm25",
    ),
    (("--sonar_name_or_path", "x"), "--sonar_name_or_path has no effect without"),
    (("--blaser_name_or_path", "x"), "--blaser_name_or_path has no effect without"),
    (("--comet_python", "x"), "without --selection_method comet-qe"),
    (("--spacy_model", "x"), "--spacy_model has no effect"),
    (("--nllb_name_or_path", "x"), "--nllb_name_or_path has no effect without --method_translate nllb"),
    (("--nllb_engine", "transformers"), "without --method_translate nllb"),
    (("--base_url", "http://localhost:8000/v1"), "--base_url has no effect without --inference_api openai, cohere"),
    (("--max_retries", 3), "without --inference_api openai"),
    (("--tensor_parallel_size", 2), "without --inference_api vllm"),
    (("--inference_api", "openai", "--data_parallel_size", 2), "without a model in this process"),
    (("--max_concurrent_requests", 2), "without --inference_api vllm or an API"),
    (("--lora_rank", 32), "--lora_rank has no effect without a LoRA adapter"),
    (("--num_beams", 2, "--temperature", 0.7), "--temperature has no effect without sampling"),
]


@pytest.mark.parametrize(("flags", "message"), IDLE, ids=lambda value: None if isinstance(value, str) else value[-2])
def test_flags_without_an_effect_end_the_run(flags, message, tiny_lm, tmp_path):
    command = options(tiny_lm, "--output_dir", tmp_path / "out", k=None, max_new_tokens_merge=None)
    for dry_run in ((), ("--dry_run",)):
        result = in_process("main.py", *command, *flags, *dry_run)
        assert result.returncode == 2 and message in result.stderr and "pass that, or drop" in result.stderr
        assert len(result.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()


PUBLISHED = [
    (("--steps", 0, "--method_divide", "llm", "--merge_prompt", "vanilla"), "have no effect without --steps 1 or more"),
    (("--benchmark_dir", "."), "--benchmark_dir has no effect without a --dataset_name_or_path that is not embedded"),
    (("--number_of_subproblems", 0), None),
    (("--steps", 0, "--number_of_merge_demonstrations", 0), None),
    (("--k", 0, "--retriever_type", "LCS"), "--retriever_type has no effect"),
    (("--k", 0, "--retriever_tokens", "original"), "--retriever_tokens has no effect"),
    (
        ("--num_return_sequences", 2, "--temperature", 1),
        "--num_return_sequences has no effect without a --selection_method",
    ),
    (("--k", 2, "--method_translate", "cot"), "--k has no effect"),
    (("--top_p", 1.0, "--repetition_penalty", 1.0, "--num_beams", 1, "--num_return_sequences", 1), None),
    (("--enable_lora", "false", "--lora_rank", 32), "--lora_rank has no effect"),
    (("--refine_after_merge", "false"), None),
]


@pytest.mark.parametrize(("flags", "line"), PUBLISHED)
def test_flags_that_are_switched_off_or_published_so_are_told_in_one_line(flags, line, tiny_lm, tmp_path):
    command = options(tiny_lm, "--output_dir", tmp_path, "--dry_run", k=None, max_new_tokens_merge=None)
    result = in_process("main.py", *command, *flags)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("no effect") == (line is not None) and (line or "") in result.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--seed", 2**32), "--seed: '4294967296' is not a whole number from 0 to 4294967295"),
        (("--number_of_refining_steps", 10**9), "--number_of_refining_steps: '1000000000' is not a whole number from"),
        (("--num_return_sequences", 10**9), "--num_return_sequences: '1000000000' is not a whole number from"),
        (("--max_new_tokens", 10**40), "is not a whole number from 1 to 1048576"),
        (("--temperature", "inf"), "--temperature: 'inf' is not a number of 0 or more"),
        (("--request_timeout", "inf"), "'inf' is not a number"),
        (("--output_dir=",), "--output_dir is empty; is a shell variable unset?"),
        (("--dataset_name_or_path", "x" * 300), "is not one of flores, ntrex"),
    ],
)
def test_numbers_have_bounds(flags, message, main_here, tmp_path):
    result = main_here("--output_dir", tmp_path, *flags)
    assert result.returncode == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_dry_run_finds_what_a_run_would(main_here, tiny_lm, tmp_path):
    """Results of other settings, lines of other sentences, an output directory that is a file; nothing is written."""
    (tmp_path / "file").write_text("")
    blocked = main_here("--output_dir", tmp_path / "file" / "out", "--dry_run")
    assert blocked.returncode == 2 and "file is not a directory" in blocked.stderr
    assert main_here("--output_dir", tmp_path / "out").returncode == 0
    folder = folder_of(tmp_path / "out", tiny_lm)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = main_here("--output_dir", tmp_path / "out", "--dry_run", "--max_new_tokens", 20)
    assert other.returncode == 2 and "max_new_tokens was 12, now 20" in other.stderr
    shorter = main_here("--output_dir", tmp_path / "out", "--dry_run", "--max_samples", 2)
    assert shorter.returncode == 2 and "more lines than the 2 sentences" in shorter.stderr
    with open(folder / "translate_0.jsonl", "a") as file:
        file.write('{"sentence": "ha')
    before["translate_0.jsonl"] += b'{"sentence": "ha'
    assert main_here("--output_dir", tmp_path / "out", "--dry_run").returncode == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
