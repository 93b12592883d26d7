"""scripts/publish.py: what `datasets` loads is what the files hold; what is refused; what a kill leaves."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.hub_server import TOKEN, client_of
from tests.support.processes import locked
from tests.support.publishing import SCORER, front_matter, make_run, publish, record, refused, rows, write
from tests.support.runs import script
from topxgen.common import checksums, lineage
from topxgen.text import languages
from topxgen.training import training_data
from topxgen.training.dataset_spec import DatasetSpec

COLUMNS = [
    *[
        "id",
        "source",
        "target",
        "src",
        "tgt",
        "score",
        "scorer",
        "confidence",
        "topic",
        "paragraph_id",
        "paragraph",
        "back_translator",
    ]
]


def load(out: Path, *config: str, cache: Path):
    import datasets

    return datasets.load_dataset(str(out), *config, cache_dir=str(cache))


def expected(records: list[dict], src: str, tgt: str, translator: str = "facebook/nllb-200-3.3B") -> dict[str, dict]:
    """The rows of filtered records by id, without the program's help."""
    found = {}
    for one in records:
        for i, sentence in enumerate(one["propositions"]):
            values = (
                one["translations"][i],
                sentence,
                src,
                tgt,
                one["scores"][i],
                one["scorer"],
                one["confidences"][i],
            )
            name = f"{one['id']}/p{i}"
            common = (one["topic"], one["id"], one["sentence"], translator)
            found[name] = dict(zip(COLUMNS, (name, *values, *common), strict=True))
    return found


def test_datasets_loads_what_the_files_hold(tmp_path):
    urdu = record(7, language="Urdu") | {
        "propositions": [
            "یہ ایک طویل جملہ ہے جو پڑوسی گاؤں کے بارے میں ہے۔",
            'Quotes " and | pipes, \u200fmarks and 𐐷.',
        ],
        "scores": [4.5, -0.25],
    }
    urdu["sentence"] = " ".join(urdu["propositions"])
    by_language = {
        "Basque": [*map(record, range(30)), record(30, pairs=0), record(31) | {"scores": [None, 4.0], "topic": None}],
        "Urdu": [urdu, *(record(n, language="Urdu") for n in range(100, 120))],
    }
    by_language["Basque"][31]["confidences"] = [None, 0.5]
    folder, out = make_run(tmp_path / "run", by_language), tmp_path / "out"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = publish(folder, out)
    assert "1 paragraphs without pairs left out" in result.stdout
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    for name, code in (("Basque", "eus_Latn"), ("Urdu", "urd_Arab")):
        data = load(out, name, cache=tmp_path / "cache")
        assert set(data) == {"train", "validation"} and data["train"].column_names == COLUMNS
        loaded = [*data["train"], *data["validation"]]
        wanted = expected(by_language[name], "eng_Latn", code)
        for row in wanted.values():
            row["scorer"] = row["scorer"] if row["score"] is not None else None
        assert {row["id"]: row for row in loaded} == wanted and len(loaded) == len(wanted)
        assert [row["id"] for row in data["train"]] == [name for name in wanted if name in set(data["train"]["id"])]
    everything = load(out, cache=tmp_path / "cache")
    assert {split: len(data) for split, data in everything.items()} == {
        split: sum(len(rows(out, name, split)) for name in by_language) for split in ("train", "validation")
    }
    info = {one["config_name"]: one for one in front_matter(out)["dataset_info"]}
    assert set(info) == {"all", "Basque", "Urdu"} and front_matter(out)["configs"][0]["default"] is True
    assert {s["name"]: s["num_examples"] for s in info["all"]["splits"]} == {s: len(d) for s, d in everything.items()}
    assert info["Basque"]["download_size"] == sum(p.stat().st_size for p in (out / "Basque").glob("*.parquet"))


def test_every_file_has_its_checksum(tmp_path):
    folder = make_run(tmp_path / "run", {"Basque": [*map(record, range(30))]})
    publish(folder, tmp_path / "out", "--formats", "tmx", "moses")
    out = tmp_path / "out"
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} - {"SHA256SUMS"}
    assert checksums.read(out) == {name: checksums.sha256_of(out / name) for name in names}
    assert {"tmx/Basque.train.tmx", "moses/train.eng_Latn-eus_Latn.src", "Basque/train.parquet", "README.md"} <= names
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob(".lock*"))


