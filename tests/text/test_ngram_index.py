"""Tokens, their hashes and the index: against plain Python on the same texts."""

import json
import random
import re
import unicodedata
from urllib.parse import quote, quote_plus

import numpy as np
import pytest

from tests.support.tiny_models import udhr_texts
from topxgen.corpora.benchmarks import UDHR
from topxgen.text import languages
from topxgen.text.ngram_hashes import TOKENIZERS, ngram_hashes, range_hashes, tokens_per_ngram
from topxgen.text.ngram_index import BLOCK_CHARS, MAX_OWNERS_PER_NGRAM, BenchmarkText, ContaminationIndex

SCRIPTS = [
    range(0x20, 0x7F),
    range(0x80, 0x250),  # Latin
    range(0x300, 0x370),  # its marks
    range(0x370, 0x530),  # Greek, Cyrillic
    range(0x5D0, 0x700),  # Hebrew, Arabic
    range(0x900, 0xA00),  # Devanagari, Bengali
    range(0xE00, 0xFFF),  # Thai, Lao, Tibetan
    range(0x1000, 0x1250),  # Burmese, Georgian, Jamo
    range(0x1780, 0x17FF),  # Khmer
    range(0x3040, 0x3100),
    range(0x4E00, 0x4E40),
    range(0xAC00, 0xAC40),
    range(0xFB00, 0xFDFF),  # ligatures, Arabic forms
    [0x0A, 0x0D, 0x85, 0x2028, 0x200D, 0x2019, 0x2026, 0xBD, 0xDF, 0x130, 0x1C4, 0xD800, 0x1D400, 0x1F600],
]


def strange_texts(count: int) -> list[str]:
    rng = random.Random(1)
    return ["".join(chr(rng.choice(rng.choice(SCRIPTS))) for _ in range(rng.randint(0, 40))) for _ in range(count)]


def all_of_udhr() -> list[str]:
    return [line.split("\t", 1)[1] for path in sorted(UDHR.glob("*.tsv")) for line in path.read_text().splitlines()]


def entries(texts: list[str]) -> list[BenchmarkText]:
    return [BenchmarkText("set", "test", "any", str(i), text) for i, text in enumerate(texts)]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_hashes_stand_for_tokens(name):
    tokenizer = TOKENIZERS[name]
    texts = [*strange_texts(1500), "", "…", *all_of_udhr()]
    hashes, bounds = tokenizer.hash_tokens(texts)
    by_token, by_hash = {}, {}
    for i, text in enumerate(texts):
        tokens = tokenizer.tokens(text)
        assert len(tokens) == bounds[i + 1] - bounds[i], text
        for token, value in zip(tokens, hashes[bounds[i] : bounds[i + 1]].tolist(), strict=True):
            assert by_token.setdefault(token, value) == value
            assert by_hash.setdefault(value, token) == token
    assert len(by_token) > 50_000


@pytest.mark.parametrize("name", TOKENIZERS)
def test_folding_twice_is_folding_once(name):
    tokens = TOKENIZERS[name].tokens
    for code in [*range(0x3400), *range(0xA000, 0xAD00), *range(0xF900, 0x10000), *range(0x1D400, 0x1D800)]:
        if not 0xD800 <= code < 0xE000:
            once = " ".join(tokens(chr(code)))
            assert " ".join(tokens(once)) == once, hex(code)


