"""Rows as parquet, written as a stream: `datasets` reads {config}/{split}.parquet."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from topxgen.common.records import replace_surrogates
from topxgen.publication.sources import Config, Pair

ROWS_PER_GROUP = 20_000
NUMBERS = ("score", "confidence")


@cache
def schema():
    import pyarrow

    kinds = {True: pyarrow.float64(), False: pyarrow.string()}
    return pyarrow.schema([(name, kinds[name in NUMBERS]) for name in Pair._fields])


def features() -> list[dict[str, str]]:
    """The columns, as the front matter of a card lists them."""
    return [{"name": name, "dtype": "float64" if name in NUMBERS else "string"} for name in Pair._fields]


class Parquet:
    """A file of one split; `rows` and `bytes` (in memory, without compression) are what `datasets` checks and shows."""

    def __init__(self, folder: Path, config: Config, split: str):
        from pyarrow import parquet

        self.path = folder / config.folder / f"{split}.parquet"
        self.path.parent.mkdir(exist_ok=True)
        self._file = parquet.ParquetWriter(self.path, schema(), compression="zstd")
        self._waiting: list[Pair] = []
        self.rows = self.bytes = 0

    def write(self, rows: Iterable[Pair]) -> None:
        self._waiting += rows
        if len(self._waiting) >= ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        columns = zip(*self._waiting, strict=True)
        arrays = [
            pyarrow.array([replace_surrogates(v) if isinstance(v, str) else v for v in column], field.type)
            for column, field in zip(columns, schema(), strict=True)
        ]
        table = pyarrow.Table.from_arrays(arrays, schema=schema())
        self._file.write_table(table)
        self.rows, self.bytes = self.rows + len(table), self.bytes + table.nbytes
        self._waiting = []

    def close(self) -> None:
        if self._waiting:
            self._flush()
        self._file.close()
