"""A random sample of items that come one after the other, however many there are."""

import heapq
import random
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Reservoir(Generic[Item]):
    """`size` of the items that are added, each with the same chance: those with the lowest of random numbers, or of hashes."""

    def __init__(self, size: int, random_source: random.Random | None = None):
        self._size, self._random, self._count = size, random_source, 0
        self._kept: list[tuple[float, int, Item]] = []  # a heap, the highest number first; (-number, place, item)

    def add(self, item: Item, number: int | None = None) -> None:
        """`number`: in place of one of the random source."""
        drawn = -(self._random.random() if number is None else number), self._count, item
        self._count += 1
        if len(self._kept) < self._size:
            heapq.heappush(self._kept, drawn)
        elif drawn > self._kept[0]:
            heapq.heapreplace(self._kept, drawn)

    def items(self) -> list[Item]:
        """In an order by chance: the first n are a random sample, too."""
        return [item for *_, item in sorted(self._kept, reverse=True)]

    def in_order(self) -> list[Item]:
        """In the order in which they were added."""
        return [item for *_, item in sorted(self._kept, key=lambda kept: kept[1])]
