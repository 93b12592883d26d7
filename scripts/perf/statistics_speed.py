"""Processor time of the measures of diversity, and of all statistics of a folder.

    python scripts/perf/statistics_speed.py --sentences 10000 100000

Sentences of 18 Zipf-distributed words, and normally distributed vectors of the widths of the Universal Sentence Encoder (512) and
SONAR (1,024): no measure's time depends on what the vectors are.
"""

import json
import tempfile
import time
from itertools import chain
from pathlib import Path

import numpy as np
from measuring import command_line, peak_mib

from topxgen.statistics import diversity
from topxgen.statistics.corpus import Sources, read_all
from topxgen.statistics.describe import Options, describe

WORDS = 18


def timed(name: str, function, *arguments) -> None:
    start = time.process_time()
    value = function(*arguments)
    shown = f"{value:.6g}" if isinstance(value, float) else ""
    print(f"  {name:42} {time.process_time() - start:7.2f} s  {shown}", flush=True)


def distinct(tokens: list[list[str]]) -> list[float | None]:
    return [diversity.distinct_n(tokens, n) for n in range(1, 5)]


def everything(folder: str) -> list[dict]:
    return describe(read_all([folder], Sources()), Options())


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--sentences", type=int, nargs="+", default=[10_000, 100_000])
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    for count in args.sentences:
        print(f"{count:,} sentences")
        numbers = rng.zipf(1.3, size=(count, WORDS)) % 50_000
        tokens = [[f"word{number}" for number in row] for row in numbers]
        texts = [" ".join(row).capitalize() + "." for row in tokens]
        timed("distinct-1 to distinct-4", distinct, tokens)
        timed("type/token", diversity.moving_type_token_ratio, chain.from_iterable(tokens))
        timed("compression ratio", diversity.compression_ratio, texts)
        timed("self-BLEU of 1,000", diversity.self_bleu, tokens[:1000])
        timed("self-BLEU of 10,000", diversity.self_bleu, tokens[:10_000])
        for width in (512, 1024):
            vectors = rng.normal(size=(count, width)).astype(np.float32)
            timed(f"Vendi score, {width:,} numbers", diversity.vendi_score, vectors)
        with tempfile.TemporaryDirectory() as folder:
            with open(Path(folder) / "Basque_translate.jsonl", "w", encoding="utf-8") as file:
                for start in range(0, count, 3):
                    three = texts[start : start + 3]
                    record = {"sentence": " ".join(three), "propositions": three, "translations": three}
                    file.write(json.dumps(record) + "\n")
            timed("read, and all but the Vendi score", everything, folder)
    print(f"peak memory {peak_mib() / 2**10:.1f} GiB")


if __name__ == "__main__":
    main()
