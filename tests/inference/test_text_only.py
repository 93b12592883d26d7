"""Text with a multimodal checkpoint in the layout of gemma-3-27b-it: nothing that reads images is kept or trained."""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context

import pytest

from tests.inference.test_adapters import save_adapter
from tests.support.runs import in_process
from tests.support.training_runs import flags
from topxgen import inference
from topxgen.common.weights import PARTS
from topxgen.inference import ModelSettings, Request, SamplingSettings, from_list

REQUESTS = [Request(f"r{i}", text, i) for i, text in enumerate(("Gizon-emakume guztiak aske", "Pertsona orok"))]


@pytest.fixture(scope="module")
def multimodal(tiny_lm, tmp_path_factory) -> str:
    """Gemma 3's architecture, small, with random weights."""
    import torch
    from transformers import AutoTokenizer, Gemma3Config, Gemma3ForConditionalGeneration

    folder = tmp_path_factory.mktemp("multimodal")
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 1024, "sliding_window": 512,
        "layer_types": ["sliding_attention", "full_attention"],
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 14
    }  # fmt: skip
    torch.manual_seed(1)
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def greedy(sampler) -> dict[str, list[str]]:
    settings = SamplingSettings(8, temperature=0.0)
    return {answer.id: answer.texts for answer in sampler.generate(from_list(REQUESTS), settings)}


def test_transformers_keeps_no_vision_tower(multimodal):
    """The answers are those of the whole model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    sampler = inference.load("hf", ModelSettings(multimodal, dtype="float32"))
    names = [name for name, _ in sampler._model.named_parameters()]
    assert names and not [name for name in names if any(part in name for part in PARTS)]
    whole, tokenizer = AutoModelForCausalLM.from_pretrained(multimodal), AutoTokenizer.from_pretrained(multimodal)
    assert any("vision_tower" in name for name, _ in whole.named_parameters())
    found = greedy(sampler)
    for request in REQUESTS:
        ids = torch.tensor([sampler.encode(request.prompt)])
        output = whole.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
        # Eight tokens may end inside a character, which the answer leaves out.
        assert found[request.id] == [tokenizer.decode(output, skip_special_tokens=True).rstrip("\ufffd")] != [""]
    sampler.close()


def test_an_adapter_is_of_the_language_model_alone(multimodal, tmp_path):
    """train.py's adapter has no part in the vision tower, and answers differ with it."""
    from safetensors import safe_open

    output = tmp_path / "run"
    result = in_process(
        "train.py", *flags(multimodal, output, use_peft=True, max_steps=2, num_warmup_steps=0, learning_rate=0.5)
    )
    assert result.returncode == 0, result.stderr
    with safe_open(output / "adapter_model.safetensors", "pt") as file:
        keys = list(file.keys())
    assert keys and all(".language_model." in key for key in keys)
    sampler = inference.load("hf", ModelSettings(multimodal, dtype="float32", adapter_name_or_path=str(output)))
    adapted = greedy(sampler)
    sampler.use_adapter(None)
    assert greedy(sampler) != adapted
    sampler.close()


def parameter_names(model) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def with_and_without(adapter: str, sampler) -> list[dict[str, list[str]]]:
    """The greedy answers with an adapter and without it."""
    answers = []
    for name in (adapter, None):
        sampler.use_adapter(name)
        answers.append(greedy(sampler))
    sampler.close()
    return answers


def names_and_answers(folder: str, adapter: str, torchvision: str) -> tuple[list[str], list[dict[str, list[str]]]]:
    """The parameters of the model in vLLM, and what it answers; in a process of its own, as it declares operators."""
    import torch

    sys.path.append(torchvision)
    try:
        import_module("torchvision")
    except RuntimeError:  # PyPI's build: its operators, none of which text needs, do not fit torch's CPU build
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    registry = import_module("vllm.model_executor.models.registry")
    registry._run_in_subprocess = lambda inspect: inspect()  # where there is no torchvision
    sampler = inference.load("vllm", ModelSettings(folder, dtype="float32", max_model_len=256, reserve_lora=True))
    [names] = sampler._llm.apply_model(parameter_names)
    return names, with_and_without(adapter, sampler)


@pytest.mark.slow
def test_vllm_loads_no_vision_tower(multimodal, tmp_path, monkeypatch):
    """vLLM's class of Gemma 3 with images imports torchvision, whose build on PyPI would break transformers in this environment:
    pip install --no-deps --target FOLDER torchvision==0.28.0, and TORCHVISION=FOLDER."""
    pytest.importorskip("vllm", reason="vLLM is not installed here (scripts/setup.sh tries)")
    torchvision = os.environ.get("TORCHVISION", "")
    if not torchvision and find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed here")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the engine in that process,
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "fork")  # and its worker with the operators declared there
    adapter = str(save_adapter(multimodal, tmp_path / "adapter", target_modules=r".*language_model.*(q|v|up)_proj"))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        names, found = pool.submit(names_and_answers, multimodal, adapter, torchvision).result()
    assert names and not [name for name in names if any(part in name for part in PARTS)]
    assert all("language_model" in name for name in names)
    expected = with_and_without(adapter, inference.load("hf", ModelSettings(multimodal, dtype="float32")))
    # At the end of a text vLLM leaves out bytes of an unfinished character, for which transformers writes U+FFFD.
    expected = [
        {name: [text.rstrip("\ufffd") for text in texts] for name, texts in found.items()} for found in expected
    ]
    assert found == expected and expected[0] != expected[1]
