"""vLLM's own options: how they are written, what is refused, and that they are part of a run's settings."""

import json
from pathlib import Path

import pytest

from tests.support.runs import ROOT, in_process
from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.inference import NEUTRAL, ModelSettings
from topxgen.inference.engine_args import check_names, names_in_source, parse

TOPICS = ROOT / "topics" / "wikipedia_vital_topics.txt"


def test_values_are_json_or_text():
    words = [
        "quantization=fp8",
        "--max-num-batched-tokens=4096",
        "enforce_eager=True",
        "swap=None",
        "share=0.5",
        "path=a=b",
    ]
    assert parse([*words, 'speculative_config={"method": "ngram", "num_speculative_tokens": 2}']) == {
        "quantization": "fp8", "max_num_batched_tokens": 4096, "enforce_eager": True, "swap": None, "share": 0.5, "path": "a=b",
        "speculative_config": {"method": "ngram", "num_speculative_tokens": 2},
    }  # fmt: skip


@pytest.mark.parametrize(
    "words, problem",
    [
        (["fp8"], "'fp8' is not KEY=VALUE"),
        (["=fp8"], "is not KEY=VALUE"),
        (["a b=1"], "is not KEY=VALUE"),
        (["max-num-seqs=1024"], "'max-num-seqs=1024' has a flag of its own: pass --max_concurrent_requests"),
        (["seed=1"], "has a flag of its own: pass --seed"),
        (["data_parallel_size=2"], "has a flag of its own: pass --data_parallel_size"),
        (['lora-target-modules=["q_proj"]'], "lora_target_modules cannot be set (modules of an adapter"),
        (["logprobs_mode=processed_logits"], "logprobs_mode cannot be set (confidences"),
        (["model_weights=elsewhere"], "model_weights cannot be set (the weights are those of --model_name_or_path"),
        (["load-format=dummy"], "load_format=dummy: the model would have random weights"),
    ],
)
def test_what_is_refused_before_anything_is_loaded(words, problem, tmp_path):
    with pytest.raises(UsageError, match=problem.replace("(", r"\(")):
        parse(words)
    result = in_process(
        "datagen.py", "--model_name_or_path", tmp_path, "--languages", "Basque", "--output_dir", tmp_path / "out", "--engine_args",
        *words, "--number_of_instructions", 4, "--seed_topics_path", TOPICS,
    )  # fmt: skip
    assert result.returncode == 2 and problem in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def dry_run(script: str, model: str, folder: Path, *words) -> list:
    command = [script, "--model_name_or_path", model, "--output_dir", folder / "out", "--dry_run", *words]
    if script == "main.py":
        return [*command, "--dataset_name_or_path", "udhr", "--tgt", "Basque", "--max_samples", 1]
    command += ["--languages", "Basque", "--number_of_instructions", 4, "--seed_topics_path", TOPICS]
    examples = ["--example_paragraphs", "udhr", "--example_sentences", "udhr", "--number_of_icl_demonstrations", 1]
    return [*command, *examples]


@pytest.mark.parametrize("script", ["datagen.py", "main.py"])
def test_beam_search_of_vllm_has_no_repetition_penalty(script, tmp_path, tiny_lm):
    more = ("--inference_api", "vllm", "--num_beams", 2, "--repetition_penalty", 1.2)
    result = in_process(*dry_run(script, tiny_lm, tmp_path, *more))
    assert result.returncode == 2, result.stderr
    assert "--repetition_penalty 1.2: vLLM's beam search does not support it; pass 1" in result.stderr


