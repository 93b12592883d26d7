"""From settled flags to a trained model: the Trainer's arguments, resume, signals, the best checkpoint."""

import argparse
import os
import signal
from contextlib import contextmanager
from pathlib import Path

from comptra.errors import UserError, reason
from comptra.files import read_json, write_json
from topxgen import checkpoints, held_out, model_card, stages
from topxgen.base_model import DECODER, BaseModel, Say, need, parameters
from topxgen.pairs import Pair

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
LOG, MANIFEST, SETTINGS = "train_log.jsonl", "manifest_train.json", "settings_train.json"
STOPPED_BY_SIGNAL = 143  # exit code: not finished, start the same command again


def schedule(args: argparse.Namespace) -> tuple[str, dict]:
    """Name and options of the learning-rate schedule. Raises UserError when it cannot end at --min_learning_rate."""
    name, options, smallest = args.lr_scheduler_type, dict(args.lr_scheduler_kwargs or {}), args.min_learning_rate
    if smallest is None:
        if name in ("cosine_with_min_lr", "cosine_warmup_with_min_lr") and not options:
            raise UserError(f"--lr_scheduler_type {name} needs --min_learning_rate")
        return name, options
    if smallest > args.learning_rate:
        raise UserError(f"--min_learning_rate {smallest:g} is above --learning_rate {args.learning_rate:g}")
    if name == "linear":  # a polynomial of power 1, which can end elsewhere than at 0
        return "polynomial", {"power": 1.0, "lr_end": smallest, **options}
    key = SCHEDULERS[name]
    if key is None:
        able = ", ".join(["linear", *(other for other, has in SCHEDULERS.items() if has)])
        raise UserError(
            f"--lr_scheduler_type {name} has no smallest learning rate; with --min_learning_rate use {able}"
        )
    value = smallest / args.learning_rate if key.endswith("ratio") else smallest
    return ("cosine_with_min_lr" if name == "cosine" else name), {key: value, **options}


