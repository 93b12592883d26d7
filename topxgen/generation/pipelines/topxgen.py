"""The TopXGen pipeline: a prompt asks for texts about a topic, with examples that set the tone."""

import logging
import random
from functools import lru_cache
from pathlib import Path

from topxgen.common.errors import Unreachable, UsageError
from topxgen.common.provenance import digest
from topxgen.corpora import examples
from topxgen.corpora.topics import read_topics
from topxgen.generation import prompt_templates
from topxgen.generation.checks import check_topics
from topxgen.generation.pipelines import Pipeline, Prompt
from topxgen.generation.prompt_templates import for_model, only_in_a_dry_run
from topxgen.generation.seeds import STAND_IN, example_sentences
from topxgen.prompting.style import as_prompt
from topxgen.text import languages

logger = logging.getLogger(__name__)

# Consecutive prompts of a language share their examples and differ in the topic, which comes last, so that an engine
# with a prefix cache reads the examples once for all of them. Not the batch size: prompts must not depend on it.
PROMPTS_PER_EXAMPLES = 4


class TopXGen(Pipeline):
    """Each prompt is a function of (seed, language, number) alone.

    Raises UsageError if topics, template or examples cannot be read, or are fewer than the flags ask for.
    """

    def __init__(self, config):
        args = self._args = config.args
        check_topics(args)
        topics = read_topics(Path(args.seed_topics_path))
        self._template = template = for_model(config, prompt_templates.load, "instruct", "continuation")
        self._paragraphs, self._languages = _example_paragraphs(args), config.languages
        self._sentences = {
            name: example_sentences(args, language) if args.number_of_icl_phrases else []
            for name, language in config.languages.items()
        }
        self._orders = {name: TopicOrder(topics, args.seed, name) for name in config.languages}
        self._topic_count = len(topics)
        self._examples = lru_cache(maxsize=len(config.languages))(self._draw)
        self.stop = template.stop
        self.texts_per_prompt = 1 if template.answer == "text" else args.number_of_generations_per_step
        self.summary = (
            f"template {template.path}, {len(topics)} topics for each language, used again when there are no more"
        )
        self.settings = {
            "prompt_template_digest": template.digest,
            **template.chat_template,
            "topics_digest": digest(topics),
            "example_paragraphs_digest": digest([name + text for name, texts in self._paragraphs.items() for text in texts]),
            **{f"example_sentences_digest {name}": digest(texts) for name, texts in self._sentences.items() if texts},
            "number_of_icl_demonstrations": args.number_of_icl_demonstrations,
            "number_of_icl_phrases": args.number_of_icl_phrases,
            "texts_per_prompt": self.texts_per_prompt,
        }  # fmt: skip
        shown = [*self._paragraphs.values(), *self._sentences.values()]
        if any(text.startswith(STAND_IN) for texts in shown for text in texts):  # only in a dry run
            self.settings = {}  # not known
        given = getattr(args, "given", ())
        if "number_of_generations_per_step" in given and args.number_of_generations_per_step > self.texts_per_prompt:
            logger.info(f"{template.path} asks for one text, so that --number_of_generations_per_step has no effect")
        for name in config.languages:
            others = sum(1 for other in self._others(name) if self._paragraphs[other])
            if args.number_of_icl_demonstrations > others:
                raise UsageError(
                    f"--number_of_icl_demonstrations {args.number_of_icl_demonstrations} is more than the {others} languages "
                    f"other than {name} that have example paragraphs; each comes from a different one"
                )
            if args.number_of_icl_phrases > len(self._sentences[name]):
                raise UsageError(
                    f"--number_of_icl_phrases {args.number_of_icl_phrases} is more than the {len(self._sentences[name])} "
                    f"example sentences in {name}"
                )

    def build(self, prompt: Prompt) -> tuple[str | list[dict[str, str]], str]:
        if prompt.number == self._topic_count:
            logger.info(f"{prompt.language}: all {self._topic_count} topics have been used once; they are used again")
        topic = self._orders[prompt.language].topic(prompt.number)
        paragraphs, sentences = self._examples(prompt.language, prompt.number // PROMPTS_PER_EXAMPLES)
        text = self._template.fill(
            language=prompt.language,
            topic=topic,
            n=self.texts_per_prompt,
            paragraphs=paragraphs,
            sentences=sentences,
        )
        return as_prompt(text, self._template.style), topic

    def parse(self, response: str) -> list[str] | None:
        return self._template.parse(response, self.texts_per_prompt)

    def _others(self, name: str) -> list[str]:
        """The languages of example paragraphs other than `name`, by whatever name: Arabic is Modern Standard Arabic."""
        same = languages.names_of(self._languages[name], self._args.languages_file)
        return sorted(other for other in self._paragraphs if other not in same)

    def _draw(self, language: str, number: int) -> tuple[list[tuple[str, str]], list[str]]:
        """Example paragraphs and sentences."""
        rng = random.Random(f"examples {self._args.seed} {language} {number}")
        paragraphs = self._draw_paragraphs(rng, language)
        return paragraphs, rng.sample(self._sentences[language], self._args.number_of_icl_phrases)

    def _draw_paragraphs(self, rng: random.Random, language: str) -> list[tuple[str, str]]:
        """(language, text) of the example paragraphs, each in another language and of another index."""
        if not self._args.number_of_icl_demonstrations:
            return []
        names = rng.sample(self._others(language), self._args.number_of_icl_demonstrations)
        shortest = min(len(self._paragraphs[name]) for name in names)
        if shortest >= len(names):
            indices = rng.sample(range(shortest), len(names))
        else:
            indices = [rng.randrange(len(self._paragraphs[name])) for name in names]
        return [(name, self._paragraphs[name][index]) for name, index in zip(names, indices, strict=True)]


class TopicOrder:
    """The topic of the n-th prompt of a language: shuffled topics, then shuffled again, without end."""

    def __init__(self, topics: list[str], seed: int, language: str):
        self._topics, self._seed, self._language = topics, seed, language
        self._turn, self._shuffled = -1, topics

    def topic(self, number: int) -> str:
        turn, index = divmod(number, len(self._topics))
        if turn != self._turn:
            self._turn, self._shuffled = turn, list(self._topics)
            random.Random(f"topics {self._seed} {self._language} {turn}").shuffle(self._shuffled)
        return self._shuffled[index]


def _example_paragraphs(args) -> dict[str, list[str]]:
    """Example paragraphs by language, of parallel indices where the source is parallel."""
    if not args.number_of_icl_demonstrations:
        return {}
    try:
        return examples.example_paragraphs(args.example_paragraphs, args.languages_file, args.allow_partial_benchmark)
    except Unreachable as error:
        only_in_a_dry_run(args, error)
        numbers = range(1, args.number_of_icl_demonstrations + 1)
        return {f"[language {i}]": [f"{STAND_IN} paragraph, {i}]"] for i in numbers}
