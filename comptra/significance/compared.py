"""What is significant in the scores of one test set: intervals, p-values against the baseline, the top cluster, several seeds."""

import argparse
from collections.abc import Sequence

import numpy as np

from comptra.scores.metrics import Scorer
from comptra.scores.systems import System
from comptra.significance import ALPHA, SAMPLES, better, over_seeds, resampling, seeds
from comptra.significance.averages import Averages
from comptra.significance.resampling import Pair

Statistics = list[dict[str, np.ndarray]]  # of each system by metric (segments, m)


def compare(
    group: dict,
    systems: Sequence[System],
    statistics: Statistics,
    scorers: dict[str, Scorer],
    args: argparse.Namespace,
    averages: Averages,
) -> None:
    """Add what is significant to the scores of a group (see comptra.scoring), its top "clusters", and what holds
    "over_seeds".

    `systems` are those of the group, the baseline first. `averages` takes the differences from the baseline.
    """
    rows = [system["scores"] for system in group["systems"]]
    ranked = {
        name: sorted(
            (i for i, scores in enumerate(rows) if scores.get(name)),
            key=lambda i: rows[i][name]["score"],
            reverse=scorer.higher_is_better,
        )
        for name, scorer in scorers.items()
    }
    if args.bootstrap:
        _add_intervals(rows, statistics, scorers, ranked, args)
    pairs = _pairs(statistics, scorers, ranked, has_baseline=bool(group["baseline"]))
    if not pairs:
        return
    observed, drawn = resampling.randomized(list(pairs.values()), args.trials, args.seed)
    p_values = dict(zip(pairs, map(resampling.randomization_p_value, observed, drawn), strict=True))
    against_baseline = [key for key in pairs if group["baseline"] and key[1] == 0]
    for i, (name, one, other) in enumerate(pairs):
        if (name, one, other) in against_baseline:
            rows[other][name] |= {"difference": float(observed[i]), "p": p_values[name, one, other]}
    for name, scorer in scorers.items():
        ours = [rows[key[2]][name] for key in against_baseline if key[0] == name]
        for value, corrected in zip(ours, resampling.holm([value["p"] for value in ours]), strict=True):
            value["p_holm"] = corrected
            value["better"] = better(value, scorer.higher_is_better)
    if args.bootstrap:
        _bootstrap(rows, {key: pairs[key] for key in against_baseline}, args)
    group["clusters"] = {
        name: top_cluster(
            [group["systems"][i]["path"] for i in order],
            [p_values.get((name, order[0], other), 1.0) for other in order[1:]],
        )
        for name, order in ranked.items()
        if len(order) > 1
    }
    if left_out := _left_out(group, {key: pairs[key] for key in against_baseline}, scorers):
        group.setdefault("warnings", []).append(left_out)
    for i, key in enumerate(pairs):
        if key in against_baseline:
            averages.add(group, key[0], group["systems"][key[2]], float(observed[i]), drawn[i])
    if of_seeds := _over_seeds(group, systems, statistics, scorers, args):
        group["over_seeds"] = of_seeds


def has_score(statistics: Sequence[np.ndarray], scorer: Scorer) -> np.ndarray:
    """Which segments have a score of all systems, by their (segments, m) statistics."""
    if not scorer.of_segments:
        return np.ones(len(statistics[0]), bool)
    return np.all([stats[:, -1] > 0 for stats in statistics], axis=0)


def _pairs(
    statistics: Statistics, scorers: dict[str, Scorer], ranked: dict[str, list[int]], has_baseline: bool
) -> dict[tuple[str, int, int], Pair]:
    """By (metric, one, other) the pairs of systems: each with the baseline, and each with the best one."""
    found = {}
    for name, order in ranked.items():
        for one in dict.fromkeys([*([0] if has_baseline else []), *order[:1]]):
            for other in sorted(order):
                both = statistics[one][name], statistics[other][name]
                has_both = has_score(both, scorers[name])
                if other != one and has_both.any():
                    found[name, one, other] = resampling.paired(*both, scorers[name].scores, has_both)
    return found


