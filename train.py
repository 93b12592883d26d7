"""Fine-tune a decoder LM, or an encoder-decoder such as NLLB, on parallel data.

The data: generated pairs (topxgen), FLORES, SMOL, the UDHR, or files and Hub data sets of your own. The published recipe on
four GPUs (Llama-3-8B, both directions):

    accelerate launch --config_file configs/zero3.yaml train.py --model_name_or_path meta-llama/Meta-Llama-3-8B \\
        --dataset_name_or_path topxgen --data_dir outputs/gemma-3-27b-it/nllb-200-3.3B --target_languages Basque Hausa \\
        --src English --reverse --targets_only --test_size_ratio 1000 --max_length 512 --max_steps 5000 \\
        --per_device_train_batch_size 4 --gradient_accumulation_steps 4 --learning_rate 1e-5 --num_warmup_steps 500 \\
        --weight_decay 0.01 --bf16 --gradient_checkpointing --output_dir outputs/llama-3-8b-topxgen

LoRA on one GPU: add --use_peft --lora_r 32 --lora_alpha 64 --learning_rate 1e-4. Without a GPU or network (as in
scripts/demo.sh):

    python train.py --model_name_or_path models/gemma-3-270m --use_peft --lora_r 32 --lora_alpha 64 --bf16 \\
        --dataset_name_or_path udhr --target_languages Basque --reverse --targets_only --max_length 256 \\
        --test_size_ratio 0.15 --max_steps 24 --num_warmup_steps 4 --learning_rate 5e-4 --per_device_train_batch_size 1 \\
        --gradient_accumulation_steps 1 --eval_steps 12 --save_steps 12 --output_dir outputs/demo/train-udhr

The best checkpoint is copied to --output_dir itself, as a model that transformers, vLLM, datagen.py and main.py load. If a
run is interrupted, re-run the same command: it resumes from the last checkpoint. --dry_run shows the data as the model will
see it, without loading weights.
"""

import argparse
import atexit
import logging
import os
import sys
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path

from topxgen.common import environment, files, flag_rules, hub, lineage, rates
from topxgen.common import needs as wanted
from topxgen.common.cli import FLAG, Parser, count, float_range, int_range, json_object, run_main
from topxgen.common.console import quiet
from topxgen.common.errors import UsageError
from topxgen.common.locks import OutputLock
from topxgen.common.needs import Need
from topxgen.flags import add_language_flags, add_partial_benchmark_flag
from topxgen.inference.costs import Estimate
from topxgen.training import arguments, named_datasets, run, training_data
from topxgen.training.arguments import DEFAULT_STEPS, SCHEDULERS
from topxgen.training.dataset_spec import DatasetSpec
from topxgen.training.export import FORMATS, export
from topxgen.training.export import check as check_export
from topxgen.training.flag_rules import RAW_TEXT_RULES, RULES, check_exclusive
from topxgen.training.model import SKIPPED_PAIRS_FILE, TrainableModel
from topxgen.training.packing import PACKINGS

logger = logging.getLogger("topxgen.train")


