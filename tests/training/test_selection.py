"""Which pairs are trained on: percentile, size and strategy, duplicates."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.support.pairs import BASQUE, ENGLISH, HAUSA, counts, generated, record, refusal, scored, source
from tests.support.runs import in_process
from topxgen.training.dataset_spec import DatasetSpec
from topxgen.training.pairs import split
from topxgen.training.training_data import load

pytestmark = pytest.mark.usefixtures("no_shared_cache")


def taken(folder: Path, **options) -> list[float]:
    return [float(pair.target.split()[1]) for pair in load(source("topxgen", data_dir=folder, **options))[0]]


def test_percentile_keeps_what_is_strictly_above(tmp_path):
    generated(tmp_path, "Basque", scored(5.0, 1.0, 3.0), record(("labur", "short", 100.0)), scored(2.0, 4.0))
    assert taken(tmp_path, percentile=50) == [5.0, 4.0], "the median itself is not above it; short pairs do not count"
    assert taken(tmp_path, percentile=0) == [5.0, 3.0, 2.0, 4.0]
    assert taken(tmp_path, percentile=60) == [5.0, 4.0], "between 3 and 4"
    assert taken(tmp_path, percentile=50, dataset_size=1) == [5.0, 4.0], "it goes before the size"
    _, facts = load(source("topxgen", data_dir=tmp_path, percentile=50))
    assert counts(facts) == {"read": 6, "too_short": 1, "by_percentile": 2, "pairs": 2}
    message = refusal(load, source("topxgen", data_dir=tmp_path, percentile=100))
    assert "leaves none of 5 pairs of English to Basque: no score is above 5" in message


def test_percentile_is_of_each_language(tmp_path):
    generated(tmp_path, "Basque", scored(1.0, 2.0, 3.0, scorer="blaser"))
    generated(tmp_path, "Hausa", scored(11, 12, 13, scorer="confidence"))
    found, facts = load(source("topxgen", BASQUE, HAUSA, data_dir=tmp_path, percentile=50))
    assert [pair.target.split()[1] for pair in found] == ["3.0", "13"]
    assert [of["scorer"] for of in facts["languages"].values()] == ["blaser", "confidence"]


def test_confidences_of_two_translators_are_not_ranked_together(tmp_path):
    folders = [tmp_path / "a" / "apertium", tmp_path / "b" / "apertium", tmp_path / "nllb"]
    for number, folder in enumerate(folders):
        generated(folder, "Basque", scored(*(10 * number + i for i in range(3)), scorer="confidence"))
    assert len(load(source("topxgen", data_dir=folders[:2], percentile=50))[0]) == 3
    message = refusal(load, source("topxgen", data_dir=folders, percentile=50))
    assert "confidence of apertium and confidence of nllb, whose scores are not comparable" in message
    cleaned = tmp_path / "cleaned"
    generated(cleaned, "Basque", scored(*range(30, 33), scorer="confidence"))
    manifest = {"input": {"path": str(folders[0] / "Basque_translate.jsonl")}}
    (cleaned / "manifest_decontaminate_Basque.json").write_text(json.dumps(manifest))
    assert load(source("topxgen", data_dir=[*folders[:2], cleaned], percentile=50))[0], "filtered to another folder"
    two = load(source("topxgen", data_dir=folders[1:], dataset_size=2, strategy="highest"))[0]
    assert len(two) == 2, "each folder is ranked by itself"


def test_dataset_size_by_strategy(tmp_path):
    generated(tmp_path, "Basque", scored(1.0, 5.0, 3.0), scored(4.0, 3.0, 2.0, word="beste"))
    assert taken(tmp_path) == taken(tmp_path, dataset_size=6) == taken(tmp_path, dataset_size=99) == [1, 5, 3, 4, 3, 2]
    assert taken(tmp_path, dataset_size=2) == [1, 5]
    assert taken(tmp_path, dataset_size=2, strategy="highest") == [5, 4]
    assert taken(tmp_path, dataset_size=4, strategy="highest") == [5, 3, 4, 3], "in file order"
    three, facts = load(source("topxgen", data_dir=tmp_path, dataset_size=3, strategy="highest"))
    everything = load(source("topxgen", data_dir=tmp_path, strategy="highest"))[1]
    assert ["scorer" in one["languages"]["English to Basque"] for one in (facts, everything)] == [True, False]
    assert [pair.target.split()[1] for pair in three] == ["5.0", "3.0", "4.0"]
    assert len({pair.group for pair in three}) == 2 and three[1].group == three[0].group, "of two 3.0 the first"
    _, facts = load(source("topxgen", data_dir=tmp_path, dataset_size=99))
    assert counts(facts) == {"read": 6, "asked": 99, "by_size": 6, "pairs": 6}


def test_exact_duplicates_are_dropped_after_the_selection(tmp_path):
    """The selection is the published one, with the duplicates in it; of equal pairs the first stays."""
    closing = ("Eskerrik asko denei.", "Thanks to you all.", 9.0)
    paragraphs = [record((f"Esaldi luze bat {i}.", f"One long one {i}.", float(i)), closing) for i in range(8)]
    other = record(("Eskerrik asko denei.", "Thank you, everyone.", 8.5))
    generated(tmp_path, "Basque", *paragraphs, other)

    def chosen(**options) -> list[str]:
        return [pair.source for pair in load(source("topxgen", data_dir=tmp_path, **options))[0]]

    found, facts = load(source("topxgen", data_dir=tmp_path))
    assert counts(facts) == {"read": 17, "duplicates": 7, "pairs": 10}
    assert [pair.source for pair in found[:3]] == ["One long one 0.", "Thanks to you all.", "One long one 1."]
    assert chosen(dataset_size=3) == ["One long one 0.", "Thanks to you all.", "One long one 1."]
    assert chosen(dataset_size=4) == chosen(dataset_size=3), "the fourth is the second again"
    assert chosen(dataset_size=9, strategy="highest") == ["Thanks to you all.", "Thank you, everyone."]
    assert chosen(percentile=40) == ["Thanks to you all.", "One long one 7.", "Thank you, everyone."], (
        "of all 17 scores"
    )
    assert len(split(found, 5, 1)[1]) == 5


def test_a_random_selection_is_of_the_seed_and_the_language(tmp_path):
    generated(tmp_path, "Basque", scored(*range(100)))
    generated(tmp_path, "Hausa", scored(*range(100)))
    some = taken(tmp_path, dataset_size=10, strategy="random")
    assert some == sorted(some) != list(range(10)) and len(set(some)) == 10
    assert some == taken(tmp_path, dataset_size=10, strategy="random")
    assert some != taken(tmp_path, dataset_size=10, strategy="random", seed=1)
    both, _ = load(source("topxgen", HAUSA, BASQUE, data_dir=tmp_path, dataset_size=10, strategy="random"))
    values = [int(pair.target.split()[1]) for pair in both]
    assert values[10:] == some and values[:10] != some


def test_scores_that_cannot_rank(tmp_path):
    generated(tmp_path, "Basque", scored(1.0, None, float("nan")), record(("labur", "short", None)))
    assert len(load(source("topxgen", data_dir=tmp_path, dataset_size=3, strategy="highest"))[0]) == 3, "all are taken"
    for options in ({"percentile": 10}, {"dataset_size": 2, "strategy": "highest"}):
        message = refusal(load, source("topxgen", data_dir=tmp_path, **options))
        assert "2 of 3 pairs" in message and "datagen.py --stages score" in message
    generated(tmp_path, "Basque", scored(1.0, scorer="blaser"), scored(2.0, scorer="confidence"), scored(3.0))
    message = refusal(load, source("topxgen", data_dir=tmp_path, percentile=10))
    assert "scored by an unnamed scorer and blaser and confidence" in message and "--stages score" in message
    assert len(load(source("topxgen", data_dir=tmp_path, dataset_size=2, strategy="random"))[0]) == 2
    generated(tmp_path, "Basque", scored(1.0, scorer="blaser"), scored(2.0, scorer="confidence"))
    assert "scored by blaser and confidence" in refusal(load, source("topxgen", data_dir=tmp_path, percentile=10))
    # What is dropped before need not be comparable.
    generated(tmp_path, "Basque", scored(1.0, 2.0, scorer="a"), record(("labur", "short", 9.0), scorer="b"))
    assert len(load(source("topxgen", data_dir=tmp_path, percentile=50))[0]) == 1


def test_contradicting_settings():
    for options, says in (
        ({"dataset_size": 0}, "--dataset_size 0 is neither -1 (all) nor"),
        ({"src": BASQUE}, "Basque is both --src and"),
    ):
        assert says in refusal(load, source("udhr", **options))
    assert "--target_languages" in refusal(load, DatasetSpec("udhr", ENGLISH, ()))


@pytest.mark.parametrize(
    "words, says",
    [
        (["--percentile", "101"], "--percentile: '101' is not a number from 0 to 100"),
        (["--percentile", "nan"], "--percentile: 'nan' is not a number from 0 to 100"),
        (["--strategy", "best"], "--strategy: 'best' is not one of soonest, highest, random"),
        (["--dataset_size", "-2"], "--dataset_size: '-2' is not a whole number of -1 or more"),
        (["--export_formats", "parkett"], "'parkett' is not one of datasets, parquet, text (did you mean parquet?)"),
    ],
)
def test_values_that_no_flag_takes(words, says):
    result = in_process("train.py", "--model_name_or_path", "m", "--output_dir", "o", *words)
    assert result.returncode == 2 and says in result.stderr and result.stderr.count("\n") == 1


def test_several_folders_give_equal_shares(tmp_path, caplog):
    a, b = tmp_path / "a", tmp_path / "b"
    generated(a, "Basque", scored(1.0, 2.0, 3.0, 4.0, 5.0, id="1"))
    generated(b, "Basque", scored(11.0, 12.0, 13.0, id="1"))

    def both(**options) -> list[float]:
        return [float(pair.target.split()[1]) for pair in load(source("topxgen", data_dir=(a, b), **options))[0]]

    assert both() == [1, 2, 3, 4, 5, 11, 12, 13]
    assert both(dataset_size=4) == [1, 2, 11, 12]
    assert both(dataset_size=5) == [1, 2, 3, 11, 12], "the first folder has the odd pair"
    assert both(dataset_size=1) == [1]
    assert both(dataset_size=4, strategy="highest") == [4, 5, 12, 13]
    sample = both(dataset_size=6, strategy="random")
    assert sum(value < 10 for value in sample) == 3 and sample == both(dataset_size=6, strategy="random")
    assert both(percentile=50) == [5, 11, 12, 13], "of all scores"
    found, facts = load(source("topxgen", data_dir=(a, b)))
    assert len({pair.group for pair in found}) == 2, "paragraphs of two folders may have one id"
    assert counts(facts) == {"read": 8, "pairs": 8}
    facts = facts["languages"]["English to Basque"]
    assert facts["path"].count("Basque_translate_filtered.jsonl") == 2
    both_files = b"".join((folder / "Basque_translate_filtered.jsonl").read_bytes() for folder in (a, b))
    assert facts["sha256"] == hashlib.sha256(both_files).hexdigest()

    message = refusal(load, source("topxgen", data_dir=(a, b), dataset_size=8))
    assert f"takes 4 pairs of English to Basque from each --data_dir, but there are 5 in {a}, 3 in {b}" in message
    assert message.endswith("pass at most 6")
    assert both(dataset_size=6) == [1, 2, 3, 11, 12, 13]
    assert "there are only" not in caplog.text
    # Of a single one, published selections may ask for more than there is.
    assert taken(b, dataset_size=4) == [11, 12, 13]
    assert "--dataset_size 4, but there are only 3 pairs of English to Basque: all are taken" in caplog.text


def test_one_folder_selects_as_the_first_of_several(tmp_path):
    """Settings and data of earlier runs stay valid: with one folder nothing depends on folders."""
    a, b = tmp_path / "a", tmp_path / "b"
    generated(a, "Basque", scored(*range(50)))
    generated(b, "Basque", scored(*range(50, 100)))
    alone = taken(a, dataset_size=10, strategy="random")
    found, _ = load(source("topxgen", data_dir=(a, b), dataset_size=20, strategy="random"))
    values = [float(pair.target.split()[1]) for pair in found]
    assert values[:10] == alone
    assert values[10:] != [value + 50 for value in alone], "each folder has its own sample"


def test_duplicates_are_dropped_before_the_selection_on_request(tmp_path):
    closing = ("Eskerrik asko denei.", "Thanks to you all.", 9.0)
    rows = [record((f"Esaldi luze bat {i}.", f"One long one {i}.", float(i)), closing) for i in range(3)]
    generated(tmp_path, "Basque", *rows)

    def chosen(**options) -> tuple[list[str], dict]:
        found, facts = load(source("topxgen", data_dir=tmp_path, drop_duplicates="before", **options))
        return [pair.source for pair in found], counts(facts)

    texts = ["One long one 0.", "Thanks to you all.", "One long one 1.", "One long one 2."]
    assert chosen() == (texts, {"read": 6, "duplicates": 2, "pairs": 4})
    sizes = {"read": 6, "duplicates": 2, "asked": 3, "by_size": 3, "pairs": 3}
    assert chosen(dataset_size=3) == (texts[:3], sizes)
    assert chosen(dataset_size=2, strategy="highest")[0] == ["Thanks to you all.", "One long one 2."]
    assert chosen(dataset_size=3, strategy="highest")[0] == texts[1:], "in file order"
    assert chosen(percentile=40)[0] == ["Thanks to you all.", "One long one 2."], "of the four scores"


@pytest.mark.parametrize(
    "words, says",
    [
        (["--data_dir", "a", "b", "a"], "--data_dir a is given twice: its pairs would count twice"),
        (["--data_dir", "a", "b/../a"], "--data_dir a is given twice: its pairs would count twice"),
        (["--data_dir", "a", "b", "--dataset_name_or_path", "smol"], "several --data_dir are for --dataset_name_or_path topxgen"),
    ],
)  # fmt: skip
def test_folders_that_do_not_go_together(words, says):
    result = in_process(
        "train.py", "--model_name_or_path", "m", "--output_dir", "o", "--target_languages", "Basque", *words
    )
    assert result.returncode == 2 and says in result.stderr and result.stderr.count("\n") == 1
