"""The validation split: paragraphs, so that no sentence of it, nor one nearly like it, is in the training split.

Memory does not grow with the data: the paragraphs of the smallest hashes are candidates, about twice as many pairs as are
wanted; all other texts pass by once, and a candidate that shares a text with one of them, or nearly shares it, goes to the
training split, together with all candidates that are tied to it in the same way. What counts as sharing is what
topxgen.text.leak_guard counts: equal texts in any spelling, half of the words of a sentence in runs of ten, ROUGE-L F1 above 0.7.
"""

import heapq
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from topxgen.common.console import Progress
from topxgen.common.provenance import hash64
from topxgen.publication.sources import Paragraph
from topxgen.text.languages import Language
from topxgen.text.leak_guard import leaks, text_key

logger = logging.getLogger(__name__)

DEFAULT_SHARE, DEFAULT_MOST = 0.05, 1000  # of the pairs: the smaller of the two
SURPLUS, MIN_POOL = 2, 50  # candidates: so many times the pairs that are wanted, at least these
BLOCK_TEXTS = 20_000  # compared with the candidates together, at least; each block costs some indexes of these
# Texts of a block that are compared first, then twice as many …: where nearly all texts are alike (translations from a template), few
# candidates are left after the first.
FIRST_TEXTS = 500


@dataclass(frozen=True)
class Validation:
    """The keys of the paragraphs in the validation split; by config how many pairs these have, and how many were asked for."""

    keys: frozenset[int] = frozenset()
    pairs: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)


def key_of(paragraph: Paragraph, seed: int) -> int:
    """A hash of the text in any spelling: paragraphs of one text, by several back-translators say, have the same."""
    return hash64(f"{seed}\0{paragraph.language.flores}\0{text_key(paragraph.text)}")


def wanted_pairs(pairs: int, size: float | None) -> int:
    """How many of `pairs` a validation split of `size` has: a share up to 1, a number above; None: the default."""
    if size is None:
        return min(DEFAULT_MOST, int(DEFAULT_SHARE * pairs))
    return min(pairs, round(size * pairs) if size <= 1 else int(size))


@dataclass
class _Candidate:
    pairs: Counter = field(default_factory=Counter)  # by config
    texts: list[tuple[Language, str]] = field(default_factory=list)  # the sides of its pairs
    whole: list[tuple[Language, str]] = field(default_factory=list)  # its paragraphs


def validation(
    read: Callable[[], Iterable[Paragraph]], pairs: Mapping[str, int], size: float | None, seed: int
) -> Validation:
    """Which paragraphs of `read()` are the validation split: of each config, which has `pairs` pairs, as many pairs as are asked
    for, or fewer where texts are tied together. The same for the same paragraphs, in whichever order they come."""
    asked = {config: count for config in pairs if (count := wanted_pairs(pairs[config], size))}
    for config in pairs.keys() - asked.keys() if size else ():
        logger.warning(
            f"{config}: --validation_size {size:g} of {pairs[config]:,} pairs is less than one pair: no validation split"
        )
    if not asked:
        return Validation()
    candidates = _draw(read, {name: max(SURPLUS * n, n + MIN_POOL) for name, n in asked.items()}, seed)
    ties = _Ties(candidates)
    with Progress("compare splits", sum(pairs.values()), "pairs") as bar:
        for paragraph in read():
            ties.add(key_of(paragraph, seed), paragraph)
            bar.update(len(paragraph.pairs))
        ties.flush()
    chosen, left = set(), Counter(asked)
    for members in ties.free_groups():
        counts = sum((candidates[key].pairs for key in members), Counter())
        if all(count <= left[config] for config, count in counts.items()):
            chosen |= members
            left -= counts
    found = {config: count - left[config] for config, count in asked.items()}
    for config, count in found.items():
        if not count:
            logger.warning(
                f"{config}: no validation split of {asked[config]:,} pairs: paragraphs that have a text in common, or nearly, stay "
                "together; pass a larger --validation_size, or 0"
            )
    return Validation(frozenset(chosen), found, asked)


