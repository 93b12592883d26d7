"""Runs for scripts/doctor.py, an nvidia-smi that prints what drivers report, and what the checks say."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from unittest import mock

from tests.support.runs import ROOT, in_process

RUN = """
output_dir: {out}
datagen:
  languages: [Basque]
  model_name_or_path: {model}
  number_of_instructions: 100
  seed_topics_path: {topics}
  example_paragraphs: udhr
  example_sentences: udhr
  number_of_icl_demonstrations: 1
  number_of_icl_phrases: 2
  back_translator: {translator}
  scorer: {scorer}
  {more}
train:
  data_dir: ${{datagen.output_dir}}
  model_name_or_path: {model}
  target_languages: [Basque]
  max_steps: 5000
  max_length: 512
  per_device_train_batch_size: 4
  gradient_accumulation_steps: 4
  {train}
"""
H100 = "{}, GPU-0000000{}-1111-2222-3333-444444444444, NVIDIA H100 80GB HBM3, 81559, {}, 9.0, Disabled, 570.86.15"
V100 = "0, GPU-00000000-1111-2222-3333-444444444444, Tesla V100-SXM2-16GB, 16384, 0, 7.0, [N/A], 535.104.05"
GB10 = "0, GPU-00000000-1111-2222-3333-444444444444, NVIDIA GB10, [N/A], [N/A], 12.1, [N/A], 580.95.05"
HEADER = "| NVIDIA-SMI 570.86.15   Driver Version: 570.86.15   CUDA Version: {} |"


def nvidia_smi(folder: Path, rows: list[str], cuda: str = "13.0", users: str = "", code: int = 0) -> str:
    """A folder for PATH with an nvidia-smi of these GPUs."""
    folder.mkdir()
    script = folder / "nvidia-smi"
    outputs = {"gpu": "\n".join(rows), "users": users, "header": HEADER.format(cuda)}
    for name, text in outputs.items():
        (folder / name).write_text(text)
    script.write_text(
        f'#!/bin/sh\ncd {folder}\ncase "$1" in --query-gpu=*) cat gpu;; --query-compute-apps=*) cat users;; *) cat header;; esac\n'
        f"exit {code}\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return f"{folder}:{os.environ['PATH']}"


def llama_8b(folder: Path, layers: int = 32) -> Path:
    """A checkpoint of Llama-3-8B's shape, or with more layers: whole headers, and files of holes."""
    folder.mkdir(parents=True)
    hidden, inner, kv, words = 4096, 14336, 1024, 128256
    shapes = {"model.embed_tokens.weight": (words, hidden), "lm_head.weight": (words, hidden)}
    for i in range(layers):
        own = {"q": (hidden, hidden), "k": (kv, hidden), "v": (kv, hidden), "o": (hidden, hidden)}
        shapes |= {f"model.layers.{i}.self_attn.{name}_proj.weight": shape for name, shape in own.items()}
        own = {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
        shapes |= {f"model.layers.{i}.mlp.{name}_proj.weight": shape for name, shape in own.items()}
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * shape[1]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (end, end + size)}
        end += size
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    config = dict(num_hidden_layers=layers, num_attention_heads=32, num_key_value_heads=8, hidden_size=hidden)
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192, "dtype": "bfloat16"}))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def write_run(
    tmp_path: Path, model, out: Path | None = None, more="", train="use_peft: true", tail="", **changes
) -> Path:
    path = tmp_path / "run.yaml"
    values = {
        "topics": ROOT / "topics" / "wikipedia_vital_topics.txt",
        "translator": "apertium",
        "scorer": "confidence",
    }
    path.write_text(
        RUN.format(model=model, out=out or tmp_path / "out", more=more, train=train, **values | changes) + tail
    )
    return path


def doctor(*words, **environment) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "COMET_", "CUDA_"))}
    env |= {"HF_HUB_OFFLINE": "1", **environment}
    if not any(name.startswith(("HF_", "PYTHON")) for name in environment):
        with mock.patch.dict(os.environ, env, clear=True):
            return in_process("scripts/doctor.py", *words)
    command = [sys.executable, "scripts/doctor.py", *map(str, words)]  # these are read once a process
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def findings(*words, code: int | None = None, **environment) -> list[dict]:
    result = doctor(*words, "--json", **environment)
    assert not result.stderr, result.stderr
    found = json.loads(result.stdout)["findings"]
    assert result.returncode == (any(row["level"] == "problem" for row in found) if code is None else code)
    return found


def findings_here(*words, code: int = 0) -> list[dict]:
    """The same in this process."""
    result = in_process("scripts/doctor.py", *words, "--json")
    assert result.returncode == code and not result.stderr, result.stderr
    return json.loads(result.stdout)["findings"]


def of(found: list[dict], check: str, level: str | None = None) -> list[str]:
    return [
        f"{row['subject']}: {row['text']} -> {row['remedy']}"
        for row in found
        if row["check"] == check and level in (None, row["level"])
    ]
