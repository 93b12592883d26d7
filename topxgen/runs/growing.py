"""Sums over the lines of files that runs append to: only lines added since the last look are read."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

BLOCK_BYTES = 1 << 22
RECENT = 50  # rejects of which the reasons are kept in order


class _Response(msgspec.Struct):
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    cached_tokens: int | None = 0
    error: str | None = None


class _Reject(msgspec.Struct):
    reason: str


class _PairRejects(msgspec.Struct):
    rejected: list[_Reject]


class _Pairs(msgspec.Struct):
    propositions: list[msgspec.Raw]
    scores: list[msgspec.Raw] | None = None


class _Scores(msgspec.Struct):
    scores: list[msgspec.Raw]


class _LogEntry(msgspec.Struct):
    step: int = 0
    loss: float | None = None
    eval_loss: float | None = None
    tokens_per_second: float | None = None


def _response(record: _Response, tally: "Tally") -> None:
    tally.totals.update(failed=1) if record.error else tally.totals.update(responses=1)
    for name in ("prompt_tokens", "completion_tokens", "cached_tokens"):
        tally.totals[name] += getattr(record, name) or 0


def _rejected(reasons: Iterable[str], tally: "Tally") -> None:
    for reason in reasons:
        code = reason.partition(" ")[0]
        tally.reasons[code] += 1
        tally.recent.append(code)


def _pairs(record: _Pairs, tally: "Tally") -> None:
    tally.totals["pairs"] += len(record.propositions)
    tally.totals["scored"] += sum(bytes(score) != b"null" for score in record.scores or ())


def _log_entry(record: _LogEntry, tally: "Tally") -> None:
    values = {name: value for name in record.__struct_fields__ if (value := getattr(record, name)) is not None}
    tally.last |= values


# By kind of file: what is read of a line, and how it is counted. Of `lines` nothing is.
KINDS: dict[str, tuple[type, Callable] | None] = {
    "lines": None,
    "responses": (_Response, _response),
    "rejects": (_Reject, lambda record, tally: _rejected([record.reason], tally)),
    "pair_rejects": (_PairRejects, lambda record, tally: _rejected((r.reason for r in record.rejected), tally)),
    "pairs": (_Pairs, _pairs),
    "scores": (_Scores, lambda record, tally: tally.totals.update(scored=len(record.scores))),
    "log": (_LogEntry, _log_entry),
}


class Tally:
    """Counts of the whole lines of a file. One that became shorter, or another file, is read from its beginning.

    `totals`: `lines`, and by kind `responses`, `failed` and tokens, or `pairs` and `scored`; `unreadable` lines are lines, too.
    `reasons` and `recent`: of rejects. `last`: the latest values of a training log. `modified`: when something was last written.
    """

    def __init__(self, path: Path, kind: str):
        self.path, self._kind = path, KINDS[kind]
        self._decode = self._kind and msgspec.json.Decoder(self._kind[0]).decode
        self._forget(None)

    def _forget(self, identity: tuple[int, int] | None) -> None:
        self._identity, self._offset = identity, 0
        self.totals: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.recent: deque[str] = deque(maxlen=RECENT)
        self.last: dict[str, float] = {}
        self.modified: float | None = None

    @property
    def lines(self) -> int:
        return self.totals["lines"]

    def read(self) -> "Tally":
        """Count what was added. A file that is not there (any more) has nothing."""
        try:
            with open(self.path, "rb", opener=_only_files) as file:
                status = os.fstat(file.fileno())
                identity = status.st_dev, status.st_ino
                if identity != self._identity or status.st_size < self._offset:
                    self._forget(identity)
                self.modified = status.st_mtime
                file.seek(self._offset)
                rest = b""
                while block := file.read(BLOCK_BYTES):
                    whole, end, rest = (rest + block).rpartition(b"\n")
                    if end:
                        self._count(whole)
                        self._offset += len(whole) + 1
        except OSError:
            self._forget(None)
        return self

    def _count(self, lines: bytes) -> None:
        if self._kind is None:
            self.totals["lines"] += lines.count(b"\n") + 1
            return
        decode, (_, count) = self._decode, self._kind
        for line in lines.split(b"\n"):
            if not line:
                continue
            self.totals["lines"] += 1
            try:
                count(decode(line), self)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self.totals["unreadable"] += 1


def _only_files(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a named pipe must not stop the look
