"""The event loop under the API samplers, driven from their generators."""

import asyncio
import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Coroutine


class PausableLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still while it is not run: the time that the caller takes over finished
    answers does not count against those in flight."""

    def __init__(self):
        super().__init__()
        self.in_flight: set[asyncio.Task] = set()
        self.finished: deque[asyncio.Task] = deque()
        self._stood, self._left, self._wake = 0.0, time.monotonic(), None

    def time(self) -> float:
        return super().time() - self._stood

    def start(self, coroutine: Coroutine) -> None:
        task = self.create_task(coroutine)
        self.in_flight.add(task)
        task.add_done_callback(self._note)

    def _note(self, task: asyncio.Task) -> None:
        self.in_flight.discard(task)
        self.finished.append(task)
        self._wake_up()

    def _wake_up(self) -> None:
        if not self._wake.done():
            self._wake.set_result(None)

    def run_until_one_is_done(self) -> None:
        self._stood += time.monotonic() - self._left
        self._wake = self.create_future()
        try:
            with self._orderly_ctrl_c():
                self.run_until_complete(self._wake)
        finally:
            self._left = time.monotonic()

    @contextlib.contextmanager
    def _orderly_ctrl_c(self):
        """Hand a Ctrl-C on when the loop has stopped: raised inside it, it would leave the clients in pieces."""
        previous = signal.getsignal(signal.SIGINT)
        if not callable(previous) or threading.current_thread() is not threading.main_thread():
            yield
            return
        caught = []

        def catch(*_):
            caught.append(True)
            self.call_soon_threadsafe(self._wake_up)

        signal.signal(signal.SIGINT, catch)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
        if caught:
            previous(signal.SIGINT, None)

    def cancel_all(self) -> None:
        """End all, and look at each result, so that asyncio does not complain of one that nobody saw."""
        if self.is_closed():
            return
        tasks = self.in_flight | set(self.finished)
        for task in self.in_flight:
            task.cancel()
        self._wake = self.create_future()
        if self.in_flight:
            self.run_until_complete(asyncio.wait(set(self.in_flight)))
        for task in tasks:
            if not task.cancelled():
                task.exception()
        self.in_flight.clear()
        self.finished.clear()
