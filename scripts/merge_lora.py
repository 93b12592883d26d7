"""Merge a LoRA or DoRA adapter into its base model: the result is a model that transformers and vLLM load.

    python scripts/merge_lora.py outputs/checkpoints/llama-lora outputs/llama-merged
    python scripts/merge_lora.py ADAPTER OUTPUT --base_model_name_or_path models/Meta-Llama-3-8B --dtype bfloat16

For decoder LMs and for encoder-decoders such as NLLB. Weights are added in float32 and rounded once. The base model is
loaded unquantized, even if the adapter was trained on quantized weights: this needs no GPU, but memory for the whole model,
in float32 if --dtype is not the base's.
"""

import argparse
import os
import shutil
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from topxgen import inference
from topxgen.common import checksums, files, lineage, provenance
from topxgen.common.cli import Parser, run_main
from topxgen.common.errors import UsageError, reason
from topxgen.common.hub import hub_call, load_weights
from topxgen.common.locks import OutputLock
from topxgen.inference import adapters

DTYPES = ("auto", "bfloat16", "float16", "float32")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("adapter", metavar="ADAPTER", help="a folder that peft saved (with adapter_config.json), or a Hub id")
    add("output", metavar="OUTPUT", type=Path, help="folder to write the merged model to; must not exist")
    add("--base_model_name_or_path", metavar="BASE", help="base model of the adapter [as named in adapter_config.json]")
    add("--dtype", choices=DTYPES, default="auto", help="precision of the result; auto: the base's")
    add(
        "--trust_remote_code",
        action="store_true",
        help="run Python code that comes with the base model; off by default",
    )
    return parser


