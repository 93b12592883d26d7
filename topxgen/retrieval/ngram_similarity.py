"""chrF and BLEU of very many pairs of texts at once, equal to sacrebleu's sentence_chrf and sentence_bleu.

Both are computed from clipped matches: the sum over n-grams of the smaller of the two counts. With a feature for "has this
n-gram at least j times", each text is a row of zeros and ones, and the matches of all pairs are one sparse matrix product.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from topxgen.text.languages import Language
from topxgen.text.words import UNSPACED_SCRIPTS

if TYPE_CHECKING:
    import numpy as np

CHRF_ORDER = 6  # sacrebleu's default: characters only (chrF, not chrF++)
CHRF_BETA = 2
BLEU_ORDER = 4


@dataclass(frozen=True)
class Sequences:
    """Sequences of symbols (>= 0), concatenated in `symbols`, with their `lengths`."""

    symbols: "np.ndarray"
    lengths: "np.ndarray"


def characters(texts: list[str]) -> Sequences:
    """Code points without whitespace, as chrF reads them."""
    import numpy as np

    texts = ["".join(text.split()) for text in texts]
    symbols = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return Sequences(symbols.astype(np.int64), np.array([len(text) for text in texts], dtype=np.int64))


def words(texts: list[str], tokenize: Callable[[str], str], numbers: dict[str, int]) -> Sequences:
    """Numbers of the words that `tokenize` separates with spaces; new words are added to `numbers`."""
    import numpy as np

    rows = [[numbers.setdefault(word, len(numbers)) for word in tokenize(text.rstrip()).split()] for text in texts]
    symbols = np.array([number for row in rows for number in row], dtype=np.int64)
    return Sequences(symbols, np.array([len(row) for row in rows], dtype=np.int64))


def bleu_tokenizer_name(language: Language) -> str:
    """sacrebleu's name of the tokenizer that fits the script: zh, char or 13a.

    13a splits at ASCII punctuation only. It never splits a Devanagari or Arabic word, nor a letter from its marks, but leaves
    signs such as the danda or the Arabic full stop attached, as in all published scores with it.
    """
    row = UNSPACED_SCRIPTS.get(language.script)
    return row.bleu_tokenizer if row else "13a"


def bleu_tokenizer(language: Language) -> Callable[[str], str]:
    """sacrebleu's tokenizer that fits the script: it returns a text with spaces between words."""
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=bleu_tokenizer_name(language)).tokenizer


