"""Work spread over the nodes of a cluster: a pool of workers, each with a model of its own, which a scheduler starts.

The process that was started, the driver, goes on to decide everything, and writes everything: workers answer calls. Results
depend on a call alone, so that a lost worker costs its calls, which others answer.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topxgen.common import signals
from topxgen.common.registry import Choice, load_choice

SCHEDULERS: dict[str, Choice] = {
    "ray": Choice(
        "topxgen.distributed.ray_pool:RayPool",
        "Ray, on the cluster at RAY_ADDRESS (auto: the one that this node belongs to) or, if it is not set, on this machine alone",
    )
}
CAPACITY = 2  # calls that a worker takes in at a time: one in work and one to follow


@dataclass(eq=False)
class Call:
    """A method of a worker's object with its arguments; `size`: what it takes of the worker's capacity."""

    method: str
    arguments: tuple = ()
    size: int = 1
    losses: int = 0  # workers that were lost with it


@dataclass(frozen=True)
class Plan:
    """How many workers there should be, and what each needs."""

    scheduler: str
    what: str  # they do, for messages
    workers: int | None = None  # None: as many as there is room for
    # Of each, where there are any; 0: a core each is enough. Or how many, by the GPUs of the largest node and the bytes of the
    # smallest GPU (None: not known).
    gpus: int | Callable[[int, int | None], int] = 1
    log: Path | None = field(default=None, compare=False)  # gets what they print as they load


class Pool(ABC):
    """Workers that answer calls. A scheduler's class is made of (build, plan): `build()` makes a worker's object, in the worker.

    An object may have a `capacity`, how large the calls may be together that it takes in at a time; a method that is a coroutine
    runs beside others, other methods one after the other in one thread.
    """

    capacity: int  # of all workers together, about

    @classmethod
    @abstractmethod
    def check(cls) -> None:
        """Raise UsageError if the scheduler is not installed or does not answer; within seconds."""

    @abstractmethod
    def run(self, next_call: Callable[[], Call | None]) -> Iterator[tuple[Call, Any]]:
        """Calls with their results as they finish. `next_call` as `next_request` of topxgen.inference: None if none is ready.

        Raises the error of a call that fails, and UsageError for one whose workers are lost again and again.
        """

    @abstractmethod
    def close(self) -> None:
        """End the workers."""

    def map(self, calls: Iterable[Call]) -> Iterator[Any]:
        """The result of each call, in order. Of `calls` only so many are taken that the workers are busy."""
        numbered, numbers, results, given = enumerate(calls), {}, {}, 0

        def next_call() -> Call | None:
            if len(numbers) + len(results) >= 2 * self.capacity or signals.stop_requested():
                return None
            number, call = next(numbered, (0, None))
            if call is not None:
                numbers[call] = number
            return call

        for call, result in self.run(next_call):
            results[numbers.pop(call)] = result
            while given in results:
                yield results.pop(given)
                given += 1
        if signals.stop_requested():
            raise signals.Stopped


def check(scheduler: str | None) -> None:
    """Raise UsageError if the scheduler of --distributed cannot be used."""
    if scheduler is not None:
        load_choice("--distributed", scheduler, SCHEDULERS).check()


def start(build: Callable[[], Any], plan: Plan) -> Pool:
    """Workers with an object each, once the first has its own. Raises UsageError if they cannot be started or loaded."""
    return load_choice("--distributed", plan.scheduler, SCHEDULERS)(build, plan)


class InWorkers:
    """`local`, whose own model is never loaded, for all but its work, which `map` gives to workers."""

    def __init__(self, local, build: Callable[[], Callable[[], Any]], plan: Plan):
        """`build`, called as the workers are started, gives what makes the object of each."""
        self._local, self._build, self._plan, self._pool = local, build, plan, None

    def __getattr__(self, name: str):
        return getattr(self._local, name)

    def load(self) -> None:
        if self._pool is None:
            self._pool = start(self._build(), self._plan)

    def map(self, calls: Iterable[Call]) -> Iterator[Any]:
        """See Pool."""
        return self._pool.map(calls)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None
