import random

import pytest

from tests.support.tiny_models import udhr_texts
from topxgen.text.near_duplicates import NearDuplicates, rouge_l_f1


def real_paragraphs(count: int, window: int = 3) -> list[str]:
    """Windows over consecutive UDHR paragraphs: neighbours share two thirds, right at the threshold."""
    texts = []
    for name in ("English", "Basque", "Spanish", "Swahili", "Hausa"):
        lines = udhr_texts(name)
        texts += [" ".join(lines[i : i + window]) for i in range(len(lines) - window + 1)]
    random.Random(0).shuffle(texts)
    return texts[:count]


def kept_by_rouge_score(texts: list[str], threshold: float) -> list[int]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    kept = []
    for i, text in enumerate(texts):
        if not any(scorer.score(texts[j], text)["rougeL"].fmeasure > threshold for j in kept):
            kept.append(i)
    return kept


def kept_by_us(texts: list[str], threshold: float, tokenizer: str = "rouge_score") -> list[int]:
    index = NearDuplicates(threshold, tokenizer)
    return [i for i, text in enumerate(texts) if index.keep(str(i), text) is None]


@pytest.mark.parametrize("threshold", [pytest.param(0.4, marks=pytest.mark.slow), 0.7])
def test_same_kept_set_as_rouge_score(threshold):
    texts = real_paragraphs(40)
    kept = kept_by_us(texts, threshold)
    assert kept == kept_by_rouge_score(texts, threshold)
    assert 0 < len(kept) < len(texts), "the sample must hold near-duplicates"


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_same_kept_sets_as_rouge_score_on_two_thousand(ntrex):
    """2,000 real paragraphs of two news lines, neighbours sharing one; rouge_score on all 2 million pairs."""
    from rouge_score import rouge_scorer
    from rouge_score.tokenizers import DefaultTokenizer

    texts = []
    for name in ("src.eng", "ref.eus", "ref.hau", "ref.swa"):
        lines = (ntrex / f"newstest2019-{name}.txt").read_text(encoding="utf-8").splitlines()
        texts += [" ".join(lines[i : i + 2]) for i in range(500)]
    random.Random(0).shuffle(texts)
    tokenize = DefaultTokenizer(use_stemmer=False).tokenize
    tokens = [tokenize(text) for text in texts]
    close = {}  # the pairs that matter at either threshold
    for i in range(len(texts)):
        for j in range(i):
            if (f1 := rouge_scorer._score_lcs(tokens[j], tokens[i]).fmeasure) > 0.45:
                close.setdefault(i, {})[j] = f1
    for threshold in (0.5, 0.7):
        kept: list[int] = []
        for i in range(len(texts)):
            if not any(close.get(i, {}).get(j, 0) > threshold for j in kept):
                kept.append(i)
        assert kept_by_us(texts, threshold) == kept
        print(f"threshold {threshold}: {len(kept)} of {len(texts)} kept")
        assert len(kept) < len(texts)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_no_bound_skips_a_near_duplicate(threshold):
    """Against comparing every pair, on short texts of few words, where ties and extremes are common."""
    from rapidfuzz.distance import LCSseq

    rng = random.Random(1)
    texts = [" ".join(rng.choices("abcdefgh", k=rng.randint(1, 12))) for _ in range(400)]
    kept: list[str] = []
    for text in texts:
        words = text.split()
        if not any(
            rouge_l_f1(LCSseq.similarity(words, other.split()), len(other.split()), len(words)) > threshold
            for other in kept
        ):
            kept.append(text)
    assert [texts[i] for i in kept_by_us(texts, threshold, "unicode")] == kept


def test_texts_of_more_different_words_than_a_byte_has_values():
    from rapidfuzz.distance import LCSseq

    rng, words = random.Random(4), [f"w{i}" for i in range(900)]
    index, texts = NearDuplicates(0.0), [rng.sample(words, 700) for _ in range(4)]
    for number, text in enumerate(texts[1:]):
        index.add(str(number), " ".join(text))
    lengths = [LCSseq.similarity(texts[0], other) for other in texts[1:]]
    assert [f1 for _, f1 in index.matches(" ".join(texts[0]))] == [rouge_l_f1(lcs, 700, 700) for lcs in lengths]


def test_scores_are_rouge_scores():
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    first, second = real_paragraphs(2)
    index = NearDuplicates(0.0, "rouge_score")
    index.add("first", first)
    assert index.match(second) == ("first", scorer.score(first, second)["rougeL"].fmeasure)


@pytest.mark.parametrize("name", ["Nepali", "Urdu", "Amharic", "Thai"])
def test_other_scripts_compare(name):
    text = " ".join(udhr_texts(name)[:3])
    index = NearDuplicates(0.7, "unicode")
    assert index.keep("a", text) is None
    assert index.keep("b", text) == ("a", 1.0)
    ascii_only = NearDuplicates(0.7, "rouge_score")
    assert ascii_only.keep("a", text) is None and ascii_only.keep("b", text) is None, "rouge_score sees no token"


def test_texts_without_words_are_no_duplicates():
    index = NearDuplicates(0.7)
    assert index.keep("a", "...") is None and index.keep("b", "...") is None


@pytest.mark.medium
def test_the_decisions_of_an_index_that_grows_are_those_of_every_pair():
    """Of enough texts that the lists of the index move several times, some of them altered copies."""
    from rapidfuzz.distance import LCSseq

    rng = random.Random(3)
    vocabulary = [f"w{i}" for i in range(3000)]
    texts: list[list[str]] = []
    for _ in range(1500):
        if texts and rng.random() < 0.2:
            text = list(rng.choice(texts))
            for _ in range(rng.randint(0, len(text) // 2)):
                text[rng.randrange(len(text))] = rng.choice(vocabulary)
        else:
            text = [vocabulary[int(3000 * rng.random() ** 4)] for _ in range(rng.randint(20, 60))]
        texts.append(text)
    index, kept, expected = NearDuplicates(0.7), [], []
    for number, text in enumerate(texts):
        scores = (
            (str(other), rouge_l_f1(LCSseq.similarity(text, texts[other]), len(texts[other]), len(text)))
            for other in kept
        )
        expected.append(next(((name, score) for name, score in scores if score > 0.7), None))
        if expected[-1] is None:
            kept.append(number)
    assert [index.keep(str(number), " ".join(text)) for number, text in enumerate(texts)] == expected
    assert 1000 < len(kept) < 1450
