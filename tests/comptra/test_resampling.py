"""The tests of significance by themselves: the bootstrap, randomisation, their level and power, exact sums."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from comptra.scores import metrics
from comptra.significance import resampling
from comptra.significance.compared import top_cluster
from comptra.significance.resampling import Pair
from scripts.perf import level
from tests.support.compared_runs import mean, means
from tests.support.evaluations import ntrex_sides, udhr, worse
from tests.support.runs import ROOT
from topxgen.text import languages


def test_the_samples_are_sacrebleus_and_p_is_of_both_sides(ntrex):
    """From these samples sacreBLEU's p follows to the last digit; its own counts one side and is about half of ours."""
    sources, references = ntrex_sides(ntrex, 150)
    base, texts = worse(references, 0.25), worse(references, 0.235, seed=2)
    test = metrics.Test(languages.find("English"), languages.find("Basque"), sources, references)
    for name, metric in (("bleu", BLEU(tokenize="13a")), ("chrf", CHRF(word_order=2))):
        _, found = PairedTest([("a", base), ("b", texts)], {name: metric}, [references], "bs", n_samples=1000)()
        expected = next(column for key, column in found.items() if key != "System")[1].p_value
        scorer = metrics.create(name, test, metrics.MetricSettings(tokenize="13a"))
        both = [scorer.statistics(one) for one in (base, texts)]
        one, other = resampling.resampled_scores(both, [scorer.scores] * 2, 1000)
        observed = float(np.diff([scorer.scores(stats.sum(axis=0)) for stats in both])[0])
        assert level.sacrebleus(observed, np.abs(other - one)) == expected
        ours = resampling.bootstrap_p_value(observed, other - one, 150)
        assert 0.001 < expected < 0.3 and 1.4 * expected < ours < 2.8 * expected


def test_the_bootstrap_by_hand():
    drawn = np.array([-1.0, 0, 1, 2, 3, 4, 5, 6])  # their mean is 2.5
    assert resampling.bootstrap_p_value(2.5, drawn, 100) == 5 / 9  # -1, 0, 5, 6
    assert resampling.bootstrap_p_value(-2.5, drawn, 100) == 5 / 9
    assert resampling.bootstrap_p_value(9, drawn, 100) == 1 / 9
    assert resampling.bootstrap_p_value(0, np.zeros(9), 0) == 1
    assert resampling.bootstrap_p_value(2.5, np.append(drawn, np.nan), 100) == 5 / 9


@pytest.mark.parametrize("segments, least", [(1, 1.0), (2, 0.5), (3, 0.25), (5, 1 / 16)])
def test_few_segments_are_no_proof(segments, least):
    """A system that is ahead in each of so few: no test calls it better, whichever number of trials says so."""
    pair = Pair(means(np.zeros(segments)), means(np.linspace(1, 1.001, segments)), mean)
    (observed,), drawn = resampling.randomized([pair], 4000)
    assert resampling.randomization_p_value(observed, drawn[0]) == pytest.approx(least, abs=0.03)
    one, other = resampling.resampled_scores(pair[:2], [mean] * 2, 4000)
    assert resampling.bootstrap_p_value(observed, other - one, segments) == pytest.approx(least, abs=0.001)


def test_one_trial():
    pair = Pair(means([0, 0, 0, 0]), means([1, 1, 1, 1]), mean)
    (observed,), drawn = resampling.randomized([pair], 1)
    assert resampling.randomization_p_value(observed, drawn[0]) in (0.5, 1.0)


@pytest.mark.parametrize("scores", [level.metrics.mean_scores, lambda sums: 0 * sums[..., 0]])
def test_statistics_of_zeros_are_no_difference(scores):
    zeros = np.tile([0.0, 1.0], (5, 1))
    observed, drawn = resampling.randomized([Pair(zeros, zeros.copy(), scores)], 20)
    assert observed[0] == 0 and resampling.randomization_p_value(observed[0], drawn[0]) == 1


def test_sums_are_exact_for_counts_and_numbers_of_any_size():
    """Against Python's whole numbers and fractions; float32 alone would round the second, float64 the third."""
    rng = np.random.default_rng(0)
    small, large = rng.integers(0, 50, 400).astype(float), rng.integers(0, 2**30, 400).astype(float)
    reals = rng.normal(0, 1e6, 400)
    columns = resampling._Columns([np.column_stack([small, large]), np.column_stack([reals, small])])
    weights = rng.multinomial(400, np.full(400, 1 / 400), 9)
    one, other = columns.sums(weights)
    for row in range(9):
        assert one[row, 0] == other[row, 1] == sum(int(a) * int(b) for a, b in zip(weights[row], small, strict=True))
        assert one[row, 1] == sum(int(a) * int(b) for a, b in zip(weights[row], large, strict=True))
        assert other[row, 0] == pytest.approx(float(weights[row] @ reals), rel=1e-9)
    order = rng.permutation(400)  # another order of addition is what threads make
    shuffled = resampling._Columns([np.column_stack([reals, small])[order]]).sums(weights[:, order])[0]
    assert (shuffled == other).all()


