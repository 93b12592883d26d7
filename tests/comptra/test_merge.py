"""Merge prompts of the user's own (--merge_prompt): what is sent are their texts, and nothing else."""

import json
import shutil
from functools import partial

import pytest

from comptra import llm_calls, prompts
from comptra.compositional import merge
from comptra.methods import Task
from tests.support.api_server import KEY, ApiServer
from tests.support.main_runs import options, texts, udhr
from tests.support.runs import in_process, records
from topxgen.common.errors import UsageError
from topxgen.inference import SamplingSettings
from topxgen.prompting.mt_templates import chat_prompt, get_template
from topxgen.text import languages

PARTS = {
    "chat": "MINE {src}>{tgt} {examples}{phrases}S: {sentence}",
    "block": "P:{items};",
    "item": "[{number} {source}={target}]",
    "examples": "E:{items};",
    "example": "({number} {source}={target})",
    "raw": "NOTE {sentence}.\n",
}
PAIRS, POOL = [("a", "A"), ("b {tgt}", "B")], [("c", "C")]


def write(path, **changes) -> str:
    path.write_text("".join(f"{name} = {json.dumps(text)}\n" for name, text in (PARTS | changes).items()))
    return str(path)


def task(style: str) -> Task:
    english, basque = languages.find("English"), languages.find("Basque")
    client = llm_calls.LLMClient(None, style, None, 1)
    return Task(english, basque, client, get_template(14, "English", "Basque"), SamplingSettings())


def test_a_file_of_ones_own_is_what_is_sent(tmp_path):
    prompt = merge.load(write(tmp_path / "mine.toml"))
    assert (prompt.name, prompt.recorded_name, prompt.path) == ("mine", "mine", tmp_path / "mine.toml")
    (message,) = prompt.prompt(task("chat"), "a b", PAIRS, POOL)
    assert message["content"] == "MINE English>Basque E:(1 c=C);P:[1 a=A][2 b {tgt}=B];S: a b"
    (message,) = prompt.prompt(task("chat"), "a b", [], [])
    assert message["content"] == "MINE English>Basque S: a b"
    raw = task("raw")
    assert prompt.prompt(raw, "a b", PAIRS, POOL) == "NOTE a b.\n" + raw.prompt([*POOL, *PAIRS], "a b")


def test_a_file_that_asks_for_a_draft_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"mine.toml: \{draft\} is not filled in"):
        merge.load(write(tmp_path / "mine.toml", chat="MINE {phrases}{sentence} D: {draft}"))


def test_a_name_in_the_folder_and_what_is_wrong(tmp_path, monkeypatch):
    shutil.copytree(prompts.FOLDER / "merge", tmp_path / "merge")
    monkeypatch.setattr(prompts, "FOLDER", tmp_path)
    write(tmp_path / "merge" / "mine.toml")
    assert merge.load("mine").name == "mine" and merge.load("mine").texts["raw"] == "NOTE {sentence}.\n"
    with pytest.raises(UsageError, match=r"'mime' .*vanilla, refine, norefine, mine, or the path of a .*mean mine"):
        merge.load("mime")
    with pytest.raises(UsageError, match=r"--merge_prompt .*nowhere.toml does not exist; choose one of"):
        merge.load(str(tmp_path / "nowhere.toml"))
    with pytest.raises(UsageError, match=r"mine.toml, chat: the placeholder \{phrases\} is missing"):
        merge.load(write(tmp_path / "mine.toml", chat="{sentence}"))


