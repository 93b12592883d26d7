"""The best of several translations of a sentence (--selection_method).

greedy: the first. bleu and chrf: minimum Bayes risk decoding (Eikema and Aziz 2020), the candidate most similar to the others.
blaser and comet-qe: the best by quality estimation.

A selector takes (sentences, candidates of each) and returns the best of each; "" for a sentence without candidates.
"""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from comptra.scores.metrics import MetricSettings, Segment
from comptra.scores.segment_cache import ScoreCache
from topxgen.common.registry import Choice, load_choice
from topxgen.common.settings import Settings
from topxgen.quality import comet_models
from topxgen.quality.blaser import DEFAULT as BLASER
from topxgen.quality.sonar import DEFAULT as SONAR
from topxgen.retrieval import ngram_similarity
from topxgen.text.languages import Language
from topxgen.text.words import is_blank

# One row per selector: "module:factory", called with (src, tgt, settings).
SELECTORS: dict[str, Choice] = {
    "greedy": Choice("comptra.candidate_selection:greedy", "the first candidate"),
    "bleu": Choice("comptra.candidate_selection:by_bleu", "highest summed BLEU against the other candidates (MBR)"),
    "chrf": Choice("comptra.candidate_selection:by_chrf", "highest summed chrF against the other candidates (MBR)"),
    "blaser": Choice("comptra.candidate_selection:by_blaser", "best BLASER-2.0-QE score"),
    "comet-qe": Choice("comptra.candidate_selection:by_comet", "best COMET QE score, in a separate environment"),
}
BY_QUALITY = ("blaser", "comet-qe")  # these load another model, and free it after each call
KIWI = "cometkiwi"  # the metric of METRICS that comet-qe is
SCORES = "scores"  # folder of COMET's scores, in that of a run
_PAIRS_PER_BLOCK = 1 << 20  # pairs of candidates compared together


@dataclass(frozen=True)
class SelectionSettings(Settings):
    """What selectors need; a selector ignores the fields that it has no use for."""

    blaser_name_or_path: str = BLASER
    sonar_name_or_path: str = SONAR
    comet_python: str | None = None  # None: $COMET_PYTHON, else .venv-comet/bin/python
    comet_name_or_path: str = comet_models.QE
    scores_dir: Path | None = None  # where COMET's scores are kept; None: nowhere


Selector = Callable[[list[str], list[list[str]]], list[str]]


def create(name: str, src: Language, tgt: Language, settings: SelectionSettings | None = None) -> Selector | None:
    """The selector of that name for translations from `src` into `tgt`; None: take the first.

    Raises UsageError for an unknown name, and for a missing model, language or environment; no model is loaded.
    """
    return load_choice("--selection_method", name, SELECTORS)(src, tgt, settings or SelectionSettings())


def greedy(src: Language, tgt: Language, settings: SelectionSettings) -> None:
    return None


def by_bleu(src: Language, tgt: Language, settings: SelectionSettings) -> Selector:
    tokenize = ngram_similarity.bleu_tokenizer(tgt)
    how = lambda texts: ngram_similarity.words(texts, tokenize, {}), ngram_similarity.bleu, ngram_similarity.BLEU_ORDER
    return lambda sentences, candidates: consensus(candidates, *how)


def by_chrf(src: Language, tgt: Language, settings: SelectionSettings) -> Selector:
    how = ngram_similarity.characters, ngram_similarity.chrf, ngram_similarity.CHRF_ORDER
    return lambda sentences, candidates: consensus(candidates, *how)


def consensus(candidates: list[list[str]], read: Callable, score: Callable, order: int) -> list[str]:
    """Of each list the text with the highest sum of `score` against each of the others as reference; of ties the first.

    `read` makes topxgen.retrieval.ngram_similarity.Sequences of texts, `score` is its chrf or bleu. Sums that agree in nine
    decimals are ties: the last bits are noise. An empty candidate is chosen only if all are empty.
    """
    best: list[str] = []
    while len(best) < len(candidates):
        start = stop = len(best)
        widest = 1
        while stop < len(candidates):
            widest = max(widest, len(candidates[stop]))
            if stop > start and (stop + 1 - start) * widest**2 > _PAIRS_PER_BLOCK:
                break
            stop += 1
        block = candidates[start:stop]
        chosen = _most_similar(block, read, score, order)
        best += [texts[i] if texts else "" for texts, i in zip(block, chosen, strict=True)]
    return best


