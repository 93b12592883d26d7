"""Settings objects: frozen dataclasses whose fields have the names of the flags that set them."""

import argparse
from dataclasses import fields
from typing import Any, Self


class Settings:
    """Base of a settings dataclass. A field that is not set by a flag must not share a flag's name."""

    @classmethod
    def from_args(cls, args: argparse.Namespace, **chosen: Any) -> Self:
        """The settings by the flags of the same names; `chosen` are those that the caller decides itself.

        A field whose flag the script does not have keeps its default.
        """
        flags = {field.name: getattr(args, field.name) for field in fields(cls) if hasattr(args, field.name)}
        return cls(**flags | chosen)
