"""Raw or chat: how a model reads a prompt."""

from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.inference import ModelSettings
from topxgen.inference.tokenizer import load_tokenizer

Prompt = str | list[dict[str, str]]


RAW, CHAT = "raw", "chat"


STYLES = ("auto", RAW, CHAT)


def style_of(wanted: str, api: str, settings: ModelSettings) -> str:
    """RAW or CHAT: what is `wanted`, for "auto" chat messages where the tokenizer has a chat template.

    Raises UsageError for a tokenizer that does not load, and for raw text where an API takes messages alone.
    """
    if api in inference.REMOTE:
        if wanted == RAW and api in inference.CHAT_ONLY:
            raise UsageError(f"--prompt_style raw: {api} has chat models only; pass --prompt_style chat")
        return CHAT if wanted == "auto" else wanted
    if wanted == RAW:
        return RAW
    has_template = bool(load_tokenizer(settings).chat_template)
    if wanted == CHAT and not has_template:
        raise UsageError(
            f"--prompt_style chat: the tokenizer of {settings.tokenizer_name_or_path or settings.model_name_or_path} has no chat template; pass raw, or "
            "the instruction-tuned model"
        )
    return CHAT if has_template else RAW
