"""scripts/perf/scale.py: a plan from rates, and the page that shows its output."""

import subprocess
import sys

import pytest

from scripts.perf.scale import RATES, dedup_hours, plan
from tests.support.runs import ROOT

RATE = {name: rate.value for name, rate in RATES.items()}


def output(*flags: str, code: int = 0) -> str:
    command = [sys.executable, "scripts/perf/scale.py", *flags]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == code, result.stderr
    return result.stdout or result.stderr


def test_the_page_has_the_tables_that_the_script_prints():
    page = (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8")
    for flags in ((), ("--list",)):
        assert output(*flags) in page, "print it again into docs/hardware.md"


def test_work_is_divided_by_gpus_until_one_process_is_the_limit():
    one, eight = ({stage.name: stage for stage in plan(1e9, gpus, 10, RATE)} for gpus in (1, 8))
    paragraphs = 1e9 / RATE["tokens_per_paragraph"]
    prompts = paragraphs / RATE["paragraphs_per_response"] * RATE["prompt_tokens"] / RATE["prefilled_tokens"]
    generate = (1e9 / RATE["llm_tokens"] + prompts) / 3600
    assert one["generate"].hours == pytest.approx(generate)
    assert one["generate"].hours == pytest.approx(8 * eight["generate"].hours)
    assert one["merge"] == eight["merge"]
    many = {stage.name: stage for stage in plan(1e9, 100_000, 10, RATE)}
    assert many["generate"].limit == "loop of a language"
    assert many["generate"].hours > 1.01 * generate / 100_000
    pairs = paragraphs * 7
    assert one["decontaminate"].hours == pytest.approx(
        pairs / RATE["decontaminated_pairs"] / RATE["cores_per_gpu"] / 3600
    )


def test_the_exact_search_grows_with_the_square():
    """So that it is left for MinHash, whose time hardly does more than double with twice the paragraphs."""
    assert dedup_hours(4e6, RATE, "exact") > 3.5 * dedup_hours(2e6, RATE, "exact")
    assert dedup_hours(2e5, RATE, "minhash") < 2.5 * dedup_hours(1e5, RATE, "minhash")


def test_own_rates_and_mistakes():
    cheap = output("--tokens", "1e8", "--gpus", "8", "--rates", "usd_per_gpu_hour=1", "llm_tokens=10800")
    usual = output("--tokens", "1e8", "--gpus", "8")
    assert cheap.splitlines()[:2] == usual.splitlines()[:2] and cheap != usual
    assert "there is no rate 'x'" in output("--rates", "x=1", code=2)
    assert "is no number above 0" in output("--rates", "llm_tokens=0", code=2)
    assert "of 1 or more" in output("--gpus", "0", code=2)
