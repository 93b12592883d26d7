"""Cells and tables of scores, and what their marks mean; matrix.py makes them of a report, export.py writes them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from comptra.scores.metrics import METRICS
from comptra.significance import ALPHA
from topxgen.corpora.tables import split_source

BEST, TIED = "^", "="
# Behind a score in a terminal, in this order; explained below the tables that have them.
MARKS = {
    "+": f"significantly better than the baseline (p < {ALPHA})",
    "-": f"significantly worse than the baseline (p < {ALPHA})",
    BEST: "best of the systems",
    TIED: "not significantly worse than the best",
    "~": "the metric is not validated for this language",
    "!": "the metric, or a relative of it, selected data, a model or an output: the score is inflated",
    "<": "of a part of the sentences: others have no translation yet, or no score",
}


class Cell(NamedTuple):
    """A score as text, "-" for none, with the characters of MARKS that apply (BEST and TIED are in `rank`)."""

    text: str
    marks: str = ""
    rank: str = ""

    @property
    def all_marks(self) -> str:
        return "".join(mark for mark in MARKS if mark in self.marks + self.rank)


@dataclass(frozen=True)
class Table:
    """A row for each system: `described` columns that tell systems apart, then the scores."""

    title: str
    header: list[str]
    rows: list[list[str | Cell]]
    described: int = 1
    notes: list[str] = field(default_factory=list)  # of this table; marks are explained by the formats


def marks_of(tables: Sequence[Table]) -> dict[str, str]:
    """The marks that the tables have, with what they mean."""
    cells = [cell for table in tables for row in table.rows for cell in row if isinstance(cell, Cell)]
    used = {mark for cell in cells for mark in cell.marks + cell.rank}
    return {mark: text for mark, text in MARKS.items() if mark in used}


class MetricInfo(NamedTuple):
    """What tables need to know of a metric."""

    title: str
    higher_is_better: bool
    low: float
    high: float

    @property
    def digits(self) -> int:
        """As many decimals as papers give: 45.12 of 100, 0.8512 of 1."""
        span = self.high - self.low
        return 2 if span >= 10 else 3 if span > 1 else 4

    def format(self, score: float, sign: str = "") -> str:
        """`sign`: "+" for differences."""
        return f"{score:{sign}.{self.digits}f}"


def metric_info(group: dict, name: str) -> MetricInfo:
    """Of a metric in a group of a report: what the report says, else what METRICS does."""
    recorded, row = group.get("metrics", {}).get(name) or {}, METRICS.get(name)
    values = {
        key: recorded[key] if recorded.get(key) is not None else getattr(row, key, default)
        for key, default in (("higher_is_better", True), ("low", 0.0), ("high", 100.0))
    }
    return MetricInfo(group["titles"].get(name, name), **values)


def finite(value: object) -> float | None:
    """`value` if it is a number that can be shown, else None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def reliability_of(group: dict, name: str) -> dict:
    """What a group of a report says of the reliability of a metric; {} if it says nothing."""
    return (group.get("metrics", {}).get(name) or {}).get("reliability") or {}


def mark(value: dict) -> str:
    """+ significantly better, - significantly worse than the baseline, whichever way the metric goes; else nothing."""
    return {None: "", True: "+", False: "-"}[value.get("better")]


def title_of(group: dict) -> str:
    units = f"phrases of step {group['step']}" if group["step"] else "sentences"
    return f"{group['dataset']} from {group['src']} into {group['tgt']}, {group['sentences']} {units}".strip()


def own_file(group: dict) -> str:
    """Of a test set of the user's own the name of the file of its sources, with its slice; "" of others, which have names."""
    sources = (group.get("test_set") or {}).get("test", {}).get("sources", {})
    if group["dataset"] != "files" or "from" not in sources:
        return ""
    path, part, _ = split_source(sources["from"])
    return f"{path.name}{part}"
