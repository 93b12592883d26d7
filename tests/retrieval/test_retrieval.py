"""Retrieval of demonstrations: each ranking against the library that defines its scores, one pair at a time."""

import subprocess
import sys
from functools import partial
from itertools import pairwise

import pytest

from tests.support.runs import ROOT
from topxgen import retrieval
from topxgen.common.errors import UsageError
from topxgen.corpora import examples
from topxgen.retrieval import RetrieverSettings, create, dependency_trees, top_k
from topxgen.retrieval.ngram_similarity import bleu_tokenizer_name
from topxgen.text import languages
from topxgen.text.words import unicode_words

ENGLISH, BASQUE, NEPALI, URDU = map(languages.find, ("English", "Basque", "Nepali", "Urdu"))
OFFLINE = ("bm25s", "bm25", "LCS", "chrf", "bleu", "Random")
QUERIES = ["Children have a right to free education.", "Nobody may be held in slavery or tortured.", "", "zzz qqq", "a"]


def sentences(language) -> list[str]:
    return [
        text for text, _ in examples.parallel_sentences("udhr", language, BASQUE if language is ENGLISH else ENGLISH)
    ]


@pytest.fixture(scope="module")
def pool() -> list[str]:
    return [*sentences(ENGLISH), "", "...", "Everyone"]


def ranking(scores: list[float], k: int, out: int | None = None) -> list[int]:
    """The best `k` by score, of equals (nine decimals) the first; `out` left out."""
    places = [i for i in range(len(scores)) if i != out]
    return sorted(places, key=lambda i: (-round(scores[i], 9), i))[:k]


@pytest.mark.parametrize("name, method, b", [("bm25s", "robertson", 0.7), ("bm25", "atire", 0.75)])
def test_bm25_is_bm25s_called_by_hand(pool, name, method, b):
    """Bit for bit, so that even the ranking of equals can be foretold."""
    import bm25s
    import Stemmer

    stem = Stemmer.Stemmer("english").stemWords
    index = bm25s.BM25(method=method, k1=1.5, b=b)
    index.index([stem(unicode_words(text)) for text in pool], show_progress=False)
    queries = [*QUERIES, "the right the right of the people", pool[3], pool[7].upper()]
    found = create(name, pool, ENGLISH)
    for query, row in zip(queries, found.nearest(queries, 9), strict=True):
        words = stem(unicode_words(query))
        scores = index.get_scores(words) if words else [0.0] * len(pool)
        out = pool.index(query) if query in pool else None
        assert row == sorted((i for i in range(len(pool)) if i != out), key=lambda i: (-scores[i], i))[:9]
    if method == "robertson":
        documents, _ = index.retrieve([stem(unicode_words(QUERIES[0]))], k=3, show_progress=False)
        assert found.nearest(QUERIES[:1], 3) == documents.tolist()


@pytest.mark.parametrize("language", [ENGLISH, NEPALI, URDU])
def test_chrf_and_bleu_rank_as_sacrebleu_does(language):
    from sacrebleu.metrics import BLEU, CHRF

    texts = [*sentences(language)[:60], "", "a", "a b", "a b c a b c", "((a)) aaaa-aaaa, 3.5% &quot;b&quot;"]
    queries = [*sentences(language)[60:70], texts[5], "", "a", "a b c d a b", "aaaa (aaaa) 3,5"]
    metrics = {"chrf": CHRF(), "bleu": BLEU(effective_order=True)}
    for name, metric in metrics.items():
        retriever = create(name, texts, language)
        ours = retriever._similarity.scores(queries)
        for query, row, scores in zip(queries, retriever.nearest(queries, 12), ours.tolist(), strict=True):
            theirs = [metric.sentence_score(text, [query]).score for text in texts]
            assert scores == pytest.approx(theirs, abs=1e-9)
            assert max(theirs) > 0 or not query
            assert row == ranking(theirs, 12, texts.index(query) if query in texts else None)


