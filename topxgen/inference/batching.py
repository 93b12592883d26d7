"""Whether a model of transformers answers a prompt in a batch as it does alone.

Recurrent layers of some architectures read the masked padding of shorter prompts (RecurrentGemma, RWKV), others count it as
positions (RoFormer), and RWKV mixes the rows of a batch. Answers would depend on what else happens to be in it.
"""

from typing import NamedTuple

from topxgen.common.errors import UsageError
from topxgen.inference.neutral_decoding import neutral_decoding

TOKENS, PADDING, STEPS = 8, 5, 2  # of the prompt that is looked at, and of what is generated
# How far its logits may move, relative to their mean: the order of summation.
TOLERANCE, HALF_TOLERANCE = 1e-3, 5e-2


class Batching(NamedTuple):
    """What leaves answers as they are."""

    prompts: bool  # several prompts together, the shorter ones padded on the left
    rows: bool  # several rows of equal length: samples and beams


def batching(model, half: bool = False) -> Batching:
    """By the logits after a prompt, and after a token more: alone, beside another prompt, and behind masked tokens. `half`: its
    products are in half precision whatever its weights are, as in mixed precision.

    Raises UsageError if these are no numbers, as those of Gemma 3 in float16.
    """
    import torch

    words = model.get_input_embeddings().weight.shape[0]
    prompt, other, padding = (
        torch.arange(start, start + count) % words
        for start, count in ((1, TOKENS), (TOKENS + 1, TOKENS), (2 * TOKENS, PADDING))
    )

    def logits(*rows: torch.Tensor) -> torch.Tensor:
        """Of the last row, which ends in `prompt`."""
        ids = torch.stack(rows)
        mask = torch.ones_like(ids)
        mask[-1, :-TOKENS] = 0
        options = {"max_new_tokens": STEPS, "do_sample": False, "num_beams": 1, "pad_token_id": 0, "eos_token_id": None}
        options |= {"output_logits": True, "return_dict_in_generate": True, "logits_processor": [_first_token]}
        with torch.inference_mode(), neutral_decoding(model):
            made = model.generate(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), **options)
        return torch.stack([step[-1].float() for step in made.logits])

    alone = logits(prompt)
    if alone.isnan().any():
        dtype = str(model.dtype).removeprefix("torch.")
        raise UsageError(
            f"{type(model).__name__} computes NaN in {dtype}: pass --dtype bfloat16 or float32, or another model"
        )
    limit = HALF_TOLERANCE if half or model.dtype.itemsize <= 2 else TOLERANCE

    def is_same(found: torch.Tensor) -> bool:
        return bool((found - alone).abs().mean() <= limit * alone.abs().mean().clamp_min(1e-6))

    rows = is_same(logits(other, prompt))
    longer = torch.cat([other[:PADDING], prompt]).flip(0)
    return Batching(rows and is_same(logits(longer, torch.cat([padding, prompt]))), rows)


def _first_token(ids, scores):
    """Generates the same tokens whatever the logits are."""
    scores = scores.new_full(scores.shape, float("-inf"))
    scores[:, 0] = 0
    return scores
