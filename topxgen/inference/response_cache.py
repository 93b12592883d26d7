"""Finished answers on disk, so that a run that comes back does not ask (or pay) again."""

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_jsonl, repair_tail
from topxgen.inference import Answer, Request, SamplingSettings


def request_id(prompt: str | list) -> str:
    """An id that a prompt keeps from run to run."""
    return hashlib.sha256(json.dumps(prompt, ensure_ascii=False).encode("utf-8", "replace")).hexdigest()[:24]


class Journal:
    """A sampler that writes each answer of another down before the next is asked for, and gives those that are
    there without asking. Requests are told apart by their ids alone (`request_id` makes fitting ones)."""

    def __init__(self, sampler, path: Path, sync_each: bool = True):
        """`sync_each`: each answer has to survive a power cut, as those that were paid for.

        Raises UsageError for a line that is no answer.
        """
        self._sampler, self._sync_each = sampler, sync_each
        repair_tail(path)
        self._known = {}
        self.cut: Counter[int] = Counter()  # answers that ended at their limit of new tokens, by the limit
        for line in read_jsonl(path):
            try:
                answer = Answer(line["id"], line["texts"], line["prompt_tokens"], line["completion_tokens"])
            except KeyError as error:
                raise UsageError(f"{path}: a line has no {error}; remove that line") from None
            # What failed may be asked again: its cause may be gone.
            if not line.get("error"):
                self._known[answer.id] = answer
                self._count(line)
        self._out = Appender(path)

    def generate(self, next_request: Callable[[], Request | None], settings: SamplingSettings) -> Iterator[Answer]:
        known: deque[Answer] = deque()

        def unknown() -> Request | None:
            while (request := next_request()) is not None:
                if request.id not in self._known:
                    return request
                known.append(self._known[request.id])
            return None

        for answer in self._sampler.generate(unknown, settings):
            record = {
                "id": answer.id,
                "texts": answer.texts,
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": answer.completion_tokens,
                "max_new_tokens": settings.max_new_tokens,
                **({"error": answer.error} if answer.error else {}),
            }
            self._out.write(record)
            if self._sync_each:
                self._out.sync()
            self._known[answer.id] = answer
            self._count(record)
            yield answer
            while known:
                yield known.popleft()
        yield from known

    def _count(self, record: dict) -> None:
        limit = record.get("max_new_tokens")
        if limit and record["texts"] and record["completion_tokens"] >= limit * len(record["texts"]):
            self.cut[limit] += 1

    @property
    def retries(self):
        return getattr(self._sampler, "retries", None)

    def close_file(self) -> None:
        """Close the journal alone: its sampler goes on for others."""
        self._out.close()

    def close(self) -> None:
        self.close_file()
        self._sampler.close()
