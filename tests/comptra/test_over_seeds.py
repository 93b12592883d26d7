"""Systems of several seeds: exact values in small cases, and the level of the test in simulations."""

import numpy as np
import pytest

from comptra.scores.metrics import mean_scores
from comptra.significance.over_seeds import compare, compare_all, summary
from scripts.perf.level_over_seeds import rejections


def test_summary_of_seeds():
    """Student's t with two degrees of freedom: 4.303."""
    values = summary([10.0, 12.0, 14.0])
    assert values["mean"] == 12 and values["sd"] == pytest.approx(2)
    assert values["interval"] == pytest.approx([12 - 4.302653 * 2 / 3**0.5, 12 + 4.302653 * 2 / 3**0.5])
    assert summary([10.0]) == {"mean": 10.0, "sd": None, "interval": None}


def test_without_variance_over_sentences_it_is_welchs_test():
    from scipy.stats import ttest_ind

    scores = np.array([10.0, 11.0, 13.0, 14.0, 16.0, 15.5])
    result = compare(scores, np.zeros((6, 6)), [0, 1, 2], [3, 4, 5], segments=10**9)
    welch = ttest_ind(scores[:3], scores[3:], equal_var=False)
    assert result["p"] == pytest.approx(welch.pvalue) and result["degrees"] == pytest.approx(welch.df)
    assert result["difference_interval"] == pytest.approx([*welch.confidence_interval(0.95)])
    assert result["difference"] == pytest.approx(scores[:3].mean() - scores[3:].mean())


def test_one_model_each_is_compared_over_sentences_alone():
    """Variance of a difference: 4 + 9 - 2 x 5 = 3; with many sentences t is normal."""
    scores, cov = np.array([20.0, 16.0]), np.array([[4.0, 5.0], [5.0, 9.0]])
    result = compare(scores, cov, [0], [1], segments=10**7)
    assert result["difference"] == 4 and result["p"] == pytest.approx(0.0209, abs=1e-4)  # z = 4 / sqrt(3)
    assert result["difference_interval"] == pytest.approx([4 - 1.959964 * 3**0.5, 4 + 1.959964 * 3**0.5], abs=1e-4)
    of_small_scores = compare(scores / 1000, cov / 10**6, [0], [1], segments=10**7)
    assert of_small_scores["p"] == pytest.approx(result["p"])
    assert compare(scores, cov, [0], [1], segments=20)["degrees"] == pytest.approx(19)


def test_what_seeds_have_of_their_own_is_counted_once():
    """Both systems vary over test sets by 2, of which 1 is common to all models: of the difference of means nothing is left
    beyond the variance over seeds."""
    cov = np.ones((6, 6)) + np.eye(6)
    scores = np.array([10.0, 11.0, 13.0, 14.0, 16.0, 15.5])
    with_cov = compare(scores, cov, [0, 1, 2], [3, 4, 5], segments=10**9)
    assert with_cov["p"] == pytest.approx(compare(scores, np.zeros((6, 6)), [0, 1, 2], [3, 4, 5], 10**9)["p"])


def test_equal_translations_do_not_differ():
    stats = np.column_stack([np.arange(10.0), np.ones(10)])
    found = compare_all({"a": [stats], "b": [stats], "c": [stats, stats]}, "a", mean_scores)
    assert found["b"]["p"] == found["c"]["p"] == 1 and found["b"]["difference"] == 0
    assert "p" not in found["a"] and found["c"]["sd"] == 0


def test_where_no_sentence_varies_few_sentences_are_no_proof():
    """Each sentence right instead of wrong: a coin that falls on one side each time."""
    for segments, p in ((2, 0.5), (6, 2**-5), (100, 2**-99)):
        right = np.ones((segments, 2))
        wrong = right * [0, 1]
        found = compare_all({"base": [wrong], "one": [right], "three": [right] * 3}, "base", mean_scores)
        assert found["one"]["p"] == found["three"]["p"] == pytest.approx(p)
        assert found["one"]["degrees"] == segments - 1
        assert compare_all({"base": [right], "one": [wrong]}, "base", mean_scores)["one"]["p"] == pytest.approx(p)
    one = np.ones((1, 2))
    for seeds in ([one], [one, one * [0.9, 1]]):
        assert "p" not in compare_all({"base": [one * [0, 1]], "one": seeds}, "base", mean_scores)["one"]


def test_the_seed_draws_the_test_sets():
    rng = np.random.default_rng(1)
    stats = {name: [np.column_stack([rng.normal(size=40), np.ones(40)])] for name in "ab"}
    first, again, other = (compare_all(stats, "a", mean_scores, 100, seed)["b"]["p"] for seed in (1, 1, 2))
    assert first == again != other


def test_holm_is_over_the_variants_but_the_baseline():
    rng = np.random.default_rng(1)
    stats = {
        name: [np.column_stack([rng.normal(mean, 0.1, 200), np.ones(200)]) for _ in range(3)]
        for name, mean in (("base", 0.2), ("same", 0.2), ("better", 0.5))
    }
    found = compare_all(stats, "base", mean_scores)
    assert found["better"]["p"] < 1e-4 and found["better"]["p_holm"] == pytest.approx(2 * found["better"]["p"])
    assert found["same"]["p_holm"] == found["same"]["p"] > 0.05
    low, high = found["better"]["difference_interval"]
    assert low < 30 < high and found["better"]["difference"] == pytest.approx(30, abs=2)


@pytest.mark.parametrize(
    "seeds, seed_sd, interaction_sd",
    [
        pytest.param((3, 3), 2, 0, marks=pytest.mark.medium),  # seeds differ much more than sentences explain
        pytest.param((3, 3), 0, 10, marks=pytest.mark.medium),  # seeds do not differ, systems do, on single sentences
        ((3, 3), 0.7, 7),  # both
        pytest.param((1, 3), 1, 5, marks=pytest.mark.medium),  # an untrained baseline
        pytest.param((1, 1), 0, 5, marks=pytest.mark.medium),
    ],
)
def test_equal_systems_are_called_different_in_one_of_twenty_cases(seeds, seed_sd, interaction_sd):
    both, sentences_alone = rejections(600, seeds, seed_sd, interaction_sd)
    assert 0.03 <= both <= 0.07
    if seed_sd == 2:
        assert sentences_alone > 0.5


def test_a_difference_is_found():
    assert rejections(100, (3, 3), 0.5, 5, shift=5)[0] > 0.95