def test_the_original_tokenizer_is_the_published_rule():
    for text in all_of_udhr():
        bare = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
        expected = [unicodedata.normalize("NFC", w.replace("ς", "σ")) for w in re.findall(r"\w+", bare.lower())]
        assert TOKENIZERS["original"].tokens(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("NG’OMBE wa Kenya", "ng'ombe, wa Kenya!"),
        ("Ng'ombe", "ngombe"),
        ("ʼyan makaranta", "'Yan makaranta"),  # a modifier letter in Hausa
        ("Ɓarawo ya ɗauki ƙaramar ƴarsa", "barawo ya 'dauki karamar ʼyarsa"),
        ("Ẹ̀kọ́ tí ó ṣe pàtàkì", "eko ti o se pataki"),  # Yoruba
        ("Đường Łódź Malmø", "duong lodz malmo"),
        ("یہ سورۃ ۂ ٱ", "يه سورة ۀ ا"),
        ("दुःख पाँच गर्‍यो बाज़ार", "दुख पांच गऱ्यो बाजार"),
        ("Ụlọ akwụkwọ", "ulo akwukwo"),  # Igbo with and without its marks
        ("ulọ\u0323", "ulọ"),
        ("كتابي", "کتابی"),  # Arabic and Persian letters
        ("مُحَمَّد", "محمد"),
        ("वि.सं. २०७२", "वि सं 2072"),
        ("क\u200dष", "कष"),
        ("ｆｕｌｌ ｗｉｄｔｈ", "full width"),
        ("Straße", "STRASSE"),
        ("İstanbul", "istanbul"),
        ("ışık", "IŞIK"),
        ("か\u3099 は", "が は"),
        ("\u1112\u1161\u11ab", "한"),
    ],
)
def test_copies_that_count_as_the_same(one, other):
    tokens = TOKENIZERS["unicode"].tokens
    assert tokens(one) == tokens(other) != []
    hashes = [TOKENIZERS["unicode"].hash_tokens([text])[0].tolist() for text in (one, other)]
    assert hashes[0] == hashes[1]


def test_words_stay_whole_in_every_script():
    assert TOKENIZERS["unicode"].tokens("सबै व्यक्तिहरू जन्मजात") == ["सबै", "व्यक्तिहरू", "जन्मजात"]
    assert len(TOKENIZERS["original"].tokens("सबै व्यक्तिहरू जन्मजात")) > 3  # torn, as published
    assert TOKENIZERS["unicode"].tokens("ที่นี่ ok") == ["ที่", "นี่", "ok"]
    assert TOKENIZERS["unicode"].tokens("我们ok") == ["我", "们", "ok"]


