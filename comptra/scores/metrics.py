"""Metrics of translations (--metrics of comptra.evaluate).

A metric is a function from a Test and MetricSettings to a Scorer: statistics of each segment, which are summed over
segments, and the score of such sums. Significance tests and confidence intervals need nothing else.

A metric of segments (`Metric.of_segments`: neural models, LLMs) is a function from MetricSettings to a SegmentMetric, which
scores each segment by itself; comptra.scores.segments makes a Scorer of it, and keeps its scores on disk.
"""

import http.client
import logging
import os
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from topxgen.common.console import ONCE
from topxgen.common.errors import UsageError, reason
from topxgen.common.registry import Choice, load_choice
from topxgen.common.settings import Settings
from topxgen.retrieval import ngram_similarity
from topxgen.text import language_id
from topxgen.text.languages import Language

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metric(Choice):
    """One row of METRICS: the metric, and what is known of it before it is loaded."""

    title: str = ""  # in tables; "" for the user's own: the Scorer's
    low: float = 0.0
    high: float = 100.0
    higher_is_better: bool = True
    reads: tuple[
        str, ...
    ] = ()  # what it needs beside the translation: "source", "reference", "rival" (the baseline's translation)
    family: str = ""  # metrics that were trained on the same data or model; see comptra.scores.interference
    of_segments: bool = False


def _comet(attribute: str, title: str, model: str, *more: str) -> Metric:
    help = f"{model}, {'with' if more else 'without'} references, in its own environment"
    reads = ("source", *more)
    return Metric(
        f"comptra.scores.comet:{attribute}", help, title, high=1.0, reads=reads, family="comet", of_segments=True
    )


# One row a metric: "module:function", imported when it is chosen. In this order tables show them.
METRICS: dict[str, Metric] = {
    "chrf": Metric("comptra.scores.metrics:chrf", "chrF++ (sacreBLEU)", "chrF++", reads=("reference",), family="chrf"),
    "bleu": Metric(
        "comptra.scores.metrics:bleu", "corpus BLEU (sacreBLEU)", "BLEU", reads=("reference",), family="bleu"
    ),
    "lang": Metric(
        "comptra.scores.metrics:lang", "share of translations identified as the target language", "lang %", family="lid"
    ),
    "comet": _comet("comet", "COMET", "wmt22-comet-da", "reference"),
    "xcomet": _comet("xcomet", "XCOMET", "XCOMET-XL", "reference"),
    "cometkiwi": _comet("cometkiwi", "CometKiwi", "wmt22-cometkiwi-da"),
    "ssa-comet": _comet("ssa_comet", "SSA-COMET", "SSA-COMET, for African languages", "reference"),
    "ssa-comet-qe": _comet("ssa_comet_qe", "SSA-COMET-QE", "SSA-COMET-QE, for African languages"),
    "africomet": _comet("africomet", "AfriCOMET", "AfriCOMET, for African languages", "reference"),
    "africomet-qe": _comet("africomet_qe", "AfriCOMET-QE", "AfriCOMET-QE, for African languages"),
}
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
class MetricSettings(Settings):
    """Flags that metrics use."""

    tokenize: str = "auto"  # BLEU: one of TOKENIZERS
    lid_model: str = "cld2"  # lang: see topxgen.text.language_id
    metric_models: tuple[tuple[str, str], ...] = ()  # (metric, Hub id or path): instead of the metric's own model
    comet_python: str | None = None  # None: $COMET_PYTHON, else .venv-comet/bin/python

    def model_of(self, metric: str, default: str) -> str:
        return dict(self.metric_models).get(metric, default)


@dataclass(frozen=True)
class Scorer:
    """A metric on one Test. `statistics` takes a translation of each of its sources, in order."""

    title: str
    signature: str  # scores are comparable if their signatures are equal
    statistics: Callable[[list[str]], "np.ndarray"]  # n translations -> (n, m) numbers, to be summed over segments
    scores: Callable[["np.ndarray"], "np.ndarray"]  # (..., m) sums -> (...) scores
    higher_is_better: bool = True


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

    def score(self, segments: Sequence[Segment], src: Language, tgt: Language) -> list[float | None]:
        """The score of each segment, in order; None where there is none (an answer that cannot be read). Loads the model when it
        is first called. Which other segments are in the call makes no difference. Raises UnknownLanguage for a language that the
        metric cannot judge at all."""

    def close(self) -> None:
        """Free the model and its memory."""


def create(name: str, test: Test, settings: MetricSettings | None = None) -> Scorer | None:
    """The metric `name`, of METRICS or the user's own, on `test`; None if it cannot judge the language.

    Raises UsageError when a model or package is missing.
    """
    return load_choice("--metrics", name, METRICS)(test, settings or MetricSettings())


def bleu(test: Test, settings: MetricSettings) -> Scorer:
    """Corpus BLEU (Papineni et al. 2002) as sacreBLEU computes it (Post 2018); on SentencePiece tokens it is spBLEU
    (Goyal et al. 2022).

    The tokenizer "auto" is flores200 if its model is on disk or can be downloaded, else the one for the script. Raises
    UsageError if the tokenizer cannot be loaded.
    """
    from sacrebleu.metrics import BLEU

    tokenizer = _auto_tokenizer(test.tgt) if settings.tokenize == "auto" else settings.tokenize
    try:
        metric = BLEU(tokenize=tokenizer, references=[test.need_references()])
    except (ImportError, OSError, RuntimeError) as error:  # not installed, not downloaded, not readable
        where = f"; its model belongs at {spm_model(tokenizer)}" if tokenizer in _spm_models() else ""
        raise UsageError(
            f"--tokenize {tokenizer} cannot be loaded ({reason(error)}){where}; pass --tokenize "
            f"{ngram_similarity.bleu_tokenizer_name(test.tgt)}"
        ) from None
    return Scorer("BLEU", str(metric.get_signature()), _statistics_of(metric), bleu_scores)