def _draw(read: Callable[[], Iterable[Paragraph]], pools: Mapping[str, int], seed: int) -> dict[int, _Candidate]:
    """Of each config the paragraphs of the smallest keys, with at least its pool of pairs together (all, if there are no more),
    and what other configs have of the same paragraphs."""
    kept: dict[str, Counter[int]] = {config: Counter() for config in pools}  # pairs by key
    largest: dict[str, list[int]] = {config: [] for config in pools}  # heaps of negated keys
    totals, limits = Counter(), dict.fromkeys(pools, 1 << 64)
    for paragraph in read():
        config, key = paragraph.config, key_of(paragraph, seed)
        if key >= limits.get(config, 0):
            continue
        own, heap = kept[config], largest[config]
        if key not in own:
            heapq.heappush(heap, -key)
        own[key] += len(paragraph.pairs)
        totals[config] += len(paragraph.pairs)
        while totals[config] - own[-heap[0]] >= pools[config]:
            limits[config] = -heapq.heappop(heap)
            totals[config] -= own.pop(limits[config])
    candidates = {key: _Candidate() for key in sorted(set().union(*kept.values()))}
    for paragraph in read():
        if (candidate := candidates.get(key_of(paragraph, seed))) is not None:
            candidate.pairs[paragraph.config] += len(paragraph.pairs)
            candidate.whole.append((paragraph.language, paragraph.text))
            candidate.texts += [(paragraph.language, pair.target) for pair in paragraph.pairs]
            candidate.texts += [(paragraph.target, pair.source) for pair in paragraph.pairs]
    return candidates


class _Ties:
    """Which candidates share texts with each other (union-find), and which with paragraphs that are none."""

    def __init__(self, candidates: dict[int, _Candidate]):
        self._parents = {key: key for key in candidates}
        self._taken: set[int] = set()  # candidates that share a text with the training split
        self._tests: dict[str, list[tuple[str, int]]] = defaultdict(list)  # by language: texts of candidates, and whose
        self._scripts: dict[str, str] = {}
        self._pools: dict[str, list[tuple[str, int | None]]] = defaultdict(list)  # texts to compare with these
        for key, candidate in candidates.items():
            for language, text in candidate.texts:
                self._tests[language.flores].append((text, key))
                self._scripts[language.flores] = language.script
            for language, text in (*candidate.texts, *candidate.whole):
                self._compare(language, text, key)
        self.flush()

    def add(self, key: int, paragraph: Paragraph) -> None:
        """Compare a paragraph, unless it is a candidate."""
        if key in self._parents:
            return
        for pair in paragraph.pairs:
            self._compare(paragraph.language, pair.target, None)
            self._compare(paragraph.target, pair.source, None)
        self._compare(paragraph.language, paragraph.text, None)  # with the sentences that are in no pair

    def _compare(self, language: Language, text: str, key: int | None) -> None:
        if language.flores in self._tests:
            pool = self._pools[language.flores]
            pool.append((text, key))
            if len(pool) >= BLOCK_TEXTS + 4 * len(self._tests[language.flores]):
                self._flush(language.flores)

    def flush(self) -> None:
        for flores in list(self._pools):
            self._flush(flores)

    def _flush(self, flores: str) -> None:
        pool, start, size = self._pools.pop(flores), 0, FIRST_TEXTS
        while start < len(pool):
            self._compare_all(flores, pool[start : start + size])
            start, size = start + size, 2 * size

    def _compare_all(self, flores: str, pool: list[tuple[str, int | None]]) -> None:
        """Those that are tied to the training split already are left out."""
        taken = set(map(self._root, self._taken))
        tests = self._tests[flores] = [test for test in self._tests[flores] if self._root(test[1]) not in taken]
        found = leaks([text for text, _ in tests], [text for text, _ in pool], self._scripts[flores]) if tests else ()
        for test, place in found:
            if (other := pool[place][1]) is None:
                self._taken.add(tests[test][1])
            else:
                first, second = self._root(tests[test][1]), self._root(other)
                self._parents[max(first, second)] = min(first, second)

    def _root(self, key: int) -> int:
        parents = self._parents
        while parents[key] != key:
            parents[key] = key = parents[parents[key]]
        return key

    def free_groups(self) -> list[set[int]]:
        """Candidates that are tied to each other and to nothing else, groups of the smallest keys first."""
        taken = set(map(self._root, self._taken))
        groups: dict[int, set[int]] = defaultdict(set)
        for key in self._parents:
            groups[self._root(key)].add(key)
        return [members for root, members in sorted(groups.items()) if root not in taken]
