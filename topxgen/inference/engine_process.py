"""An engine in a process of its own, for topxgen.inference.data_parallel: their messages, and the engine's side.

Messages are msgpack, each after its length, on the engine's stdin and stdout. When stdin ends without Close, the other process
is gone, and this one ends with all that it started.
"""

import os
import signal
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import IO

import msgspec

from topxgen.common import signals
from topxgen.common.errors import UsageError, reason
from topxgen.inference import CAPACITY, Answer, ModelSettings, Request, SamplingSettings

LENGTH = struct.Struct("<I")


class Message(msgspec.Struct, tag=True, array_like=True):
    pass


class Start(Message):
    backend: str
    settings: dict  # fields of ModelSettings
    cores: list[int]  # of the CPU, to which it keeps; empty: all


class Round(Message):
    """A new call of `generate`: what is left of the last one is dropped."""

    number: int
    sampling: SamplingSettings


class Requests(Message):
    requests: list[Request]


class Stop(Message):
    """Drop the requests that have not entered the engine."""


class Adapter(Message):
    name: str | None


class Close(Message):
    pass


class Ready(Message):
    capacity: int


class Answered(Message):
    round: int
    answer: Answer


class Dropped(Message):
    """Requests of a round that get no answer."""

    round: int
    ids: list[str]


class Adapted(Message):
    error: str | None = None


class Failed(Message):
    error: str
    is_usage: bool


To = Start | Round | Requests | Stop | Adapter | Close
From = Ready | Answered | Dropped | Adapted | Failed


def send(stream: IO[bytes], message: Message) -> None:
    body = msgspec.msgpack.encode(message)
    stream.write(LENGTH.pack(len(body)) + body)
    stream.flush()


def messages(stream: IO[bytes], kind) -> Iterator:
    """The messages of `kind` until the stream ends, possibly in the middle of one: the process that writes may be killed."""
    decoder = msgspec.msgpack.Decoder(kind)
    while len(head := stream.read(LENGTH.size)) == LENGTH.size:
        (length,) = LENGTH.unpack(head)
        body = stream.read(length)
        if len(body) < length:
            return
        yield decoder.decode(body)


class _Left(Exception):
    """The other process has finished the round."""


class _Engine:
    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]):
        self._incoming, self._outgoing = incoming, outgoing
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._waiting: deque[Request | Round | Adapter | Close] = deque()
        self._round = 0  # the last one received

    def say(self, message: Message) -> None:
        with self._sending, suppress(BrokenPipeError):  # the reader sees that the other process is gone
            send(self._outgoing, message)

    def run(self) -> None:
        stream = messages(self._incoming, To)
        start = next(stream, None)
        if start is None:
            return
        threading.Thread(target=self._read, args=(stream,), name="messages", daemon=True).start()
        if start.cores:
            os.sched_setaffinity(0, start.cores)
        from topxgen import inference

        try:
            sampler = inference.load(start.backend, ModelSettings(**start.settings))
            self.say(Ready(getattr(sampler, "capacity", CAPACITY)))
            number, sampling = 0, SamplingSettings()
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting)
                    message = self._waiting[0]
                    if not isinstance(message, Request):
                        self._waiting.popleft()
                match message:
                    case Close():
                        sampler.close()
                        return
                    case Round():
                        number, sampling = message.number, message.sampling
                    case Adapter():
                        self._adapt(sampler, message.name)
                    case Request():
                        self._answer(sampler, number, sampling)
        except Exception as error:
            if not isinstance(error, UsageError):
                import traceback

                traceback.print_exc()
            is_usage = isinstance(error, UsageError)
            self.say(Failed(str(error) if is_usage else reason(error), is_usage))
            raise SystemExit(1) from None

    def _adapt(self, sampler, name: str | None) -> None:
        try:
            sampler.use_adapter(name)
        except UsageError as error:
            self.say(Adapted(str(error)))
        else:
            self.say(Adapted())

    def _answer(self, sampler, number: int, sampling: SamplingSettings) -> None:
        taken: dict[str, None] = {}

        def next_request() -> Request | None:
            with self._changed:
                if self._round != number:
                    raise _Left
                if not self._waiting or not isinstance(self._waiting[0], Request):
                    return None
                request = self._waiting.popleft()
            taken[request.id] = None
            return request

        answers = sampler.generate(next_request, sampling)
        with suppress(_Left):
            for answer in answers:
                if self._round != number:
                    break
                taken.pop(answer.id, None)
                self.say(Answered(number, answer))
        answers.close()
        if taken:
            self.say(Dropped(number, list(taken)))

    def _read(self, stream: Iterator) -> None:
        """Take in what arrives, also while the engine is at work or loading; in a thread."""
        for message in stream:
            dropped = []
            with self._changed:
                if isinstance(message, Round | Stop):
                    dropped = [item.id for item in self._waiting if isinstance(item, Request)]
                    self._waiting = deque(item for item in self._waiting if not isinstance(item, Request))
                if isinstance(message, Round):
                    self._round = message.number
                if isinstance(message, Requests):
                    self._waiting.extend(message.requests)
                elif not isinstance(message, Stop):
                    self._waiting.append(message)
                self._changed.notify()
            if isinstance(message, Stop) and dropped:
                self.say(Dropped(self._round, dropped))
            if isinstance(message, Close):
                return
        signals.end_with_children(1)


def serve() -> None:
    """Answer the messages of the process that started this one."""
    # A signal is for that process, which then closes this one. Handlers, unlike SIG_IGN, are not passed on to the engine's own processes.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)  # what libraries print must not get between the messages
    _Engine(incoming, outgoing).run()
