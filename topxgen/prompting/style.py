"""Prompt styles: raw text, or messages through the chat template."""

import json

from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.common.provenance import digest
from topxgen.inference import ModelSettings
from topxgen.inference.tokenizer import has_chat_template, load_tokenizer

Prompt = str | list[dict[str, str]]
RAW, CHAT = "raw", "chat"
STYLES = ("auto", RAW, CHAT)


def style_of(style: str, api: str, settings: ModelSettings) -> str:
    """RAW or CHAT, as `style` says; "auto" is CHAT for APIs and for tokenizers with a chat template.

    Raises UsageError for a tokenizer that does not load or lacks a chat template, and for RAW with a chat-only API.
    """
    if api in inference.REMOTE:
        if style == RAW and api in inference.CHAT_ONLY:
            raise UsageError(f"--prompt_style raw: {api} has chat models only; pass --prompt_style chat")
        return CHAT if style == "auto" else style
    if style == RAW:
        return RAW
    has_template = has_chat_template(settings)
    if style == CHAT and not has_template:
        raise UsageError(
            f"--prompt_style chat: the tokenizer of {settings.tokenizer_name_or_path or settings.model_name_or_path} has no chat template; pass raw, or "
            "the instruction-tuned model"
        )
    return CHAT if has_template else RAW


def as_prompt(text: str, style: str) -> Prompt:
    """`text` as a message for CHAT, as it is for any other style."""
    return [{"role": "user", "content": text}] if style == CHAT else text


def template_id(style: str, api: str, settings: ModelSettings) -> list[str]:
    """What tells the chat template from another one of the same model, for caches of responses; [] without, or where only a server
    knows it."""
    if style != CHAT or api in inference.REMOTE:
        return []
    return [digest(json.dumps(load_tokenizer(settings).chat_template))]
