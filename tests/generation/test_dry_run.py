"""--dry_run: it finds what a real run would, writes nothing, and says what each stage is going to need."""

import json
import re

import pytest

from tests.support.runs import TOPICS

API = ("--inference_api", "openai", "--api_key", "k", "--model_name_or_path", "gpt-x", "--demonstration_pool", "udhr")
SCORES = ("--scorer", "topxgen.generation.scoring:ConfidenceScorer")  # it runs anywhere, for any back-translator


def flags(folder, *more):
    return (
        "--languages", "Basque", "--seed_topics_path", TOPICS, "--output_dir", folder / "out", "--example_paragraphs", "udhr",
        "--example_sentences", "udhr", "--number_of_icl_demonstrations", 1, "--number_of_icl_phrases", 2,
        "--number_of_instructions", 100, "--dry_run", *more,
    )  # fmt: skip


def rows(stdout):
    table = stdout.partition("estimate, lowest to highest:\n")[2].splitlines()
    return {line.split()[0]: re.split(r"  +", line)[1:] for line in table[1:] if line}


def test_each_stage_is_estimated_in_tokens_and_money(tmp_path, datagen_here):
    result = datagen_here(*flags(tmp_path, *API, *SCORES, "--prices", 2, 10, "--budget", 0.1))
    found = rows(result.stdout)
    assert result.returncode == 0 and not (tmp_path / "out").exists()
    assert found["generate"][0] == "50 to 100 prompts" and found["translate"][0] == "400 to 1,200 sentences"
    assert found["score"][0] == "200 to 1,200 pairs"
    low = {
        name: [float(cell.split()[0].replace(",", "")) for cell in found[name][1:4]]
        for name in ("generate", "translate")
    }
    for prompt, answers, money in low.values():
        assert money == pytest.approx((2 * prompt + 10 * answers) / 1e6, rel=0.05)
    assert low["translate"][0] > 3 * low["generate"][0], "back-translation has most of the prompt tokens"
    total = float(found["total"][-1].split()[0])
    assert total == pytest.approx(low["generate"][2] + low["translate"][2], abs=0.02)
    assert "--budget 0.1 may end the run" in result.stdout


def test_short_responses_have_few_sentences(tmp_path, datagen_here):
    found = rows(datagen_here(*flags(tmp_path, *API, *SCORES, "--max_new_tokens", 150)).stdout)
    assert found["translate"][0] == "100 to 300 sentences" and found["score"][0] == "50 to 300 pairs"


