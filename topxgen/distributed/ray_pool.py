"""Ray (https://docs.ray.io): an actor for each worker, on a running cluster or on one of this machine's own.

Actors, and not Ray Data: a Dataset is a finite input, which Ray reads again to replace a lost block, and what a run asks next
depends on what came back. And our own sampler in them, not ray.data.llm (2.60): that one gives a single text for a prompt,
drops why it ended, and has no beam search.
"""

import atexit
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from topxgen.common import signals
from topxgen.common.console import library_output_to
from topxgen.common.errors import UsageError, reason
from topxgen.common.lines import split_lines
from topxgen.distributed import CAPACITY, Call, Plan, Pool
from topxgen.distributed.worker import Worker, environment
from topxgen.inference.engine_guard import EngineGuard

logger = logging.getLogger(__name__)

INSTALL = "pip install 'ray>=2.60'"
CONNECT_S = 5.0  # for a cluster to answer
POLL_S = 0.5  # how often a signal is looked for
WAIT_NOTICE_S = 30.0
GOODBYE_S = 0.5
MAX_LOSSES = 5  # workers, for one call or while they load: then it is the call or the model that ends them
# What a client of gRPC sends first, with empty settings; the server's own settings come back (RFC 9113, 3.4).
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS = 4


class _Actor:
    """A worker's actor and what it has to do."""

    def __init__(self, number: int):
        self.number = number
        self.handle = self.loading = None  # the latter while it loads
        self.calls: dict[Any, Call] = {}  # by the reference of the result
        self.capacity = 0

    @property
    def room(self) -> int:
        return self.capacity - sum(call.size for call in self.calls.values())


