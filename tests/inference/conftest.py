"""Keys and addresses of the developer's own reach no test."""

import pytest

from tests.support.api_runs import URL_VARIABLES, VARIABLES


@pytest.fixture(autouse=True)
def no_keys_of_ours(monkeypatch):
    for name in VARIABLES + URL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
