"""Fine-tune a decoder LM or an NLLB-like model on parallel data: generated pairs, FLORES, SMOL, UDHR, or your own.

The published recipe on four GPUs (Llama-3-8B, both directions):

    accelerate launch --config_file configs/zero3.yaml train.py --model_name_or_path meta-llama/Meta-Llama-3-8B \\
        --dataset_name_or_path topxgen --data_dir outputs/gemma-3-27b-it/nllb-200-3.3B --target_languages Basque Hausa \\
        --src English --reverse --targets_only --test_size_ratio 1000 --max_length 512 --max_steps 5000 \\
        --per_device_train_batch_size 4 --gradient_accumulation_steps 4 --learning_rate 1e-5 --num_warmup_steps 500 \\
        --weight_decay 0.01 --bf16 --gradient_checkpointing --output_dir outputs/llama-3-8b-topxgen

LoRA on one GPU: add --use_peft --lora_r 32 --lora_alpha 64 --learning_rate 1e-4. Without GPU or network (what
scripts/demo.sh runs):

    python train.py --model_name_or_path models/gemma-3-270m --dataset_name_or_path udhr --target_languages Basque \\
        --reverse --targets_only --use_peft --bf16 --learning_rate 3e-4 --max_steps 30 --output_dir outputs/demo/train

The best checkpoint lies in --output_dir itself, as a model that transformers, vLLM and datagen.py load. Killed? The same
command goes on from the last checkpoint. `--dry_run` shows the data as the model will see it, and loads no weights.
"""

import argparse
import atexit
import json
import logging
import os
import sys
from pathlib import Path

from topxgen.common.cli import FLAG, Parser, float_range, int_range, json_object, run_main
from topxgen.common.errors import UsageError
from topxgen.training import run, training_data
from topxgen.training.model import LEFT_OUT_FILE, TrainableModel
from topxgen.training.packing import PACKINGS
from topxgen.training.plan import (
    DEFAULT_STEPS,
    IS_MAIN_PROCESS,
    build_sets,
    open_stream,
    settings_of,
    settle,
    show_batch,
    show_rows,
)

