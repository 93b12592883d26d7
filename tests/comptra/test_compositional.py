"""CompTra's levels: what stands on a phrase without an answer is asked again, and phrases stay with their sentences."""

import json
import re

import pytest

from comptra.compositional import translate
from comptra.compositional.translate import Plan
from comptra.llm_calls import LLMClient
from comptra.methods import Task
from tests.support.api_server import KEY, ApiServer
from tests.support.runs import in_process, records
from topxgen.common.errors import UsageError
from topxgen.inference import SamplingSettings
from topxgen.prompting.mt_templates import get_template
from topxgen.text import languages

SENTENCES = ["a b", "c d"]


class Joining(Task):
    """What is asked to merge is answered with the phrase translations in a row."""

    merged: list = []  # noqa: RUF012 (what was asked, for a look)

    def translate(self, sentences, prompts):
        self.merged.extend(sentences)
        return enumerate(" ".join(target for _, target in pairs) for pairs in prompts)


class Room:
    """A folder in which sentences are divided at spaces and put together again."""

    def __init__(self, folder, answered):
        self.folder, self.answered = folder, answered
        english, basque = languages.find("English"), languages.find("Basque")
        client = LLMClient(None, "raw", None, 1)
        self.task = Joining(english, basque, client, get_template(11, "English", "Basque"), SamplingSettings())
        self.merged = self.task.merged
        self.merged.clear()

    def method(self, sentences, task):
        task.client.unanswered.update(set(sentences) - set(self.answered))
        return ((i, self.answered.get(text, "")) for i, text in enumerate(sentences))

    def run(self):
        plan = Plan(
            method=self.method,
            divide=lambda sentences: [text.split() for text in sentences],
            merge_prompts=lambda sentences, pairs: pairs,
            merge=self.task.translate,
            fits=lambda texts: [True] * len(texts),
            steps=1,
        )
        levels = translate.divide(SENTENCES, plan, self.task, self.folder)
        return translate.translate(levels, plan, self.task, self.folder)


def test_a_sentence_is_merged_again_when_its_missing_phrase_is_there(tmp_path):
    room = Room(tmp_path, {"a": "A", "b": "B", "c": "C"})
    assert room.run() == [["A B", "C"], ["A", "B", "C", ""]]
    assert [line.get("unanswered") for line in records(tmp_path / "translate_0.jsonl")] == [None, True]
    assert room.run()[0] == ["A B", "C"] and room.merged == ["a b", "c d", "c d"]
    room.answered["d"] = "D"
    assert room.run() == [["A B", "C D"], ["A", "B", "C", "D"]]
    assert room.merged == ["a b", "c d", "c d", "c d"]
    assert "unanswered" not in (tmp_path / "translate_0.jsonl").read_text()
    assert room.run()[0] == ["A B", "C D"] and len(room.merged) == 4


@pytest.mark.parametrize("retriever", ["Random", "bm25s"])
def test_random_demonstrations_are_the_same_for_all_phrases_of_a_sentence(retriever, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    shown: dict[str, tuple] = {}  # by phrase

    def respond(prompt):
        if "closed" not in prompt.rpartition("English: ")[2]:
            *demonstrations, phrase = re.findall(r"English: (.*)", prompt)
            shown[phrase] = tuple(demonstrations)
        return "Bai."

    for name, lines in (("src", ["one two three four", "closed five six seven"]), ("ref", ["bat", "bost"])):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    pool = [(f"{word} word", f"{i} hitza") for i, word in enumerate(["one", "two", "three", "four", *"abcdefghijkl"])]
    (tmp_path / "pool.tsv").write_text("English\tBasque\n" + "".join(f"{a}\t{b}\n" for a, b in pool))
    with ApiServer(respond=respond) as server:
        result = in_process(
            "main.py", "--inference_api", "openai", "--base_url", server.url("openai"), "--model_name_or_path", "m",
            "--dataset_name_or_path", "files", "--test_files", tmp_path / "src", tmp_path / "ref", "--demonstration_pool",
            tmp_path / "pool.tsv", tmp_path / "pool.tsv", "--src", "English", "--tgt", "Basque", "--k", 3, "--steps", 1, "--method_divide",
            "space", "--number_of_subproblems", 4, "--retriever_type", retriever, "--lid_model", "cld2", "--output_dir", tmp_path / "out",
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    first = [shown[phrase] for phrase in ("one", "two", "three", "four")]
    assert all(len(demonstrations) == 3 for demonstrations in first)
    assert len(set(first)) == (1 if retriever == "Random" else 4)
    second = [shown[phrase] for phrase in ("five", "six", "seven")]
    assert retriever != "Random" or (len(set(second)) == 1 and second[0] != first[0]), "another sentence has others"
    settings = json.loads(next((tmp_path / "out").rglob("settings_translate.json")).read_text())
    assert settings.get("demonstrations_of") == ("sentence" if retriever == "Random" else None)


def test_parents_that_say_otherwise_are_not_overwritten(tmp_path):
    room = Room(tmp_path, dict(zip("abcd", "ABCD", strict=True)))
    room.run()
    path = tmp_path / "parent_1.jsonl"
    assert json.loads(path.read_text()) == {"0": 0, "1": 0, "2": 1, "3": 1}
    written = path.stat().st_mtime_ns
    room.run()
    assert path.stat().st_mtime_ns == written, "it is not written again either"
    other = '{"0": 0, "1": 1, "2": 1, "3": 1}\n'
    path.write_text(other)
    with pytest.raises(
        UsageError, match=r"parent_1.jsonl has phrase 1 in sentence 1, divide_1.jsonl in sentence 0: remove"
    ):
        room.run()
    assert path.read_text() == other
