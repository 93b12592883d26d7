"""Readers of decontaminated pairs whose source has gone on since."""

import json
import shutil
from pathlib import Path

import pytest

from comptra import evaluation_sets
from tests.support.runs import in_process
from tests.support.tiny_models import udhr_pairs
from topxgen.common import freshness
from topxgen.common.errors import UsageError
from topxgen.publication import sources
from topxgen.runs import folders
from topxgen.text import languages
from topxgen.training.dataset_spec import DatasetSpec
from topxgen.training.named_datasets import NAMED

BASQUE, ENGLISH = languages.find("Basque"), languages.find("English")


def write(path: Path, scores: list[float]) -> None:
    lines = [
        {"sentence": a, "propositions": [a], "translations": [b], "scores": [score], "id": f"a{i}"}
        for i, ((a, b), score) in enumerate(zip(udhr_pairs("Basque"), scores, strict=False))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run" / "apertium"
    folder.mkdir(parents=True)
    write(folder / "Basque_translate.jsonl", [0.5, 0.6])
    (tmp_path / "test.txt").write_text("Bat bi hiru lau bost sei zazpi zortzi bederatzi hamar.\n")
    benchmarks = (f"{tmp_path / 'test.txt'}:Basque", f"{tmp_path / 'test.txt'}:English")
    result = in_process(
        "decontamination.py", "--input_dir", folder, "--languages", "Basque", "--benchmarks", *benchmarks
    )
    assert result.returncode == 0, result.stderr
    return folder


READERS = {
    "train.py": lambda folder: NAMED["topxgen"](DatasetSpec("topxgen", src=ENGLISH, target_languages=[BASQUE], data_dir=[folder])),
    "main.py": lambda folder: evaluation_sets._generated(folder, BASQUE, ENGLISH),
    "publish.py": lambda folder: sources.plan(folders.find(folder.parent)),
    "sample.py": lambda folder: _run("scripts/sample.py", folder.parent),
}  # fmt: skip


def _run(name: str, *args) -> None:
    result = in_process(name, *args)
    if result.returncode:
        raise UsageError(result.stderr)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("scores", [[0.5, 0.6, 0.7], [1.5, 1.6]], ids=["more pairs", "other scores"])
def test_pairs_of_an_earlier_state_are_refused(folder, reader, scores):
    READERS[reader](folder)
    write(folder / "Basque_translate.jsonl", scores)
    with pytest.raises(
        UsageError,
        match=r"Basque_translate_filtered.jsonl was made of an earlier state of .*Basque_translate.jsonl: run ",
    ):
        READERS[reader](folder)


def test_statistics_of_a_run_that_goes_on_have_a_warning(folder, caplog):
    write(folder / "Basque_translate.jsonl", [0.5, 0.6, 0.7])
    assert in_process("scripts/data_stats.py", folder).returncode == 0
    assert "was made of an earlier state" in caplog.text


def test_copies_and_files_without_their_source_are_read(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, copy_function=shutil.copy)  # at another time
    write(folder / "Basque_translate.jsonl", [0.5])
    freshness.check(copy / "Basque_translate_filtered.jsonl")
    for place, other in ((folder, copy), (copy, folder)):  # the one that goes on is noticed
        write(folder / "Basque_translate.jsonl", [0.5, 0.6])
        write(copy / "Basque_translate.jsonl", [0.5, 0.6])
        freshness.check(place / "Basque_translate_filtered.jsonl")
        write(place / "Basque_translate.jsonl", [0.5, 0.6, 0.7])
        freshness.check(other / "Basque_translate_filtered.jsonl")
        with pytest.raises(UsageError, match="was made of an earlier state"):
            freshness.check(place / "Basque_translate_filtered.jsonl")
    (folder / "manifest_decontaminate_Basque.json").rename(folder / "manifest.json")  # as the message advises
    freshness.check(folder / "Basque_translate_filtered.jsonl")
    (folder / "manifest.json").rename(folder / "manifest_decontaminate_Basque.json")
    (folder / "Basque_translate.jsonl").unlink()
    freshness.check(folder / "Basque_translate_filtered.jsonl")
