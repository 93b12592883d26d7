"""Counts by id: exactly a dict's, in a fraction of its memory where ids count up."""

import random
import tracemalloc

import pytest

from topxgen.common.id_counts import IdCounts
from topxgen.common.records import with_ids

STEMS = ("Basque-{}", "Basque-{:06}.0", "Basque-{:06}.1", "Basque-native-{}.12", "{}", "mine {}", "é{}.7", "x-{}.y")


@pytest.mark.parametrize("seed", range(4))
def test_like_a_dict(seed):
    rng, counts, expected = random.Random(seed), IdCounts(), {}
    for _ in range(4000):
        number = rng.choice([rng.randrange(300), rng.randrange(10 ** rng.randrange(1, 12))])
        name = rng.choice(STEMS).format(number)
        if rng.random() < 0.5:
            counts[name] = expected[name] = rng.choice([0, 1, 2, 255, 256, 70_000])
        assert counts[name] == expected.get(name, 0)
        if rng.random() < 0.3:
            expected[name] = expected.get(name, 0) + 1
            assert counts.add(name) == expected[name]
    assert all(counts[name] == value for name, value in expected.items())


@pytest.mark.parametrize("names", [["", "7", "07", "7.", ".7", "a\\n1", "²", "٣", "1" * 40], ["#2", "a#2", "a", "-"]])
def test_odd_ids_are_kept_apart(names):
    counts = IdCounts()
    for value, name in enumerate(names, 1):
        counts[name] = value
    assert [counts[name] for name in names] == list(range(1, len(names) + 1))


def test_ids_of_a_long_file_take_little_memory():
    records = ({"id": f"Basque-{i // 2:06}.{i % 2}", "text": ""} for i in range(60_000))
    tracemalloc.start()
    assert all(name == record["id"] for name, record in with_ids(records, "text"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000


def test_one_far_away_id_does_not_cost_an_array():
    counts = IdCounts()
    tracemalloc.start()
    counts["Basque-999999999.0"] = 3
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts["Basque-999999999.0"] == 3 and peak < 10_000
