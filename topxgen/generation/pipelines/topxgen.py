"""The topxgen pipeline: a prompt asks for texts about a topic, with examples to set the tone."""

import logging
import random

from topxgen.common.errors import UsageError
from topxgen.generation.paragraphs import Prompt
from topxgen.generation.prompt_templates import Template
from topxgen.generation.topics import TopicOrder

logger = logging.getLogger(__name__)

# Consecutive prompts of a language share their examples and differ in the topic, which stands last, so that
# an engine with a prefix cache reads the examples once for all of them. A constant of its own, because a
# prompt must not depend on the batch size.
PROMPTS_PER_EXAMPLES = 4


class TopXGenPrompts:
    """Builds each prompt from (seed, language, number) alone.

    `paragraphs` are example texts by language name, index-parallel where the source is; `sentences` are
    example sentences by target language. Raises UsageError when a pool is smaller than what is asked of it.
    """

    def __init__(
        self,
        template: Template,
        topics: list[str],
        paragraphs: dict[str, list[str]],
        sentences: dict[str, list[str]],
        *,
        languages: list[str],
        seed: int,
        texts: int,
        demonstrations: int,
        phrases: int,
    ):
        self._template, self._paragraphs, self._sentences = template, paragraphs, sentences
        self._seed, self._texts, self._demonstrations, self._phrases = seed, texts, demonstrations, phrases
        self._orders = {language: TopicOrder(topics, seed, language) for language in languages}
        self._topic_count = len(topics)
        for language in languages:
            others = sum(1 for name, texts in paragraphs.items() if name != language and texts)
            if demonstrations > others:
                raise UsageError(
                    f"--number_of_icl_demonstrations {demonstrations} is more than the {others} languages other than "
                    f"{language} that have example paragraphs; each comes from a different one"
                )
            if phrases > len(sentences.get(language, [])):
                raise UsageError(
                    f"--number_of_icl_phrases {phrases} is more than the {len(sentences.get(language, []))} example "
                    f"sentences there are in {language}"
                )

    def build(self, prompt: Prompt) -> tuple[str | list[dict[str, str]], str]:
        """The prompt to send (text, or a chat when the template says so) and its topic."""
        if prompt.number == self._topic_count:
            logger.info(f"{prompt.language}: all {self._topic_count} topics have been used once; they are used again")
        topic = self._orders[prompt.language].topic(prompt.number)
        rng = random.Random(f"examples {self._seed} {prompt.language} {prompt.number // PROMPTS_PER_EXAMPLES}")
        text = self._template.fill(
            language=prompt.language,
            topic=topic,
            n=self._texts,
            paragraphs=self._draw_paragraphs(rng, prompt.language),
            sentences=rng.sample(self._sentences[prompt.language], self._phrases) if self._phrases else [],
        )
        return ([{"role": "user", "content": text}] if self._template.style == "chat" else text), topic

    def _draw_paragraphs(self, rng: random.Random, language: str) -> list[tuple[str, str]]:
        """Example paragraphs, each in a language of its own and of an index of its own."""
        if not self._demonstrations:
            return []
        names = rng.sample(sorted(name for name in self._paragraphs if name != language), self._demonstrations)
        shortest = min(len(self._paragraphs[name]) for name in names)
        if shortest >= len(names):
            indices = rng.sample(range(shortest), len(names))
        else:
            indices = [rng.randrange(len(self._paragraphs[name])) for name in names]
        return [(name, self._paragraphs[name][index]) for name, index in zip(names, indices, strict=True)]
