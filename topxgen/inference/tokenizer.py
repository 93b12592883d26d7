"""Load a model's tokenizer and encode prompts with it."""

from topxgen.common.hub import hub_call
from topxgen.inference import ModelSettings


def load_tokenizer(settings: ModelSettings):
    """The model's tokenizer, without the model. Raises UsageError if it does not load."""
    from transformers import AutoTokenizer

    name = settings.tokenizer_name_or_path or settings.model_name_or_path
    return hub_call(name, lambda: AutoTokenizer.from_pretrained(name, trust_remote_code=settings.trust_remote_code))


def encode(tokenizer, prompt: str | list[dict[str, str]]) -> list[int]:
    """Token ids of a prompt: plain text, or chat messages through the chat template."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    return list(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False))
