import pytest


@pytest.fixture
def no_shared_cache(tmp_path, monkeypatch):
    """`datasets` keeps nothing between tests."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
