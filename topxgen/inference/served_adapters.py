"""LoRA adapters behind a vLLM server: it ends their responses at the tokens of the base alone, and serves what does not fit."""

import logging
import os
from collections.abc import Iterable

from topxgen.common.console import ONCE
from topxgen.inference.adapters import check_fits, end_tokens

logger = logging.getLogger(__name__)


def served_end_tokens(name: str, cards: Iterable, trust_remote_code: bool) -> list[int]:
    """The tokens that end responses of the adapter that is served as `name`; none of another model. Raises UsageError if it does not
    match its base.

    `cards`: what the server lists. The folders that vLLM's names are read if they are visible here.
    """
    listed = {_text(card, "id"): card for card in cards}
    base, folder = (_text(listed.get(name), key) for key in ("parent", "root"))
    if not base:
        return []
    if not os.path.isfile(os.path.join(folder, "adapter_config.json")):
        logger.warning(
            f"{name} is a LoRA adapter of {base}, whose folder at the server, {folder}, is not visible here: whether it fits is not checked, "
            "and its responses end at the end tokens of the base alone; if it was trained with another --eos_token_id, merge it into the "
            "base (scripts/merge_lora.py) and serve the result",
            extra=ONCE,
        )
        return []
    base_folder = _text(listed.get(base), "root") or base
    if os.path.isdir(base_folder):
        check_fits(folder, base_folder, None, trust_remote_code)
    return sorted(end_tokens(folder, trust_remote_code))


def _text(card, key: str) -> str:
    value = getattr(card, key, None)
    return value if isinstance(value, str) else ""
