"""Metrics of strings: BLEU, chrF and TER as sacreBLEU computes them, and the share of translations in the target language."""

import http.client
import logging
import os
import urllib.request
from collections.abc import Callable
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from comptra.scores.metrics import MetricSettings, Scorer, Test, mean_scores
from topxgen.common.console import ONCE
from topxgen.common.errors import UsageError, reason
from topxgen.common.provenance import name_with_weights
from topxgen.retrieval import ngram_similarity
from topxgen.text import language_id
from topxgen.text.words import UNSPACED_SCRIPTS, is_blank

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)
_CJK = ("Hans", "Hant", "Hani", "Jpan")  # scripts whose characters sacreBLEU's TER can take for words


def bleu(test: Test, settings: MetricSettings) -> Scorer:
    """Corpus BLEU (Papineni et al. 2002) as sacreBLEU computes it (Post 2018); on SentencePiece tokens it is spBLEU
    (Goyal et al. 2022).

    The tokenizer "auto" is flores200 if its model is on disk or can be downloaded, else the one for the script. Raises
    UsageError if the tokenizer cannot be loaded.
    """
    tokenizer = settings.tokenize
    if tokenizer == "auto":
        tokenizer = "flores200"
        if problem := why_no_model(tokenizer):
            tokenizer = ngram_similarity.bleu_tokenizer_name(test.tgt)
            logger.info(
                f"{problem}: BLEU with tokenizer {tokenizer}, not comparable with spBLEU (see --tokenize)", extra=ONCE
            )
    return _bleu_with(tokenizer, "BLEU", test, settings)


def _bleu_with(tokenizer: str, title: str, test: Test, settings: MetricSettings) -> Scorer:
    from sacrebleu.metrics import BLEU

    references = test.need_references()
    remedy = f"pass --tokenize {ngram_similarity.bleu_tokenizer_name(test.tgt)} or other --metrics"
    if problem := why_no_model(tokenizer):
        raise UsageError(f"BLEU with the tokenizer {tokenizer}: {problem}; {remedy}")
    try:
        metric = BLEU(tokenize=tokenizer, references=[references])
    except (ImportError, OSError, RuntimeError) as error:  # not installed, not readable
        raise UsageError(
            f"BLEU with the tokenizer {tokenizer} cannot be computed ({reason(error)}); {remedy}"
        ) from None
    # Of a segment with fewer than four words, the orders that it has: else even a perfect one has 0.
    of_segments = partial(bleu_scores, effective_order=True)
    return Scorer(title, str(metric.get_signature()), _statistics_of(metric), bleu_scores, segment_scores=of_segments)


bleu_13a = partial(_bleu_with, "13a", "BLEU 13a")
bleu_flores101 = partial(_bleu_with, "flores101", "spBLEU 101")
bleu_flores200 = partial(_bleu_with, "flores200", "spBLEU 200")
bleu_spbleu_1k = partial(_bleu_with, "spBLEU-1K", "spBLEU-1K")


def _chrf_of(word_order: int, title: str, test: Test, settings: MetricSettings) -> Scorer:
    """Corpus chrF as sacreBLEU computes it: of character 6-grams and word n-grams up to `word_order`."""
    from sacrebleu.metrics import CHRF

    metric = CHRF(word_order=word_order, references=[test.need_references()])
    return Scorer(title, str(metric.get_signature()), _statistics_of(metric), chrf_scores)


chrf = partial(_chrf_of, 2, "chrF++")  # Popović 2017
chrf6 = partial(_chrf_of, 0, "chrF")  # Popović 2015


def ter(test: Test, settings: MetricSettings) -> Scorer | None:
    """Translation edit rate (Snover et al. 2006) as sacreBLEU computes it, in percent: edits per word of the reference. Lower is
    better.

    Han and Japanese characters count as words (sacreBLEU's asian_support). None for other scripts without spaces: a sentence
    would be one word.
    """
    from sacrebleu.metrics import TER

    script = test.tgt.script
    references = test.need_references()
    if script in UNSPACED_SCRIPTS and script not in _CJK:
        logger.info(f"{test.tgt.name} is written without spaces between words: no TER")
        return None
    metric = TER(normalized=script in _CJK, asian_support=script in _CJK, references=[references])
    return Scorer("TER", str(metric.get_signature()), _statistics_of(metric), ter_scores, higher_is_better=False)


