"""Near-duplicate paragraphs by ROUGE-L F1 with every paragraph already kept, most of them skipped by exact bounds.

ROUGE-L F1 of texts of m and n tokens whose longest common subsequence (LCS) has l tokens is 2pr/(p+r) with p = l/m and
r = l/n (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", section 3). rapidfuzz computes l for the few pairs
that an index takes for candidates: by exact bounds (PrefixIndex), or by MinHash (topxgen/text/minhash.py).
"""

from array import array
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from topxgen.common.registry import Choice, load_choice
from topxgen.text.words import TOKENIZERS

PREFILTERS: dict[str, Choice] = {
    "exact": Choice("topxgen.text.near_duplicates:PrefixIndex", "bounds that miss none"),
    "minhash": Choice("topxgen.text.minhash:MinHashIndex", "MinHash of words: for millions of paragraphs, misses some"),
}
_SLACK = 1e-6  # for rounding: no bound may skip a pair above the threshold
# What of the tokens that an LCS must exceed whatever the other text has is outside the prefix, in the index and in what is looked up.
# Smaller rests make fewer candidates and longer lists; these leave hardly any candidate that is none (scripts/perf/dedup_speed.py).
INDEXED_REST, PROBED_REST = 0.75, 0.92
_BUCKET_BITS = 18
_SHORT = 64  # bytes: shorter lists are no arrays, which take more memory; those of one text's new words are one object
_MIX, _REPEATED = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)  # odd constants


class Words(NamedTuple):
    """A text: its tokens, a 64-bit hash of each, in their order (rapidfuzz, too, compares tokens by hashes), and what an index
    looks it up by."""

    tokens: list[str]
    hashes: np.ndarray
    key: Any


class NearDuplicates:
    """The kept paragraphs of one language. A near-duplicate is a pair whose ROUGE-L F1 is above `threshold`.

    `tokenizer` is a name in words.TOKENIZERS, or a function from a text to its tokens; `prefilter` a name in PREFILTERS.
    """

    def __init__(
        self, threshold: float, tokenizer: str | Callable[[str], list[str]] = "unicode", prefilter: str = "exact"
    ):
        self.threshold = threshold
        self._tokenize = TOKENIZERS[tokenizer] if isinstance(tokenizer, str) else tokenizer
        self._index = load_choice("--dedup_prefilter", prefilter, PREFILTERS)(threshold)
        self._hashes = array("Q")  # of the kept paragraphs, one after another
        self._ends = array("q", [0])
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str, text: str) -> None:
        """Keep `text` as `name` without comparing it."""
        self._add(name, self._words(text))

    def match(self, text: str) -> tuple[str, float] | None:
        """(name, F1) of the first kept paragraph that is a near-duplicate of `text`, or None."""
        return next(self.matches(text), None)

    def matches(self, text: str) -> Iterator[tuple[str, float]]:
        """The same of each kept paragraph that is one, in the order in which they were kept."""
        return self._matches(self._words(text))

    def keep(self, name: str, text: str) -> tuple[str, float] | None:
        """`match`; if that is None, `add` the text."""
        words = self._words(text)
        duplicate = next(self._matches(words), None)
        if duplicate is None:
            self._add(name, words)
        return duplicate

    def _words(self, text: str) -> Words:
        tokens = self._tokenize(text) if self.threshold < 1 else []  # no F1 is above 1
        hashes = np.fromiter(map(hash, tokens), np.int64, len(tokens))
        return Words(tokens, hashes, self._index.key(tokens, hashes))

    def _add(self, name: str, words: Words) -> None:
        self._index.add(words.key)
        self._hashes.frombytes(words.hashes.tobytes())
        self._ends.append(len(self._hashes))
        self._names.append(name)

    def _matches(self, words: Words) -> Iterator[tuple[str, float]]:
        m = len(words.tokens)
        documents = self._index.candidates(words.key) if m and self._names else ()
        if not len(documents):
            return
        from rapidfuzz.distance import LCSseq

        hashes, threshold = array("Q", words.hashes.tobytes()), self.threshold
        letters = _letters(words.hashes)
        short = _spelled(hashes, letters)
        for document in documents.tolist():
            other = self._hashes[self._ends[document] : self._ends[document + 1]]
            needed = threshold / 2 * (len(other) + m) - _SLACK
            cutoff = max(int(needed), 0)
            if min(len(other), m) <= needed:
                continue
            if not LCSseq.similarity(short, _spelled(other, letters), score_cutoff=cutoff):
                continue
            lcs = LCSseq.similarity(hashes, other, score_cutoff=cutoff)
            if lcs and (f1 := rouge_l_f1(lcs, len(other), m)) > threshold:
                yield self._names[document], f1


def _letters(hashes: np.ndarray) -> np.ndarray:
    """A byte for each 16 bits: another one than 0 for those of these hashes, alike only for equal ones if they are 255 or fewer."""
    letters, (bits, places) = np.zeros(1 << 16, np.uint8), np.unique(hashes.view(np.uint16)[::4], return_inverse=True)
    letters[bits[places]] = places % 255 + 1
    return letters


