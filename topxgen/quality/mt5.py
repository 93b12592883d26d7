"""What the metrics on mT5 (Xue et al. 2021) share: its tokenizer, the check that a folder is a model, and how its rows are computed."""

from collections.abc import Sequence
from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.common.needs import MODEL, Need
from topxgen.common.needs import TOKENIZER as KIND
from topxgen.inference import ModelSettings
from topxgen.inference.tokenizer import load_tokenizer
from topxgen.quality.replicas import Replicas, default_dtype

TOKENIZER = "google/mt5-xl"  # that of all sizes
BATCH_TOKENS = {"cpu": 1024, "cuda": 32768}  # rows times longest row


def needs(name: str) -> list[Need]:
    """A metric on mT5, which its authors published without a tokenizer."""
    return [Need(MODEL, name), *([] if _has_tokenizer(name) else [Need(KIND, TOKENIZER)])]


def _has_tokenizer(folder: str) -> bool:
    return any((Path(folder) / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json", "spiece.model"))


def tokenizer_of(name: str, vocabulary: int):
    """The tokenizer in the folder of a model, else mT5's own. Raises UsageError if it has more tokens than `vocabulary`."""
    tokenizer = load_tokenizer(ModelSettings(name if _has_tokenizer(name) else TOKENIZER))
    if len(tokenizer) > vocabulary:
        raise UsageError(
            f"{name} does not fit its tokenizer: {len(tokenizer)} tokens, but {vocabulary} embeddings; put that of {TOKENIZER} there"
        )
    return tokenizer


def refuse_adapter(name: str) -> None:
    """Raise UsageError for the folder of an adapter, which transformers would load onto another model."""
    if (Path(name) / "adapter_config.json").is_file():
        raise UsageError(
            f"{name} holds an adapter, not a whole model; merge it into its base model (peft: merge_and_unload)"
        )


class MT5Metric:
    """Scores of a metric on mT5.

    `name_or_path`: a Hub id or folder, or its checkpoint as it was read; `dtype`: float32 or bfloat16, None by device;
    `batch_tokens` limits rows times longest row; `devices`: see Replicas. `truncated` counts inputs longer than the model's
    limit. Raises UsageError if the model does not load.
    """

    def __init__(
        self,
        name_or_path,
        *,
        dtype: str | None = None,
        batch_tokens: int | None = None,
        devices: Sequence[str] | None = None,
    ):
        self._checkpoint = self._read(name_or_path) if isinstance(name_or_path, str) else name_or_path
        self._dtype = dtype or default_dtype()
        self._replicas = Replicas(self._network(), devices)
        self._batch_tokens = batch_tokens or BATCH_TOKENS[self._replicas.device_type]
        self.truncated = 0

    def logits(self, rows: list[list[int]]) -> list:
        """What the network gives for each row of token ids, in order."""
        return [value.tolist() for value in self._replicas.run(rows, self._compute, self._batch_tokens)]

    def _logits_of(self, texts: list[str]) -> dict:
        """By text; of equal texts once."""
        return dict(zip(distinct := list(dict.fromkeys(texts)), self.logits(self._token_ids(distinct)), strict=True))

    def close(self) -> None:
        """Free the network and its memory."""
        self._replicas.close()
