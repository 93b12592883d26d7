"""scripts/doctor.py about disks and locks."""

import errno
import fcntl
import json
import os
import re
from pathlib import Path

import pytest

from tests.support.doctor_runs import findings, llama_8b, of, write_run
from tests.support.runs import in_process
from topxgen.doctor import storage


def test_a_disk_that_will_be_full(tmp_path):
    """Eight checkpoints of 8 B parameters with their optimizer are more than any machine of the tests has."""
    run = write_run(tmp_path, llama_8b(tmp_path / "llama"), train="save_total_limit: 1000")
    [text] = of(findings(run, code=1), "disk", "problem")
    assert "will end with a full disk -> make room" in text


def test_merged_adapters_are_copies_of_the_model(tmp_path):
    """Of an experiment with merge_adapters: 16 GB for each variant and seed; adapters alone take little."""
    train = f"{{model_name_or_path: {llama_8b(tmp_path / 'llama')}, use_peft: true, dataset_name_or_path: udhr, target_languages: Basque}}"
    main = "{dataset_name_or_path: udhr, src: English, tgt: Basque, inference_api: hf, k: 0}"
    written = []
    for merges in ("false", "true"):
        run = tmp_path / "variants.yaml"
        text = f"output_dir: {tmp_path}/out\nseeds: [1, 2]\ntrain: {train}\nmain: {main}\nvariants: {{a: {{}}}}\n"
        run.write_text(f"{text}merge_adapters: {merges}\n")
        result = in_process("scripts/doctor.py", run, "--json")
        (space,) = (one["text"] for one in json.loads(result.stdout)["findings"] if one["subject"] == "output_dir")
        written.append(float(re.search(r"writes up to about ([\d.,]+) GB", space)[1]))
    assert written[1] - written[0] == pytest.approx(2 * 16.06, abs=0.2)


def test_a_folder_that_cannot_be_written_to(tmp_path, tiny_lm):
    [text] = of(findings(write_run(tmp_path, tiny_lm, out=Path("/proc/doctor")), code=1), "disk", "problem")[:1]
    assert "cannot write to /proc" in text and "pass another --output_dir" in text


@pytest.mark.parametrize(
    ("failure", "level", "says"),
    [
        (errno.ENOLCK, "note", "ENOLCK): a file with a heartbeat keeps others out"),
        (errno.EIO, "problem", "a file cannot be locked (Input/output error)"),
        (None, "problem", "grants a lock twice"),
        (0, "ok", "has POSIX record locks"),
    ],
)
def test_file_systems_with_and_without_locks(tmp_path, monkeypatch, failure, level, says):
    if failure != 0:

        def lockf(*_):
            if failure:
                raise OSError(failure, os.strerror(failure))

        monkeypatch.setattr(fcntl, "lockf", lockf)
    finding = storage._lock(tmp_path)
    assert finding.level == level and says in finding.text
    assert not list(tmp_path.iterdir())


def test_locks_of_network_file_systems_are_not_taken_for_granted(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "filesystem", lambda place: "nfs4")
    assert storage._lock(tmp_path).level == "note" and "unknown: whether other machines" in storage._lock(tmp_path).text
