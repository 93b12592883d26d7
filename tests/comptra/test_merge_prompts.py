"""What is asked with the translations of a sentence's phrases (--merge_prompt)."""

import pytest

from comptra import llm_calls, prompts
from comptra.compositional import merge
from comptra.methods import Task
from topxgen.common.errors import UsageError
from topxgen.inference import SamplingSettings
from topxgen.prompting.mt_templates import chat_prompt, get_template
from topxgen.text import languages

ENGLISH, BASQUE = (languages.find(name) for name in ("English", "Basque"))
SENTENCE = "The old stone bridge was closed last winter, because its pillars had begun to crack."
PAIRS = [("The bridge", "Zubia"), ("was closed {sentence}", "itxi zuten")]
POOL = [("A house", "Etxe bat")]


@pytest.fixture
def task_in(tmp_path):
    def task(style: str) -> Task:
        client = llm_calls.LLMClient(None, style, tmp_path / f"{style}.jsonl", 1)
        settings = SamplingSettings(max_new_tokens=16, temperature=0.0)
        return Task(ENGLISH, BASQUE, client, get_template(14, "English", "Basque"), settings)

    return task


@pytest.mark.parametrize("style", ["raw", "chat"])
def test_vanilla_is_few_shot_with_the_phrases(style, task_in):
    task, vanilla = task_in(style), merge.load("vanilla")
    found = vanilla.prompt(task, SENTENCE, PAIRS, POOL)
    assert found == task.prompt(POOL + PAIRS, SENTENCE)
    assert vanilla.prompt(task, "No phrases.", [], POOL) == task.prompt(POOL, "No phrases.")
    assert vanilla.prompt(task, SENTENCE, PAIRS, []) == task.prompt(PAIRS, SENTENCE)
    assert vanilla.prompt(task, "No phrases.", [], []) == task.prompt([], "No phrases.")
    if style == "chat":
        assert found == chat_prompt("English", "Basque", POOL + PAIRS, SENTENCE)


@pytest.mark.parametrize("style", ["raw", "chat"])
@pytest.mark.parametrize("name", ["refine", "norefine"])
def test_sections_are_asked_for_the_final_translation_last(name, style, task_in):
    task, prompt = task_in(style), merge.load(name)
    asked = prompt.prompt(task, SENTENCE, PAIRS, POOL)
    text = asked if style == "raw" else asked[0]["content"]
    assert "- The bridge => Zubia\n- was closed {sentence} => itxi zuten\n" in text and f"\n{SENTENCE}\n" in text
    assert "1. English: A house\n   Basque: Etxe bat" in text
    headings = [line[4:] for line in text.split("\n") if line.startswith("### ")]
    assert headings == ["Refined phrases", "Recombination", "Final translation"][2 * (name != "refine") :] or (
        name == "norefine" and headings == ["Combination", "Final translation"]
    )
    assert ("imperfect" in text) == (name == "refine")
    assert prompt.prompt(task, SENTENCE, [], []) == task.prompt([], SENTENCE), "without a usable phrase zero-shot"


@pytest.mark.parametrize("style", ["raw", "chat"])
@pytest.mark.parametrize("more", ["", "raw = 'Parts first. '", "final_section = 'Itzulpena'"])
def test_a_merge_prompt_of_the_users_own(more, style, task_in, tmp_path):
    parts = ["chat = 'MINE {examples}{phrases}{sentence}'", "block = 'B {items}'", "item = '{source}>{target};'"]
    parts += ["examples = 'E {items}'", "example = '{source}<{target};'", more]
    (tmp_path / "norefine-2.toml").write_text("\n".join(parts), encoding="utf-8-sig")  # as Notepad writes it
    task, prompt = task_in(style), merge.load(str(tmp_path / "norefine-2.toml"))
    asked = prompt.prompt(task, "Night.", [("A house", "Etxe bat")], [("A bird", "Txori bat")])
    text = asked if style == "raw" else asked[0]["content"]
    if style == "raw" and more.startswith("raw"):
        assert text == "Parts first. " + task.prompt([("A bird", "Txori bat"), ("A house", "Etxe bat")], "Night.")
    else:
        assert "MINE E A bird<Txori bat;B A house>Etxe bat;Night." in text
    assert prompt.prompt(task, SENTENCE, [], POOL) == task.prompt(POOL, SENTENCE), (
        "without a usable phrase the MT prompt"
    )


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("final_section =", "final_sektion =", "key 'final_sektion' .*did you mean final_section"),
        ('"Final translation"', '" "', "final_section is empty"),
        ("chat =", "Raw = 'x'\nchat =", "key 'Raw'"),
        (
            "whole sentence into {tgt} with",
            "whole sentence into {target} with",
            r"chat: unknown placeholder \{target\}; known here: \{src\}, \{tgt\}, \{sentence\}, \{phrases\}, \{examples\}$",
        ),
        ("translations into {tgt}.", "translations into {language}.", r"block: unknown placeholder \{language\}"),
        ("- {source} => {target}", "- {source} => {target} {draft}", r"item: unknown placeholder \{draft\}"),
        ("whole sentence into {tgt} with", 'sentence {into} {tgt} with {"a": 1}', r"unknown placeholder \{into\}"),
    ],
)
def test_what_no_merge_prompt_has_is_named(old, new, message, tmp_path):
    text = (prompts.FOLDER / "merge" / "refine.toml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "mine.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        merge.load(str(tmp_path / "mine.toml"))


def test_merge_prompts_are_checked_before_anything_runs(tmp_path, monkeypatch):
    for name in merge.MERGE_PROMPTS:
        merge.load(name)
    with pytest.raises(UsageError, match=r"--merge_prompt 'refin' .*vanilla, refine, norefine.*did you mean refine"):
        merge.load("refin")
    for name in ("vanilla", "refine", "norefine"):
        (tmp_path / f"{name}.toml").write_text((prompts.FOLDER / "merge" / "refine.toml").read_text(encoding="utf-8"))
        with pytest.raises(UsageError, match=f"would call it '{name}', which is the name of another prompt; rename"):
            merge.load(str(tmp_path / f"{name}.toml"))
    assert merge.load(str(prompts.FOLDER / "merge" / "refine.toml")) == merge.load("refine")
    (tmp_path / "merge").mkdir()
    monkeypatch.setattr(prompts, "FOLDER", tmp_path)
    with pytest.raises(UsageError, match=r"norefine.toml is missing: put it back"):
        merge.load("norefine")
