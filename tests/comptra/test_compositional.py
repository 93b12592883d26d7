"""CompTra's levels: what stands on a phrase without an answer is asked again, and phrases stay with their sentences."""

import json

import pytest

from comptra.compositional import translate
from comptra.compositional.translate import Plan
from comptra.llm_calls import LLMClient
from comptra.methods import Task
from tests.support.runs import records
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


def test_parents_that_say_otherwise_are_not_overwritten(tmp_path):
    room = Room(tmp_path, dict(zip("abcd", "ABCD", strict=True)))
    room.run()
    path = tmp_path / "parent_1.jsonl"
    assert json.loads(path.read_text()) == {"0": 0, "1": 0, "2": 1, "3": 1}
    other = '{"0": 0, "1": 1, "2": 1, "3": 1}\n'
    path.write_text(other)
    with pytest.raises(
        UsageError, match=r"parent_1.jsonl has phrase 1 in sentence 1, divide_1.jsonl in sentence 0: remove"
    ):
        room.run()
    assert path.read_text() == other
