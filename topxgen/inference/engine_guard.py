"""Engine processes must not outlive us: vLLM's keep decoding, and keep the GPU, when their parent is killed.

A guard process keeps a list of our descendants and sleeps on a pipe that only we hold open. When we die,
however we die, the pipe closes and the guard kills them; when we release it, it just leaves.
"""

import os
import subprocess
import sys

_GUARD = """
import select, sys
import psutil
parent, seen = psutil.Process(int(sys.argv[1])), set()
while True:
    try:
        seen.update(child for child in parent.children(recursive=True) if child.pid != psutil.Process().pid)
    except psutil.NoSuchProcess:
        pass
    if select.select([sys.stdin], [], [], 1.0)[0]:
        if sys.stdin.readline() == "":
            for child in seen:
                try:
                    child.kill()  # psutil knows a process from another that got its number
                except psutil.NoSuchProcess:
                    pass
        break
"""


class EngineGuard:
    """Watches over the processes that descend from this one, from before the engine starts until `release`."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _GUARD, str(os.getpid())],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C at the terminal is not for it
        )

    def release(self) -> None:
        if self._process.poll() is None:
            self._process.stdin.write("released\n")
            self._process.stdin.close()
            self._process.wait()
