"""Environment variables with values that they cannot have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runs import ROOT
from topxgen.common import environment
from topxgen.common.errors import UsageError


@pytest.mark.parametrize(("value", "number"), [(None, 3), ("", 3), (" 2 ", 2), ("0", 0)])
def test_numbers(monkeypatch, value, number):
    monkeypatch.delenv("RANK", raising=False)
    if value is not None:
        monkeypatch.setenv("RANK", value)
    assert environment.number("RANK", 3) == number


@pytest.mark.parametrize("value", ["abc", "-1", "1.5", "٣", "nan"])
def test_what_is_no_number_is_named(monkeypatch, value):
    monkeypatch.setenv("WORLD_SIZE", value)
    with pytest.raises(
        UsageError, match=r"environment variable WORLD_SIZE is .* not a whole number; correct or unset it"
    ):
        environment.number("WORLD_SIZE", 1)


def test_an_empty_folder_is_not_the_current_one(monkeypatch):
    monkeypatch.setenv("TOPXGEN_CACHE", "")
    assert environment.folder("TOPXGEN_CACHE", "/x") == Path("/x")
    monkeypatch.setenv("TOPXGEN_CACHE", "~nobody-here/x")
    with pytest.raises(UsageError, match="TOPXGEN_CACHE: '~nobody-here/x' has no home directory"):
        environment.folder("TOPXGEN_CACHE", "/x")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("scripts/status.py", "nowhere"), "nowhere"),
        (
            ("train.py", "--model_name_or_path", "x", "--output_dir", "out", "--target_languages", "Basque"),
            "RANK is 'abc'",
        ),
    ],
)
def test_a_rank_that_is_no_number_ends_no_script_in_a_traceback(tmp_path, words, says):
    env = {**os.environ, "RANK": "abc", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    script, *flags = words
    command = [sys.executable, str(ROOT / script), *flags]
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and says in result.stderr, result.stderr
