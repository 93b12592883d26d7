"""Scores of models that were trained with several seeds, and whether a way of training differs from another one.

A score varies with the sentences of the test set and with the seed of the training. A test over sentences alone asks about
these very models, and calls two equal ways of training different when one had the better seeds. Here both are random, as in
the quasi-F test of Clark (1973) for designs in which materials and participants are crossed:

    d = mean score of the seeds of a system - mean score of the seeds of the baseline
    V = V_sentences + V_system + V_baseline,   t = d / sqrt(V)

V_system = s^2 / S, with s^2 the variance of the scores of its S seeds. V_sentences is the variance of d over bootstrap samples
of the sentences (Koehn 2004), which are the same for all systems, less the part that is in s^2 already: that two seeds
translate a sentence differently. p is that of Student's t, with the degrees of freedom of Satterthwaite (1946); with few
seeds that differ much these are hardly more than S - 1, and p is accordingly large.
"""

from collections.abc import Sequence

import numpy as np

from comptra.significance import better
from comptra.significance.resampling import SEED, Scores, holm, resampled_scores

LEVEL = 0.95  # of intervals


def summary(scores: Sequence[float]) -> dict:
    """Of the scores of S seeds the "mean", the standard deviation "sd" and the 95% "interval" of the mean over seeds (Student's
    t); the latter two are None for a single one."""
    mean, count = float(np.mean(scores)), len(scores)
    if count == 1:
        return {"mean": mean, "sd": None, "interval": None}
    sd = float(np.std(scores, ddof=1))
    half = _quantile(count - 1) * sd / count**0.5
    return {"mean": mean, "sd": sd, "interval": [mean - half, mean + half]}


def covariance(
    statistics: list[np.ndarray], score: Scores, samples: int = 1000, seed: int = SEED
) -> tuple[np.ndarray, np.ndarray]:
    """Of models, by the (segments, m) statistics of their translations: the scores (models,), and the covariance (models, models)
    of the scores over test sets drawn from this one."""
    scores = np.array([float(score(stats.sum(axis=0)[None])[0]) for stats in statistics])
    drawn = resampled_scores(statistics, [score] * len(statistics), samples, seed)
    return scores, np.atleast_2d(np.cov(drawn))


def compare(scores: np.ndarray, cov: np.ndarray, system: Sequence[int], baseline: Sequence[int], segments: int) -> dict:
    """The models `system`, one for each seed, and the models `baseline`, as indices into what `covariance` gives: the "difference"
    of their mean scores, its "difference_interval" over sentences and seeds, "degrees" of freedom and two-sided "p".

    A system with one model has no variance over seeds: right for an untrained model; for one that was trained, p is of this
    model alone.
    """
    from scipy.special import stdtr

    weights = np.zeros(len(scores))
    weights[list(system)] += 1 / len(system)
    weights[list(baseline)] -= 1 / len(baseline)
    difference, sentences = float(weights @ scores), float(weights @ cov @ weights)
    parts = []
    for models in (system, baseline):
        count = len(models)
        if count > 1:
            block = cov[np.ix_(models, models)]
            own = np.trace(block) / count  # of a seed over test sets
            common = (block.sum() - np.trace(block)) / (count * (count - 1))
            sentences -= (own - common) / count
            parts.append((float(np.var(scores[list(models)], ddof=1)) / count, count - 1))
    parts.append((max(0.0, sentences), segments - 1))
    variance = sum(part for part, _ in parts)
    if variance < 1e-18:  # the same translations, or no sentence differs from another one: a sign test
        p, degrees, half = (1.0 if abs(difference) < 1e-9 else 2.0 ** (1 - segments)), segments - 1, 0.0
    else:
        degrees = variance**2 / sum(part**2 / max(1, freedom) for part, freedom in parts)
        half = _quantile(degrees) * variance**0.5
        p = float(2 * stdtr(degrees, -abs(difference / variance**0.5)))
    interval = [difference - half, difference + half]
    return {"difference": difference, "difference_interval": interval, "degrees": degrees, "p": p}


def compare_all(
    variants: dict[str, list[np.ndarray]],
    baseline: str | None,
    score: Scores,
    samples: int = 1000,
    seed: int = SEED,
    higher_is_better: bool = True,
    has_score: np.ndarray | None = None,
) -> dict[str, dict]:
    """By variant: "scores" of its seeds, `summary`, the number of "segments", and for all but the baseline "difference",
    "difference_interval", "degrees", "p", "p_holm" (Holm 1979, over these variants) and whether it is significantly "better"
    (see comptra.significance.better), if there are two segments or more. {} if there is none.

    `variants`: by name the (segments, m) statistics of each seed, in one order of segments; those where `has_score` is false,
    as one of the models lacks one, are left out for all.
    """
    statistics = [stats for seeds in variants.values() for stats in seeds]
    if has_score is not None:
        statistics = [stats[has_score] for stats in statistics]
    if not len(statistics[0]):
        return {}
    scores, cov = covariance(statistics, score, samples, seed)
    indices, start = {}, 0
    for name, seeds in variants.items():
        indices[name] = list(range(start, start + len(seeds)))
        start += len(seeds)
    found = {}
    for name, own in indices.items():
        values = [float(scores[i]) for i in own]
        found[name] = {"scores": values, **summary(values), "segments": len(statistics[0])}
        # A single segment does not show how much segments vary.
        if baseline in indices and name != baseline and len(statistics[0]) > 1:
            found[name] |= compare(scores, cov, own, indices[baseline], len(statistics[0]))
    compared = [name for name in found if "p" in found[name]]
    for name, corrected in zip(compared, holm([found[name]["p"] for name in compared]), strict=True):
        found[name]["p_holm"] = corrected
        found[name]["better"] = better(found[name], higher_is_better)
    return found


def _quantile(degrees: float) -> float:
    """What |t| is below with probability LEVEL."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + LEVEL) / 2))