def _most_similar(candidates: list[list[str]], read: Callable, score: Callable, order: int) -> list[int]:
    """The place of the best text in each list (0 for an empty list)."""
    import numpy as np

    counts = np.array([len(texts) for texts in candidates])
    widest = int(counts.max(initial=0))
    if not widest:
        return [0] * len(candidates)
    group = np.repeat(np.arange(len(candidates)), counts)
    place = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
    sequences = read([text for texts in candidates for text in texts])
    # Each list has its own symbols, so that nothing matches across lists.
    span = int(sequences.symbols.max(initial=0)) + 1
    symbols = sequences.symbols + span * np.repeat(group, sequences.lengths)
    index = ngram_similarity.NgramIndex(ngram_similarity.Sequences(symbols, sequences.lengths), order)
    matches = []
    for features in index.features:
        pairs = (features @ features.T).tocoo()
        counted = np.zeros((len(candidates), widest, widest), dtype=np.int64)
        counted[group[pairs.row], place[pairs.row], place[pairs.col]] = pairs.data
        matches.append(counted)
    lengths = np.zeros((len(candidates), widest), dtype=np.int64)
    lengths[group, place] = sequences.lengths
    scores = score(matches, hypothesis=lengths[:, :, None], reference=lengths[:, None, :])
    scores[:, np.arange(widest), np.arange(widest)] = 0  # not with itself; padding matches nothing
    sums = scores.sum(axis=2).round(9)
    blank = np.array([is_blank(text) for texts in candidates for text in texts])
    usable = np.zeros_like(sums, dtype=bool)
    usable[group, place] = ~blank
    return np.where(usable, sums, -1).argmax(axis=1).tolist()


def by_blaser(src: Language, tgt: Language, settings: SelectionSettings) -> Selector:
    """The candidate with the best BLASER-2.0-QE score; the model is loaded for a call and freed after it."""
    from topxgen.quality import blaser

    names = settings.blaser_name_or_path, settings.sonar_name_or_path
    blaser.preflight(*names, (src, tgt))

    def score(sentences: list[str], translations: list[str]) -> list[float | None]:
        with closing(blaser.Blaser(*names)) as model:
            return model.score(sentences, translations, src, tgt)

    return partial(best_scored, score=score)


def by_comet(src: Language, tgt: Language, settings: SelectionSettings) -> Selector:
    """The candidate with the best score of a reference-free COMET model, which runs in its own environment; scores are saved as
    they come, so that no pair is scored twice."""
    from comptra.scores import segments
    from comptra.scores.comet import CometMetric

    own = {"comet_models": ((KIWI, settings.comet_name_or_path),), "comet_python": settings.comet_python}
    metric, folder = CometMetric(KIWI, comet_models.QE, MetricSettings(**own)), settings.scores_dir

    def score(sentences: list[str], translations: list[str]) -> list[float | None]:
        pairs, cache = list(map(Segment, sentences, translations)), ScoreCache(folder and folder / SCORES)
        with closing(metric):
            return segments.score(KIWI, metric, pairs, src, tgt, cache)

    return partial(best_scored, score=score)


def best_scored(sentences: list[str], candidates: list[list[str]], score: Callable) -> list[str]:
    """Of each list the text with the highest score, of ties the first; `score` is called once, for all that need one.

    An empty candidate is not scored, and chosen only if all are empty; a single candidate needs no score.
    """
    best = [next((text for text in texts if not is_blank(text)), "") for texts in candidates]
    pairs = []
    for i, texts in enumerate(candidates):
        distinct = list(dict.fromkeys(text for text in texts if not is_blank(text)))
        if len(distinct) > 1 and not is_blank(sentences[i]):
            pairs += [(i, text) for text in distinct]
    scores = score([sentences[i] for i, _ in pairs], [text for _, text in pairs]) if pairs else []
    top: dict[int, float] = {}
    for (i, text), value in zip(pairs, scores, strict=True):
        if value is not None and value > top.get(i, -math.inf):
            top[i], best[i] = value, text
    return best
