"""Memory and hours of models by their shapes: the formulas of docs/cluster.md, "GPU memory" and "Hours"."""

import math
from dataclasses import dataclass

# Bytes of each parameter that AdamW trains: weight, gradient, master weight and two moments. A frozen one has its weight alone.
WEIGHT, GRADIENT, MASTER, MOMENTS = 2, 2, 4, 8
TRAINED = WEIGHT + GRADIENT + MASTER + MOMENTS
CHECKPOINT = MASTER + MOMENTS  # what a checkpoint keeps of a trained parameter, beside its 16-bit weight
TRAINING_SHARE = 0.4  # of the GPU's peak
DECODING_SHARE = 1 / 3  # of its memory bandwidth
IN_FLIGHT = 256  # sequences that are decoded at a time


@dataclass(frozen=True)
class Card:
    """`flops`: dense bf16 peak; `bandwidth`: bytes/s of memory (data sheets, SXM versions)."""

    flops: float
    bandwidth: float


# The first whose name the GPU's contains.
CARDS = {
    "H200": Card(989e12, 4.8e12),
    "H100 PCIe": Card(756e12, 2.0e12),
    "H100": Card(989e12, 3.35e12),
    "A100-SXM4-40GB": Card(312e12, 1.555e12),
    "A100-PCIE-40GB": Card(312e12, 1.555e12),
    "A100": Card(312e12, 2.039e12),
    "L40S": Card(362e12, 0.864e12),
    "A10G": Card(70e12, 0.6e12),
    "L4": Card(121e12, 0.3e12),
}


def card(name: str) -> Card | None:
    return next((row for key, row in CARDS.items() if key in name), None)


@dataclass(frozen=True)
class Attention:
    """What decides the KV cache of a decoder. `windows`: for each layer the tokens that it keeps, None: all."""

    heads: int
    kv_heads: int
    head_dim: int
    windows: tuple[int | None, ...]
    max_positions: int | None = None

    def kv_bytes(self, tokens: int, each: int = 2) -> int:
        """Keys and values of a sequence of `tokens`, at `each` bytes a number."""
        kept = sum(min(tokens, window or tokens) for window in self.windows)
        return 2 * kept * self.kv_heads * self.head_dim * each


def training_bytes(frozen_bytes: float, trained: int, processes: int = 1, zero: int = 0) -> float:
    """Bytes on each GPU of weights, gradients and optimizer states. `zero`: the stage of DeepSpeed, 0 for none."""
    shared = {0: 0, 1: MASTER + MOMENTS, 2: GRADIENT + MASTER + MOMENTS, 3: TRAINED}[zero]
    own = trained * (TRAINED - shared) + trained * shared / processes
    return own + (frozen_bytes / processes if zero == 3 else frozen_bytes)


def training_hours(
    parameters: int, tokens: float, gpu: Card, gpus: int = 1, *, checkpointing: bool = False, lora: bool = False
) -> float:
    """By 6 FLOPs per parameter and token: 2 forward, 2 for the gradients of activations, 2 for those of weights, which LoRA's
    frozen ones do not have; 2 more where activations are computed again."""
    each = (4 if lora else 6) + (2 if checkpointing else 0)
    return each * parameters * tokens / (TRAINING_SHARE * gpu.flops * gpus) / 3600


def decoding_hours(weights: float, tokens: float, gpu: Card, gpus: int = 1) -> float:
    """A step reads all weights (bytes) once for all sequences in flight."""
    steps = math.ceil(tokens / IN_FLIGHT)
    return steps * weights / (DECODING_SHARE * gpu.bandwidth * gpus) / 3600