def _spelled(hashes: array, letters: np.ndarray) -> bytes:
    """Hashes as bytes: their LCS, which is at least that of the hashes, takes a small part of the time."""
    return letters[np.frombuffer(hashes, np.uint16)[::4]].tobytes()


class PrefixIndex:
    """Which kept texts can be near-duplicates of a text, by bounds that miss none.

    F1 exceeds a threshold t only if l > t(m+n)/2, and l is at most the number of tokens that both texts share, counted with
    multiplicity, so that l > tm/(2-t) whatever n is. Hence the prefix filter (Chaudhuri et al. 2006; Xiao et al. 2008, PPJoin):
    with the tokens of all texts in one order, texts that share too few of their first ones, the prefixes, cannot share enough of
    all. Tokens are ordered by their first appearance, the latest first, so that prefixes have the rare ones.

    Tokens stand for their buckets, by hash, a repetition in a text for another bucket than the first. Where tokens meet in a
    bucket, texts seem to share more than they do, which no bound takes amiss.
    """

    def __init__(self, threshold: float):
        self._threshold = threshold
        self._order = np.zeros(1 << _BUCKET_BITS, np.uint32)  # of buckets in prefixes; 0 for one that no kept text has
        self._first = (1 << 32) - 1  # the order of the next new bucket; later ones come before earlier ones
        # The numbers of the kept texts with a bucket in their prefix, as int32
        self._postings: list[bytes | array] = [b""] * (1 << _BUCKET_BITS)
        self._lengths, self._rests = array("i"), array("i")  # of kept texts: tokens, those outside the prefix

    def _bound(self, count: int) -> float:
        """What the LCS of a text of `count` tokens with any other one must exceed."""
        return self._threshold * count / (2 - self._threshold)

    def key(self, tokens: list[str], hashes: np.ndarray) -> tuple[np.ndarray, int]:
        """The buckets of a text's tokens in the order of prefixes, and how many of these are in no kept text: they come first."""
        keys = np.sort(hashes).view(np.uint64)
        keys[1:] += (keys[1:] == keys[:-1]) * _REPEATED
        buckets = (keys * _MIX >> np.uint64(64 - _BUCKET_BITS)).view(np.int64)
        ordered = self._order[buckets].astype(np.int64)
        ordered <<= _BUCKET_BITS
        ordered |= buckets
        ordered.sort()
        new = int(ordered.searchsorted(1 << _BUCKET_BITS))
        return ordered & ((1 << _BUCKET_BITS) - 1), new

    def add(self, key: tuple[np.ndarray, int]) -> None:
        buckets, new = key
        if new:
            self._order[buckets[:new]] = np.arange(self._first - new + 1, self._first + 1, dtype=np.uint32)
            self._first -= new
        rest = int(INDEXED_REST * self._bound(len(buckets)))
        number, postings = len(self._lengths), self._postings
        alone = array("i", [number]).tobytes()
        for bucket in set(buckets[: len(buckets) - rest].tolist()):
            known = postings[bucket]
            if type(known) is array:
                known.append(number)
            else:
                known += alone
                postings[bucket] = known if len(known) < _SHORT else array("i", known)
        self._lengths.append(len(buckets))
        self._rests.append(rest)

    def candidates(self, key: tuple[np.ndarray, int]) -> np.ndarray:
        """The numbers of kept texts, in the order in which they were added."""
        buckets, new = key
        m = len(buckets)
        rest = int(PROBED_REST * self._bound(m))
        lists = map(self._postings.__getitem__, buckets[new : max(m - rest, new)].tolist())
        postings = np.frombuffer(b"".join(lists), np.int32)
        if not len(postings):
            return postings
        shared = np.bincount(postings, minlength=len(self._lengths))
        # What two texts share beyond their prefixes is in the rest of the one whose prefix ends first: of this text (then most is
        # possible for the shortest other one), or of the other one (the longest).
        candidates = (shared > min(self._bound(m) - rest, (1 - INDEXED_REST) * m) - _SLACK).nonzero()[0]
        if not len(candidates):
            return candidates
        lengths = np.frombuffer(self._lengths, dtype=np.int32)[candidates]
        rests = np.frombuffer(self._rests, dtype=np.int32)[candidates]
        most = np.minimum(shared[candidates] + np.maximum(rests, rest), np.minimum(lengths, m))
        return candidates[most > self._threshold / 2 * (lengths + m) - _SLACK]


def rouge_l_f1(lcs: int, reference_length: int, candidate_length: int) -> float:
    """ROUGE-L F1, rounded as `rouge_score` does, so that ties at the threshold are decided the same way."""
    if not lcs:
        return 0.0
    precision, recall = lcs / candidate_length, lcs / reference_length
    return 2 * precision * recall / (precision + recall)
