"""The exceptions that stand for a mistake of the user's, their machine or a provider, not a bug."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A one-line message that names the value, the choices and the remedy; scripts end with `exit_code`."""

    exit_code = 2


class Refused(UserError):
    """An API will not go on (refused key, spent quota, no answer after all retries): nothing to mend here, and
    what is finished is on disk. A script that starts jobs can tell it by its exit code."""

    exit_code = 4


def reason(error: Exception) -> str:
    """The type and first line of another library's exception, for one line of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"


def closest(name: str, choices: Iterable[str], n: int = 3) -> list[str]:
    """The choices most like `name`, best first, letter case ignored."""
    folded = {choice.casefold(): choice for choice in choices}
    return [folded[match] for match in difflib.get_close_matches(name.casefold(), folded, n=n, cutoff=0.5)]
