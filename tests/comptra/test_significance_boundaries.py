"""p-values and intervals by hand, and against sacrebleu's own trials."""

import itertools

import numpy as np
import pytest

from comptra.significance.resampling import holm, interval, resampled_scores
from tests.support.significance import randomization_p_values


def mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def statistics(values) -> np.ndarray:
    return np.column_stack([np.array(values, float), np.ones(len(values))])


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.2, 0.6, 0.9]) == pytest.approx([0.6, 1.0, 1.0])
    assert holm([0.01, 0.011, 0.02]) == pytest.approx([0.03, 0.03, 0.03])
    assert holm([0.04]) == [0.04] and holm([]) == []


def test_a_system_does_not_differ_from_itself():
    stats = statistics([1, 2, 3, 4])
    assert randomization_p_values([stats], [[stats]], [mean], trials=99).tolist() == [[1.0]]


def test_both_directions_count_and_the_systems_themselves():
    """Against all 2^10 swaps: two-sided, (c + 1) / (trials + 1)."""
    rng = np.random.default_rng(4)
    one, other = rng.normal(size=10), rng.normal(size=10) + 0.9
    observed = abs(one.mean() - other.mean())
    swaps = np.array(list(itertools.product([False, True], repeat=10)))
    differences = np.where(swaps, other, one).mean(axis=1) - np.where(swaps, one, other).mean(axis=1)
    exact = (np.abs(differences) >= observed - 1e-9).mean()
    arguments = [statistics(one)], [[statistics(other)]], [mean]
    p = randomization_p_values(*arguments, trials=20000)[0, 0]
    assert p == pytest.approx(exact, abs=0.01) and 0.01 < exact < 0.2
    assert randomization_p_values([arguments[1][0][0]], [[arguments[0][0]]], [mean], trials=20000)[0, 0] == p
    far = randomization_p_values([statistics(np.zeros(40))], [[statistics(np.ones(40))]], [mean], trials=99)
    assert far[0, 0] == 1 / 100


def test_the_swaps_are_sacrebleus(monkeypatch):
    """The default seed is sacrebleu's, and blocks draw the same numbers as one call for all."""
    from comptra.significance import resampling

    expected = np.random.default_rng(12345).integers(2, size=(200, 7), dtype=bool)
    for block in (1 << 22, 7 * 64, 1):
        monkeypatch.setattr(resampling, "_BLOCK", block)
        swaps = np.concatenate(list(resampling._swaps(7, 200, resampling.SEED)))
        assert (swaps == expected).all()


def test_intervals_are_the_middle_95_percent():
    values = np.arange(50.0)
    draws = np.random.default_rng(12345).integers(50, size=(1000, 50))
    expected = np.percentile(values[draws].mean(axis=1), (2.5, 97.5))
    (drawn,) = resampled_scores([statistics(values)], [mean], 1000)
    assert interval(drawn) == pytest.approx(tuple(expected))
