"""Which candidate is taken: ties, blanks, missing scores."""

import pytest

from comptra import candidate_selection
from comptra.candidate_selection import best_scored, create
from topxgen.text import languages

ENGLISH, BASQUE = languages.find("English"), languages.find("Basque")


def choose(candidates, scores: dict[str, float | None], sentences=None) -> tuple[list[str], list[str]]:
    asked: list[str] = []

    def score(sentences, texts):
        asked.extend(texts)
        return [scores.get(text) for text in texts]

    return best_scored(sentences or ["s"] * len(candidates), candidates, score), asked


def test_of_equal_scores_the_first():
    assert choose([["a", "b", "c"]], {"a": 1.0, "b": 2.0, "c": 2.0}) == (["b"], ["a", "b", "c"])
    assert choose([["a", "b"]], {"a": -3.0, "b": -2.0})[0] == ["b"]


def test_what_needs_no_score_is_not_scored():
    assert choose([["a"], [" ", "b"], ["c", "c"], [], ["", " "]], {}) == (["a", "b", "c", "", ""], [])
    assert choose([["a", "b"]], {"b": 1.0}, sentences=[" "]) == (["a"], []), "nothing to compare with"


def test_without_a_score_the_first_that_has_text():
    assert choose([["", "a", "b"]], {})[0] == ["a"]
    assert choose([["a", "b"]], {"b": -9.0})[0] == ["b"]


@pytest.mark.parametrize("method", ["bleu", "chrf"])
def test_the_candidate_most_like_the_others(method):
    select = create(method, ENGLISH, BASQUE)
    alike = ["etxe handia da hori", "etxe handia zen hori", "etxe handia da hura", "zerbait guztiz ezberdina dago"]
    assert select(["s"], [alike]) == [alike[0]]
    assert select(["s", "t"], [alike[::-1], ["bat"]]) == [alike[0], "bat"]
    assert select(["s"], [["a b c d", "a b c d", "x"]]) == ["a b c d"]
    # An empty candidate matches nothing, nor does a single other one; of equals the first with text.
    assert select(["s"], [["", " ", "bat", "bi"]]) == ["bat"]
    assert select(["s"], [["", ""], []]) == ["", ""]


@pytest.mark.parametrize("method", ["bleu", "chrf"])
def test_candidates_are_hypotheses_and_the_others_references(method):
    """Against sacrebleu, where hypothesis and reference cannot be swapped: their lengths differ."""
    import sacrebleu

    texts = [
        "hau etxe zuri eta handi bat da eta hori da",
        "hau etxe zuri bat da",
        "hau etxe zuri eta handi bat da eta",
        "etxe zuri bat da hori",
    ]

    def score(hypothesis: str, reference: str) -> float:
        if method == "chrf":
            return sacrebleu.sentence_chrf(hypothesis, [reference]).score
        return sacrebleu.sentence_bleu(hypothesis, [reference]).score

    for order in (texts, texts[::-1], [texts[1], texts[3], texts[0]], [texts[2], texts[1], texts[3]]):
        sums = [sum(score(text, other) for j, other in enumerate(order) if j != i) for i, text in enumerate(order)]
        assert create(method, ENGLISH, BASQUE)(["s"], [order]) == [order[sums.index(max(sums))]]
    sums = [sum(score(other, text) for j, other in enumerate(texts) if j != i) for i, text in enumerate(texts)]
    assert len(set(sums)) > 1


def test_lists_do_not_match_each_other(monkeypatch):
    select = create("chrf", ENGLISH, BASQUE)
    lists = [["aaaa bbbb", "cccc", "aaaa"], ["cccc cccc", "cccc", "dddd"], ["bbbb", "dddd dd", "dddd"]]
    alone = [select(["s"], [texts])[0] for texts in lists]
    assert select(["s"] * 3, lists) == alone
    monkeypatch.setattr(candidate_selection, "_PAIRS_PER_BLOCK", 1)
    assert select(["s"] * 3, lists) == alone
