"""train.py's flags: checked, completed, and translated to transformers' TrainingArguments."""

import argparse
import importlib.util
import logging
import math
import os
from dataclasses import fields
from os.path import expanduser
from pathlib import Path

from topxgen.common import checksums, environment, hub, provenance
from topxgen.common.cli import parse_bool
from topxgen.common.errors import UsageError, reason
from topxgen.common.files import check_output_directory, read_json
from topxgen.prompting.mt_templates import get_template
from topxgen.text import languages
from topxgen.training.flag_rules import ON_PLATEAU, check_flags
from topxgen.training.tokenization import NO_TEMPLATE

logger = logging.getLogger(__name__)

DEFAULT_STEPS = 1000
# transformers' schedules, and the option in which each takes a minimum learning rate.
SCHEDULERS: dict[str, str | None] = {
    "linear": None,
    "cosine": "min_lr",
    "cosine_with_restarts": None,
    "polynomial": "lr_end",
    "constant": None,
    "constant_with_warmup": None,
    "inverse_sqrt": None,
    "reduce_lr_on_plateau": "min_lr",
    "cosine_with_min_lr": "min_lr",
    "cosine_warmup_with_min_lr": "min_lr",
    "warmup_stable_decay": "min_lr_ratio",
    "greedy": "min_lr",
}
UNSUPPORTED_LAUNCHES = ("FSDP", "MEGATRON_LM")
TRACKERS = ("tensorboard", "trackio", "wandb")
EVALUATION_FLAGS = ("eval_steps", "save_steps", "num_eval_translations")
# Flags that may change when a run is resumed. Batch sizes count by their product.
NOT_PART_OF_THE_RESULT = (
    *("output_dir", "data_dir", "allow_partial_benchmark", "languages_file", "trust_remote_code"),
    *("export_dir", "export_formats", "dry_run"),
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "num_workers"),
    *("gradient_checkpointing", "use_flash_attn", "use_liger_kernel", "loss_chunk_size", "torch_compile", "deepspeed"),
    *("logging_steps", "save_total_limit", "early_stopping_patience", "report_to", "push_to_hub", "hub_model_id"),
    *EVALUATION_FLAGS,
)


def bool_or_name(value: str) -> bool | str:
    """An argument type: true or false in any form, else a name."""
    try:
        return parse_bool(value)
    except argparse.ArgumentTypeError:
        if not value.strip():
            raise argparse.ArgumentTypeError(f"{value!r} is neither true or false nor a name") from None
        return value


def set_defaults(args: argparse.Namespace) -> None:
    """Those that are recorded: the length of the training, names of languages, the metric. Raises UsageError."""
    if args.max_steps == -1 and args.num_train_epochs is None:
        raise UsageError("--max_steps -1 trains by epochs; pass --num_train_epochs N, too")
    args.max_steps = None if args.max_steps == -1 else args.max_steps
    if args.max_steps == 0:
        raise UsageError("--max_steps 0 trains nothing; pass a number of steps, or -1 and --num_train_epochs")
    if args.max_steps is None and args.num_train_epochs is None:
        args.max_steps = DEFAULT_STEPS
    if args.max_steps is not None and args.num_train_epochs is not None:
        logger.info(f"--max_steps {args.max_steps} overrides --num_train_epochs {args.num_train_epochs:g}")
        args.num_train_epochs = None
    args.src = languages.find(args.src, args.languages_file).name
    args.target_languages = [languages.find(name, args.languages_file).name for name in args.target_languages]
    args.metric_for_best_model = args.metric_for_best_model or ("chrf" if args.num_eval_translations else "loss")


def check_values(args: argparse.Namespace) -> None:
    """Set the defaults that are recorded. Raises UsageError for what flags alone say, whatever machine the training is going to be on."""
    set_defaults(args)
    if args.streaming and args.max_steps is None:
        raise UsageError("--streaming does not know the length of an epoch; pass --max_steps, not --num_train_epochs")
    if args.metric_for_best_model != "loss" and not args.num_eval_translations:
        raise UsageError(
            f"--metric_for_best_model {args.metric_for_best_model} needs translations; pass --num_eval_translations N"
        )
    schedule(args)
    if args.template_key != NO_TEMPLATE:
        for language in args.target_languages:
            get_template(args.template_key, args.src, language, extra=args.languages_file)


def resolve(args: argparse.Namespace) -> None:
    """Set the defaults that depend on other flags. Raises UsageError for flags that contradict each other."""
    check_values(args)
    check_output_directory(args.output_dir, f"--output_dir {args.output_dir}")
    if args.output_dir.resolve() == Path(args.model_name_or_path).resolve():
        raise UsageError(f"--output_dir {args.output_dir} is the folder of the base model; pass another one")
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")  # the config of accelerate launch
    if launched in ("bf16", "fp16") and not (args.bf16 or args.fp16):
        setattr(args, launched, True)
    _check_launcher()
    check_flags(args)
    _check_dependencies(args)
    if args.deepspeed and launched_with_deepspeed():
        raise UsageError(
            f"--deepspeed {args.deepspeed} and the config of accelerate launch both configure DeepSpeed: drop the flag, or "
            "launch with configs/four_gpus.yaml"
        )
    if args.push_to_hub:
        _check_repository(args)


