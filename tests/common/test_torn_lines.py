"""Only what a killed run of this program left is removed from a file, and nothing is lost."""

import contextlib
import gzip
import json
import os
from pathlib import Path

import pytest

from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_jsonl, repair_tail, replacing_folder, write_atomic

RECORD = '{"text": "Kaixo\\u00e9 नेपाली", "n": -1.5e3, "ok": true, "none": null, "list": [1, {"a": false}]}'


def test_every_cut_of_a_record_is_repaired_and_kept_beside(tmp_path):
    path, torn = tmp_path / "a.jsonl", tmp_path / "a.jsonl.torn"
    data = RECORD.encode()
    for cut in range(1, len(data)):
        torn.unlink(missing_ok=True)
        path.write_bytes(b'{"n": 1}\n' + data[:cut])
        assert repair_tail(path) == cut
        assert path.read_bytes() == b'{"n": 1}\n'
        assert torn.read_bytes() == data[:cut] + b"\n"
    path.write_bytes(data)
    assert repair_tail(path) == 0 and path.read_bytes() == data + b"\n"


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"{'text': 'kaixo'}", "not a JSON object; fix or remove it"),
        ('{"text": "caf\xe9"}'.encode("latin-1"), "it is not UTF-8"),
        (gzip.compress(b'{"text": "kaixo"}', mtime=0).replace(b"\n", b""), "it is gzip-compressed"),
        ('{"text": "kaixo"}'.encode("utf-16"), "it is UTF-16"),
        (b'{"text": "a"}\r{"text": "b"}', "its lines end in CR alone"),
        (b"text,topic\nkaixo,agur", "not a JSON object"),
        (b'{"text": "a"} trailing words', "not a JSON object"),
        (b'["text", "a"]', "not a JSON object"),
        (b"2026", "not a JSON object"),
        (b"{" * 5000 + b"x", "not a JSON object"),
    ],
)
def test_a_file_that_this_program_did_not_write_is_left_alone(tmp_path, content, hint):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"mine.jsonl: the last line is .*{hint}"):
        repair_tail(path)
    with pytest.raises(UsageError):
        Appender(path)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["mine.jsonl"]


def test_the_repair_is_reported_and_linear(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1}\n{"text": "' + "x" * 30_000_000)
    assert repair_tail(path) == 30_000_010
    assert "a.jsonl: the last line was half-written" in caplog.text
    assert list(read_jsonl(path)) == [{"n": 1}]


def test_a_file_that_is_written_again_with_the_same_content_keeps_its_time(tmp_path):
    path, time_ns = tmp_path / "scores.json", 1_700_000_000_000_000_000
    for content, kept in (({"chrF++": 1}, True), ({"chrF++": 2}, False)):
        write_atomic(path, ['{"chrF++": 1}'])
        os.utime(path, ns=(time_ns, time_ns))
        write_atomic(path, [json.dumps(content)])
        assert (path.stat().st_mtime_ns == time_ns) is kept and json.loads(path.read_text()) == content
    assert [file.name for file in tmp_path.iterdir()] == ["scores.json"]


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_temporary_files_are_never_opened_through_a_link(link, tmp_path):
    precious = tmp_path / "thesis.tex"
    precious.write_text("do not lose me")
    link(tmp_path / "out.json.partial", precious)
    with contextlib.suppress(UsageError):  # of a symbolic one
        write_atomic(tmp_path / "out.json", [json.dumps({})])
    assert precious.read_text() == "do not lose me" and not (tmp_path / "out.json").is_symlink()


def test_cut_pieces_are_not_written_through_a_link(tmp_path):
    precious = tmp_path / "thesis.tex"
    precious.write_text("mine")
    (tmp_path / "a.jsonl.torn").symlink_to(precious)
    (tmp_path / "a.jsonl").write_text('{"text": "cut')
    with pytest.raises(OSError, match="symbolic links"):
        repair_tail(tmp_path / "a.jsonl")
    assert precious.read_text() == "mine" and (tmp_path / "a.jsonl").read_text() == '{"text": "cut'


def test_pipes_with_temporary_names_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "out.partial")
    with pytest.raises(UsageError, match="a symbolic link, pipe or folder is in the place of a temporary file"):
        write_atomic(tmp_path / "out", ["x"])
    with pytest.raises(FileExistsError), replacing_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out.partial").is_fifo()


def test_a_file_that_another_process_writes_is_read_up_to_its_last_whole_line(tmp_path):
    cuts = []
    path, whole = tmp_path / "x.jsonl", '{"text": "Ñ á"}\n'.encode()
    last = '{"text": "Ñ €", "id": false}'.encode()
    for cut in range(1, len(last)):
        path.write_bytes(whole * 2 + last[:cut])
        assert list(read_jsonl(path, on_cut=cuts.append)) == [{"text": "Ñ á"}] * 2, cut
        with pytest.raises(UsageError, match="line 3"):
            list(read_jsonl(path))
    assert cuts == [path] * (len(last) - 1)
    path.write_bytes(whole + last)
    assert len(list(read_jsonl(path, on_cut=cuts.append))) == 2, "complete, though without its line break"
    for broken in (last[:9] + b"\n", b"text"):
        path.write_bytes(whole + broken)
        with pytest.raises(UsageError, match="line 2"):
            list(read_jsonl(path, on_cut=cuts.append))
    assert len(cuts) == len(last) - 1
