"""Anthropic's API."""

from topxgen.common.errors import UsageError
from topxgen.inference import ModelSettings, Request, SamplingSettings
from topxgen.inference.api import ParsedResponse, RemoteSampler, text_of, token_count
from topxgen.inference.api_errors import MalformedResponse
from topxgen.inference.http import http_client

# The last version of the API that accepts temperature and top_p (models up to Claude 4.6 do); clients from 2.0 on request
# a later one, which rejects even their default values.
SAMPLING_VERSION = "2023-06-01"
CUT = ("max_tokens", "model_context_window_exceeded")  # stop reasons
UNFINISHED = ("pause_turn", "tool_use")  # the text is what comes before a call; none was offered


class AnthropicSampler(RemoteSampler):
    package = "anthropic"
    provider = "Anthropic"
    key_variables = ("ANTHROPIC_API_KEY",)
    url_variable = "ANTHROPIC_BASE_URL"
    has_seed = False

    def _connect(self) -> None:
        import anthropic

        http = http_client(anthropic.DefaultAsyncHttpxClient)
        self._client = anthropic.AsyncAnthropic(
            api_key=self._key, base_url=self._url, max_retries=0, timeout=None, http_client=http
        )
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
        sampling = {}
        if settings.temperature != 1.0 and not self._temperature_refused:
            sampling["temperature"] = settings.temperature
        if settings.top_p < 1.0:
            sampling["top_p"] = settings.top_p
        if sampling:
            options["extra_body"] = sampling
            options["extra_headers"] = {"anthropic-version": SAMPLING_VERSION}
        return self._client.messages.create(**options)

    def _read(self, response, settings: SamplingSettings) -> ParsedResponse:
        reason = response.stop_reason
        if reason is None:
            raise MalformedResponse("no stop_reason")
        text, usage = text_of(response.content), response.usage
        # Anthropic counts the tokens read from and written to its cache apart from the others.
        cached = token_count(usage, "cache_read_input_tokens")
        prompt = token_count(usage, "input_tokens") + cached + token_count(usage, "cache_creation_input_tokens")
        error = None
        if reason == "refusal":
            error = "Anthropic rejected the prompt: stop_reason refusal"
        elif reason in UNFINISHED:
            error = f"Anthropic gave no whole text: stop_reason {reason}"
        elif not text.strip() and reason in CUT:
            error = "Anthropic gave no text within --max_new_tokens; reasoning may have used them up"
        elif not text.strip():
            error = "Anthropic gave no text: an empty answer"
        texts, reasons = ([], ()) if error else ([text], ("length" if reason in CUT else reason,))
        return ParsedResponse(texts, prompt, token_count(usage, "output_tokens"), error, cached, reasons)
