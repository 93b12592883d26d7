"""Merge a LoRA or DoRA adapter into its base model: the result is a model that transformers and vLLM load.

    python scripts/merge_lora.py outputs/checkpoints/llama-lora outputs/llama-merged
    python scripts/merge_lora.py ADAPTER OUTPUT --base_model_name_or_path models/Meta-Llama-3-8B --dtype bfloat16

With --ctranslate2, a fine-tuned NLLB (an adapter, or a whole model) for CTranslate2, several times faster than transformers:

    python scripts/merge_lora.py outputs/my-nllb outputs/my-nllb-ct2 --ctranslate2 int8 --src English --tgt Basque

For decoder LMs and for encoder-decoders such as NLLB. Weights are added in float32 and rounded once. The base model is
loaded unquantized, even if the adapter was trained on quantized weights: this needs no GPU, but memory for the whole model,
in float32 with a --dtype other than auto.
"""

import argparse
import json
import re
import shutil
import sys
import warnings
from collections.abc import Collection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from topxgen import inference
from topxgen.common import checksums, files, flag_rules, lineage, provenance
from topxgen.common.cli import Parser, count, run_main
from topxgen.common.console import show
from topxgen.common.errors import UsageError, reason
from topxgen.common.files import read_json
from topxgen.common.flag_rules import Rule
from topxgen.common.hub import hub_call, listed, model_file, require
from topxgen.common.locks import OutputLock
from topxgen.common.needs import MODEL, Need, models
from topxgen.common.weights import load_weights
from topxgen.inference import adapters
from topxgen.text import languages
from topxgen.translation import conversion