logger = logging.getLogger("topxgen.train")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)

    group = parser.add_argument_group("model")
    group.add_argument(
        "--model_name_or_path", required=True, metavar="MODEL", help="a Hub id or a folder; its config decides the path"
    )
    group.add_argument("--tokenizer_name_or_path", metavar="MODEL", help="[the model's]")
    group.add_argument("--eos_token_id", type=int_range(0), metavar="ID", help="that ends an answer [the tokenizer's]")
    group.add_argument("--output_dir", type=Path, required=True, metavar="DIR")
    group.add_argument("--trust_remote_code", **FLAG, help="run code that comes with the model")

    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset_name_or_path",
        default="topxgen",
        metavar="NAME",
        help="topxgen (or ours), flores, smol, udhr (embedded); a jsonl, json, csv, tsv or parquet file, a folder of "
        "`datasets`, an export; a Hub id [%(default)s]",
    )
    group.add_argument(
        "--data_dir",
        type=Path,
        metavar="DIR",
        help="topxgen: holds {Language}_translate_filtered.jsonl; flores, smol: local copies in their publishers' layout",
    )
    group.add_argument("--src", default="English", metavar="LANGUAGE", help="[%(default)s]")
    group.add_argument("--target_languages", nargs="+", default=[], metavar="LANGUAGE", help="English names or codes")
    group.add_argument(
        "--languages_file", metavar="TSV", help="rows of your own, with the columns of topxgen/text/languages.tsv"
    )
    group.add_argument("--reverse", **FLAG, help="train the other direction, too (after the split)")
    group.add_argument("--subset", metavar="CONFIG", help="of a Hub set; smol: smolsent or smoldoc")
    group.add_argument("--split", metavar="SPLIT", help="[train; flores, udhr: dev]")
    group.add_argument(
        "--input_column_name", default="prompt", metavar="COLUMN", help="source, or finished text [%(default)s]"
    )
    group.add_argument("--output_column_name", metavar="COLUMN", help="target [none: the input is finished text]")
    group.add_argument(
        "--percentile",
        type=float_range(0, 100),
        metavar="P",
        help="only pairs whose score is above the P-th percentile",
    )
    group.add_argument("--dataset_size", type=int_range(-1), default=-1, metavar="N", help="pairs a language; -1: all")
    group.add_argument(
        "--strategy",
        choices=training_data.STRATEGIES,
        default="soonest",
        help="which N: the first, the best scores, a random draw [%(default)s]",
    )
    group.add_argument(
        "--test_size_ratio",
        type=float_range(0),
        default=0.1,
        metavar="SHARE_OR_COUNT",
        help="held out: a share up to 1, a count above [%(default)s]",
    )
    group.add_argument("--streaming", **FLAG, help="never hold the data in memory (files and Hub sets)")
    group.add_argument("--shuffle_buffer", type=int_range(1), default=5000, help="streaming [%(default)s]")
    group.add_argument(
        "--size_valid_set",
        type=int_range(0),
        default=1000,
        metavar="N",
        help="streaming: the first pairs, which are held out [%(default)s]",
    )
    group.add_argument(
        "--num_of_sequences", type=int_range(1), default=1000, help="streaming: pairs packed together [%(default)s]"
    )
    group.add_argument("--export_dir", type=Path, metavar="DIR", help="write the two sets there, too")
    group.add_argument(
        "--export_formats", nargs="+", choices=training_data.FORMATS, default=list(training_data.FORMATS), help="[all]"
    )
    group.add_argument("--seed", type=int_range(0), default=122, help="[%(default)s]")
    group.add_argument("--dry_run", **FLAG, help="show counts, rows and the first texts, and leave")

    group = parser.add_argument_group("what is learned")
    group.add_argument("--targets_only", **FLAG, help="loss on the target and EOS alone (decoders)")
    group.add_argument("--max_length", type=int_range(8), default=2048, metavar="TOKENS", help="of a row [%(default)s]")
    group.add_argument(
        "--packing",
        choices=PACKINGS,
        default="bestfit",
        help="decoders: best-fit without leaks; the old concatenate-and-cut; one pair a row [%(default)s]",
    )
    group.add_argument(
        "--template_key",
        default="14",
        help="decoders: number or name in topxgen/prompting/mt_templates.toml; none: input and output as they stand [%(default)s]",
    )
    group.add_argument(
        "--neftune_noise_alpha", type=float_range(0), metavar="ALPHA", help="noise on the embeddings [off]"
    )

    group = parser.add_argument_group("adapters and memory")
    group.add_argument("--use_peft", **FLAG, help="LoRA")
    group.add_argument("--lora_r", type=int_range(1), default=16, help="[%(default)s]")
    group.add_argument("--lora_alpha", type=float_range(0), default=32, help="[%(default)s]")
    group.add_argument("--lora_dropout", type=float_range(0, 1), default=0.05, help="[%(default)s]")
    group.add_argument("--target_modules", nargs="+", metavar="NAME", help="[all linear layers]")
    group.add_argument("--use_dora", **FLAG, help="weight-decomposed LoRA")
    group.add_argument("--load_in_8bit", **FLAG, help="frozen weights in 8 bits (bitsandbytes)")
    group.add_argument("--load_in_4bit", **FLAG, help="in 4 bits, QLoRA")
    group.add_argument("--fp16", **FLAG)
    group.add_argument("--bf16", **FLAG)
    group.add_argument("--gradient_checkpointing", **FLAG, help="less memory, a third slower")
    group.add_argument("--use_flash_attn", **FLAG, help="flash attention, if installed")
    group.add_argument("--use_liger_kernel", **FLAG, help="Liger kernels (GPU)")
    group.add_argument("--deepspeed", metavar="JSON", help="a DeepSpeed config; or launch with configs/zero3.yaml")

    group = parser.add_argument_group("optimisation")
    group.add_argument("--max_steps", type=int_range(-1), metavar="N", help=f"[{DEFAULT_STEPS}]")
    group.add_argument(
        "--num_train_epochs", type=float_range(0.001), metavar="N", help="instead of --max_steps (which wins)"
    )
    group.add_argument(
        "--per_device_train_batch_size", type=int_range(1), default=4, metavar="ROWS", help="[%(default)s]"
    )
    group.add_argument(
        "--per_device_eval_batch_size", type=int_range(1), default=4, metavar="ROWS", help="[%(default)s]"
    )
    group.add_argument("--gradient_accumulation_steps", type=int_range(1), default=4, help="[%(default)s]")
    group.add_argument("--learning_rate", type=float_range(0), default=5e-6, help="[%(default)s]")
    group.add_argument("--min_learning_rate", type=float_range(0), help="where the schedule ends")
    group.add_argument("--lr_scheduler_type", choices=run.SCHEDULERS, default="cosine", help="[%(default)s]")
    group.add_argument("--lr_scheduler_kwargs", type=json_object, metavar="JSON", help='such as {"num_cycles": 2}')
    group.add_argument("--num_warmup_steps", type=int_range(0), default=100, help="[%(default)s]")
    group.add_argument("--weight_decay", type=float_range(0), default=0.05, help="[%(default)s]")
    group.add_argument(
        "--num_workers", type=int_range(0), default=24, help="that load data, one a spare core at most [24]"
    )

    group = parser.add_argument_group("checkpoints and evaluation")
    group.add_argument("--logging_steps", type=int_range(1), default=10, help="[%(default)s]")
    group.add_argument("--eval_steps", type=int_range(1), default=10, help="also at every save [%(default)s]")
    group.add_argument("--save_steps", type=int_range(1), default=50, help="[%(default)s]")
    group.add_argument("--save_total_limit", type=int_range(1), default=3, help="the best is kept, too [%(default)s]")
    group.add_argument(
        "--num_eval_translations",
        type=int_range(0),
        default=0,
        metavar="N",
        help="translate so many held-out pairs of each direction at every evaluation: chrF++, BLEU [%(default)s]",
    )
    group.add_argument(
        "--metric_for_best_model",
        choices=("loss", "chrf", "bleu"),
        help="what the best checkpoint has [chrf, without translations loss]",
    )
    group.add_argument(
        "--early_stopping_patience",
        type=int_range(1),
        metavar="N",
        help="stop after N evaluations without a better one",
    )
    group.add_argument("--report_to", nargs="+", choices=("tensorboard", "wandb"), help="besides the log here [none]")
    group.add_argument("--push_to_hub", **FLAG, help="upload the best model, privately, when done (HF_TOKEN)")
    group.add_argument("--hub_model_id", metavar="ID", help="[the name of the output directory]")
    return parser


