"""What the API samplers share: concurrent requests on one event loop, one retry loop, and how a run ends.

A subclass builds the provider's official client and says what a request and its response look like.
"""

import asyncio
import contextlib
import importlib.util
import ipaddress
import logging
import os
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from queue import SimpleQueue
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from topxgen.common import signals
from topxgen.common.console import ONCE
from topxgen.common.errors import APIUnavailable, UsageError
from topxgen.inference import Answer, ModelSettings, Request, SamplingSettings, cut_at_stop
from topxgen.inference.api_errors import MISTAKE, PROMPT, REFUSED, ErrorClassifier, Failure
from topxgen.inference.event_loop import LoopThread
from topxgen.text.thoughts import begun_in, has_marks

logger = logging.getLogger(__name__)
MAX_CONCURRENT_REQUESTS = 16
NO_KEY = "no-key-needed"  # for servers without keys; OpenAI's client requires one
# A shorter key, as local servers take ("test", "EMPTY"), may be a word of a text.
MIN_SECRET, MIN_SECRET_WITH_DIGIT = 20, 8
# Reasons for the end of a response, of all servers: it is complete, or was cut at a limit (then the subclass reads "length").
_KNOWN_REASON = re.compile(
    r"(finish_reason_)?(stop\w*|eos(_\w+)?|end\w*|completed?|finish(ed)?|done|normal|length)", re.IGNORECASE
)
_SECRET = re.compile(r"key|token|secret|pass|pwd|auth|sig|cred|code", re.IGNORECASE)  # in the name of a parameter


class ParsedResponse(NamedTuple):
    """What a response holds, in the order of the fields of an Answer."""

    texts: list[str]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None
    cached_tokens: int = 0
    finish_reasons: tuple[str, ...] = ()


def is_secret(key: str) -> bool:
    """Whether `key` is no word that texts have, by its length."""
    return len(key) >= (MIN_SECRET_WITH_DIGIT if re.search("[0-9]", key) else MIN_SECRET)


