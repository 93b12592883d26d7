"""Beam search for one prompt, apart from the model that says what may come next.

As transformers does it (length penalty 1, early_stopping False), so that backends agree. An engine's own search is of no use
where a stop string ends the answer: it ranks beams by what they say after it, too.
"""

from collections.abc import Callable, Sequence
from heapq import nlargest


class BeamSearch:
    """`live` holds the unfinished beams as (new tokens, summed log probability), the best first; at first one empty beam.

    Hand `advance` the `width` likeliest next tokens of each live beam until `done`.
    """

    def __init__(
        self, num_beams: int, max_new_tokens: int, eos: frozenset[int], stops: Callable[[list[int]], bool] | None = None
    ):
        """`stops` says of the new tokens of a beam whether they hold a stop string."""
        self._num_beams, self._max_new_tokens, self._eos, self._stops = num_beams, max_new_tokens, eos, stops
        # Enough that `num_beams` can go on when others end.
        self.width = max(2, 1 + len(eos)) * num_beams
        self.live: list[tuple[list[int], float]] = [([], 0.0)]
        self._finished: list[tuple[float, list[int]]] = []  # (mean log probability, tokens), the best first
        self.done = False

    def advance(self, likeliest: Sequence[Sequence[tuple[int, float]]]) -> None:
        """Go one token on: `likeliest` has (token, log probability) pairs for each live beam."""
        candidates = [
            (total + log_probability, tokens, token)
            for (tokens, total), pairs in zip(self.live, likeliest, strict=True)
            for token, log_probability in pairs
        ]
        length, self.live = len(self.live[0][0]) + 1, []
        for rank, (total, tokens, token) in enumerate(nlargest(self.width, candidates, key=lambda item: item[0])):
            tokens = [*tokens, token]
            if length == self._max_new_tokens or token in self._eos or (self._stops and self._stops(tokens)):
                if rank < self._num_beams:  # what ends further down was only kept as a reserve
                    self._finished.append((total / length, tokens))
            elif len(self.live) < self._num_beams:
                self.live.append((tokens, total))
        self._finished = nlargest(self._num_beams, self._finished, key=lambda item: item[0])
        full = len(self._finished) == self._num_beams
        self.done = not self.live or (full and self.live[0][1] / length <= self._finished[-1][0])

    def best(self, count: int) -> list[list[int]]:
        """The tokens of the `count` best finished beams, each with what ended it."""
        return [tokens for _, tokens in self._finished[:count]]
