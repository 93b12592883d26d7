"""What the methods that ask in words share: how long models may think, and where the translation stands."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from comptra import answer_parsing, prompts
from comptra.methods import Task
from topxgen.inference import SamplingSettings
from topxgen.prompting import toml_prompts
from topxgen.prompting.style import Prompt

THOUGHT_TOKENS = 1024  # of an answer that is no translation, at most
MARKER = "Translation:"  # where the file of a method names none


def prompts_of(method: str, needed: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """The texts of comptra/prompts/methods/{method}.toml. Raises UsageError when something is missing there."""
    return {"marker": MARKER, **toml_prompts.load(toml_prompts.find(prompts.FOLDER / "methods", method), needed)}


def names(task: Task) -> dict[str, str]:
    """The placeholders that every prompt may hold."""
    return {"src": task.src.name, "tgt": task.tgt.name}


def thoughts(task: Task, prompts: list[Prompt], tokens: int | None = None) -> list[str | None]:
    """What the model says to each prompt, greedily and at more length than a translation; None: no answer."""
    return _first(task, prompts, task.greedy(max(tokens or THOUGHT_TOKENS, task.sampling.max_new_tokens)))


def drafts(task: Task, prompts: list[Prompt], marker: str) -> list[str | None]:
    """One translation for each prompt, in order, by the user's decoding; None: no answer."""
    found = _first(task, prompts, replace(task.sampling, num_return_sequences=1))
    return [text and answer_parsing.translation(text, marker) for text in found]


def translations(sentences: list[str], prompts: list[Prompt], task: Task, marker: str) -> Iterator[tuple[int, str]]:
    """The translations that `prompts` ask for in words, as they finish; of several candidates the best."""
    clean = partial(answer_parsing.translation, marker=marker, thinking=task.thinks)
    return task.translate(sentences, prompts, task.sampling, clean)


def _first(task: Task, prompts: list[Prompt], sampling: SamplingSettings) -> list[str | None]:
    found = task.asker.answers(prompts, sampling)
    return [answer_parsing.without_thoughts(texts[0], task.thinks) if texts else None for texts in found]
