"""Kills the engine's processes if this one is killed: vLLM's would go on decoding and keep the GPU.

A guard process lists the descendants of this one and waits on a pipe that only this one holds open. When this process
dies, the pipe closes and the guard kills them; after `release` the guard just exits.
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
                    child.kill()  # psutil recognises a reused process id
                except psutil.NoSuchProcess:
                    pass
        break
"""


class EngineGuard:
    """Watches the descendants of this process, from before the engine starts until `release`."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _GUARD, str(os.getpid())],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # out of reach of a Ctrl-C at the terminal
        )

    def release(self) -> None:
        if self._process.poll() is None:
            self._process.stdin.write("released\n")
            self._process.stdin.close()
            self._process.wait()
