"""Near-duplicate paragraphs by ROUGE-L F1 with every paragraph already kept, most of them skipped by exact bounds.

ROUGE-L F1 of texts of m and n tokens whose longest common subsequence (LCS) has l tokens is 2pr/(p+r) with p = l/m and
r = l/n (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", section 3). It exceeds a threshold t only if
l > t(m+n)/2, and l is at most the number of tokens that both texts share, counted with multiplicity, so that l > tm/(2-t)
whatever n is. Hence the prefix filter (Chaudhuri et al. 2006; Xiao et al. 2008, PPJoin): with the tokens of all texts in one
order, texts that share too few of their first ones, the prefixes, cannot share enough of all. Tokens are ordered by their first
appearance, the latest first, so that prefixes have the rare ones. For the few remaining pairs rapidfuzz computes l.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from topxgen.text.words import TOKENIZERS

_SLACK = 1e-6  # for rounding: no bound may skip a pair above the threshold
# What of the tokens that an LCS must exceed whatever the other text has is outside the prefix, in the index and in what is looked up.
# Smaller rests make fewer candidates and longer lists; these leave hardly any candidate that is none (scripts/perf/dedup_speed.py).
INDEXED_REST, PROBED_REST = 0.75, 0.92


class _Counted(NamedTuple):
    """A text: its tokens, `_occurrences` of these, and the numbers of those that kept texts have, the latest first."""

    tokens: list[str]
    occurrences: list
    known: list[int]


class _Postings(dict):
    def __missing__(self, number: int) -> array:
        self[number] = posting = array("i")
        return posting


class NearDuplicates:
    """The kept paragraphs of one language. A near-duplicate is a pair whose ROUGE-L F1 is above `threshold`.

    `tokenizer` is a name in words.TOKENIZERS, or a function from a text to its tokens.
    """

    def __init__(self, threshold: float, tokenizer: str | Callable[[str], list[str]] = "unicode"):
        self.threshold = threshold
        self._tokenize = TOKENIZERS[tokenizer] if isinstance(tokenizer, str) else tokenizer
        self._numbers: dict = {}  # a token, or (token, k) of its k-th repetition in a text -> number, by first appearance
        self._postings = _Postings()  # number -> indices of the kept paragraphs that have it in their prefix
        self._texts: list[array] = []  # numbers of the tokens of each kept paragraph, in their order
        self._lengths = array("i")
        self._rests = array("i")  # tokens that are not in the prefix
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, name: str, text: str) -> None:
        """Keep `text` as `name` without comparing it."""
        self._add(name, self._counted(text))

    def match(self, text: str) -> tuple[str, float] | None:
        """(name, F1) of the first kept paragraph that is a near-duplicate of `text`, or None."""
        return next(self.matches(text), None)

    def matches(self, text: str) -> Iterator[tuple[str, float]]:
        """The same of each kept paragraph that is one, in the order in which they were kept."""
        return self._matches(self._counted(text))

    def keep(self, name: str, text: str) -> tuple[str, float] | None:
        """`match`; if that is None, `add` the text."""
        counted = self._counted(text)
        duplicate = next(self._matches(counted), None)
        if duplicate is None:
            self._add(name, counted)
        return duplicate

    def _counted(self, text: str) -> "_Counted":
        tokens = self._tokenize(text)
        occurrences = _occurrences(tokens)
        known = [number for number in map(self._numbers.get, occurrences) if number is not None]
        known.sort(reverse=True)
        return _Counted(tokens, occurrences, known)

    def _bound(self, count: int) -> float:
        """What the LCS of a text of `count` tokens with any other one must exceed."""
        return self.threshold * count / (2 - self.threshold)

    def _add(self, name: str, counted: "_Counted") -> None:
        tokens, occurrences, known = counted
        numbers, document = self._numbers, len(self._texts)
        for key in occurrences if len(known) < len(occurrences) else ():
            if key not in numbers:
                numbers[key] = len(numbers)
        rest = int(INDEXED_REST * self._bound(len(tokens)))
        new = range(len(numbers) - 1, len(numbers) - 1 - len(occurrences) + len(known), -1)
        postings = self._postings
        for number in [*new, *known][: len(tokens) - rest]:
            postings[number].append(document)
        self._texts.append(array("i", map(numbers.__getitem__, tokens)))
        self._lengths.append(len(tokens))
        self._rests.append(rest)
        self._names.append(name)

    def _matches(self, counted: "_Counted") -> Iterator[tuple[str, float]]:
        import numpy as np
        from rapidfuzz.distance import LCSseq

        tokens, occurrences, known = counted
        m = len(tokens)
        if not m or not self._texts or self.threshold >= 1:
            return
        rest = int(PROBED_REST * self._bound(m))
        probed = known[: max(m - rest - (len(occurrences) - len(known)), 0)]  # tokens that no kept text has come first
        postings = self._postings
        joined = b"".join([postings[number] for number in probed if number in postings])
        if not joined:
            return
        shared = np.bincount(np.frombuffer(joined, dtype=np.int32), minlength=len(self._texts))
        # What two texts share beyond their prefixes is in the rest of the one whose prefix ends first: of this text (then most is
        # possible for the shortest other one), or of the other one (the longest).
        candidates = np.flatnonzero(shared > min(self._bound(m) - rest, (1 - INDEXED_REST) * m) - _SLACK)
        if not len(candidates):
            return
        lengths = np.frombuffer(self._lengths, dtype=np.int32)[candidates]
        rests = np.frombuffer(self._rests, dtype=np.int32)[candidates]
        needed = self.threshold / 2 * (lengths + m) - _SLACK
        fits = np.minimum(shared[candidates] + np.maximum(rests, rest), np.minimum(lengths, m)) > needed
        numbers = None
        for document, cutoff in zip(candidates[fits].tolist(), needed[fits].tolist(), strict=True):
            if numbers is None:
                unknown = len(self._numbers)
                numbers = array("i", [self._numbers.get(token, unknown) for token in tokens])
            lcs = LCSseq.similarity(numbers, self._texts[document], score_cutoff=max(int(cutoff), 0))
            if lcs and (f1 := rouge_l_f1(lcs, self._lengths[document], m)) > self.threshold:
                yield self._names[document], f1


def _occurrences(tokens: list[str]) -> list:
    """Each token as often as it occurs, its repetitions numbered: a, b, (a, 1), (a, 2)."""
    counts = Counter(tokens)
    keys = list(counts)
    if len(keys) < len(tokens):
        keys += [(token, k) for token, count in counts.items() if count > 1 for k in range(1, count)]
    return keys


def rouge_l_f1(lcs: int, reference_length: int, candidate_length: int) -> float:
    """ROUGE-L F1, rounded as `rouge_score` does, so that ties at the threshold are decided the same way."""
    if not lcs:
        return 0.0
    precision, recall = lcs / candidate_length, lcs / reference_length
    return 2 * precision * recall / (precision + recall)
