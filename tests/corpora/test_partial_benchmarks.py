"""Copies of published benchmarks that lack texts, and Git LFS pointers: every script refuses them, and reports what it is
allowed to take."""

import json
import re
import shutil
from pathlib import Path

import pytest

from comptra import evaluation_sets
from tests.support.runs import in_process
from topxgen.common.errors import UsageError
from topxgen.corpora import benchmarks, examples, tables
from topxgen.corpora.splits import refuse_copies
from topxgen.text import languages
from topxgen.training import file_datasets
from topxgen.training.dataset_spec import DatasetSpec
from topxgen.training.training_data import load as load_pairs

BASQUE, ENGLISH, SOMALI, SPANISH = map(languages.find, ("Basque", "English", "Somali", "Spanish"))
DEVANAGARI = str.maketrans("0123456789", "०१२३४५६७८९")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 162345\n"
PIECES = {
    "flores": [("flores200_dataset/dev/spa_Latn.dev", 997), ("flores200_dataset/devtest/spa_Latn.devtest", 1012)],
    "ntrex": [("NTREX-128/newstest2019-ref.spa.txt", 1997)],
    "tico": [("tico19-testset/dev/dev.en-es-LA.tsv", 971), ("tico19-testset/test/test.en-es-LA.tsv", 2100)],
    "xquad": [("xquad/xquad.es.json", 240)],
}


