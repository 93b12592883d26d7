"""How fast the stages of a folder ran last (rates.json), for the hours in the estimates of dry runs."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec

from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, write_json
from topxgen.common.locks import wait_for_lock

NAME = "rates.json"
Rates = dict[str, Annotated[float, msgspec.Meta(gt=0)]]  # units per second by stage


def read(folder: Path) -> Rates:
    """{} where no stage has run. Raises UsageError for a damaged file."""
    return read_json(folder / NAME, Rates)


def record(folder: Path, rates: Mapping[str, float]) -> None:
    """Keep these, and what the file has of other stages. A damaged one is made anew: it must not end a run that has its results."""
    if rates:
        with wait_for_lock(folder):
            known: Rates = {}
            with suppress(UsageError):
                known = read(folder)
            write_json(folder / NAME, known | rates)


def hours(rate: float | None, *amounts: float) -> tuple[float, ...] | None:
    """For each amount; None where the rate is not known."""
    return None if rate is None else tuple(amount / rate / 3600 for amount in amounts)
