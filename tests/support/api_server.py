"""A local server that speaks the formats of the three APIs and injects faults, for tests and speed scripts.

    with ApiServer(faults={("p3", 1): "reset"}) as server: ...

A prompt's name is the first word of its last message (or of the plain prompt). `faults` maps (name, attempt) to
a fault of FAULTS or ENDINGS, or (status, code, message); the attempts of a prompt are counted from 1.
"""

import asyncio
import contextlib
import email.utils
import json
import socket
import struct
import threading
import time
from collections import Counter

KEY = "sk-test-3f9c2b7e41d8a605"
# Faults that a retry overcomes.
FAULTS = (
    "rate limit",
    "rate limit date",
    "rate limit ms",
    "server error",
    "busy",
    "overloaded",
    "reset",
    "stall",
    "trickle",
    "bad json",
    "half body",
    "no fields",
)
# Faults that no retry overcomes: status, code, message.
ENDINGS = {
    "bad key": (401, "invalid_api_key", f"Incorrect API key provided: {KEY}. Find yours in the console."),
    "quota": (
        429,
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "payment": (402, "billing_error", "Payment required."),
    "credit": (400, "invalid_request_error", "Your credit balance is too low to access the API."),
    "no model": (404, "model_not_found", "The model does not exist."),
    "context": (400, "context_length_exceeded", "This model's maximum context length is 512 tokens."),
    "parameter": (400, "invalid_request_error", "temperature: this model takes none"),
    "no template": (400, "invalid_request_error", "you must provide a chat template"),
    "come back": (429, "rate_limit_exceeded", "Come back tomorrow."),
}
RETRY_AFTER = {"rate limit": 1.0, "rate limit date": 1.0, "rate limit ms": 0.3}  # seconds, at least


class ApiServer:
    """Records requests and responses: `arrivals` (name, attempt, time), `delivered` (complete 200 responses by name)."""

    def __init__(self, faults=None, delay=0.01, key: str | None = KEY, respond=None, edit=None):
        """`respond`: the text of an answer by the last message (or the plain prompt); by default it repeats the prompt."""
        self.faults = faults if callable(faults) else lambda name, attempt: (faults or {}).get((name, attempt))
        self.delay = delay if callable(delay) else lambda name: delay  # seconds to any answer
        self.edit = (
            edit  # (name, body of a response) -> the body to send (bytes or JSON), extra headers and status or None
        )
        self.key, self.respond = key, respond or (lambda prompt: f"answer to {prompt}")
        self.models: list[dict] = []  # which a GET lists
        self.late = 0  # how many GETs come before it can answer
        self.held = lambda name: False  # whether an answer has to wait for what the test waits for
        self.arrivals: list[tuple[str, int, float]] = []
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.attempts, self.delivered, self.injected = Counter(), Counter(), Counter()
        self.in_flight = self.most_in_flight = self.stalled = 0

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda *_: None)  # clients that break off are no news
        started = threading.Event()

        async def start():
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]
            started.set()

        def run():
            self._loop.run_until_complete(start())
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        started.wait()
        return self

    def __exit__(self, *_):
        async def end():
            self._server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def settle(self) -> None:
        """Wait until all answers are counted, but those that stall."""
        deadline = time.monotonic() + 120
        while self.in_flight > self.stalled and time.monotonic() < deadline:
            time.sleep(0.005)

    def url(self, api: str) -> str:
        return f"http://127.0.0.1:{self.port}" + ("/v1" if api == "openai" else "")

    async def _serve(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader, writer) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        path = first.split()[1]
        if first.startswith("GET"):
            found = {"object": "list", "data": self.models}
            self.late -= 1
            status = 503 if self.late >= 0 else 200 if self.models else 404
            await self._send(writer, status, json.dumps(found).encode())
            return True
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        if path in ("/tokenize", "/detokenize"):
            return await self._template(writer, path, body)
        name = (body["messages"][-1]["content"] if "messages" in body else body["prompt"]).split()[0]
        self.attempts[name] += 1
        attempt = self.attempts[name]
        self.arrivals.append((name, attempt, time.monotonic()))
        self.bodies.append(body)
        self.headers.append(headers)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay(name))
            async with asyncio.timeout(120):  # then the test fails, rather than hangs
                while self.held(name):
                    await asyncio.sleep(0.005)
            return await self._reply(writer, path, body, headers, name, attempt)
        finally:
            self.in_flight -= 1

    async def _template(self, writer, path, body) -> bool:
        """Only vLLM's server tells what its chat template writes."""
        await self._send(writer, 404, b'{"detail": "Not Found"}')
        return True

    async def _reply(self, writer, path, body, headers, name, attempt) -> bool:
        fault = self.faults(name, attempt)
        if self.key and self.key not in (
            headers.get("x-api-key"),
            headers.get("authorization", "").removeprefix("Bearer "),
        ):
            fault = "bad key"
        if fault is not None:
            self.injected[fault] += 1
        whole, extra = json.dumps(answer(path, body, self.respond)).encode(), None
        if self.edit is not None and fault is None:
            whole, extra = self.edit(name, json.loads(whole))
            whole = whole if isinstance(whole, bytes) else json.dumps(whole).encode()
        if fault in ENDINGS or isinstance(fault, tuple):
            status, code, message = ENDINGS.get(fault, fault)
            return await self._error(writer, path, status, code, message, {"retry-after": "90000"})
        if fault == "server error":
            return await self._error(writer, path, 500, "server_error", "Something broke.")
        if fault == "busy":
            return await self._error(writer, path, 429, "rate_limit_exceeded", "Too many at once.")
        if fault == "overloaded":
            return await self._error(writer, path, 529, "overloaded_error", "Overloaded.")
        if fault in RETRY_AFTER:
            seconds = RETRY_AFTER[fault]
            wait = {
                "rate limit": {"Retry-After": f"{seconds:g}"},
                "rate limit date": {"Retry-After": email.utils.formatdate(time.time() + seconds + 1, usegmt=True)},
                "rate limit ms": {"Retry-After-Ms": f"{1000 * seconds:g}"},
            }[fault]
            return await self._error(writer, path, 429, "rate_limit_exceeded", "Rate limit reached.", wait)
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)  # close with RST
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            return False
        if fault == "stall":
            self.stalled += 1
            await asyncio.sleep(3600)
        if fault == "trickle":
            await self._send(writer, 200, whole[:0], length=100_000)
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        if fault == "half body":
            await self._send(writer, 200, whole[: len(whole) // 2], length=len(whole))
            return False
        if fault in ("bad json", "no fields"):
            await self._send(writer, 200, b'{"id": "x", ' if fault == "bad json" else b'{"id": "x"}')
            return True
        await self._send(writer, (extra or {}).pop("status", 200), whole, extra)
        self.delivered[name] += 1
        return True

    async def _error(self, writer, path, status, code, message, headers=None) -> bool:
        body = {"error": {"message": message, "type": code, "code": code}}
        if path == "/v1/messages":
            body = {"type": "error", "error": {"type": code, "message": message}}
        elif path == "/v2/chat":
            body = {"id": "x", "message": message}
        await self._send(writer, status, json.dumps(body).encode(), headers)
        return True

    async def _send(self, writer, status: int, body: bytes, headers=None, length: int | None = None):
        fields = {"Content-Type": "application/json", "Content-Length": length or len(body), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body)
        await writer.drain()


def answer(path: str, body: dict, respond) -> dict:
    """A complete response body with the text that `respond` gives."""
    text = respond(body["messages"][-1]["content"] if "messages" in body else body["prompt"])
    if path == "/v1/messages":
        content = [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": text}]
        usage = {"input_tokens": 7, "output_tokens": 5}
        return {
            "id": "x", "type": "message", "role": "assistant", "model": body["model"], "content": content,
            "stop_reason": "end_turn", "usage": usage,
        }  # fmt: skip
    if path == "/v2/chat":
        message = {"role": "assistant", "content": [{"type": "text", "text": text}]}
        usage = {
            "billed_units": {"input_tokens": 7, "output_tokens": 5},
            "tokens": {"input_tokens": 70, "output_tokens": 6},
        }
        return {"id": "x", "finish_reason": "COMPLETE", "message": message, "usage": usage}
    choices = [
        {"index": i, "finish_reason": "stop", **({"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text})}
        for i in range(body.get("n", 1))
    ]  # fmt: skip
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    return {"id": "x", "object": "o", "created": 1, "model": body["model"], "choices": choices, "usage": usage}
