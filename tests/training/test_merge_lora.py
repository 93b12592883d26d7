"""scripts/merge_lora.py: the merged folder, loaded by plain transformers, computes what base and adapter compute."""

import importlib.util
import json
from pathlib import Path

import pytest

from tests.support.runs import ROOT, in_process
from tests.support.tiny_models import adapter_of, auto_class, without_weights
from tests.support.training_runs import flags
from topxgen.inference.adapters import end_tokens

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")
SCRIPT = ROOT / "scripts" / "merge_lora.py"
TEXTS = ["Gizon-emakume guztiak aske jaiotzen dira", "duintasun eta eskubide berberak dituztela"]
DECODER_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NLLB_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


@pytest.fixture(scope="module")
def merge_lora():
    spec = importlib.util.spec_from_file_location("merge_lora", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(merge_lora, monkeypatch, capsys):
    """The script's main() in this process: exit code and what it said."""

    def call(*args) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["merge_lora.py", *map(str, args)])
        capsys.readouterr()
        end_tokens.cache_clear()
        code = merge_lora.main()
        return code, capsys.readouterr().err.strip()

    return call


def logits(model, folder: str):
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    with torch.no_grad():
        return model(**inputs).logits


def compare(base: str, adapter_model, merged: Path) -> None:
    """Equal logits, and different ones from the base's: an adapter that does nothing would prove nothing."""
    import torch

    plain = auto_class(base).from_pretrained(base, dtype="auto").eval()
    whole = auto_class(base).from_pretrained(merged, dtype="auto").eval()
    assert whole.dtype == plain.dtype
    expected, found = logits(adapter_model, base), logits(whole, str(merged))
    assert float((expected - logits(plain, base)).abs().max()) > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("kind", ["decoder", "nllb"])
def test_the_merged_model_computes_the_same(run, request, tmp_path, kind, dora):
    base = request.getfixturevalue("tiny_lm" if kind == "decoder" else "tiny_nllb")
    targets = DECODER_TARGETS if kind == "decoder" else NLLB_TARGETS
    adapter, merged = tmp_path / "adapter", tmp_path / "deep" / "merged"
    adapter_model = adapter_of(base, adapter, targets, use_dora=dora)
    code, said = run(adapter, merged)
    assert code == 0 and str(merged) in said and base in said and "float32" in said, said
    compare(base, adapter_model, merged)
    assert not list(merged.parent.glob("*.partial"))
    names = {path.name for path in merged.iterdir()}
    assert names >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert not [name for name in names if name.startswith("adapter")]


@pytest.fixture
def mixture(tiny_lm, tmp_path) -> str:
    """A mixture of experts, which transformers keeps as parameters of three dimensions."""
    import torch
    from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    sizes = dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    tokens = dict(vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=1, bos_token_id=None)
    torch.manual_seed(0)
    model = MixtralForCausalLM(MixtralConfig(num_local_experts=4, num_experts_per_tok=2, **sizes, **tokens))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "mixture")
    return str(tmp_path / "mixture")


def test_adapters_of_experts(run, mixture, tmp_path):
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    adapter_model = adapter_of(mixture, adapter, "all-linear")
    assert any("experts" in name and "lora_" in name for name, _ in adapter_model.named_parameters())
    code, said = run(adapter, merged)
    assert code == 0, said
    compare(mixture, adapter_model, merged)


def test_train_py_says_that_adapters_of_experts_take_no_dropout(mixture, tmp_path):
    words = flags(mixture, tmp_path / "out", use_peft=True, dry_run=True)
    result = in_process("train.py", *words)
    assert result.returncode == 2 and "pass --lora_dropout 0, or other --target_modules" in result.stderr, result.stderr
    result = in_process("train.py", *words, "--lora_dropout", 0)
    assert result.returncode == 0, result.stderr


def test_what_is_saved_beside_the_layers(run, tiny_lm, tmp_path):
    """A retrained output layer; other ranks for some layers, rank-stabilised scaling."""
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    options = dict(modules_to_save=["lm_head"], use_rslora=True, rank_pattern={"q_proj": 8})
    adapter_model = adapter_of(tiny_lm, adapter, ["q_proj", "v_proj"], **options)
    assert run(adapter, merged)[0] == 0
    compare(tiny_lm, adapter_model, merged)


