"""A tiny NLLB learns a toy language from nothing, in both directions, through train.py.

    python scripts/perf/toy_nllb.py

The toy language has a word for each of 80 English ones, puts the verb last and the adjective after its noun. Its sentences
go by the language code of Esperanto; 200 held-out ones are translated at the end. Takes a minute on two cores.
"""

import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import ROOT, as_flags, command_line

os.environ.setdefault("HF_HUB_OFFLINE", "1")

NOUNS, ADJECTIVES, VERBS = (
    words.split()
    for words in (
        "dog cat bird horse river stone house tree child king queen baker teacher sailor farmer doctor road bridge garden "
        "window table apple letter song story market village mountain cloud star moon fire lamp boat field forest island",
        "old young red green blue small large quiet loud happy sad clever brave lazy cold warm bright dark heavy light",
        "sees hears follows finds loves fears builds paints carries helps remembers forgets watches calls greets guards "
        "leaves meets moves needs",
    )
)


def toy_words(rng: random.Random) -> dict[str, str]:
    """An invented word for each English one."""
    syllables = [a + b for a, b in itertools.product("bdfgklmnprstvz", "aeiou")]
    words: dict[str, str] = {}
    for word in (*NOUNS, *ADJECTIVES, *VERBS, "the", "two", "every"):
        while (invented := "".join(rng.choices(syllables, k=rng.choice((2, 3))))) in words.values():
            pass
        words[word] = invented
    return words


def sentence(rng: random.Random, words: dict[str, str]) -> tuple[str, str]:
    def phrase() -> tuple[list[str], list[str]]:
        determiner, noun = rng.choice(("the", "every")), rng.choice(NOUNS)
        adjectives = rng.sample(ADJECTIVES, rng.choice((0, 1, 1, 2)))
        return [determiner, *adjectives, noun], [determiner, noun, *reversed(adjectives)]

    subject, thing, verb = phrase(), phrase(), rng.choice(VERBS)
    english = [*subject[0], verb, *thing[0]]
    toy = [words[word] for word in (*subject[1], *thing[1], verb)]
    return " ".join(english).capitalize() + ".", " ".join(toy).capitalize() + "."


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--pairs", type=int, default=6000, help="sentences to generate [%(default)s]")
    parser.add_argument("--steps", type=int, default=1500, help="training steps [%(default)s]")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="[%(default)s]")
    args = parser.parse_args()
    from tests.support.tiny_models import build_nllb
    from topxgen.common.files import read_jsonl

    rng = random.Random(1)
    words = toy_words(rng)
    pairs = list(dict.fromkeys(sentence(rng, words) for _ in range(args.pairs)))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        rows = [{"source": a, "target": b} for a, b in pairs]
        (folder / "toy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        # The standard deviation of fairseq's Xavier initialization at this width; the default suits models eight times as wide.
        model = build_nllb(folder / "model", pairs, width=128, vocabulary=700, init_std=0.08)
        started = time.perf_counter()
        output = folder / "run"
        flags = as_flags(
            model_name_or_path=model, dataset_name_or_path=folder / "toy.jsonl", target_languages="Esperanto", reverse=True,
            test_size_ratio=200, max_length=64, max_steps=args.steps, num_warmup_steps=200, learning_rate=args.learning_rate,
            weight_decay=0.01, per_device_train_batch_size=32, gradient_accumulation_steps=1, num_eval_translations=200,
            eval_steps=args.steps // 3, save_steps=args.steps // 3, logging_steps=50, output_dir=output,
        )  # fmt: skip
        subprocess.run([sys.executable, "train.py", *flags], cwd=ROOT, check=True)
        log = list(read_jsonl(output / "train_log.jsonl"))
        best = json.loads((output / "manifest_train.json").read_text())["best_checkpoint"]
        shown = {entry["step"]: entry for entry in log if "eval_chrf" in entry}
        first, last = shown[0], shown[int(best.rpartition("-")[2])]
        print(f"{len(pairs)} pairs, {args.steps} steps, {time.perf_counter() - started:.0f} s with evaluation")
        for name in ("English to Esperanto", "Esperanto to English"):
            print(
                f"{name.replace('Esperanto', 'toy')}: chrF++ {first[f'eval_chrf_{name}']:.1f} -> {last[f'eval_chrf_{name}']:.1f}, "
                f"BLEU {first[f'eval_bleu_{name}']:.1f} -> {last[f'eval_bleu_{name}']:.1f} on 200 held-out sentences"
            )


if __name__ == "__main__":
    main()
