"""Checkpoints that the engines would read in another way than they were saved are refused before they load."""

import contextlib
import math
import re
import shutil

import pytest
from transformers import AutoConfig

from tests.support.tiny_models import (
    build_madlad,
    edit_weights,
    name_another_architecture,
    quantize_weights,
    repeat_in_two_shards,
    say_that_it_is_tied,
    set_a_number,
    udhr_texts,
    without_weights,
)
from topxgen import inference
from topxgen.common import weights
from topxgen.common.errors import UsageError
from topxgen.inference import ModelSettings


@pytest.mark.parametrize("backend", ["hf", pytest.param("vllm", marks=pytest.mark.slow)])
def test_a_checkpoint_that_lacks_a_layer(backend, tiny_lm, tmp_path):
    """transformers fills it with random numbers."""
    folder = without_weights(tiny_lm, tmp_path / "incomplete", "layers.1.")
    with pytest.raises(UsageError, match=r"lacks model\.layers\.1\.\S+, .* and 3 more"):
        inference.load(backend, ModelSettings(str(folder), dtype="float32", max_model_len=512))


def test_a_folder_that_lacks_the_configuration_of_its_tokenizer(tiny_lm, tmp_path):
    """As after a purge of old files: the special tokens are not known, and every batch was a traceback."""
    shutil.copytree(tiny_lm, tmp_path / "lm")
    (tmp_path / "lm" / "tokenizer_config.json").unlink()
    with pytest.raises(UsageError, match=r"neither a padding nor an end token; is its tokenizer_config\.json missing"):
        inference.load("hf", ModelSettings(str(tmp_path / "lm"), dtype="float32"))


GATE, BIAS = "model.layers.0.mlp.gate_proj.weight", "model.layers.1.self_attn.o_proj.bias"


