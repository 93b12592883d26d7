"""Metrics over sums against sacrebleu's own scores, at the ends of their ranges."""

import numpy as np
import pytest
import sacrebleu

from comptra.scores import metrics
from topxgen.text import languages

REFERENCES = ["the cat sat on the mat today", "a dog", "it rains in the hills", "x"]
CANDIDATES = [
    REFERENCES,
    ["the cat sat on a mat", "a", "it rains in the hills and in the valleys", "y"],
    ["cat", "", "hills", ""],
    ["the cat sat", "a dog barks", "rains the in", "x x x"],
    ["", "", "", ""],
    ["the cat sat down there", "a dog", "it rains on", "x"],  # no 4-gram matches
    ["q w e r", "t", "z", "p"],
]


def scorer(name: str, **settings):
    test = metrics.Test(languages.find("Basque"), languages.find("English"), ["s"] * 4, REFERENCES)
    return metrics.create(name, test, metrics.MetricSettings(**settings))


@pytest.mark.parametrize("translations", CANDIDATES)
def test_bleu(translations):
    metric = scorer("bleu", tokenize="13a")
    score = float(metric.scores(metric.statistics(translations).sum(axis=0)))
    assert score == pytest.approx(sacrebleu.corpus_bleu(translations, [REFERENCES], force=True).score)


@pytest.mark.parametrize("translations", CANDIDATES)
def test_chrf(translations):
    metric = scorer("chrf")
    score = float(metric.scores(metric.statistics(translations).sum(axis=0)))
    assert score == pytest.approx(sacrebleu.corpus_chrf(translations, [REFERENCES], word_order=2).score)
    assert "nw:2" in metric.signature


def test_an_empty_translation_is_in_no_language(monkeypatch):
    class Always:
        knows = staticmethod(lambda language: True)
        is_language = staticmethod(lambda texts, language: [text != "b" for text in texts])

    monkeypatch.setattr(metrics, "_identifier", lambda model: Always)
    metric = scorer("lang")
    assert metric.statistics(["a", "b", " ", ""])[:, 0].tolist() == [1, 0, 0, 0]
    assert metric.scores(np.array([1.0, 4.0])) == 25
