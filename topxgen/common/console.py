"""One progress bar a stage: counts, rate and time left; plain lines now and then when there is no terminal."""

import sys
import time

LINE_EVERY_S = 15.0


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

    def restart_clock(self) -> None:
        """Begin to measure here: what came before (loading a model) says nothing of the rate."""
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


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