class RemoteSampler:
    """See topxgen.inference for the interface; `retries` counts the retries by their cause."""

    package: str  # of the client, and our --inference_api
    provider: str
    key_variables: tuple[str, ...]
    url_variable: str  # which the client reads, too
    chat_only = True  # takes no plain prompts, gives one answer to each, has no repetition penalty
    has_seed = True  # of a request's sampling
    base_delay, max_delay = 1.0, 60.0  # seconds between attempts: full jitter below base * 2 ** attempt

    def __init__(self, settings: ModelSettings):
        self.check(settings)
        self.retries: Counter[str] = Counter()
        self._unknown_reasons: Counter[str] = Counter()
        self._settings = settings
        self._max_concurrent = settings.max_concurrent_requests or MAX_CONCURRENT_REQUESTS
        self._key = self._find_key(settings)
        self._url = self._find_url(settings)
        self._loop = LoopThread()
        self._succeeded = self._yielded = self._doubtful = 0
        self._temperature_refused = False
        self._sends_neutral: bool | None = None  # whether to send NEUTRAL, to servers that may not know it
        self._not_before = 0.0
        self._connection_errors: tuple[type[Exception], ...] = ()
        self._connect()
        self._errors = ErrorClassifier(
            self.provider,
            key=self._key,
            key_variable=self.key_variables[0],
            address=self._url and re.split("[?#]", self._url)[0],  # a key may follow
            model=settings.model_name_or_path,
            time_limit=settings.request_timeout,
            connection_errors=self._connection_errors,
        )

    # What a subclass provides

    def _connect(self) -> None:
        """Build the client (its own retries and time limit off) and set `_connection_errors`."""
        raise NotImplementedError

    @classmethod
    def check_sampling(cls, sampling: SamplingSettings, settings: ModelSettings) -> None:
        """Raise UsageError for what the provider cannot do."""
        refused = {"num_beams": "has no beam search; pass 1, or choose --inference_api vllm or hf"}
        if cls.chat_only:
            others = "gives one answer to a prompt; pass 1, or choose --inference_api openai, vllm or hf"
            refused |= {"num_return_sequences": others, "repetition_penalty": "has no such parameter; pass 1.0"}
        for name, why in refused.items():
            if (value := getattr(sampling, name)) != 1:
                raise UsageError(f"--{name} {value}: {cls.provider} {why}")

    @classmethod
    def decoding(cls, settings: ModelSettings) -> dict:
        """The values of NEUTRAL that are sent."""
        return {}

    def _call(self, request: Request, settings: SamplingSettings) -> Awaitable:
        raise NotImplementedError

    def _read(self, response, settings: SamplingSettings) -> ParsedResponse:
        """Any TypeError, AttributeError, LookupError or ValueError means that the response is malformed."""
        raise NotImplementedError

    async def _disconnect(self) -> None:
        await self._client.close()

    # Checks before anything runs

    @classmethod
    def check(cls, settings: ModelSettings) -> None:
        """Raise UsageError if the client, a key or a valid address is missing."""
        if importlib.util.find_spec(cls.package) is None:
            raise UsageError(
                f"--inference_api {cls.package} needs {cls.provider}'s client: run pip install {cls.package}"
            )
        url, key = urlsplit(cls._find_url(settings) or ""), cls._find_key(settings)
        if url.scheme == "http" and key != NO_KEY and not _is_this_machine(url.hostname):
            logger.warning(
                f"the API key is sent to http://{url.netloc} unencrypted: pass an https address, or unset "
                f"{cls.key_variables[0]} if the server needs no key",
                extra=ONCE,
            )

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
                f"the API key for {cls.provider} has characters that no key has; check for quotation marks or spaces"
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
                f"--base_url is not an http(s) address ({error}); an example is http://localhost:8000/v1"
            ) from None
        if "@" in (parts.netloc or url):
            raise UsageError(
                f"--base_url contains a user name or password; remove them and export the key as {cls.key_variables[0]}"
            )
        parameters = re.findall(r"([^/&;?#=]+)=", unquote(url))
        if secrets := [name for name in parameters if _SECRET.search(name)]:
            raise UsageError(
                f"--base_url contains a key ({secrets[0]}=…), which would be recorded with the results; remove it and export the "
                f"key as {cls.key_variables[0]}"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            shown = re.split("[?;#]", url)[0]
            raise UsageError(f"--base_url {shown!r} is not an http(s) address; an example is http://localhost:8000/v1")
        return url

    # The run

    def generate(self, next_request: Callable[[], Request | None], settings: SamplingSettings) -> Iterator[Answer]:
        self.check_sampling(settings, self._settings)
        self._end: UsageError | None = None
        self._ending = asyncio.Event()
        done: SimpleQueue[Answer | Exception | None] = SimpleQueue()
        with signals.noting_interrupts(lambda: done.put(None)) as interrupted:
            yield from self._answers(next_request, settings, done, interrupted)
        if isinstance(self._end, APIUnavailable):
            raise APIUnavailable(f"{self._end}; {self._yielded} responses are saved: re-run the same command to resume")
        if self._end is not None:
            raise self._end

    def _answers(
        self,
        next_request: Callable[[], Request | None],
        settings: SamplingSettings,
        done: SimpleQueue,
        interrupted: Collection,
    ) -> Iterator[Answer]:
        in_flight = 0
        try:
            while True:
                while (
                    not (self._ending.is_set() or interrupted)
                    and in_flight < self._max_concurrent
                    and (request := next_request()) is not None
                ):
                    in_flight += 1
                    self._loop.start(self._put_answer, request, settings, done)
                if not in_flight:
                    break
                answer = done.get()
                in_flight -= 1
                yield from self._unless_failed(answer)
                if interrupted:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            self._loop.cancel_tasks()
            while not done.empty():  # these are paid for
                yield from self._unless_failed(done.get())
            raise
        finally:
            self._loop.cancel_tasks()

    def finish(self) -> None:
        """Send nothing more, no second attempts either: `generate` yields the answers in flight, which are paid for, and ends."""
        self._loop.start(self._stop_sending)

    async def _stop_sending(self) -> None:
        self._finish(None)

    def _unless_failed(self, answer: Answer | Exception | None) -> Iterator[Answer]:
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            self._yielded += 1
            yield answer

    async def _put_answer(self, request: Request, settings: SamplingSettings, done: SimpleQueue) -> None:
        try:
            done.put(await self._answer(request, settings))
        except Exception as error:  # a bug, which the caller's thread raises
            done.put(error)

    async def _answer(self, request: Request, settings: SamplingSettings) -> Answer | None:
        """The answer to a request, after as many attempts as it takes; None if the run ends without it."""
        if self.chat_only and isinstance(request.prompt, str):
            self._finish(
                UsageError(
                    f"{self.provider} has chat models only, but the prompts are plain text; pass a --prompt_template for "
                    "chat models (instruct), or choose --inference_api openai, vllm or hf"
                )
            )
        failures, seen = 0, self._succeeded
        while await self._turn():
            sent_temperature, sent_neutral = not self._temperature_refused, self._sends_neutral
            call = self._call(request, settings)
            try:
                async with asyncio.timeout(self._settings.request_timeout):
                    response = await call
                parsed = _checked(self._read(response, settings))
            except UsageError as error:  # found out with the first request
                self._finish(error)
                continue
            except Exception as error:
                failure = self._errors.classify(error, before_any_answer=not self._succeeded)
            else:
                self._succeeded += 1
                texts, reasons = await self._texts_of(parsed, request, settings)
                defaults = None if self._sends_neutral is None else not sent_neutral
                return Answer(request.id, texts, *parsed[1:-1], reasons, defaults, own_temperature=not sent_temperature)
            if failure.kind == MISTAKE and sent_temperature and self._drop_temperature(failure, settings):
                continue
            if failure.kind == MISTAKE and sent_neutral and self._drop_neutral(failure, settings):
                continue
            if failure.kind == MISTAKE and not failure.certain and await self._others_succeed():
                failure = failure._replace(kind=PROMPT)
            if failure.kind == PROMPT:
                return Answer(request.id, [], error=failure.message)
            if failure.kind in (REFUSED, MISTAKE):
                self._finish((APIUnavailable if failure.kind == REFUSED else UsageError)(failure.message))
            # A rate limit under which others are served is a queue, not a failure of this request.
            if failure.shared and self._succeeded > seen:
                failures, seen = 0, self._succeeded
            if failures == self._settings.max_retries:
                self._finish(APIUnavailable(f"{failure.message}; gave up after {failures + 1} attempts"))
            if not self._ending.is_set():
                self.retries[failure.kind] += 1
                await self._back_off(failures, failure)
                failures += 1
        return None

    async def _texts_of(
        self, parsed: ParsedResponse, request: Request, settings: SamplingSettings
    ) -> tuple[list[str], tuple[str, ...]]:
        """The texts of a response up to their stop strings, without our key, and why each ended."""
        texts = [cut_at_stop(text, settings.stop) for text in parsed.texts]
        endings = zip(texts, parsed.texts, parsed.finish_reasons, strict=True)
        reasons = [self._without_key(reason if text == whole else "stop") for text, whole, reason in endings]
        self._note_unknown(reasons)
        cut = "length" in parsed.finish_reasons and not any(map(has_marks, parsed.texts))
        begun = await self._begun_thoughts(request.prompt) if cut or isinstance(request.prompt, str) else ""
        return [begun + self._without_key(text) for text in texts], tuple(reasons)

    async def _begun_thoughts(self, prompt: str | list[dict[str, str]]) -> str:
        """The mark with which a prompt, as the model reads it, begins thoughts."""
        return begun_in(prompt) if isinstance(prompt, str) else ""

    def _note_unknown(self, reasons: Collection[str]) -> None:
        for reason in reasons:
            if _KNOWN_REASON.fullmatch(reason):
                continue
            self._unknown_reasons[reason] += 1
            if self._unknown_reasons[reason] == 1:
                logger.warning(
                    f"a response of {self._settings.model_name_or_path} has the finish_reason {reason!r}, which is "
                    "unknown here: it counts as complete; its record in the file of responses has the reason"
                )

    def _without_key(self, text: str) -> str:
        """`text` without our key: a server may repeat the headers of a request."""
        return text.replace(self._key, "[key]") if is_secret(self._key) else text

    def _drop_temperature(self, failure: Failure, settings: SamplingSettings) -> bool:
        """Whether to send a request again without a temperature: reasoning models accept none, not even 0."""
        if settings.temperature > 0 or not re.search(r"temperature|top_p", failure.message):
            return False
        if not self._temperature_refused:
            self._temperature_refused = True
            logger.warning(f"{self._settings.model_name_or_path} takes no temperature, so its responses are not greedy")
        return True

    def _drop_neutral(self, failure: Failure, settings: SamplingSettings) -> bool:
        """Whether to send a request again without the neutral values that only some servers know."""
        named = re.search(r"top_k|min_p|(presence|frequency|repetition)_penalty", failure.message)
        if not named or (named[0] == "repetition_penalty" and settings.repetition_penalty != 1.0):
            return False
        if self._sends_neutral:
            self._sends_neutral = False
            logger.info(f"{self.provider} takes no {named[0]}: its own defaults hold for what the flags do not set")
        return True

    async def _others_succeed(self) -> bool:
        """Wait until another request has succeeded, or all in flight wait for that."""
        self._doubtful += 1
        try:
            while not self._ending.is_set() and not self._succeeded and self._doubtful < len(self._loop.tasks):
                await asyncio.sleep(0.02)
            return bool(self._succeeded)
        finally:
            self._doubtful -= 1

    def _finish(self, error: UsageError | None) -> None:
        """Stop the run: let in-flight requests finish, send no new ones."""
        if not self._ending.is_set():
            self._end = error
        self._ending.set()

    async def _turn(self) -> bool:
        """Wait out a shared back-off; whether a request may be sent now."""
        while not self._ending.is_set() and (delay := self._not_before - time.monotonic()) > 0:
            await self._sleep(delay + random.uniform(0, self.base_delay))
        return not self._ending.is_set()

    async def _back_off(self, failures: int, failure: Failure) -> None:
        delay = random.uniform(0, min(self.max_delay, self.base_delay * 2 ** min(failures, 30)))
        if failure.wait is not None:
            delay = failure.wait + random.uniform(0, self.base_delay)
        if failure.shared:
            self._not_before = max(self._not_before, time.monotonic() + delay)
        else:
            await self._sleep(delay)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the run."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()

    def close(self) -> None:
        """Close the connections and the event loop."""
        for reason, count in self._unknown_reasons.items():
            logger.warning(f"{count} responses with the unknown finish_reason {reason!r} count as complete")
        self._loop.close(self._disconnect)


def _is_this_machine(host: str | None) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host or "").is_loopback
    return host == "localhost" or str(host).endswith(".localhost")


