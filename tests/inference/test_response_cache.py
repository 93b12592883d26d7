"""Responses on disk: what memory holds of them, when they are flushed, and what is read back."""

import os

import pytest

from topxgen.common.errors import UsageError
from topxgen.common.files import to_line
from topxgen.inference import response_cache
from topxgen.inference.response_cache import ResponseCache


def record(key: str, text: str = "ñandú 日本") -> dict:
    return {"id": key, "texts": [text], "prompt_tokens": 1, "completion_tokens": 2}


@pytest.fixture
def flushed(monkeypatch):
    """The times at which files were flushed, on a clock that a test sets."""
    clock, times, fsync = [0.0], [], os.fsync
    monkeypatch.setattr(response_cache.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(os, "fsync", lambda descriptor: (times.append(clock[0]), fsync(descriptor)))
    return clock, times


def test_what_is_read_back_is_what_was_added(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + to_line(record("a")).encode() + b"\n" + to_line(record("b", "first")).encode())
    cache = ResponseCache(path)
    cache.add(record("c", "a\ud800b"))  # a lone surrogate is saved as "?"
    cache.add(record("b", "second"))
    for opened in (cache, ResponseCache(path)):
        assert [opened.get(key)["texts"] for key in ("a", "b", "c")] == [["ñandú 日本"], ["second"], ["a?b"]]
        assert opened.get("d") is None and "d" not in opened and len(opened) == 3
        assert sorted(one["id"] for one in opened.values()) == ["a", "b", "c"]
        opened.close()


def test_responses_of_older_versions(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(to_line({"id": "a", "answers": ["old"], "prompt_tokens": 1, "completion_tokens": 1}))
    cache = ResponseCache(path)
    assert cache.get("a")["texts"] == ["old"]
    cache.close()


def test_local_responses_are_flushed_in_groups(tmp_path, flushed):
    clock, times = flushed
    cache = ResponseCache(tmp_path / "answers.jsonl")
    for number in range(255):
        cache.add(record(str(number)))
    assert not times
    cache.add(record("255"))
    assert times == [0.0]
    clock[0] = 0.9
    cache.add(record("256"))
    assert times == [0.0]
    clock[0] = 1.0
    cache.add(record("257"))
    assert times == [0.0, 1.0]
    cache.close()
    assert len(times) == 3


def test_paid_responses_are_flushed_one_by_one(tmp_path, flushed):
    cache = ResponseCache(tmp_path / "answers.jsonl", fsync_each=True)
    for number in range(3):
        cache.add(record(str(number)))
    assert len(flushed[1]) == 3
    cache.close()


@pytest.mark.parametrize("change", [b"x" * 200, to_line(record("b")).encode(), b""])
def test_a_file_that_another_program_changes_is_noticed(tmp_path, change):
    path = tmp_path / "answers.jsonl"
    cache = ResponseCache(path)
    cache.add(record("a"))
    with open(path, "r+b") as file:
        file.truncate()
        file.write(change)
    with pytest.raises(UsageError, match="was changed while this run was reading it; re-run the same command"):
        cache.get("a")