def test_bleu_tokens_by_script():
    """Scripts without spaces are taken apart; nothing else is torn at a mark."""
    from sacrebleu.metrics import BLEU

    thai, chinese = languages.find("Thai"), languages.find("zho_Hans")
    for language, texts, query in (
        (thai, ["ฉันกินข้าวเช้า", "เขาอ่านหนังสือ", "กินข้าว"], "ฉันกินข้าวเย็น"),
        (chinese, ["我今天吃了早饭。", "他在读一本书。", "今天很冷"], "我今天吃了晚饭。"),
    ):
        name = bleu_tokenizer_name(language)
        metric = BLEU(tokenize=name, effective_order=True)
        theirs = [metric.sentence_score(text, [query]).score for text in texts]
        assert name != "13a" and theirs[0] > theirs[1]
        (ours,) = create("bleu", texts, language)._similarity.scores([query])
        assert ours.tolist() == pytest.approx(theirs, abs=1e-9)
    for language, text in (
        (NEPALI, "शिक्षाको अधिकार"),
        (URDU, "تعلیم کا حق"),
        (languages.find("Korean"), "교육의 권리"),
    ):
        assert bleu_tokenizer_name(language) == "13a"
        assert BLEU().tokenizer(text) == text


def test_lcs_is_rouge_l():
    from rouge_score.rouge_scorer import RougeScorer

    texts, scorer = sentences(ENGLISH)[:80], RougeScorer(["rougeL"])
    texts = [" ".join(unicode_words(text)) for text in texts]  # one tokenizer for both
    queries = [*texts[:5], "everyone has the right to life"]
    ours = create("LCS", texts, ENGLISH)
    for query, row in zip(queries, ours.nearest(queries, 10), strict=True):
        theirs = [scorer.score(text, query)["rougeL"].fmeasure for text in texts]
        assert row == ranking(theirs, 10, texts.index(query) if query in texts else None)
    assert create("LCS", ["", "..."], ENGLISH).nearest(["", "a"], 1) == [[1], [0]]
    assert create("LCS", ["a a", "c d"], ENGLISH).nearest(["x y c"], 1) == [[1]], "words that the pool lacks"
    assert create("lcs", texts, ENGLISH).nearest(queries, 10) == ours.nearest(queries, 10), "the original's name"


@pytest.mark.parametrize("name", OFFLINE)
def test_blocks_repetitions_and_company_change_nothing(pool, name, monkeypatch):
    queries = [*QUERIES, pool[2], pool[9], QUERIES[1]]
    whole = create(name, pool, ENGLISH).nearest(queries, 6)
    assert whole[1] == whole[-1]
    assert all(query not in [pool[i] for i in row] for query, row in zip(queries, whole, strict=True))
    assert [create(name, pool, ENGLISH).nearest([query], 6)[0] for query in queries] == whole
    monkeypatch.setattr(retrieval, "BLOCK_BYTES", 8 * len(pool) * 3)
    assert create(name, pool, ENGLISH).nearest(queries, 6) == whole
    assert create(name, pool, ENGLISH).nearest(queries, 0) == [[]] * len(queries)
    assert create(name, pool, ENGLISH).nearest([], 6) == []


@pytest.mark.parametrize("name", OFFLINE)
def test_only_the_sentence_itself_is_left_out(name):
    pool = ["One house.", "Two houses.", "One house.", "one house."]
    retriever = create(name, pool, ENGLISH)
    assert sorted(retriever.nearest(["One house."], 2)[0]) == [1, 3]
    with pytest.raises(UsageError, match=r"3 demonstrations are more than the 4 sentences .*2 of them equal"):
        retriever.nearest(["Two houses.", "One house."], 3)
    with pytest.raises(UsageError, match="5 demonstrations are more than the 4 sentences of the pool; pass fewer"):
        retriever.nearest(["A garden."], 5)
    assert sorted(retriever.nearest(["A garden."], 4)[0]) == [0, 1, 2, 3]
    for empty in ([], [""], ["", "..."]):
        with pytest.raises(UsageError, match="more than the"):
            create(name, empty, ENGLISH).nearest(["A garden."], 3)
    assert len(create(name, ["", "..."], ENGLISH).nearest(["A garden."], 2)[0]) == 2


