"""The best of several candidates: MBR against brute force with sacrebleu, quality estimation through real files and processes."""

import random
from dataclasses import replace

import pytest

from comptra import candidate_selection
from comptra.candidate_selection import SelectionSettings, create
from tests.support.tiny_models import udhr_pairs
from topxgen.common.errors import UsageError
from topxgen.retrieval.ngram_similarity import bleu_tokenizer_name
from topxgen.text import languages

ENGLISH, BASQUE, NEPALI, THAI = map(languages.find, ("English", "Basque", "Nepali", "Thai"))


def varied(texts: list[str], rng: random.Random, most: int) -> list[list[str]]:
    """For each text some that are like it: words dropped, swapped, taken from elsewhere; often one twice."""
    found = []
    for text in texts:
        candidates = []
        for _ in range(rng.randint(1, most)):
            words = text.split()
            for _ in range(rng.randint(0, 4)):
                i, j = rng.randrange(len(words)), rng.randrange(len(words))
                words[i], words[j] = words[j], rng.choice(rng.choice(texts).split())
            candidates.append(" ".join(words[: rng.randint(1, len(words))] if rng.random() < 0.3 else words))
        if rng.random() < 0.4:
            candidates.append(rng.choice(candidates))
        found.append(candidates)
    return found


def brute_force(metric, texts: list[str]) -> str:
    sums = [
        sum(metric.sentence_score(text, [other]).score for j, other in enumerate(texts) if j != i)
        for i, text in enumerate(texts)
    ]
    return texts[next(i for i, value in enumerate(sums) if value >= max(sums) - 1e-9)]


@pytest.mark.parametrize("name", ["bleu", "chrf"])
@pytest.mark.parametrize("language", [BASQUE, NEPALI])
def test_consensus_is_brute_force_with_sacrebleu(name, language, monkeypatch):
    from sacrebleu.metrics import BLEU, CHRF

    metric = BLEU(effective_order=True) if name == "bleu" else CHRF()
    sources = [text for _, text in udhr_pairs(language.name)[:45]]
    candidates = varied([text for text, _ in udhr_pairs(language.name)[:45]], random.Random(5), 7)
    select = create(name, ENGLISH, language)
    found = select(sources, candidates)
    assert found == [brute_force(metric, texts) for texts in candidates]
    assert sum(text != texts[0] for text, texts in zip(found, candidates, strict=True)) > 10, "not just the first"
    monkeypatch.setattr(candidate_selection, "_PAIRS_PER_BLOCK", 200)
    assert select(sources, candidates) == found


def test_consensus_in_a_script_without_spaces():
    from sacrebleu.metrics import BLEU

    texts = ["เขาอ่านหนังสือพิมพ์", "ฉันกินข้าวเช้าแล้ว", "ฉันกินข้าวเช้า", "ฉันกินข้าวเย็น"]
    chosen = create("bleu", ENGLISH, THAI)(["I ate."], [texts])
    assert chosen == [brute_force(BLEU(tokenize=bleu_tokenizer_name(THAI), effective_order=True), texts)] != texts[:1]


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_consensus_at_the_edges(name):
    select = create(name, ENGLISH, BASQUE)
    candidates = [
        [],
        [""],
        ["", " ", "\u200b\u00ad"],
        ["", "bat"],
        ["bat", ""],
        ["bat", "bi"],
        ["bi", "bat bi", "bat bi"],
        ["  ", "x", ""],
    ]
    assert select(["s"] * len(candidates), candidates) == ["", "", "", "bat", "bat", "bat", "bat bi", "x"]
    assert select([], []) == [] and select(["s"], [[]]) == [""]
    # The same words in two sentences are no agreement.
    assert select(["s", "s"], [["bat bi hiru", "lau bost"], ["bat bi hiru"] * 3]) == ["bat bi hiru"] * 2


def test_greedy_selects_nothing():
    assert create("greedy", ENGLISH, BASQUE) is None
    with pytest.raises(
        UsageError, match=r"'blazer' does not exist; choose one of greedy, bleu, chrf, blaser, comet-qe, .*\(did you"
    ):
        create("blazer", ENGLISH, BASQUE)


