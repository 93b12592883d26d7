"""Both sets written for other tools, and read again."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.pairs import ENGLISH, SORBIAN, refusal, some_pairs, source
from topxgen.corpora import hub_sets
from topxgen.training.dataset_spec import DatasetSpec
from topxgen.training.export import FORMATS, export
from topxgen.training.pairs import Pair, reverse, split
from topxgen.training.training_data import load, stream

pytestmark = pytest.mark.usefixtures("no_shared_cache")


def exported(path: Path, part: str) -> list[Pair]:
    return load(DatasetSpec(str(path), ENGLISH, (), split=part))[0]


@pytest.mark.parametrize("form", FORMATS)
def test_exports_load_back(tmp_path, form):
    found = [
        *some_pairs(20),
        *some_pairs(10, "Hausa"),
        Pair('A\tB "quoted" one.', "नेपाली\u2028 एक ।", "English", "Nepali", "x"),
    ]
    train, test = (reverse(part) for part in split(found, 5, 1))
    written = export(train, test, tmp_path / "out", [form])
    assert written == sorted((tmp_path / "out").iterdir())
    for part, expected in (("train", train), ("test", test)):
        loaded = exported(tmp_path / "out", part)
        if form == "text":
            loaded, expected = ([replace(pair, group="") for pair in some] for some in (loaded, expected))
            loaded, expected = sorted(loaded, key=str), sorted(expected, key=str)
        assert loaded == expected
        assert len(list(stream(DatasetSpec(str(tmp_path / "out"), ENGLISH, (), split=part)))) == len(expected)
    if form == "datasets":
        import datasets

        assert written == [tmp_path / "out/dataset"] and exported(written[0], "test") == test
        assert datasets.load_from_disk(str(written[0]))["train"].column_names == [
            "source",
            "target",
            "src",
            "tgt",
            "group",
        ]


def test_text_exports(tmp_path):
    tricky = Pair("Line\nbreaks\r\nhere.", "Kaixo\rmundua.", "English", "Basque", "1")
    export([tricky], [], tmp_path, ["text"])
    assert (tmp_path / "train.eng_Latn-eus_Latn.src").read_bytes() == b"Line breaks here.\n"
    assert (tmp_path / "train.eng_Latn-eus_Latn.tgt").read_bytes() == b"Kaixo mundua.\n"
    (tmp_path / "train.eng_Latn-eus_Latn.tgt").write_text("Kaixo.\nBi.\n")
    assert "do not have the same number of lines" in refusal(exported, tmp_path, "train")
    raw = [Pair("", "All of it.", "", "", "1")]
    assert "choose datasets or parquet" in refusal(export, raw, [], tmp_path / "raw", ["parquet", "text"])
    assert not (tmp_path / "raw").exists()
    export(raw, [], tmp_path / "raw", ["parquet"])
    assert exported(tmp_path / "raw", "train") == raw
    table = tmp_path / "mine.tsv"
    table.write_text("name\tflores\nUpper Sorbian\thsb_Latn\n")
    own = [Pair("Hello.", "Witaj.", "English", "Upper Sorbian", "1")]
    export(own, [], tmp_path / "own", ["text"], str(table))
    assert load(source(tmp_path / "own", SORBIAN))[0] == [replace(own[0], group="row 1")]


def test_exports_replace_only_exports(tmp_path):
    ten = some_pairs(10)
    every = list(FORMATS)
    export(ten[:8], ten[8:], tmp_path, every)
    (tmp_path / "export.partial").mkdir()  # left by a kill
    (tmp_path / "export.partial/train.parquet").write_text("half")
    written = export(ten, [], tmp_path, every)
    assert {path.name for path in written} == {
        "dataset", "train.parquet", "train.eng_Latn-eus_Latn.src", "train.eng_Latn-eus_Latn.tgt",
    }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir() if path.name != "cache"} == {
        *(path.name for path in written),
    }


def test_exports_beside_other_files(tmp_path):
    ten = some_pairs(10)
    (tmp_path / "thesis.tex").touch()
    assert f"{tmp_path} holds other files (thesis.tex)" in refusal(export, ten, [], tmp_path, ["parquet"])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    out = tmp_path / "out"
    export(ten, [], out, ["parquet"])
    assert "holds other files (train.parquet)" in refusal(export, ten, [], out, ["text"])
    (tmp_path / "other/dataset").mkdir(parents=True)
    assert "holds other files (dataset)" in refusal(export, ten, [], tmp_path / "other", ["datasets"])
    assert "thesis.tex is not a directory" in refusal(export, ten, [], tmp_path / "thesis.tex", ["parquet"])


def test_a_hub_id_is_not_asked_for_named_sets(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_sets, "dataset", lambda *arguments, **options: pytest.fail("the Hub was asked"))
    load(source("udhr"))
    refusal(load, source("flores", data_dir=tmp_path))
    refusal(load, source("smol", data_dir=tmp_path))


@pytest.mark.parametrize(("kind", "kept"), [("pairs", True), ("others", False)])
def test_an_export_of_the_same_pairs_leaves_the_files_as_they_are(tmp_path, kind, kept):
    pairs, states = [Pair("Hello.", "Kaixo.", "English", "Basque", "a")], []
    for link in ({"kind": "pairs"}, {"kind": kind}):
        export(pairs, [], tmp_path, ["datasets", "text"], link=link)
        states.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()})
    assert states[0].keys() == states[1].keys() and (states[0] == states[1]) is kept
