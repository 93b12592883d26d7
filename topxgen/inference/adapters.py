"""LoRA adapters: whether one fits its base model, found out before any weights of the base are loaded."""

import inspect
import logging
import re
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict

from topxgen.common.console import ONCE
from topxgen.common.errors import UsageError, reason
from topxgen.common.files import read_json
from topxgen.common.hub import hub_call, listed, model_file, snapshot
from topxgen.common.schemas import fields
from topxgen.common.weights import is_float, load_tensors
from topxgen.inference import ModelSettings, adapter_folder
from topxgen.inference.tokenizer import encode, load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)
_NAME = "checked"  # of an adapter in peft; "default" may stand in the names of tensors of an unfinished export


class _AdapterConfig(TypedDict):
    """The fields of peft's LoraConfig that are read here."""

    peft_type: str
    r: NotRequired[int | None]
    lora_alpha: NotRequired[float]
    rank_pattern: NotRequired[dict[str, int] | None]
    alpha_pattern: NotRequired[dict[str, float] | None]
    alora_invocation_tokens: NotRequired[list[int] | None]
    base_model_name_or_path: NotRequired[str | None]
    revision: NotRequired[str | None]
    modules_to_save: NotRequired[list[str] | None]
    bias: NotRequired[str]
    init_lora_weights: NotRequired[bool | str | None]
    use_rslora: NotRequired[bool]  # to peft, whatever is no 0 is true: "false", Infinity
    use_dora: NotRequired[bool]
    fan_in_fan_out: NotRequired[bool]


# Values of init_lora_weights that leave the base as it is; peft computes the others' residual and puts it in the base's place.
_PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


# What peft saves of LoRA and DoRA; other kinds have more, as KaSA its lora_diag.
_FACTORS = {"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"}


# Whose tokens differ wherever tokenizers do: at its beginning, at spaces, line breaks, digits and other scripts.
PROBE = "English: The year 1948,  “Hello”!\nनेपाली: सन् १९४८ мир 世界"


_GenerationConfig = fields(eos_token_id=int | list[int] | None)


def check_adapter(name: str, base: str, lora_rank: int, trust_remote_code: bool = False) -> str:
    """The folder of the adapter `name` of the model `base`. Raises UsageError if it does not fit, or its rank exceeds `lora_rank`."""
    folder = adapter_folder(name)
    settings = read_adapter(folder)
    check_rank(name, settings, lora_rank)
    check_fits(folder, base, None, trust_remote_code)
    _refuse_changes_of_base(folder, settings)
    return folder


def check_rank(name: str, settings: dict, lora_rank: int) -> None:
    """Raise UsageError if the rank of the adapter `name` exceeds `lora_rank`."""
    rank = max([settings.get("r") or 0, *(settings.get("rank_pattern") or {}).values()])
    if rank > lora_rank:
        raise UsageError(f"--lora_rank {lora_rank} is less than the rank of {name}: pass --lora_rank {rank}")


def read_adapter(folder: str | Path) -> dict:
    """The adapter's config. Raises UsageError for another kind of adapter."""
    settings = read_json(Path(folder) / "adapter_config.json", _AdapterConfig, "download or save the adapter again")
    if settings.get("peft_type") != "LORA":
        raise UsageError(f"{folder} is a {settings.get('peft_type')} adapter; only LoRA and DoRA can be used here")
    if settings.get("alora_invocation_tokens"):
        raise UsageError(
            f"{folder} is an activated LoRA adapter (alora_invocation_tokens), which has no effect on prompts without these tokens; only "
            "LoRA and DoRA can be used here"
        )
    if settings.get("layer_replication"):  # peft would add what belongs to each copy of a layer to all of them
        raise UsageError(
            f"{folder} repeats layers of its base (layer_replication), which is not supported; pass an adapter without it"
        )
    if "lora_alpha" not in settings:  # peft would take 8 for it, vLLM end
        raise UsageError(f"{folder}/adapter_config.json lacks lora_alpha; download or save the adapter again")
    return settings


