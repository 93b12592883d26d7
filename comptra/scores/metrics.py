"""Metrics of translations (--metrics of comptra.evaluate).

A metric is a function from a Test and MetricSettings to a Scorer: statistics of each segment, which are summed over
segments, and the score of such sums. Significance tests and confidence intervals need nothing else.

A metric of segments (`Metric.of_segments`: neural models, LLMs) is a function from MetricSettings to a SegmentMetric, which
scores each segment by itself; comptra.scores.segments makes a Scorer of it, and keeps its scores on disk.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from topxgen.common.errors import UsageError
from topxgen.common.registry import Choice, load_choice
from topxgen.common.settings import Settings
from topxgen.inference import ModelSettings
from topxgen.quality import blaser, mt_ranker, sonar
from topxgen.text.languages import Language

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Metric(Choice):
    """One row of METRICS: the metric, and what is known of it before it is loaded."""

    title: str = ""  # in tables; "" for the user's own: the Scorer's
    low: float = 0.0
    high: float = 100.0
    higher_is_better: bool = True
    # What it needs beside the translation: "source", "reference", "rival" (the baseline's translation).
    reads: tuple[str, ...] = ()
    family: str = ""  # metrics that were trained on the same data or model; see comptra.guard.interference
    of_segments: bool = False


def _comet(attribute: str, title: str, model: str, *more: str) -> Metric:
    help = f"{model}, {'with' if more else 'without'} references, in its own environment"
    facts = {"high": 1.0, "reads": ("source", *more), "family": "comet", "of_segments": True}
    return Metric(f"comptra.scores.comet:{attribute}", help, title, **facts)


_REFERENCE = {"reads": ("reference",)}
_BLEU, _CHRF = {**_REFERENCE, "family": "bleu"}, {**_REFERENCE, "family": "chrf"}
_METRICX = {"high": 25.0, "higher_is_better": False, "family": "metricx", "of_segments": True}
_GEMBA = {"family": "gemba", "of_segments": True}
# One row a metric: "module:attribute", imported when it is chosen. In this order tables show them.
# fmt: off
METRICS: dict[str, Metric] = {
    "chrf": Metric("comptra.scores.surface:chrf", "chrF++ (sacreBLEU)", "chrF++", **_CHRF),
    "bleu": Metric("comptra.scores.surface:bleu", "BLEU (sacreBLEU) with the tokenizer of --tokenize", "BLEU", **_BLEU),
    "lang": Metric("comptra.scores.surface:lang", "share of translations identified as the target language", "lang %", family="lid"),
    "chrf6": Metric("comptra.scores.surface:chrf6", "chrF (sacreBLEU), without the words of chrF++", "chrF", **_CHRF),
    "bleu-13a": Metric("comptra.scores.surface:bleu_13a", "BLEU of words", "BLEU 13a", **_BLEU),
    "bleu-flores101": Metric("comptra.scores.surface:bleu_flores101", "spBLEU of FLORES-101", "spBLEU 101", **_BLEU),
    "bleu-flores200": Metric("comptra.scores.surface:bleu_flores200", "spBLEU of FLORES-200", "spBLEU 200", **_BLEU),
    "bleu-spBLEU-1K": Metric("comptra.scores.surface:bleu_spbleu_1k", "spBLEU-1K, of 1,003 languages", "spBLEU-1K", **_BLEU),
    "ter": Metric("comptra.scores.surface:ter", "translation edit rate (sacreBLEU)", "TER", **_REFERENCE, higher_is_better=False,
                  family="ter"),
    "blaser-qe": Metric("comptra.scores.neural:BlaserQE", "BLASER-2.0-QE on SONAR vectors, 1 to 5", "BLASER-QE", low=1.0, high=5.0,
                        reads=("source",), family="blaser", of_segments=True),
    "metricx-24": Metric("comptra.scores.neural:metricx_24", "MetricX-24 with references, errors from 0 to 25", "MetricX-24", **_METRICX,
                         reads=("source", "reference")),
    "metricx-24-qe": Metric("comptra.scores.neural:metricx_24_qe", "MetricX-24 without references", "MetricX-24-QE", **_METRICX,
                            reads=("source",)),
    "metricx-23": Metric("comptra.scores.neural:metricx_23", "MetricX-23", "MetricX-23", **_METRICX, reads=("reference",)),
    "metricx-23-qe": Metric("comptra.scores.neural:metricx_23_qe", "MetricX-23-QE", "MetricX-23-QE", **_METRICX, reads=("source",)),
    "mt-ranker": Metric("comptra.scores.neural:MTRanker", "MT-Ranker, the probability of being better than the baseline", "MT-Ranker",
                        high=1.0, reads=("source", "rival"), family="mt-ranker", of_segments=True),
    "comet": _comet("comet", "COMET", "wmt22-comet-da", "reference"),
    "xcomet": _comet("xcomet", "XCOMET", "XCOMET-XL", "reference"),
    "cometkiwi": _comet("cometkiwi", "CometKiwi", "wmt22-cometkiwi-da"),
    "ssa-comet": _comet("ssa_comet", "SSA-COMET", "SSA-COMET, for African languages", "reference"),
    "ssa-comet-qe": _comet("ssa_comet_qe", "SSA-COMET-QE", "SSA-COMET-QE, for African languages"),
    "africomet": _comet("africomet", "AfriCOMET", "AfriCOMET, for African languages", "reference"),
    "africomet-qe": _comet("africomet_qe", "AfriCOMET-QE", "AfriCOMET-QE, for African languages"),
    "gemba-da": Metric("comptra.scores.gemba:GembaDA", "an LLM rates from 0 to 100", "GEMBA-DA", **_GEMBA, reads=("source", "reference")),
    "gemba-mqm": Metric("comptra.scores.gemba:GembaMQM", "an LLM lists errors, which are weighted: -25 to 0", "GEMBA-MQM",
                        **_GEMBA | {"low": -25.0, "high": 0.0}, reads=("source",)),
    "gemba-esa": Metric("comptra.scores.gemba:GembaESA", "an LLM lists errors, then rates from 0 to 100", "GEMBA-ESA", **_GEMBA,
                        reads=("source",)),
}
# fmt: on
ALIASES = {"chrf++": "chrf"}
JUDGE = "judge_"  # begins the flags of the LLM that GEMBA asks
AUTO = "auto"  # in --metrics: those that this machine can run (comptra.scores.auto)
DEFAULT = ("chrf", "bleu", "lang")
# sacreBLEU's, listed because importing it takes longer than --help may.
TOKENIZERS = (
    *("auto", "flores200", "flores101", "spBLEU-1K"),
    *("13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none"),
)


@dataclass(frozen=True)
class Test:
    """The data that systems are scored on: parallel sources and references of one direction."""

    __test__ = False  # not a test case of pytest

    src: Language
    tgt: Language
    sources: list[str]
    references: list[str] | None  # None for phrases (--step)
    rivals: list[str] | None = None  # the baseline's translations; None without a baseline

    def __post_init__(self):
        for what, texts in (("references", self.references), ("translations of the baseline", self.rivals)):
            if texts is not None and len(texts) != len(self.sources):
                raise UsageError(
                    f"there are {len(texts)} {what} for {len(self.sources)} sentences; pass parallel files"
                )

    def need_references(self) -> list[str]:
        """The references. Raises UsageError if there are none."""
        if self.references is None:
            raise UsageError("phrases (--step above 0) have no references; choose --metrics lang")
        return self.references


@dataclass(frozen=True)
class JudgeSettings(Settings):
    """Flags of the judge, without their prefix."""

    model: ModelSettings
    inference_api: str = "vllm"
    prompt_style: str = "auto"
    max_new_tokens: int = 1024
    prices: tuple[float, ...] | None = None
    budget: float | None = None

    @classmethod
    def from_flags(cls, args: argparse.Namespace) -> Self | None:
        """Those of comptra.evaluate; None without a judge."""
        own = {name.removeprefix(JUDGE): value for name, value in vars(args).items() if name.startswith(JUDGE)}
        if not own.get("model_name_or_path"):
            return None
        own = argparse.Namespace(**own)
        return cls.from_args(own, model=ModelSettings.from_args(own))


@dataclass(frozen=True)
class MetricSettings(Settings):
    """Flags that metrics use."""

    tokenize: str = "auto"  # BLEU: one of TOKENIZERS
    lid_model: str = "cld2"  # lang: see topxgen.text.language_id
    metricx_name_or_path: Sequence[str] = ()  # the published ones if none is given
    blaser_name_or_path: str = blaser.DEFAULT
    sonar_name_or_path: str = sonar.DEFAULT
    mt_ranker_name_or_path: str = mt_ranker.DEFAULT
    metric_dtype: str | None = None  # None: by metric and device
    metric_batch_tokens: int | None = None
    comet_models: tuple[tuple[str, str], ...] = ()  # (metric, Hub id or path): instead of the metric's own model
    comet_python: str | None = None  # None: $COMET_PYTHON, else .venv-comet/bin/python

    cache_dir: Path | None = None  # gemba: where responses are kept; None: comptra.scores.segment_cache.default_folder
    judge: JudgeSettings | None = None  # gemba: the LLM that is asked

    @classmethod
    def from_args(cls, args: argparse.Namespace, **chosen: Any) -> Self:
        """See Settings.from_args; the flags of the judge are settings of their own."""
        return super().from_args(args, judge=JudgeSettings.from_flags(args), **chosen)

    def model_of(self, metric: str, default: str) -> str:
        return dict(self.comet_models).get(metric, default)


@dataclass(frozen=True)
class Scorer:
    """A metric on one Test. `statistics` takes a translation of each of its sources, in order."""

    title: str
    signature: str  # scores are comparable if their signatures are equal
    statistics: Callable[[list[str]], "np.ndarray"]  # n translations -> (n, m) numbers, to be summed over segments
    scores: Callable[["np.ndarray"], "np.ndarray"]  # (..., m) sums -> (...) scores
    higher_is_better: bool = True
    of_segments: bool = False  # the last statistic is 0 for a segment without a score
    # (n, m) statistics -> (n,) scores of segments by themselves; None: those of `scores`.
    segment_scores: Callable[["np.ndarray"], "np.ndarray"] | None = None


class Segment(NamedTuple):
    """What a SegmentMetric scores."""

    source: str
    translation: str
    reference: str | None = None
    rival: str | None = None  # the baseline's translation


class SegmentMetric(Protocol):
    """A metric that scores segments one by one. It is made from MetricSettings without loading weights; a mistake or a missing
    model raises UsageError then, or in `score`."""

    fingerprint: str  # of all that decides a score: digest of the weights, version, precision, prompt. The cache's key
    signature: str  # what a paper cites; scores are comparable if their signatures are equal
    # weights: Sequence[Path], optional: the files of the model, whose size decides whether --metrics auto takes it

    def score(self, segments: Sequence[Segment], src: Language, tgt: Language) -> list[float | None]:
        """The score of each segment, in order; None where there is none (an answer that cannot be read), which the next run asks for
        again. Loads the model when it is first called. Which other segments are in the call makes no difference. Raises
        UnknownLanguage for a language that the metric cannot judge at all."""

    def close(self) -> None:
        """Free the model and its memory."""


def create(name: str, test: Test, settings: MetricSettings | None = None) -> Scorer | None:
    """The metric `name`, of METRICS or the user's own, on `test`; None if it cannot judge the language.

    Raises UsageError when a model or package is missing.
    """
    return load_choice("--metrics", name, METRICS)(test, settings or MetricSettings())


def mean_scores(sums: "np.ndarray") -> "np.ndarray":
    """Percent of (sum, count)."""
    return 100 * sums[..., 0] / sums[..., 1]
