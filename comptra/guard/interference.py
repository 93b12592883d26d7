"""Inflated scores: what was selected by a metric scores higher on it, and on its relatives, than people
would judge it (Pombal et al. 2025, Adding Chocolate to Mint: Mitigating Metric Interference in Machine Translation)."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from comptra.guard.chains import Chain, Selection


class Family(NamedTuple):
    """Metrics with one method or model, by how their names begin: of --metrics, --scorer, --select_by, --selection_method."""

    title: str
    names: tuple[str, ...]
    judgements: str = ""  # human judgements that metrics of several families learned from
    without: tuple[str, ...] = ()  # those of `names` that did not


_WMT = "human judgements of WMT (direct assessments, MQM)"
PROMPTED = "gemba"
FAMILIES: dict[str, Family] = {
    "overlap": Family("n-grams in common with a reference", ("bleu", "spbleu", "chrf", "ter")),
    # Rei et al. 2020, 2022; Guerreiro et al. 2024; AfriCOMET: Wang et al. 2024; SSA-COMET: Li et al. 2025.
    "comet": Family(
        "COMET",
        ("comet", "wmt22-comet", "xcomet", "cometkiwi", "africomet", "ssa-comet", "ssacomet"),
        _WMT,
        without=("ssa-comet", "ssacomet"),  # SSA-MTE alone
    ),
    "metricx": Family("MetricX", ("metricx",), _WMT),  # Juraska et al. 2023, 2024
    # Dale and Costa-jussà 2024: trained on XSTS judgements, which the others have not seen.
    "blaser": Family("BLASER and SONAR", ("blaser", "sonar", "sonar-space")),
    PROMPTED: Family("a prompted LLM", ("gemba",)),  # Kocmi and Federmann 2023
    "mt-ranker": Family("MT-Ranker", ("mt-ranker", "mt_ranker", "mtranker")),  # Moosa et al. 2024: no human judgements
    "lid": Family("language identification", ("lang",)),
}
NO_METRIC = ("confidence", "loss", "greedy", "none")  # they select, but by no metric that is reported


def name_of(metric: str) -> str:
    """The name in a scorer's id, such as "blaser (blaser-2.0-qe, sonar, float32)"."""
    return metric.split(" ")[0]


def family_of(metric: str) -> str | None:
    """The family of a metric or scorer by its name or id; None for one that FAMILIES does not have."""
    return next((key for key, row in FAMILIES.items() if _begins(metric, row.names)), None)


def _begins(metric: str, names: Iterable[str]) -> bool:
    """Whether the name of a metric begins with one of `names`, as a word."""
    return any(re.match(rf"{re.escape(name)}(?![a-z])", name_of(metric).lower()) for name in names)


def _judgements_of(metric: str, family: str) -> str:
    row = FAMILIES[family]
    return "" if _begins(metric, row.without) else row.judgements


def relation(selector: str, metric: str, family: str = "") -> str | None:
    """How a metric, of `family` if its name does not say, is related to the one that selected: "" the same, else in words;
    None if it is not."""
    if name_of(selector) == name_of(metric):
        return ""
    one, other = family_of(selector), family_of(metric) or (family if family in FAMILIES else None)
    if one is None or other is None:
        return None
    if one == other:
        return f"a relative: {FAMILIES[one].title}"
    shared = _judgements_of(selector, one)
    if not shared or shared != _judgements_of(metric, other):
        return None
    return f"a distant relative: both learned from {shared}"


def reasons(metric: str, chain: Chain, family: str = "") -> list[str]:
    """Why scores of `metric` are inflated, a line each; [] if they are not as far as the chain goes."""
    found = []
    for selection in chain.selections:
        related = relation(selection.metric, metric, family) if _is_metric(selection) else None
        if related is None or (selection.is_indirect and related.startswith("a distant")):
            continue
        kin = f", {related}" if related else ""
        found.append(f"{selection.what} was {selection.how} {name_of(selection.metric)} ({selection.where}{kin})")
    return found


def _is_metric(selection: Selection) -> bool:
    return selection.metric is not None and name_of(selection.metric) not in NO_METRIC


def self_preference(judge: str | None, chain: Chain) -> list[str]:
    """Why an LLM that judges prefers these translations: it wrote them, or what their model learned from."""
    own = _last_part(judge or "")
    wrote = [name for name in chain.writers if own and _last_part(name) == own]
    what = "which wrote the translations or what they were learned from"
    return [f"the judge {judge} is {name}, {what}" for name in wrote]


def _last_part(model: str) -> str:
    """Whatever organisation, provider or folder is before it."""
    return model.rstrip("/").rpartition("/")[2].lower()


def unknown_selectors(chains: Iterable[Chain]) -> list[str]:
    """Lines on selections by metrics that FAMILIES does not have: it is not known which scores they inflate."""
    lines = []
    for selection in (one for chain in chains for one in chain.selections):
        name = selection.metric and name_of(selection.metric)
        if name in NO_METRIC or (name and family_of(name)):
            continue
        by = f"{name}, of no known family" if name else "a scorer that is not named (published data: BLASER-2.0-QE)"
        lines.append(f"{selection.what} was selected by {by} ({selection.where}): not known which metrics it inflates")
    return list(dict.fromkeys(lines))
