"""Training data and test sets: real runs of decontamination.py, what it removed, and what evaluate would warn of."""

import json
import random

import pytest

from comptra import evaluation_sets
from comptra.guard import _covers, training_overlap
from tests.support.runs import in_process
from topxgen.common import lineage
from topxgen.text import languages
from topxgen.training import training_data
from topxgen.training.dataset_spec import DatasetSpec

ENGLISH, BASQUE, HAUSA = map(languages.find, ("English", "Basque", "Hausa"))
SENTENCES = {
    "eng_Latn": "the sea was calm and every boat came home before night fell over the bay",
    "eus_Latn": "itsasoa bare zegoen eta ontzi guztiak gaua baino lehen itzuli ziren etxera",
    "hau_Latn": "teku ya kwanta kuma kowane jirgi ya dawo gida kafin dare ya yi",
}


def texts(code: str, seed: int, count=3) -> list[str]:
    rng = random.Random(f"{code} {seed}")
    return [" ".join(rng.sample(SENTENCES[code].split(), 12)) + "." for _ in range(count)]


@pytest.fixture
def benchmarks(tmp_path):
    """FLORES-200 in its publishers' layout, a few lines of it; `seed` tells copies apart."""

    def write(name="benchmarks", seed=0):
        for split in ("dev", "devtest"):
            folder = tmp_path / name / "flores200_dataset" / split
            folder.mkdir(parents=True)
            for code in SENTENCES:
                lines = texts(code, seed + 10 * (split == "dev"))
                (folder / f"{code}.{split}").write_text("\n".join(lines) + "\n")
        return tmp_path / name

    return write


@pytest.fixture
def data(tmp_path):
    """Generated pairs in Basque and Hausa that overlap nothing, filtered by decontamination.py with these flags."""

    def filtered(*flags, names=("Basque",)):
        folder = tmp_path / f"data{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for language, code in (("Basque", "eus_Latn"), ("Hausa", "hau_Latn")):
            sides = texts(code, 99), texts("eng_Latn", 98)
            record = {
                "sentence": " ".join(sides[0]),
                "propositions": sides[0],
                "translations": sides[1],
                "scores": [None] * 3,
            }
            (folder / f"{language}_translate.jsonl").write_text(json.dumps(record) + "\n")
        words = ("--input_dir", folder, "--languages", *names, "--allow_partial_benchmark", *flags)
        result = in_process("decontamination.py", *words)
        assert result.returncode in (0, 3), result.stderr
        return folder

    return filtered


def flores(folder, name="flores", src=ENGLISH, tgt=BASQUE, **more):
    return evaluation_sets.load(
        name, src, tgt, folder=folder, max_samples=None, need_pool=False, allow_partial=True, **more
    )


def warning(test, *links) -> str | None:
    dataset = evaluation_sets.DATASETS[test.name].test
    sides = training_overlap.sides_of(test.facts, (test.src.name, test.tgt.name), dataset[0] if dataset else "")
    covers = _covers({test.src.name: test.sources, test.tgt.name: test.references})
    return training_overlap.warning(sides, list(lineage.walk(links)), covers)


def pairs(folder, language="Basque"):
    return lineage.of_pairs(folder / f"{language}_translate_filtered.jsonl")


def test_data_that_was_decontaminated_against_this_test_set(benchmarks, data):
    copy = benchmarks()
    link = pairs(data("--benchmarks", "flores", "--benchmark_dir", copy))
    for test in (
        flores(copy),
        flores(copy, src=BASQUE, tgt=ENGLISH),
        flores(copy, "topxgen"),
        flores(copy, "validation"),
    ):
        assert warning(test, link) is None
    # No Hausa is in the data, and its English side was checked.
    assert warning(flores(copy, src=ENGLISH, tgt=HAUSA), link) is None


