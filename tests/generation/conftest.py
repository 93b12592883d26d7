"""Fixtures of runs through the server of tests/support/writer.py."""

import pytest

from tests.support.writer import Writer, serve


@pytest.fixture
def answers(monkeypatch):
    serve(monkeypatch)


@pytest.fixture(scope="module")
def server():
    with Writer(delay=0) as running:
        yield running
