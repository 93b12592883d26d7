"""Memory and hours of models by their shapes: the formulas of docs/hardware.md, "GPU memory" and "Hours"."""

import math
import re
from dataclasses import dataclass

from topxgen.inference.gpu_groups import Heads

# Bytes of each parameter that AdamW trains: weight, gradient, master weight and two moments. A frozen one has its weight alone.
WEIGHT, GRADIENT, MASTER, MOMENTS = 2, 2, 4, 8
TRAINED = WEIGHT + GRADIENT + MASTER + MOMENTS
CHECKPOINT = MASTER + MOMENTS  # what a checkpoint keeps of a trained parameter, beside its 16-bit weight
TRAINING_SHARE = 0.4  # of the GPU's peak, also of reading prompts
DECODING_SHARE = 1 / 3  # of its memory bandwidth
IN_FLIGHT = 256  # sequences that are decoded at a time


@dataclass(frozen=True)
class Card:
    """`pattern` finds it in what nvidia-smi calls it. `memory`: MiB, as nvidia-smi has it; `flops`: dense bf16 peak, None without bf16;
    `bandwidth`: bytes/s of memory. Of SXM versions, unless the name says otherwise."""

    pattern: str
    memory: int
    capability: tuple[int, int]
    flops: float | None
    bandwidth: float


# The first whose pattern the GPU's name has. Sources: (s) output of nvidia-smi in public repositories; (n) the peaks in nanochat's
# common.py; (d) copies of NVIDIA's data sheets and white papers, such as mullet.se (L40, L40S), ecer.com (A40), glennklockwood.com/garden
# (H100, B200) and github.com/winston-zhang-orz/gpu-specs; (v) docs.vultr.com. Where a letter is missing, the figure was not found again:
# flops of A10G and RTX A6000, bandwidth of A30, memory of A100 to T4 and of RTX cards.
CARDS = {
    "B200": Card("B200", 183359, (10, 0), 2250e12, 8.0e12),  # s n v
    "H200": Card("H200", 143771, (9, 0), 989e12, 4.8e12),  # s d
    "H100-PCIe": Card("H100 PCIe", 81559, (9, 0), 756e12, 2.0e12),  # n d
    "H100": Card("H100", 81559, (9, 0), 989e12, 3.35e12),  # s n d
    "A100-40": Card("A100.*40GB", 40960, (8, 0), 312e12, 1.555e12),  # n d
    "A100-80": Card("A100", 81920, (8, 0), 312e12, 2.039e12),  # n d
    "L40S": Card("L40S", 46068, (8, 9), 362e12, 0.864e12),  # s n d
    "L40": Card("L40", 46068, (8, 9), 181e12, 0.864e12),  # d
    "L4": Card("L4", 23034, (8, 9), 121e12, 0.3e12),  # s n d
    "A40": Card("A40", 46068, (8, 6), 149.7e12, 0.696e12),  # s d
    "A30": Card("A30", 24576, (8, 0), 165e12, 0.933e12),  # d: flops
    "A10G": Card("A10G", 23028, (8, 6), 70e12, 0.6e12),  # s; d: bandwidth
    "RTX-A6000": Card("RTX A6000", 49140, (8, 6), 155e12, 0.768e12),  # d: bandwidth
    "RTX-4090": Card("RTX 4090", 24564, (8, 9), 165e12, 1.008e12),  # n d
    "RTX-3090": Card("RTX 3090", 24576, (8, 6), 71e12, 0.936e12),  # n d
    "V100-16": Card("V100.*16GB", 16384, (7, 0), None, 0.9e12),  # d
    "V100-32": Card("V100", 32768, (7, 0), None, 0.9e12),  # d
    "T4": Card("T4", 15360, (7, 5), None, 0.32e12),  # d
}


def card(name: str) -> Card | None:
    """Of a GPU as nvidia-smi or this table calls it."""
    return CARDS.get(name) or next((row for row in CARDS.values() if re.search(rf"\b{row.pattern}", name)), None)


@dataclass(frozen=True)
class Attention:
    """What decides the KV cache of a decoder. `numbers`: in the keys and values of a token in one layer; `windows`: for each layer the
    tokens that it keeps, None: all."""

    heads: Heads
    numbers: int
    windows: tuple[int | None, ...]
    max_positions: int | None = None

    def kv_bytes(self, tokens: int, number_bytes: int = 2) -> int:
        """Keys and values of a sequence of `tokens`."""
        kept = sum(tokens if window is None else min(tokens, window) for window in self.windows)
        return kept * self.numbers * number_bytes


def training_bytes(frozen_bytes: float, trained: int, processes: int = 1, zero: int = 0) -> float:
    """Bytes on each GPU of weights, gradients and optimizer states. `zero`: the stage of DeepSpeed, 0 for none."""
    shared = {0: 0, 1: MASTER + MOMENTS, 2: GRADIENT + MASTER + MOMENTS, 3: TRAINED}[zero]
    own = trained * (TRAINED - shared) + trained * shared / processes
    return own + (frozen_bytes / processes if zero == 3 else frozen_bytes)


def training_hours(
    parameters: float, tokens: float, gpu: Card, *, checkpointing: bool = False, lora: bool = False
) -> float:
    """By 6 FLOPs per parameter and token: 2 forward, 2 for the gradients of activations, 2 for those of weights, which LoRA's
    frozen ones do not have; 2 more where activations are computed again."""
    each = (4 if lora else 6) + (2 if checkpointing else 0)
    return each * parameters * tokens / (TRAINING_SHARE * gpu.flops) / 3600


def reading_hours(parameters: float, tokens: float, gpu: Card, gpus: int = 1) -> float:
    """Of prompts, by 2 FLOPs per parameter and token, at the share of the peak that training has; none is in the prefix cache."""
    return 2 * parameters * tokens / (TRAINING_SHARE * gpu.flops * gpus) / 3600


def decoding_hours(weights: float, tokens: float, gpu: Card, gpus: int = 1) -> float:
    """A step reads all weights (bytes) once for all sequences in flight."""
    steps = math.ceil(tokens / IN_FLIGHT)
    return steps * weights / (DECODING_SHARE * gpu.bandwidth * gpus) / 3600
