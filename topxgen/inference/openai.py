"""OpenAI's API, and any compatible server (`base_url`): vLLM's, llama.cpp's, another provider's."""

import asyncio
import contextlib
import re
from collections.abc import Callable, Coroutine
from urllib.parse import urlsplit

from topxgen.common.errors import UsageError
from topxgen.inference import NEUTRAL, ModelSettings, Request, SamplingSettings
from topxgen.inference.api import NO_KEY, ParsedResponse, RemoteSampler, text_of, token_count
from topxgen.inference.api_errors import MalformedResponse
from topxgen.inference.http import http_client
from topxgen.inference.tokenizer import TAIL_TOKENS
from topxgen.text.thoughts import begun_in

MAX_STOP_STRINGS = 4  # OpenAI's limit
REASONING = ("reasoning_content", "reasoning")  # fields of messages from servers that separate thoughts
MAX_WAIT, MAX_WAIT_FOR_LIST = 30.0, 5.0  # seconds
# Reasons of other servers for the end of an answer: DeepSeek's, GLM's, Mistral's, OpenRouter's, vLLM's, those of Gemini and Bedrock.
BROKEN = ("error", "abort", "network_error", "insufficient_system_resource", "timeout", "cancelled", "failed")
CUT = (
    "length",
    "limit",
    "truncated",
    "max_length",
    "model_length",
    "token_limit",
    "max_tokens",
    "max_output_tokens",
    "model_context_window_exceeded",
)
# The text is what comes before a call; none was offered.
UNFINISHED = ("tool_calls", "tool_use", "function_call", "pause_turn")
FILTERED = re.compile(
    r"content.?filter|safety|recitation|prohibited|block|spii|sensitive|guardrail|refusal|toxic|moderat|policy|inspection",
    re.I,
)
NOT_THERE = (502, 503, 504)  # of proxies before a server that starts
PENALTIES = ("presence_penalty", "frequency_penalty")  # which OpenAI's client knows


