"""How often the tests of comptra.evaluate call equal systems different at 5 %, and how often they find a true difference.

python scripts/perf/level.py --references /data/benchmarks/NTREX-128/newstest2019-ref.eus.txt

A population of outputs is made of real translations: each has several versions of each kind (words replaced or left out, at a
rate that differs by sentence). A simulation draws a test set of sentences, and for each system and sentence one version. Equal
systems draw from the same versions, or from two kinds of errors, mixed so that the score of the whole population is equal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measuring import command_line

from comptra.scores import metrics
from comptra.significance import resampling
from comptra.significance.compared import ALPHA, top_cluster
from comptra.significance.resampling import Pair, Scores
from topxgen.text import languages

REPLACED, WORSE, FEW_LOST, MANY_LOST = KINDS = ("replaced", "worse", "few lost", "many lost")
_RATES = {REPLACED: (0.3, 0.0), WORSE: (0.45, 0.0), FEW_LOST: (0.0, 0.15), MANY_LOST: (0.0, 0.5)}
TRIALS = 400  # of a test, and bootstrap samples
SIMULATIONS, SENTENCES = 1000, 300  # of level and clusters, a fourth of them of power; of a test set there


def pure(kind: str) -> list[float]:
    """The probabilities of the kinds for a system that has one."""
    return [float(one == kind) for one in KINDS]


SAME = pure(REPLACED)
POPULATION, VERSIONS = 600, 12  # sentences, and outputs of each kind


@dataclass(frozen=True)
class Metric:
    statistics: np.ndarray  # (kinds, sentences, versions, m)
    scores: Scores

    def of_population(self, kinds: Sequence[float]) -> float:
        """The score of a system that takes each kind with this probability."""
        sums = np.tensordot(np.asarray(kinds), self.statistics.sum(axis=(1, 2)), 1)
        return float(self.scores(sums[None])[0])


def population(references: list[str], versions: int = 8, seed: int = 1) -> dict[str, Metric]:
    """BLEU, chrF++ and the mean chrF++ of sentences, of `versions` outputs of each kind and sentence."""
    rng, words = np.random.default_rng(seed), [text.split() for text in references]
    every = [word for sentence in words for word in sentence]
    difficulty = rng.uniform(0.3, 1.7, len(words))

    def output(sentence: list[str], replaced: float, lost: float) -> str:
        chance = rng.random((2, len(sentence)))
        kept = [
            every[rng.integers(len(every))] if chance[0, i] < replaced else word
            for i, word in enumerate(sentence)
            if chance[1, i] >= lost
        ]
        return " ".join(kept)

    english = languages.find("English")
    test = metrics.Test(english, english, references, references)
    found = {}
    outputs = [
        [[output(own, *(rate * hard for rate in _RATES[kind])) for own, hard in zip(words, difficulty, strict=True)]
         for _ in range(versions)]
        for kind in KINDS
    ]  # fmt: skip
    for name in ("bleu", "chrf"):
        scorer = metrics.create(name, test, metrics.MetricSettings(tokenize="13a"))
        stats = np.array([[scorer.statistics(one) for one in own] for own in outputs])
        found[name] = Metric(stats.swapaxes(1, 2), scorer.scores)
    one_by_one = found["chrf"].scores(found["chrf"].statistics)
    of_sentences = np.stack([one_by_one, np.ones_like(one_by_one)], axis=-1)
    found["mean of sentences"] = Metric(of_sentences, lambda sums: sums[..., 0] / sums[..., 1])
    return found


def mixture(metric: Metric, target: float, one: str, other: str) -> list[float]:
    """The probabilities of the kinds `one` and `other` with which a system has the score `target` in the population."""
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        kinds = [(1 - share) * (kind == one) + share * (kind == other) for kind in KINDS]
        low, high = (share, high) if metric.of_population(kinds) > target else (low, share)
    return kinds


def draw(metric: Metric, systems: Sequence[Sequence[float]], count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The statistics of systems, each given by its probabilities of kinds, on a new test set of `count` sentences. No two
    systems have the same version of a sentence."""
    _, sentences, versions, _ = metric.statistics.shape
    chosen = rng.integers(sentences, size=count)
    version = np.argsort(rng.random((count, versions)), axis=1)
    found = []
    for i, kinds in enumerate(systems):
        kind = rng.choice(len(KINDS), p=kinds, size=count)
        found.append(metric.statistics[kind, chosen, version[:, i % versions]])
    return found


def p_values(metric: Metric, statistics: list[np.ndarray], seed: int, samples: bool = True) -> list[list[float]]:
    """Of all systems but the first, compared with it: by randomisation and with `samples` by the bootstrap and by that of
    sacreBLEU."""
    pairs = [Pair(statistics[0], other, metric.scores) for other in statistics[1:]]
    observed, drawn = resampling.randomized(pairs, TRIALS, seed)
    swapped = [resampling.randomization_p_value(*both) for both in zip(observed, drawn, strict=True)]
    if not samples:
        return [swapped]
    scores = resampling.resampled_scores(statistics, [metric.scores] * len(statistics), TRIALS, seed)
    resampled = [
        resampling.bootstrap_p_value(difference, other - scores[0], int((pair.one != pair.other).any(axis=1).sum()))
        for difference, other, pair in zip(observed, scores[1:], pairs, strict=True)
    ]
    theirs = [
        sacrebleus(difference, np.abs(other - scores[0]))
        for difference, other in zip(observed, scores[1:], strict=True)
    ]
    return [swapped, resampled, theirs]