def test_ngrams_say_as_much_in_scripts_without_spaces():
    tokens = {
        script: tokens_per_ngram(100, script)
        for script in ("Hans", "Hant", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt", "Latn", "Deva", "Arab", "Hang")
    }
    assert tokens == {
        **{"Hans": 150, "Hant": 150, "Jpan": 230, "Thai": 420, "Laoo": 430, "Khmr": 360, "Mymr": 360, "Tibt": 180},
        **{"Latn": 100, "Deva": 100, "Arab": 100, "Hang": 100},
    }
    assert tokens_per_ngram(10, languages.find("Thai").script) == 42
    assert tokens_per_ngram(10, languages.find("Basque").script) == 10
    assert tokens_per_ngram(10, languages.find("Thai").script, "original") == 10


FOLDED = {  # token: what folds to it
    "oo": [f"o{apostrophe}o" for apostrophe in "'’‘ʼʻʹʽʾʿ`´′＇ꞌ՚׳"]
    + ["o\u200do", "o\u200co", "o\u00ado", "o\u2060o", "OO"],
    "i": ["I", "ı", "İ", "í", "ï", "ⅰ", "𝐢"],
    "ibddd": ["ıɓɗđɖ", "IƁƊĐƉ"],
    "klooey": ["ƙłøɔɛƴ", "ƘŁØƆƐƳ"],
    "ی": ["ي", "ى", "ی", "ﻱ"],
    "ک": ["ك", "ک", "ﻙ"],
    "ہ": ["ه", "ھ", "ة", "ہ", "ۃ", "ە", "ۂ", "ۀ", "ﻩ"],
    "اا": ["اـا", "أا", "اَا", "آا", "ٱا", "ا\u0640\u0640ا"],
    "1": ["1", "१", "১", "١", "۱", "๑", "໑", "၁", "１", "¹", "①"],
    "υ": ["Υ", "ύ", "ϋ", "ΰ"],
    "σ": ["ς", "σ", "Σ"],
    "и": ["й", "И", "ѝ"],
    "שלום": ["שָׁלוֹם", "שלום"],
    "ss": ["ß", "ẞ", "SS", "ſs"],
    "fi": ["ﬁ", "FI"],
    "が": ["が", "か\u3099"],
    "कंक": ["कँक", "कंक", "क़ंक", "क़ंःक"],
}


@pytest.mark.parametrize("token", FOLDED)
def test_what_folds_to_one_token(token):
    tokens = TOKENIZERS["unicode"].tokens
    for text in FOLDED[token]:
        assert tokens(text) == [token], text


@pytest.mark.parametrize(
    ("text", "unicode", "original"),
    [
        ("字，本", "字 本", "字 本"),
        ("漢字ひらカタ", "漢 字 ひ ら カ タ", "漢字ひらカタ"),
        ("が か\u3099ば", "が が ば", "か かは"),
        ("กลังดี", "ก ลั ง ดี", "กลงด"),
        ("ສະບາຍດີ", "ສ ະ ບ າ ຍ ດີ", "ສະບາຍດ"),
        ("ខ្ញុំ", "ខ្ ញុំ", "ខញ"),
        ("မြန်မာ", "မြ န် မာ", "မ နမ"),
        ("བོད་ཡིག", "བོད ཡིག", "བད ཡག"),
        ("한국어 말", "한국어 말", "한국어 말"),
        ("क्षत्रिय नहीं", "क्षत्रिय नहीं", "कषतर य नह"),
        ("àb_c d-e", "ab c d e", "ab_c d e"),
        ("don't 3.5 x²", "dont 3 5 x2", "don t 3 5 x²"),
        ("a…b", "a b", "a b"),
        ("我们ok2人", "我 们 ok2 人", "我们ok2人"),
        ("\u0301a \u0e31ก", "a \u0e31 ก", "a ก"),
        ("👍🏽 ok", "ok", "ok"),
        ("a\U0010ffffb", "a b", "a b"),
    ],
)
def test_tokens_of_each_script(text, unicode, original):
    assert TOKENIZERS["unicode"].tokens(text) == unicode.split()
    assert TOKENIZERS["original"].tokens(text) == original.split()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_hashes_of_ngrams_and_ranges(n):
    rng = random.Random(n)
    words = [rng.choice("abc") for _ in range(300)]
    hashes, bounds = TOKENIZERS["unicode"].hash_tokens([" ".join(words[:100]), "", " ".join(words[100:])])
    assert bounds.tolist() == [0, 100, 100, 300]
    by_hash = {}
    for length in (n, 300, 299):
        values = ngram_hashes(hashes, length)
        assert len(values) == 301 - length
        for start, value in enumerate(values.tolist()):
            assert by_hash.setdefault(value, words[start : start + length]) == words[start : start + length]
    grams = {tuple(words[i : i + length]) for length in (n, 299, 300) for i in range(301 - length)}
    assert len(by_hash) == len(grams), "equal n-grams have equal hashes, others have not"
    assert len(ngram_hashes(hashes, 301)) == 0
    starts = np.array([0, 5, 7, 300, 0])
    ends = np.minimum(starts + n, 300)
    expected = ngram_hashes(hashes, n)[[0, 5, 7]].tolist()
    assert range_hashes(hashes, starts, ends)[:4].tolist() == [*expected, 0]
    assert range_hashes(hashes, np.array([0]), np.array([300])).tolist() == ngram_hashes(hashes, 300).tolist()


def by_plain_sets(benchmark: list[str], texts: list[str], n: int, first: int) -> dict[int, set[int]]:
    """Which texts overlap which benchmark texts, by the rules as they are written down."""
    tokens = TOKENIZERS["unicode"].tokens
    found: dict[int, set[int]] = {}
    for i, text in enumerate(texts):
        ours = tokens(text)
        for j, other in enumerate(benchmark):
            theirs = tokens(other)
            if len(theirs) >= n:
                shared = {tuple(theirs[k : k + n]) for k in range(len(theirs) - n + 1)}
                hit = any(tuple(ours[k : k + n]) in shared for k in range(len(ours) - n + 1))
            else:
                hit = bool(theirs) and ours == theirs
                if first <= len(theirs):
                    hit |= any(ours[k : k + len(theirs)] == theirs for k in range(len(ours)))
            if hit:
                found.setdefault(i, set()).add(j)
    return found


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_index_finds_what_plain_sets_find(n):
    rng = random.Random(n)
    source = [text for name in ("Basque", "Nepali", "Urdu", "English") for text in udhr_texts(name)]
    words = [text.split() for text in source]
    benchmark = [" ".join(w[a : a + rng.randint(1, 14)]) for w in words for a in [rng.randrange(len(w))]]
    texts = [" ".join(w[a : a + rng.randint(0, 25)]) for w in words * 2 for a in [rng.randrange(len(w))]]
    found = ContaminationIndex(entries(benchmark), n).find(texts)
    expected = by_plain_sets(benchmark, texts, n, round(0.6 * n))
    assert {i: {int(m.entry.id) for m in matches} for i, matches in found.items()} == expected
    assert len(expected) > 20


def test_what_is_shared_is_named_and_measured():
    index = ContaminationIndex(entries(["one two three four five six"]), 4)
    (match,) = index.find(["zero ONE two, three four five seven"])[0]
    assert (match.kind, match.shared_ngram, match.tokens) == ("ngram", "one two three four", 5)


def test_no_ngram_crosses_from_one_text_into_the_next():
    index = ContaminationIndex(entries(["a b c d e f"]), 6)
    assert index.find(["a b c", "d e f"]) == {}
    assert list(index.find(["a b c d e f", "", "x a b c d e f"])) == [0, 2]


def test_short_texts_count_as_a_whole_and_from_six_words_on_inside():
    five, six = "one two three four five", "six seven eight nine ten eleven"
    texts = [five, f"and {five}", f"and {six} too", six]
    found = {
        short: list(ContaminationIndex(entries([five, six]), 10, short_text_rule=short).find(texts))
        for short in ("inside", "whole")
    }
    assert found == {"inside": [0, 2, 3], "whole": [0, 3]}
    assert ContaminationIndex(entries([five, six]), 10, short_text_rule="ignore").find(texts) == {}


def test_blocks_do_not_change_what_is_found(monkeypatch):
    texts = [text for text in udhr_texts("Basque") for text in (text, *text.split(". "))]
    benchmark = [*udhr_texts("Basque")[::2], *(" ".join(text.split()[:4]) for text in udhr_texts("Basque"))]
    ends = [end for end in range(3, len(texts) + 3, 3) for _ in range(3)][: len(texts)]
    ends = [min(end, len(texts)) for end in ends]
    found = []
    for size in (1, 300, BLOCK_CHARS):
        monkeypatch.setattr("topxgen.text.ngram_index.BLOCK_CHARS", size)
        index = ContaminationIndex(entries(benchmark), 6)
        alone = {i: m[0] for i, text in enumerate(texts) if (m := index.find([text]))}
        assert index.find(texts) == alone and len(alone) > 50
        found.append((alone, index.find(texts, ends)))
    assert found[0] == found[1] == found[2]


def test_what_runs_over_from_one_text_of_a_group_into_the_next():
    index = ContaminationIndex(entries(["a b c d e f g h", "one two three four"]), 5)
    texts = ["x a b c", "d e f y", "g", "one two", "three four", "a b c d", "e"]
    assert index.find(texts) == {}
    found = index.find(texts, [3, 3, 3, 5, 5, 6, 7])
    assert {i: [(m.entry.id, m.texts, m.tokens) for m in matches] for i, matches in found.items()} == {
        0: [("0", 2, 6)],
        3: [("1", 2, 4)],
    }
    # Runs that share a text are one: all three hold a part of it.
    texts = ["a b c", "d e", "f g h", "a b c d e"]
    found = index.find(texts, [4] * 4)
    assert [(m.texts, m.shared_ngram) for m in found[0]] == [(3, "a b c d e")]
    assert [m.texts for m in found[3]] == [1]
    index = ContaminationIndex(entries(["a b c d e f g"]), 3)
    found = index.find(["x a b", "c d e", "f g y", "a b c", "e f g"], [3] * 3 + [5] * 2)
    assert {i: [(m.texts, m.tokens) for m in matches] for i, matches in found.items()} == {
        0: [(3, 7)],
        3: [(1, 3)],
        4: [(1, 3)],
    }


def test_texts_that_begin_alike_are_all_found():
    benchmark = [f"What is the capital city of Country{i}" for i in range(3 * MAX_OWNERS_PER_NGRAM)]
    index = ContaminationIndex(entries(benchmark), 10)
    found = index.find([f"They asked me: {text}? I did not know." for text in benchmark])
    assert {i: [m.entry.id for m in matches] for i, matches in found.items()} == {
        i: [str(i)] for i in range(3 * MAX_OWNERS_PER_NGRAM)
    }


def test_a_neighbour_that_only_begins_like_a_short_text_is_left_alone():
    short = "Everyone has the right to life and liberty"
    found = ContaminationIndex(entries([short]), 10).find(
        ["He wrote that everyone has the right to life", short], [2, 2]
    )
    assert {i: [m.texts for m in matches] for i, matches in found.items()} == {1: [1]}


def test_boilerplate_costs_no_more_than_it_says():
    texts = [f"Translate the following sentence into Basque please: number {i}" for i in range(3000)] + ["en"] * 3000
    index = ContaminationIndex([*entries(texts), BenchmarkText("set", "dev (a)", "any", "x", texts[7])], 6)
    (found,) = index.find(["Translate the following sentence into Basque please: now"]).values()
    assert MAX_OWNERS_PER_NGRAM == 20
    assert [m.entry.id for m in found] == [*map(str, range(20)), "x"], "the first ones of each split"
    assert {m.entry.id for m in index.find(texts, between_splits=True)[7]} == {"x"}
    assert len(index.find(["en"])[0]) == MAX_OWNERS_PER_NGRAM


def numbers(count: int) -> list[str]:
    return [f"w{i}" for i in range(count)]


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1000])
def test_lengths_at_which_a_benchmark_text_counts(n):
    """n tokens: an n-gram. Fewer: the whole of a text, or inside one from 0.6 n on."""
    for length in {1, round(0.6 * n) - 1, round(0.6 * n), n - 1, n, n + 1} - {0}:
        text = " ".join(numbers(length))
        index = ContaminationIndex(entries([text]), n)
        (whole,) = index.find([text])[0]
        assert (whole.kind, whole.tokens, whole.texts) == ("ngram" if length >= n else "short_text", length, 1)
        assert whole.shared_ngram == " ".join(numbers(min(n, length)))
        inside = index.find([f"before {text} after"])
        if length >= round(0.6 * n):
            assert [match.kind for match in inside[0]] == [whole.kind]
        else:
            assert inside == {}
        assert (index.find([f"{text} after", f"before {text}"]).keys() == {0, 1}) == (length >= round(0.6 * n))
        for rule in ("whole", "ignore"):
            index = ContaminationIndex(entries([text]), n, short_text_rule=rule)
            assert (0 in index.find([text])) == (length >= n or rule == "whole")
            assert (0 in index.find([f"before {text} after"])) == (length >= n)


