"""--min_score: which pairs go, where they are found again, what a kill leaves, what is refused."""

import argparse
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.support.runs import records
from tests.support.tiny_metricx import build_metricx
from tests.support.tiny_models import udhr_pairs
from topxgen.generation import min_score
from topxgen.generation.scoring import MetricXScorer
from topxgen.quality.metricx import MetricX

PAIRS = udhr_pairs("Basque")[:12]
CONFIDENCES = [0.9, 0.5, None, 0.49, 0.5, 0.2, 0.0, 0.51, 1.0, 0.3, 0.7, None]

OWN_SCORER = """
from topxgen.generation.scoring import ConfidenceScorer

class Own(ConfidenceScorer):
    id = "own"

    def score(self, records, source, target):
        return [[{value}] * len(record["translations"]) for record in records]
"""


def write(folder, confidences=CONFIDENCES):
    """A folder with four paragraphs of three pairs, back-translated with these confidences; the last has a long sentence."""
    (folder / "t").mkdir(parents=True)
    lines, paragraphs = [], []
    for i in range(4):
        group = slice(3 * i, 3 * i + 3)
        text = " ".join(a for a, _ in PAIRS[group])
        paragraphs.append({"text": text, "id": f"Basque-{i}.0"})
        lines.append(
            {
                "sentence": text, "propositions": [a for a, _ in PAIRS[group]], "translations": [b for _, b in PAIRS[group]],
                "scores": [None] * 3, "id": f"Basque-{i}.0", "confidences": confidences[group],
                **({"segments": [2, 1, 1]} if i == 3 else {}),
            }
        )  # fmt: skip
    for path, content in (("Basque.jsonl", paragraphs), ("t/Basque_translate.jsonl", lines)):
        (folder / path).write_text("".join(json.dumps(line) + "\n" for line in content))
    rejects = {"id": "Basque-0.0", "rejected": [{"sentence": "Bai.", "reason": "sentence_too_short"}]}
    (folder / "t" / "Basque_translate_rejects.jsonl").write_text(json.dumps(rejects) + "\n")
    return folder


@pytest.fixture
def run(datagen_here):
    def run(folder, *flags, stages=("score",), scorer=("--scorer", "confidence")):
        place = ("--languages", "Basque", "--output_dir", folder, "--translate_dir", "t", "--stages", *stages)
        return datagen_here(*place, "--back_translator", "apertium", *scorer, *flags)

    return run


def state(folder):
    names = ("Basque_translate.jsonl", "Basque_translate_rejects.jsonl", "settings_score.json")
    manifests = [json.loads((folder / "t" / f"manifest_{stage}_Basque.json").read_text()) for stage in ("score",)]
    return [(folder / "t" / name).read_text() for name in names], [(m["settings"], m["counts"]) for m in manifests]


def test_pairs_below_go_to_the_rejects(run, tmp_path):
    result = run(write(tmp_path), "--min_score", "0.5")
    assert result.returncode == 0, result.stderr
    kept = records(tmp_path / "t" / "Basque_translate.jsonl")
    assert [record["scores"] for record in kept] == [[0.9, 0.5], [0.5], [0.51, 1.0], [0.7]]
    assert [record["confidences"] for record in kept] == [record["scores"] for record in kept]
    assert kept[3]["segments"] == [1] and [len(record["propositions"]) for record in kept] == [2, 1, 2, 1]
    assert (kept[1]["propositions"], kept[1]["translations"]) == ([PAIRS[4][0]], [PAIRS[4][1]])
    first, *lines = records(tmp_path / "t" / "Basque_translate_rejects.jsonl")
    assert first["rejected"][0]["reason"] == "sentence_too_short"
    assert lines[0] == {
        "id": "Basque-0.0",
        "rejected": [{"sentence": PAIRS[2][0], "translation": PAIRS[2][1], "reason": "score_missing"}],
    }
    rejected = [(item["reason"], item.get("score")) for line in lines for item in line["rejected"]]
    assert lines[-1]["rejected"][0]["segments"] == 2 and "segments" not in lines[0]["rejected"][0]
    below = [("score_below_min", score) for score in (0.49, 0.2, 0.0, 0.3)]
    assert rejected == [("score_missing", None), *below, ("score_missing", None)]
    manifest = json.loads((tmp_path / "t" / "manifest_score_Basque.json").read_text())
    assert manifest["settings"] == {"scorer": "confidence", "min_score": 0.5}
    assert (manifest["counts"]["pairs"], manifest["counts"]["scored"], manifest["counts"]["sentences"]) == (6, 6, 13)
    assert manifest["counts"]["rejected"] == {"sentence_too_short": 1, "score_missing": 2, "score_below_min": 4}
    rows = [line.split() for line in result.stdout.splitlines() if "score" in line or "pairs kept" in line]
    assert ["after", "score", "below", "min", "8", "-4"] in rows and ["after", "score", "missing", "6", "-2"] in rows
    assert ["pairs", "kept", "6"] in rows
    before = state(tmp_path)
    assert run(tmp_path, "--min_score", "0.5").returncode == 0 and state(tmp_path) == before


