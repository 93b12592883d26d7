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
from topxgen.generation.filters import TOPXGEN_FILTERS

# fmt: off
PIPELINES: dict[str, Choice] = {
    "topxgen": Choice("topxgen.generation.pipelines.topxgen:TopXGen", "texts about topics, with example paragraphs in other languages"),
    "self-instruct": Choice("topxgen.generation.pipelines.self_instruct:SelfInstruct",
                            "passages like seed sentences and like those kept before"),
    "knn-instruct": Choice("topxgen.generation.pipelines.knn_instruct:KNNInstruct",
                           "in rounds, one more passage for each of a pool and its nearest neighbours"),
}
# fmt: on


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

    texts_per_prompt: int = 1  # expected of a response, for estimates; so are the next two, (low, high)
    tokens_per_text: tuple[int, int] = (200, 600)  # at most three paragraphs; in the published data 100 to 250 words
    sentences_per_text: tuple[int, int] = (4, 12)
    filters: tuple[str, ...] = TOPXGEN_FILTERS  # default of --filters
    threshold: float = 0.7  # default of --threshold
    # Whether the schedule ends by itself: then the run is complete, and the numbers of texts are only limits.
    ends: bool = False
    prompts: int = 0  # of a schedule that ends
    stop: tuple[str, ...] = ()  # strings at which a response ends
    settings: Mapping = MappingProxyType({})  # what decides the texts besides the flags: digests of files; JSON values
    summary: str = ""  # for --dry_run

    def __init__(self, config):
        """`config`: a topxgen.generation.plan.GenerationConfig."""

    def schedule(self, languages: tuple[str, ...], step_size: int, seed: int) -> Iterator[list[Prompt]]:
        """The prompts, step by step; by default without end, languages in shuffled rounds. An empty step: the next one depends
        on prompts that `judged` has not had yet."""
        return shuffled_rounds(languages, step_size, seed)

    def build(self, prompt: Prompt) -> tuple[str | list[dict[str, str]], str | None] | None:
        """(what to send: text, or a chat; its topic if it has one). None: it depends on prompts that `judged` has not had
        yet."""
        raise NotImplementedError

    def later_prompt(self, language: str) -> str | None:
        """For --dry_run: what prompts look like that show earlier texts, with stand-ins for these; None if none do."""
        return None

    def parse(self, response: str) -> list[str] | None:
        """The texts in a response; None if it does not have the format that was asked for."""
        raise NotImplementedError

    def finished_part(self, response: str) -> str | None:
        """What of a response that was cut at --max_new_tokens has its end; texts of the rest are rejected as unfinished. None: its
        last text is kept, too, and marked as truncated."""
        return None

    def known_texts(self, language: str) -> list[str]:
        """Texts that new ones must not be near-duplicates of, besides the paragraphs of the language's file."""
        return []

    def judged(self, prompt: Prompt, texts: list[str]) -> None:
        """Called for each prompt whose texts were judged, in the order of the schedule, with those that were kept; without texts
        for those that are passed over because their language has enough."""

    def finish(self) -> None:
        """Called when the run is over, once its model is closed, to write files of the pipeline's own."""


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
