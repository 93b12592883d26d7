"""Checkpoints of MetricX and MT-Ranker of a few neurons with the real vocabulary, and the weights of the golden values."""

import json
import zlib
from pathlib import Path

from tests.support.tiny_models import sentencepiece_model

CONFIG = {
    "vocab_size": 250112, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2,
    "feed_forward_proj": "gated-gelu", "is_encoder_decoder": True, "tie_word_embeddings": False, "dropout_rate": 0.0,
    "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip


def build_metricx(folder: Path, texts: list[str], *, scale: float = 0.3, pieces: int = 500, **config) -> str:
    """A checkpoint in `folder`, whose name says which version it is, with a tokenizer of `pieces` trained on `texts`; its path.

    Each weight depends on its name alone: `scale` times normal noise, 1 + 0.1 times noise for layer norms.
    """
    from safetensors.torch import save_file
    from transformers import MT5Config, MT5ForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    settings = CONFIG | config
    model = MT5ForConditionalGeneration(MT5Config(**settings))
    weights = {name: noise(name, tuple(tensor.shape), scale) for name, tensor in model.state_dict().items()}
    # The three names of the embeddings are one tensor, into which the last was copied last.
    weights["shared.weight"] = weights.pop("decoder.embed_tokens.weight")
    del weights["encoder.embed_tokens.weight"]
    if settings["tie_word_embeddings"]:
        del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    # As published: saving by transformers 5 would change tie_word_embeddings.
    (folder / "config.json").write_text(
        json.dumps({**settings, "model_type": "mt5", "architectures": ["MT5ForRegression"]})
    )
    give_tokenizer(folder, texts, pieces)
    return str(folder)


def build_mt_ranker(folder: Path, texts: list[str], **config) -> str:
    """MT-Ranker in its authors' layout: pytorch_model.bin, and a config.json that only names its base model; its path."""
    import torch
    from transformers import MT5Config, MT5EncoderModel

    folder.mkdir(parents=True, exist_ok=True)
    settings = CONFIG | config
    shapes = {
        f"encoder.{name}": tuple(tensor.shape)
        for name, tensor in MT5EncoderModel(MT5Config(**settings)).state_dict().items()
    }
    shapes |= {"classifier.weight": (2, settings["d_model"]), "classifier.bias": (2,)}
    weights = {name: noise(name, shape) for name, shape in shapes.items()}
    weights["encoder.shared.weight"] = weights[
        "encoder.encoder.embed_tokens.weight"
    ]  # one tensor, the last that was copied
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({"architectures": ["MTRanker"], "backbone": "google/mt5-base"}))
    give_tokenizer(folder, texts)
    return str(folder)


def noise(name: str, shape: tuple[int, ...], scale: float = 0.3):
    import numpy as np
    import torch

    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    return torch.tensor(1 + np.float32(0.1) * values if "layer_norm" in name else values * np.float32(scale))


def give_tokenizer(folder: Path, texts: list[str], pieces: int = 500) -> None:
    """As google/mt5's in kind: SentencePiece, </s> at the end."""
    from transformers import T5Tokenizer

    sentencepiece_model(folder, "spiece.model", texts, pieces, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    T5Tokenizer.from_pretrained(folder, extra_ids=0).save_pretrained(folder)
