"""SIGTERM and SIGUSR1, which job schedulers send before they kill: finish what is in flight, stop, exit with 143.

The first signal raises Stopped in the main thread, or, inside `finishing`, is only noted. A thread, which does not wait for
long calls of other libraries, ends a process that takes too long to stop. A second signal ends the process at once. Every
file survives that (topxgen/common/files.py); what is finished first is work that is paid for.
"""

import atexit
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

EXIT_CODE = 143
# Together less than the 30 s that SLURM and Kubernetes give a process before they kill it.
FINISH_S, CLOSE_S = 15.0, 10.0
REPEATED_S = 1.0  # a launcher and a scheduler may both send the first signal
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
PARENT = "TOPXGEN_PARENT"  # the environment variable with the process that starts a stage


class Stopped(KeyboardInterrupt):
    """A signal asked the run to stop; handled where Ctrl-C is."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in a block of Python code that takes longer; in the main thread only, others have no limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_):
        raise TimeoutError(f"it took more than {seconds:g} s")

    handler, timer = signal.signal(signal.SIGALRM, end), signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


class _State:
    def __init__(self):
        self.requested = self.raised = self.overdue = False
        self.finishing: list[bool] = []  # for each `finishing` that is entered, whether its time is limited


_state = _State()


def stop_requested() -> bool:
    """Whether a signal asked the run to stop: nothing new should be started."""
    return _state.requested


@contextmanager
def finishing(limited: bool = True) -> Iterator[None]:
    """A block that a signal does not interrupt: it should end soon once `stop_requested`, after which Stopped is raised.

    It has FINISH_S for that; without `limited` it has all the time it needs, and its caller stops the run itself.
    """
    _state.finishing.append(limited)
    try:
        yield
    finally:
        _state.finishing.remove(limited)
    if _state.requested and False not in [limited, *_state.finishing]:
        raise Stopped  # also if it was raised before: in a destructor, say, Python ignores exceptions


@contextmanager
def noting_interrupts(act: Callable[[], None]) -> Iterator[list[int]]:
    """A block in which the first Ctrl-C only calls `act`, and adds to what this yields; the block should end soon then, and
    KeyboardInterrupt is raised at its end. A second Ctrl-C raises it at once, and in other threads than the main one the first."""
    noted: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield noted
        return

    def note(number: int, frame) -> None:
        noted.append(number)
        if len(noted) > 1:
            signal.default_int_handler(number, frame)
        act()

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        with suppress(ValueError):  # the garbage collector may end an abandoned generator in another thread
            signal.signal(signal.SIGINT, before)
        if noted:
            raise KeyboardInterrupt


def _on_signal(*_) -> None:
    _state.requested = True
    if not _state.raised and (not _state.finishing or _state.overdue):
        _state.raised = True
        raise Stopped


@contextmanager
def handled() -> Iterator[None]:
    """Handle both signals in this block, which runs in the main thread."""
    global _state
    _state = _State()
    atexit.register(_ignore)  # first, so that it runs last
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handlers = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # gets the number of each signal as it arrives
    watcher = threading.Thread(target=_watch, args=(reading,), name="signals", daemon=True)
    watcher.start()
    stopped = False
    try:
        yield
    except Stopped:
        stopped = True  # the thread stays, for engines that shut down when the interpreter ends
        raise
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            # Until the interpreter has ended, a signal has the same exit code as before.
            signal.signal(number, _exit if handler is signal.SIG_DFL else handler)
        if not stopped:
            os.close(writing)  # ends the thread
            watcher.join()


def stop_with_parent() -> None:
    """If this process is a stage of scripts/run.py, have Linux send it SIGTERM when that one is killed."""
    parent = os.environ.pop(PARENT, None)  # not for processes that this one starts
    if parent != str(os.getppid()) or not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG
    if parent != str(os.getppid()):  # killed meanwhile
        os.kill(os.getpid(), signal.SIGTERM)


def _exit(*_) -> None:
    os._exit(EXIT_CODE)


def _ignore() -> None:
    """Ignore the signals while the interpreter ends, when Python would give them back their own effect and exit code."""
    for number in SIGNALS:
        if signal.getsignal(number) is _exit:
            signal.signal(number, signal.SIG_IGN)


def _watch(reading: int) -> None:
    """Enforce the time limits, from the first signal on."""
    began, quiet_until = None, 0.0
    with os.fdopen(reading, "rb", buffering=0) as signals:
        while True:
            ready, _, _ = select.select([signals], [], [], None if began is None else 0.1)
            numbers, now = signals.read(64) if ready else b"\0", time.monotonic()
            if not numbers:
                return
            if any(number in SIGNALS for number in numbers):
                if began is None:
                    began, quiet_until = now, now + REPEATED_S
                elif now > quiet_until:
                    _end("stopped at once by a second signal")
            if began is not None and False in _state.finishing:
                began = now  # what comes after it has its time, too
            if began is None or False in _state.finishing:
                continue
            if now > began + FINISH_S + CLOSE_S:
                _end(f"stopped {FINISH_S + CLOSE_S:.0f} s after a signal")
            if now > began + FINISH_S and _state.finishing and not _state.overdue:
                _state.overdue, quiet_until = True, now + REPEATED_S
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)  # interrupts what it waits for


def _end(message: str) -> None:
    """End this process and all that it started."""
    with suppress(OSError):
        os.write(2, f"\n{message}; re-run the same command to resume\n".encode())
    end_with_children(EXIT_CODE)


def end_with_children(exit_code: int) -> NoReturn:
    """End this process and all that it started, at once."""
    with suppress(Exception):
        import psutil

        for child in psutil.Process().children(recursive=True):
            child.kill()
    os._exit(exit_code)


@contextmanager
def blocked_in_children(*numbers: signal.Signals) -> Iterator[None]:
    """Processes that are started in this block never get these signals: this one stops them.

    Schedulers send a signal to all processes of a job, and workers must not end before what they work on is finished.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
