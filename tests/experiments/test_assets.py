"""What run files need from elsewhere, and which files of a repository that is."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from comptra import needs as of_comptra
from comptra.scores.metrics import METRICS, MetricSettings
from tests.support.runs import ROOT
from topxgen.common import hub_files, needs
from topxgen.common.needs import COMET, COMET_PYTHON, DATASET, FILES, MODEL, SENTENCEPIECE, TOKENIZER, Need
from topxgen.experiments.assets import Asset, assets, read_commands, state
from topxgen.quality import comet_models
from topxgen.text import languages
from topxgen.training import named_datasets
from topxgen.training.dataset_spec import DatasetSpec


def found(name: str, home: Path, *changes: str) -> dict[str, Asset]:
    return {asset.name: asset for asset in assets(read_commands(ROOT / "configs" / "runs" / name, changes), home)}


def test_a_run_needs_what_its_flags_load_and_not_what_it_makes(tmp_path):
    rows = found("topxgen.yaml", tmp_path)
    kinds = {name: asset.kind for name, asset in rows.items()}
    assert kinds == {
        "google/gemma-3-27b-it": MODEL,
        "facebook/nllb-200-3.3B": MODEL,
        "facebook/blaser-2.0-qe": FILES,
        "cointegrated/SONAR_200_text_encoder": MODEL,
        "meta-llama/Meta-Llama-3-8B": MODEL,
        **dict.fromkeys(("google/xquad", "openlanguagedata/flores_plus", "mteb/NTREX", "gmnlp/tico19"), DATASET),
        "flores200": SENTENCEPIECE,
    }
    assert {asset.problem for asset in rows.values()} == {"not downloaded"}
    flores = rows["openlanguagedata/flores_plus"]
    assert flores.stages == ("datagen", "decontamination", "main")
    configs = {config for need in flores.needs for config in need.configs}
    assert len(configs) == 11 and {"eng_Latn", "eus_Latn", "xho_Latn"} <= configs
    tico = {pattern for need in rows["gmnlp/tico19"].needs for pattern in need.files}
    assert {"*/*.en-ha*.tsv", "*/*.en-fr*.tsv"} <= tico and len(tico) < 14
    unnamed = found("topxgen.yaml", tmp_path, "decontamination.languages=null")[
        "gmnlp/tico19"
    ]  # those that datagen.py writes
    assert {pattern for need in unnamed.needs for pattern in need.files} == tico


def test_examples_in_prompts_come_from_the_hub_whatever_folder_has_benchmarks(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPXGEN_BENCHMARK_DIR", str(tmp_path))
    rows = found("topxgen.yaml", tmp_path, "decontamination.benchmarks=udhr", "main=null", "evaluate=null")
    stages = {name: row.stages for name, row in rows.items() if row.kind == DATASET}
    assert stages == dict.fromkeys(("google/xquad", "openlanguagedata/flores_plus"), ("datagen",))


def test_rounds_need_the_models_of_the_run_file_alone(tmp_path):
    rows = found("self_improvement.yaml", tmp_path)
    assert {name for name, asset in rows.items() if asset.kind == MODEL} == {"models/gemma-3-270m"}


def test_an_api_needs_no_model(tmp_path):
    rows = found("topxgen.yaml", tmp_path, "datagen.inference_api=openai", "datagen.model_name_or_path=org/served", "train=null", "main=null", "evaluate=null")  # fmt: skip
    assert "org/served" not in rows and "facebook/nllb-200-3.3B" in rows


def test_smol_comes_from_the_hub_unless_there_is_a_copy(tmp_path):
    spec = DatasetSpec("smol", languages.find("English"), (languages.find("Hausa"), languages.find("Kinyarwanda")))
    assert named_datasets.needs(spec) == [Need(DATASET, "google/smol", ("smolsent__en_ha", "smolsent__en_rw"))]
    assert named_datasets.needs(replace(spec, data_dir=(tmp_path,))) == []


def test_every_metric_with_a_model_names_it():
    settings = MetricSettings()
    for name, row in METRICS.items():
        names = of_comptra.of_metric(name, settings)
        assert bool(names) == ((row.of_segments and row.family != "gemba") or name in ("bleu", "bleu-flores101", "bleu-flores200", "bleu-spBLEU-1K")), name  # fmt: skip
    python = Need(COMET_PYTHON, "/nowhere/python")
    assert of_comptra.of_metric("xcomet", MetricSettings(comet_python=python.name)) == [
        Need(COMET, "Unbabel/XCOMET-XL"),
        python,
    ]
    assert state(python, None) == ("there is no interpreter", comet_models.REMEDY)
    assert state(replace(python, name=sys.executable), None) == ("", "")
    assert of_comptra.of_metric("metricx-23-qe", settings) == [
        Need(MODEL, "google/metricx-23-qe-large-v2p0"),
        Need(TOKENIZER, "google/mt5-xl"),
    ]
    assert of_comptra.of_metric("bleu", MetricSettings(tokenize="13a")) == []
    for tokenizer, may_lack in (("auto", True), ("flores200", False)):  # the default does without
        (need,) = of_comptra.of_metric("bleu", MetricSettings(tokenize=tokenizer))
        assert (need.kind, need.name, bool(need.fallback)) == (SENTENCEPIECE, "flores200", may_lack)
    assert of_comptra.of_metric("lang", MetricSettings(lid_model="cis-lmu/glotlid/model_v3.bin")) == [
        Need(FILES, "cis-lmu/glotlid", files=("model_v3.bin",))
    ]


GEMMA = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja"]  # fmt: skip
COPIES = ["README.md", "pytorch_model.bin", "pytorch_model.bin.index.json", "flax_model.msgpack", "tf_model.h5", "model.gguf", "original/model.safetensors", "onnx/model.onnx", ".gitattributes"]  # fmt: skip


@pytest.mark.parametrize(
    ("need", "files", "expected"),
    [
        (Need(MODEL, "a/b"), GEMMA + COPIES, GEMMA),
        (Need(TOKENIZER, "a/b"), GEMMA + COPIES, [GEMMA[0], *GEMMA[4:]]),
        (Need(MODEL, "a/b"), ["config.json", "pytorch_model.bin", "rust_model.ot"], ["config.json", "pytorch_model.bin"]),
        (Need(MODEL, "a/b"), ["consolidated.safetensors", "model.safetensors"], ["model.safetensors"]),
        (Need(MODEL, "a/b"), ["adapter_config.json", "adapter_model.safetensors"], ["adapter_config.json", "adapter_model.safetensors"]),
        (Need(TOKENIZER, "a/b"), ["config.json", "source.spm", "target.spm", "vocab.json", "tf_model.h5"], ["config.json", "source.spm", "target.spm", "vocab.json"]),  # Marian
        (Need(COMET, "a/b"), ["hparams.yaml", "checkpoints/model.ckpt", "LICENSE"], ["checkpoints/model.ckpt", "hparams.yaml"]),
        (Need(FILES, "a/b", files=("model.pt",)), ["model.pt", "README.md"], ["model.pt"]),
        (Need(DATASET, "a/b"), ["README.md", "test.parquet"], ["README.md", "test.parquet"]),
        (Need(DATASET, "a/b", files=("*/*.en-ha*.tsv",)), ["data/dev.en-ha.tsv", "data/dev.en-rw.tsv"], ["data/dev.en-ha.tsv"]),
    ],
)  # fmt: skip
def test_files_that_are_used(need, files, expected):
    assert sorted(hub_files.wanted(need, files)) == sorted(expected)


def test_configurations_of_a_card():
    card = (
        "---\nconfigs:\n- config_name: one\n  data_files: one/*.jsonl\n- config_name: two\n  data_files:\n  - split: train\n"
        "    path: [two/a.parquet, two/b.parquet]\n- config_name: three\n  data_dir: three\n  data_files: {test: t.csv}\n---\ntext"
    )
    files = ["README.md", "one/x.jsonl", "two/a.parquet", "two/b.parquet", "three/t.csv", "notes.txt"]
    assert hub_files.wanted(Need(DATASET, "a/b", ("three",)), files, card) == [
        "README.md",
        "one/x.jsonl",
        "three/t.csv",
    ]
    assert hub_files.wanted(Need(DATASET, "a/b", ("two",)), files, card) == files[:1] + files[1:4]
    for bad in (
        "",
        "no front matter",
        "---\n[\n---\n",
        "---\nconfigs: 3\n---\n",
        "---\nconfigs:\n- config_name: two\n---\n",
        "---\nconfigs:\n- config_name: one\n  data_files: one/*\n- config_name: two\n---\n",
    ):
        assert hub_files.wanted(Need(DATASET, "a/b", ("two",)), files, bad) == sorted(files)  # all of it


def test_files_of_torch_that_are_cut_off(tmp_path):
    """They are zip files, whose end has the list of what is in them."""
    torch.save({"a": torch.zeros(9)}, tmp_path / "model.pt")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "hparams.yaml").touch()
    whole = (tmp_path / "model.pt").read_bytes()
    for name, need in (
        ("pytorch_model.bin", Need(MODEL, "a/b")),
        ("blaser.pt", Need(FILES, "a/b", files=("*.pt",))),
        ("model.ckpt", Need(COMET, "a/b")),
    ):
        for content, problem in ((whole, ""), (whole[:-30], f"{name} is cut off or damaged"), (b"\x80\x02older", "")):
            (tmp_path / name).write_bytes(content)
            assert hub_files.problem(need, tmp_path) == problem


def test_what_a_folder_lacks(tmp_path):
    need = Need(MODEL, "a/b")
    assert hub_files.problem(need, tmp_path) == "it has no weights"
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(8)
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(whole)
    assert hub_files.problem(need, tmp_path) == "it has no config.json"
    (tmp_path / "config.json").write_text("{}")
    index = tmp_path / "model.safetensors.index.json"
    shards = {str(n): f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)} | {
        "0": "model-00001-of-00002.safetensors"
    }
    index.write_text(json.dumps({"weight_map": shards}))
    assert hub_files.problem(need, tmp_path) == "it lacks model-00001-of-00003.safetensors and 2 other shards"
    index.write_text("[]")
    assert hub_files.problem(need, tmp_path) == "model.safetensors.index.json is damaged"
    index.unlink()
    assert hub_files.problem(need, tmp_path) == "it lacks model-00002-of-00002.safetensors"
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(whole)
    assert hub_files.problem(need, tmp_path) == ""
    for damaged in (whole[:-1], whole[:6], b"", len(header).to_bytes(8, "little") + b"{" * len(header), b"\xff" * 40):
        (tmp_path / "model-00001-of-00002.safetensors").write_bytes(damaged)
        assert hub_files.problem(need, tmp_path) == "model-00001-of-00002.safetensors is cut off or damaged"
    assert hub_files.problem(Need(TOKENIZER, "a/b"), tmp_path) == "it has no tokenizer"
    assert hub_files.problem(Need(FILES, "a/b", files=("model.bin",)), tmp_path) == "it has no model.bin"
    config = tmp_path / "tokenizer_config.json"
    for text, problem in (("{}", "it has no tokenizer"), ('{"tokenizer_class": "ByT5Tokenizer"}', "")):
        config.write_text(text)
        assert hub_files.problem(Need(TOKENIZER, "a/b"), tmp_path) == problem
    config.write_bytes(b'{"tokenizer_class": "\xff"}')
    assert hub_files.problem(Need(TOKENIZER, "a/b"), tmp_path) == "it has no tokenizer"
    (tmp_path / "vocab-src.json").write_text("{}")  # FSMT
    assert not hub_files.problem(Need(TOKENIZER, "a/b"), tmp_path)
    (tmp_path / "model.bin").symlink_to(tmp_path / "blob")
    assert (
        hub_files.problem(Need(FILES, "a/b", files=("model.bin",)), tmp_path)
        == "model.bin is not there, where a link points"
    )


def test_names_of_shards_are_what_the_index_says(tmp_path):
    """Those of DeepSeek-V3 have five digits of six; without an index, all of a count have to be there."""
    need, named = Need(MODEL, "a/b"), "model-00001-of-000002.safetensors"
    whole = (2).to_bytes(8, "little") + b"{}"
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / named).write_bytes(whole)
    assert hub_files.problem(need, tmp_path) == "it lacks model-00002-of-000002.safetensors"
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": named}}))
    assert hub_files.problem(need, tmp_path) == ""
    index.unlink()
    (tmp_path / "model-00002-of-000002.safetensors").write_bytes(whole)
    assert hub_files.problem(need, tmp_path) == ""
    (tmp_path / "model-00003-of-00007.safetensors").write_bytes(whole)
    (tmp_path / "model.safetensors").write_bytes(whole)  # is the one that is read
    assert hub_files.problem(need, tmp_path) == ""


def test_names_that_are_no_ids_of_the_hub_are_not_looked_up():
    for name in ("gpt-4o", "a/b/c", "../a/b", "/a/b", "a/", "https://a/b"):
        assert not Need(MODEL, name).is_on_hub
    assert Need(MODEL, "org/name-1.5_b").is_on_hub and needs.models(None) == []
