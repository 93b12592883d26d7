"""Small checkpoints of real architectures, built on the spot: what a machine without the Hub can load.

They are laid out as the Hub's are (config, safetensors, tokenizer files), so the code under test takes the
same path as with a published model.
"""

from collections.abc import Callable
from pathlib import Path

from topxgen.corpora import benchmarks, examples
from topxgen.text import languages


def without_weights(source: str | Path, folder: Path, part: str) -> Path:
    """A copy of a checkpoint that lacks the tensors with `part` in their names."""
    import shutil

    shutil.copytree(source, folder)
    remove_weights(folder, part)
    return folder


def repeat_in_two_shards(folder: Path) -> None:
    """Split the weights in two shards, of which the second holds one of the first's tensors with other values."""
    import json

    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    halves = {"model-1.safetensors": names[: len(names) // 2], "model-2.safetensors": names[len(names) // 2 :]}
    for file, kept in halves.items():
        save_file({name: tensors[name] for name in kept} | {names[0]: tensors[names[0]] + len(file)}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, kept in halves.items() for name in kept}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def quantize_weights(folder: Path) -> None:
    """To 8 bits, of which config.json says nothing."""
    import torch

    edit_weights(
        folder,
        lambda tensors: {
            name: (64 * tensor).to(torch.int8) if "proj.weight" in name else tensor for name, tensor in tensors.items()
        },
    )


def remove_weights(folder: Path, part: str) -> None:
    def without(tensors: dict) -> dict:
        kept = {name: tensor for name, tensor in tensors.items() if part not in name}
        assert 0 < len(kept) < len(tensors)
        return kept

    edit_weights(folder, without)


def set_a_number(value: float, pickled: bool = False) -> Callable[[Path], None]:
    """Write `value` into one weight of a norm, the last one, in transformers' new format or its old."""

    def change(folder: Path) -> None:
        import torch
        from safetensors.torch import load_file

        def put(tensors: dict) -> dict:
            tensors[max(name for name in tensors if name.endswith("norm.weight"))][-1] = value
            return tensors

        edit_weights(folder, put)
        if pickled:
            torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
            (folder / "model.safetensors").unlink()

    return change


def say_that_it_is_tied(folder: Path) -> None:
    """In config.json, though the weights have an output layer of its own."""
    _edit_config(folder, tie_word_embeddings=True)


def name_another_architecture(folder: Path) -> None:
    """One whose tensors have the same names and shapes."""
    _edit_config(folder, architectures=["GemmaForCausalLM"])


def _edit_config(folder: Path, **changes) -> None:
    import json

    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, change: Callable[[dict], dict]) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def udhr_pairs(source: str, target: str = "English") -> list[tuple[str, str]]:
    """Aligned paragraphs of the whole embedded Universal Declaration, `source` first."""
    sides = [benchmarks.load("udhr", languages.find(name)) for name in (source, target)]
    return [pair for first, second in zip(*sides, strict=True) for _, pair in examples.aligned_articles(first, second)]


def udhr_texts(name: str) -> list[str]:
    """The paragraphs of the whole embedded Universal Declaration that are at least 40 characters long."""
    splits = benchmarks.load("udhr", languages.find(name))
    return [text for split in splits for text in split.texts if len(text) >= 40]


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
    init_std: float = 0.02,
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
            init_std=init_std,
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


def sentencepiece_model(folder: Path, name: str, texts: list[str], vocabulary: int, **options) -> Path:
    """A SentencePiece model of `texts` as `folder`/`name`."""
    import io

    import sentencepiece

    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=buffer,
        vocab_size=vocabulary,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    path = folder / name
    path.write_bytes(buffer.getvalue())
    return path


def pieces_in(path: Path) -> list[str]:
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [model.id_to_piece(i) for i in range(model.get_piece_size())]


def build_m2m100(folder: Path, texts: list[str], encoder_layers: int = 1) -> str:
    """An M2M-100 checkpoint with random weights: language tokens __eu__, __en__ ... With more encoder layers than the one of the
    decoder it is of SMaLL-100's kind."""
    import json

    import torch
    from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    spm = sentencepiece_model(folder, "sentencepiece.bpe.model", texts, 600)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = special + [piece for piece in pieces_in(spm) if piece not in special]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(vocabulary)}))
    tokenizer = M2M100Tokenizer(str(folder / "vocab.json"), str(spm), src_lang="en")
    torch.manual_seed(0)
    model = M2M100ForConditionalGeneration(
        M2M100Config(
            vocab_size=len(vocabulary) + len(tokenizer.lang_token_to_id) + 8,
            d_model=64,
            encoder_layers=encoder_layers,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            max_position_embeddings=256,
            scale_embedding=True,
            init_std=0.3,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def build_madlad(folder: Path, texts: list[str]) -> str:
    """A T5 v1.1 checkpoint named as MADLAD-400 names its languages: <2en> before the source."""
    import json

    import torch
    from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    spm = sentencepiece_model(
        folder,
        "spiece.model",
        texts,
        600,
        pad_id=1,
        eos_id=2,
        unk_id=0,
        bos_id=-1,
        user_defined_symbols=["<2en>", "<2eu>", "<2ne>", "<2fil>", "<2din>", "<2ak>", "<2kr_Arab>"],
    )
    tokenizer = T5Tokenizer.from_pretrained(folder, extra_ids=0)
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(pieces_in(spm)),
            d_model=64,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            pad_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            initializer_factor=3.0,
        )
    )
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) / 4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # As MADLAD-400 and T5 v1.1 are published; saving changed it.
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    return str(folder)