def test_the_translate_stage_counts_what_it_made(run, tmp_path):
    """Its manifest must not change by what the score stage drops: all stages in one command, twice."""
    write(tmp_path)
    for flags in ((), ("--min_score", "0.5"), ("--min_score", "0.5")):
        result = run(tmp_path, *flags, stages=("translate", "score"))
        assert result.returncode == 0, result.stderr
        manifest = json.loads((tmp_path / "t" / "manifest_translate_Basque.json").read_text())
        assert manifest["counts"]["pairs"] == 12 and manifest["counts"]["rejected"] == {"sentence_too_short": 1}
        assert manifest["counts"]["translated_in_pieces"] == 1


@pytest.mark.parametrize("step", ["write_atomic", "remove_rejected"])
def test_a_kill_loses_and_doubles_nothing(run, tmp_path, monkeypatch, step):
    def interrupted(*_):
        raise KeyboardInterrupt

    assert run(write(tmp_path / "whole"), "--min_score", "0.5", stages=("translate", "score")).returncode == 0
    cut = write(tmp_path / "cut")
    with monkeypatch.context() as patched:
        patched.setattr(min_score, step, interrupted)
        assert run(cut, "--min_score", "0.5", stages=("translate", "score")).returncode == 130
    assert not (cut / "t" / "manifest_score_Basque.json").exists()
    assert len(records(cut / "t" / "Basque_translate_rejects.jsonl")) == 5, "the pairs are in both files"
    assert run(cut, "--min_score", "0.5", stages=("translate", "score")).returncode == 0
    assert state(cut) == state(tmp_path / "whole")
    assert (cut / "t/manifest_translate_Basque.json").exists()


def test_half_of_the_rejects_written(run, tmp_path):
    """A kill within the write: some lines, and a torn one."""
    assert run(write(tmp_path / "whole"), "--min_score", "0.5").returncode == 0
    rejects = (tmp_path / "whole/t/Basque_translate_rejects.jsonl").read_bytes()
    settings = (tmp_path / "whole/t/settings_score.json").read_bytes()
    scored = tmp_path / "scored"
    assert run(write(scored)).returncode == 0
    first = len(rejects.splitlines(keepends=True)[0])
    for at in range(first, len(rejects), 97):
        folder = tmp_path / str(at)
        shutil.copytree(scored, folder)
        (folder / "t/Basque_translate_rejects.jsonl").write_bytes(rejects[:at])
        (folder / "t/settings_score.json").write_bytes(settings)
        assert run(folder, "--min_score", "0.5").returncode == 0
        assert state(folder) == state(tmp_path / "whole"), at


def test_a_paragraph_that_is_translated_again_is_not_rejected_twice(run, tmp_path):
    (tmp_path / "again.py").write_text(
        "from topxgen.translation import Translation\n"
        "class Again:\n"
        "    version, settings, block_size = '1', {}, 9\n"
        "    def __init__(self, settings): pass\n"
        "    def check(self, source, target): pass\n"
        "    load = close = lambda self: None\n"
        "    def translate(self, sentences, source, target, on_done):\n"
        "        text = 'The first sentence in the file is number {} of those that we translated.'\n"
        "        return [Translation(text.format(i), i % 2 / 2) for i, _ in enumerate(sentences)]\n"
    )
    write(tmp_path)
    for path in (
        translations := tmp_path / "t/Basque_translate.jsonl",
        rejects := tmp_path / "t/Basque_translate_rejects.jsonl",
    ):
        path.unlink()
    words = ("--min_score", "0.5", "--back_translator", tmp_path / "again.py:Again")
    assert run(tmp_path, *words, stages=("translate", "score")).returncode == 0
    before, lines = state(tmp_path), translations.read_text().splitlines(keepends=True)
    assert "score_below_min" in rejects.read_text()
    translations.write_text("".join(lines[1:]))
    assert run(tmp_path, *words, stages=("translate", "score")).returncode == 0
    assert sorted(translations.read_text().splitlines(keepends=True)) == sorted(lines)
    assert state(tmp_path)[1] == before[1] and state(tmp_path)[0][1:] == before[0][1:]