def lang(test: Test, settings: MetricSettings) -> Scorer | None:
    """The share of translations, in percent, that are identified as the target language; empty ones are not."""
    import numpy as np

    identifier = identifier_of(settings.lid_model)
    if not identifier.knows(test.tgt):
        logger.info(
            f"{settings.lid_model} cannot identify {test.tgt.name}: no language consistency (pass another --lid_model)"
        )
        return None

    def statistics(translations: list[str]) -> np.ndarray:
        identified = identifier.is_language(translations, test.tgt)
        right = [is_tgt and not is_blank(text) for is_tgt, text in zip(identified, translations, strict=True)]
        return np.column_stack([np.array(right, float), np.ones(len(right))])

    model = settings.lid_model
    package = {"cld2": "pycld2", "langid": "py3langid"}.get(model)
    named = f"{model}|version:{metadata.version(package)}" if package else name_with_weights(model)
    return Scorer("lang %", f"lid:{named}", statistics, mean_scores)


def bleu_scores(sums: "np.ndarray", effective_order: bool = False) -> "np.ndarray":
    """sacreBLEU's BLEU from (length, reference length, matches of orders 1 to 4, n-grams of orders 1 to 4).

    Exponential smoothing, sacreBLEU's default: the i-th order without a match counts as 1 / 2^i of a match. `effective_order`, its
    default for sentences: the mean is over the orders that have n-grams; else it is 0 if one has none.
    """
    import numpy as np

    length, reference, matches, total = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    halved = 2.0 ** np.cumsum(matches == 0, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.where(matches == 0, 1 / halved, matches) / total
        brevity = np.where(length < reference, np.exp(1 - reference / length), 1.0)
        orders = total > 0 if effective_order else np.ones(total.shape, bool)
        scores = 100 * brevity * np.exp(np.where(orders, np.log(precisions), 0).sum(axis=-1) / orders.sum(axis=-1))
    return np.where((matches.sum(axis=-1) == 0) | ((total == 0) & orders).any(axis=-1), 0.0, scores)


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


def ter_scores(sums: "np.ndarray") -> "np.ndarray":
    """sacreBLEU's TER from (edits, words of the reference); without words 100 for any edit."""
    import numpy as np

    edits, words = sums[..., 0], sums[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100 * np.where(words > 0, edits / words, edits > 0)


def _statistics_of(metric) -> Callable[[list[str]], "np.ndarray"]:
    import numpy as np

    def statistics(translations: list[str]) -> np.ndarray:
        # sacreBLEU's own significance tests use it; the metric already holds the references.
        return np.array(metric._extract_corpus_statistics(translations, None), float)

    return statistics


@cache
def identifier_of(lid_model: str):
    return language_id.load(lid_model)


def _spm_models() -> dict[str, dict]:
    from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS

    return SPM_MODELS


def spm_model(tokenizer: str) -> Path:
    """Where sacreBLEU keeps the model of a SentencePiece tokenizer ($SACREBLEU moves it)."""
    from sacrebleu.utils import SACREBLEU_DIR

    return Path(SACREBLEU_DIR, "models", Path(_spm_models()[tokenizer]["url"]).name)


@cache
def why_no_model(tokenizer: str) -> str:
    """Why a SentencePiece tokenizer cannot be used; "" if it can, or is another one. Downloads its model (some MB, once) if it is
    missing."""
    if tokenizer not in _spm_models():
        return ""
    path = spm_model(tokenizer)
    if not path.is_file() or not path.stat().st_size:
        if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
            return f"no {tokenizer} model at {path}, and HF_HUB_OFFLINE is set"
        # sacreBLEU's own download has no time limit, and a node without internet may drop packets silently.
        try:
            urllib.request.urlopen(_spm_models()[tokenizer]["url"], timeout=5).close()
        except (OSError, http.client.HTTPException) as error:
            return f"no {tokenizer} model at {path}, and it cannot be downloaded ({reason(error)})"
    try:
        from sacrebleu.metrics import BLEU

        BLEU(tokenize=tokenizer)
    except (ImportError, OSError, RuntimeError) as error:
        return f"the {tokenizer} model at {path} cannot be loaded ({reason(error)})"
    return ""
