"""Stops and the places of sentences in prompts."""

from topxgen.prompting.mt_templates import MTTemplate, chat_prompt, get_template


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
