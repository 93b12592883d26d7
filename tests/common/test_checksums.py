"""SHA256SUMS: entries of files that are finished, none of files that change, and nothing of other programs' lines lost."""

import os
import subprocess
from concurrent.futures import ProcessPoolExecutor

import pytest

from topxgen.common import checksums
from topxgen.common.files import Appender, remove, repair_tail, replacing, write_atomic, write_json


@pytest.fixture
def claimed(tmp_path):
    """A file with an entry."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n')
    checksums.claim(tmp_path, ["a.jsonl"])
    assert holds(tmp_path) == ["a.jsonl"]
    return path


def holds(folder) -> list[str]:
    """The names of the entries, all of which are right."""
    entries = checksums.read(folder)
    assert {name: checksums.sha256_of(folder / name) for name in entries} == entries
    return list(entries)


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / checksums.NAME)
    assert checksums.read(tmp_path) == {}


def test_sha256sum_reads_it(tmp_path):
    names = ["b", "a b", "ä.jsonl", "back\\slash", "line\nbreak", "-x", "sub/c", os.fsdecode(b"\xff.txt")]
    (tmp_path / "sub").mkdir()
    for name in names:
        (tmp_path / name).write_text(name, errors="surrogateescape")
    checksums.claim(tmp_path, [*names, "missing", "sub"])
    assert holds(tmp_path) == sorted(names)
    result = subprocess.run(["sha256sum", "-c", checksums.NAME], cwd=tmp_path, capture_output=True)
    assert result.returncode == 0 and result.stdout.count(b"OK\n") == len(names), result
    (tmp_path / "b").write_text("changed")
    assert subprocess.run(["sha256sum", "-c", checksums.NAME], cwd=tmp_path, capture_output=True).returncode == 1


def test_a_file_that_is_appended_to_has_no_entry(claimed):
    with Appender(claimed) as out:
        assert holds(claimed.parent) == ["a.jsonl"], "nothing is written yet"
        out.write({"a": 2})
        assert holds(claimed.parent) == []
    checksums.claim_file(claimed)
    assert holds(claimed.parent) == ["a.jsonl"]


def test_a_file_that_is_replaced_has_its_new_entry(claimed):
    write_atomic(claimed, ["new"])
    assert holds(claimed.parent) == ["a.jsonl"]
    with pytest.raises(ZeroDivisionError), replacing(claimed, "w") as file:
        file.write(str(1 / 0))
    assert holds(claimed.parent) == ["a.jsonl"]
    write_json(claimed.with_name("b.json"), {})
    assert holds(claimed.parent) == ["a.jsonl"], "what had no entry gets none"


def test_a_kill_between_the_file_and_its_entry_leaves_no_entry(claimed, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checksums, "claim_file", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(claimed, ["new"])
    assert claimed.read_text() == "new" and holds(claimed.parent) == []


@pytest.mark.parametrize("tail", ['{"a": ', '{"a": 2}'])
def test_a_repaired_file_has_no_entry(claimed, tail):
    claimed.write_text('{"a": 1}\n' + tail)
    repair_tail(claimed)
    assert checksums.read(claimed.parent) == {}


def test_a_removed_file_has_no_entry(claimed):
    remove(claimed)
    assert not claimed.exists() and holds(claimed.parent) == []
    remove(claimed)


def test_an_empty_file_in_place_of_a_removed_one_has_no_entry(claimed):
    claimed.unlink()
    Appender(claimed).close()
    assert holds(claimed.parent) == []


def test_what_has_an_entry_is_not_claimed_anew(claimed):
    """Else a command with nothing left to do would attest what somebody else has changed."""
    before = (claimed.parent / checksums.NAME).stat()
    claimed.write_text("edited")
    checksums.claim(claimed.parent, ["a.jsonl", "missing"])
    assert checksums.read(claimed.parent)["a.jsonl"] != checksums.sha256_of(claimed)
    after = (claimed.parent / checksums.NAME).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_second_entry_of_a_file_is_none():
    line = f"{'1' * 64}  a"
    assert checksums.parse(f"{line}\n{'2' * 64}  a\n") == ({"a": "1" * 64}, [(2, f"{'2' * 64}  a")])
    assert checksums.parse("") == ({}, []) and checksums.parse("\n") == ({}, [(1, "")])


def test_lines_of_other_programs_stay(tmp_path):
    other = f"# of a download\n{'0' * 64} *binary.zip\nSHA256 (bsd) = {'0' * 64}\n{'A' * 64}  upper\n"
    (tmp_path / checksums.NAME).write_text(other)
    (tmp_path / "b").write_text("b")
    checksums.claim(tmp_path, ["b"])
    assert (tmp_path / checksums.NAME).read_text().startswith(other) and holds(tmp_path) == ["b"]
    checksums.drop(tmp_path / "b")
    assert (tmp_path / checksums.NAME).read_text() == other


def claim_many(folder, number):
    for i in range(5):
        path = folder / f"{number}-{i}"
        write_atomic(path, [f"{number} {i}"])
        checksums.claim_file(path)
        write_atomic(path, [f"{number} {i} again"])


def test_processes_side_by_side_lose_no_entry(tmp_path):
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(claim_many, [tmp_path] * 4, range(4)))
    assert len(holds(tmp_path)) == 20


def test_a_link_is_not_written_through(tmp_path):
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / checksums.NAME).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "b").write_text("b")
    checksums.claim(tmp_path, ["b"])
    assert (tmp_path / "elsewhere").read_text() == "mine" and holds(tmp_path) == ["b"]
