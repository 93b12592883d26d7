"""Training rows from a stream of pairs that never fits in memory (`--streaming`)."""

import logging
from collections.abc import Iterator

import torch

from topxgen.training.packing import Seq2SeqRows, decoder_rows
from topxgen.training.pairs import Pair, reverse
from topxgen.training.tokenization import CausalTokenizer

logger = logging.getLogger(__name__)


class StreamedRows(torch.utils.data.IterableDataset):
    """Rows without end: pairs as they come, `window` of them encoded and packed together.

    `stream` is a datasets.IterableDataset with the columns of a Pair, shuffled through its buffer anew at each
    pass. The order depends on the seed alone, so a resumed run skips what was trained on. Pairs that share a text
    with `held_out` are passed over; `say` hears of pairs that are too long, at first and after each pass.
    """

    def __init__(
        self,
        stream,
        encoder,
        *,
        window: int,
        packing: str,
        max_length: int,
        targets_only: bool,
        seed: int,
        both_ways: bool,
        held_out: list[Pair],
    ):
        self._both_ways, self._say, self._left_out, self._reported = both_ways, 0, 0
        self._held_out = {text for pair in held_out for text in (pair.source, pair.target) if text}
        self._stream, self._encoder, self._window = stream, encoder, window
        self._packing, self._max_length, self._targets_only, self._seed = packing, max_length, targets_only, seed

    def __iter__(self) -> Iterator[dict]:
        passes = self._left_out = 0
        while True:
            self._stream.set_epoch(passes)
            found = False
            for window, pairs in enumerate(windows(self._stream, self._window, self._held_out)):
                for row in self._rows(pairs, self._seed + window):
                    found = True
                    yield row
            if not found:  # an empty stream would go round for ever
                return
            self._report()
            passes += 1

    def _report(self) -> None:
        count = self._left_out or getattr(self._encoder, "cut", 0)
        if count > self._reported:
            what = "pairs left out" if self._left_out else "texts cut"
            logger.info(f"{count} {what} so far, longer than --max_length {self._max_length} tokens")
            self._reported = count

    def _rows(self, pairs: list[Pair], seed: int) -> Iterator[dict]:
        if self._both_ways:
            pairs = reverse(pairs)
        if isinstance(self._encoder, CausalTokenizer):
            limit = None if self._packing == "original" else self._max_length
            encoded = self._encoder.encode(pairs, limit)
            first, self._left_out = not self._left_out, self._left_out + len(encoded.too_long)
            if first:
                self._report()
            rows = decoder_rows(encoded, self._packing, self._max_length, self._targets_only, seed)
        else:
            rows = Seq2SeqRows(self._encoder.encode(pairs))
        # Packing sorts by length; the model should not see that.
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
        yield from (rows[i] for i in order)


def windows(stream, size: int, held_out: frozenset | set = frozenset()) -> Iterator[list[Pair]]:
    """Pairs of a stream, `size` at a time; those with an empty target or (but for raw text) source are passed over."""
    pairs: list[Pair] = []
    for row in stream:
        pair = Pair(row["source"], row["target"], row["src"], row["tgt"], "")
        if held_out and (pair.source in held_out or pair.target in held_out):
            continue
        if pair.target.strip() and (pair.source.strip() or not pair.src):
            pairs.append(pair)
        if len(pairs) == size:
            yield pairs
            pairs = []
    if pairs:
        yield pairs
