"""Is a test set translated better than its twins? The tests behind the verdict of scripts/probe_contamination.py.

To a model that has not seen the test set, the original is one variant among others. Two signals say otherwise: the original
scores higher than its twins by more than a margin, and translations of twins bring values of the original, which their
sources do not have. With a baseline, a model that has not seen the test set, both count only as far as they exceed its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path

import numpy as np

from comptra.contamination import twins
from comptra.contamination.twins import Sentence, holds
from comptra.scores import metrics
from comptra.scores.systems import read_lines
from comptra.significance.resampling import resampled_scores
from topxgen.text.languages import Language

SAMPLES = 10_000
LEVEL = 0.05  # of the verdict, divided by the number of signals (Bonferroni)
SIGNALS = 2
MIN_SENTENCES = 30  # fewer say nothing: the bootstrap and the sign test have no power
MIN_DIGITS = 2  # of a number that counts as recalled: one digit is often right by chance


@dataclass(frozen=True)
class Columns:
    """The statistics of a metric on each variant, the original first: (sentences, m) each. Rows of variants belong together."""

    variants: list[np.ndarray]
    scores: Callable[[np.ndarray], np.ndarray]  # (..., m) sums -> (...) scores


def of_systems(
    variants: Sequence[list[Sentence]], folders: Mapping[str, Path], languages: tuple[Language, Language],
    base: str | None, margin: float, seed: int,
) -> dict[str, dict]:  # fmt: skip
    """The tests and verdict of each system, by the translations of all variants in its folder, against those of the system `base`."""
    texts = {}
    for name, folder in folders.items():
        rows = read_lines(folder / "translate_0.jsonl")[0]
        texts[name] = twins.divided([row[1] for row in rows], len(variants[0]))
    columns = {name: chrf_columns(variants, own, *languages) for name, own in texts.items()}
    found = {}
    for name in folders:
        baseline = base if name != base else None
        chrf = drop_test(columns[name], columns[baseline] if baseline else None, margin, seed)
        recall = recall_test(variants, texts[name], texts[baseline] if baseline else None)
        found[name] = {
            "suspicious": is_suspicious(chrf, recall), "chrf": chrf, "recall": recall,
            "verdict": verdict(name, chrf, recall, baseline and Path(baseline).name),
        }  # fmt: skip
    return found


def chrf_columns(
    variants: Sequence[list[Sentence]], translations: Sequence[list[str]], src: Language, tgt: Language
) -> Columns:
    """Of chrF++, with all the values: names change places, so those of the original are as hard as those of a twin."""
    columns = []
    for sentences, texts in zip(variants, translations, strict=True):
        test = metrics.Test(src, tgt, [s.source for s in sentences], [s.reference for s in sentences])
        scorer = metrics.create("chrf", test)
        columns.append(scorer.statistics(texts))
    return Columns(columns, scorer.scores)


def drop_test(model: Columns, baseline: Columns | None, margin: float, seed: int) -> dict:
    """The score of the original less the mean of the twins', less the baseline's; its 95% interval over sentences and a one-sided
    p-value, that it is no more than `margin`, by the paired bootstrap. `among_twins`: what each twin has less the other twins."""
    both = [*model.variants, *(baseline.variants if baseline else ())]
    count = len(model.variants)
    drawn = resampled_scores(both, [model.scores] * len(both), SAMPLES, seed)
    scores = np.array([model.scores(stats.sum(axis=0)) for stats in both])

    def drop(values: np.ndarray, which: int = 0) -> np.ndarray:
        """`values`: (variants, ...) scores."""
        return values[which] - np.delete(values, which, axis=0).mean(axis=0)

    def excess(values: np.ndarray) -> np.ndarray:
        return drop(values[:count]) - (drop(values[count:]) if baseline else 0)

    low, high = np.percentile(excess(drawn), (2.5, 97.5))
    return {
        "original": float(scores[0]),
        "twins": [float(score) for score in scores[1:count]],
        "drop": float(drop(scores[:count])),
        "excess": float(excess(scores)),
        "interval": [float(low), float(high)],
        "p": float((1 + (excess(drawn) <= margin).sum()) / (SAMPLES + 1)),
        "among_twins": [float(drop(scores[1:count], i)) for i in range(count - 1)] if count > 2 else [],
    }


def recall_test(
    variants: Sequence[list[Sentence]], model: Sequence[list[str]], baseline: Sequence[list[str]] | None
) -> dict:
    """Values of the original in translations of twins, and the other way round, which only chance brings; a one-sided sign test
    over sentences that the first is no more frequent, where the baseline's own count is subtracted."""
    recalled, reverse = recalls(variants, model)
    net = recalled - reverse
    if baseline is not None:
        ours, theirs = recalls(variants, baseline)
        net = net - (ours - theirs)
    more, less = int((net > 0).sum()), int((net < 0).sum())
    return {
        "recalled": int(recalled.sum()),
        "by_chance": int(reverse.sum()),
        "of": sum(_counts(swap.kind, swap.old) for twin in variants[1:] for s in twin for swap in s.swaps),
        "sentences_more": more,
        "sentences_less": less,
        "p": sign_test(more, less),
    }


def recalls(variants: Sequence[list[Sentence]], translations: Sequence[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Of each sentence: how many values of the original are in translations of its twins, whose source and reference lack them, and how many
    values of twins in the translation of the original."""
    original, counts = variants[0], np.zeros((2, len(variants[0])), int)
    for twin, texts in zip(variants[1:], translations[1:], strict=True):
        for i, sentence in enumerate(twin):
            for kind, old, new in sentence.swaps:
                if _counts(kind, old):
                    counts[0, i] += _is_out_of_place(texts[i], sentence, kind, old)
                    counts[1, i] += _is_out_of_place(translations[0][i], original[i], kind, new)
    return counts[0], counts[1]


def _counts(kind: str, value: str) -> bool:
    """Not years: those of a news test are likelier in any translation than earlier ones, and so come by chance."""
    return kind == "name" or (kind == "number" and len(value) >= MIN_DIGITS)


def _is_out_of_place(translation: str, sentence: Sentence, kind: str, value: str) -> bool:
    sides = (sentence.source, sentence.reference)
    return holds(translation, value, kind) and not any(holds(text, value, kind) for text in sides)


def sign_test(more: int, less: int) -> float:
    """P(at least `more` heads of more + less fair coins)."""
    total = more + less
    return sum(comb(total, k) for k in range(more, total + 1)) / 2**total


def is_suspicious(chrf: dict, recall: dict) -> bool:
    return min(chrf["p"], recall["p"]) <= LEVEL / SIGNALS


def verdict(name: str, chrf: dict, recall: dict, baseline: str | None) -> str:
    """In plain English, with its limits."""
    than = f" more than {baseline}" if baseline else ""
    low, high = chrf["interval"]
    figures = (
        f"the original scores {chrf['excess']:+.1f} chrF++ against its twins{than} (95% interval {low:.1f} to {high:.1f}); "
        f"{recall['recalled']} of {recall['of']} replaced values came back in translations of twins, {recall['by_chance']} the other way round"
    )
    if is_suspicious(chrf, recall):
        return f"{name}: signs that the test set was in its training data: {figures}"
    return (
        f"{name}: no sign of this test set in its training data: {figures}. This does not prove that it was not: paraphrases, one side "
        "alone and passages seen once leave fewer traces than this finds"
    )
