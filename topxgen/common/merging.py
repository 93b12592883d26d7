"""Lines of several JSONL files in one order: memory has some forty bytes for a line, its place and its rank, never the line."""

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby, repeat
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from topxgen.common.files import read_placed_jsonl
from topxgen.common.provenance import hash64
from topxgen.common.records import with_ids

if TYPE_CHECKING:
    import numpy as np


class Place(NamedTuple):
    """Where a line is in its file, in bytes, its `key`, and its `weight` against others of the same key (the least counts)."""

    offset: int
    size: int
    key: int
    weight: int = 0


class Places(NamedTuple):
    """Of many lines: arrays of equal length."""

    file: "np.ndarray"
    offset: "np.ndarray"
    size: "np.ndarray"
    key: "np.ndarray"
    weight: "np.ndarray"

    def only(self, chosen: "np.ndarray") -> "Places":
        """Those of a mask, or of indices in their order."""
        return Places(*(values[chosen] for values in self))

    def sorted(self) -> "Places":
        """By key; of one key by weight, then by file, the later lines of a file first."""
        import numpy as np

        return self.only(np.lexsort((-self.offset, self.file, self.weight, self.key)))

    def first_of_each(self) -> "Places":
        """Of each key the first in the order of `sorted`: in an append-only file the last line of an id counts."""
        import numpy as np

        ordered = self.sorted()
        if not len(ordered.key):
            return ordered
        return ordered.only(np.concatenate([[True], ordered.key[1:] != ordered.key[:-1]]))


def places_in(paths: Sequence[Path], read: Callable[[Path], Iterable[Place]]) -> Places:
    """What `read` yields of each of the files; those that do not exist have no lines."""
    import numpy as np

    parts = []
    for number, path in enumerate(paths):
        columns = [array(code) for code in "qiqb"]
        for place in read(path):
            for column, value in zip(columns, place, strict=True):
                column.append(value)
        types = (np.int64, np.int32, np.int64, np.int8)
        values = [
            np.frombuffer(column, kind) if column else np.empty(0, kind)
            for column, kind in zip(columns, types, strict=True)
        ]
        parts.append((np.full(len(values[0]), number, np.int16), *values))
    return Places(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def lines_of(paths: Sequence[Path], places: Places) -> Iterator[bytes]:
    """The lines, in the order of `places`."""
    with ExitStack() as stack:
        descriptors = {}
        for number in map(int, sorted(set(places.file))):
            descriptors[number] = os.open(paths[number], os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptors[number])
        for first in range(0, len(places.key), 1 << 16):  # as Python's integers they take more memory
            part = places.only(slice(first, first + (1 << 16)))
            for file, offset, size in zip(part.file.tolist(), part.offset.tolist(), part.size.tolist(), strict=True):
                line = os.pread(descriptors[file], size, offset)
                yield line if line.endswith(b"\n") else line + b"\n"


def responses_of(paths: Sequence[Path], places: Places, adopted: bool = False) -> Iterator[bytes]:
    """The lines of all responses by key, of one key the one that counts last, as in the file of one run: the others were paid for, too.

    Equal lines of the first file, the whole directory's, and of a shard are one response; with `adopted` also those of two shards, one
    of which has copied it.
    """
    ordered = places.sorted()
    lines = zip(ordered.key, ordered.file, lines_of(paths, ordered), strict=True)
    for _, group in groupby(lines, itemgetter(0)):
        times: dict[bytes, list[int]] = {}  # in the whole directory, in shards
        for _, file, line in group:
            times.setdefault(line, [0, 0])[bool(file)] += 1
        for line, (in_whole, in_shards) in reversed(times.items()):
            yield from repeat(line, max(in_whole, bool(in_shards) if adopted else in_shards))


def read_whole_lines(path: Path, schema: type) -> Iterator[tuple[int, int, int, dict]]:
    """As `read_placed_jsonl`, without a last line that was cut off when the run was killed: the run makes it again."""
    return read_placed_jsonl(path, schema, on_cut=lambda _: None)


def read_placed_ids(path: Path, schema: type, text_key: str) -> Iterator[tuple[int, int, str, dict]]:
    """(offset, size, id, record) of the records of a file, ids as by `with_ids`."""
    place = (0, 0)

    def records() -> Iterator[dict]:
        nonlocal place
        for _, offset, size, record in read_whole_lines(path, schema):
            place = offset, size
            yield record

    for record_id, record in with_ids(records(), text_key):
        yield *place, record_id, record


def id_key(record_id: str) -> int:
    return hash64(record_id, signed=True)


class Ranks:
    """The places of ids in an order, 16 bytes each."""

    def __init__(self, ids: Iterable[str]):
        import numpy as np

        keys = np.fromiter(map(id_key, ids), np.int64)
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def __len__(self) -> int:
        return len(self._order)

    def of(self, places: Places) -> Places:
        """The lines whose keys, by `id_key`, are of these ids, with the ranks of these as their keys."""
        import numpy as np

        if not len(self):
            return places.only(slice(0))
        at = np.minimum(np.searchsorted(self._sorted, places.key), len(self) - 1)
        found = self._sorted[at] == places.key
        return places.only(found)._replace(key=self._order[at[found]])
