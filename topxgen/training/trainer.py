"""transformers' Trainer, with the loss, the evaluation and the checkpoints that this project wants.

- Logits are computed where there is a loss alone: with `--targets_only` and a large vocabulary that is a third of
  all work. The loss is the mean over the tokens of a whole step, whatever the accumulation and the processes.
- Evaluation is a sum over all tokens of the test set, by direction, and optionally held-out translations.
- A checkpoint is listed when it is whole, then older ones go; the best of those that were saved is kept.
"""

import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback
from transformers.trainer_pt_utils import get_length_grouped_indices

from topxgen.common.errors import UsageError
from topxgen.training import checkpoints, eval_translation
from topxgen.training.packing import IGNORED
from topxgen.training.pairs import Pair

logger = logging.getLogger(__name__)


@dataclass
class EvalSets:
    """What the model is evaluated on: rows by direction for the loss, pairs for translations."""

    rows: dict[str, Sequence]
    pairs: list[Pair]
    encoder: object


class PairTrainer(Trainer):
    """`held_out` may have no rows (then nothing is evaluated); `finish(folder, state)` adds to a checkpoint before it
    is listed; `pad` is the id of padding."""

    def __init__(
        self,
        *,
        held_out: EvalSets,
        decoder: bool,
        pad: int,
        save_total_limit: int | None,
        finish: Callable,
        **options,
    ):
        super().__init__(eval_dataset=held_out, **options)  # which Trainer only wants to be there
        self._held_out, self._decoder, self._pad = held_out, decoder, pad
        self._save_total_limit, self._finish = save_total_limit, finish
        # The loss below is a sum over tokens, divided by those of the whole step.
        self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = True
        self._loss_shifts_labels = decoder
        self._keep: torch.Tensor | None = None
        if not self.args.use_liger_kernel:
            self.model.get_output_embeddings().register_forward_pre_hook(self._select)
        self._tokens, self._seconds, self._resumed_clock = 0, 0.0, time.perf_counter()

    # Loss

    def _select(self, module, inputs):
        """Hand the output layer only the positions that have a loss."""
        if self._keep is None:
            return None
        return (inputs[0][self._keep].unsqueeze(0), *inputs[1:])

    def _sum_of_losses(self, model, inputs: dict) -> torch.Tensor:
        """Negative log-likelihood in nats, summed over the tokens of a batch that have a loss."""
        if self.args.use_liger_kernel:  # has its own way not to hold all logits
            return model(**inputs, num_items_in_batch=torch.tensor(1)).loss
        labels = inputs.pop("labels")
        if self._decoder:
            labels = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
        self._keep = labels != IGNORED
        try:
            logits = model(**inputs).logits
        finally:
            keep, self._keep = self._keep, None
        targets = labels[keep]
        if logits.shape[:-1].numel() != len(targets):
            raise UsageError(
                f"{type(self.model).__name__} does not call its output layer as other models do, so that the loss cannot be "
                "computed; pass another model"
            )
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, -2), targets, reduction="sum")

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self._tokens = self._tokens + (inputs["input_ids"] != self._pad).sum()
        if not self._decoder:
            self._tokens = self._tokens + (inputs["labels"] != IGNORED).sum()
        loss = self._sum_of_losses(model, inputs) / num_items_in_batch.clamp(min=1)
        # Gradients are averaged over processes, and the tokens were counted over all of them.
        return loss * self.accelerator.num_processes if self.args.average_tokens_across_devices else loss

    # Order

    def _get_train_sampler(self, train_dataset=None):
        rows = train_dataset if train_dataset is not None else self.train_dataset
        if not hasattr(rows, "lengths"):  # a stream has an order of its own
            return None
        step = self.get_total_train_batch_size(self.args)
        order = EpochOrder(rows.lengths, step, self.args.seed, by_length=not self._decoder)
        self.add_callback(SetEpochCallback(order))
        return order

    # Throughput

    def log(self, logs: dict, start_time: float | None = None) -> None:
        if "loss" in logs:
            seconds = self._seconds + time.perf_counter() - self._resumed_clock
            tokens = int(self._tokens) * self.accelerator.num_processes
            logs["tokens_per_second"] = round(tokens / max(seconds, 1e-9), 1)
            self._tokens, self._seconds, self._resumed_clock = 0, 0.0, time.perf_counter()
        super().log(logs, start_time)

    def _off_the_clock(self, work: Callable):
        """Evaluation and saving do not count in tokens per second."""
        self._seconds += time.perf_counter() - self._resumed_clock
        try:
            return work()
        finally:
            self._resumed_clock = time.perf_counter()

    # Evaluation

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval") -> dict[str, float]:
        return self._off_the_clock(self._evaluate_all)

    def _evaluate_all(self) -> dict[str, float]:
        started, model = time.perf_counter(), self.model_wrapped
        training = model.training
        model.eval()
        sums = self._held_out_losses(model)
        metrics = {}
        if total := sum(count for _, count in sums.values()):
            metrics["eval_loss"] = sum(loss for loss, _ in sums.values()) / total
            if len(sums) > 1:
                metrics |= {f"eval_loss_{key}": loss / max(count, 1) for key, (loss, count) in sums.items()}
        if self._held_out.pairs:
            answers = self._translate(self._held_out.pairs)
            metrics |= {f"eval_{k}": v for k, v in eval_translation.score(self._held_out.pairs, answers).items()}
        model.train(training)
        metrics["eval_runtime"] = round(time.perf_counter() - started, 2)
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _held_out_losses(self, model) -> dict[str, tuple[float, int]]:
        """(summed loss, tokens) by direction. Every process takes its share of batches, as many as the others."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        totals = torch.zeros(len(self._held_out.rows), 2, dtype=torch.float64, device=self.args.device)
        for i, rows in enumerate(self._held_out.rows.values()):
            order = np.argsort(-np.array(rows.lengths), kind="stable").tolist()
            size = self.args.per_device_eval_batch_size
            batches = [order[start : start + size] for start in range(0, len(order), size)]
            for number in range(rank, math.ceil(len(batches) / world) * world, world):
                batch = self.data_collator([rows[j] for j in batches[number % len(batches)]])
                if number >= len(batches):
                    batch["labels"].fill_(IGNORED)  # only to keep step with the other processes
                batch = self._prepare_inputs(batch)
                with torch.no_grad(), self.compute_loss_context_manager():
                    shifted = batch["labels"][:, 1:] if self._decoder else batch["labels"]
                    totals[i, 1] += (shifted != IGNORED).sum()
                    totals[i, 0] += self._sum_of_losses(model, batch).double()
        if world > 1:
            totals = self.accelerator.reduce(totals, "sum")
        return {key: (float(t[0]), int(t[1])) for key, t in zip(self._held_out.rows, totals, strict=True)}

    def _translate(self, pairs: list[Pair]) -> list[str]:
        """Translations by all processes together, in the order of `pairs`."""
        world = self.accelerator.num_processes
        answers = eval_translation.translate(
            self.accelerator.unwrap_model(self.model_wrapped),
            self.processing_class,
            self._held_out.encoder,
            pairs,
            rank=self.accelerator.process_index,
            world=world,
            synced=world > 1 and self.sharding == "ZeRO-3",
        )
        found = dict(gather_object(list(answers.items())) if world > 1 else answers)
        return [found[i] for i in range(len(pairs))]

    def _determine_best_metric(self, metrics, trial) -> bool:
        """Of the evaluations, only those of steps that are saved can be the best: what is best must be there."""
        if not self.control.should_save:
            return False
        return super()._determine_best_metric(metrics, trial)

    # Checkpoints

    @property
    def sharding(self) -> str:
        """How the optimizer lies on disk: in one piece, or in the parts of a stage of ZeRO."""
        if not self.is_deepspeed_enabled:
            return "none"
        return f"ZeRO-{self.accelerator.state.deepspeed_plugin.zero_stage}"

    def _save_checkpoint(self, model, trial) -> None:
        self._off_the_clock(lambda: self._save_listed(model, trial))

    def _save_listed(self, model, trial) -> None:
        if not torch.isfinite(self._tr_loss):
            raise diverged("loss", float(self._tr_loss), self.state.global_step)
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if not self.args.should_save:
            return
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, of which nothing here is read
        self._finish(folder, self.state)
        checkpoints.mark_complete(folder, processes=self.args.world_size, sharding=self.sharding)
        checkpoints.rotate(Path(self.args.output_dir), self._save_total_limit, self.state.best_global_step)


class EpochOrder(torch.utils.data.Sampler):
    """Rows in an order that depends on (seed, epoch) alone, so that a resumed run meets the same ones.

    A step always has `step` rows, over all processes: the last one of an epoch is filled up from the epoch's
    beginning, so that one process and many take the same steps. `by_length` brings rows of like length together, as
    padding wants.
    """

    def __init__(self, lengths: list[int], step: int, seed: int, by_length: bool = False):
        self._lengths, self._step, self._seed, self._by_length, self._epoch = lengths, step, seed, by_length, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    @property
    def steps(self) -> int:
        """In an epoch."""
        return -(-len(self._lengths) // self._step)

    def __len__(self) -> int:
        return self.steps * self._step

    def __iter__(self):
        generator = torch.Generator().manual_seed(self._seed * 100_003 + self._epoch)
        if self._by_length:
            order = get_length_grouped_indices(self._lengths, self._step, generator=generator)
        else:
            order = torch.randperm(len(self._lengths), generator=generator).tolist()
        return itertools.islice(itertools.cycle(order), len(self))


class SetEpochCallback(TrainerCallback):
    """Tells an order its epoch: after a resume accelerate's wrappers do not reach it with several processes."""

    def __init__(self, order: EpochOrder):
        self._order = order

    def on_epoch_begin(self, args, state, control, **kwargs):
        self._order.set_epoch(state.global_step // self._order.steps)


def find_best(state, output_dir: Path) -> None:
    """Look for the best checkpoint of an earlier process: the directory may have been moved since, or it removed."""
    if state.best_global_step is None:
        return
    best = output_dir / f"checkpoint-{state.best_global_step}"
    if best.is_dir():
        state.best_model_checkpoint = str(best)
    else:
        logger.info(f"{best}, the best so far, is gone: the best of those that follow is kept, or the last one")
        state.best_model_checkpoint = state.best_global_step = state.best_metric = None


def diverged(name: str, value: float, step: int) -> UsageError:
    return UsageError(
        f"the {name} at step {step} is {value}: training has diverged. Lower --learning_rate, raise --num_warmup_steps, "
        "use --bf16 instead of --fp16, and start in another --output_dir"
    )


class StopAndSaveCallback(TrainerCallback):
    """When to evaluate, to save and to stop, beyond what Trainer knows.

    What is saved is evaluated first; `patience` evaluations without a better `metric` end the run; a loss that is
    no number ends it; `stop_requested` (a signal) ends it after a checkpoint.
    """

    def __init__(self, metric: str, greater_is_better: bool, patience: int | None, evaluates: bool):
        self._metric, self._greater, self._patience, self._evaluates = metric, greater_is_better, patience, evaluates
        self.stop_requested = False
        self.stopped = ""  # why, when it was not the last step
        self.accelerator = None

    def on_train_begin(self, args, state, control, **kwargs):
        state.compute_steps(args, state.max_steps)  # how often to log, evaluate and save may have changed
        find_best(state, Path(args.output_dir), self._say)

    def on_step_end(self, args, state, control, **kwargs):
        if self.accelerator is not None:
            if self.stop_requested:
                self.accelerator.set_trigger()
            if self.accelerator.check_trigger() and state.global_step < state.max_steps:
                self.stopped = "signal"
                control.should_save = control.should_training_stop = True
        if control.should_save and self._evaluates and self.stopped != "signal":
            control.should_evaluate = True
        return control

    def on_log(self, args, state, control, logs=None, **kwargs):
        # With fp16 gradients overflow by design: the scale is halved and the step skipped.
        for name in ("loss", "eval_loss", *(() if args.fp16 else ("grad_norm",))):
            if not math.isfinite((logs or {}).get(name, 0.0)):
                raise diverged(name, logs[name], state.global_step)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if state.global_step and self.out_of_patience(state.log_history):
            self.stopped = "patience"
            control.should_save = control.should_training_stop = True
        return control

    def out_of_patience(self, history: list[dict]) -> bool:
        return bool(self._patience) and self.waited(history) >= self._patience

    def waited(self, history: list[dict]) -> int:
        """Evaluations since the best one, from the log, which checkpoints keep."""
        values = [entry[self._metric] for entry in history if self._metric in entry]
        if not self._greater:
            values = [-value for value in values]
        return len(values) - 1 - values.index(max(values)) if values else 0


class PackingLeakCheck(TrainerCallback):
    """Makes sure, before the first step, that packed texts do not see each other."""

    def __init__(self, texts: list[np.ndarray], rounding: str):
        self._texts, self._rounding = texts, rounding

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        probe_packing(model, self._texts, self._rounding)


# How far logits may move: when a neighbour changes (nothing, but with 8-bit weights, whose scales are those of a whole
# batch), and when a text stands alone (the order of summation).
PROBE_TOLERANCES = {"float32": (1e-4, 1e-3), "half": (1e-4, 1e-2), "8 bits": (1e-2, 1e-1)}


def probe_packing(model, texts: list[np.ndarray], rounding: str) -> None:
    """Raise UsageError when a text sees another one in its row: not every architecture heeds position ids.

    The second text of a row must not change when the first one does, nor when it stands alone.
    """
    most_leak, most_shift = PROBE_TOLERANCES[rounding]
    first, second = (torch.as_tensor(text[:32].astype(np.int64)) for text in texts)

    def logits(*parts: torch.Tensor) -> torch.Tensor:
        ids = torch.cat(parts)[None].to(model.device)
        positions = torch.cat([torch.arange(len(part)) for part in parts])[None].to(model.device)
        with torch.no_grad():
            return model(input_ids=ids, position_ids=positions).logits[0, -len(second) :].float()

    training = model.training
    model.eval()
    together, changed, alone = logits(first, second), logits(first.flip(0).roll(1), second), logits(second)
    model.train(training)
    scale = together.abs().mean().clamp_min(1e-6)
    leak, shift = ((together - other).abs().mean() / scale for other in (changed, alone))
    if leak > most_leak or shift > most_shift:
        raise UsageError(
            f"{type(model).__name__} lets the pairs of a row see each other (the logits of one change by "
            f"{max(leak, shift):.2%} with its neighbour): pass --packing none"
        )
