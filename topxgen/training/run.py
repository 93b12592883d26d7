"""From settled flags to a trained model: the Trainer's arguments, resume, signals, the best checkpoint."""

import argparse
import logging
import os
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

from topxgen.common import provenance
from topxgen.common.errors import UsageError, reason
from topxgen.common.files import Appender, read_json, write_json
from topxgen.training import checkpoints, eval_translation, model_card
from topxgen.training.model import (
    DECODER,
    LEFT_OUT_FILE,
    TrainableModel,
    launched_with_deepspeed,
    need,
    parameters,
)
from topxgen.training.pairs import Pair

logger = logging.getLogger(__name__)

# Schedules of transformers (a test holds this list against it), and how each is told a smallest learning rate.
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
ON_PLATEAU = ("reduce_lr_on_plateau", "greedy")  # those that go by an evaluation
LOG, MANIFEST, SETTINGS = "train_log.jsonl", "manifest_train.json", "settings_train.json"
STOPPED_BY_SIGNAL = 143  # exit code: not finished, start the same command again


def schedule(args: argparse.Namespace) -> tuple[str, dict]:
    """Name and options of the learning-rate schedule. Raises UsageError when it cannot end at --min_learning_rate."""
    name, options, smallest = args.lr_scheduler_type, dict(args.lr_scheduler_kwargs or {}), args.min_learning_rate
    if name in ON_PLATEAU:
        options.setdefault("mode", "min" if args.metric_for_best_model == "loss" else "max")
    if name == "warmup_stable_decay" and "num_decay_steps" not in options:
        if args.max_steps is None:
            raise UsageError(
                """--lr_scheduler_type warmup_stable_decay needs --max_steps, or --lr_scheduler_kwargs '{"num_decay_steps": N}'"""
            )
        options["num_decay_steps"] = max(1, args.max_steps // 10)
    if smallest is None:
        if name in ("cosine_with_min_lr", "cosine_warmup_with_min_lr") and not options:
            raise UsageError(f"--lr_scheduler_type {name} needs --min_learning_rate")
        return name, options
    if smallest >= args.learning_rate:
        raise UsageError(f"--min_learning_rate {smallest:g} is not below --learning_rate {args.learning_rate:g}")
    if name == "linear":  # a polynomial of power 1, which can end elsewhere than at 0
        return "polynomial", {"power": 1.0, "lr_end": smallest, **options}
    key = SCHEDULERS[name]
    if key is None:
        able = ", ".join(["linear", *(other for other, has in SCHEDULERS.items() if has)])
        raise UsageError(
            f"--lr_scheduler_type {name} has no smallest learning rate; with --min_learning_rate use {able}"
        )
    value = smallest / args.learning_rate if key.endswith("ratio") else smallest
    return ("cosine_with_min_lr" if name == "cosine" else name), {key: value, **options}


def check_schedule(args: argparse.Namespace) -> None:
    """Build the schedule once, on nothing. Raises UsageError when transformers does not take its options."""
    import torch
    from transformers import get_scheduler

    name, options = schedule(args)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate or 1.0)
    try:
        get_scheduler(name, optimizer, args.num_warmup_steps, args.max_steps or 1000, scheduler_specific_kwargs=options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--lr_scheduler_type {args.lr_scheduler_type} with {options}: {reason(error)}") from None


def effective_batch(args: argparse.Namespace) -> tuple[int, int]:
    """(rows in a step over all processes, processes)."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * world, world


def training_arguments(args: argparse.Namespace, metric: str, evaluates: bool, unused: bool):
    """transformers' arguments. What this project does itself (evaluation at saves, rotation) is left out."""
    import torch
    from transformers import TrainingArguments

    scheduler, options = schedule(args)
    if args.use_liger_kernel:
        need("liger_kernel", "liger-kernel", "--use_liger_kernel")
    if args.deepspeed or launched_with_deepspeed():
        need("deepspeed", "deepspeed>=0.18", "--deepspeed")
    for tracker in args.report_to or ():
        need(tracker, tracker, f"--report_to {tracker}")
    cores, world = len(os.sched_getaffinity(0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return TrainingArguments(
        output_dir=str(args.output_dir),
        per_device_train_batch_size=args.per_device_train_batch_size,
        per_device_eval_batch_size=args.per_device_eval_batch_size,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        gradient_checkpointing=args.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if args.gradient_checkpointing else None,
        learning_rate=args.learning_rate,
        lr_scheduler_type=scheduler,
        lr_scheduler_kwargs=options,
        warmup_steps=args.num_warmup_steps,
        weight_decay=args.weight_decay,
        max_steps=args.max_steps if args.max_steps is not None else -1,
        num_train_epochs=args.num_train_epochs or 1.0,
        bf16=args.bf16,
        fp16=args.fp16,
        use_cpu=not torch.cuda.is_available(),
        seed=args.seed,
        data_seed=args.seed,
        neftune_noise_alpha=args.neftune_noise_alpha,
        use_liger_kernel=args.use_liger_kernel,
        deepspeed=args.deepspeed,
        logging_steps=args.logging_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=args.eval_steps,
        save_strategy="steps",
        save_steps=args.save_steps,
        metric_for_best_model=metric,
        greater_is_better=not metric.endswith("loss"),
        report_to=args.report_to or "none",
        run_name=args.output_dir.name,
        label_names=["labels"],
        remove_unused_columns=False,
        disable_tqdm=True,
        log_level="error",
        ddp_find_unused_parameters=unused,
        # Workers only put ready arrays together: one per spare core at most.
        dataloader_num_workers=0 if args.streaming else max(0, min(args.num_workers, cores // world - 2)),
        dataloader_persistent_workers=False,
        accelerator_config={"dispatch_batches": False if args.streaming else None},
    )


@contextmanager
def caught_signals(flow):
    """SIGTERM and SIGUSR1, which job schedulers send before they kill: finish the step, save, leave."""

    def request(*_) -> None:
        flow.stop_requested = True

    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def directions(pairs: list[Pair]) -> dict[str, list[Pair]]:
    """Pairs by direction, in order of appearance."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(pair.direction, []).append(pair)
    return found


def one_gpu_or_launch() -> None:
    """Raise UsageError when several GPUs are visible to one process: transformers would copy the model to each at
    every step."""
    import torch

    if torch.cuda.device_count() > 1:
        raise UsageError(
            f"{torch.cuda.device_count()} GPUs are visible but only one process runs: start with accelerate launch "
            "--config_file configs/four_gpus.yaml train.py ..., or set CUDA_VISIBLE_DEVICES to one of them"
        )


def funnel_lines(facts: dict) -> list[str]:
    """What was read and what became of it, a line a language."""
    lines = []
    for name, part in facts.get("languages", {}).items():
        counts = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in part["counts"].items())
        lines.append(f"{name}: {counts} ({part['path']})")
    both = f"{facts['train_pairs']} training and " if "train_pairs" in facts else ""
    return [*lines, f"{both}{facts['test_pairs']} held-out pairs"]


def check_output_dir(output_dir: Path, settings: dict) -> None:
    """Raise UsageError when the directory holds another run's results, or files that this run would write over."""
    if not (output_dir / SETTINGS).exists() and checkpoints.every(output_dir):
        raise UsageError(
            f"{output_dir} holds checkpoints, but no {SETTINGS} that says of what run; pass another --output_dir"
        )
    if not (output_dir / SETTINGS).exists() and (others := checkpoints.conflicting_files(output_dir)):
        raise UsageError(
            f"{output_dir} holds {', '.join(others[:4])}, which the trained model would be written over; pass another "
            "--output_dir"
        )
    provenance.check_settings(output_dir / SETTINGS, settings)


def is_finished(output_dir: Path) -> bool:
    """Whether the run in a directory came to its end; says so."""
    done = read_json(output_dir / MANIFEST)
    if done:
        logger.info(
            f"finished at step {done['steps']}, the best model lies in {output_dir}; for another run pass another --output_dir"
        )
    return bool(done)


def run(args: argparse.Namespace, model: TrainableModel, rows, test: list[Pair], facts: dict, settings: dict) -> int:
    """Train, from the newest whole checkpoint if there is one, and publish the best one; the exit code.

    `rows` are what is trained on, `test` the held-out pairs, `facts` of the data and `settings` go into the card.
    """
    started, output_dir = provenance.now(), args.output_dir
    if args.push_to_hub:
        model_card.check_hub()
    describe = model_card.RunInfo(args, model.kind, facts, settings, provenance.command_line(()))
    log = None
    try:
        trainer, flow, log = build_trainer(args, model, rows, test, describe)
        checkpoint = resume_from(trainer, output_dir)
        if trainer.is_world_process_zero():
            provenance.record_settings(output_dir / SETTINGS, settings)
        if checkpoint is None or not is_fully_trained(trainer, flow, checkpoint):
            with caught_signals(flow):
                trainer.train(resume_from_checkpoint=checkpoint)
    except Exception as error:  # of torch, safetensors, DeepSpeed; `explained` knows those of full memory and disks
        if (other := as_usage_error(error, output_dir)) is error:
            raise
        raise other from None
    finally:
        if log is not None:
            log.close()
    main = trainer.is_world_process_zero()
    trainer.accelerator.wait_for_everyone()
    state = trainer.state
    if flow.stopped == "signal":
        logger.info(
            f"stopped by a signal after step {state.global_step}, which is saved; the same command goes on from there"
        )
    elif main:
        best = output_dir / f"checkpoint-{best_step(state)}"
        checkpoints.copy_best_model(best, output_dir)
        worse = model_card.regressions([entry for entry in state.log_history if entry["step"] <= best_step(state)])
        for name, now, before in worse:
            logger.warning(f"the best checkpoint has {name} {now:.4g}, before training it was {before:.4g}")
        outcome = {
            "steps": state.global_step,
            "stopped_early": flow.stopped == "patience",
            "best_checkpoint": best.name,
            "best_metric": state.best_metric,
            "worse_than_before_training": [name for name, _, _ in worse],
        }
        write_json(
            output_dir / MANIFEST,
            {
                "stage": "train",
                "complete": True,
                "started": started,
                "finished": provenance.now(),
                "command": describe.command,
                "seed": args.seed,
                "settings": settings,
                "versions": provenance.versions(),
                "data": facts,
                **outcome,
            },
        )
        print(f"best: {best.name}; model, card and tokenizer in {output_dir}, log in {output_dir / LOG}")
        if args.push_to_hub:
            model_card.push(output_dir, args.hub_model_id or output_dir.resolve().name)
    # Together, and in good order: else processes abort on their way out.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    return STOPPED_BY_SIGNAL if flow.stopped == "signal" else 0


def is_fully_trained(trainer, flow, checkpoint: str) -> bool:
    """Whether nothing is left to train after a checkpoint: the run was killed before its model was published."""
    from transformers import TrainerState

    from topxgen.training.trainer import find_best

    state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
    if state.global_step < state.max_steps and not flow.out_of_patience(state.log_history):
        return False
    if state.global_step < state.max_steps:
        flow.stopped = "patience"
    find_best(state, Path(trainer.args.output_dir))
    trainer.state = state
    return True


def as_usage_error(error: Exception, output_dir: Path) -> Exception:
    """A UsageError for what torch and safetensors say when memory or the disk is full; other errors as they are."""
    text = str(error).lower()
    if "out of memory" in text or "can't allocate memory" in text:
        return UsageError(
            f"out of memory ({reason(error)}): lower --per_device_train_batch_size and raise --gradient_accumulation_steps as "
            "much, which changes nothing else; or add --gradient_checkpointing, --use_peft, --load_in_4bit, or launch with "
            "configs/zero3.yaml. The same command goes on from the last checkpoint"
        )
    if any(
        word in text for word in ("inline_container", "pytorchstreamwriter", "no space left", "i/o error", "disk quota")
    ):
        free = shutil.disk_usage(output_dir).free / 1e9
        return UsageError(
            f"cannot write to {output_dir} ({reason(error)}; {free:.1f} GB are free there): make room or lower "
            "--save_total_limit, and the same command goes on from the last whole checkpoint"
        )
    return error


def best_step(state) -> int:
    """Of the best checkpoint; of the last one when nothing was evaluated."""
    return state.best_global_step or state.global_step


def build_trainer(args: argparse.Namespace, model: TrainableModel, rows, test: list[Pair], describe) -> tuple:
    """(PairTrainer, its Flow, its RunLog), the weights loaded."""
    from transformers import PrinterCallback, set_seed
    from transformers.utils import logging

    from topxgen.training.log import RunLog
    from topxgen.training.trainer import EvalSets, PackingLeakCheck, PairTrainer, StopAndSaveCallback

    logging.set_verbosity_error()
    held = EvalSets({}, eval_translation.choose(test, args.num_eval_translations), model.encoder)
    packing = "bestfit" if args.packing == "bestfit" else "none"  # a held-out pair is never cut
    for name, pairs in directions(test).items():
        encoded = model.encode(pairs, packing)
        note_left_out(args, model, encoded, pairs, f"held-out {name}")
        if len(encoded):
            held.rows[name] = model.rows(encoded, packing)
    metric, evaluates = f"eval_{args.metric_for_best_model}", bool(held.rows or held.pairs)
    check_evaluation(args, held, evaluates)
    # Before the weights: what DeepSpeed is told here decides how they are loaded.
    arguments = training_arguments(args, metric, evaluates, model.leaves_parameters_unused)
    if arguments.world_size != effective_batch(args)[1]:
        raise UsageError(
            f"{effective_batch(args)[1]} processes were started, but each would train alone: without a GPU export "
            "ACCELERATE_USE_CPU=true"
        )
    set_seed(args.seed)  # of new adapters
    network = model.load()
    trained, total = parameters(network)
    logger.info(
        f"{args.model_name_or_path}: {model.kind}, {trained:,} of {total:,} parameters are trained, attention "
        f"{network.config._attn_implementation}"
    )
    flow = StopAndSaveCallback(metric, arguments.greater_is_better, args.early_stopping_patience, evaluates)
    log = RunLog(args.output_dir / LOG)

    def finish(folder: Path, state) -> None:
        (folder / checkpoints.CARD_FILE).write_text(describe.card(state), encoding="utf-8")
        # The template goes where the weights go: main.py asks by it.
        facts = {"template_key": args.template_key} if model.kind == DECODER else {}
        write_json(folder / "data_manifest.json", {**facts, **describe.data})

    trainer = PairTrainer(
        model=network,
        args=arguments,
        data_collator=model.collator(),
        train_dataset=rows,
        processing_class=model.tokenizer,
        callbacks=[flow],
        held_out=held,
        decoder=model.kind == DECODER,
        pad=model.pad,
        save_total_limit=args.save_total_limit,
        finish=finish,
    )
    flow.accelerator = trainer.accelerator
    trainer.remove_callback(PrinterCallback)  # RunLog says it better
    if trainer.is_world_process_zero():
        trainer.add_callback(log)
    if model.kind == DECODER and args.packing == "bestfit":
        first = (next(iter(rows)) if args.streaming else rows[0])["input_ids"]
        rounding = "8 bits" if args.load_in_8bit else "half" if args.bf16 or args.fp16 else "float32"
        trainer.add_callback(PackingLeakCheck([first, first[::-1].copy()], rounding))
    return trainer, flow, log


def check_evaluation(args: argparse.Namespace, held, evaluates: bool) -> None:
    """Raise UsageError when something goes by an evaluation that cannot be had."""
    if args.metric_for_best_model != "loss" and not held.pairs:
        raise UsageError(
            f"--metric_for_best_model {args.metric_for_best_model} (--num_eval_translations {args.num_eval_translations}): there is no held-out pair to translate; "
            "raise --test_size_ratio, or leave --num_eval_translations out"
        )
    for flag, wanted in (
        ("--early_stopping_patience", args.early_stopping_patience),
        (f"--lr_scheduler_type {args.lr_scheduler_type}", args.lr_scheduler_type in ON_PLATEAU),
    ):
        if wanted and not evaluates:
            raise UsageError(f"{flag} goes by evaluations, and nothing is held out: raise --test_size_ratio")
    if args.metric_for_best_model == "loss" and evaluates and not held.rows:
        raise UsageError(f"no held-out pair is as short as --max_length {args.max_length} tokens: raise it")


def note_left_out(args: argparse.Namespace, model: TrainableModel, encoded, pairs: list[Pair], which: str) -> None:
    """Say that pairs were too long, and list them in the output directory."""
    for line in model.left_out(encoded, which):
        logger.info(line)
    if encoded.too_long and int(os.environ.get("RANK", 0)) == 0 and args.output_dir.is_dir():
        with Appender(args.output_dir / LEFT_OUT_FILE) as file:
            for number, tokens in encoded.too_long:
                pair = pairs[number]
                file.write(
                    {
                        "set": which,
                        "tokens": tokens,
                        "src": pair.src,
                        "tgt": pair.tgt,
                        "group": pair.group,
                        "source": pair.source,
                        "target": pair.target,
                    }
                )


def resume_from(trainer, output_dir: Path) -> str | None:
    """The checkpoint that all processes go on from; without one, the starting point is evaluated first."""
    from accelerate.utils import broadcast_object_list

    found = [checkpoints.newest(output_dir) if trainer.is_world_process_zero() else None]
    checkpoint = broadcast_object_list(found)[0]
    if checkpoint is None:
        trainer.args.eval_on_start = trainer.args.eval_strategy != "no"
        return None
    kept = read_json(checkpoint / checkpoints.CHECKSUM_FILE)
    then, now = ((kept.get("sharding"), kept.get("processes")), (trainer.sharding, trainer.args.world_size))
    if then[0] != now[0] or (then != now and now[0] != "none"):
        raise UsageError(
            f"{checkpoint} holds the optimizer as {then[1]} processes with sharding {then[0]} left it; this is {now[1]} with "
            f"{now[0]}: launch as before, or begin anew in another --output_dir with --model_name_or_path {checkpoint}"
        )
    logger.info(f"going on from {checkpoint}")
    return str(checkpoint)
