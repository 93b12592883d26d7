"""Answers do not depend on what else is in a batch, whatever the architecture makes of padding."""

import shutil
from pathlib import Path

import pytest

from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.inference.batching import Batching, batching

ALL = Batching(prompts=True, rows=True)
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
# By model_type: configuration, and what can be in a batch.
ARCHITECTURES = {
    "recurrent_gemma": (SIZES | {"num_key_value_heads": 1, "head_dim": 8, "lru_width": 32}, Batching(False, True)),
    "rwkv": ({"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}, Batching(False, False)),
    "roformer": (SIZES | {"is_decoder": True, "embedding_size": 32}, Batching(False, True)),
    "llama": (SIZES, ALL),
    "mamba": ({"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, ALL),
    "bloom": ({"hidden_size": 32, "n_layer": 2, "n_head": 4}, ALL),
    "gpt2": ({"n_embd": 32, "n_layer": 2, "n_head": 4}, ALL),
}


def build(model_type: str, words: int):
    """The model with random weights, not so small that its layers hardly count."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokens = {"vocab_size": words, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **tokens, **ARCHITECTURES[model_type][0]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def saved(model_type: str, tiny_lm: str, folder: Path) -> str:
    """Beside the tokenizer of `tiny_lm`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    build(model_type, len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_can_be_in_a_batch(model_type, dtype):
    import torch

    if (model_type, dtype) == ("roformer", "bfloat16"):
        pytest.skip("what it makes of positions is less than rounding")
    assert batching(build(model_type, 300).to(getattr(torch, dtype))) == ARCHITECTURES[model_type][1]


@pytest.mark.medium
def test_in_mixed_precision_rounding_is_no_difference(gemma):
    """Held-out sentences of a training run would be translated one by one."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(gemma, dtype=torch.float32).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert batching(model, half=True) == ALL


@pytest.mark.parametrize("model_type", ["recurrent_gemma", "rwkv"])
def test_answers_are_those_of_each_prompt_alone(model_type, tiny_lm, tmp_path, caplog):
    model = saved(model_type, tiny_lm, tmp_path / "model")
    prompts = [
        "Gizon-emakume guztiak",
        "Aske guztiak",
        "Aske jaiotzen dira, duintasun",
        "Kaixo, mundua",
        "Bat, bi, hiru, lau, bost, sei",
    ]
    requests = [inference.Request(str(i), prompt, 1) for i, prompt in enumerate(prompts)]
    settings = inference.SamplingSettings(max_new_tokens=12, temperature=0.0)
    texts = {}
    for size in (1, len(prompts)):
        sampler = inference.load("hf", inference.ModelSettings(model, dtype="float32", request_batch_size=size))
        texts[size] = {answer.id: answer.texts for answer in sampler.generate(inference.from_list(requests), settings)}
        sampler.close()
    assert texts[1] == texts[len(prompts)]
    assert "answers otherwise in a batch than alone: one prompt at a time" in caplog.text


def test_held_out_translations_are_those_of_each_pair_alone(tiny_lm):
    from transformers import AutoTokenizer

    from topxgen.training import eval_translation
    from topxgen.training.pairs import Pair
    from topxgen.training.tokenization import CausalTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    model = build("rwkv", len(tokenizer))
    pairs = [Pair("Aske " * n, "Free " * n, "Basque", "English", str(n)) for n in (1, 5, 2, 9)]
    pair_tokenizer = CausalTokenizer(tokenizer, "14", len(tokenizer))
    together = eval_translation.translate(model, tokenizer, pair_tokenizer, pairs)
    for i, pair in enumerate(pairs):
        (alone,) = eval_translation.translate(model, tokenizer, pair_tokenizer, [pair]).values()
        assert together[i] == alone[: len(together[i])] and alone


def test_several_answers_of_a_model_that_mixes_rows_are_refused(tiny_lm, tmp_path):
    model = saved("rwkv", tiny_lm, tmp_path / "model")
    sampler = inference.load("hf", inference.ModelSettings(model, dtype="float32"))
    requests = [inference.Request("a", "Aske", 1)]
    for more in ({"num_beams": 2}, {"num_return_sequences": 2, "temperature": 1.0}):
        with pytest.raises(UsageError, match=r"mixes the rows of a batch .* --num_beams 1"):
            list(sampler.generate(inference.from_list(requests), inference.SamplingSettings(max_new_tokens=2, **more)))
    sampler.close()


def test_a_model_that_computes_nan_is_refused(tiny_lm, tmp_path):
    """It would answer with its first token, mostly the padding: nothing."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(saved("llama", tiny_lm, tmp_path / "model"))
    model.model.layers[0].mlp.down_proj.weight.data *= 3e4
    model.model.layers[0].mlp.up_proj.weight.data *= 3e4
    model.save_pretrained(tmp_path / "model")
    inference.load("hf", inference.ModelSettings(str(tmp_path / "model"), dtype="float32")).close()
    with pytest.raises(UsageError, match="computes NaN in float16: pass --dtype bfloat16"):
        inference.load("hf", inference.ModelSettings(str(tmp_path / "model"), dtype="float16"))


def test_the_token_that_ends_an_answer_counts_with_and_without_a_padding_token(tiny_lm, tmp_path):
    """Nor with an added one that the model has no embedding for."""
    from transformers import AutoTokenizer

    requests = [
        inference.Request(str(i), prompt, i) for i, prompt in enumerate(["# Basque article\n", "Gizon", "Aske"])
    ]
    settings = inference.SamplingSettings(max_new_tokens=40, temperature=0.0)
    folder, counts = shutil.copytree(tiny_lm, tmp_path / "model"), {}
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    tokenizer.eos_token = tokenizer.tokenize(" eta")[-1]  # a word that comes soon
    for pad in ("<pad>", None, "[PAD]"):
        tokenizer.pad_token = pad
        tokenizer.save_pretrained(folder)
        sampler = inference.load("hf", inference.ModelSettings(str(folder), dtype="float32"))
        answers = list(sampler.generate(inference.from_list(requests), settings))
        counts[pad] = {answer.id: answer.completion_tokens for answer in answers}
        smallest = min(counts[pad].values())
        for limit, reason in ((smallest, "stop"), (smallest - 1, "length")):  # no room for the token that ends it
            settings_of_limit = inference.SamplingSettings(max_new_tokens=limit, temperature=0.0)
            answers = sampler.generate(inference.from_list(requests), settings_of_limit)
            shortest = next(answer for answer in answers if counts[pad][answer.id] == smallest)
            assert shortest.finish_reasons == (reason,) and shortest.completion_tokens == limit
        sampler.close()
    assert counts["<pad>"] == counts[None] == counts["[PAD]"] and smallest < 40
