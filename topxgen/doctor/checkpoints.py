"""The size and shape of a model by its files, in a folder or at the Hub: config.json and the headers of .safetensors."""

import math
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from topxgen.common import hub_files, schemas
from topxgen.common.files import read_json
from topxgen.common.schemas import fields
from topxgen.common.weights import PARTS
from topxgen.doctor.arithmetic import Attention
from topxgen.experiments.assets import Asset
from topxgen.inference.gpu_groups import Heads

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
EMBEDDINGS = ("embed", "lm_head", "shared", "wte", "wpe", "norm")  # in names of tensors that LoRA does not adapt
EXPERT, GATE_AND_UP = ".experts.", (".gate_proj.weight", ".up_proj.weight", ".w1.weight", ".w3.weight")
STATE_LAYERS = ("linear_attention", "conv", "mamba", "recurrent")  # layer_types without keys and values of each token


# Of config.json, what is read here; a model that also reads images has its text model's in `text_config`.
_COUNTS = (
    "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size", "max_position_embeddings",
    "sliding_window", "kv_lora_rank", "qk_rope_head_dim",
)  # fmt: skip
_EXPERTS = ("num_experts_per_tok", "num_local_experts", "num_experts", "n_routed_experts")
_TEXT = {
    **dict.fromkeys(_COUNTS, int | None),
    **dict.fromkeys(_EXPERTS, Any),
    "layer_types": list[str] | None,
    "is_encoder_decoder": bool | None,
}
Config = fields(**_TEXT, model_type=str | None, auto_map=Any, text_config=fields(**_TEXT) | None)


@dataclass(frozen=True)
class Checkpoint:
    """`file_bytes`: of all weights; `counts`: parameters by dtype, none if the weights are not .safetensors; `shapes`: of the
    tensors by name, None if they are not known; `config`: {} if it is not known."""

    file_bytes: int
    counts: Mapping[str, int]
    shapes: dict[str, tuple[int, ...]] | None
    config: Config

    @cached_property
    def attention(self) -> Attention | None:
        return attention(self.config)

    @property
    def used_experts(self) -> float:
        return used_experts(self.config)

    @property
    def parameters(self) -> int:
        """0: not known."""
        return sum(self.counts.values())

    @property
    def active_parameters(self) -> float:
        """Those that a token passes through; 0: not known."""
        experts = sum(math.prod(shape) for name, shape in (self.shapes or {}).items() if EXPERT in name)
        return self.parameters - experts * (1 - self.used_experts)

    def loaded_bytes(self, float_bytes: int | None = 2) -> int:
        """Of the weights in memory, where floating-point ones take `float_bytes` each [None: as they are saved]."""
        if float_bytes is None or not self.counts:
            return self.file_bytes
        saved = sum(FLOATS.get(kind, 0) * count for kind, count in self.counts.items())
        floats = sum(count for kind, count in self.counts.items() if kind in FLOATS)
        return self.file_bytes - saved + floats * float_bytes

    def quantized_bytes(self, number_bytes: float) -> float:
        """As `load_in_4bit` and `load_in_8bit` have it in training: linear layers are quantized, and peft makes the rest float32."""
        linear = sum(map(math.prod, self._linear().values())) if self.shapes else self.parameters
        return linear * number_bytes + (self.parameters - linear) * 4

    def adapter_parameters(self, rank: int, modules: list[str] | None = None) -> int | None:
        """Of LoRA on `modules` [all linear layers]; None: not known. Gate and up projections of experts are one matrix, with twice the
        rank."""
        if self.shapes is None:
            return None
        return rank * sum(
            sum(shape) + (shape[0] if EXPERT in name and name.endswith(GATE_AND_UP) else 0)
            for name, shape in self._linear().items()
            if not any(part in name for part in PARTS)
            if modules in (None, ["all"], ["all-linear"]) or name.removesuffix(".weight").rpartition(".")[2] in modules
        )

    def _linear(self) -> dict[str, tuple[int, ...]]:
        """The linear layers inside the model, with their shapes."""
        return {
            name: shape
            for name, shape in self.shapes.items()
            if len(shape) == 2 and name.endswith(".weight") and not any(word in name for word in EMBEDDINGS)
        }


def read(folder: Path) -> Checkpoint | None:
    """The model in `folder`; None if it has no weights. Raises UsageError for a config.json that is damaged."""
    paths = [folder / name for name in hub_files.weights(path.name for path in folder.glob("*.*"))]
    if not paths:
        return None
    counts, shapes = Counter(), {}
    for path in paths:
        for name, (dtype, shape) in (hub_files.tensors(path) or {}).items():  # of torch files: none
            shapes[name] = shape
            counts[dtype] += math.prod(shape)
    size = sum(path.stat().st_size for path in paths)
    return Checkpoint(size, counts, shapes, read_json(folder / "config.json", Config))