def test_the_same_run_and_seed_give_the_same_bytes(tmp_path):
    folder = make_run(tmp_path / "run", {"Basque": [*map(record, range(40))]})
    for name in ("one", "two"):
        publish(folder, tmp_path / name, "--seed", "5")
    publish(folder, tmp_path / "three", "--seed", "6")
    files = [(tmp_path / name / "Basque" / "validation.parquet").read_bytes() for name in ("one", "two", "three")]
    assert files[0] == files[1] != files[2]


def test_a_data_set_that_is_there_is_left_as_it_is(tmp_path):
    folder, out = make_run(tmp_path / "run", {"Basque": [*map(record, range(20))]}), tmp_path / "out"
    publish(folder, out)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.rglob("*") if path.is_file()}
    assert "already has this data set" in publish(folder, out).stdout
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.rglob("*") if path.is_file()} == before
    for flags in (["--seed", "1"], ["--formats", "tmx"], ["--min_score", "1"], ["--validation_size", "0"], ["--atlas"]):
        assert "is not empty" in refused(folder, out, *flags)
    (out / "manifest_publish.json").write_text('{"seed": 122')
    assert "is not empty" in refused(folder, out)
    write(folder / "nllb-200-3.3B" / "Basque_translate_filtered.jsonl", *map(record, range(21)))
    assert "is not empty" in refused(folder, out)


@pytest.mark.parametrize("name", ["Basque/train.parquet", "README.md", "Basque/manifest_export.json", "SHA256SUMS"])
def test_a_data_set_that_was_changed_is_not_the_same(name, tmp_path):
    folder, out = make_run(tmp_path / "run", {"Basque": [*map(record, range(20))]}), tmp_path / "out"
    publish(folder, out)
    before = (out / name).read_bytes()
    (out / name).write_bytes(b"1" + before)
    line = refused(folder, out)
    assert "it has this data set, but" in line and (name in line or name == "SHA256SUMS")
    (out / name).unlink()
    assert "differ from its SHA256SUMS" in refused(folder, out)
    (out / name).write_bytes(before)
    assert "already has this data set" in publish(folder, out).stdout
    (out / "notes.txt").write_text("mine, which an upload would take along")
    assert "but notes.txt differ from its SHA256SUMS" in refused(folder, out)


# Which pairs


def test_the_decontaminated_pairs_are_taken_with_the_ids_of_all(tmp_path):
    records = [*map(record, range(20))]
    folder = make_run(tmp_path / "run", {"Basque": records})
    left = {key: value[1:] if isinstance(value, list) else value for key, value in records[4].items()}
    pairs = folder / "nllb-200-3.3B"
    write(pairs / "Basque_translate_filtered.jsonl", *records[:3], left, *records[5:])
    publish(folder, tmp_path / "out", "--validation_size", "0")
    ids = [row["id"] for row in rows(tmp_path / "out")]
    assert "Basque-000003.0/p0" not in ids and ids.count("Basque-000004.0/p1") == 1 and "Basque-000004.0/p0" not in ids
    row = next(row for row in rows(tmp_path / "out") if row["id"] == "Basque-000004.0/p1")
    assert (row["target"], row["score"]) == (records[4]["propositions"][1], records[4]["scores"][1])
    assert len(ids) == 37


def test_what_was_not_decontaminated_is_refused_or_marked(tmp_path):
    texts = [*map(record, range(20))]
    both = refused(make_run(tmp_path / "both", {"Basque": texts, "Hausa": texts}, filtered=False), tmp_path / "out")
    assert "not decontaminated" in both and "--languages 'Basque' 'Hausa', publish" in both
    folder = make_run(tmp_path / "run", {"Basque": texts}, filtered=False)
    line = refused(folder, tmp_path / "out")
    assert "decontamination.py --input_dir" in line and "--allow_undecontaminated" in line
    result = publish(folder, tmp_path / "out", "--allow_undecontaminated")
    assert "WARNING: Basque was not decontaminated" in result.stdout
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "**Not decontaminated: Basque." in card and "not-decontaminated" in front_matter(tmp_path / "out")["tags"]
    marked = publish(make_run(tmp_path / "clean", {"Basque": [*map(record, range(20))]}), tmp_path / "clean-out")
    assert "WARNING" not in marked.stdout
    assert "not-decontaminated" not in front_matter(tmp_path / "clean-out")["tags"]
    make_run(tmp_path / "clean", {"Basque": [*map(record, range(20))]}, filtered=False, translate_dir="llm")
    share = ("--validation_size", 0.5, "--allow_undecontaminated")
    result = publish(tmp_path / "clean", tmp_path / "mixed", *share)
    assert "WARNING: Basque was not decontaminated" in result.stdout, "one of two back-translations"
    assert "not-decontaminated" in front_matter(tmp_path / "mixed")["tags"]
    assert len(rows(tmp_path / "mixed", split="validation")) == 40