def test_equal_pairs_of_a_paragraph(run, tmp_path):
    folder = write(tmp_path)
    path = folder / "t/Basque_translate.jsonl"
    lines = records(path)
    for key in ("propositions", "translations"):
        lines[0][key] = [lines[0][key][0]] * 3
    lines[0]["confidences"] = [0.1, 0.1, 0.1]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(folder, "--min_score", "0.5").returncode == 0
    assert records(path)[0]["propositions"] == [] and records(path)[0]["scores"] == []
    assert len(records(folder / "t/Basque_translate_rejects.jsonl")[1]["rejected"]) == 3


def test_other_values_do_not_mix(run, tmp_path):
    write(tmp_path)
    assert run(tmp_path).returncode == 0, "scores alone drop nothing"
    assert not (tmp_path / "t/settings_score.json").exists()
    assert run(tmp_path, "--min_score", "0.5").returncode == 0
    before = state(tmp_path)
    for flags, message in (
        (("--min_score", "0.4"), "min_score was 0.5, now 0.4"),
        ((), "min_score was 0.5, now None"),
        (("--scorer", "none"), "scorer was 'confidence', now 'none'; min_score was 0.5, now None"),
    ):
        result = run(tmp_path, *flags)
        assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert state(tmp_path) == before


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--scorer", "none", "--min_score", "0.5"), "--min_score has no effect without a --scorer (not none)"),
        (("--min_score", "nan"), "'nan' is not a number from -1000 to 1000"),
        (("--min_score", "high"), "'high' is not a number from -1000 to 1000"),
        (("--min_score", "3.5"), "--min_score 3.5: scores of confidence are from 0 to 1, higher is better"),
        (("--min_score", "-5"), "--min_score -5: scores of confidence are from 0 to 1, higher is better"),
        (("--scorer", "metricx-qe", "--min_score", "5"), "are from -25 to 0, higher is better; an error of at most 5 is -5"),
        (("--scorer", "blaser", "--min_score", "-5"), "are from 0 to 5, higher is better"),
    ],
)  # fmt: skip
def test_bad_values(run, tmp_path, flags, message):
    """Also a threshold that no score can miss, or reach."""
    before = (write(tmp_path) / "t/Basque_translate.jsonl").read_bytes()
    result = run(tmp_path, *flags)
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert (tmp_path / "t/Basque_translate.jsonl").read_bytes() == before


def test_nothing_scored_is_no_reason_to_drop_all(run, tmp_path):
    write(tmp_path, [None] * 12)
    result = run(tmp_path, "--min_score", "0.5")
    assert result.returncode == 2 and "no pair of Basque has a score, so --min_score would drop all" in result.stderr
    assert len(records(tmp_path / "t/Basque_translate_rejects.jsonl")) == 1


def test_metricx_is_negated(run, tmp_path):
    """An error of at most 0.6 is a score of at least -0.6."""
    texts = [text for pair in PAIRS for text in pair]
    model = build_metricx(tmp_path / "metricx-24-tiny", texts)
    write(tmp_path / "run")
    scorer = ("--scorer", "metricx-qe", "--metricx_name_or_path", model)
    assert run(tmp_path / "run", scorer=scorer).returncode == 0
    path = tmp_path / "run/t/Basque_translate.jsonl"
    errors = MetricX(model).score(*zip(*PAIRS, strict=True))
    scores = [score for record in records(path) for score in record["scores"]]
    assert scores == pytest.approx([-error for error in errors], abs=1e-5) and min(scores) < -0.6 < max(scores) <= 0
    assert records(path)[0]["scorer"] == "metricx-qe (metricx-24-tiny, float32, negated)"
    assert run(tmp_path / "run", "--min_score", "-0.6", scorer=scorer).returncode == 0
    kept = [score for record in records(path) for score in record["scores"]]
    assert kept == [score for score in scores if score >= -0.6]


def test_other_weights_or_settings_of_a_model_under_its_name_are_refused(run, tmp_path):
    """Folders of earlier versions, whose settings have no digest of the weights, are continued."""
    from safetensors.torch import load_file, save_file

    model = Path(build_metricx(tmp_path / "metricx-24-tiny", [text for pair in PAIRS for text in pair]))
    write(tmp_path / "run")
    flags = {"scorer": ("--scorer", "metricx-qe", "--metricx_name_or_path", model, "--min_score", "-0.6")}
    assert run(tmp_path / "run", **flags).returncode == 0
    settings = tmp_path / "run/t/settings_score.json"
    recorded = json.loads(settings.read_text())
    assert len(recorded["scorer_weights"]) == 16
    weights = load_file(model / "model.safetensors")
    save_file({name: tensor * 2 for name, tensor in weights.items()}, model / "model.safetensors", {"format": "pt"})
    refused = run(tmp_path / "run", **flags)
    assert refused.returncode == 2 and f"scorer_weights was '{recorded['scorer_weights']}', now '" in refused.stderr
    settings.write_text(json.dumps({name: value for name, value in recorded.items() if name != "scorer_weights"}))
    assert run(tmp_path / "run", **flags).returncode == 0
    config = model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"layer_norm_epsilon": 0.5}))
    refused = run(tmp_path / "run", **flags)
    assert refused.returncode == 2 and "scorer_config was '" in refused.stderr


def test_other_weights_or_code_under_the_same_name_score_again(run, tmp_path):
    path = write(tmp_path / "run") / "t/Basque_translate.jsonl"

    def scores(value: float) -> tuple[list, dict]:
        code = tmp_path / f"own{value:g}.py"  # a module is imported once in a process
        code.write_text(OWN_SCORER.format(value=value))
        assert run(tmp_path / "run", scorer=("--scorer", f"{code}:Own")).returncode == 0
        manifest = json.loads((tmp_path / "run/t/manifest_score_Basque.json").read_text())
        return [score for record in records(path) for score in record["scores"]], manifest

    assert scores(7.5)[0] == [7.5] * 12
    first = (path.read_bytes(), path.stat().st_mtime_ns)
    assert scores(7.5)[0] == [7.5] * 12 and (path.read_bytes(), path.stat().st_mtime_ns) == first
    found, manifest = scores(8.5)
    assert found == [8.5] * 12 and manifest["counts"]["mean_score"] == 8.5
    assert path.read_bytes() == first[0].replace(b"7.5", b"8.5")


def test_another_version_of_the_scorer_after_a_kill_keeps_no_score_of_the_first(run, tmp_path):
    """Published scores, which name no scorer, are kept."""
    basque = write(tmp_path / "run") / "t/Basque_translate.jsonl"
    hausa = basque.with_name("Hausa_translate.jsonl")
    first, rest = basque.read_text().split("\n", 1)
    hausa.write_text(json.dumps(json.loads(first) | {"scores": [9.0] * 3}) + "\n" + rest)

    def scores(value: str) -> list[list[float]]:
        (code := tmp_path / f"own_{value[0]}.py").write_text(OWN_SCORER.format(value=value))
        flags = ("--languages", "Basque", "Hausa")
        run(tmp_path / "run", *flags, scorer=("--scorer", f"{code}:Own"))
        return [[score for record in records(path) for score in record["scores"]] for path in (basque, hausa)]

    killed = '7.5 if source.name == "Basque" else exec("raise KeyboardInterrupt")'
    assert scores(killed) == [[7.5] * 12, [9.0] * 3 + [None] * 9]
    assert scores("8.5") == [[8.5] * 12, [9.0] * 3 + [8.5] * 9]
    assert scores("6.5") == [[6.5] * 12, [9.0] * 3 + [6.5] * 9]


def test_two_versions_of_metricx_have_two_names():
    """Else pairs that one has scored would pass for the other's."""
    names = ("google/metricx-24-hybrid-large-v2p6", "/m/metricx-24/large", "/m/metricx-23-qe/large/")
    found = [MetricXScorer(argparse.Namespace(metricx_name_or_path=name)).id for name in names]
    assert [re.search(r"\((.+?), ", name)[1] for name in found] == [
        "metricx-24-hybrid-large-v2p6", "metricx-24/large", "metricx-23-qe/large"
    ]  # fmt: skip


def test_a_metricx_that_needs_references_or_is_missing(run, tmp_path):
    write(tmp_path / "run")
    model = build_metricx(tmp_path / "metricx-23-large", ["a b c d e f g"])
    missing = str(tmp_path / "metricx-24-none")
    for name, message in (
        (model, "scores with references only"),
        (missing, "does not exist"),
        ("google/mt5", "metricx-23 or"),
    ):
        result = run(tmp_path / "run", scorer=("--scorer", "metricx-qe", "--metricx_name_or_path", name))
        assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1
