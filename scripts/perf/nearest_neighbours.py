"""Exact nearest neighbours of all items among all: time, memory, and whether they are those of brute force in float64.

    python scripts/perf/nearest_neighbours.py --sizes 10000 100000

Vectors are of SONAR's width: noise around 1,000 centres, as of passages on 1,000 subjects; one in twenty is equal to another,
as of a model that repeats itself. Brute force is computed for CHECKED of the rows.
"""

import time

import numpy as np
from measuring import command_line, peak_mib

from topxgen.retrieval.nearest import nearest

K, CHECKED, WIDTH = 4, 200, 1024


def vectors(count: int):
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((1000, WIDTH), dtype=np.float32)
    rows = rng.standard_normal((count, WIDTH), dtype=np.float32)
    rows += centres[rng.integers(0, len(centres), count)]
    copies = rng.integers(0, count, count // 20)
    rows[rng.integers(0, count, count // 20)] = rows[copies]
    return rows


def brute_force(rows, query: int, k: int):
    """The k rows with the highest cosine, in float64; ties by index."""
    blocks = (rows[start : start + 10_000] for start in range(0, len(rows), 10_000))
    products = np.concatenate([(block * rows[query].astype(np.float64)).sum(axis=1) for block in blocks])
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    cosines = products / (lengths * lengths[query])
    cosines[query] = -np.inf
    return np.argsort(-cosines, kind="stable")[:k]


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    args = parser.parse_args()
    for size in args.sizes:
        rows = vectors(size)
        before = peak_mib()
        start, cpu = time.perf_counter(), time.process_time()
        found = nearest(rows, K, None)
        took, cpu = time.perf_counter() - start, time.process_time() - cpu
        more = (peak_mib() - before) / 2**10
        queries = np.random.default_rng(1).integers(0, size, CHECKED)
        equal = sum((found[query] == brute_force(rows, query, K)).all() for query in queries)
        print(
            f"{size} items of {WIDTH} numbers, k {K}: {took:.1f} s ({cpu:.1f} s of CPU), {rows.nbytes / 2**30:.2f} GiB of vectors, {more:.2f} GiB "
            f"more in memory; {equal} of {len(queries)} rows equal brute force",
            flush=True,
        )


if __name__ == "__main__":
    main()
