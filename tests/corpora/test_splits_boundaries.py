"""Where test sets begin and end. What belongs to a test set must never be a demonstration or an example."""

import pytest

from topxgen.common.errors import UsageError
from topxgen.corpora import benchmarks
from topxgen.text import languages

BASQUE = languages.find("Basque")


def test_articles_21_to_30_of_the_udhr_are_the_test_set():
    splits = {split.name: split for split in benchmarks.load("udhr", BASQUE)}
    articles = {name: {id_.split()[0] for id_ in split.ids} for name, split in splits.items()}
    assert articles["test"] == {str(number) for number in range(21, 31)}
    assert articles["dev"] == {"preamble", *(str(number) for number in range(1, 21))}


def test_the_first_thousand_lines_of_ntrex_are_the_test_set(tmp_path):
    folder = tmp_path / "NTREX-128"
    folder.mkdir()
    path = folder / "newstest2019-ref.eus.txt"
    path.write_text("".join(f"line {i}\n" for i in range(1, 1998)))
    test, pool = benchmarks.load("ntrex", BASQUE, tmp_path)
    assert (test.name, len(test.texts), test.texts[-1], test.ids[-1]) == ("test", 1000, "line 1000", "1000")
    assert (pool.name, len(pool.texts), pool.texts[0], pool.ids[0], pool.ids[-1]) == (
        "pool",
        997,
        "line 1001",
        "1001",
        "1997",
    )
    path.write_text("".join(f"line {i}\n" for i in range(1, 1997)))
    with pytest.raises(UsageError, match="ntrex pool has 996 texts instead of 997"):
        benchmarks.load("ntrex", BASQUE, tmp_path)


def test_published_sizes_are_the_published_ones():
    """FLORES-200 (Costa-jussà et al. 2022), NTREX-128 (Federmann et al. 2022), TICO-19 (Anastasopoulos et al. 2020)."""
    assert benchmarks.SIZES["flores"] == {"dev": 997, "devtest": 1012}
    assert sum(benchmarks.SIZES["ntrex"].values()) == 1997 and benchmarks.SIZES["ntrex"]["test"] == 1000
    assert benchmarks.SIZES["tico"] == {"dev": 971, "test": 2100}
    assert sum(benchmarks.SIZES["xquad"].values()) == 240
