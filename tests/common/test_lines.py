"""LF, CR LF and CR end a line, in every reader; what else str.splitlines takes for an end of line does not."""

import json

import pytest

from comptra import answer_parsing
from tests.support.runs import ROOT
from topxgen.common.lines import separators_to_spaces, split_lines
from topxgen.corpora.tables import read_columns, read_lines
from topxgen.corpora.topics import read_topics
from topxgen.generation.parsing import numbered_texts, whole_text
from topxgen.generation.prompt_templates import load as load_prompt
from topxgen.prompting.answers import clean_answer

INSIDE = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
inside = pytest.mark.parametrize("char", INSIDE, ids=lambda char: f"U+{ord(char):04X}")


@pytest.mark.parametrize(
    "call, remedy",
    [
        (".splitlines(", "use topxgen.common.lines.split_lines"),
        (".expanduser()", "use os.path.expanduser, which takes ~nobody for a name"),
    ],
)
def test_banned_calls(call, remedy):
    files = [
        *ROOT.glob("*.py"),
        *(path for folder in ("topxgen", "comptra", "scripts") for path in (ROOT / folder).rglob("*.py")),
    ]
    banned = [path for path in files if call in path.read_text(encoding="utf-8")]
    assert len(files) > 100 and not banned, remedy


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("text", ["a", "a\nb", "a\nb\n", "\n", "\n\na\n\n", ""])
def test_split_lines_is_splitlines_at_line_breaks(text, end):
    assert split_lines(text.replace("\n", end)) == text.splitlines()


@inside
def test_a_translation_stays_whole(char):
    """A consumer of the file that uses str.splitlines, as sacreBLEU's users do, reads one line, too."""
    answer = f"Gizon-emakume guztiak aske jaiotzen dira.{char}Inor ez da esklabotzan egongo.\nNote: none."
    whole = "Gizon-emakume guztiak aske jaiotzen dira. Inor ez da esklabotzan egongo."
    assert clean_answer(answer) == answer_parsing.line(answer) == whole
    assert answer_parsing.translation(f"Translation: {answer}", "Translation:") == whole
    assert clean_answer(f"{char}{answer}") == whole
    assert (
        separators_to_spaces(f"a {char}{char} b") == "a b"
        and separators_to_spaces("a\u00a0b  c\td") == "a\u00a0b  c\td"
    )


@inside
def test_generated_texts_and_lists_stay_whole(char):
    assert numbered_texts(f"1. Bat{char}2. bi\n2. Hiru", 2) == ["Bat 2. bi", "Hiru"]
    assert whole_text(f"Bat{char}bi") == ["Bat bi"]
    assert answer_parsing.list_items(f"1. Bat{char}bi\n2. Hiru") == ["Bat bi", "Hiru"]


@inside
def test_topics_prompts_and_tables_stay_whole(char, tmp_path):
    def write(name: str, text: str):
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        return tmp_path / name

    topics = [f"History of{char}Basque people", "Physics"]
    assert read_topics(write("wiki.txt", "\n".join(topics))) == topics
    rows = "\n".join(json.dumps({"topic": topic}, ensure_ascii=False) for topic in topics)
    # JSON escapes the control characters among them.
    assert read_topics(write("topics.jsonl", rows)) == topics
    lines = [f"Bat{char}bi", "Hiru"]
    assert read_lines(write("a.txt", "\n".join(lines))) == lines
    for name, sep in (("a.tsv", "\t"), ("a.csv", ",")):
        rows = "".join(f"{line}{sep}x\n" for line in lines)
        assert [text for _, text in read_columns(write(name, rows))[0][1]] == lines
    older = (ROOT / "tests/generation/older_prompts/instruct.txt").read_text(encoding="utf-8")
    assert load_prompt(str(write("p.txt", f"# a comment{char}stop: 1\n{older}"))).stop == ()


def test_cr_ends_lines_of_answers():
    assert clean_answer("Kaixo.\rNote: none.") == "Kaixo."
    assert answer_parsing.line("Here:\r\rKaixo.\rNote.") == "Kaixo."
    assert answer_parsing.translation("x\rTranslation: Kaixo.\ry", "Translation:") == "Kaixo."
    assert answer_parsing.list_items("1. a\r2. b") == ["a", "b"]
    assert numbered_texts("1. a\r2. b", 2) == ["a", "b"]


@pytest.mark.parametrize(
    "name, content, rows",
    [
        ("a.txt", "Bat\rBi\r", ["Bat", "Bi"]),
        ("a.txt", "Bat\rBi", ["Bat", "Bi"]),
        ("a.txt", "Bat\r\rBi", ["Bat", "", "Bi"]),
        ("a.txt", "Bat\rbi\nHiru", ["Bat\rbi", "Hiru"]),
        ("a.tsv", "Bat\t1\rBi\t2\r", ["Bat", "Bi"]),
        ("a.csv", '"Bat",1\r"Bi",2\r', ["Bat", "Bi"]),
        ("a.jsonl", '{"text": "Bat"}\r{"text": "Bi"}\r', ["Bat", "Bi"]),
        ("a.json", '[{"text": "Bat"},\r{"text": "Bi"}]\r', ["Bat", "Bi"]),
    ],
)
def test_files_whose_lines_end_in_cr_alone(tmp_path, name, content, rows):
    (tmp_path / name).write_bytes(content.encode())
    assert [text for _, text in read_columns(tmp_path / name)[0][1]] == rows
