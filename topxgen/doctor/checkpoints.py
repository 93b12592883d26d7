"""The size and shape of a model by its files: config.json and the headers of .safetensors."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from topxgen.common import hub_files
from topxgen.common.files import read_json
from topxgen.doctor.arithmetic import Attention

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
EMBEDDINGS = ("embed", "lm_head", "shared", "wte", "wpe", "norm")  # in names of tensors that LoRA does not adapt


class TextConfig(TypedDict, total=False):
    """Of config.json, what is read here; a model that also reads images has its text model's in `text_config`."""

    num_hidden_layers: int | None
    num_attention_heads: int | None
    num_key_value_heads: int | None
    head_dim: int | None
    hidden_size: int | None
    max_position_embeddings: int | None
    sliding_window: int | None
    layer_types: list[str] | None
    is_encoder_decoder: bool | None


class Config(TextConfig, total=False):
    text_config: TextConfig | None


@dataclass(frozen=True)
class Checkpoint:
    """`tensors`: dtype and shape by name, if the weights are .safetensors; `file_bytes`: of all weights."""

    file_bytes: int
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    attention: Attention | None

    @property
    def parameters(self) -> int:
        """0: not known."""
        return sum(math.prod(shape) for _, shape in self.tensors.values())

    def loaded_bytes(self, float_bytes: int | None = 2) -> int:
        """Of the weights in memory, where floating-point ones take `float_bytes` each [None: as they are saved]."""
        if float_bytes is None or not self.tensors:
            return self.file_bytes
        saved = sum(FLOATS.get(kind, 0) * math.prod(shape) for kind, shape in self.tensors.values())
        floats = sum(math.prod(shape) for kind, shape in self.tensors.values() if kind in FLOATS)
        return self.file_bytes - saved + floats * float_bytes

    def adapter_parameters(self, rank: int, modules: list[str] | None = None) -> int:
        """Of LoRA on `modules` [all linear layers]."""
        shapes = [
            shape
            for name, (_, shape) in self.tensors.items()
            if len(shape) == 2 and name.endswith(".weight") and not any(part in name for part in EMBEDDINGS)
            if not modules or name.removesuffix(".weight").rpartition(".")[2] in modules
        ]
        return rank * sum(map(sum, shapes))


def read(folder: Path) -> Checkpoint | None:
    """The model in `folder`; None if it has no weights. Raises UsageError for a config.json that is damaged."""
    paths = [folder / name for name in hub_files.weights(path.name for path in folder.glob("*.*"))]
    if not paths:
        return None
    tensors = {}
    for path in paths:
        for name, row in (hub_files.tensors(path) if path.suffix == ".safetensors" else {}).items():
            tensors[name] = row["dtype"], tuple(row["shape"])
    return Checkpoint(
        sum(path.stat().st_size for path in paths), tensors, attention(read_json(folder / "config.json", Config))
    )


def attention(config: Config) -> Attention | None:
    """None for what is no decoder, or does not say."""
    text = config.get("text_config") or config
    layers, heads = text.get("num_hidden_layers"), text.get("num_attention_heads")
    head_dim = text.get("head_dim") or (text.get("hidden_size") or 0) // (heads or 1)
    if config.get("is_encoder_decoder") or not layers or not heads or not head_dim:
        return None
    window, types = text.get("sliding_window"), text.get("layer_types")
    # Without layer_types a window may be one that the model does not use: all tokens are an upper limit.
    windows = tuple(window if kind == "sliding_attention" else None for kind in types or [""] * layers)
    return Attention(
        heads, text.get("num_key_value_heads") or heads, head_dim, windows, text.get("max_position_embeddings")
    )
