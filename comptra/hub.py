"""Single files of a model, which is a folder or a Hub id."""

from pathlib import Path


def model_file(model: str, name: str) -> Path | None:
    """Where file `name` of `model` is, fetched where it must be; None when there is none, or the Hub is out of reach."""
    if Path(model).is_dir():
        path = Path(model) / name
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(model, name))
    except (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        OSError,
    ):  # what must be there is told when it is loaded
        return None
