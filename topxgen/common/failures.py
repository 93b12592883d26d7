"""Records of failed stages: run/failed/{stage}.json in the run's folder.

scripts/run.py and the jobs under SLURM give a stage the path; the stage writes the file, or if it cannot (it was killed), they do. The
next start of the stage removes it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Required, TypedDict

from topxgen.common import console
from topxgen.common.files import write_json
from topxgen.common.provenance import now

FOLDER = "failed"
VARIABLE = "TOPXGEN_FAILURE"  # the environment variable with the path
NO_FAILURE = (0, 3, 130, 141, 143)  # finished, also incomplete; or stopped by someone
MAX_CHARS = 1000  # of an error: exceptions of libraries may quote what they were given


class Failure(TypedDict, total=False):
    exit_code: Required[int]
    failed: Required[str]  # when
    error: str  # the first error line of the process that failed first
    script: str
    folder: str  # that it works in, from the folder of this file


class Outcome:
    """What a script says of itself while it runs."""

    exit_code: int = 0
    folder: Path | None = None


_given: Path | None = None


def given() -> Path | None:
    """Where this process is to leave its failure; for a process that starts stages, where they are."""
    return _given


@contextmanager
def noted(script: str) -> Iterator[Outcome]:
    """A block whose failure is written where VARIABLE says, unless a process of the same stage has done so before."""
    global _given
    path = os.environ.pop(VARIABLE, None)  # not for processes that this one starts
    _given = Path(path) if path else None
    outcome, error = Outcome(), ""
    try:
        yield outcome
    except SystemExit as end:  # argparse
        outcome.exit_code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    except Exception as exception:
        outcome.exit_code, error = 1, f"{type(exception).__name__}: {exception}"
        raise
    finally:
        error = error or console.last_error()
        if _given and error and outcome.exit_code not in NO_FAILURE:
            own = {"script": script, "error": console.one_line(error)[:MAX_CHARS]}
            if outcome.folder is not None:
                own["folder"] = os.path.relpath(outcome.folder, _given.parent)
            write(_given, outcome.exit_code, **own)


def write(path: Path, exit_code: int, **more: str) -> None:
    """Leave what is known, unless more is known already; a full disk must not hide the failure itself."""
    with suppress(OSError):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, Failure(exit_code=exit_code, failed=now(), **more))


def clear(records: Path, stage: str) -> None:
    """Remove those of a stage, and of the jobs that do parts of it (datagen.generate-3.json)."""
    for path in (*(records / FOLDER).glob(f"{stage}.json"), *(records / FOLDER).glob(f"{stage}.*.json")):
        path.unlink(missing_ok=True)