def build_parser() -> Parser:
    parser = Parser(__doc__, section="train", rules=RULES, check=check_exclusive)

    add = parser.add_argument_group("model").add_argument
    add("--model_name_or_path", required=True, metavar="MODEL", help="base model: a Hub id or a folder")
    add("--tokenizer_name_or_path", metavar="MODEL", help="tokenizer, if it is not the model's own")
    add("--eos_token_id", type=int_range(0), metavar="ID", help="token that ends a response [the tokenizer's EOS]")
    add("--output_dir", type=Path, required=True, metavar="DIR", help="checkpoints, log and the best model")
    add("--trust_remote_code", **FLAG, help="run Python code that comes with the model; off by default")

    add = parser.add_argument_group("data").add_argument
    # fmt: off
    add("--dataset_name_or_path", default="topxgen", metavar="NAME",
        help="topxgen (or ours): generated pairs in --data_dir; flores: FLORES-200; smol: SMOL; udhr: the embedded Universal "
             "Declaration of Human Rights; a jsonl, json, csv, tsv or parquet file; a folder with such files, an export or a "
             "saved `datasets` folder; or a Hub id")
    add("--data_dir", nargs="+", type=Path, default=[], metavar="DIR",
        help="topxgen: output of decontamination.py; of several, --dataset_size takes equal shares; flores, smol: local copy")
    add_partial_benchmark_flag(add)
    add("--src", default="English", metavar="LANGUAGE", help="source language of the pairs")
    add("--target_languages", nargs="+", default=[], metavar="LANGUAGE", help="English names or FLORES codes")
    add_language_flags(add)
    add("--reverse", **FLAG, help="also train the other direction, with the same held-out pairs")
    add("--subset", metavar="CONFIG", help="configuration of a Hub data set; smol: smolsent or smoldoc [smolsent]")
    add("--split", metavar="SPLIT", help="split to train on [train; flores and udhr: dev]")
    add("--input_column_name", default="prompt", metavar="COLUMN",
        help="column of source or raw text [source, where there is a target, too; else prompt]")
    add("--output_column_name", metavar="COLUMN", help="column of the target [none: train on raw text]")
    add("--percentile", type=float_range(0, 100), metavar="P", help="keep pairs with scores above the P-th percentile")
    add("--dataset_size", type=int_range(-1), default=-1, metavar="N", help="pairs per language; -1: all")
    add("--strategy", choices=training_data.STRATEGIES, default="soonest",
        help="which --dataset_size pairs; soonest: the first; highest: the best scores; random: a sample")
    add("--drop_duplicates", choices=training_data.DROP_DUPLICATES, default="after",
        help="when pairs that another one equals are dropped; after: from the selected ones, as published; before: first, so "
             "that --dataset_size pairs are that many different ones")
    add("--test_size_ratio", type=float_range(0), default=0.1, metavar="SHARE_OR_COUNT",
        help="held-out pairs: up to 1 a share, above 1 a number, 0 none")
    add("--streaming", **FLAG, help="never hold the data in memory (files and Hub data sets); needs --max_steps")
    add("--shuffle_buffer", **count(1, "streaming: pairs to shuffle", 5000))
    add("--size_valid_set", **count(0, "streaming: held-out pairs", 1000))
    add("--num_of_sequences", **count(1, "streaming: pairs to pack", 1000))
    add("--export_dir", type=Path, metavar="DIR", help="also write training and test set to files in this folder")
    add("--export_formats", nargs="+", choices=FORMATS, default=list(FORMATS), help="formats of --export_dir [all]")
    add("--seed", type=int_range(0, 2**32 - 1), default=122, help="seed of split, shuffling and training")
    add("--dry_run", **FLAG, help="show counts, steps and the first training texts, then exit; writes nothing")

    add = parser.add_argument_group("training texts").add_argument
    add("--targets_only", **FLAG, help="decoder LMs: loss on target and EOS only, not on the prompt")
    add("--max_length", type=int_range(8, 2**20), default=2048, metavar="TOKENS",
        help="longest row of tokens to train on")
    add("--packing", choices=PACKINGS, default="bestfit",
        help="decoder LMs; bestfit: whole pairs packed into rows, attention within pairs; concat: all texts concatenated and "
             "cut, as in the paper's code; none: one pair per row")
    add("--template_key", default="14", metavar="KEY",
        help="decoder LMs: MT template, a number or name in topxgen/prompting/mt_templates.toml; none: source and target are "
             "concatenated as they are")
    add("--neftune_noise_alpha", type=float_range(0, 1000), metavar="ALPHA", help="NEFTune: noise on embeddings [off]")

    add = parser.add_argument_group("adapters and memory").add_argument
    add("--use_peft", **FLAG, help="train a LoRA adapter instead of all weights")
    add("--lora_r", type=int_range(1, 4096), default=16, metavar="RANK", help="rank of the adapter")
    add("--lora_alpha", type=float_range(0.001, 1e6), default=32, help="scale of the adapter, divided by its rank")
    add("--lora_dropout", type=float_range(0, 0.99), default=0.05, help="dropout before the adapter")
    add("--target_modules", nargs="+", metavar="NAME", help="modules to adapt, such as q_proj [all linear layers]")
    add("--use_dora", **FLAG, help="weight-decomposed LoRA (DoRA); needs --use_peft")
    add("--load_in_8bit", **FLAG, help="frozen weights in 8 bits (bitsandbytes); needs --use_peft")
    add("--load_in_4bit", **FLAG, help="frozen weights in 4 bits (QLoRA); needs --use_peft")
    add("--fp16", **FLAG, help="mixed precision in float16, for GPUs without bfloat16")
    add("--bf16", **FLAG, help="mixed precision in bfloat16")
    add("--gradient_checkpointing", **FLAG, help="recompute activations: less memory, a third slower")
    add("--use_flash_attn", **FLAG, help="flash attention: flash-attn's if it is installed, else torch's own for packed rows with --bf16 or --fp16")
    add("--use_liger_kernel", **FLAG, help="Liger kernels (decoder LMs on GPU)")
    add("--torch_compile", **FLAG, help="compile the layers: a minute or more at the start, then faster steps on a GPU")
    add("--loss_chunk_size", type=int_range(0), default=1024, metavar="TOKENS",
        help="compute the loss and its gradients for this many tokens at a time: less memory, the same loss; 0: all at once")
    add("--deepspeed", metavar="JSON", help="DeepSpeed configuration; or launch with configs/zero3.yaml")

    add = parser.add_argument_group("optimization").add_argument
    add("--max_steps", type=int_range(-1), metavar="N", help=f"optimizer steps; -1: by epochs [{DEFAULT_STEPS}]")
    add("--num_train_epochs", type=float_range(0.001, 1e6), metavar="N",
        help="passes over the data, without --max_steps")
    add("--per_device_train_batch_size", **count(1, "training: rows per batch on each device", 4, maximum=65_536))
    add("--per_device_eval_batch_size", **count(1, "evaluation: rows per batch on each device", 4, maximum=65_536))
    add("--gradient_accumulation_steps", **count(1, "batches per optimizer step on each device", 4, maximum=65_536))
    add("--learning_rate", type=float_range(1e-12, 100), default=5e-6, metavar="LR", help="peak learning rate")
    add("--min_learning_rate", type=float_range(0, 100), metavar="LR", help="where the schedule ends [0 in most schedules]")
    add("--lr_scheduler_type", choices=SCHEDULERS, default="cosine", metavar="NAME",
        help=f"learning-rate schedule of transformers: {', '.join(SCHEDULERS)}")
    add("--lr_scheduler_kwargs", type=json_object, metavar="JSON", help='its options, such as {"num_cycles": 2}')
    add("--num_warmup_steps", **count(0, "steps of linear warm-up", 100))
    add("--weight_decay", type=float_range(0, 100), default=0.05, help="AdamW's weight decay")
    add("--num_workers", **count(0, "data loaders, at most one per spare core [24]", 24))

    add = parser.add_argument_group("checkpoints and evaluation").add_argument
    add("--logging_steps", **count(1, "steps between log entries", 10))
    add("--eval_steps", **count(1, "steps between evaluations", 10))
    add("--save_steps", **count(1, "steps between checkpoints", 50))
    add("--save_total_limit", **count(1, "checkpoints to keep, and the best", 3))
    add("--num_eval_translations",
        **count(0, "at each evaluation translate N held-out pairs of each direction, for chrF++ and BLEU", 0))
    add("--metric_for_best_model", choices=("loss", "chrf", "bleu"),
        help="held-out metric that picks the best checkpoint [chrf with --num_eval_translations, else loss]")
    add("--early_stopping_patience", **count(1, "stop after N evaluations without a better one"))
    add("--report_to", nargs="+", choices=arguments.TRACKERS, help="trackers besides train_log.jsonl [none]")
    add("--push_to_hub", **FLAG | {"type": arguments.bool_or_name, "metavar": "NAME"},
        help="upload the best model to a private Hub repository at the end (HF_TOKEN): to this one, or without a name to "
             "--hub_model_id")
    # fmt: on
    add("--hub_model_id", metavar="NAME", help="repository of --push_to_hub [the name of --output_dir]")
    return parser


