"""vLLM's own options: how they are written, what is refused, and that they are part of a run's settings."""

import json

import pytest

from tests.support.runs import ROOT, in_process
from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.inference import NEUTRAL, ModelSettings
from topxgen.inference.engine_args import check_names, parse

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


def test_an_option_twice():
    with pytest.raises(UsageError, match="--engine_args sets enforce_eager twice; pass it once"):
        parse(["enforce_eager=1", "--enforce-eager=0"])


def test_an_option_that_vllm_lacks():
    with pytest.raises(UsageError, match=r"vLLM 0.32 has no option 'quantisation' \(did you mean quantization\?\)"):
        check_names(["enforce_eager", "quantisation"], ["enforce_eager", "quantization"], "0.32")


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
