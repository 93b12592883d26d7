"""One process at a time in a directory, on file systems with and without record locks."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.support.runs import ROOT
from topxgen.common import locks
from topxgen.common.errors import UsageError
from topxgen.common.locks import DirectoryLocked, OutputLock, wait_for_lock

HOLD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from topxgen.common import locks
{patch}
lock = locks.OutputLock(Path({folder!r}), {part!r})
print("held", flush=True)
time.sleep(600)
"""
NO_RECORD_LOCKS = """
import errno, fcntl
def lockf(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.lockf = lockf
"""


def holder(folder, patch="", part=None) -> subprocess.Popen:
    """Another process that holds `folder`."""
    code = HOLD.format(root=str(ROOT), folder=str(folder), patch=patch, part=part)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def held_by_others(folder) -> bool:
    """Whether another process can not get the record lock."""
    code = f"import fcntl, sys\nf = open({str(folder / '.lock')!r}, 'a')\nfcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode != 0


@pytest.mark.parametrize("patch", ["", NO_RECORD_LOCKS])
def test_parts_of_a_directory_are_held_side_by_side(tmp_path, patch, request):
    if patch:
        request.getfixturevalue("no_record_locks")
    owner = holder(tmp_path, patch, part="Basque")
    try:
        refused = pytest.raises(DirectoryLocked, match=f"Basque in .* is in use by process {owner.pid} on ")
        with OutputLock(tmp_path, "Hausa"), OutputLock(tmp_path), refused:
            OutputLock(tmp_path, "Basque")
    finally:
        owner.kill()
        owner.wait()
    OutputLock(tmp_path, "Basque").release()
    assert not list(tmp_path.glob(".lock*")), "a lock that is released leaves no file"


def test_waiting_for_a_lock_ends_when_its_owner_does(tmp_path):
    owner = holder(tmp_path)
    ending = threading.Event()

    def end() -> None:
        ending.set()
        owner.kill()

    threading.Timer(0.5, end).start()
    with wait_for_lock(tmp_path):
        assert ending.is_set()
    owner.wait()


def test_a_lock_file_that_its_owner_removes_is_not_held_by_two(tmp_path):
    """Many processes take and release one lock; each appends to a file, of which it must be the only writer meanwhile."""
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\n"
        "from topxgen.common.locks import wait_for_lock\nfrom topxgen.common import locks\nlocks.RETRY_S = 0.0\n"
        f"folder = Path({str(tmp_path)!r})\ncount = folder / 'count'\n"
        "for _ in range(100):\n    with wait_for_lock(folder):\n"
        "        n = int(count.read_text()); count.write_text(str(n + 1))\n"
    )
    (tmp_path / "count").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [process.wait(300) for process in processes] == [0] * 4
    assert (tmp_path / "count").read_text() == "400"


@pytest.fixture
def no_record_locks(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)


def test_two_locks_of_one_process_share_one_descriptor(tmp_path):
    """A record lock goes when any descriptor of its file is closed: a second lock must not drop the first."""
    first = OutputLock(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    second = OutputLock(tmp_path / "link")
    second.release()
    second.release()
    assert held_by_others(tmp_path)
    first.release()
    assert not held_by_others(tmp_path)


def test_a_lock_is_never_opened_through_a_symbolic_link(tmp_path):
    precious = tmp_path / "thesis.tex"
    precious.write_text("do not lose me")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(precious)
    with pytest.raises(UsageError, match=r"run/\.lock is a symbolic link, which is not followed; remove it"):
        OutputLock(tmp_path / "run")
    assert precious.read_text() == "do not lose me"


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.hardlink_to(path.parent.parent / "thesis.tex")])
def test_a_lock_is_a_file_of_its_own(make, tmp_path):
    precious = tmp_path / "thesis.tex"
    precious.write_text("do not lose me")
    (tmp_path / "run").mkdir()
    make(tmp_path / "run" / ".lock")
    with pytest.raises(UsageError, match=r"run/\.lock is a pipe, a device or another name of a file"):
        OutputLock(tmp_path / "run")
    assert precious.read_text() == "do not lose me"


def test_without_record_locks_a_heartbeat_keeps_others_out(tmp_path, no_record_locks):
    owner = holder(tmp_path, NO_RECORD_LOCKS)
    try:
        with pytest.raises(DirectoryLocked, match=f"in use by process {owner.pid} on "):
            OutputLock(tmp_path)
    finally:
        owner.kill()
        owner.wait()
    with OutputLock(tmp_path):  # its process is gone
        assert json.loads((tmp_path / locks.HEARTBEAT_FILE).read_text())["process"] == os.getpid()
    assert not (tmp_path / locks.HEARTBEAT_FILE).exists()


@pytest.mark.parametrize(
    ("age_s", "state"),
    [
        (locks.STALE_AFTER_S - 20, "held"),
        (locks.STALE_AFTER_S + 30, "left"),
        (-1e6, "left"),  # from the future
        (locks.STALE_AFTER_S + 30, "beats"),  # its clock is late
        (-1e6, "beats"),
    ],
)
def test_a_heartbeat_of_another_machine_is_stale_after_a_while(tmp_path, no_record_locks, monkeypatch, age_s, state):
    path, then = tmp_path / locks.HEARTBEAT_FILE, time.time() - age_s
    path.write_text(json.dumps({"host": "node17", "process": 1, "token": "x"}))
    os.utime(path, (then, then))
    if state == "left":
        monkeypatch.setattr(locks, "HEARTBEAT_S", 0.1)
        OutputLock(tmp_path).release()
        return
    if state == "beats":
        threading.Timer(0.3, os.utime, (path, (then + 10, then + 10))).start()
    with pytest.raises(DirectoryLocked, match="in use by process 1 on node17"):
        OutputLock(tmp_path)


