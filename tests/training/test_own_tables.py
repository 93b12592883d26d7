"""Files, folders and Hub data sets of a user's own, read or streamed."""

import hashlib
import json
from dataclasses import replace

import pytest

import train
from tests.support.pairs import (
    BASQUE,
    ENGLISH,
    HAUSA,
    SORBIAN,
    counts,
    hub,
    refusal,
    source,
    write,
)
from tests.support.tiny_models import udhr_texts
from topxgen.training import file_datasets, training_data
from topxgen.training.dataset_spec import DatasetSpec
from topxgen.training.pairs import Pair, reverse
from topxgen.training.training_data import load, stream

pytestmark = pytest.mark.usefixtures("no_shared_cache")

ROWS = [
    {"source": "One.", "target": "Bat."},
    {"source": "Two.", "target": " "},
    {"source": "Three.", "target": "Hiru."},
]


def test_columns_in_the_wrong_order_are_named(tmp_path, caplog):
    english, basque = ([text.strip() for text in udhr_texts(code)][:60] for code in ("eng_Latn", "eus_Latn"))
    path = write(tmp_path / "pairs.jsonl", *({"source": b, "target": a} for a, b in zip(english, basque, strict=True)))
    load(source(path))
    assert f"{path}, English to Basque: 99 % of the text is English according to CLD2, not Basque" in caplog.text
    assert "of the text is Basque according to CLD2, not English" in caplog.text
    caplog.clear()
    load(source(path, input_column_name="target", output_column_name="source"))
    assert not caplog.text


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "headless.tsv", "parquet"])
def test_files_of_every_kind(tmp_path, kind):
    path = tmp_path / f"data.{kind}"
    if kind == "jsonl":
        write(path, *ROWS)
    elif kind == "json":
        path.write_text(json.dumps(ROWS))
    elif kind == "csv":
        path.write_text(
            '\ufefftarget,source,n\r\nBat.,One.,1\r\n\r\n" ","Two.",2\r\nHiru.,"Three.",3\r\n', encoding="utf-8"
        )
    elif kind == "parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        path.write_text(
            ("" if "headless" in kind else "source\ttarget\n") + "One.\tBat.\nTwo.\t\u200b \u2060\n\nThree.\tHiru.\n"
        )
    found, facts = load(source(path))
    assert found == [
        Pair("One.", "Bat.", "English", "Basque", "row 1"),
        Pair("Three.", "Hiru.", "English", "Basque", "row 3"),
    ]
    assert counts(facts) == {"read": 3, "empty": 1, "pairs": 2}
    assert facts["languages"]["English to Basque"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    if kind != "json":
        assert [row["target"] for row in stream(source(path))] == ["Bat.", "Hiru."]
    assert [pair.target for pair in load(source(path, dataset_size=1))[0]] == ["Bat."]


def test_nothing_is_quoted_in_tsv(tmp_path):
    path = tmp_path / "quotes.tsv"
    path.write_text('"One\t"Bat\nShe said "Two\u2028".\tBi\n')
    assert [(pair.source, pair.target) for pair in load(source(path))[0]] == [
        ('"One', '"Bat'),
        ('She said "Two\u2028".', "Bi"),
    ]


def test_columns_by_name(tmp_path):
    path = write(tmp_path / "a.jsonl", {"src": "One.", "trg": "Bat.", "prompt": "English: One. Basque: Bat.", "n": 1})
    found, _ = load(source(path, input_column_name="src", output_column_name="trg"))
    assert found == [Pair("One.", "Bat.", "English", "Basque", "row 1")], "a text in `src` is no language"
    for targets in ((), (BASQUE, HAUSA)):
        raw, facts = load(DatasetSpec(str(path), ENGLISH, targets))
        assert raw == [Pair("", "English: One. Basque: Bat.", "", "", "row 1")]
        assert counts(facts, "raw text") == {"read": 1, "pairs": 1}
        assert "row 1: no columns src and tgt name its languages" in refusal(
            load, DatasetSpec(str(path), ENGLISH, targets, input_column_name="src", output_column_name="trg")
        )
    message = refusal(load, source(path, input_column_name="text"))
    assert f"{path} has no column text, only src, trg, prompt, n; name them with --input_column_name" in message
    assert "has no column y, only" in refusal(load, source(path, input_column_name="src", output_column_name="y"))
    assert "raw text" not in (message := refusal(reverse, raw)) and "--reverse" in message


def test_the_column_that_is_named_is_read_beside_source_and_target(tmp_path):
    path = write(tmp_path / "a.jsonl", {"source": "One.", "target": "Bat.", "text": "A text of its own."})
    assert load(source(path, input_column_name="text"))[0] == [Pair("", "A text of its own.", "", "", "row 1")]
    assert [row["target"] for row in stream(source(path, input_column_name="text"))] == ["A text of its own."]
    assert "has no column texts, only source" in refusal(load, source(path, input_column_name="texts"))
    assert load(source(path))[0] == [Pair("One.", "Bat.", "English", "Basque", "row 1")]


def test_the_default_column_that_is_given_is_read_beside_source_and_target(tmp_path):
    path, row = tmp_path / "a.jsonl", {"source": "One.", "target": "Bat."}

    def read(*more):
        words = ["--model_name_or_path", "m", "--dataset_name_or_path", str(path), "--output_dir", "o", *more]
        return load(DatasetSpec.from_args(train.build_parser().parse_args([*words, "--target_languages", "Basque"])))[0]

    write(path, {**row, "prompt": "A text of its own."})
    assert read("--input_column_name", "prompt") == [Pair("", "A text of its own.", "", "", "row 1")]
    assert read() == [Pair("One.", "Bat.", "English", "Basque", "row 1")]
    write(path, row)
    assert read("--input_column_name", "prompt") == read(), "scripts that always pass it"


def test_columns_of_languages_and_groups(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        {"source": "Kaixo.", "target": "Hello.", "src": "eus_Latn", "tgt": "English", "group": 7},
        {"source": "Hello.", "target": "Sannu.", "src": "English", "tgt": "hausa", "group": None},
        {"source": "Hello.", "target": "Witaj.", "src": "English", "tgt": "hsb_Latn", "group": ""},
    )
    found, facts = load(source(path, SORBIAN, BASQUE, HAUSA))
    assert [pair.direction for pair in found] == [
        "Basque to English", "English to Hausa", "English to Upper Sorbian",
    ]  # fmt: skip
    assert [pair.group for pair in found] == ["7", "row 2", "row 3"]
    assert counts(facts, "Basque to English")["read"] == 1
    one_each, _ = load(source(path, SORBIAN, BASQUE, HAUSA, dataset_size=1))
    assert one_each == found[:3], "a size is of each direction"
    assert "row 3: unknown language 'hsb_Latn'" in refusal(load, source(path, BASQUE, HAUSA))
    for read in (load, lambda spec: list(stream(spec))):  # not trained on beside those that are asked for
        assert "row 2: Hausa is not among --src and --target_languages" in refusal(read, source(path, SORBIAN, BASQUE))
    write(path, {"source": "Witaj.", "target": "Kaixo.", "src": "Upper Sorbian", "tgt": "Basque"})
    assert [pair.direction for pair in load(source(path, src=SORBIAN))[0]] == ["Upper Sorbian to Basque"]
    own = tmp_path / "languages.tsv"
    own.write_text("name\tflores\tscript\nUpper Sorbian\thsb_Latn\tLatn\n", encoding="utf-8")
    everything = replace(source(path), target_languages=(), languages_file=str(own))
    assert [pair.direction for pair in load(everything)[0]] == ["Upper Sorbian to Basque"]
    write(path, {"source": "Hello.", "target": "Kaixo.", "src": None, "tgt": ""})
    assert [pair.direction for pair in load(source(path))[0]] == ["English to Basque"]
    write(path, {"source": "a", "target": "b", "src": "English", "tgt": 3})
    assert "row 1: src and tgt are 'English' and 3 instead of two languages" in refusal(load, source(path))


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("a.jsonl", '{"source": "a", "target": "b"}\n{"source": "a"}\n', "row 2: no column target, only source"),
        ("a.jsonl", '{"source": "a", "target": ["b"]}\n', "row 1: target holds ['b'], which is not a text"),
        ("a.jsonl", '{"source": "a", "target": "b"}\n[1]\n', "line 2: not a JSON object"),
        ("a.jsonl", "", "a.jsonl is empty"),
        (
            "a.jsonl",
            '{"source": "", "target": "b"}\n',
            "holds no pairs of English to Basque to train on (read 1, empty 1)",
        ),
        ("a.json", '{"source": "a", "target": "b"}', "is not a JSON list of objects"),
        ("a.json", "[", "is not JSON"),
        ("a.tsv", "source\ttarget\na\n", "line 2: 1 columns instead of 2"),
        ("a.tsv", "a\tb\nc\td\te\n", "line 2: 3 columns instead of 2"),
        (
            "a.tsv",
            "English\tBasque\na\tb\n",
            "no column prompt, only English, Basque; name them with --input_column_name",
        ),
        ("a.tsv", "Source\tTarget\na\tb\n", "no column prompt, only Source, Target"),
        ("a.tsv", "en\teu\na\tb\n", "no column prompt, only en, eu"),
        ("a.tsv", "a\tb\tc\n", "no column prompt, only a, b, c"),
        ("a.csv", "a,b\nc,d\n", "no column prompt, only a, b"),
        ("a.tsv", "source\ttarget\ttarget\na\tb\tc\n", "has 2 columns 'target'"),
        ("a.csv", 'source,target\n"a,b\n', "line 2: unexpected end of data"),
        ("a.tsv", b"source\ttarget\ncaf\xe9\tb\n", "cannot read"),
        ("a.parquet", b"PAR1", "cannot read"),
        ("a.txt", "a\n", "is not a .tsv, .csv, .jsonl, .json or .parquet file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refusal(load, source(path))
    assert says in message and str(path) in message


def test_folders(tmp_path):
    write(tmp_path / "set/train.jsonl", *ROWS)
    write(tmp_path / "set/validation.jsonl", ROWS[0])
    assert len(load(source(tmp_path / "set"))[0]) == 2
    assert len(load(source(tmp_path / "set", split="validation"))[0]) == 1
    message = refusal(load, source(tmp_path / "set", split="test"))
    assert "holds no test set: no test.tsv, test.csv, " in message and "train.jsonl, validation.jsonl" in message
    import datasets

    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict(a=data, b=data.select([0])).save_to_disk(str(tmp_path / "dict"))
    assert len(load(source(tmp_path / "saved"))[0]) == 2
    assert len(load(source(tmp_path / "dict", split="b"))[0]) == 1
    assert [row["source"] for row in stream(source(tmp_path / "dict", split="a"))] == ["One.", "Three."]
    assert "has no split 'train', only a, b; pass --split" in refusal(load, source(tmp_path / "dict"))
    (tmp_path / "saved/dataset_info.json").write_text("{")
    assert f"cannot load '{tmp_path / 'saved'}'" in refusal(load, source(tmp_path / "saved"))


def test_unknown_names(tmp_path):
    assert refusal(load, source("topxgn")) == (
        "--dataset_name_or_path 'topxgn' does not exist; choose one of topxgen, ours, flores, smol, udhr, or pass a file, a "
        "folder, or a Hub id such as org/name (did you mean topxgen?)"
    )
    assert "no such file or folder" in refusal(load, source(tmp_path / "nothing.jsonl"))
    assert "data/nothing.csv: no such file or folder" in refusal(load, source("data/nothing.csv"))
    assert "no such file or folder" in refusal(load, source(tmp_path / "nothing"))
    assert "cannot load 'some-org/some_set, sub' (" in refusal(load, source("some-org/some_set", subset="sub"))
    assert "cannot load 'some-org/some_set' (" in refusal(stream, source("some-org/some_set"))


def test_rows_of_the_hub(tmp_path, monkeypatch):
    rows = [*ROWS, {"source": "Four.", "target": None}]
    hub(tmp_path / "org/set", "sub", *({**row, "n": [1]} for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(file_datasets, "local_path", lambda name: None)  # here the name is a folder as well
    found, facts = load(source("org/set", subset="sub"))
    assert [pair.target for pair in found] == ["Bat.", "Hiru."]
    assert counts(facts) == {"read": 4, "empty": 2, "pairs": 2}
    assert facts["languages"]["English to Basque"]["path"] == "hub: org/set, sub, train"
    streamed = stream(source("org/set", subset="sub"))
    assert list(streamed) == [
        {"source": pair.source, "target": pair.target, "src": "English", "tgt": "Basque"} for pair in found
    ]
    assert "org/set, sub, train has no column prompt and x, only" in refusal(
        load, source("org/set", subset="sub", output_column_name="x")
    )
    assert "has no column prompt and x, only" in refusal(
        stream, source("org/set", subset="sub", output_column_name="x")
    )
    hub(tmp_path / "org/long", "sub", *[ROWS[0]] * 1000, {**ROWS[0], "src": "English", "tgt": "Nothing"})
    assert "hub: org/long, sub, train, row 1001: unknown language" in refusal(
        list, stream(source("org/long", subset="sub"))
    )
    assert "cannot load 'org/set, sub'" in refusal(load, source("org/set", subset="sub", split="validation"))


def test_streams(tmp_path):
    path = write(tmp_path / "a.jsonl", *({"source": f"s{i}", "target": f"t{i}", "extra": i} for i in range(500)))
    data = stream(source(path))
    assert data.column_names == ["source", "target", "src", "tgt"]
    assert next(iter(data)) == {"source": "s0", "target": "t0", "src": "English", "tgt": "Basque"}
    assert [row["source"] for row in data] == [f"s{i}" for i in range(500)] == [row["source"] for row in data]
    shuffled = [row["source"] for row in data.skip(10).shuffle(seed=1, buffer_size=50)]
    assert sorted(shuffled) == sorted(f"s{i}" for i in range(10, 500)) and shuffled[0] != "s10"
    assert [row["source"] for row in data.take(2)] == ["s0", "s1"]
    for name in training_data.NAMED:
        assert f"{name} is small and fits in memory: drop --streaming" in refusal(stream, source(name))
    assert "--dataset_size 3 needs all pairs at once" in refusal(stream, source(path, dataset_size=3))
    assert "has no column prompt and x, only source, target, extra" in refusal(
        stream, source(path, output_column_name="x")
    )
    raw = write(tmp_path / "raw.jsonl", {"prompt": "All of it."})
    assert list(stream(source(raw))) == [{"source": "", "target": "All of it.", "src": "", "tgt": ""}]
    write(raw, {"prompt": ""})
    assert "holds no pairs" in refusal(stream, source(raw))