def test_tokens_of_the_original(pool, caplog):
    """Demonstrations are those of bm25s with its own tokens, English stop words left out, and mostly not ours."""
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    queries, texts = pool[:12], pool[12:]
    tokenize = partial(bm25s.tokenize, stopwords="en", stemmer=stemmer, show_progress=False)
    index = bm25s.BM25(method="robertson", k1=1.5, b=0.7)
    index.index(tokenize(texts), show_progress=False)
    rows, scores = index.retrieve(tokenize(queries), k=4, show_progress=False)
    theirs = retrieval.create("bm25s", texts, ENGLISH, RetrieverSettings(retriever_tokens="original"))
    ours = retrieval.create("bm25s", texts, ENGLISH)
    found = theirs.nearest(queries, 3)
    distinct = [len(set(values)) == 4 for values in scores.round(4).tolist()]  # ties are in any order
    assert sum(distinct) >= 5
    assert all(a == b[:3] for a, b, clear in zip(found, rows.tolist(), distinct, strict=True) if clear)
    assert found != ours.nearest(queries, 3)
    assert "one word" not in caplog.text
    retrieval.create(
        "bm25s", ["他来了。"], languages.find("Chinese (Simplified)"), RetrieverSettings(retriever_tokens="original")
    )
    assert "reads Chinese (Simplified), written without spaces, as one word" in caplog.text


@pytest.mark.parametrize("name", ["bm25s", "bm25", "LCS", "chrf", "bleu"])
def test_equals_keep_their_order(name):
    """Which of very many equals bm25s or a partition keeps is chance; here it is the first ones."""
    pool = ["nothing alike"] * 300 + ["a red house"] * 300 + ["nothing at all"] * 300
    assert create(name, pool, ENGLISH).nearest(["the red house"], 302)[0] == [*range(300, 600), 0, 1]


