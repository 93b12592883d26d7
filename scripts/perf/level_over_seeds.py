"""How often equal systems are called different at 5 %, by the test over sentences and seeds and by one over sentences alone.

python scripts/perf/level_over_seeds.py --trials 3000
"""

import numpy as np
from measuring import command_line

from comptra.scores.metrics import mean_scores
from comptra.significance.over_seeds import compare, covariance

# (seeds of either system, standard deviation of the models' qualities, of what a system has of its own on a sentence)
CASES = (
    ((3, 3), 2, 0),
    ((3, 3), 0, 10),
    ((3, 3), 0.7, 7),
    ((3, 3), 0, 0),
    ((1, 3), 1, 5),
    ((1, 1), 0, 5),
    ((5, 5), 1, 3),
)


def rejections(
    trials: int, seeds: tuple[int, int], seed_sd: float, interaction_sd: float, shift: float = 0
) -> tuple[float, float]:
    """The shares of `trials` with p < 0.05, over sentences and seeds and over sentences alone, where the expected scores of two
    systems differ by `shift`.

    A score is the mean of 200 sentences, each with a difficulty (of standard deviation 10, common to all), one for each system
    (`interaction_sd`) and one for each model (5); each model of a system with several has a quality (`seed_sd`).
    """
    rng, count = np.random.default_rng(7), 200
    both = sentences = 0
    for _ in range(trials):
        common, models = rng.normal(0, 10, count), []
        for system, number in enumerate(seeds):
            of_system = rng.normal(0, interaction_sd, count)
            for _ in range(number):
                quality = rng.normal(0, seed_sd) if number > 1 else 0
                values = 50 + shift * system + common + of_system + quality + rng.normal(0, 5, count)
                models.append(np.column_stack([values / 100, np.ones(count)]))
        scores, cov = covariance(models, mean_scores, samples=200, seed=int(rng.integers(2**32)))
        one, other = list(range(seeds[0])), list(range(seeds[0], sum(seeds)))
        both += compare(scores, cov, one, other, count)["p"] < 0.05
        weights = np.repeat([1 / seeds[0], -1 / seeds[1]], seeds)
        sentences += abs(weights @ scores) > 1.96 * (weights @ cov @ weights) ** 0.5
    return both / trials, sentences / trials


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--trials", type=int, default=3000)
    args = parser.parse_args()
    print("seeds   sd of seeds  of system x sentence  sentences and seeds  sentences alone")
    for seeds, seed_sd, interaction_sd in CASES:
        both, sentences = rejections(args.trials, seeds, seed_sd, interaction_sd)
        print(f"{seeds!s:8}{seed_sd:11}{interaction_sd:22}{both:21.1%}{sentences:17.1%}")


if __name__ == "__main__":
    main()
