"""Useful tokens per second in training: packed rows, padding to --max_length, and concatenated texts.

    python scripts/perf/packing_speed.py models/gemma-3-270m --ntrex ../benchmarks/NTREX-128 --language Basque

Pairs, model and LoRA are the same; the two baselines use transformers' own Trainer (all logits, its own loss). Padding does
not count as useful. Layouts alternate, so that noise on the machine affects all of them; ratios are taken within a round.
Without --ntrex the pairs are those of the UDHR.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
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
        from topxgen.text import languages

        code = languages.find(args.language).ntrex.split("_")[0]
        files = ("newstest2019-src.eng.txt", f"newstest2019-ref.{code}.txt")
        sides = list(
            zip(*((args.ntrex / name).read_text(encoding="utf-8").split("\n") for name in files), strict=False)
        )
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    from transformers import AutoModelForCausalLM, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
    from transformers.utils import logging

    from topxgen.training.trainer import EvalSets, PairTrainer

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

    class Clock(TrainerCallback):
        def __init__(self):
            self.times = []

        def on_step_end(self, *_, **__):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())

    def measure(name: str) -> float:
        rows, collator = layouts[name]
        clock, seen = Clock(), []

        def counting(batch):
            seen.append(sum(len(row["input_ids"]) for row in batch))
            return collator(batch)

        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=args.rows,
                max_steps=args.steps + 1,
                bf16=True,
                use_cpu=not torch.cuda.is_available(),
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                remove_unused_columns=False,
                label_names=["labels"],
            )
            common = dict(model=model, args=arguments, data_collator=counting, train_dataset=rows, callbacks=[clock])
            if name == "packed":
                trainer = PairTrainer(
                    **common, processing_class=tokenizer, eval_sets=EvalSets(), decoder=True, pad=pad, loss_chunk_size=1024,
                    save_total_limit=None, finish=lambda *_: None,
                )  # fmt: skip
            else:
                trainer = Trainer(**common)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        if name == "packed":
            trainer.token_loss.remove()  # the next Trainer has the model's own
        return sum(seen[1 : args.steps + 1]) / (clock.times[args.steps] - clock.times[0])

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
