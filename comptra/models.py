"""The models of --model_name_or_path: whole ones or adapters, how each is prompted, and with which template."""

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from topxgen import inference
from topxgen.common import flag_rules
from topxgen.common.cli import check_filename
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json
from topxgen.common.flag_rules import Rule
from topxgen.common.hub import model_file
from topxgen.inference import adapters
from topxgen.prompting.mt_templates import MTTemplate, trained_template
from topxgen.prompting.style import CHAT, RAW, style_of

logger = logging.getLogger(__name__)

DEFAULT_TEMPLATE = "11"


@dataclass(frozen=True)
class Model:
    """A whole model, or an adapter on a base."""

    path: str
    base: str
    adapter: str | None = None  # its folder
    trained_on: str | None = None  # the template that it was fine-tuned on, if known

    @property
    def name(self) -> str:
        return check_filename(Path(self.path).name, "--model_name_or_path")

    def template_key(self, chosen: str | None) -> str:
        return chosen if chosen is not None else self.trained_on or DEFAULT_TEMPLATE


def resolve_models(args: argparse.Namespace, uses_llm: bool) -> list[Model]:
    """The models to run; the translation model where no LLM is used.

    Raises UsageError for a model that is not a decoder, an adapter that does not fit, and two models of one name.
    """
    nllb = Model(args.nllb_name_or_path, args.nllb_name_or_path)
    if not uses_llm:
        if set(args.model_name_or_path or ()) - {nllb.path}:
            raise UsageError(
                f"--method_translate nllb without --steps uses only {nllb.path}: drop --model_name_or_path, or pass that "
                "model as --nllb_name_or_path"
            )
        return [nllb]
    if not args.model_name_or_path:
        raise UsageError("pass --model_name_or_path (only --method_translate nllb without --steps does not need it)")
    models = [_model(path, args) for path in dict.fromkeys(path.rstrip("/") for path in args.model_name_or_path)]
    names = [model.name for model in models]
    if duplicates := [name for name in names if names.count(name) > 1]:
        raise UsageError(
            f"two models are named {duplicates[0]!r}, so that their results would be in one folder: run them one by one, each "
            "with its own --output_dir"
        )
    has_adapters = any(model.adapter for model in models)
    needs = "a LoRA adapter as --model_name_or_path"
    flag_rules.check([Rule(("lora_rank",), needs, lambda _: has_adapters, "enable_lora")], args)
    return models


def _model(path: str, args: argparse.Namespace) -> Model:
    if args.inference_api in inference.REMOTE:  # a name that means something to the server
        if args.enable_lora or (Path(path) / "adapter_config.json").is_file():
            raise inference.adapter_is_local(path, args.inference_api)
        return Model(path, path, trained_on=trained_template(path) if Path(path).is_dir() else None)
    base = (args.base_model_name_or_path or "").rstrip("/")
    if (args.enable_lora and path != base) or model_file(path, "adapter_config.json"):
        return _adapter(path, base, args)
    if base and path != base:
        raise UsageError(
            f"--base_model_name_or_path is for adapters, but {path} is not one (no adapter_config.json); pass a folder that "
            "peft saved, or drop the flag"
        )
    config = model_file(path, "config.json")
    if config and read_json(config).get("is_encoder_decoder"):
        raise UsageError(
            f"{path} is an encoder-decoder model: pass --method_translate nllb --nllb_name_or_path {path}, and an LLM as "
            "--model_name_or_path only if --steps or --number_of_refining_steps need one"
        )
    return Model(path, path, trained_on=trained_template(path))


def _adapter(path: str, base: str, args: argparse.Namespace) -> Model:
    config = adapters.read_adapter(inference.adapter_folder(path))
    if not base:
        adapters.check_revision(path, config)
        base = (config.get("base_model_name_or_path") or "").rstrip("/")
    if not base:
        raise UsageError(f"{path} does not name its base model: pass --base_model_name_or_path")
    folder = adapters.check_adapter(path, base, args.lora_rank, args.trust_remote_code)
    if args.inference_api == "vllm":
        adapters.check_vllm_supports(folder)
    return Model(path, base, folder, trained_template(folder))


def prompt_style(
    model: Model, args: argparse.Namespace, settings: inference.ModelSettings, template: Callable[[Model], MTTemplate]
) -> str:
    """RAW or CHAT; logs when --template_key or the template of the fine-tuning is not used. Raises UsageError: see style_of."""
    key, trained = args.template_key, model.trained_on
    if model.adapter:
        adapters.check_tokenizer(model.adapter, settings)
    # A fine-tuned model is prompted as it was trained, even if its tokenizer still has a chat template.
    chosen = RAW if args.prompt_style == "auto" and trained else args.prompt_style
    style = style_of(chosen, args.inference_api, settings)
    if style == CHAT and (trained or key):
        unused = f"template {trained}, on which it was fine-tuned," if trained else f"--template_key {key}"
        logger.info(
            f"{model.path} is prompted through its chat template, so {unused} is not used; --prompt_style raw uses it"
        )
    elif style == RAW and trained and template(model).key != trained:
        logger.warning(
            f"{model.path} was fine-tuned on template {trained}, but is prompted with {key}: expect worse results"
        )
    return style