def test_another_test_set_another_copy_and_another_split(benchmarks, data):
    copy, newer = benchmarks(), benchmarks("newer", 1)
    folder = data("--benchmarks", "udhr")
    problem = "which was not decontaminated against"
    assert warning(flores(copy), pairs(folder)) == (
        f"trained on {folder} (Basque), {problem} flores devtest English and flores devtest Basque"
    )
    assert (
        warning(flores(copy, src=ENGLISH, tgt=HAUSA), pairs(folder))
        == f"trained on {folder} (Basque), {problem} flores devtest English"
    )
    folder = data("--benchmarks", "flores", "--benchmark_dir", newer)
    assert warning(flores(copy), pairs(folder)) == (
        f"trained on {folder} (Basque), {problem} flores devtest English (another copy was) and flores devtest Basque (another copy was)"
    )
    link = pairs(folder)
    link["removed"] = [
        text for text in link["removed"] if text["split"] == "dev"
    ]  # of a decontamination against it alone
    assert "flores devtest Basque (only dev)" in warning(flores(newer), link)


def test_one_side_alone(benchmarks, data):
    copy = benchmarks()
    flags = ("--benchmarks", "flores", "--benchmark_dir", copy)
    folder = data(*flags, "--drop_on_translation_overlap", "keep")
    assert warning(flores(copy), pairs(folder)) == (
        f"trained on {folder} (Basque), which was not decontaminated against flores devtest English"
    )
    folder = data(*flags, "--drop_on_sentence_overlap", "keep")
    assert warning(flores(copy), pairs(folder)).endswith("against flores devtest Basque")


def test_a_language_that_was_left_out(benchmarks, data):
    copy = benchmarks()
    folder = data("--benchmarks", "flores", "--benchmark_dir", copy)
    (folder / "Hausa_translate_filtered.jsonl").write_text((folder / "Hausa_translate.jsonl").read_text())
    both = pairs(folder), pairs(folder, "Hausa")
    assert warning(flores(copy), *both) == (
        f"trained on {folder} (Hausa), of which it is not known whether it holds the test set: no manifest_decontaminate_Hausa.json in {folder}"
    )
    folder = data("--benchmarks", "flores", "--benchmark_dir", copy, names=("Basque", "Hausa"))
    assert warning(flores(copy), pairs(folder), pairs(folder, "Hausa")) is None


def test_a_filtered_file_that_was_changed(benchmarks, data):
    copy = benchmarks()
    folder = data("--benchmarks", "flores", "--benchmark_dir", copy)
    path = folder / "Basque_translate_filtered.jsonl"
    path.write_text(path.read_text().replace("itsasoa", "mendia"))
    assert "describes another Basque_translate_filtered.jsonl than the one that is there" in warning(
        flores(copy), pairs(folder)
    )
    (folder / "manifest_decontaminate_Basque.json").write_text('{"settings": 1}')
    assert "manifest_decontaminate_Basque.json: field " in warning(flores(copy), pairs(folder))


