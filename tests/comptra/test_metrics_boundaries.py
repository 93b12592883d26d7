"""Metrics over sums against sacrebleu's own scores, at the ends of their ranges."""

import numpy as np
import pytest
import sacrebleu

from comptra.scores import metrics, surface
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
def test_bleu_of_segments(translations):
    metric = scorer("bleu", tokenize="13a")
    expected = [
        sacrebleu.sentence_bleu(*pair).score for pair in zip(translations, [[r] for r in REFERENCES], strict=True)
    ]
    assert metric.segment_scores(metric.statistics(translations)).tolist() == pytest.approx(expected)


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

    monkeypatch.setattr(surface, "identifier_of", lambda model: Always)
    metric = scorer("lang")
    assert metric.statistics(["a", "b", " ", ""])[:, 0].tolist() == [1, 0, 0, 0]
    assert metric.scores(np.array([1.0, 4.0])) == 25


@pytest.mark.parametrize("translations", CANDIDATES)
def test_chrf6_and_ter(translations):
    for name, ours in (("chrf6", sacrebleu.CHRF(word_order=0)), ("ter", sacrebleu.TER())):
        metric = scorer(name)
        score = float(metric.scores(metric.statistics(translations).sum(axis=0)))
        assert score == pytest.approx(ours.corpus_score(translations, [REFERENCES]).score, abs=1e-9)
        assert metric.signature == str(ours.get_signature())
    assert not metric.higher_is_better and scorer("chrf6").higher_is_better


def test_ter_without_words_of_the_reference():
    sums = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 2.0]])
    assert surface.ter_scores(sums).tolist() == [sacrebleu.TER()._compute_score_from_stats(row).score for row in sums]


def in_language(name: str, language: str, references: list[str]):
    test = metrics.Test(languages.find("English"), languages.find(language), ["s"] * len(references), references)
    return metrics.create(name, test)


def test_ter_of_scripts_without_spaces():
    """Characters where sacreBLEU can split them, and no score where a sentence would be one word."""
    references, translations = ["我喜欢吃苹果。", "他们在学校。"], ["我喜欢苹果。", "他们学校里。"]
    metric = in_language("ter", "Chinese (Simplified)", references)
    ours = sacrebleu.TER(normalized=True, asian_support=True)
    expected = ours.corpus_score(translations, [references]).score
    assert metric.scores(metric.statistics(translations).sum(axis=0)) == pytest.approx(expected) and expected < 50
    assert in_language("ter", "Thai", ["ฉันชอบกินแอปเปิล"]) is None


def test_chrf_plus_plus_is_another_name_of_chrf():
    from comptra import evaluate
    from comptra.scores.flags import metric_names

    args = evaluate.build_parser().parse_args(["runs", "--metrics", "chrf++", "chrf", "ter"])
    assert metric_names(args) == ["chrf", "ter"]
    assert metric_names(evaluate.build_parser().parse_args(["runs"]))[0] == "chrf", "it leads the table"
