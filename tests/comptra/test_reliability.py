"""What is known of a metric in a language, and that every neural metric has a row."""

import json

import pytest

from comptra.scores import reliability as table
from comptra.scores.metrics import METRICS, Metric
from comptra.scores.reliability import COVERAGE, STATUSES, reliability
from tests.support.evaluations import UDHR, original
from tests.support.runs import in_process
from topxgen.text import languages

BOTH, TARGET = Metric("m:f", reads=("source", "reference")), Metric("m:f", reads=("reference",))


def status(name: str, tgt: str, src: str = "English", row: Metric = BOTH) -> str:
    return reliability(name, row, languages.find(src), languages.find(tgt))["status"]


def test_every_metric_of_segments_has_a_row():
    assert {name for name, row in METRICS.items() if row.of_segments} <= set(COVERAGE)
    assert all(coverage.source for coverage in COVERAGE.values())


def test_every_language_has_a_status_with_its_reason():
    english = languages.find("English")
    for name in [*METRICS, *COVERAGE, "own.py:Metric"]:
        for language in set(languages.load().values()):
            found = reliability(name, METRICS.get(name, BOTH), english, language)
            assert found["status"] in STATUSES and found["note"]
            assert found["source"] or found["status"] in ("surface", "unknown")


@pytest.mark.parametrize(
    ("name", "tgt", "expected"),
    [
        ("comet", "German", "trained"),
        ("comet", "Basque", "unknown"),
        ("comet", "Acehnese (Latin script)", "weak"),  # not among XLM-R's languages
        ("comet", "Hausa", "weak"),  # among them, and African
        ("comet", "Icelandic", "unknown"),  # judged at WMT since 2021
        ("metricx-24", "Icelandic", "trained"),
        ("metricx-24", "Ukrainian", "trained"),
        ("metricx-23", "Ukrainian", "unknown"),
        ("metricx-24", "Zulu", "weak"),  # judged at WMT21, and African
        ("cometkiwi", "Sinhala", "trained"),
        ("comet", "Sinhala", "unknown"),
        ("ssa-comet", "Twi", "trained"),
        ("ssa-comet", "Hausa", "trained"),
        ("ssa-comet", "Igbo", "unknown"),
        ("africomet", "Hausa", "validated"),
        ("africomet", "Acehnese (Latin script)", "weak"),
        ("blaser-qe", "Basque", "unknown"),
        ("gemba-da", "German", "unknown"),
        ("chrf", "Hausa", "surface"),
        ("bleu", "Thai", "surface"),
        ("bleu-13a", "Thai", "weak"),
        ("bleu-13a", "Basque", "surface"),
        ("own.py:Metric", "German", "unknown"),
    ],
)
def test_what_is_published(name, tgt, expected):
    assert status(name, tgt, row=METRICS.get(name, BOTH)) == expected


def test_the_less_known_language_of_a_direction_counts():
    assert status("comet", "English", "German") == "trained"
    assert status("comet", "English", "Basque") == "unknown" and status("comet", "German", "Umbundu") == "weak"
    assert status("metricx-23", "German", "Umbundu", row=TARGET) == "trained", "it does not read the source"


def test_the_african_challenge_set_is_named():
    found = reliability("metricx-24", BOTH, languages.find("English"), languages.find("Yoruba"))
    assert "0.4" in found["note"] and "SSA-MTE" in found["note"] and "Li et al. 2025" in found["source"]


def test_wmts_languages_by_year():
    assert "fr" in table._da(17, 20) and "ha" not in table._da(17, 20) and {"ha", "uk"} <= table._da(15, 22)


def test_the_report_has_it(tmp_path):
    original(tmp_path / "runs", "m")
    result = in_process(
        "comptra.evaluate", tmp_path / "runs", *UDHR, "--metrics", "chrf", "--json", tmp_path / "o.json"
    )
    assert result.returncode == 0, result.stderr
    (group,) = json.loads((tmp_path / "o.json").read_text())["groups"]
    assert group["metrics"]["chrf"]["reliability"]["status"] == "surface"