def test_files_of_ones_own_by_their_texts(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for code, name in (("eng_Latn", "English"), ("eus_Latn", "Basque")):
        (tmp_path / f"{name}.txt").write_text("\n".join(texts(code, 5, 6)) + "\n")
    folder = data("--benchmarks", "English.txt:English", "Basque.txt:Basque")
    own = [tmp_path / "English.txt", tmp_path / "Basque.txt"]
    (tmp_path / "moved").mkdir()
    moved = [path.rename(tmp_path / "moved" / path.name) for path in own]
    assert warning(flores(None, "files", test_files=tuple(moved)), pairs(folder)) is None, (
        "the same texts, in whatever file"
    )
    parts = tuple(f"{path}[3:]" for path in moved)
    test = flores(None, "files", test_files=parts)
    assert warning(test, pairs(folder)).endswith("against the test file in English and the test file in Basque")
    for path in moved:
        path.rename(tmp_path / path.name)
    assert warning(test, pairs(folder)) is None, "a slice of the file that was removed"
    (tmp_path / "Basque.txt").write_text("Beste testu bat.\n" * 6)
    assert warning(test, pairs(folder)).endswith("against the test file in Basque"), "it was another file"


def test_phrases_have_no_test_set(data):
    link = {"kind": "data", "name": "d", "ends": "no manifest"}
    assert (
        training_overlap.warning(training_overlap.sides_of({}, ("English", "Basque"), ""), [link], lambda *_: False)
        is None
    )


def trained_on(name, folder, **more):
    """The link of a model of train.py on this data, before it is trained."""
    spec = DatasetSpec(str(name), ENGLISH, (BASQUE,), folder or (), allow_partial_benchmark=True, **more)
    settings = {
        "dataset_name_or_path": str(name),
        "model_name_or_path": "org/base",
        **{k: v for k, v in more.items() if k == "split"},
    }
    return lineage.of_training(settings, training_data.load(spec)[1])


def test_the_test_set_itself(benchmarks, tmp_path):
    copy, other = benchmarks(), benchmarks("other", 1)
    assert warning(flores(copy), trained_on("flores", copy)) is None, "dev is not devtest"
    assert warning(flores(copy), trained_on("udhr", None)) is None
    itself = "trained on flores dev, which is this test set itself (flores dev English)"
    assert warning(flores(copy, "validation"), trained_on("flores", copy)) == itself
    assert warning(flores(copy), trained_on("flores", copy, split="devtest")).startswith(
        "trained on flores devtest, which is this"
    )
    assert "which is another copy of this test set (flores dev English)" in warning(
        flores(other, "validation"), trained_on("flores", copy)
    )
    table = tmp_path / "own.jsonl"
    rows = zip(texts("eng_Latn", 0), texts("eus_Latn", 0), strict=True)
    table.write_text("".join(json.dumps({"source": a, "target": b}) + "\n" for a, b in rows))
    assert (
        warning(flores(copy), trained_on(table, None))
        == f"trained on {table}, which is this test set itself (flores devtest English)"
    )
    assert warning(flores(other), trained_on(table, None)) == (
        f"trained on {table}, of which it is not known whether it holds the test set: no manifest says which test sets were removed from it"
    )


@pytest.mark.medium
def test_a_set_that_train_py_has_exported(benchmarks, data, tmp_path, tiny_lm):
    copy = benchmarks()
    folder = data("--benchmarks", "flores", "--benchmark_dir", copy)
    words = (
        "--model_name_or_path",
        tiny_lm,
        "--data_dir",
        folder,
        "--target_languages",
        "Basque",
        "--test_size_ratio",
        0,
    )
    small = (
        "--max_steps",
        1,
        "--max_length",
        256,
        "--per_device_train_batch_size",
        1,
        "--gradient_accumulation_steps",
        1,
    )
    result = in_process(
        "train.py",
        *words,
        *small,
        "--num_warmup_steps",
        0,
        "--output_dir",
        tmp_path / "m",
        "--export_dir",
        tmp_path / "e",
    )
    assert result.returncode == 0, result.stderr
    for table in (tmp_path / "e", tmp_path / "e" / "dataset", tmp_path / "e" / "train.parquet"):
        assert warning(flores(copy), trained_on(table, None)) is None, table
    (tmp_path / "e" / "more.jsonl").write_bytes((tmp_path / "e" / "train.parquet").read_bytes())
    (tmp_path / "e" / "more.jsonl").write_text('{"source": "The sea was calm.", "target": "Itsasoa bare zegoen."}\n')
    assert "no manifest says" in warning(flores(copy), trained_on(tmp_path / "e" / "more.jsonl", None))
    assert warning(flores(benchmarks("other", 1)), trained_on(tmp_path / "e", None)).startswith(
        f"trained on {folder} (Basque), which"
    )


def test_a_manifest_that_names_code_runs_none(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.txt:x.py").write_text("raise SystemExit('run')")
    (tmp_path / "evil.txt").write_text("a\n")
    text = {"benchmark": "evil.txt:x.py:f", "split": "", "language": "English", "sha256": ""}
    side = training_overlap.Side("English", "", "", "1")
    assert not _covers({"English": ["a"]})(text, side)
