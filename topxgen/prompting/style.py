"""Prompt styles: raw text, or messages through the chat template."""

import json

from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.common.provenance import digest
from topxgen.inference import ModelSettings
from topxgen.inference.tokenizer import chat_template

Prompt = str | list[dict[str, str]]
RAW, CHAT = "raw", "chat"
STYLES = ("auto", RAW, CHAT)


def style_of(style: str, api: str, settings: ModelSettings) -> str:
    """RAW or CHAT, as `style` says; "auto" is CHAT for APIs and for tokenizers with a chat template.

    Raises UsageError for a tokenizer that does not load or lacks a chat template, and for RAW with a chat-only API.
    """
    return style_and_template(style, api, settings)[0]


def style_and_template(style: str, api: str, settings: ModelSettings) -> tuple[str, dict[str, str]]:
    """See style_of; and the setting that tells the chat template from another one of the same model: {} where only a server knows it."""
    if api in inference.REMOTE:
        if style == RAW and api in inference.CHAT_ONLY:
            raise UsageError(f"--prompt_style raw: {api} has chat models only; pass --prompt_style chat")
        return (CHAT if style == "auto" else style), {}
    if style == RAW:
        return RAW, {}
    template = chat_template(settings)
    if style == CHAT and not template:
        raise UsageError(
            f"--prompt_style chat: the tokenizer of {settings.tokenizer_name_or_path or settings.model_name_or_path} has no chat template; pass raw, or "
            "the instruction-tuned model"
        )
    return (CHAT, template_setting(template)) if template else (RAW, {})


def template_setting(template: str | dict[str, str]) -> dict[str, str]:
    """The template itself counts, since what it renders may contain the date."""
    return {"chat_template_digest": digest(json.dumps(template))}


def as_prompt(text: str, style: str) -> Prompt:
    """`text` as a message for CHAT, as it is for any other style."""
    return [{"role": "user", "content": text}] if style == CHAT else text
