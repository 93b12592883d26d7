"""Counts of files that grow: whole lines, each read once."""

import json
import os

import pytest

from topxgen.runs.growing import BLOCK_BYTES, KINDS, RECENT, Tally

PAIRS = {"propositions": ["a", "b"], "translations": ["c", "d"], "scores": [1.5, None], "id": "Basque-1.0"}


def line(record) -> bytes:
    return json.dumps(record).encode() + b"\n"


def test_a_cut_line_counts_when_it_is_whole(tmp_path):
    path = tmp_path / "pairs.jsonl"
    tally = Tally(path, "pairs")
    assert tally.read().lines == 0 and tally.modified is None
    path.write_bytes(line(PAIRS) + line(PAIRS)[:20])
    assert tally.read().totals == {"lines": 1, "pairs": 2, "scored": 1}
    with open(path, "ab") as file:
        file.write(line(PAIRS)[20:])
    assert tally.read().totals == {"lines": 2, "pairs": 4, "scored": 2}
    assert tally.modified == path.stat().st_mtime


def test_what_was_read_is_not_read_again(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(line({"prompt_tokens": 5}) * 10)
    tally = Tally(path, "responses")
    assert tally.read().totals["prompt_tokens"] == 50
    with open(path, "r+b") as file:  # the same file and the same length: only what is added may be looked at
        file.write(line({"prompt_tokens": 9}) * 10)
        file.seek(0, os.SEEK_END)
        file.write(line({"prompt_tokens": 1, "cached_tokens": None, "error": "no answer"}))
    assert tally.read().totals == {
        "lines": 11, "responses": 10, "failed": 1, "prompt_tokens": 51, "completion_tokens": 0, "cached_tokens": 0
    }  # fmt: skip


@pytest.mark.parametrize("change", ["shorter", "replaced", "gone"])
def test_another_file_of_the_name_is_counted_anew(tmp_path, change):
    path = tmp_path / "Basque.jsonl"
    tally = Tally(path, "lines")
    path.write_bytes(b"{}\n" * 4)
    assert tally.read().lines == 4
    with open(path, "ab") as file:
        file.write(b"{}\n")
    assert tally.read().lines == 5
    if change == "shorter":
        path.write_bytes(b"{}\n" * 2)
    else:
        path.rename(tmp_path / "aside")
        if change == "replaced":
            path.write_bytes(b"{}\n" * 2 + b"{" * 30)
    assert tally.read().lines == (0 if change == "gone" else 2)


def test_lines_longer_than_a_block_and_damaged_ones(tmp_path):
    path = tmp_path / "rejects.jsonl"
    long = {"reason": "too_long", "text": "a" * (BLOCK_BYTES + 100)}
    many = [line({"reason": f"near_duplicate of Basque-{i}.0 (ROUGE-L F1 0.9)"}) for i in range(RECENT - 1)]
    path.write_bytes(b"".join([line({"reason": "empty"}), b"not json\n", b"\n", line(long), *many, b"\xff\xfe\n"]))
    tally = Tally(path, "rejects").read()
    assert tally.totals == {"lines": RECENT + 3, "unreadable": 2}
    assert tally.reasons == {"empty": 1, "too_long": 1, "near_duplicate": RECENT - 1}
    assert list(tally.recent) == ["too_long"] + ["near_duplicate"] * (RECENT - 1)


def test_a_named_pipe_does_not_stop_the_look(tmp_path):
    os.mkfifo(tmp_path / "Basque.jsonl")
    assert Tally(tmp_path / "Basque.jsonl", "lines").read().lines == 0


def test_blank_lines_at_a_block_s_edge_keep_the_place(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n")
    tally = Tally(path, "log")
    tally.read()
    with open(path, "ab") as file:
        file.write(b"\n" + line({"step": 3, "loss": 2.5}) + line({"step": 4, "eval_loss": 2.25}))
    assert tally.read().last == {"step": 4, "loss": 2.5, "eval_loss": 2.25}
    assert tally.totals.get("unreadable") is None and set(KINDS) >= {"log", "lines"}
