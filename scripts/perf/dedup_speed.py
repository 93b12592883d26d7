"""Near-duplicate detection: seconds for n paragraphs, and the speed-up over rouge_score on the same pairs.

    python scripts/perf/dedup_speed.py --sizes 5000 10000 20000

Paragraphs of about 140 words are drawn from a vocabulary of Zipf-distributed words (so that common words
are shared as in real text); one in twenty is a near-duplicate of an earlier one.
"""

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from topxgen.text.near_duplicates import NearDuplicates


def paragraphs(n: int, seed: int = 0, vocabulary: int = 50_000) -> list[str]:
    rng = random.Random(seed)
    words = [f"w{i}" for i in range(vocabulary)]
    weights = [1 / (i + 2.7) for i in range(vocabulary)]
    texts: list[str] = []
    while len(texts) < n:
        if texts and rng.random() < 0.05:
            text = rng.choice(texts).split()
            for _ in range(rng.randint(0, len(text) // 2)):
                text[rng.randrange(len(text))] = rng.choice(words)
        else:
            text = rng.choices(words, weights, k=max(20, round(rng.gauss(140, 35))))
        texts.append(" ".join(text))
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 10_000, 20_000])
    parser.add_argument("--threshold", type=float, default=0.7)
    parser.add_argument("--rouge_pairs", type=int, default=400, help="pairs that rouge_score is timed on")
    args = parser.parse_args()
    from rouge_score.rouge_scorer import RougeScorer

    texts = paragraphs(max(args.sizes))
    scorer = RougeScorer(["rougeL"])
    rng = random.Random(1)
    pairs = [rng.sample(texts, 2) for _ in range(args.rouge_pairs)]
    start = time.perf_counter()
    for a, b in pairs:
        scorer.score(a, b)
    per_pair = (time.perf_counter() - start) / len(pairs)
    print(f"rouge_score: {per_pair * 1e3:.2f} ms a pair")
    for size in args.sizes:
        kept = NearDuplicates(args.threshold)
        compared = 0
        start = time.perf_counter()
        for i, text in enumerate(texts[:size]):
            compared += len(kept)
            kept.keep(str(i), text)
        seconds = time.perf_counter() - start
        print(
            f"{size:6d} paragraphs: {seconds:6.1f} s, kept {len(kept)}, {compared / 1e6:.1f} million pairs, "
            f"{per_pair * compared / seconds:,.0f} times rouge_score"
        )


if __name__ == "__main__":
    main()
