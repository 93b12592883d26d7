"""Systems with the UDHR, and the report on them."""

import json
from pathlib import Path

import numpy as np

from tests.support.evaluations import RUN, UDHR, settings, udhr, write
from tests.support.runs import in_process

LENGTHS = '''
"""Metrics of segments: characters of the translation per character of the source, none for "null"; and the same, lower is better."""
from comptra.scores.metrics import Metric


class Length:
    row = Metric("", title="length", low=0, high=9, reads=("source",), of_segments=True)

    def __init__(self, settings):
        self.fingerprint = self.signature = "length"

    def score(self, segments, src, tgt):
        return [None if "null" in one.translation else len(one.translation) / len(one.source) for one in segments]

    def close(self):
        pass


class Excess(Length):
    row = Metric("", title="excess", low=0, high=9, higher_is_better=False, reads=("source",), of_segments=True)


def digits(test, settings):
    """A user's own metric of sums, most of which are zero."""
    import numpy as np
    from comptra.scores.metrics import Scorer

    count = lambda texts: np.array([[float(sum(map(str.isdigit, text)))] for text in texts])
    return Scorer("digits", "digits", count, lambda sums: sums[..., 0])
'''


def system(model: str, translations: list[str], tgt: str = "Basque", **more) -> Path:
    folder = Path("runs", model, RUN.format("English", tgt))
    return write(folder, udhr("English", tgt).sources[: len(translations)], translations, settings(tgt=tgt, **more))


def evaluate(*args, code: int = 0, names=("chrf",)) -> tuple[dict, str]:
    """The report, and all that was printed."""
    result = in_process(
        "comptra.evaluate", "runs", *UDHR, "--metrics", *names, "--trials", 500, "--json", "out.json", *args
    )
    assert result.returncode == code, result.stderr
    return json.loads(Path("out.json").read_text()) if code == 0 else {}, result.stdout + result.stderr


def means(values) -> np.ndarray:
    return np.column_stack([np.array(values, float), np.ones(len(values))])


def mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]
