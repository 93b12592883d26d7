"""Run a script that sends itself a signal at its first file operation once files have so many lines: at a place in its
work, however fast the machine is and whatever else it does.

    python tests/support/signalled.py '/tmp/run/*_answers.jsonl' 10 SIGKILL datagen.py …
"""

import glob
import os
import runpy
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.attack.file_operations import FileOperations


class Signalled(FileOperations):
    def __init__(self, pattern: str, lines: int, number: int):
        """`lines`: of all files that match, together; 0: there is one."""
        super().__init__("/")
        self._pattern, self._lines, self._number, self._armed = pattern, lines, number, True

    def __call__(self, operation: str, file) -> None:
        if not self._armed or os.getpid() != self._process:
            return
        self._armed = False  # counting lines is a file operation, too
        paths = map(Path, glob.glob(self._pattern, recursive=True))
        counts = [path.read_bytes().count(b"\n") if self._lines else 0 for path in paths]
        if counts and sum(counts) >= self._lines:
            os.kill(os.getpid(), self._number)
        else:
            self._armed = True


if __name__ == "__main__":
    pattern, lines, number, name, *args = sys.argv[1:]
    Signalled(pattern, int(lines), getattr(signal, number)).install()
    if name == "-m":
        sys.argv = args
        runpy.run_module(args[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [name, *args], str(Path(name).resolve().parent)
        runpy.run_path(name, run_name="__main__")