def test_p_values_do_not_depend_on_the_threads():
    code = """
import numpy as np
from comptra.significance import resampling
rng = np.random.default_rng(1)
stats = [np.column_stack([rng.normal(size=700), np.ones(700)]) for _ in range(9)]
mean = lambda sums: sums[..., 0] / sums[..., 1]
print(resampling.randomized([resampling.Pair(stats[0], one, mean) for one in stats[1:]], 300)[1].tobytes().hex())
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "3")
    }
    assert len(found) == 1 and len(found.pop()) > 1000


def test_memory_is_bounded_with_few_segments_and_many_systems(monkeypatch):
    monkeypatch.setattr(resampling, "_BLOCK", 1 << 12)
    for make in (resampling._swaps, resampling._resamples):
        sizes = [len(block) for block in make(3, 5000, 1, width=100)]
        assert sum(sizes) == 5000 and max(sizes) * 100 <= 1 << 12


def test_bootstrap_samples_of_several_blocks_are_all_there(monkeypatch):
    values = np.random.default_rng(1).normal(size=12)
    lacking = np.where(np.arange(12) < 10, np.nan, values)  # few samples draw neither of the two that have a score
    columns = [np.column_stack([np.nan_to_num(one), ~np.isnan(one)]) for one in (values, lacking)]
    drawn = np.random.default_rng(resampling.SEED).integers(12, size=(200, 12))
    sums, counts = np.nansum(lacking[drawn], axis=1), (~np.isnan(lacking[drawn])).sum(axis=1)
    expected = [np.mean(values[drawn], axis=1), np.where(counts, sums / np.maximum(counts, 1), np.nan)]
    for block in (1 << 22, 12 * 70, 1):
        monkeypatch.setattr(resampling, "_BLOCK", block)
        found = resampling.resampled_scores(columns, [mean, mean], 200)
        assert np.allclose(found, expected, equal_nan=True)
    assert 5 < np.isnan(found[1]).sum() < 100
    low, high = resampling.interval(found[1])
    assert (low, high) == tuple(np.percentile(found[1][~np.isnan(found[1])], (2.5, 97.5)))


@pytest.fixture(scope="module")
def population():
    """Of the embedded Basque: 60 sentences or so, 6 versions of each kind."""
    return level.population(udhr().references, versions=6)


@pytest.mark.parametrize("name", ["bleu", "chrf", "mean of sentences"])
def test_equal_systems_differ_in_one_of_twenty_cases(population, name):
    metric, same = population[name], level.pure(level.REPLACED)
    by_swaps, by_samples, by_sacrebleu = level.rejections(metric, [same] * 2, 100, 300)
    assert 0.02 <= by_swaps <= 0.08 and 0.02 <= by_samples <= 0.08  # 300 simulations; docs/results.md has 1,000
    assert by_sacrebleu > 1.4 * by_samples, "it counts one side"
    other = level.mixture(metric, metric.of_population(same), level.FEW_LOST, level.MANY_LOST)
    assert metric.of_population(other) == pytest.approx(metric.of_population(same), abs=1e-6)
    assert level.rejections(metric, [same, other], 100, 300)[0] <= 0.08


def test_holm_holds_the_level_of_many_comparisons(population):
    same = level.pure(level.REPLACED)
    assert level.rejections(population["mean of sentences"], [same] * 6, 60, 150)[0] <= 0.07


def test_a_difference_is_found(population):
    metric, same = population["chrf"], level.pure(level.REPLACED)
    worse_by_4 = level.mixture(metric, metric.of_population(same) - 4, level.REPLACED, level.WORSE)
    assert min(level.rejections(metric, [same, worse_by_4], 300, 20)) > 0.9


def test_the_best_system_is_in_the_top_cluster(population):
    metric, same = population["mean of sentences"], level.pure(level.REPLACED)
    left_out, _, size = level.exclusions(metric, [same] * 6, 60, 150)
    assert left_out <= 0.05 and size > 5
    far = level.mixture(metric, metric.of_population(same) - 8, level.REPLACED, level.WORSE)
    left_out, _, size = level.exclusions(metric, [same, same, far, far, far], 200, 60)
    assert left_out <= 0.06 and size < 2.5


def test_the_cluster_is_corrected_for_the_number_of_systems():
    assert top_cluster(list("abcd"), [0.02, 0.03, 0.5]) == list("abcd")
    assert top_cluster(list("abcd"), [0.5, 0.016, 0.001]) == ["a", "b"]
    assert top_cluster(["a"], []) == ["a"] and top_cluster(["a", "b"], [0.05]) == ["a", "b"]


def test_the_level_holds_for_means_over_languages_whose_sentences_are_the_same():
    """Two equal systems that each misread some sentences, in all languages alike. Swaps of their own in each language would
    call them different in every fourth case or so."""
    rng, found = np.random.default_rng(6), np.zeros(2)
    for _ in range(300):
        misread = rng.normal(size=(2, 60))
        pairs = [Pair(*(means(own + 0.5 * rng.normal(size=60)) for own in misread), mean) for _ in range(4)]
        for which, numbers in enumerate([[1] * 4, [1, 2, 3, 4]]):
            tested = [resampling.randomized([pair], 200, seed) for pair, seed in zip(pairs, numbers, strict=True)]
            observed, drawn = (sum(values) for values in zip(*tested, strict=True))
            found[which] += resampling.randomization_p_value(observed[0], drawn[0]) < 0.05
    together, apart = found / 300
    assert 0.02 <= together <= 0.08 and apart > 0.2


def test_all_pairs_share_the_swaps_of_one_pair():
    """Twenty systems at once give what each gives alone."""
    rng = np.random.default_rng(3)
    stats = [means(rng.integers(0, 9, 30)) for _ in range(4)]
    pairs = [Pair(one, other, mean) for one, other in itertools.combinations(stats, 2)]
    observed, drawn = resampling.randomized(pairs, 70, 5)
    for i, pair in enumerate(pairs):
        alone = resampling.randomized([pair], 70, 5)
        assert alone[0][0] == observed[i] and (alone[1][0] == drawn[i]).all()
