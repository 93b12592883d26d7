"""A small language model, trained on the spot, and where it is kept while the tests run."""

import hashlib
import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

from tests.support import tiny_models
from tests.support.runs import ROOT


def made_once(folder: Path, build: Callable[[Path], object]) -> Path:
    """The folder that `build` fills, in whichever process comes first."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            making = folder.with_name(f"{folder.name}.making")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            build(making)
            making.rename(folder)
    return folder


def built_once(tmp_path_factory, name: str, build: Callable[[Path], object]) -> str:
    """The folder that `build` fills, by whichever of the test workers comes first."""
    root = tmp_path_factory.getbasetemp()
    return str(made_once((root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name, build))


def trained(name: str, build: Callable[[Path], object]) -> Path:
    """What `build` made in this or an earlier run of the same code, texts and libraries (`models/tests/`)."""
    digest = hashlib.sha256(repr([version(library) for library in ("tokenizers", "torch", "transformers")]).encode())
    for path in (*sorted(Path(__file__).parent.glob("tiny_*.py")), *sorted(ROOT.glob("data/udhr/*.tsv"))):
        digest.update(path.read_bytes())
    return made_once(ROOT / "models" / "tests" / f"{name}-{digest.hexdigest()[:16]}", build)


def trained_once(name: str, build: Callable[[Path], object]) -> Callable[[Path], object]:
    """A builder that copies what `build` has trained."""
    return lambda folder: shutil.copytree(trained(name, build), folder, dirs_exist_ok=True)


def build_lm(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    lines = tiny_models.udhr_texts("Basque")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<eos>"]
    tokenizer.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=800, special_tokens=special, initial_alphabet=alphabet)
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(fast),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=2048,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )
    # In the layout of the continuation template, so that it knows where a text begins.
    ids = torch.tensor(fast("".join(f"# Basque article\n{line}\n\n" for line in lines))["input_ids"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(150):
        starts = torch.randint(0, len(ids) - 97, (8,))
        batch = torch.stack([ids[start : start + 96] for start in starts])
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    fast.save_pretrained(folder)


def build_nllb(folder: Path) -> None:
    """Trained until its answers come to an end."""
    tiny_models.build_nllb(folder, tiny_models.udhr_pairs("Basque"), steps=160)


def give_chat_template(folder) -> None:
    """So that a model is asked as an instruction-tuned one is."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":  # python -m tests.support.tiny_lm: beside tests that need neither
    trained("tiny_lm", build_lm)
    trained("tiny_nllb", build_nllb)
