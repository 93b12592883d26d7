"""Useful tokens per second in training: packed rows, padding to --max_length, and concatenated texts.

    python scripts/perf/packing_speed.py models/gemma-3-270m --ntrex ../benchmarks/NTREX-128 --language Basque

Pairs, model and LoRA are the same; the two baselines use transformers' own Trainer (all logits, its own loss). Padding does
not count as useful. Layouts alternate, so that noise on the machine affects all of them; ratios are taken within a round.
Without --ntrex the pairs are those of the UDHR.
"""

import argparse
import os
from functools import partial
from pathlib import Path

from measuring import command_line, ntrex
from train_gpu import pair_trainer, step_times

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from topxgen.inference import ModelSettings
from topxgen.inference.tokenizer import load_tokenizer
from topxgen.training.packing import IGNORED, DecoderCollator, decoder_rows
from topxgen.training.pairs import Pair, reverse
from topxgen.training.tokenization import CausalTokenizer


def pairs_of(args: argparse.Namespace) -> list[Pair]:
    if args.ntrex is None:
        from tests.support.tiny_models import udhr_pairs

        sides = [(b, a) for a, b in udhr_pairs(args.language)]
    else:
        sides = zip(*ntrex(args.ntrex, "English", args.language), strict=True)
    pairs = [Pair(a, b, "English", args.language, "") for a, b in sides if a.strip() and b.strip()]
    return reverse(pairs[: args.pairs])


class Padded(DecoderCollator):
    """Pads every row to the same length, as with padding="max_length"."""

    def __init__(self, pad: int, length: int):
        super().__init__(pad, packed=False)
        self._filler, self._length = pad, length

    def __call__(self, rows):
        from torch.nn.functional import pad

        fill = {"input_ids": self._filler, "labels": IGNORED, "attention_mask": 0}
        batch = super().__call__(rows)
        return {k: pad(v, (0, self._length - v.shape[1]), value=fill[k]) for k, v in batch.items()}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("model", help="a decoder LM: a folder or a Hub id")
    parser.add_argument("--ntrex", type=Path, metavar="DIR", help="folder NTREX-128 of its repository [the UDHR]")
    parser.add_argument("--language", default="Basque", help="target language [%(default)s]")
    parser.add_argument("--pairs", type=int, default=900, help="pairs, each used in both directions [%(default)s]")
    parser.add_argument("--max_length", type=int, default=512, help="tokens per row [%(default)s]")
    parser.add_argument("--rows", type=int, default=1, help="rows per batch [%(default)s]")
    parser.add_argument(
        "--steps", type=int, default=3, help="timed steps per round, after an untimed one [%(default)s]"
    )
    parser.add_argument("--rounds", type=int, default=3, help="[%(default)s]")
    args = parser.parse_args()

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = load_tokenizer(ModelSettings(args.model))
    encoded = CausalTokenizer(tokenizer, "14", len(tokenizer)).encode(pairs_of(args), args.max_length)
    pad = tokenizer.pad_token_id or 0
    layouts = {
        "packed": (decoder_rows(encoded, "bestfit", args.max_length, True), DecoderCollator(pad)),
        "padded": (decoder_rows(encoded, "none", args.max_length, True), Padded(pad, args.max_length)),
        "concatenated": (decoder_rows(encoded, "concat", args.max_length, True), DecoderCollator(pad, packed=False)),
    }
    model = AutoModelForCausalLM.from_pretrained(
        args.model, trust_remote_code=False, dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    lora = LoraConfig(task_type="CAUSAL_LM", r=32, lora_alpha=64, lora_dropout=0.0, target_modules="all-linear")
    model = get_peft_model(model, lora)

    def measure(name: str) -> float:
        rows, collator = layouts[name]
        seen = []

        def counting(batch):
            seen.append(sum(len(row["input_ids"]) for row in batch))
            return collator(batch)

        packed = partial(pair_trainer, processing_class=tokenizer, pad=pad, loss_chunk_size=1024)
        options = dict(per_device_train_batch_size=args.rows, max_steps=args.steps + 1)
        times = step_times(packed if name == "packed" else Trainer, model, rows, counting, **options)
        return sum(seen[1 : args.steps + 1]) / (times[args.steps] - times[0])

    print(
        f"{len(encoded)} texts, mean {encoded.lengths.mean():.0f} tokens; rows of {args.max_length}: "
        + ", ".join(f"{name} {len(rows)}" for name, (rows, _) in layouts.items())
    )
    learned = sum(int((layouts["packed"][0][i]["labels"] != IGNORED).sum()) for i in range(len(layouts["packed"][0])))
    print(f"{learned / encoded.lengths.sum():.0%} of the tokens have a loss")
    for number in range(1, args.rounds + 1):
        speed = {name: measure(name) for name in layouts}
        print(
            f"round {number}: packed {speed['packed']:.0f} useful tokens/s, padded {speed['padded']:.0f} "
            f"({speed['packed'] / speed['padded']:.2f} times), concatenated "
            f"{speed['concatenated']:.0f} ({speed['packed'] / speed['concatenated']:.2f} times)"
        )


if __name__ == "__main__":
    main()
