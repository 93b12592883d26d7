"""From the command line of train.py to the rows that are trained on."""

import argparse
import json
import logging
import os
from pathlib import Path

from topxgen.common import provenance
from topxgen.common.errors import UsageError
from topxgen.text import languages
from topxgen.training import run, training_data
from topxgen.training.model import DECODER, TrainableModel, launched_with_deepspeed

logger = logging.getLogger(__name__)

IS_MAIN_PROCESS = int(os.environ.get("RANK", 0)) == 0


# Flags that do not change what is learned: a run may go on with others. Batch sizes count by their product.
NOT_PART_OF_THE_RESULT = [
    "output_dir",
    "data_dir",
    "logging_steps",
    "eval_steps",
    "save_steps",
    "save_total_limit",
    "num_workers",
    "report_to",
    "export_dir",
    "export_formats",
    "num_eval_translations",
    "metric_for_best_model",
    "early_stopping_patience",
    "gradient_checkpointing",
    "use_flash_attn",
    "use_liger_kernel",
    "deepspeed",
    "push_to_hub",
    "hub_model_id",
    "dry_run",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "languages_file",
    "trust_remote_code",
]


DEFAULT_STEPS = 1000


def settle(args: argparse.Namespace) -> argparse.Namespace:
    """Defaults that depend on other flags. Raises UsageError for flags that contradict each other."""
    args.max_steps = None if args.max_steps == -1 else args.max_steps
    if args.max_steps == 0:
        raise UsageError("--max_steps 0 trains nothing; pass a number of steps, or -1 and --num_train_epochs")
    if args.max_steps is None and args.num_train_epochs is None:
        args.max_steps = DEFAULT_STEPS
    if args.max_steps is not None and args.num_train_epochs is not None:
        logger.info(f"--max_steps {args.max_steps} wins over --num_train_epochs {args.num_train_epochs:g}")
        args.num_train_epochs = None
    args.src = languages.find(args.src, args.languages_file).name
    args.target_languages = [languages.find(name, args.languages_file).name for name in args.target_languages]
    if args.output_dir.resolve() == Path(args.model_name_or_path).resolve():
        raise UsageError(f"--output_dir {args.output_dir} is the folder of the model that is trained; pass another one")
    if args.bf16 and args.fp16:
        raise UsageError("--bf16 and --fp16 exclude each other; pass one of them")
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")  # what the config of accelerate launch says
    if launched in ("bf16", "fp16") and not (args.bf16 or args.fp16):
        setattr(args, launched, True)
    if args.deepspeed and launched_with_deepspeed():
        raise UsageError(
            f"--deepspeed {args.deepspeed} and the config of accelerate launch both set DeepSpeed up: drop the flag, or "
            "launch with configs/four_gpus.yaml"
        )
    for flag in ("load_in_8bit", "load_in_4bit", "use_dora"):
        if getattr(args, flag) and not args.use_peft:
            raise UsageError(f"--{flag} freezes the weights and trains an adapter: add --use_peft")
    if args.load_in_8bit and args.load_in_4bit:
        raise UsageError("--load_in_8bit and --load_in_4bit exclude each other; pass one of them")
    if args.streaming and args.max_steps is None:
        raise UsageError(
            "--streaming does not know where an epoch ends; pass --max_steps instead of --num_train_epochs"
        )
    if args.streaming and args.export_dir:
        raise UsageError("--export_dir writes what is in memory; leave --streaming out")
    args.metric_for_best_model = args.metric_for_best_model or ("chrf" if args.num_eval_translations else "loss")
    if args.metric_for_best_model != "loss" and not args.num_eval_translations:
        raise UsageError(
            f"--metric_for_best_model {args.metric_for_best_model} needs translations; pass --num_eval_translations N"
        )
    return args


def source_of(args: argparse.Namespace) -> training_data.DatasetSpec:
    return training_data.DatasetSpec(
        name=args.dataset_name_or_path,
        src=languages.find(args.src, args.languages_file),
        targets=tuple(languages.find(name, args.languages_file) for name in dict.fromkeys(args.target_languages)),
        data_dir=args.data_dir,
        subset=args.subset,
        split=args.split,
        input_column=args.input_column_name,
        output_column=args.output_column_name,
        percentile=args.percentile,
        dataset_size=args.dataset_size,
        strategy=args.strategy,
        seed=args.seed,
    )