def needs(args: argparse.Namespace, names: Collection[str] = ()) -> list[Need]:
    """What a command loads that does not come with the package."""
    return [
        *wanted.models(args.model_name_or_path, tokenizer=args.tokenizer_name_or_path),
        *named_datasets.needs(DatasetSpec.from_args(args)),
    ]


def estimates(args: argparse.Namespace) -> list[Estimate]:
    """The tokens that are trained on with --max_steps on one process, as if all rows were full."""
    if args.max_steps == -1 or (args.max_steps is None and args.num_train_epochs is not None):
        return [Estimate("train", "epochs of data that is not read yet: --dry_run counts it")]
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
    steps = args.max_steps or DEFAULT_STEPS
    tokens = steps * rows * args.max_length
    hours = rates.hours(rates.read(args.output_dir).get("train"), steps, steps)
    return [Estimate("train", f"{steps:,} steps of {rows} x {args.max_length:,} tokens", (tokens, tokens), hours=hours)]


def check_early(args: argparse.Namespace) -> None:
    """Raise UsageError for flags that contradict each other, and a template that is not there."""
    with quiet():
        arguments.check_values(argparse.Namespace(**vars(args)))


def check_results(args: argparse.Namespace) -> None:
    """Raise UsageError if --output_dir has results of other flags."""
    run.check_results(args)