def served(tmp_path, monkeypatch, merge_prompt, **changes):
    """main.py with two phrases of one sentence, through a server that keeps what it is asked."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    chosen = {"prompt_style": None, "inference_api": "openai", "dtype": None, "k": 0, "max_samples": 1} | changes
    flags = options("org/chat", **chosen)
    flags += ["--steps", 1, "--method_divide", "space", "--number_of_subproblems", 2, "--merge_prompt", merge_prompt]
    return partial(in_process, "main.py", *flags, "--output_dir", tmp_path / "out")


def test_main_sends_the_users_words(tmp_path, monkeypatch):
    own = tmp_path / "mine.toml"
    write(own)
    (sentence,) = udhr(1).sources
    main = served(tmp_path, monkeypatch, own)
    with ApiServer() as server:
        run = partial(main, "--base_url", server.url("openai"))
        result = run()
        assert result.returncode == 0, result.stderr
        asked = [body["messages"] for body in server.bodies]
        assert len(asked) == 3
        ((message,),) = asked[-1:]
        assert message["content"].startswith("MINE ") and f"S: {sentence}" in message["content"]
        (path,) = (tmp_path / "out" / "chat").glob("*/translate_0.jsonl")
        assert path.parent.name == "English_to_Basque_0_shot_seed_122_space_mine_2_1_0" and all(texts(path))
        assert json.loads((path.parent / "settings_translate.json").read_text())["merge_prompt"] == "mine"
        own.write_text("# A comment changes nothing.\n" + own.read_text())
        assert run().returncode == 0 and len(server.bodies) == len(asked)
        own.write_text(own.read_text().replace("MINE", "OTHER"))
        other = run()
        assert other.returncode == 2 and "instructions_digest was" in other.stderr and len(server.bodies) == len(asked)


PHRASE = "Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela."
SECTIONS = """### Refined phrases
- a => b
### Recombination
Final translation of the sentence: the verb ends it.

**Final Translation (Basque):**

{final}
### Notes
None."""


def test_refine_asks_for_sections_and_finds_the_final_one(tmp_path, monkeypatch):
    """Phrases, then one merge each: no draft of the sentence; at least 1500 tokens; a missing section is counted."""
    first, second = udhr(2).sources

    def respond(prompt):
        if "### Final translation" not in prompt:
            return PHRASE
        return SECTIONS.format(final="Itzulpena.") if first in prompt else "I refine the phrases first, and then"

    main = served(tmp_path, monkeypatch, "refine", max_samples=2, max_new_tokens_merge=None)
    with ApiServer(respond=respond) as server:
        result = main("--base_url", server.url("openai"))
        assert result.returncode == 0, result.stderr
        merges = [body for body in server.bodies if "### Final translation" in body["messages"][0]["content"]]
        assert len(merges) == 2 and len(server.bodies) == 6
        assert {body.get("max_tokens", body.get("max_completion_tokens")) for body in merges} == {1500}
        assert not any(body["messages"] == chat_prompt("English", "Basque", [], first) for body in server.bodies)
        assert all(PHRASE in body["messages"][0]["content"] for body in merges)
        (path,) = (tmp_path / "out" / "chat").glob("*/translate_0.jsonl")
        assert records(path) == [
            {"sentence": first, "translation": "Itzulpena."},
            {"sentence": second, "translation": "", "unreadable": True},
        ]
        manifest = json.loads((path.parent / "manifest_translate.json").read_text())
        assert manifest["unreadable_answers"] == 1 and manifest["unanswered_prompts"] == 0
        assert "1 answers hold no translation" in result.stderr
        again = main("--base_url", server.url("openai"))
        assert again.returncode == 0 and len(server.bodies) == 6 and "1 answers hold no translation" in again.stderr
        # An older run of the same name asked for something else.
        settings = path.parent / "settings_translate.json"
        settings.write_text(settings.read_text().replace("refine (version 2)", "refine"))
        old = main("--base_url", server.url("openai"))
        assert old.returncode == 2 and "merge_prompt was 'refine', now 'refine (version 2)'" in old.stderr


@pytest.mark.parametrize("name", ["refine", "norefine"])
def test_without_a_usable_phrase_the_sentence_is_translated_zero_shot(name, tmp_path, monkeypatch):
    (sentence,) = udhr(1).sources
    main = served(tmp_path, monkeypatch, name)
    with ApiServer(
        respond=lambda prompt: "This is plain English, which nobody would take for another language."
    ) as server:
        assert main("--base_url", server.url("openai")).returncode == 0
        assert len(server.bodies) == 3
        assert server.bodies[-1]["messages"] == chat_prompt("English", "Basque", [], sentence)


def test_a_base_model_is_asked_for_the_same_sections(tmp_path, monkeypatch):
    main = served(tmp_path, monkeypatch, "norefine", prompt_style="raw")

    def respond(prompt):
        return "### Combination\nSo.\n### Final translation\nItzulpena.\n" if "### Final" in prompt else PHRASE

    with ApiServer(respond=respond) as server:
        result = main("--base_url", server.url("openai"))
        assert result.returncode == 0, result.stderr
        assert "stop" not in server.bodies[-1] and "### Combination" in server.bodies[-1]["prompt"]
    (path,) = (tmp_path / "out" / "chat").glob("*/translate_0.jsonl")
    assert texts(path) == ["Itzulpena."]
