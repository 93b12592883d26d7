"""transformers' Trainer with the loss, the evaluation and the checkpoints of this project.

- Logits are computed only at positions that have a loss, and not all at once (token_loss.py). The loss is the mean over all
  tokens of an optimizer step, however it is split into batches and processes.
- Evaluation is the loss over all tokens of the test set, by direction, and optionally translations of held-out pairs.
- A complete checkpoint is marked as such before older ones are removed; the best saved one is kept.
"""

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback
from transformers.trainer_pt_utils import get_length_grouped_indices

from topxgen.common import signals
from topxgen.common.errors import UsageError
from topxgen.common.hub import listed
from topxgen.training import checkpoints, eval_translation
from topxgen.training.packing import IGNORED
from topxgen.training.pairs import Pair
from topxgen.training.token_loss import TokenLoss, uncompiled

logger = logging.getLogger(__name__)


@dataclass
class EvalSets:
    """What a model is evaluated on: rows by direction for the loss, pairs to translate (with the model's pair tokenizer)."""

    rows: dict[str, Sequence] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    pair_tokenizer: object = None


class PairTrainer(Trainer):
    """`pad` is the padding token; `loss_chunk_size` that of TokenLoss; `finish(folder, state)` adds files to a checkpoint before it
    is marked complete."""

    def __init__(
        self,
        *,
        eval_sets: EvalSets,
        decoder: bool,
        pad: int,
        loss_chunk_size: int,
        save_total_limit: int | None,
        finish: Callable,
        **options,
    ):
        super().__init__(eval_dataset=eval_sets, **options)  # Trainer only checks that there is one
        self._eval_sets, self._decoder, self._pad = eval_sets, decoder, pad
        self._save_total_limit, self._finish = save_total_limit, finish
        # compute_loss divides by the tokens of the whole step itself.
        self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = True
        self._loss_shifts_labels = decoder
        if not self.args.use_liger_kernel:
            inner = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
            self.token_loss = TokenLoss(inner, decoder, loss_chunk_size)
        self._tokens, self._seconds, self._clock_started = 0, 0.0, time.perf_counter()
        self.saves_for_signal = False  # only: not at this step without one
        self._sums_are_known = True  # not so after a resume from a checkpoint of an earlier version

    # Loss

    def _summed_loss(self, model, inputs: dict) -> torch.Tensor:
        """Negative log-likelihood in nats, summed over the tokens of a batch that have a loss."""
        options = {"num_items_in_batch": torch.tensor(1)} if self.args.use_liger_kernel else {}
        return model(**inputs, **options).loss

    def training_step(self, *inputs, **options):
        with self._adapter_inputs():
            return super().training_step(*inputs, **options)

    def _adapter_inputs(self) -> AbstractContextManager:
        """Under autocast, PEFT's casts of an adapter's input to float32 and autocast's back to half precision change nothing in it, and
        cost a seventh of a step (docs/results.md)."""
        adapters = getattr(self.model, "peft_config", {}).values()
        # DoRA computes with the input itself; torch's dropout on CPUs rounds its scale to the input's precision.
        needs_casts = any(
            getattr(a, "use_dora", True) or (a.lora_dropout and self.args.device.type == "cpu") for a in adapters
        )
        if needs_casts or not adapters or not (self.args.bf16 or self.args.fp16):
            return nullcontext()
        from peft.helpers import disable_input_dtype_casting

        return disable_input_dtype_casting(self.model)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        read = inputs.get("attention_mask")
        if read is None:  # packed rows; the end of a text may be the padding token, but has a loss
            read = (inputs["input_ids"] != self._pad) | (inputs["labels"] != IGNORED)
        self._tokens = self._tokens + read.sum()
        if not self._decoder:
            self._tokens = self._tokens + (inputs["labels"] != IGNORED).sum()
        loss = self._summed_loss(model, inputs) / num_items_in_batch.clamp(min=1)
        # Gradients are averaged over processes, but num_items_in_batch counts the tokens of all.
        return loss * self.accelerator.num_processes if self.args.average_tokens_across_devices else loss

    def _get_train_sampler(self, train_dataset=None):
        rows = train_dataset if train_dataset is not None else self.train_dataset
        if not hasattr(rows, "lengths"):  # a stream has its own order
            return None
        rows_per_step = self.get_total_train_batch_size(self.args)
        order = EpochOrder(rows.lengths, rows_per_step, self.args.seed, by_length=not self._decoder)
        self.add_callback(SetEpochCallback(order))
        return order

    # Throughput

    def log(self, logs: dict, start_time: float | None = None) -> None:
        if "loss" in logs:
            seconds = self._seconds + time.perf_counter() - self._clock_started
            tokens = int(self._tokens) * self.accelerator.num_processes
            logs["tokens_per_second"] = round(tokens / max(seconds, 1e-9), 1)
            self._tokens, self._seconds, self._clock_started = 0, 0.0, time.perf_counter()
        if "train_loss" in logs and self._sums_are_known:  # transformers divides by the steps since the last resume
            logs["train_loss"] = self._total_loss_scalar / max(1, self.state.global_step)
        super().log(logs, start_time)

    def _save_sums(self) -> None:
        """Put what the next log entries are computed from into the state that a checkpoint saves."""
        unlogged = float(self._tr_loss)
        self.state.stateful_callbacks[checkpoints.SUMS] = {
            "unlogged": gather_object([unlogged]) if self.accelerator.num_processes > 1 else [unlogged],
            "logged": self._total_loss_scalar,
            "last_logged_step": self._globalstep_last_logged,
        }

    def restore_sums(self) -> None:
        """The reverse, after a resume, in which transformers starts them anew; processes share the sum equally if there were more or fewer of them."""
        sums = self.state.stateful_callbacks.get(checkpoints.SUMS)
        self._sums_are_known = sums is not None or not self.state.global_step
        if sums is None:
            return
        unlogged, processes = sums["unlogged"], self.accelerator.num_processes
        same = len(unlogged) == processes
        self._tr_loss += unlogged[self.accelerator.process_index] if same else sum(unlogged) / len(unlogged)
        self._total_loss_scalar, self._globalstep_last_logged = sums["logged"], sums["last_logged_step"]

    @contextmanager
    def _clock_stopped(self) -> Iterator[None]:
        """Evaluation and saving do not count in tokens per second."""
        self._seconds += time.perf_counter() - self._clock_started
        try:
            yield
        finally:
            self._clock_started = time.perf_counter()

    # Evaluation

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval") -> dict[str, float]:
        """Loss and translation scores of the EvalSets, by direction and in all."""
        with self._clock_stopped():
            started, model = time.perf_counter(), self.model_wrapped
            training = model.training
            model.eval()
            sums = self._eval_losses(model)
            metrics = held_out_losses(sums)
            # Weights that are NaN translate nothing; the log refuses their loss.
            if (pairs := self._eval_sets.pairs) and math.isfinite(metrics.get("eval_loss", 0.0)):
                scores = eval_translation.score(pairs, self._translate(pairs))
                metrics |= {f"eval_{name}": value for name, value in scores.items()}
            model.train(training)
            metrics["eval_runtime"] = round(time.perf_counter() - started, 2)
            self.log(dict(metrics))
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _eval_losses(self, model) -> dict[str, tuple[float, int]]:
        """(summed loss, tokens) by direction. Each process evaluates its share of the batches, all the same number."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        totals = torch.zeros(len(self._eval_sets.rows), 2, dtype=torch.float64, device=self.args.device)
        for i, rows in enumerate(self._eval_sets.rows.values()):
            order = np.argsort(-np.array(rows.lengths), kind="stable").tolist()
            size = self.args.per_device_eval_batch_size
            batches = [order[start : start + size] for start in range(0, len(order), size)]
            for number in range(rank, math.ceil(len(batches) / world) * world, world):
                batch = self.data_collator([rows[j] for j in batches[number % len(batches)]])
                if number >= len(batches):
                    batch["labels"].fill_(IGNORED)  # a repeated batch, only to stay in step with the other processes
                batch = self._prepare_inputs(batch)
                with torch.no_grad(), self.compute_loss_context_manager():
                    shifted = batch["labels"][:, 1:] if self._decoder else batch["labels"]
                    totals[i, 1] += (shifted != IGNORED).sum()
                    totals[i, 0] += self._summed_loss(model, batch).double()
        if world > 1:
            totals = self.accelerator.reduce(totals, "sum")
        return {name: (float(t[0]), int(t[1])) for name, t in zip(self._eval_sets.rows, totals, strict=True)}

    def _translate(self, pairs: list[Pair]) -> list[str]:
        """Translations of the pairs' sources, the work shared among all processes."""
        world = self.accelerator.num_processes
        with uncompiled():
            answers = eval_translation.translate(
                self.accelerator.unwrap_model(self.model_wrapped),
                self.processing_class,
                self._eval_sets.pair_tokenizer,
                pairs,
                rank=self.accelerator.process_index,
                world=world,
                synced=world > 1 and self.sharding == "ZeRO-3",
                half=self.args.bf16 or self.args.fp16,
            )
        by_number = dict(gather_object(list(answers.items())) if world > 1 else answers)
        return [by_number[i] for i in range(len(pairs))]

    def _determine_best_metric(self, metrics, trial) -> bool:
        """Only an evaluation at a step that is saved, with or without a signal, can be the best one, so that its checkpoint exists."""
        saves = self.control.should_save and not self.saves_for_signal
        return saves and super()._determine_best_metric(metrics, trial)

    # Checkpoints

    @property
    def sharding(self) -> str:
        """How the optimizer state is sharded on disk: "none" or "ZeRO-" and the stage."""
        if not self.is_deepspeed_enabled:
            return "none"
        return f"ZeRO-{self.accelerator.state.deepspeed_plugin.zero_stage}"

    def _save_checkpoint(self, model, trial) -> None:
        with self._clock_stopped():
            if not torch.isfinite(self._tr_loss):
                raise diverged("loss", float(self._tr_loss), self.state.global_step)
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            self._save_sums()
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing here reads
                self._finish(folder, self.state)
                checkpoints.mark_complete(folder, processes=self.args.world_size, sharding=self.sharding)
                checkpoints.rotate(folder.parent, self._save_total_limit, self.state.best_global_step)

    def _issue_warnings_after_load(self, load_result):
        not_saved = {*self.model.all_tied_weights_keys, *(self.model._keys_to_ignore_on_save or ())}
        if missing := set(load_result.missing_keys) - not_saved:
            raise KeyError(f"no weights {listed(sorted(missing))}")


