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
    assert (prompt.name, prompt.needs_draft, prompt.files) == ("mine", False, [tmp_path / "mine.toml"])
    (message,) = prompt.prompt(task("chat"), "a b", PAIRS, POOL)
    assert message["content"] == "MINE English>Basque E:(1 c=C);P:[1 a=A][2 b {tgt}=B];S: a b"
    (message,) = prompt.prompt(task("chat"), "a b", [], [])
    assert message["content"] == "MINE English>Basque S: a b"
    raw = task("raw")
    assert prompt.prompt(raw, "a b", PAIRS, POOL) == "NOTE a b.\n" + raw.prompt([*POOL, *PAIRS], "a b")


def test_a_file_with_a_draft_gets_one_and_stays_itself_without(tmp_path):
    prompt = merge.load(write(tmp_path / "mine.toml", chat="MINE {phrases}{sentence} D: {draft}"))
    assert prompt.needs_draft and merge.load("refine").needs_draft and not merge.load("norefine").needs_draft
    (message,) = prompt.prompt(task("chat"), "a b", [], [], "zirriborroa")
    assert message["content"] == "MINE a b D: zirriborroa"
    (message,) = prompt.prompt(task("chat"), "a b", [], [])
    assert message["content"] == "MINE a b D: ", "not the words of another file"


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


@pytest.mark.parametrize("with_draft", [False, True])
def test_main_sends_the_users_words(with_draft, script_here, tmp_path, monkeypatch):
    """Through a server that keeps what it is asked: phrases few-shot, drafts only where the file shows one, then the file."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    own = tmp_path / "mine.toml"
    write(own, **({"chat": "MINE {phrases}S: {sentence} D: {draft}"} if with_draft else {}))
    flags = options("org/chat", prompt_style=None, max_samples=1, inference_api="openai", dtype=None, k=0)
    flags += ["--steps", 1, "--method_divide", "space", "--number_of_subproblems", 2, "--merge_prompt", own]
    (sentence,) = udhr(1).sources
    with ApiServer() as server:
        run = partial(
            script_here, "main.py", *flags, "--base_url", server.url("openai"), "--output_dir", tmp_path / "out"
        )
        result = run()
        assert result.returncode == 0, result.stderr
        asked = [body["messages"] for body in server.bodies]
        few_shot = [chat_prompt("English", "Basque", [], sentence)] * with_draft
        assert asked[2:-1] == few_shot and len(asked) == 3 + with_draft
        ((message,),) = asked[-1:]
        assert message["content"].startswith("MINE ") and f"S: {sentence}" in message["content"]
        assert ("D: answer to" in message["content"]) == with_draft
        (path,) = (tmp_path / "out" / "chat").glob("*/translate_0.jsonl")
        assert path.parent.name == "English_to_Basque_0_shot_seed_122_space_mine_2_1_0" and all(texts(path))
        assert json.loads((path.parent / "settings_translate.json").read_text())["merge_prompt"] == "mine"
        own.write_text("# A comment changes nothing.\n" + own.read_text())
        assert run().returncode == 0 and len(server.bodies) == len(asked)
        own.write_text(own.read_text().replace("MINE", "OTHER"))
        other = run()
        assert other.returncode == 2 and "instructions_digest was" in other.stderr and len(server.bodies) == len(asked)
