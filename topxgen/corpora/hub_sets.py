"""Data sets of the Hub: their rows, files and columns."""

from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.common.hub import hub_call, snapshot


def column(repo: str, config: str, split: str, name: str) -> tuple[list[str], str]:
    """A column of a data set of the Hub, and the data set's name for Split.source. Raises UsageError with the Hub's reason."""
    data = dataset(repo, config, split)
    if name not in data.column_names:
        raise UsageError(f"{repo}, {config} has no column {name}, only {', '.join(data.column_names)}")
    return texts(data, name), source(repo, config, split)


def texts(data, name: str) -> list[str]:
    return [text or "" for text in data[name]]


def source(repo: str, config: str, split: str) -> str:
    """How Split.source names a data set of the Hub."""
    return f"hub: {repo}, {config}, {split}"


def dataset(repo: str, config: str | None, split: str | None, streaming: bool = False):
    """A data set of the Hub as `datasets` gives it. Raises UsageError with the Hub's reason."""
    import datasets
    from huggingface_hub import constants

    def load():
        # Without the Hub, `datasets` finds by name only what it has loaded before, not what was downloaded.
        place = snapshot("dataset", repo) if constants.HF_HUB_OFFLINE else None
        if place is not None:
            datasets.disable_progress_bars()  # it converts what is there, in moments
        return datasets.load_dataset(str(place or repo), config, split=split, streaming=streaming)

    return hub_call(f"{repo}, {config}" if config else repo, load)


def files(repo: str, patterns: list[str]) -> Path:
    """The folder with those files of a data set of the Hub that fit one of the patterns."""
    from huggingface_hub import snapshot_download

    return Path(hub_call(repo, lambda: snapshot_download(repo, repo_type="dataset", allow_patterns=patterns)))