def held_out_losses(sums: dict[str, tuple[float, int]]) -> dict[str, float]:
    """Means over tokens, of all and of each direction if there are several, from (summed loss, tokens) by direction."""
    total = sum(count for _, count in sums.values())
    losses = {"eval_loss": sum(loss for loss, _ in sums.values()) / total} if total else {}
    if total and len(sums) > 1:
        losses |= {f"eval_loss_{name}": loss / max(count, 1) for name, (loss, count) in sums.items()}
    return losses


class EpochOrder(torch.utils.data.Sampler):
    """Row indices in an order that depends on (seed, epoch) only, so that a resumed run continues with the same rows.

    An epoch is filled up to whole steps of `rows_per_step` (over all processes) with its own first rows, so that one process
    and many take the same steps. `by_length` puts rows of similar length next to each other, to save padding.
    """

    def __init__(self, lengths: list[int], rows_per_step: int, seed: int, by_length: bool = False):
        self._lengths, self._rows_per_step, self._seed, self._by_length = lengths, rows_per_step, seed, by_length
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self._lengths) // self._rows_per_step)

    def __len__(self) -> int:
        return self.steps_per_epoch * self._rows_per_step

    def __iter__(self):
        generator = torch.Generator().manual_seed(self._seed * 100_003 + self._epoch)
        if self._by_length:
            order = get_length_grouped_indices(self._lengths, self._rows_per_step, generator=generator)
        else:
            order = torch.randperm(len(self._lengths), generator=generator).tolist()
        return itertools.islice(itertools.cycle(order), len(self))


