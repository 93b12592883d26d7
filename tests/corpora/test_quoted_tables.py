"""TSV files as pandas and Excel write them, and as plain text with quotation marks."""

import csv
import gzip
import io
import re
from pathlib import Path

import pytest

from comptra import evaluation_sets
from topxgen.common.errors import UsageError
from topxgen.corpora.tables import columns_in, csv_rows, read_columns, tsv_rows
from topxgen.corpora.topics import read_topics
from topxgen.text import languages
from topxgen.training.dataset_spec import DatasetSpec
from topxgen.training.training_data import load, stream

BASQUE, ENGLISH = languages.find("Basque"), languages.find("English")
ROWS = [
    ["English", "Basque"],
    ["One.", "Bat."],
    ['He said ""hi"" to "me".', "“Kaixo” esan zuen."],
    ['"Two."', '"Bi."'],
    ["Three", '"'],
    ['"Four," said "he"', "Lau's"],
]


def write(path: Path, rows: list[list[str]], quoting=csv.QUOTE_MINIMAL, end="\n") -> Path:
    out = io.StringIO()
    csv.writer(out, delimiter="\t", quoting=quoting, lineterminator=end).writerows(rows)
    path.write_text(out.getvalue(), encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_a_file_that_is_quoted_as_csv_is_read_without_its_quoting(tmp_path, quoting, end):
    path = write(tmp_path / "a.tsv", ROWS, quoting, end)
    assert list(tsv_rows(path)) == list(enumerate(ROWS, start=1))
    sides = [[text for _, text in rows] for _, rows in read_columns(path)]
    assert sides == [[row[i] for row in ROWS[1:]] for i in (0, 1)]
    test_set = evaluation_sets.load(
        "files", ENGLISH, BASQUE, folder=None, max_samples=None, test_files=(path, path), need_pool=False
    )
    assert [*zip(test_set.sources, test_set.references, strict=True)] == [tuple(row) for row in ROWS[1:]]
    spec = DatasetSpec(str(path), ENGLISH, (BASQUE,), input_column_name="English", output_column_name="Basque")
    assert [[pair.source, pair.target] for pair in load(spec)[0]] == ROWS[1:]
    assert [[row["source"], row["target"]] for row in stream(spec)] == ROWS[1:]


@pytest.mark.parametrize("inside", ["\t", "\n", "\n\n"])
def test_a_quoted_cell_may_hold_tabs_and_line_feeds(tmp_path, inside):
    rows = [ROWS[0], [f"One{inside}two.", "Bat."], ["Three.", f"Hiru{inside}lau."], ["Five.", "Bost."]]
    numbers = [1, 2, 3 + inside.count("\n"), 4 + 2 * inside.count("\n")]
    assert list(tsv_rows(write(tmp_path / "a.tsv", rows))) == list(zip(numbers, rows, strict=True))


def test_a_quoted_cell_may_hold_a_cr(tmp_path):
    rows = [ROWS[0], ["One.\rTwo.", "Bat."], ["Three.", "Hiru."]]
    assert [row for _, row in tsv_rows(write(tmp_path / "a.tsv", rows, end="\r\n"))] == rows


def test_excel_quotes_cells_with_commas(tmp_path):
    rows = [ROWS[0], ["One, two.", "Bat."], ["Three.", "Hiru, lau."], ["Five.", "Bost."]]
    path = tmp_path / "a.tsv"
    path.write_text('English\tBasque\n"One, two."\tBat.\nThree.\t"Hiru, lau."\nFive.\tBost.\n')
    assert [row for _, row in tsv_rows(path)] == rows


@pytest.mark.parametrize("text", ['"He said \\"hi\\"."\t"Bat."\n', 'He said \\"hi\\".\tBat.\n', '"Two."\t"\\"Bi\\""\n'])
def test_quotation_marks_behind_backslashes_are_refused(tmp_path, text):
    """As R's write.table and Python's escapechar write them: they would be read as parts of the text."""
    path = tmp_path / "a.tsv"
    path.write_text(f"English\tBasque\n{text}")
    with pytest.raises(UsageError, match=rf"{path}, line 2: a backslash escapes a quotation mark.* doubled"):
        read_columns(path)


@pytest.mark.parametrize(
    "name, text, says",
    [
        ("a.csv", 'English,Basque\nHe said \\"hi\\" to me.,"Bat, bi."\n', "line 2: a backslash escapes a quotation mark"),
        ("a.csv", "English;Basque\nOne.;Bat.\n", "a.csv: cells are separated by ';', which is not read in .csv"),
        ("a.csv", 'English\tBasque\nOne.\tBat.\n', "cells are separated by a tab"),
        ("a.tsv", "English,Basque\nOne.,Bat.\n", "cells are separated by ','"),
        ("a.csv", "English,Basque\n'It''s one, two.',Bat.\n'It''s one.',Bat.\n", "line 3: 'It''s one.' is quoted by single quotes"),
        ("a.tsv", "English\tBasque\n'It''s \"one\".'\tBat.\n", "line 2: 'It''s \"one\".' is quoted by single quotes"),
    ],
)  # fmt: skip
def test_other_quoting_is_refused(name, text, says, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=re.escape(says)):
        read_columns(tmp_path / name)


def test_backslashes_and_single_quotes_of_the_texts_stay(tmp_path):
    rows = [["English", "Basque"], ["'Two.'", "''"], ["C:\\dir\\, it's", 'Say "C:\\"']]
    (tmp_path / "a.csv").write_text('English,Basque\n\'Two.\',\'\'\n"C:\\dir\\, it\'s","Say ""C:\\"""\n')
    assert [row for _, row in csv_rows(tmp_path / "a.csv")] == rows
    assert [row for _, row in tsv_rows(write(tmp_path / "a.tsv", rows, csv.QUOTE_ALL))] == rows


def test_bold_type_of_wikis_and_escaped_marks_of_the_texts_stay(tmp_path):
    rows = [["English", "Basque"], ["'''One'''", "Bat"], ['Say \\"hi\\" now', "Bi"]]
    (tmp_path / "a.csv").write_text("English,Basque\n'''One''',Bat\n\"Say \\\"\"hi\\\"\" now\",Bi\n")
    assert [row for _, row in csv_rows(tmp_path / "a.csv")] == rows


@pytest.mark.parametrize(
    "text",
    [
        '"One.\t"Bat\nShe said "Two".\tBi\n',
        'He said "wash".\t"Karaba" intoki.\n"A" and "B"\t"Bat"\n"C"\tBi\n',
        '"One."\tBat.\n"Two."\tBi.\nThree.\tHiru.\n',
        '"One."\tBat.\nTwo.\tBi.\n',
        'English\tBasque\n"One."\tBat.\n',
        '"One."\tBat.\n"Two.\n',
        "One.\tBat.\nTwo.\n",
        '12" records\tx\n""\ty\n',
        '"One, two."\tBat.\nThree, four.\t"Hiru, lau."\n',
        '"One, two."\tBat.\n"Three."\tHiru.\nFour.\tLau.\n',
        'He said \\"hi\\".\tBat.\nShe said "hi".\tBi.\n',
    ],
)
def test_quotation_marks_of_the_texts_stay(tmp_path, text):
    path = tmp_path / "a.tsv"
    path.write_text(text)
    assert list(tsv_rows(path)) == [(i, line.split("\t")) for i, line in enumerate(text[:-1].split("\n"), start=1)]


@pytest.mark.parametrize(
    "text, line, cell",
    [
        ('"a ""b"" c"\tBat\nshe said "Two".\tBi\n', 2, "'she said \"Two\".'"),
        ('x\t12"\n"a ""b"" c"\tBat\n', 1, "'12\"'"),
        ('"a ""b"" c"\tBat\ny\tz\n"Two\tBi\n', 3, "'\"Two'"),
    ],
)
def test_a_file_that_is_quoted_in_part_is_refused_with_the_line(tmp_path, text, line, cell):
    path = tmp_path / "a.tsv"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        read_columns(path)
    assert str(error.value).startswith(f"{path}, line {line}: {cell} has a quotation mark but is not quoted")
    assert "convert the file to .jsonl" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, text, says",
    [
        ("a.csv", "English,Basque\nOne, two.,Bat\n", "line 2: 3 columns instead of 2"),
        ("a.csv", "English,Basque\nOne.,Bat.\n\nTwo.,Bi, hiru.\n", "line 4: 3 columns instead of 2"),
        ("a.tsv", "English\tBasque\nOne.\tBat\tbi.\n", "line 2: 3 columns instead of 2"),
        ("a.tsv", "One.\tBat.\nTwo.\tBi\thiru.\n", "line 2: 3 columns instead of 2"),
        ("a.csv", "Basque,English,Basque\nBat.,One.,Bi.\n", "has 2 columns 'Basque'; rename or remove the others"),
    ],
)
def test_a_cell_that_would_be_cut_or_passed_over_is_refused(name, text, says, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        columns_in(BASQUE, read_columns(path), str(path), {BASQUE.flores: ["Basque"]})


@pytest.mark.parametrize(
    "text",
    [
        "English,Basque,\nOne.,Bat.,\n",
        "English,Basque\nOne.,Bat., \n",
        'English, Basque\n"One.", "Bat."\n',
        "English,Basque\nOne.,Bat.\n\n",
    ],
)
def test_empty_cells_and_spaces_beside_separators(text, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    columns = {label: [text for _, text in rows if text] for label, rows in read_columns(tmp_path / "a.csv")}
    assert columns["English"] == ["One."] and columns["Basque"] == ["Bat."]


@pytest.mark.parametrize(
    "content, hint",
    [
        ("Basque\tEnglish\nkaixo\thello\n".encode("utf-16"), "it is UTF-16"),
        ("Basque\tEnglish\nkaixo\thello\n".encode("utf-16-le"), "it holds NUL characters"),
        ("Basque\tEnglish\nma\xf1a\thello\n".encode("latin-1"), "it is not UTF-8 .Latin-1"),
        (gzip.compress(b"Basque\tEnglish\nkaixo\thello\n", mtime=0), "it is gzip-compressed"),
    ],
)
def test_another_encoding_is_named(content, hint, tmp_path):
    for name in ("mine.tsv", "mine.csv", "mine.txt"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=rf"cannot read \S+{name}: {hint}"):
            read_columns(tmp_path / name)
    with pytest.raises(UsageError, match=rf"cannot read the topics file \S+mine.txt: {hint}"):
        read_topics(tmp_path / "mine.txt")
