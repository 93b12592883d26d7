"""MT-Ranker (Moosa et al. 2024): the probability that one translation of a sentence is better than another. No reference.

An mT5 encoder reads `Source: S Translation 0: A Translation 1: B`; the mean of its last hidden states goes through a linear
layer with two outputs, for A and for B. Both orders are averaged, so that neither place has an advantage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from topxgen.common.errors import UsageError
from topxgen.common.hub import listed, local_folder
from topxgen.common.weights import load_tensors
from topxgen.inference.tokenizer import plain_ids
from topxgen.quality.mt5 import MT5Metric, refuse_adapter, tokenizer_of
from topxgen.quality.replicas import check_finite

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT = "ibraheemmoosa/mt-ranker-large"
MAX_TOKENS = 1536  # with </s>; the authors set no limit, and mT5 has none
_ENCODER = "encoder.encoder."  # the authors' name of the encoder's parts
_EMBEDDINGS = (f"{_ENCODER}embed_tokens.weight", "encoder.shared.weight")  # one tensor; a file may have either
_HEAD = ("classifier.weight", "classifier.bias")


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a model before its network is built. The weights are memory-mapped."""

    name: str
    tokenizer: object
    weights: dict[str, "Tensor"]
    config: object  # MT5Config


def read_checkpoint(name_or_path: str) -> Checkpoint:
    """Raises UsageError if the model is missing, unreachable, or not MT-Ranker."""
    folder = local_folder(name_or_path)
    refuse_adapter(str(folder))
    files = [folder] if folder.is_file() else []
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        files = files or sorted(folder.glob(pattern))
    if not files:
        raise UsageError(
            f"{name_or_path} holds no weights (model.safetensors or pytorch_model.bin); pass a copy of {DEFAULT}"
        )
    weights = {name: tensor for file in files for name, tensor in load_tensors(file).items()}
    if _EMBEDDINGS[0] not in weights and _EMBEDDINGS[1] in weights:
        weights[_EMBEDDINGS[0]] = weights[_EMBEDDINGS[1]]
    if missing := [name for name in (_EMBEDDINGS[0], *_HEAD) if name not in weights]:
        raise UsageError(
            f"{name_or_path} lacks {listed(missing)}: it is not MT-Ranker, an mT5 encoder with a head of two outputs; pass {DEFAULT} "
            "or a copy of it"
        )
    config = _config(name_or_path, weights)
    expected = {_HEAD[0]: (2, config.d_model), _HEAD[1]: (2,)}
    for name, shape in expected.items():
        if tuple(weights[name].shape) != shape:
            raise UsageError(
                f"{name_or_path}: {name} has the shape {list(weights[name].shape)}, expected {list(shape)}; pass {DEFAULT} or a copy"
            )
    tokenizer = tokenizer_of(str(folder if folder.is_dir() else folder.parent), config.vocab_size)
    return Checkpoint(name_or_path, tokenizer, weights, config)


def _config(name: str, weights: dict[str, "Tensor"]):
    """The encoder's configuration, from the shapes of its weights: the published config.json only names its base model."""
    from transformers import MT5Config

    block = f"{_ENCODER}block.0.layer."
    try:
        vocabulary, width = weights[_EMBEDDINGS[0]].shape
        buckets, heads = weights[f"{block}0.SelfAttention.relative_attention_bias.weight"].shape
        return MT5Config(
            vocab_size=vocabulary,
            d_model=width,
            d_kv=weights[f"{block}0.SelfAttention.q.weight"].shape[0] // heads,
            d_ff=weights[f"{block}1.DenseReluDense.wi_0.weight"].shape[0],
            num_layers=len({key.split(".")[3] for key in weights if key.startswith(f"{_ENCODER}block.")}),
            num_heads=heads,
            relative_attention_num_buckets=buckets,
            dropout_rate=0.0,
        )
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"{name} is not MT-Ranker: no mT5 encoder has its weights ({error}); pass {DEFAULT} or a copy"
        ) from None


class MTRanker(MT5Metric):
    """Compares translations.

    A folder has the authors' layout (pytorch_model.bin or model.safetensors, in one or several parts), or is such a file.
    """

    _read = staticmethod(read_checkpoint)

    def _network(self):
        import torch
        from transformers import MT5EncoderModel

        checkpoint = self._checkpoint
        with torch.device("meta"):
            model = MT5EncoderModel(checkpoint.config).encoder
        weights = {
            name.removeprefix(_ENCODER): tensor
            for name, tensor in checkpoint.weights.items()
            if name.startswith(_ENCODER)
        }
        try:
            model.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            raise UsageError(
                f"{checkpoint.name} is not a whole MT-Ranker: {' '.join(str(error).split())[:300]}; download it again"
            ) from None
        self._head = [checkpoint.weights[name].float() for name in _HEAD]
        return model.to(getattr(torch, self._dtype)).eval()

    def score(self, sources: Sequence[str], translations: Sequence[str], others: Sequence[str]) -> list[float]:
        """The probability (0 to 1) that each translation is better than the other one of the same source, in order; equal ones
        get 0.5. Raises UsageError for lists of other lengths and for scores that are no number."""
        import torch

        if not len(sources) == len(translations) == len(others):
            raise UsageError(
                f"{len(translations)} translations of {len(sources)} sources, compared with {len(others)}: one of each is needed"
            )
        triples = list(zip(sources, translations, others, strict=True))
        orders = [(model_input(s, a, b), model_input(s, b, a)) for s, a, b in triples]
        logits = self._logits_of([text for pair in orders for text in pair])
        first = torch.tensor([*logits.values()], dtype=torch.float64).reshape(-1, 2).softmax(dim=1)[:, 0].tolist()
        check_finite(self._checkpoint.name, self._dtype, logits, first)
        shares = dict(zip(logits, first, strict=True))
        return [0.5 + (shares[one] - shares[other]) / 2 for one, other in orders]

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        tokenizer = self._checkpoint.tokenizer
        rows = plain_ids(tokenizer, texts)
        self.truncated += sum(len(row) >= MAX_TOKENS for row in rows)
        return [[*row[: MAX_TOKENS - 1], tokenizer.eos_token_id] for row in rows]

    def _compute(self, model, ids: "Tensor", mask: "Tensor") -> "Tensor":
        from torch.nn.functional import linear

        hidden = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
        mean = (hidden * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return linear(mean, *(tensor.to(ids.device) for tensor in self._head))


def model_input(source: str, first: str, second: str) -> str:
    """What the model reads of two translations."""
    return f"Source: {source} Translation 0: {first} Translation 1: {second}"
