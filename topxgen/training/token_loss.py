"""The training loss as a sum over tokens, in chunks, so that the logits of a whole batch never exist at once.

The logits of 4,096 tokens over 262,144 words take 4 GiB in float32, and cross-entropy with its gradient needs them about three
times. Here a forward pass ends at the output layer; the layer, what the model does with its output, and the loss then run
chunk by chunk, on positions with a label only (as in Liger Kernel and TRL, but in plain torch, for any model and adapter).
"""

import functools
import inspect
import logging
import math
import types
from collections.abc import Callable, Iterator

import torch
from torch.nn.functional import cross_entropy, pad
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import CausalLMOutput

from topxgen.common.errors import UsageError
from topxgen.training.packing import IGNORED

logger = logging.getLogger(__name__)

WINDOW = 64  # tokens of the pass that looks at what a model does with the output of its output layer
# By how much of the largest logit the function found for it may be off: the order of operations, and rounding.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}

Logits = Callable[[torch.Tensor], torch.Tensor]  # the output layer's output [..., words] -> logits


class _Reached(Exception):
    """Ends a forward pass at the output layer. Holds the hidden states that have a label: [tokens, size]."""

    def __init__(self, hidden: torch.Tensor):
        self.hidden = hidden


class TokenLoss:
    """Makes `model(..., labels=labels)` return, as `loss`, the negative log-likelihood in nats summed over all labels but IGNORED.

    `model` is one of transformers', inside the wrapper of an adapter; without labels it works as before. The labels of a
    decoder LM are shifted here. Of at most `chunk` labels (or with `chunk` 0, or a model that does with its logits what
    no candidate below explains) all logits are computed at once, by the model's own code.
    """

    def __init__(self, model, decoder: bool, chunk: int):
        self._model, self._decoder, self._chunk = model, decoder, chunk
        self._has_label: torch.Tensor | None = None  # bool [rows, tokens], during a forward pass
        self._stops = False  # whether that pass ends at the output layer
        self._logits: Logits | None = None
        self._is_checked = False
        self._forward = model.forward
        # Without a cache, which some architectures take as a sign that the rows are not packed.
        self._without_cache = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
        forward = functools.wraps(type(model).forward)(lambda _, *inputs, **options: self(*inputs, **options))
        model.forward = types.MethodType(forward, model)
        if self._head is None:
            raise self._unknown_head()
        self._hook = self._head.register_forward_pre_hook(self._intercept)

    def remove(self) -> None:
        """Leave the model as it was."""
        self._hook.remove()
        del self._model.forward

    @property
    def _head(self):
        return self._model.get_output_embeddings()

    def _unknown_head(self) -> UsageError:
        return UsageError(
            f"{type(self._model).__name__} does not apply its output layer to hidden states [rows, tokens, size], so its loss "
            "cannot be computed; pass another model"
        )

    def _intercept(self, module, inputs):
        if self._has_label is None:
            return None
        hidden, *others = inputs
        if hidden.shape[:-1] != self._has_label.shape:
            raise self._unknown_head()
        hidden = hidden[self._has_label]
        if self._stops:
            raise _Reached(hidden)
        return (hidden.unsqueeze(0), *others)

    def __call__(self, *inputs, labels: torch.Tensor | None = None, **options):
        if labels is None:
            return self._forward(*inputs, **options)
        options |= self._without_cache
        targets, has_label = self._targets(labels)
        parts = self._parts(len(targets))
        if parts > 1 and not self._is_checked:
            self._logits, self._is_checked = self._find_logits(labels, options), True
        if parts == 1 or self._logits is None:
            return CausalLMOutput(loss=self._whole(targets, has_label, inputs, options))
        self._has_label, self._stops = has_label, True
        try:
            self._forward(*inputs, **options)
        except _Reached as reached:
            hidden = reached.hidden
        else:
            raise self._unknown_head()
        finally:
            self._has_label, self._stops = None, False
        return CausalLMOutput(loss=self._chunked(hidden, targets, parts))

    def _targets(self, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(the token that each position with a label predicts [tokens], where those are: bool [rows, tokens])."""
        if self._decoder:
            labels = pad(labels[:, 1:], (0, 1), value=IGNORED)
        has_label = labels != IGNORED
        return labels[has_label], has_label

    def _parts(self, tokens: int) -> int:
        """How many chunks; the same in all processes if each call of the output layer gathers its weights from them."""
        parts = max(1, -(-tokens // self._chunk)) if self._chunk else 1
        if self._chunk and self._is_sharded:
            most = torch.tensor(parts, device=self._model.device)
            torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
            parts = int(most)
        return parts

    @property
    def _is_sharded(self) -> bool:
        return any(hasattr(p, "ds_id") for p in self._head.parameters())  # by ZeRO-3

    def _whole(self, targets, has_label, inputs, options) -> torch.Tensor:
        self._has_label = has_label
        try:
            logits = self._forward(*inputs, **options).logits
        finally:
            self._has_label = None
        if logits.shape[:-1].numel() != len(targets):
            raise self._unknown_head()
        return cross_entropy(logits.float().flatten(0, -2), targets, reduction="sum")

    def _chunked(self, hidden: torch.Tensor, targets: torch.Tensor, parts: int) -> torch.Tensor:
        is_trained = any(parameter.requires_grad for parameter in self._head.parameters())
        if torch.is_grad_enabled() and not self._is_sharded and not is_trained:
            return _FrozenHead.apply(hidden, targets, parts, self._part_loss)
        # Each chunk's logits are computed again when its gradients are.
        chunks = zip(hidden.tensor_split(parts), targets.tensor_split(parts), strict=True)
        return sum(checkpoint(self._part_loss, *chunk, use_reentrant=False) for chunk in chunks)

    def _part_loss(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return cross_entropy(self._logits(self._head(hidden).float()), targets, reduction="sum")

    # What the model does with the output of its output layer

    def _find_logits(self, labels: torch.Tensor, options: dict) -> Logits | None:
        """Find that function in a pass over a few tokens, in which that output is replaced by known numbers; None if no candidate
        gives what the model does with them. Warns if the model's own loss is not the cross-entropy of its logits."""
        model, name = self._model, type(self._model).__name__
        row = int((labels != IGNORED).sum(1).argmax())
        start = max(0, int((labels[row] != IGNORED).int().argmax()) - 1)
        part = (slice(row, row + 1), slice(start, start + WINDOW) if self._decoder else slice(None))
        options = {key: value[part].contiguous() if torch.is_tensor(value) else value for key, value in options.items()}
        labels, outputs = labels[part].contiguous(), []

        def replace(module, inputs, output):
            waves = 50 * torch.sin(torch.arange(output.numel(), device=output.device) % 1_000_003)
            outputs.append(waves.view(output.shape).to(output.dtype))
            return outputs[0]

        hook, training = self._head.register_forward_hook(replace), model.training
        model.eval()
        try:
            with torch.no_grad(), uncompiled():
                found = self._forward(labels=labels, **options)
        finally:
            hook.remove()
            model.train(training)
        raw, logits = (outputs or [None])[0], found.logits
        if raw is None or raw.shape != logits.shape:
            raise self._unknown_head()
        dtype = min(raw.dtype, logits.dtype, key=lambda dtype: dtype.itemsize)
        function = fit(raw, logits, candidates(model, raw.shape[-1]), TOLERANCES[dtype])
        if function is None:
            logger.warning(
                f"{name} does something unknown with the output of its output layer: --loss_chunk_size is not used, and the "
                "logits of a whole batch are kept in memory"
            )
            return None
        targets, has_label = self._targets(labels)
        ours = float(cross_entropy(function(raw[has_label].float()), targets))
        if found.loss is not None and not math.isclose(ours, float(found.loss), rel_tol=TOLERANCES[dtype] * 10):
            logger.warning(
                f"{name} adds something to its loss ({float(found.loss):.6g} instead of {ours:.6g}); the cross-entropy of the "
                "target tokens alone is minimized"
            )
        return function


def compile_layers(model) -> int:
    """Compile the layers that a model repeats, in place, each on its first use; returns how many there are.

    Layers alike share what is compiled, and lengths are symbols, so that rows of any length do. What is around them (packing,
    the loss, adapters' wrappers, checkpoints' names) stays as it is.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.compile(dynamic=True)
    return len(layers)


def uncompiled():
    """Where such layers run as they are: translating, whose inputs have another form at each step, and small checks."""
    return torch.compiler.set_stance("force_eager")


class _FrozenHead(torch.autograd.Function):
    """The summed loss of an output layer that is not trained. Gradients are computed chunk by chunk in the forward pass, while
    the logits are there: no chunk is computed twice, and one tensor [tokens, size] is kept."""

    @staticmethod
    def forward(ctx, hidden, targets, parts, part_loss):
        gradient, total = torch.empty_like(hidden), hidden.new_zeros((), dtype=torch.float32)
        for chunk, some, out in zip(*(x.tensor_split(parts) for x in (hidden, targets, gradient)), strict=True):
            with torch.enable_grad():
                chunk = chunk.detach().requires_grad_()
                loss = part_loss(chunk, some)
            total += loss.detach()
            out.copy_(torch.autograd.grad(loss, chunk)[0])
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx, scale):
        return ctx.saved_tensors[0] * scale, None, None, None


def candidates(model, words: int) -> Iterator[Logits]:
    """What models of transformers do between output layer and logits: nothing, scale them (Cohere, Granite), cap them smoothly
    (Gemma), or add a bias (Marian), each with any number in the configuration, or any buffer of that size."""
    yield lambda raw: raw
    for bias in (buffer for buffer in model.buffers() if buffer.numel() == words):
        yield lambda raw, bias=bias: raw + bias.float().flatten()
    values = model.config.get_text_config().to_dict().values()
    for number in {float(v) for v in values if isinstance(v, int | float) and math.isfinite(v) and v > 0}:
        yield lambda raw, number=number: raw * number
        yield lambda raw, number=number: raw / number
        yield lambda raw, number=number: torch.tanh(raw / number) * number


def fit(raw: torch.Tensor, logits: torch.Tensor, functions: Iterator[Logits], tolerance: float) -> Logits | None:
    """The function that best gives `logits` [..., words] from `raw`; None if it is off by more than a share of the largest logit."""

    def error(function: Logits, raw=raw, logits=logits) -> float:
        return float((function(raw.float()) - logits.float()).abs().max() / logits.float().abs().max().clamp_min(1e-30))

    few = functools.partial(error, raw=raw[:, 0], logits=logits[:, 0])
    best = min(functions, key=few)
    return best if error(best) <= tolerance else None