@pytest.mark.parametrize("n", [2, 10])
def test_a_text_needs_all_n_tokens_of_an_ngram(n):
    words = numbers(3 * n)
    index = ContaminationIndex(entries([" ".join(words)]), n)
    for start in range(2 * n + 1):
        for length in (n - 1, n, n + 1):
            found = index.find([" ".join(["x", *words[start : start + length], "y"])])
            enough = len(words[start : start + length]) >= n
            assert [m.tokens for m in found.get(0, [])] == ([len(words[start : start + length])] if enough else [])


def test_tokens_that_are_shared_are_counted_once():
    words = numbers(12)
    index = ContaminationIndex(entries([" ".join(words)]), 3)
    for parts, tokens in (([(0, 3), (9, 12)], 6), ([(0, 5), (2, 7)], 10), ([(0, 3), (3, 6)], 6), ([(0, 12)], 12)):
        text = " x ".join(" ".join(words[a:b]) for a, b in parts)
        (match,) = index.find([text])[0]
        assert (match.tokens, match.shared_ngram) == (tokens, "w0 w1 w2"), text
    (match,) = index.find(["w0 w1 w2 w0 w1 w2"])[0]
    assert match.tokens == 6


def test_equal_hashes_of_different_tokens_are_no_match(monkeypatch):
    source = [text for name in ("Basque", "English") for text in udhr_texts(name)]
    benchmark = [*source[::2], *(" ".join(text.split()[:4]) for text in source[1::2])]
    expected = ContaminationIndex(entries(benchmark), 6).find(source)
    tokenizer = TOKENIZERS["unicode"]
    real = type(tokenizer).hash_tokens
    monkeypatch.setattr(
        type(tokenizer), "hash_tokens", lambda self, texts: (real(self, texts)[0] % 3, real(self, texts)[1])
    )
    monkeypatch.setattr("topxgen.text.ngram_index.MAX_OWNERS_PER_NGRAM", 10_000)
    assert ContaminationIndex(entries(benchmark), 6).find(source) == expected and len(expected) > 20


