"""Engine processes must not outlive us: vLLM's keep decoding, and keep the GPU, when their parent is killed.

A guard process sleeps on a pipe that only we hold open. When we die, however we die, the pipe closes and
the guard kills the engine processes; when we release it, it just leaves.
"""

import subprocess
import sys

_GUARD = """
import os, signal, sys
pids = [int(pid) for pid in sys.stdin.readline().split()]
if sys.stdin.readline() == "":
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
"""


class EngineGuard:
    """Watches over the processes that descend from this one at the moment of its making."""

    def __init__(self):
        import psutil

        pids = [child.pid for child in psutil.Process().children(recursive=True)]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _GUARD], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        self._process.stdin.write(" ".join(map(str, pids)) + "\n")
        self._process.stdin.flush()

    def release(self) -> None:
        if self._process.poll() is None:
            self._process.stdin.write("released\n")
            self._process.stdin.close()
            self._process.wait()
