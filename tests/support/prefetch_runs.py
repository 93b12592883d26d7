"""Repositories for a small Hub, a run file that needs them, and scripts/prefetch.py as a user calls it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pyarrow
import pyarrow.parquet

from tests.support.hub_server import HubServer
from tests.support.runs import ROOT, in_process

RUN = """
output_dir: {out}
datagen:
  languages: [Basque, Hausa]
  model_name_or_path: org/writer
  inference_api: hf
  number_of_instructions: 4
  seed_topics_path: {topics}

  number_of_icl_phrases: 2
  number_of_icl_demonstrations: 0
  use_nllb: true
  nllb_name_or_path: org/nllb
  scorer: none
decontamination:
  input_dir: ${{output_dir}}/nllb
  benchmarks: [flores]
train:
  data_dir: ${{output_dir}}/nllb
  model_name_or_path: org/writer
  target_languages: [Basque, Hausa]
  max_steps: 1
main:
  model_name_or_path: ${{output_dir}}/train
  dataset_name_or_path: flores
  src: English
  tgt: Basque
evaluate:
  metrics: [chrf]
"""
CARD = """---
configs:
{}---
The card.
"""
CONFIG = """- config_name: {0}
  data_files:
  - split: dev
    path: dev/{0}.parquet
  - split: devtest
    path: devtest/{0}.parquet
"""
CODES = ("ace_Arab", "eng_Latn", "eus_Latn", "hau_Latn", "ibo_Latn")
SIZES = {"dev": 997, "devtest": 1012}


def make_flores(folder: Path) -> None:
    """FLORES+ as the Hub has it, with made-up sentences."""
    for split, size in SIZES.items():
        (folder / split).mkdir(parents=True)
        for code in CODES:
            texts = [f"{code} {split} sentence number {number} of these." for number in range(size)]
            pyarrow.parquet.write_table(
                pyarrow.table({"id": range(size), "text": texts}), folder / split / f"{code}.parquet"
            )
    (folder / "README.md").write_text(CARD.format("".join(map(CONFIG.format, CODES))))


def make_writer(model: str, folder: Path) -> None:
    """A model in three shards, with the copies that repositories of the Hub have."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(model, folder)
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(folder, max_shard_size="1MB")
    (folder / "original").mkdir()
    for name in ("pytorch_model.bin", "flax_model.msgpack", "model.gguf", "original/consolidated.00.pth", "README.md"):
        (folder / name).write_bytes(b"a copy, or not needed")
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}')


def command(hub: HubServer | None, *words, **environment) -> tuple[list, dict]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_ENDPOINT": hub.url if hub else "http://127.0.0.1:9", "no_proxy": "127.0.0.1", **environment}
    return [sys.executable, ROOT / "scripts" / "prefetch.py", *map(str, words)], env


def prefetch(hub: HubServer | None, *words, **environment) -> subprocess.CompletedProcess:
    """In this process, whose client of the Hub has read these variables; with a PYTHONPATH, in another."""
    line, env = command(hub, *words, **environment)
    if "PYTHONPATH" in environment:
        return subprocess.run(line, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    url, offline = env["HF_ENDPOINT"], "HF_HUB_OFFLINE" in environment
    read = {"ENDPOINT": url, "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}"}
    constants = mock.patch.multiple("huggingface_hub.constants", HF_HUB_OFFLINE=offline, **read)
    with mock.patch.dict(os.environ, env, clear=True), constants:
        return in_process("scripts/prefetch.py", *words)


def sent(hub: HubServer) -> list[str]:
    return [path for path in hub.sent if not path.endswith("README.md")]


def whole(folder: Path, name: str, kind: str = "model") -> Path:
    place = folder / "hub" / f"{kind}s--{name.replace('/', '--')}"
    return place / "snapshots" / (place / "refs" / "main").read_text()
