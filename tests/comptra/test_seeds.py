"""Runs that differ in a seed alone are one system, and the report compares systems over their seeds."""

import json
from pathlib import Path

import numpy as np
import pytest

from comptra.scores import metrics
from comptra.significance import over_seeds, resampling, seeds
from tests.support.compared_runs import evaluate, mean, means, system
from tests.support.evaluations import RUN, settings, udhr, worse, write
from topxgen.common.provenance import weights_id
from topxgen.text import languages


def trained(folder: str, seed: int, **more) -> Path:
    """What train.py leaves beside the weights."""
    path = Path(folder)
    path.mkdir(parents=True)
    (path / "settings_train.json").write_text(json.dumps({"seed": seed, "max_steps": 5, "data": str(seed), **more}))
    facts = {"languages": {"English to Basque": {"path": "x", "sha256": "abc", "counts": {"pairs": 3}}}}
    (path / "data_manifest.json").write_text(json.dumps(facts))
    return path.resolve()


def translated(name: str, model: Path, translations: list[str], **more) -> Path:
    folder = Path("runs", name, RUN.format("English", "Basque"))
    of_model = {"model": model.name, "base_model": model.name, "weights": [str(model)]}
    described = settings(seed=122, **{**of_model, **more})
    write(folder, udhr().sources, translations, described)
    (folder / "manifest_translate.json").write_text(json.dumps({"model": str(model), "settings": described}))
    return folder


def test_runs_that_differ_in_the_seed_of_the_training_are_one_system(workplace):
    references, folders = udhr().references, {}
    for method, share in (("plain", 0.35), ("ours", 0.2)):
        for seed in (1, 2, 3):
            model = trained(f"{method}/seed-{seed}", seed, method=method)
            texts = worse(references, share + 0.01 * seed, seed=10 * seed + len(method))
            folders.setdefault(method, []).append(translated(f"{method}-{seed}", model, texts))
    folders["untrained"] = [system("untrained", worse(references, 0.5))]
    report, _ = evaluate("--baseline", "runs/plain-1")
    found = report["groups"][0]["over_seeds"]
    by_method = {Path(one["name"]).parts[1].rstrip("-*"): one for one in found["systems"]}
    assert {name: one["paths"] for name, one in by_method.items()} == {
        name: [str(folder) for folder in own] for name, own in folders.items()
    }
    assert by_method["ours"]["seeds"] == [[1, 122], [2, 122], [3, 122]]
    assert found["baseline"] == by_method["plain"]["name"] == str(folders["plain"][0]).replace("plain-1", "plain-*")
    test = metrics.Test(*map(languages.find, ("English", "Basque")), udhr().sources, references)
    scorer = metrics.create("chrf", test)
    statistics = {
        name: [
            scorer.statistics([json.loads(line)["translation"] for line in (folder / "translate_0.jsonl").open()])
            for folder in own
        ]
        for name, own in folders.items()
    }
    expected = over_seeds.compare_all(statistics, "plain", scorer.scores, 2000, resampling.SEED)
    for name, one in by_method.items():
        assert one["scores"]["chrf"]["mean"] == pytest.approx(expected[name]["mean"])
        assert one["scores"]["chrf"].get("p_holm") == pytest.approx(expected[name].get("p_holm"))
    assert (
        by_method["ours"]["scores"]["chrf"]["better"] is True and by_method["untrained"]["scores"]["chrf"]["sd"] is None
    )

    # All runs of the baseline may be named; single runs are then compared with the first.
    for seed in (2, 3):
        Path("runs", f"plain-{seed}").rename(Path("runs", f"p{seed}"))
    Path("base").mkdir()
    for name in ("plain-1", "p2", "p3"):
        Path("runs", name).rename(Path("base", name))
    again, said = evaluate("--baseline", "base", "--bootstrap", 1)
    expected = over_seeds.compare_all(statistics, "plain", scorer.scores, 2000, resampling.SEED)
    for name in ("ours", "untrained"):
        value = next(one for one in again["groups"][0]["over_seeds"]["systems"] if name in one["name"])
        assert value["scores"]["chrf"]["p"] == pytest.approx(expected[name]["p"])
    assert again["groups"][0]["baseline"].startswith("base/plain-1") and "3 seeds of the baseline" in said


def test_runs_that_differ_in_the_seed_of_main_are_one_system(workplace):
    references = udhr().references
    for seed, more in ((1, {}), (2, {"max_samples": len(references), "lines_from_original": 3})):
        system(f"m{seed}", worse(references, 0.2, seed), seed=seed, temperature=1.0, weights=["same"], **more)
    system("other", worse(references, 0.2, 7), seed=3, temperature=1.0, weights=["other"])
    system("z1", worse(references, 0.2, 1), seed=1, temperature=1.0, weights=["same"])
    trained("here", 5).joinpath("settings_train.json").rename("settings_train.json")  # of no model of these runs
    report, _ = evaluate()
    named = [(one["name"], one["seeds"]) for one in report["groups"][0]["over_seeds"]["systems"]]
    assert named[0] == (f"runs/m*/{RUN.format('English', 'Basque')}", [[None, 1], [None, 2]]) and len(named) == 3
    assert named[2] == (f"runs/z1/{RUN.format('English', 'Basque')}", [[None, 1]])  # repeats a seed