def test_the_best_score_wins_and_empty_candidates_never_do():
    asked = []

    def score(sentences, texts):
        asked.extend(zip(sentences, texts, strict=True))
        return [None if text == "none" else float(len(text)) for text in texts]

    candidates = [
        [],
        ["", "ab", "abc"],
        ["xy", "zw"],
        ["", " "],
        ["one"],
        ["none", "a"],
        ["none", "none "],
        ["a", "a", ""],
    ]
    sentences = [f"s{i}" for i in range(len(candidates))]
    best = candidate_selection.best_scored(sentences, candidates, score)
    assert best == ["", "abc", "xy", "", "one", "a", "none ", "a"]
    assert ("s1", "") not in asked and not {"s4", "s7"} & {sentence for sentence, _ in asked}
    assert candidate_selection.best_scored([" "], [["", "b", "cc"]], score) == ["b"], "nothing to compare with"


@pytest.mark.medium
def test_blaser_chooses_by_its_scores(tmp_path):
    from tests.support.tiny_sonar import build_blaser, build_sonar
    from topxgen.quality.blaser import Blaser

    pairs = udhr_pairs("Basque")[:25]
    sonar = build_sonar(tmp_path / "sonar", [text for pair in pairs for text in pair])
    weights = build_blaser(tmp_path / "model.pt")
    settings = SelectionSettings(blaser_name_or_path=weights, sonar_name_or_path=sonar)
    sources = [english for _, english in pairs]
    candidates = [["", *texts] for texts in varied([basque for basque, _ in pairs], random.Random(2), 5)]
    model = Blaser(weights, sonar)
    expected = []
    for source, texts in zip(sources, candidates, strict=True):
        scores = model.score([source] * len(texts), texts, ENGLISH, BASQUE)
        expected.append(max(texts, key=lambda text: -9e9 if (s := scores[texts.index(text)]) is None else s))
    assert create("blaser", ENGLISH, BASQUE, settings)(sources, candidates) == expected
    assert len({texts.index(text) for text, texts in zip(expected, candidates, strict=True)}) > 2
    with pytest.raises(UsageError, match="nowhere/at/all"):
        create("blaser", ENGLISH, BASQUE, replace(settings, blaser_name_or_path="nowhere/at/all"))


# Boundaries


def test_sums_that_agree_in_nine_decimals_are_ties():
    import numpy as np

    from topxgen.retrieval import ngram_similarity

    def chosen(difference: float) -> str:
        def score(matches, hypothesis, reference):
            scores = np.zeros_like(matches[0], dtype=float)
            scores[0, 0, 1], scores[0, 1, 0] = 0.5, 0.5 + difference
            scores[0, 0, 0] = 9.0  # with itself: does not count
            return scores

        return candidate_selection.consensus([["a", "b"]], ngram_similarity.characters, score, 2)[0]

    assert [chosen(difference) for difference in (0, 4e-10, 2e-9, -2e-9)] == ["a", "a", "b", "a"]


@pytest.mark.parametrize(
    ("limit", "counts", "blocks"),
    [
        (8, [2] * 5, [2, 2, 1]),
        (7, [2] * 5, [1] * 5),
        (8, [3, 1, 1], [1, 2]),
        (18, [1, 3, 1], [2, 1]),
        (17, [1, 3], [1, 1]),
    ],
)
def test_pairs_of_candidates_are_compared_in_blocks(limit, counts, blocks, monkeypatch):
    sizes = []
    monkeypatch.setattr(candidate_selection, "_PAIRS_PER_BLOCK", limit)
    monkeypatch.setattr(
        candidate_selection, "_most_similar", lambda block, *_: (sizes.append(len(block)), [0] * len(block))[1]
    )
    candidates = [[f"{i} {j}" for j in range(count)] for i, count in enumerate(counts)]
    assert candidate_selection.consensus(candidates, None, None, 1) == [texts[0] for texts in candidates]
    assert sizes == blocks


def test_scores_may_be_negative_and_ties_go_to_the_first():
    scores = {"a": -2.0, "b": -1.0, "c": -1.0, "d": None}
    best = candidate_selection.best_scored(["s"], [["d", "a", "b", "c"]], lambda _, texts: [scores[t] for t in texts])
    assert best == ["b"]