@pytest.mark.parametrize("sentence_tokens", [79, 80, 81])
def test_sentences_that_count_for_near_duplicates(sentence_tokens):
    words = numbers(300)
    sentences = [" ".join(words[:sentence_tokens]), " ".join(words[sentence_tokens:])]
    index = ContaminationIndex(
        entries(["; ".join(sentences)]),
        100,
        near_duplicate_threshold=0.6,
        split_sentences=lambda text: text.split("; "),
    )
    changed = " ".join("x" if i == 40 else word for i, word in enumerate(words[:sentence_tokens]))
    assert bool(index.find([changed])) == (sentence_tokens >= 80)


def test_a_near_duplicate_is_above_the_threshold():
    index = ContaminationIndex(entries(["a b c d"]), 10, near_duplicate_threshold=0.75)
    assert index.find(["a b c x"]) == {}  # F1 is 0.75
    (match,) = index.find(["x", "a b c"])[1]
    assert (match.kind, match.tokens, match.texts, match.similarity) == ("near_duplicate", 0, 1, pytest.approx(6 / 7))
    assert index.find(["a b c"], between_splits=True) == {}
    # A near-duplicate is listed beside an entry that shares an n-gram, but not twice.
    index = ContaminationIndex(entries(["a b c d e", "p q r s x y z u v"]), 5, near_duplicate_threshold=0.6)
    found = index.find(["p q r s y z u v a b c d e"])[0]
    assert [(match.entry.id, match.kind) for match in found] == [("0", "ngram"), ("1", "near_duplicate")]
    found = index.find(["p q r s x"])[0]
    assert [(match.entry.id, match.kind) for match in found] == [("1", "ngram")]


