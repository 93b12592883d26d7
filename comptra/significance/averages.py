"""Scores over languages: means, wins and losses against the baseline, and whether the mean differs from the baseline's."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from comptra.scores.systems import System, system_names
from comptra.significance import better

if TYPE_CHECKING:
    import numpy as np

ENGLISH = "English"


def names_of(groups: Sequence[Sequence[System]]) -> dict[str, str]:
    """By the path of a run the name of its system (system_names)."""
    return system_names([(str(one.folder), one.settings) for one in systems] for systems in groups)


def wholes(groups: Sequence[dict]) -> list[dict]:
    """The groups that count in means: not those of fewer sentences of a test set than others, as of unfinished runs."""
    largest = _largest(groups)
    return [group for group in groups if group["sentences"] == largest[_test_set(group)]]


def _largest(groups: Iterable[dict]) -> dict[tuple, int]:
    """How many sentences of each test set there are at most."""
    found: dict[tuple, int] = {}
    for group in groups:
        found[_test_set(group)] = max(group["sentences"], found.get(_test_set(group), 0))
    return found


def _test_set(group: dict) -> tuple:
    """What groups of one test set have in common; phrases, whose texts no benchmark has, are one by their number."""
    test = (group.get("test_set") or {}).get("test", {})
    digests = [test.get(side, {}).get("sha256") for side in ("sources", "references")]
    return group["dataset"], group["src"], group["tgt"], *(digests if all(digests) else [group["sentences"]])


def _described(systems: Sequence[System]) -> dict:
    """The group of a report, as far as means need it."""
    first, dataset = systems[0], "/".join(dict.fromkeys(one.dataset for one in systems))
    facts = {"src": first.src.name, "tgt": first.tgt.name, "sentences": len(first.sentences)}
    return {"dataset": dataset, "test_set": first.facts, **facts}


class Averages:
    """Collects the trials of each group, of which it keeps the sums only, for the test of the means.

    The mean of a system is over the groups of `wholes` (directions of one data set) in which all of its systems have a score. A trial swaps
    the same segments in all groups of equal size: benchmarks have the same sentences in all languages, and a system that
    misreads one may do so in each.
    """

    def __init__(self, groups: Sequence[Sequence[System]]):
        self._names = names_of(groups)
        self._largest = _largest(map(_described, groups))
        self._differences: dict[tuple, tuple] = {}  # by (data set, scope, metric, system): groups; sums of both
        self._systems: dict[tuple, dict[str, None]] = {}  # by (data set, scope)
        for systems, group in zip(groups, map(_described, groups), strict=True):
            for scope in scopes(group["src"], group["tgt"]) if self._counts(group) else ():
                names = (self._names[str(one.folder)] for one in systems)
                self._systems.setdefault((group["dataset"], scope), {}).update(dict.fromkeys(names))

    def add(self, group: dict, metric: str, system: dict, observed: float, drawn: "np.ndarray") -> None:
        """The difference of a system of `group` from its baseline, and those of the trials."""
        for scope in scopes(group["src"], group["tgt"]) if self._counts(group) else ():
            if self._has_all(group, scope, metric):
                key = group["dataset"], scope, metric, self._names[system["path"]]
                groups, difference, differences = self._differences.get(key, (0, 0.0, 0.0))
                self._differences[key] = groups + 1, difference + observed, differences + drawn

    def _counts(self, group: dict) -> bool:
        return group["sentences"] == self._largest[_test_set(group)]

    def _has_all(self, group: dict, scope: str, metric: str) -> bool:
        return set(self._systems[group["dataset"], scope]) <= self._scores(group, metric).keys()

    def _scores(self, group: dict, metric: str) -> dict[str, dict]:
        values = ((self._names[one["path"]], one["scores"].get(metric)) for one in group["systems"])
        return {name: value for name, value in values if value}

    def summary(self, groups: Sequence[dict]) -> list[dict]:
        """For each data set, scope ("eng->xx", "xx->eng" or "all") and metric with two groups or more: over how many "groups" "of"
        all and "segments" the means are, which systems are "lacking" directions, and by name of the "systems" the "mean" and
        the rest of it (docs/files.md)."""
        found = []
        for dataset, scope in self._systems:
            of_dataset = [
                (group, scopes(group["src"], group["tgt"])) for group in wholes(groups) if group["dataset"] == dataset
            ]
            own = [group for group, its_scopes in of_dataset if scope in its_scopes]
            is_all_there_is = scope == "all" and any(
                all(other in its_scopes for _, its_scopes in of_dataset) for other in ("eng->xx", "xx->eng")
            )
            for metric in dict.fromkeys(name for group in own for name in group["titles"]):
                scored = [group for group in own if self._scores(group, metric)]
                if len(scored) > 1 and not is_all_there_is:
                    found.append({"metric": metric, "dataset": dataset, "direction": scope})
                    found[-1] |= self._average(dataset, scope, metric, scored)
        return found

    def _average(self, dataset: str, scope: str, metric: str, scored: list[dict]) -> dict:
        from comptra.significance import resampling

        common = [group for group in scored if self._has_all(group, scope, metric)]
        systems, lacking = {}, {}
        for name in self._systems[dataset, scope]:
            values = [scores[name] for group in scored if name in (scores := self._scores(group, metric))]
            mine = [self._scores(group, metric)[name]["score"] for group in common]
            verdicts = [value["better"] for value in values if "better" in value]
            systems[name] = {"mean": sum(mine) / len(mine) if mine else None, "groups": len(mine)}
            if verdicts:
                counts = (verdicts.count(verdict) for verdict in (True, False, None))
                systems[name] |= dict(zip(("wins", "losses", "ties"), counts, strict=True))
            if len(values) < len(scored):
                without = (group for group in scored if name not in self._scores(group, metric))
                lacking[name] = [f"{group['src']}-{group['tgt']}" for group in without]
            compared, *sums = self._differences.get((dataset, scope, metric, name), (0,))
            # Else there is a group in which no segment has a score of both, and the means differ by more than what was compared.
            if compared and compared == len(common):
                difference, drawn = (value / compared for value in sums)
                systems[name] |= {"difference": difference, "p": resampling.randomization_p_value(difference, drawn)}
        tested = [value for value in systems.values() if "p" in value]
        for value, corrected in zip(tested, resampling.holm([value["p"] for value in tested]), strict=True):
            value["p_holm"] = corrected
            value["better"] = better(value, scored[0]["metrics"][metric]["higher_is_better"])
        return {
            "groups": len(common),
            "of": len(scored),
            "segments": sum(group["sentences"] for group in common),
            "lacking": lacking,
            "systems": systems,
        }


def notes(summary: Sequence[dict]) -> list[str]:
    """Says which means are not over all directions, and why."""
    found = []
    for entry in summary:
        if entry["groups"] < entry["of"]:
            who = [f"{name} has none of {', '.join(without)}" for name, without in entry["lacking"].items()]
            who = "; ".join(who[:3]) + (f"; {len(who) - 3} more lack some" if len(who) > 3 else "")
            over = f"over the {entry['groups']} of {entry['of']} directions that all systems have"
            what = f"means of {entry['dataset']} {entry['direction']}"
            found.append(f"{what} that are tested (--json) are {over} ({who})")
    return list(dict.fromkeys(found))


def scopes(src: str, tgt: str) -> list[str]:
    return ["all", *(["eng->xx"] if src == ENGLISH else []), *(["xx->eng"] if tgt == ENGLISH else [])]
