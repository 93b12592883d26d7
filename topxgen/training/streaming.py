"""Training rows from a stream of pairs that never fits in memory (`--streaming`)."""

import argparse
import logging
from collections.abc import Collection, Iterator

import torch

from topxgen.common.blocks import in_blocks
from topxgen.text.leak_guard import text_key
from topxgen.text.words import is_blank
from topxgen.training.packing import Seq2SeqRows, decoder_rows
from topxgen.training.pairs import Pair, reverse
from topxgen.training.tokenization import CausalTokenizer, Seq2SeqTokenizer

logger = logging.getLogger(__name__)


class StreamedRows(torch.utils.data.IterableDataset):
    """An endless stream of rows: each window of --num_of_sequences pairs is tokenized and packed together.

    `stream` is a datasets.IterableDataset with the columns of a Pair, reshuffled through its buffer at each pass. Pairs
    that share a text with `test` are skipped. The order depends on --seed only, so a resumed run can skip what was trained on.
    """

    def __init__(
        self, stream, tokenizer: CausalTokenizer | Seq2SeqTokenizer, test: list[Pair], args: argparse.Namespace
    ):
        self._stream, self._tokenizer, self._args = stream, tokenizer, args
        self._test_texts = {text for pair in test for text in (pair.source, pair.target) if text}
        self._too_long = self._reported = 0

    def __iter__(self) -> Iterator[dict]:
        passes = self._too_long = 0
        while True:
            self._stream.set_epoch(passes)
            is_empty = True
            for number, pairs in enumerate(windows(self._stream, self._args.num_of_sequences, self._test_texts)):
                for row in self._rows(pairs, self._args.seed + number):
                    is_empty = False
                    yield row
            if is_empty:  # else this would loop forever
                return
            self._report()
            passes += 1

    def _report(self) -> None:
        """Log how many pairs are too long: at the first one, and after each pass if there are more."""
        count = self._too_long or getattr(self._tokenizer, "truncated", 0)
        if count > self._reported:
            what = "pairs skipped" if self._too_long else "texts truncated"
            logger.info(f"{count} {what} so far, longer than --max_length {self._args.max_length} tokens")
            self._reported = count

    def _rows(self, pairs: list[Pair], seed: int) -> Iterator[dict]:
        args = self._args
        if args.reverse:
            pairs = reverse(pairs)
        if isinstance(self._tokenizer, CausalTokenizer):
            texts = self._tokenizer.encode(pairs, None if args.packing == "concat" else args.max_length)
            is_first, self._too_long = not self._too_long, self._too_long + len(texts.too_long)
            if is_first:
                self._report()
            rows = decoder_rows(texts, args.packing, args.max_length, args.targets_only, seed)
        else:
            rows = Seq2SeqRows(self._tokenizer.encode(pairs))
        # Packing sorts by length; training must not.
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
        yield from (rows[i] for i in order)


def windows(stream, size: int, test_texts: Collection[str] = frozenset()) -> Iterator[list[Pair]]:
    """Lists of `size` pairs (the last may be shorter), without pairs that have an empty side or a text of the test set in any
    spelling."""
    test_keys = set(map(text_key, test_texts)) - {""}

    def taken(pair: Pair) -> bool:
        if test_keys and not test_keys.isdisjoint((text_key(pair.source), text_key(pair.target))):
            return False
        return not is_blank(pair.target) and not (pair.src and is_blank(pair.source))

    pairs = (Pair(row["source"], row["target"], row["src"], row["tgt"], "") for row in stream)
    return in_blocks(filter(taken, pairs), size)
