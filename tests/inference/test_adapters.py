"""Adapters that do not fit their base are rejected before anything is generated, by every script and local engine."""

import contextlib
import json
import math
import re
import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.support.api_runs import chats, run
from tests.support.api_server import ApiServer
from tests.support.main_runs import options
from tests.support.runs import in_process, snapshot
from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.inference import ModelSettings
from topxgen.inference.adapters import check_adapter, check_revision

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")


def save_adapter(base: str, folder: Path, **config) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    torch.manual_seed(0)
    auto = AutoModelForSeq2SeqLM if AutoConfig.from_pretrained(base).is_encoder_decoder else AutoModelForCausalLM
    config = {"r": 8, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, **config}
    get_peft_model(auto.from_pretrained(base), LoraConfig(**config)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def good(tiny_lm, tmp_path_factory) -> Path:
    return save_adapter(tiny_lm, tmp_path_factory.mktemp("adapters") / "good")


def edit_tensors(folder: Path, change) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def under_another_prefix(tensors: dict) -> dict:
    return {name.replace("model.model.", "model.language_model.model."): tensor for name, tensor in tensors.items()}


def with_the_name_in_peft(tensors: dict) -> dict:
    """As torch.save(model.state_dict()) writes them."""
    return {name.replace(".weight", ".default.weight"): tensor for name, tensor in tensors.items()}


def without_a_layer(tensors: dict) -> dict:
    return {name: tensor for name, tensor in tensors.items() if "layers.1." not in name}


def with_a_layer_more(tensors: dict) -> dict:
    more = {n.replace("layers.1.", "layers.2."): t.clone() for n, t in tensors.items() if "layers.1." in n}
    return tensors | more


def of_another_width(tensors: dict) -> dict:
    return {name: tensor[..., :-1].contiguous() for name, tensor in tensors.items()}


def with_a_weight_of_the_base(tensors: dict) -> dict:
    """As peft saves embeddings (save_embedding_layers): the base, too, would answer with them from then on."""
    down = next(tensor for name, tensor in tensors.items() if "q_proj.lora_A" in name)
    return tensors | {"base_model.model.model.norm.weight": 2 * down[0].abs()}


def with_nan(tensors: dict) -> dict:
    next(tensor for name, tensor in tensors.items() if "layers.1." in name and "lora_A" in name)[-1, -1] = float("nan")
    return tensors


def in_8_bits(tensors: dict) -> dict:
    return {name: (20 * tensor).char() for name, tensor in tensors.items()}


def edit_config(folder: Path, without: str = "", **changes) -> None:
    path = folder / "adapter_config.json"
    config = {**json.loads(path.read_text()), **changes}
    config.pop(without, None)
    path.write_text(json.dumps(config))


SPOILED = {
    "prefix": (partial(edit_tensors, change=under_another_prefix), "the adapter lacks .* the model lacks .*language_model"),
    "name in peft": (partial(edit_tensors, change=with_the_name_in_peft), r"the adapter lacks .* the model lacks .*default"),
    "layer missing": (partial(edit_tensors, change=without_a_layer), r"the adapter lacks base_model\S*layers\.1\.self_attn\S*lora_A\.weight"),
    "layer too many": (partial(edit_tensors, change=with_a_layer_more), r"the model lacks base_model.*layers\.2\.self_attn"),
    "width": (partial(edit_tensors, change=of_another_width), "does not match .*size mismatch for .*lora_A.* is it the right base"),
    "r": (partial(edit_config, r=4), r"does not match .*size mismatch for .*lora_.*\[8, \d+\].* is adapter_config.json its own"),
    "target modules": (partial(edit_config, target_modules=["query"]), "does not match .* is it the right base"),
    "weights of the base": (partial(edit_tensors, change=with_a_weight_of_the_base), r"weights of the base, too \(.*norm.weight\): merge"),
    "NaN": (partial(edit_tensors, change=with_nan), r"holds NaN or infinities in \S+layers\.1\S+lora_A\S*: its training diverged"),
    "damaged": (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"torn"), "does not match"),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "has no weights"),
    "8 bits": (partial(edit_tensors, change=in_8_bits), r"holds no floating-point numbers in \S+lora_A\S+, .* save it in 16 or 32 bits"),
    "alpha NaN": (partial(edit_config, lora_alpha=math.nan), "field lora_alpha: expected number, got null"),
    "alpha missing": (partial(edit_config, without="lora_alpha"), "adapter_config.json lacks lora_alpha"),
    "rslora as text": (partial(edit_config, use_rslora="false"), "field use_rslora: expected"),
    "alpha of no module": (partial(edit_config, alpha_pattern={"qproj": 64}), "no target module has the name in its .*alpha_pattern qproj"),
    "rank of no module": (partial(edit_config, rank_pattern={"layers.2.self_attn.q_proj": 8}), r"no target module .* layers\.2\."),
    "activated": (partial(edit_config, alora_invocation_tokens=[790, 791]), "is an activated LoRA adapter"),
    "repeated layers": (partial(edit_config, layer_replication=[[0, 2], [1, 2]]), "repeats layers of its base"),
    "of a later peft": (partial(edit_config, use_x=True, x_size=16), r"has use_x, which the installed peft \S+ would ignore: pip install -U"),
    "kind": (partial(edit_config, peft_type="IA3"), "is a IA3 adapter; only LoRA and DoRA"),
    "rank": (partial(edit_config, rank_pattern={"q_proj": 32}), "--lora_rank 16 is less than the rank of .* pass --lora_rank 32"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_adapters_that_do_not_fit(name, good, tiny_lm, tmp_path):
    spoil, message = SPOILED[name]
    folder = tmp_path / "adapter"
    shutil.copytree(good, folder)
    spoil(folder)
    settings = ModelSettings(tiny_lm, dtype="float32", adapter_name_or_path=str(folder))
    for check in (partial(inference.check, "hf"), partial(inference.check, "vllm"), partial(inference.load, "hf")):
        with pytest.raises(UsageError, match=message) as error:
            check(settings)
        assert "\n" not in str(error.value)


def zeroed(first: str):
    return partial(edit_tensors, change=lambda tensors: {n: t * (first not in n) for n, t in tensors.items()})


@pytest.mark.parametrize(
    "spoil, has_effect",
    [
        (lambda folder: None, True),
        (zeroed("lora_B"), False),
        (zeroed("lora_A"), False),
        (zeroed("q_proj"), True),
        (partial(edit_config, lora_alpha=0), False),
        (partial(edit_config, alpha_pattern={"q_proj": 0, "v_proj": 0}), False),
        (partial(edit_config, alpha_pattern={"q_proj": 0}), True),
    ],
)
def test_an_adapter_that_changes_nothing(spoil, has_effect, good, tiny_lm, tmp_path, caplog):
    """Not trained, or scaled by zero."""
    folder = shutil.copytree(good, tmp_path / "adapter")
    spoil(folder)
    check_adapter(str(folder), tiny_lm, 16)
    assert (
        f"the adapter {folder} has no effect, as if not trained: its answers are those of {tiny_lm}" in caplog.text
    ) != has_effect


def test_a_second_adapter_is_checked_as_the_first(good, tiny_lm, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(good, folder)
    edit_tensors(folder, under_another_prefix)
    sampler = inference.load("hf", ModelSettings(tiny_lm, dtype="float32", adapter_name_or_path=str(good)))
    with pytest.raises(UsageError, match="the adapter lacks"):
        sampler.use_adapter(str(folder))
    sampler.close()


@pytest.mark.parametrize("spoil", [under_another_prefix, without_a_layer])
@pytest.mark.parametrize("engine", ["hf", "vllm"])
def test_main_and_datagen_refuse_in_one_line(spoil, engine, good, tiny_lm, tmp_path):
    """main.py also before it translates with the good adapter that comes first."""
    folder, output = tmp_path / "adapter", tmp_path / "out"
    shutil.copytree(good, folder)
    edit_tensors(folder, spoil)
    flags = options(tiny_lm, "--output_dir", output, model_name_or_path=None, inference_api=engine)
    results = [in_process("main.py", *flags, "--model_name_or_path", good, folder)]
    flags = ("--model_name_or_path", tiny_lm, "--adapter_name_or_path", folder, "--inference_api", engine)
    flags += ("--languages", "Basque", "--output_dir", output, "--number_of_instructions", 2)
    flags += ("--seed_topics_path", "topics/wikipedia_vital_topics.txt", "--example_paragraphs", "udhr")
    flags += ("--example_sentences", "udhr", "--back_translator", "apertium")
    results.append(in_process("datagen.py", *flags, "--stages", "generate"))
    for result in results:
        assert result.returncode == 2, result.stderr
        assert f"the adapter {folder} does not match {tiny_lm}: the adapter lacks" in result.stderr
        assert "Traceback" not in result.stderr
    assert not list(output.rglob("*.jsonl"))


def test_an_adapter_that_was_trained_with_another_tokenizer(good, tiny_lm, tmp_path):
    """One that begins texts with a token of its own, say."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    folder = Path(shutil.copytree(good, tmp_path / "adapter"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    for is_other in (False, True):
        if is_other:
            tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<eos> $A", special_tokens=[("<eos>", 1)])
        tokenizer.save_pretrained(folder)
        flags = options(tiny_lm, "--output_dir", tmp_path / "out", "--dry_run", model_name_or_path=folder)
        result = in_process("main.py", *flags, "--base_model_name_or_path", tiny_lm)
        assert result.returncode == 0, result.stderr
        remedy = f"pass --tokenizer_name_or_path {folder}"
        assert (remedy in result.stderr) == is_other
    result = in_process("main.py", *flags, "--base_model_name_or_path", tiny_lm, "--tokenizer_name_or_path", folder)
    assert result.returncode == 0 and remedy not in result.stderr


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": "all-linear"},
        {"use_dora": True},
        {"use_rslora": True, "rank_pattern": {"q_proj": 12}, "bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"layers_to_transform": [1], "layers_pattern": "layers"},
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        {"init_lora_weights": "gaussian"},
    ],
    ids=str,
)
def test_adapters_that_fit(config, tiny_lm, tmp_path):
    folder = save_adapter(tiny_lm, tmp_path / "adapter", **config)
    assert check_adapter(str(folder), tiny_lm, 16) == str(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "pissa_niter_4"},
        {"init_lora_weights": "olora"},
        {"trainable_token_indices": [5, 6]},
        {"kasa_config": {}},
    ],
    ids=str,
)
def test_adapters_that_would_change_the_base_of_others(config, tiny_lm, tmp_path):
    """With hf the answers of the base and of the adapters after such a one were others than alone."""
    name = next(iter(config))
    folder = save_adapter(tiny_lm, tmp_path / "adapter", **config)
    with pytest.raises(UsageError, match=rf"changes its base \({name}.*merge_lora.py"):
        check_adapter(str(folder), tiny_lm, 16)


@pytest.mark.parametrize("bias", ["lora_only", "all"])
def test_trained_biases_would_change_the_base_of_others(bias, tiny_lm, tmp_path):
    """peft trains the base's own; those of a second adapter it does not load where the first one has wrapped the layer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    base = str(tmp_path / "base")
    LlamaForCausalLM(LlamaConfig.from_pretrained(tiny_lm, attention_bias=True)).save_pretrained(base)
    folder = save_adapter(base, tmp_path / "adapter", bias=bias)
    with pytest.raises(UsageError, match=r"holds weights of the base, too \(.*bias.*merge_lora.py"):
        check_adapter(str(folder), base, 16)


def test_adapters_that_cannot_be_loaded_together(tiny_lm, tmp_path):
    """One has a copy of a module to which the other one adds: main.py says so before it translates with the first."""
    copies = save_adapter(tiny_lm, tmp_path / "copies", modules_to_save=["lm_head"])
    adds = save_adapter(tiny_lm, tmp_path / "adds", target_modules=["q_proj", "lm_head"])
    flags = options(tiny_lm, "--output_dir", tmp_path / "out", model_name_or_path=None)
    for first, second in ((copies, adds), (adds, copies)):
        result = in_process("main.py", *flags, "--model_name_or_path", first, second)
        assert result.returncode == 2, result.stderr
        message = f"adapter {second} cannot be loaded after {first} .*: pass it in a command"
        assert re.search(message, result.stderr)
    assert not any(path.stat().st_size for path in tmp_path.rglob("translate_*.jsonl"))
    for adapters in ([adds], [adds, copies]):  # what an earlier command has done is not loaded
        assert in_process("main.py", *flags, "--model_name_or_path", *adapters).returncode == 0


def test_an_adapter_of_an_encoder_decoder(tiny_nllb, tiny_lm, tmp_path):
    folder = str(save_adapter(tiny_nllb, tmp_path / "adapter"))
    assert check_adapter(folder, tiny_nllb, 8) == folder
    with pytest.raises(UsageError, match="does not match"):
        check_adapter(folder, tiny_lm, 8)


VLLM_LACKS = {
    "DoRA": {"use_dora": True},
    "modules_to_save": {"modules_to_save": ["lm_head"]},
    "trained biases": {"bias": "all"},
    "biases of its own": {"lora_bias": True},
    "target_parameters": {"target_parameters": ["mlp.down_proj.weight"]},  # as peft's all-linear has for experts
    "lora_velora_embed": {"velora_config": {}},
}


@pytest.mark.parametrize("part", VLLM_LACKS)
def test_main_names_what_vllm_does_not_support(part, good, tiny_lm, tmp_path):
    """Also of the second adapter, before it translates with the first."""
    folder, output = save_adapter(tiny_lm, tmp_path / "adapter", **VLLM_LACKS[part]), tmp_path / "out"
    flags = options(tiny_lm, "--output_dir", output, model_name_or_path=None, inference_api="vllm")
    result = in_process("main.py", *flags, "--model_name_or_path", good, folder)
    assert result.returncode == 2, result.stderr
    assert f"vLLM does not support {part}" in result.stderr and f"{folder} has: merge it into its base" in result.stderr
    assert "Traceback" not in result.stderr and not list(output.rglob("*.jsonl"))


@pytest.mark.parametrize("part", VLLM_LACKS)
def test_a_dry_run_names_what_vllm_does_not_support(part, tiny_lm, tmp_path):
    folder = save_adapter(tiny_lm, tmp_path / "adapter", **VLLM_LACKS[part])
    settings = ModelSettings(tiny_lm, adapter_name_or_path=str(folder))
    inference.check("hf", settings)
    with pytest.raises(UsageError, match=f"vLLM does not support {part}"):
        inference.check("vllm", settings)


def test_an_adapter_of_latent_attention_of_which_vllm_ignores_a_part(tmp_path):
    """vLLM 0.32 multiplies the base's kv_b_proj into its neighbours when it loads."""
    from transformers import DeepseekV2Config, DeepseekV2ForCausalLM

    sizes = dict(vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    sizes |= dict(q_lora_rank=None, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16)
    base = str(tmp_path / "base")
    DeepseekV2ForCausalLM(DeepseekV2Config(**sizes, first_k_dense_replace=1)).save_pretrained(base)
    for name, is_ignored in (("o_proj", False), ("kv_b_proj", True)):
        folder = save_adapter(base, tmp_path / name, target_modules=[name])
        settings = ModelSettings(base, adapter_name_or_path=str(folder))
        inference.check("hf", settings)
        with pytest.raises(UsageError, match="not support kv_b_proj") if is_ignored else contextlib.nullcontext():
            inference.check("vllm", settings)


@pytest.mark.slow
@pytest.mark.parametrize("part", VLLM_LACKS)
def test_vllm_refuses_what_it_does_not_support(part, tiny_lm, tmp_path):
    pytest.importorskip("vllm")
    folder = save_adapter(tiny_lm, tmp_path / "adapter", **VLLM_LACKS[part])
    with pytest.raises(UsageError, match=r"vLLM does not support .* merge it into its base"):
        inference.load("vllm", ModelSettings(tiny_lm, dtype="float32", adapter_name_or_path=str(folder)))


@pytest.mark.slow
def test_vllm_outlives_an_adapter_that_it_cannot_load(tiny_lm, tmp_path):
    """Its Qwen2 has no adapters of the embeddings, unlike its Llama."""
    pytest.importorskip("vllm")
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    base = str(tmp_path / "base")
    sizes = dict(vocab_size=800, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4)
    Qwen2ForCausalLM(Qwen2Config(**sizes, num_key_value_heads=2)).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_lm).save_pretrained(base)
    fits = save_adapter(base, tmp_path / "fits")
    embeds = save_adapter(base, tmp_path / "embeds", target_modules=["q_proj", "embed_tokens"])
    sampler = inference.load(
        "vllm", ModelSettings(base, dtype="float32", max_model_len=256, adapter_name_or_path=str(fits))
    )

    def answer() -> str:
        requests = [inference.Request("r", "Kaixo", 1)]
        settings = inference.SamplingSettings(temperature=0, max_new_tokens=8)
        return next(iter(sampler.generate(inference.from_list(requests), settings))).texts[0]

    try:
        first = answer()
        with pytest.raises(UsageError, match=f"vLLM cannot use the adapter {embeds} .*merge_lora.py"):
            sampler.use_adapter(str(embeds))
        sampler.use_adapter(str(fits))
        assert answer() == first
    finally:
        sampler.close()


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("backend", ["hf", pytest.param("vllm", marks=pytest.mark.slow)])
def test_an_adapter_ends_answers_with_its_own_eos(backend, num_beams, good, tiny_lm, tmp_path):
    """As train.py --eos_token_id saves it, in the adapter's tokenizer; for the base's one it is text."""
    from transformers import AutoTokenizer

    folder = tmp_path / "adapter"
    shutil.copytree(good, folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    requests = [inference.Request("r", "# Basque article\nGizon-emakume guztiak", 1)]
    settings = inference.SamplingSettings(max_new_tokens=24, temperature=0.0, num_beams=num_beams)

    def answer(sampler) -> str:
        return next(iter(sampler.generate(inference.from_list(requests), settings))).texts[0]

    model = ModelSettings(tiny_lm, dtype="float32", max_model_len=256, adapter_name_or_path=str(good))
    sampler = inference.load(backend, model)
    endless = answer(sampler)
    common = max(tokenizer(endless)["input_ids"], key=tokenizer(endless)["input_ids"].count)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(common)
    tokenizer.save_pretrained(folder)
    sampler.use_adapter(str(folder))
    ended = answer(sampler)
    if num_beams == 1:
        assert endless.startswith(ended) and len(ended) < len(endless)
    assert ended != endless and common not in AutoTokenizer.from_pretrained(tiny_lm)(ended)["input_ids"]
    sampler.use_adapter(str(good))
    assert answer(sampler) == endless
    sampler.close()


@pytest.mark.parametrize("backend", ["hf", pytest.param("vllm", marks=pytest.mark.slow)])
def test_a_checkpoint_read_with_another_tokenizer_ends_answers_with_its_own_eos(backend, tiny_lm, tmp_path):
    from transformers import AutoTokenizer

    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_lm, folder)
    settings = inference.SamplingSettings(max_new_tokens=24, temperature=0.0)

    def answer(model: str) -> str:
        loaded = ModelSettings(model, tokenizer_name_or_path=tiny_lm, dtype="float32", max_model_len=256)
        sampler = inference.load(backend, loaded)
        request = inference.Request("r", "# Basque article\nGizon-emakume guztiak", 1)
        [answered] = sampler.generate(inference.from_list([request]), settings)
        sampler.close()
        return answered.texts[0]

    tokenizer, endless = AutoTokenizer.from_pretrained(tiny_lm), answer(tiny_lm)
    ids = tokenizer(endless)["input_ids"]
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(max(ids, key=ids.count))
    tokenizer.save_pretrained(folder)
    ended = answer(str(folder))
    assert endless.startswith(ended) and 0 < len(ended) < len(endless)


def test_another_revision_of_the_base_is_refused(good, tiny_lm, tmp_path, monkeypatch):
    """A base is loaded at main; a folder, or main at the commit that the adapter names, is right."""
    folder, commit = tmp_path / "adapter", "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(good, folder)
    edit_config(folder, base_model_name_or_path="org/base", revision="v1.1")
    flags = options(tiny_lm, "--output_dir", tmp_path / "out", model_name_or_path=None, inference_api="hf")
    result = in_process("main.py", *flags, "--model_name_or_path", folder)
    assert result.returncode == 2 and not (tmp_path / "out").exists(), result.stderr
    assert (
        f"{folder} was trained on revision v1.1 of org/base, and main would be loaded: hf download org/base"
        in result.stderr
    )
    settings = {"base_model_name_or_path": "org/base", "revision": commit}
    with pytest.raises(UsageError, match=f"revision {commit} of org/base"):
        check_revision("adapter", settings)
    (snapshot(tmp_path / "cache", "org/base", monkeypatch) / "config.json").write_text("{}")
    check_revision("adapter", settings)
    check_revision("adapter", settings | {"revision": None})
    check_revision("adapter", {"base_model_name_or_path": tiny_lm, "revision": "v1.1"})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(UsageError):
        check_revision("adapter", settings)


def test_the_name_of_a_module_may_hold_that_of_a_factor():
    import torch

    from topxgen.inference.adapters import _has_effect

    name = "base_model.model.self_Attention.q.lora_{}.weight"
    tensors = {name.format(factor): torch.ones(2, 2) for factor in "AB"}
    assert _has_effect(name.format("A"), {}, tensors) and not _has_effect(name.format("B"), {}, tensors)


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("case", ["own EOS", "does not fit", "not visible", "whole model"])
def test_an_adapter_behind_a_server(case, late, good, tiny_lm, tmp_path, caplog):
    """vLLM's server lists the folder of an adapter, but ends its responses at the base's tokens, and serves one that does not fit.
    So does one that starts after the command."""
    folder = shutil.copytree(good, tmp_path / "adapter")
    (folder / "generation_config.json").write_text('{"eos_token_id": [7]}')
    if case == "does not fit":
        edit_tensors(folder, without_a_layer)
    listed = {"id": "m", "root": str(folder if case != "not visible" else tmp_path / "none"), "parent": "base"}
    if case == "whole model":
        listed["parent"] = None
    with ApiServer() as server:
        server.models = [None, {"id": [1], "parent": 2}, listed, {"id": "base", "root": tiny_lm, "parent": None}]
        server.late = late
        try:
            _, ending, _ = run("openai", server, chats(2), max_concurrent_requests=1)
        except UsageError as error:
            ending = error
    assert ("the adapter lacks" in str(ending)) == (case == "does not fit")
    ends = {"own EOS": [[7]] * 2, "does not fit": []}.get(case, [None] * 2)
    assert [body.get("stop_token_ids") for body in server.bodies] == ends
    assert ("is not visible here" in caplog.text) == (case == "not visible")