def chrf(test: Test, settings: MetricSettings) -> Scorer:
    """Corpus chrF++ (Popović 2017) as sacreBLEU computes it: chrF of character 6-grams and word bigrams."""
    from sacrebleu.metrics import CHRF

    metric = CHRF(word_order=2, references=[test.need_references()])
    return Scorer("chrF++", str(metric.get_signature()), _statistics_of(metric), chrf_scores)


def lang(test: Test, settings: MetricSettings) -> Scorer | None:
    """The share of translations, in percent, that are identified as the target language; empty ones are not."""
    import numpy as np

    identifier = _identifier(settings.lid_model)
    if not identifier.knows(test.tgt):
        logger.info(
            f"{settings.lid_model} cannot identify {test.tgt.name}: no language consistency (pass another --lid_model)"
        )
        return None

    def statistics(translations: list[str]) -> np.ndarray:
        identified = identifier.is_language(translations, test.tgt)
        right = [is_tgt and bool(text.strip()) for is_tgt, text in zip(identified, translations, strict=True)]
        return np.column_stack([np.array(right, float), np.ones(len(right))])

    version = f"|version:{metadata.version('pycld2')}" if settings.lid_model == "cld2" else ""
    return Scorer("lang %", f"lid:{settings.lid_model}{version}", statistics, mean_scores)


def mean_scores(sums: "np.ndarray") -> "np.ndarray":
    """Percent of (sum, count)."""
    return 100 * sums[..., 0] / sums[..., 1]


def bleu_scores(sums: "np.ndarray") -> "np.ndarray":
    """sacreBLEU's BLEU from (length, reference length, matches of orders 1 to 4, n-grams of orders 1 to 4).

    Exponential smoothing, sacreBLEU's default: the i-th order without a match counts as 1 / 2^i of a match.
    """
    import numpy as np

    length, reference, matches, total = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    halved = 2.0 ** np.cumsum(matches == 0, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.where(matches == 0, 1 / halved, matches) / total
        brevity = np.where(length < reference, np.exp(1 - reference / length), 1.0)
        scores = 100 * brevity * np.exp(np.log(precisions).mean(axis=-1))
    return np.where((matches.sum(axis=-1) == 0) | (total == 0).any(axis=-1), 0.0, scores)


def chrf_scores(sums: "np.ndarray") -> "np.ndarray":
    """sacreBLEU's chrF from three numbers per order: n-grams, n-grams of the reference, matches.

    Precision and recall are means over the orders that both sides have; beta is 2.
    """
    import numpy as np

    hypothesis, reference, matches = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    both = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(both.sum(axis=-1), 1)
    precision = np.divide(matches, hypothesis, out=np.zeros(matches.shape), where=both).sum(axis=-1) / orders
    recall = np.divide(matches, reference, out=np.zeros(matches.shape), where=both).sum(axis=-1) / orders
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = 100 * 5 * precision * recall / (4 * precision + recall)
    return np.where(precision + recall > 0, scores, 0.0)


def _statistics_of(metric) -> Callable[[list[str]], "np.ndarray"]:
    import numpy as np

    def statistics(translations: list[str]) -> np.ndarray:
        # sacreBLEU's own significance tests use it; the metric already holds the references.
        return np.array(metric._extract_corpus_statistics(translations, None), float)

    return statistics


@cache
def _identifier(lid_model: str):
    return language_id.load(lid_model)


def _spm_models() -> dict[str, dict]:
    from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS

    return SPM_MODELS


def spm_model(tokenizer: str) -> Path:
    """Where sacreBLEU keeps the model of a SentencePiece tokenizer ($SACREBLEU moves it)."""
    from sacrebleu.utils import SACREBLEU_DIR

    return Path(SACREBLEU_DIR, "models", Path(_spm_models()[tokenizer]["url"]).name)


def _auto_tokenizer(tgt: Language) -> str:
    problem = _why_no_flores200()
    if not problem:
        return "flores200"
    fitting = ngram_similarity.bleu_tokenizer_name(tgt)
    logger.info(f"{problem}: BLEU with tokenizer {fitting}, not comparable with spBLEU (see --tokenize)", extra=ONCE)
    return fitting


@cache
def _why_no_flores200() -> str:
    """Why the flores200 tokenizer cannot be used; "" if it can. Downloads its model (4 MB, once) if it is missing."""
    path = spm_model("flores200")
    if not path.is_file() or not path.stat().st_size:
        if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
            return f"no flores200 model at {path}, and HF_HUB_OFFLINE is set"
        # sacreBLEU's own download has no time limit, and a node without internet may drop packets silently.
        try:
            urllib.request.urlopen(_spm_models()["flores200"]["url"], timeout=5).close()
        except (OSError, http.client.HTTPException) as error:
            return f"no flores200 model at {path}, and it cannot be downloaded ({reason(error)})"
    try:
        from sacrebleu.tokenizers.tokenizer_spm import Flores200Tokenizer

        Flores200Tokenizer()
    except (ImportError, OSError, RuntimeError) as error:
        return f"the flores200 model cannot be loaded ({reason(error)})"
    return ""