def check_vllm_supports(folder: str) -> None:
    """Raise UsageError if the adapter has parts that vLLM does not support."""
    from peft import load_peft_weights

    settings = read_adapter(folder)
    names = list(load_peft_weights(folder, device="cpu"))
    factors = {match[1] for name in names if (match := re.search(r"\.(lora_\w+)", name))}
    unsupported = {
        "DoRA": settings.get("use_dora"),
        "modules_to_save": settings.get("modules_to_save"),
        "trained biases": settings.get("bias", "none") != "none",
        "biases of its own (lora_bias)": settings.get("lora_bias"),
        # The engine of vLLM 0.32 dies at the first request with those of Qwen3-MoE, even with enable_mixed_moe_lora_format.
        "target_parameters (of experts)": settings.get("target_parameters"),
        # Its latent attention (DeepSeek V2 and V3) silently goes on with the base's.
        "kv_b_proj": any(".kv_b_proj." in name for name in names),
        "QALoRA": settings.get("use_qalora"),
        "BD-LoRA": settings.get("use_bdlora"),
        **dict.fromkeys(sorted(factors - _FACTORS), True),
    }
    if names := [name for name, used in unsupported.items() if used]:
        raise UsageError(
            f"vLLM does not support {' and '.join(names)}, which the adapter {folder} has: merge it into its base "
            "(scripts/merge_lora.py), or pass --inference_api hf"
        )


def check_revision(name: str, settings: dict) -> None:
    """Raise UsageError if the adapter `name` is of another revision of its base than the one that is loaded, which is main."""
    base, revision = settings.get("base_model_name_or_path") or "", settings.get("revision")
    if revision in (None, "", "main") or Path(base).exists():
        return
    from huggingface_hub import constants

    cached = snapshot("model", base) if constants.HF_HUB_OFFLINE else None  # with the Hub, main may be newer
    if cached is None or cached != snapshot("model", base, revision=revision):
        raise UsageError(
            f"{name} was trained on revision {revision} of {base}, and main would be loaded: hf download {base} --revision {revision} "
            "--local-dir FOLDER, and pass --base_model_name_or_path FOLDER"
        )


