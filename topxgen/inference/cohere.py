"""Cohere's API (version 2)."""

from topxgen.inference import Request, SamplingSettings
from topxgen.inference.api import ParsedResponse, RemoteSampler
from topxgen.inference.api_errors import MalformedResponse

MAX_STOP_STRINGS = 5
TOP_P_RANGE = 0.01, 0.99  # Cohere's default is 0.75


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
        self._http = httpx.AsyncClient(limits=limits, timeout=None, follow_redirects=True)
        self._client = cohere.AsyncClientV2(
            api_key=self._key, base_url=self._url, max_retries=0, httpx_client=self._http
        )
        self._connection_errors = (httpx.TransportError, httpx.DecodingError)

    def _call(self, request: Request, settings: SamplingSettings):
        options = {"stop_sequences": list(settings.stop[:MAX_STOP_STRINGS])} if settings.stop else {}
        return self._client.chat(
            model=self._settings.model_name_or_path,
            messages=request.prompt,
            max_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            p=min(max(settings.top_p, TOP_P_RANGE[0]), TOP_P_RANGE[1]),
            seed=request.seed,
            **options,
        )

    def _read(self, response, settings: SamplingSettings) -> ParsedResponse:
        if response.finish_reason in (None, "ERROR", "TIMEOUT"):
            raise MalformedResponse(f"finish_reason {response.finish_reason}")
        text = "".join(item.text for item in response.message.content or () if item.type == "text")
        usage = response.usage and (response.usage.tokens or response.usage.billed_units)
        tokens = (usage.input_tokens, usage.output_tokens) if usage else (0, 0)
        cached = getattr(response.usage, "cached_tokens", 0) or 0
        return ParsedResponse([text], *(int(count or 0) for count in tokens), cached_tokens=int(cached))

    async def _disconnect(self) -> None:
        await self._http.aclose()
