"""What a text shares with evaluation sets: n-grams, the whole of a short text, or (on request) most of its words.

An index holds the texts of benchmarks in one language. A text overlaps a benchmark text when they share an
n-gram of tokens (the rule of TopXGen's decontamination, and of GPT-3's: Brown et al. 2020, appendix C, without its
exception for frequent n-grams). A benchmark text with fewer than n tokens has no n-gram; it overlaps a text that
is the same to the token and, if it has at least INSIDE * n tokens, one that it stands in. Hashes find candidates
for thousands of texts at once; tokens decide, so a hit is never an accident of hashing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from topxgen.decontamination.ngram_hashes import TOKENIZERS, ngram_hashes, run_hashes
from topxgen.text.near_duplicates import NearDuplicates

BLOCK = 1 << 16  # characters hashed at a time: the arrays stay in the processor's cache
SHORT_TEXT_RULES = ("inside", "whole", "ignore")
# Of n. No benchmark text of six words or more stood in any of the clean texts of scripts/perf/decontamination_quality.py.
MIN_CONTAINED_SHARE = 0.6
# Of n. A shorter sentence of a longer benchmark text ("Apia is the capital of Samoa.") is like too many others.
MIN_SENTENCE_SHARE = 0.8
MAX_OWNERS_PER_NGRAM = 20  # an n-gram that more texts of a split hold (boilerplate) names so many of them
_SLOTS = 64  # of the bitmap, for each n-gram in the index: so one n-gram in 64 is looked at twice


@dataclass(frozen=True)
class BenchmarkText:
    """One text of a benchmark."""

    benchmark: str
    split: str
    language: str
    id: str
    text: str

    @property
    def base(self) -> tuple[str, str]:
        """The benchmark and split, without the variant or column: "test (fra-CA)" is the same text as "test"."""
        return self.benchmark, self.split.partition(" (")[0]


@dataclass(frozen=True)
class Match:
    """So many `texts` in a row overlap `entry`. `how`: "ngram", "whole" (the whole of a short benchmark text) or "near";
    `shared`: the first shared n-gram, the short text's tokens, or ""; `tokens`: how many tokens are shared;
    `similarity`: set for "near"."""

    entry: BenchmarkText
    how: str
    shared: str
    tokens: int
    similarity: float | None = None
    texts: int = 1


class ContaminationIndex:
    """The texts of `entries`; `find` says which of them a text overlaps.

    `n`: tokens of an n-gram; `tokenizer`: a name in ngrams.TOKENIZERS; `near`: ROUGE-L F1 above which two texts are
    near-duplicates, None for never; `short`: one of SHORT, where texts of fewer than n tokens count; `split`: a text to
    its sentences, of which a text can be a near-duplicate too. Raises ValueError for n below 1.
    """

    def __init__(
        self,
        entries: Sequence[BenchmarkText],
        n: int,
        tokenizer: str = "unicode",
        near: float | None = None,
        short: str = "inside",
        split: Callable[[str], list[str]] = lambda text: [text],
    ):
        if n < 1:
            raise ValueError(f"n-grams of {n} tokens")
        self.entries, self.n = list(entries), n
        self._tokenizer = TOKENIZERS[tokenizer]
        self._inside = short == "inside"
        bases: dict[tuple[str, str], int] = {}
        self._bases = np.array([bases.setdefault(entry.base, len(bases)) for entry in self.entries], np.int64)
        self._lengths = np.zeros(len(self.entries), np.int64)
        self._hashes = np.zeros(len(self.entries), np.uint64)  # of whole texts
        head = max(
            1, round(MIN_CONTAINED_SHARE * n)
        )  # a short text is looked for inside others by so many tokens at its start
        grams, heads = [], [np.zeros(0, np.uint64)]
        for first, hashes, bounds in self._hashed([entry.text for entry in self.entries], None):
            here = slice(first, first + len(bounds) - 1)
            self._lengths[here] = np.diff(bounds)
            self._hashes[here] = run_hashes(hashes, bounds[:-1], bounds[1:])
            heads.append(run_hashes(hashes, bounds[:-1], np.minimum(bounds[:-1] + head, bounds[1:])))
            found = ngram_hashes(hashes, n)
            owners = np.searchsorted(bounds, np.arange(len(found)), "right") - 1
            within = np.arange(len(found)) + n <= bounds[owners + 1]
            grams.append((found[within], owners[within] + first))
        self._grams = HashTable(grams, self._bases, MAX_OWNERS_PER_NGRAM)
        shorts = np.flatnonzero((self._lengths > 0) & (self._lengths < n) & (short != "ignore"))
        self._wholes = HashTable([(self._hashes[shorts], shorts)], self._bases, MAX_OWNERS_PER_NGRAM)
        self._head = head
        # Many texts may begin alike and differ after that: the cap is for those that are the same to the end.
        shorts = self._wholes.owners[(self._lengths[self._wholes.owners] >= head) & self._inside]
        self._heads = HashTable([(np.concatenate(heads)[shorts], shorts)], self._bases, None)
        self._near = None
        if near is not None:
            self._near = NearDuplicates(near, self._tokenizer.tokens)
            for number, entry in enumerate(self.entries):
                self._near.add(str(number), entry.text)
                for piece in split(entry.text):
                    if piece != entry.text and len(self._tokenizer.tokens(piece)) >= MIN_SENTENCE_SHARE * n:
                        self._near.add(str(number), piece)

    def find(
        self, texts: Sequence[str], ends: Sequence[int] | None = None, own: bool = False
    ) -> dict[int, list[Match]]:
        """The matches of the texts that overlap a benchmark text, by their position in `texts`.

        `ends[i]` is where the group that text i belongs to ends: the texts of a group follow each other, so that what
        begins in one and goes on in the next is found too, as a match of several texts from that position on. Without
        `ends` each text stands alone. `own`: the texts are those of the index; nothing is said of a split and itself,
        and near-duplicates are not looked for.
        """
        found: dict[int, list[Match]] = {}
        for first, hashes, bounds in self._hashed(texts, ends):
            runs = defaultdict(set)  # by entry
            for firsts, lasts, entries in self._candidates(hashes, bounds, first, ends):
                if own:
                    other = self._bases[firsts] != self._bases[entries]
                    firsts, lasts, entries = firsts[other], lasts[other], entries[other]
                for start, last, entry in zip(firsts.tolist(), lasts.tolist(), entries.tolist(), strict=True):
                    runs[entry].add((start, last))
            tokens = _Tokens(texts, self._tokenizer.tokens)
            for entry in sorted(runs):
                for start, last in _merged(sorted(runs[entry])):
                    match = self._compare(tokens, start, last, self.entries[entry])
                    if match is not None:
                        found.setdefault(start, []).append(match)
        if self._near is not None and not own:
            for number, text in enumerate(texts):
                nearest = self._near.match(text)
                if nearest is None:
                    continue
                entry = self.entries[int(nearest[0])]
                if all(match.entry is not entry for match in found.get(number, ())):
                    found.setdefault(number, []).append(Match(entry, "near", "", 0, nearest[1]))
        return found

    def _candidates(
        self, hashes: np.ndarray, bounds: np.ndarray, first: int, ends: Sequence[int] | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(first texts, last texts, entries) that have a hash in common; a text may come up several times."""
        count = len(bounds) - 1
        last_texts = np.arange(count) if ends is None else np.asarray(ends[first : first + count]) - first - 1

        def texts_of(starts: np.ndarray, lengths: np.ndarray | int, entries: np.ndarray):
            firsts = np.searchsorted(bounds, starts, "right") - 1
            lasts = np.searchsorted(bounds, starts + lengths - 1, "right") - 1
            within = lasts <= last_texts[firsts]
            return firsts[within] + first, lasts[within] + first, entries[within]

        positions, entries = self._grams.find(ngram_hashes(hashes, self.n))
        yield texts_of(positions, self.n, entries)
        positions, entries = self._heads.find(ngram_hashes(hashes, self._head))
        ends_there = positions + self._lengths[entries]
        there = ends_there <= len(hashes)
        there[there] = run_hashes(hashes, positions[there], ends_there[there]) == self._hashes[entries[there]]
        yield texts_of(positions[there], self._lengths[entries[there]], entries[there])
        lengths = np.diff(bounds)
        short = np.flatnonzero((lengths > 0) & (lengths < self.n))
        positions, entries = self._wholes.find(run_hashes(hashes, bounds[short], bounds[short + 1]))
        yield short[positions] + first, short[positions] + first, entries

    def _hashed(self, texts: Sequence[str], ends: Sequence[int] | None) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(number of the first text, hashes of tokens, bounds of texts) for blocks of whole groups of texts."""
        before = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=before[1:])
        groups = np.arange(len(texts)) if ends is None else np.unique([0, *ends])[:-1]
        blocks = before[groups] // BLOCK
        starts = [0, *groups[np.flatnonzero(np.diff(blocks)) + 1].tolist(), len(texts)]
        for first, end in pairwise(starts):
            if end > first:
                yield first, *self._tokenizer.hash_tokens(texts[first:end])

    def _compare(self, tokens: "_Tokens", first: int, last: int, entry: BenchmarkText) -> Match | None:
        """How the texts overlap the entry, by their tokens; None when only their hashes were the same."""
        ours = [token for text in range(first, last + 1) for token in tokens[text]]
        theirs = self._tokenizer.tokens(entry.text)
        n, texts = self.n, last - first + 1
        if len(theirs) < n:
            if ours == theirs or (self._inside and _holds(ours, theirs)):
                return Match(entry, "whole", " ".join(theirs), len(theirs), texts=texts)
            return None
        grams = {tuple(theirs[i : i + n]) for i in range(len(theirs) - n + 1)}
        shared = [i for i in range(len(ours) - n + 1) if tuple(ours[i : i + n]) in grams]
        if not shared:
            return None
        covered = n + sum(min(n, after - before) for before, after in pairwise(shared))
        return Match(entry, "ngram", " ".join(ours[shared[0] : shared[0] + n]), covered, texts=texts)


class _Tokens(dict):
    """The tokens of texts by their number, made once."""

    def __init__(self, texts: Sequence[str], tokens: Callable[[str], list[str]]):
        self._texts, self._tokens = texts, tokens

    def __missing__(self, number: int) -> list[str]:
        self[number] = found = self._tokens(self._texts[number])
        return found


def _merged(runs: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Runs of texts (first, last), sorted, with those that share a text made one."""
    first, last = runs[0]
    for start, end in runs[1:]:
        if start > last:
            yield first, last
            first, last = start, end
        last = max(last, end)
    yield first, last