def build_marian(folder: Path, texts: list[str], targets: tuple[str, ...] = ()) -> str:
    """A Marian checkpoint: from Basque to English, or with `targets` such as (">>eng<<",) into several."""
    import json

    import torch
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    source = sentencepiece_model(folder, "source.spm", texts, 500)
    target = sentencepiece_model(folder, "target.spm", texts, 500)
    pieces = [piece for piece in dict.fromkeys(pieces_in(source) + pieces_in(target)) if piece not in ("<s>",)]
    vocabulary = ["</s>", "<unk>", *targets, *(p for p in pieces if p not in ("</s>", "<unk>")), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(vocabulary)}))
    tokenizer = MarianTokenizer(
        str(source),
        str(target),
        str(folder / "vocab.json"),
        source_lang=None if targets else "eu",
        target_lang=None if targets else "en",
    )
    torch.manual_seed(0)
    pad = len(vocabulary) - 1
    model = MarianMTModel(
        MarianConfig(
            vocab_size=len(vocabulary),
            d_model=64,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            max_position_embeddings=256,
            pad_token_id=pad,
            eos_token_id=0,
            decoder_start_token_id=pad,
            forced_eos_token_id=0,
            scale_embedding=True,
            init_std=0.3,
        )
    )
    # As in every published Marian: the decoder starts from zeros, and <pad> is never an answer.
    model.get_input_embeddings().weight.data[pad] = 0
    model.generation_config.bad_words_ids = [[pad]]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def auto_class(base: str):
    import transformers

    seq2seq = transformers.AutoConfig.from_pretrained(base).is_encoder_decoder
    return transformers.AutoModelForSeq2SeqLM if seq2seq else transformers.AutoModelForCausalLM


def adapter_of(base: str, folder: Path, targets: list[str], dtype: str = "float32", **options):
    """An adapter of random weights, none of them zero, as peft saves it; with the model that it belongs to."""
    import peft
    import torch

    torch.manual_seed(1)
    model = auto_class(base).from_pretrained(base, dtype=getattr(torch, dtype))
    task = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type=task, **options)
    model = peft.get_peft_model(model, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    model.save_pretrained(folder)
    return model.eval()
