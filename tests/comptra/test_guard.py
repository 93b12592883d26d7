"""The guard of comptra.evaluate: chains of real runs in which a metric selected something, clean ones, and broken ones."""

import json
import random
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from comptra.guard import chains
from tests.support import number_translator
from tests.support.api_server import KEY, ApiServer
from tests.support.interference import reasons
from tests.support.main_runs import folder_of, options
from tests.support.runs import in_process, snapshot
from tests.support.tiny_metricx import build_metricx
from tests.support.tiny_models import udhr_texts

TRAIN = (
    *("--targets_only", "--max_length", 256, "--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 1),
    *("--num_warmup_steps", 1, "--max_steps", 4, "--save_steps", 2, "--eval_steps", 2, "--target_languages", "Basque"),
    *("--use_peft", "--lora_r", 2),
)


def run(script: str, *words) -> str:
    result = in_process(script, *words)
    assert result.returncode == 0, result.stderr
    return result.stdout


class Place(NamedTuple):
    """A folder with data, models and translations, and the base model."""

    folder: Path
    base: str

    @property
    def data(self) -> Path:
        return self.folder / "data" / "t"

    def train(self, name: str, *more, data=None) -> Path:
        generated = ("--dataset_name_or_path", "topxgen", "--data_dir", data or self.data, "--test_size_ratio", 0)
        words = (*TRAIN, *(more if "--dataset_name_or_path" in more else (*generated, *more)))
        run("train.py", "--model_name_or_path", self.base, "--output_dir", self.folder / name, *words)
        return self.folder / name

    def translate(self, model: Path | str, output="translations", *more, dataset="udhr", base=None) -> Path:
        words = options(
            str(model),
            dataset_name_or_path=dataset,
            k=0,
            lora_rank=None,
            **({"base_model_name_or_path": base} if base else {}),
        )
        run("main.py", *words, "--output_dir", self.folder / output, *more)
        return folder_of(self.folder / output, str(model), k=0)

    def evaluate(self, folder: Path, *more) -> tuple[dict, str]:
        """The one system of the report, with the warnings of its group, and what is printed."""
        path = self.folder / "scores.json"
        shown = run("comptra.evaluate", folder, "--metrics", "bleu", "chrf", "--tokenize", "13a", "--json", path, *more)
        (group,) = json.loads(path.read_text())["groups"]
        return group["systems"][0] | {"warnings": group["warnings"]}, shown


@pytest.fixture(scope="module")
def place(tiny_lm, tmp_path_factory) -> Place:
    """Pairs from native texts, scored by MetricX-QE and decontaminated against the UDHR; nothing is selected yet."""
    folder = tmp_path_factory.mktemp("guard")
    words = " ".join(udhr_texts("Basque")).split()
    texts = [" ".join(random.Random(i).sample(words, 20)) + "." for i in range(30)]
    (folder / "native.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    metricx = build_metricx(folder / "metricx-24-hybrid-tiny", texts)
    place = ("--languages", "Basque", "--output_dir", folder / "data", "--translate_dir", "t")
    back = (
        "--back_translator",
        number_translator.NAME,
        "--scorer",
        "metricx-qe",
        "--metricx_name_or_path",
        metricx,
    )
    run("datagen.py", "--paragraphs", folder / "native.txt", *place, *back)
    run("decontamination.py", "--input_dir", folder / "data" / "t", "--benchmarks", "udhr")
    return Place(folder, tiny_lm)


@pytest.fixture(scope="module")
def selected(place) -> Path:
    """Translations of a model whose training data MetricX-QE selected."""
    return place.translate(place.train("selected", "--percentile", 50))


@pytest.fixture(scope="module")
def clean(place) -> Path:
    """The same data, scored, but the first pairs of it."""
    return place.translate(place.train("clean", "--dataset_size", 8))


@pytest.fixture(scope="module")
def by_chrf(place) -> Path:
    """An adapter whose best checkpoint was chosen by chrF++ on held-out pairs."""
    held_out = ("--test_size_ratio", 4, "--num_eval_translations", 1)
    return place.train("by-chrf", "--dataset_name_or_path", "udhr", *held_out)


NEURAL = (
    "metricx-24",
    "metricx-qe",
    "comet",
    "xcomet",
    "cometkiwi",
    "ssa-comet-qe",
    "blaser-qe",
    "gemba-da",
    "mt-ranker",
)


def test_data_that_a_metric_selected(place, selected):
    found = reasons(selected, "bleu", "chrf", "lang", *NEURAL)
    where = f"({place.data}, --percentile 50"
    assert found["metricx-qe"] == [f"the training data was selected by metricx-qe {where})"]
    assert found["metricx-24"] == [f"the training data was selected by metricx-qe {where}, a relative: MetricX)"]
    assert found.keys() == {*NEURAL[:5]}, "what shares neither model nor judgements is not marked"
    assert all(
        "a distant relative: both learned from human judgements of WMT" in found[name][0] for name in NEURAL[2:5]
    )


def test_scores_by_the_metric_that_selected_the_data_are_marked(place, selected, clean):
    both = ("--metrics", "bleu", "chrf", "metricx-24-qe", "--cache_dir", place.folder / "cache")
    both += ("--metricx_name_or_path", place.folder / "metricx-24-hybrid-tiny")
    system, shown = place.evaluate(selected, *both)
    where = f"({place.data}, --percentile 50, a relative: MetricX)"
    reason = f"the training data was selected by metricx-qe {where}"
    assert system["scores"]["metricx-24-qe"]["interference"] == [reason]
    assert system["scores"]["chrf"]["interference"] == [] == system["contamination"] == system["warnings"]
    assert f"! MetricX-24-QE of selected: {reason}" in shown
    system, shown = place.evaluate(clean, *both)
    assert system["interference"] == [] and "!" not in shown


def test_a_clean_chain_is_silent(place, clean):
    assert reasons(clean, "bleu", "chrf", *NEURAL) == {}
    system, shown = place.evaluate(clean)
    assert (system["interference"], system["contamination"], system["warnings"]) == ([], [], [])
    assert "!" not in shown and "warning" not in shown
    assert (
        f"unknown: the training data of base models, and the metrics that may have selected it ({place.base})" in shown
    )


def test_a_checkpoint_that_a_metric_selected(place, by_chrf):
    system, shown = place.evaluate(place.translate(by_chrf))
    reason = f"the checkpoint was selected by chrf ({by_chrf}, --metric_for_best_model chrf"
    assert system["scores"]["chrf"]["interference"] == [f"{reason})"]
    assert system["scores"]["bleu"]["interference"] == [f"{reason}, a relative: n-grams in common with a reference)"]
    assert system["interference"] == [
        f"BLEU: {reason}, a relative: n-grams in common with a reference)",
        f"chrF++: {reason})",
    ]
    assert any(line.startswith("! chrF++ of ") and line.endswith(f": {reason})") for line in shown.splitlines())
    assert sum("!" in line for line in shown.splitlines()) == 4, "the row, a line for each mark, and what it means"
    assert reasons(place.translate(by_chrf, "again"), *NEURAL) == {}
    # The UDHR's articles 1 to 20 are what it was trained on, and not the test set.
    assert system["contamination"] == []


def test_a_checkpoint_taken_by_its_number_was_not_selected(place, by_chrf):
    assert reasons(place.translate(by_chrf / "checkpoint-2"), "chrf") == {}


def test_the_loss_is_no_metric(place):
    model = place.train("by-loss", "--dataset_name_or_path", "udhr", "--test_size_ratio", 4)
    assert json.loads((model / "manifest_train.json").read_text())["lineage"]["selections"][0]["metric"] == "loss"
    system, shown = place.evaluate(place.translate(model))
    assert not (system["interference"] or system["warnings"]) and "!" not in shown


def test_an_llm_that_judges_its_own_translations(place, clean, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ApiServer(respond=lambda _: "80") as server:
        flags = (
            "--metrics",
            "bleu",
            "gemba-da",
            "--judge_inference_api",
            "openai",
            "--judge_base_url",
            server.url("openai"),
        )
        flags += ("--cache_dir", place.folder / "judged", "--judge_model_name_or_path")
        own, _ = place.evaluate(clean, *flags, "org/tiny_lm")  # the base model of the adapter that translated
        other, _ = place.evaluate(clean, *flags, "org/another")
    (reason,) = own["scores"]["gemba-da"]["interference"]
    assert reason.startswith(f"the judge org/tiny_lm is {place.base}, which wrote the translations")
    assert own["scores"]["bleu"]["interference"] == other["scores"]["gemba-da"]["interference"] == []


@pytest.mark.medium
def test_one_checkpoint_is_no_choice(place):
    more = ("--save_steps", 4, "--test_size_ratio", 4, "--num_eval_translations", 1)
    model = place.train("one-checkpoint", "--dataset_name_or_path", "udhr", *more)
    assert reasons(place.translate(model), "chrf", "bleu") == {}


@pytest.mark.medium
def test_a_merged_model_and_a_model_trained_on(place, by_chrf):
    merged = place.folder / "merged"
    run("scripts.merge_lora", by_chrf, merged)
    (reason,) = reasons(place.translate(merged), "chrf")["chrf"]
    assert reason == f"the checkpoint was selected by chrf ({by_chrf}, --metric_for_best_model chrf)"
    next_model = Place(place.folder, str(merged)).train("next", "--dataset_size", 8)
    assert reasons(place.translate(next_model), "chrf", "metricx-24") == {"chrf": [reason]}


def test_a_published_model_keeps_its_chain(place, by_chrf, tmp_path, monkeypatch):
    shutil.copytree(by_chrf, snapshot(tmp_path, "org/tuned", monkeypatch), dirs_exist_ok=True)
    folder = place.translate("org/tuned", "published")
    assert reasons(folder, "chrf") == reasons(place.translate(by_chrf), "chrf") != {}
    (first, _) = json.loads((folder / "manifest_translate.json").read_text())["lineage"]["models"]
    assert first["name"] == "org/tuned"


def test_outputs_that_a_metric_selected(place):
    sampled = ("--num_return_sequences", 3, "--temperature", 1.0, "--selection_method")
    folder = place.translate(place.base, "mbr", *sampled, "chrf")
    found = reasons(folder, "bleu", "chrf", *NEURAL)
    where = f"({folder}, --num_return_sequences 3 --selection_method chrf"
    assert found["chrf"] == [f"the translation of each sentence was selected by chrf {where})"]
    assert found.keys() == {"bleu", "chrf"}
    assert reasons(place.translate(place.base, "first", *sampled, "greedy"), "chrf", *NEURAL) == {}


def copy_of(place, tmp_path) -> Place:
    shutil.copytree(place.folder, tmp_path / "copy")
    return Place(tmp_path / "copy", place.base)


def test_the_chain_outlives_models_and_data(place, selected, by_chrf, tmp_path):
    first, second = reasons(selected, *NEURAL), reasons(place.translate(by_chrf), "chrf")
    for folder in (selected, place.translate(by_chrf)):
        shutil.copytree(folder, tmp_path / folder.parent.name / folder.name)
    assert reasons(tmp_path / "selected" / selected.name, *NEURAL) == first
    assert reasons(tmp_path / "by-chrf" / selected.name, "chrf") == second


def test_other_weights_in_the_folder_of_a_model(place, selected, by_chrf, tmp_path):
    copy = copy_of(place, tmp_path)
    shutil.copy(by_chrf / "adapter_model.safetensors", copy.folder / "selected" / "adapter_model.safetensors")
    model = copy.folder / "selected"
    ends = chains.read(copy.translate(model, "others")).ends
    assert ends == [f"the weights in {model} are not those that manifest_train.json describes"]


@pytest.mark.medium
def test_data_that_its_manifest_does_not_describe(place, tmp_path):
    copy = copy_of(place, tmp_path)
    path = copy.data / "Basque_translate_filtered.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    system, shown = copy.evaluate(copy.translate(copy.train("changed", "--percentile", 50)))
    (line,) = system["contamination"]
    assert line == (
        f"trained on {copy.data} (Basque), of which it is not known whether it holds the test set: "
        "manifest_decontaminate_Basque.json describes another Basque_translate_filtered.jsonl than the one that is there"
    ).replace("manifest_decontaminate", f"{copy.data}/manifest_decontaminate")
    assert f"warning: {Path(system['path']).parent.name}: {line}" in shown
    assert reasons(Path(system["path"]), "metricx-24"), "what selected it is still known"


@pytest.mark.parametrize("damage", ["{", '{"lineage": 5}', '{"lineage": {"kind": "model", "name": 3}}', "[1]"])
def test_a_damaged_manifest_of_a_model(place, selected, tmp_path, damage):
    copy = copy_of(place, tmp_path)
    model = copy.folder / "selected"
    (model / "manifest_train.json").write_text(damage)
    (end,) = chains.read(copy.translate(model, "others")).ends
    assert end.startswith(str(model / "manifest_train.json")) and "\n" not in end


@pytest.mark.parametrize(
    "damage", ["{", '{"lineage": 5}', '{"lineage": {"models": 1, "demonstrations": null}}', "[1]", '{"settings": 3}']
)
def test_a_damaged_manifest_of_translations(selected, tmp_path, damage):
    shutil.copytree(selected, tmp_path / "run")
    (tmp_path / "run" / "manifest_translate.json").write_text(damage)
    (end,) = chains.read(tmp_path / "run").ends
    assert "manifest_translate.json" in end and "\n" not in end


def test_a_manifest_that_does_not_say_where_the_model_comes_from(place, selected, tmp_path):
    manifest = copy_of(place, tmp_path).folder / selected.relative_to(place.folder) / "manifest_translate.json"
    manifest.write_text(
        json.dumps({name: value for name, value in json.loads(manifest.read_text()).items() if name != "lineage"})
    )
    assert chains.read(manifest.parent).ends == [
        "the manifest of the translations, of an earlier version, has no lineage"
    ]
