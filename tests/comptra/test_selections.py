"""What selects training data, checkpoints, outputs and rounds by a metric, and what does not, from settings and manifests."""

import json
import shutil
from pathlib import Path

import pytest

from comptra import candidate_selection
from comptra.guard import chains, interference
from comptra.scores import metrics
from tests.support.interference import reasons
from topxgen.common import lineage as record
from topxgen.generation import scoring


def part(read=10, **counts) -> dict:
    return {
        "path": "d/Basque_translate_filtered.jsonl",
        "sha256": "",
        "scorer": "blaser (b, s, float32)",
        "counts": {"read": read, **counts},
    }


@pytest.mark.parametrize(
    ("settings", "facts", "flag"),
    [
        ({"percentile": 50.0}, part(by_percentile=5), "--percentile 50"),
        ({"percentile": 0.0}, part(by_percentile=9), None),  # the pair of the lowest score
        ({"percentile": 0.0}, part(by_percentile=4), "--percentile 0"),  # most of them have the lowest score
        ({"percentile": 0.0}, part(1000, by_percentile=990), None),
        ({"percentile": 10.0}, part(1000, too_short=100, by_percentile=800), "--percentile 10"),
        ({"percentile": 0.5}, part(1000, by_percentile=995), "--percentile 0.5"),
        ({"strategy": "highest"}, part(asked=5, by_size=5), "--strategy highest --dataset_size 5"),
        ({"strategy": "highest"}, part(asked=20, by_size=10), None),  # all of them
        ({"strategy": "highest"}, part(too_short=2, asked=8, by_size=8), None),
        ({"strategy": "highest", "drop_duplicates": "before"}, part(duplicates=4, asked=6, by_size=6), None),
        ({"strategy": "highest", "drop_duplicates": "after"}, part(duplicates=4, asked=6, by_size=6), "--strategy highest --dataset_size 6"),
        ({"strategy": "highest", "dataset_size": -1}, part(), None),
        ({"strategy": "soonest"}, part(asked=5, by_size=5), None),
        ({"strategy": "random"}, part(asked=5, by_size=5), None),
        ({}, part(), None),
    ],
)  # fmt: skip
def test_selections_of_training_data(settings, facts, flag, tmp_path):
    own = {"dataset_name_or_path": "topxgen", **settings}
    link = record.of_training(own, {"languages": {"English to Basque": facts}})
    found = marked(tmp_path, link, "blaser-qe")
    assert found == (
        [f"the training data was selected by blaser (d, {flag}, a relative: BLASER and SONAR)"] if flag else []
    )


def marked(folder: Path, link: dict, metric: str) -> list[str]:
    (folder / "manifest_translate.json").write_text(
        json.dumps({"lineage": {"models": [{**link, "name": "m"}], "demonstrations": None}})
    )
    return reasons(folder, metric).get(metric, [])


def datagen_folder(folder: Path, translate: dict, score: dict, rejected: dict) -> Path:
    folder.mkdir()
    counts = {"pairs": 8, "rejected": {"sentence_too_short": 3, **rejected}}
    for stage, settings in (("translate", translate), ("score", score)):
        (folder / f"manifest_{stage}_Basque.json").write_text(json.dumps({"settings": settings, "counts": counts}))
    return folder / "Basque_translate.jsonl"


QE = "metricx-qe (metricx-24-hybrid-large, bfloat16, negated)"


