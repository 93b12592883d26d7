"""Several engines of one model side by side, each in a process of its own with GPUs of its own, behind the interface of one.

vLLM's own data parallelism serves its asynchronous server alone (`LLM` refuses it) and ties the engines' steps and lives together;
here they share nothing. A request brings its seed, so that its answer does not depend on which engine it goes to, but for
rounding (which also differs with what else is in a batch).
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property

from topxgen.common import signals
from topxgen.common.errors import UsageError
from topxgen.inference import TOGETHER, Answer, ModelSettings, Request, SamplingSettings, engine_process
from topxgen.inference.engine_process import Adapted, Answered, Dropped, Failed, Message, Ready
from topxgen.inference.tokenizer import encode, load_tokenizer

POLL_S = 0.5  # how often a signal is looked for


class _Engine:
    """The process of an engine, and which requests it has."""

    def __init__(self, name: str, gpus: tuple[str, ...]):
        self.name, self.capacity = name, 0
        self.in_flight: set[str] = set()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        # A scheduler's signals and Ctrl-C are for this process, which lets the engines finish and closes them.
        with signals.blocked_in_children(signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from topxgen.inference.engine_process import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )

    @property
    def room(self) -> int:
        return self.capacity - len(self.in_flight)

    def send(self, message: Message) -> None:
        with suppress(BrokenPipeError):  # it has died, which the thread that reads from it reports
            engine_process.send(self.process.stdin, message)

    def kill(self) -> None:
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                stream.close()


class DataParallelSampler:
    """See topxgen.inference for the interface."""

    def __init__(self, backend: str, settings: ModelSettings, groups: list[tuple[str, ...]]):
        """`groups`: for each engine the names of its GPUs, see gpu_groups.plan. Raises UsageError as one engine does."""
        self._settings = settings
        self._events: queue.SimpleQueue[tuple[_Engine, Message | None]] = queue.SimpleQueue()
        self._round = 0
        self._engines: list[_Engine] = []
        try:
            # The first one alone: it downloads the model and compiles kernels, which the others then find.
            self._load(backend, groups, range(1))
            self._load(backend, groups, range(1, len(groups)))
        except BaseException:
            self._kill()
            raise

    def _load(self, backend: str, groups: list[tuple[str, ...]], numbers: Iterable[int]) -> None:
        # What may be secret, and what only this process needs, stays here.
        settings = asdict(replace(self._settings, data_parallel_size=1, api_key=None, engine_log=None))
        loading = set()
        for i in numbers:
            where = f"GPU {', '.join(groups[i])}" if groups[i] else "CPU"
            engine = _Engine(f"engine {i + 1} of {len(groups)} ({where})", groups[i])
            self._engines.append(engine)
            loading.add(engine)
            engine.send(engine_process.Start(backend, settings, [] if groups[i] else _cores(i, len(groups))))
            threading.Thread(target=self._read, args=(engine,), daemon=True).start()
        while loading:
            engine, message = self._events.get()
            if isinstance(message, Ready):
                engine.capacity = message.capacity
                loading.remove(engine)
            else:
                raise self._error(engine, message)

    def _read(self, engine: _Engine) -> None:
        """Take in what an engine says, so that it never waits for this process; in a thread."""
        with suppress(OSError, ValueError):  # closed meanwhile
            for message in engine_process.messages(engine.process.stdout, engine_process.From):
                self._events.put((engine, message))
        self._events.put((engine, None))

    def _error(self, engine: _Engine, message: Message | None) -> UsageError:
        """Why an engine is lost; `message` is None if it ended without one."""
        if isinstance(message, Failed) and message.is_usage:
            return UsageError(f"{engine.name}: {message.error}")
        cause = f"failed ({message.error})" if isinstance(message, Failed) else self._end_of(engine)
        log = self._settings.engine_log
        return UsageError(
            f"{engine.name}, process {engine.process.pid}, {cause}{f'; see the end of {log}' if log else ''}; all finished responses "
            "are saved: re-run the same command to resume"
        )

    @staticmethod
    def _end_of(engine: _Engine) -> str:
        with suppress(subprocess.TimeoutExpired):
            engine.process.wait(5)
        code = engine.process.returncode
        if code is not None and code < 0:
            killed = " (out of memory?)" if code == -signal.SIGKILL else ""
            return f"was ended by {signal.Signals(-code).name}{killed}"
        return f"ended with exit code {code}"

    @cached_property
    def _tokenizer(self):
        return load_tokenizer(self._settings)

    def encode(self, prompt: str | list[dict[str, str]]) -> list[int]:
        return encode(self._tokenizer, prompt)

    def use_adapter(self, adapter: str | None) -> None:
        for engine in self._engines:
            engine.send(engine_process.Adapter(adapter))
        errors, waiting = [], set(self._engines)
        while waiting:
            engine, message = self._events.get()
            if isinstance(message, Adapted):
                waiting.remove(engine)
                errors += filter(None, [message.error])
            elif message is None or isinstance(message, Failed):
                raise self._error(engine, message)
        if errors:
            raise UsageError(errors[0])

    def generate(self, next_request: Callable[[], Request | None], settings: SamplingSettings) -> Iterator[Answer]:
        self._begin(settings)
        stopped = False
        try:
            while True:
                self._distribute(next_request)
                if signals.stop_requested() and not stopped:
                    stopped = True
                    for engine in self._engines:
                        engine.send(engine_process.Stop())
                if not any(engine.in_flight for engine in self._engines):
                    return
                yield from self._arrived()
        finally:
            if any(engine.in_flight for engine in self._engines):
                self._begin(settings)  # the caller has enough: what is in flight is dropped

    def _begin(self, settings: SamplingSettings) -> None:
        self._round += 1
        for engine in self._engines:
            engine.in_flight.clear()
            engine.send(engine_process.Round(self._round, settings))

    def _distribute(self, next_request: Callable[[], Request | None]) -> None:
        """Fill the engines, TOGETHER requests at a time to the one with the most room."""
        while True:
            engine = max(self._engines, key=lambda engine: engine.room)
            if engine.room < min(TOGETHER, engine.capacity):
                return
            requests: list[Request] = []
            while len(requests) < min(TOGETHER, engine.room) and (request := next_request()) is not None:
                requests.append(request)
            if not requests:
                return
            engine.in_flight.update(request.id for request in requests)
            engine.send(engine_process.Requests(requests))

    def _arrived(self) -> Iterator[Answer]:
        """The answers that have arrived; it waits a little if there are none. Raises UsageError for an engine that is lost, after
        the answers of the others."""
        events, lost = [], None
        with suppress(queue.Empty):
            events.append(self._events.get(timeout=POLL_S))
            while True:
                events.append(self._events.get_nowait())
        for engine, message in events:
            match message:
                case Answered(round=number, answer=answer):
                    if number == self._round and answer.id in engine.in_flight:
                        engine.in_flight.remove(answer.id)
                        yield answer
                case Dropped(round=number, ids=ids):
                    if number == self._round:
                        engine.in_flight.difference_update(ids)
                case None | Failed():
                    if signals.stop_requested():  # the engine got the signal, too
                        engine.in_flight.clear()
                    else:
                        lost = lost or self._error(engine, message)
        if lost is not None:
            raise lost

    def close(self) -> None:
        """End the engines, and all processes that they started."""
        for engine in self._engines:
            engine.send(engine_process.Close())
        until = time.monotonic() + signals.CLOSE_S
        for engine in self._engines:
            with suppress(subprocess.TimeoutExpired):
                engine.process.wait(max(0.1, until - time.monotonic()))
        self._kill()

    def _kill(self) -> None:
        for engine in self._engines:
            engine.kill()
        self._engines = []


def _cores(i: int, engines: int) -> list[int]:
    """The cores of engine `i`: an equal part of those that this process may use; none if there are too few to divide."""
    cores = sorted(os.sched_getaffinity(0))
    each = len(cores) // engines
    return cores[i * each : (i + 1) * each]
