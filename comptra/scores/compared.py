"""What is significant in the scores of one test set: intervals, p-values against the baseline, the top cluster."""

import argparse
from typing import TYPE_CHECKING

from comptra.scores.metrics import Scorer
from comptra.scores.tables import ALPHA
from topxgen.common.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from comptra.scores.averages import Averages


def compare(
    group: dict,
    statistics: list[dict[str, "np.ndarray"]],
    scorers: dict[str, Scorer],
    args: argparse.Namespace,
    averages: "Averages | None" = None,
) -> None:
    """Add what is significant to the scores of a group (see comptra.scores.scoring), and its top "clusters".

    `statistics` are of the group's systems, the baseline first, by metric: (segments, m), a segment without a score a row of
    zeros. `averages` takes the differences from the baseline. Raises UsageError if a metric gave no number.
    """
    from comptra.scores import significance

    rows = [system["scores"] for system in group["systems"]]
    _check_numbers(group, statistics, scorers)
    if args.bootstrap:
        _add_intervals(rows, statistics, scorers, args)
    ranked = {
        name: sorted(
            (i for i, scores in enumerate(rows) if scores.get(name)),
            key=lambda i: rows[i][name]["score"],
            reverse=scorer.higher_is_better,
        )
        for name, scorer in scorers.items()
    }
    # Each system is compared with the baseline and with the best one.
    pairs: dict[tuple[str, int, int], significance.Pair] = {}
    for name, order in ranked.items():
        for one in dict.fromkeys([*([0] if group["baseline"] and 0 in order else []), *order[:1]]):
            for other in order:
                pair = significance.paired(statistics[one][name], statistics[other][name], scorers[name].scores)
                if other != one and (pair.one.any() or pair.other.any()):
                    pairs[name, one, other] = pair
    if not pairs:
        return
    observed, drawn = significance.randomized(list(pairs.values()), args.trials, args.seed)
    p_values = dict(zip(pairs, map(significance.randomization_p_value, observed, drawn), strict=True))
    differences = dict(zip(pairs, observed.tolist(), strict=True))
    for name, scorer in scorers.items():
        ours = {key: p_values[key] for key in pairs if group["baseline"] and key[:2] == (name, 0)}
        for key, corrected in zip(ours, significance.holm(list(ours.values())), strict=True):
            value = rows[key[2]][name]
            value |= {"difference": differences[key], "p": ours[key], "p_holm": corrected}
            value["better"] = better(value, scorer.higher_is_better)
            if args.bootstrap:
                value |= _bootstrapped(pairs[key], differences[key], args)
    group["clusters"] = {
        name: _top_cluster(
            [group["systems"][i]["path"] for i in order],
            [p_values.get((name, order[0], other), 1.0) for other in order[1:]],
        )
        for name, order in ranked.items()
        if len(order) > 1
    }
    if left_out := _left_out(group, pairs, scorers):
        group.setdefault("warnings", []).append(left_out)
    if averages and group["baseline"]:
        for i, (name, one, other) in enumerate(pairs):
            if one == 0:
                averages.add(group, name, group["systems"][other], observed[i], drawn[i])


def better(value: dict, higher_is_better: bool) -> bool | None:
    """Whether a score is significantly better than the baseline's, after correction for the number of systems; None if it is
    neither better nor worse."""
    if value["p_holm"] >= ALPHA or not value["difference"]:
        return None
    return (value["difference"] > 0) == higher_is_better


def _check_numbers(group: dict, statistics: list[dict], scorers: dict[str, Scorer]) -> None:
    import numpy as np

    for system, own in zip(group["systems"], statistics, strict=True):
        for name in scorers:
            bad = np.flatnonzero(~np.isfinite(own[name]).all(axis=1))
            if len(bad):
                raise UsageError(
                    f"--metrics {name} gives no number for sentence {bad[0] + 1} of {system['path']} ({len(bad)} such sentences)"
                )


def _add_intervals(rows: list[dict], statistics: list[dict], scorers: dict[str, Scorer], args) -> None:
    from comptra.scores import significance

    places = [(i, name) for i, scores in enumerate(rows) for name in scorers if scores.get(name)]
    if not places:
        return
    drawn = significance.resampled_scores(
        [statistics[i][name] for i, name in places],
        [scorers[name].scores for _, name in places],
        args.bootstrap,
        args.seed,
    )
    for (i, name), values in zip(places, drawn, strict=True):
        rows[i][name]["interval"] = list(significance.interval(values))


def _bootstrapped(pair, difference: float, args: argparse.Namespace) -> dict:
    """The 95% interval of a difference, and its p-value by the paired bootstrap."""
    from comptra.scores import significance

    one, other = significance.resampled_scores(pair[:2], [pair.scores] * 2, args.bootstrap, args.seed)
    differing = int((pair.one != pair.other).any(axis=1).sum())
    return {
        "difference_interval": list(significance.interval(other - one)),
        "p_bootstrap": significance.bootstrap_p_value(difference, other - one, differing),
    }


def _top_cluster(paths: list[str], p_values: list[float]) -> list[str]:
    """Of systems in the order of their scores the best, and those that are not significantly worse than it: `p_values` are of
    all but the best, compared with it, and are corrected after Holm.

    As all are compared with the best alone, the truly best system is left out in less than ALPHA of all cases, as for Hsu's
    (1981) comparisons with the best; scripts/perf/level.py shows how often.
    """
    from comptra.scores import significance

    corrected = significance.holm(p_values)
    return paths[:1] + [path for path, p in zip(paths[1:], corrected, strict=True) if p >= ALPHA]


def _left_out(group: dict, pairs: dict, scorers: dict[str, Scorer]) -> str:
    """Says which comparisons are of fewer segments than the group has, since a system has no score of the others."""
    found = []
    for (name, one, other), pair in pairs.items():
        both = int(pair.one.any(axis=1).sum())
        if one == 0 and group["baseline"] and both < group["sentences"]:
            found.append(f"{group['systems'][other]['name']} on {both} by {scorers[name].title}")
            group["systems"][other]["scores"][name]["segments_compared"] = both
    few = "; ".join(found[:3]) + (f"; {len(found) - 3} more" if len(found) > 3 else "")
    return found and f"compared on fewer than {group['sentences']} segments, those that both have a score of: {few}"
