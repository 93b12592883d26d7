"""The order of topics: shuffled for each language."""

import random


class TopicOrder:
    """The topic of the n-th prompt of a language: shuffled topics, then shuffled again, without end."""

    def __init__(self, topics: list[str], seed: int, language: str):
        self._topics, self._seed, self._language = topics, seed, language
        self._rounds: dict[int, list[str]] = {}

    def topic(self, number: int) -> str:
        turn, index = divmod(number, len(self._topics))
        if turn not in self._rounds:
            shuffled = list(self._topics)
            random.Random(f"topics {self._seed} {self._language} {turn}").shuffle(shuffled)
            self._rounds = {turn: shuffled}
        return self._rounds[turn][index]
