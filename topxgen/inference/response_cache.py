"""Responses on disk, by request id: a resumed run does not ask for them (or pay for them) again."""

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict

from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_numbered_jsonl
from topxgen.inference import NEUTRAL, Answer, Request, SamplingSettings

RESPONSE_KEYS = ("id", "texts", "prompt_tokens", "completion_tokens")
MORE_KEYS = (
    "error",
    "cached_tokens",
    "finish_reasons",
    "log_probabilities",
)  # of an Answer, written if they say something


class ResponseRecord(TypedDict, total=False):
    """A response of a model, or one that failed, with the fields of its Answer."""

    id: str
    texts: list[str]
    answers: list[str]  # the name of texts in {Language}_answers.jsonl of older versions
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    error: str | None
    finish_reasons: list[str]
    log_probabilities: list[float]
    server_defaults: bool
    max_new_tokens: int | None


def response_record(answer: Answer) -> dict:
    """An answer as a record."""
    more = {key: value for key in MORE_KEYS if (value := getattr(answer, key))}
    if answer.server_defaults is not None and answer.texts:
        more["server_defaults"] = answer.server_defaults
    return {key: getattr(answer, key) for key in RESPONSE_KEYS} | more


def request_id(prompt: str | list) -> str:
    """An id that is the same in each run."""
    return hashlib.sha256(json.dumps(prompt, ensure_ascii=False).encode("utf-8", "replace")).hexdigest()[:24]


def read_responses(path: Path, schema: type = ResponseRecord) -> Iterator[dict]:
    """The records of a cache, of older versions too. Raises UsageError for one that does not fit `schema`."""
    remedy = "remove the line: it is asked for again"
    for number, record in read_numbered_jsonl(path, schema, remedy):
        if "answers" in record:
            record["texts"] = record.pop("answers")
        if schema is ResponseRecord and (missing := [key for key in RESPONSE_KEYS if key not in record]):
            raise UsageError(f"{path}, record {number} has no {missing[0]!r}; remove that line")
        yield record


class ResponseCache:
    """Records by id in an append-only JSONL file; the last one of an id counts.

    A record is one line in one write, so that a killed run leaves whole records and at most one torn line.
    """

    def __init__(
        self,
        path: Path,
        *,
        fsync_each: bool = False,
        schema: type = ResponseRecord,
        earlier: Path | None = None,
    ):
        """`fsync_each`: each record survives a power cut, as paid responses should; `earlier`: a cache that is only read. See
        read_responses for errors."""
        self._path, self._file, self._fsync_each = path, Appender(path), fsync_each
        paths = [path] if earlier is None else [earlier, path]
        self._records = {record["id"]: record for file in paths for record in read_responses(file, schema)}
        known = (record.get("server_defaults") for record in self._records.values())
        self._server_defaults = next((value for value in known if value is not None), None)

    def __len__(self) -> int:
        return len(self._records)

    def get(self, request_id: str) -> dict | None:
        return self._records.get(request_id)

    def values(self) -> Iterator[dict]:
        return iter(self._records.values())

    def add(self, record: dict) -> None:
        """Raises UsageError if it was decoded in another way than those before."""
        defaults = record.get("server_defaults")
        if self._server_defaults is not None and defaults not in (None, self._server_defaults):
            before, now = (
                ("its own defaults", "the neutral values")
                if self._server_defaults
                else ("the neutral values", "its own defaults")
            )
            raise UsageError(
                f"{self._path} holds responses for which the server used {before} of {', '.join(NEUTRAL)}; now it uses {now}: go "
                "on with the earlier server, or pass another --output_dir"
            )
        self._server_defaults = self._server_defaults if defaults is None else defaults
        self._file.write(record)
        if self._fsync_each:
            self.sync()
        self._records[record["id"]] = record

    def forget(self, has_failed: Callable[[dict], bool]) -> set[str]:
        """Take the records that have failed for missing, so that they are asked for again; their ids."""
        failed = {key for key, record in self._records.items() if has_failed(record)}
        for key in failed:
            del self._records[key]
        return failed

    def sync(self) -> None:
        self._file.sync()

    def close(self) -> None:
        self._file.close()


class CachedSampler:
    """A sampler that saves each response of another before the next request, and returns saved ones without asking.

    The request id alone identifies a request (`request_id` makes one from a prompt).
    """

    def __init__(self, sampler, path: Path, fsync_each: bool = True, earlier: Path | None = None):
        """See ResponseCache."""
        self._sampler = sampler
        self._cache = ResponseCache(path, fsync_each=fsync_each, earlier=earlier)
        self.cut: Counter[int] = Counter()  # responses that ended at their limit of new tokens, by the limit
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
