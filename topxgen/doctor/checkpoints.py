"""The size and shape of a model by its files, in a folder or at the Hub: config.json and the headers of .safetensors."""

import math
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from topxgen.common import hub_files, schemas
from topxgen.common.files import read_json
from topxgen.doctor.arithmetic import Attention
from topxgen.experiments.assets import Asset

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
    """`file_bytes`: of all weights; `counts`: parameters by dtype, none if the weights are not .safetensors; `shapes`: of the
    tensors by name, None if they are not known."""

    file_bytes: int
    counts: Mapping[str, int]
    shapes: dict[str, tuple[int, ...]] | None
    attention: Attention | None

    @property
    def parameters(self) -> int:
        """0: not known."""
        return sum(self.counts.values())

    def loaded_bytes(self, float_bytes: int | None = 2) -> int:
        """Of the weights in memory, where floating-point ones take `float_bytes` each [None: as they are saved]."""
        if float_bytes is None or not self.counts:
            return self.file_bytes
        saved = sum(FLOATS.get(kind, 0) * count for kind, count in self.counts.items())
        floats = sum(count for kind, count in self.counts.items() if kind in FLOATS)
        return self.file_bytes - saved + floats * float_bytes

    def adapter_parameters(self, rank: int, modules: list[str] | None = None) -> int | None:
        """Of LoRA on `modules` [all linear layers]; None: not known."""
        if self.shapes is None:
            return None
        shapes = [
            shape
            for name, shape in self.shapes.items()
            if len(shape) == 2 and name.endswith(".weight") and not any(part in name for part in EMBEDDINGS)
            if not modules or name.removesuffix(".weight").rpartition(".")[2] in modules
        ]
        return rank * sum(map(sum, shapes))


def read(folder: Path) -> Checkpoint | None:
    """The model in `folder`; None if it has no weights. Raises UsageError for a config.json that is damaged."""
    paths = [folder / name for name in hub_files.weights(path.name for path in folder.glob("*.*"))]
    if not paths:
        return None
    counts, shapes = Counter(), {}
    for path in paths:
        for name, row in (hub_files.tensors(path) if path.suffix == ".safetensors" else {}).items():
            shapes[name] = tuple(row["shape"])
            counts[row["dtype"]] += math.prod(row["shape"])
    size = sum(path.stat().st_size for path in paths)
    return Checkpoint(size, counts, shapes, attention(read_json(folder / "config.json", Config)))


@dataclass(frozen=True)
class Listed:
    """A repository as the Hub lists it: its files with their bytes, the model, and the card of a data set."""

    files: dict[str, int]
    checkpoint: Checkpoint | None = None
    card: str = ""


def at_hub(asset: Asset, shaped: bool, timeout: float) -> Listed:
    """What is to be downloaded, without its large files; `shaped`: the shapes of a model's tensors are wanted, which takes a request for
    each file. Raises what the Hub's client raises."""
    from huggingface_hub import HfApi

    name, kind, revision = asset.name, asset.repo_type, asset.wanted_revision
    info = HfApi().repo_info(name, repo_type=kind, revision=revision, files_metadata=True, timeout=timeout)
    files = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    if kind == "dataset":
        card = _small_file(asset, hub_files.CARD, timeout) if hub_files.CARD in files else b""
        return Listed(files, card=card.decode("utf-8", "replace"))
    weights = hub_files.weights(file for file in files if "/" not in file)
    if not weights:
        return Listed(files)
    counts, shapes = dict(info.safetensors.parameters) if info.safetensors else {}, None
    config = _config_at_hub(asset, timeout) if "config.json" in files else {}
    if shaped and all(file.endswith(".safetensors") for file in weights):
        shapes = _shapes_at_hub(asset, weights)
    return Listed(files, Checkpoint(sum(map(files.get, weights)), counts, shapes, attention(config)))


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
