"""Single files of a model, which is a folder or a Hub id."""

from pathlib import Path

from topxgen.common.console import say
from topxgen.common.errors import reason


def model_file(model: str, name: str) -> Path | None:
    """Where file `name` of `model` is, fetched where it must be; None when there is none.

    A Hub that cannot be asked is told, once for each model: then its file is not known.
    """
    if Path(model).is_dir():
        path = Path(model) / name
        return path if path.is_file() else None
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(model, name))
    except LocalEntryNotFoundError as error:  # not in the cache
        if not constants.HF_HUB_OFFLINE:
            _tell(model, reason(error))
    except (EntryNotFoundError, HFValidationError):
        pass
    except Exception as error:  # its client raises dozens of types; what is no model is told when it is loaded
        _tell(model, reason(error))
    return None


_told: set[str] = set()


def _tell(model: str, why: str) -> None:
    if model in _told:
        return
    _told.add(model)
    say(
        f"cannot look up {model} on the Hub ({why}): whether it was fine-tuned on a template is not known; --template_key and "
        "--prompt_style say how to ask it"
    )


def cannot_load(name: str, error: Exception) -> str:
    """One line for a model or tokenizer that did not load."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        return f"cannot load {name!r} ({reason(error)}); is it the folder of a model with its config.json and tokenizer files?"
    return (
        f"cannot load {name!r} ({reason(error)}); pass a local folder or a Hub id that this machine can reach (a gated model "
        "needs its terms accepted and HF_TOKEN exported; without internet download it elsewhere and set HF_HUB_OFFLINE=1)"
    )