@pytest.mark.parametrize("flag, value", [("--min_score", "4"), ("--percentile", "31")])
def test_scores_select_as_everywhere(flag, value, tmp_path):
    records = [*map(record, range(40))]
    folder = make_run(tmp_path / "run", {"Basque": records})
    publish(folder, tmp_path / "out", flag, value, "--validation_size", "0")
    kept = {(row["source"], row["target"]) for row in rows(tmp_path / "out")}
    if flag == "--percentile":
        spec = DatasetSpec("topxgen", *((languages.find(n),) if n == "Basque" else languages.find(n) for n in ("English", "Basque")),
                           data_dir=(folder / "nllb-200-3.3B",), percentile=31)  # fmt: skip
        wanted = {(pair.source, pair.target) for pair in training_data.load(spec)[0]}
    else:
        wanted = {
            (t, s)
            for r in records
            for s, t, score in zip(r["propositions"], r["translations"], r["scores"], strict=True)
            if score >= 4
        }
        assert any(score == 4 for r in records for score in r["scores"])
    assert kept == wanted and 0 < len(kept) < 80
    assert f"`{flag}`" in (tmp_path / "out" / "README.md").read_text() or flag == "--percentile"
    manifest = json.loads((tmp_path / "out" / "Basque" / "manifest_export.json").read_text())
    found = manifest["lineage"]["selections"][0]
    assert (found["flag"], found["metric"], found["kept"], found["of"]) == (f"{flag} {value}", SCORER, len(kept), 80)


def test_selections_that_make_no_sense_are_refused(tmp_path):
    records = [*map(record, range(20))]
    two = make_run(tmp_path / "two", {"Basque": [*records[:10], *(r | {"scorer": "comet"} for r in records[10:])]})
    none = make_run(tmp_path / "none", {"Basque": [r | {"scores": [None, None]} for r in records]})
    some = make_run(tmp_path / "some", {"Basque": [records[0] | {"scores": [None, 4.0]}, *records[1:]]})
    good = make_run(tmp_path / "good", {"Basque": records})
    confidences = {"Basque": [r | {"scorer": "confidence"} for r in records]}
    make_run(make_run(tmp_path / "several", confidences), confidences, translator="org/other", translate_dir="other")
    for flag in ("--min_score", "--percentile"):
        assert f"scored by {SCORER} and comet" in refused(two, tmp_path / "out", flag, "1")
        assert "needs scores" in refused(none, tmp_path / "out", flag, "1")
        line = refused(tmp_path / "several", tmp_path / "out", flag, "1")
        assert (
            "scored by confidence of facebook/nllb-200-3.3B and confidence of org/other, whose scores are not" in line
        )
    assert "1 of 40 pairs of Basque have none" in refused(some, tmp_path / "out", "--percentile", "1")
    assert "no pair of Basque is left" in refused(good, tmp_path / "out", "--min_score", "100")
    assert "pass one of them" in refused(good, tmp_path / "out", "--min_score", "1", "--percentile", "5")
    assert "no effect without --atlas" in refused(good, tmp_path / "out", "--atlas_pairs", "5")
    publish(some, tmp_path / "out", "--min_score", "1")  # a pair without a score does not have that score
    assert sum(len(rows(tmp_path / "out", split=s)) for s in ("train", "validation")) == 39
    publish(two, tmp_path / "mixed")  # without a selection each row says its scorer
    assert {row["scorer"] for row in rows(tmp_path / "mixed")} == {SCORER, "comet"}