QUOTES = "'\""  # of YAML
DTYPES = ("auto", "bfloat16", "float16", "float32")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    add = parser.add_argument
    # fmt: off
    add("adapter", metavar="ADAPTER",
        help="a folder that peft saved (with adapter_config.json), or a Hub id; with --ctranslate2 also a whole model")
    add("output", metavar="OUTPUT", type=Path, help="folder to write the merged model to; must not exist")
    add("--base_model_name_or_path", metavar="BASE", help="base model of the adapter [as named in adapter_config.json]")
    add("--dtype", choices=DTYPES, default="auto", help="precision of the result; auto: the base's, float32 for CTranslate2")
    add("--trust_remote_code", action="store_true",
        help="run Python code that comes with the base model; off by default")
    add = parser.add_argument_group("for CTranslate2").add_argument
    add("--ctranslate2", choices=conversion.TYPES, metavar="TYPE",
        help=f"write an encoder-decoder as a CTranslate2 model, with weights of this type: {', '.join(conversion.TYPES)} [not converted]")
    add("--src", metavar="LANGUAGE",
        help="language of the sentences by which both engines are compared [as it was trained]")
    # fmt: on
    add("--tgt", metavar="LANGUAGE", help="language that they are translated into [as it was trained]")
    add(
        "--check_sentences", **count(0, "how many sentences are translated by both engines to compare them; 0: none", 5)
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
    # With another dtype of the result, weights and sums must not be rounded to the one that the base's config.json names first.
    load_as = "auto" if dtype == "auto" else torch.float32
    model = hub_call(base, lambda: load_weights(model_class, base, dtype=load_as, **options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # adapters.check_fits checks what peft warns about
        merged = add_adapter(model, adapter, base)
    if dtype != "auto":
        merged.to(getattr(torch, dtype))
        if bad := [name for name, tensor in merged.named_parameters() if not tensor.isfinite().all()]:
            raise UsageError(
                f"{listed(bad, 3)} has numbers that are too large for --dtype {dtype}: pass bfloat16 or float32"
            )
    if ends := adapters.end_tokens(str(adapter), trust_remote_code):
        known = merged.generation_config.eos_token_id
        eos = dict.fromkeys([tokenizer.eos_token_id, *sorted(ends), *(known if isinstance(known, list) else [known])])
        merged.config.get_text_config().eos_token_id = tokenizer.eos_token_id
        merged.generation_config.eos_token_id = [token for token in eos if token is not None]

    with files.replacing_folder(output) as partial:
        merged.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if (adapter / "data_manifest.json").is_file():  # it names the template that main.py prompts with
            shutil.copy(adapter / "data_manifest.json", partial)
        if (adapter / "README.md").is_file():
            card = (adapter / "README.md").read_text(encoding="utf-8", errors="replace")
            (partial / "README.md").write_text(model_card(card, output.name), encoding="utf-8")
        write_manifest(partial, [lineage.of_model(str(adapter)), lineage.of_model(base)])
    return f"merged {adapter} into {base}: {output} ({merged.num_parameters():,} parameters, {merged.dtype})"


def write_manifest(folder: Path, links: list[lineage.Link], more: dict | None = None) -> None:
    """Last of a folder's files; `links` are what the weights in it were made from."""
    made = {"kind": "model", "name": "", "stage": "merge", "weights": provenance.weights_id(folder), "links": links}
    names = checksums.existing(folder, folder.rglob("*"))
    manifest = {"stage": "merge", "finished": provenance.now(), "command": provenance.command_line(()), **(more or {})}
    manifest |= {"versions": provenance.versions(), lineage.KEY: made, checksums.KEY: names}
    files.write_json(folder / lineage.MERGE_MANIFEST, manifest)
    checksums.claim(folder, [*names, lineage.MERGE_MANIFEST])


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
            dtype = next(layer.get_base_layer().parameters()).dtype  # experts are one parameter, without `weight`
            layer.float()
            try:
                layer.merge(safe_merge=True)
            # NaN; kinds of LoRA that depend on the input; a bias of its own where the layer has none
            except (ValueError, NotImplementedError, RuntimeError) as error:
                raise UsageError(f"the adapter {adapter} cannot be merged ({reason(error)}); use it unmerged") from None
            layer.to(dtype)
    return peft_model.merge_and_unload()


def model_card(card: str, name: str) -> str:
    """The adapter's model card for a merged model that is called `name`: loaded by transformers, not by peft."""
    if not card.startswith("---\n"):
        return card
    front, end, body = card.partition("\n---")
    lines = [line for line in front.split("\n") if not line.strip(" -").startswith("base_model:adapter:")]
    changed = {"library_name": "transformers", "base_model_relation": "finetune"}
    keys = [line.partition(":")[0] for line in lines]
    lines = [f"{key}: {changed[key]}" if key in changed else line for key, line in zip(keys, lines, strict=True)]
    front = "\n".join(lines)
    if named := re.search(r"^model-index:\n- name: (.+)$", front, re.MULTILINE):
        front = front[: named.start(1)] + json.dumps(name, ensure_ascii=False) + front[named.end(1) :]
        body = body.replace(f"\n# {named[1].strip(QUOTES)}\n", f"\n# {name}\n", 1)
        body = body.replace("\nA LoRA adapter of ", "\nA LoRA adapter merged into ", 1)
    return front + end + body


RULES = (Rule(("src", "tgt", "check_sentences"), "--ctranslate2", lambda args: args.ctranslate2),)


def run(args: argparse.Namespace) -> int:
    """Check the adapter and merge it; the exit code."""
    flag_rules.check(RULES, args)
    if args.output.exists():
        raise UsageError(f"{args.output} already exists; remove it or choose another OUTPUT")
    require(Need(MODEL, name) for name in (args.adapter, args.base_model_name_or_path) if name)
    if args.ctranslate2 and model_file(args.adapter, "adapter_config.json") is None:
        with OutputLock(args.output.parent, part=args.output.name, flag="OUTPUT"):
            export(args.adapter, args, [lineage.of_model(args.adapter)])
        return 0
    adapter = Path(inference.adapter_folder(args.adapter))
    settings = adapters.read_adapter(str(adapter))
    base = args.base_model_name_or_path or settings.get("base_model_name_or_path")
    if not base:
        raise UsageError(f"{adapter}/adapter_config.json names no base model; pass --base_model_name_or_path")
    revision = None if args.base_model_name_or_path else settings.get("revision")
    require([Need(MODEL, base, revision=revision or "")])
    with OutputLock(args.output.parent, part=args.output.name, flag="OUTPUT"):
        output = args.output.with_name(f"{args.output.name}.merged") if args.ctranslate2 else args.output
        if args.ctranslate2:
            shutil.rmtree(output, ignore_errors=True)  # of a run that was killed
        try:
            # What is converted is rounded then, and not to the base's precision before.
            dtype = "float32" if args.ctranslate2 and args.dtype == "auto" else args.dtype
            print(merge(adapter, output, base, revision, dtype, args.trust_remote_code), file=sys.stderr)
            if args.ctranslate2:
                export(str(output), args, [lineage.of_model(str(adapter)), lineage.of_model(base)])
        finally:
            if args.ctranslate2:
                shutil.rmtree(output, ignore_errors=True)
    return 0


def needs(args: argparse.Namespace, names: Collection[str] = ()) -> list[Need]:
    """What a command loads that does not come with the package."""
    return models(str(args.adapter), args.base_model_name_or_path)


def export(model: str, args: argparse.Namespace, links: list[lineage.Link]) -> None:
    """Write `model`, made from `links`, as a CTranslate2 model, and compare their translations."""
    with files.replacing_folder(args.output) as partial:
        conversion.convert(model, partial, args.ctranslate2, args.trust_remote_code)
        if (card := Path(args.adapter) / "README.md").is_file():
            text = model_card(card.read_text(encoding="utf-8", errors="replace"), args.output.name)
            text = text.replace("library_name: transformers\n", "library_name: ctranslate2\n", 1)
            (partial / "README.md").write_text(text, encoding="utf-8")
        write_manifest(partial, links, {"ctranslate2": args.ctranslate2})
    show(f"{args.output}: a CTranslate2 model ({args.ctranslate2})")
    if args.check_sentences:
        show(comparison(model, args))


def comparison(model: str, args: argparse.Namespace) -> str:
    """How many sentences both engines translate alike, and those that they do not; or why they were not compared."""
    trained = [
        name.split(" to ") for name in read_json(Path(args.adapter) / lineage.DATA_MANIFEST).get("languages", {})
    ]
    src, tgt = next((names for names in trained if len(names) == 2), (None, None))
    src, tgt = args.src or src, args.tgt or tgt
    if not (src and tgt):
        return "not compared with transformers: pass --src and --tgt"
    try:
        sides = languages.find(src), languages.find(tgt)
        found = conversion.compare(
            model, args.output, args.ctranslate2, *sides, args.check_sentences, args.trust_remote_code
        )
    except UsageError as error:
        return f"not compared with transformers: {error}"
    others = [one for one in found if one.reference != one.translation]
    lines = [
        f"{len(found) - len(others)} of {len(found)} sentences from {src} into {tgt} are translated as by transformers in float32"
    ]
    for one in others:
        lines += [f"  {src}: {one.sentence}", f"  transformers: {one.reference}", f"  CTranslate2:  {one.translation}"]
    return "\n".join(lines)


def main() -> int:
    return run_main(build_parser(), run, "nothing was written")


if __name__ == "__main__":
    sys.exit(main())
