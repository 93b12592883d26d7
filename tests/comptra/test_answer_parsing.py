"""What is read from the answers of LLMs, at its boundaries (see also test_divide, test_methods and test_chat)."""

import pytest

from comptra.answer_parsing import line, list_items, section, translation, without_thoughts


@pytest.mark.parametrize(
    "answer, text",
    [
        ("**a**", "a"),
        ("****", "****"),
        ("**a", "**a"),
        ("Here:\nb", "b"),
        ("Here：\nb", "b"),
        ("**Here:**\nb", "b"),
        ("Here:", "Here:"),
        ("Here:\n\n \n", "Here:"),
        ("a\nb:", "a"),
        ("a b " * 7, "a b a b a b a b a b a b a b"),
        ("a b " * 8, "a b"),
    ],
)
def test_a_line(answer, text):
    assert line(answer) == text


@pytest.mark.parametrize(
    "answer, items",
    [
        ("1. a\n2. b\n1. c", ["a", "b"]),
        ("1. a\n1. b", ["a"]),
        ("2. a\n3. b\n4. c", ["a", "b", "c"]),
        ("- a\n- b\n1. c", ["a", "b"]),
        ("999. a\n1000. b", ["a"]),
        ("1.a\n2.5 b", ["a"]),
        ("1. a 2. b", ["a", "b"]),
        ("1. a 2. b\n3. c 4. d", ["a 2. b", "c 4. d"]),
        ("intro 1. a 2. b", ["a", "b"]),
        ('1. "a\n2. “b”', ['"a', "b"]),
        ('1. ""\n2. b', ["b"]),
        ("<|im_start|>assistant\n1. a\n2. b<|im_end|>", ["a", "b"]),
    ],
)
def test_the_items_of_a_list(answer, items):
    assert list_items(answer) == items


def test_thoughts_end_at_their_last_mark():
    assert without_thoughts("a</think>b</think> c ") == "c"
    assert without_thoughts(" <think>a") == ""
    assert without_thoughts("a <think>b") == "a <think>b", "thoughts open an answer"


@pytest.mark.parametrize(
    "answer, text",
    [
        ("Translation: a\nTranslation: \n", "a"),
        ("# Translation： a", "a"),
        ("Translation:\n\na\nb", "a"),
        ("translation : a", "a"),
    ],
)
def test_the_line_behind_the_last_marker(answer, text):
    assert translation(answer, "Translation:") == text


@pytest.mark.parametrize("target", ["Basque", "English"])
@pytest.mark.parametrize(
    "answer",
    [
        "Translation:\n```\n{}\n```",
        "Translation:\n\n**{}**",
        "Translation:\n> {}",
        "Translation: {}<|im_end|>",
        "It is a past event.\n\n**Final translation:**\n\n{}\n\n**Notes:** none",
        "It is a past event.\n\nTranslation (TARGET): {}",
        "I have thought about the bridge.\n\n### Improved translation\n{}",
        "{}\n\nTarget language: TARGET",
        "{}\n\nTARGET: another sentence\n\nTARGET:",
    ],
)
def test_marks_and_labels_around_a_translation(answer, target):
    sides = {"Basque": "Zubia itxi zuten atzo.", "English": "They closed the bridge yesterday."}
    source, text = sides["English" if target == "Basque" else "Basque"], sides[target]
    assert translation(answer.replace("TARGET", target).format(text), "Translation:", source, target) == text


@pytest.mark.parametrize(
    "answer, text",
    [
        ("### Final translation\na b", "a b"),
        ("Final translation: a b", "a b"),
        ("3. **Final Translation**: a b", "a b"),
        ("**Final translation:** **a b**", "a b"),
        ("Final translation (Basque)\n\n\na b\nnote", "a b"),
        ("FINAL TRANSLATION：a", "a"),
        ("### Final translation\na\n\n### Final translation\nb", "b"),
        ("### Final translation\na\n### Final translation\n", "a"),
        ("### Final translation\n### Notes\nnone", ""),
        ("My final translation: a", ""),
        ("Final translations\na", ""),
        ("Final translation is a", ""),
        ("a b", ""),
        ("<think>\nFinal translation: a\n</think>\nb", ""),
        ("<think>\nFinal translation: a", ""),
    ],
)
def test_a_section(answer, text):
    assert section(answer, "Final translation") == text


@pytest.mark.parametrize("text", ['"Etorri etxera."', "«Etorri etxera.»", "Etorri etxera."])
def test_quotation_marks_of_the_source_stay_in_what_methods_read(text):
    source = '"Come home."' if text[0] in '"«' else "Come home."
    assert translation(f"It is short.\nTranslation: {text}", "Translation:", source) == text
    assert translation(text, "Translation:", source) == text
    assert section(f"### Final translation\n{text}\n", "Final translation", source) == text
