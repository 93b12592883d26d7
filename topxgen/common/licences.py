"""Under which terms models and data are (licences.toml), for the cards of models and data sets that are made from them."""

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

# Attribution at most; the GPL does not cover translations by a program that is under it.
PERMISSIVE = {"apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "gpl-2.0"}
# What a card adds to terms that were not compared with a copy of them, or with the page that names them.
UNSURE = {"quotation": "known by a quotation", "nothing": "not compared with a source"}
FILE = Path(__file__).with_name("licences.toml")


class Licence(NamedTuple):
    """A row of the table, whose head explains the fields."""

    family: str
    names: tuple[str, ...]
    title: str
    hub: str
    url: str
    source: str
    compared: str
    binds_outputs: str
    non_commercial: bool = False

    @property
    def name(self) -> str:
        """The title, with how sure it is."""
        return f"{self.title} ({UNSURE[self.compared]}: check them)" if self.compared in UNSURE else self.title

    @property
    def restricts(self) -> bool:
        """Whether what is made from it cannot simply be under another licence."""
        return self.hub not in PERMISSIVE


@cache
def table() -> tuple[Licence, ...]:
    rows = tomllib.loads(FILE.read_text(encoding="utf-8"))["licence"]
    return tuple(
        Licence(**{"non_commercial": "-nc" in row["hub"], **row, "names": tuple(row["names"])}) for row in rows
    )


def of(name: str | None) -> Licence | None:
    """The terms of a model, back-translator, scorer or data set by its name: a Hub id, a folder, or a name of ours such as
    `blaser`. None for one that the table does not have; of a folder that was trained, ask for the model it was made from."""
    words = str(name or "").strip().lower().rstrip("/").split("/")
    tail = words[-1]
    maker = f"{words[-2]}/" if len(words) > 1 else ""
    for row in table():
        for pattern in row.names:
            searched = maker if pattern.endswith("/") else tail
            if re.search(rf"(?<![a-z0-9])(?:{pattern})", searched):
                return row
    return None
