"""chrF and BLEU of very many pairs of texts at once, as sacrebleu's sentence_chrf and sentence_bleu give them.

Both rest on clipped matches, the sum over n-grams of the smaller of its two counts. With one feature for "has this n-gram at
least j times", each text is a row of zeros and ones, and the matches of all pairs are one product of sparse matrices.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from topxgen.text.languages import Language
from topxgen.text.words import UNSPACED_SCRIPTS

if TYPE_CHECKING:
    import numpy as np

CHRF_ORDER = 6  # sacrebleu's default: characters alone (chrF, not chrF++)
CHRF_BETA = 2
BLEU_ORDER = 4


@dataclass(frozen=True)
class Sequences:
    """Sequences of symbols (>= 0), one after the other in `symbols`; `lengths` says where each ends."""

    symbols: "np.ndarray"
    lengths: "np.ndarray"


def characters(texts: list[str]) -> Sequences:
    """Code points without whitespace, as chrF reads them."""
    import numpy as np

    texts = ["".join(text.split()) for text in texts]
    symbols = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return Sequences(symbols.astype(np.int64), np.array([len(text) for text in texts], dtype=np.int64))


def words(texts: list[str], tokenize: Callable[[str], str], numbers: dict[str, int]) -> Sequences:
    """Numbers of the words that `tokenize` parts with spaces; `numbers` grows by those that are new."""
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
    """sacrebleu's tokenizer that fits the script: a text with spaces between its words."""
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=bleu_tokenizer_name(language)).tokenizer


class NgramIndex:
    """The n-grams of orders 1 to `order` of some sequences, to be matched with those of others.

    An n-gram is told by its first n - 1 symbols and its last one; in the sorted table of all such pairs of its order its
    place is its number. Exact: nothing is hashed.
    """

    def __init__(self, sequences: Sequences, order: int):
        import numpy as np

        self.lengths = sequences.lengths
        self._tables: list[np.ndarray] = []  # by order
        self._starts: list[np.ndarray] = []  # by order: the first feature of each n-gram, and one past the last
        # By order: (sequences, features), 1 where a sequence has an n-gram at least so many times.
        self.features = [self._features(*found, len(self.lengths)) for found in self._ngrams(sequences, order)]

    def matches(self, sequences: Sequences) -> list:
        """By order: (indexed sequences, `sequences`), how many n-grams each pair has in common."""
        import numpy as np

        found = []
        for i, ngrams in enumerate(self._ngrams(sequences)):
            others = self._features(*ngrams, len(sequences.lengths), known=i)
            # Only what occurs on both sides; then each 1 of the index adds a short dense row, which is fast.
            columns = np.unique(others.indices)
            found.append(self.features[i][:, columns] @ others[:, columns].T.toarray())
        return found

    def _ngrams(self, sequences: Sequences, learn: int = 0) -> Iterator[tuple["np.ndarray", "np.ndarray"]]:
        """By order: the sequence and the number of each n-gram; new ones get numbers up to the order `learn`, or, when it
        is 0, are left out."""
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
        """The place of each key in its table, -1 where it is none."""
        import numpy as np

        if learn:
            size = int(keys.max(initial=0)) + 1
            if size <= 4 * len(keys):  # a place for every key there could be: far faster than sorting
                there = np.zeros(size, dtype=bool)
                there[keys] = True
                table, numbers = np.flatnonzero(there), (np.cumsum(there) - 1)[keys]
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
        """Zeros and ones, (count, features), of one order; without `known` the features are those of these n-grams."""
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
        times = np.minimum(times, starts[number + 1] - starts[number])  # what is more often here cannot match
        step = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        ends = np.cumsum(np.bincount(row, weights=times, minlength=count).astype(np.int64))
        columns = np.repeat(starts[number], times) + step
        shape = (count, int(starts[-1]))
        return csr_array((np.ones(len(columns), np.int32), columns, np.concatenate([[0], ends])), shape=shape)


def chrf(matches: list, hypothesis: "np.ndarray", reference: "np.ndarray") -> "np.ndarray":
    """sacrebleu's chrF, 0 to 100, from the matches by order and the lengths of both sides; all broadcast together."""
    import numpy as np

    precision, recall = 0.0, 0.0
    for n, found in enumerate(matches):
        precision = precision + found / np.maximum(hypothesis - n, 1)
        recall = recall + found / np.maximum(reference - n, 1)
    # Orders that both sides have; an order that one side lacks has no matches.
    orders = np.clip(np.minimum(hypothesis, reference), 1, len(matches))
    precision, recall = precision / orders, recall / orders
    factor = CHRF_BETA**2
    score = (1 + factor) * precision * recall / np.where(precision + recall, factor * precision + recall, 1)
    return 100 * score


def bleu(matches: list, hypothesis: "np.ndarray", reference: "np.ndarray") -> "np.ndarray":
    """sacrebleu's sentence BLEU, 0 to 100, from the matches by order and the lengths of both sides; all broadcast together.

    Its defaults: exponential smoothing, orders up to the length of the hypothesis.
    """
    import numpy as np

    product, smooth, some = 1.0, 1.0, False
    for n, found in enumerate(matches):
        there = hypothesis > n
        smooth = np.where(there & (found == 0), smooth * 2, smooth)
        part = np.where(found, found, 1 / smooth) / np.maximum(hypothesis - n, 1)
        product = product * np.where(there, 100 * part, 1)
        some = some | (found > 0)
    orders = np.clip(hypothesis, 1, len(matches))
    # The geometric mean by roots, which round alike on every processor.
    mean = np.where(orders == 1, product, np.where(orders == 2, np.sqrt(product), np.sqrt(np.sqrt(product))))
    if (orders == 3).any():
        mean = np.where(orders == 3, np.cbrt(product), mean)
    brevity = np.exp(np.minimum(0, 1 - reference / np.maximum(hypothesis, 1)))
    return np.where(some, brevity * mean, 0.0)