def test_what_is_done_needs_no_estimate_and_rates_give_hours(tmp_path, datagen_here):
    out = tmp_path / "out"
    (out / "gpt-x").mkdir(parents=True)
    text = "Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela."
    (out / "Basque.jsonl").write_text(
        "".join(json.dumps({"text": text, "id": f"Basque-{i:06}.0"}) + "\n" for i in range(60))
    )
    (out / "settings_generate.json").write_text("{}")
    answer = {"texts": [text], "prompt_tokens": 10, "completion_tokens": 1000}
    lines = [json.dumps(answer | {"id": f"Basque-{i:06}"}) + "\n" for i in range(120)]
    (out / "Basque_answers.jsonl").write_text("".join(lines))
    pairs = {
        "sentence": text,
        "propositions": [text] * 3,
        "translations": ["All are born free."] * 3,
        "scores": [3.0] * 3,
    }
    (out / "gpt-x" / "Basque_translate.jsonl").write_text((json.dumps(pairs) + "\n") * 20)
    answer = {"texts": ["All are born free."], "prompt_tokens": 100, "completion_tokens": 20}
    lines = [json.dumps(answer | {"id": f"{i:032x}"}) + "\n" for i in range(60)]
    (out / "gpt-x" / "Basque_translate_answers.jsonl").write_text("".join(lines))
    (out / "rates.json").write_text(json.dumps({"generate": 0.01, "translate": 0.02, "score": 1}))
    before = sorted(out.rglob("*"))
    result = datagen_here(*flags(tmp_path, *API, *SCORES, "--prices", 2, 10))
    found = rows(result.stdout)
    assert found["generate"][0] == "80 prompts" and found["generate"][4] == "1.11", (
        "40 texts, two prompts for each so far"
    )
    assert found["generate"][1:3] == ["800", "80,000"], "10 tokens a prompt and 1,000 an answer so far"
    assert found["translate"][0] == "240 sentences" and found["translate"][4] == "1.11"
    assert found["translate"][1:3] == ["24,000", "4,800"], "100 tokens a prompt and 20 an answer so far"
    assert found["score"][0] == "240 pairs" and found["score"][4] == "0.022", "60 have scores"
    assert "spent so far: 1.23 USD for 180 responses" in result.stdout
    assert sorted(out.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--output_dir", "FILE"), "is not a directory"),
        (("--output_dir", "FILE/below"), "is not a directory"),
        (("--output_filenames", "DIRECTORY"), "is not a file, but this run writes one of that name"),
        (("--example_sentences", "/nowhere"), "no sentences in Basque in '/nowhere'"),
        (("--demonstration_pool", "/nowhere"), "no sentences in Basque in '/nowhere'"),
        (("--template_key", "nothing"), "nothing"),
        (("--seed_topics_path", "/nowhere"), "cannot read the topics file"),
        (("--prompt_template", "/nowhere.toml"), "nowhere.toml"),
        (("--number_of_demonstrations", "5000"), "leaves nothing to choose from"),
        (("--lid_model", "/nowhere.bin"), "does not exist"),
        (("--num_beams", "2"), "APIs have no beam search"),
        (("--base_url", "ftp://x"), "is not an http(s) address"),
        (("--languages", "Basque", "Basque"), "names a language twice"),
        (("--target_language", "eus_Latn"), "Basque is one of the --languages and the --target_language"),
        (("--scorer", "blaser", "--blaser_name_or_path", "/nowhere", "--sonar_name_or_path", "/nowhere"), "does not exist"),
        (("--use_nllb", "--nllb_name_or_path", "/nowhere"), "'/nowhere'"),
        (("--inference_api", "hf", "--model_name_or_path", "/nowhere"), "'/nowhere'"),
        (("--stages", "translate", "score"), "no paragraphs to translate"),
        (("--stages", "score"), "no pairs to score"),
        (("--scorer", "confidence"), "choose blaser, sonar-space, metricx-qe or none"),
        (("--budget", "1"), "--budget needs --prices"),
        (("--prices", "1"), "--prices takes two or three numbers"),
    ],
)  # fmt: skip
def test_a_mistake_is_found_without_a_model(tmp_path, datagen_here, change, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "out" / "taken.jsonl").mkdir(parents=True)
    change = [{"DIRECTORY": "taken"}.get(word, word.replace("FILE", str(tmp_path / "file"))) for word in change]
    api = [word for word in API if "--demonstration_pool" not in change or word not in API[-2:]]
    if "--use_nllb" in change:
        api = API[:-2]
    if "--inference_api" in change:
        api = API[-2:]
    result = datagen_here(*flags(tmp_path, *api, *SCORES), *change)
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert "Traceback" not in result.stderr and len([x for x in result.stderr.splitlines() if "error:" in x]) == 1


