"""What the metrics on mT5 (Xue et al. 2021) share: its tokenizer, and the check that a folder is a model."""

from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.common.needs import MODEL, Need
from topxgen.common.needs import TOKENIZER as KIND
from topxgen.inference import ModelSettings
from topxgen.inference.tokenizer import load_tokenizer

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
