"""--metrics auto: what it takes, what it leaves out, and that it downloads nothing."""

import json
import sys
from types import SimpleNamespace

import pytest

from comptra.scores import auto, metrics, surface
from comptra.scores.flags import CHOICES
from comptra.scores.metrics import METRICS, Metric
from tests.support.evaluations import UDHR, original, settings, udhr, write
from tests.support.runs import in_process
from topxgen.common import hub
from topxgen.common.errors import UsageError
from topxgen.common.needs import models


class Constant:
    """A metric whose weights are a file in the current folder, or a model on the Hub."""

    fingerprint = signature = "constant"

    def __init__(self, settings):
        self.weights = self.files()

    def files(self):
        from pathlib import Path

        return [Path("weights")]

    def score(self, segments, src, tgt):
        return [0.5] * len(segments)

    def close(self): ...


class OnTheHub(Constant):
    def files(self):
        hub.require(models("an-org/a-model"))
        return [hub.hub_call("an-org/a-model", lambda: pytest.fail("a download"))]


class NotInstalled(Constant):
    def files(self):
        raise UsageError("it needs another environment; run scripts/setup.sh")


@pytest.fixture
def rows(monkeypatch, tmp_path):
    """Rows of these classes alone, beside the surface metrics."""
    for name in [name for name, row in METRICS.items() if row.of_segments]:
        monkeypatch.delitem(METRICS, name)
    for name, attribute, reads in (
        ("fits", "Constant", ("source",)),
        ("with-reference", "Constant", ("source", "reference")),
        ("pairwise", "Constant", ("source", "rival")),
        ("on-the-hub", "OnTheHub", ("source",)),
        ("not-installed", "NotInstalled", ("source",)),
        ("gemba-x", "Constant", ("source",)),
    ):
        target = f"{__name__}:{attribute}"
        row = Metric(target, "", name, 0, 1, reads=reads, family=name.split("-")[0], of_segments=True)
        for table in (METRICS, CHOICES):
            monkeypatch.setitem(table, name, row)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").write_bytes(b"x" * 1000)
    surface.why_no_model.cache_clear()
    yield METRICS
    surface.why_no_model.cache_clear()


def evaluate(*args, code=0):
    result = in_process("comptra.evaluate", "runs", *UDHR, *args, "--cache_dir", "cache", "--json", "out.json")
    assert result.returncode == code, result.stderr
    with open("out.json", encoding="utf-8") as file:
        return json.load(file), result.stderr


def left_out(said: str) -> dict[str, str]:
    lines = [line.removeprefix("--metrics auto leaves out ") for line in said.splitlines() if "leaves out" in line]
    return dict(line.split(": ", 1) for line in lines)


def test_what_is_taken_and_what_is_left_out(rows, tmp_path):
    original(tmp_path / "runs", "m")
    report, said = evaluate("--metrics", "auto")
    taken = list(report["groups"][0]["systems"][0]["scores"])
    assert taken == ["chrf", "bleu", "lang", "chrf6", "bleu-13a", "ter", "fits", "with-reference"]
    assert report["failed_metrics"] == {} and all(report["groups"][0]["systems"][0]["scores"].values())
    out = left_out(said)
    assert set(out) | set(taken) == set(rows)
    assert "no spBLEU-1K model at" in out["bleu-spBLEU-1K"] and "HF_HUB_OFFLINE" in out["bleu-flores200"]
    assert out["on-the-hub"].startswith("its model is not downloaded; --metrics on-the-hub")
    assert out["not-installed"] == "it needs another environment; run scripts/setup.sh"
    assert out["pairwise"] == "it compares with --baseline" and "asks an LLM" in out["gemba-x"]


def test_with_a_baseline_and_beside_named_metrics(rows, tmp_path):
    for model in ("a", "b"):
        original(tmp_path / "runs", model)
    flags = ("--metrics", "auto", "gemba-x", "chrf++", "--baseline", "runs/a", "--trials", "20")
    report, _ = evaluate(*flags)
    taken = list(report["groups"][0]["systems"][0]["scores"])
    assert "pairwise" in taken and "gemba-x" in taken and taken.count("chrf") == 1


def test_phrases_have_no_references(rows, tmp_path):
    test = udhr()
    write(tmp_path / "runs" / "m" / "run", test.sources, test.references, settings(), step=1)
    report, said = evaluate("--step", "1", "--metrics", "auto")
    assert list(report["groups"][0]["systems"][0]["scores"]) == ["lang", "fits"]
    assert left_out(said)["chrf"] == left_out(said)["with-reference"] == "phrases have no references"


def test_a_model_that_does_not_fit(rows, monkeypatch):
    monkeypatch.setattr(auto, "MAX_CPU_BYTES", 999)
    taken = auto.usable(metrics.MetricSettings(), True, True)
    assert "fits" not in taken and "chrf" in taken
    monkeypatch.setattr(auto, "MAX_CPU_BYTES", 1000)
    assert "fits" in auto.usable(metrics.MetricSettings(), True, True)
    torch = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True, mem_get_info=lambda: (1249, 10**12)))
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert "fits" not in auto.usable(metrics.MetricSettings(), True, True)
    torch.cuda.mem_get_info = lambda: (1250, 10**12)
    assert "fits" in auto.usable(metrics.MetricSettings(), True, True)


def test_nothing_is_downloaded_where_there_is_a_hub(rows, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "check_connection", lambda: None)
    assert "on-the-hub" not in auto.usable(metrics.MetricSettings(), True, True)
    assert constants.HF_HUB_OFFLINE is False
