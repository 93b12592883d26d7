"""The page of 100,000 pairs in ten languages: its size, the time until it can be used, and that it answers at once.

The limits are several times what scripts/perf/report_speed.py measures (docs/results.md): other work on the machine must not fail them.
"""

import importlib

import pytest

from tests.support import pages, synthetic_run


@pytest.mark.slow
def test_100_000_pairs(browser, tmp_path):
    speed = importlib.import_module("scripts.perf.report_speed")
    run, page, everything = tmp_path / "run", tmp_path / "page.html", tmp_path / "all.html"
    made = synthetic_run.make(run)
    built = speed.build(run, page)
    assert built["mb"] <= 5 and built["cpu_seconds"] < 60 and built["peak_mib"] < 1000
    assert speed.build(run, everything, "--max_mb", "60")["mb"] < 60
    browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": speed.PROBE})
    for path in (page, everything):
        loaded = speed.loading(browser, path, 3)
        assert loaded["usable_ms"] < 3000, loaded
        times = speed.interactions(browser, path, 1)
        rows = times.pop("rows")
        slow = {
            name: ms
            for name, ms in times.items()
            if not name.endswith(", rows") and not isinstance(ms, dict) and ms > 4000
        }
        assert not slow and times["a jump in the rows"]["median"] < 1000, times
        assert browser.faults() == []
    assert rows > made.pairs.total()  # rejects and candidates besides the pairs
    pages.render(browser)
    assert browser.faults() == []