def merge(adapter: Path, output: Path, base: str, revision: str | None, dtype: str, trust_remote_code: bool) -> str:
    """Write the merged model to `output`; a summary in one line."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, logging

    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    tokenizer_source, tokenizer_options = base, options
    if (adapter / "tokenizer_config.json").is_file():
        tokenizer_source, tokenizer_options = str(adapter), {"trust_remote_code": trust_remote_code}
    tokenizer = hub_call(tokenizer_source, lambda: AutoTokenizer.from_pretrained(tokenizer_source, **tokenizer_options))
    config = hub_call(base, lambda: AutoConfig.from_pretrained(base, **options))
    if getattr(config, "quantization_config", None):
        raise UsageError(
            f"{base} has quantized weights, into which nothing can be merged; pass the original model as "
            "--base_model_name_or_path"
        )
    adapters.check_fits(str(adapter), base, revision, trust_remote_code)
    model_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = hub_call(base, lambda: load_weights(model_class, base, dtype="auto", **options))
    if dtype not in ("auto", str(model.dtype).removeprefix("torch.")):
        model.float()  # so that sums are not rounded to the base's dtype first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # adapters.check_fits checks what peft warns about
        merged = add_adapter(model, adapter, base)
    if dtype != "auto":
        merged.to(getattr(torch, dtype))
    if tokenizer_source != base and tokenizer.eos_token_id is not None:  # what the adapter ends answers with
        listed = merged.generation_config.eos_token_id
        eos = dict.fromkeys([tokenizer.eos_token_id, *(listed if isinstance(listed, list) else [listed])])
        merged.config.get_text_config().eos_token_id = tokenizer.eos_token_id
        merged.generation_config.eos_token_id = [token for token in eos if token is not None]

    partial = files.partial(output)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()  # not a link
    try:
        merged.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if (adapter / "data_manifest.json").is_file():  # it names the template that main.py prompts with
            shutil.copy(adapter / "data_manifest.json", partial)
        merged_from = {
            "kind": "model",
            "name": "",
            "stage": "merge",
            "weights": provenance.weights_id(partial),
            "links": [lineage.of_model(str(adapter)), lineage.of_model(base)],
        }
        manifest = {"stage": "merge", "finished": provenance.now(), "command": provenance.command_line(())}
        if (adapter / "README.md").is_file():
            card = (adapter / "README.md").read_text(encoding="utf-8", errors="replace")
            (partial / "README.md").write_text(model_card(card), encoding="utf-8")
        names = checksums.existing(partial, partial.rglob("*"))
        manifest |= {"versions": provenance.versions(), lineage.KEY: merged_from, checksums.KEY: names}
        files.write_json(partial / lineage.MERGE_MANIFEST, manifest)
        checksums.claim(partial, [*names, lineage.MERGE_MANIFEST])
        os.rename(partial, output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return f"merged {adapter} into {base}: {output} ({merged.num_parameters():,} parameters, {merged.dtype})"


def add_adapter(model, adapter: Path, base: str):
    """`model` with the adapter's weights added, each layer in float32 and then rounded to its dtype.

    Raises UsageError if it changes weights that the model shares.
    """
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    # Modules that share a weight matrix: the embeddings, and usually the output layer.
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        if getattr(module, "weight", None) is not None:
            owners.setdefault(id(module.weight), []).append(name)
    shared = [name for names in owners.values() if len(names) > 1 for name in names]
    peft_model = hub_call(str(adapter), lambda: PeftModel.from_pretrained(model, str(adapter), torch_device="cpu"))
    inner = peft_model.get_base_model()
    # A decoder LM can save an output layer apart from the embeddings, an encoder-decoder cannot.
    changed = BaseTunerLayer | ModulesToSaveWrapper if inner.config.is_encoder_decoder else BaseTunerLayer
    for name in shared:
        if isinstance(inner.get_submodule(name), changed):
            raise UsageError(
                f"the adapter {adapter} changes {name}, whose weights {base} shares with "
                f"{' and '.join(other for other in shared if other != name)}; a merged model cannot hold both. Use the "
                "adapter unmerged (--adapter_name_or_path), or train one without that module in --target_modules"
            )
    for layer in inner.modules():
        if isinstance(layer, BaseTunerLayer):
            dtype = layer.get_base_layer().weight.dtype
            layer.float()
            try:
                layer.merge(safe_merge=True)
            except (
                ValueError,
                NotImplementedError,
            ) as error:  # NaN in its weights; kinds of LoRA that depend on the input
                raise UsageError(f"the adapter {adapter} cannot be merged ({reason(error)}); use it unmerged") from None
            layer.to(dtype)
    return peft_model.merge_and_unload()


def model_card(card: str) -> str:
    """The adapter's model card with front matter for a merged model: loaded by transformers, not by peft."""
    if not card.startswith("---\n"):
        return card
    front, end, body = card.partition("\n---")
    lines = [line for line in front.split("\n") if not line.strip(" -").startswith("base_model:adapter:")]
    changed = {"library_name": "transformers", "base_model_relation": "finetune"}
    keys = [line.partition(":")[0] for line in lines]
    lines = [f"{key}: {changed[key]}" if key in changed else line for key, line in zip(keys, lines, strict=True)]
    return "\n".join(lines) + end + body


def run(args: argparse.Namespace) -> int:
    """Check the adapter and merge it; the exit code."""
    if args.output.exists():
        raise UsageError(f"{args.output} already exists; remove it or choose another OUTPUT")
    adapter = Path(inference.adapter_folder(args.adapter))
    settings = adapters.read_adapter(str(adapter))
    base = args.base_model_name_or_path or settings.get("base_model_name_or_path")
    if not base:
        raise UsageError(f"{adapter}/adapter_config.json names no base model; pass --base_model_name_or_path")
    revision = None if args.base_model_name_or_path else settings.get("revision")
    with OutputLock(args.output.parent, part=args.output.name, flag="OUTPUT"):
        print(merge(adapter, args.output, base, revision, args.dtype, args.trust_remote_code), file=sys.stderr)
    return 0


def main() -> int:
    return run_main(build_parser(), run, "nothing was written")


if __name__ == "__main__":
    sys.exit(main())
