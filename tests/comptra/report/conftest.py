"""A Chromium for all tests, and the page of a file's `run`."""

import pytest

from tests.support import browser as chromium
from tests.support import pages


@pytest.fixture(scope="session")
def started():
    if reason := chromium.missing():
        pytest.skip(reason)
    with chromium.chromium() as opened:
        yield opened


@pytest.fixture
def browser(started):
    """Whatever size and theme the test before had; on screen, if that one printed."""
    started.size(*pages.SIZES["desktop"])
    started.theme("light")
    return started


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    pages.build(run, path)
    return path
