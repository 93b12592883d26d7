"""A model and an encoder that cost nothing, given by name as a user's own (--inference_api, --encoder): what they return
depends on what they get alone, as with real ones. They can end at any moment, as a killed process does."""

import hashlib
import random
import zlib
from itertools import pairwise
from typing import ClassVar

from topxgen.inference import Answer

WORDS = (
    "etxe",
    "mendi",
    "itsaso",
    "euri",
    "haize",
    "liburu",
    "ogi",
    "zuhaitz",
    "bide",
    "hiri",
    "eskola",
    "egun",
    "gau",
)


class Killed(BaseException): ...


class Fuse:
    """Counts down at each `burn`, and ends the process at 0."""

    left: int | None = None

    @classmethod
    def burn(cls) -> None:
        if cls.left is not None:
            cls.left -= 1
            if cls.left < 0:
                cls.left = None
                raise Killed


class Model:
    """Answers in a random order. `seen`: the prompts by request id; `silent`: ids without a text; `failing`: that are refused."""

    seen: ClassVar[dict[str, str]] = {}
    silent: ClassVar[set[str]] = set()
    failing: ClassVar[set[str]] = set()
    order = random.Random(0)

    def __init__(self, settings): ...

    def generate(self, next_request, settings):
        in_flight = []
        while True:
            while len(in_flight) < self.order.randint(1, 9) and (request := next_request()) is not None:
                assert request.id not in self.seen or self.seen[request.id] == request.prompt, "another prompt"
                self.seen[request.id] = request.prompt
                in_flight.append(request)
            if not in_flight:
                return
            Fuse.burn()
            request = in_flight.pop(self.order.randrange(len(in_flight)))
            if request.id in self.failing:
                yield Answer(request.id, [], 0, 0, error="HTTP 400: refused")
                continue
            texts = [self.text(request.id, request.prompt, i) for i in range(settings.num_return_sequences)]
            yield Answer(request.id, texts, 10, 10, finish_reasons=("stop",) * len(texts))

    @classmethod
    def text(cls, request_id: str, prompt: str, number: int = 0) -> str:
        if request_id in cls.silent:
            return ""
        rng = random.Random(hashlib.sha256(f"{prompt} {number}".encode()).digest())
        return " " + " ".join(rng.choices(WORDS, k=rng.randint(3, 9)))

    def finish(self) -> None: ...  # it repeats nothing, and Generation has no more requests

    def close(self) -> None: ...


class Encoder:
    """Counts of pairs of characters. `encoded`: what it was asked for."""

    dimension, version = 32, "bigrams 1"
    encoded: ClassVar[list[str]] = []

    def __init__(self, settings): ...

    def check(self, language) -> None: ...

    def encode(self, texts, language, tick=lambda n: None):
        import numpy as np

        vectors = np.ones((len(texts), self.dimension), np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            Fuse.burn()
            self.encoded.append(text)
            for pair in pairwise(text):
                vector[zlib.crc32("".join(pair).encode()) % self.dimension] += 1
            tick(1)
        return vectors

    def close(self) -> None: ...