def test_languages_and_back_translators(tmp_path):
    basque, hausa = [*map(record, range(20))], [record(n, language="Hausa") for n in range(50, 70)]
    folder = make_run(tmp_path / "run", {"Basque": basque, "Hausa": hausa})
    other = [r | {"translations": [t.upper() for t in r["translations"]]} for r in basque]
    make_run(folder, {"Basque": other}, translate_dir="llm", translator="meta-llama/Llama-3.1-8B")
    out = tmp_path / "out"
    publish(folder, out)
    both = [row for split in ("train", "validation") for row in rows(out, split=split)]
    assert len({row["id"] for row in both}) == 80 and {row["back_translator"] for row in both} == {
        "facebook/nllb-200-3.3B",
        "meta-llama/Llama-3.1-8B",
    }
    splits = {}
    for split in ("train", "validation"):
        for row in rows(out, split=split):
            splits.setdefault(row["paragraph_id"], set()).add(split)
    assert len(splits) == 20 and all(len(found) == 1 for found in splits.values())
    publish(folder, tmp_path / "hausa", "--languages", "hau_Latn")
    assert sorted(path.name for path in (tmp_path / "hausa").iterdir() if path.is_dir()) == ["Hausa"]
    assert "has no pairs of Urdu, only of Basque, Hausa" in refused(folder, tmp_path / "no", "--languages", "Urdu")
    assert "unknown language 'Basqe'" in refused(folder, tmp_path / "no", "--languages", "Basqe")


def test_several_target_languages_have_a_config_each(tmp_path):
    folder = make_run(tmp_path / "run", {"Basque": [*map(record, range(20))]})
    make_run(folder, {"Basque": [*map(record, range(20))]}, translate_dir="fr")
    settings = folder / "fr" / "settings_translate.json"
    settings.write_text(settings.read_text().replace("English", "French"))
    publish(folder, tmp_path / "out")
    data = load(tmp_path / "out", "Basque to French", cache=tmp_path / "cache")
    assert set(data["train"]["src"]) == {"fra_Latn"} and set(data["train"]["tgt"]) == {"eus_Latn"}


def test_what_is_left_out_is_counted(tmp_path):
    records = [record(n) for n in range(4)]
    records[1]["translations"][0] = " "
    records[2]["translations"] = ["", "\u200b"]
    result = publish(make_run(tmp_path / "run", {"Basque": records}), tmp_path / "out", "--validation_size", 0)
    counts = json.loads((tmp_path / "out" / "manifest_publish.json").read_text())["counts"]["Basque"]
    assert counts == {
        "paragraphs_read": 4, "paragraphs_without_pairs": 1, "pairs_read": 8, "pairs_with_an_empty_side": 3, "paragraphs": 3, "train": 5,
    }  # fmt: skip
    assert "5 train pairs of 3 paragraphs; 3 pairs left out; 1 paragraphs without pairs left out" in result.stdout


# Bad input


