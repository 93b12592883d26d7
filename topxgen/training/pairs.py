"""Training pairs, and what is done to all of them: a test set is split off, the other direction is added."""

import logging
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from topxgen.common.errors import UsageError
from topxgen.text.leak_guard import text_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """A text and its translation. Raw text, trained on as it is, stands in `target`; then source, src and tgt are ""."""

    source: str
    target: str
    src: str  # language names as in topxgen/text/languages.tsv
    tgt: str
    group: str  # pairs of one group (a paragraph, a document) are never split between training and test set

    @property
    def direction(self) -> str:
        return direction(self.src, self.tgt)


def direction(src: str, tgt: str) -> str:
    """The name of a translation direction in counts, metrics and messages."""
    return f"{src} to {tgt}" if src else "raw text"


def by_direction(pairs: Iterable[Pair]) -> dict[str, list[int]]:
    """Indices of the pairs of each direction, directions in order of appearance."""
    indices: dict[str, list[int]] = {}
    for i, pair in enumerate(pairs):
        indices.setdefault(pair.direction, []).append(i)
    return indices


def reverse(pairs: list[Pair]) -> list[Pair]:
    """The pairs, followed by those in the other direction that are not among them. Raises UsageError for raw text."""
    if not all(pair.src for pair in pairs):
        raise UsageError("--reverse needs a target column: pass --output_column_name, or drop the flag")
    other = [Pair(pair.target, pair.source, pair.tgt, pair.src, pair.group) for pair in pairs]
    if not {pair.direction for pair in pairs}.isdisjoint(pair.direction for pair in other):
        known = {(pair.source, pair.target, pair.direction) for pair in pairs}
        other = [pair for pair in other if (pair.source, pair.target, pair.direction) not in known]
        if repeated := len(pairs) - len(other):
            logger.warning(
                f"{repeated:,} of {len(pairs):,} pairs are in the data in both directions: --reverse does not add them again"
            )
    return [*pairs, *other]


def split(pairs: list[Pair], test_size: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(training, test) pairs, both shuffled.

    `test_size` is a share of the pairs if at most 1, else a count. Pairs of one group and pairs that share a text stay
    together, so the test set may be smaller than requested, but no smaller than necessary. Where a frequent text ties too
    many pairs together for that, its own pairs, and others with a text of these, are never in the test set.
    Raises UsageError if `test_size` is invalid, leaves nothing to train on, or is smaller than every group.
    """
    test_count = _test_count(len(pairs), test_size)
    rng = random.Random(seed)
    order = list(range(len(pairs)))
    rng.shuffle(order)
    in_test = bytearray(len(pairs))
    for i in _test_pairs(pairs, test_count, rng) if test_count else ():
        in_test[i] = 1
    return [pairs[i] for i in order if not in_test[i]], [pairs[i] for i in order if in_test[i]]


def _test_pairs(pairs: list[Pair], count: int, rng: random.Random) -> list[int]:
    """Indices of `count` pairs to hold out, or of nearly as many, for `split`."""
    keys = [(pair.group, *_texts(pair)) for pair in pairs]
    uses = Counter(text for _, *texts in keys for text in texts)
    limit, best, smallest = max(uses.values()), [], len(pairs)
    while True:
        frequent = {text for text, number in uses.items() if number > limit}
        groups = _linked_groups(keys, frequent)
        rng.shuffle(groups)
        smallest = min([smallest, *map(len, groups)])
        chosen = [i for group in _choose_groups([len(group) for group in groups], count) for i in groups[group]]
        if len(chosen) > len(best):
            best, untied = chosen, (len(pairs) - sum(map(len, groups)), limit)
        if len(best) * 2 >= count or limit == 1:
            break
        limit //= 2
    if not best:
        problem = f"no test set of {count:,} pairs: pairs of one paragraph or with a text in common stay together"
        if smallest == len(pairs):
            raise UsageError(f"{problem}, and all {smallest:,} do; pass --test_size_ratio 0, or more data")
        raise UsageError(f"{problem}, at least {smallest:,} of them; pass --test_size_ratio {smallest} or more, or 0")
    if untied[0]:
        logger.info(
            f"{untied[0]:,} pairs with a sentence that occurs in more than {untied[1]} of them, or with the other sentence of such a "
            "pair, are trained on, never held out: it would tie nearly all pairs together"
        )
    return best


def _texts(pair: Pair) -> list[tuple[str, str]]:
    """(language, text) of both sides, in one spelling; of raw text the one."""
    return [(pair.tgt, text_key(pair.target)), *([(pair.src, text_key(pair.source))] if pair.src else [])]


def _test_count(pairs: int, size: float) -> int:
    if not (0 <= size <= 1 or (size > 1 and size == size // 1)):
        raise UsageError(f"--test_size_ratio {size} is neither a share from 0 to 1 nor a whole number of pairs")
    count = max(1, round(size * pairs)) if 0 < size <= 1 else int(size)
    if count > max(0, pairs - 1):
        raise UsageError(
            f"--test_size_ratio {size:g} holds out {count:,} of {pairs:,} pairs and leaves none to train on; pass less"
        )
    return count


def _linked_groups(keys: list[tuple], frequent: AbstractSet[tuple[str, str]]) -> list[list[int]]:
    """Indices of the pairs that must stay together, by their groups and texts; without those with a frequent text, which are
    trained on, and those that have the other text of one of these.

    A text links pairs on either side: in data of both directions the source of one pair is the target of another.
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    linkable = [i for i, key in enumerate(keys) if frequent.isdisjoint(key)]
    first_with: dict[str | tuple[str, str], int] = {}
    links = [(i, first_with.setdefault(key, i)) for i in linkable for key in keys[i]]
    ends = np.array(links, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(links), dtype=bool), ends), shape=(len(keys), len(keys)))
    labels = connected_components(graph, directed=False)[1].tolist()
    groups: dict[int, list[int]] = defaultdict(list)
    for i in linkable:
        groups[labels[i]].append(i)
    trained = {text for key in keys if not frequent.isdisjoint(key) for text in key[1:]}
    return [group for group in groups.values() if all(trained.isdisjoint(keys[i]) for i in group)]


def _choose_groups(sizes: list[int], count: int) -> list[int]:
    """Indices of sizes whose sum is `count`, or as close below as possible."""
    chosen, remaining = [], count
    for i, size in enumerate(sizes):
        if size <= remaining:
            chosen.append(i)
            remaining -= size
            if not remaining:
                return chosen
    # The greedy choice falls short of `count`; another one may not.
    best = _subset_sum(sizes, count)
    return best if sum(sizes[i] for i in best) > count - remaining else chosen


def _subset_sum(sizes: list[int], count: int) -> list[int]:
    """Indices of the sizes with the largest sum up to `count`: dynamic programming over sums, one size at a time."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for i, size in enumerate(sizes):
        if size <= count:
            by_size[size].append(i)
    last_size = {0: 0}  # of each sum that can be reached, the size that reached it first
    for size, members in by_size.items():
        used: dict[int, int] = defaultdict(int)  # by sum: how many of this size it takes
        for total in range(size, count + 1):
            if total not in last_size and total - size in last_size and used[total - size] < len(members):
                last_size[total], used[total] = size, used[total - size] + 1
        if count in last_size:
            break
    chosen, total = [], max(last_size)
    while total:
        chosen.append(by_size[last_size[total]].pop())
        total -= last_size[total]
    return chosen