@pytest.mark.parametrize(
    ("translate", "score", "rejected", "what"),
    [
        ({"number_of_candidates": 1, "select_by": None}, {"scorer": QE}, {}, None),
        ({}, {"scorer": QE, "min_score": -5.0}, {"score_below_min": 2}, "the training data was selected by metricx-qe ({}, --min_score -5,"),
        ({}, {"scorer": QE, "min_score": -5.0}, {"score_missing": 1}, "the training data was selected by metricx-qe ({}, --min_score -5,"),
        ({}, {"scorer": QE, "min_score": -25.0}, {}, None),
        ({}, {"scorer": "confidence", "min_score": 0.5}, {"score_below_min": 2}, None),
        ({"number_of_candidates": 4, "select_by": QE}, {"scorer": "none"}, {}, "the back-translation of each sentence was selected by metricx-qe ({}, --number_of_candidates 4,"),
        ({"number_of_candidates": 4, "select_by": "confidence"}, {"scorer": QE}, {}, None),
    ],
)  # fmt: skip
def test_selections_of_datagen(translate, score, rejected, what, tmp_path):
    path = datagen_folder(tmp_path / "d", translate, score, rejected)
    found = marked(tmp_path, record.of_back_translation(path, "Basque"), "metricx-24")
    assert [line.startswith(what.format(path.parent)) for line in found] == ([True] if what else [])


def test_what_the_writer_of_the_data_learned_counts_for_the_same_family_alone(tmp_path):
    chosen = record.of_checkpoint("chrf", "m0", 4)
    link = {"kind": "data", "name": "d", "writers": [{"kind": "model", "name": "m0", "selections": [chosen]}]}
    (reason,) = marked(tmp_path, link, "chrf")
    chain = chains.read(tmp_path)
    assert interference.reasons("my.py:metric", chain, "overlap") and not interference.reasons(
        "my.py:metric", chain, "comet"
    )
    assert (
        reason
        == "the checkpoint of m0, which wrote training data, was selected by chrf (m0, --metric_for_best_model chrf)"
    )
    link["writers"][0]["selections"] = [chosen | {"metric": "metricx-qe"}]
    assert marked(tmp_path, link, "metricx-24") and not marked(tmp_path, link, "comet")


def test_a_judge_that_judges_its_own_texts(tmp_path):
    writer = {"kind": "model", "name": "google/gemma-3-27b-it", "selections": []}
    link = {"kind": "data", "name": "d", "writers": [writer]}
    marked(tmp_path, link, "chrf")
    chain = chains.read(tmp_path)
    assert interference.self_preference("models/gemma-3-27b-it/", chain) == [
        "the judge models/gemma-3-27b-it/ is google/gemma-3-27b-it, which wrote the translations or what they were learned from"
    ]
    assert (
        interference.self_preference("google/gemma-3-12b-it", chain) == interference.self_preference(None, chain) == []
    )


@pytest.mark.parametrize(
    ("method", "more", "metrics"),
    [
        ("maps", {"selection_method": "comet-qe"}, {"comet", "ssa-comet", "metricx-24"}),
        ("maps", {"selection_method": "greedy"}, {"blaser-qe"}),
        ("TEaR", {"selection_method": "greedy"}, {"gemba-da"}),
        ("vanilla", {"selection_method": "blaser", "num_return_sequences": 4}, {"blaser-qe"}),
        ("vanilla", {"selection_method": "bleu", "num_return_sequences": 4}, {"bleu", "chrf"}),
        ("vanilla", {"selection_method": "greedy", "num_return_sequences": 4}, set()),
        ("vanilla", {"selection_method": "bleu", "num_return_sequences": 1}, set()),
        ("nllb", {}, set()),
    ],
)
def test_selections_of_main(tmp_path, method, more, metrics):
    content = {"settings": {"method_translate": method, **more}, "lineage": {"models": [], "demonstrations": None}}
    (tmp_path / "manifest_translate.json").write_text(json.dumps(content))
    all_of_them = ("bleu", "chrf", "lang", "comet", "ssa-comet", "metricx-24", "blaser-qe", "gemba-da", "mt-ranker")
    assert reasons(tmp_path, *all_of_them).keys() == metrics


