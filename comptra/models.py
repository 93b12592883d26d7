"""Which models a command line names: whole ones or adapters, how each is asked, and with which template."""

import argparse
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from topxgen import inference
from topxgen.common.cli import check_filename
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json
from topxgen.common.hub import model_file
from topxgen.prompting.mt_templates import MTTemplate, trained_template
from topxgen.prompting.style import CHAT, RAW, style_of

logger = logging.getLogger(__name__)

DEFAULT_TEMPLATE = "11"
SAMPLES, SAMPLE = 256, 1 << 14  # pieces of a file of weights, and bytes of each, that tell it from another
NO_WEIGHTS = ("training_args.bin", "optimizer.bin", "scheduler.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")


@dataclass(frozen=True)
class Model:
    """One of --model_name_or_path: a whole model, or an adapter on a base."""

    path: str
    base: str
    adapter: str | None = None  # its folder
    trained_on: str | None = None  # the template that it was fine-tuned on, where it says so

    @property
    def name(self) -> str:
        return check_filename(Path(self.path).name, "--model_name_or_path")

    def template_key(self, wanted: str | None) -> str:
        return wanted if wanted is not None else self.trained_on or DEFAULT_TEMPLATE


def settled(args: argparse.Namespace, asks: bool) -> list[Model]:
    """The models of --model_name_or_path. `asks`: an LLM is asked, so that there must be one.

    Raises UsageError for what is no decoder, an adapter that does not fit, and two models of one name.
    """
    nllb = Model(args.nllb_name_or_path, args.nllb_name_or_path)
    if not args.model_name_or_path:
        if asks:
            raise UsageError("pass --model_name_or_path (only --method_translate nllb without --steps does without)")
        return [nllb]
    if not asks:
        if set(args.model_name_or_path) - {nllb.path}:
            raise UsageError(
                f"--method_translate nllb without --steps asks only {nllb.path}: leave --model_name_or_path out, or pass that "
                "model as --nllb_name_or_path"
            )
        return [nllb]
    found = [_model(path, args) for path in dict.fromkeys(path.rstrip("/") for path in args.model_name_or_path)]
    names = [model.name for model in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(
            f"two models are named {twice!r}, and their results would be in one folder: run them one by one, each with an "
            "--output_dir of its own"
        )
    return found


def _model(path: str, args: argparse.Namespace) -> Model:
    if args.inference_api in inference.REMOTE:  # a name that means something to the server
        if args.enable_lora or (Path(path) / "adapter_config.json").is_file():
            raise UsageError(
                f"{path} is a LoRA adapter, and --inference_api {args.inference_api} loads none: serve it (vllm serve BASE "
                "--enable-lora --lora-modules NAME=FOLDER) and pass the name it is served under"
            )
        return Model(path, path, trained_on=trained_template(path) if Path(path).is_dir() else None)
    base = (args.base_model_name_or_path or "").rstrip("/")
    if (args.enable_lora and path != base) or model_file(path, "adapter_config.json"):
        return _adapter(path, base, args.lora_rank)
    if base and path != base:
        raise UsageError(
            f"--base_model_name_or_path is for adapters, but {path} holds none (no adapter_config.json); pass a folder that "
            "peft saved, or leave it out"
        )
    config = model_file(path, "config.json")
    if config and read_json(config).get("is_encoder_decoder"):
        raise UsageError(
            f"{path} is an encoder-decoder model: pass --method_translate nllb --nllb_name_or_path {path}, and an LLM as "
            "--model_name_or_path only where --steps or refining ask one"
        )
    return Model(path, path, trained_on=trained_template(path))


def _adapter(path: str, base: str, lora_rank: int) -> Model:
    folder = inference.adapter_folder(path)
    config = read_json(Path(folder) / "adapter_config.json")
    base = base or (config.get("base_model_name_or_path") or "").rstrip("/")
    if not base:
        raise UsageError(f"{path} does not name its base model: pass --base_model_name_or_path")
    rank = max([config.get("r") or 0, *(config.get("rank_pattern") or {}).values()])
    if rank > lora_rank:
        raise UsageError(f"--lora_rank {lora_rank} is less than the rank of {path}: pass --lora_rank {rank}")
    return Model(path, base, folder, trained_template(folder))


def styles(
    models: list[Model],
    args: argparse.Namespace,
    settings_of: Callable[[Model], inference.ModelSettings],
    template_of: Callable[[Model], MTTemplate],
) -> dict[str, str]:
    """RAW or CHAT for each model, by its path; what is surprising in it is said. Raises UsageError: see asking.style_of."""
    found = {}
    for model in models:
        trained, key = model.trained_on, args.template_key
        # What a model was fine-tuned on counts, whatever its tokenizer has kept of a chat model.
        wanted = RAW if args.prompt_style == "auto" and trained else args.prompt_style
        found[model.path] = style_of(wanted, args.inference_api, settings_of(model))
        if found[model.path] == CHAT and trained:
            logger.info(
                f"{model.path} is asked through its chat template, so template {trained}, which it was fine-tuned on, is not "
                "used: pass --prompt_style raw"
            )
        elif found[model.path] == CHAT and key:
            logger.info(
                f"{model.path} is asked through its chat template, so --template_key {key} is not used; --prompt_style raw uses it"
            )
        elif trained and template_of(model).key != trained:
            logger.info(
                f"{model.path} was fine-tuned on template {trained}, but is asked with {key}: expect less of it"
            )
    return found


def identity(name: str) -> str:
    """What stands for a model in the settings of a run: of one with local weights the bare name, since a fingerprint
    tells the rest; of another folder its path."""
    path = Path(name)
    return (path.resolve().name if fingerprint(name) else str(path.resolve())) if path.exists() else name


def fingerprint(name: str) -> str:
    """A digest of a local model's weights, "" where there are none: retrained ones differ."""
    path = Path(name)
    kinds = ("*.safetensors", "*.bin", "*.pt")
    found = ([file for file in path.glob(kind) if file.name not in NO_WEIGHTS] for kind in kinds)
    files = [path] if path.is_file() else sorted(next(filter(None, found), []))
    return _digest(tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)) if files else ""


@cache
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    """Of (path, size, time of change); of large files it reads SAMPLES pieces from end to end, enough to meet whatever kind
    of layer was trained."""
    found = hashlib.sha256()
    for path, size, _ in files:
        found.update(f"{Path(path).name} {size} ".encode())
        with open(path, "rb") as file:
            if size <= SAMPLES * SAMPLE:
                found.update(file.read())
                continue
            for i in range(SAMPLES):
                file.seek((size - SAMPLE) * i // (SAMPLES - 1))
                found.update(file.read(SAMPLE))
    return found.hexdigest()[:16]
