"""Prompts of the methods that give instructions: their texts, their conversations, the translation in an answer.

A conversation is a tuple of turns, the user's and the model's in alternation, the user's last.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from comptra import answer_parsing
from comptra import prompts as prompt_files
from comptra.methods import Task
from topxgen.inference import SamplingSettings
from topxgen.prompting import toml_prompts
from topxgen.text.thoughts import without_thoughts

THOUGHT_TOKENS = 1024  # most new tokens of an answer that is not a translation
DEFAULT_MARKER = "Translation:"
ALWAYS_KNOWN = ("sentence", "src", "tgt")  # placeholders
Turns = tuple[str, ...]


@dataclass(frozen=True)
class Instructions:
    """The texts of comptra/prompts/methods/{method}.toml; called with the name of one, it fills in the placeholders."""

    texts: dict[str, str]
    task: Task

    def __call__(self, name: str, **values: str) -> str:
        return toml_prompts.fill(self.texts[name], src=self.task.src.name, tgt=self.task.tgt.name, **values)

    @property
    def marker(self) -> str:
        """What the line with the translation begins with."""
        return self.texts.get("marker", DEFAULT_MARKER)


def instructions(method: str, placeholders: dict[str, tuple[str, ...]], task: Task) -> Instructions:
    """The texts of a method. Raises UsageError if one of `placeholders` is missing, or a placeholder in it, and for unknown ones."""
    path = toml_prompts.find(prompt_files.FOLDER / "methods", method)
    texts = toml_prompts.load(path, placeholders)
    known = {part: (*own, *ALWAYS_KNOWN) for part, own in placeholders.items()}
    toml_prompts.refuse_unknown(path, texts, known, ("marker",))
    return Instructions(texts, task)


def think(task: Task, sentences: list[str], talks: list[Turns], max_new_tokens: int | None = None) -> list[str]:
    """Greedy answers that are not translations, and may be longer; "" for no answer."""
    tokens = max(max_new_tokens or THOUGHT_TOKENS, task.sampling.max_new_tokens)
    return _first_answers(task, sentences, talks, task.greedy(tokens))


def draft(task: Task, sentences: list[str], talks: list[Turns], marker: str) -> list[str]:
    """One translation per conversation, in order, by the user's decoding settings; "" for no answer."""
    answers = _first_answers(task, sentences, talks, replace(task.sampling, num_return_sequences=1))
    pairs = zip(answers, sentences, strict=True)
    return [answer_parsing.translation(text, marker, source, task.tgt.name) for text, source in pairs]


def candidates(task: Task, sentences: list[str], talks: list[Turns], marker: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the conversation, the translations in its answers) as they finish."""
    prompts = [task.client.chat(*talk) for talk in talks]
    for i, texts in task.client.generate(sentences, prompts, task.sampling):
        read = [answer_parsing.translation(text, marker, sentences[i], task.tgt.name) for text in texts]
        yield i, [task.client.read(sentences[i], *pair) for pair in zip(texts, read, strict=True)]


def translations(task: Task, sentences: list[str], talks: list[Turns], marker: str) -> Iterator[tuple[int, str]]:
    """Yield (number of the sentence, its translation), the best of several candidates."""
    return task.best(sentences, candidates(task, sentences, talks, marker))


def _first_answers(task: Task, sentences: list[str], talks: list[Turns], sampling: SamplingSettings) -> list[str]:
    answers = task.client.generate_all(sentences, [task.client.chat(*talk) for talk in talks], sampling)
    return [without_thoughts(texts[0]) if texts else "" for texts in answers]
