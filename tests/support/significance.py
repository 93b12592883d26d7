"""p-values of several systems and metrics at once."""

import numpy as np

from comptra.significance.resampling import SEED, Pair, Scores, randomization_p_value, randomized


def randomization_p_values(
    baseline: list[np.ndarray],
    systems: list[list[np.ndarray]],
    scores: list[Scores],
    trials: int = 10000,
    seed: int = SEED,
) -> np.ndarray:
    """`randomization_p_value` of each system and the baseline: (systems, metrics).

    `baseline` holds the (segments, m) statistics of each metric, `systems` the same for each system.
    """
    pairs = [
        Pair(*three)
        for system in systems
        for three in zip(baseline, system, scores, strict=True)  # statistics of both, and their scores
    ]
    found = [randomization_p_value(*both) for both in zip(*randomized(pairs, trials, seed), strict=True)]
    return np.array(found).reshape(len(systems), -1)
