"""Near-duplicate detection: CPU and memory for n paragraphs of a language, exact and by MinHash, and the recall of the latter.

    python scripts/perf/dedup_speed.py --sizes 20000 100000
    python scripts/perf/dedup_speed.py --sizes 1000000 --prefilters minhash
    python scripts/perf/dedup_speed.py --sizes 10000 20000 40000 --template
    python scripts/perf/dedup_speed.py --sizes 20000 --thresholds 0.5 0.6 0.7 0.8 --lines NTREX-128/newstest2019-ref.hau.txt

Paragraphs have about 140 words, drawn from a vocabulary of Zipf-distributed words (so that common words are shared as in real text);
with `--lines` five random lines, half of whose words are others of the file. One in twenty is a near-duplicate of an earlier one: up
to half of its words are replaced, one by one or in a row. Each measurement is a process of its own; making the texts is not counted. A
line of JSON for each: `recall` is the share of the texts that the exact search rejects which MinHash rejects, too.
"""

import json
import random
import time
from pathlib import Path

import numpy as np
from coordinator import DUPLICATES, Texts
from measuring import command_line, in_child, peak_mib

from topxgen.common.lines import split_lines
from topxgen.text.near_duplicates import PREFILTERS, NearDuplicates


class Templates:
    """Paragraphs of which every second one behind the first 2,000 has the same half."""

    def __init__(self):
        self._texts = Texts(0)

    def __call__(self, number: int) -> str:
        text = self._texts(number)
        if number < 2_000 or number % 2:
            return text
        words = text.split()
        half = len(words) // 2
        return " ".join([*(f"template{i}" for i in range(half)), *words[half:]])


class MixedLines:
    """Paragraphs with the words of a file in about their frequencies, each a function of its number."""

    def __init__(self, path: Path):
        self._lines = [line.split() for line in split_lines(path.read_text(encoding="utf-8")) if line.strip()]
        self._words = [word for line in self._lines for word in line]

    def __call__(self, number: int) -> str:
        rng = random.Random(f"lines {number}")
        if number and rng.random() < DUPLICATES:
            words = self(rng.randrange(number)).split()
            count = rng.randint(0, len(words) // 2)
            start = rng.randrange(len(words) - count + 1)
            in_a_row = rng.random() < 0.5
            for i in range(count):
                words[start + i if in_a_row else rng.randrange(len(words))] = rng.choice(self._words)
            return " ".join(words)
        words = [word for line in rng.sample(self._lines, 5) for word in line]
        return " ".join(word if rng.random() < 0.5 else rng.choice(self._words) for word in words)


def measure(make, size: int, threshold: float, prefilter: str) -> tuple[dict, np.ndarray]:
    """What is printed, and which of the paragraphs are rejected."""
    kept, rejected, cpu = NearDuplicates(threshold, prefilter=prefilter), np.zeros(size, bool), 0.0
    for first in range(0, size, 1000):
        texts = [make(number) for number in range(first, min(first + 1000, size))]
        start = time.process_time()
        for number, text in enumerate(texts, first):
            rejected[number] = kept.keep(f"Basque-{number}.0", text) is not None
        cpu += time.process_time() - start
    return {"cpu_s": round(cpu, 1), "peak_mib": peak_mib(), "rejected": int(rejected.sum())}, rejected


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 10_000, 20_000])
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.7])
    parser.add_argument("--prefilters", nargs="+", choices=PREFILTERS, default=list(PREFILTERS))
    parser.add_argument("--lines", type=Path, metavar="FILE", help="texts of the words of these lines")
    parser.add_argument("--template", action="store_true", help="half of the words of every second text are the same")
    args = parser.parse_args()
    make = MixedLines(args.lines) if args.lines else Templates() if args.template else Texts(0)
    for size in args.sizes:
        for threshold in args.thresholds:
            rejected = {}
            for prefilter in args.prefilters:
                row, rejected[prefilter] = in_child(measure, make, size, threshold, prefilter)
                if len(rejected) == 2:
                    exact = rejected["exact"]
                    row["recall"] = round(float((exact & rejected["minhash"]).sum() / max(exact.sum(), 1)), 4)
                print(
                    json.dumps({"paragraphs": size, "threshold": threshold, "prefilter": prefilter, **row}), flush=True
                )


if __name__ == "__main__":
    main()