HF = ("--inference_api", "hf")
NO_EFFECT = [
    ("--nllb_name_or_path", "x"),
    ("--nllb_engine", "transformers"),
    ("--cache_dir", "x"),
    ("--use_nllb", "--back_translator", "llm"),
    ("--use_nllb", "--demonstration_pool", "udhr"),
    ("--use_nllb", "--prompt_style", "chat"),
    ("--use_nllb", "--retriever_tokens", "original"),
    ("--use_nllb", "--nllb_engine", "transformers", "--cache_dir", "x"),
    (*HF, "--base_url", "http://localhost/v1"),
    (*HF, "--request_timeout", "5"),
    (*HF, "--max_retries", "5"),
    (*HF, "--budget", "5", "--prices", "1", "1"),
    (*HF, "--max_concurrent_requests", "5"),
    (*HF, "--gpu_memory_utilization", "0.5"),
    (*HF, "--lora_rank", "32"),
    ("--dtype", "float32"),
    ("--max_model_len", "512"),
    ("--tensor_parallel_size", "2"),
    ("--data_parallel_size", "2"),
    ("--trust_remote_code",),
    ("--num_return_sequences", "4", "--temperature", "0"),
    ("--num_return_sequences", "4", "--do_sample", "false"),
    (*HF, "--num_beams", "4", "--temperature", "0.5"),
    ("--rouge_tokenizer", "rouge_score", "--threshold", "1"),
    ("--dedup_prefilter", "minhash", "--threshold", "1"),
    ("--stages", "translate", "--use_nllb", "--adapter_name_or_path", "x"),
]


@pytest.mark.parametrize("change", NO_EFFECT, ids=" ".join)
def test_a_flag_without_effect_is_an_error(tmp_path, datagen_here, change):
    result = datagen_here(*flags(tmp_path, *API[:-2], *SCORES), *change)
    assert result.returncode == 2 and re.search("ha(s|ve) no effect without ", result.stderr), result.stderr


@pytest.mark.parametrize(
    "change",
    [
        ("--number_of_rounds", "1"),
        ("--scorer_dtype", "bfloat16"),
        ("--sonar_name_or_path", "x"),
        ("--blaser_name_or_path", "x"),
        ("--number_of_icl_phrases", "0"),
        ("--number_of_icl_demonstrations", "0"),
        ("--number_of_demonstrations", "0", "--demonstration_pool", "udhr"),
        ("--number_of_demonstrations", "0", "--demonstration_pool", "udhr", "--retriever_tokens", "original"),
        ("--allow_partial_benchmark",),
        ("--number_of_icl_synthetic_demonstrations", "2"),
        ("--tokenizer_name_or_path", "gpt-x"),
        ("--top_p", "0.9", "--temperature", "0"),
    ],
    ids=" ".join,
)
def test_a_flag_of_published_commands_without_effect_is_one_line(tmp_path, datagen_here, change):
    result = datagen_here(*flags(tmp_path, *API, "--scorer", "none"), *change)
    assert result.returncode == 0 and result.stderr.count("no effect without ") == 1, result.stderr


@pytest.mark.parametrize(
    "change",
    [("--request_batch_size", "10000000"), ("--number_of_generations_per_step", "1000"), ("--max_retries", "100000"),
     ("--seed", str(2**32)), ("--num_return_sequences", "100000"), ("--temperature", "inf"), ("--max_new_tokens", "10000000000"),
     ("--number_of_instructions", "99999999999999999999"), ("--max_concurrent_requests", "10000000"), ("--request_timeout", "1e300")],
)  # fmt: skip
def test_numbers_have_bounds(tmp_path, datagen_here, change):
    result = datagen_here(*flags(tmp_path, *API, *SCORES), *change)
    assert result.returncode == 2 and "is not a" in result.stderr and change[0] in result.stderr, result.stderr


@pytest.mark.parametrize(
    ("more", "warning"),
    [
        ((), "Thai is written without a mark between sentences"),
        (("--rouge_tokenizer", "rouge_score"), "near-duplicates in Thai are not found"),
    ],
)
def test_a_language_whose_script_a_rule_does_not_know_is_warned_of(tmp_path, datagen_here, more, warning):
    result = datagen_here(*flags(tmp_path, *API, *SCORES, *more, "--languages", "Thai"))
    assert result.returncode == 0 and result.stderr.count(warning) == 1
    assert warning.partition("Thai")[2] not in datagen_here(*flags(tmp_path, *API, *SCORES, *more)).stderr