def test_splits_without_variants():
    split = {name: BenchmarkText("set", name, "L", "1", "x").base for name in ("test", "test (a (b))", "test(c)")}
    assert split == {"test": ("set", "test"), "test (a (b))": ("set", "test"), "test(c)": ("set", "test(c)")}


def test_nothing_to_find_and_nothing_to_look_in():
    assert ContaminationIndex([], 10).find(["some text"]) == {}
    assert ContaminationIndex(entries(["some text"]), 10).find([]) == {}
    assert ContaminationIndex(entries(["", "…"]), 10).find(["", "!?", "some"]) == {}
    assert len(ngram_hashes(TOKENIZERS["unicode"].hash_tokens(["a b"])[0], 3)) == 0
    with pytest.raises(ValueError, match="at least 1 token, not 0"):
        ContaminationIndex([], 0)
    assert list(ContaminationIndex(entries(["a b"]), 1).find(["b", "c"])) == [0]


def test_near_duplicates_and_sentences_of_long_benchmark_texts():
    long = "The cat sat on the mat near the door. A dog came by and looked at it with great interest."
    index = ContaminationIndex(
        entries([long]), 10, near_duplicate_threshold=0.6, split_sentences=lambda text: text.split(". ")
    )
    changed = "The cat sat on a mat near that door."
    (match,) = index.find([changed])[0]
    assert (match.kind, match.entry.text) == ("near_duplicate", long)
    assert match.similarity == pytest.approx(2 * 7 / 18)
    assert ContaminationIndex(entries([long]), 10).find([changed]) == {}
    assert [m.kind for m in index.find([long])[0]] == ["ngram"]  # listed once, by the surer rule


