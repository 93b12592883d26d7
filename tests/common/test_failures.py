"""The file of a stage's failure: what it says, and what those make of it who look at a run."""

import json
import os

import pytest

from tests.support.runs import in_process
from topxgen.common import failures


def noted(path, monkeypatch, error: Exception | SystemExit, script: str = "train.py") -> dict:
    monkeypatch.setenv(failures.VARIABLE, str(path))
    monkeypatch.setattr("topxgen.common.console._last_error", "")
    with pytest.raises(type(error)), failures.noted(script):
        raise error
    return json.loads(path.read_text())


def test_an_unexpected_error_is_one_short_line_without_keys(tmp_path, monkeypatch):
    key = "hf_" + "a1B2" * 8
    said = noted(
        tmp_path / "f.json",
        monkeypatch,
        ValueError(f"{key}\nat https://me:pw@host/?api_key=abc \x1b[31m " + "text " * 10**5),
    )
    assert said["error"].startswith(r"ValueError: ***\nat https://***@host/?api_key=*** \x1b[31m text text")
    assert len(said["error"]) == failures.MAX_CHARS and said["exit_code"] == 1
    assert failures.given() == tmp_path / "f.json" and failures.VARIABLE not in os.environ


@pytest.mark.parametrize(("shard", "folder"), [((), "out"), ((2, 1), "out/shards/0001-of-0002")])
def test_what_failed_is_the_folder_that_the_stage_worked_in(shard, folder, tmp_path, monkeypatch):
    monkeypatch.setenv(failures.VARIABLE, str(tmp_path / "f.json"))
    words = ("--languages", "Basque", "--model_name_or_path", "m", "--seed_topics_path", tmp_path / "none.txt")
    flags = [word for pair in zip(("--num_shards", "--shard_index"), shard, strict=False) for word in pair]
    assert in_process("datagen.py", *words, *flags, "--output_dir", tmp_path / "out").returncode == 2
    assert json.loads((tmp_path / "f.json").read_text())["folder"] == folder


GARBAGE = {
    "binary": b"\x00\xff\xfe", "empty": b"", "list": b"[1]", "torn": b'{"exit_code": 2, "fai', "deep": b"[" * 10**5,
    "text as code": b'{"exit_code": "2", "failed": "x"}', "no time": b'{"exit_code": 2}',
    "list as error": b'{"exit_code": 2, "failed": "x", "error": ["y"]}', "null as script": b'{"exit_code": 2, "failed": "x", "script": null}',
}  # fmt: skip


def test_files_that_are_none_are_named_and_hide_no_others(tmp_path):
    """One of another version, with more keys, is shown; so is one whose folder is nowhere."""
    folder = tmp_path / "run/failed"
    folder.mkdir(parents=True)
    (tmp_path / "run" / "x.json").write_text("{}")
    for name, data in GARBAGE.items():
        (folder / f"{name}.json").write_bytes(data)
    os.mkfifo(folder / "pipe.json")
    (folder / "link.json").symlink_to(folder / "link.json")
    good = {
        "exit_code": 2,
        "failed": "then",
        "error": "one\nout: \x1b[31mtwo",
        "script": "other.py",
        "folder": "../\x00",
        "more": [1],
    }
    (folder / "train.json").write_text(json.dumps(good))
    shown = in_process("scripts/status.py", tmp_path, "--json")
    assert shown.returncode == 0, shown.stderr
    status = json.loads(shown.stdout)
    assert [(one["stage"], one["exit_code"]) for one in status["failures"]] == [("train", 2)]
    for name in (*GARBAGE, "pipe"):
        assert any(f"failed/{name}.json" in problem for problem in status["problems"]), name
    shown = in_process("scripts/status.py", tmp_path)
    assert shown.returncode == 0 and r"failed with exit code 2, then: one\nout: \x1b[31mtwo" in shown.stdout
    page = in_process("scripts/report.py", tmp_path, "-o", tmp_path / "page.html")
    assert page.returncode == 3 and page.stderr.count("WARNING: provenance: ") == len(GARBAGE) + 1, page.stderr
    verified = in_process("scripts/verify.py", tmp_path, "--verbose")
    assert verified.returncode == 0 and "pipe.json: a pipe" in verified.stdout, verified
    assert "run/failed/train.json: how a stage failed" in verified.stdout
