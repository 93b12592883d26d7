"""Cache of segment scores on disk, by content: no segment is scored twice.

{folder}/{metric}/{fingerprint}/ has a file for each run that wrote to it: on network file systems the appends of several
machines to one file can overwrite each other. Each line has a checksum. A run reads the files of all others, and appends whole
blocks of lines to its own. {folder}/{metric}/last.json names the fingerprint that was used last.
"""

import argparse
import contextlib
import hashlib
import io
import json
import logging
import os
import re
import secrets
import socket
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Required

from topxgen.common.errors import UsageError, reason
from topxgen.common.files import Appender, to_line
from topxgen.common.provenance import cache_folder
from topxgen.common.schemas import decode, fields

logger = logging.getLogger(__name__)


# A line of a file of scores; last.json.
ScoreLine = fields(key=Required[str], score=Required[float], check=Required[str])
LastUse = fields(fingerprint=Required[str], signature=Required[str])


def default_folder() -> Path:
    return cache_folder() / "scores"


def key_of(*texts: str | None) -> str:
    """The key of a segment: equal for equal texts."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]


class ScoreCache:
    """The scores of all metrics in a folder, which need not exist; with None in memory alone.

    If a folder cannot be read or written, one warning per metric says so, and scores are kept in memory.
    """

    def __init__(self, folder: Path | None = None):
        self._folder, self._opened = folder, {}

    def open(self, name: str, fingerprint: str, signature: str) -> "MetricScores":
        """The scores of a metric; says so if its fingerprint is not the one that was used last under this name."""
        key = name, fingerprint
        if key not in self._opened:
            folder = self._folder and self._folder / file_name(name)
            if folder:
                _warn_of_change(folder, name, {"fingerprint": fingerprint, "signature": signature})
            self._opened[key] = MetricScores(name, folder and folder / file_name(fingerprint))
        return self._opened[key]


def cache_of(args: argparse.Namespace) -> ScoreCache:
    """That of --cache_dir, or of the user."""
    return ScoreCache(getattr(args, "cache_dir", None) or default_folder())


def last_scores(folder: Path, name: str, signature: str) -> dict[str, float]:
    """What is kept in `folder` of the metric `name`, by key, if it was used last with this signature; nothing is written."""
    room = folder / file_name(name)
    try:
        last = decode((room / "last.json").read_bytes(), LastUse)
        return dict(_read(room / file_name(last["fingerprint"]))) if last["signature"] == signature else {}
    except (OSError, ValueError):  # none, or a damaged file
        return {}


class MetricScores:
    """The scores of one metric with one fingerprint, by key."""

    def __init__(self, name: str, folder: Path | None):
        self._name, self._folder, self._file = name, folder, None
        try:
            self.scores: dict[str, float | None] = dict(_read(folder)) if folder else {}
        except OSError as error:
            self.scores = {}
            self._do_without(error)

    def add(self, keys: Sequence[str], scores: Sequence[float | None]) -> None:
        """Keep the scores; when it returns, they survive a power cut. None is kept in memory alone: the next run asks again, since
        the cause may be gone (an LLM that gave no answer)."""
        self.scores.update(zip(keys, scores, strict=True))
        known = [(key, score) for key, score in zip(keys, scores, strict=True) if score is not None]
        lines = [{"key": key, "score": score, "check": _checksum(key, score)} for key, score in known]
        if self._folder is None or not lines:
            return
        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                writer = f"{file_name(socket.gethostname())}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
                self._file = Appender(self._folder / writer)
            self._file.write(*lines)
            self._file.sync()
        except (OSError, UsageError) as error:  # a full disk; someone emptied the cache
            self._do_without(error)

    def _do_without(self, error: Exception) -> None:
        logger.warning(
            f"scores of {self._name} are not kept in {self._folder} ({reason(error)}): pass another --cache_dir"
        )
        self._folder = self._file = None


def _read(folder: Path) -> Iterator[tuple[str, float]]:
    """The keys and scores in the files of `folder`. Damaged lines are left out, and said in one line."""
    damaged, first = 0, ""
    # Of two scores of a key the last one counts: the first file's.
    for path in sorted(folder.glob("*.jsonl"), reverse=True):
        if not path.is_file():  # a pipe would be waited for
            continue
        for number, line in enumerate(io.BytesIO(path.read_bytes()), start=1):
            try:
                record = decode(line, ScoreLine)
                if record["check"] != _checksum(record["key"], record["score"]):
                    raise ValueError("the checksum differs")
            except ValueError as error:
                if line.endswith(b"\n"):  # else it is being written, or its run was killed
                    damaged += 1
                    first = first or f"{path}, line {number}: {error}"
            else:
                yield record["key"], record["score"]
    if damaged:
        logger.warning(f"{damaged} damaged lines of scores are skipped and scored again ({first}); remove them")


def _checksum(key: str, score: float) -> str:
    return f"{zlib.crc32(f'{key} {score!r}'.encode()):08x}"


def _warn_of_change(folder: Path, name: str, use: LastUse) -> None:
    path = folder / "last.json"
    last: dict = {}
    with contextlib.suppress(OSError, ValueError):  # none yet; a damaged one is replaced
        last = decode(path.read_bytes(), LastUse)
    if last == use:
        return
    if last:
        named = [f"{one['signature']}, fingerprint {one['fingerprint'][:12]}" for one in (last, use)]
        logger.warning(f"{name}: other weights or settings than last time under this name ({named[0]}; now {named[1]})")
    with contextlib.suppress(OSError):  # MetricScores says that nothing can be kept
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"last-{secrets.token_hex(8)}.json")
        try:
            temporary.write_text(to_line(use), encoding="utf-8", errors="replace")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def file_name(text: str) -> str:
    """`text` as the name of a file or folder, another one for each text."""
    if re.fullmatch(r"\w[\w.-]{0,79}", text, re.ASCII):
        return text
    return f"{re.sub(r'[^a-zA-Z0-9]+', '-', text)[-40:]}-{key_of(text)[:12]}".lstrip("-")


def keys_of(segments: Iterable[tuple[str | None, ...]], src: str, tgt: str) -> list[str]:
    return [key_of(src, tgt, *segment) for segment in segments]