def test_one_process_takes_over_a_stale_heartbeat(tmp_path, no_record_locks, monkeypatch):
    path = tmp_path / locks.HEARTBEAT_FILE
    path.write_text(json.dumps({"host": "node17", "process": 1, "token": "stale"}))
    new = json.dumps({"host": "node18", "process": 2, "token": "new"})
    monkeypatch.setattr(locks, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(locks, "_is_stale", lambda *_: path.write_text(new))  # another one is faster
    with pytest.raises(DirectoryLocked, match="another process"):
        OutputLock(tmp_path)
    assert path.read_text() == new


def test_a_run_ends_whose_heartbeat_another_took_over(tmp_path):
    """As one does that a scheduler stopped for longer than STALE_AFTER_S."""
    owner = holder(tmp_path, NO_RECORD_LOCKS + "locks.HEARTBEAT_S = 0.1")
    (tmp_path / locks.HEARTBEAT_FILE).write_text(json.dumps({"host": "node17", "process": 1, "token": "x"}))
    assert owner.wait(60) == -signal.SIGTERM


def test_the_heartbeat_beats(tmp_path, no_record_locks, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT_S", 0.02)
    path = tmp_path / locks.HEARTBEAT_FILE
    with OutputLock(tmp_path):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 120
        while path.stat().st_mtime < 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert path.stat().st_mtime > 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}', '{"host": "a", "process": "b", "token": 3}'])
def test_a_damaged_heartbeat_is_no_owner(tmp_path, no_record_locks, monkeypatch, content):
    monkeypatch.setattr(locks, "SETTLE_S", 0.01)
    (tmp_path / locks.HEARTBEAT_FILE).write_text(content)
    OutputLock(tmp_path).release()


def other_process_sees(folder) -> list:
    code = (
        f"import sys, json; sys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\nfrom topxgen.common.locks import holders\n"
        f"print(json.dumps([(h.part, h.state, h.process, h.note.get('aim')) for h in holders(Path({str(folder)!r}))]))"
    )
    return json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)


def test_who_holds_what_is_seen_and_nothing_is_released(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["datagen.py", "--api_key", "secret", "--languages", "Basque"])
    with OutputLock(tmp_path, "Basque", note={"aim": 500}) as lock, OutputLock(tmp_path):
        before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        ours = [(h.part, h.state, h.process, h.note.get("aim")) for h in locks.holders(tmp_path)]
        assert ours == [(None, "held", os.getpid(), None), ("Basque", "held", os.getpid(), 500)]
        assert [tuple(row) for row in other_process_sees(tmp_path)] == ours
        assert held_by_others(tmp_path), "looking at a lock must not release it"
        assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
        assert locks.holders(tmp_path)[0].note["command"] == ["datagen.py", "--api_key", "***", "--languages", "Basque"]
        assert lock
    assert locks.holders(tmp_path) == locks.holders(tmp_path / "gone") == []


def test_who_holds_a_directory_is_told_in_one_line(tmp_path):
    owner = holder(tmp_path)
    try:
        with pytest.raises(DirectoryLocked) as refused:
            OutputLock(tmp_path)
        assert f"is in use by process {owner.pid} on " in str(refused.value) and "\n" not in str(refused.value)
        assert "command" not in str(refused.value)
    finally:
        owner.kill()
        owner.wait()


def test_a_lock_that_a_killed_process_left_is_not_held(tmp_path):
    owner = holder(tmp_path, part="Basque")
    owner.kill()
    owner.wait()
    (found,) = locks.holders(tmp_path)
    assert (found.part, found.state, found.process) == ("Basque", "left", owner.pid)
    (tmp_path / ".lock-Hausa").write_text("process 7 on node17")  # of an older version, of another machine
    (tmp_path / ".lock-Igbo").write_text("process 7 on node17\n{broken")
    assert [(h.part, h.state, h.host, h.note) for h in locks.holders(tmp_path)][1:] == [
        ("Hausa", "unknown", "node17", {}),
        ("Igbo", "unknown", "node17", {}),
    ]


def test_heartbeats_are_seen_too(tmp_path, no_record_locks):
    owner = holder(tmp_path, NO_RECORD_LOCKS)
    assert [(h.state, h.process, h.part) for h in locks.holders(tmp_path)] == [("held", owner.pid, None)]
    owner.kill()
    owner.wait()
    assert [h.state for h in locks.holders(tmp_path)] == ["left"]


def test_gemma_is_unpacked_by_one_process_and_found_by_the_next(tmp_path):
    folder, lock = tmp_path / "gemma", OutputLock(tmp_path, "gemma")
    command = [sys.executable, "scripts/prepare_gemma.py", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as late, lock:
        assert "waiting" in late.stderr.readline()
        folder.mkdir()
        for name in ("model.safetensors", "README.md"):
            (folder / name).write_text("complete")
    assert late.returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"gemma"}
