"""Anthropic's API."""

from topxgen.common.errors import UsageError
from topxgen.inference import ModelSettings, Request, SamplingSettings
from topxgen.inference.api import ParsedResponse, RemoteSampler
from topxgen.inference.api_errors import MalformedResponse

# The last version of the API that accepts temperature and top_p (models up to Claude 4.6 do); clients from 2.0 on request
# a later one, which rejects even their default values.
SAMPLING_VERSION = "2023-06-01"


class AnthropicSampler(RemoteSampler):
    package = "anthropic"
    provider = "Anthropic"
    key_variables = ("ANTHROPIC_API_KEY",)
    url_variable = "ANTHROPIC_BASE_URL"

    def _connect(self) -> None:
        import anthropic

        self._client = anthropic.AsyncAnthropic(api_key=self._key, base_url=self._url, max_retries=0, timeout=None)
        self._connection_errors = (anthropic.APIConnectionError,)

    @classmethod
    def check_sampling(cls, sampling: SamplingSettings, settings: ModelSettings) -> None:
        super().check_sampling(sampling, settings)
        if sampling.temperature > 1.0:
            raise UsageError(f"--temperature {sampling.temperature}: Anthropic accepts at most 1.0; pass that or less")
        if sampling.temperature != 1.0 and sampling.top_p < 1.0:
            raise UsageError(
                f"--temperature {sampling.temperature} with --top_p {sampling.top_p}: Anthropic's models accept only one "
                "of the two; pass 1.0 for the other"
            )

    def _call(self, request: Request, settings: SamplingSettings):
        options = {"model": self._settings.model_name_or_path, "max_tokens": settings.max_new_tokens}
        options["messages"] = [message for message in request.prompt if message["role"] != "system"]
        system = "\n\n".join(message["content"] for message in request.prompt if message["role"] == "system")
        if system:
            options["system"] = system
        # Blank stop strings are rejected; the caller cuts at them.
        if stop := [text for text in settings.stop if text.strip()]:
            options["stop_sequences"] = stop
        # In the body, because clients from 1.0 on lack these parameters; only if set, because later models reject them.
        sampling = (
            {"temperature": settings.temperature}
            if settings.temperature != 1.0 and not self._temperature_refused
            else {}
        )
        if settings.top_p < 1.0:
            sampling["top_p"] = settings.top_p
        if sampling:
            options["extra_body"] = sampling
            options["extra_headers"] = {"anthropic-version": SAMPLING_VERSION}
        return self._client.messages.create(**options)

    def _read(self, response, settings: SamplingSettings) -> ParsedResponse:
        if response.stop_reason is None:
            raise MalformedResponse("no stop_reason")
        text = "".join(block.text for block in response.content if block.type == "text")
        usage = response.usage
        cached = getattr(usage, "cache_read_input_tokens", 0) or 0
        # Anthropic counts the tokens read from and written to its cache apart from the others.
        written = getattr(usage, "cache_creation_input_tokens", 0) or 0
        tokens = (usage.input_tokens or 0) + cached + written, usage.output_tokens or 0
        if response.stop_reason == "refusal":
            return ParsedResponse([], *tokens, "Anthropic rejected the prompt: stop_reason refusal", cached)
        if not text and response.stop_reason == "max_tokens":
            return ParsedResponse(
                [], *tokens, "Anthropic gave no text within --max_new_tokens; reasoning may have used them up", cached
            )
        return ParsedResponse([text], *tokens, cached_tokens=cached)

    async def _disconnect(self) -> None:
        await self._client.close()
