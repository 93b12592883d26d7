"""Read files that may be growing, foreign or vanishing: unreadable lines are skipped and counted."""

from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, refuse_stand_in
from topxgen.common.records import other_language
from topxgen.common.schemas import decode


class Problems:
    """What was left out, a line for each file: its first problem, and how many more there are. `cut`: the files whose last line
    is not complete, which is no fault of a run that goes on."""

    def __init__(self):
        self._of_file: dict[Path, tuple[str, int]] = {}
        self.cut: dict[Path, str] = {}

    def add(self, path: Path, problem: str) -> None:
        first, count = self._of_file.get(path, (problem, 0))
        self._of_file[path] = first, count + 1

    def add_of_second_reading(self, other: "Problems") -> None:
        """Those of files that had none when they were read first, as a disk may fail at any time."""
        self._of_file = {**other._of_file, **self._of_file}

    def lines(self, with_cut: bool = True) -> tuple[str, ...]:
        faults = (
            f"{path}{first}" + (f"; {count - 1} more lines of it are left out" if count > 1 else "")
            for path, (first, count) in self._of_file.items()
        )
        return *faults, *(f"{path}{problem}" for path, problem in self.cut.items() if with_cut)


def read_lines(path: Path, schema: type, problems: Problems) -> Iterator[tuple[int, dict]]:
    """(number from 1, record) of each line of a JSONL file that fits `schema`; nothing if the file does not exist.

    A last line without its line break, which another process may be writing, is left out unless it is whole.
    """
    try:
        if not path.exists():
            return
        refuse_stand_in(path)
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(BOM_UTF8)
                if line.isspace() or not line:
                    continue
                try:
                    record = decode(line, schema)
                except ValueError as error:
                    problem = f", line {number} is left out: {error}"
                    if line.endswith(b"\n"):
                        problems.add(path, problem)
                    else:
                        problems.cut[path] = f"{problem} (the file is being written, or a run was killed)"
                    continue
                yield number, record
    except OSError as error:
        problems.add(path, f" cannot be read: {error.strerror}")
    except UsageError as error:
        problems.add(path, f" is left out: it{str(error).removeprefix(str(path))}")


def read_file(path: Path, schema: type, problems: Problems) -> dict:
    """A JSON file; {} if there is none, or none that can be read."""
    try:
        content = read_json(path, schema)
        if (problem := other_language(path, content)) is None:
            return content
        problems.add(path, f" is left out: {problem}")
    except OSError as error:
        problems.add(path, f" cannot be read: {error.strerror}")
    except UsageError as error:
        problems.add(path, f" is left out: {str(error).removeprefix(f'{path}: ')}")
    return {}
