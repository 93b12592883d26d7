"""Near-duplicate paragraphs by ROUGE-L F1 with every paragraph already kept, most of them skipped by exact bounds.

ROUGE-L F1 of texts of m and n tokens whose longest common subsequence (LCS) has l tokens is 2pr/(p+r) with p = l/m and
r = l/n (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", section 3). Only pairs that cannot exceed the
threshold are skipped: l is at most min(m, n), and at most the number of tokens that both texts share, counted with
multiplicity. An inverted index gives that number for all kept paragraphs at once; for the few remaining pairs rapidfuzz
computes l.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator

from topxgen.text.words import TOKENIZERS

_SLACK = 1e-9  # for rounding: no bound may skip a pair above the threshold


class NearDuplicates:
    """The kept paragraphs of one language. A near-duplicate is a pair whose ROUGE-L F1 is above `threshold`.

    `tokenizer` is a name in words.TOKENIZERS, or a function from a text to its tokens.
    """

    def __init__(self, threshold: float, tokenizer: str | Callable[[str], list[str]] = "unicode"):
        self.threshold = threshold
        self._tokenize = TOKENIZERS[tokenizer] if isinstance(tokenizer, str) else tokenizer
        self._posting_ids: dict = {}  # (token, k), the k-th occurrence in its text -> index in _postings
        self._postings: list[array] = []  # indices of the kept paragraphs that have it
        self._token_ids: dict[str, int] = {}
        self._texts: list[array] = []  # token ids of each kept paragraph
        self._lengths = array("i")
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, name: str, text: str) -> None:
        """Keep `text` as `name` without comparing it."""
        self._add(name, self._tokenize(text))

    def match(self, text: str) -> tuple[str, float] | None:
        """(name, F1) of the first kept paragraph that is a near-duplicate of `text`, or None."""
        return next(self.matches(text), None)

    def matches(self, text: str) -> Iterator[tuple[str, float]]:
        """The same of each kept paragraph that is one, in the order in which they were kept."""
        return self._matches(self._tokenize(text))

    def keep(self, name: str, text: str) -> tuple[str, float] | None:
        """`match`; if that is None, `add` the text."""
        tokens = self._tokenize(text)
        duplicate = next(self._matches(tokens), None)
        if duplicate is None:
            self._add(name, tokens)
        return duplicate

    def _add(self, name: str, tokens: list[str]) -> None:
        document = len(self._texts)
        for key in _occurrences(tokens):
            index = self._posting_ids.setdefault(key, len(self._postings))
            if index == len(self._postings):
                self._postings.append(array("i"))
            self._postings[index].append(document)
        self._texts.append(self._numbers(tokens))
        self._lengths.append(len(tokens))
        self._names.append(name)

    def _numbers(self, tokens: list[str]) -> array:
        ids = self._token_ids
        return array("i", [ids.setdefault(token, len(ids)) for token in tokens])

    def _matches(self, tokens: list[str]) -> Iterator[tuple[str, float]]:
        import numpy as np
        from rapidfuzz.distance import LCSseq

        m = len(tokens)
        if not m or not self._texts or self.threshold >= 1:
            return
        lengths = np.frombuffer(self._lengths, dtype=np.int32)
        # F1 > t means l > t(m+n)/2. With l <= n that bounds n from below, and so the smallest useful overlap.
        needed = self.threshold * (m + lengths) / 2 - _SLACK
        smallest = self.threshold * (m + m * self.threshold / (2 - self.threshold)) / 2 - 1 if self.threshold > 0 else 0
        postings = [self._postings[i] for i in map(self._posting_ids.get, _occurrences(tokens)) if i is not None]
        # The most frequent tokens hold most of the postings: skip so many that a text which shares nothing else cannot reach
        # the threshold, and add them to the bound.
        postings.sort(key=len)
        if len(postings) < smallest:
            return
        skipped = int(min(max(smallest, 0), len(postings)) * 0.6)
        counted = postings[: len(postings) - skipped]  # the rarest
        if not counted:
            return
        documents = np.concatenate([np.frombuffer(posting, dtype=np.int32) for posting in counted])
        shared = np.bincount(documents, minlength=len(self._texts))
        bound = np.minimum(shared + skipped, np.minimum(m, lengths))
        candidates = np.flatnonzero(bound > needed)
        if not len(candidates):
            return
        numbers = self._numbers(tokens)
        for document in candidates:
            n = self._lengths[document]
            cutoff = max(int(needed[document]), 0)
            lcs = LCSseq.similarity(numbers, self._texts[document], score_cutoff=cutoff)
            if lcs and (f1 := rouge_l_f1(lcs, n, m)) > self.threshold:
                yield self._names[document], f1


def _occurrences(tokens: list[str]) -> list[tuple[str, int]]:
    seen: Counter = Counter()
    keys = []
    for token in tokens:
        keys.append((token, seen[token]))
        seen[token] += 1
    return keys


def rouge_l_f1(lcs: int, reference_length: int, candidate_length: int) -> float:
    """ROUGE-L F1, rounded as `rouge_score` does, so that ties at the threshold are decided the same way."""
    if not lcs:
        return 0.0
    precision, recall = lcs / candidate_length, lcs / reference_length
    return 2 * precision * recall / (precision + recall)
