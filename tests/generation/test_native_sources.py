"""datagen.py --paragraphs: the files, folders and data sets that it reads, and those that it refuses in one line."""

import json
from itertools import islice
from pathlib import Path

import datasets
import pytest

from tests.support.native_runs import UDHR, kept, refusal, rejects, run, write
from topxgen.corpora.monolingual import open_source
from topxgen.text import languages


def configured(folder: Path, **splits: list[str]) -> Path:
    """A data set with the config "eu" in the folder of a clone, or of the Hub's cache."""
    paths = [
        write(folder / f"data/{split}.jsonl", texts, topic=["itsasoa"] * len(texts)) for split, texts in splits.items()
    ]
    files = "".join(f"  - split: {path.stem}\n    path: data/{path.name}\n" for path in paths)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: eu\n  data_files:\n{files}---\n")
    return folder


def test_a_folder_that_datasets_reads(tmp_path, monkeypatch):
    """Its columns are those of today, whatever `datasets` has in its cache of a folder with this name."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = configured(tmp_path / "texts", train=UDHR[:4], test=UDHR[4:])
    datasets.load_dataset(str(folder), "eu")
    run(tmp_path / "out", f"{folder}:eu")
    assert [(record["text"], record["topic"]) for record in kept(tmp_path / "out")] == [
        (t, "itsasoa") for t in UDHR[:4]
    ]
    run(tmp_path / "topics", f"{folder}:eu:topic", code=3)
    assert rejects(tmp_path / "topics") == dict.fromkeys(("1.0", "2.0", "3.0", "4.0"), "too_few_words")
    new = tmp_path / "new"
    assert "has no column 'none', only text, topic" in refusal(new, f"{folder}:eu:none")
    assert "BuilderConfig 'xx' not found. Available: ['eu']" in refusal(new, f"{folder}:xx")
    splits = configured(tmp_path / "split", a=UDHR[:3], b=UDHR[3:6])
    assert f"has no split train, only a, b; name one as in {splits}:eu::a" in refusal(new, f"{splits}:eu")
    assert "has no split c, only a, b" in refusal(new, f"{splits}:eu:text:c")
    assert "has no split a:b, only" in refusal(new, f"{splits}:eu:text:a:b")
    for number, source in enumerate((f"{splits}:eu:text:b", f"{splits}:eu::b")):
        run(tmp_path / f"b{number}", source)
        assert [record["text"] for record in kept(tmp_path / f"b{number}")] == UDHR[3:6]
    (folder / "data/train.jsonl").write_text('{"text": 5}\n')
    assert "row 1: text holds 5, which is not a text" in refusal(new, f"{folder}:eu")
    (folder / "data/train.jsonl").write_text('{"text": "Hiru hitz dira."}\n{"text"')
    assert f"--paragraphs {folder}:eu: " in refusal(new, f"{folder}:eu")
    # Without a config a folder is one of files by language: these may be in any.
    assert "has no Basque.txt or Basque.jsonl or Basque.parquet; rename its file" in refusal(new, folder)


def test_a_data_set_in_the_cache_of_the_hub(tmp_path, monkeypatch):
    """Streamed, never counted, and known by its commit."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub/datasets--org--native"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs/main").write_text(commit)
    documents = ["\n".join(UDHR[i : i + 2]) for i in range(0, len(UDHR), 2)]
    snapshot = configured(cache / "snapshots" / commit, train=documents)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    out = tmp_path / "out"
    run(out, "org/native:eu", "--number_of_instructions", 3)
    (out / "manifest_generate_Basque.json").unlink()
    run(out, "org/native:eu")
    assert [record["text"] for record in kept(out)] == [text for text in UDHR if text in {r["text"] for r in kept(out)}]
    assert len(kept(out)) + len(rejects(out)) == len(UDHR) == len({**rejects(out), **{r["id"]: "" for r in kept(out)}})
    assert [row.number for row in islice(open_source("org/native:eu", languages.find("Basque")).rows(7), 2)] == [8, 9]
    settings = json.loads((out / "settings_generate.json").read_text())
    assert settings["paragraphs Basque"] == f"org/native:eu at revision {commit}"
    snapshot.rename(snapshot.with_name("f" * 40))
    (cache / "refs/main").write_text("f" * 40)
    assert f"at revision {'f' * 40}" in refusal(out, "org/native:eu")
    assert "BuilderConfig 'xx' not found" in refusal(tmp_path / "new", "org/native:xx")
    assert "has no split test, only train" in refusal(tmp_path / "new", "org/native:eu::test")
    assert "missing in its cache" in refusal(tmp_path / "new", "org/other:eu")


