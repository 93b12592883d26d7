"""scripts/status.py: what a terminal, --json and --watch show, and what is refused."""

import json
import subprocess
import sys

import pytest

from tests.support.runs import ROOT, in_process
from tests.support.statuses import NOTE, end, hold
from topxgen.common.errors import UsageError
from topxgen.runs import status
from topxgen.runs.status import Watcher


def test_json_and_watch(begun):
    result = in_process("scripts/status.py", begun, "--json")
    found = json.loads(result.stdout)
    assert result.returncode == 0 and [stage["stage"] for stage in found["stages"]] == ["generate", "translate"]
    process = hold((begun, "Basque", NOTE))
    command = [sys.executable, "scripts/status.py", str(begun), "--json", "--watch", "--interval", "0.1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        first = json.loads(watching.stdout.readline())
        second = json.loads(watching.stdout.readline())
        end(process)
        rest, errors = watching.communicate(timeout=300)
    assert watching.returncode == 0, errors
    assert first["stages"][0]["state"] == second["stages"][0]["state"] == "running" and second["at"] > first["at"]
    assert json.loads(rest.splitlines()[-1])["stages"][0]["state"] == "killed", "it ends when nothing runs any more"


def test_what_a_terminal_shows(begun):
    process = hold((begun, "Basque", NOTE))
    try:
        text = in_process("scripts/status.py", begun).stdout
    finally:
        end(process)
    lines = text.splitlines()
    assert f"running: process {process.pid} on " in lines[1] and "Basque in " in lines[1]
    row = next(line for line in lines if line.startswith("generate"))
    assert row.split()[:3] == ["generate", "Basque", "running"] and "3/12 paragraphs" in row and "25%" in row
    table = [line for line in lines if line.startswith(("stage ", "generate ", "translate "))]
    starts = {len(line) - len(line.split()[-1]) for line in table}
    assert len(table) > 2 and len(starts) == 1 and starts.pop() <= 100, "a long folder breaks no column"
    assert "  rejected: 1 near_duplicate" in lines and "  4 responses, 1 failed" in lines
    assert "cost so far: 0.01 USD" in lines and "waiting: its process is at another stage or language" in lines


def test_numbers_are_not_rounded_up_and_a_cost_says_what_it_lacks():
    from scripts import status as script
    from topxgen.runs.stages import Stage, Status

    tokens = {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 0}
    stages = [
        Stage("generate", ".", "Basque", "running", unit="paragraphs", done=2999, of=3000, tokens=tokens, usd=1.5),
        Stage("translate", "llm", "Basque", "running", unit="paragraphs", done=3000, of=3000, tokens=tokens),
    ]
    status = Status(
        root=".", at=0.0, host="here", processes=[], stages=stages, usd=1.5, records=[], failures=[], problems=[]
    )
    lines = list(script.lines(status))
    assert "99%" in lines[2] + lines[3] and any("100%" in line for line in lines if line.startswith("translate"))
    assert "cost so far: 1.50 USD, without translate: pass --prices" in lines


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--interval", "5"), "--interval has no effect without --watch"),
        (("--prices", "1"), "--prices takes two or three numbers"),
    ],
)
def test_flags_that_cannot_be_meant(tmp_path, flags, message):
    result = in_process("scripts/status.py", tmp_path, *flags)
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1


def test_folders_without_a_run_and_damaged_files(tmp_path, begun):
    result = in_process("scripts/status.py", tmp_path / "nowhere")
    assert result.returncode == 2 and "is not a directory" in result.stderr
    (tmp_path / "empty").mkdir()
    assert "no files of a stage yet" in in_process("scripts/status.py", tmp_path / "empty").stdout
    (begun / "manifest_generate_Basque.json").write_text("{")
    (begun / "Basque_rejects.jsonl").write_bytes(b"\xff\n")
    found = Watcher(begun).look()
    assert found.stages[0].counts["unreadable_lines"] == 1 and any(
        "manifest_generate_Basque" in one for one in found.problems
    )
    with pytest.raises(UsageError):
        Watcher(tmp_path / "nowhere").look()


def test_a_manifest_that_is_of_another_language_than_its_name_is_left_out(begun):
    path = begun / "manifest_generate_Basque.json"
    path.write_text(json.dumps({"language": "Hausa", "counts": {"paragraphs": 7, "rejected": {}}}))
    found = Watcher(begun).look()
    says = "is left out: field language: expected 'Basque', as in its name, got 'Hausa'"
    assert any(one.endswith(f"{path.name} {says}") for one in found.problems)
    assert found.stages[0].state != status.FINISHED
