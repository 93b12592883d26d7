"""Beam search for one prompt, independent of the model.

Equal to transformers' (length penalty 1, early_stopping False), so that backends agree. The engines' own beam search
ignores stop strings: it would rank beams by what follows them, too.
"""

from collections.abc import Callable, Sequence
from heapq import nlargest


class BeamSearch:
    """`live` holds the unfinished beams as (new tokens, summed log probability), best first; initially one empty beam.

    Call `advance` with the `width` likeliest next tokens of each live beam until `done`.
    """

    def __init__(
        self, num_beams: int, max_new_tokens: int, eos: frozenset[int], stops: Callable[[list[int]], bool] | None = None
    ):
        """`stops` tells whether the new tokens of a beam contain a stop string."""
        self._num_beams, self._max_new_tokens, self._eos, self._stops = num_beams, max_new_tokens, eos, stops
        # Enough for `num_beams` to continue when the others end.
        self.width = max(2, 1 + len(eos)) * num_beams
        self.live: list[tuple[list[int], float]] = [([], 0.0)]
        self._finished: list[tuple[float, list[int]]] = []  # (mean log probability, tokens), best first
        self.done = False

    def advance(self, likeliest: Sequence[Sequence[tuple[int, float]]]) -> None:
        """Extend the beams by one token; `likeliest` has (token, log probability) pairs for each live beam."""
        candidates = [
            (total + log_probability, tokens, token)
            for (tokens, total), pairs in zip(self.live, likeliest, strict=True)
            for token, log_probability in pairs
        ]
        length, self.live = len(self.live[0][0]) + 1, []
        for rank, (total, tokens, token) in enumerate(nlargest(self.width, candidates, key=lambda item: item[0])):
            tokens = [*tokens, token]
            if length == self._max_new_tokens or token in self._eos or (self._stops and self._stops(tokens)):
                if rank < self._num_beams:  # beams that end further down do not count, as in transformers
                    self._finished.append((total / length, tokens))
            elif len(self.live) < self._num_beams:
                self.live.append((tokens, total))
        self._finished = nlargest(self._num_beams, self._finished, key=lambda item: item[0])
        full = len(self._finished) == self._num_beams
        self.done = not self.live or (full and self.live[0][1] / length <= self._finished[-1][0])

    def best(self, count: int) -> list[list[int]]:
        """The tokens of the `count` best finished beams, each with its end-of-sequence token or stop string."""
        return [tokens for _, tokens in self._finished[:count]]
