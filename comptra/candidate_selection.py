"""The best of several translations of a sentence (--selection_method).

greedy: the first. bleu and chrf: minimum Bayes risk (Eikema and Aziz 2020), the candidate that is most like the others.
blaser and comet-qe: the best by quality estimation.

A selector is called with (sentences, candidates of each) and gives the best of each; "" where there is none.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.common.files import read_jsonl, repair_tail, to_line
from topxgen.common.registry import Choice, load_choice
from topxgen.quality import sonar
from topxgen.quality.blaser import DEFAULT as BLASER
from topxgen.retrieval import ngram_similarity
from topxgen.text.languages import Language

logger = logging.getLogger(__name__)

# One row a selector: "module:factory", called with (src, tgt, settings).
SELECTORS: dict[str, Choice] = {
    "greedy": Choice("comptra.candidate_selection:greedy", "the first candidate"),
    "bleu": Choice("comptra.candidate_selection:by_bleu", "highest summed BLEU against the other candidates (MBR)"),
    "chrf": Choice("comptra.candidate_selection:by_chrf", "highest summed chrF against the other candidates (MBR)"),
    "blaser": Choice("comptra.candidate_selection:ByBlaser", "best BLASER-2.0-QE score"),
    "comet-qe": Choice("comptra.candidate_selection:ByComet", "best COMET QE score, in an environment of its own"),
}
BY_QUALITY = ("blaser", "comet-qe")  # these load a model of their own, and free it after each call
COMET_MODEL = "Unbabel/wmt22-cometkiwi-da"
COMET_PYTHON = "COMET_PYTHON"  # environment variable: the interpreter that has COMET
_ROOT = Path(__file__).resolve().parent.parent
_PAIRS = 1 << 20  # pairs of candidates compared together


@dataclass(frozen=True)
class SelectionSettings:
    """What selectors need; a field that one has no use for is ignored by it."""

    blaser: str = BLASER
    sonar: str = sonar.DEFAULT
    dtype: str = "float32"  # of SONAR
    device: str | None = None  # of SONAR; None: a GPU when there is one
    comet_python: str | None = None  # None: $COMET_PYTHON, else .venv-comet/bin/python
    comet_model: str = COMET_MODEL  # a Hub id or a checkpoint file
    scores_dir: Path | None = None  # where COMET's scores are kept; None: nowhere


Selector = Callable[[list[str], list[list[str]]], list[str]]


def create(name: str, src: Language, tgt: Language, settings: SelectionSettings | None = None) -> Selector | None:
    """The selector of that name for translations from `src` into `tgt`; None: take the first.

    Raises UsageError for an unknown name, and for a model, language or environment that is missing; no model is loaded.
    """
    return load_choice("--selection_method", name, SELECTORS)(src, tgt, settings or SelectionSettings())


def greedy(src: Language, tgt: Language, settings: SelectionSettings) -> None:
    return None


def by_bleu(src: Language, tgt: Language, settings: SelectionSettings) -> Selector:
    tokenize = ngram_similarity.bleu_tokenizer(tgt)

    def select(sentences: list[str], candidates: list[list[str]]) -> list[str]:
        return consensus(
            candidates,
            lambda texts: ngram_similarity.words(texts, tokenize, {}),
            ngram_similarity.bleu,
            ngram_similarity.BLEU_ORDER,
        )

    return select


def by_chrf(src: Language, tgt: Language, settings: SelectionSettings) -> Selector:
    def select(sentences: list[str], candidates: list[list[str]]) -> list[str]:
        return consensus(candidates, ngram_similarity.characters, ngram_similarity.chrf, ngram_similarity.CHRF_ORDER)

    return select


def consensus(candidates: list[list[str]], read: Callable, score: Callable, order: int) -> list[str]:
    """Of each list the text with the highest sum of `score` against each of the others as reference; of equals the first.

    `read` makes topxgen.retrieval.ngram_similarity.Sequences of texts, `score` is its chrf or bleu. Sums that agree in nine decimals are
    equal: the last bits are noise. An empty candidate is taken only where all are.
    """
    best = []
    start = 0
    while start < len(candidates):
        stop, widest = start, 1
        while stop < len(candidates):
            widest = max(widest, len(candidates[stop]))
            if stop > start and (stop + 1 - start) * widest**2 > _PAIRS:
                break
            stop += 1
        block = candidates[start:stop]
        best += [
            texts[i] if texts else "" for texts, i in zip(block, _most_alike(block, read, score, order), strict=True)
        ]
        start = stop
    return best


def _most_alike(candidates: list[list[str]], read: Callable, score: Callable, order: int) -> list[int]:
    """The place of the best of each list (0 for an empty one)."""
    import numpy as np

    counts = np.array([len(texts) for texts in candidates])
    widest = int(counts.max(initial=0))
    if not widest:
        return [0] * len(candidates)
    group = np.repeat(np.arange(len(candidates)), counts)
    place = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
    sequences = read([text for texts in candidates for text in texts])
    # A symbol stands for itself in its own list alone, so that nothing is matched across lists.
    span = int(sequences.symbols.max(initial=0)) + 1
    symbols = sequences.symbols + span * np.repeat(group, sequences.lengths)
    index = ngram_similarity.NgramIndex(ngram_similarity.Sequences(symbols, sequences.lengths), order)
    matches = []
    for features in index.features:
        pairs = (features @ features.T).tocoo()
        found = np.zeros((len(candidates), widest, widest), dtype=np.int64)
        found[group[pairs.row], place[pairs.row], place[pairs.col]] = pairs.data
        matches.append(found)
    lengths = np.zeros((len(candidates), widest), dtype=np.int64)
    lengths[group, place] = sequences.lengths
    scores = score(matches, hypothesis=lengths[:, :, None], reference=lengths[:, None, :])
    scores[:, np.arange(widest), np.arange(widest)] = 0  # not against itself; places that are filled up match nothing
    sums = scores.sum(axis=2).round(9)
    blank = np.array([not text.strip() for texts in candidates for text in texts])
    usable = np.zeros_like(sums, dtype=bool)
    usable[group, place] = ~blank
    return np.where(usable, sums, -1).argmax(axis=1).tolist()


class ByBlaser:
    """The candidate with the best BLASER-2.0-QE score; the model is loaded for a call and freed after it."""

    def __init__(self, src: Language, tgt: Language, settings: SelectionSettings):
        from topxgen.quality import blaser

        if settings.dtype not in sonar.DTYPES:
            raise UsageError(
                f"dtype {settings.dtype!r} is not offered for SONAR; choose one of {', '.join(sonar.DTYPES)}"
            )
        blaser.preflight(settings.blaser, settings.sonar, (src, tgt))
        self._src, self._tgt, self._settings = src, tgt, settings

    def __call__(self, sentences: list[str], candidates: list[list[str]]) -> list[str]:
        return best_scored(sentences, candidates, self._score)

    def _score(self, sentences: list[str], translations: list[str]) -> list[float | None]:
        from topxgen.quality.blaser import Blaser

        settings = self._settings
        model = Blaser(settings.blaser, settings.sonar, dtype=settings.dtype, device=settings.device)
        try:
            return model.score(sentences, translations, self._src, self._tgt)
        finally:
            model.close()


class ByComet:
    """The candidate with the best score of a reference-free COMET model, asked through files in its own environment.

    COMET cannot share ours (it holds numpy, transformers and huggingface_hub back). topxgen/quality/comet_qe.py runs there; its
    scores are on disk as they come, and what has one is not scored again.
    """

    def __init__(self, src: Language, tgt: Language, settings: SelectionSettings):
        self._settings = settings
        self._python = comet_python(settings.comet_python)

    def __call__(self, sentences: list[str], candidates: list[list[str]]) -> list[str]:
        return best_scored(sentences, candidates, self._score)

    def _score(self, sentences: list[str], translations: list[str]) -> list[float | None]:
        if self._settings.scores_dir is not None:
            self._settings.scores_dir.mkdir(parents=True, exist_ok=True)
            return self._score_in(self._settings.scores_dir, sentences, translations)
        with tempfile.TemporaryDirectory() as folder:
            return self._score_in(Path(folder), sentences, translations)

    def _score_in(self, folder: Path, sentences: list[str], translations: list[str]) -> list[float | None]:
        pairs = list(zip(sentences, translations, strict=True))
        ids = [self._id(*pair) for pair in pairs]
        path = folder / "comet_qe_scores.jsonl"
        repair_tail(path)
        known = {record["id"] for record in read_jsonl(path)}
        missing = {key: pair for key, pair in zip(ids, pairs, strict=True) if key not in known}
        if missing:
            logger.info(f"comet-qe: {len(missing)} translations to score with {self._settings.comet_model}")
            self._run(folder, path, missing)
        scores = {record["id"]: record["score"] for record in read_jsonl(path)}
        if lost := [key for key in missing if key not in scores]:
            raise UsageError(
                f"COMET left {len(lost)} of {len(missing)} translations without a score in {path}; run again"
            )
        return [None if math.isnan(scores[key]) else scores[key] for key in ids]

    def _run(self, folder: Path, path: Path, missing: dict[str, tuple[str, str]]) -> None:
        asked = folder / "comet_qe_pairs.jsonl"
        with open(asked, "w", encoding="utf-8", errors="replace") as file:
            file.writelines(to_line({"id": key, "src": src, "mt": mt}) for key, (src, mt) in missing.items())
        script = _ROOT / "topxgen" / "quality" / "comet_qe.py"
        command = [self._python, str(script), "--model", self._settings.comet_model, str(asked), str(path)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
        if done.returncode:
            last = next((line.strip() for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
            raise UsageError(
                f"COMET failed in {self._python} ({last[:300]}); {COMET_MODEL} wants its licence accepted on the Hub and HF_TOKEN "
                "exported; scores so far are kept"
            )

    def _id(self, src: str, mt: str) -> str:
        key = json.dumps([self._settings.comet_model, src, mt])
        return hashlib.sha256(key.encode()).hexdigest()[:24]


def comet_python(named: str | None) -> str:
    """The interpreter that has COMET: the one named, $COMET_PYTHON, or .venv-comet. Raises UsageError when it has not."""
    python = named or os.environ.get(COMET_PYTHON) or str(_ROOT / ".venv-comet" / "bin" / "python")
    make = (
        "make its environment: python3.11 -m venv .venv-comet && .venv-comet/bin/pip install -r requirements-comet.txt "
        f"(elsewhere: --comet_python PATH or ${COMET_PYTHON})"
    )
    found = shutil.which(python)
    if found is None:
        raise UsageError(f"comet-qe needs COMET, and there is no interpreter {python}; {make}")
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('comet') is None)"
    if subprocess.run([found, "-c", look], capture_output=True).returncode:
        raise UsageError(f"comet-qe needs COMET, which {python} has not; {make}")
    return found


def best_scored(
    sentences: list[str],
    candidates: list[list[str]],
    score: Callable[[list[str], list[str]], list[float | None]],
) -> list[str]:
    """Of each list the text with the highest score, of equals the first; `score` is asked once, for all that need it.

    An empty candidate is never asked about, and taken only where all are; a single candidate needs no score.
    """
    best = [next((text for text in texts if text.strip()), "") for texts in candidates]
    asked = []
    for i, texts in enumerate(candidates):
        distinct = list(dict.fromkeys(text for text in texts if text.strip()))
        if len(distinct) > 1 and sentences[i].strip():
            asked += [(i, text) for text in distinct]
    scores = score([sentences[i] for i, _ in asked], [text for _, text in asked]) if asked else []
    top: dict[int, float] = {}
    for (i, text), value in zip(asked, scores, strict=True):
        if value is not None and value > top.get(i, -math.inf):
            top[i], best[i] = value, text
    return best
