"""A sample of a stream."""

import random
from collections import Counter

from topxgen.common.reservoir import Reservoir


def drawn(count: int, size: int, seed: int) -> Reservoir:
    sample = Reservoir(size, random.Random(seed))
    for item in range(count):
        sample.add(item)
    return sample


def test_each_item_has_the_same_chance_also_among_the_first_ones():
    of_all, of_first = Counter(), Counter()
    for seed in range(3000):
        sample = drawn(12, 4, seed)
        assert sample.in_order() == sorted(sample.items()) and len(set(sample.items())) == 4
        of_all.update(sample.items())
        of_first.update(sample.items()[:1])
    assert all(abs(of_all[item] / 3000 - 1 / 3) < 0.03 for item in range(12)), of_all
    assert all(abs(of_first[item] / 3000 - 1 / 12) < 0.03 for item in range(12)), of_first


def test_few_items_are_all_kept():
    assert drawn(3, 5, 0).in_order() == [0, 1, 2] and drawn(0, 5, 0).items() == []