@pytest.mark.parametrize(
    "change, problem",
    [
        (dict, None),
        (lambda tensors: {key: tensors[key] for key in tensors if "1.self_attn.k_proj" not in key}, "lacks model.layers.1.self_attn.k_proj"),
        (lambda tensors: {key: tensors[key] for key in tensors if "lm_head" not in key}, "lacks lm_head.weight"),
        (lambda tensors: tensors | {GATE: tensors[GATE].repeat(2, 1)}, f"has other shapes in {GATE} ((512, 128), not (256, 128))"),
        (lambda tensors: tensors | {BIAS: tensors["model.norm.weight"].clone()}, f"would ignore, {BIAS}"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_vllm_would_load_in_part(change, problem, tiny_lm, tmp_path):
    """vLLM 0.32 notes only that norms are missing; matrices have the numbers that memory held."""
    folder = shutil.copytree(tiny_lm, tmp_path / "model")
    edit_weights(folder, change)
    config = AutoConfig.from_pretrained(folder)
    with pytest.raises(UsageError, match=re.escape(problem)) if problem else contextlib.nullcontext():
        weights.check_complete(str(folder), config)
    config.architectures = ["AnotherForCausalLM"]  # which transformers does not load from it
    weights.check_complete(str(folder), config)


@pytest.mark.parametrize(
    "more, left_out",
    [
        ("model.layers.2.self_attn.q_proj.weight", True),
        ("model.layers.0.self_attn.q_proj.bias", True),
        ("model.layers.1.self_attn.q_norm.weight", True),  # of Qwen3, Gemma 3, OLMo 2
        ("model.layers.1.self_attn.rotary_emb.inv_freq", False),
        ("mtp.norm.weight", False),
        ("vision_tower.layers.0.norm.weight", False),
    ],
)
def test_a_checkpoint_of_which_a_part_would_be_left_out(more, left_out, tiny_lm, tmp_path):
    """By config.json it has fewer layers, or no biases; heads for other purposes are no part of the model."""
    folder = shutil.copytree(tiny_lm, tmp_path / "model")
    edit_weights(folder, lambda tensors: tensors | {more: tensors["model.norm.weight"].clone()})
    settings = ModelSettings(str(folder), dtype="float32")
    if left_out:
        with pytest.raises(
            UsageError,
            match=f"do not fit its config.json .* has layers or parameters that the model would ignore, {more}; download",
        ):
            inference.load("hf", settings)
    else:
        inference.load("hf", settings).close()


@pytest.mark.parametrize(
    "spoil, message",
    [
        (repeat_in_two_shards, "in both model-1"),
        (quantize_weights, r"quantized \(int8\)"),
        (set_a_number(math.nan), r"holds NaN or infinities in model\.norm\.weight: its training diverged"),
        (set_a_number(-math.inf), r"holds NaN or infinities in model\.norm\.weight: its training diverged"),
        (set_a_number(math.inf, pickled=True), r"pytorch_model\.bin holds NaN or infinities in model\.norm\.weight"),
        (name_another_architecture, "names the architecture GemmaForCausalLM, but model_type llama"),
        (say_that_it_is_tied, r"lm_head\.weight and model\.embed_tokens\.weight differ, but are one matrix"),
    ],
)
@pytest.mark.parametrize("backend", ["hf", pytest.param("vllm", marks=pytest.mark.slow)])
def test_a_checkpoint_that_would_be_misread(backend, spoil, message, tiny_lm, tmp_path):
    """transformers takes one of two tensors of a name, and whole numbers for weights; vLLM one of two that should be tied."""
    folder = shutil.copytree(tiny_lm, tmp_path / "spoiled")
    spoil(folder)
    with pytest.raises(UsageError, match=message):
        inference.load(backend, ModelSettings(str(folder), dtype="float32", max_model_len=512))


@pytest.mark.parametrize(
    "model_type, architecture",
    [("mt5", "T5ForConditionalGeneration"), ("kimi_k2", "DeepseekV3ForCausalLM"), ("gemma3_text", "Gemma3ForCausalLM"), ("llama", None)],
)  # fmt: skip
def test_architectures_that_are_read_in_one_way_only(model_type, architecture):
    """vLLM has no mT5, and transformers goes by a repository's own code for a type that it does not know."""
    weights._check_architecture("m", {"model_type": model_type, "architectures": architecture and [architecture]})


def test_numbers_that_look_like_infinities(tiny_lm, tmp_path):
    """A sum of float16 numbers may overflow though each is finite, and the limit of a clipped layer is infinite."""
    import torch

    folder = shutil.copytree(tiny_lm, tmp_path / "large")
    edit_weights(folder, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    limit = torch.tensor(math.inf)
    edit_weights(
        folder, lambda tensors: tensors | {"model.norm.weight": torch.full((128,), 6e4).half(), "limit": limit}
    )
    inference.load("hf", ModelSettings(str(folder), dtype="float32")).close()


def test_one_matrix_that_is_saved_twice(tiny_lm, tmp_path):
    """As torch's own files have tied weights."""
    folder = shutil.copytree(tiny_lm, tmp_path / "tied")
    say_that_it_is_tied(folder)
    edit_weights(folder, lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    inference.load("hf", ModelSettings(str(folder), dtype="float32")).close()


def test_the_two_matrices_of_madlad(tmp_path):
    """transformers 5 takes one for the other where one is missing, and saves both under a configuration in which they are one."""
    from transformers import AutoModelForSeq2SeqLM

    published = build_madlad(tmp_path / "published", udhr_texts("Basque"))
    saved = tmp_path / "saved"
    weights.load_weights(AutoModelForSeq2SeqLM, published).save_pretrained(saved)
    assert not weights.load_weights(AutoModelForSeq2SeqLM, str(saved)).config.scale_decoder_outputs
    for part, other in (("lm_head", "shared"), ("shared", "lm_head")):
        folder = without_weights(published, tmp_path / part, part)
        with pytest.raises(
            UsageError, match=rf"has {other}\.weight alone, though its embeddings and its output layer are two"
        ):
            weights.load_weights(AutoModelForSeq2SeqLM, str(folder))


@pytest.mark.slow
def test_weights_are_checked_by_the_configuration_that_vllm_uses(tiny_lm, tmp_path):
    """It may differ from config.json: by hf_overrides, or by hf_quant_config.json."""
    folder = shutil.copytree(tiny_lm, tmp_path / "untied")
    say_that_it_is_tied(folder)
    override = 'hf_overrides={"tie_word_embeddings": false}'
    settings = ModelSettings(str(folder), dtype="float32", max_model_len=512, engine_args=[override])
    inference.load("vllm", settings).close()
