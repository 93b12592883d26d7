"""Prompts from TOML files that users edit.

A file holds parts, texts with placeholders such as {sentence}. Other braces are left as they stand.
"""

import re
import tomllib
from pathlib import Path

from topxgen.common.errors import UsageError, closest


def find(folder: Path, name: str, flag: str | None = None) -> Path:
    """The file of that name in `folder`; where a `flag` lets users choose, a path of their own, too.

    Raises UsageError with the choices when there is none.
    """
    if flag and name.endswith(".toml"):
        path = Path(name).expanduser()
        if not path.is_file():
            raise UsageError(f"{flag} {name}: there is no such file")
        return path
    path = folder / f"{name}.toml"
    if not path.is_file():
        choices = sorted(file.stem for file in folder.glob("*.toml"))
        if not flag:
            raise UsageError(f"{path} is missing: put it back (the folder has {', '.join(choices) or 'none'})")
        near = closest(name, choices, n=1)
        raise UsageError(
            f"{flag} {name!r} does not exist; choose one of {', '.join(choices)}, or the path of a .toml file"
            + (f" (did you mean {near[0]}?)" if near else "")
        )
    return path


def load(path: Path, needed: dict[str, tuple[str, ...]]) -> dict:
    """The parts in the file. `needed` names texts that must be there, and the placeholders that each must hold.

    Raises UsageError naming what is wrong.
    """
    try:
        parts = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    for name, placeholders in needed.items():
        if not isinstance(parts.get(name), str):
            raise UsageError(f'{path} has no text {name!r}: add {name} = """..."""')
        if lacking := [f"{{{key}}}" for key in placeholders if f"{{{key}}}" not in parts[name]]:
            raise UsageError(f"{path}, {name}: the placeholder {lacking[0]} is missing")
    return parts


def fill(text: str, /, **values: str) -> str:
    """`text` with each {name} replaced by the value of that name, in one pass: braces within values stay."""
    names = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({names})\}}", lambda found: values[found[1]], text)
