"""Generation pipelines, one file each: how prompts are made, and how responses become texts.

A new pipeline is a subclass of Pipeline and a row in PIPELINES, or a file of your own:
`--data_generation_pipeline path/to/file.py:Class`.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from topxgen.common.registry import Choice

PIPELINES: dict[str, Choice] = {
    "topxgen": Choice(
        "topxgen.generation.pipelines.topxgen:TopXGen", "texts about topics, with example paragraphs in other languages"
    )
}


@dataclass(frozen=True)
class Prompt:
    """The `number`-th prompt of a language, sent in the `step`-th step of the run."""

    id: str
    language: str
    number: int
    step: int


class Pipeline:
    """Base of the pipelines. __init__(config) reads what prompts are made of, and raises UsageError for what is wrong.

    The texts of a run must be a function of its settings and of the responses, however often it is stopped. So what is
    sent depends on the Prompt alone, and if it has to depend on earlier texts, on those of fixed earlier prompts.
    """

    texts_per_prompt: int = 1  # expected of a response, for estimates
    stop: tuple[str, ...] = ()  # strings at which a response ends
    settings: Mapping = MappingProxyType({})  # what decides the texts besides the flags: digests of files; JSON values
    summary: str = ""  # for --dry_run

    def __init__(self, config):
        """`config`: a topxgen.generation.plan.GenerationConfig."""

    def schedule(self, languages: tuple[str, ...], step_size: int, seed: int) -> Iterator[list[Prompt]]:
        """The prompts, step by step; by default without end, languages in shuffled rounds."""
        return shuffled_rounds(languages, step_size, seed)

    def build(self, prompt: Prompt) -> tuple[str | list[dict[str, str]], str] | None:
        """(what to send: text, or a chat; its topic). None: it depends on prompts that `judged` has not had yet."""
        raise NotImplementedError

    def parse(self, response: str) -> list[str] | None:
        """The texts in a response; None if it does not have the format that was asked for."""
        raise NotImplementedError

    def judged(self, prompt: Prompt, texts: list[str]) -> None:
        """Called for each prompt whose texts were judged, in the order of the schedule, with those that were kept."""


def shuffled_rounds(languages: tuple[str, ...], step_size: int, seed: int) -> Iterator[list[Prompt]]:
    """Without end, the prompts of each step: the next `step_size` of a language drawn at random.

    Languages come in shuffled rounds, so that each gets as many steps as the others.
    """
    numbers = Counter()
    step = 0
    while True:
        shuffled = list(languages)
        random.Random(f"languages {seed} {step}").shuffle(shuffled)
        for language in shuffled:
            first = numbers[language]
            numbers[language] += step_size
            yield [
                Prompt(f"{language}-{number:06d}", language, number, step) for number in range(first, first + step_size)
            ]
            step += 1
