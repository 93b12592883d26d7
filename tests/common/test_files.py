"""Durable files, prompts, topics, example sources and the translator."""

import os
import queue
import random
import shutil
import subprocess
import sys
import threading
from contextlib import nullcontext

import pytest

from comptra import merge
from comptra.scores import segment_cache, systems
from tests.support.processes import locked
from tests.support.runs import BENCHMARKS, ROOT
from topxgen.common import checksums, files, rates, signals
from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_json, read_jsonl, repair_tail, write_atomic
from topxgen.common.locks import OutputLock
from topxgen.common.records import with_ids
from topxgen.corpora import examples, tables
from topxgen.corpora.topics import read_topics
from topxgen.text import languages
from topxgen.training import checkpoints, export
from topxgen.training.pairs import Pair

READERS = {
    "a.json": read_json,
    "a.jsonl": lambda path: list(read_jsonl(path)),
    "topics.txt": read_topics,
    "lines.txt": tables.read_lines,
    "a.tsv": lambda path: languages.load(str(path)),
    "translate_0.jsonl": systems.read_lines,
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", READERS)
def test_what_stands_in_place_of_a_file_is_named(name, tmp_path):
    path = tmp_path / name
    for make, message in (
        (os.mkfifo, "is a pipe or a device, which can be read only once or has no end"),
        (lambda path: path.symlink_to("/dev/zero"), "is a pipe or a device"),
        (lambda path: path.symlink_to("/dev/full"), "is a pipe or a device"),
        (os.mkdir, "is a directory, not a file"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "is a Git LFS pointer"),
        (lambda path: path.write_text("\ufeffversion https://hawser.github.com/spec/v1\n"), "is a Git LFS pointer"),
    ):
        make(path)
        with pytest.raises(UsageError, match=message):
            READERS[name](path)
        path.rmdir() if path.is_dir() else path.unlink()


def stop(*_):
    raise signals.Stopped


WRITERS = {
    "text": lambda folder: write_atomic(folder / "a.json", ["{}"]),
    "checksums": lambda folder: checksums.claim(folder, ["x.safetensors"]),
    "rates": lambda folder: rates.record(folder, {"translate": 1.0}),
    "best model": lambda folder: checkpoints.copy_best_model(folder / "checkpoint-1", folder),
    "last use of a metric": lambda folder: segment_cache._warn_of_change(
        folder, "m", {"fingerprint": "b", "signature": "c"}
    ),
    "lines of shards": lambda folder: merge._replace(folder, "answers.jsonl", iter([b"{}"])),
}


@pytest.mark.parametrize("at", ["fsync", "replace"])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_writer_that_a_signal_stops_leaves_no_temporary_file(writer, at, tmp_path, monkeypatch):
    (tmp_path / "x.safetensors").write_text("x")
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    for name in ("trainer_state.json", "model.safetensors"):
        (checkpoint / name).write_text('{"global_step": 1, "max_steps": 2, "log_history": []}')
    checkpoints.mark_complete(checkpoint)
    before = {path for path in tmp_path.rglob("*") if not path.name.startswith(".")}

    monkeypatch.setattr(os, at, stop)
    with pytest.raises(signals.Stopped) if (writer, at) != ("last use of a metric", "fsync") else nullcontext():
        WRITERS[writer](tmp_path)
    left = {path for path in tmp_path.rglob("*") if not path.name.startswith(".")} - before
    assert {path.name for path in left} <= {"last.json"}


def test_processes_that_write_one_file_at_once_leave_that_of_one_of_them(tmp_path):
    """None renames, or removes, what another has written half."""
    path = tmp_path / "scores.json"
    code = (
        "import sys; from pathlib import Path; from topxgen.common.files import write_atomic\n"
        "path, name = Path(sys.argv[1]), sys.argv[2]\n"
        "for _ in range(60):\n    write_atomic(path, (name for _ in range(3000)))\n"
        "    text = path.read_text()\n    assert len(text) == 3000 and len(set(text)) == 1, text[:9]"
    )
    command = [sys.executable, "-c", code, str(path)]
    (tmp_path / "scores.json.partial").write_text("of a killed run")
    processes = [subprocess.Popen([*command, name], cwd=ROOT) for name in "abc"]
    assert [process.wait(300) for process in processes] == [0, 0, 0]
    assert [one.name for one in tmp_path.iterdir()] == ["scores.json"]


def test_a_writer_that_waits_for_a_suspended_one_names_it(tmp_path, monkeypatch):
    path, said = tmp_path / "scores.json", queue.Queue()
    code = (
        "import sys; from pathlib import Path; from topxgen.common.files import replacing\n"
        "with replacing(Path(sys.argv[1]), 'w'):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    monkeypatch.setattr(files, "LOG_WAITING_AFTER_S", 0.0)
    monkeypatch.setattr(files.logger, "info", said.put)
    command = [sys.executable, "-c", code, path]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"held\n"
        waiting = threading.Thread(target=write_atomic, args=(path, ["last"]))
        waiting.start()
        line = said.get(timeout=60)
        writer.stdin.close()
        waiting.join(60)
    assert f"{path}.partial is being written by process {writer.pid}: waiting" in line
    assert path.read_text() == "last"


def test_an_export_that_a_signal_stops_leaves_no_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setitem(export.FORMATS, "parquet", stop)
    with pytest.raises(signals.Stopped):
        export.export([Pair("a", "b", "English", "Basque", "1")], [], tmp_path, ["parquet"])
    assert not (tmp_path / "export.partial").exists()


def test_a_long_cell_of_a_language_table(tmp_path):
    (tmp_path / "a.tsv").write_text(f"name\tflores\n{'x' * 200_000}\txxx_Latn\n")
    with pytest.raises(UsageError, match=r"cannot read the language table .*field larger than field limit"):
        languages.load(str(tmp_path / "a.tsv"))


def test_any_torn_tail_is_repaired(tmp_path):
    path = tmp_path / "a.jsonl"
    odd = {"text": '\\"\x01\n\u2028', "n": [-0.5, 1e-7, 1e300, None, True, False, [{}]]}
    whole = [{"text": "euskara", "n": 1}, {"text": "नेपाली", "n": 2}, odd, {"text": "اردو" * 40000, "n": 3}]
    with Appender(path) as out:
        out.write(*whole)
    data = path.read_bytes()
    for cut in [*range(240), *random.Random(0).sample(range(len(data)), 40), len(data) - 1, len(data)]:
        path.write_bytes(data[:cut])
        repair_tail(path)
        # A record is kept exactly when all of it is there, with or without its line break.
        complete = data[: cut + 1].count(b"}\n")
        assert list(read_jsonl(path)) == whole[:complete]
        with Appender(path) as out:
            out.write({"n": 4})
        assert list(read_jsonl(path)) == [*whole[:complete], {"n": 4}]


@pytest.mark.parametrize(
    "line",
    ['{"text": "b"},', '{"text": "b"}]', '{"text": "b",}', '{"a": True}', '{"a": nan}', '{"a": "\t"}', '{"a": 1,,'],
)
def test_what_is_no_beginning_of_a_record_is_not_cut(line, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n' + line)
    with pytest.raises(UsageError, match="the last line is not a JSON object"):
        repair_tail(path)
    assert path.read_text() == '{"text": "a"}\n' + line


def test_what_cannot_be_utf8_does_not_end_a_run(tmp_path):
    with Appender(tmp_path / "a.jsonl") as out:
        out.write({"text": "a\ud800b\u2028c"})
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [{"text": "a?b\u2028c"}]


def test_lock_names_its_owner_and_dies_with_it(tmp_path):
    with locked(tmp_path) as owner, pytest.raises(UsageError, match=f"process {owner.pid} on "):
        OutputLock(tmp_path)
    OutputLock(tmp_path).release()


def test_records_without_ids_get_the_same_ones_each_time():
    lines = [{"text": "a"}, {"text": "a", "id": None}, {"text": "b", "id": "mine"}, {"text": "c", "id": "mine"}]
    names = [name for name, _ in with_ids(lines, "text")]
    assert names == [name for name, _ in with_ids(lines, "text")] and len(set(names)) == 4
    assert names[2:] == ["mine", "mine#2"], "an id that stood before gets its count behind it"


@pytest.mark.parametrize("given", ["A A#2 A A#2", "A A A#2", "A A#2 A#3 A A A", "A-1.0 A-1.0 A-1.0#2 A-1.0#2 A-1.0"])
def test_ids_of_concatenated_files_are_unique_also_where_some_have_counts(given):
    names = [name for name, _ in with_ids([{"id": name} for name in given.split()], "text")]
    assert len(set(names)) == len(names) and names[0] == given.split()[0]
    assert [name for name, _ in with_ids([{"id": name} for name in names], "text")] == names


def test_example_sources_from_folders(tmp_path):
    basque = languages.find("Basque")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "eus_Latn.dev").write_text("Bat.\nBi.\n", encoding="utf-8")
    with pytest.raises(UsageError, match="flores dev has 2 texts instead of 997"):
        examples.example_sentences(str(tmp_path), basque)
    assert examples.example_sentences(str(tmp_path), basque, allow_partial=True) == ["Bat.", "Bi."]
    (tmp_path / "Spanish.txt").write_text("Uno.\nDos.\n", encoding="utf-8")
    (tmp_path / "fra_Latn.txt").write_text("Un.\n", encoding="utf-8")
    assert examples.example_paragraphs(str(tmp_path)) == {"Spanish": ["Uno.", "Dos."], "French": ["Un."]}
    with pytest.raises(UsageError, match="no sentences in Hausa"):
        examples.example_sentences(str(tmp_path), languages.find("Hausa"))


def test_xquad_in_its_publishers_layout():
    if not (BENCHMARKS / "xquad").is_dir():
        pytest.skip("XQuAD is not on this machine")
    pool = examples.example_paragraphs(str(BENCHMARKS))
    assert len(pool) == 12 and {len(texts) for texts in pool.values()} == {240}
    assert examples.example_sentences(str(BENCHMARKS), languages.find("English"))[:1]


@pytest.mark.skipif(not shutil.which("apertium"), reason="Apertium is not installed (scripts/setup.sh does it)")
def test_apertium_keeps_order_and_counts_unknown_words():
    from topxgen.translation.apertium import Apertium

    apertium, basque, english = Apertium(), languages.find("Basque"), languages.find("English")
    sentences = examples.udhr(basque)
    together = apertium.translate(sentences, basque, english)
    alone = [apertium.translate([sentence], basque, english)[0] for sentence in sentences[:8]]
    assert together[:8] == alone and len(together) == len(sentences)
    assert all(0 <= translation.confidence <= 1 and "*" not in translation.text for translation in together)
    known, unknown, odd, empty = apertium.translate(
        ["Umeak etxera joan dira.", "Umeak xyzzyqw joan dira.", "*izarra #etxea @a\n\nlerro berria\x00.", ""],
        basque,
        english,
    )
    assert known.confidence == 1 and unknown.confidence == 0.75 and "xyzzyqw" in unknown.text
    assert "\n" not in odd.text and empty.text == "" and empty.confidence == 0
    assert apertium.translate([], basque, english) == []


def test_a_disk_that_is_full_keeps_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    code = (
        "import resource, signal, sys; from pathlib import Path; from topxgen.common.files import write_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_atomic(Path(sys.argv[1]), ['x' * 100_000])"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and "File too large" in result.stderr
    assert path.read_text() == "old" and [one.name for one in tmp_path.iterdir()] == ["report.html"]
