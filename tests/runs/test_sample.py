"""scripts/sample.py: pairs in a terminal and in a pipe."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys

import pytest
import wcwidth

from scripts.sample import DIM, END_OF_ISOLATE, ISOLATE, LEFT_TO_RIGHT_MARK, side_by_side
from tests.support import synthetic_run
from tests.support.runs import ROOT, in_process
from topxgen.runs.rows import Row


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return synthetic_run.make(tmp_path_factory.mktemp("sample"), 400, ("Basque", "Urdu")).folder


def sample(folder, *flags) -> list[list[str]]:
    result = in_process("scripts/sample.py", folder, *flags)
    assert result.returncode == 0, result.stderr
    return [line.split("\t") for line in result.stdout.splitlines()]


def row(**values) -> Row:
    given = {
        "id": "Basque-1.0/p0",
        "state": "kept",
        "language": "Basque",
        "target_language": "English",
        "paragraph_id": "Basque-1.0",
    }
    return Row(**{**given, "index": 0, "sentence": "Kaixo.", "translation": "Hello.", **values})


def test_a_pipe_gets_a_line_for_each_pair_that_was_kept(folder):
    found = sample(folder, "--language", "Basque", "-n", "7")
    kept = {
        (sentence, translation)
        for line in (folder / "nllb-200-3.3B" / "Basque_translate_filtered.jsonl").read_text("utf-8").split("\n")[:-1]
        for record in [json.loads(line)]
        for sentence, translation in zip(record["propositions"], record["translations"], strict=True)
    }
    plain = {tuple(" ".join(text.split()) for text in texts) for texts in kept}
    assert len(found) == 7 and len({line[0] for line in found}) == 7
    for id_, language, reason, score, sentence, translation in found:
        assert (language, reason) == ("Basque", "") and float(score) > 0 and id_.startswith("Basque-")
        assert (sentence, translation) in plain or "\\x" in sentence + translation
    assert sample(folder, "--language", "eus", "-n", "7") == found, "the same seed draws the same, a code is a language"
    assert sample(folder, "--language", "Basque", "-n", "7", "--seed", "1") != found
    everything = sample(folder, "-n", "10000")
    assert {line[1] for line in everything} == {"Basque", "Urdu"} and {line[2] for line in everything} == {""}


def test_rejects_for_a_reason_or_any(folder):
    found = sample(folder, "--rejected", "sentence_too_short", "-n", "5")
    assert {line[2] for line in found} == {"sentence_too_short"}
    reasons = {line[2] for line in sample(folder, "--rejected", "-n", "10000")}
    assert (
        "" not in reasons and {"near_duplicate", "sentence_too_short", "overlap_in_sentence", "not_chosen"} <= reasons
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--language", "Basqe"),
            "--language Basqe: {} has no pairs of it (languages: Basque, Urdu) (did you mean Basque?)",
        ),
        (("--rejected", "sentence_to_short"), "(did you mean sentence_too_short?)"),
        (("-n", "0"), "'0' is not a whole number"),
    ],
)
def test_what_cannot_be_meant_is_one_line(folder, flags, message):
    result = in_process("scripts/sample.py", folder, *flags)
    assert result.returncode == 2 and message.format(folder) in result.stderr and result.stderr.count("\n") == 1


def test_a_run_without_pairs_says_so(tmp_path):
    result = in_process("scripts/sample.py", tmp_path)
    assert (result.returncode, result.stderr) == (2, f"sample.py: error: {tmp_path}: no pairs yet\n")


def test_a_language_is_found_under_all_its_names(folder, tmp_path):
    run = shutil.copytree(folder, tmp_path / "run")
    for path in [*run.glob("Basque*"), *(run / "nllb-200-3.3B").glob("Basque*")]:
        shutil.copy(path, path.with_name(path.name.replace("Basque", "eus_Latn")))
    found = sample(run, "--language", "Basque", "-n", "10000")
    assert {line[1] for line in found} == {"Basque", "eus_Latn"}


def test_a_run_that_has_only_paragraphs_has_no_pairs_yet(tmp_path):
    (tmp_path / "settings_generate.json").write_text("{}")
    (tmp_path / "Basque.jsonl").write_text('{"text": "Kaixo denoi.", "id": "Basque-0.0"}\n')
    result = in_process("scripts/sample.py", tmp_path)
    assert result.returncode == 2 and f"{tmp_path}: no pairs yet, only paragraphs" in result.stderr


def test_columns_are_as_wide_as_they_should_be():
    texts = {"sentence": "漢字の文 " * 12 + "e\u0301 👩‍👩‍👧 ក្រុង", "translation": "a " * 60}
    lines = side_by_side(row(**texts), 60, colours=False, isolate=True)
    assert lines[0] == "kept  Basque-1.0/p0" and len(lines) > 3
    for line in lines[1:]:
        left = wcwidth.clip(line, 0, 29)
        assert wcwidth.width(line) <= 60 and wcwidth.width(left) == min(29, wcwidth.width(line)) and ISOLATE not in line
        assert set(wcwidth.clip(line, 31, 60)) <= {"a", " "}
    words = " ".join(wcwidth.clip(line, 0, 29).strip() for line in lines[1:]).split()
    assert words == texts["sentence"].split()


def test_right_to_left_text_is_at_the_right_of_its_column_and_isolated():
    lines = side_by_side(row(language="Urdu", sentence="یہ ایک جملہ ہے"), 50, colours=False, isolate=True)
    text = lines[1]
    assert text.startswith(f"{LEFT_TO_RIGHT_MARK}{ISOLATE}  ") and text.index("ہے") < text.index(END_OF_ISOLATE)
    assert f"یہ ایک جملہ ہے{END_OF_ISOLATE}  {ISOLATE}Hello." in text
    plain = side_by_side(row(language="Urdu", sentence="یہ ایک جملہ ہے"), 50, colours=False, isolate=False)
    assert not set(plain[1]) & {LEFT_TO_RIGHT_MARK, ISOLATE, END_OF_ISOLATE}


def test_texts_cannot_drive_the_terminal():
    hostile = row(
        sentence="a \x1b[31mb\u202e c\td\ne", topic="\x1b]0;x\x07", state="rejected", reason="empty", detail="\x1b[2J"
    )
    text = "\n".join(side_by_side(hostile, 60, colours=False, isolate=False))
    assert "\x1b" not in text and "\u202e" not in text and "\x07" not in text and "\\x1b" in text
    assert text.splitlines()[0].startswith("empty (\\x1b[2J)")


def test_a_text_without_a_translation_has_all_the_width():
    lines = side_by_side(
        row(state="text", reason="too_few_words", translation=None, sentence="bat " * 30), 60, False, False
    )
    assert max(map(len, lines[1:])) > 50


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_are_for_terminals_that_want_them(folder, variables, coloured):
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "72", **variables}
    environment = {name: value for name, value in environment.items() if name != "NO_COLOR" or "NO_COLOR" in variables}
    command = [sys.executable, "scripts/sample.py", str(folder), "--language", "Basque", "-n", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=terminal, env=environment):
        os.close(terminal)
        output = b""
        while True:
            try:
                block = os.read(main, 1 << 16)
            except OSError:
                break
            if not block:
                break
            output += block
    os.close(main)
    text = output.decode()
    assert (DIM in text) == coloured and ("\x1b" in text) == coloured
    lines = [re.sub(r"\x1b\[\d*m", "", line).rstrip("\r") for line in text.split("\n")]
    assert 60 < max(map(wcwidth.width, lines[1:])) <= 72