@pytest.mark.parametrize(
    "change",
    [
        "the settings of the training",
        "the data",
        "the flags of main.py",
        "the checkpoint",
        "what chose the checkpoint",
        "weights that were trained anew after the translation",
        "no seed: the same twice",
        "a damaged manifest",
    ],
)
def test_runs_that_differ_in_more_are_not_averaged(workplace, change):
    references, models = udhr().references, []
    for seed in (1, 2):
        number = 1 if "no seed" in change else seed
        more = {"learning_rate": seed} if "settings" in change else {}
        model = trained(f"seed-{seed}", number, **more)
        if change == "the data":
            (model / "data_manifest.json").write_text(json.dumps({"languages": {"a": {"sha256": str(seed)}}}))
        if change == "the checkpoint":
            model = model / f"checkpoint-{seed}00"
        if change == "what chose the checkpoint":
            (model / "manifest_train.json").write_text(
                json.dumps({"metric_for_best_model": ["loss", "chrf"][seed - 1]})
            )
        if "anew" in change and seed == 1:
            (model / "model.safetensors").write_bytes(b"other weights than those that translated")
        if change == "a damaged manifest":
            (model / "settings_train.json").write_text("{")
        models.append(model)
    for model, k in zip(models, (0, 1), strict=True):
        translated(model.name, model, worse(references, 0.2, k), k=k if "flags" in change else 0)
    assert "over_seeds" not in evaluate()[0]["groups"][0]


def test_adapters_in_checkpoints_are_one_system(workplace):
    references = udhr().references
    for seed in (1, 2):
        adapter = trained(f"seed-{seed}", seed) / "checkpoint-100"
        adapter.mkdir()
        (adapter / "adapter_config.json").write_text("{}")
        (adapter / "adapter_model.safetensors").write_text(f"weights of seed {seed}")
        weights = ["those of the base model", weights_id(adapter)]
        translated(f"seed-{seed}", adapter, worse(references, 0.2, seed), weights=weights)
    (one,) = evaluate()[0]["groups"][0]["over_seeds"]["systems"]
    assert one["seeds"] == [[1, 122], [2, 122]]


def test_merged_models_are_recognised_by_their_adapters(workplace):
    references = udhr().references
    for seed in (1, 2):
        adapter, merged = trained(f"seed-{seed}/train", seed), Path(f"seed-{seed}/merged")
        merged.mkdir()
        chain = {"lineage": {"links": [{"name": str(adapter)}, {"name": "base"}]}}
        (merged / "manifest_merge.json").write_text(json.dumps(chain))
        translated(f"seed-{seed}", merged.resolve(), worse(references, 0.2, seed))
    (one,) = evaluate()[0]["groups"][0]["over_seeds"]["systems"]
    assert one["seeds"] == [[1, 122], [2, 122]]


def test_names_of_several_runs():
    assert seeds.name_of(["a/seed-1/b", "a/seed-2/b"]) == "a/seed-*/b"
    assert seeds.name_of(["a/b"]) == "a/b" and seeds.name_of(["x", "y"]) == "*"
    assert seeds.name_of(["a1", "a12"]) == "a1*" and seeds.name_of(["11", "1"]) == "1*"


def test_segments_without_a_score_are_left_out_for_all_seeds():
    rng = np.random.default_rng(2)
    stats = {name: [means(rng.normal(size=40)) for _ in range(2)] for name in ("base", "new")}
    has = np.arange(40) % 4 > 0
    found = over_seeds.compare_all(stats, "base", mean, has_score=has)
    kept = {name: [one[has] for one in own] for name, own in stats.items()}
    assert found == over_seeds.compare_all(kept, "base", mean) and found["new"]["segments"] == 30
    assert over_seeds.compare_all(stats, "base", mean, has_score=np.zeros(40, bool)) == {}


def test_the_test_over_seeds_knows_which_direction_is_better():
    stats = {name: [means(np.arange(60) % 7 + shift)] * 2 for name, shift in (("base", 0), ("lower", -3))}
    for higher, expected in ((True, False), (False, True)):
        assert over_seeds.compare_all(stats, "base", mean, higher_is_better=higher)["lower"]["better"] is expected


def test_the_report_over_seeds_knows_which_direction_is_better_and_what_has_no_score(workplace):
    for name, share in (("long", 1), ("short", 2)):
        texts = [text[: len(text) // share] for text in udhr().references]
        for seed in (1, 2):
            without = 3 * (seed - 1)
            model = trained(f"{name}/seed-{seed}", seed, method=name)
            translated(f"{name}-{seed}", model, ["null"] * without + texts[without:])
    report, _ = evaluate("--baseline", "runs/long-1", names=("own.py:Length", "own.py:Excess"))
    short = next(one for one in report["groups"][0]["over_seeds"]["systems"] if "short" in one["name"])["scores"]
    assert [short[name]["better"] for name in ("own.py:Length", "own.py:Excess")] == [False, True]
    assert {one["segments"] for one in short.values()} == {len(udhr().references) - 3}