@pytest.mark.parametrize(
    "word, name",
    [
        ("worker_cls=mine.Worker", "worker_cls"),
        ("worker-extension-cls=mine.Worker", "worker_extension_cls"),
        ("scheduler_cls=mine.Scheduler", "scheduler_cls"),
        ('logits_processors=["mine:Processor"]', "logits_processors"),
        ('model_class_overrides={"Llama": "mine:Llama"}', "model_class_overrides"),
        ("reasoning_parser_plugin=mine.py", "reasoning_parser_plugin"),
        ("io_processor_plugin=mine", "io_processor_plugin"),
        ("distributed_executor_backend=mine.Executor", "distributed_executor_backend"),
        ("log_config_file=mine.json", "log_config_file"),
        ('compilation_config={"backend": "mine.compile"}', "backend"),
        ('compilation_config={"inductor_passes": {"post": "mine.run"}}', "inductor_passes"),
        ('kv_transfer_config={"kv_connector": "X", "kv_connector_module_path": "mine"}', "kv_connector_module_path"),
        ('kv_transfer_config={"kv_connector_extra_config": {"spec_module_path": "mine"}}', "spec_module_path"),
        ('ec_manager_config={"cls_path": "mine.Manager"}', "cls_path"),
        ('speculative_config={"method": "custom_class", "model": "mine.Proposer"}', "method"),
        ('speculative_config={"model": "m", "trust_remote_code": true}', "trust_remote_code"),
        ('hf_overrides={"auto_map": {"AutoConfig": "code.Config"}}', "auto_map"),
    ],
)
@pytest.mark.parametrize("script", ["datagen.py", "main.py"])
def test_options_that_name_python_code_need_trust(word, name, script, tmp_path, tiny_lm):
    command = dry_run(script, tiny_lm, tmp_path, "--engine_args", word)
    result = in_process(*command)
    assert result.returncode == 2, result.stderr
    assert f": {name} may run Python code; pass --trust_remote_code" in result.stderr.rstrip().rpartition("\n")[2]
    key = word.partition("=")[0].replace("-", "_")
    assert list(parse([word], may_run_code=True)) == [key]


def test_options_without_code_need_none():
    words = [
        "attention_backend=FLASH_ATTN",
        "distributed_executor_backend=mp",
        "load_format=pt",
        'hf_overrides={"rope_theta": 1.5}',
    ]
    words += ['speculative_config={"method": "ngram", "num_speculative_tokens": 2}', 'compilation_config={"mode": 3}']
    assert len(parse(words, may_run_code=False)) == 6


def test_an_option_twice():
    with pytest.raises(UsageError, match="--engine_args sets enforce_eager twice; pass it once"):
        parse(["enforce_eager=1", "--enforce-eager=0"])


def test_an_option_that_vllm_lacks():
    with pytest.raises(
        UsageError, match=r"the installed vLLM has no option 'quantisation' \(did you mean quantization\?\)"
    ):
        check_names(["enforce_eager", "quantisation"], ["enforce_eager", "quantization"])


@pytest.mark.skipif(not names_in_source(), reason="vLLM is not installed here (scripts/setup.sh tries)")
@pytest.mark.parametrize("script", ["datagen.py", "main.py"])
def test_an_option_that_vllm_lacks_is_found_by_a_dry_run(script, tmp_path, tiny_lm):
    vllm = ("--inference_api", "vllm", "--engine_args", "enforce_eager=true")
    result = in_process(*dry_run(script, tiny_lm, tmp_path, *vllm, "quantisation=fp8"))
    assert result.returncode == 2 and "no option 'quantisation' (did you mean quantization?)" in result.stderr
    result = in_process(*dry_run(script, tiny_lm, tmp_path, *vllm, "quantization=fp8"))
    assert "no option" not in result.stderr


def test_they_are_settings_of_a_run():
    plain, special = ModelSettings("m"), ModelSettings("m", engine_args=["quantization=fp8"], deterministic=True)
    assert inference.decoding("vllm", plain) == NEUTRAL  # as runs of older versions recorded
    assert inference.decoding("vllm", special) == {
        **NEUTRAL, "engine_args": {"quantization": "fp8"}, "deterministic": True
    }  # fmt: skip
    assert json.dumps(inference.decoding("vllm", special))


@pytest.mark.parametrize("flag", [("--engine_args", "quantization=fp8"), ("--deterministic",)])
@pytest.mark.parametrize("api", ["hf", "openai"])
def test_other_engines_have_no_such_options(flag, api, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    command = ("--model_name_or_path", "m", "--inference_api", api, "--output_dir", tmp_path / "out", *flag)
    for script in (
        ("datagen.py", "--languages", "Basque", "--number_of_instructions", 4, "--seed_topics_path", TOPICS),
        ("main.py", "--dataset_name_or_path", "udhr", "--tgt", "Basque"),
    ):
        result = in_process(*script, *command)
        assert result.returncode == 2
        assert f"{flag[0]} has no effect without --inference_api vllm: pass that, or drop it" in result.stderr
