"""MetricX-23 and MetricX-24 (Juraska et al. 2023, 2024): the errors of a translation, from 0 (none) to 25. Lower is better.

An mT5 that was fine-tuned to put its score into the logit of one token: one decoder step from token 0, the logit of
<extra_id_10>, clipped. Models of 24 (hybrid) score with or without a reference; of 23 those with "qe" in their names score
without one, the others with one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from topxgen.common.errors import UsageError
from topxgen.common.hub import hub_call
from topxgen.common.weights import load_weights
from topxgen.inference.tokenizer import plain_ids
from topxgen.quality.mt5 import MT5Metric, refuse_adapter, tokenizer_of
from topxgen.quality.replicas import check_finite

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT = "google/metricx-24-hybrid-large-v2p6"
SCORE_TOKEN = 250089  # <extra_id_10>
WORST = 25.0
MAX_TOKENS = {23: 1024, 24: 1536}  # with the </s> that is removed


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a model before its weights are loaded."""

    name: str
    version: int  # 23 or 24
    needs_reference: bool | None  # None: scores with and without one
    is_tied: bool  # whether the output layer is the embeddings, and its input scaled
    tokenizer: object


def kind_of(name: str) -> tuple[int, bool | None]:
    """Version and whether the model needs references (None: scores with and without). Raises UsageError if the name does not
    say it."""
    found = re.findall(r"metricx[-_]?(23|24)(\S*)", str(name).lower())
    if not found:
        raise UsageError(
            f"{name}: the two versions of MetricX read other inputs, and only the name tells them; pass a folder or Hub id with "
            f"metricx-23 or metricx-24 in its name, such as {DEFAULT}"
        )
    version, rest = int(found[-1][0]), found[-1][1]
    return version, None if version == 24 else "qe" not in rest


def read_checkpoint(name: str) -> Checkpoint:
    """Raises UsageError if the model is missing, unreachable, or not MetricX, or if its name does not say which version it is."""
    from transformers import AutoConfig, PretrainedConfig

    version, needs_reference = kind_of(name)
    refuse_adapter(name)
    config = hub_call(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=False))
    if config.model_type not in ("mt5", "t5") or config.vocab_size <= SCORE_TOKEN:
        raise UsageError(
            f"{name} is a {config.model_type} model with {config.vocab_size} tokens, not MetricX, an mT5 that scores by token "
            f"{SCORE_TOKEN}; pass {DEFAULT} or a copy of it"
        )
    # transformers 5 says that every mT5 is tied, whatever config.json does.
    saved, _ = PretrainedConfig.get_config_dict(name)
    is_tied = bool(saved.get("tie_word_embeddings", config.model_type == "t5"))
    return Checkpoint(name, version, needs_reference, is_tied, tokenizer_of(name, config.vocab_size))


class MetricX(MT5Metric):
    """Errors of translations."""

    _read = staticmethod(read_checkpoint)

    def _network(self):
        import torch
        from transformers import MT5ForConditionalGeneration, logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        name, is_tied = self._checkpoint.name, self._checkpoint.is_tied
        model = hub_call(
            name, lambda: load_weights(MT5ForConditionalGeneration, name, dtype=getattr(torch, self._dtype))
        ).eval()
        if not is_tied and model.lm_head.weight is model.shared.weight:
            raise UsageError(
                f"{name} lacks lm_head.weight, which its config.json (tie_word_embeddings: false) promises; download it again"
            )
        scale = model.config.d_model**-0.5 if is_tied else 1.0
        self._score_weights = model.lm_head.weight[SCORE_TOKEN].detach().float() * scale
        model.lm_head = torch.nn.Identity()  # 250,112 logits of which one counts: half of the time for a short input
        return model

    def score(
        self, sources: Sequence[str], translations: Sequence[str], references: Sequence[str] | None = None
    ) -> list[float]:
        """The error of each translation, 0 to 25, in order; equal inputs are scored once. Raises UsageError for references that
        this model does not read, or without those that it needs, for another number of them, and for scores that are no number."""
        needs, name = self._checkpoint.needs_reference, self._checkpoint.name
        if needs is not None and needs != (references is not None):
            raise UsageError(
                f"{name} scores {'with' if needs else 'without'} references only; pass "
                f"{'a metricx-23-qe or' if needs else ''} a metricx-24-hybrid model"
            )
        if not len(sources) == len(translations) == len(translations if references is None else references):
            raise UsageError(
                f"{len(translations)} translations of {len(sources)} sources"
                + ("" if references is None else f" with {len(references)} references")
                + ": MetricX needs one of each for each segment"
            )
        texts = model_inputs(self._checkpoint.version, sources, translations, references)
        logits = self._logits_of(texts)  # of SCORE_TOKEN, for rows without </s>; not clipped
        check_finite(name, self._dtype, logits, logits.values())
        return [min(max(logits[text], 0.0), WORST) for text in texts]

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        most = MAX_TOKENS[self._checkpoint.version] - 1
        rows = plain_ids(self._checkpoint.tokenizer, texts)
        self.truncated += sum(len(row) > most for row in rows)
        return [row[:most] for row in rows]

    def _compute(self, model, ids: "Tensor", mask: "Tensor") -> "Tensor":
        encoded = model.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return first_step(model.decoder, encoded, mask).float() @ self._score_weights.to(ids.device)


def model_inputs(
    version: int, sources: Sequence[str], translations: Sequence[str], references: Sequence[str] | None = None
) -> list[str]:
    """What the model of a version reads of each translation."""
    if references is None:
        order = "candidate: {1} source: {0}" if version == 23 else "source: {0} candidate: {1}"
        return [order.format(*pair) for pair in zip(sources, translations, strict=True)]
    order = "candidate: {1} reference: {2}" if version == 23 else "source: {0} candidate: {1} reference: {2}"
    return [order.format(*triple) for triple in zip(sources, translations, references, strict=True)]


def first_step(decoder, encoded: "Tensor", mask: "Tensor") -> "Tensor":
    """The last hidden state (n, width) of an mT5 decoder that has read token 0, after the states (n, length, width).

    There is one query, so the keys and values of all positions need not be computed: (q W_k) x = q (W_k x), and the weights of
    attention sum over states before W_v does. This takes a fifth off the time of the whole model. Attention to oneself, of one
    token, is its value.
    """
    import torch

    hidden = decoder.embed_tokens.weight[torch.zeros(len(encoded), dtype=torch.long, device=encoded.device)]
    for block in decoder.block:
        own, cross, feed_forward = block.layer
        hidden = hidden + own.SelfAttention.o(own.SelfAttention.v(own.layer_norm(hidden)))
        attention = cross.EncDecAttention
        heads = attention.n_heads
        to_keys, to_values = (part.weight.unflatten(0, (heads, -1)) for part in (attention.k, attention.v))
        query = attention.q(cross.layer_norm(hidden)).unflatten(1, (heads, -1))  # (n, heads, d)
        query = torch.einsum("nhd,hdw->nhw", query, to_keys)
        weights = (query @ encoded.transpose(1, 2)).float().masked_fill(~mask[:, None], -torch.inf).softmax(dim=-1)
        attended = torch.einsum("nhw,hdw->nhd", weights.to(encoded.dtype) @ encoded, to_values)
        hidden = hidden + attention.o(attended.flatten(1))
        hidden = feed_forward(hidden)
    return decoder.final_layer_norm(hidden)
