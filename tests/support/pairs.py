"""What the tests of training data share: pairs, files that hold them, what a mistake says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from topxgen.common.errors import UsageError
from topxgen.text import languages
from topxgen.training.dataset_spec import DatasetSpec
from topxgen.training.pairs import Pair

ENGLISH, BASQUE, HAUSA, NEPALI, SWAHILI = map(languages.find, ("English", "Basque", "Hausa", "Nepali", "Swahili"))
# A user's own row of --languages_file.
SORBIAN = replace(BASQUE, name="Upper Sorbian", flores="hsb_Latn", iso639_1="", iso639_3="hsb")


def source(name, *targets, **options) -> DatasetSpec:
    options = {"allow_partial_benchmark": True} | options
    return DatasetSpec(str(name), options.pop("src", ENGLISH), targets or (BASQUE,), **options)


def write(path: Path, *rows: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def record(*triples: tuple, **more) -> dict:
    """A record of (sentence, translation, score)."""
    sentences, translations, scores = (list(side) for side in zip(*triples, strict=True))
    return {
        "sentence": " ".join(sentences),
        "propositions": sentences,
        "translations": translations,
        "scores": scores,
        **more,
    }


def generated(folder: Path, language: str, *records: dict) -> Path:
    return write(folder / f"{language}_translate_filtered.jsonl", *records)


def scored(*scores, word="esaldi", **more) -> dict:
    """A record with a pair for each score, which its texts name."""
    return record(*((f"{word} {score} luzea", f"long {word} {score}", score) for score in scores), **more)


def refusal(call, *arguments) -> str:
    with pytest.raises(UsageError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def counts(facts: dict, direction: str = "English to Basque") -> dict:
    json.dumps(facts)
    return facts["languages"][direction]["counts"]


def some_pairs(count: int, tgt: str = "Basque", size: int = 1) -> list[Pair]:
    return [Pair(f"source {i}", f"{tgt} {i}", "English", tgt, f"{tgt} {i // size}") for i in range(count)]


def hub(folder: Path, config: str, *rows: dict) -> str:
    """A folder that `datasets` loads as it does a repository of the Hub."""
    write(folder / config / "train.jsonl", *rows)
    card = f"---\nconfigs:\n- config_name: {config}\n  data_files:\n  - split: train\n    path: {config}/train.jsonl\n---\n"
    (folder / "README.md").write_text(card)
    return str(folder)
