"""The synthetic run is one as the stages leave it: their own readers count in it what it says it has."""

import gzip
import json

import pytest

from tests.support import synthetic_run
from tests.support.runs import in_process, records
from topxgen.common.records import Layout
from topxgen.generation import funnel

NAMES = ("Basque", "Urdu", "N'ko")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return synthetic_run.make(tmp_path_factory.mktemp("synthetic"), 600, NAMES)


def test_counts_are_those_of_the_files(made):
    layout = Layout(made.folder, "nllb-200-3.3B")
    for stage, count in (("generate", funnel.generation_counts), ("score", funnel.translation_counts)):
        manifest = json.loads(layout.manifest(stage).read_text())
        for name in NAMES:
            written, read = manifest["counts"][name], count(layout, name)
            assert written.pop("rejected") == read.pop("rejected") and written == pytest.approx(read), (stage, name)
    before = json.loads(layout.manifest("translate").read_text())["counts"]
    assert before["Urdu"] == funnel.before_scores(funnel.translation_counts(layout, "Urdu"))
    assert made.pairs == {"Basque": 200, "Urdu": 200, "N'ko": 200}


def test_every_kind_of_outcome_is_there(made):
    assert {"unparseable", "near_duplicate", "sentence_other_language", "score_below_min"} <= set(made.outcomes)
    folder = made.folder / "nllb-200-3.3B"
    hits = [hit for name in NAMES for hit in records(folder / f"{name}_translate_contaminated.jsonl")]
    assert {hit["side"] for hit in hits} == {"sentence", "translation"}
    report = json.loads((folder / "decontamination_report.json").read_text())
    assert report["languages"]["N'ko"]["not_checked"] and not report["languages"]["Basque"]["not_checked"]
    assert any(records(folder / f"{name}_translate_others.jsonl") for name in NAMES)
    assert json.loads((made.folder / "train-worse/manifest_train.json").read_text())["worse_than_before_training"]


def test_it_is_evaluated_and_continued(made):
    scores = json.loads((made.folder / "scores.json").read_text())
    assert len(scores["groups"]) == len(synthetic_run.DIRECTIONS)
    assert all(len(group["systems"]) == len(synthetic_run.SYSTEMS) for group in scores["groups"])
    run = in_process("scripts/data_stats.py", made.folder)
    assert run.returncode == 0 and "N'ko" in run.stdout


def test_the_same_seed_makes_the_same_run_and_sizes_are_exact(tmp_path):
    for folder in "ab":
        made = synthetic_run.make(tmp_path / folder, 31, ("Hausa", "Nepali"), extra=(), later_stages=False)
        assert made.pairs == {"Hausa": 16, "Nepali": 15}
    assert (tmp_path / "a/Hausa.jsonl").read_bytes() == (tmp_path / "b/Hausa.jsonl").read_bytes()
    assert not list(tmp_path.rglob("*.partial"))


def test_texts_compress_as_real_ones_do():
    """gzip makes 30 kB of the English side of NTREX-128 2.3 times smaller, of its Basque side of 110 kB 2.7 times."""
    import numpy as np

    for name, size in (("English", 30_000), ("Basque", 110_000)):
        text = "\n".join(synthetic_run.sentences(name, 1500, np.random.default_rng(0))).encode()[:size]
        assert 2.2 < len(text) / len(gzip.compress(text)) < 2.9
