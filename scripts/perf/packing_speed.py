"""Useful tokens per second in training: packed rows, padding to --max_length, and concatenated texts.

    python scripts/perf/packing_speed.py models/gemma-3-270m --ntrex ../benchmarks/NTREX-128 --language Basque

Pairs, each in both directions, model and LoRA are the same; the two baselines use transformers' own Trainer (all logits, its own
loss). Padding does not count as useful. Layouts alternate, so that noise on the machine affects all of them; ratios are taken within
a round.
"""

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

PAIRS, MAX_LENGTH = 900, 512  # tokens of a row
STEPS, ROUNDS = 3, 3  # timed steps of a round, after an untimed one


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
    parser.add_argument("--ntrex", type=Path, required=True, metavar="DIR", help="folder NTREX-128 of its repository")
    parser.add_argument("--language", default="Basque", help="target language [%(default)s]")
    args = parser.parse_args()
    sides = zip(*ntrex(args.ntrex, "English", args.language), strict=True)
    pairs = [Pair(a, b, "English", args.language, "") for a, b in sides if a.strip() and b.strip()][:PAIRS]

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = load_tokenizer(ModelSettings(args.model))
    encoded = CausalTokenizer(tokenizer, "14", len(tokenizer)).encode(reverse(pairs), MAX_LENGTH)
    pad = tokenizer.pad_token_id or 0
    layouts = {
        "packed": (decoder_rows(encoded, "bestfit", MAX_LENGTH, True), DecoderCollator(pad)),
        "padded": (decoder_rows(encoded, "none", MAX_LENGTH, True), Padded(pad, MAX_LENGTH)),
        "concatenated": (decoder_rows(encoded, "concat", MAX_LENGTH, True), DecoderCollator(pad, packed=False)),
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
        options = dict(per_device_train_batch_size=1, max_steps=STEPS + 1)
        times = step_times(packed if name == "packed" else Trainer, model, rows, counting, **options)
        return sum(seen[1 : STEPS + 1]) / (times[STEPS] - times[0])

    print(
        f"{len(encoded)} texts, mean {encoded.lengths.mean():.0f} tokens; rows of {MAX_LENGTH}: "
        + ", ".join(f"{name} {len(rows)}" for name, (rows, _) in layouts.items())
    )
    learned = sum(int((layouts["packed"][0][i]["labels"] != IGNORED).sum()) for i in range(len(layouts["packed"][0])))
    print(f"{learned / encoded.lengths.sum():.0%} of the tokens have a loss")
    for number in range(1, ROUNDS + 1):
        speed = {name: measure(name) for name in layouts}
        print(
            f"round {number}: packed {speed['packed']:.0f} useful tokens/s, padded {speed['padded']:.0f} "
            f"({speed['packed'] / speed['padded']:.2f} times), concatenated "
            f"{speed['concatenated']:.0f} ({speed['packed'] / speed['concatenated']:.2f} times)"
        )


if __name__ == "__main__":
    main()
