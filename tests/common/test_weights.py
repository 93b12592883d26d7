"""Checkpoints that would load without an error as another model: their files show it."""

import json
import shutil

import pytest
from transformers import AutoConfig

from tests.support.tiny_models import edit_weights
from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.common.weights import check_weights
from topxgen.inference import ModelSettings, Request, SamplingSettings, from_list


def zero_what_is_behind(fraction: float):
    """As a download that was cut after its space was reserved."""

    def change(folder):
        path = folder / "model.safetensors"
        data = path.read_bytes()
        kept = int(len(data) * fraction)
        path.write_bytes(data[:kept] + bytes(len(data) - kept))

    return change


def add_a_second_file(folder):
    shutil.copy(folder / "model.safetensors", folder / "model-00001-of-00001.safetensors")


def add_shards_of_another_save(folder):
    add_a_second_file(folder)
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "spoil, problem",
    [
        (zero_what_is_behind(0.5), r"has only zeros in model\.layers\.\d"),
        (zero_what_is_behind(0.05), r"has only zeros in model\.embed_tokens\.weight"),
        # transformers loads model.safetensors, vLLM what the index names, or all files that it finds
        (add_shards_of_another_save, r"in both model-00001-of-00001\.safetensors and model\.safetensors; .* to an empty folder"),
        (add_a_second_file, r"in both model-00001-of-00001\.safetensors and model\.safetensors"),
    ],
)  # fmt: skip
def test_files_that_are_another_model(spoil, problem, tiny_lm, tmp_path):
    folder = shutil.copytree(tiny_lm, tmp_path / "model")
    config = AutoConfig.from_pretrained(folder)
    check_weights(str(folder), config)
    spoil(folder)
    with pytest.raises(UsageError, match=problem):
        check_weights(str(folder), config)


def test_a_row_of_zeros_is_no_hole(tiny_lm, tmp_path, caplog):
    """That of a padding token, or a bias."""
    folder = shutil.copytree(tiny_lm, tmp_path / "model")

    def change(tensors: dict) -> dict:
        tensors["model.embed_tokens.weight"][0] = 0
        return tensors | {"bias": 0 * tensors["model.norm.weight"]}

    edit_weights(folder, change)
    check_weights(str(folder), AutoConfig.from_pretrained(folder))
    assert not caplog.text


def test_an_untrained_layer_is_no_hole(tiny_lm, tmp_path, caplog):
    """Layers that were added to a model begin as the identity: two of their matrices have only zeros (LLaMA-Pro, Wu et al. 2024)."""
    folder = shutil.copytree(tiny_lm, tmp_path / "model")
    added = [f"model.layers.1.{name}.weight" for name in ("mlp.down_proj", "self_attn.o_proj")]
    edit_weights(folder, lambda tensors: tensors | {name: 0 * tensors[name] for name in added})
    check_weights(str(folder), AutoConfig.from_pretrained(folder))
    assert all(f"{name} has only zeros" in caplog.text for name in added)


def test_a_tokenizer_with_more_tokens_than_the_model(tiny_lm, tmp_path):
    """As after adding tokens without resizing the embeddings: a GPU ends in an assertion, a CPU in a traceback."""
    folder = shutil.copytree(tiny_lm, tmp_path / "model")
    edit_weights(folder, lambda tensors: {n: t[:300] if t.shape[0] == 800 else t for n, t in tensors.items()})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
    sampler = inference.load("hf", ModelSettings(str(folder), dtype="float32"))
    with pytest.raises(
        UsageError, match=r"tokenizer and model do not match: the tokenizer has a token \d+, \S+ only 300 tokens"
    ):
        list(
            sampler.generate(
                from_list([Request("r", "Gizon-emakume guztiak aske jaiotzen dira", 1)]), SamplingSettings()
            )
        )
