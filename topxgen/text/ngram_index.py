"""Which benchmark texts a text overlaps: shared n-grams, short texts, and (on request) near-duplicates.

An index holds the benchmark texts in one language. A text overlaps a benchmark text if they share an n-gram of tokens
(as in TopXGen's decontamination and in GPT-3's: Brown et al. 2020, appendix C, without its exception for frequent
n-grams). A benchmark text of fewer than n tokens has no n-gram; it overlaps a text with exactly its tokens and, if it has
at least MIN_CONTAINED_SHARE * n of them, a text that contains it. Hashes find the candidates of thousands of texts at
once, which is 2.6 times as fast as sets of token tuples (scripts/perf/decontamination_speed.py); tokens then decide, so
that no match is a hash collision.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise

import numpy as np

from topxgen.text.decoding import decoded
from topxgen.text.near_duplicates import NearDuplicates
from topxgen.text.ngram_hashes import TOKENIZERS, ngram_hashes, range_hashes

BLOCK_CHARS = 1 << 16  # hashed at a time, so that the arrays stay in the processor's cache
SHORT_TEXT_RULES = ("inside", "whole", "ignore")
# Share of n. No benchmark text of six words or more is in any of the clean texts of scripts/perf/decontamination_quality.py.
MIN_CONTAINED_SHARE = 0.6
# Share of n. Shorter sentences of benchmark texts ("Apia is the capital of Samoa.") are near-duplicates of too many others.
MIN_SENTENCE_SHARE = 0.8
# Share of n. Of 21,600 pairs of benchmark sentence and unrelated next sentence, 3 % go on with the same word as the
# benchmark, 0.04 % with the same two, none with the same three.
MIN_EDGE_SHARE = 0.3
MAX_OWNERS_PER_NGRAM = 20  # texts of a split that are reported for one n-gram (boilerplate)
_BITS_PER_KEY = 64  # of a HashTable's bitmap: one absent hash in 64 is looked up for nothing


@dataclass(frozen=True)
class BenchmarkText:
    benchmark: str
    split: str
    language: str
    id: str
    text: str

    @property
    def base(self) -> tuple[str, str]:
        """The benchmark and split without a variant or column: "test (fra-CA)" has the same texts as "test"."""
        return self.benchmark, self.split.partition(" (")[0]


@dataclass(frozen=True)
class Match:
    """An overlap of `texts` consecutive texts with the benchmark text `entry`.

    `kind`: "ngram", "short_text" or "near_duplicate"; `shared_ngram`: the first shared n-gram, the tokens of the short
    text, or ""; `tokens`: the number of shared tokens; `similarity`: ROUGE-L F1 of near-duplicates.
    """

    entry: BenchmarkText
    kind: str
    shared_ngram: str
    tokens: int
    similarity: float | None = None
    texts: int = 1


class ContaminationIndex:
    """The benchmark texts `entries`; `find` returns those that a text overlaps.

    `n`: tokens of an n-gram. `tokenizer`: a name in ngram_hashes.TOKENIZERS. `near_duplicate_threshold`: ROUGE-L F1 above
    which texts are near-duplicates, None to not look for them. `short_text_rule`: where benchmark texts of fewer than n
    tokens count, one of SHORT_TEXT_RULES. `split_sentences`: a text can be a near-duplicate of one sentence of an entry,
    too. `max_owners_per_ngram`: how many texts of a split are found by one n-gram, None for all. Raises ValueError for n below 1.
    """

    def __init__(
        self,
        entries: Sequence[BenchmarkText],
        n: int,
        tokenizer: str = "unicode",
        near_duplicate_threshold: float | None = None,
        short_text_rule: str = "inside",
        split_sentences: Callable[[str], list[str]] = lambda text: [text],
        max_owners_per_ngram: int | None = MAX_OWNERS_PER_NGRAM,
    ):
        if n < 1:
            raise ValueError(f"an n-gram has at least 1 token, not {n}")
        self.entries, self.n = list(entries), n
        self._tokenizer = TOKENIZERS[tokenizer]
        self._texts = [self._decoded(entry.text) for entry in self.entries]
        self._match_inside = short_text_rule == "inside"
        # A short text inside another one is found by its first tokens.
        self._prefix_tokens = round(MIN_CONTAINED_SHARE * n)
        split_numbers: dict[tuple[str, str], int] = {}
        self._splits = np.array(
            [split_numbers.setdefault(entry.base, len(split_numbers)) for entry in self.entries], np.int64
        )
        self._lengths = np.zeros(len(self.entries), np.int64)  # in tokens
        self._text_hashes = np.zeros(len(self.entries), np.uint64)
        prefix_hashes = np.zeros(len(self.entries), np.uint64)
        ngrams, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for first, hashes, bounds in self._hash_blocks(self._texts, None):
            starts, ends = bounds[:-1], bounds[1:]
            block = slice(first, first + len(starts))
            self._lengths[block] = ends - starts
            self._text_hashes[block] = range_hashes(hashes, starts, ends)
            prefix_hashes[block] = range_hashes(hashes, starts, np.minimum(starts + self._prefix_tokens, ends))
            block_ngrams = ngram_hashes(hashes, n)
            text_of_ngram = np.searchsorted(bounds, np.arange(len(block_ngrams)), "right") - 1
            in_one_text = np.arange(len(block_ngrams)) + n <= bounds[text_of_ngram + 1]
            ngrams.append(block_ngrams[in_one_text])
            owners.append(text_of_ngram[in_one_text] + first)
        self._ngrams = HashTable(np.concatenate(ngrams), np.concatenate(owners), self._splits, max_owners_per_ngram)
        short = np.flatnonzero((self._lengths > 0) & (self._lengths < n) & (short_text_rule != "ignore"))
        self._short_texts = HashTable(self._text_hashes[short], short, self._splits, MAX_OWNERS_PER_NGRAM)
        # No limit on equal prefixes: many texts may begin alike and differ after that.
        short = self._short_texts.owners
        short = short[(self._lengths[short] >= self._prefix_tokens) & self._match_inside]
        self._prefixes = HashTable(prefix_hashes[short], short, self._splits, None)
        self._near_duplicates = None
        if near_duplicate_threshold is not None:
            self._near_duplicates = NearDuplicates(near_duplicate_threshold, self._tokenizer.tokens)
            for number, text in enumerate(self._texts):
                self._near_duplicates.add(str(number), text)
                for sentence in split_sentences(text):
                    tokens = len(self._tokenizer.tokens(sentence))
                    if sentence != text and tokens >= MIN_SENTENCE_SHARE * n:
                        self._near_duplicates.add(str(number), sentence)

    @property
    def can_match(self) -> bool:
        """Whether there is a text that overlaps an entry."""
        near_duplicates = self._near_duplicates is not None and self._lengths.any()
        return bool(len(self._ngrams.owners) or len(self._short_texts.owners) or near_duplicates)

    def _decoded(self, text: str) -> str:
        return decoded(text) if self._tokenizer.name == "unicode" else text

    def find(
        self, texts: Sequence[str], ends: Sequence[int] | None = None, between_splits: bool = False
    ) -> dict[int, list[Match]]:
        """The matches of the texts that overlap a benchmark text, by their position in `texts`.

        `ends[i]` is the end of the group of consecutive texts that text i belongs to: a match may begin in one text of a
        group and end in a later one; it is listed at the first. Without `ends` each text is a group of its own.
        `between_splits`: `texts` are the entries themselves; only matches with other splits count, no near-duplicates.
        """
        texts = list(map(self._decoded, texts))
        matches: dict[int, list[Match]] = {}
        tokens_of = cache(lambda number: self._tokenizer.tokens(texts[number]))
        for first, hashes, bounds in self._hash_blocks(texts, ends):
            candidates = defaultdict(set)  # of each entry: (first text, last text)
            for firsts, lasts, entries in self._candidates(hashes, bounds, first, ends):
                if between_splits:
                    other = self._splits[firsts] != self._splits[entries]
                    firsts, lasts, entries = firsts[other], lasts[other], entries[other]
                for start, last, entry in zip(firsts.tolist(), lasts.tolist(), entries.tolist(), strict=True):
                    candidates[entry].add((start, last))
            for entry in sorted(candidates):
                for start, last in _merged(sorted(candidates[entry])):
                    tokens = [tokens_of(number) for number in range(start, last + 1)]
                    match = self._compare(tokens, entry)
                    if match is not None:
                        matches.setdefault(start + match[0], []).append(match[1])
        if self._near_duplicates is not None and not between_splits:
            for number, text in enumerate(texts):
                if nearest := self._near_duplicates.match(text):
                    entry = self.entries[int(nearest[0])]
                    if all(match.entry is not entry for match in matches.get(number, ())):
                        match = Match(entry, "near_duplicate", "", 0, nearest[1])
                        matches.setdefault(number, []).append(match)
        return matches

    def _candidates(
        self, hashes: np.ndarray, bounds: np.ndarray, first: int, ends: Sequence[int] | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(first texts, last texts, entries) with a hash in common; a combination may come up several times."""
        count = len(bounds) - 1
        last_texts = np.arange(count) if ends is None else np.asarray(ends[first : first + count]) - first - 1

        def in_one_group(starts: np.ndarray, lengths: np.ndarray | int, entries: np.ndarray):
            firsts = np.searchsorted(bounds, starts, "right") - 1
            lasts = np.searchsorted(bounds, starts + lengths - 1, "right") - 1
            valid = lasts <= last_texts[firsts]
            return firsts[valid] + first, lasts[valid] + first, entries[valid]

        starts, entries = self._ngrams.find(ngram_hashes(hashes, self.n))
        yield in_one_group(starts, self.n, entries)
        starts, entries = self._prefixes.find(ngram_hashes(hashes, self._prefix_tokens))
        text_ends = starts + self._lengths[entries]
        equal = text_ends <= len(hashes)
        equal[equal] = range_hashes(hashes, starts[equal], text_ends[equal]) == self._text_hashes[entries[equal]]
        yield in_one_group(starts[equal], self._lengths[entries[equal]], entries[equal])
        lengths = np.diff(bounds)
        short = np.flatnonzero((lengths > 0) & (lengths < self.n))
        positions, entries = self._short_texts.find(range_hashes(hashes, bounds[short], bounds[short + 1]))
        yield short[positions] + first, short[positions] + first, entries

    def _hash_blocks(
        self, texts: Sequence[str], ends: Sequence[int] | None
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(number of the first text, token hashes, bounds of texts) of blocks of whole groups of texts."""
        chars_before = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=chars_before[1:])
        groups = np.arange(len(texts)) if ends is None else np.unique([0, *ends])[:-1]
        blocks = chars_before[groups] // BLOCK_CHARS
        block_starts = [0, *groups[np.flatnonzero(np.diff(blocks)) + 1].tolist(), len(texts)]
        for first, end in pairwise(block_starts):
            if end > first:
                yield first, *self._tokenizer.hash_tokens(texts[first:end])

    def _compare(self, texts: list[list[str]], entry: int) -> tuple[int, Match] | None:
        """The number of the first text that overlaps the entry of that number, and the match; None if only their hashes are equal.

        `texts`: the tokens of consecutive texts. One at their edge counts only with MIN_EDGE_SHARE * n shared tokens.
        """
        n, entry_tokens = self.n, self._tokenizer.tokens(self._texts[entry])
        tokens = [token for text in texts for token in text]
        length = min(n, len(entry_tokens))
        if length == n:
            entry_ngrams = {tuple(entry_tokens[i : i + n]) for i in range(len(entry_tokens) - n + 1)}
        else:
            entry_ngrams = {tuple(entry_tokens)} if self._match_inside or tokens == entry_tokens else ()
        shared = [i for i in range(len(tokens) - length + 1) if tuple(tokens[i : i + length]) in entry_ngrams]
        if not shared:
            return None
        is_shared = bytearray(len(tokens))
        for place in shared:
            is_shared[place : place + length] = bytes([1]) * length
        ends = list(accumulate(map(len, texts)))
        counts = [is_shared.count(1, end - len(text), end) for text, end in zip(texts, ends, strict=True)]
        counted = [
            number
            for number, text in enumerate(texts)
            if counts[number] >= min(round(MIN_EDGE_SHARE * n), max(len(text), 1))
        ]
        first, last = counted[0], counted[-1]
        ngram = tokens[shared[0] : shared[0] + length]
        place = next(i for i in range(len(entry_tokens)) if entry_tokens[i : i + length] == ngram)
        as_written = self._tokenizer.tokens(self.entries[entry].text)  # with letters that look Latin
        if len(as_written) == len(entry_tokens):
            ngram = as_written[place : place + length]
        kind = "ngram" if length == n else "short_text"
        return first, Match(
            self.entries[entry], kind, " ".join(ngram), sum(counts[first : last + 1]), texts=last - first + 1
        )


def _merged(runs: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Sorted runs of texts (first, last); runs that have a text in common become one."""
    first, last = runs[0]
    for start, end in runs[1:]:
        if start > last:
            yield first, last
            first, last = start, end
        last = max(last, end)
    yield first, last


class HashTable:
    """Entries by hash; of each hash and split only the first `max_owners`. A bitmap rules out nearly all absent hashes at
    one memory access each."""

    def __init__(self, keys: np.ndarray, owners: np.ndarray, splits: np.ndarray, max_owners: int | None):
        order = np.lexsort((owners, splits[owners], keys))
        keys, owners = keys[order], owners[order]
        first_of_run = np.ones(len(keys), np.bool_)
        first_of_run[1:] = (keys[1:] != keys[:-1]) | (splits[owners[1:]] != splits[owners[:-1]])
        places = np.arange(len(keys))
        place_in_run = places - np.maximum.accumulate(np.where(first_of_run, places, 0))
        listed = place_in_run < (max_owners or len(keys))
        self._keys, self.owners = keys[listed], owners[listed].astype(np.int32)
        bits = min(max((len(self._keys) * _BITS_PER_KEY).bit_length(), 10), 26)
        self._shift = np.uint64(64 - bits)
        self._bitmap = np.zeros(1 << bits, np.bool_)
        self._bitmap[self._keys >> self._shift] = True

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(positions in `hashes`, entries) of all pairs of equal hashes."""
        maybe = np.flatnonzero(self._bitmap[(hashes >> self._shift).view(np.int64)])
        first = np.searchsorted(self._keys, hashes[maybe], "left")
        counts = np.searchsorted(self._keys, hashes[maybe], "right") - first
        positions = np.repeat(maybe, counts)
        offsets = np.arange(len(positions)) - np.repeat(np.cumsum(counts) - counts, counts)
        return positions, self.owners[np.repeat(first, counts) + offsets]
