"""Exceptions for a mistake of the user, their machine or a provider; anything else is a bug and keeps its traceback."""

import difflib
from collections.abc import Iterable

from topxgen.common.lines import split_lines


class UsageError(Exception):
    """One line that names the value, the choices and the remedy; scripts exit with `exit_code`."""

    exit_code = 2


class UnknownLanguage(UsageError):
    """A model does not know a language; others it may know."""


class Unreachable(UsageError):
    """The Hub, which may have what is asked for, cannot be reached: a dry run goes on without it."""


class APIUnavailable(UsageError):
    """The API is unavailable (key rejected, quota exhausted, retries exhausted). Finished responses are on disk; scripts
    that start jobs recognise the state by the exit code."""

    exit_code = 4


def reason(error: Exception) -> str:
    """The type and first line of another library's exception, for one line of ours; with the next one, if it announces that."""
    lines = [line.strip() for line in split_lines(str(error)) if line.strip()]
    message = " ".join(lines[: 1 + lines[0].endswith(":")]) if lines else "no message"
    return f"{type(error).__name__}: {message[:300]}"


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A hint at the choice most like `name`, in parentheses after a space; an empty string if none is similar."""
    near = closest(name, choices, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def unknown_choice(flag: str, name: str, choices: Iterable[str], or_else: str = "") -> UsageError:
    """The error for a value of `flag` that does not exist; `or_else` names what is accepted besides the choices."""
    choices = list(choices)
    return UsageError(
        f"{flag} {name!r} does not exist; choose one of {', '.join(choices)}{or_else}{did_you_mean(name, choices)}"
    )


def closest(name: str, choices: Iterable[str], n: int = 3) -> list[str]:
    """The choices most like `name`, best first, letter case ignored."""
    folded = {choice.casefold(): choice for choice in choices}
    return [folded[match] for match in difflib.get_close_matches(name.casefold(), folded, n=n, cutoff=0.5)]