def write(path: Path, count: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{'One' if {'eng', 'eng_Latn', 'en'} & set(path.name.split('.')) else 'Uno'} {i}." for i in range(count)]
    if path.suffix == ".tsv":
        lines = ["sourceString\ttargetString\tstringID", *(f"One {i}.\t{line}\t{i}" for i, line in enumerate(lines))]
    text = "".join(f"{line}\n" for line in lines)
    if path.suffix == ".json":
        text = json.dumps({"data": [{"title": "x", "paragraphs": [{"context": line} for line in lines]}]})
    path.write_text(text)
    return path


def refusal(call, *args, **options) -> str:
    with pytest.raises(UsageError) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def flores(folder: Path, dev: int = 997, devtest: int = 1012, codes=("eng_Latn", "eus_Latn")) -> Path:
    for code in codes:
        write(folder / f"flores200_dataset/dev/{code}.dev", dev)
        write(folder / f"flores200_dataset/devtest/{code}.devtest", devtest)
    return folder


@pytest.mark.parametrize("name", PIECES)
def test_each_file_must_have_as_many_texts_as_published(name, tmp_path):
    for path, count in PIECES[name]:
        write(tmp_path / path, count)
    splits = benchmarks.load(name, SPANISH, tmp_path)
    assert not any(split.is_partial for split in splits) and len(splits) == len(benchmarks.SIZES[name])
    assert {split.name: len(split.texts) for split in splits} == benchmarks.SIZES[name]
    for path, count in PIECES[name]:
        for wrong in (1, count - 1, count + 1, 1000):
            if wrong == count:
                continue
            write(tmp_path / path, wrong)
            message = refusal(benchmarks.load, name, SPANISH, tmp_path)
            assert f"{tmp_path / path} is not the published file: {name} " in message
            assert "--allow_partial_benchmark" in message
            splits = benchmarks.load(name, SPANISH, tmp_path, allow_partial=True)
            assert any(split.is_partial and "(PARTIAL)" in split.count for split in splits)
            write(tmp_path / path, count)


def test_a_copy_with_gaps_has_as_many_lines_but_is_partial(tmp_path):
    folder = flores(tmp_path)
    path = folder / "flores200_dataset/dev/eus_Latn.dev"
    lines = path.read_text().split("\n")[:-1]
    path.write_text("".join("\n" if i % 3 else f"{line}\n" for i, line in enumerate(lines)))
    message = refusal(benchmarks.load, "flores", BASQUE, folder)
    assert f"{path} is not the published file: flores dev has 333 texts instead of 997" in message
    dev, _ = benchmarks.load("flores", BASQUE, folder, allow_partial=True)
    assert dev.count == "333 of 997 (PARTIAL)" and len(dev.texts) == 997
    path.write_text("".join("\n" if i == 500 else f"{line}\n" for i, line in enumerate(lines)))
    assert not benchmarks.load("flores", BASQUE, folder)[0].is_partial


def test_a_copy_in_which_one_line_is_repeated_is_partial(tmp_path):
    path = flores(tmp_path) / "flores200_dataset/dev/eus_Latn.dev"
    lines = path.read_text().split("\n")[:-1]
    path.write_text("".join(f"{line if i % 3 else lines[0]}\n" for i, line in enumerate(lines)))
    assert "flores dev has 665 texts instead of 997" in refusal(benchmarks.load, "flores", BASQUE, tmp_path)
    dev, _ = benchmarks.load("flores", BASQUE, tmp_path, allow_partial=True)
    assert dev.count == "665 of 997 (PARTIAL)" and len(dev.texts) == 997
    path.write_text("".join(f"{line if i > 20 else lines[0]}\n" for i, line in enumerate(lines)))
    assert not benchmarks.load("flores", BASQUE, tmp_path)[0].is_partial


def test_copies_that_end_before_their_pool_begins_are_not_taken_for_one_another(tmp_path):
    for name in ("ref.eus", "src.eng"):
        write(tmp_path / f"NTREX-128/newstest2019-{name}.txt", 400)
    refuse_copies(
        [split for side in (BASQUE, ENGLISH) for split in benchmarks.load("ntrex", side, tmp_path, allow_partial=True)]
    )


ENGLISH_FILES = {
    "flores": [("flores200_dataset/dev/eng_Latn.dev", 997), ("flores200_dataset/devtest/eng_Latn.devtest", 1012)],
    "ntrex": [("NTREX-128/newstest2019-src.eng.txt", 1997)],
    "tico": [],  # both languages are in one file
    "xquad": [("xquad/xquad.en.json", 240)],
}


@pytest.mark.parametrize("name", PIECES)
def test_the_english_texts_under_another_languages_name_are_refused(name, tmp_path):
    for path, count in [*PIECES[name], *ENGLISH_FILES[name]]:
        write(tmp_path / path, count)
    benchmarks.load(name, SPANISH, tmp_path)
    path = tmp_path / PIECES[name][-1][0]
    path.write_text(path.read_text().replace("Uno", "ONE"))
    message = refusal(benchmarks.load, name, SPANISH, tmp_path, allow_partial=True)
    assert f"{path} is not the published file: " in message and "are the English ones, not Spanish" in message
    if name == "xquad":
        assert "are the English ones" in refusal(examples.example_paragraphs, tmp_path, allow_partial=True)


@pytest.mark.parametrize("name", PIECES)
def test_lines_in_other_places_than_the_english_ones_are_refused(name, tmp_path):
    """A header in place of the last line, a list that was sorted: all references would be of other sentences."""
    for path, count in [*PIECES[name], *ENGLISH_FILES[name]]:
        write(tmp_path / path, count)
    benchmarks.load(name, SPANISH, tmp_path)
    path = tmp_path / PIECES[name][-1][0]
    text = path.read_text()
    path.write_text(re.sub(r"Uno (\d+)", lambda match: f"Uno {int(match[1]) + (int(match[1]) > 149)}", text))
    message = refusal(benchmarks.load, name, SPANISH, tmp_path)
    assert (
        f"{path} is not the published file: only 0 of " in message and "its lines are shifted or in another" in message
    )
    if name == "flores":
        pool = tmp_path / PIECES[name][0][0]
        pool.write_text(re.sub(r"Uno (\d+)", lambda match: f"Uno {int(match[1]) + 1}", pool.read_text()))
        assert "shifted" in refusal(examples.example_sentences, str(tmp_path), SPANISH)
    path.write_text(re.sub(r"Uno (\d+)", lambda match: f"Uno {match[1].translate(DEVANAGARI)}", text))
    if name != "flores":
        benchmarks.load(name, SPANISH, tmp_path)


@pytest.mark.parametrize("row", ["{number}\t{text}", '"{text}"', "<seg id='{number}'>{text}</seg>"])
def test_rows_of_a_table_in_place_of_lines_are_refused(row, tmp_path):
    path = write(tmp_path / "NTREX-128/newstest2019-ref.spa.txt", 1997)
    lines = path.read_text().split("\n")[:-1]
    path.write_text("".join(f"{row.format(number=i, text=text)}\n" for i, text in enumerate(lines)))
    assert f"{path} is not the published file: 1,000 of its texts are in" in refusal(
        benchmarks.load, "ntrex", SPANISH, tmp_path
    )


def test_every_script_refuses_a_copy_in_another_language(main_here, tmp_path):
    folder = flores(tmp_path / "b", codes=("eng_Latn", "eus_Latn", "spa_Latn"))
    data = tmp_path / "in"
    data.mkdir()
    for name in ("Basque", "Spanish"):
        record = {"sentence": "Bat.", "propositions": ["Bat."], "translations": ["One."], "id": "1"}
        (data / f"{name}_translate.jsonl").write_text(json.dumps(record) + "\n")
    decontaminate = ("--input_dir", data, "--benchmarks", "flores", "--benchmark_dir", folder, "--num_workers", 1)
    translate = ("--benchmark_dir", folder, "--output_dir", tmp_path / "out", "--dry_run")
    for result in (
        in_process("decontamination.py", *decontaminate),
        main_here("--dataset_name_or_path", "flores", "--src", "Spanish", "--tgt", "Basque", *translate),
    ):
        assert result.returncode == 2 and "hold the same texts: one of them is not in its language" in result.stderr
    assert "hold the same texts" in refusal(load_pairs, DatasetSpec("flores", SPANISH, (BASQUE,), data_dir=folder))
    for split in ("dev", "devtest"):
        path = folder / f"flores200_dataset/{split}/eus_Latn.{split}"
        path.write_text((folder / f"flores200_dataset/{split}/eng_Latn.{split}").read_text())
    for result in (
        in_process("decontamination.py", *decontaminate),
        main_here("--dataset_name_or_path", "flores", "--src", "English", "--tgt", "Basque", *translate),
    ):
        assert result.returncode == 2 and "texts of flores dev are the English ones, not Basque" in result.stderr
    assert "are the English ones" in refusal(load_pairs, DatasetSpec("flores", ENGLISH, (BASQUE,), data_dir=folder))
    assert "are the English ones" in refusal(examples.example_sentences, str(folder), BASQUE)
    for english in (ENGLISH, languages.find("English (US)")):
        assert examples.example_sentences(str(folder), english)


@pytest.mark.parametrize("name", PIECES)
def test_a_git_lfs_pointer_is_named(name, tmp_path):
    for path, count in PIECES[name]:
        write(tmp_path / path, count)
    path = tmp_path / PIECES[name][-1][0]
    path.write_text(POINTER)
    for allow_partial in (False, True):
        message = refusal(benchmarks.load, name, SPANISH, tmp_path, allow_partial=allow_partial)
        assert (
            f"cannot load {name} in Spanish: {path} is a Git LFS pointer, not the file itself; run git lfs pull"
            in message
        )


@pytest.mark.parametrize("suffix", tables.SUFFIXES)
def test_a_pointer_in_place_of_a_file_of_ones_own(suffix, tmp_path):
    path = tmp_path / f"Basque{suffix}"
    path.write_text(POINTER)
    assert f"{path} is a Git LFS pointer" in refusal(tables.read_columns, path)
    if suffix != ".txt":
        spec = DatasetSpec(str(path), ENGLISH, (BASQUE,))
        assert f"{path} is a Git LFS pointer" in refusal(lambda: list(file_datasets.open_rows(spec)[1]))


@pytest.mark.parametrize("beginning", ["/annex", "../../.git/annex"])
def test_a_git_annex_pointer_is_named(beginning, tmp_path):
    path = tmp_path / "Basque.txt"
    path.write_text(f"{beginning}/objects/MD5E-s162345--4d7a2146.txt\n")
    assert f"{path} is a git-annex pointer, not the file itself; run git annex get" in refusal(
        tables.read_columns, path
    )


def test_decontamination_says_what_was_not_checked(tmp_path):
    data = tmp_path / "in"
    data.mkdir()
    record = {"sentence": "Bat.", "propositions": ["Bat."], "translations": ["One."], "id": "1"}
    (data / "Basque_translate.jsonl").write_text(json.dumps(record) + "\n")
    folder = flores(tmp_path / "b", dev=400)
    flags = ("--input_dir", data, "--benchmarks", "flores", "--benchmark_dir", folder, "--num_workers", 1)
    result = in_process("decontamination.py", *flags)
    assert result.returncode == 2 and "flores dev has 400 texts instead of 997" in result.stderr
    assert not list(data.glob("*report*"))
    result = in_process("decontamination.py", *flags, "--allow_partial_benchmark")
    assert result.returncode == 0 and "  flores dev, 400 of 997 (PARTIAL) (English)\n" in result.stdout
    report = json.loads((data / "decontamination_report.json").read_text())
    assert report["languages"]["Basque"]["partial"] == [
        ["flores dev, 400 of 997 (PARTIAL)", "Basque"],
        ["flores dev, 400 of 997 (PARTIAL)", "English"],
    ]
    markdown = (data / "decontamination_report.md").read_text()
    assert (
        "**Partial copies, so the rest is not checked (`--allow_partial_benchmark`)**: flores dev, 400 of 997"
        in markdown
    )
    for facts in (report, json.loads((data / "manifest_decontaminate_Basque.json").read_text())["settings"]):
        rows = [row for rows in facts["benchmarks"].values() for row in rows]
        assert [(row["split"], row.get("published_texts")) for row in rows] == [("dev", 997), ("devtest", None)] * 2
    flores(tmp_path / "b")
    result = in_process("decontamination.py", *flags)
    assert result.returncode == 0 and "PARTIAL" not in result.stdout + result.stderr
    assert "Partial" not in (data / "decontamination_report.md").read_text()


def test_a_folder_of_the_environment_and_verify_where_the_run_read_benchmarks(tmp_path, monkeypatch):
    folder, data = flores(tmp_path / "b"), tmp_path / "in"
    data.mkdir()
    record = {"sentence": "Bat.", "propositions": ["Bat."], "translations": ["One."], "id": "1"}
    (data / "Basque_translate.jsonl").write_text(json.dumps(record) + "\n")
    monkeypatch.setenv(benchmarks.VARIABLE, str(tmp_path / "none"))
    assert f"{benchmarks.VARIABLE} is '{tmp_path}/none', not a folder" in refusal(benchmarks.load, "flores", BASQUE)
    assert in_process("scripts/verify.py", data).returncode == 2
    monkeypatch.setenv(benchmarks.VARIABLE, str(folder))
    assert benchmarks.needs("flores", [BASQUE], benchmarks.folder_or_default(None)) == []
    assert in_process("decontamination.py", "--input_dir", data, "--benchmarks", "flores").returncode == 0
    monkeypatch.setenv(benchmarks.VARIABLE, "")
    result = in_process("scripts/verify.py", data)
    assert result.returncode == 0 and "--benchmark_dir" not in result.stdout
    path = folder / "flores200_dataset/dev/eus_Latn.dev"
    path.write_text(path.read_text().replace("Uno 7.", "Uno 7!"))
    result = in_process("scripts/verify.py", data)
    assert result.returncode == 1 and "SHA-256 of flores dev in Basque: claimed" in result.stdout
    shutil.rmtree(folder)
    result = in_process("scripts/verify.py", data, "--verbose")
    assert "the texts of flores: pass --benchmark_dir with a copy of it" in result.stdout


def test_evaluation_sets_and_training_sets(tmp_path):
    folder = flores(tmp_path, devtest=400)
    options = {"folder": folder, "max_samples": None}
    message = refusal(evaluation_sets.load, "flores", ENGLISH, BASQUE, **options)
    assert "devtest has 400 texts instead of 1,012 (--allow_partial_benchmark takes it as it is)" in message
    facts = evaluation_sets.load("flores", ENGLISH, BASQUE, allow_partial=True, **options).facts
    assert facts["test"]["sources"]["published_texts"] == 1012 and "published_texts" not in facts["pool"]["sources"]
    spec = DatasetSpec("flores", ENGLISH, (BASQUE,), data_dir=folder, split="devtest")
    assert "devtest has 400 texts instead of 1,012" in refusal(load_pairs, spec)
    spec = DatasetSpec("flores", ENGLISH, (BASQUE,), folder, allow_partial_benchmark=True, split="devtest")
    assert load_pairs(spec)[1]["languages"]["English to Basque"]["published_texts"] == 1012


def test_main_and_its_evaluation(main_here, tmp_path):
    flores(tmp_path, devtest=400)
    data = ("--dataset_name_or_path", "flores", "--benchmark_dir", tmp_path)
    result = main_here(*data, "--output_dir", tmp_path / "out", "--dry_run")
    assert result.returncode == 2 and "devtest has 400 texts instead of 1,012" in result.stderr
    result = main_here(*data, "--output_dir", tmp_path / "out", "--dry_run", "--allow_partial_benchmark")
    assert result.returncode == 0, result.stderr
    run = tmp_path / "out" / "m" / "English_to_Basque_0_shot_seed_122"
    run.mkdir(parents=True)
    (run / "translate_0.jsonl").write_text(
        "".join(json.dumps({"sentence": f"One {i}.", "translation": f"Uno {i}."}) + "\n" for i in range(400))
    )
    flags = (run, *data, "--metrics", "chrf")
    result = in_process("comptra.evaluate", *flags)
    assert result.returncode == 2 and "devtest has 400 texts instead of 1,012" in result.stderr
    result = in_process("comptra.evaluate", *flags, "--allow_partial_benchmark")
    assert result.returncode == 0 and "100.00" in result.stdout


def test_examples_of_a_folder_in_the_publishers_layout(tmp_path):
    flores(tmp_path, dev=400)
    for load, languages_ in ((examples.example_sentences, [BASQUE]), (examples.parallel_sentences, [BASQUE, ENGLISH])):
        assert "flores dev has 400 texts instead of 997" in refusal(load, str(tmp_path), *languages_)
        assert len(load(str(tmp_path), *languages_, allow_partial=True)) == 400
    path = write(tmp_path / "xquad/xquad.es.json", 239)
    assert f"{path} is not the published file: xquad validation has 239" in refusal(
        examples.example_paragraphs, tmp_path
    )
    assert len(examples.example_paragraphs(tmp_path, allow_partial=True)["Spanish"]) == 239
    (tmp_path / "Hausa.txt").write_text("Ɗaya.\n")
    assert examples.example_sentences(str(tmp_path), languages.find("Hausa")) == ["Ɗaya."], "a file of one's own"