class OpenAISampler(RemoteSampler):
    package = "openai"
    provider = "OpenAI"
    key_variables = ("OPENAI_API_KEY",)
    url_variable = "OPENAI_BASE_URL"
    chat_only = False

    def _connect(self) -> None:
        import openai

        self._is_openai = self._is_openai_url(self._url)
        # vLLM's server takes what a request leaves out from the model's generation_config.json, llama.cpp's has defaults of
        # its own.
        self._sends_neutral = None if self._is_openai else True
        self._separates_thoughts = self._gives_several = False
        self._asked: dict[str, asyncio.Future] = {}  # what the server was asked once
        if not self._is_openai:
            self.provider = f"the server at {urlsplit(self._url).netloc}"
        http = http_client(openai.DefaultAsyncHttpxClient)
        self._client = openai.AsyncOpenAI(
            api_key=self._key, base_url=self._url, max_retries=0, timeout=None, http_client=http
        )
        self._connection_errors = (openai.APIConnectionError,)
        self._end_tokens: list[int] | None = [] if self._is_openai else None
        if not self._is_openai:
            self._loop.run(self._find_end_tokens_now())

    @classmethod
    def _find_key(cls, settings: ModelSettings) -> str:
        try:
            return super()._find_key(settings)
        except UsageError:
            if settings.api_key or cls._find_url(settings) is None:
                raise
            return NO_KEY

    @staticmethod
    def _is_openai_url(url: str | None) -> bool:
        """Whether `url` is OpenAI's own server."""
        return url is None or urlsplit(url).hostname == "api.openai.com"

    @classmethod
    def check_sampling(cls, sampling: SamplingSettings, settings: ModelSettings) -> None:
        super().check_sampling(sampling, settings)
        if sampling.repetition_penalty != 1.0 and cls._is_openai_url(cls._find_url(settings)):
            raise UsageError(
                f"--repetition_penalty {sampling.repetition_penalty}: OpenAI's API has no such parameter; pass 1.0, or "
                "the --base_url of a server that has it"
            )

    @classmethod
    def decoding(cls, settings: ModelSettings) -> dict:
        return {} if cls._is_openai_url(cls._find_url(settings)) else dict(NEUTRAL)

    def _call(self, request: Request, settings: SamplingSettings):
        chat = not isinstance(request.prompt, str)
        limit = "max_completion_tokens" if chat and self._is_openai else "max_tokens"
        options = {"model": self._settings.model_name_or_path, limit: settings.max_new_tokens, "seed": request.seed}
        # OpenAI's reasoning models reject both, even at their defaults; other servers have other defaults (vLLM takes
        # the model's).
        if (settings.temperature != 1.0 or not self._is_openai) and not self._temperature_refused:
            options["temperature"] = settings.temperature
        if settings.top_p < 1.0 or not self._is_openai:
            options["top_p"] = settings.top_p
        if self._n(settings) > 1:
            options["n"] = self._n(settings)
        if settings.stop:
            options["stop"] = list(settings.stop[: MAX_STOP_STRINGS if self._is_openai else None])
        if self._sends_neutral:
            options |= {name: NEUTRAL[name] for name in PENALTIES}
            others = {name: value for name, value in NEUTRAL.items() if name not in PENALTIES}
            options["extra_body"] = {"repetition_penalty": 1.0, **others}
        if settings.repetition_penalty != 1.0:
            options.setdefault("extra_body", {})["repetition_penalty"] = settings.repetition_penalty
        return self._send(request.prompt, options)

    async def _send(self, prompt: str | list[dict[str, str]], options: dict):
        """A plain prompt is read as in training and by local engines: behind the tokenizer's special tokens, once, and without those
        that it appends (EOS would end the text that is to go on)."""
        if self._end_tokens is None:
            await self._find_end_tokens()
        if self._end_tokens:
            options.setdefault("extra_body", {})["stop_token_ids"] = self._end_tokens
        if not isinstance(prompt, str):
            return await self._client.chat.completions.create(messages=prompt, **options)
        before = after = ""
        if not self._is_openai:
            before, after = await self._once("special tokens", self._ask_for_special_tokens)
        if after or (before and prompt.startswith(before)):
            options.setdefault("extra_body", {})["add_special_tokens"] = False
            prompt = before + prompt.removeprefix(before)
        return await self._client.completions.create(prompt=prompt, **options)

    @staticmethod
    def _n(settings: SamplingSettings) -> int:
        """How many texts to request. Greedy ones are all equal: one is enough."""
        return settings.num_return_sequences if settings.temperature > 0 else 1

    def _read(self, response, settings: SamplingSettings) -> ParsedResponse:
        texts, reasons, refusals = [], [], []
        if error := getattr(response, "error", None):  # OpenRouter's, with status 200
            raise MalformedResponse(f"an error: {self._errors.scrub(str(error))[:300]}")
        for choice in response.choices[: self._n(settings)]:
            chat, reason = hasattr(choice, "message"), choice.finish_reason
            if reason is None or reason.lower() in BROKEN:  # the text ends where the server failed
                raise MalformedResponse(f"finish_reason {reason}")
            if reason.lower() in CUT:
                reason = "length"
            text = text_of(choice.message.content if chat else choice.text)
            refusal = getattr(choice.message, "refusal", None) if chat else None
            self._separates_thoughts |= (
                any(getattr(choice.message, name, None) for name in REASONING) if chat else False
            )
            if FILTERED.search(reason) or refusal:
                refusals.append(text_of(refusal) or "content filter")
            elif reason.lower() in UNFINISHED:
                refusals.append(f"finish_reason {reason}")
            elif not text.strip() and reason == "length":
                refusals.append("no text within --max_new_tokens; reasoning may have used them up")
            elif not text.strip() and (chat or choice.text is None):
                refusals.append("an empty answer")
            else:
                texts.append(text)
                reasons.append(reason)
        if not texts and not refusals:
            raise MalformedResponse("no choices")
        self._gives_several |= len(response.choices) > 1
        if texts and self._n(settings) > 1 and not self._gives_several:
            raise UsageError(
                f"{self.provider} ignores n: it gave 1 of {self._n(settings)} responses to a prompt; pass 1 as --num_return_sequences "
                "(--number_of_candidates), or choose another server"
            )
        usage = response.usage
        prompt_tokens = token_count(usage, "prompt_tokens")
        # xAI and Gemini count thoughts, which they bill, in the total alone.
        new_tokens = max(token_count(usage, "completion_tokens"), token_count(usage, "total_tokens") - prompt_tokens)
        copies = settings.num_return_sequences // self._n(settings)
        return ParsedResponse(
            texts * copies,
            prompt_tokens,
            new_tokens,
            None if texts else f"{self.provider} gave no text: {self._errors.scrub(refusals[0])}",
            # DeepSeek and Kimi name them in other places.
            token_count(getattr(usage, "prompt_tokens_details", None), "cached_tokens")
            or token_count(usage, "prompt_cache_hit_tokens", "cached_tokens"),
            tuple(reasons * copies),
        )

    async def _begun_thoughts(self, prompt: str | list[dict[str, str]]) -> str:
        """vLLM's server tells what its chat template writes; asked once, and only if an answer was cut, maybe in thoughts."""
        if isinstance(prompt, str) or self._is_openai or self._separates_thoughts:
            return await super()._begun_thoughts(prompt) if isinstance(prompt, str) else ""
        return begun_in(await self._once("end of template", lambda: self._ask_for_template(prompt)))

    async def _once(self, what: str, ask: Callable[[], Coroutine]):
        """What the server answers to a question that is asked once."""
        asking = self._asked.get(what)
        if asking is None or asking.cancelled():
            asking = self._asked[what] = asyncio.ensure_future(ask())
            self._loop.tasks.add(asking)
            asking.add_done_callback(self._loop.tasks.discard)
        return await asyncio.shield(asking)

    async def _ask_for_special_tokens(self) -> tuple[str, str]:
        """What vLLM's server puts before and behind a plain prompt, as text; ("", "") for other servers."""
        body = {"model": self._settings.model_name_or_path, "prompt": "a", "return_token_strs": True}
        with contextlib.suppress(Exception):  # other servers have no such address
            async with asyncio.timeout(MAX_WAIT):
                whole = await self._post("tokenize", body)
                bare = await self._post("tokenize", body | {"add_special_tokens": False})
            ids, size, names = whole["tokens"], len(bare["tokens"]), whole["token_strs"]
            start = next(i for i in range(len(ids)) if ids[i : i + size] == bare["tokens"])
            return "".join(names[:start]), "".join(names[start + size :])
        return "", ""

    async def _find_end_tokens_now(self) -> None:
        """If the server is not there yet, the first requests ask again."""
        try:
            async with asyncio.timeout(MAX_WAIT_FOR_LIST):
                await self._find_end_tokens()
        except UsageError:
            raise
        except Exception:
            return

    async def _find_end_tokens(self) -> None:
        """See served_end_tokens. Raises UsageError for an adapter that does not fit."""
        from topxgen.inference.served_adapters import served_end_tokens

        cards = []
        try:
            cards = list((await self._client.models.list()).data)
        except Exception as error:  # other servers have no list
            if isinstance(error, self._connection_errors) or getattr(error, "status_code", None) in NOT_THERE:
                raise
        if self._end_tokens is None:  # else another of the first requests was faster
            model, trusted = self._settings.model_name_or_path, self._settings.trust_remote_code
            self._end_tokens = served_end_tokens(model, cards, trusted)

    async def _ask_for_template(self, messages: list[dict[str, str]]) -> str:
        model = self._settings.model_name_or_path
        body = {"model": model, "messages": messages, "add_generation_prompt": True}
        with contextlib.suppress(Exception):  # other servers have no such addresses
            async with asyncio.timeout(MAX_WAIT):
                found = await self._post("tokenize", body)
                last = {"model": model, "tokens": found["tokens"][-TAIL_TOKENS:]}
                return (await self._post("detokenize", last))["prompt"]
        return ""

    async def _post(self, name: str, body: dict) -> dict:
        """What an address beside those of OpenAI's API answers."""
        root = self._url.rstrip("/").removesuffix("/v1")
        return await self._client.post(f"{root}/{name}", cast_to=object, body=body)
