"""Which of train.py's flags have no effect, or contradict each other, together with the others."""

import argparse
from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.common.flag_rules import Rule, asked_for, check
from topxgen.training.named_datasets import NAMED, SCORED

ON_PLATEAU = ("reduce_lr_on_plateau", "greedy")  # schedules that depend on evaluations
EXCLUSIVE = (
    ("bf16", "fp16"),
    ("load_in_8bit", "load_in_4bit"),
    ("streaming", "export_dir"),
    ("streaming", "test_size_ratio"),  # a stream holds out --size_valid_set pairs
    ("percentile", "dataset_size"),
    ("percentile", "strategy"),
)
EMBEDDED = "udhr"
BENCHMARKS = ("flores", EMBEDDED)


def holds_out(args: argparse.Namespace) -> bool:
    return bool(args.size_valid_set if args.streaming else args.test_size_ratio)


def _is_table(args: argparse.Namespace) -> bool:
    return args.dataset_name_or_path not in NAMED


def _has_splits(args: argparse.Namespace) -> bool:
    """Whether the data may have several: not generated pairs, publishers' files of SMOL, and a file."""
    name = args.dataset_name_or_path
    is_no_file = _is_table(args) and not Path(name).is_file()
    return name in BENCHMARKS or (name == "smol" and not args.data_dir) or is_no_file


def _has_configurations(args: argparse.Namespace) -> bool:
    return args.dataset_name_or_path == "smol" or (_is_table(args) and not Path(args.dataset_name_or_path).exists())


# fmt: off
RULES = (
    # The model
    Rule(("lora_r", "lora_alpha", "lora_dropout", "target_modules", "use_dora"), "--use_peft (all weights would be trained)",
         lambda args: args.use_peft, "use_peft"),
    Rule(("load_in_8bit", "load_in_4bit"), "--use_peft (quantized weights cannot be trained)", lambda args: args.use_peft, "use_peft"),
    Rule(("loss_chunk_size",), "dropping --use_liger_kernel, which computes the loss itself", lambda args: not args.use_liger_kernel),
    # The data
    Rule(("data_dir",), f"--dataset_name_or_path {', '.join(name for name in NAMED if name != EMBEDDED)}",
         lambda args: not _is_table(args) and args.dataset_name_or_path != EMBEDDED),
    Rule(("allow_partial_benchmark",), "--dataset_name_or_path flores or udhr", lambda args: args.dataset_name_or_path in BENCHMARKS),
    Rule(("input_column_name", "output_column_name"), "a table of your own as --dataset_name_or_path", _is_table),
    Rule(("subset",), "--dataset_name_or_path smol or a data set of the Hub", _has_configurations),
    Rule(("split",), "--dataset_name_or_path flores, udhr, a folder with several or a data set of the Hub", _has_splits),
    Rule(("percentile", "strategy"), f"scores, which only --dataset_name_or_path {SCORED[0]} has",
         lambda args: args.dataset_name_or_path in SCORED or (args.percentile is None and args.strategy != "highest")),
    Rule(("dataset_size", "strategy"), "dropping --percentile, which selects alone", lambda args: args.percentile is None),
    Rule(("drop_duplicates",), "data in memory (no --streaming)", lambda args: not args.streaming),
    Rule(("strategy",), "--dataset_size N", lambda args: args.dataset_size != -1, "dataset_size"),
    # Held-out pairs
    Rule(("size_valid_set", "shuffle_buffer", "num_of_sequences"), "--streaming", lambda args: args.streaming, "streaming"),
    Rule(("num_workers",), "data in memory (no --streaming)", lambda args: not args.streaming, harmless=True),
    Rule(("eval_steps",), "held-out pairs (--test_size_ratio)", holds_out, "test_size_ratio", harmless=True),
    Rule(("per_device_eval_batch_size", "metric_for_best_model", "num_eval_translations", "early_stopping_patience"),
         "held-out pairs (raise --test_size_ratio, or --size_valid_set with --streaming)", holds_out),
    # The schedule
    Rule(("num_warmup_steps",), "a --lr_scheduler_type that warms up", lambda args: args.lr_scheduler_type not in ("constant", *ON_PLATEAU),
         harmless=True),
    Rule(("lr_scheduler_kwargs",), "a --lr_scheduler_type that has options",
         lambda args: args.lr_scheduler_type not in ("constant", "constant_with_warmup")),
    # Output
    Rule(("export_formats",), "--export_dir", lambda args: args.export_dir),
    Rule(("hub_model_id",), "--push_to_hub", lambda args: args.push_to_hub, "push_to_hub"),
)
# Of an encoder-decoder. scripts/train.sh gives --targets_only to every model.
DECODER_RULES = (
    Rule(("targets_only",), "a decoder LM (an encoder-decoder always learns the target alone)", lambda _: False, harmless=True),
    # transformers' NEFTune adds its noise to embeddings that most encoder-decoders do not read.
    Rule(("packing", "template_key", "eos_token_id", "use_liger_kernel", "neftune_noise_alpha"), "a decoder LM", lambda _: False),
)
RAW_TEXT_RULES = (
    Rule(("targets_only", "template_key", "num_eval_translations"), "a target column (--output_column_name)", lambda _: False),
)
# fmt: on


def check_flags(args: argparse.Namespace) -> None:
    """Raise UsageError for flags that exclude each other or have no effect; those that published commands give are logged."""
    check_exclusive(args)
    check(RULES, args)


def check_exclusive(args: argparse.Namespace) -> None:
    """Raise UsageError for flags that exclude each other."""
    asked = {name for name, value in vars(args).items() if value is True} | asked_for(args)
    for pair in EXCLUSIVE:
        if asked.issuperset(pair):
            raise UsageError(f"--{pair[0]} and --{pair[1]} exclude each other; pass one of them")
    if len(args.data_dir) > 1 and args.dataset_name_or_path not in SCORED:
        raise UsageError(f"several --data_dir are for --dataset_name_or_path {SCORED[0]}; pass one")
    places = [Path(path).resolve() for path in args.data_dir]
    for path, place in zip(args.data_dir, places, strict=True):
        if places.count(place) > 1:
            raise UsageError(f"--data_dir {path} is given twice: its pairs would count twice; pass it once")
