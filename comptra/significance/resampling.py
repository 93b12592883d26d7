"""Significance tests and confidence intervals on the statistics of segments (comptra.scores.metrics.Scorer).

All trials of all systems and metrics are computed at once: the sums of a trial are a row of weights (which segments are
swapped, or how often each is drawn) times the statistics, and the rows of many trials make one matrix product. In blocks, so
that memory stays bounded. The sums are exact, so that p-values depend neither on the blocks nor on the threads of BLAS.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

SEED = 12345  # sacreBLEU's
_BLOCK = 1 << 22  # numbers of a matrix held at a time: 32 MiB of float64
_TIE = 1e-9  # score points; smaller differences are rounding errors of scores
_WORD = 32  # numpy draws 32 booleans from one random number and drops the unused ones at the end of a call

Scores = Callable[[np.ndarray], np.ndarray]  # (trials, m) sums -> (trials,) scores


class Pair(NamedTuple):
    """Two systems by one metric: the (segments, m) statistics of both. Its difference is that of `other` less that of `one`."""

    one: np.ndarray
    other: np.ndarray
    scores: Scores


def paired(one: np.ndarray, other: np.ndarray, scores: Scores, has_both: np.ndarray) -> Pair:
    """The pair without the segments that lack a score of either system: `has_both` is false there."""
    if has_both.all():
        return Pair(one, other, scores)
    return Pair(one * has_both[:, None], other * has_both[:, None], scores)


def randomized(pairs: Sequence[Pair], trials: int = 10000, seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """Of each pair the difference (pairs,), and those of trials that swap the translations of each segment with probability 1/2:
    (pairs, trials). A trial swaps the same segments in all pairs."""
    columns = _Columns([stats for pair in pairs for stats in pair[:2]])
    whole = columns.sums(np.ones((1, columns.segments)))
    observed = np.array(
        [(pair.scores(whole[2 * i + 1]) - pair.scores(whole[2 * i]))[0] for i, pair in enumerate(pairs)]
    )
    drawn, done = np.empty((len(pairs), trials)), 0
    for swapped in _swaps(columns.segments, trials, seed, columns.width):
        sums = columns.sums(swapped)
        for i, pair in enumerate(pairs):
            one, other = whole[2 * i : 2 * i + 2]
            change = sums[2 * i + 1] - sums[2 * i]
            drawn[i, done : done + len(swapped)] = pair.scores(other - change) - pair.scores(one + change)
        done += len(swapped)
    return observed, drawn


def randomization_p_value(observed: float, drawn: np.ndarray) -> float:
    """The two-sided p-value of paired approximate randomisation (Riezler and Maxwell 2005), of differences as `randomized`
    gives: with c trials that differ at least as much as the systems, (c + 1) / (trials + 1).

    The swaps are those of sacreBLEU's --paired-ar with the same seed, and so are the p-values, except for ties: sacreBLEU
    counts only trials that differ more, so that a system would differ from itself with p = 1 / (trials + 1). Here p is 1.
    """
    extreme = int((np.abs(drawn) >= abs(observed) - _TIE).sum())
    return (extreme + 1) / (len(drawn) + 1)


def resampled_scores(
    statistics: Sequence[np.ndarray], scores: Sequence[Scores], samples: int, seed: int = SEED
) -> np.ndarray:
    """Scores on test sets drawn from this one with replacement, the same sets for all `statistics`: (len(statistics), samples).
    NaN where no segment with a score was drawn, of those that lack some."""
    columns, drawn, done = _Columns(statistics), np.empty((len(statistics), samples)), 0
    for times in _resamples(columns.segments, samples, seed, columns.width):
        for i, sums in enumerate(columns.sums(times)):
            with np.errstate(divide="ignore", invalid="ignore"):
                drawn[i, done : done + len(times)] = scores[i](sums)
        done += len(times)
    return drawn


def interval(drawn: np.ndarray) -> tuple[float, float]:
    """The middle 95 percent: of resampled scores, their bootstrap interval (Koehn 2004)."""
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def bootstrap_p_value(observed: float, drawn: np.ndarray, segments: int) -> float:
    """The two-sided p-value of the paired bootstrap (Koehn 2004; Riezler and Maxwell 2005), of the differences of resampled
    scores: the share of samples whose difference is at least as far from the mean of all as the observed one is from 0.

    No less than 2^(1 - segments), for `segments` in which the systems differ: a sign test gives that when one system is ahead
    in all of them, and so few samples of few segments would give less.

    sacreBLEU's --paired-bs counts the samples of one side only, which calls equal systems different in 10 % of all cases at
    p < 0.05; see docs/results.md.
    """
    drawn = drawn[~np.isnan(drawn)]
    if not segments:
        return 1.0
    extreme = int((np.abs(drawn - drawn.mean()) >= abs(observed) - _TIE).sum())
    return max((extreme + 1) / (len(drawn) + 1), 2.0 ** (1 - min(segments, 1000)))


def holm(p_values: list[float]) -> list[float]:
    """p-values corrected for multiple comparisons (Holm 1979), in the same order."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def _swaps(segments: int, trials: int, seed: int, width: int = 0) -> Iterator[np.ndarray]:
    """Blocks of (trials, segments) booleans: which segments a trial swaps. The blocks' size does not change the numbers."""
    rng = np.random.default_rng(seed)
    block = max(_BLOCK // max(segments, width) // _WORD, 1) * _WORD
    for done in range(0, trials, block):
        yield rng.integers(2, size=(min(block, trials - done), segments), dtype=bool)


def _resamples(segments: int, samples: int, seed: int, width: int = 0) -> Iterator[np.ndarray]:
    """Blocks of (samples, segments) numbers: how often each segment is drawn."""
    rng = np.random.default_rng(seed)
    block = max(_BLOCK // max(segments, width), 1)
    for done in range(0, samples, block):
        count = min(block, samples - done)
        chosen = rng.integers(segments, size=(count, segments)) + np.arange(count)[:, None] * segments
        yield np.bincount(chosen.ravel(), minlength=count * segments).reshape(count, segments)


class _Columns:
    """The columns of several (segments, m) statistics, each different one once, made ready for exact sums.

    Counts are held in float32, where their sums stay below 2^24; other numbers in float64, on a grid so coarse (2^-53 of the
    largest sum) that no sum is rounded.
    """

    def __init__(self, statistics: Sequence[np.ndarray]):
        self.segments = len(statistics[0])
        places: dict[bytes, tuple[bool, int]] = {}  # by its content: whether it is small, and which column
        kept: dict[bool, list[np.ndarray]] = {True: [], False: []}
        self._places = []
        for stats in statistics:
            own = []
            for column in np.ascontiguousarray(stats.T, float):
                place = places.get(key := column.tobytes())
                if place is None:
                    largest = float(np.abs(column).max()) * self.segments
                    small = largest < 2**24 and bool((column == np.rint(column)).all())
                    if not small:
                        grid = np.ldexp(1.0, np.frexp(largest)[1] - 53)
                        column = np.rint(column / grid) * grid
                    places[key] = place = small, len(kept[small])
                    kept[small].append(column)
                own.append(place)
            self._places.append(own)
        self.width = len(places)
        types = {True: np.float32, False: float}
        self._kept = {small: np.array(columns, types[small]) for small, columns in kept.items() if columns}

    def sums(self, weights: np.ndarray) -> list[np.ndarray]:
        """For (rows, segments) whole numbers, in each row no more than `segments` together, the (rows, m) sums of each of the
        statistics."""
        products = {small: columns @ weights.astype(columns.dtype).T for small, columns in self._kept.items()}
        # One metric's columns lie far from each other in memory, which is what functions of columns are fastest on.
        return [np.array([products[small][i] for small, i in places], float).T for places in self._places]
