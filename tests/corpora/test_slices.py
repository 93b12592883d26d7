"""Slices of local text sources, in the formats that have lines or rows, and the records that tell slices apart."""

import csv
import hashlib
import json
from pathlib import Path

import pytest

from comptra import evaluation_sets
from tests.support.runs import BENCHMARKS
from topxgen.common.errors import UsageError
from topxgen.corpora import benchmarks, tables
from topxgen.corpora.slices import ALL, Slice, split_slice
from topxgen.text import languages

BASQUE, ENGLISH = map(languages.find, ("Basque", "English"))
TEXTS = [f"Testu {i}." for i in range(5)]


def write(path: Path, texts=TEXTS) -> Path:
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"Basque": texts, "n": list(range(len(texts)))}), path)
    elif path.suffix in (".tsv", ".csv"):
        with open(path, "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, "excel-tab" if path.suffix == ".tsv" else "excel")
            rows.writerows([["n", "Basque"], *enumerate(texts)])
    elif path.suffix == ".json":
        path.write_text(json.dumps([{"Basque": text} for text in texts]))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"Basque": text}) + "\n" for text in texts))  # empty lines are no rows
    else:
        path.write_text("".join(f"{text}\n" for text in texts))
    return path


def texts_of(name: str) -> list[str]:
    (split,) = benchmarks.load(name, BASQUE)
    return split.texts


def refusal(name: str) -> str:
    with pytest.raises(UsageError) as error:
        benchmarks.load(name, BASQUE)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", [*tables.SUFFIXES])
def test_a_slice_has_the_lines_that_python_counts(tmp_path, suffix):
    path = write(tmp_path / f"Basque{suffix}")
    for text, part in (("2:", slice(2, None)), (":2", slice(2)), ("1:4", slice(1, 4)), ("4:5", slice(4, 5))):
        assert texts_of(f"{path}[{text}]") == TEXTS[part], text
    assert texts_of(f"{path}[:]") == texts_of(f"{path}[0:5]") == texts_of(str(path)) == TEXTS
    assert texts_of(f"{path}[1:3]:Basque{'' if suffix == '.txt' else '=Basque'}") == TEXTS[1:3]
    for text in (":6", "5:", "2:9", "7:"):
        assert f"{path}[{text}] goes beyond the end: {path} has 5 lines" in refusal(f"{path}[{text}]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no slice"),
        ("900", "'900' is no slice: write [start:stop]"),
        ("-2:", "negative numbers and steps are not supported"),
        ("::2", "'::2' is no slice"),
        ("1:4:2", "'1:4:2' is no slice"),
        ("1 :3", "'1 :3' is no slice"),
        (":" + "9" * 30, "is no slice"),
        ("3:3", "is empty: it ends at line 3, before its first, 3"),
        ("3:1", "is empty"),
        (":0", "is empty"),
    ],
)
def test_slices_that_cannot_be(tmp_path, text, message):
    path = write(tmp_path / "Basque.txt")
    assert message in refusal(f"{path}[{text}]")


def test_names_that_are_not_slices(tmp_path):
    assert split_slice("a[b].txt") == ("a[b].txt", ALL) and split_slice("a[b]") == ("a[b]", ALL)
    assert split_slice("a[1].txt[2:3]") == ("a[1].txt", Slice(2, 3))
    write(tmp_path / "Basque.txt")
    assert texts_of(f"{tmp_path}/Basque.txt[:2]") == TEXTS[:2]
    named = write(tmp_path / "Basque.txt[:2]", ["Beste bat."])  # as browsers and shells may name a copy
    assert tables.split_source(str(named)) == (named, ALL, "")
    assert evaluation_sets.load(
        "files", ENGLISH, BASQUE, folder=None, max_samples=None, test_files=(write(tmp_path / "a", ["One."]), named)
    ).references == ["Beste bat."]
    assert "is a slice of a folder" in refusal(f"{tmp_path}[:2]")
    assert "there is no file or folder" in refusal(f"{tmp_path}/none.txt[:2]")


def test_only_the_lines_of_the_slice_are_read(tmp_path):
    path = tmp_path / "Basque.jsonl"
    path.write_text('{"Basque": "Bat."}\n{"Basque": "Bi."}\n{"Basque": torn\n')
    assert texts_of(f"{path}[:2]") == ["Bat.", "Bi."]
    assert "line 3 is not JSON" in refusal(f"{path}[2:3]")


def test_ids_are_those_of_the_file_and_digests_those_of_the_slice(tmp_path):
    path = write(tmp_path / "Basque.txt")
    (split,) = benchmarks.load(f"{path}[2:4]", BASQUE)
    assert (split.ids, split.source) == (["3", "4"], f"{path}[2:4]")
    assert split.fingerprint == hashlib.sha256("\n".join(TEXTS[2:4]).encode()).hexdigest()


def own(test, **more):
    return evaluation_sets.load("files", ENGLISH, BASQUE, folder=None, max_samples=None, test_files=test, **more)


def test_test_sets_and_pools_of_slices(tmp_path, monkeypatch):
    source = write(tmp_path / "source.txt", [f"Text {i}." for i in range(5)])
    target = write(tmp_path / "target.any")
    parts = {part: [Path(f"{path}{part}") for path in (source, target)] for part in ("[:3]", "[3:]", "[2:4]")}
    found = own(parts["[3:]"], pool_files=parts["[:3]"])
    assert (found.sources, found.references) == (["Text 3.", "Text 4."], TEXTS[3:])
    assert found.pool == [(f"Text {i}.", TEXTS[i]) for i in range(3)]
    assert found.facts["test"]["references"]["from"] == f"{target}[3:]"
    assert found.facts["test"]["sources"]["sha256"] != own(parts["[2:4]"]).facts["test"]["sources"]["sha256"]
    cut = write(tmp_path / "cut.txt", TEXTS[3:])  # a file that was cut already
    assert own((parts["[3:]"][0], cut)).references == TEXTS[3:]
    for first, second in (("[:3]", "[2:5]"), ("[3:]", "[2:4]")):
        sides = Path(f"{source}{first}"), Path(f"{target}{second}")
        with pytest.raises(UsageError, match="are different slices"):
            own(sides)
    table = write(tmp_path / "both.tsv")
    assert own([Path(f"{table}[1:2]:English=n"), Path(f"{table}[1:2]:Basque=Basque")]).sources == ["1"]
    with pytest.raises(UsageError, match="stands for both sides"):
        own([parts["[:3]"][1]] * 2)


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="no copies of the benchmarks here")
def test_slices_of_ntrex_are_its_published_parts():
    path = BENCHMARKS / "NTREX-128" / "newstest2019-ref.eus.txt"
    test, pool = benchmarks.load("ntrex", BASQUE, BENCHMARKS)
    assert texts_of(f"{path}[:1000]:Basque") == test.texts and texts_of(f"{path}[1000:]:Basque") == pool.texts
