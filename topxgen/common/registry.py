"""Choices between implementations: a table from a name to where it is and what it does, loaded when it is chosen."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import expanduser
from pathlib import Path
from types import ModuleType
from typing import Any

from topxgen.common.errors import UsageError, did_you_mean, reason, unknown_choice

OWN = "your own as module:attribute or file.py:attribute"  # for help and error messages


@dataclass(frozen=True)
class Choice:
    """One row of a table: the implementation as "module:attribute", and one sentence for --help."""

    target: str
    help: str = ""

    def load(self) -> Any:
        """The implementation; its module is imported now."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


def accepts_own(table: Mapping[str, Choice] | Any) -> bool:
    """Whether the implementations of `table` are loaded by load_choice, so that a user may name one of their own."""
    return isinstance(table, Mapping) and any(isinstance(row, Choice) and row.target for row in table.values())


def load_choice(flag: str, name: str, table: Mapping[str, Choice], own: str = OWN) -> Any:
    """The implementation that `table` has under `name`, or the user's own that `name` locates.

    A user's own is "package.module:attribute" or "path/to/file.py:attribute"; `own` describes it in the error. Raises
    UsageError if `name` is neither, suggesting the nearest name.
    """
    if name in table:
        return table[name].load()
    if ":" not in name:
        raise unknown_choice(flag, name, table, f", or {own}")
    location, _, attribute = name.rpartition(":")
    try:
        module = _module_of_file(Path(location)) if location.endswith(".py") else importlib.import_module(location)
    except (ImportError, OSError, ValueError) as error:  # ValueError: an empty or relative module name
        raise UsageError(
            f"{flag} {name!r} cannot be loaded ({reason(error)}); choose one of {', '.join(table)}, or {own}"
        ) from None
    if not hasattr(module, attribute):
        raise UsageError(f"{flag} {name!r}: {location} has no {attribute!r}{did_you_mean(attribute, vars(module))}")
    chosen = getattr(module, attribute)
    if not callable(chosen):
        raise UsageError(f"{flag} {name!r}: {attribute} is neither a class nor a function, but {type(chosen).__name__}")
    return chosen


def _module_of_file(path: Path) -> ModuleType:
    """The module in `path`, imported once per process."""
    name = str(Path(expanduser(path)).resolve())  # as a module's name, it cannot hide an installed module
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, name)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
