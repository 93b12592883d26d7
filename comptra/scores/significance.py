"""Significance tests and confidence intervals on the statistics of segments (comptra.scores.metrics.Scorer).

All trials are computed at once: the sums of a trial are a row of zeros and ones times the statistics of the segments, and
the rows of many trials make one matrix product. In blocks, so that memory stays bounded.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

SEED = 12345  # sacreBLEU's
_BLOCK = 1 << 22  # float64 numbers of a mask held at a time: 32 MiB
_TIE = 1e-9  # score points; smaller differences are rounding errors of sums
_WORD = 32  # numpy draws 32 booleans from one random number and drops the unused ones at the end of a call

Scores = Callable[[np.ndarray], np.ndarray]  # (trials, m) sums -> (trials,) scores


def randomization_p_values(
    baseline: list[np.ndarray],
    systems: list[list[np.ndarray]],
    scores: list[Scores],
    trials: int = 10000,
    seed: int = SEED,
) -> np.ndarray:
    """Two-sided p-values of paired approximate randomisation (Riezler and Maxwell 2005): (systems, metrics).

    `baseline` holds the (segments, m) statistics of each metric, `systems` the same for each system, `scores` the score of
    summed statistics for each metric. A trial swaps the two translations of each segment with probability 1/2. With c trials
    whose scores differ at least as much as those of the systems, p is (c + 1) / (trials + 1).

    The swaps are those of sacreBLEU's --paired-ar with the same seed, and so are the p-values, except for ties: sacreBLEU
    counts only trials that differ more, so that a system would differ from itself with p = 1 / (trials + 1). Here p is 1.
    """
    differences, sums, baseline_sums, ends = [], [], [], [0]
    for system in systems:
        for base, stats in zip(baseline, system, strict=True):
            differences.append(base - stats)
            sums.append(stats.sum(axis=0))
            baseline_sums.append(base.sum(axis=0))
            ends.append(ends[-1] + stats.shape[1])
    columns = [slice(start, end) for start, end in pairwise(ends)]
    scores = scores * len(systems)
    changes, start = np.concatenate(differences, axis=1), np.concatenate(sums)
    total = start + np.concatenate(baseline_sums)
    observed = [
        abs(score(one[None])[0] - score(other[None])[0])
        for score, one, other in zip(scores, sums, baseline_sums, strict=True)
    ]
    extreme = np.zeros(len(scores), int)
    for swapped in _swaps(len(changes), trials, seed):
        one = start + swapped.astype(float) @ changes
        other = total - one
        for i, (score, column) in enumerate(zip(scores, columns, strict=True)):
            difference = np.abs(score(one[:, column]) - score(other[:, column]))
            extreme[i] += (difference >= observed[i] - _TIE).sum()
    return ((extreme + 1) / (trials + 1)).reshape(len(systems), -1)


def _swaps(segments: int, trials: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks of (trials, segments) booleans: which segments a trial swaps. The blocks' size does not change the numbers."""
    rng = np.random.default_rng(seed)
    block = max(_BLOCK // segments // _WORD, 1) * _WORD
    for done in range(0, trials, block):
        yield rng.integers(2, size=(min(block, trials - done), segments), dtype=bool)


def bootstrap_intervals(
    statistics: list[np.ndarray], scores: list[Scores], samples: int = 1000, seed: int = SEED
) -> list[tuple[float, float]]:
    """The 95% interval of each metric's score over test sets drawn from this one with replacement (Koehn 2004).

    `statistics` and `scores` as in `randomization_p_values`, of one system.
    """
    drawn = resampled_scores(statistics, scores, samples, seed)
    return [tuple(map(float, interval)) for interval in np.percentile(drawn, (2.5, 97.5), axis=1).T]


def resampled_scores(statistics: list[np.ndarray], scores: list[Scores], samples: int, seed: int = SEED) -> np.ndarray:
    """Scores on test sets drawn from this one with replacement, the same sets for all `statistics`: (len(statistics), samples)."""
    segments = len(statistics[0])
    rng = np.random.default_rng(seed)
    drawn: list[list[np.ndarray]] = [[] for _ in statistics]
    block = max(_BLOCK // segments, 1)
    for done in range(0, samples, block):
        count = min(block, samples - done)
        chosen = rng.integers(segments, size=(count, segments)) + np.arange(count)[:, None] * segments
        times = np.bincount(chosen.ravel(), minlength=count * segments).reshape(count, segments).astype(float)
        for i, stats in enumerate(statistics):
            drawn[i].append(scores[i](times @ stats))
    return np.array([np.concatenate(values) for values in drawn])


def holm(p_values: list[float]) -> list[float]:
    """p-values corrected for multiple comparisons (Holm 1979), in the same order."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected
