"""Neural metrics through comptra.evaluate, on tiny checkpoints: scores, signatures, the cache, refusals."""

import json
import math
import shutil
from pathlib import Path

import pytest

from comptra.scores import auto, neural
from comptra.scores.metrics import METRICS, MetricSettings, Segment
from tests.quality.test_mt_ranker import copy_of
from tests.support.evaluations import RUN, UDHR, settings, udhr, worse, write
from tests.support.runs import in_process, records
from tests.support.tiny_metricx import build_metricx, build_mt_ranker
from tests.support.tiny_sonar import build_blaser, build_sonar
from topxgen.common.errors import UsageError
from topxgen.quality.blaser import Blaser
from topxgen.quality.metricx import MetricX
from topxgen.quality.mt_ranker import MTRanker
from topxgen.text import languages

TEST = udhr()
COUNT = 12
SOURCES, REFERENCES = TEST.sources[:COUNT], TEST.references[:COUNT]
SYSTEMS = {"base": worse(REFERENCES, 0.4), "better": worse(REFERENCES, 0.1, seed=1)}
NEURAL = ("blaser-qe", "metricx-24", "metricx-24-qe", "metricx-23", "metricx-23-qe", "mt-ranker")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    folder, texts = tmp_path_factory.mktemp("models"), TEST.sources + TEST.references
    build_metricx(folder / "metricx-24-tiny", texts)
    for name in ("metricx-23-tiny", "metricx-23-qe-tiny"):
        (folder / name).symlink_to(folder / "metricx-24-tiny")
    build_mt_ranker(folder / "ranker", texts)
    build_sonar(folder / "sonar", texts)
    (folder / "blaser").mkdir()
    build_blaser(folder / "blaser" / "model.pt")
    names = ("metricx-24-tiny", "metricx-23-tiny", "metricx-23-qe-tiny", "ranker", "sonar", "blaser")
    return {name: str(folder / name) for name in names}


@pytest.fixture
def runs(tmp_path):
    for name, translations in SYSTEMS.items():
        own = settings(max_samples=COUNT)
        write(tmp_path / "runs" / name / RUN.format("English", "Basque"), SOURCES, translations, own)
    return tmp_path / "runs"


def flags(models: dict[str, str], *metrics: str) -> list[str]:
    """--metrics and the models that these need."""
    chosen = ["--metrics", *metrics]
    wanted = {f"{name.removesuffix('-qe') if '24' in name else name}-tiny" for name in metrics if "metricx" in name}
    if wanted:
        chosen += ["--metricx_name_or_path", *(models[name] for name in sorted(wanted))]
    if "blaser-qe" in metrics:
        chosen += ["--blaser_name_or_path", models["blaser"], "--sonar_name_or_path", models["sonar"]]
    return chosen + (["--mt_ranker_name_or_path", models["ranker"]] if "mt-ranker" in metrics else [])


def evaluate(runs: Path, *arguments, baseline: bool = True) -> tuple[int, dict, str]:
    out, more = runs.parent / "scores.json", ["--baseline", runs / "base"] if baseline else []
    out.unlink(missing_ok=True)
    where = ["--cache_dir", runs.parent / "cache", "--json", out]
    done = in_process("comptra.evaluate", runs, *UDHR, *more, *where, *arguments)
    return done.returncode, json.loads(out.read_text()) if out.exists() else {}, done.stderr


def by_hand(models: dict[str, str], metric: str, translations: list[str]) -> list[float]:
    """What the models themselves give, one segment at a time."""
    if metric == "blaser-qe":
        scorer = Blaser(models["blaser"], models["sonar"])
        pair = languages.find("English"), languages.find("Basque")
        return [scorer.score([s], [t], *pair)[0] for s, t in zip(SOURCES, translations, strict=True)]
    if metric == "mt-ranker":
        scorer = MTRanker(models["ranker"])
        return [scorer.score([s], [t], [r])[0] for s, t, r in zip(SOURCES, translations, SYSTEMS["base"], strict=True)]
    scorer = MetricX(models["metricx-24-tiny" if "24" in metric else f"{metric}-tiny"])
    references = [None if "qe" in metric else [text] for text in REFERENCES]
    return [scorer.score([s], [t], r)[0] for s, t, r in zip(SOURCES, translations, references, strict=True)]


@pytest.mark.medium
def test_scores_of_all_are_the_models_own_and_kept(models, runs, monkeypatch):
    segments = runs.parent / "segments.jsonl"
    code, report, err = evaluate(runs, *flags(models, *NEURAL), "--segments", segments)
    assert code == 0, err
    (group,) = report["groups"]
    rows = records(segments)
    for metric in NEURAL:
        row = METRICS[metric]
        for system in group["systems"]:
            expected = by_hand(models, metric, SYSTEMS[system["name"].split("/")[0]])
            found = [line[metric] for line in rows if line["system"] == system["name"]]
            assert found == pytest.approx(expected, abs=1e-5), metric
            assert system["scores"][metric]["score"] == pytest.approx(sum(expected) / COUNT, abs=1e-5)
            assert system["scores"][metric]["segments"] == COUNT
        facts = group["metrics"][metric]
        assert facts["higher_is_better"] == ("metricx" not in metric) and (facts["low"], facts["high"]) == (
            row.low,
            row.high,
        )
        assert "dtype:float32|version:1" in facts["signature"]
    base = next(system for system in group["systems"] if system["name"].startswith("base"))
    assert base["scores"]["mt-ranker"]["score"] == 0.5
    assert group["metrics"]["metricx-24"]["signature"].startswith("MetricX-24|model:metricx-24-tiny|weights:")

    monkeypatch.setattr(Blaser, "score", None)  # a second call loads no model
    monkeypatch.setattr(MetricX, "score", None)
    monkeypatch.setattr(MTRanker, "score", None)
    code, again, err = evaluate(runs, *flags(models, *NEURAL))
    assert code == 0 and again["groups"] == report["groups"], err


