import pytest

from tests.support.runs import in_process


@pytest.fixture
def no_shared_cache(tmp_path, monkeypatch):
    """`datasets` keeps nothing between tests."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def train_here():
    def run(*words, check=0):
        result = in_process("train.py", *words)
        assert result.returncode == check, result.stderr
        return result

    return run
