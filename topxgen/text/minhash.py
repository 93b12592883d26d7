"""Which kept texts may be near-duplicates of a text, by MinHash of its words: in a time that hardly grows with their number.

MinHash (Broder 1997) of the sets of words, in bands (Indyk and Motwani 1998): texts that agree in all rows of a band are candidates.
Those of which a share J of all words is common are so with probability 1 - (1 - J^ROWS)^BANDS: 0.98 for J = 0.54, which texts of F1
0.7 have if none of their words repeat, and more for closer ones. Words that many texts have say little and make everything a candidate:
they are left out, as far as the first kept texts show. Texts of a script without spaces all share its characters: runs of RUN of
these stand for words.
"""

from collections import Counter
from operator import itemgetter

import numpy as np

from topxgen.text.near_duplicates import PrefixIndex
from topxgen.text.words import is_unspaced

RUN = 3
BANDS, ROWS, SEED = 24, 3, 42
EXACT_TEXTS = 1_000  # the first kept texts, compared exactly, which show what words are common
COMMON_SHARE = 0.05  # of these texts
TEXTS_PER_VALUE = 32  # texts that a value of a band stands for: more share a template that the first texts do not have
CHUNK = 1 << 12  # texts that are put into a larger table at a time
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd


class MinHashIndex:
    """As PrefixIndex. Its candidates depend only on the texts added before and their order, so they are the same after a restart."""

    def __init__(self, threshold: float):
        self._exact: PrefixIndex | None = PrefixIndex(threshold)
        self._first: list[list[str]] = []
        self._common: frozenset[str] = frozenset()
        self._added = 0

    def key(self, tokens: list[str], hashes: np.ndarray):
        words = _words(tokens)
        return self._signature(words) if self._exact is None else (words, self._exact.key(tokens, hashes))

    def _signature(self, words: list[str]):
        from rensa import RMinHash

        signature = RMinHash(num_perm=BANDS * ROWS, seed=SEED)
        signature.update([word for word in words if word not in self._common] or words)
        rows = np.array(signature.digest(), np.uint64).reshape(BANDS, ROWS)
        key = np.arange(BANDS, dtype=np.uint64)  # a value of one band is none of another
        for row in rows.T:
            key = (key ^ row) * _MIX
            key ^= key >> np.uint64(32)
        return key * _MIX

    def add(self, key) -> None:
        if self._exact is None:
            self._bands.add(key)
        else:
            self._first.append(key[0])
            self._exact.add(key[1])
        self._added += 1
        if self._added == EXACT_TEXTS:
            self._leave_exact()

    def _leave_exact(self) -> None:
        counts = Counter(word for words in self._first for word in set(words))
        self._common = frozenset(word for word, count in counts.items() if count > COMMON_SHARE * EXACT_TEXTS)
        self._bands = _Bands()
        for words in self._first:
            self._bands.add(self._signature(words))
        self._exact, self._first = None, []

    def candidates(self, key) -> np.ndarray:
        """The numbers of kept texts, in the order in which they were added."""
        if self._exact is not None:
            return self._exact.candidates(key[1])
        return self._bands.candidates(key)


class _Bands:
    """Texts by the values of their bands, at most TEXTS_PER_VALUE for each: with those that share a template, a text is compared only if it agrees
    with them in other words, too, or if they were among the first. Else each would be compared with all before it.

    A value is a bucket of a hash table, which has at least as many as values were added. `_last` has the last entry of each bucket,
    `_before` the one before each entry, or -1; text number n has the entries from n * BANDS on.
    """

    def __init__(self):
        self._bits, self._count = 16, 0
        self._keys = np.empty((1 << 10, BANDS), np.uint64)
        self._before = np.empty(self._keys.size, np.int32)
        self._clear()

    def _clear(self) -> None:
        self._last = np.full(1 << self._bits, -1, np.int32)
        self._sizes = np.zeros(1 << self._bits, np.uint8)

    def add(self, key: np.ndarray) -> None:
        if self._count == len(self._keys):
            self._keys = np.concatenate([self._keys, np.empty_like(self._keys)])
            self._before = np.concatenate([self._before, np.empty_like(self._before)])
        self._keys[self._count] = key
        self._count += 1
        if self._count * BANDS <= 1 << self._bits:
            self._insert(self._count - 1, self._count)
            return
        self._bits += 2
        self._clear()
        for first in range(0, self._count, CHUNK):
            self._insert(first, min(first + CHUNK, self._count))

    def _insert(self, first: int, end: int) -> None:
        """Add the texts from `first` to `end` to their buckets, in their order."""
        buckets = np.sort(self._buckets(self._keys[first:end]))
        is_first = np.ones(buckets.shape, bool)  # of its bucket in a text
        np.not_equal(buckets[:, 1:], buckets[:, :-1], out=is_first[:, 1:])
        entries = np.flatnonzero(is_first)
        buckets = buckets.ravel()[entries]
        ranks = np.zeros(len(entries), np.int64)  # among those of the bucket that are added here
        if end - first > 1:
            order = np.argsort(buckets, kind="stable")
            entries, buckets = entries[order], buckets[order]
            places = np.arange(len(entries))
            starts = np.where(np.diff(buckets, prepend=-1) != 0, places, 0)
            ranks = places - np.maximum.accumulate(starts)
        fits = self._sizes[buckets] + ranks < TEXTS_PER_VALUE
        entries, buckets, ranks = entries[fits] + first * BANDS, buckets[fits], ranks[fits]
        self._before[entries] = np.where(ranks == 0, self._last[buckets], np.roll(entries, 1))
        self._sizes[buckets] += (ranks + 1).astype(np.uint8)  # of a bucket's entries the last counts, here and below
        self._last[buckets] = entries

    def _buckets(self, keys: np.ndarray) -> np.ndarray:
        return (keys >> np.uint64(64 - self._bits)).view(np.int64)

    def candidates(self, key: np.ndarray) -> np.ndarray:
        entries, found = self._last[self._buckets(key)], []
        while len(entries := entries[entries >= 0]):
            found.append(entries)
            entries = self._before[entries]
        if not found:
            return entries
        numbers = np.unique(np.concatenate(found) // BANDS)
        return numbers[(self._keys[numbers] == key).any(axis=1)]  # others share a bucket alone


def _words(tokens: list[str]) -> list[str]:
    if 2 * sum(map(is_unspaced, map(itemgetter(0), tokens))) <= len(tokens):
        return tokens
    return ["".join(tokens[i : i + RUN]) for i in range(max(len(tokens) - RUN, 0) + 1)]
