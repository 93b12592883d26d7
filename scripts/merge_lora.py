"""Merge a LoRA or DoRA adapter into its base model: a folder that transformers and vLLM load as it stands.

    python scripts/merge_lora.py outputs/checkpoints/llama-lora outputs/llama-merged
    python scripts/merge_lora.py ADAPTER OUTPUT --base_model_name_or_path models/Meta-Llama-3-8B --dtype bfloat16

For decoders and for encoder-decoders such as NLLB. The sums are made in float32 and rounded once. The base is loaded
whole and unquantised, whatever the adapter was trained on, so this needs no GPU but as much memory as the model.
"""

import argparse
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from topxgen import inference
from topxgen.common import files
from topxgen.common.cli import Parser, run_main
from topxgen.common.errors import UsageError, reason
from topxgen.common.hub import cannot_load

DTYPES = ("auto", "bfloat16", "float16", "float32")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("adapter", metavar="ADAPTER", help="folder that peft saved (adapter_config.json), or a Hub id")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder to write; must not exist")
    parser.add_argument("--base_model_name_or_path", metavar="BASE", help="default: the one adapter_config.json names")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the merged weights; auto: the base's")
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that the base's folder brings along")
    return parser


def merge(adapter: Path, output: Path, base: str, revision: str | None, dtype: str, trust_remote_code: bool) -> str:
    """Write the merged model to `output`; returns a line that says what was done."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, logging

    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    tokenizer_source, tokenizer_options = base, options
    if (adapter / "tokenizer_config.json").is_file():
        tokenizer_source, tokenizer_options = str(adapter), {"trust_remote_code": trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_source, **tokenizer_options)
        config = AutoConfig.from_pretrained(base, **options)
    except Exception as error:  # the Hub client raises dozens of types; the cause is in the message
        raise UsageError(cannot_load(base, error)) from None
    if getattr(config, "quantization_config", None):
        raise UsageError(
            f"{base} holds quantised weights, which cannot be added to; pass the model that it was made from as "
            "--base_model_name_or_path"
        )
    model_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    try:
        model = model_class.from_pretrained(base, dtype="auto", **options)
    except Exception as error:
        raise UsageError(cannot_load(base, error)) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what peft warns of is looked into there
        merged = add_adapter(model, adapter, base)
    if dtype != "auto":
        merged.to(getattr(torch, dtype))

    partial = files.partial(output)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        merged.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if (adapter / "data_manifest.json").is_file():  # which says by what template it was trained
            shutil.copy(adapter / "data_manifest.json", partial)
        if (adapter / "README.md").is_file():
            card = (adapter / "README.md").read_text(encoding="utf-8")
            (partial / "README.md").write_text(model_card(card), encoding="utf-8")
        os.rename(partial, output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return f"{adapter} is merged into {base}: {output} ({merged.num_parameters():,} parameters, {merged.dtype})"


def add_adapter(model, adapter: Path, base: str):
    """`model` with the adapter's weights added to its own, each layer summed in float32 and rounded to its dtype.

    Raises UsageError when adapter and model do not fit each other in every tensor.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    # Matrices that several modules share: the embeddings, and usually the output layer.
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        if getattr(module, "weight", None) is not None:
            owners.setdefault(id(module.weight), []).append(name)
    shared = [name for names in owners.values() if len(names) > 1 for name in names]
    try:
        peft_model = PeftModel.from_pretrained(model, str(adapter), torch_device="cpu")
    except Exception as error:
        raise UsageError(
            f"the adapter {adapter} does not fit {base} ({reason(error)}): is it the right base?"
        ) from None

    # peft only warns when the adapter lacks a tensor, and passes over one too many.
    saved = saved_names(adapter)
    expected = set(get_peft_model_state_dict(peft_model, save_embedding_layers=False))
    odd = sorted(expected - saved) + sorted(name for name in saved - expected if "lora_" in name)
    if odd:
        raise UsageError(
            f"the adapter {adapter} does not fit {base}: {len(odd)} of its tensors or the model's have no counterpart "
            f"({odd[0]}); is it the right base?"
        )
    inner = peft_model.get_base_model()
    # A decoder's own copy of the output layer is saved beside the embeddings; an encoder-decoder has no place for one.
    changed = BaseTunerLayer | ModulesToSaveWrapper if inner.config.is_encoder_decoder else BaseTunerLayer
    for name in shared:
        if isinstance(inner.get_submodule(name), changed):
            raise UsageError(
                f"the adapter {adapter} changes {name}, whose weights {base} shares with "
                f"{' and '.join(other for other in shared if other != name)}; a merged model cannot hold both. Use the adapter "
                "as it is (--adapter_name_or_path), or train one without that module among --target_modules"
            )
    for layer in inner.modules():
        if isinstance(layer, BaseTunerLayer):
            dtype = layer.get_base_layer().weight.dtype
            layer.float()
            layer.merge(safe_merge=True)
            layer.to(dtype)
    return peft_model.merge_and_unload()


def saved_names(adapter: Path) -> set[str]:
    """The names of the tensors in the adapter's file."""
    if (adapter / "adapter_model.safetensors").is_file():
        from safetensors import safe_open

        with safe_open(adapter / "adapter_model.safetensors", framework="pt") as tensors:
            return set(tensors.keys())
    import torch

    return set(torch.load(adapter / "adapter_model.bin", map_location="cpu", weights_only=True))


def model_card(card: str) -> str:
    """The adapter's card, without what its front matter says that is no longer true: that it is to be loaded by peft."""
    if not card.startswith("---\n"):
        return card
    front, end, body = card.partition("\n---")
    lines = [line for line in front.split("\n") if not line.strip(" -").startswith("base_model:adapter:")]
    lines = ["library_name: transformers" if line.startswith("library_name:") else line for line in lines]
    return "\n".join(lines) + end + body


def run(args: argparse.Namespace) -> int:
    """Check the adapter and merge it; the exit code."""
    if args.output.exists():
        raise UsageError(f"{args.output} is there already; remove it or choose another OUTPUT")
    adapter = Path(inference.adapter_folder(args.adapter))
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if settings.get("peft_type") != "LORA":
        raise UsageError(f"{adapter} is a {settings.get('peft_type')} adapter; only LoRA and DoRA can be merged here")
    if not any((adapter / f"adapter_model.{end}").is_file() for end in ("safetensors", "bin")):
        raise UsageError(f"{adapter} has no weights (adapter_model.safetensors); was it saved to the end?")
    base = args.base_model_name_or_path or settings.get("base_model_name_or_path")
    if not base:
        raise UsageError(f"{adapter}/adapter_config.json names no base model; pass --base_model_name_or_path")
    revision = None if args.base_model_name_or_path else settings.get("revision")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    print(merge(adapter, args.output, base, revision, args.dtype, args.trust_remote_code), file=sys.stderr)
    return 0


def main() -> int:
    return run_main(build_parser(), run, "nothing was written")


if __name__ == "__main__":
    sys.exit(main())
