"""--metrics auto: the metrics that this machine can run now, and one line for each that is left out."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from comptra.scores import surface
from comptra.scores.metrics import METRICS, Metric, MetricSettings
from comptra.scores.segments import FAILURES, problem_of
from topxgen.common.errors import Unreachable, UsageError
from topxgen.common.hub import offline

logger = logging.getLogger(__name__)
# Of a model's weights on disk: a larger one takes hours without a GPU, or does not fit beside its activations.
MAX_CPU_BYTES, CPU_SHARE, GPU_SHARE = 4 << 30, 0.5, 0.8


def usable(settings: MetricSettings, has_references: bool, has_baseline: bool) -> list[str]:
    """The names of METRICS that can be computed without a download, on a model that fits; the others are logged with the reason."""
    names = []
    for name, row in METRICS.items():
        why = _why_not(name, row, settings, has_references, has_baseline)
        if why:
            logger.info(f"--metrics auto leaves out {name}: {why}")
        else:
            names.append(name)
    return names


def _why_not(name: str, row: Metric, settings: MetricSettings, has_references: bool, has_baseline: bool) -> str:
    if "reference" in row.reads and not has_references:
        return "phrases have no references"
    if "rival" in row.reads and not has_baseline:
        return "it compares with --baseline"
    if not row.of_segments:
        return _why_no_surface(name, settings)
    if row.family == "gemba" and settings.judge is None:  # hours of generation, or an API's bill
        return "it asks an LLM, which --judge_model_name_or_path names"
    try:
        with offline():
            metric = row.load()(settings)
            too_large = _why_too_large(getattr(metric, "weights", ()))
    except Unreachable:
        return f"its model is not downloaded; --metrics {name} downloads it, or says how"
    except FAILURES as error:
        return problem_of(error)
    metric.close()
    return too_large


def _why_no_surface(name: str, settings: MetricSettings) -> str:
    if name.startswith("bleu-"):
        return surface.why_no_model(name.removeprefix("bleu-"))
    if name == "lang":
        try:
            surface.identifier_of(settings.lid_model)
        except UsageError as error:
            return str(error)
    return ""


def _why_too_large(weights: Sequence[Path]) -> str:
    """`weights`: the files of a model."""
    size = sum(path.stat().st_size for path in weights)
    for limit, what in _limits():
        if size > limit:
            return f"{size / 2**30:.1f} GiB of weights, more than {limit / 2**30:.1f} GiB ({what})"
    return ""


def _limits() -> Iterator[tuple[float, str]]:
    """Bytes of weights, and what allows no more."""
    import torch

    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        yield GPU_SHARE * free, f"{GPU_SHARE:.0%} of the GPU's free memory"
        return
    import psutil

    yield MAX_CPU_BYTES, "without a GPU"
    yield CPU_SHARE * psutil.virtual_memory().available, f"{CPU_SHARE:.0%} of the free memory"
