"""What of a chat model's answer is the translation, or the list."""

import pytest

from comptra import answer_parsing


@pytest.mark.parametrize(
    "text, line",
    [
        ("Kaixo.", "Kaixo."),
        ("Hona hemen:\nKaixo.", "Kaixo."),
        ("Hona hemen:", "Hona hemen:"),
        ("**Kaixo mundua**", "Kaixo mundua"),
        ("<think>a</think>\nKaixo.", "Kaixo."),
        ("<think>a</think> b </think>\nKaixo.", "Kaixo."),
        ("<think>a", ""),
        ("a</think>Kaixo.", "Kaixo."),
    ],
)
def test_line(text, line):
    assert answer_parsing.line(text) == line


@pytest.mark.parametrize(
    "text, translation",
    [
        ("Translation: bat", "bat"),
        ("Draft.\n**TRANSLATION:** bat\ntranslation: bi", "bi"),
        ("Translation: bat\nTranslation:", "bat"),
        ("Translation:\nbat", "bat"),
        ("bat\nbi", "bat"),
        ("Translation:", ""),
    ],
)
def test_translation(text, translation):
    assert answer_parsing.translation(text, "Translation:") == translation
    own = answer_parsing.translation(f"Draft.\n{text}".replace("Translation", "EMAITZA"), "Emaitza:")
    assert "Translation" not in text or own == translation


@pytest.mark.parametrize(
    "text, items",
    [
        ("1. bat\n2. bi", ["bat", "bi"]),
        ("Here:\n1) bat\n(2) bi\n3: hiru", ["bat", "bi", "hiru"]),
        ("- bat\n• bi\n* hiru", ["bat", "bi", "hiru"]),
        ("1. bat 2. bi 3. hiru", ["bat", "bi", "hiru"]),
        ("1. bat 2. bi\n2. hiru", ["bat 2. bi", "hiru"]),
        ("1. bat\n2. bi\n1. hiru", ["bat", "bi"]),
        ("bat\nbi", ["bat", "bi"]),
        ("1.5 kilo\nbi", ["1.5 kilo", "bi"]),
        ('1. "bat"\n2. "bi" hiru\n3. «lau”', ["bat", '"bi" hiru', "«lau”"]),
        ("१. bat\n२. bi", ["bat", "bi"]),
        ("Only one:\n1. bat", ["bat"]),
        ('```json\n["bat",\n "bi"]\n```', ["bat", "bi"]),
        ("[" * 100_000, ["[" * 100_000]),
    ],
)
def test_list_items(text, items):
    assert answer_parsing.list_items(text) == items
