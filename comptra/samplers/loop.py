"""The event loop under the API samplers, driven from their generators."""

import asyncio
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
        if not self._wake.done():
            self._wake.set_result(None)

    def run_until_one_is_done(self) -> None:
        self._stood += time.monotonic() - self._left
        self._wake = self.create_future()
        try:
            self.run_until_complete(self._wake)
        finally:
            self._left = time.monotonic()

    def cancel_all(self) -> None:
        """End all, and look at each result, so that asyncio does not complain of one that nobody saw."""
        tasks = self.in_flight | set(self.finished)
        for task in self.in_flight:
            task.cancel()
        if self.in_flight:
            self._wake = self.create_future()
            self.run_until_complete(asyncio.wait(set(self.in_flight)))
        for task in tasks:
            if not task.cancelled():
                task.exception()
        self.in_flight.clear()
        self.finished.clear()
