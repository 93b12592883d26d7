"""Near-duplicate paragraphs: ROUGE-L F1 against every paragraph already kept, without comparing most of them.

ROUGE-L F1 of texts of m and n tokens whose longest common subsequence is l is 2pr/(p+r) with p = l/m and
r = l/n (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", section 3). The decision is
the one that computing it for every pair gives, because only pairs that cannot reach the threshold are
skipped: l is at most min(m, n), and at most the number of tokens that both texts hold, counted with
multiplicity. That number comes from an inverted index for all kept paragraphs at once; the few pairs left
get their exact l from rapidfuzz's bit-parallel algorithm.
"""

from array import array
from collections import Counter
from collections.abc import Callable

from topxgen.text.words import TOKENIZERS

_SLACK = 1e-9  # the bounds may only skip pairs that rounding cannot bring above the threshold


class NearDuplicates:
    """The kept paragraphs of one language; tell a candidate from its near-duplicates with `match`.

    `tokenizer` is a name in words.TOKENIZERS, or a function from a text to its tokens.
    """

    def __init__(self, threshold: float, tokenizer: str | Callable[[str], list[str]] = "unicode"):
        self.threshold = threshold
        self._tokenize = TOKENIZERS[tokenizer] if isinstance(tokenizer, str) else tokenizer
        self._ids: dict = {}  # (token, k) -> index of its posting list; k counts repeats within a text
        self._postings: list[array] = []
        self._token_ids: dict[str, int] = {}
        self._texts: list[array] = []  # token ids of each kept paragraph
        self._lengths = array("i")
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, name: str, text: str) -> None:
        """Keep `text` under `name` without comparing it."""
        self._add(name, self._tokenize(text))

    def match(self, text: str) -> tuple[str, float] | None:
        """(name, F1) of a kept paragraph whose ROUGE-L F1 with `text` is above the threshold, or None."""
        return self._match(self._tokenize(text))

    def keep(self, name: str, text: str) -> tuple[str, float] | None:
        """`match`, and `add` when there is none."""
        tokens = self._tokenize(text)
        found = self._match(tokens)
        if found is None:
            self._add(name, tokens)
        return found

    def _add(self, name: str, tokens: list[str]) -> None:
        document = len(self._texts)
        for key in _occurrences(tokens):
            index = self._ids.setdefault(key, len(self._postings))
            if index == len(self._postings):
                self._postings.append(array("i"))
            self._postings[index].append(document)
        self._texts.append(self._numbers(tokens))
        self._lengths.append(len(tokens))
        self._names.append(name)

    def _numbers(self, tokens: list[str]) -> array:
        ids = self._token_ids
        return array("i", [ids.setdefault(token, len(ids)) for token in tokens])

    def _match(self, tokens: list[str]) -> tuple[str, float] | None:
        import numpy as np
        from rapidfuzz.distance import LCSseq

        m = len(tokens)
        if not m or not self._texts or self.threshold >= 1:
            return None
        lengths = np.frombuffer(self._lengths, dtype=np.int32)
        # F1 > t needs l > t(m+n)/2; with l <= m that bounds n, hence the smallest useful overlap.
        needed = self.threshold * (m + lengths) / 2 - _SLACK
        smallest = self.threshold * (m + m * self.threshold / (2 - self.threshold)) / 2 - 1 if self.threshold > 0 else 0
        postings = [self._postings[i] for i in map(self._ids.get, _occurrences(tokens)) if i is not None]
        # The commonest tokens hold most of the postings: leave out as many as a text that shares all of
        # them and nothing else still could not reach the threshold with, then allow for them in the bound.
        postings.sort(key=len)
        if len(postings) < smallest:
            return None
        left_out = int(min(max(smallest, 0), len(postings)) * 0.6)
        counted = postings[: len(postings) - left_out]
        if not counted:
            return None
        documents = np.concatenate([np.frombuffer(posting, dtype=np.int32) for posting in counted])
        shared = np.bincount(documents, minlength=len(self._texts))
        bound = np.minimum(shared + left_out, np.minimum(m, lengths))
        candidates = np.flatnonzero(bound > needed)
        if not len(candidates):
            return None
        numbers = self._numbers(tokens)
        for document in candidates:
            n = self._lengths[document]
            cutoff = max(int(needed[document]), 0)
            lcs = LCSseq.similarity(numbers, self._texts[document], score_cutoff=cutoff)
            if lcs and (f1 := rouge_l_f1(lcs, n, m)) > self.threshold:
                return self._names[document], f1
        return None


def _occurrences(tokens: list[str]) -> list[tuple[str, int]]:
    seen: Counter = Counter()
    keys = []
    for token in tokens:
        keys.append((token, seen[token]))
        seen[token] += 1
    return keys


def rouge_l_f1(lcs: int, reference_length: int, candidate_length: int) -> float:
    """F1 in the order of operations of `rouge_score`, so that ties at the threshold fall the same way."""
    if not lcs:
        return 0.0
    precision, recall = lcs / candidate_length, lcs / reference_length
    return 2 * precision * recall / (precision + recall)
