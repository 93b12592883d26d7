"""The HTTP client below the providers' clients: it bounds the size of a response and follows no redirect to another host."""

import zlib
from functools import cache
from urllib.request import getproxies

from topxgen.common.errors import UsageError, reason
from topxgen.inference.api_errors import MalformedResponse, Redirected

MAX_BODY_BYTES = 32 << 20  # decompressed; the longest answers are below 1 MiB
_ENCODING = ("content-encoding", "content-length", "transfer-encoding")


def http_client(client_class: type, **options):
    """An AsyncClient of httpx, or of the variant of it that a provider's client needs (`client_class`)."""

    class BoundedClient(client_class):
        async def send(self, request, **settings):
            request.headers["Accept-Encoding"] = "gzip"
            response = await super().send(request, **{**settings, "stream": True})
            try:
                body = await _bounded_body(response)
            finally:
                await response.aclose()
            headers = [item for item in response.headers.multi_items() if item[0].lower() not in _ENCODING]
            return type(response)(response.status_code, headers=headers, content=body, request=response.request)

    hooks = {"response": [_refuse_redirect]}
    settings = {"timeout": None, "follow_redirects": True, "event_hooks": hooks, "verify": _certificates(), **options}
    try:
        return BoundedClient(**settings)
    except (ImportError, ValueError) as error:  # HTTP_PROXY, HTTPS_PROXY, ALL_PROXY
        raise UsageError(
            f"a proxy of the environment ({', '.join(getproxies())}) cannot be used ({reason(error)}): correct it, or unset the "
            "variable (NO_PROXY=HOST goes around it)"
        ) from None


@cache
def _certificates():
    import httpx

    return httpx.create_ssl_context()  # takes 20 ms


async def _bounded_body(response) -> bytes:
    """The body, decompressed here: httpx inflates a chunk as a whole, and ten kilobytes of gzip in gzip or of Brotli may hold
    gigabytes."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("gzip", "x-gzip", "identity", ""):
        raise MalformedResponse(f"Content-Encoding {encoding[:60]!r}, where only gzip was asked for")
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16) if "gzip" in encoding else None
    body = bytearray()
    async for chunk in response.aiter_raw():
        try:
            body += inflater.decompress(chunk, MAX_BODY_BYTES + 1 - len(body)) if inflater else chunk
        except zlib.error as error:
            raise MalformedResponse(f"its body is no gzip ({error})") from None
        if len(body) > MAX_BODY_BYTES:
            raise MalformedResponse(f"its body exceeds {MAX_BODY_BYTES >> 20} MiB")
    if inflater and body and not inflater.eof:
        raise MalformedResponse("its body is cut off")
    return bytes(body)


async def _refuse_redirect(response) -> None:
    if "location" not in response.headers or not 300 <= response.status_code < 400:
        return
    here, location = response.request.url, response.headers["location"]
    try:
        there = here.join(location)
    except Exception as error:  # the InvalidURL of the provider's variant of httpx
        raise MalformedResponse(f"a redirect to {location[:60]!r}: {error}") from None
    if (here.host, here.port) != (there.host, there.port) or (here.scheme, there.scheme) == ("https", "http"):
        raise Redirected(f"{there.scheme}://{there.netloc.decode('ascii', 'replace')}")