@cache
def check_fits(folder: str, base: str, revision: str | None = None, trust_remote_code: bool = False) -> None:
    """Raise UsageError unless adapter and base match in every tensor.

    peft and vLLM skip what has no counterpart: the answers would be the base model's. The base is built from its config,
    without weights.
    """
    files = [file for end in ("safetensors", "bin") if (file := Path(folder) / f"adapter_model.{end}").is_file()]
    if not files:
        raise UsageError(f"{folder} has no weights (adapter_model.safetensors); was saving it interrupted?")
    model = _without_weights(base, revision, trust_remote_code)
    from peft import PeftConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    _check_peft_knows(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is checked below
            config = PeftConfig.from_pretrained(folder)
            config.init_lora_weights = False  # some ways to initialize read the base's weights
            model = get_peft_model(model, config, _NAME, low_cpu_mem_usage=True)
            loaded = model.load_adapter(folder, _NAME, torch_device="cpu", low_cpu_mem_usage=True)
    except Exception as error:  # of peft, torch, safetensors: target modules or shapes that differ, a damaged file
        raise UsageError(
            f"the adapter {folder} does not match {base} ({reason(error)}): is it the right base, and is adapter_config.json its own?"
        ) from None
    tuner = model.base_model
    targets = [*tuner.targeted_module_names, *tuner.targeted_parameter_names]  # experts are parameters
    patterns = [*(config.rank_pattern or ()), *(config.alpha_pattern or ())]
    strays = [key for key in patterns if not any(re.match(rf"(.*\.)?({key})$", name) for name in targets)]
    unmatched = {
        "the adapter lacks": loaded.missing_keys,
        "the model lacks": [name for name in loaded.unexpected_keys if "lora_" in name],
        "no target module has the name in its rank_pattern or alpha_pattern": strays,
    }
    in_file = {what: sorted(name.replace(f".{_NAME}", "") for name in names) for what, names in unmatched.items()}
    if problems := [f"{what} {listed(names, 3)}" for what, names in in_file.items() if names]:
        raise UsageError(f"the adapter {folder} does not match {base}: {'; '.join(problems)}; is it the right base?")
    tensors = load_tensors(files[0])  # checks its numbers
    if quantized := sorted(name for name, tensor in tensors.items() if not is_float(tensor)):
        raise UsageError(
            f"the adapter {folder} holds no floating-point numbers in {listed(quantized, 3)}; save it in 16 or 32 bits"
        )
    scalings = {name: module.scaling[_NAME] for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    if not any(_has_effect(name, scalings, tensors) for name in tensors):
        logger.warning(
            f"the adapter {folder} has no effect, as if not trained: its answers are those of {base}", extra=ONCE
        )


def _check_peft_knows(folder: str) -> None:
    """Raise UsageError for what a later peft has done with the adapter, and the installed one would leave out. Numbers and texts
    are parameters of what may be off."""
    from peft import LoraConfig, __version__

    settings, known = read_adapter(folder), inspect.signature(LoraConfig).parameters
    active = (key for key, value in settings.items() if value is True or (value and isinstance(value, dict | list)))
    if unknown := sorted(key for key in active if key not in known):
        raise UsageError(
            f"{folder}/adapter_config.json has {listed(unknown, 3)}, which the installed peft {__version__} would ignore: pip install -U peft, "
            "or merge it into its base where it was trained"
        )


def _has_effect(name: str, scalings: Mapping[str, float], tensors: Mapping[str, "Tensor"]) -> bool:
    """Whether a tensor is the first factor of a product that is added to a weight, and neither factor nor its scaling is zero."""
    first = re.fullmatch(r"(.*)\.(lora_A\.weight|lora_embedding_A)", name)
    second = "_B".join(name.rsplit("_A", 1))  # modules may have it in their names, too
    return bool(first and scalings.get(first[1], 1) and tensors[name].any() and tensors[second].any())


def _refuse_changes_of_base(folder: str, settings: dict) -> None:
    """Raise UsageError for what would change the base for the adapters that follow, and for the base itself: embeddings and biases
    that peft saves beside an adapter, PiSSA, KaSA and the like, trained tokens."""
    from peft import load_peft_weights

    remedy = "merge it into the base first (scripts/merge_lora.py)"
    changes = [name for name in ("trainable_token_indices", "kasa_config") if settings.get(name)]
    init = settings.get("init_lora_weights")
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        changes.append(f"init_lora_weights {init}")
    if changes:
        raise UsageError(f"the adapter {folder} changes its base ({', '.join(changes)}): {remedy}")
    saved = settings.get("modules_to_save") or ()
    parts = ["lora_", ".base_layer.weight", ".trainable_tokens", *(f".{name}." for name in saved)]
    names = [name for name in load_peft_weights(folder, device="cpu") if not any(part in name for part in parts)]
    if names:
        raise UsageError(f"the adapter {folder} holds weights of the base, too ({listed(sorted(names), 3)}): {remedy}")


def _without_weights(base: str, revision: str | None, trust_remote_code: bool):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = hub_call(base, lambda: AutoConfig.from_pretrained(base, **options))
    model_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        return hub_call(base, lambda: model_class.from_config(config, trust_remote_code=trust_remote_code))


def check_tokenizer(folder: str, settings: ModelSettings) -> None:
    """Warn if the adapter's own tokenizer, with which it was trained, reads texts in another way than that of the model."""
    if not (Path(folder) / "tokenizer_config.json").is_file():
        return
    own = load_tokenizer(ModelSettings(folder, trust_remote_code=settings.trust_remote_code))
    if encode(own, PROBE) != encode(load_tokenizer(settings), PROBE):
        used = settings.tokenizer_name_or_path or settings.model_name_or_path
        logger.warning(
            f"the adapter {folder} was saved with a tokenizer that reads texts in another way than that of {used}: expect worse "
            f"results, or pass --tokenizer_name_or_path {folder}",
            extra=ONCE,
        )


@cache
def end_tokens(name: str, trust_remote_code: bool = False) -> frozenset[int]:
    """The tokens that end an answer by the own tokenizer and generation config of an adapter or a model, if it has them."""
    tokens: list[int | None] = []
    if model_file(name, "tokenizer_config.json"):
        tokens.append(load_tokenizer(ModelSettings(name, trust_remote_code=trust_remote_code)).eos_token_id)
    if config := model_file(name, "generation_config.json"):
        named = read_json(config, _GenerationConfig).get("eos_token_id")
        tokens += named if isinstance(named, list) else [named]
    return frozenset(token for token in tokens if token is not None)


def end_tokens_of_model(settings: ModelSettings) -> frozenset[int]:
    """Those by the model's own tokenizer where another one is used; none if its own is broken."""
    name = settings.model_name_or_path
    if settings.tokenizer_name_or_path in (None, name):
        return frozenset()
    try:
        return end_tokens(name, settings.trust_remote_code)
    except UsageError:
        return frozenset()
