"""Choices between implementations: a table from a name to where it is and what it does, loaded when it is chosen."""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from topxgen.common.errors import unknown_choice


class Choice(NamedTuple):
    """One row of a table: the implementation as "module:attribute", and one sentence for --help."""

    target: str
    help: str = ""

    def load(self) -> Any:
        """The implementation; its module is imported now."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


def load_choice(flag: str, name: str, table: Mapping[str, Choice]) -> Any:
    """The implementation that `table` has under `name`. Raises UsageError, suggesting the nearest name, if there is none."""
    if name not in table:
        raise unknown_choice(flag, name, table)
    return table[name].load()
