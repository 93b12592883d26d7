"""A training run: the Trainer is built, resumed from a checkpoint, stopped by signals, and the best model is kept."""

import argparse
import logging
import math
import shutil
from pathlib import Path
from typing import Required

from topxgen.common import checksums, environment, hub, lineage, provenance, rates, signals
from topxgen.common.console import counted, show
from topxgen.common.errors import UsageError, reason
from topxgen.common.files import read_json, read_jsonl, write_json
from topxgen.common.schemas import fields
from topxgen.inference import adapters
from topxgen.inference.costs import span
from topxgen.training import arguments, checkpoints, eval_translation, model_card
from topxgen.training.flag_rules import ON_PLATEAU
from topxgen.training.model import SKIPPED_PAIRS_FILE, TrainableModel, count_parameters
from topxgen.training.pairs import Pair, by_direction
from topxgen.training.tokenization import TokenizedTexts

logger = logging.getLogger(__name__)
MANY_EPOCHS = 40  # Muennighoff et al. 2023 (arXiv 2305.16264): at around 40 epochs repeating is worthless

LOG_FILE, MANIFEST_FILE, SETTINGS_FILE = "train_log.jsonl", "manifest_train.json", "settings_train.json"


_Manifest = fields(steps=Required[int], checksums=list[str])


def log_data(facts: dict) -> None:
    """Log how many pairs of each direction were read, dropped by reason, and selected."""
    for name, part in facts.get("languages", {}).items():
        counts = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in part["counts"].items())
        logger.info(f"{name}: {counts} ({part['path']})")
    train = f"{facts['train_pairs']:,} training and " if "train_pairs" in facts else ""
    logger.info(f"{train}{counted(facts['test_pairs'], 'held-out pair')}")


def log_batch(args: argparse.Namespace) -> None:
    """Log the rows per step."""
    rows, processes = arguments.effective_batch(args)
    logger.info(
        f"{counted(rows, 'row')} per step ({args.per_device_train_batch_size} per device x {args.gradient_accumulation_steps} "
        f"accumulated x {counted(processes, 'process', 'processes')})"
    )


