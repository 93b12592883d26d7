"""n-grams at their shortest, and how long they are in each script."""

import unicodedata

import numpy as np

from topxgen.text.ngram_hashes import TOKENIZERS, ngram_hashes, tokens_per_ngram


def test_as_many_tokens_as_an_ngram_are_one_ngram():
    hashes = np.arange(1, 6, dtype=np.uint64)
    assert [len(ngram_hashes(hashes, n)) for n in (1, 4, 5, 6)] == [5, 2, 1, 0]
    assert ngram_hashes(hashes, 4)[1] == ngram_hashes(hashes[1:], 4)[0] != ngram_hashes(hashes[::-1].copy(), 4)[0]


def test_tokens_of_an_ngram():
    lengths = {script: tokens_per_ngram(10, script) for script in ("Latn", "Hans", "Hant", "Jpan", "Thai", "Tibt")}
    assert lengths == {"Latn": 10, "Hans": 15, "Hant": 15, "Jpan": 23, "Thai": 42, "Tibt": 18}
    assert tokens_per_ngram(10, "Thai", "original") == 10


def test_folding():
    original, unicode = TOKENIZERS["original"].tokens, TOKENIZERS["unicode"].tokens
    assert original("ΛΟΓΟΣ a_b É") == ["λογοσ", "a_b", "e"] == original("λόγος a_b é")
    assert unicode("a_b ﬁn Ⅷ ") == ["a", "b", "fin", "viii"]
    # Casefolding yields what decomposes once more.
    assert unicode("\u0390") == unicode("\u1fd3") and unicode("ẞ") == ["ss"]
    assert unicode("\U0001d5a0") == ["a"] and unicode("\u2126") == unicode("ω")


def test_spellings_of_one_letter():
    tokens = TOKENIZERS["unicode"].tokens
    assert tokens("ɓarna ɗaya ƙasa ƴa") == ["barna", "daya", "kasa", "ya"] == tokens("'barna 'daya ʼkasa 'ya")
    assert tokens("ۃٱ") == tokens("ةا") and tokens("ज़ँः") == tokens("जं")


def test_spans_are_where_the_tokens_are():
    texts = [
        "Don’t panic: ½ of it, a_b!",
        "Cafe\u0301 ﬁn Ⅷ ẞ x\u0308",
        "مَرْحَبًا بِالعَالَمِ، كيف",
        "नमस्ते दुनिया। यो राम्रो छ",
        "我愛你 and 東京 がが か\u3099",
        "ภาษาไทย ที่",
        "ߒߞߏ ߛߓߍ\U0001e900\U0001e922",
        "",
        " … ",
    ]
    for tokenizer in TOKENIZERS.values():
        for text in texts:
            spans = tokenizer.spans(text)
            assert [token for token, _, _ in spans] == tokenizer.tokens(text)
            assert all(0 <= start < end for _, start, end in spans)
            composed = unicodedata.normalize("NFC", text)
            for token, start, end in spans:
                assert token in tokenizer.tokens(composed[start:end])
    unicode = TOKENIZERS["unicode"].spans
    # What folds to nothing belongs to the token before it, so that no mark is torn from its letter.
    assert unicode("مَرْحَبًا بِهِ")[0][1:] == (0, 9) and unicode("بِهِ x")[0][1:] == (0, 4)
    assert unicode("don’t x") == [("dont", 0, 5), ("x", 6, 7)] and unicode("Cafe\u0301 x")[1] == ("x", 5, 6)
    assert unicode("’ x") == [("x", 2, 3)]
