"""An asyncio event loop in a thread of its own, so that API clients go on while the caller works on finished responses."""

import asyncio
import threading
from collections.abc import Callable, Coroutine

from topxgen.common import signals


class LoopThread:
    """Runs coroutines for other threads. A Ctrl-C is raised in the main thread, never inside a client."""

    def __init__(self):
        self.tasks: set[asyncio.Task] = set()  # unfinished ones; touched by the loop's thread alone
        with signals.finishing():  # asyncio cannot destroy a loop that is made by half
            self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def start(self, function: Callable[..., Coroutine], *arguments) -> None:
        """Run `function(*arguments)` as a task and return at once."""
        self._loop.call_soon_threadsafe(self._start, function, arguments)

    def _start(self, function: Callable[..., Coroutine], arguments: tuple) -> None:
        task = self._loop.create_task(function(*arguments))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def run(self, coroutine: Coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def cancel_tasks(self) -> None:
        """Cancel the unfinished tasks and wait for their end."""
        # The garbage collector may end an abandoned generator in the loop's own thread, which cannot wait for itself.
        if not self._loop.is_closed() and threading.current_thread() is not self._thread:
            self.run(self._cancel_tasks())

    async def _cancel_tasks(self) -> None:
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close(self, disconnect: Callable[[], Coroutine]) -> None:
        """Cancel everything, run `disconnect()` and end the thread; a second call does nothing."""
        if self._loop.is_closed():
            return
        self.cancel_tasks()
        self.run(disconnect())
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
