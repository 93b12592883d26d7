"""LoRA adapters behind a vLLM server: it ends their responses at the tokens of the base alone, and serves what does not fit."""

import logging
from collections.abc import Iterable
from pathlib import Path

from topxgen.common.console import ONCE
from topxgen.inference.adapters import check_fits, end_tokens

logger = logging.getLogger(__name__)


def served_end_tokens(name: str, cards: Iterable, trust_remote_code: bool) -> list[int]:
    """The tokens that end responses of the adapter that is served as `name`; none of another model. Raises UsageError if it does not
    match its base.

    `cards`: what the server lists. The folders that vLLM's names are read if they are visible here.
    """
    listed = {card.id: card for card in cards}
    base = getattr(listed.get(name), "parent", None)
    if not base:
        return []
    folder = str(listed[name].root)
    if not (Path(folder) / "adapter_config.json").is_file():
        logger.warning(
            f"{name} is a LoRA adapter of {base}, whose folder at the server, {folder}, is not visible here: whether it fits is not checked, "
            "and its responses end at the end tokens of the base alone; if it was trained with another --eos_token_id, merge it into the "
            "base (scripts/merge_lora.py) and serve the result",
            extra=ONCE,
        )
        return []
    base_folder = getattr(listed.get(base), "root", None) or base
    if Path(base_folder).is_dir():
        check_fits(folder, base_folder, None, trust_remote_code)
    return sorted(end_tokens(folder, trust_remote_code))