def effective_batch(args: argparse.Namespace) -> tuple[int, int]:
    """(rows in a step over all processes, processes)."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * world, world


def training_arguments(args: argparse.Namespace, metric: str, evaluates: bool, streaming: bool):
    """transformers' arguments. What this project does itself (evaluation at saves, rotation) is left out."""
    import torch
    from transformers import TrainingArguments

    scheduler, options = schedule(args)
    if args.use_liger_kernel:
        need("liger_kernel", "liger-kernel", "--use_liger_kernel")
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
        ddp_find_unused_parameters=False,
        # Workers only put ready arrays together: one per spare core at most.
        dataloader_num_workers=0 if streaming else max(0, min(args.num_workers, cores // world - 2)),
        dataloader_persistent_workers=False,
        accelerator_config={"dispatch_batches": False if streaming else None},
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
    """Raise UserError when several GPUs are visible to one process: transformers would copy the model to each at
    every step."""
    import torch

    if torch.cuda.device_count() > 1:
        raise UserError(
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
    """Raise UserError when the directory holds another run's results."""
    if not (output_dir / SETTINGS).exists() and checkpoints.every(output_dir):
        raise UserError(
            f"{output_dir} holds checkpoints, but no {SETTINGS} that says of what run; pass another --output_dir"
        )
    stages.check_settings(output_dir / SETTINGS, settings)


def run(
    args: argparse.Namespace, model: BaseModel, rows, test: list[Pair], facts: dict, settings: dict, say: Say
) -> int:
    """Train, from the newest whole checkpoint if there is one, and publish the best one; the exit code.

    `rows` are what is trained on, `test` the held-out pairs, `facts` of the data and `settings` go into the card.
    """
    started, output_dir = stages.now(), args.output_dir
    if (done := read_json(output_dir / MANIFEST)).get("complete"):
        say(
            f"finished at step {done['steps']}, the best model lies in {output_dir}; for another run pass another --output_dir"
        )
        return 0
    if args.push_to_hub:
        model_card.check_hub()
    describe = model_card.Facts(args, model.kind, facts, settings, stages.command_line(()))
    trainer, flow, log = build_trainer(args, model, rows, test, describe, say)
    main = trainer.is_world_process_zero()
    checkpoint = resume_from(trainer, output_dir, say)
    if main:
        stages.record_settings(output_dir / SETTINGS, settings)
    try:
        with caught_signals(flow):
            trainer.train(resume_from_checkpoint=checkpoint)
    except RuntimeError as error:
        if "out of memory" not in str(error).lower() and "can't allocate memory" not in str(error).lower():
            raise
        raise UserError(
            f"out of memory ({reason(error)}): lower --per_device_train_batch_size and raise --gradient_accumulation_steps as "
            "much, which changes nothing else, or add --gradient_checkpointing; the same command then goes on"
        ) from None
    finally:
        log.close()
    trainer.accelerator.wait_for_everyone()
    state = trainer.state
    if flow.stopped == "signal":
        say(f"stopped by a signal after step {state.global_step}, which is saved; the same command goes on from there")
    elif main:
        best = output_dir / f"checkpoint-{best_step(state)}"
        checkpoints.publish(best, output_dir)
        worse = model_card.below_start([entry for entry in state.log_history if entry["step"] <= best_step(state)])
        for name, now, before in worse:
            say(f"warning: the best checkpoint has {name} {now:.4g}, before training it was {before:.4g}")
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
                "finished": stages.now(),
                "command": describe.command,
                "seed": args.seed,
                "settings": settings,
                "versions": stages.versions(),
                "data": facts,
                **outcome,
            },
        )
        print(f"best: {best.name}; model, card and tokenizer in {output_dir}, log in {output_dir / LOG}")
        if args.push_to_hub:
            model_card.push(output_dir, args.hub_model_id or output_dir.resolve().name)
    trainer.accelerator.end_training()  # else processes may abort on their way out
    return STOPPED_BY_SIGNAL if flow.stopped == "signal" else 0


def best_step(state) -> int:
    """Of the best checkpoint; of the last one when nothing was evaluated."""
    return state.best_global_step or state.global_step


def build_trainer(args: argparse.Namespace, model: BaseModel, rows, test: list[Pair], describe, say: Say) -> tuple:
    """(PairTrainer, its Flow, its RunLog), the weights loaded."""
    from transformers import PrinterCallback, set_seed
    from transformers.utils import logging

    from topxgen.trainer import Flow, HeldOut, PairTrainer, Probe
    from topxgen.training_log import RunLog

    logging.set_verbosity_error()
    held = HeldOut({}, held_out.choose(test, args.eval_translation), model.encoder, args.template_key)
    packing = "none" if args.packing == "none" else "bestfit"  # a held-out pair is never cut
    for name, pairs in directions(test).items():
        encoded = model.encode(pairs, packing)
        for line in model.left_out(encoded, f"held-out {name}"):
            say(line)
        if len(encoded):
            held.rows[name] = model.rows(encoded, packing)
    metric, evaluates = f"eval_{args.best_by}", bool(held.rows or held.pairs)
    # Before the weights: what DeepSpeed is told here decides how they are loaded.
    arguments = training_arguments(args, metric, evaluates, args.streaming)
    if arguments.world_size != effective_batch(args)[1]:
        raise UserError(
            f"{effective_batch(args)[1]} processes were started, but each would train alone: without a GPU export "
            "ACCELERATE_USE_CPU=true"
        )
    set_seed(args.seed)  # of new adapters
    network = model.load(say)
    trained, total = parameters(network)
    say(
        f"{args.model_name_or_path}: {model.kind}, {trained:,} of {total:,} parameters are trained, attention "
        f"{model.attention()}"
    )
    flow = Flow(metric, arguments.greater_is_better, args.early_stopping_patience, evaluates)
    log = RunLog(args.output_dir, say)

    def finish(folder: Path, state) -> None:
        (folder / checkpoints.CARD).write_text(describe.card(state), encoding="utf-8")
        write_json(folder / "data_manifest.json", describe.data)

    trainer = PairTrainer(
        model=network,
        args=arguments,
        data_collator=model.collator(flat=model.attention().startswith("flash")),
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
        trainer.add_callback(Probe([first, first[::-1].copy()], args.bf16 or args.fp16))
    return trainer, flow, log


def resume_from(trainer, output_dir: Path, say: Say) -> str | None:
    """The checkpoint that all processes go on from; without one, the starting point is evaluated first."""
    from accelerate.utils import broadcast_object_list

    found = [checkpoints.newest(output_dir, say) if trainer.is_world_process_zero() else None]
    checkpoint = broadcast_object_list(found)[0]
    if checkpoint is None:
        trainer.args.eval_on_start = trainer.args.eval_strategy != "no"
        return None
    kept, processes = read_json(checkpoint / checkpoints.LIST), trainer.args.world_size
    if (kept.get("sharded") or trainer.is_deepspeed_enabled) and kept.get("processes") != processes:
        raise UserError(
            f"{checkpoint} holds the optimizer in {kept.get('processes')} parts, for as many processes; now there are "
            f"{processes}: start as many as before, or another --output_dir with --model_name_or_path {checkpoint}"
        )
    say(f"going on from {checkpoint}")
    return str(checkpoint)
