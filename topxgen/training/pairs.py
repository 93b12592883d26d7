"""Pairs that a model is trained on, and the two things done to all of them: held-out pairs split off, directions added."""

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from topxgen.common.errors import UsageError


@dataclass(frozen=True, slots=True)
class Pair:
    """A text and its translation; or raw text, trained on as it stands: then `target` holds it and all but `group` is ""."""

    source: str
    target: str
    src: str  # English names, as in topxgen/text/languages.tsv
    tgt: str
    group: str  # pairs of one group (paragraph, document) never stand on both sides of the split

    @property
    def direction(self) -> str:
        return direction(self.src, self.tgt)


def direction(src: str, tgt: str) -> str:
    """How a direction is called in counts and messages."""
    return f"{src} to {tgt}" if src else "raw text"


def reverse(pairs: list[Pair]) -> list[Pair]:
    """The pairs, and after them each in the other direction. Raises UsageError when there is raw text among them."""
    if not all(pair.src for pair in pairs):
        raise UsageError(
            "text of one column has no other direction: drop --reverse, or pass --output_column_name as well"
        )
    return [*pairs, *(Pair(pair.target, pair.source, pair.tgt, pair.src, pair.group) for pair in pairs)]


def split(pairs: list[Pair], test_size: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(train, test), both shuffled (SPEC section 6).

    `test_size` up to 1 is a share of the pairs, above 1 a count. What belongs together stays together: pairs of a
    group, and pairs that have a text in common. The test set is as large as asked, or as near below as that allows.
    Raises UsageError when `test_size` is neither, leaves no pair to train on, or everything belongs together.
    """
    count = _test_count(len(pairs), test_size)
    rng = random.Random(seed)
    order = list(range(len(pairs)))
    rng.shuffle(order)
    held = bytearray(len(pairs))
    if count:
        bundles = _linked_groups(pairs)
        rng.shuffle(bundles)
        chosen = _fill([len(bundle) for bundle in bundles], count)
        if not chosen:
            smallest = min(map(len, bundles))
            why = f"no test set of {count:,}: pairs of a paragraph, or with a text in common, stay together"
            if smallest == len(pairs):
                raise UsageError(f"{why}, and here all {smallest:,} do; pass --test_size_ratio 0, or more data")
            raise UsageError(f"{why}, {smallest:,} of them at least; pass --test_size_ratio {smallest} or more, or 0")
        for i in chosen:
            for number in bundles[i]:
                held[number] = 1
    return [pairs[i] for i in order if not held[i]], [pairs[i] for i in order if held[i]]


def _test_count(pairs: int, size: float) -> int:
    if not (0 <= size <= 1 or (size > 1 and size == size // 1)):
        raise UsageError(f"--test_size_ratio {size} is neither a share from 0 to 1 nor a whole number of pairs")
    count = max(1, round(size * pairs)) if 0 < size <= 1 else int(size)
    if count > max(0, pairs - 1):
        raise UsageError(
            f"--test_size_ratio {size:g} holds out {count:,} of {pairs:,} pairs and leaves none to train on; pass less"
        )
    return count


def _linked_groups(pairs: list[Pair]) -> list[list[int]]:
    """The numbers of the pairs that belong together, by union-find over groups and texts.

    A text counts on whichever side it stands: in data of both directions the source of one is the target of another.
    """
    parents = list(range(len(pairs)))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = i = parents[parents[i]]
        return i

    groups: dict[str, int] = {}
    texts: dict[str, dict[str, int]] = defaultdict(dict)
    for i, pair in enumerate(pairs):
        firsts = [groups.setdefault(pair.group, i), texts[pair.tgt].setdefault(pair.target, i)]
        if pair.src:
            firsts.append(texts[pair.src].setdefault(pair.source, i))
        for first in firsts:
            if first != i:
                a, b = root(first), root(i)
                parents[max(a, b)] = min(a, b)
    bundles: dict[int, list[int]] = defaultdict(list)
    for i in range(len(pairs)):
        bundles[root(i)].append(i)
    return list(bundles.values())


def _fill(sizes: list[int], count: int) -> list[int]:
    """Numbers of the sizes that add up to `count`, or to as much below as can be."""
    chosen, left = [], count
    for i, size in enumerate(sizes):
        if size <= left:
            chosen.append(i)
            left -= size
            if not left:
                return chosen
    # Nothing that fits is left, but other choices on the way may have come nearer.
    best = _subset_sum(sizes, count)
    return best if sum(sizes[i] for i in best) > count - left else chosen


def _subset_sum(sizes: Iterable[int], count: int) -> list[int]:
    """Numbers of the sizes with the largest sum up to `count`: all sums that can be had, as bits of one whole number."""
    import numpy as np

    by_size: dict[int, list[int]] = defaultdict(list)
    for i, size in enumerate(sizes):
        if size <= count:
            by_size[size].append(i)
    classes = list(by_size.items())
    reached, mask = 1, (1 << (count + 1)) - 1
    last = np.zeros(count + 1, np.int32)  # by sum: the size with which it was first reached
    for number, (size, members) in enumerate(classes):
        before, left, step = reached, min(len(members), count // size), 1
        while left:  # 1, 2, 4 ... of them at once make every number of them
            step = min(step, left)
            reached |= (reached << (step * size)) & mask
            left, step = left - step, step * 2
        fresh = np.frombuffer((reached & ~before).to_bytes(count // 8 + 1, "little"), np.uint8)
        last[np.unpackbits(fresh, count=count + 1, bitorder="little").astype(bool)] = number
        if reached >> count:
            break
    chosen, total = [], reached.bit_length() - 1
    while total:
        size, members = classes[last[total]]
        chosen.append(members.pop())
        total -= size
    return chosen
