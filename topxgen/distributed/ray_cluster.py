"""The Ray cluster that this process joins, or starts on this machine alone: checked, quiet, and left without a trace."""

import atexit
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

from topxgen.common import signals
from topxgen.common.console import library_output_to
from topxgen.common.errors import UsageError, reason
from topxgen.distributed import Plan
from topxgen.inference.engine_guard import EngineGuard

INSTALL = "pip install 'ray>=2.60'"
CONNECT_S = 5.0  # for a cluster to answer
GOODBYE_S = 0.5
# What a client of gRPC sends first, with empty settings; the server's own settings come back (RFC 9113, 3.4).
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS = 4


def check() -> None:
    """Raise UsageError if Ray is not installed or the cluster of RAY_ADDRESS does not answer."""
    _import_ray()
    if address := os.environ.get("RAY_ADDRESS"):
        check_address(address)


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


def connect(plan: Plan):
    """Ray, connected to the cluster of RAY_ADDRESS, or to one of this machine alone that ends with this process."""
    ray = _import_ray()
    if ray.is_initialized():
        return ray
    address, folder, options = check_address(os.environ.get("RAY_ADDRESS") or "local"), None, {}
    if address == "local":
        cores = len(os.sched_getaffinity(0))
        folder = tempfile.mkdtemp(prefix="ray-")  # short: the paths of sockets are limited
        options = {"num_cpus": max(cores, plan.workers or 1), "include_dashboard": False, "_temp_dir": folder}
    try:
        # A scheduler's signals are for this process, which lets the workers finish.
        with (
            library_output_to(plan.log) if plan.log is not None else nullcontext(),
            signals.blocked_in_children(*signals.SIGNALS),
        ):
            guard = EngineGuard() if folder else None  # Ray's agents outlive a killed command by half a minute
            before, handlers = _children(), {number: signal.getsignal(number) for number in signals.SIGNALS}
            ray.init(address, **options, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
            own = _children() - before
            for number, handler in handlers.items():  # Ray's own for SIGTERM prints a stack and aborts
                signal.signal(number, handler)
    except (Exception, SystemExit) as error:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        why, remedy = reason(error), "RAY_AUTH_MODE and RAY_AUTH_TOKEN must be those of the cluster"
        if why.startswith("RuntimeError: Version mismatch"):
            why, remedy = " ".join(str(error).split()), "all nodes need the same versions"
        raise UsageError(
            f"cannot {'start Ray' if folder else f'join the Ray cluster at {address}'} ({why})"
            + ("" if folder else f"; {remedy}")
            + (f"; see the end of {plan.log}" if plan.log is not None else "")
        ) from None
    _quiet(ray, plan.log)
    atexit.register(disconnect)  # now, so that it comes before Ray's own, which waits seconds for each of its processes
    _close_cluster.append(lambda: _disconnect(ray, own, folder, guard))
    return ray


_close_cluster: list[Callable[[], None]] = []


def disconnect() -> None:
    """Leave the cluster, and end it if it is this machine's alone; also done as the process ends."""
    while _close_cluster:
        _close_cluster.pop()()


def _quiet(ray, log: Path | None) -> None:
    """Ray's messages about lost workers go to the log alone, since we report those ourselves; Ray has no option for that."""

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
