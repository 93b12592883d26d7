"""Ray (https://docs.ray.io): an actor for each worker, on a running cluster or on one of this machine's own.

Actors, and not Ray Data or ray.data.llm: docs/cluster.md and the comparison in docs/results.md have the reasons.
"""

import logging
import math
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from topxgen.common import signals
from topxgen.common.console import counted
from topxgen.common.errors import UsageError
from topxgen.common.lines import split_lines
from topxgen.distributed import CAPACITY, Call, Plan, Pool, ray_cluster
from topxgen.distributed.worker import Worker, environment
from topxgen.inference.gpu_groups import smallest_memory

logger = logging.getLogger(__name__)

POLL_S = 0.5  # how often a signal is looked for
WAIT_NOTICE_S = 30.0
NEW_NODES_S = 10.0  # how often nodes are looked for that have joined
MEMORY_S = 60.0  # for the nodes to import torch and measure their GPUs
MAX_LOSSES = 5  # workers, for one call or while they load: then it is the call or the model that ends them


class _Actor:
    """A worker's actor and what it has to do."""

    def __init__(self, handle, loading, losses: int):
        self.handle = handle
        self.losses = losses  # in a row, of the workers before it, as they loaded
        self.calls: dict[Any, Call | None] = {loading: None}  # by the reference of the result; None: it loads
        self.capacity = 0  # until it has loaded

    @property
    def room(self) -> int:
        return self.capacity - sum(call.size for call in self.calls.values() if call)


