"""The one exception that stands for a mistake of the user's or of their machine, not a bug."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A one-line message that names the value, the choices and the remedy; scripts exit with code 2."""


def closest(name: str, choices: Iterable[str], n: int = 3) -> list[str]:
    """The choices most like `name`, best first, letter case ignored."""
    folded = {choice.casefold(): choice for choice in choices}
    return [folded[match] for match in difflib.get_close_matches(name.casefold(), folded, n=n, cutoff=0.5)]
