"""A MetricX checkpoint of a few neurons with the real vocabulary, and the weights of the golden values."""

import json
import zlib
from pathlib import Path

from tests.support.tiny_models import sentencepiece_model

CONFIG = {
    "vocab_size": 250112, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2,
    "feed_forward_proj": "gated-gelu", "is_encoder_decoder": True, "tie_word_embeddings": False, "dropout_rate": 0.0,
    "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip


def build_metricx(folder: Path, texts: list[str], **config) -> str:
    """A checkpoint in `folder`, whose name says which version it is, with a tokenizer trained on `texts`; its path.

    Each weight depends on its name alone: 0.3 times normal noise, 1 + 0.1 times noise for layer norms.
    """
    import numpy as np
    import torch
    from safetensors.torch import save_file
    from transformers import MT5Config, MT5ForConditionalGeneration, T5Tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    settings = CONFIG | config
    model = MT5ForConditionalGeneration(MT5Config(**settings))
    weights = {}
    for name, tensor in model.state_dict().items():
        noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(tensor.shape)).astype(np.float32)
        weights[name] = torch.tensor(1 + np.float32(0.1) * noise if "layer_norm" in name else noise * np.float32(0.3))
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
    special = dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    sentencepiece_model(folder, "spiece.model", texts, 500, **special)
    T5Tokenizer.from_pretrained(folder, extra_ids=0).save_pretrained(folder)
    return str(folder)
