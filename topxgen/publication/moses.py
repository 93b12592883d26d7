"""Parallel text as Moses, fairseq, Marian and OpusTrainer read it: moses/{split}.{src}-{tgt}.src and .tgt, a line for each side."""

from collections.abc import Iterable
from pathlib import Path

from topxgen.common.lines import separators_to_spaces
from topxgen.publication.sources import Config, Pair


def one_line(text: str) -> str:
    """`text` with spaces for all that some program takes for the end of a line, NUL included."""
    return separators_to_spaces(text.replace("\0", " ").replace("\r\n", " ").replace("\r", " ").replace("\n", " "))


class Moses:
    def __init__(self, folder: Path, config: Config, split: str):
        (folder / "moses").mkdir(exist_ok=True)
        stem = folder / "moses" / f"{split}.{config.target.flores}-{config.language.flores}"
        options = {"encoding": "utf-8", "errors": "replace", "newline": "\n"}
        self._files = [open(f"{stem}.{side}", "a", **options) for side in ("src", "tgt")]  # noqa: SIM115

    def write(self, rows: Iterable[Pair]) -> None:
        for row in rows:
            for file, text in zip(self._files, (row.source, row.target), strict=True):
                file.write(one_line(text) + "\n")

    def close(self) -> None:
        for file in self._files:
            file.close()