class RayPool(Pool):
    """See topxgen.distributed.Pool."""

    @classmethod
    def check(cls) -> None:
        _import_ray()
        if address := os.environ.get("RAY_ADDRESS"):
            check_address(address)

    def __init__(self, build: Callable[[], Any], plan: Plan):
        self._ray, self._plan = _connect(plan), plan
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        count, cpus, gpus = share(nodes, plan)
        self._options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        self._class = self._ray.remote(Worker)
        self._build = self._ray.put(build)  # once: the index of decontamination is large
        self._lost: dict[int, int] = {}  # how many workers each call has cost, by id
        self._waiting: deque[Call] = deque()  # of lost workers
        self._lost_loading = 0
        self._actors = [_Actor(number) for number in range(count)]
        self.capacity = CAPACITY * count
        try:
            for actor in self._actors:
                self._start(actor)
            began, noticed = time.monotonic(), False
            while all(actor.loading is not None for actor in self._actors):
                self._take_finished()
                if not noticed and time.monotonic() - began > WAIT_NOTICE_S:
                    noticed = True
                    logger.info(f"waiting for {count} Ray workers ({plan.what}) to start and load")
        except BaseException:
            self.close()
            raise

    def _start(self, actor: _Actor) -> None:
        actor.handle = self._class.options(**self._options).remote()
        actor.loading = actor.handle.load.remote(self._build, os.getcwd(), environment(), self._plan.log)

    def run(self, next_call: Callable[[], Call | None]) -> Iterator[tuple[Call, Any]]:
        try:
            while True:
                if signals.stop_requested():
                    self._waiting.clear()
                self._distribute(next_call)
                if not (self._waiting or any(actor.calls for actor in self._actors)):
                    return
                yield from self._take_finished()
        finally:  # the caller has enough, or failed: what is in work is dropped
            self._waiting.clear()
            self._lost.clear()
            for actor in self._actors:
                actor.calls.clear()

    def _distribute(self, next_call: Callable[[], Call | None]) -> None:
        while ready := [actor for actor in self._actors if actor.loading is None and actor.room > 0]:
            call = self._waiting.popleft() if self._waiting else next_call()
            if call is None:
                return
            actor = max(ready, key=lambda actor: actor.room)
            actor.calls[actor.handle.call.remote(call.method, *call.arguments)] = call

    def _take_finished(self) -> list[tuple[Call, Any]]:
        """Wait a little for something to finish: calls with their results. Lost workers are replaced, their calls wait."""
        by_reference = {
            reference: actor
            for actor in self._actors
            for reference in [*([] if actor.loading is None else [actor.loading]), *actor.calls]
        }
        references = list(by_reference)
        if not references:  # all workers were lost as the run was stopped
            self._waiting.clear()
            return []
        try:
            self._ray.wait(references, num_returns=1, timeout=POLL_S)
            done, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        except KeyboardInterrupt:  # as Ray raises whatever a handler of signals has raised
            if signals.stop_requested():
                raise signals.Stopped from None
            raise
        results = []
        for reference in done:
            actor = by_reference[reference]
            if reference is not actor.loading and reference not in actor.calls:  # of a worker just found to be lost
                continue
            try:
                value = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                cause = error.cause
                raise (cause if isinstance(cause, UsageError) else error) from None
            except self._ray.exceptions.RayError as error:
                self._replace(actor, error)
                continue
            if reference is actor.loading:
                actor.loading, actor.capacity, self._lost_loading = None, value, 0
                loaded = [one.capacity for one in self._actors if one.loading is None]
                self.capacity = len(self._actors) * max(loaded)
            else:
                call = actor.calls.pop(reference)
                self._lost.pop(id(call), None)
                results.append((call, value))
        return results

    def _replace(self, actor: _Actor, error: Exception) -> None:
        """Start another worker for one that is lost. Raises UsageError if that has happened too often."""
        calls, loading = list(actor.calls.values()), actor.loading is not None
        actor.calls.clear()
        self._ray.kill(actor.handle)  # if it is only out of reach, its GPU is wanted back
        if signals.stop_requested():  # by the signal that this process got
            actor.loading = None
            actor.capacity = 0
            return
        for call in calls:
            self._lost[id(call)] = self._lost.get(id(call), 0) + 1
        self._lost_loading += loading
        if max([self._lost_loading, *(self._lost[id(call)] for call in calls)]) >= MAX_LOSSES:
            raise UsageError(
                f"{MAX_LOSSES} Ray workers were lost one after the other {'as they loaded' if loading else 'with the same work'} "
                f"({_why(error)}), probably out of memory; finished work is on disk: pass a smaller --num_workers or model, and "
                "re-run the same command to resume"
            )
        self._waiting.extendleft(reversed(calls))
        logger.warning(
            f"Ray worker {actor.number} was lost ({_why(error)}); another one is started, and what it had in work ({len(calls)} calls) is "
            "done again"
        )
        self._start(actor)

    def close(self) -> None:
        for actor in self._actors:
            if actor.handle is not None and self._ray.is_initialized():
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
        have = f"{sum(gpus)} GPUs on {len(nodes)} nodes, and a worker needs {plan.gpus} on one node"
    else:
        room, of_each = sum(cpus), 0
        have = f"{room} cores"
        workers = plan.workers or (sum(number > 0 for number in cpus) if plan.gpus else room)
        fits = (n for n in range(max(cpus, default=0), 0, -1) if sum(number // n for number in cpus) >= workers)
        cores = 1 if not plan.gpus else next(fits, 1)
        plan = Plan(plan.scheduler, plan.what, workers, plan.gpus)
    count = plan.workers or room
    if not 0 < count <= room:
        raise UsageError(
            f"the Ray cluster has room for {room} workers ({have}), fewer than the {max(count, 1)} of --num_workers"
            if plan.workers
            else f"the Ray cluster has no room for a worker ({have}): pass a smaller --tensor_parallel_size, or a larger cluster"
        )
    return count, cores, of_each


def check_address(address: str) -> str:
    """The HOST:PORT of a running cluster, or "local". Raises UsageError if none answers."""
    if address == "local":
        return address
    if address.startswith("ray://"):
        raise UsageError(
            f"RAY_ADDRESS {address} is an address of Ray Client, which is not supported: run the command on a node of the cluster, with "
            "RAY_ADDRESS=auto"
        )
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address_or_die

        try:
            address = canonicalize_bootstrap_address_or_die(address)
        except Exception as error:
            raise UsageError(
                f"RAY_ADDRESS=auto: no Ray cluster runs on this node ({reason(error)}): start one (ray start --head), or unset "
                "RAY_ADDRESS for one of this machine alone"
            ) from None
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise UsageError(
            f"RAY_ADDRESS {address!r} is neither HOST:PORT nor auto; unset it for a cluster of this machine alone"
        )
    problem = "" if os.environ.get("RAY_USE_TLS") == "1" else _no_grpc(host.strip("[]"), int(port))
    if problem:
        raise UsageError(
            f"no Ray cluster answers at RAY_ADDRESS {address} ({problem}): start it, or unset RAY_ADDRESS for one of this machine alone"
        )
    return address


def _no_grpc(host: str, port: int) -> str:
    """Why no gRPC server answers there, as that of a cluster would; "" if one does. Ray itself waits for minutes."""
    try:
        with socket.create_connection((host, port), timeout=CONNECT_S) as connection:
            connection.sendall(_HTTP2_PREFACE)
            header = b""
            while len(header) < 9 and (more := connection.recv(9 - len(header))):
                header += more
    except OSError as error:
        return str(error.strerror or error)
    return "" if len(header) == 9 and header[3] == _SETTINGS else "what listens there is not Ray"


def _import_ray():
    # All are read as Ray is imported: no statistics to its makers; for a cluster of this machine alone the loopback address and a
    # token, without which others of this machine could run code in it.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if os.environ.get("RAY_ADDRESS", "local") == "local" and "ray" not in sys.modules:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"--distributed ray needs Ray ({reason(error)}): {INSTALL}") from None
    return ray


def _connect(plan: Plan):
    """Ray, connected to the cluster of RAY_ADDRESS, or to one of this machine alone that ends with this process."""
    ray = _import_ray()
    if ray.is_initialized():
        return ray
    address = check_address(os.environ.get("RAY_ADDRESS") or "local")
    options: dict[str, Any] = {"address": address}
    if address == "local":
        cores = len(os.sched_getaffinity(0))
        folder = tempfile.mkdtemp(prefix="ray-")  # short: the paths of sockets are limited
        options |= {"num_cpus": max(cores, plan.workers or 1), "include_dashboard": False, "_temp_dir": folder}
    try:
        # A scheduler's signals are for this process, which lets the workers finish.
        with (
            library_output_to(plan.log) if plan.log is not None else nullcontext(),
            signals.blocked_in_children(signal.SIGTERM, signal.SIGUSR1),
        ):
            guard = (
                EngineGuard() if address == "local" else None
            )  # Ray's agents outlive a killed command by half a minute
            before, handlers = _children(), {number: signal.getsignal(number) for number in signals.SIGNALS}
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
            own = _children() - before
            for number, handler in handlers.items():  # Ray's own for SIGTERM prints a stack and aborts
                signal.signal(number, handler)
    except (Exception, SystemExit) as error:
        if "_temp_dir" in options:
            shutil.rmtree(options["_temp_dir"], ignore_errors=True)
        raise UsageError(
            f"cannot {'start Ray' if address == 'local' else f'join the Ray cluster at {address}'} ({reason(error)})"
            + ("" if address == "local" else "; RAY_AUTH_MODE and RAY_AUTH_TOKEN must be those of the cluster")
            + (f"; see the end of {plan.log}" if plan.log is not None else "")
        ) from None
    _quiet(ray, plan.log)
    atexit.register(disconnect)  # now, so that it comes before Ray's own, which waits seconds for each of its processes
    _close_cluster.append(lambda: _disconnect(ray, own, options.get("_temp_dir"), guard))
    return ray


_close_cluster: list[Callable[[], None]] = []


def disconnect() -> None:
    """Leave the cluster, and end it if it is this machine's alone; also done as the process ends."""
    while _close_cluster:
        _close_cluster.pop()()


def _quiet(ray, log: Path | None) -> None:
    """What the cluster says about lost workers, which we say, goes to the log alone; Ray prints it to stderr and has no option."""

    def to_log(data: dict, *_, **__) -> None:
        if log is not None:
            with suppress(OSError), open(log, "a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in data.get("lines", ()))

    logging.getLogger("ray").setLevel(logging.ERROR)
    ray._private.worker.print_to_stdstream = to_log


def _children() -> set:
    import psutil

    return set(psutil.Process().children())


def _disconnect(ray, own: set, folder: str | None, guard: EngineGuard | None) -> None:
    """Leave the cluster; end the processes `own`, which are one of this machine's alone, at once, and remove its folder."""
    import psutil

    def end() -> None:
        processes = []
        for process in own:
            with suppress(psutil.NoSuchProcess):
                processes += [process, *process.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    # They block the SIGTERM of Ray, which would wait a second for each; killed before, it would wait longer to say goodbye.
    killer = threading.Timer(GOODBYE_S, end)
    try:
        killer.start()
    except RuntimeError:  # from Python 3.12 no thread can be started when the process ends
        end()
        killer = None
    with suppress(Exception):
        ray.shutdown()
    if killer is not None:
        killer.join()
    if guard is not None:
        guard.release()
        shutil.rmtree(folder, ignore_errors=True)