def test_fingerprints_are_of_the_weights_not_of_names(models, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    def made(folder, **more):
        return neural.metricx_24(MetricSettings(metricx_name_or_path=[str(folder)], **more))

    first = made(models["metricx-24-tiny"])
    copied = tmp_path / "a" / "metricx-24-tiny"
    shutil.copytree(models["metricx-24-tiny"], copied)
    assert made(copied).fingerprint == first.fingerprint and made(copied).signature == first.signature
    renamed = tmp_path / "metricx-24-mine"
    shutil.copytree(copied, renamed)
    assert made(renamed).fingerprint == first.fingerprint != made(renamed, metric_dtype="bfloat16").fingerprint
    assert neural.metricx_24_qe(MetricSettings(metricx_name_or_path=[str(copied)])).fingerprint != first.fingerprint
    weights = load_file(copied / "model.safetensors")
    weights["decoder.final_layer_norm.weight"][0] += 1
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert made(copied).fingerprint != first.fingerprint, "trained again under the same name"
    (renamed / "config.json").write_text(
        (renamed / "config.json").read_text().replace('"num_heads": 2', '"num_heads": 1')
    )
    assert made(renamed).fingerprint != first.fingerprint
    assert torch.is_tensor(weights["lm_head.weight"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metrics", "metricx-24"), "missing in its cache .*model google/metricx-24-hybrid-large-v2p6.* hf download google/"),
        (("--metrics", "mt-ranker"), "model ibraheemmoosa/mt-ranker-large"),
        (("--metrics", "blaser-qe"), "model facebook/blaser-2.0-qe, model cointegrated/SONAR_200_text_encoder"),
        (("--metrics", "metricx-23", "--metricx_name_or_path", "metricx-24-tiny"), "no MetricX-23 that scores with references"),
        (("--metrics", "metricx-23", "--metricx_name_or_path", "metricx-23-qe-tiny"), "no MetricX-23 that scores with references"),
        (("--metrics", "metricx-24", "--metricx_name_or_path", "ranker"), "only the name tells them"),
        (("--metrics", "metricx-24", "--metricx_name_or_path", "metricx-24-tiny", "metricx-24-tiny"), "more than one MetricX-24"),
        (("--metrics", "mt-ranker", "--mt_ranker_name_or_path", "metricx-24-tiny"), "lacks encoder.encoder.embed_tokens.weight"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_used_leaves_the_other_metrics(models, runs, arguments, message):
    import re

    words = [models.get(word, word) for word in arguments]
    code, report, err = evaluate(runs, *words[:1], "chrf", *words[1:])
    assert code == 3 and "Traceback" not in err
    (line,) = [line for line in err.splitlines() if "is left out" in line]
    assert re.search(message, line), line
    assert list(report["failed_metrics"]) == [words[1]]
    for system in report["groups"][0]["systems"]:
        assert system["scores"][words[1]] is None and system["scores"]["chrf"]["score"] > 0


def test_damaged_weights_and_adapters_are_left_out(models, runs, tmp_path):
    damaged = copy_of(models["ranker"], tmp_path / "nan", lambda w: w["classifier.bias"].fill_(math.nan))
    adapter = tmp_path / "metricx-24-lora"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    given = ("--mt_ranker_name_or_path", damaged, "--metricx_name_or_path", adapter)
    code, report, err = evaluate(runs, "--metrics", "chrf", "mt-ranker", "metricx-24", *given)
    assert (
        code == 3
        and "holds NaN or infinities in classifier.bias" in err
        and "holds an adapter, not a whole model" in err
    )
    assert set(report["failed_metrics"]) == {"mt-ranker", "metricx-24"}


def test_mt_ranker_needs_a_baseline_and_metricx_with_references_needs_them(models, runs):
    code, _, err = evaluate(runs, *flags(models, "mt-ranker"), baseline=False)
    assert code == 2 and "pass --baseline" in err
    phrases = runs / "base" / RUN.format("English", "Basque") / "translate_1.jsonl"
    phrases.write_text(json.dumps({"sentence": "a", "translation": "b"}) + "\n")
    code, _, err = evaluate(runs, *flags(models, "metricx-24"), "--step", 1, baseline=False)
    assert code == 2 and "references" in err and "Traceback" not in err


def test_an_unknown_language_of_sonar_and_long_inputs(models, runs, caplog):
    metric = neural.BlaserQE(MetricSettings(blaser_name_or_path=models["blaser"], sonar_name_or_path=models["sonar"]))
    english, basque = languages.find("English"), languages.find("Basque")
    segment = Segment("A sentence.", "word " * 600)
    assert metric.score([segment], english, basque)[0] is not None and metric.truncated == 1
    with pytest.raises(UsageError, match="does not know 'vmw_Latn'"):
        metric.score([segment], english, languages.find("Emakhuwa"))
    metric.close()
    assert "BLASER-2.0-QE: 1 inputs are longer than 514 tokens and were cut" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metrics", "chrf", "--metricx_name_or_path", "x"), "--metricx_name_or_path has no effect without --metrics metricx-24"),
        (("--metrics", "chrf", "--metric_dtype", "float32"), "--metric_dtype has no effect without"),
        (("--metrics", "mt-ranker", "--metric_batch_tokens", "0"), "'0' is not a whole number"),
        (("--metrics", "metricx-24", "--mt_ranker_name_or_path", "x"), "--mt_ranker_name_or_path has no effect without"),
    ],
)  # fmt: skip
def test_flags_without_effect(runs, arguments, message):
    code, _, err = evaluate(runs, *arguments)
    assert code == 2 and message in err


def test_auto_takes_the_models_that_are_there_and_fit(models, runs, monkeypatch):
    given, fitting = flags(models, "metricx-24", "mt-ranker")[3:], {"metricx-24", "metricx-24-qe", "mt-ranker"}
    code, report, err = evaluate(runs, "--metrics", "auto", *given)
    assert code == 0 and set(report["groups"][0]["systems"][1]["scores"]) & {*NEURAL} == fitting, err
    assert "leaves out metricx-23: --metricx_name_or_path metricx-24-tiny" in err.replace(
        f"{Path(models['ranker']).parent}/", ""
    )
    assert "leaves out blaser-qe: its model is not downloaded; --metrics blaser-qe downloads it" in err
    monkeypatch.setattr(auto, "MAX_CPU_BYTES", 1000)
    code, report, err = evaluate(runs, "--metrics", "auto", *given)
    assert code == 0 and not {*NEURAL} & set(report["groups"][0]["systems"][1]["scores"])
    assert err.count("GiB of weights, more than") == len(fitting)
