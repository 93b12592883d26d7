"""MetricX-23 and MetricX-24 (Juraska et al. 2023, 2024): the errors of a translation, from 0 (none) to 25. Lower is better.

An mT5 that was fine-tuned to put its score into the logit of one token: one decoder step from token 0, the logit of
<extra_id_10>, clipped. Models of 24 (hybrid) score with or without a reference; of 23 those with "qe" in their names score
without one, the others with one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.common.hub import hub_call, load_weights
from topxgen.common.memory import free_memory
from topxgen.inference import ModelSettings
from topxgen.inference.tokenizer import load_tokenizer, plain_ids

DEFAULT = "google/metricx-24-hybrid-large-v2p6"
TOKENIZER = "google/mt5-xl"  # that of all sizes; the published checkpoints have none
SCORE_TOKEN = 250089  # <extra_id_10>
WORST = 25.0
BATCH_TOKENS = {"cpu": 1024, "cuda": 32768}  # rows times longest row
MAX_TOKENS = {23: 1024, 24: 1536}  # with the </s> that is removed


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a model before its weights are loaded."""

    name: str
    version: int  # 23 or 24
    needs_reference: bool | None  # None: scores with and without one
    is_tied: bool  # whether the output layer is the embeddings, and its input scaled
    tokenizer: object


def read_checkpoint(name: str) -> Checkpoint:
    """Raises UsageError if the model is missing, unreachable, or not MetricX, or if its name does not say which version it is."""
    from transformers import AutoConfig, PretrainedConfig

    found = re.findall(r"metricx[-_]?(23|24)(\S*)", str(name).lower())
    if not found:
        raise UsageError(
            f"{name}: the two versions of MetricX read other inputs, and only the name tells them; pass a folder or Hub id with "
            f"metricx-23 or metricx-24 in its name, such as {DEFAULT}"
        )
    version, rest = int(found[-1][0]), found[-1][1]
    config = hub_call(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=False))
    if config.model_type not in ("mt5", "t5") or config.vocab_size <= SCORE_TOKEN:
        raise UsageError(
            f"{name} is a {config.model_type} model with {config.vocab_size} tokens, not MetricX, an mT5 that scores by token "
            f"{SCORE_TOKEN}; pass {DEFAULT} or a copy of it"
        )
    # transformers 5 says that every mT5 is tied, whatever config.json does.
    saved, _ = PretrainedConfig.get_config_dict(name)
    is_tied = bool(saved.get("tie_word_embeddings", config.model_type == "t5"))
    beside = any((Path(name) / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json", "spiece.model"))
    tokenizer = load_tokenizer(ModelSettings(name if beside else TOKENIZER))
    needs_reference = None if version == 24 else "qe" not in rest
    return Checkpoint(name, version, needs_reference, is_tied, tokenizer)


def default_dtype() -> str:
    """bfloat16 on a GPU, else float32."""
    import torch

    return "bfloat16" if torch.cuda.is_available() else "float32"


class MetricX:
    """Errors of translations.

    `name_or_path`: a Hub id or folder; `dtype`: float32 or bfloat16, None by device; `batch_tokens` limits rows times longest
    row. `truncated` counts inputs longer than the model's limit. Raises UsageError if the model does not load.
    """

    def __init__(
        self, name_or_path: str | Checkpoint = DEFAULT, *, dtype: str | None = None, batch_tokens: int | None = None
    ):
        import torch
        from transformers import MT5ForConditionalGeneration, logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._batch_tokens = batch_tokens or BATCH_TOKENS[self._device]
        self._checkpoint = read_checkpoint(name_or_path) if isinstance(name_or_path, str) else name_or_path
        name, is_tied = self._checkpoint.name, self._checkpoint.is_tied
        dtype = getattr(torch, dtype or default_dtype())
        model = hub_call(name, lambda: load_weights(MT5ForConditionalGeneration, name, dtype=dtype))
        if not is_tied and model.lm_head.weight is model.shared.weight:
            raise UsageError(
                f"{name} lacks lm_head.weight, which its config.json (tie_word_embeddings: false) promises; download it again"
            )
        self._model = model.to(self._device).eval()
        scale = model.config.d_model**-0.5 if is_tied else 1.0
        self._score_weights = model.lm_head.weight[SCORE_TOKEN].detach().float() * scale
        self.truncated = 0

    def score(
        self, sources: Sequence[str], translations: Sequence[str], references: Sequence[str] | None = None
    ) -> list[float]:
        """The error of each translation, 0 to 25, in order. Raises UsageError for references that this model does not read, or
        without those that it needs."""
        needs = self._checkpoint.needs_reference
        if needs is not None and needs != (references is not None):
            raise UsageError(
                f"{self._checkpoint.name} scores {'with' if needs else 'without'} references only; pass "
                f"{'a metricx-23-qe or' if needs else ''} a metricx-24-hybrid model"
            )
        rows = self._token_ids(model_inputs(self._checkpoint.version, sources, translations, references))
        return [min(max(value, 0.0), WORST) for value in self.logits(rows)]

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        most = MAX_TOKENS[self._checkpoint.version] - 1
        rows = plain_ids(self._checkpoint.tokenizer, texts) if texts else []
        self.truncated += sum(len(row) > most for row in rows)
        return [row[:most] for row in rows]

    def logits(self, rows: list[list[int]]) -> list[float]:
        """The logit of SCORE_TOKEN for each row of token ids, without </s>, in order; not clipped."""
        values = [0.0] * len(rows)
        order, start = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True), 0
        while start < len(order):  # longest first, so that a lack of memory shows at once
            count = max(1, self._batch_tokens // max(1, len(rows[order[start]])))
            batch = order[start : start + count]
            for i, value in zip(batch, self._batch([rows[i] for i in batch]), strict=True):
                values[i] = value
            start += count
        return values

    def _batch(self, rows: list[list[int]]) -> list[float]:
        import torch

        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.zeros((len(rows), int(lengths.max())), dtype=torch.long)
        for target, row in zip(ids, rows, strict=True):
            target[: len(row)] = torch.tensor(row, dtype=torch.long)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long().to(self._device)
        first = torch.zeros((len(rows), 1), dtype=torch.long, device=self._device)
        with torch.inference_mode():
            encoded = self._model.encoder(input_ids=ids.to(self._device), attention_mask=mask).last_hidden_state
            decoded = self._model.decoder(
                input_ids=first, encoder_hidden_states=encoded, encoder_attention_mask=mask, use_cache=False
            ).last_hidden_state
            return (decoded[:, 0].float() @ self._score_weights).tolist()

    def close(self) -> None:
        """Free the network and its memory."""
        self._model = self._score_weights = None
        free_memory()


def model_inputs(
    version: int, sources: Sequence[str], translations: Sequence[str], references: Sequence[str] | None = None
) -> list[str]:
    """What the model of a version reads of each translation."""
    if references is None:
        order = "candidate: {1} source: {0}" if version == 23 else "source: {0} candidate: {1}"
        return [order.format(*pair) for pair in zip(sources, translations, strict=True)]
    order = "candidate: {1} reference: {2}" if version == 23 else "source: {0} candidate: {1} reference: {2}"
    return [order.format(*triple) for triple in zip(sources, translations, references, strict=True)]