def train(args: argparse.Namespace) -> int:
    from topxgen.common.locks import OutputLock

    args = settle(args)
    if "WORLD_SIZE" not in os.environ and not args.dry_run:
        run.one_gpu_or_launch()
    run.check_schedule(args)
    pairs, test, facts = open_stream(args) if args.streaming else build_sets(args)
    for line in run.funnel_lines(facts):
        logger.info(line)
    if args.targets_only and not all(pair.src for pair in (*test, *(() if args.streaming else pairs))):
        raise UsageError(
            "--targets_only: text of one column has no target; pass --output_column_name, or drop the flag"
        )
    if args.export_dir and IS_MAIN_PROCESS:
        written = training_data.export(pairs, test, args.export_dir, args.export_formats, args.languages_file)
        logger.info(f"exported: {', '.join(map(str, written))}")
    model = TrainableModel(args)
    if args.streaming:
        rows = model.streamed(pairs, test)
        if next(iter(rows), None) is None:
            raise UsageError(
                f"nothing is left to train on after the first --size_valid_set {args.size_valid_set} pairs that fits "
                f"--max_length {args.max_length} tokens: lower the one or raise the other"
            )
        show_batch(args)
    else:
        encoded = model.encode(pairs)
        if not len(encoded):
            shortest = min(tokens for _, tokens in encoded.too_long)
            raise UsageError(
                f"no pair is as short as --max_length {args.max_length} tokens; the shortest has {shortest}"
            )
        rows = model.rows(encoded)
        show_rows(args, model, encoded, rows)
    if args.dry_run:
        if not args.streaming:
            run.note_left_out(args, model, encoded, pairs, "training")
        return 0
    settings = json.loads(json.dumps(settings_of(args, facts), default=str))
    lock = OutputLock(args.output_dir) if IS_MAIN_PROCESS else None
    try:
        run.check_output_dir(args.output_dir, settings)
        if run.is_finished(args.output_dir):
            return 0
        if IS_MAIN_PROCESS:
            (args.output_dir / LEFT_OUT_FILE).unlink(missing_ok=True)
        if not args.streaming:
            run.note_left_out(args, model, encoded, pairs, "training")
        return run.run(args, model, rows, test, facts, settings)
    finally:
        if lock is not None:
            lock.release()


def main() -> int:
    return run_main(
        build_parser(), train, "checkpoints are on disk; re-run the same command to resume from the last one"
    )


def exit_process(code: int) -> None:
    """End this process. Of several, threads of torch's process groups now and then abort Python while it tidies up,
    and a job that is done would count as failed."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    exit_process(main())
