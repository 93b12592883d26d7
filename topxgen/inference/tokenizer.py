"""Load a model's tokenizer and encode prompts with it."""

from topxgen.common.errors import UsageError
from topxgen.common.hub import cannot_load
from topxgen.inference import ModelSettings


def load_tokenizer(settings: ModelSettings):
    """The model's tokenizer alone: enough to render and count prompts.

    Raises UsageError when the name is neither a folder with a tokenizer nor a model that can be fetched.
    """
    from transformers import AutoTokenizer

    name = settings.tokenizer_name_or_path or settings.model_name_or_path
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=settings.trust_remote_code)
    except Exception as error:  # the Hub client raises dozens of types; the cause is in the message
        raise UsageError(cannot_load(name, error)) from None


def encode(tokenizer, prompt: str | list[dict[str, str]]) -> list[int]:
    """Token ids of a prompt: plain text as the tokenizer reads it, a chat through its chat template."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    return list(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False))
