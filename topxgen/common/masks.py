"""Texts about a run without what belongs to the machine: absolute paths and the user's name in paths.

Commands, names of models and messages are published; where the folders were is nobody's business. Of a path the last part
stays: /home/someone/models/gemma becomes …/gemma. The texts of the data itself are not changed.
"""

import getpass
import re
import shlex
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from topxgen.common.console import without_secrets

_NAME = r"[^\s/'\"=,:;|<>(){}\[\]]"  # of a part of a path
# An absolute path, one below a home folder, or one that leads upwards; not the slashes of https:// and of and/or.
_PATH = re.compile(rf"(?:(?<![\w./~…-])(?:~[\w.-]*)?/(?!/)|(?<![\w./])\.\./)(?:{_NAME}+/)*{_NAME}*")
_FILE_URL = re.compile(r"\bfile://(?=/)")
_RELATIVE = re.compile(rf"{_NAME}+(?:/{_NAME}+)+")


@cache
def _names_of_machine() -> frozenset[str]:
    try:
        return frozenset({getpass.getuser(), Path.home().name} - {"", "root"})
    except (OSError, KeyError, RuntimeError):  # a user without a name, as in containers
        return frozenset()


def masked(text: str) -> str:
    """`text` with absolute paths shortened to their last part, and without secrets."""
    if "/" not in text:
        return without_secrets(text)
    text = _PATH.sub(_last_part, _FILE_URL.sub("", text))
    return without_secrets(_RELATIVE.sub(_without_user, text))


def masked_word(word: str) -> str:
    """A word of a command: a value that is a path is one to its end, spaces included."""
    flag, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    if re.match(r"~?[\w.-]*/|\.\./", value) and value.startswith(("/", "~", "../")) and "://" not in value:
        path, colon, rest = value.partition(":")
        return f"{flag}{equals}{masked('/' + Path(path).name)}{colon}{masked(rest)}"
    return masked(word)


def masked_command(words: Sequence[str]) -> str:
    """A command as it is shown; a shortened path stays without quotation marks, since it is none to copy."""
    shown = map(masked_word, words)
    return " ".join(word if "…" in word and " " not in word else shlex.quote(word) for word in shown)


def masked_json(value: Any, text: Callable[[str], str] = masked) -> Any:
    """The same of all texts in a JSON value; `text` is masked or, where paths may have spaces, masked_word."""
    if isinstance(value, dict):
        return {masked(name): masked_json(item, text) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked_json(item, text) for item in value]
    return text(value) if isinstance(value, str) else value


def _last_part(match: re.Match) -> str:
    name = match[0].rstrip("/").rpartition("/")[2]
    return "…" if not name or name in _names_of_machine() | {"..", "."} else f"…/{name}"


def _without_user(match: re.Match) -> str:
    return "/".join("…" if part in _names_of_machine() else part for part in match[0].split("/"))