@pytest.mark.parametrize(
    "encoded",
    [
        lambda text: text.replace(" ", "&nbsp;").replace("é", "&eacute;"),
        lambda text: "".join(f"&#x{ord(c):x};" for c in text),
        lambda text: quote(text),
        lambda text: quote_plus(text),
        lambda text: json.dumps(text),
        lambda text: text.encode().decode("latin-1"),
        lambda text: text.encode().decode("latin-1").encode().decode("latin-1"),
        lambda text: text.replace("a", "\u0430").replace("e", "\u0435"),  # Cyrillic
        lambda text: text.replace(" ", "<b> ", 3).replace(" ", "<br/>", 1),
    ],
)
def test_texts_are_compared_as_they_were_before_they_were_encoded(encoded):
    text = "Café bateko jendeak 2024an ikusi zuen mendi gainean dagoen etxe zahar handia, eta horrela esan zuen."
    assert ContaminationIndex(entries([text]), 10).find([encoded(text), "Beste bat."]).keys() == {0}
    assert ContaminationIndex(entries([encoded(text)]), 10).find([encoded(text), "Beste bat.", text]).keys() == {0, 2}
    assert not ContaminationIndex(entries([text]), 10, "original").find([quote(text)])


@pytest.mark.parametrize(
    "text, encoded",
    [
        ("Кто в 1926 году основал фирму McKinsey & Company, Booz Allen Hamilton и Boston Consulting Group?",) * 2,
        (
            "Atzo jende askok café bateko atarian ikusi zuen mendi gaineko etxea.",
            "Atzo jende askok cafÃ© bateko atarian ikusi zuen mendi gaineko etxea.",
        ),
    ],
)
def test_texts_are_decoded_alone_as_within_a_paragraph(text, encoded):
    paragraph = f"Это известно всем, кто читал об этом в газетах того времени. {encoded} Ответ прост."
    assert ContaminationIndex(entries([text]), 10).find([paragraph]).keys() == {0}


@pytest.mark.parametrize("copied", [str.upper, str.lower, lambda text: unicodedata.normalize("NFD", text)])
@pytest.mark.parametrize(
    "text",
    ["Но как тот, кто там не был, это так ясно ей сказал?", "У її села все так, як у його села, а не там, де ми."],
)
def test_copies_of_cyrillic_texts_in_other_letters_are_found(text, copied):
    assert ContaminationIndex(entries([text]), 10).find([copied(text)]).keys() == {0}


def test_sentences_of_an_encoded_benchmark_text_are_near_duplicates():
    long = "The cat sat on the mat near the door. A dog came by and looked at it with great interest."
    options = {"near_duplicate_threshold": 0.6, "split_sentences": lambda text: text.split(". ")}
    assert ContaminationIndex(entries([quote(long)]), 10, **options).find(["The cat sat on a mat near that door."])
