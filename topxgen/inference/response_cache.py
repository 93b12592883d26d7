"""Responses on disk, by request id: a resumed run does not ask for them (or pay for them) again."""

import hashlib
import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict

from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_placed_jsonl
from topxgen.common.schemas import decode
from topxgen.inference import NEUTRAL, Answer, Request, SamplingSettings
from topxgen.inference.costs import TokenCount

SYNC_RECORDS, SYNC_S = 256, 1.0
RESPONSE_KEYS = ("id", "texts", "prompt_tokens", "completion_tokens")
# Of an Answer, written if they say something.
MORE_KEYS = ("error", "cached_tokens", "finish_reasons", "log_probabilities", "own_temperature")


class ResponseRecord(TypedDict, total=False):
    """A response of a model, or one that failed, with the fields of its Answer."""

    id: str
    texts: list[str]
    answers: list[str]  # the name of texts in {Language}_answers.jsonl of older versions
    prompt_tokens: TokenCount
    completion_tokens: TokenCount
    cached_tokens: TokenCount
    error: str | None
    finish_reasons: list[str]
    log_probabilities: list[float]
    server_defaults: bool
    own_temperature: bool
    max_new_tokens: int | None


def response_record(answer: Answer) -> dict:
    more = {key: value for key in MORE_KEYS if (value := getattr(answer, key))}
    if answer.server_defaults is not None and answer.texts:
        more["server_defaults"] = answer.server_defaults
    return {key: getattr(answer, key) for key in RESPONSE_KEYS} | more


def request_id(prompt: str | list) -> str:
    """An id that is the same in each run."""
    return hashlib.sha256(json.dumps(prompt, ensure_ascii=False).encode("utf-8", "replace")).hexdigest()[:24]


def read_responses(path: Path) -> Iterator[dict]:
    """The responses in a cache, of older versions too. Raises UsageError for a record that does not fit."""
    return (record for _, record in _placed_records(path, ResponseRecord))


def _placed_records(path: Path, schema: type) -> Iterator[tuple[tuple[int, int], dict]]:
    """Each with its offset and size in the file."""
    remedy = "remove the line: it is asked for again"
    for number, offset, size, record in read_placed_jsonl(path, schema, remedy):
        record = _as_today(record)
        if schema is ResponseRecord and (missing := [key for key in RESPONSE_KEYS if key not in record]):
            raise UsageError(f"{path}, record {number} has no {missing[0]!r}; remove that line")
        yield (offset, size), record


def _as_today(record: dict) -> dict:
    if "answers" in record:
        record["texts"] = record.pop("answers")
    return record