class SetEpochCallback(TrainerCallback):
    """Sets the epoch of an EpochOrder: after a resume with several processes accelerate's wrappers do not."""

    def __init__(self, order: EpochOrder):
        self._order = order

    def on_epoch_begin(self, args, state, control, **kwargs):
        self._order.set_epoch(state.global_step // self._order.steps_per_epoch)


def find_best(state, output_dir: Path) -> None:
    """Update the path of the best checkpoint so far: the directory may have been moved, or the checkpoint deleted."""
    if state.best_global_step is None:
        return
    best = output_dir / f"checkpoint-{state.best_global_step}"
    if best.is_dir():
        state.best_model_checkpoint = str(best)
    else:
        logger.warning(f"the best checkpoint {best} was deleted; continuing without it")
        state.best_model_checkpoint = state.best_global_step = state.best_metric = None


def diverged(name: str, value: float, step: int) -> UsageError:
    return UsageError(
        f"the {name} at step {step} is {value}: training has diverged. Lower --learning_rate, raise --num_warmup_steps, "
        "use --bf16 instead of --fp16, and start in another --output_dir"
    )


class StopAndSaveCallback(TrainerCallback):
    """Decides when to evaluate, save and stop, beyond what Trainer does.

    Every checkpoint is evaluated first. Training stops after `patience` evaluations without a better `metric`, when a loss
    is not finite (UsageError), and after saving a checkpoint once a signal asks for it.
    """

    def __init__(self, metric: str, greater_is_better: bool, patience: int | None, evaluates: bool):
        self._metric, self._greater, self._patience, self._evaluates = metric, greater_is_better, patience, evaluates
        self.stopped_by = ""  # "signal" or "patience", if it was not the last step
        self.has_begun = False  # the first step, until which a resumed run reads its checkpoint
        self.trainer: PairTrainer | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        state.compute_steps(args, state.max_steps)  # a resumed run may log, evaluate and save at other intervals
        find_best(state, Path(args.output_dir))
        if self.trainer is not None:
            self.trainer.restore_sums()

    def on_step_begin(self, args, state, control, **kwargs):
        self.has_begun = True

    def on_step_end(self, args, state, control, **kwargs):
        due = state.global_step % state.save_steps == 0
        if self.trainer is not None:
            accelerator = self.trainer.accelerator
            if signals.stop_requested():
                accelerator.set_trigger()
            if accelerator.check_trigger() and state.global_step < state.max_steps:
                self.stopped_by = "signal"
                control.should_save = control.should_training_stop = True
            self.trainer.saves_for_signal = self.stopped_by == "signal" and not due
        if control.should_save and self._evaluates and (due or self.stopped_by != "signal"):
            control.should_evaluate = True
        return control

    def on_log(self, args, state, control, logs=None, **kwargs):
        # With fp16 gradients overflow by design: the scale is halved and the step skipped.
        for name in ("loss", "eval_loss", *(() if args.fp16 else ("grad_norm",))):
            if not math.isfinite((logs or {}).get(name, 0.0)):
                raise diverged(name, logs[name], state.global_step)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if state.global_step and self.out_of_patience(state.log_history):
            self.stopped_by = "patience"
            control.should_save = control.should_training_stop = True
            if self.trainer is not None:
                self.trainer.saves_for_signal = False
        return control

    def out_of_patience(self, history: list[dict]) -> bool:
        """Whether the log, which checkpoints keep, ends with `patience` evaluations that are no better than an earlier one."""
        values = [entry[self._metric] for entry in history if self._metric in entry]
        if not values or not self._patience:
            return False
        best = max(values) if self._greater else min(values)
        return len(values) - 1 - values.index(best) >= self._patience


class PackingLeakCheck(TrainerCallback):
    """Checks before the first step that packed texts do not attend to each other."""

    def __init__(self, texts: list[np.ndarray], precision: str):
        self._texts, self._precision = texts, precision

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        check_packing(model, self._texts, self._precision)


# By precision: how far (relative to their mean) the logits of a text may move when its neighbour changes (only with 8-bit
# weights, whose scales are those of a whole batch), and when it stands alone (the order of summation: 2 % with bf16 on AMX).
LEAK_TOLERANCES = {"float32": (1e-4, 1e-3), "half": (1e-4, 5e-2), "8 bits": (1e-2, 1e-1)}


def check_packing(model, texts: list[np.ndarray], precision: str) -> None:
    """Raise UsageError if a text sees its neighbour in a row: some architectures ignore position ids.

    The logits of the second of two texts must not change when the first one does, nor when it stands alone.
    """
    max_leak, max_shift = LEAK_TOLERANCES[precision]
    first, second = (torch.as_tensor(text[:32].astype(np.int64)) for text in texts)

    def logits(*parts: torch.Tensor) -> torch.Tensor:
        ids = torch.cat(parts)[None].to(model.device)
        positions = torch.cat([torch.arange(len(part)) for part in parts])[None].to(model.device)
        with torch.no_grad(), uncompiled():
            return model(input_ids=ids, position_ids=positions).logits[0, -len(second) :].float()

    training = model.training
    model.eval()
    together, changed, alone = logits(first, second), logits(first.flip(0).roll(1), second), logits(second)
    model.train(training)
    scale = together.abs().mean().clamp_min(1e-6)
    leak, shift = ((together - other).abs().mean() / scale for other in (changed, alone))
    if leak > max_leak or shift > max_shift:
        raise UsageError(
            f"{type(model).__name__} lets the pairs of a row see each other (the logits of one change by "
            f"{max(leak, shift):.2%} with its neighbour): pass --packing none"
        )
