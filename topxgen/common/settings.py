"""Settings objects: frozen dataclasses whose fields bear the names of the flags that set them."""

import argparse
from dataclasses import fields
from typing import Any, Self


class Settings:
    """Base of a settings dataclass. A field that no flag sets has a name that is no flag's."""

    @classmethod
    def from_args(cls, args: argparse.Namespace, **chosen: Any) -> Self:
        """The settings by the flags of the same names; `chosen` are those that the caller decides itself.

        A field whose flag the script does not have keeps its default.
        """
        flags = {field.name: getattr(args, field.name) for field in fields(cls) if hasattr(args, field.name)}
        return cls(**flags | chosen)
