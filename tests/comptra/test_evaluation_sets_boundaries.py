"""Which part of a benchmark is the test set, and which the pool."""

import pytest

from comptra import evaluation_sets
from topxgen.common.errors import UsageError
from topxgen.text import languages

ENGLISH, BASQUE = languages.find("English"), languages.find("Basque")


def load(name: str, **options):
    return evaluation_sets.load(name, ENGLISH, BASQUE, **{"folder": None, "max_samples": None, **options})


def test_parts():
    parts = {name: (row.test, row.pool) for name, row in evaluation_sets.DATASETS.items()}
    assert parts == {
        "flores": (("flores", "devtest"), ("flores", "dev")),
        "ntrex": (("ntrex", "test"), ("ntrex", "pool")),
        "tico": (("tico", "test"), ("tico", "dev")),
        "ood": (("tico", "test"), ("flores", "dev")),
        "validation": (("flores", "dev"), None),
        "topxgen": (("flores", "devtest"), None),
        "udhr": (("udhr", "test"), ("udhr", "dev")),
        "udhr-dev": (("udhr", "dev"), None),
        "files": (None, None),
    }


def test_the_first_sentences_are_taken():
    whole, some = load("udhr"), load("udhr", max_samples=3)
    assert some.sources == whole.sources[:3] and some.references == whole.references[:3] and len(whole.sources) > 20
    assert not set(whole.sources) & {source for source, _ in whole.pool}


def files(tmp_path, sources: list[str], references: list[str], name="t"):
    paths = tmp_path / f"{name}.src", tmp_path / f"{name}.ref"
    for path, lines in zip(paths, (sources, references), strict=True):
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return paths


def test_sides_are_stripped_and_parallel(tmp_path):
    assert load("files", test_files=files(tmp_path, [" a ", "b"], ["x", " y"])).references == ["x", "y"]
    assert load("files", test_files=files(tmp_path, [" a ", "b"], ["x", " y"])).sources == ["a", "b"]
    (tmp_path / "t.jsonl").write_text('{"English": "a\\nb\\r\\n\\r\\n c ", "Basque": "x\\n\\ny"}\n')
    lines = load("files", test_files=(tmp_path / "t.jsonl", tmp_path / "t.jsonl"))
    assert (lines.sources, lines.references) == (["a b c"], ["x y"]), "a translation is one line, too"
    for more in (["x"], ["x", "y", "z"]):
        with pytest.raises(UsageError, match="parallel"):
            load("files", test_files=files(tmp_path, ["a", "b"], more))


def test_pairs_of_a_pool_with_an_empty_side_are_left_out(tmp_path):
    test = files(tmp_path, ["a"], ["x"])
    pool = files(tmp_path, ["b", " ", "d", "e"], ["y", "z", "", "w"], "pool")
    loaded = load("files", test_files=test, pool_files=pool)
    assert loaded.pool == [("b", "y"), ("e", "w")] and loaded.facts["pool"]["empty"] == 2
