"""How many engines run a model, and on which GPUs: --data_parallel_size, --tensor_parallel_size."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os.path import expanduser
from pathlib import Path
from typing import NamedTuple

from topxgen.common.console import counted
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json
from topxgen.common.hub import hub_call, model_file
from topxgen.common.schemas import fields
from topxgen.inference import ModelSettings, engine_args

logger = logging.getLogger(__name__)

# Of the memory that vLLM may take, the share that weights may fill: what is left has room for the KV cache of a full batch.
WEIGHTS_SHARE = 0.55
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
PADDED_VOCABULARY = 64  # vLLM pads the vocabulary to a multiple of it, which the GPUs of an engine divide


# Of {weights}.index.json, what is read here.
_WeightIndex = fields(metadata=dict)


@dataclass(frozen=True)
class Split:
    """`engines` of `tensor` * `pipeline` GPUs each."""

    engines: int
    tensor: int
    why: str


class Heads(NamedTuple):
    """Of a model's attention."""

    query: int
    key_value: int

    def can_be_divided_by(self, size: int) -> bool:
        """As vLLM divides them among `size` GPUs, where several may have the same key-value head."""
        return self.query % size == 0 and (self.key_value % size == 0 or size % self.key_value == 0)


def plan(backend: str, settings: ModelSettings) -> tuple[ModelSettings, list[tuple[str, ...]]]:
    """The settings of each engine, and the GPUs of each; no list if there is one, which then runs in this process.

    On CPU the tuples are empty. Raises UsageError for more engines or larger ones than there are GPUs.
    """
    wanted = settings.data_parallel_size
    if backend != "vllm" and wanted in (None, 1):
        return settings, []
    gpus = visible_gpus()
    if not gpus:
        return settings, [()] * wanted if (wanted or 1) > 1 else []
    if backend != "vllm":
        split, pipeline = share_out(len(gpus), wanted, None, 1), 1
    else:
        pipeline = pipeline_size(settings)
        split = _split(gpus, settings, pipeline)
        settings = replace(settings, tensor_parallel_size=split.tensor)
    size = split.tensor * pipeline
    if len(gpus) > 1:
        logger.info(
            f"{counted(split.engines, 'engine')} of {counted(size, 'GPU')} each on "
            f"{len(gpus)} visible GPUs: {split.why}"
        )
    if split.engines == 1:
        return settings, []
    return settings, [gpus[i * size : (i + 1) * size] for i in range(split.engines)]


def pipeline_size(settings: ModelSettings) -> int:
    """Of vLLM's pipeline parallelism. Raises UsageError."""
    size = engine_args.parse(settings.engine_args).get("pipeline_parallel_size", 1)
    if not isinstance(size, int) or size < 1:
        raise UsageError(f"--engine_args pipeline_parallel_size={size}: pass a number of GPUs")
    return size


def _split(gpus: tuple[str, ...], settings: ModelSettings, pipeline: int) -> Split:
    wanted, tensor, count = settings.data_parallel_size, settings.tensor_parallel_size, len(gpus)
    if wanted is not None or tensor is not None or count == 1:
        return share_out(count, wanted, tensor, pipeline, _heads(settings))
    return by_memory(
        count, _weights(settings), smallest_memory(), settings.gpu_memory_utilization, _heads(settings), pipeline
    )


def gpus_of_worker(backend: str, settings: ModelSettings) -> int | Callable[[int, int | None], int]:
    """How many the engine of a worker takes; by the GPUs of a node and the memory of each, if no flag says it. Raises UsageError."""
    pipeline = pipeline_size(settings)
    if backend != "vllm" or settings.tensor_parallel_size:
        return (settings.tensor_parallel_size or 1) * pipeline

    def by_node(gpus: int, memory: int | None) -> int:
        split = by_memory(gpus, _weights(settings), memory, settings.gpu_memory_utilization, _heads(settings), pipeline)
        logger.info(f"a worker takes {split.tensor * pipeline} of up to {gpus} GPUs of a node: {split.why}")
        return split.tensor * pipeline

    return by_node


def tensor_sizes(most: int, heads: Heads | None) -> list[int]:
    """In how many GPUs, up to `most`, vLLM can divide a model; any if its heads are not known."""
    fits = (lambda size: PADDED_VOCABULARY % size == 0 and heads.can_be_divided_by(size)) if heads else bool
    return list(filter(fits, range(1, most + 1)))


