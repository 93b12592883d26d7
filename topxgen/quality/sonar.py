"""SONAR sentence vectors (Duquenne et al. 2023, arXiv 2308.11466) on plain transformers.

The text encoder is that of an NLLB-like M2M-100 model; a sentence vector is the mean of its last hidden states. Two formats
are read: that of transformers (`M2M100Encoder.save_pretrained`), from a folder or the Hub, and the original checkpoint of
fairseq2 (`sonar_text_encoder.pt`), a file or a folder with that file.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from topxgen.common.errors import UnknownLanguage, UsageError, closest, unknown_choice
from topxgen.common.hub import hub_call, listed
from topxgen.common.needs import MODEL, TOKENIZER, Need
from topxgen.common.weights import load_tensors, load_weights
from topxgen.inference import ModelSettings
from topxgen.inference.tokenizer import load_tokenizer, plain_ids
from topxgen.quality.replicas import Replicas
from topxgen.text.languages import Language

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT = "cointegrated/SONAR_200_text_encoder"
ORIGINAL = "sonar_text_encoder.pt"
ORIGINAL_TOKENIZER = "facebook/nllb-200-distilled-600M"  # the same vocabulary; the original has no tokenizer
MAX_TOKENS = 514  # with language code and </s>; longer texts are truncated, as by sonar-space
BATCH_TOKENS = {"cpu": 512, "cuda": 32768}  # rows times longest row
DTYPES = ("float32", "bfloat16")

_CODE = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
# fairseq2's names of the weights, and transformers'.
_RENAMES = (
    (r"^encoder_frontend\.embed\.", "embed_tokens."),
    (r"^encoder\.layers\.", "layers."),
    (r"\.output_proj\.", ".out_proj."),
    (r"\.ffn\.inner_proj\.", ".fc1."),
    (r"\.ffn\.out_proj\.", ".fc2."),
    (r"\.ffn_layer_norm\.", ".final_layer_norm."),
)


@dataclass(frozen=True)
class Checkpoint:
    """What is known of an encoder before its weights are loaded."""

    name: str
    tokenizer: object
    config: object  # M2M100Config
    original: Path | None  # the fairseq2 file, if it is one

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self.config.d_model

    def check(self, language: Language) -> None:
        """Raise UsageError if the encoder does not know `language` (its vocabulary lacks the code)."""
        code, tokenizer = language.flores, self.tokenizer
        if _CODE.fullmatch(code) and tokenizer.convert_tokens_to_ids(code) not in (None, tokenizer.unk_token_id):
            return
        known = sorted(token for token in tokenizer.get_vocab() if _CODE.fullmatch(token))
        if not known:
            raise UsageError(
                f"the tokenizer of {self.name} has no language codes, such as {code!r}; is its tokenizer.json missing?"
            )
        raise UnknownLanguage(
            f"SONAR ({self.name}) does not know {code!r} ({language.name}); it knows {len(known)} languages, closest: "
            f"{', '.join(closest(code, known)) or 'none'}; omit {language.name}, or choose another scorer or encoder"
        )


def needs(name_or_path: str) -> list[Need]:
    original = _original(name_or_path) if Path(name_or_path).exists() else None
    without = original is not None and not _has_tokenizer(original.parent)
    return [Need(MODEL, name_or_path), *([Need(TOKENIZER, ORIGINAL_TOKENIZER)] if without else [])]


def _has_tokenizer(folder: Path) -> bool:
    return any(folder.glob("tokenizer*.json")) or (folder / "sentencepiece.bpe.model").is_file()


def read_checkpoint(name_or_path: str) -> Checkpoint:
    """Tokenizer and dimensions of an encoder; no weights are loaded.

    Raises UsageError if it is missing, unreachable, or not a SONAR text encoder.
    """
    from transformers import AutoConfig

    original = _original(name_or_path)
    if original is not None:
        config = _config(original, load_tensors(original))
        beside = _has_tokenizer(original.parent)
        tokenizer = load_tokenizer(ModelSettings(str(original.parent) if beside else ORIGINAL_TOKENIZER))
        if tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) != _SPECIAL:
            raise UsageError(f"the tokenizer beside {original} is not NLLB's; put that of {ORIGINAL_TOKENIZER} there")
    else:
        config = hub_call(name_or_path, lambda: AutoConfig.from_pretrained(name_or_path, trust_remote_code=False))
        architecture = (config.architectures or ["M2M100Encoder"])[0]
        if config.model_type != "m2m_100" or architecture != "M2M100Encoder":
            raise UsageError(
                f"{name_or_path} is a {config.model_type} model ({architecture}), not a SONAR text encoder (M2M100Encoder); "
                f"pass {DEFAULT}, a copy of it, or an original {ORIGINAL}"
            )
        tokenizer = load_tokenizer(ModelSettings(name_or_path))
    if len(tokenizer) > config.vocab_size:
        raise UsageError(
            f"{name_or_path} does not fit its tokenizer: {len(tokenizer)} tokens, but {config.vocab_size} embeddings"
        )
    return Checkpoint(name_or_path, tokenizer, config, original)


def _original(name: str) -> Path | None:
    """The fairseq2 checkpoint at `name`, None if it is another format. Raises UsageError for a path that does not exist."""
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        if any(path.glob("model*.safetensors")) or any(path.glob("pytorch_model*.bin")):
            return None
        if (path / ORIGINAL).is_file():
            return path / ORIGINAL
        raise UsageError(f"{path} holds no weights (model.safetensors, pytorch_model.bin or {ORIGINAL})")
    if looks_local(name):
        raise UsageError(
            f"{name!r} does not exist; pass a SONAR folder, an original {ORIGINAL}, or a Hub id such as {DEFAULT}"
        )
    return None


def looks_local(name: str) -> bool:
    """Whether `name` can only be a local path, not a Hub id."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith((".pt", ".bin", ".safetensors"))


