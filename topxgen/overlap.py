"""What a text shares with evaluation sets: n-grams, the whole of a short text, or (on request) most of its words.

An index holds the texts of benchmarks in one language. A text overlaps a benchmark text when they share an
n-gram of tokens (the rule of TopXGen's decontamination, and of GPT-3's: Brown et al. 2020, appendix C, without its
exception for frequent n-grams). A benchmark text with fewer than n tokens has no n-gram; it overlaps a text that
is the same to the token and, if it has at least INSIDE * n tokens, one that it stands in (in 7,700 clean texts of
NTREX-128, FLORES-200, XQuAD and the UDHR no benchmark text of six tokens or more did:
benchmarks/decontamination_quality.py). Hashes find candidates for thousands of texts at once; tokens decide, so
a hit is never an accident of hashing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from topxgen.dedup import NearDuplicates
from topxgen.ngrams import TOKENIZERS, ngram_hashes, text_hashes

BLOCK = 1 << 16  # characters hashed at a time: the arrays stay in the processor's cache
INSIDE = 0.6
PIECE = (
    0.8  # of n: a shorter sentence of a longer benchmark text ("It is the capital of Samoa.") is like too many others
)
SHORT = ("inside", "whole", "ignore")
_SLOTS = 64  # of the bitmap, for each n-gram in the index: so one n-gram in 64 is looked at twice


@dataclass(frozen=True)
class Entry:
    """One text of a benchmark."""

    benchmark: str
    split: str
    language: str
    id: str
    text: str


@dataclass(frozen=True)
class Match:
    """A text overlaps `entry`. `how`: "ngram", "whole" (the whole of a short benchmark text) or "near"; `shared`: the
    first shared n-gram, the short text's tokens, or ""; `tokens`: how many of the text's tokens are shared;
    `similarity`: set for "near"."""

    entry: Entry
    how: str
    shared: str
    tokens: int
    similarity: float | None = None


class Index:
    """The texts of `entries`; `find` says which of them a text overlaps.

    `n`: tokens of an n-gram; `tokenizer`: a name in ngrams.TOKENIZERS; `near`: ROUGE-L F1 above which two texts are
    near-duplicates, None for never; `short`: one of SHORT, where texts of fewer than n tokens count; `split`:
    a text to sentences; a text can be a near-duplicate of those of PIECE * n tokens or more. Raises ValueError for n below 1.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
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
        self._short_texts = short
        self._first = max(1, round(INSIDE * n))  # tokens at the start of a short text that find it inside others
        grams, owners, wholes, whole_owners, firsts, first_owners = [], [], [], [], [], []
        for first, hashes, bounds in self._hashed([entry.text for entry in self.entries]):
            found = ngram_hashes(hashes, n)
            within, texts = _within(np.arange(len(found)), bounds, n)
            grams.append(found[within])
            owners.append(texts[within] + first)
            short_ones, found = self._short(hashes, bounds)
            wholes.append(found)
            whole_owners.append(short_ones + first)
            long_enough = short_ones[np.diff(bounds)[short_ones] >= self._first]
            firsts.append(ngram_hashes(hashes, self._first)[bounds[long_enough]])
            first_owners.append(long_enough + first)
        self._tables = [(n, _Table(grams, owners))]
        if short == "inside":
            self._tables.append((self._first, _Table(firsts, first_owners)))
        self._wholes = _Table(wholes, whole_owners) if short != "ignore" else None
        self._near = None
        if near is not None:
            self._near = NearDuplicates(near, self._tokenizer.tokens)
            for number, entry in enumerate(self.entries):
                self._near.add(str(number), entry.text)
                for piece in split(entry.text):
                    if piece != entry.text and len(self._tokenizer.tokens(piece)) >= PIECE * n:
                        self._near.add(str(number), piece)

    def find(self, texts: Sequence[str], own: bool = False) -> dict[int, list[Match]]:
        """The matches of each text that overlaps a benchmark text, by its position in `texts`.

        One match for each entry: by n-gram or as a whole, else as a near-duplicate. `own`: the texts begin with
        those of the index, none of these is compared with itself, and near-duplicates are not looked for.
        """
        found: dict[int, list[Match]] = {}
        for first, hashes, bounds in self._hashed(texts):
            pairs = set()
            for n, table in self._tables:
                positions, owners = table.find(ngram_hashes(hashes, n))
                within, numbers = _within(positions, bounds, n)
                pairs.update(zip(numbers[within].tolist(), owners[within].tolist(), strict=True))
            if self._wholes is not None:
                short, wholes = self._short(hashes, bounds)
                positions, owners = self._wholes.find(wholes)
                pairs.update(zip(short[positions].tolist(), owners.tolist(), strict=True))
            for text, entry in sorted(pairs):
                if own and first + text == entry:
                    continue
                match = self._compare(texts[first + text], self.entries[entry])
                if match is not None:
                    found.setdefault(first + text, []).append(match)
        if self._near is not None and not own:
            for number, text in enumerate(texts):
                nearest = self._near.match(text)
                if nearest is None:
                    continue
                entry = self.entries[int(nearest[0])]
                if all(match.entry is not entry for match in found.get(number, ())):
                    found.setdefault(number, []).append(Match(entry, "near", "", 0, nearest[1]))
        return found

    def _hashed(self, texts: Sequence[str]):
        """(number of the first text, hashes of tokens, bounds of texts) for blocks of texts."""
        blocks = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts))) // BLOCK
        starts = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(texts)]
        for first, end in pairwise(starts):
            if end > first:
                yield first, *self._tokenizer.hash_tokens(texts[first:end])

    def _short(self, hashes: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The texts with fewer tokens than an n-gram, and the hashes of them as a whole."""
        lengths = np.diff(bounds)
        short = np.flatnonzero((lengths > 0) & (lengths < self.n))
        return short, text_hashes(hashes, bounds)[short]

    def _compare(self, text: str, entry: Entry) -> Match | None:
        """How the text overlaps the entry, by their tokens; None when only their hashes were the same."""
        ours, theirs = self._tokenizer.tokens(text), self._tokenizer.tokens(entry.text)
        n = self.n
        if len(theirs) < n:
            if ours == theirs or (self._short_texts == "inside" and _holds(ours, theirs)):
                return Match(entry, "whole", " ".join(theirs), len(theirs))
            return None
        grams = {tuple(theirs[i : i + n]) for i in range(len(theirs) - n + 1)}
        shared = [i for i in range(len(ours) - n + 1) if tuple(ours[i : i + n]) in grams]
        if not shared:
            return None
        covered = n + sum(min(n, after - before) for before, after in pairwise(shared))
        return Match(entry, "ngram", " ".join(ours[shared[0] : shared[0] + n]), covered)


def _within(positions: np.ndarray, bounds: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Of n-grams that start at `positions`, which lie within one text, and the number of that text."""
    texts = np.searchsorted(bounds, positions, "right") - 1
    return positions + n <= bounds[texts + 1], texts


def _holds(tokens: list[str], others: list[str]) -> bool:
    """Whether `others` stand in `tokens` in a row."""
    return any(tokens[i : i + len(others)] == others for i in range(len(tokens) - len(others) + 1))


class _Table:
    """Hashes and the entries they come from. A bitmap turns away nearly all hashes at one memory access each."""

    def __init__(self, hashes: list[np.ndarray], owners: list[np.ndarray]):
        keys = np.concatenate([*hashes, np.empty(0, np.uint64)])
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._owners = np.concatenate([*owners, np.empty(0, np.int64)])[order].astype(np.int32)
        bits = max((len(keys) * _SLOTS).bit_length(), 10)
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
        return positions, self._owners[np.repeat(left, counts) + offsets]
