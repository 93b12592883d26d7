"""Cohere's API (version 2)."""

from topxgen.inference import NEUTRAL, ModelSettings, Request, SamplingSettings
from topxgen.inference.api import ParsedResponse, RemoteSampler, text_of, token_count
from topxgen.inference.api_errors import MalformedResponse
from topxgen.inference.http import http_client

CUT = ("MAX_TOKENS", "ERROR_LIMIT")  # finish reasons
MAX_STOP_STRINGS = 5
TOP_P_RANGE = 0.01, 0.99  # Cohere's default is 0.75

PENALTIES = {name: NEUTRAL[name] for name in ("presence_penalty", "frequency_penalty")}


class CohereSampler(RemoteSampler):
    package = "cohere"
    provider = "Cohere"
    key_variables = ("CO_API_KEY", "COHERE_API_KEY")
    url_variable = "CO_API_URL"

    def _connect(self) -> None:
        import cohere
        import httpx

        # The client's default is at most 100 connections.
        limits = httpx.Limits(max_connections=self._max_concurrent)
        self._http = http_client(httpx.AsyncClient, limits=limits)
        self._client = cohere.AsyncClientV2(
            api_key=self._key, base_url=self._url, max_retries=0, httpx_client=self._http
        )
        self._connection_errors = (httpx.RequestError,)

    @classmethod
    def decoding(cls, settings: ModelSettings) -> dict:
        return {"top_k": NEUTRAL["top_k"], **PENALTIES}

    def _call(self, request: Request, settings: SamplingSettings):
        options = {"stop_sequences": list(settings.stop[:MAX_STOP_STRINGS])} if settings.stop else {}
        return self._client.chat(
            model=self._settings.model_name_or_path,
            messages=request.prompt,
            max_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            p=min(max(settings.top_p, TOP_P_RANGE[0]), TOP_P_RANGE[1]),
            seed=request.seed,
            k=0,
            **PENALTIES,
            **options,
        )

    def _read(self, response, settings: SamplingSettings) -> ParsedResponse:
        reason = response.finish_reason
        if reason in (None, "ERROR", "TIMEOUT", "USER_CANCEL"):
            raise MalformedResponse(f"finish_reason {reason}")
        text, usage, error = text_of(response.message.content), response.usage, None
        if reason == "ERROR_TOXIC":
            error = "Cohere gave no text: content filter"
        elif reason == "TOOL_CALL":  # the text is what comes before a call; none was offered
            error = "Cohere gave no whole text: finish_reason TOOL_CALL"
        elif not text.strip():
            cut = reason in CUT
            error = (
                f"Cohere gave no text: {'reasoning may have used up --max_new_tokens' if cut else 'an empty answer'}"
            )
        # Its own preamble, hundreds of tokens of each prompt, is not billed.
        billed, counted = getattr(usage, "billed_units", None), getattr(usage, "tokens", None)
        return ParsedResponse(
            [] if error else [text],
            token_count(billed, "input_tokens") or token_count(counted, "input_tokens"),
            token_count(billed, "output_tokens") or token_count(counted, "output_tokens"),
            error,
            token_count(usage, "cached_tokens"),
            () if error else ("length" if reason in CUT else reason,),
        )

    async def _disconnect(self) -> None:
        await self._http.aclose()