def share_out(gpus: int, wanted: int | None, tensor: int | None, pipeline: int, heads: Heads | None = None) -> Split:
    """What the flags say: engines of `tensor` GPUs, as many as fit unless `wanted` says how many; without `tensor` the GPUs are
    shared out evenly. Raises UsageError for several engines that have too few, and for a `tensor` that does not divide the heads."""
    if tensor and heads and not heads.can_be_divided_by(tensor):
        raise UsageError(
            f"--tensor_parallel_size {tensor}: the model has {heads.query} attention heads ({heads.key_value} for keys and values), "
            f"which vLLM cannot divide by it; pass {' or '.join(map(str, tensor_sizes(gpus, heads)))}, or drop it"
        )
    if tensor is None:
        engines = wanted or 1
        tensor = max(tensor_sizes(gpus // (engines * pipeline), heads), default=0)
        why = f"--data_parallel_size {engines}" if wanted else "one GPU"
    else:
        engines = wanted or max(1, gpus // (tensor * pipeline))
        why = f"--tensor_parallel_size {tensor}" + (f", --data_parallel_size {wanted}" if wanted else "")
    tensor = tensor or 1
    if engines > 1 and engines * tensor * pipeline > gpus:  # of one engine, vLLM may know GPUs on other nodes
        each = f" of {tensor * pipeline} GPUs each" if tensor * pipeline > 1 else ""
        raise UsageError(
            f"{engines} engines{each} need more than the {gpus} GPUs that are visible here: lower --data_parallel_size or "
            "--tensor_parallel_size, or see CUDA_VISIBLE_DEVICES"
        )
    return Split(engines, tensor, why)


def by_memory(
    gpus: int, weights: int | None, memory: int | None, share: float, heads: Heads | None, pipeline: int = 1
) -> Split:
    """The smallest engines whose weights (bytes in all) fill at most WEIGHTS_SHARE of the `share` of `memory` (bytes of a GPU)
    that vLLM may take. The largest ones if none are large enough, or something is not known."""
    sizes = tensor_sizes(gpus // pipeline, heads)
    if not sizes:
        return share_out(gpus, 1, None, pipeline, heads)
    if weights is None or memory is None or heads is None:
        tensor, why = sizes[-1], "the size of the weights or the memory of the GPUs is not known"
    else:
        usable = share * memory * pipeline
        tensor = next((size for size in sizes if weights <= WEIGHTS_SHARE * usable * size), sizes[-1])
        why = (
            f"weights of {weights / 1e9:.1f} GB take {weights / (usable * tensor):.0%} of the memory that vLLM may use there "
            f"(up to {WEIGHTS_SHARE:.0%} leaves room for the KV cache)"
        )
    return Split(gpus // (tensor * pipeline), tensor, why)


def listed_gpus(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """The names in CUDA_VISIBLE_DEVICES: numbers, beginnings of UUIDs, MIG instances; None if it is not set."""
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    return None if listed is None else tuple(filter(None, map(str.strip, listed.split(","))))


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that torch sees, as CUDA_VISIBLE_DEVICES names them: numbers or UUIDs."""
    import torch

    count, names = torch.cuda.device_count(), listed_gpus(os.environ)
    if not count:
        return ()
    if names is None:
        return tuple(map(str, range(count)))
    # Of several MIG instances a process sees the first alone; each can have a process of its own.
    return names if all(name.startswith("MIG-") for name in names) else names[:count]


def smallest_memory() -> int | None:
    """Bytes of the smallest visible GPU, found out by another process: this one keeps no GPU memory for itself."""
    program = (
        "import json, torch; "
        "print(json.dumps([torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    try:
        return min(json.loads(found.stdout))
    except ValueError:  # no JSON, or no GPU
        return None


def _heads(settings: ModelSettings) -> Heads | None:
    config = _text_config(settings)
    query = getattr(config, "num_attention_heads", None)
    return Heads(query, getattr(config, "num_key_value_heads", None) or query) if query else None


def _text_config(settings: ModelSettings):
    from transformers import AutoConfig

    name = settings.model_name_or_path
    config = hub_call(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=settings.trust_remote_code))
    return config.get_text_config()


def _weights(settings: ModelSettings) -> int | None:
    """Bytes of the weights in the precision that they are loaded in; None if the size of the files is not known."""
    size = file_bytes(settings.model_name_or_path)
    saved = str(getattr(_text_config(settings), "dtype", None)).removeprefix("torch.")
    # vLLM's auto halves what was saved in float32.
    wanted = settings.dtype if settings.dtype != "auto" else {"float32": "bfloat16"}.get(saved, saved)
    if size is None or saved not in BYTES or wanted not in BYTES:
        return size
    return size * BYTES[wanted] // BYTES[saved]


def file_bytes(name: str) -> int | None:
    """Bytes of a model's weights on disk, or at the Hub, where no weights are downloaded; None if it says nothing of them."""
    for file in WEIGHT_FILES:
        if index := model_file(name, f"{file}.index.json"):
            total = read_json(index, _WeightIndex).get("metadata", {}).get("total_size")
            if isinstance(total, int | float):
                return int(total)
    for file in WEIGHT_FILES:
        if size := _size(name, file):
            return size
    return None


def _size(name: str, file: str) -> int | None:
    if Path(expanduser(name)).is_dir():
        path = Path(expanduser(name)) / file
        return path.stat().st_size if path.is_file() else None
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    cached = try_to_load_from_cache(name, file)
    if isinstance(cached, str):
        return Path(cached).stat().st_size
    if constants.HF_HUB_OFFLINE:
        return None
    try:
        return get_hf_file_metadata(hf_hub_url(name, file)).size
    except Exception:  # not there, or not for this token: loading the model tells
        return None
