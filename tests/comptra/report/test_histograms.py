"""Histograms that count millions of values in bounded memory: exact numbers, bins that are joined, not split."""

import random
import statistics

import pytest

from comptra.report.histograms import MAX_BINS, PERCENTILES, Histogram, shared_bins


def filled(values, width=1.0) -> Histogram:
    histogram = Histogram(width)
    for value in values:
        histogram.add(value)
    return histogram


@pytest.mark.parametrize("seed", range(3))
def test_numbers_of_integers_are_exact(seed):
    rng = random.Random(seed)
    values = [int(rng.lognormvariate(4, 0.7)) for _ in range(3_001)]
    summary = filled(values).summary()
    assert (summary["count"], summary["low"], summary["high"]) == (3_001, min(values), max(values))
    assert summary["mean"] == pytest.approx(statistics.fmean(values))
    ordered = sorted(values)
    for percent in PERCENTILES:
        assert summary[f"p{percent}"] == ordered[-(-percent * 3_001 // 100) - 1]


def test_values_on_the_edges_of_bins():
    histogram = filled([0.01 * i for i in range(100)], 0.01)
    assert histogram.rebinned(0, 0.01, 100) == [1] * 100
    assert histogram.rebinned(0, 0.05, 20) == [5] * 20
    assert histogram.rebinned(0.2, 0.05, 4) == [25, 5, 5, 65]  # with what is beyond


@pytest.mark.parametrize("values", [[float("nan")], [float("inf"), -float("inf")], []])
def test_no_values(values):
    histogram = filled(values)
    assert histogram.summary() == {"count": 0} and histogram.percentile(50) is None
    assert shared_bins([histogram]) == (0.0, 1.0, 1) and histogram.rebinned(0.0, 1.0, 1) == [0]


def test_many_different_values_are_joined():
    rng = random.Random(5)
    values = [rng.uniform(-1e7, 1e9) for _ in range(30_000)]
    histogram = filled(values, 0.001)
    assert len(histogram._bins) <= MAX_BINS and histogram.count == 30_000
    assert histogram.summary()["p50"] == pytest.approx(statistics.median(values), abs=2 * histogram.width)
    assert sum(histogram.rebinned(*shared_bins([histogram]))) == 30_000


@pytest.mark.parametrize("width, scale", [(1, 100), (0.01, 1), (0.001, 5), (1, 1)])
def test_shared_bins_hold_what_all_have_in_few(width, scale):
    rng = random.Random(2)
    first = filled([abs(rng.gauss(scale, scale / 4)) for _ in range(5_000)], width)
    second = filled([abs(rng.gauss(scale * 2, scale / 4)) for _ in range(5_000)], width)
    start, wide, bins = shared_bins([first, second, Histogram(width)])
    assert bins <= 41 and wide / width == pytest.approx(round(wide / width)) and start <= first.percentile(0.1)
    assert start + wide * bins >= second.percentile(99.9)
    ends = [histogram.rebinned(start, wide, bins) for histogram in (first, second)]
    assert all(sum(counts) == 5_000 for counts in ends)
    if bins > 10:
        assert sum(first.rebinned(start, wide, bins)[1:-1]) > 4_900


def test_one_value():
    histogram = filled([7, 7, 7])
    assert shared_bins([histogram]) == (7, 1, 1) and histogram.summary()["p5"] == histogram.summary()["p95"] == 7
