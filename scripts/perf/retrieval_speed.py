"""Retrieval of 5 demonstrations for a whole test set: seconds, and the speed-up over one query at a time.

    python scripts/perf/retrieval_speed.py --benchmark_dir benchmarks

Queries are the 1,012 sentences of FLORES-200's devtest; pools are the 997 of its dev set, and larger ones with shuffled copies
of these. `alone` is the same retriever with one query at a time; `library` computes the same scores by pair or query:
bm25s's own retrieve, rapidfuzz, sacrebleu. Both are timed on the first few queries (rapidfuzz and sacrebleu also on a part
of the pool) and extrapolated.
"""

import random
import time
from pathlib import Path

from measuring import command_line, peak_mib

from topxgen import retrieval
from topxgen.corpora.benchmarks import load
from topxgen.retrieval import ngram_similarity
from topxgen.text import languages
from topxgen.text.words import unicode_words

ENGLISH = languages.find("English")
K, SAMPLE = 5, 20  # demonstrations; queries asked one at a time
RETRIEVERS = ("bm25s", "bm25", "LCS", "chrf", "bleu", "Random")


def enlarged(pool: list[str], size: int) -> list[str]:
    rng = random.Random(0)
    found = list(pool)
    while len(found) < size:
        words = rng.choice(pool).split()
        rng.shuffle(words)
        found.append(" ".join(words))
    return found[:size]


def by_library(name: str, pool: list[str]):
    """A function that ranks part of the pool for one query, and the size of that part; None where no library does."""
    if name == "bm25s":
        import bm25s
        import Stemmer

        stem = Stemmer.Stemmer("english").stemWords
        index = bm25s.BM25(method="robertson", k1=1.5, b=0.7)
        index.index([stem(unicode_words(text)) for text in pool], show_progress=False)
        return lambda query: index.retrieve([stem(unicode_words(query))], k=K, show_progress=False), len(pool)
    part = pool[:500]
    if name == "LCS":
        from rapidfuzz.distance import LCSseq

        words = [unicode_words(text) for text in part]
        return lambda query: [LCSseq.similarity(unicode_words(query), other) for other in words], len(part)
    if name in ("chrf", "bleu"):
        from sacrebleu.metrics import BLEU, CHRF

        metric = CHRF() if name == "chrf" else BLEU(effective_order=True)
        return lambda query: [metric.sentence_score(text, [query]).score for text in part], len(part)
    return None


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--benchmark_dir", type=Path, help="with flores200_dataset [the Hub]")
    parser.add_argument("--sizes", type=int, nargs="+", default=[997, 100_000])
    args = parser.parse_args()
    dev, devtest = (split.texts for split in load("flores", ENGLISH, args.benchmark_dir))
    ngram_similarity.bleu_tokenizer(ENGLISH)
    print(
        f"{len(devtest)} queries\n{'':8} {'pool':>7} {'index':>8} {'all':>8} {'alone':>9} {'ratio':>7} {'library':>10} {'ratio':>9}"
    )
    for size in args.sizes:
        pool = enlarged(dev, size)
        for name in RETRIEVERS:
            start = time.perf_counter()
            retriever = retrieval.create(name, pool, ENGLISH)
            index = time.perf_counter() - start
            retriever.nearest(devtest[:1], K)  # imports
            whole = timed(lambda: retriever.nearest(devtest, K))  # noqa: B023
            sample = devtest[:SAMPLE]
            scale = len(devtest) / len(sample)
            alone = scale * timed(lambda: [retriever.nearest([query], K) for query in sample])  # noqa: B023
            line = f"{name:8} {size:7} {index:7.2f}s {whole:7.2f}s {alone:8.1f}s {alone / whole:6.1f}x"
            if found := by_library(name, pool):
                rank, part = found
                library = scale * size / part * timed(lambda: [rank(query) for query in sample])  # noqa: B023
                line += f" {library:9.1f}s {library / whole:8.1f}x"
            print(line, flush=True)
    print(f"peak memory {peak_mib() / 2**10:.1f} GiB")


if __name__ == "__main__":
    main()
