"""What a run shows on stderr: log records, and one progress bar per stage (plain lines where there is no terminal)."""

import logging
import os
import sys
import time

LINE_EVERY_S = 15.0
ONCE = {"once": True}  # logger.warning("…", extra=ONCE): shown once per run, however often it is logged
_OUR_PACKAGES = ("topxgen", "comptra")
_open_bars: list["Progress"] = []


def setup_logging(prog: str) -> None:
    """Show the log records of this project on stderr, errors as "{prog}: error: …". Call it once per command."""
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _ConsoleHandler)]
    root.addHandler(_ConsoleHandler(prog))
    for package in _OUR_PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO)


class _ConsoleHandler(logging.Handler):
    """Log records as plain lines on stderr, above open progress bars.

    Of other libraries only warnings are shown. Of several training processes only the first one reports; errors are shown
    by whichever process has them.
    """

    def __init__(self, prog: str):
        super().__init__()
        self._prog = prog
        self._rank = int(os.environ.get("RANK", 0))
        self._shown: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        ours = record.name.partition(".")[0] in _OUR_PACKAGES
        if record.levelno < (logging.INFO if ours else logging.WARNING):
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
        if record.levelno >= logging.ERROR:
            rank = f"rank {self._rank}: " if self._rank else ""
            message = f"{rank}{self._prog}: error: {message}"
        elif record.levelno >= logging.WARNING:
            message = f"WARNING: {message}"
        write_line(message)


def write_line(text: str) -> None:
    """Print a line on stderr without breaking an open progress bar."""
    if _open_bars:
        _open_bars[-1].write(text)
    else:
        print(text, file=sys.stderr, flush=True)


class Progress:
    """A bar of `total` units (None: unknown) that starts at `done`; `update` takes extra counts to show."""

    def __init__(self, stage: str, total: int | None, unit: str, done: int = 0, stream=None):
        self._stream = stream or sys.stderr
        self._stage, self._total, self._unit = stage, total, unit
        self._done = self._start = done
        self._began = self._last_line = time.monotonic()
        self._counts: dict[str, int] = {}
        self._bar = None
        if self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                desc=stage, total=total, unit=f" {unit}", initial=done, file=self._stream, dynamic_ncols=True
            )

        _open_bars.append(self)

    def restart_clock(self) -> None:
        """Measure the rate from here on: loading a model says nothing about it."""
        self._start, self._began = self._done, time.monotonic()
        if self._bar is not None:
            self._bar.unpause()

    def update(self, n: int = 0, **counts: int) -> None:
        self._done += n
        self._counts.update(counts)
        if self._bar is not None:
            self._bar.set_postfix(self._counts, refresh=False)
            self._bar.update(n)
        elif time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._line()

    def write(self, text: str) -> None:
        """Print a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def _line(self) -> None:
        now = time.monotonic()
        self._last_line = now
        rate = (self._done - self._start) / max(now - self._began, 1e-9)
        total = "" if self._total is None else f"/{self._total}"
        left = ""
        if self._total is not None and rate > 0:
            left = f", {_clock((self._total - self._done) / rate)} left"
        counts = "".join(f", {value} {name.replace('_', ' ')}" for name, value in self._counts.items())
        self.write(
            f"{self._stage}: {self._done}{total} {self._unit}{counts}, {rate:.2f} {self._unit}/s, "
            f"{_clock(now - self._began)} so far{left}"
        )

    def close(self) -> None:
        if self in _open_bars:
            _open_bars.remove(self)
        if self._bar is not None:
            self._bar.close()
        else:
            self._line()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def printable(text: str) -> str:
    """`text` with control characters escaped: a model's answer must not drive the user's terminal."""
    return "".join(char if char.isprintable() or char == "\n" else f"\\x{ord(char):02x}" for char in text)
