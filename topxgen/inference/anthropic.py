"""Anthropic's API."""

from topxgen.common.errors import UsageError
from topxgen.inference import ModelSettings, Request, SamplingSettings
from topxgen.inference.api import ParsedResponse, RemoteSampler
from topxgen.inference.api_errors import MalformedResponse

# The last version of the API that takes a temperature or top_p (models up to Claude 4.6 do); clients from 2.0
# on ask for a later one, which refuses both even as they are by default.
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
            raise UsageError(f"--temperature {sampling.temperature}: Anthropic's ends at 1.0; pass at most that")
        if sampling.temperature != 1.0 and sampling.top_p < 1.0:
            raise UsageError(
                f"--temperature {sampling.temperature} with --top_p {sampling.top_p}: Anthropic's models take one of the "
                "two at most; pass 1.0 for the other"
            )

    def _call(self, request: Request, settings: SamplingSettings):
        options = {"model": self._settings.model_name_or_path, "max_tokens": settings.max_new_tokens}
        options["messages"] = [message for message in request.prompt if message["role"] != "system"]
        system = "\n\n".join(message["content"] for message in request.prompt if message["role"] == "system")
        if system:
            options["system"] = system
        # It refuses blank ones; those are left to us.
        if stop := [text for text in settings.stop if text.strip()]:
            options["stop_sequences"] = stop
        # In the body, because clients from 1.0 on have no such parameters; and only if set, because later models
        # refuse them.
        sampling = (
            {"temperature": settings.temperature} if settings.temperature != 1.0 and not self._greedy_refused else {}
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
        tokens = response.usage.input_tokens or 0, response.usage.output_tokens or 0
        if response.stop_reason == "refusal":
            return ParsedResponse([], *tokens, "Anthropic refused the prompt: stop_reason refusal")
        if not text and response.stop_reason == "max_tokens":
            return ParsedResponse(
                [], *tokens, "Anthropic gave no text within the limit of tokens; it may have thought for longer"
            )
        return ParsedResponse([text], *tokens)

    async def _disconnect(self) -> None:
        await self._client.close()
