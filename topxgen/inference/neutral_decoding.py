"""Decoding by our flags alone, whatever the model folder's generation_config.json says."""

from collections.abc import Iterator
from contextlib import contextmanager

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


@contextmanager
def neutral_decoding(model) -> Iterator[None]:
    """Within it `model.generate` takes only special tokens from the model's generation config, or what that lacks from its config.

    `generate` would fill in from it whatever its call leaves out: repetition_penalty, no_repeat_ngram_size, suppress_tokens ...
    Afterwards the model has its own config again, with which it is saved.
    """
    from transformers import GenerationConfig

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # of a peft model
    own = inner.generation_config
    chosen = {name: getattr(own, name) for name in TOKENS}
    chosen |= {name: getattr(inner.config, name, None) for name, value in chosen.items() if value is None}
    if inner.config.model_type == "marian":  # its pad token has untrained logits
        chosen["bad_words_ids"] = [[inner.config.pad_token_id]]
    inner.generation_config = GenerationConfig(**chosen)
    try:
        yield
    finally:
        inner.generation_config = own