def test_the_best_of_two_systems(tmp_path):
    """What chose between them, and what is behind each of them."""
    chosen = {"method_translate": "vanilla", "selection_method": "chrf", "num_return_sequences": 4}
    origin = {"models": [{"kind": "model", "name": "org/base"}], "demonstrations": None}
    members = [tmp_path / name for name in ("one", "two", "ensemble")]
    for folder, settings in zip(members, (chosen, {"method_translate": "vanilla"}, None), strict=True):
        folder.mkdir()
        own = settings or {"ensembled_by": "metricx-24-qe", "ensemble_of": [str(member) for member in members[:2]]}
        content = {"settings": own} | ({"lineage": origin} if settings else {})
        (folder / "manifest_translate.json").write_text(json.dumps(content))
    found = reasons(members[2], "chrf", "metricx-24-qe", "blaser-qe")
    assert found["metricx-24-qe"] == [
        f"the translation of each sentence was selected by metricx-24-qe ({members[2]}, --ensemble_by metricx-24-qe)"
    ]
    assert found.keys() == {"chrf", "metricx-24-qe"} and str(members[0]) in found["chrf"][0]
    assert chains.read(members[2]).ends == [] and chains.read(members[2]).base_models[0] == "org/base"
    shutil.rmtree(members[1])
    members[1].symlink_to(members[2])  # an ensemble of itself
    assert chains.read(members[2]).ends == [f"{members[1]} is not there any more"]
    members[1].unlink()
    assert chains.read(members[2]).ends == [f"{members[1]} is not there any more"]
    assert reasons(members[2], "metricx-24-qe")


@pytest.mark.parametrize(("best", "marked_round"), [(0, "translations"), (1, "round-1/translations")])
def test_the_best_round_was_chosen(tmp_path, best, marked_round):
    folders = [
        tmp_path / name / "train" / "run" for name in ("translations", "round-1/translations", "round-2/translations")
    ]
    directories = [str(Path("/elsewhere/out", name)) for name in ("", "round-1", "round-2")]  # the run was moved
    content = {
        "number": 2,
        "stopped": None,
        "metric": "chrf",
        "best_round": best,
        "rounds": [{"round": i, "directory": d} for i, d in enumerate(directories)],
    }
    (tmp_path / "rounds.json").write_text(json.dumps(content))
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "manifest_translate.json").write_text('{"lineage": {"models": [], "demonstrations": null}}')
    found = {
        str(f.parents[1].relative_to(tmp_path)): reasons(f, "chrf", "metricx-24") for f in folders if reasons(f, "chrf")
    }
    line = f"the round was selected by chrf ({tmp_path / 'rounds.json'}, best of 3 rounds by held-out chrf)"
    assert found == {marked_round: {"chrf": [line]}}
    (tmp_path / "rounds.json").write_text(json.dumps(content | {"number": 3}))
    assert not any(reasons(folder, "chrf") for folder in folders), "the run goes on: nothing is chosen yet"
    (tmp_path / "rounds.json").write_text(json.dumps(content | {"number": 3, "stopped": "no better"}))
    assert [bool(reasons(folder, "chrf")) for folder in folders].count(True) == 1


def test_every_metric_is_in_one_family():
    for name in metrics.METRICS:
        assert interference.family_of(name), f"{name} is in no row of FAMILIES"
    for name in (*scoring.SCORERS, *candidate_selection.SELECTORS):
        assert name in interference.NO_METRIC or interference.family_of(name), name
    families = [
        interference.family_of(n)
        for n in ("bleu-13a", "chrf6", "ter", "terrible", "bleurt", "my.py:comet", "metricx-23-qe")
    ]
    assert families == ["overlap", "overlap", "overlap", None, None, None, "metricx"]


def test_scorers_of_ones_own_and_without_a_name_are_said(tmp_path):
    for scorer, said in (("my.py:Mine", "my.py:Mine, of no known family"), (None, "a scorer that is not named")):
        facts = {"languages": {"English to Basque": part(by_percentile=5) | {"scorer": scorer}}}
        link = record.of_training({"dataset_name_or_path": "topxgen", "percentile": 50.0}, facts)
        assert marked(tmp_path, link, "blaser-qe") == []
        (line,) = interference.unknown_selectors([chains.read(tmp_path)])
        assert line.startswith(f"the training data was selected by {said}")