class RayPool(Pool):
    """See topxgen.distributed.Pool."""

    check = staticmethod(ray_cluster.check)

    def __init__(self, build: Callable[[], Any], plan: Plan):
        self._ray = ray_cluster.connect(plan)
        if callable(plan.gpus):
            largest = max(int(node.get("GPU", 0)) for node in self._nodes())
            plan = replace(plan, gpus=plan.gpus(largest, self._gpu_memory()) if largest else 1)
        self._plan = plan
        count, cpus, gpus = share(self._nodes(), plan)
        # Lost ones are replaced here: an actor that Ray restarts keeps its calls while it waits for a node and loads.
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        self._class = self._ray.remote(Worker).options(**options)
        self._build = self._ray.put(build)  # once: the index of decontamination is large
        self._waiting: deque[Call] = deque()  # of lost workers
        self._actors: list[_Actor] = []
        self.capacity = CAPACITY * count
        self._notice_at, self._grow_at = time.monotonic() + WAIT_NOTICE_S, time.monotonic() + NEW_NODES_S
        try:
            for _ in range(count):
                self._actors.append(self._started())
            while not any(actor.capacity for actor in self._actors):
                self._take_finished()
        except BaseException:
            self.close()
            raise

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _gpu_memory(self) -> int | None:
        """Bytes of the smallest GPU of all nodes that answer in time; None if none does."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ask = self._ray.remote(num_cpus=0, num_gpus=0.01, max_retries=0)(smallest_memory)
        nodes = [node["NodeID"] for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
        on_nodes = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
        references = [ask.options(scheduling_strategy=node).remote() for node in on_nodes]
        answered = self._finished(references, len(references), MEMORY_S)
        with suppress(self._ray.exceptions.RayError):  # of a node that cannot run our code: its worker says so
            return min(filter(None, self._ray.get(answered)), default=None)
        return None

    def _finished(self, references: list, number: int, seconds: float) -> list:
        """The results that are there once so many are, or the time is over."""
        try:
            return self._ray.wait(references, num_returns=number, timeout=seconds)[0]
        except KeyboardInterrupt:  # as Ray raises whatever a handler of signals has raised
            if signals.stop_requested():
                raise signals.Stopped from None
            raise

    def _started(self, losses: int = 0) -> _Actor:
        handle = self._class.remote()
        return _Actor(handle, handle.load.remote(self._build, os.getcwd(), environment(), self._plan.log), losses)

    def run(self, next_call: Callable[[], Call | None]) -> Iterator[tuple[Call, Any]]:
        if not self._actors:
            raise RuntimeError("this pool is closed")
        try:
            while True:
                if signals.stop_requested():
                    self._waiting.clear()
                self._distribute(next_call)
                if not self._waiting and not any(call for actor in self._actors for call in actor.calls.values()):
                    return
                yield from self._take_finished()
        finally:  # the caller has enough, or failed: what is in work is dropped
            self._waiting.clear()
            for actor in self._actors:
                actor.calls = {reference: call for reference, call in actor.calls.items() if call is None}

    def _distribute(self, next_call: Callable[[], Call | None]) -> None:
        while ready := [actor for actor in self._actors if actor.room > 0]:
            call = self._waiting.popleft() if self._waiting else next_call()
            if call is None:
                return
            actor = max(ready, key=lambda actor: actor.room)
            actor.calls[actor.handle.call.remote(call.method, *call.arguments)] = call

    def _take_finished(self) -> list[tuple[Call, Any]]:
        """Wait a little for something to finish: calls with their results. Lost workers are replaced, their calls wait."""
        self._note_waiting()
        self._grow()
        numbers = {reference: number for number, actor in enumerate(self._actors) for reference in actor.calls}
        if not numbers:  # all workers were lost as the run was stopped
            self._waiting.clear()
            return []
        self._finished(list(numbers), 1, POLL_S)
        results = []
        for reference in self._finished(list(numbers), len(numbers), 0):
            actor = self._actors[numbers[reference]]
            if reference not in actor.calls:  # of a worker just found to be lost
                continue
            try:
                value = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                cause = error.cause
                raise (cause if isinstance(cause, UsageError) else error) from None
            except self._ray.exceptions.RayError as error:
                self._replace(numbers[reference], error)
                continue
            call = actor.calls.pop(reference)
            if call is not None:
                results.append((call, value))
                continue
            actor.capacity, actor.losses = value, 0
            self.capacity = len(self._actors) * max(actor.capacity for actor in self._actors)
        return results

    def _note_waiting(self) -> None:
        if any(actor.capacity for actor in self._actors):
            self._notice_at = time.monotonic() + WAIT_NOTICE_S
        elif time.monotonic() > self._notice_at:
            self._notice_at = math.inf
            logger.info(f"waiting for {len(self._actors)} Ray workers ({self._plan.what}) to start and load")

    def _grow(self) -> None:
        """Start workers on nodes that have joined, unless --num_workers says how many there are."""
        if self._plan.workers or signals.stop_requested() or time.monotonic() < self._grow_at:
            return
        self._grow_at = time.monotonic() + NEW_NODES_S
        with suppress(UsageError):  # no node has room now
            count, *_ = share(self._nodes(), self._plan)
            if (more := count - len(self._actors)) > 0:
                logger.info(
                    f"nodes have joined the Ray cluster: {counted(more, 'more worker is', 'more workers are')} started ({self._plan.what})"
                )
                self._actors += [self._started() for _ in range(more)]

    def _replace(self, number: int, error: Exception) -> None:
        """Start another worker for one that is lost. Raises UsageError if that has happened too often."""
        actor = self._actors[number]
        calls, loading = [call for call in actor.calls.values() if call], not actor.capacity
        self._ray.kill(actor.handle)  # if it is only out of reach, its GPU is wanted back
        if signals.stop_requested():  # by the signal that this process got
            actor.calls, actor.capacity = {}, 0
            return
        for call in calls:
            call.losses += 1
        losses = actor.losses + loading  # of this one: all workers of a node are lost at a time
        if max([losses, *(call.losses for call in calls)]) >= MAX_LOSSES:
            raise UsageError(
                f"{MAX_LOSSES} Ray workers were lost one after the other {'as they loaded' if loading else 'with the same work'} "
                f"({_why(error)}), probably out of memory; finished work is on disk: pass a smaller --num_workers or model, and "
                "re-run the same command to resume"
            )
        self._waiting.extendleft(reversed(calls))
        logger.warning(
            f"Ray worker {number} was lost ({_why(error)}); another one is started, and what it had in work ({counted(len(calls), 'call')}) is "
            "done again"
        )
        self._actors[number] = self._started(losses)

    def close(self) -> None:
        for actor in self._actors:
            if self._ray.is_initialized():
                self._ray.kill(actor.handle)
        self._actors, self._build = [], None


def _why(error: Exception) -> str:
    """What Ray says about a lost worker, in a few words."""
    lines = [line.strip() for line in split_lines(re.sub(r"\x1b\[\d+m", "", str(error))) if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:160] if lines else 'no message'}"


def share(nodes: Sequence[dict[str, float]], plan: Plan) -> tuple[int, int, int]:
    """(workers, cores of each, GPUs of each) on nodes with these resources. Raises UsageError if there is not room for all.

    By default a worker for each group of GPUs; where there are none, one for each node, or for each core if that is enough.
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    if plan.gpus and any(gpus):
        room, cores, of_each = sum(number // plan.gpus for number in gpus), 1, plan.gpus
        have = (
            f"{counted(sum(gpus), 'GPU')} on {counted(len(nodes), 'node')}, and a worker needs {plan.gpus} on one node"
        )
    else:
        room, of_each = sum(cpus), 0
        have = counted(room, "core")
        workers = plan.workers or (sum(number > 0 for number in cpus) if plan.gpus else room)
        fits = (n for n in range(max(cpus, default=0), 0, -1) if sum(number // n for number in cpus) >= workers)
        cores = 1 if not plan.gpus else next(fits, 1)
        plan = replace(plan, workers=workers)
    count = plan.workers or room
    if not 0 < count <= room:
        raise UsageError(
            f"the Ray cluster has room for {counted(room, 'worker')} ({have}), fewer than the {max(count, 1)} of --num_workers"
            if plan.workers
            else f"the Ray cluster has no room for a worker ({have}): pass a smaller --tensor_parallel_size, or a larger cluster"
        )
    return count, cores, of_each
