"""The score stage: a kill leaves no trace in the scores, in the manifest or in the directory."""

import json
import random
from functools import partial

import pytest

from tests.support.runs import in_process, records
from tests.support.tiny_models import udhr_pairs
from tests.support.tiny_sonar import build_blaser, build_sonar
from topxgen.common.records import Layout
from topxgen.generation import scoring

PAIRS = udhr_pairs("Basque")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    sonar = build_sonar(folder / "sonar", [text for pair in PAIRS for text in pair])
    return "--sonar_name_or_path", sonar, "--blaser_name_or_path", build_blaser(folder / "model.pt", 64)


@pytest.fixture
def score(models, monkeypatch):
    """Score the pairs in a folder: records of different sizes, one with a text longer than SONAR reads, repeated texts."""
    monkeypatch.setattr(scoring, "RECORDS_PER_BLOCK", 5)
    rng = random.Random(1)
    groups = [rng.sample(PAIRS, rng.randint(1, 4)) for _ in range(17)]
    groups[3] = [(PAIRS[0][0] * 20, PAIRS[0][1])]
    lines = [
        {"sentence": " ".join(a for a, _ in group), "propositions": [a for a, _ in group], "translations": [b for _, b in group]}
        for group in groups
    ]  # fmt: skip

    def run(folder):
        path = folder / "t" / "Basque_translate.jsonl"
        if not path.exists():
            path.parent.mkdir(parents=True)
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        flags = ("--languages", "Basque", "--output_dir", folder, "--translate_dir", "t", "--stages", "score", *models)
        return in_process("datagen.py", *flags)

    return run


def state(folder):
    manifest = json.loads((folder / "t" / "manifest_score_Basque.json").read_text())
    names = sorted(path.name for path in (folder / "t").iterdir())
    return records(folder / "t" / "Basque_translate.jsonl"), manifest["counts"], manifest["truncated_texts"], names


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.medium
def test_a_kill_changes_no_bit_of_the_scores(score, tmp_path, monkeypatch):
    assert score(tmp_path / "whole").returncode == 0
    whole = state(tmp_path / "whole")
    assert whole[2] == 1 and all(len(r["scores"]) == len(r["propositions"]) for r in whole[0])
    with monkeypatch.context() as patched:
        patched.setattr(scoring, "write_atomic", interrupted)
        assert score(tmp_path / "cache").returncode == 130
    cache = (tmp_path / "cache" / "t" / "Basque_scores.jsonl").read_bytes()
    rng = random.Random(2)
    for trial in range(8):
        folder = tmp_path / str(trial)
        (folder / "t").mkdir(parents=True)
        (folder / "t" / "Basque_translate.jsonl").write_bytes(
            (tmp_path / "cache/t/Basque_translate.jsonl").read_bytes()
        )
        (folder / "t" / "Basque_scores.jsonl").write_bytes(cache[: rng.randint(0, len(cache))])
        assert score(folder).returncode == 0
        (folder / "t" / "Basque_scores.jsonl.torn").unlink(missing_ok=True)
        assert state(folder) == whole


def test_a_kill_between_the_scores_and_their_manifest_leaves_no_scores_file(score, tmp_path, monkeypatch):
    assert score(tmp_path / "whole").returncode == 0
    with monkeypatch.context() as patched:
        patched.setattr("topxgen.generation.run.write_manifests", partial(interrupted))
        assert score(tmp_path / "cut").returncode == 130
    assert (tmp_path / "cut" / "t" / "Basque_scores.jsonl").exists()
    assert score(tmp_path / "cut").returncode == 0
    whole = state(tmp_path / "whole")
    assert state(tmp_path / "cut") == whole and whole[2] == 1, "one text was truncated"
    path = tmp_path / "cut" / "t" / "Basque_translate.jsonl"
    path.write_text(path.read_text() + json.dumps(whole[0][3] | {"id": "new", "scores": None}) + "\n")
    assert score(tmp_path / "cut").returncode == 0 and state(tmp_path / "cut")[2] == 2, "what was scored before counts"


@pytest.mark.parametrize(
    ("own", "is_scored_again"),
    [
        ({}, True),
        ({"scores": [1.0]}, True),  # of two pairs
        ({"scores": [1.0, 2.0], "scorer": "other"}, True),
        ({"scores": [None, None], "scorer": "ours"}, False),
        ({"scores": [None, None]}, True),  # published data does not name its scorer
        ({"scores": [1.0, None]}, False),
    ],
)
def test_which_records_are_scored_again(tmp_path, own, is_scored_again):
    layout = Layout(tmp_path, "t")
    layout.translate_dir.mkdir()
    record = {"sentence": "Bat. Bi.", "propositions": ["Bat.", "Bi."], "translations": ["One.", "Two."], **own}
    layout.translations("Basque").write_text(json.dumps(record) + "\n")
    assert scoring.count_unscored(layout, "Basque", "ours") == is_scored_again