def build_sets(args: argparse.Namespace) -> tuple[list, list, dict]:
    """(train pairs, test pairs, facts) of data that fits in memory."""
    pairs, facts = training_data.load(source_of(args))
    if args.test_size_ratio:
        train, test = training_data.split(pairs, args.test_size_ratio, args.seed)
    else:
        train, test = pairs, []
    if args.reverse:
        train, test = training_data.reverse(train), training_data.reverse(test)
    if not train:
        raise UsageError(f"nothing to train on is left of {args.dataset_name_or_path}: {json.dumps(facts)}")
    return (
        train,
        test,
        {**facts, "train_pairs": len(train), "test_pairs": len(test), "sha256": fingerprint(train, test)},
    )


def fingerprint(train: list, test: list) -> str:
    """Of what is trained and tested on, in order."""
    lines = [f"{pair.src}\t{pair.tgt}\t{pair.source}\t{pair.target}" for pair in (*train, None, *test) if pair]
    return provenance.digest([str(len(train)), *lines])


def open_stream(args: argparse.Namespace) -> tuple[object, list, dict]:
    """(training stream, held-out pairs, facts): the first --size_valid_set pairs are held out."""
    from topxgen.training.streaming import windows

    stream = training_data.stream(source_of(args))
    test = [pair for pairs in windows(stream.take(args.size_valid_set), 1000) for pair in pairs]
    if args.reverse:
        test = training_data.reverse(test)
    rest = stream.skip(args.size_valid_set).shuffle(seed=args.seed, buffer_size=args.shuffle_buffer)
    return rest, test, {"streamed": args.dataset_name_or_path, "test_pairs": len(test), "sha256": fingerprint([], test)}


def settings_of(args: argparse.Namespace, facts: dict) -> dict:
    """What decides the model that comes out."""
    rows, _ = run.effective_batch(args)
    chosen = {name: value for name, value in vars(args).items() if name not in NOT_PART_OF_THE_RESULT}
    if args.lr_scheduler_type in run.ON_PLATEAU:  # then evaluations decide, too
        chosen |= {
            name: getattr(args, name)
            for name in ("eval_steps", "save_steps", "metric_for_best_model", "num_eval_translations")
        }
    return {**chosen, "effective_batch_rows": rows, "data": facts["sha256"]}


def show_batch(args: argparse.Namespace) -> int:
    """Say how many rows a step has; the number."""
    rows, processes = run.effective_batch(args)
    logger.info(
        f"a step has {rows} rows ({args.per_device_train_batch_size} a device x {args.gradient_accumulation_steps} accumulated "
        f"x {processes} processes)"
    )
    return rows


def show_rows(args: argparse.Namespace, model: TrainableModel, encoded, rows) -> None:
    """How the data lies in rows, and the first texts as the model sees them."""
    tokens, batch = int(encoded.lengths.sum()), show_batch(args)
    width = args.max_length if model.kind == DECODER and args.packing != "none" else max(rows.lengths)
    steps = -(-len(rows) // batch)
    total = args.max_steps or -(-int(args.num_train_epochs * steps) // 1)
    logger.info(
        f"{len(encoded)} training texts of {tokens} tokens (mean {tokens / max(1, len(encoded)):.0f}) in {len(rows)} rows of at "
        f"most {width}: {1 - tokens / (len(rows) * width):.1%} room left; an epoch has {steps} steps; {total} steps, {total / steps:.1f} epochs"
    )
    if total <= args.num_warmup_steps:
        logger.info(
            f"--num_warmup_steps {args.num_warmup_steps}: the learning rate never gets to its top in {total} steps"
        )
    if model.kind == DECODER and args.dry_run:
        for i in range(min(2, len(encoded))):
            ids, prompt = encoded[i].tolist(), int(encoded.prompts[i])
            learned = "(the loss lies here)" if args.targets_only else "(the loss lies on all)"
            logger.info(
                f"--- text {i + 1}\n{model.tokenizer.decode(ids[:prompt])}\n--- {learned}\n{model.tokenizer.decode(ids[prompt:])}"
            )
