"""The card of a trained model: what the Hub reads of it."""

import argparse
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard

from scripts.merge_lora import model_card as merged_card
from topxgen.training.model_card import RunInfo

HISTORY = [
    {"step": 0, "eval_loss": 3.5, "eval_runtime": 1.0},
    {"step": 10, "loss": 2.0},
    {"step": 20, "eval_loss": 2.123456, "eval_loss_English to Basque": 2.5, "eval_chrf_Basque to English": 21.25,
     "eval_bleu": float("nan"), "eval_runtime": 1.0},
    {"step": 40, "eval_loss": 1.0, "eval_runtime": 1.0},
]  # fmt: skip


def card(
    tmp_path: Path, base: str, writers=(), dataset="topxgen", facts=None, command=("train.py", "--x"), **changes
) -> ModelCard:
    values = dict(
        model_name_or_path=base, src="English", target_languages=["Basque"], languages_file=None, reverse=True, use_peft=True,
        output_dir=tmp_path / "basque", template_key="14", dataset_name_or_path=dataset,
    )  # fmt: skip
    data = {
        "kind": "data",
        "name": "d",
        "links": [{"kind": "data", "name": "e", "writers": [{"kind": "model", "name": w} for w in writers]}],
    }
    lineage = {"kind": "model", "name": "", "stage": "train", "links": [{"kind": "model", "name": base}, data]}
    info = RunInfo(
        argparse.Namespace(**{**values, **changes}),
        True,
        {"name": dataset, **(facts or {})},
        {"seed": 1, "model": base},
        list(command),
        lineage,
    )
    return ModelCard(
        info.card(SimpleNamespace(log_history=HISTORY, global_step=20, max_steps=40)), ignore_metadata_errors=False
    )


def test_base_model_licence_and_scores_as_the_hub_reads_them(tmp_path):
    read = card(tmp_path, "google/gemma-3-270m")
    data = read.data
    assert (data.base_model, data.base_model_relation, data.license) == ("google/gemma-3-270m", "adapter", "gemma")
    assert (data.library_name, data.pipeline_tag, data.language, data.model_name) == (
        "peft",
        "translation",
        ["en", "eu"],
        "basque",
    )
    results = {(one.dataset_config, one.metric_type): one for one in data.eval_results}
    assert {key: one.metric_value for key, one in results.items()} == {
        (None, "loss"): 2.1235,
        ("English to Basque", "loss"): 2.5,
        ("Basque to English", "chrf"): 21.25,
    }, "those of this step, and no score that is not a number"
    one = results["Basque to English", "chrf"]
    assert (one.task_type, one.metric_name, one.dataset_name) == ("translation", "chrF++", "held-out pairs of topxgen")
    assert (
        "- base model `google/gemma-3-270m`: [Gemma Terms of Use](https://ai.google.dev/gemma/terms). Google claims"
        in read.text
    )


@pytest.mark.parametrize(
    ("base", "writers", "licence"),
    [
        ("Qwen/Qwen2.5-7B", (), {"license": "apache-2.0"}),
        ("Qwen/Qwen2.5-7B", ("openai/gpt-oss-20b",), {"license": "apache-2.0"}),
        ("google/gemma-3-1b-pt", ("google/gemma-3-27b-it",), {"license": "gemma"}),
        ("google/gemma-3-1b-pt", ("openai/gpt-oss-20b", "facebook/m2m100_418M"), {"license": "gemma"}),
        (
            "meta-llama/Meta-Llama-3-8B",
            ("google/gemma-3-27b-it", "facebook/nllb-200-3.3B"),
            {"license": "other", "license_name": "llama3 and gemma and cc-by-nc-4.0", "license_link": "https://ai.google.dev/gemma/terms"},
        ),
        (
            "Qwen/Qwen2.5-3B",
            (),
            {"license": "other", "license_name": "Qwen Research License", "license_link": "https://huggingface.co/Qwen/Qwen2.5-3B/blob/main/LICENSE"},
        ),
        ("someone/unknown-model", ("google/gemma-3-27b-it",), {}),
    ],
)  # fmt: skip
def test_the_licence_is_that_of_the_base_model_and_of_the_writers_of_its_data(tmp_path, base, writers, licence):
    read = card(tmp_path, base, writers)
    named = {key: value for key in ("license", "license_name", "license_link") if (value := read.data.get(key))}
    assert named == licence
    for name in (base, *writers):
        assert f"`{name}`: " in read.text
    assert ("its terms are not known" in read.text) == (not licence)


def test_a_card_names_no_folders_of_the_machine(tmp_path):
    home, data = tmp_path / "home" / "somebody", {"path": str(tmp_path / "home" / "somebody" / "pairs.jsonl")}
    command = ["train.py", "--model_name_or_path", str(home / "gemma"), f"--languages_file={home}/my own/x.tsv"]
    read = card(
        tmp_path, str(home / "gemma"), (str(home / "writer"),), dataset=str(home / "set"), facts=data, command=command
    )
    assert "somebody" not in read.content and str(tmp_path) not in read.content
    assert "--model_name_or_path …/gemma '--languages_file=…/x.tsv'".replace("'", "") in read.text
    assert '"path": "…/pairs.jsonl"' in read.text and "- base model `…/gemma`" in read.text
    assert "- writer of training data `…/writer`: its terms are not known" in read.text
    assert {one.dataset_type for one in read.data.eval_results} == {"…/set"}
    assert '"model": "…/gemma"' in read.text, "the settings"


def test_a_local_base_model_is_not_named_as_if_the_hub_had_it(tmp_path):
    base = tmp_path / "models" / "gemma-3-270m"
    base.mkdir(parents=True)
    read = card(tmp_path, str(base))
    assert read.data.base_model is None and read.data.license == "gemma", "the terms go by the name"
    (base / "README.md").write_text("---\nbase_model: google/gemma-3-270m\n---\n")
    assert card(tmp_path, str(base), use_peft=False).data.base_model_relation == "finetune"
    assert card(tmp_path, str(base)).data.base_model == "google/gemma-3-270m"


def test_terms_of_a_data_set_are_told(tmp_path):
    text = card(tmp_path, "Qwen/Qwen2.5-7B", dataset="flores").text
    assert "- training data `flores`: [CC BY-SA 4.0]" in text
    norwegian = card(tmp_path, "Qwen/Qwen2.5-7B", target_languages=["Norwegian Bokmål"])
    assert all(isinstance(code, str) for code in norwegian.data.language)


def test_the_card_of_a_merge_has_the_name_of_the_merged_model(tmp_path):
    of_adapter = card(tmp_path, "google/gemma-3-270m").content
    assert merged_card(of_adapter, "yes").count("basque") == of_adapter.count("basque") - 2
    merged = ModelCard(merged_card(of_adapter, "yes"), ignore_metadata_errors=False)
    assert merged.data.model_name == "yes" and merged.data.library_name == "transformers"
    assert merged.text.strip().startswith("# yes\n\nA LoRA adapter merged into google/gemma-3-270m, trained")
    assert merged.data.eval_results == ModelCard(of_adapter).data.eval_results