def text_of(content) -> str:
    """The text of a message: a string, or the text parts of a list (others are thoughts). Raises TypeError for anything else."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise TypeError(f"content is {type(content).__name__}, not text")
    return "".join(_part(part) for part in content)


def _part(part) -> str:
    if isinstance(part, str):
        return part
    fields = part if isinstance(part, dict) else vars(part)
    if fields.get("type", "text") not in ("text", "output_text"):
        return ""
    if not isinstance(fields["text"], str):
        raise TypeError(f"text is {type(fields['text']).__name__}, not text")
    return fields["text"]


def token_count(usage, *names: str) -> int:
    """The first of these counts that `usage` has; 0 for what is none."""
    for name in names:
        value = usage.get(name) if isinstance(usage, dict) else getattr(usage, name, None)
        if isinstance(value, (int, float)) and 0 <= value < 1 << 53:
            return int(value)
    return 0


def _checked(parsed: ParsedResponse) -> ParsedResponse:
    """Raises TypeError unless texts and reasons are strings: nothing else may reach the disk. No more tokens are cached than a prompt
    has: such a response would cost less than nothing."""
    for value in (*parsed.texts, *parsed.finish_reasons):
        if not isinstance(value, str):
            raise TypeError(f"{type(value).__name__} {str(value)[:60]!r} instead of text")
    return parsed._replace(cached_tokens=min(parsed.cached_tokens, parsed.prompt_tokens))
