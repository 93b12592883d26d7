"""SONAR and BLASER-2.0-QE checkpoints of any size with random weights, laid out as the published ones are."""

from pathlib import Path

from tests.support.tiny_models import nllb_tokenizer


def sonar_config(vocabulary: int, width: int = 64, layers: int = 2, ffn: int | None = None):
    """The configuration of SONAR's text encoder in another size; width 1024, 24 layers, ffn 8192 is the real one."""
    from transformers import M2M100Config

    return M2M100Config(
        vocab_size=vocabulary,
        d_model=width,
        encoder_layers=layers,
        encoder_attention_heads=max(1, width // 64),
        encoder_ffn_dim=ffn or 8 * width,
        max_position_embeddings=1024,
        scale_embedding=True,
        activation_function="relu",
        encoder_layerdrop=0.0,
        pad_token_id=1,
    )


def build_sonar(folder: Path, texts: list[str], width: int = 64, layers: int = 2, *, ffn=None, vocabulary=1200) -> str:
    """An encoder in the layout of transformers with a tokenizer trained on `texts`; its path."""
    import torch
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder

    tokenizer = nllb_tokenizer(texts, vocabulary)
    torch.manual_seed(0)
    model = M2M100Encoder(sonar_config(len(tokenizer), width, layers, ffn)).eval()
    with torch.no_grad():  # fresh layers hardly differ from one another; make every weight and bias count
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def build_blaser(path: Path, width: int = 64, hidden: tuple[int, int] | None = None, *, factor: int = 4) -> str:
    """A model.pt for vectors of `width` numbers (`factor` 6: of BLASER with references); its path."""
    import torch

    inner, outer = hidden or (3 * width, 3 * width // 2)  # 3072 and 1536 at 1024
    torch.manual_seed(1)
    weights = {}
    for layer, (rows, columns) in {1: (inner, factor * width), 4: (outer, inner), 7: (1, outer)}.items():
        module = torch.nn.Linear(columns, rows)
        weights |= {f"mlp.{layer}.weight": module.weight.data, f"mlp.{layer}.bias": module.bias.data}
    torch.save({"model": weights}, path)
    return str(path)


def to_original(folder: str, path: Path) -> str:
    """The encoder in `folder` as a fairseq2 checkpoint at `path`: its names, its order of the special tokens."""
    import torch
    from safetensors.torch import load_file

    renames = (
        ("embed_tokens.", "encoder_frontend.embed."),
        ("layers.", "encoder.layers."),
        (".self_attn.out_proj.", ".self_attn.output_proj."),
        (".fc1.", ".ffn.inner_proj."),
        (".fc2.", ".ffn.output_proj."),
        (".final_layer_norm.", ".ffn_layer_norm."),
    )
    weights = {}
    for name, tensor in load_file(Path(folder) / "model.safetensors").items():
        for ours, theirs in renames:
            name = name.replace(ours, theirs)
        weights[name] = tensor
    embedding = weights["encoder_frontend.embed.weight"]
    # <s> <pad> </s> <unk> become <pad> <unk> <s> </s>.
    embedding[:4] = embedding[[1, 3, 0, 2]]
    torch.save({"model": weights}, path)
    return str(path)


def distance(a, b) -> float:
    """The largest difference between two tensors."""
    return float((a - b).abs().max())
