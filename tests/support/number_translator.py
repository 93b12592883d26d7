"""A back-translator that costs nothing, given by name as a user's own: each sentence has one English sentence of its own."""

import zlib
from pathlib import Path

from topxgen.translation import Translation

NAME = f"{Path(__file__)}:Numbers"


class Numbers:
    version, block_size, settings = "numbers 1", 10_000, {"numbers": 1}

    def __init__(self, settings): ...

    def check(self, source, target): ...

    def load(self): ...

    def translate(self, sentences, source, target, tick):
        tick(len(sentences))
        return [
            Translation(f"Everyone has the right to number {zlib.crc32(s.encode())} in the world.") for s in sentences
        ]

    def close(self): ...
