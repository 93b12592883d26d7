"""What a run shows on stderr: log records, and one progress bar per stage (plain lines where there is no terminal)."""

import logging
import os
import re
import sys
import time
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

LINE_EVERY_S = 15.0
MAX_WARNING_CHARS = 8000  # a value of a damaged file may be as long as the file
_URL_USER = re.compile(r"(\b\w+://)[^\s/@'\"]+@")
_QUERY_SECRET = re.compile(
    r"([?&;#][\w.-]*(?:key|token|secret|sig|signature|password|passwd|auth)=)[^\s&;#'\"]+", re.IGNORECASE
)
_API_KEY = re.compile(r"\b(?:sk|hf|gsk|pk|xai|ghp|github_pat)[-_][A-Za-z0-9_-]{12,}")
ONCE = {"once": True}  # logger.warning("…", extra=ONCE): shown once per run, however often it is logged
_OUR_PACKAGES = ("topxgen", "comptra")
_HARMLESS = "\n\t\u00a0\u200c\u200d\u202f\u3000"
_open_bars: list["Progress"] = []
_terminal: TextIO | None = None  # where our lines go while library_output_to redirects stderr
_format_warning = warnings.formatwarning
_ONE_LINE = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t"})


def setup_logging(prog: str) -> None:
    """Show the log records of this project on stderr, errors as "{prog}: error: …". Call it once per command."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):  # a terminal that is not UTF-8 shows escapes, and does not end the run
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    remember_error("")
    logging.setLogRecordFactory(_PrintableRecord)
    warnings.formatwarning = lambda *args, **kwargs: printable(_format_warning(*args, **kwargs))
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _ConsoleHandler)]
    root.addHandler(_ConsoleHandler(prog))
    for package in _OUR_PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO)


def _open_closed_streams() -> None:
    """Without stdout (>&-) the next file that is opened would get its number, and what engines print there."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
        if getattr(sys, name) is None:
            stream = open(descriptor, "w" if descriptor else "r", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


class _PrintableRecord(logging.LogRecord):
    """Also of libraries whose own handlers print it: they quote config files and tokenizers."""

    def getMessage(self) -> str:
        return printable(super().getMessage())


class _ConsoleHandler(logging.Handler):
    """Log records as plain lines on stderr, above open progress bars.

    Of other libraries only warnings are shown. Of several training processes only the first one reports; errors are shown
    by whichever process has them.
    """

    def __init__(self, prog: str):
        super().__init__()
        self._prog = prog
        rank = os.environ.get("RANK", "")
        self._rank = int(rank) if rank.isdecimal() else 0  # train.py says what is wrong with it
        self._shown: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        ours = record.name.partition(".")[0] in _OUR_PACKAGES
        if record.levelno < (logging.INFO if ours else logging.WARNING):
            return False
        library = logging.getLogger(record.name.partition(".")[0])
        if not ours and library.handlers:  # it has printed this record itself; we alone print the next ones
            library.handlers.clear()
            return False
        if self._rank and record.levelno < logging.ERROR:
            return False
        if getattr(record, "once", False):
            message = record.getMessage()
            if message in self._shown:
                return False
            self._shown.add(message)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.WARNING and record.name.partition(".")[0] in _OUR_PACKAGES:
            message = message.replace("\n", "\\n")  # one line, whatever a file name or flag holds
            if len(message) > MAX_WARNING_CHARS:
                message = f"{message[: MAX_WARNING_CHARS // 2]} ... {message[-MAX_WARNING_CHARS // 4 :]}"
        if record.levelno >= logging.ERROR:
            remember_error(message)
            rank = f"rank {self._rank}: " if self._rank else ""
            message = f"{rank}{self._prog}: error: {message}"
        elif record.levelno >= logging.WARNING:
            message = f"WARNING: {message}"
        write_line(message)


_last_error = ""


def remember_error(message: str) -> None:
    global _last_error
    _last_error = message


def last_error() -> str:
    """The last error that this process has shown; "" if there was none."""
    return _last_error


def write_line(text: str) -> None:
    """Print a line on stderr without breaking an open progress bar."""
    if _open_bars:
        _open_bars[-1].write(text)
    else:
        print(printable(text), file=_terminal or sys.stderr, flush=True)


@contextmanager
def library_output_to(log: Path) -> Iterator[None]:
    """Append what libraries print meanwhile, on stdout and stderr, to `log`; our own messages still reach the terminal.

    Engines write straight to the file descriptors (C++ warnings, the output of worker processes), so these are redirected.
    Processes started meanwhile keep writing to `log`.
    """
    global _terminal
    log.parent.mkdir(parents=True, exist_ok=True)
    # O_NONBLOCK: a pipe that nobody reads is an error, and nothing waits for a reader.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    redirected = os.open(log, flags, 0o644)
    os.set_blocking(redirected, True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    saved = os.dup(1), os.dup(2)
    # A stream of its own for us; a sys.stderr that is no file (a test's) is not affected by the redirection.
    ours = None
    if sys.stderr is sys.__stderr__:
        ours = os.fdopen(os.dup(2), "w", encoding=sys.stderr.encoding, errors="backslashreplace")
    try:
        os.dup2(redirected, 1)
        os.dup2(redirected, 2)
        _terminal = ours
        yield
    finally:
        _terminal = None
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (*saved, redirected):
            os.close(descriptor)
        if ours is not None:
            ours.close()


@contextmanager
def quiet() -> Iterator[None]:
    """A block without log records below errors, of stages that are only estimated or computed again."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class Progress:
    """A bar of `total` units (None: unknown) that starts at `done`; `update` takes extra counts to show."""

    def __init__(self, stage: str, total: int | None, unit: str, done: int = 0, stream=None):
        self._stream = stream or sys.stderr
        self._stage, self._total, self._unit = stage, total, unit
        self._done = self._start = done
        self._began = self._last_line = time.monotonic()
        self._counts: dict[str, int | str] = {}
        self._bar = None
        if self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                desc=printable(stage), total=total, unit=f" {unit}", initial=done, file=self._stream, dynamic_ncols=True
            )

        _open_bars.append(self)

    def restart_clock(self) -> None:
        """Measure the rate from here on: loading a model says nothing about it."""
        self._start, self._began = self._done, time.monotonic()
        if self._bar is not None:
            self._bar.unpause()

    def rate(self) -> float | None:
        """Units per second since the clock was started; None if there were none."""
        elapsed = time.monotonic() - self._began
        return (self._done - self._start) / elapsed if self._done > self._start and elapsed > 0 else None

    def update(self, n: int = 0, **counts: int | str) -> None:
        self._done += n
        self._counts.update(counts)
        if self._bar is not None:
            self._bar.set_postfix(self._counts, refresh=False)
            self._bar.update(n)
        elif time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._line()

    def count(self, **more: int) -> None:
        """Add to extra counts, which the next update shows."""
        for name, n in more.items():
            self._counts[name] = self._counts.get(name, 0) + n

    def write(self, text: str) -> None:
        """Print a line without breaking the bar."""
        text = printable(text)
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def _line(self, finished: bool = False) -> None:
        now = time.monotonic()
        self._last_line = now
        elapsed = max(now - self._began, 1e-9)
        rate = (self._done - self._start) / elapsed
        counts = [f"{self._done}{'' if self._total is None else f'/{self._total}'} {self._unit}"]
        counts += [f"{value} {name.replace('_', ' ')}" for name, value in self._counts.items()]
        times = [f"{rate:.3g} {self._unit}/s"] if elapsed >= 1 else []
        times.append(f"{_clock(elapsed)} elapsed")
        if self._total is not None and rate > 0 and not finished:
            times.append(f"{_clock((self._total - self._done) / rate)} left")
        self.write(f"{self._stage}: {', '.join(counts)} ({', '.join(times)})")

    def close(self) -> None:
        if self in _open_bars:
            _open_bars.remove(self)
        if self._bar is not None:
            self._bar.close()
        else:
            self._line(finished=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def counted(count: int, one: str, many: str = "") -> str:
    """`count` and what is counted: "1 row", "2 rows"; `many` unless it is `one` with an s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def show(text: str) -> None:
    """Print on stdout. Nothing else in this project prints there: all outside text passes through `printable`."""
    print(printable(text), flush=True)


def printable(text: str) -> str:
    """`text` with control characters escaped: text from models, files and flags must not drive the user's terminal.

    Joiners and no-break spaces stay, which many scripts are written with; bidirectional overrides do not. Secrets in URLs,
    such as https://user:password@host and ?api_key=..., become ***.
    """
    text = without_secrets(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _HARMLESS else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    """`text` as printable() has it, with line breaks and tabs escaped, too."""
    return printable(text).translate(_ONE_LINE)


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """The rows of a table as lines; the first `left` columns are aligned to the left, the others to the right."""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        gaps = [" " * (wide - width(cell)) for cell, wide in zip(row, widths, strict=True)]
        cells = [cell + gap if i < left else gap + cell for i, (cell, gap) in enumerate(zip(row, gaps, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def markdown_table(head: Sequence[str], rows: Iterable[Iterable[str]], right: int = 0) -> str:
    """Cells, which are Markdown already, as a table; the last `right` columns are numbers."""
    marks = ["---"] * (len(head) - right) + ["---:"] * right
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, marks, *rows))


def width(text: str) -> int:
    """The columns that `text` takes in a terminal: two for a wide character (East Asian, emoji), none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def without_secrets(text: str) -> str:
    """`text` with *** for user names and passwords in URLs and for what looks like an API key."""
    return _API_KEY.sub("***", _QUERY_SECRET.sub(r"\1***", _URL_USER.sub(r"\1***@", text)))
