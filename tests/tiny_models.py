"""Small checkpoints of real architectures, built on the spot: what a machine without the Hub can load.

They are laid out as the Hub's are (config, safetensors, tokenizer files), so the code under test takes the
same path as with a published model.
"""

from pathlib import Path

from comptra import languages
from comptra.benchmarks import UDHR


def udhr_pairs(source: str, target: str = "English") -> list[tuple[str, str]]:
    """Aligned paragraphs of the embedded Universal Declaration, `source` first."""
    sides = []
    for name in (source, target):
        path = UDHR / f"{languages.find(name).flores}.tsv"
        rows: dict[str, list[str]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            article, text = line.split("\t", 1)
            rows.setdefault(article, []).append(text)
        sides.append(rows)
    ours, theirs = sides
    return [
        pair
        for article in ours
        if len(ours[article]) == len(theirs.get(article, []))
        for pair in zip(ours[article], theirs[article], strict=True)
    ]


def nllb_tokenizer(texts: list[str], vocabulary: int = 1200):
    """A real NllbTokenizer with all 202 language codes over a small BPE vocabulary of `texts`."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import NllbTokenizer

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    return NllbTokenizer(vocab=model["vocab"], merges=merges, src_lang="eng_Latn")


def build_nllb(
    folder: Path,
    pairs: list[tuple[str, str]],
    *,
    source: str = "eus_Latn",
    target: str = "eng_Latn",
    steps: int = 0,
    width: int = 96,
    layers: int = 2,
    vocabulary: int = 1200,
    learning_rate: float = 3e-3,
    batch: int = 16,
    seed: int = 0,
) -> str:
    """An NLLB checkpoint in `folder`, trained on `pairs` for `steps` steps; its path."""
    import torch
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    tokenizer = nllb_tokenizer([text for pair in pairs for text in pair], vocabulary)
    torch.manual_seed(seed)
    model = M2M100ForConditionalGeneration(
        M2M100Config(
            vocab_size=len(tokenizer),
            d_model=width,
            encoder_layers=layers,
            decoder_layers=layers,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=4 * width,
            decoder_ffn_dim=4 * width,
            max_position_embeddings=256,
            scale_embedding=True,
            activation_function="relu",
            dropout=0.0,
            attention_dropout=0.0,
            encoder_layerdrop=0.0,
            decoder_layerdrop=0.0,
            decoder_start_token_id=2,
        )
    )
    if steps:
        train(model, tokenizer, pairs, source, target, steps, learning_rate, batch)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def train(model, tokenizer, pairs, source: str, target: str, steps: int, learning_rate: float, batch: int) -> None:
    """Teach `model` the pairs, in place; dynamic padding, AdamW, linear decay."""
    import torch

    tokenizer.src_lang, tokenizer.tgt_lang = source, target
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        chosen = [pairs[i] for i in torch.randint(0, len(pairs), (batch,), generator=generator)]
        inputs = tokenizer(
            [a for a, _ in chosen],
            text_target=[b for _, b in chosen],
            padding=True,
            truncation=True,
            max_length=160,
            return_tensors="pt",
        )
        inputs["labels"][inputs["labels"] == tokenizer.pad_token_id] = -100
        model(**inputs).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
