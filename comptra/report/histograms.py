"""Distributions of any number of values in little memory: exact counts in narrow bins, which are joined where they become many."""

from collections import Counter
from collections.abc import Iterable
from math import floor, isfinite

MAX_BINS = 4096
PERCENTILES = (5, 25, 50, 75, 95)


class Histogram:
    """Counts of values by bins of a width, which doubles when there are more than MAX_BINS of them."""

    def __init__(self, width: float = 1.0):
        self.width, self.count, self.total, self.low, self.high = width, 0, 0.0, None, None
        self._bins: Counter[int] = Counter()

    def add(self, value: float, times: int = 1) -> None:
        """Values that are not finite are not counted."""
        if not isfinite(value):
            return
        self.count += times
        self.total += value * times
        if self.low is None:
            self.low = self.high = value
        elif value < self.low:
            self.low = value
        elif value > self.high:
            self.high = value
        self._bins[floor(value / self.width + 1e-9)] += times  # 0.29 / 0.01 is a little less than 29
        while len(self._bins) > MAX_BINS:
            self._widen()

    def _widen(self) -> None:
        bins, self.width = Counter(), self.width * 2
        for number, count in self._bins.items():
            bins[number // 2] += count
        self._bins = bins

    def percentile(self, percent: float) -> float | None:
        """The beginning of the bin that has it: exact for integers in bins of width 1."""
        rest = percent / 100 * self.count
        for number in sorted(self._bins):
            rest -= self._bins[number]
            if rest <= 0:
                return min(max(number * self.width, self.low), self.high)
        return self.high

    def summary(self) -> dict:
        """`count`, and unless it is 0 `mean`, `low`, `high` and the percentiles (`p50`)."""
        if not self.count:
            return {"count": 0}
        percentiles = {f"p{percent}": _rounded(self.percentile(percent)) for percent in PERCENTILES}
        ends = {"low": _rounded(self.low), "high": _rounded(self.high)}
        return {"count": self.count, "mean": _rounded(self.total / self.count), **ends, **percentiles}

    def rebinned(self, start: float, width: float, bins: int) -> list[int]:
        """Counts in `bins` bins from `start` on; what lies beyond is in the first and the last."""
        counts = [0] * bins
        for number, count in self._bins.items():
            place = floor((number * self.width - start) / width + 1e-9)
            counts[min(max(place, 0), bins - 1)] += count
        return counts


def shared_bins(histograms: Iterable[Histogram], bins: int = 40) -> tuple[float, float, int]:
    """(start, width, number) of at most `bins` bins for all of these histograms: where all but 2 in 1,000 values of each lie."""
    filled = [histogram for histogram in histograms if histogram.count]
    if not filled:
        return 0.0, 1.0, 1
    low, high = min(h.percentile(0.1) for h in filled), max(h.percentile(99.9) for h in filled)
    width = max(h.width for h in filled)
    width *= max(1, -(-((high - low) / width + 1) // bins))  # whole bins of the widest, so that no count is split
    start = floor(low / width + 1e-9) * width
    return _rounded(start), _rounded(width), min(bins + 1, floor((high - start) / width + 1e-9) + 1)


def _rounded(value: float) -> float:
    return float(f"{value:.9g}")
