"""A Chromium for all tests of a file."""

import pytest

from tests.support import browser as chromium


@pytest.fixture(scope="module")
def browser():
    if reason := chromium.missing():
        pytest.skip(reason)
    with chromium.chromium() as opened:
        yield opened
