"""Attention within the texts of packed rows by the flash-attention kernels that torch itself brings (variable lengths).

With SDPA, packed rows need a mask of rows x tokens x tokens, which rules flash attention out, and every pair of tokens is
computed. Here each text is a sequence of its own to the kernel. Where rows are not packed, or a cache is in use, SDPA
computes the attention as before.
"""

import inspect

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from topxgen.common.errors import UsageError

NAME = "varlen"  # without "flash", which transformers takes for a package to import
LOWEST_CAPABILITY = (8, 0)
LARGEST_HEAD = 256
NOT_COMPUTED = ("softcap", "s_aux", "position_bias")  # logits capped (Gemma 2), attention sinks (gpt-oss), biases (T5)
# Before torch 2.12 the kernel shares key heads among query heads without being asked.
SHARED_KEYS = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def is_available(dtype: torch.dtype) -> bool:
    """Whether the GPU runs these kernels in the precision of a training run."""
    if dtype == torch.float32 or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability() >= LOWEST_CAPABILITY


def register() -> None:
    """Make NAME an `attn_implementation` of transformers."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def pass_boundaries(model) -> None:
    """Give a model's layers the boundaries of the texts in packed rows: what restarts position ids, without mask and cache."""
    model.get_decoder().register_forward_pre_hook(_add_boundaries, with_kwargs=True)


def _add_boundaries(module, inputs, options):
    positions = options.get("position_ids")
    if positions is None or options.get("attention_mask") is not None or options.get("past_key_values") is not None:
        return None
    return inputs, options | boundaries(positions)


def boundaries(position_ids: torch.Tensor) -> dict:
    """transformers' arguments for variable lengths, from position ids [rows, tokens] that start at 0 in each text and row."""
    positions = position_ids.flatten()
    starts = (positions == 0).nonzero().flatten()
    ends = torch.cat([starts, starts.new_tensor([positions.numel()])]).int()
    longest = int(positions.max()) + 1
    return dict(cu_seq_lens_q=ends, cu_seq_lens_k=ends, max_length_q=longest, max_length_k=longest)


def attention(
    module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers: query [rows, heads, tokens, size] -> [rows, tokens, heads, size].

    Raises UsageError for what the kernels do not compute."""
    ends, longest = options.get("cu_seq_lens_q"), options.get("max_length_q")
    if ends is None:
        return ALL_ATTENTION_FUNCTIONS["sdpa"](
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    if dropout or any(options.get(name) is not None for name in NOT_COMPUTED):
        needs = "dropout" if dropout else next(name for name in NOT_COMPUTED if options.get(name) is not None)
        raise UsageError(f"{type(module).__name__} needs {needs} in attention; drop --use_flash_attn")
    rows, heads, tokens, size = query.shape
    if size > LARGEST_HEAD or value.shape[-1] != size:  # DeepSeek's values are smaller than its queries
        raise UsageError(
            f"{type(module).__name__} has attention heads of {size} and {value.shape[-1]} dimensions; drop --use_flash_attn"
        )
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    query, key, value = (x.transpose(1, 2).flatten(0, 1).to(dtype) for x in (query, key, value))
    window = (options.get("sliding_window") or 0) - 1  # tokens before each one; -1: all
    output = varlen_attn(
        query, key, value, ends, ends, longest, longest, scale=scaling, window_size=(window, 0), **SHARED_KEYS
    )
    return output.view(rows, tokens, heads, size), None
