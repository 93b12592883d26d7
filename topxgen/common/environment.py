"""Environment variables of launchers and users, whose values are checked as flags are."""

import os
from os.path import expanduser
from pathlib import Path

from topxgen.common.errors import UsageError


def number(name: str, default: int) -> int:
    """A whole number; `default` if the variable is not set or empty. Raises UsageError for anything else."""
    value = os.environ.get(name, "").strip()
    if value and not (value.isascii() and value.isdecimal()):
        raise UsageError(f"the environment variable {name} is {value!r}, not a whole number; correct or unset it")
    return int(value or default)


def folder(name: str, default: str) -> Path:
    """A folder, also if the variable is empty: that is none, not the current folder. Raises UsageError for ~ of an unknown user."""
    folder = expanduser(os.environ.get(name) or default)
    if folder.startswith("~"):
        raise UsageError(f"{name}: {folder!r} has no home directory; set it to a folder")
    return Path(folder)


def is_main_process() -> bool:
    """Whether this is the first of several training processes, or the only one."""
    return number("RANK", 0) == 0
