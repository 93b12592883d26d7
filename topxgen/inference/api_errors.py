"""What an API error means: retry (and when), reject this prompt, or end the run."""

import contextlib
import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_WAIT_S = 3600.0  # a provider that asks for a longer wait ends the run
REFUSED, MISTAKE, PROMPT = "refused", "mistake", "prompt"  # kinds of Failure that are not retried
QUOTA_SPENT = re.compile(
    r"insufficient_quota|billing_|exceeded your current quota|credit balance|billing (hard )?limit|calls / month"
    r"|spend(ing)? limit|usage limits|out of credits|insufficient (credit|balance|funds|quota)",
    re.IGNORECASE,
)
PROMPT_AT_FAULT = re.compile(
    r"context.?(length|window|size|limit)|prompt is too long|too many tokens|request too large|string_above_max_length"
    r"|(input|prompt) token|maximum number of tokens|number of tokens"
    r"|content.?(filter|policy|management)|moderation|flagged|safety system|invalid_prompt|deny.?list",
    re.IGNORECASE,
)
# What Python's errors call the types of JSON.
PYTHON_TYPE = re.compile(r"'?\b(NoneType|dict|list|str|int|float|bool)\b'?( object)?")
JSON_TYPES = {
    "NoneType": "null",
    "list": "list",
    "dict": "object",
    "str": "string",
    "int": "number",
    "float": "number",
    "bool": "boolean",
}


class MalformedResponse(Exception):
    """A response with status 200 whose body is not what the API promises."""


class Redirected(Exception):
    """The server redirects requests to another host, which it names."""


class Failure(NamedTuple):
    """Why an attempt failed. `kind` is REFUSED, MISTAKE, PROMPT, or the name under which its retry is counted."""

    kind: str
    message: str
    wait: float | None = None  # seconds, as the provider asked
    shared: bool = False  # no other request should be sent before that
    certain: bool = False  # a MISTAKE whatever the prompt


@dataclass(frozen=True)
class ErrorClassifier:
    """Classifies the errors of one provider's client."""

    provider: str
    key: str = field(repr=False)
    key_variable: str
    address: str | None
    model: str
    time_limit: float
    connection_errors: tuple[type[Exception], ...]

    def classify(self, error: Exception, before_any_answer: bool) -> Failure:
        """What an exception of the client means. Raises `error` again if it can only be a bug."""
        if isinstance(error.__cause__, (MalformedResponse, Redirected)):  # a client has wrapped it
            error = error.__cause__
        status = getattr(error, "status_code", None)
        if isinstance(error, Redirected):
            where = self.address or self.provider
            message = (
                f"{where} redirects to {self.scrub(str(error))}: prompts are sent to no other host than --base_url"
            )
            return Failure(MISTAKE, f"{message}; pass that address if you trust it", certain=True)
        if isinstance(error, TimeoutError):
            message = f"{self.provider} gave no response within --request_timeout {self.time_limit:g} s"
            return Failure("time limit", message)
        if isinstance(error, UnicodeEncodeError):
            return Failure(PROMPT, f"the prompt is not valid Unicode ({error.reason})")
        if isinstance(error, self.connection_errors):
            cause = error.__cause__ or error
            detail = self.scrub(f"{type(cause).__name__}: {cause}")
            return Failure("connection", f"the connection to {self.address or self.provider} failed ({detail})")
        if status is None or status < 400:
            malformed = (
                MalformedResponse, TypeError, AttributeError, LookupError, ValueError, ArithmeticError, RecursionError
            )  # fmt: skip
            if status is None and not isinstance(error, malformed):
                raise error
            in_json = PYTHON_TYPE.sub(lambda match: JSON_TYPES[match[1]], str(error))
            detail = self.scrub(str(getattr(error, "body", None) or in_json) or type(error).__name__)
            return Failure("malformed answer", f"{self.provider} gave a malformed response ({detail})")
        headers = getattr(error, "headers", None) or getattr(getattr(error, "response", None), "headers", {})
        message, code = _message(getattr(error, "body", None))
        return self.classify_status(status, retry_after(headers), message, code, before_any_answer)

    def classify_status(
        self, status: int, wait: float | None, message: str, code: str, before_any_answer: bool
    ) -> Failure:
        detail = f"{self.scrub(message) or 'no reason'!r} (HTTP {status})"
        words = f"{code} {message}"
        # Some providers call a limit per minute "quota", and say when it is over; others "too many tokens".
        temporary = status == 429 and "insufficient_quota" not in words and wait is not None and wait <= MAX_WAIT_S
        if status == 402 or (status < 500 and not temporary and QUOTA_SPENT.search(words)):
            return Failure(REFUSED, f"the quota or credit at {self.provider} is spent: {detail}")
        too_large = status == 429 and "request too large" in words.lower()
        if too_large or (status in (400, 413, 422, 498) and PROMPT_AT_FAULT.search(words)):
            return Failure(PROMPT, f"{self.provider} rejected the prompt: {detail}")
        if status in (401, 403):
            return Failure(REFUSED, f"{self.provider} rejected the API key (see {self.key_variable}): {detail}")
        if status in (408, 409, 425, 429, 499) or status >= 500:
            if wait is not None and wait > MAX_WAIT_S:
                return Failure(REFUSED, f"{self.provider} asks to retry in {wait / 3600:.1f} hours: {detail}")
            kind = "rate limit" if status == 429 else "server error"
            shared = status == 429 or (status in (503, 529) and wait is not None)
            return Failure(kind, f"{self.provider} answered {detail}", wait, shared)
        if status == 404:
            at = f" at {self.address}" if self.address else ""
            return Failure(MISTAKE, f"{self.provider} has no model {self.model!r}{at}: {detail}", certain=True)
        # Before the first response, it is likely that every request would fail alike.
        if before_any_answer:
            is_base = "chat template" in detail  # of vLLM's server
            remedy = "change the setting it names"
            if is_base:
                remedy = "for a base model pass --prompt_style raw (datagen.py: and --prompt_template continuation)"
            return Failure(MISTAKE, f"{self.provider} does not accept such requests: {detail}; {remedy}")
        return Failure(PROMPT, f"{self.provider} rejected the prompt: {detail}")

    def scrub(self, text: str) -> str:
        """A provider's message on one line, without the key."""
        return " ".join(text.replace(self.key, "[key]").split())[:300]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response asks to wait: `retry-after-ms`, or `retry-after` as seconds or a date."""
    headers = {name.lower(): value for name, value in headers.items()}
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with contextlib.suppress(ValueError):
            seconds = float(headers.get(name, "")) / unit
            return max(0.0, seconds) if math.isfinite(seconds) else None
    with contextlib.suppress(ValueError):
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, date.timestamp() - time.time())
    return None


def _message(body) -> tuple[str, str]:
    """The message and code in an error's body, in any of the usual layouts."""
    while isinstance(body, dict) and isinstance(body.get("error"), dict):
        body = body["error"]
    if not isinstance(body, dict):
        return str(body or ""), ""
    message = next((body[key] for key in ("message", "detail", "error") if body.get(key)), "")
    code = f"{body.get('code') or ''} {body.get('type') or ''}"
    return message if isinstance(message, str) else json.dumps(message), code