def _holds(tokens: list[str], others: list[str]) -> bool:
    """Whether `others` stand in `tokens` in a row."""
    return any(tokens[i : i + len(others)] == others for i in range(len(tokens) - len(others) + 1))


class HashTable:
    """Hashes and the entries they come from. A bitmap turns away nearly all hashes at one memory access each."""

    def __init__(self, found: list[tuple[np.ndarray, np.ndarray]], bases: np.ndarray, cap: int | None):
        keys = np.concatenate([hashes for hashes, _ in found] or [np.empty(0, np.uint64)])
        owners = np.concatenate([entries for _, entries in found] or [np.empty(0, np.int64)])
        order = np.lexsort((owners, bases[owners], keys))
        keys, owners = keys[order], owners[order]
        # Of each hash and split, the first `cap`.
        new = np.ones(len(keys), np.bool_)
        new[1:] = (keys[1:] != keys[:-1]) | (bases[owners[1:]] != bases[owners[:-1]])
        places = np.arange(len(keys))
        few = places - np.maximum.accumulate(np.where(new, places, 0)) < (cap or len(keys))
        self._keys, self.owners = keys[few], owners[few].astype(np.int32)
        bits = min(max((len(self._keys) * _SLOTS).bit_length(), 10), 26)
        self._shift = np.uint64(64 - bits)
        self._bitmap = np.zeros(1 << bits, np.bool_)
        self._bitmap[self._keys >> self._shift] = True

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(positions in `hashes`, entries) of all pairs of equal hashes."""
        maybe = np.flatnonzero(self._bitmap[(hashes >> self._shift).view(np.int64)])
        left = np.searchsorted(self._keys, hashes[maybe], "left")
        counts = np.searchsorted(self._keys, hashes[maybe], "right") - left
        positions = np.repeat(maybe, counts)
        offsets = np.arange(len(positions)) - np.repeat(np.cumsum(counts) - counts, counts)
        return positions, self.owners[np.repeat(left, counts) + offsets]
