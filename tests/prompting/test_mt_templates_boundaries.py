"""Repetitions, stops and the places of sentences in prompts."""

from topxgen.prompting.mt_templates import MTTemplate, chat_prompt, clean_answer, cut_repetition, get_template


def test_eight_occurrences_of_a_pair_are_a_repetition():
    def loop(times: int) -> str:
        return " ".join(["hasi da", *["bai ez"] * times])

    assert cut_repetition(loop(7)) == loop(7)
    assert cut_repetition(loop(8)) == "hasi da bai ez"
    assert cut_repetition("bai " * 9) == "bai bai" and cut_repetition("bai " * 8) == "bai " * 8


def test_clean_answer():
    assert clean_answer("\n bat \nbi") == "bat"
    assert clean_answer("bat ## bi ## hiru", stop="##") == "bat"
    assert clean_answer("<think>x</think>bat") == "bat" and clean_answer("bat", thinking=True) == ""


def test_few_shot_prompts():
    template = MTTemplate("k", "n", "head\n", "A: ", "\nB: ", "\n\n")
    assert template.get_prompt([("a", "b"), ("c", "d")], "e") == "head\nA: a\nB: b\n\nA: c\nB: d\n\nA: e\nB:"
    assert MTTemplate("k", "n", "", "A: ", "\n", "###\n").get_prompt([], "e") == "A: e\n"
    assert MTTemplate("k", "n", "", "A: ", "\n", "###\n").stop == "###" and template.stop == "\n\n"
    assert template.stops == ("\n", "\n\n") and MTTemplate("k", "n", "", "A", " = ", "\n").stops == ("\n",)


def test_chat_demonstrations_are_numbered_from_one():
    (message,) = chat_prompt("English", "Basque", [("one", "bat"), ("two", "bi")], "three")
    content = message["content"]
    assert (
        content.index("one")
        < content.index("bat")
        < content.index("two")
        < content.index("bi")
        < content.index("three")
    )
    assert "1" in content.partition("one")[0].splitlines()[-1] + content.partition("one")[0] and "0" not in content


def test_the_training_template():
    template = get_template(14, "English", "Basque")
    assert template.get_prompt([], "s").count("s") >= 1 and not template.get_prompt([], "s").endswith(" ")
