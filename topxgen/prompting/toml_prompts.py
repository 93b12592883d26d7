"""Prompts in TOML files that users edit: parts, which are texts with placeholders such as {sentence}. Braces around anything but a
name are text."""

import re
import tomllib
from collections.abc import Collection
from os.path import expanduser
from pathlib import Path

from topxgen.common.errors import UsageError, unknown_choice


def find(folder: Path, name: str, flag: str | None = None) -> Path:
    """The file with that name in `folder`; if a `flag` sets `name`, also a path. Raises UsageError if it does not exist."""
    if flag and name.endswith(".toml"):
        path = Path(expanduser(name))
        if not path.is_file():
            choices = ", ".join(sorted(file.stem for file in folder.glob("*.toml")))
            raise UsageError(f"{flag} {name} does not exist; choose one of {choices}, or the path of a .toml file")
        return path
    path = folder / f"{name}.toml"
    if not path.is_file():
        choices = sorted(file.stem for file in folder.glob("*.toml"))
        if not flag:
            raise UsageError(f"{path} is missing: put it back (the folder has {', '.join(choices) or 'none'})")
        raise unknown_choice(flag, name, choices, ", or the path of a .toml file")
    return path


def load(path: Path, required: dict[str, tuple[str, ...]]) -> dict:
    """The parts in the file. `required` names the parts that it must have, and the placeholders that each must contain.

    Raises UsageError for a file that cannot be read, a missing part or a missing placeholder.
    """
    try:
        parts = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    for name, placeholders in required.items():
        if not isinstance(parts.get(name), str):
            raise UsageError(f'{path} has no text {name!r}: add {name} = """..."""')
        if missing := [f"{{{key}}}" for key in placeholders if f"{{{key}}}" not in parts[name]]:
            raise UsageError(f"{path}, {name}: the placeholder {missing[0]} is missing")
    return parts


def refuse_unknown(
    path: Path | str, parts: dict, placeholders: dict[str, Collection[str]], others: Collection[str] = ()
) -> None:
    """Raise UsageError for a key that is neither a text of `placeholders` nor one of `others`, and for a placeholder that a text is
    not filled with: a misspelt one would be sent as it is."""
    keys = (*others, *placeholders)
    for key in parts:
        if key not in keys:
            raise unknown_choice(f"{path}: key", key, keys)
    for part, known in placeholders.items():
        for name in re.findall(r"\{(\w+)\}", parts.get(part, "")):
            if name not in known:
                names = ", ".join(f"{{{name}}}" for name in dict.fromkeys(known)) or "none"
                raise UsageError(f"{path}, {part}: unknown placeholder {{{name}}}; known here: {names}")


def load_question(path: Path, placeholders: tuple[str, ...]) -> dict:
    """The parts of a question to a judge: a form for chat models, one for base models, and where the answer of these stops."""
    parts = load(path, {"chat": placeholders, "completion": placeholders, "stop": ()})
    if not parts["stop"]:
        raise UsageError(
            f'{path}: stop is empty; it is the string at which the answer of a base model ends, such as "\\n"'
        )
    return parts


def fill(text: str, /, **values: str) -> str:
    """`text` with each {name} replaced by the value of that name, in one pass: braces within values stay."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), text)
