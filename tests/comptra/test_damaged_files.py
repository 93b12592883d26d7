"""Files of a run that are damaged or foreign: one line that names file, line and field, and what to do; nothing is lost."""

import json

import pytest

from tests.support.main_runs import folder_of, udhr
from tests.support.runs import in_process

BAD_LINES = [
    b'{"translation": "x"}',
    b'{"sentence": 3, "translation": "x"}',
    b'{"sentence": null, "translation": "x"}',
    b'{"sentence": "S", "translation": 3}',
    b'{"sentence": "S", "translation": ["x"]}',
    b'{"sentence": "S", "translation": {"a": 1}}',
    b'{"sentence": "S"}',
    b"[]",
    b"null",
    b"NaN",
    b'"text"',
    b"[" * 100_000,
    b'{"sentence": "S", "translation": ' + b"[" * 100_000,
    b"\xff\xfe",
    b"plain text",
    b'{"sentence": "S", "translation": "x"',
]
BAD_MANIFESTS = [
    "[]",
    "3",
    '{"settings": 3}',
    '{"settings": {"src": 3, "tgt": "Basque"}}',
    '{"settings": {"src": "English", "tgt": ["Basque"]}}',
    '{"settings": {"src": "English", "tgt": "Basque", "max_samples": "4"}}',
    '{"settings": {"src": "English", "tgt": "Basque"}, "test_set": []}',
    '{"settings": {"src": "English", "tgt": "Basque"}, "test_set": {"test": {"references": 3}}}',
    "{" * 100_000,
    "",
    "{",
]


def one_line(result, *words: str) -> None:
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    (line,) = (line for line in result.stderr.split("\n") if "error: " in line)
    assert len(line) < 600 and all(word in line for word in words), line


@pytest.fixture
def run(main_here, tiny_lm, tmp_path):
    """A folder with two lines, and the commands that read it."""
    folder = folder_of(tmp_path / "out", tiny_lm)
    folder.mkdir(parents=True)
    source = udhr(1).sources[0]
    good = json.dumps({"sentence": source, "translation": "itzulpena"}).encode()
    (folder / "translate_0.jsonl").write_bytes(good + b"\n")
    score = (
        "comptra.evaluate",
        tmp_path / "out",
        "--dataset_name_or_path",
        "udhr",
        "--metrics",
        "chrf",
        "--allow_partial",
    )
    return folder, good, lambda: main_here("--output_dir", tmp_path / "out"), lambda: in_process(*score)


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:40].decode("latin-1"))
def test_lines_of_translations(line, run):
    folder, good, translate, score = run
    path = folder / "translate_0.jsonl"
    second = json.dumps({"sentence": udhr(2).sources[1], "translation": "x"}).encode()
    path.write_bytes(b"\n".join([good, line, second]) + b"\n")
    before = path.read_bytes()
    for command in (translate, score):
        one_line(command(), "translate_0.jsonl, line 2: ", "fix or remove the line")
        assert path.read_bytes() == before


@pytest.mark.parametrize("text", BAD_MANIFESTS, ids=lambda text: text[:60])
@pytest.mark.parametrize("name", ["manifest_translate.json", "settings_translate.json"])
def test_manifests_and_settings(name, text, run):
    folder, _, translate, score = run
    (folder / name).write_text(text)
    if name.startswith("manifest"):
        one_line(score(), name, "restore it or remove it")
    elif text in BAD_MANIFESTS[:2] or not text.startswith('{"'):
        one_line(score(), name, "restore it or remove it")
        one_line(translate(), name, "restore it or remove it")


@pytest.mark.parametrize(
    "line",
    [
        '{"sentence": "S", "propositions": "x"}',
        '{"sentence": "S", "propositions": [3]}',
        '{"sentence": "S"}',
        "[]",
        "3",
    ],
)
def test_divisions(line, main_here, tiny_lm, tmp_path):
    room = folder_of(tmp_path, tiny_lm).parent
    room.mkdir(parents=True)
    (room / "divide_1.jsonl").write_text(f"{line}\n{line}\n")
    flags = ("--steps", 1, "--method_divide", "space", "--lid_model", "cld2", "--max_samples", 2)
    one_line(main_here("--output_dir", tmp_path, *flags), "divide_1.jsonl, line 1: ", "fix or remove the line")


@pytest.mark.parametrize("text", ["[]", "3", '{"0": [1]}', '{"0": null}', "{" * 100_000])
def test_parents(text, main_here, tiny_lm, tmp_path):
    room = folder_of(tmp_path, tiny_lm).parent
    room.mkdir(parents=True)
    (room / "parent_1.jsonl").write_text(text)
    flags = ("--steps", 1, "--method_divide", "space", "--lid_model", "cld2", "--max_samples", 2)
    one_line(main_here("--output_dir", tmp_path, *flags), "parent_1.jsonl: ", "made again from divide_1.jsonl")