@dataclass(frozen=True)
class Listed:
    """A repository as the Hub lists it: its files with their bytes, the model, and the card of a data set."""

    files: dict[str, int]
    checkpoint: Checkpoint | None = None
    card: str = ""


def at_hub(asset: Asset, shaped: bool, timeout: float) -> Listed:
    """What is to be downloaded, without its large files; `shaped`: the shapes of a model's tensors are wanted, which takes a request for
    each file, as it does for a model with experts. Raises what the Hub's client raises."""
    from huggingface_hub import HfApi

    name, kind, revision = asset.name, asset.repo_type, asset.wanted_revision
    info = HfApi().repo_info(name, repo_type=kind, revision=revision, files_metadata=True, timeout=timeout)
    files = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    if kind == "dataset":
        card = _small_file(asset, hub_files.CARD, timeout) if hub_files.CARD in files else b""
        return Listed(files, card=card.decode("utf-8", "replace"))
    weights = hub_files.weights(file for file in files if "/" not in file)
    if not weights or "adapter_config.json" in files:  # whose base is not known yet
        return Listed(files)
    counts, shapes = dict(info.safetensors.parameters) if info.safetensors else {}, None
    config = _config_at_hub(asset, timeout) if "config.json" in files else {}
    if (shaped or used_experts(config) < 1) and all(file.endswith(".safetensors") for file in weights):
        shapes = _shapes_at_hub(asset, weights)
    return Listed(files, Checkpoint(sum(map(files.get, weights)), counts, shapes, config))


def _config_at_hub(asset: Asset, timeout: float) -> Config:
    """{} if the repository is gated, or the file damaged: sizes are known without it."""
    try:
        config = schemas.decode(_small_file(asset, "config.json", timeout))
        schemas.check(config, Config)
        return config
    except Exception:  # of the client, or no JSON
        return {}


def _small_file(asset: Asset, file: str, timeout: float) -> bytes:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(asset.name, file, repo_type=asset.repo_type, revision=asset.wanted_revision)
    answer = get_session().get(url, headers=build_hf_headers(), timeout=timeout)
    hf_raise_for_status(answer)
    return answer.content


def _shapes_at_hub(asset: Asset, files: list[str]) -> dict[str, tuple[int, ...]] | None:
    from huggingface_hub import HfApi

    read, revision = HfApi().parse_safetensors_file_metadata, asset.wanted_revision
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda file: read(asset.name, file, revision=revision), files))
    except Exception:  # gated, or of the client
        return None
    return {key: tuple(row.shape) for one in found for key, row in one.tensors.items()}


def attention(config: Config) -> Attention | None:
    """None for what is no decoder, or does not say."""
    text = _text_config(config)
    layers, heads = text.get("num_hidden_layers"), text.get("num_attention_heads")
    head_dim = text.get("head_dim") or (text.get("hidden_size") or 0) // (heads or 1)
    if config.get("is_encoder_decoder") or not layers or not heads or not head_dim:
        return None
    window, types = text.get("sliding_window"), text.get("layer_types")
    # Without layer_types a window may be one that the model does not use: all tokens are an upper limit.
    sizes = {"sliding_attention": window} | dict.fromkeys(STATE_LAYERS, 0)
    windows = tuple(sizes.get(kind) for kind in types or [""] * layers)
    key_value_heads = text.get("num_key_value_heads") or heads
    numbers = 2 * key_value_heads * head_dim
    if latent := text.get("kv_lora_rank"):  # of DeepSeek's attention, with one key for the positions
        numbers = latent + (text.get("qk_rope_head_dim") or 0)
    return Attention(Heads(heads, key_value_heads), numbers, windows, text.get("max_position_embeddings"))


def _text_config(config: Config) -> dict:
    """That of the language model; what the file leaves to the defaults of its type (Gemma 3: heads, which layers have a window) by
    transformers, which takes two seconds to import."""
    text = config.get("text_config") or config
    is_whole = text.get("num_attention_heads") and (text.get("layer_types") or not text.get("sliding_window"))
    if is_whole or config.get("is_encoder_decoder") or not config.get("model_type"):
        return text
    try:
        from transformers import AutoConfig

        own = AutoConfig.for_model(**config).get_text_config()
    except Exception:  # of a type with code of its own, or damaged
        return text
    return {name: getattr(own, name, None) for name in _TEXT}


def used_experts(config: Config) -> float:
    """The share of a layer's experts that a token passes through; 1 for a model without."""
    text = config.get("text_config") or config
    used = text.get("num_experts_per_tok")
    known = [text.get(name) for name in _EXPERTS[1:]]
    number = next((count for count in known if isinstance(count, int) and count > 0), 0)
    return used / number if number and isinstance(used, int) and 0 < used < number else 1
