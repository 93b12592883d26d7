"""What the API samplers share: requests in flight on one event loop, one retry loop, and the ways a run ends.

A subclass builds the provider's official client and says what a request and its answer look like.
"""

import asyncio
import contextlib
import importlib.util
import logging
import os
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from topxgen.common.errors import APIUnavailable, UsageError
from topxgen.inference import Answer, ModelSettings, Request, SamplingSettings, cut_at_stop
from topxgen.inference.api_errors import MISTAKE, PROMPT, REFUSED, ErrorClassifier, Failure
from topxgen.inference.event_loop import PausableLoop

logger = logging.getLogger(__name__)
MAX_CONCURRENT_REQUESTS = 16


class ParsedResponse(NamedTuple):
    """What an answer holds; `error` says why there is no text in it."""

    texts: list[str]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None


class RemoteSampler:
    """See topxgen.inference for the interface; `retries` counts the retries by their cause."""

    package: str  # of the client, and our --inference_api
    provider: str
    key_variables: tuple[str, ...]
    url_variable: str  # which the client reads, too
    chat_only = True  # neither plain prompts, nor several answers to one, nor a repetition penalty
    base_delay, max_delay = 1.0, 60.0  # seconds between attempts: full jitter below base * 2 ** attempt

    def __init__(self, settings: ModelSettings):
        self.check(settings)
        self.retries: Counter[str] = Counter()
        self._settings = settings
        self._max_concurrent = settings.max_concurrent_requests or MAX_CONCURRENT_REQUESTS
        self._key = self._find_key(settings)
        self._url = self._find_url(settings)
        self._loop = PausableLoop()
        self._succeeded = self._yielded = self._doubtful = 0
        self._greedy_refused = False
        self._not_before = 0.0
        self._connection_errors: tuple[type[Exception], ...] = ()
        self._connect()
        self._failures = ErrorClassifier(
            self.provider,
            key=self._key,
            key_variable=self.key_variables[0],
            address=self._url,
            model=settings.model_name_or_path,
            time_limit=settings.request_timeout,
            connection_errors=self._connection_errors,
        )

    # What a subclass says.

    def _connect(self) -> None:
        """Build the client (its own retries and time limit off) and set `_connection_errors`."""
        raise NotImplementedError

    @classmethod
    def check_sampling(cls, sampling: SamplingSettings, settings: ModelSettings) -> None:
        """Raise UsageError for what the provider cannot do."""
        if sampling.num_beams > 1:
            raise UsageError(
                f"--num_beams {sampling.num_beams}: {cls.provider} has no beam search; pass 1, or choose --inference_api vllm "
                "or hf"
            )
        if cls.chat_only and sampling.num_return_sequences > 1:
            raise UsageError(
                f"--num_return_sequences {sampling.num_return_sequences}: {cls.provider} gives one answer to a prompt; "
                "pass 1, or choose --inference_api openai, vllm or hf"
            )
        if cls.chat_only and sampling.repetition_penalty != 1.0:
            raise UsageError(
                f"--repetition_penalty {sampling.repetition_penalty}: {cls.provider} has no such parameter; pass 1.0"
            )

    def _call(self, request: Request, settings: SamplingSettings) -> Awaitable:
        raise NotImplementedError

    def _read(self, response, settings: SamplingSettings) -> ParsedResponse:
        """Any TypeError, AttributeError, LookupError or ValueError means that the answer is malformed."""
        raise NotImplementedError

    async def _disconnect(self) -> None:
        raise NotImplementedError

    # Before anything runs.

    @classmethod
    def check(cls, settings: ModelSettings) -> None:
        """Raise UsageError when the client, a key or a usable address is missing."""
        if importlib.util.find_spec(cls.package) is None:
            raise UsageError(
                f"--inference_api {cls.package} needs {cls.provider}'s client: run pip install {cls.package}"
            )
        cls._find_url(settings)
        cls._find_key(settings)

    @classmethod
    def _find_key(cls, settings: ModelSettings) -> str:
        variables = [os.environ.get(name) for name in cls.key_variables]
        key = next((key.strip() for key in (settings.api_key, *variables) if key and key.strip()), None)
        if key is None:
            raise UsageError(
                f"--inference_api {cls.package} needs a key: export {cls.key_variables[0]}=... (or pass --api_key, "
                "which other users of the machine can see in its process list)"
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError(
                f"the key for {cls.provider} holds characters that no key has; is it quoted or cut wrongly?"
            )
        return key

    @classmethod
    def _find_url(cls, settings: ModelSettings) -> str | None:
        url = settings.base_url or os.environ.get(cls.url_variable)
        if not url:
            return None
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise UsageError(
                f"--base_url is no http(s) address ({error}); one looks like http://localhost:8000/v1"
            ) from None
        if "@" in (parts.netloc or url):
            raise UsageError(
                f"--base_url holds a user or password; leave them out and export the key as {cls.key_variables[0]}"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"--base_url {url!r} is no http(s) address; one looks like http://localhost:8000/v1")
        return url

    # While it runs.

    def generate(self, next_request: Callable[[], Request | None], settings: SamplingSettings) -> Iterator[Answer]:
        self.check_sampling(settings, self._settings)
        self._end: UsageError | None = None
        self._ending = asyncio.Event()
        loop = self._loop
        try:
            while True:
                while (
                    self._end is None
                    and len(loop.in_flight) < self._max_concurrent
                    and (request := next_request()) is not None
                ):
                    loop.start(self._answer(request, settings))
                if not loop.in_flight:
                    break
                loop.run_until_one_is_done()
                while loop.finished:
                    answer = loop.finished.popleft().result()
                    if answer is not None:
                        self._yielded += 1
                        yield answer
        finally:
            loop.cancel_all()
        if isinstance(self._end, APIUnavailable):
            raise APIUnavailable(
                f"{self._end}; {self._yielded} answers are done, and the same command goes on from there"
            )
        if self._end is not None:
            raise self._end

    async def _answer(self, request: Request, settings: SamplingSettings) -> Answer | None:
        """The answer to a request, however many attempts it takes; None when the run has to end without it."""
        if self.chat_only and isinstance(request.prompt, str):
            self._finish(
                UsageError(
                    f"{self.provider} has chat models only, and the prompts are plain text; pass a --prompt_template for "
                    "chat models (instruct), or choose --inference_api openai, vllm or hf"
                )
            )
        failed, seen = 0, self._succeeded
        while await self._turn():
            greedy = not self._greedy_refused
            call = self._call(request, settings)
            try:
                async with asyncio.timeout(self._settings.request_timeout):
                    response = await call
                reading = self._read(response, settings)
            except Exception as error:
                failure = self._failures.of(error, before_any_answer=not self._succeeded)
            else:
                self._succeeded += 1
                texts = [cut_at_stop(text, settings.stop) for text in reading.texts]
                return Answer(request.id, texts, reading.prompt_tokens, reading.completion_tokens, reading.error)
            if failure.kind == MISTAKE and greedy and self._drop_temperature(failure, settings):
                continue
            if failure.kind == MISTAKE and not failure.certain and await self._others_succeed():
                failure = failure._replace(kind=PROMPT)
            if failure.kind == PROMPT:
                return Answer(request.id, [], error=failure.message)
            if failure.kind in (REFUSED, MISTAKE):
                self._finish((APIUnavailable if failure.kind == REFUSED else UsageError)(failure.message))
            # A rate limit under which others are served is a queue, not a failure of this request.
            if failure.shared and self._succeeded > seen:
                failed, seen = 0, self._succeeded
            if failed == self._settings.max_retries:
                self._finish(APIUnavailable(f"{failure.message} at the last of {failed + 1} attempts at a request"))
            if self._end is None:
                self.retries[failure.kind] += 1
                await self._back_off(failed, failure)
                failed += 1
        return None

    def _drop_temperature(self, failure: Failure, settings: SamplingSettings) -> bool:
        """Whether a request should be sent again without a temperature: models that think take none, not even 0."""
        if settings.temperature > 0 or not re.search(r"temperature|top_p", failure.message):
            return False
        if not self._greedy_refused:
            self._greedy_refused = True
            logger.info(f"{self._settings.model_name_or_path} takes no temperature, so its answers are not greedy")
        return True

    async def _others_succeed(self) -> bool:
        """Wait until another request has succeeded, or all that are in flight are in the same doubt."""
        self._doubtful += 1
        try:
            while self._end is None and not self._succeeded and self._doubtful < len(self._loop.in_flight):
                await asyncio.sleep(0.02)
            return bool(self._succeeded)
        finally:
            self._doubtful -= 1

    def _finish(self, error: UsageError) -> None:
        """Begin to end the run: what is in flight may come home, nothing is tried again."""
        if self._end is None:
            self._end = error
        self._ending.set()

    async def _turn(self) -> bool:
        """Wait while all have to; whether a request may be sent now."""
        while self._end is None and (delay := self._not_before - self._loop.time()) > 0:
            await self._sleep(delay + random.uniform(0, self.base_delay))
        return self._end is None

    async def _back_off(self, failed: int, failure: Failure) -> None:
        delay = random.uniform(0, min(self.max_delay, self.base_delay * 2 ** min(failed, 30)))
        if failure.wait is not None:
            delay = failure.wait + random.uniform(0, self.base_delay)
        if failure.shared:
            self._not_before = max(self._not_before, self._loop.time() + delay)
        else:
            await self._sleep(delay)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but no longer than the run lasts."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()

    def close(self) -> None:
        """Close the connections and the event loop."""
        self._loop.cancel_all()
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._disconnect())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