def _add_intervals(
    rows: list[dict], statistics: Statistics, scorers: dict[str, Scorer], ranked: dict[str, list[int]], args
) -> None:
    places = [(i, name) for name, order in ranked.items() for i in order]
    stats, functions = [statistics[i][name] for i, name in places], [scorers[name].scores for _, name in places]
    if places:
        drawn = resampling.resampled_scores(stats, functions, args.bootstrap, args.seed)
        for (i, name), scores in zip(places, drawn, strict=True):
            rows[i][name]["interval"] = list(resampling.interval(scores))


def _bootstrap(rows: list[dict], pairs: dict[tuple[str, int, int], Pair], args: argparse.Namespace) -> None:
    """Add the 95% interval of each difference, and its p-value by the paired bootstrap."""
    if not pairs:
        return
    stats = [stats for pair in pairs.values() for stats in pair[:2]]
    functions = [pair.scores for pair in pairs.values() for _ in range(2)]
    drawn = resampling.resampled_scores(stats, functions, args.bootstrap, args.seed)
    for i, ((name, _, other), pair) in enumerate(pairs.items()):
        value, differences = rows[other][name], drawn[2 * i + 1] - drawn[2 * i]
        differing = int((pair.one != pair.other).any(axis=1).sum())
        value["difference_interval"] = list(resampling.interval(differences))
        value["p_bootstrap"] = resampling.bootstrap_p_value(value["difference"], differences, differing)


def top_cluster(paths: list[str], p_values: list[float]) -> list[str]:
    """Of systems in the order of their scores the best, and those that are not significantly worse than it: `p_values` are of
    all but the best, compared with it, and are corrected after Holm.

    As in Hsu's (1981) comparisons with the best, the truly best system is left out in less than ALPHA of all cases;
    scripts/perf/level.py shows how often.
    """
    corrected = resampling.holm(p_values)
    return paths[:1] + [path for path, p in zip(paths[1:], corrected, strict=True) if p >= ALPHA]


def _left_out(group: dict, pairs: dict[tuple[str, int, int], Pair], scorers: dict[str, Scorer]) -> str:
    """Says which comparisons are of fewer segments than the group has; "" if none is."""
    found = []
    for (name, _, other), pair in pairs.items():
        both = int(has_score(pair[:2], scorers[name]).sum())
        system = group["systems"][other]
        if both < group["sentences"]:
            found.append(f"{system['name']} by {scorers[name].title} on {both}")
            system["scores"][name]["segments_compared"] = both
    more = f"; {len(found) - 3} more" if len(found) > 3 else ""
    what = f"of {group['sentences']} segments those are compared that both systems have a score of: "
    return what + "; ".join(found[:3]) + more if found else ""


def _over_seeds(
    group: dict, systems: Sequence[System], statistics: Statistics, scorers: dict[str, Scorer], args: argparse.Namespace
) -> dict:
    """The systems with the runs of their seeds, by each metric what `over_seeds.compare_all` gives, and the name of the baseline;
    {} if no system has several seeds."""
    runs = seeds.runs_of_systems(systems)
    if all(len(own) == 1 for own in runs):
        return {}
    names = [seeds.name_of([str(systems[i].folder) for i in own]) for own in runs]
    baseline = next((name for name, own in zip(names, runs, strict=True) if group["baseline"] and 0 in own), None)
    scores = {}
    for name, scorer in scorers.items():
        by_name = {key: [statistics[i][name] for i in own] for key, own in zip(names, runs, strict=True)}
        has_all = has_score([own[name] for own in statistics], scorer)
        scores[name] = over_seeds.compare_all(
            by_name, baseline, scorer.scores, SAMPLES, args.seed, scorer.higher_is_better, has_all
        )
    return {
        "baseline": baseline,
        "systems": [
            {
                "name": key,
                "paths": [str(systems[i].folder) for i in own],
                "seeds": [seeds.seeds_of(systems[i]) for i in own],
                "scores": {name: scores.get(name, {}).get(key) for name in group["titles"]},
            }
            for key, own in zip(names, runs, strict=True)
        ],
    }
