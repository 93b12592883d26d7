"""Apertium's processes: their locale, and what must not tear words."""

import pytest

from tests.attack.table import has_apertium
from topxgen.common.errors import UsageError
from topxgen.text import languages
from topxgen.translation.apertium import Apertium

pytestmark = pytest.mark.skipif(not has_apertium(), reason="Apertium with its Basque-English pair is not installed")
SENTENCE = "Koldoren laguna goizean etxera etorri da eta bazkaria prestatu du Iruñean."


def _translated(*sentences: str) -> list:
    return Apertium().translate(list(sentences), languages.find("Basque"), languages.find("English"))


def test_a_locale_that_is_not_installed_changes_nothing(monkeypatch):
    """Apertium's programs print nothing then, with exit code 0: all pairs were lost."""
    expected = _translated(SENTENCE, "Etxea ederra da.")
    for locale in ("xx_XX.UTF-8", "en_US.ISO-8859-1"):
        monkeypatch.setenv("LC_ALL", locale)
        assert _translated(SENTENCE, "Etxea ederra da.") == expected
    assert expected[0].text.endswith("Pamplona.")


@pytest.mark.parametrize("spelled", ["etxe\u00adra", "etxe\u2060ra", "etxe\u200bra", "\u2067etxera\u2069"], ids=ascii)
def test_invisible_characters_do_not_tear_words(spelled):
    assert _translated(SENTENCE.replace("etxera", spelled)) == _translated(SENTENCE)


def test_letters_and_their_marks_apart_are_the_same_letters():
    assert _translated(SENTENCE.replace("ñ", "n\u0303")) == _translated(SENTENCE)


def test_one_of_its_programs_is_killed(monkeypatch, tmp_path):
    monkeypatch.setenv("APERTIUM_PATH", str(tmp_path))
    (tmp_path / "lt-proc").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "lt-proc").chmod(0o755)
    with pytest.raises(UsageError, match="apertium eu-en was killed"):
        _translated(SENTENCE, "Etxea ederra da.")


def test_another_version_of_a_pair_is_another_setting(monkeypatch, tmp_path):
    (tmp_path / "modes").mkdir()
    data = tmp_path / "eu-en.bin"
    (tmp_path / "modes" / "eu-en.mode").write_text(f"lt-proc '{data}'")
    monkeypatch.setenv("APERTIUM_DATADIR", str(tmp_path))
    found = []
    for version in "112":
        data.write_text(version)
        (apertium := Apertium()).check(languages.find("Basque"), languages.find("English"))
        found.append(apertium.settings["apertium_pair Basque"])
    assert found[0] == found[1] != found[2]
