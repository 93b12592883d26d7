"""Why a local engine could not start, by its exception or its log."""

import re
from pathlib import Path

from topxgen.common.errors import reason

_ERROR = re.compile(r"(?:^|[\])] )((?:\w+\.)*\w*(?:Error|Exception): .+)")
_POINTERS = ("root cause", "initialization failed")  # of vLLM's errors about errors of its processes
MAX_CHARS = 300


def size(log: Path | None) -> int:
    """Bytes of the log so far; 0 if there is none, or it is a pipe."""
    return log.stat().st_size if log is not None and log.is_file() else 0


def cause(error: Exception, log: Path | None, start: int = 0) -> str:
    """The type and message of `error`; if it only points to another one, of the last other one in the log behind byte `start`."""
    if not _points(str(error)) or log is None or not log.is_file():
        return reason(error)
    with open(log, "rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", "replace").split("\n")
    errors = (match[1].strip()[:MAX_CHARS] for line in reversed(lines) if (match := _ERROR.search(line)))
    return next((found for found in errors if not _points(found)), reason(error))


def _points(message: str) -> bool:
    return any(pointer in message for pointer in _POINTERS)
