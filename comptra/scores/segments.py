"""Metrics on the translations of all systems: statistics of each segment, from functions of a Test or from SegmentMetrics.

A SegmentMetric scores each distinct segment once, whatever number of systems and runs has it (comptra.scores.segment_cache).
An empty translation is not sent to it: it gets the worst score of the metric's range, or a system could gain by not answering
(COMET, for one, likes empty translations better than bad ones: Zouhar et al. 2024, Pitfalls and Outlooks in Using COMET).
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comptra.ordered_jsonl import shortened
from comptra.scores import metrics
from comptra.scores.metrics import METRICS, Metric, MetricSettings, Scorer, Segment, SegmentMetric, Test
from comptra.scores.segment_cache import ScoreCache, keys_of, last_scores
from topxgen.common import signals
from topxgen.common.console import Progress
from topxgen.common.errors import UnknownLanguage, UsageError, reason
from topxgen.common.registry import load_choice
from topxgen.text.languages import Language
from topxgen.text.words import is_blank

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)
BLOCK = 512  # segments that are scored before their scores are saved
# What leaves out one metric and not the others: a missing or broken model, no memory for it.
FAILURES = (UsageError, OSError, ImportError, RuntimeError, MemoryError)
Job = tuple[Test, list[list[str]]]  # a test set, and the translations of each system


@dataclass(frozen=True)
class Measured:
    """A metric on a test set and its systems."""

    scorer: Scorer
    statistics: list["np.ndarray"]  # of each system, (segments, m)
    counts: list[int]  # of each system, how many segments have a score


def row_of(name: str) -> Metric:
    """What is known of a metric before it is loaded. A SegmentMetric of the user's own says it in its attribute `row`.

    Raises UsageError if there is no such metric.
    """
    if name in METRICS:
        return METRICS[name]
    own = load_choice("--metrics", name, METRICS)
    if isinstance(own, type) and not isinstance(getattr(own, "row", None), Metric):
        raise UsageError(
            f"--metrics {name!r} is a class without a row: a metric of segments says in `row`, a Metric, its range and what it reads"
        )
    return getattr(own, "row", None) or Metric(name)


def load(names: Sequence[str], settings: MetricSettings) -> tuple[dict[str, SegmentMetric], dict[str, str]]:
    """The metrics of segments among `names`, and why others of them cannot be used; no weights are loaded.

    Raises UsageError for a name that does not exist.
    """
    rows = {name: row_of(name) for name in names}
    loaded, failed = {}, {}
    for name, row in rows.items():
        if row.of_segments:
            try:
                loaded[name] = load_choice("--metrics", name, METRICS)(settings)
            except FAILURES as error:
                failed[name] = problem_of(error)
    return loaded, failed


def measure(
    name: str, metric: SegmentMetric | None, jobs: Sequence[Job], settings: MetricSettings, cache: ScoreCache
) -> tuple[list[Measured | None], str]:
    """The metric `name` on each of `jobs`, and why it is left out; "" if it is not.

    `metric`: as `load` gives it, None for a metric that is a function of a Test. It is closed. None among the results: the
    metric does not know a language of the job, compares with a baseline that others have, or was left out before.
    """
    measured: list[Measured | None] = [None] * len(jobs)
    has_rivals = "rival" in row_of(name).reads and any(test.rivals is not None for test, _ in jobs)
    try:
        for i, (test, systems) in enumerate(jobs):
            if has_rivals and test.rivals is None:
                continue
            try:
                measured[i] = _measure_one(name, metric, test, systems, settings, cache)
            except UnknownLanguage as error:
                logger.info(f"{name} from {test.src.name} into {test.tgt.name} has no scores: {error}")
    except FAILURES as error:
        if signals.stop_requested():
            raise
        return measured, problem_of(error)
    finally:
        if metric is not None:
            metric.close()
    return measured, ""


def problem_of(error: Exception) -> str:
    return str(error) if isinstance(error, UsageError) else reason(error)


def _measure_one(
    name: str,
    metric: SegmentMetric | None,
    test: Test,
    systems: list[list[str]],
    settings: MetricSettings,
    cache: ScoreCache,
) -> Measured | None:
    import numpy as np

    for translations in systems:
        if len(translations) != len(test.sources):
            raise UsageError(f"{name}: {len(translations)} translations of {len(test.sources)} sentences")
    if metric is None:
        scorer = metrics.create(name, test, settings)
    else:
        scorer = scorer_of(name, metric, test, cache)
        everything = [segment for translations in systems for segment in _segments(name, test, translations)]
        score(name, metric, everything, test.src, test.tgt, cache)  # one call: the metric can batch across systems
    if scorer is None:
        return None
    found = [np.asarray(scorer.statistics(translations), float) for translations in systems]
    for translations, statistics in zip(systems, found, strict=True):
        if len(bad := np.argwhere(~np.isfinite(statistics))):
            raise UsageError(
                f"{name} gives {statistics[tuple(bad[0])]} for segment {bad[0][0] + 1}, {shortened(translations[bad[0][0]])}"
            )
    counts = [int(one[:, -1].sum()) if metric is not None else len(one) for one in found]
    return Measured(scorer, found, counts)


def scorer_of(name: str, metric: SegmentMetric, test: Test, cache: ScoreCache) -> Scorer:
    """A SegmentMetric as a Scorer: its statistics are (score or 0, 1 or 0), so that the score of their sums is the mean."""
    import numpy as np

    def statistics(translations: list[str]) -> np.ndarray:
        values = score(name, metric, _segments(name, test, translations), test.src, test.tgt, cache)
        return np.array([[value or 0.0, value is not None] for value in values], float).reshape(-1, 2)

    def mean(sums: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):  # NaN without any score
            return sums[..., 0] / sums[..., 1]

    row = row_of(name)
    return Scorer(row.title or name, metric.signature, statistics, mean, row.higher_is_better, of_segments=True)


def _segments(name: str, test: Test, translations: list[str]) -> list[Segment]:
    reads = row_of(name).reads
    references = test.need_references() if "reference" in reads else [None] * len(translations)
    if "rival" in reads and test.rivals is None:
        raise UsageError(f"{name} compares with another translation; pass --baseline")
    rivals = test.rivals if "rival" in reads else [None] * len(translations)
    return list(map(Segment, test.sources, translations, references, rivals))


def score(
    name: str,
    metric: SegmentMetric,
    segments: Sequence[Segment],
    src: Language,
    tgt: Language,
    cache: ScoreCache | None = None,
) -> list[float | None]:
    """The score of each segment, in order, None where the metric gives none. Only segments that are not in `cache` are scored,
    in blocks that are saved one by one.

    What the metric does not read (`Metric.reads`) it does not get. Without a model, an empty translation has the worst score, and
    one that equals its rival the middle of the range.

    Raises UsageError for a segment without a field that the metric reads, and for a score that is no finite number.
    """
    row = row_of(name)
    asked = [_as_read(name, row, segment) for segment in segments]
    fixed = _without_model(row, asked)
    distinct = [one for one in dict.fromkeys(asked) if one not in fixed]
    keys = dict(zip(distinct, keys_of(distinct, src.flores, tgt.flores), strict=True))
    kept = (cache or ScoreCache()).open(name, metric.fingerprint, metric.signature)
    missing = [one for one in distinct if keys[one] not in kept.scores]
    missing.sort(key=lambda one: sum(len(text or "") for text in one), reverse=True)  # a lack of memory shows at once
    if missing:
        stage = f"{name} from {src.name} into {tgt.name}"
        with Progress(stage, len(distinct), "segments", done=len(distinct) - len(missing)) as progress:
            for start in range(0, len(missing), BLOCK):
                block = missing[start : start + BLOCK]
                values = _checked(name, block, metric.score(block, src, tgt))
                kept.add([keys[one] for one in block], values)
                progress.update(len(block))
    return [fixed[one] if one in fixed else kept.scores[keys[one]] for one in asked]


def kept(
    name: str, signature: str, segments: Sequence[Segment], src: Language, tgt: Language, folder: Path
) -> list[float | None] | None:
    """The scores of segments, in order, as far as the cache in `folder` has them; None if it has nothing of the metric `name` with
    this signature. Nothing is computed or written."""
    known = last_scores(folder, name, signature)
    if not known:
        return None
    row = row_of(name)
    asked = [_as_read(name, row, segment) for segment in segments]
    fixed = _without_model(row, asked)
    keys = keys_of(asked, src.flores, tgt.flores)
    return [fixed.get(one, known.get(key)) for one, key in zip(asked, keys, strict=True)]


def _without_model(row: Metric, segments: Sequence[Segment]) -> dict[Segment, float]:
    """The scores of those segments that no model is asked about."""
    worst = row.low if row.higher_is_better else row.high
    fixed = {one: (row.low + row.high) / 2 for one in segments if one.translation == one.rival}
    return fixed | {one: worst for one in segments if is_blank(one.translation) and one not in fixed}


def _as_read(name: str, row: Metric, segment: Segment) -> Segment:
    for field in row.reads:
        if is_blank(getattr(segment, field) or "") and field != "rival":
            raise UsageError(f"{name} reads the {field}, and {shortened(segment.translation)} has none")
    return Segment(
        segment.source if "source" in row.reads else "",
        segment.translation,
        segment.reference if "reference" in row.reads else None,
        segment.rival if "rival" in row.reads else None,
    )


def _checked(name: str, segments: list[Segment], values: Sequence[float | None]) -> list[float | None]:
    if len(values) != len(segments):
        raise UsageError(f"{name} gave {len(values)} scores for {len(segments)} segments")
    for segment, value in zip(segments, values, strict=True):
        if value is not None and not math.isfinite(value):
            raise UsageError(f"{name} gave {value} for the translation {shortened(segment.translation)}")
    return [None if value is None else float(value) for value in values]