def test_highest_against_a_stable_sort():
    import numpy as np

    rng = np.random.default_rng(0)
    for columns in (1, 2, 7, 50):
        scores = rng.integers(0, 4, (20, columns)).astype(float)
        scores[:, columns // 2] = float("-inf")
        for k in range(1, columns + 1):
            assert (top_k(scores, k) == np.argsort(-scores, axis=1, kind="stable")[:, :k]).all()


def test_random_depends_on_seed_and_sentence_alone(pool):
    def draw(seed, queries):
        return create("Random", pool, ENGLISH, RetrieverSettings(seed=seed)).nearest(queries, 5)

    first = draw(1, QUERIES)
    assert draw(1, QUERIES[::-1]) == first[::-1] and len({tuple(row) for row in first}) == len(first)
    assert draw(2, QUERIES) != first
    drawn = [row[0] for row in draw(1, [f"sentence {i}" for i in range(3000)])]
    assert len(set(drawn)) == len(pool), "each sentence of the pool comes first now and then"


def test_another_script_has_words(pool):
    nepali = sentences(NEPALI)
    for name in ("bm25s", "bm25", "LCS", "chrf", "bleu"):
        ((best,),) = create(name, nepali, NEPALI).nearest([" ".join(nepali[7].split()[1:])], 1)
        assert best == 7


def test_sonar_is_the_cosine_of_its_vectors(tmp_path):
    import torch

    from tests.support.tiny_sonar import build_sonar
    from topxgen.quality.sonar import SonarEncoder

    texts = sentences(ENGLISH)[:40]
    texts += texts[:2]
    folder = build_sonar(tmp_path / "sonar", texts)
    queries = ["Children have a right to free education.", texts[4], "Nobody may be held in slavery."]
    settings = RetrieverSettings(sonar_name_or_path=folder)
    found = create("SONAR", texts, ENGLISH, settings)
    encoder = SonarEncoder(folder)
    unit = [torch.nn.functional.normalize(encoder.encode(side, ENGLISH).double()) for side in (queries, texts)]
    cosine = unit[0] @ unit[1].T
    cosine[1, 4] = -2
    for query, row, scores in zip(queries, found.nearest(queries, 8), cosine, strict=True):
        assert query not in [texts[i] for i in row]
        assert torch.allclose(scores[row], scores.sort(descending=True).values[:8], atol=1e-6)
        assert all(row.index(i) + 1 == row.index(i + 40) for i in (0, 1) if {i, i + 40} <= set(row)), (
            "equals: the first"
        )
    again = found.nearest([*queries[::-1], "Another one."], 8)
    assert again[:3] == found.nearest(queries, 8)[::-1] and len(again[3]) == 8
    with pytest.raises(UsageError, match="nowhere/at/all"):
        create("SONAR", texts, ENGLISH, RetrieverSettings(sonar_name_or_path="nowhere/at/all"))


# "The dog eats", "The old dog eats", "She eats", as (label, head).
THE_DOG = [("DET:det", 1), ("NOUN:nsubj", 2), ("VERB:ROOT", -1)]
THE_OLD_DOG = [("DET:det", 2), ("ADJ:amod", 2), ("NOUN:nsubj", 3), ("VERB:ROOT", -1)]
SHE = [("PRON:nsubj", 1), ("VERB:ROOT", -1)]


def test_features_of_trees():
    assert dependency_trees.count_arcs(THE_DOG) == {
        ("NOUN:nsubj", "DET:det"): 1,
        ("VERB:ROOT", "NOUN:nsubj"): 1,
        ("", "VERB:ROOT"): 1,
    }
    assert dependency_trees.count_arcs([("VERB:ROOT", -1), ("PRON:nsubj", 0)])["VERB:ROOT", "PRON:nsubj"] == 1
    found = dependency_trees.count_subtrees(THE_DOG, 2)
    assert found[0, "DET:det"] == 1 and found[1, "NOUN:nsubj(DET:det)"] == 1
    assert found[2, "VERB:ROOT(NOUN:nsubj(DET:det))"] == 1 and found.total() == 9
    assert dependency_trees.count_subtrees(THE_DOG, 0).total() == 3 and dependency_trees.count_subtrees([]) == {}
    # The order of dependents does not count, words in between do.
    turned = [("ADJ:amod", 2), ("DET:det", 2), ("NOUN:nsubj", 3), ("VERB:ROOT", -1)]
    assert (
        dependency_trees.count_subtrees(turned)
        == dependency_trees.count_subtrees(THE_OLD_DOG)
        != dependency_trees.count_subtrees(THE_DOG)
    )


def test_the_kernel_by_hand():
    """Cosines of the features counted one by one."""
    import math

    trees = [THE_DOG, THE_OLD_DOG, SHE, [], [("ADJ:amod", 2), ("ADJ:amod", 2), ("NOUN:ROOT", -1)]]
    counts = [dependency_trees.count_subtrees(tree) for tree in trees]
    rows = dependency_trees.unit_rows(counts, {})
    for a, left in zip(rows @ rows.T.toarray(), counts, strict=True):
        for value, right in zip(a, counts, strict=True):
            dot = sum(left[f] * right[f] for f in left)
            size = math.sqrt(sum(v * v for v in left.values()) * sum(v * v for v in right.values()))
            assert value == pytest.approx(dot / size if size else 0)
    assert (rows @ rows.T.toarray())[0, 1] > (rows @ rows.T.toarray())[0, 2] > 0


@pytest.fixture(scope="module")
def spacy_model(tmp_path_factory) -> str:
    """A real spaCy pipeline with a parser, taught three sentences."""
    spacy = pytest.importorskip("spacy")
    from spacy.training import Example

    spacy.util.fix_random_seed(0)
    nlp = spacy.blank("en")
    nlp.add_pipe("morphologizer")
    nlp.add_pipe("parser")
    the, noun, verb, she = "DET det", "NOUN nsubj", "VERB ROOT", "PRON nsubj"
    taught = [  # words, what they are, their heads
        ("The dog eats .", [the, noun, verb, "PUNCT punct"], [1, 2, 2, 2]),
        ("The man sings .", [the, noun, verb, "PUNCT punct"], [1, 2, 2, 2]),
        ("She sleeps .", [she, verb, "PUNCT punct"], [1, 1, 1]),
        ("He runs .", [she, verb, "PUNCT punct"], [1, 1, 1]),
        ("The cat sees the house .", [the, noun, verb, the, "NOUN obj", "PUNCT punct"], [1, 2, 2, 4, 2, 2]),
    ] * 8  # spaCy forgets relations that occur fewer than 30 times
    lessons = []
    for text, labels, heads in taught:
        pos, deps = zip(*(label.split() for label in labels), strict=True)
        lessons.append(Example.from_dict(nlp.make_doc(text), {"pos": list(pos), "deps": list(deps), "heads": heads}))
    nlp.initialize(lambda: lessons)
    for _ in range(8):
        nlp.update(lessons)
    folder = tmp_path_factory.mktemp("spacy") / "model"
    nlp.to_disk(folder)
    return str(folder)


@pytest.mark.parametrize("name", ["structural", "kernel", "grakel"])
def test_structure_counts_not_words(spacy_model, name):
    import spacy

    pool = ["She sleeps .", "The cat sees the house .", "The dog eats .", "The  dog eats ."]
    settings = RetrieverSettings(spacy_model=spacy_model)
    retriever = create(name, pool, ENGLISH, settings)
    # An unseen sentence of the shape of the third; of the two of that shape the first.
    assert retriever.nearest(["The cat eats ."], 3)[0][:2] == [2, 3]
    assert retriever.nearest(["The dog eats .", "She sleeps ."], 1) == [[3], [2]]
    assert retriever.nearest(["The cat eats ."], 3)[0][:2] == [2, 3], "asked again, parsed once"
    trees = list(dependency_trees.parse(spacy.load(spacy_model), pool))
    assert trees[2] == trees[3] and trees[2][2] == ("VERB:ROOT", -1)


def test_what_syntax_lacks_is_named(tmp_path):
    for name in ("kernel", "grakel"):
        with pytest.raises(
            UsageError, match=f"--retriever_type {name} needs a spaCy pipeline, and spaCy has none for Basque"
        ):
            create(name, ["a"], BASQUE)
    try:
        import spacy
    except ImportError:
        with pytest.raises(UsageError, match="--retriever_type kernel needs spaCy and a pipeline: pip install spacy"):
            create("kernel", ["a"], ENGLISH)
        return
    with pytest.raises(UsageError, match="python -m spacy download en_never_heard_of"):
        create("structural", ["a"], ENGLISH, RetrieverSettings(spacy_model="en_never_heard_of"))
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(
        UsageError, match=r"--retriever_type structural needs dependencies, but .* has only a tokenizer"
    ):
        create("structural", ["a"], ENGLISH, RetrieverSettings(spacy_model=str(tmp_path / "blank")))


def test_an_unknown_retriever_is_named():
    with pytest.raises(
        UsageError, match=r"--retriever_type 'bm52' does not exist; choose one of bm25s, .*\(did you mean bm25"
    ):
        create("bm52", ["a"], ENGLISH)


def test_choices_import_nothing_heavy():
    """--help reads them."""
    look = "import sys, topxgen.retrieval, comptra.candidate_selection; print([m for m in sys.modules if m in ('numpy', 'torch', 'scipy')])"
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rankings_on_real_news(ntrex):
    """All of NTREX' pool for a part of its test set: what is nearest shares its words."""
    lines = (ntrex / "newstest2019-src.eng.txt").read_text(encoding="utf-8").split("\n")
    test, pool = lines[:40], lines[1000:1997]
    for name in ("bm25s", "LCS", "chrf", "bleu"):
        retriever = create(name, pool, ENGLISH)
        for row, scores in zip(retriever.nearest(test, 5), retriever._similarity.scores(test), strict=True):
            assert all(scores[a] >= scores[b] for a, b in pairwise(row))
            assert scores[row[-1]] >= sorted(scores)[-5]