def log_plan(args: argparse.Namespace, model: TrainableModel, texts: TokenizedTexts, rows) -> None:
    """Log how the texts fill the rows, and how many steps and epochs there will be."""
    log_batch(args)
    tokens, batch = int(texts.lengths.sum()), arguments.effective_batch(args)[0]
    is_packed = model.is_decoder and args.packing != "none"
    width = args.max_length if is_packed else max(rows.lengths)
    # Of others it depends on which rows are in a batch.
    padding = f": {1 - tokens / (len(rows) * width):.1%} padding" if is_packed else ""
    epoch_steps = -(-len(rows) // batch)
    steps = args.max_steps or math.ceil(args.num_train_epochs * epoch_steps)
    logger.info(
        f"{counted(len(texts), 'training text')} of {counted(tokens, 'token')} (mean {tokens / len(texts):.0f}) in {counted(len(rows), 'row')} of at most "
        f"{width}{padding}; {counted(epoch_steps, 'step')} per epoch; {counted(steps, 'step')}, "
        f"{steps / epoch_steps:.1f} epochs"
    )
    if args.dry_run and (hours := rates.hours(rates.read(args.output_dir).get("train"), steps)):
        logger.info(f"{steps} steps take {span(hours * 2)} hours at the speed of the last run in {args.output_dir}")
    if steps > MANY_EPOCHS * epoch_steps:
        wanted = "--num_train_epochs" if args.max_steps is None else "--max_steps"
        logger.warning(
            f"{steps / epoch_steps:,.0f} epochs over the same {len(texts):,} texts: repetition teaches nothing after about {MANY_EPOCHS}; lower "
            f"{wanted}, or add data"
        )
    if steps <= args.num_warmup_steps:
        logger.warning(
            f"warm-up (--num_warmup_steps {args.num_warmup_steps}) is not shorter than training ({steps} steps): the peak "
            "learning rate is never reached"
        )


def log_examples(args: argparse.Namespace, model: TrainableModel, texts: TokenizedTexts) -> None:
    """Log the first two training texts of a decoder LM, prompt and target apart."""
    loss = "(loss on this part only)" if args.targets_only else "(loss on both parts)"
    for i in range(min(2, len(texts)) if model.is_decoder else 0):
        ids, prompt = texts[i].tolist(), int(texts.prompts[i])
        prompt_text, target_text = (
            model.tokenizer.decode(part, clean_up_tokenization_spaces=False) for part in (ids[:prompt], ids[prompt:])
        )
        logger.info(f"--- text {i + 1}\n{prompt_text}\n--- {loss}\n{target_text}")


def check_output_dir(output_dir: Path, settings: dict) -> None:
    """Raise UsageError if the directory holds another run's results, or files that this run would overwrite.

    The settings of a run that was stopped before its first checkpoint, and left nothing, do not count.
    """
    has_checkpoints, files = checkpoints.all_checkpoints(output_dir), checkpoints.conflicting_files(output_dir)
    if not (output_dir / SETTINGS_FILE).exists():
        if has_checkpoints:
            raise UsageError(
                f"{output_dir} holds checkpoints but no {SETTINGS_FILE}, so their run is unknown; pass another --output_dir"
            )
        if files:
            raise UsageError(
                f"{output_dir} holds {', '.join(files[:4])}, which the trained model would overwrite; pass another "
                "--output_dir"
            )
    if has_checkpoints or files:
        provenance.check_settings(output_dir / SETTINGS_FILE, settings)


def check_results(args: argparse.Namespace) -> None:
    """Raise UsageError if --output_dir has results of other flags, as far as they are known before data and processes are."""
    args = argparse.Namespace(**vars(args))
    arguments.set_defaults(args)
    settings = arguments.result_settings(args, "")
    of_launcher = [name for name in ("fp16", "bf16") if not settings[name]]
    later = ["data", "effective_batch_rows", *of_launcher]
    check_output_dir(args.output_dir, {name: value for name, value in settings.items() if name not in later})


def is_finished(output_dir: Path) -> bool:
    """Whether the run in a directory is complete; logs it."""
    manifest = read_json(output_dir / MANIFEST_FILE, _Manifest)
    if manifest:
        logger.info(
            f"already finished at step {manifest['steps']}, the best model is in {output_dir}; for another run pass another "
            "--output_dir"
        )
        if environment.is_main_process() and checksums.KEY in manifest:  # a killed run may lack entries
            checksums.claim(output_dir, [*manifest[checksums.KEY], MANIFEST_FILE])
    return bool(manifest)


def run(args: argparse.Namespace, model: TrainableModel, rows, eval_sets, facts: dict, settings: dict) -> int:
    """Train on `rows`, from the newest complete checkpoint if there is one, and keep the best model; the exit code.

    `eval_sets` come from `evaluation_sets`, `facts` describe the data, `settings` decide the result.
    """
    started, output_dir = provenance.now(), args.output_dir
    info = model_card.RunInfo(
        args, model.is_decoder, facts, settings, provenance.command_line(()), lineage.of_training(vars(args), facts)
    )
    log = checkpoint = None
    try:
        trainer, stopper, log = build_trainer(args, model, rows, eval_sets, info)
        checkpoint = resume_from(trainer, args)
        if trainer.is_world_process_zero():
            if checkpoint is None:
                provenance.forget_settings(output_dir / SETTINGS_FILE, settings)
            provenance.record_settings(output_dir / SETTINGS_FILE, settings)
        if checkpoint is None or not is_fully_trained(trainer, stopper, checkpoint):
            with signals.finishing(limited=False):  # finishes the step and saves
                trainer.train(resume_from_checkpoint=checkpoint)
    except Exception as error:  # torch, safetensors and DeepSpeed have no common type for a full memory or disk
        explained = as_usage_error(error, output_dir)
        if explained is error and (isinstance(error, UsageError) or checkpoint is None or stopper.has_begun):
            raise
        if explained is error:  # whatever comes of another model's tensors
            explained = UsageError(
                f"{checkpoint} does not fit this run ({reason(error)}): remove it and re-run to resume from the one before"
            )
        raise explained from None
    finally:
        if log is not None:
            log.close()
    trainer.accelerator.wait_for_everyone()
    if stopper.stopped_by == "signal":
        logger.info(f"stopped by a signal after saving step {trainer.state.global_step}; re-run the command to resume")
    elif trainer.is_world_process_zero():
        finish_run(info, trainer.state, stopper.stopped_by == "patience", started)
    # All processes shut down together, or some abort.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    return signals.EXIT_CODE if stopper.stopped_by == "signal" else 0


def finish_run(info: model_card.RunInfo, state, stopped_early: bool, started: str) -> None:
    """Copy the best model into the output directory, write the manifest, upload if requested."""
    from topxgen.training.log import CURVES_FILE

    args, output_dir = info.args, info.args.output_dir
    best_step = state.best_global_step or state.global_step  # the last one, if nothing was evaluated
    best = output_dir / f"checkpoint-{best_step}"
    copied = checkpoints.copy_best_model(best, output_dir)
    worse = model_card.regressions(state.log_history, best_step)
    for name, now, before in worse:
        logger.warning(f"held-out {name} of the best checkpoint is {now:.4g}, worse than {before:.4g} before training")
    link = {**info.lineage, "weights": provenance.weights_id(output_dir)}
    if number := _number_of_choices(args, state, stopped_early):
        chosen = lineage.of_checkpoint(args.metric_for_best_model, str(output_dir), number)
        link["selections"] = [*link["selections"], chosen]
    names = (*copied, LOG_FILE, CURVES_FILE, SKIPPED_PAIRS_FILE, SETTINGS_FILE)
    finished = [output_dir / name for name in names]
    finished += [folder / checkpoints.CHECKSUM_FILE for folder in checkpoints.all_checkpoints(output_dir)]
    manifest = {
        "stage": "train",
        "complete": True,
        "started": started,
        "finished": provenance.now(),
        "command": info.command,
        "seed": args.seed,
        "settings": info.settings,
        "versions": provenance.versions(),
        "data": info.data,
        "steps": state.global_step,
        "stopped_early": stopped_early,
        "best_checkpoint": best.name,
        "best_metric": state.best_metric,
        "metric_for_best_model": args.metric_for_best_model,
        "worse_than_before_training": sorted(name for name, _, _ in worse),
        lineage.KEY: link,
        checksums.KEY: checksums.existing(output_dir, finished),
    }
    checksums.claim(output_dir, manifest[checksums.KEY], copied)
    write_json(output_dir / MANIFEST_FILE, manifest)
    checksums.claim_file(output_dir / MANIFEST_FILE)
    show(f"best: {best.name}; model, card and tokenizer in {output_dir}, log in {output_dir / LOG_FILE}")
    if args.push_to_hub:
        name = args.hub_model_id or output_dir.resolve().name
        show(f"uploaded to {hub.upload(output_dir, name, 'model', ['checkpoint-*', 'unusable-*', 'run/*'])}")


def _number_of_choices(args: argparse.Namespace, state, stopped_early: bool) -> int:
    """Among how many checkpoints, or ends of training, the metric chose; 0 if nothing was evaluated."""
    steps = {entry["step"] for entry in state.log_history if "eval_runtime" in entry} - {0}
    saved = {step for step in steps if step % args.save_steps == 0 or step == state.global_step}
    return len(steps if stopped_early else saved) if state.best_global_step else 0


def as_usage_error(error: Exception, output_dir: Path) -> Exception:
    """A UsageError if `error` says that memory or the disk is full; else `error` itself."""
    text = str(error).lower()
    if "out of memory" in text or "can't allocate memory" in text:
        return UsageError(
            f"out of memory ({reason(error)}): halve --per_device_train_batch_size and double --gradient_accumulation_steps, "
            "which gives the same model; or add --loss_chunk_size 256, --gradient_checkpointing, --use_peft, --load_in_4bit, or launch with "
            "configs/zero3.yaml. Then re-run to resume"
        )
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return UsageError(
            f"--torch_compile: {reason(error)}; drop the flag, or re-run with it to resume once that is fixed"
        )
    disk_errors = ("inline_container", "pytorchstreamwriter", "no space left", "i/o error", "disk quota")
    if any(words in text for words in disk_errors):
        free = shutil.disk_usage(output_dir).free / 1e9
        return UsageError(
            f"cannot write to {output_dir} ({reason(error)}; {free:.1f} GB free): free some space or lower "
            "--save_total_limit, then re-run to resume from the last complete checkpoint"
        )
    return error


def build_trainer(args: argparse.Namespace, model: TrainableModel, rows, eval_sets, info: model_card.RunInfo):
    """(PairTrainer, its StopAndSaveCallback, its RunLog), with the weights loaded."""
    from transformers import PrinterCallback, set_seed
    from transformers.utils import logging as transformers_logging

    from topxgen.training.log import RunLog, TrackioLog
    from topxgen.training.token_loss import compile_layers
    from topxgen.training.trainer import PackingLeakCheck, PairTrainer, StopAndSaveCallback

    transformers_logging.set_verbosity_error()
    evaluates = bool(eval_sets.rows or eval_sets.pairs)
    # Before the weights: with DeepSpeed the arguments decide how they are loaded.
    metric = f"eval_{args.metric_for_best_model}"
    training_arguments = arguments.training_arguments(args, metric, evaluates, model.has_unused_parameters)
    processes = arguments.effective_batch(args)[1]
    if training_arguments.world_size != processes:
        raise UsageError(
            f"{processes} processes were started, but each would train alone: without a GPU export ACCELERATE_USE_CPU=true"
        )
    set_seed(args.seed)  # for the initialization of adapters
    network = model.load()
    if args.torch_compile and not compile_layers(network):
        raise UsageError(f"--torch_compile: transformers marks no layers of {args.model_name_or_path}; drop the flag")
    trained, total = count_parameters(network)
    logger.info(
        f"{args.model_name_or_path}: {model.kind}, training {trained:,} of {total:,} parameters, attention "
        f"{network.config._attn_implementation}"
    )
    stopper = StopAndSaveCallback(metric, training_arguments.greater_is_better, args.early_stopping_patience, evaluates)
    log = RunLog(args.output_dir / LOG_FILE)

    def finish_checkpoint(folder: Path, state) -> None:
        (folder / checkpoints.CARD_FILE).write_text(info.card(state), encoding="utf-8")
        if args.use_peft and trainer.sharding == "none" and state.global_step <= args.save_steps:  # the first one
            adapters.check_fits(str(folder), args.model_name_or_path, None, args.trust_remote_code)
        # main.py prompts the model with this template, wherever the weights are moved.
        template = {"template_key": args.template_key} if model.is_decoder else {}
        write_json(folder / lineage.DATA_MANIFEST, {**template, **info.data, lineage.KEY: info.lineage})

    trainer = PairTrainer(
        model=network,
        args=training_arguments,
        data_collator=model.collator(),
        train_dataset=rows,
        processing_class=model.tokenizer,
        callbacks=[stopper],
        eval_sets=eval_sets,
        decoder=model.is_decoder,
        pad=model.pad,
        loss_chunk_size=args.loss_chunk_size,
        save_total_limit=args.save_total_limit,
        finish=finish_checkpoint,
    )
    stopper.trainer = trainer
    trainer.remove_callback(PrinterCallback)  # RunLog replaces it
    if trainer.is_world_process_zero():
        trainer.add_callback(log)
        if "trackio" in (args.report_to or ()):
            trainer.add_callback(TrackioLog(args.output_dir, info.settings))
    if model.is_decoder and args.packing == "bestfit":
        first = (next(iter(rows)) if args.streaming else rows[0])["input_ids"]
        precision = "8 bits" if args.load_in_8bit else "half" if args.bf16 or args.fp16 else "float32"
        trainer.add_callback(PackingLeakCheck([first, first[::-1].copy()], precision))
    return trainer, stopper, log


def evaluation_sets(args: argparse.Namespace, model: TrainableModel, test: list[Pair]):
    """The EvalSets of the held-out pairs. Raises UsageError if a flag depends on evaluations that are not possible."""
    from topxgen.training.trainer import EvalSets

    eval_sets = EvalSets(
        pairs=eval_translation.choose(test, args.num_eval_translations), pair_tokenizer=model.pair_tokenizer
    )
    packing = "bestfit" if args.packing == "bestfit" else "none"  # held-out pairs are never cut
    for direction, indices in by_direction(test).items():
        pairs = [test[i] for i in indices]
        texts = model.encode(pairs, packing)
        model.report_too_long(texts, pairs, f"held-out {direction}")
        if len(texts):
            eval_sets.rows[direction] = model.rows(texts, packing)
    if args.metric_for_best_model != "loss" and not eval_sets.pairs:
        raise UsageError(
            f"--num_eval_translations {args.num_eval_translations}: no held-out pair can be translated; raise --test_size_ratio, or "
            "drop the flag"
        )
    if args.lr_scheduler_type in ON_PLATEAU and not test:
        raise UsageError(
            f"--lr_scheduler_type {args.lr_scheduler_type} depends on evaluations, but nothing is held out: raise --test_size_ratio"
        )
    if args.metric_for_best_model == "loss" and test and not eval_sets.rows:
        raise UsageError(f"all held-out pairs are longer than --max_length {args.max_length} tokens: raise it")
    return eval_sets


def resume_from(trainer, args: argparse.Namespace) -> str | None:
    """The checkpoint that all processes resume from. If there is none, the untrained model will be evaluated first."""
    from accelerate.utils import broadcast_object_list

    newest = checkpoints.newest_complete(args.output_dir) if trainer.is_world_process_zero() else None
    checkpoint = broadcast_object_list([newest])[0]
    if checkpoint is None:
        trainer.args.eval_on_start = trainer.args.eval_strategy != "no"
        return None
    saved = checkpoints.file_list(checkpoint)
    sharding, processes = trainer.sharding, trainer.args.world_size
    if saved.get("sharding") != sharding or (sharding != "none" and saved.get("processes") != processes):
        raise UsageError(
            f"{checkpoint} was saved by {saved.get('processes')} processes with sharding {saved.get('sharding')}, but this run "
            f"has {processes} with {sharding}: launch as before, or start in another --output_dir with "
            f"--model_name_or_path {checkpoint}"
        )
    if args.use_peft and sharding == "none":  # of tensors that peft cannot place, layers would begin anew
        adapters.check_fits(str(checkpoint), args.model_name_or_path, None, args.trust_remote_code)
    logger.info(f"resuming from {checkpoint}")
    return str(checkpoint)


def is_fully_trained(trainer, stopper, checkpoint: str) -> bool:
    """Whether a checkpoint is the end of training: the run was killed before its best model was copied."""
    from transformers import TrainerState

    from topxgen.training.log import CURVES_FILE, TrackioLog, complete, draw_curves
    from topxgen.training.trainer import find_best

    state = TrainerState.load_from_json(str(Path(checkpoint) / checkpoints.STATE_FILE))
    if state.global_step < state.max_steps:
        if not stopper.out_of_patience(state.log_history):
            return False
        stopper.stopped_by = "patience"
    find_best(state, Path(trainer.args.output_dir))
    trainer.state = state
    if trainer.is_world_process_zero():
        path = Path(trainer.args.output_dir) / LOG_FILE
        complete(path, state)
        draw_curves(state.log_history, path.with_name(CURVES_FILE))
        for tracker in trainer.callback_handler.callbacks:
            if isinstance(tracker, TrackioLog):
                tracker.write(list(read_jsonl(path)))
    return True
