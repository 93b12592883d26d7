"""Time of the significance of 5 metrics x 20 systems x 2,000 segments, and of sacreBLEU's paired test with the same p-values.

python scripts/perf/significance_speed.py --references /data/benchmarks/NTREX-128/newstest2019-ref.eus.txt

Both tests get the same statistics, so that the time is that of the test alone. sacreBLEU's takes minutes: it runs with
THEIR_TRIALS, and its time is multiplied by what is missing (each trial costs the same). The two take turns.
"""

import time
from functools import partial
from pathlib import Path

import numpy as np
from measuring import command_line
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest

from comptra.scores import metrics
from comptra.significance import resampling
from comptra.significance.resampling import Pair
from scripts.perf.level import _RATES, WORSE
from topxgen.text import languages

SYSTEMS, SEGMENTS, VERSIONS = 20, 2000, 5  # the first system is the baseline
TRIALS, THEIR_TRIALS = 10_000, 100
METRICS = {
    "bleu-13a": partial(BLEU, tokenize="13a"),
    "bleu": partial(BLEU, tokenize="char"),
    "chrf": partial(CHRF, word_order=2),
    "chrf6": CHRF,
    "ter": TER,
}


def translations(references: list[str], seed: int) -> list[str]:
    """Translations with words of other sentences."""
    rng, rate = np.random.default_rng(seed), _RATES[WORSE][0]
    every = [word for text in references for word in text.split()]
    return [
        " ".join(every[rng.integers(len(every))] if rng.random() < rate else word for word in text.split())
        for text in references
    ]


def seconds(work) -> tuple[np.ndarray, object]:
    """(wall, CPU of all threads), and the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return np.array([time.perf_counter() - wall, time.process_time() - cpu]), result


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--references", type=Path, required=True, help="one a line")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    lines = [line for line in args.references.read_text(encoding="utf-8").split("\n") if line.strip()]
    references = (lines * (SEGMENTS // len(lines) + 1))[:SEGMENTS]
    english = languages.find("English")
    test, settings = metrics.Test(english, english, references, references), metrics.MetricSettings(tokenize="char")
    scorers = {name: metrics.create(name, test, settings) for name in METRICS}
    # Each system has one of five translations of each segment, so that few are to be scored.
    versions = [translations(references, i) for i in range(VERSIONS)]
    of_versions = {name: np.array([scorer.statistics(own) for own in versions]) for name, scorer in scorers.items()}
    chosen = np.random.default_rng(0).integers(VERSIONS, size=(SYSTEMS, SEGMENTS))
    statistics = {
        (name, i): stats[chosen[i], np.arange(SEGMENTS)] for name, stats in of_versions.items() for i in range(SYSTEMS)
    }
    theirs_of = {name: make(references=[references]) for name, make in METRICS.items()}
    for name, metric in theirs_of.items():  # a "hypothesis" is the number of its system
        metric._extract_corpus_statistics = lambda numbers, _, name=name: statistics[name, int(numbers[0])].tolist()
    named = [(str(i), [str(i)] * SEGMENTS) for i in range(SYSTEMS)]

    def theirs() -> np.ndarray:
        columns = []
        for name, metric in theirs_of.items():
            _, found = PairedTest(named, {name: metric}, None, "ar", n_samples=THEIR_TRIALS)()
            (column,) = (column for key, column in found.items() if key != "System")
            columns.append([result.p_value for result in column[1:]])
        return np.array(columns).T

    def ours(trials: int = TRIALS) -> tuple[np.ndarray, np.ndarray]:
        """p-values, and those without the trials that differ just as much (systems, metrics)."""
        pairs = [
            Pair(statistics[name, 0], statistics[name, i], scorer.scores)
            for i in range(1, SYSTEMS)
            for name, scorer in scorers.items()
        ]
        observed, drawn = resampling.randomized(pairs, trials)
        more = (np.abs(drawn) > np.abs(observed)[:, None] + 1e-9).sum(axis=1)
        found = map(resampling.randomization_p_value, observed, drawn)
        return tuple(np.reshape(list(p), (-1, len(scorers))) for p in (found, (more + 1) / (trials + 1)))

    p_values, without_ties = ours(THEIR_TRIALS)
    times = {"ours": [], "sacreBLEU": []}
    for _ in range(args.repeats):
        times["ours"].append(seconds(ours)[0])
        taken, expected = seconds(theirs)
        times["sacreBLEU"].append(taken * TRIALS / THEIR_TRIALS)
        assert ((without_ties <= expected) & (expected <= p_values)).all(), "other p-values"
    equal = (p_values == expected).sum(axis=0).tolist()
    print(f"equal p-values of {SYSTEMS - 1}, {THEIR_TRIALS} trials: {dict(zip(METRICS, equal, strict=True))}")
    print(
        f"they are between {p_values.min():.4f} and {p_values.max():.4f}; the others differ in ties alone, which count here"
    )
    best = {name: np.min(found, axis=0) for name, found in times.items()}
    for name, (wall, cpu) in best.items():
        print(f"{name:10} {TRIALS} trials: {wall:8.2f} s, CPU {cpu:8.2f} s (least of {args.repeats})")
    wall, cpu = best["sacreBLEU"] / best["ours"]
    print(f"ratio: {wall:.0f} of wall time, {cpu:.0f} of CPU time; sacreBLEU's from {THEIR_TRIALS} trials")


if __name__ == "__main__":
    main()