GOOD = UDHR[0].encode() + b"\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", GOOD + "urte berri on añ\n".encode("latin-1"), "cannot read"),
        ("a.txt", GOOD.decode().encode("utf-16"), "cannot read"),
        ("a.txt", b"", "is empty"),
        ("a.txt", b"\r\n \n", "is empty"),
        ("a.txt", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b'{"text": "Hiru hitz dira."}\n{"text": \n', "line 2: field text: not JSON"),
        ("a.jsonl", b'{"text": "Hiru hitz dira."}\n{"text": 5}\n', "row 2: text holds 5, which is not a text"),
        ("a.jsonl", b'{"text": "Hiru hitz dira."}\n{"a": 5}\n', "row 2 has no column 'text', only a"),
        ("a.jsonl", b'{"text": "Hiru hitz dira."}\n{}\n', "row 2 has no column 'text', only nothing"),
        ("a.jsonl", b'["Hiru hitz dira."]\n', "line 1: not a JSON object"),
        ("a.jsonl", b'{"sentence": "Hiru hitz dira."}\n', "row 1 has no column 'text', only sentence; name another"),
        ("a.parquet", b"PAR1", "cannot read"),
        ("a.csv", GOOD, "a.csv is not a .txt, .jsonl, .parquet file"),
        ("a.txt.gz", GOOD, "a.txt.gz is not a .txt"),
        ("a", GOOD, "a is not a .txt"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert message in refusal(tmp_path / "out", tmp_path / name)


def test_sources_that_do_not_exist(tmp_path):
    new = tmp_path / "out"
    assert "there is no file or folder" in refusal(new, tmp_path / "none.txt")
    assert "there is no file or folder" in refusal(new, f"{tmp_path}/none.txt[:9]")
    source = write(tmp_path / "a.txt", UDHR)
    assert "a text file has no column text" in refusal(new, f"{source}:text")
    assert "'-5:' is no slice" in refusal(new, f"{source}[-5:]")
    assert "is a slice of a folder; name a file in it" in refusal(new, f"{tmp_path}[:9]")
    assert "holds 1, which is not a text" in refusal(new, write(tmp_path / "a.parquet", [1, 2]))
    assert "--paragraphs is empty" in refusal(new, "")


def test_what_is_odd_but_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfBat, bi\xe2\x80\xa8hiru\r\n\r\nLau, bost eta sei\r\n")
    run(tmp_path / "out", tmp_path / "a.txt")
    assert [record["text"] for record in kept(tmp_path / "out")] == ["Bat, bi hiru", "Lau, bost eta sei"]
    run(tmp_path / "typeset", write(tmp_path / "typeset.txt", ["Gizo\u00adna eta \u2060emaku\ufeffmea aske"]))
    assert [record["text"] for record in kept(tmp_path / "typeset")] == ["Gizona eta emakumea aske"]
    (tmp_path / "a.jsonl").write_text('{"text": "Bat, bi \\ud800 hiru"}\n{"text": " "}\n{"text": null}\n')
    run(tmp_path / "surrogate", tmp_path / "a.jsonl")
    assert [record["text"] for record in kept(tmp_path / "surrogate")] == ["Bat, bi ? hiru"]
    assert rejects(tmp_path / "surrogate") == {"2.0": "empty", "3.0": "empty"}


def test_a_document_is_its_lines(tmp_path):
    text = f"Izenburua\n\n{UDHR[0]}\r\n  {UDHR[1]}\t\n"
    run(tmp_path / "out", write(tmp_path / "a.jsonl", [text, UDHR[2]]))
    assert [(record["id"], record["text"]) for record in kept(tmp_path / "out")] == [
        ("Basque-native-1.1", UDHR[0]), ("Basque-native-1.2", UDHR[1]), ("Basque-native-2.0", UDHR[2])
    ]  # fmt: skip
    assert rejects(tmp_path / "out") == {"1.0": "too_few_words"}
