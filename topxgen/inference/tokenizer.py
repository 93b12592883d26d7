"""Load a model's tokenizer encode prompts and decode answers with it."""

from collections.abc import Sequence

from topxgen.common.hub import hub_call
from topxgen.inference import ModelSettings


def load_tokenizer(settings: ModelSettings):
    """The model's tokenizer, without the model. Raises UsageError if it does not load."""
    from transformers import AutoTokenizer

    name = settings.tokenizer_name_or_path or settings.model_name_or_path
    return hub_call(name, lambda: AutoTokenizer.from_pretrained(name, trust_remote_code=settings.trust_remote_code))


def decode(tokenizer, rows: Sequence[Sequence[int]]) -> list[str]:
    """The texts of token ids, without special tokens; spaces before punctuation stay as the model wrote them."""
    return tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def encode(tokenizer, prompt: str | list[dict[str, str]]) -> list[int]:
    """Token ids of a prompt: plain text, or chat messages through the chat template."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    return list(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False))