class ResponseCache:
    """Records by id in an append-only JSONL file; the last one of an id counts. Memory has their places in the file alone.

    A record is one line in one write, so that a killed run leaves whole records and at most one torn line. A power cut costs
    the records of the last SYNC_S seconds in which there were any, at most SYNC_RECORDS, or with `fsync_each` none.
    """

    def __init__(self, path: Path, *, fsync_each: bool = False, schema: type = ResponseRecord):
        """`fsync_each`: as paid responses should be. See read_responses for errors."""
        self._path, self._file, self._fsync_each, self._schema = path, Appender(path), fsync_each, schema
        self._server_defaults: bool | None = None
        self._places: dict[str, tuple[int, int]] = {}  # by id: offset, size
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._end = path.stat().st_size
        self._unsynced, self._synced = 0, time.monotonic()
        for place, record in _placed_records(path, schema):
            self._places[record["id"]] = place
            if self._server_defaults is None:
                self._server_defaults = record.get("server_defaults")

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._places

    def get(self, request_id: str) -> dict | None:
        return self._read(request_id) if request_id in self._places else None

    def values(self) -> Iterator[dict]:
        return map(self._read, self._places)

    def _read(self, request_id: str) -> dict:
        offset, size = self._places[request_id]
        try:
            record = decode(os.pread(self._descriptor, size, offset), self._schema)
            if record["id"] == request_id:
                return _as_today(record)
        except ValueError:
            pass
        raise UsageError(f"{self._path} was changed while this run was reading it; re-run the same command")

    def add(self, record: dict) -> None:
        """Raises UsageError if it was decoded in another way than those before."""
        defaults = record.get("server_defaults")
        if self._server_defaults is not None and defaults not in (None, self._server_defaults):
            names = "the neutral values", "its own defaults"
            before, now = reversed(names) if self._server_defaults else names
            raise UsageError(
                f"{self._path} holds responses for which the server used {before} of {', '.join(NEUTRAL)}; now it uses {now}: go "
                "on with the earlier server, or pass another --output_dir"
            )
        self._server_defaults = self._server_defaults if defaults is None else defaults
        size = self._file.write(record)
        self._places[record["id"]] = (self._end, size)
        self._end += size
        self._unsynced += 1
        if self._fsync_each or self._unsynced >= SYNC_RECORDS or time.monotonic() - self._synced >= SYNC_S:
            self.sync()

    def forget(self, has_failed: Callable[[dict], bool]) -> set[str]:
        """Take the records that have failed for missing, so that they are asked for again; their ids."""
        failed = {record["id"] for record in self.values() if has_failed(record)}
        for key in failed:
            del self._places[key]
        return failed

    def sync(self) -> None:
        self._file.sync()
        self._unsynced, self._synced = 0, time.monotonic()

    def close(self) -> None:
        os.close(self._descriptor)
        self._file.close()


class CachedSampler:
    """A sampler that saves each response of another before the next request, and returns saved ones without asking.

    The request id alone identifies a request (`request_id` makes one from a prompt).
    """

    def __init__(self, sampler, path: Path, fsync_each: bool = True):
        """See ResponseCache."""
        self._sampler = sampler
        self._cache = ResponseCache(path, fsync_each=fsync_each)
        self.cut: Counter[int] = Counter()  # responses that ended at their limit of new tokens, by the limit
        self.own_temperature = 0  # responses of a model that refuses the one of the settings
        for record in self._cache.values():
            self._count(record)

    def generate(self, next_request: Callable[[], Request | None], settings: SamplingSettings) -> Iterator[Answer]:
        saved: deque[Answer] = deque()

        def next_unsaved() -> Request | None:
            while (request := next_request()) is not None:
                record = self._cache.get(request.id)
                if record is None or record.get("error"):  # a request that failed is sent again: its cause may be gone
                    return request
                saved.append(_answer(record))
            return None

        for answer in self._sampler.generate(next_unsaved, settings):
            record = response_record(answer) | {"max_new_tokens": settings.max_new_tokens}
            self._cache.add(record)
            self._count(record)
            yield answer
            while saved:
                yield saved.popleft()
        yield from saved

    def _count(self, record: dict) -> None:
        self.own_temperature += record.get("own_temperature", False)
        if record.get("max_new_tokens") and "length" in _answer(record).finish_reasons:
            self.cut[record["max_new_tokens"]] += 1

    @property
    def retries(self):
        return getattr(self._sampler, "retries", None)

    def close_file(self) -> None:
        """Close the cache alone: its sampler goes on for others."""
        self._cache.close()

    def close(self) -> None:
        self.close_file()
        self._sampler.close()


def _answer(record: dict) -> Answer:
    texts, limit, reasons = record["texts"], record.get("max_new_tokens"), record.get("finish_reasons")
    if reasons is None:  # of an older version
        cut = limit and record["completion_tokens"] >= limit * len(texts)
        reasons = ["length" if cut else "stop"] * len(texts)
    more = dict(finish_reasons=tuple(reasons), log_probabilities=tuple(record.get("log_probabilities", ())))
    return Answer(**{key: record[key] for key in RESPONSE_KEYS}, **more)