@pytest.fixture
def tied(tiny_lm, tmp_path) -> str:
    """The decoder with its output layer tied to the embeddings, as Gemma's is."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_lm)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path / "tied")
    AutoTokenizer.from_pretrained(tiny_lm).save_pretrained(tmp_path / "tied")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "tied")
    assert torch.equal(again.lm_head.weight, again.model.embed_tokens.weight)
    return str(tmp_path / "tied")


def test_tied_embeddings(run, tied, tiny_nllb, tmp_path):
    plain = adapter_of(tied, tmp_path / "plain", DECODER_TARGETS)
    assert run(tmp_path / "plain", tmp_path / "merged")[0] == 0
    compare(tied, plain, tmp_path / "merged")
    # A retrained output layer is one of its own from then on.
    retrained = adapter_of(tied, tmp_path / "retrained", ["q_proj"], modules_to_save=["lm_head"])
    assert run(tmp_path / "retrained", tmp_path / "untied")[0] == 0
    compare(tied, retrained, tmp_path / "untied")
    assert not json.loads((tmp_path / "untied" / "config.json").read_text())["tie_word_embeddings"]
    # Added to the one matrix, the update of the output layer would change the embeddings, too.
    adapter_of(tied, tmp_path / "head", ["q_proj", "lm_head"])
    code, said = run(tmp_path / "head", tmp_path / "none")
    assert code == 2 and "lm_head" in said and "embed_tokens" in said and "\n" not in said
    adapter_of(tiny_nllb, tmp_path / "nllb", ["q_proj"], modules_to_save=["lm_head"])
    code, said = run(tmp_path / "nllb", tmp_path / "none")
    assert code == 2 and "lm_head" in said and "shares" in said
    assert not (tmp_path / "none").exists()


def test_a_16_bit_base(run, tiny_lm, tmp_path):
    """Summed in float32 and rounded once: nearer to the exact sum than peft's own merge in bfloat16."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.bfloat16).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_lm).save_pretrained(base)
    adapter_of(str(base), tmp_path / "adapter", DECODER_TARGETS, dtype="bfloat16", use_dora=True)
    exact = adapter_of(str(base), tmp_path / "exact", DECODER_TARGETS, use_dora=True).merge_and_unload().state_dict()
    assert run(tmp_path / "exact", tmp_path / "merged")[0] == 0
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"
    for name, tensor in merged.items():
        assert torch.equal(tensor, exact[name].to(torch.bfloat16)), name
    code, said = run(tmp_path / "adapter", tmp_path / "whole", "--dtype", "float32")
    assert code == 0 and "float32" in said
    assert {t.dtype for t in load_file(tmp_path / "whole" / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize(
    ("saved", "dtype"),
    [("bfloat16", "float32"), ("bfloat16", "float16"), ("float32", "float32"), ("float32", "bfloat16")],
)
def test_another_dtype_is_rounded_once(run, tiny_lm, tmp_path, saved, dtype):
    """A base whose config.json names bfloat16, however its weights are saved, merged with a --dtype: no other rounding than to
    that one, nor of retrained layers."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=getattr(torch, saved)).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_lm).save_pretrained(base)
    (base / "config.json").write_text(
        json.dumps(json.loads((base / "config.json").read_text()) | {"dtype": "bfloat16"})
    )
    model = adapter_of(str(base), tmp_path / "adapter", DECODER_TARGETS, modules_to_save=["lm_head"])
    assert run(tmp_path / "adapter", tmp_path / "merged", "--dtype", dtype)[0] == 0
    merged, exact = load_file(tmp_path / "merged" / "model.safetensors"), model.merge_and_unload().state_dict()
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, exact[name].to(getattr(torch, dtype)), atol=0, rtol=0)


def test_tokenizer_and_card(run, tiny_lm, tmp_path):
    from transformers import AutoTokenizer

    adapter = tmp_path / "adapter"
    adapter_of(tiny_lm, adapter, ["q_proj"])
    card = (
        "---\nbase_model: someone/model\nbase_model_relation: adapter\nlibrary_name: peft\ntags:\n- base_model:adapter:someone/model\n- lora\n---\n"
        "# Mine\n\nlibrary_name: peft\n\n---\nEnd.\n"
    )
    (adapter / "README.md").write_text(card, encoding="utf-8")
    assert run(adapter, tmp_path / "a")[0] == 0
    assert (tmp_path / "a" / "README.md").read_text(encoding="utf-8") == (
        "---\nbase_model: someone/model\nbase_model_relation: finetune\nlibrary_name: transformers\ntags:\n- lora\n---\n"
        "# Mine\n\nlibrary_name: peft\n\n---\nEnd.\n"
    )
    theirs, ours = AutoTokenizer.from_pretrained(tiny_lm), AutoTokenizer.from_pretrained(tmp_path / "a")
    assert ours(TEXTS)["input_ids"] == theirs(TEXTS)["input_ids"] and ours.eos_token == theirs.eos_token
    # The adapter's own goes before the base's.
    theirs.chat_template = "{{ messages[0]['content'] }}!"
    theirs.eos_token = "<pad>"  # as train.py --eos_token_id saves it
    theirs.save_pretrained(adapter)
    (adapter / "README.md").unlink()
    assert run(adapter, tmp_path / "b")[0] == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "b").chat_template == theirs.chat_template
    assert not (tmp_path / "b" / "README.md").exists()
    ends = [
        json.loads((tmp_path / "b" / name).read_text())["eos_token_id"]
        for name in ("config.json", "generation_config.json")
    ]
    assert ends == [theirs.eos_token_id, [theirs.eos_token_id, ours.eos_token_id]] == [0, [0, 1]]


def test_weights_that_float16_cannot_hold(run, tiny_lm, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_lm)
    model.model.norm.weight.data *= 1e6
    model.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny_lm).save_pretrained(tmp_path / "base")
    adapter_of(str(tmp_path / "base"), tmp_path / "adapter", ["q_proj"])
    code, said = run(tmp_path / "adapter", tmp_path / "merged", "--dtype", "float16")
    assert code == 2 and "model.norm.weight has numbers that are too large for --dtype float16" in said
    assert not (tmp_path / "merged").exists()
    assert run(tmp_path / "adapter", tmp_path / "merged", "--dtype", "bfloat16")[0] == 0


def test_ends_of_answers_by_the_adapters_generation_config(run, tiny_lm, tmp_path):
    """As for the adapter unmerged, with a tokenizer of its own or without."""
    from transformers import AutoTokenizer

    adapter = tmp_path / "adapter"
    adapter_of(tiny_lm, adapter, ["q_proj"])
    (adapter / "generation_config.json").write_text('{"eos_token_id": [5, 77]}')
    for name in ("without", "with"):
        assert run(adapter, tmp_path / name)[0] == 0
        assert json.loads((tmp_path / name / "generation_config.json").read_text())["eos_token_id"] == [1, 5, 77]
        AutoTokenizer.from_pretrained(tiny_lm).save_pretrained(adapter)


def test_what_cannot_be_merged(run, tiny_lm, tiny_nllb, tmp_path):
    adapter, output = tmp_path / "adapter", tmp_path / "out"
    adapter_of(tiny_lm, adapter, ["q_proj"])
    config = json.loads((adapter / "adapter_config.json").read_text())

    def refused(*args, parts=()) -> None:
        code, said = run(*args)
        assert code == 2 and said.startswith("merge_lora.py: error: ") and "\n" not in said, said
        for part in parts:
            assert part in said, said

    def configured(**changes) -> Path:
        (adapter / "adapter_config.json").write_text(json.dumps({**config, **changes}))
        return adapter

    refused(adapter, tmp_path, parts=(str(tmp_path), "already exists"))
    refused(tiny_lm, output, parts=("adapter_config.json", "full model"))
    refused(tmp_path / "none", output, parts=(str(tmp_path / "none"),))
    refused(configured(base_model_name_or_path=None), output, parts=("--base_model_name_or_path",))
    refused(configured(base_model_name_or_path="gone/away"), output, parts=("gone/away",))
    refused(configured(base_model_name_or_path=str(tmp_path / "gone")), output, parts=(str(tmp_path / "gone"),))
    refused(configured(peft_type="IA3"), output, parts=("IA3", "LoRA"))
    configured()
    refused(adapter, output, "--base_model_name_or_path", tiny_nllb, parts=(tiny_nllb, "right base"))
    # More layers than the adapter has: peft only warns.
    deeper = tmp_path / "deeper"
    build_deeper(tiny_lm, deeper, 3)
    refused(adapter, output, "--base_model_name_or_path", deeper, parts=("layers.2", "right base"))
    build_deeper(tiny_lm, tmp_path / "flatter", 1)
    refused(adapter, output, "--base_model_name_or_path", tmp_path / "flatter", parts=("layers.1", "right base"))
    incomplete = without_weights(tiny_lm, tmp_path / "incomplete", "layers.1.")
    refused(adapter, output, "--base_model_name_or_path", incomplete, parts=(str(incomplete), "lacks model.layers.1."))
    # Weights that are stored in 4 bits.
    model = json.loads((deeper / "config.json").read_text())
    (deeper / "config.json").write_text(
        json.dumps({**model, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}})
    )
    refused(adapter, output, "--base_model_name_or_path", deeper, parts=(str(deeper), "quantized"))
    (adapter / "adapter_model.safetensors").unlink()
    refused(adapter, output, parts=("adapter_model.safetensors",))
    adapter_of(tiny_lm, tmp_path / "biased", ["q_proj"], lora_bias=True)
    refused(tmp_path / "biased", output, parts=("cannot be merged", "use it unmerged"))
    assert not output.exists() and not list(tmp_path.glob("*.partial"))


def build_deeper(base: str, folder: Path, layers: int) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(base)
    config.num_hidden_layers = layers
    config.layer_types = None
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


def test_a_merge_that_breaks_off_leaves_nothing(run, merge_lora, tiny_lm, tmp_path, monkeypatch):
    from transformers import PreTrainedTokenizerBase

    adapter_of(tiny_lm, tmp_path / "adapter", ["q_proj"])

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PreTrainedTokenizerBase, "save_pretrained", full)
    code, said = run(tmp_path / "adapter", tmp_path / "out")
    assert code == 2 and "No space left" in said and "\n" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