def sacrebleus(observed: float, sizes: np.ndarray) -> float:
    """p of its --paired-bs, by the absolute differences of samples: it counts those above their mean, on one side."""
    return (int((sizes - sizes.mean() > abs(observed)).sum()) + 1) / (len(sizes) + 1)


def rejections(
    metric: Metric,
    systems: Sequence[Sequence[float]],
    count: int,
    simulations: int,
    seed: int = 7,
    samples: bool = True,
) -> list[float]:
    """How often Holm's correction leaves a p-value below 5 % of the comparisons with the first system, by each of `p_values`;
    without `samples` by randomisation alone."""
    rng, found = np.random.default_rng(seed), np.zeros(3 if samples else 1)
    for _ in range(simulations):
        tests = p_values(metric, draw(metric, systems, count, rng), int(rng.integers(2**32)), samples)
        found += [min(resampling.holm(p)) < ALPHA for p in tests]
    return (found / simulations).tolist()


def exclusions(
    metric: Metric, systems: Sequence[Sequence[float]], count: int, simulations: int, seed: int = 8
) -> list[float]:
    """How often the top cluster lacks the first system, which is one of the best, how often any that is as good, and the mean
    number of systems in it."""
    rng, found = np.random.default_rng(seed), np.zeros(3)
    best = [i for i, kinds in enumerate(systems) if list(kinds) == list(systems[0])]
    for _ in range(simulations):
        statistics = draw(metric, systems, count, rng)
        scores = [float(metric.scores(own.sum(axis=0)[None])[0]) for own in statistics]
        order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
        pairs = [Pair(statistics[order[0]], statistics[i], metric.scores) for i in order[1:]]
        observed, drawn = resampling.randomized(pairs, TRIALS, int(rng.integers(2**32)))
        p = [resampling.randomization_p_value(*both) for both in zip(observed, drawn, strict=True)]
        cluster = top_cluster(order, p)
        found += [0 not in cluster, any(i not in cluster for i in best), len(cluster)]
    return (found / simulations).tolist()


def show(name: str, title: str, values: Sequence[float], form: Callable[[float], str] = "{:.1%}".format) -> None:
    print(f"{name:18}{title:56}" + "".join(f"{form(value):>8}" for value in values), flush=True)


def show_level(found: dict[str, Metric]) -> None:
    print("equal systems that are called different, by randomisation, the bootstrap and sacreBLEU's bootstrap")
    for name, metric in found.items():
        other = mixture(metric, metric.of_population(SAME), FEW_LOST, MANY_LOST)
        for title, systems in (
            ("two equal systems", [SAME, SAME]),
            ("two systems of other errors and equal scores", [SAME, other]),
            ("10 systems and an equal baseline, any after Holm", [SAME] * 11),
        ):
            show(name, title, rejections(metric, systems, SENTENCES, SIMULATIONS))


def show_clusters(found: dict[str, Metric]) -> None:
    print("top clusters: those that lack the best system, that lack one as good as the best, and (number) their size")
    for name, metric in found.items():
        below = [mixture(metric, metric.of_population(SAME) - less, REPLACED, WORSE) for less in (0.5, 1, 1.5, 5)]
        for title, systems in (
            ("10 equal systems", [SAME] * 10),
            ("2 equal systems, 8 worse by 5 points", [SAME] * 2 + [below[3]] * 8),
            ("1 best system, 9 worse by 0.5, 1 and 1.5 points", [SAME, *(below[:3] * 3)]),
        ):
            *shares, size = exclusions(metric, systems, SENTENCES, SIMULATIONS)
            show(name, title, [*shares, size / 100], lambda value: f"{100 * value:.1f}")


def show_power(found: dict[str, Metric]) -> None:
    print("power: differences of 0.25, 0.5, 1 and 2 points that randomisation finds")
    for name, metric in found.items():
        worse = [mixture(metric, metric.of_population(SAME) - less, REPLACED, WORSE) for less in (0.25, 0.5, 1, 2)]
        for count in (200, 500, 1000, 2000):
            shares = [rejections(metric, [SAME, one], count, SIMULATIONS // 4, samples=False)[0] for one in worse]
            show(name, f"{count} sentences", shares, "{:.0%}".format)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--references", type=Path, required=True, help="translations, one a line")
    args = parser.parse_args()
    texts = [line for line in args.references.read_text(encoding="utf-8").split("\n") if line.strip()]
    found = population(texts[:POPULATION], VERSIONS)
    show_level(found)
    show_clusters(found)
    show_power(found)


if __name__ == "__main__":
    main()
