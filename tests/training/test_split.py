"""The held-out pairs, and the other direction."""

import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest

from tests.support.pairs import generated, refusal, scored, some_pairs, source
from tests.support.runs import ROOT
from topxgen.common.errors import UsageError
from topxgen.training import pairs
from topxgen.training.pairs import Pair, reverse, split
from topxgen.training.training_data import load

pytestmark = pytest.mark.usefixtures("no_shared_cache")


def test_sizes_of_the_test_set():
    hundred = some_pairs(100)
    for size, expected in ((0, 0), (0.1, 10), (0.29, 29), (2, 2), (2.0, 2), (99, 99), (0.001, 1), (0.99, 99)):
        train, test = split(hundred, size, 122)
        assert (len(train), len(test)) == (100 - expected, expected)
        assert sorted(train + test, key=str) == sorted(hundred, key=str)
    assert split([], 0, 1) == ([], [])
    for size in (1, 1.0, 100, 1000):
        assert "leaves none to train on" in refusal(split, hundred, size, 122)
    for size in (1.5, -1, -0.1, float("nan"), float("inf")):
        assert "neither a share from 0 to 1 nor a whole number" in refusal(split, hundred, size, 122)
    assert "leaves none to train on" in refusal(split, some_pairs(1), 0.5, 122)


def test_the_split_is_shuffled_by_the_seed():
    hundred = some_pairs(100)
    train, test = split(hundred, 20, 122)
    assert (train, test) == split(hundred, 20, 122) != split(hundred, 20, 123)
    for part in (train, test):
        assert part != sorted(part, key=hundred.index)
    assert set(test) != set(hundred[:20])
    assert split(hundred, 0, 5)[0] != hundred


def test_no_group_and_no_text_on_both_sides():
    rng = random.Random(1)
    found = [
        Pair(f"english {rng.randrange(3000)}", f"{tgt} {rng.randrange(6000)}", "English", tgt, f"{tgt} {i // 3}")
        for tgt in ("Basque", "Hausa")
        for i in range(600)
    ]
    train, test = split(found, 99, 122)
    assert len(test) == 99 and Counter(train + test) == Counter(found)
    for key in (lambda pair: pair.group, lambda pair: pair.source, lambda pair: (pair.tgt, pair.target)):
        assert not set(map(key, train)) & set(map(key, test))
    ours, theirs = ({(pair.source, pair.target) for pair in reverse(part)} for part in (train, test))
    assert not ours & theirs


def test_what_ties_pairs_together():
    def tied(*two: Pair) -> bool:
        try:
            return len(split(list(two), 1 / 2, 1)[1]) != 1
        except UsageError:
            return True

    one = Pair("Hello.", "Kaixo.", "English", "Basque", "1")
    for other, together in (
        (Pair("Hi.", "Aupa.", "English", "Basque", "1"), True),
        (Pair("Hello.", "Sannu.", "English", "Hausa", "2"), True),
        (Pair("Hi.", "Kaixo.", "French", "Basque", "2"), True),
        (Pair("Kaixo.", "Sannu.", "Basque", "Hausa", "2"), True),  # as in data of both directions
        (Pair("Hi.", "Kaixo.", "English", "Hausa", "2"), False),
        (Pair("Hello.", "Aupa.", "French", "Basque", "2"), False),
        (Pair("Hi.", "kaixo", "English", "Basque", "2"), True),  # another spelling
    ):
        assert tied(one, other) == together, other
    raw = [Pair("", text, "", "", text) for text in ("one", "two")]
    assert not tied(*raw), "no source is none that they share"
    assert tied(raw[0], replace(raw[0], group="x"))


def test_paragraphs_that_do_not_fit():
    fours = some_pairs(40, size=4)
    assert [len(part) for part in split(fours, 10, 1)] == [32, 8], "as near below as can be"
    message = refusal(split, fours, 3, 1)
    assert "no test set of 3" in message and "pass --test_size_ratio 4 or more" in message
    five = [Pair(f"s{i}", f"t{i}", "English", "Basque", "five") for i in range(5)]
    assert "at least 4 of them; pass --test_size_ratio 4 or more" in refusal(split, [*fours, *five], 3, 1)
    assert "all 5 do" in refusal(split, some_pairs(5, size=5), 2, 1)
    frequent = [
        replace(some_pairs(1)[0], group=str(i)) for i in range(3)
    ]  # beside which three others of each group remain
    three = [*frequent, *(Pair(f"s{i}", f"t{i}", "English", "Basque", str(i // 3)) for i in range(9))]
    assert "at least 3 of them; pass --test_size_ratio 3 or more" in refusal(split, three, 2, 1)
    assert [len(part) for part in split(three, 3, 1)] == [9, 3]
    for seed in range(20):  # 2 + 3 would leave 1
        sizes = [
            Pair(f"{n} {i}", f"{n} {i}", "English", "Basque", n) for n in ("2a", "3a", "3b") for i in range(int(n[0]))
        ]
        assert len(split(sizes, 6, seed)[1]) == 6


def test_the_nearest_sum_is_found():
    for seed in range(300):
        rng = random.Random(seed)
        sizes = [rng.randint(1, rng.choice([3, 12])) for _ in range(rng.randint(1, 8))]
        count = rng.randint(1, sum(sizes))
        sums = (sum(some) for n in range(len(sizes) + 1) for some in combinations(sizes, n))
        best = max(some for some in sums if some <= count)
        for fill in (pairs._choose_groups, pairs._subset_sum):
            chosen = fill(sizes, count)
            assert len(chosen) == len(set(chosen)) and sum(sizes[i] for i in chosen) == best


def test_the_split_does_not_depend_on_the_process(tmp_path):
    generated(tmp_path, "Basque", *(scored(*range(i, i + 5), id=str(i)) for i in range(0, 200, 5)))
    script = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from topxgen.text import languages
from topxgen.training import training_data as sets
chosen = dict(data_dir=Path({str(tmp_path)!r}), dataset_size=100, strategy="random")
found, _ = sets.load(sets.DatasetSpec("ours", languages.find("English"), (languages.find("Basque"),), **chosen))
print([[pair.target for pair in part] for part in sets.split(found, 0.2, 7)])
"""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    found, _ = load(source("ours", data_dir=tmp_path, dataset_size=100, strategy="random"))
    assert outputs == {f"{[[pair.target for pair in part] for part in split(found, 0.2, 7)]}\n"}


def test_reverse():
    pair = Pair("Hello.", "Kaixo.", "English", "Basque", "1")
    other = replace(pair, source="Hi.")
    assert reverse([pair, other]) == [
        pair, other, Pair("Kaixo.", "Hello.", "Basque", "English", "1"), Pair("Kaixo.", "Hi.", "Basque", "English", "1"),
    ]  # fmt: skip
    assert reverse([]) == []


def test_pairs_that_are_there_in_both_directions_are_not_added_again(caplog):
    pair, back = Pair("Hello.", "Kaixo.", "English", "Basque", "1"), Pair("Kaixo.", "Hello.", "Basque", "English", "2")
    alone = replace(pair, source="Hi.")
    assert reverse([pair, back, alone]) == [pair, back, alone, Pair("Kaixo.", "Hi.", "Basque", "English", "1")]
    assert "2 of 3 pairs are in the data in both directions: --reverse does not add them again" in caplog.text
