"""The one exception that stands for a mistake of the user's or of their machine, not a bug."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A one-line message that names the value, the choices and the remedy; scripts exit with code 2."""


def reason(error: Exception) -> str:
    """The type and first line of another library's exception, for one line of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"


def closest(name: str, choices: Iterable[str], n: int = 3) -> list[str]:
    """The choices most like `name`, best first, letter case ignored."""
    folded = {choice.casefold(): choice for choice in choices}
    return [folded[match] for match in difflib.get_close_matches(name.casefold(), folded, n=n, cutoff=0.5)]
