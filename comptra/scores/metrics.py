"""How good translations are, metric by metric (--metrics of comptra.evaluate).

A metric is a function from a Test to a Scorer: what it knows of the segments of a translation, as numbers that add up over
segments, and the score of such sums. Significance tests and confidence intervals need nothing else of it. A neural metric
gives two numbers a segment: its score and 1.
"""

import http.client
import logging
import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from topxgen.common.errors import UsageError, reason
from topxgen.common.registry import Choice, load_choice
from topxgen.retrieval import ngram_similarity
from topxgen.text import language_id
from topxgen.text.languages import Language

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    import numpy as np

# One row a metric: "module:function", imported when it is chosen.
METRICS: dict[str, Choice] = {
    "bleu": Choice("comptra.scores.metrics:bleu", "corpus BLEU (sacreBLEU)"),
    "chrf": Choice("comptra.scores.metrics:chrf", "chrF++ (sacreBLEU)"),
    "lang": Choice("comptra.scores.metrics:lang", "share of translations identified as the target language"),
}
NEED_NO_REFERENCES = {"lang"}
# sacrebleu's, listed because importing it takes longer than --help may.
TOKENIZERS = (
    "auto",
    "flores200",
    "flores101",
    "spBLEU-1K",
    "13a",
    "intl",
    "zh",
    "ja-mecab",
    "ko-mecab",
    "char",
    "none",
)


@dataclass(frozen=True)
class Test:
    """What systems are measured on: parallel sources and references of one direction."""

    __test__ = False  # nothing for pytest

    src: Language
    tgt: Language
    sources: list[str]
    references: list[str] | None  # None: there are none; only the metrics of NEED_NO_REFERENCES apply


@dataclass(frozen=True)
class MetricSettings:
    """What metrics need; a field that one has no use for is ignored by it."""

    tokenize: str = "auto"  # BLEU: one of TOKENIZERS
    lid_model: str = "cld2"  # lang: see topxgen.text.language_id


@dataclass(frozen=True)
class Scorer:
    """A metric on one Test. `statistics` takes the translations of its sentences, in order."""

    title: str
    signature: str  # what must be equal for scores to be comparable
    statistics: Callable[[list[str]], "np.ndarray"]  # n translations -> (n, m) numbers, to be summed over segments
    scores: Callable[["np.ndarray"], "np.ndarray"]  # (..., m) sums -> (...) scores, 0 to 100, more is better


def create(name: str, test: Test, settings: MetricSettings | None = None) -> Scorer | None:
    """The metric of that name (METRICS) on `test`; None where it cannot judge this language, which the notice says.

    Raises UsageError when what it needs is missing.
    """
    return load_choice("--metrics", name, METRICS)(test, settings or MetricSettings())


def bleu(test: Test, settings: MetricSettings) -> Scorer:
    """Corpus BLEU (Papineni et al. 2002) as sacrebleu computes it (Post 2018), on spm pieces spBLEU (Goyal et al. 2022).

    The tokenizer "auto" is flores200 where its model is there or can be fetched, else the one that fits the script. Raises
    UsageError for a tokenizer that is named and cannot be had.
    """
    from sacrebleu.metrics import BLEU

    tokenizer = _auto_tokenizer(test.tgt) if settings.tokenize == "auto" else settings.tokenize
    try:
        metric = BLEU(tokenize=tokenizer, references=[test.references])
    except (ImportError, OSError, RuntimeError) as error:  # not installed, not fetched, not readable
        where = f"; its model belongs at {spm_model(tokenizer)}" if tokenizer in _spm_models() else ""
        raise UsageError(
            f"--tokenize {tokenizer} cannot be had ({reason(error)}){where}; pass {ngram_similarity.bleu_tokenizer_name(test.tgt)}"
        ) from None
    return Scorer("BLEU", str(metric.get_signature()), _statistics_of(metric), bleu_scores)


def chrf(test: Test, settings: MetricSettings) -> Scorer:
    """Corpus chrF++ (Popović 2017): chrF with words and pairs of words, as sacrebleu computes it."""
    from sacrebleu.metrics import CHRF

    metric = CHRF(word_order=2, references=[test.references])
    return Scorer("chrF++", str(metric.get_signature()), _statistics_of(metric), chrf_scores)


def lang(test: Test, settings: MetricSettings) -> Scorer | None:
    """The share of translations, in percent, that are identified as the target language; an empty one is in none."""
    import numpy as np

    identifier = _identifier(settings.lid_model)
    if not identifier.knows(test.tgt):
        logger.info(
            f"{settings.lid_model} cannot identify {test.tgt.name}: no language consistency (another --lid_model)"
        )
        return None

    def statistics(translations: list[str]) -> np.ndarray:
        found = identifier.is_language(translations, test.tgt)
        right = [is_tgt and bool(text.strip()) for is_tgt, text in zip(found, translations, strict=True)]
        return np.column_stack([np.array(right, float), np.ones(len(right))])

    version = f"|version:{metadata.version('pycld2')}" if settings.lid_model == "cld2" else ""
    return Scorer("lang %", f"lid:{settings.lid_model}{version}", statistics, mean_scores)


def mean_scores(sums: "np.ndarray") -> "np.ndarray":
    """Percent of (sum, count)."""
    return 100 * sums[..., 0] / sums[..., 1]


def bleu_scores(sums: "np.ndarray") -> "np.ndarray":
    """sacrebleu's BLEU from (length, length of the reference, matches of order 1 to 4, n-grams of order 1 to 4).

    Exponential smoothing, sacrebleu's default: the i-th order without a match counts as 1 / 2^i of one.
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
    """sacrebleu's chrF from three numbers an order: n-grams, n-grams of the reference, matches.

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
        # What sacrebleu's own significance tests rest on; the references are in the metric already.
        return np.array(metric._extract_corpus_statistics(translations, None), float)

    return statistics


@cache
def _identifier(lid_model: str):
    return language_id.load(lid_model)


def _spm_models() -> dict[str, dict]:
    from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS

    return SPM_MODELS


def spm_model(tokenizer: str) -> Path:
    """Where sacrebleu keeps the model of a SentencePiece tokenizer, and looks for it ($SACREBLEU moves it)."""
    from sacrebleu.utils import SACREBLEU_DIR

    return Path(SACREBLEU_DIR, "models", Path(_spm_models()[tokenizer]["url"]).name)


def _auto_tokenizer(tgt: Language) -> str:
    missing = _why_no_flores200()
    if not missing:
        return "flores200"
    fitting = ngram_similarity.bleu_tokenizer_name(tgt)
    logger.info(f"{missing}: BLEU by tokenizer {fitting}, not comparable with spBLEU (--tokenize)")
    return fitting


@cache
def _why_no_flores200() -> str:
    """Why there is no flores200 tokenizer; "" when there is one. Fetches its model (4 MB, once) when it can."""
    path = spm_model("flores200")
    if not path.is_file() or not path.stat().st_size:
        if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
            return f"no flores200 model at {path}, and HF_HUB_OFFLINE is set"
        # sacrebleu's own download has no time limit, which a node without internet may need.
        try:
            urllib.request.urlopen(_spm_models()["flores200"]["url"], timeout=5).close()
        except (OSError, http.client.HTTPException) as error:
            return f"no flores200 model at {path}, and it cannot be fetched ({reason(error)})"
    try:
        from sacrebleu.tokenizers.tokenizer_spm import Flores200Tokenizer

        Flores200Tokenizer()
    except (ImportError, OSError, RuntimeError) as error:
        return f"no flores200 model ({reason(error)})"
    return ""
