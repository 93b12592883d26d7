"""kill -9 of Ray workers, and of the command itself, at random moments of whole runs; are the files those of one process?

    PYTHONPATH=. OMP_NUM_THREADS=1 python scripts/perf/ray_kills.py --kills 24 --out /tmp/ray_kills

datagen.py (an LLM, NLLB, BLASER, all tiny) and decontamination.py in turn, two workers on this machine; a command that was killed
is run again. Prints how many kills there were in which stage, and what was lost, doubled or different.
"""

import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

from measuring import command_line

from tests.support import tiny_models
from tests.support.ray_runs import TRANSLATED, Driver, differences, small_command
from tests.support.runs import script
from tests.support.tiny_lm import build_lm, trained_once

DRIVER_SHARE = 0.2  # of the kills


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--kills", type=int, default=24, metavar="N", help="at least this many kills")
    parser.add_argument("--paragraphs", type=int, default=300, metavar="N", help="paragraphs of each of two languages")
    parser.add_argument("--pairs", type=int, default=40_000, metavar="N", help="pairs of the file to decontaminate")
    parser.add_argument(
        "--every", type=float, default=8, metavar="S", help="seconds between kills, on average; models have to load"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the moments and of who is killed")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="an empty folder for runs and models")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    lm, nllb = args.out / "lm", args.out / "nllb"
    trained_once("tiny_lm", build_lm)(lm)
    pairs = tiny_models.udhr_pairs("Basque")
    trained_once("tiny_nllb", lambda folder: tiny_models.build_nllb(folder, pairs, steps=160))(nllb)
    datagen = ("datagen.py", *small_command(str(lm), str(nllb), args.out, args.paragraphs), "--output_dir")
    write_pairs(args.out / "pairs", args.pairs, random.Random(3))
    clean = ("decontamination.py", "--input_dir", args.out / "pairs", "--benchmarks", "udhr", "--output_dir")
    rng, kills, wrong, given_up, runs = random.Random(args.seed), Counter(), [], 0, 0
    for command in (datagen, clean):
        script(*command, args.out / command[0], check=None)
    while kills.total() < args.kills:
        command = (clean, datagen)[runs % 2]
        folder, runs = args.out / f"killed-{runs}", runs + 1
        given_up += run(command, folder, args.every, rng, kills)
        wrong += [f"{folder}: {what}" for what in differences(folder, args.out / command[0])]
        print(
            f"{runs} runs, kills {dict(kills)}, {given_up} runs ended after 5 losses, different: {wrong or 'nothing'}",
            flush=True,
        )
    sys.exit(bool(wrong))


def run(command: tuple, folder: Path, every: float, rng: random.Random, kills: Counter) -> int:
    """Run a command, killing at random, until it ends by itself; how often it gave up."""
    given_up = 0
    while True:
        driver = Driver(*command, folder)
        while driver.process.poll() is None:
            until = time.monotonic() + rng.uniform(0.1, 1.9) * (every if command[0] == "datagen.py" else every / 4)
            driver.wait_for(lambda until=until: time.monotonic() > until)
            victims = driver.workers()
            if driver.process.poll() is None and victims:
                of_driver = rng.random() < DRIVER_SHARE
                kills[f"{stage(command, folder)}, {'the command' if of_driver else 'a worker'}"] += 1
                (driver.process if of_driver else rng.choice(victims)).kill()
                print(dict(kills), file=sys.stderr, flush=True)
        code, err = driver.ended()
        if code in (0, 3):
            return given_up
        given_up += "were lost one after the other" in err
        # Ray gives its own processes 30 seconds to start, too few on a machine that others keep busy.
        assert code == -9 or "were lost one after the other" in err or "cannot start Ray" in err, err


def stage(command: tuple, folder: Path) -> str:
    if command[0] != "datagen.py":
        return "decontaminate"
    done = [(folder / "manifest_generate.json").exists(), (folder / TRANSLATED / "manifest_translate.json").exists()]
    return ("generate", "translate", "score")[sum(done)]


def write_pairs(folder: Path, number: int, rng: random.Random) -> None:
    folder.mkdir()
    texts = [text for text in tiny_models.udhr_texts("Basque") if len(text.split()) > 15]
    with open(folder / "Basque_translate.jsonl", "w", encoding="utf-8") as file:
        for i in range(number):
            text = rng.choice(texts)
            words = text.split()
            sentence = text if i % 1000 == 7 else " ".join(rng.choice(words) for _ in range(80))
            lists = {"propositions": [sentence], "translations": [sentence[::-1]], "scores": [None]}
            record = {"id": str(i), "sentence": sentence, **lists}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
