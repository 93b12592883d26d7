"""What the argparse scripts share: types whose error names the value, and names that are no paths."""

import argparse

from topxgen.common.errors import UserError


def boolean(value: str) -> bool:
    """`--flag`, `--flag true` and `--flag false` all work: people's scripts hold each form."""
    if value.lower() in ("true", "1", "yes"):
        return True
    if value.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{value!r} is neither true nor false")


# Options of a flag: add_argument("--verbose", **FLAG)
FLAG = dict(type=boolean, nargs="?", const=True, default=False)


def whole(minimum: int, maximum: int | None = None):
    """An argparse type: a whole number, `minimum` or larger, `maximum` or smaller."""
    limits = f"of {minimum} or more" if maximum is None else f"from {minimum} to {maximum}"

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            number = None
        if number is None or number < minimum or (maximum is not None and number > maximum):
            raise argparse.ArgumentTypeError(f"{value!r} is not a whole number {limits}")
        return number

    return parse


def real(minimum: float, maximum: float = float("inf")):
    """An argparse type: a number from `minimum` to `maximum`."""

    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not minimum <= number <= maximum:
            raise argparse.ArgumentTypeError(f"{value!r} is not a number from {minimum:g} to {maximum:g}")
        return number

    return parse


def plain_name(name: str, option: str) -> str:
    """`name`, if it is the name of a file and no path."""
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise UserError(f"{option} {name!r} must be a plain name without slashes")
    return name
