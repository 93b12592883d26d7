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

from topxgen.text.near_duplicates import Postings, PrefixIndex
from topxgen.text.words import is_unspaced

RUN = 3
BANDS, ROWS, SEED = 24, 3, 42
EXACT_TEXTS = 1_000  # the first kept texts, compared exactly, which show what words are common
COMMON_SHARE = 0.05  # of these texts
TEXTS_PER_VALUE = 32  # texts that a value of a band stands for: more share a template that the first texts do not have
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd


class MinHashIndex:
    """As PrefixIndex. What it finds is a function of the texts that were added, in their order: the same after a restart."""

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
    with them in other words, too, or if they were among the first. Else each would be compared with all before it."""

    def __init__(self):
        self._bits, self._count = 16, 0
        self._keys = np.empty((1 << 10, BANDS), np.uint64)
        self._postings = Postings(1 << self._bits)

    def add(self, key: np.ndarray) -> None:
        if self._count == len(self._keys):
            self._keys = np.concatenate([self._keys, np.empty_like(self._keys)])
        self._keys[self._count] = key
        self._count += 1
        if self._count * BANDS <= 1 << self._bits:
            self._insert(self._count - 1)
            return
        self._bits += 2
        self._postings = Postings(1 << self._bits)
        for number in range(self._count):
            self._insert(number)

    def _insert(self, number: int) -> None:
        buckets = np.unique(self._buckets(self._keys[number]))
        self._postings.add(number, buckets[self._postings.counts(buckets) < TEXTS_PER_VALUE])

    def _buckets(self, key: np.ndarray) -> np.ndarray:
        return (key >> np.uint64(64 - self._bits)).view(np.int64)

    def candidates(self, key: np.ndarray) -> np.ndarray:
        numbers = np.unique(self._postings.of(self._buckets(key)))
        return numbers[(self._keys[numbers] == key).any(axis=1)]  # others share a bucket alone


def _words(tokens: list[str]) -> list[str]:
    if 2 * sum(map(is_unspaced, map(itemgetter(0), tokens))) <= len(tokens):
        return tokens
    return ["".join(tokens[i : i + RUN]) for i in range(max(len(tokens) - RUN, 0) + 1)]