def test_an_empty_run_and_a_folder_that_is_not_there(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "there is nothing to publish" in refused(tmp_path / "empty", tmp_path / "out")
    assert "is not a directory" in refused(tmp_path / "none", tmp_path / "out")
    folder = make_run(tmp_path / "run", {"Basque": [record(1, pairs=0)]})
    assert "its 1 paragraphs have no pairs" in refused(folder, tmp_path / "out")
    unseen = {**record(1, pairs=1), "translations": ["\u200b\ufeff"]}
    assert "no pair of Basque is left to publish (all are empty); --languages chooses others" in refused(
        make_run(tmp_path / "unseen", {"Basque": [unseen]}), tmp_path / "out"
    )


def test_the_output_folder_must_be_empty(tmp_path):
    folder, out = make_run(tmp_path / "run", {"Basque": [*map(record, range(20))]}), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert "is not empty" in refused(folder, out) and (out / "mine.txt").read_text() == "mine"
    assert "is not empty" in refused(folder, folder)
    (out / "mine.txt").unlink()
    (tmp_path / "link").symlink_to(out)
    assert "is a symbolic link" in refused(folder, tmp_path / "link")
    (tmp_path / "file").write_text("")
    assert "is not a directory" in refused(folder, tmp_path / "file")
    publish(folder, out)
    assert rows(out) and "is not empty" in refused(folder, out, "--seed", "5")


def test_a_file_that_is_being_written(tmp_path):
    folder = make_run(tmp_path / "run", {"Basque": [*map(record, range(20))]})
    path = folder / "nllb-200-3.3B" / "Basque_translate_filtered.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[:-40])
    result = publish(folder, tmp_path / "out", check=3)
    assert "the last line is not complete and left out" in result.stderr
    assert (
        "**The last line of Basque\\_translate\\_filtered.jsonl was not complete"
        in (tmp_path / "out" / "README.md").read_text()
    )
    assert sum(len(rows(tmp_path / "out", split=s)) for s in ("train", "validation")) == 38
    path.write_bytes(data.replace(b'"scorer"', b'"scorer', 1))
    assert "line 1" in refused(folder, tmp_path / "no")
    path.write_bytes(data.replace(b'"translations": [', b'"translations": ["one more", ', 1))
    assert "field translations: expected 2 items" in refused(folder, tmp_path / "no")


def test_a_file_that_changes_meanwhile(tmp_path, monkeypatch):
    from topxgen.publication import split

    folder = make_run(tmp_path / "run", {"Basque": [*map(record, range(20))]})
    path = folder / "nllb-200-3.3B" / "Basque_translate_filtered.jsonl"
    original = split.validation

    def slow(*arguments):
        write(path, *map(record, range(25)))
        return original(*arguments)

    monkeypatch.setattr(split, "validation", slow)
    assert "changed while it was read" in refused(folder, tmp_path / "out")


def test_trees_of_the_original(tmp_path):
    records = [
        {k: v for k, v in record(n).items() if k not in ("id", "scorer", "confidences", "scores")} for n in range(20)
    ]
    records[1] |= {"scores": [None, None]}
    folder = tmp_path / "data" / "wiki" / "gemma-3-27b-it" / "topxgen" / "T=1.0" / "nllb-200-3.3B"
    write(folder / "Basque_translate.jsonl", *records)
    write(folder / "Basque_translate_filtered.jsonl", *records, records[0])
    publish(tmp_path / "data", tmp_path / "out", "--validation_size", "0")
    found = rows(tmp_path / "out")
    assert len({row["id"] for row in found}) == len(found) == 42
    assert {row["back_translator"] for row in found} == {"nllb-200-3.3B"} and {row["score"] for row in found} == {None}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Not known about this data" in card and "which model wrote the paragraphs" in card


def test_hostile_texts_and_names(tmp_path):
    bad = record(3) | {"topic": "<script>alert(1)</script> | `x`"}
    bad["propositions"] = [
        "Begin \u202eevil txet\u202c end \x00\x1b[31m of it, long enough.",
        "A lone \ud800 surrogate, and more words.",
    ]
    folder = make_run(
        tmp_path / "run",
        {"N'ko": [record(n) for n in range(10)], "Chinese (Simplified)": [record(n) for n in range(20, 30)]},
    )
    path = folder / "nllb-200-3.3B" / "N'ko_translate_filtered.jsonl"
    path.write_bytes(path.read_bytes() + (json.dumps(bad) + "\n").encode())
    publish(folder, tmp_path / "out", "--validation_size", "0", "--formats", "tmx", "moses")
    loaded = load(tmp_path / "out", "N'ko", cache=tmp_path / "cache")["train"]
    assert (
        loaded[-2]["target"] == bad["propositions"][0] and loaded[-1]["target"] == "A lone ? surrogate, and more words."
    )
    assert loaded[-1]["topic"] == bad["topic"]
    assert len(load(tmp_path / "out", "Chinese (Simplified)", cache=tmp_path / "cache")["train"]) == 20


# What a kill leaves


@pytest.mark.medium
def test_a_kill_leaves_no_folder_that_looks_whole(tmp_path):
    folder = make_run(tmp_path / "run", {"Basque": [record(n, pairs=3) for n in range(800)]})
    out, half = tmp_path / "out", tmp_path / "out.partial"
    script("scripts/publish.py", folder, "--out", out, killed_at=(half / "**" / "*.parquet", 0))
    assert half.is_dir() and not out.exists() and not (half / "SHA256SUMS").exists()
    script("scripts/publish.py", folder, "--out", out)
    assert not half.exists() and checksums.read(out)
    publish(folder, tmp_path / "once")
    for name in ("Basque/train.parquet", "Basque/validation.parquet"):
        assert (out / name).read_bytes() == (tmp_path / "once" / name).read_bytes()


def test_one_process_at_a_time_writes_a_folder(tmp_path):
    folder = make_run(tmp_path / "run", {"Basque": [*map(record, range(20))]})
    with locked(tmp_path, "out") as process:
        assert f"is in use by process {process.pid}" in refused(folder, tmp_path / "out")


# What other programs make of it


def test_train_reads_a_language_and_knows_what_was_removed(tmp_path):
    records = [*map(record, range(30))]
    folder = make_run(tmp_path / "run", {"Basque": records})
    pairs = folder / "nllb-200-3.3B"
    text = {"benchmark": "udhr", "split": "test", "language": "Basque", "sha256": "0" * 64}
    filtered = pairs / "Basque_translate_filtered.jsonl"
    manifest = {
        "settings": {
            "benchmarks": {"sentence": [text], "translation": []},
            "tokens_per_ngram": {"Basque": 10, "English": 10},
            "drop_on_sentence_overlap": "paragraph",
            "drop_on_translation_overlap": "pair",
        },
        "outputs": {filtered.name: {"sha256": checksums.sha256_of(filtered)}},
        "lineage": lineage.of_back_translation(pairs / "Basque_translate.jsonl", "Basque"),
    }
    (pairs / "manifest_decontaminate_Basque.json").write_text(json.dumps(manifest))
    publish(folder, tmp_path / "out", "--validation_size", "0")
    shutil.rmtree(folder)
    spec = DatasetSpec(str(tmp_path / "out" / "Basque"), languages.find("English"), (languages.find("Basque"),))
    loaded, facts = training_data.load(spec)
    assert {(p.source, p.target, p.src, p.tgt) for p in loaded} == {
        (t, s, "English", "Basque") for r in records for s, t in zip(r["propositions"], r["translations"], strict=True)
    }
    link = lineage.of_training_set({"dataset_name_or_path": spec.dataset_name_or_path}, facts)
    removed = [text for one in lineage.walk([link]) for text in one.get("removed", ())]
    assert [(one["benchmark"], one["split"]) for one in removed] == [("udhr", "test")]
    assert str(tmp_path) not in (tmp_path / "out" / "Basque" / "manifest_export.json").read_text()


def test_the_hub_gets_a_whole_private_folder_after_the_token_is_checked(tmp_path, monkeypatch):
    folder, out = make_run(tmp_path / "run", {"Basque": [*map(record, range(20))]}), tmp_path / "out"
    words = ("--formats", "tmx", "moses", "--push_to_hub")
    with client_of(tmp_path / "hub", monkeypatch) as server:
        monkeypatch.setenv("HF_TOKEN", "hf_other")
        assert "the Hub does not accept your token" in refused(folder, out, *words, "me/pairs") and not out.exists()
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        result = publish(folder, out, *words, "me/pairs")
        sent = server.files("datasets", "me/pairs")
        assert f"uploaded to {server.url}/datasets/me/pairs (private)" in result.stdout
        assert server.created == {"me/pairs": True}, "private"
        here = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        assert {name: path.read_bytes() for name, path in sent.items()} == here
        assert {"README.md", "SHA256SUMS", "Basque/train.parquet", "tmx/Basque.train.tmx"} <= here.keys()
        assert not [name for name, data in here.items() if str(tmp_path).encode() in data]
        assert 'load_dataset("me/pairs", "Basque")' in here["README.md"].decode()
        assert "already has this data set" in publish(folder, out, *words, "me/pairs").stdout
        assert "'a/b/c' is not a repository name" in refused(folder, tmp_path / "no", *words, "a/b/c")
        server.full.add("me/full")
        failed = publish(folder, tmp_path / "kept", *words, "me/full", check=2)
        assert "the dataset is complete in" in failed.stderr and rows(tmp_path / "kept")
        server.full.clear()
        assert "a card that names me/full, and the new card is for me/other" in refused(
            folder, tmp_path / "kept", *words, "me/other"
        )
        assert "the new card would name none" in refused(folder, tmp_path / "kept", *words[:-1])
        assert not server.files("datasets", "me/other")
        (tmp_path / "kept" / "README.md").rename(tmp_path / "README.md")
        assert "but README.md differ" in refused(folder, tmp_path / "kept", *words, "me/full")
        (tmp_path / "README.md").rename(tmp_path / "kept" / "README.md")
        again = publish(folder, tmp_path / "kept", *words, "me/full")
        assert "already has this data set" in again.stdout and len(server.files("datasets", "me/full")) == len(here)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_pairs(tmp_path):
    """Ten times the pairs take hardly more memory: what is held are the candidates of the validation split and a row group."""
    peaks = {}
    code = (
        "import sys; sys.argv = sys.argv[1:]; sys.path.insert(0, '.'); from scripts.publish import main; code = main(); "
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]); sys.exit(code)"
    )
    import subprocess
    import sys

    from tests.support.runs import ROOT

    for count in (3000, 30_000):
        folder = make_run(tmp_path / str(count), {"Basque": [record(n, pairs=3) for n in range(count)]})
        command = [
            sys.executable,
            "-c",
            code,
            "scripts/publish.py",
            folder,
            "--out",
            tmp_path / f"out-{count}",
            "--validation_size",
            "200",
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        peaks[count] = int(done.stdout.split()[-1]) / 1024
    assert peaks[30_000] - peaks[3000] < 120, peaks