def _config(path: Path, tensors: dict[str, "Tensor"]):
    """The configuration of a fairseq2 checkpoint, from the shapes of its tensors. SONAR's attention heads are 64 wide."""
    from transformers import M2M100Config

    embedding, inner = "encoder_frontend.embed.weight", "encoder.layers.0.ffn.inner_proj.weight"
    if embedding not in tensors or inner not in tensors:
        raise UsageError(
            f"{path} is not an original SONAR text encoder: it holds {listed(list(tensors))}, not {embedding} and {inner}; "
            f"pass {ORIGINAL}, or a folder in the format of transformers"
        )
    vocabulary, width = tensors[embedding].shape
    return M2M100Config(
        vocab_size=vocabulary,
        d_model=width,
        encoder_layers=len({name.split(".")[2] for name in tensors if name.startswith("encoder.layers.")}),
        encoder_attention_heads=max(1, width // 64),
        encoder_ffn_dim=tensors[inner].shape[0],
        max_position_embeddings=1024,
        scale_embedding=True,
        activation_function="relu",
        encoder_layerdrop=0.0,
        pad_token_id=1,
    )


def _load_original(checkpoint: Checkpoint):
    import torch
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder, M2M100SinusoidalPositionalEmbedding

    path, config = checkpoint.original, checkpoint.config
    weights = {}
    for name, tensor in load_tensors(path).items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        weights[name] = tensor
    # fairseq2's vocabulary begins with <pad> <unk> <s> </s>, NLLB's with <s> <pad> </s> <unk>. The memory map is private:
    # nothing is written to disk.
    embedding = weights["embed_tokens.weight"]
    embedding[:4] = embedding[[2, 0, 3, 1]]
    with torch.device("meta"):
        model = M2M100Encoder(config)
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise UsageError(
            f"{path} is not an original SONAR text encoder: {' '.join(str(error).split())[:300]}; pass {ORIGINAL}, or a folder in "
            "the format of transformers"
        ) from None
    model.embed_positions = M2M100SinusoidalPositionalEmbedding(
        config.max_position_embeddings, config.d_model, config.pad_token_id
    )
    return model


def _load_transformers(checkpoint: Checkpoint, dtype):
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return hub_call(checkpoint.name, lambda: load_weights(M2M100Encoder, checkpoint.name, dtype=dtype))


def torch_device(device: str | None, dtype: str):
    """The torch device of that name, None for a GPU if there is one.

    Raises UsageError for a device that does not exist and for a dtype that is not one of DTYPES.
    """
    import torch

    if dtype not in DTYPES:
        raise unknown_choice("dtype of SONAR", dtype, DTYPES)
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UsageError(f"device {device!r} does not exist; choose cpu, cuda or cuda:N")
    if device != "cpu" and not torch.cuda.is_available():
        raise UsageError(f"device {device!r}: torch finds no GPU; pass cpu")
    return torch.device(device)


class SonarEncoder:
    """Texts to SONAR vectors.

    `dtype` is the precision of the network, float32 or bfloat16; `device` None is all GPUs if there are any; `batch_tokens`
    limits rows times longest row of a batch (None: by device). `truncated` counts texts longer than MAX_TOKENS, each time
    one is embedded.

    Raises UsageError if the encoder does not load or a setting is not one of the choices.
    """

    def __init__(
        self,
        name_or_path: str | Checkpoint = DEFAULT,
        *,
        dtype: str = "float32",
        device: str | None = None,
        batch_tokens: int | None = None,
    ):
        import torch

        self.device = torch_device(device, dtype)
        self._batch_tokens = batch_tokens or BATCH_TOKENS[self.device.type]
        self._checkpoint = read_checkpoint(name_or_path) if isinstance(name_or_path, str) else name_or_path
        wanted = getattr(torch, dtype)
        if self._checkpoint.original is not None:
            model = _load_original(self._checkpoint)
        else:
            model = _load_transformers(self._checkpoint, wanted)
        self._replicas = Replicas(model.to(wanted).eval(), [device] if device else None)
        self.truncated = 0

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self._checkpoint.width

    def check(self, language: Language) -> None:
        """Raise UsageError if the encoder does not know `language`."""
        self._checkpoint.check(language)

    def encode(self, texts: Sequence[str], language: Language) -> "Tensor":
        """Vectors of `texts`, all of one language: (len(texts), width), float32, on the CPU, in the given order.

        Each distinct text is embedded once. Raises UsageError for an unknown language.
        """
        import torch

        self.check(language)
        place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        rows = self._token_ids(list(place), language)
        parts = self._replicas.run(rows, _mean_state, self._batch_tokens, self._checkpoint.config.pad_token_id)
        vectors = torch.stack(parts) if rows else torch.empty(0, self.width)
        return vectors if len(place) == len(texts) else vectors[[place[text] for text in texts]]

    def _token_ids(self, texts: list[str], language: Language) -> list[list[int]]:
        tokenizer = self._checkpoint.tokenizer
        code = tokenizer.convert_tokens_to_ids(language.flores)
        rows = [[code, *row, tokenizer.eos_token_id] for row in plain_ids(tokenizer, texts)]
        self.truncated += sum(len(row) > MAX_TOKENS for row in rows)
        return [row[:MAX_TOKENS] for row in rows]

    def close(self) -> None:
        """Free the network and its memory."""
        self._replicas.close()


def _mean_state(model, ids: "Tensor", mask: "Tensor") -> "Tensor":
    """The mean of each row's last hidden states: (n, length) -> (n, width)."""
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
    return (hidden * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
