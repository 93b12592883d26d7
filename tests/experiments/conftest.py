from pathlib import Path

import pytest

from tests.attack.table import make_inputs


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with inputs, from which commands are started."""
    make_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