def train(args: argparse.Namespace) -> int:
    """Run all stages; the exit code."""
    # Flags: check them, set the defaults that depend on others
    is_main = environment.is_main_process()
    arguments.resolve(args)
    training_data.check(DatasetSpec.from_args(args))
    hub.require(needs(args))
    if args.push_to_hub and not args.dry_run:
        hub.check_token()

    # Data: read, select, split off the test set, add the other direction
    train_pairs, test_pairs, facts = (training_data.open_stream if args.streaming else training_data.build_sets)(args)
    run.log_data(facts)
    if not all(pair.src for pair in (*test_pairs, *(() if args.streaming else train_pairs))):
        flag_rules.check(RAW_TEXT_RULES, args)
    arguments.check_with_torch(args)
    if args.export_dir and is_main:
        if args.dry_run:
            check_export(train_pairs, test_pairs, args.export_dir, args.export_formats)
        else:
            link = lineage.of_training_set(vars(args), facts)
            paths = export(train_pairs, test_pairs, args.export_dir, args.export_formats, args.languages_file, link)
            logger.info(f"exported to {args.export_dir}: {', '.join(path.name for path in paths)}")

    # Rows: tokenize the pairs and pack them
    model = TrainableModel(args)
    if args.streaming:
        rows, texts = streamed_rows(args, model, train_pairs, test_pairs), None
        run.log_batch(args)
    else:
        texts = model.encode(train_pairs)
        if not len(texts):
            shortest = min(tokens for _, tokens in texts.too_long)
            raise UsageError(
                f"all pairs are longer than --max_length {args.max_length} tokens; the shortest has {shortest}"
            )
        facts["too_long"] = len(texts.too_long)  # of the training pairs
        rows = model.rows(texts)
        run.log_plan(args, model, texts, rows)

    # Output directory: one process writes to it, and it holds one run only
    settings = arguments.result_settings(args, facts["sha256"])
    settings |= {"streamed_files": facts["files"]} if args.streaming else {}
    run.check_output_dir(args.output_dir, settings)
    if args.dry_run:
        model.check_modules()
        run.evaluation_sets(args, model, test_pairs)
        if texts is not None:
            run.log_examples(args, model, texts)
            model.report_too_long(texts, train_pairs, "training")
        return 0
    note = {"steps": args.max_steps}
    with OutputLock(args.output_dir, note=note) if is_main else nullcontext():
        run.check_output_dir(args.output_dir, settings)
        if run.is_finished(args.output_dir):
            return 0
        if is_main:
            files.remove(args.output_dir / SKIPPED_PAIRS_FILE)
        if texts is not None:
            model.report_too_long(texts, train_pairs, "training")
        eval_sets = run.evaluation_sets(args, model, test_pairs)

        # Training: load the weights, resume, train, keep the best model
        return run.run(args, model, rows, eval_sets, facts, settings)


def streamed_rows(args: argparse.Namespace, model: TrainableModel, stream, test_pairs: list):
    """The rows of a stream. Raises UsageError if it has none."""
    from topxgen.training.streaming import StreamedRows

    rows = StreamedRows(stream, model.pair_tokenizer, test_pairs, args)
    if next(iter(rows), None) is None:
        raise UsageError(
            f"nothing is left to train on after the first --size_valid_set {args.size_valid_set} pairs that fits --max_length "
            f"{args.max_length} tokens: lower the one or raise the other"
        )
    return rows


def main() -> int:
    return run_main(
        build_parser(), train, "checkpoints are on disk; re-run the same command to resume from the last one"
    )


def exit_process(code: int) -> None:
    """End this process. With several, threads of torch's process groups sometimes abort Python at shutdown, and a finished
    job would count as failed."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    exit_process(main())