class NgramIndex:
    """The n-grams of orders 1 to `order` in a set of sequences, to be matched with those of others.

    An n-gram is identified by the number of its first n - 1 symbols and its last symbol; its number is its position in the
    sorted table of all such pairs of its order. Exact: nothing is hashed.
    """

    def __init__(self, sequences: Sequences, order: int):
        import numpy as np

        self.lengths = sequences.lengths
        self._tables: list[np.ndarray] = []  # by order
        self._starts: list[np.ndarray] = []  # by order: the first feature of each n-gram, and one past the last
        # By order: (sequences, features), 1 where a sequence has an n-gram at least so many times.
        self.features = [self._features(*found, len(self.lengths)) for found in self._ngrams(sequences, order)]

    def matches(self, sequences: Sequences) -> list:
        """By order: (indexed sequences, `sequences`) clipped matches."""
        import numpy as np

        matches = []
        for i, ngrams in enumerate(self._ngrams(sequences)):
            others = self._features(*ngrams, len(sequences.lengths), known=i)
            # Only features on both sides: each 1 of the index then adds a short dense row, which is fast.
            columns = np.unique(others.indices)
            matches.append(self.features[i][:, columns] @ others[:, columns].T.toarray())
        return matches

    def _ngrams(self, sequences: Sequences, learn: int = 0) -> Iterator[tuple["np.ndarray", "np.ndarray"]]:
        """By order: the sequence and the number of each n-gram. New n-grams get numbers up to order `learn`; if it is 0, they
        are dropped."""
        import numpy as np

        count = len(sequences.lengths)
        rows = np.repeat(np.arange(count), sequences.lengths)
        ends = np.repeat(np.cumsum(sequences.lengths), sequences.lengths)
        first = self._number(sequences.symbols, 0, learn)
        at, numbers = np.arange(len(first)), first
        for n in range(1, (learn or len(self._tables)) + 1):
            if n > 1:
                inside = at + n - 1 < ends[at]
                at, numbers = at[inside], numbers[inside]
                last = first[at + n - 1]
                numbers = self._number(np.where(last < 0, -1, numbers * len(self._tables[0]) + last), n - 1, learn)
            known = numbers >= 0
            at, numbers = at[known], numbers[known]
            yield rows[at], numbers

    def _number(self, keys: "np.ndarray", place: int, learn: int) -> "np.ndarray":
        """The position of each key in its table, -1 for an unknown one."""
        import numpy as np

        if learn:
            size = int(keys.max(initial=0)) + 1
            if size <= 4 * len(keys):  # a flag for every possible key is far faster than sorting
                occurs = np.zeros(size, dtype=bool)
                occurs[keys] = True
                table, numbers = np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[keys]
            else:
                table, numbers = np.unique(keys, return_inverse=True)
            self._tables.append(table)
            return numbers
        table = self._tables[place]
        if not len(table):
            return np.full(len(keys), -1)
        numbers = np.minimum(np.searchsorted(table, keys), len(table) - 1)
        return np.where(table[numbers] == keys, numbers, -1)

    def _features(self, rows: "np.ndarray", numbers: "np.ndarray", count: int, known: int | None = None):
        """Zeros and ones, (count, features), of one order: of index `known`, or None for a new order of these n-grams."""
        import numpy as np
        from scipy.sparse import csr_array

        place = len(self._starts) if known is None else known
        width = max(1, len(self._tables[place]))
        pairs, times = np.unique(rows * width + numbers, return_counts=True)
        row, number = np.divmod(pairs, width)
        if known is None:
            most = np.zeros(width, dtype=np.int64)
            np.maximum.at(most, number, times)
            self._starts.append(np.concatenate([[0], np.cumsum(most)]))
        starts = self._starts[place]
        times = np.minimum(times, starts[number + 1] - starts[number])  # further occurrences cannot match
        step = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        ends = np.cumsum(np.bincount(row, weights=times, minlength=count).astype(np.int64))
        columns = np.repeat(starts[number], times) + step
        shape = (count, int(starts[-1]))
        return csr_array((np.ones(len(columns), np.int32), columns, np.concatenate([[0], ends])), shape=shape)


def chrf(matches: list, hypothesis: "np.ndarray", reference: "np.ndarray") -> "np.ndarray":
    """sacrebleu's chrF, 0 to 100, from the matches by order and the lengths of both sides, broadcast together."""
    import numpy as np

    precision, recall = 0.0, 0.0
    for n, matched in enumerate(matches):
        precision = precision + matched / np.maximum(hypothesis - n, 1)
        recall = recall + matched / np.maximum(reference - n, 1)
    # Orders that both sides have; others have no matches.
    orders = np.clip(np.minimum(hypothesis, reference), 1, len(matches))
    precision, recall = precision / orders, recall / orders
    factor = CHRF_BETA**2
    score = (1 + factor) * precision * recall / np.where(precision + recall, factor * precision + recall, 1)
    return 100 * score


def bleu(matches: list, hypothesis: "np.ndarray", reference: "np.ndarray") -> "np.ndarray":
    """sacrebleu's sentence BLEU, 0 to 100, from the matches by order and the lengths of both sides, broadcast together.

    Its defaults: exponential smoothing, orders up to the length of the hypothesis.
    """
    import numpy as np

    product, smooth, any_match = 1.0, 1.0, False
    for n, matched in enumerate(matches):
        has_order = hypothesis > n
        smooth = np.where(has_order & (matched == 0), smooth * 2, smooth)
        precision = np.where(matched, matched, 1 / smooth) / np.maximum(hypothesis - n, 1)
        product = product * np.where(has_order, 100 * precision, 1)
        any_match = any_match | (matched > 0)
    orders = np.clip(hypothesis, 1, len(matches))
    # The geometric mean by roots, which are rounded the same on every processor.
    mean = np.where(orders == 1, product, np.where(orders == 2, np.sqrt(product), np.sqrt(np.sqrt(product))))
    if (orders == 3).any():
        mean = np.where(orders == 3, np.cbrt(product), mean)
    brevity = np.exp(np.minimum(0, 1 - reference / np.maximum(hypothesis, 1)))
    return np.where(any_match, brevity * mean, 0.0)