def check_with_torch(args: argparse.Namespace) -> None:
    """Raise UsageError for what only torch and transformers know; after all other checks, since importing them takes seconds."""
    if "WORLD_SIZE" not in os.environ and not args.dry_run:
        _check_single_gpu()
    _check_schedule(args)


def _check_launcher() -> None:
    """Raise UsageError if the config of accelerate launch asks for what neither the loss nor the checkpoints here are made for."""
    asked = [name for name in UNSUPPORTED_LAUNCHES if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true"]
    if os.environ.get("ACCELERATE_MIXED_PRECISION") == "fp8":
        asked.append("fp8")
    if asked:
        raise UsageError(
            f"the config of accelerate launch asks for {asked[0]}, which train.py does not support: launch with "
            "configs/zero3.yaml or configs/four_gpus.yaml"
        )


def _check_dependencies(args: argparse.Namespace) -> None:
    """Raise UsageError if a flag needs a package that is not installed, or a file that is not there."""
    if args.torch_compile and (args.deepspeed or launched_with_deepspeed()):
        raise UsageError(
            "--torch_compile does not compile layers whose weights DeepSpeed shares out: drop one of the two"
        )
    if args.deepspeed:
        if not Path(args.deepspeed).is_file():
            raise UsageError(
                f"--deepspeed {args.deepspeed} does not exist; pass a JSON file, such as configs/deepspeed_zero3.json"
            )
        read_json(Path(args.deepspeed), remedy="fix it, or pass configs/deepspeed_zero3.json")
    if args.deepspeed or launched_with_deepspeed():
        require("deepspeed", "deepspeed>=0.18", "--deepspeed")
    if args.use_liger_kernel:
        require("liger_kernel", "liger-kernel", "--use_liger_kernel")
    if args.load_in_8bit or args.load_in_4bit:
        require("bitsandbytes", "bitsandbytes>=0.48", f"--load_in_{8 if args.load_in_8bit else 4}bit")
    for tracker in args.report_to or ():
        require(tracker, tracker, f"--report_to {tracker}")
    remote = next((name for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL") if os.environ.get(name)), None)
    if remote and "trackio" in (args.report_to or ()):
        raise UsageError(
            f"--report_to trackio logs to this machine, but {remote} is set: unset it (`trackio sync` uploads a project later)"
        )


def _check_repository(args: argparse.Namespace) -> None:
    """Move the name in --push_to_hub, if any, to --hub_model_id. Raises UsageError for a name that the Hub would reject."""
    if args.push_to_hub is not True:
        if args.hub_model_id not in (None, args.push_to_hub):
            raise UsageError(
                f"--push_to_hub {args.push_to_hub} and --hub_model_id {args.hub_model_id} name two repositories; pass one of them"
            )
        args.push_to_hub, args.hub_model_id = True, args.push_to_hub
    name = args.hub_model_id or args.output_dir.resolve().name
    hub.check_repository_name(name)


def _check_single_gpu() -> None:
    """Raise UsageError if one process sees several GPUs: transformers would copy the model to each at every step."""
    import torch

    if torch.cuda.device_count() > 1:
        raise UsageError(
            f"{torch.cuda.device_count()} GPUs are visible but only one process runs: start with accelerate launch "
            "--config_file configs/four_gpus.yaml train.py ..., or set CUDA_VISIBLE_DEVICES to one of them"
        )


def _check_schedule(args: argparse.Namespace) -> None:
    """Build the schedule for a dummy optimizer. Raises UsageError if transformers rejects its options, now or at a later step."""
    import torch
    from transformers import get_scheduler

    name, options = schedule(args)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate or 1.0)
    steps = args.max_steps or DEFAULT_STEPS
    try:
        scheduler = get_scheduler(name, optimizer, args.num_warmup_steps, steps, scheduler_specific_kwargs=options)
        for step in (0, args.num_warmup_steps, steps // 2, steps):
            for share in getattr(scheduler, "lr_lambdas", ()):
                if not math.isfinite(share(step)):
                    raise ValueError(f"step {step} has no learning rate")
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UsageError(f"--lr_scheduler_type {args.lr_scheduler_type} with {options}: {reason(error)}") from None


def schedule(args: argparse.Namespace) -> tuple[str, dict]:
    """Name and options of the learning-rate schedule. Raises UsageError if it cannot end at --min_learning_rate."""
    name, options, minimum = args.lr_scheduler_type, dict(args.lr_scheduler_kwargs or {}), args.min_learning_rate
    if name in ON_PLATEAU:
        options.setdefault("mode", "min" if args.metric_for_best_model == "loss" else "max")
    if name == "warmup_stable_decay" and "num_decay_steps" not in options:
        if args.max_steps is None:
            raise UsageError(
                f"""--lr_scheduler_type {name} needs --max_steps, or --lr_scheduler_kwargs '{{"num_decay_steps": N}}'"""
            )
        options["num_decay_steps"] = max(1, args.max_steps // 10)
    if minimum is None:
        if name in ("cosine_with_min_lr", "cosine_warmup_with_min_lr") and not options:
            raise UsageError(f"--lr_scheduler_type {name} needs --min_learning_rate")
        return name, options
    if minimum >= args.learning_rate:
        raise UsageError(f"--min_learning_rate {minimum:g} is not below --learning_rate {args.learning_rate:g}")
    if name == "linear":  # a polynomial of power 1, which can end above 0
        return "polynomial", {"power": 1.0, "lr_end": minimum, **options}
    option = SCHEDULERS[name]
    if option is None:
        with_minimum = ", ".join(["linear", *(other for other, option in SCHEDULERS.items() if option)])
        raise UsageError(
            f"--lr_scheduler_type {name} has no minimum learning rate; drop --min_learning_rate or use {with_minimum}"
        )
    value = minimum / args.learning_rate if option == "min_lr_ratio" else minimum
    return ("cosine_with_min_lr" if name == "cosine" else name), {option: value, **options}


def effective_batch(args: argparse.Namespace) -> tuple[int, int]:
    """(rows per optimizer step over all processes, processes)."""
    processes = environment.number("WORLD_SIZE", 1)
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * processes, processes


def result_settings(args: argparse.Namespace, data_digest: str) -> dict:
    """The settings that decide which model comes out; a run resumes only with the same ones."""
    excluded = set(NOT_PART_OF_THE_RESULT)
    if args.lr_scheduler_type in ON_PLATEAU:
        excluded -= set(EVALUATION_FLAGS)
    if args.metric_for_best_model != "loss":  # scores of other sentences do not compare
        excluded.discard("num_eval_translations")
    settings = provenance.result_settings(args, excluded)
    if weights := provenance.weights_id(args.model_name_or_path):
        settings["weights"] = weights
    settings |= provenance.config_of(model=args.model_name_or_path, tokenizer=args.tokenizer_name_or_path)
    if (template := Path(expanduser(args.template_key))).is_file():  # of the user's own
        settings["template_sha256"] = checksums.sha256_of(template)
    rows = (languages.find(name, args.languages_file) for name in (args.src, *args.target_languages))
    settings |= {f"language {row.name}": languages.row_id(row) for row in rows}
    return {**settings, "effective_batch_rows": effective_batch(args)[0], "data": data_digest}


def training_arguments(args: argparse.Namespace, metric: str, evaluates: bool, unused_parameters: bool):
    """transformers' TrainingArguments: flags of the same names, and what differs. PairTrainer does the rest itself
    (evaluation before saves, rotation of checkpoints, upload)."""
    import torch
    from transformers import TrainingArguments

    scheduler, options = schedule(args)
    cores, local_processes = len(os.sched_getaffinity(0)), environment.number("LOCAL_WORLD_SIZE", 1)
    shared = {field.name: getattr(args, field.name) for field in fields(TrainingArguments) if hasattr(args, field.name)}
    different = dict(
        output_dir=str(args.output_dir),
        gradient_checkpointing_kwargs={"use_reentrant": False} if args.gradient_checkpointing else None,
        lr_scheduler_type=scheduler,
        lr_scheduler_kwargs=options,
        warmup_steps=args.num_warmup_steps,
        max_steps=args.max_steps if args.max_steps is not None else -1,
        num_train_epochs=args.num_train_epochs or 1.0,
        use_cpu=not torch.cuda.is_available(),
        data_seed=args.seed,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluates else "no",
        save_strategy="steps",
        save_total_limit=None,
        push_to_hub=False,
        metric_for_best_model=metric,
        greater_is_better=not metric.endswith("loss"),
        torch_compile=False,  # of the whole model; run.py compiles its layers
        report_to=[tracker for tracker in args.report_to or () if tracker != "trackio"] or "none",  # log.py has its own
        run_name=args.output_dir.name,
        label_names=["labels"],
        remove_unused_columns=False,
        disable_tqdm=True,
        log_level="error",
        ddp_find_unused_parameters=unused_parameters,
        # Workers only assemble arrays: at most one per spare core.
        dataloader_num_workers=0 if args.streaming else max(0, min(args.num_workers, cores // local_processes - 2)),
        dataloader_persistent_workers=False,
        accelerator_config={"dispatch_batches": False if args.streaming else None},
    )
    return TrainingArguments(**shared | different)


def launched_with_deepspeed() -> bool:
    """Whether the config of accelerate launch configures DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def require(module: str, requirement: str, flag: str) -> None:
    """Raise UsageError if an optional dependency is not installed."""
    if importlib.util.find_spec(module) is None:
        raise UsageError(f"{flag} needs {module}, which is not installed: pip install '{requirement}'")
