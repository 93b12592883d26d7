"""Self-Instruct (Wang et al. 2023): passages beget passages. A prompt shows seeds and passages that were kept before."""

import random

from topxgen.common.errors import UsageError
from topxgen.common.provenance import digest
from topxgen.generation import parsing
from topxgen.generation.filters import PASSAGE_FILTERS
from topxgen.generation.pipelines import Pipeline, Prompt
from topxgen.generation.prompt_templates import for_model, load_passages
from topxgen.generation.seeds import STAND_IN, seed_sentences
from topxgen.prompting.style import as_prompt

LIST_LENGTH = 20  # passages of the list that a prompt begins and the response completes
# A prompt of a language's n-th step draws from what the steps up to n - LAG have kept. So the steps between are in flight
# together, and which passages a prompt shows depends on responses alone, not on when they arrive. Wang et al. have 1.
LAG = 8


class SelfInstruct(Pipeline):
    """Raises UsageError if template or seeds cannot be read, or the seeds are too few."""

    tokens_per_text = (30, 150)  # 1 to 3 sentences
    sentences_per_text = (1, 3)
    filters = PASSAGE_FILTERS

    def __init__(self, config):
        args = self._args = config.args
        shown, synthetic = args.number_of_icl_demonstrations, args.number_of_icl_synthetic_demonstrations
        if not 1 <= shown < LIST_LENGTH:
            raise UsageError(
                f"--number_of_icl_demonstrations {shown}: self-instruct shows 1 to {LIST_LENGTH - 1} passages of a list of "
                f"{LIST_LENGTH}"
            )
        if synthetic > shown:
            raise UsageError(
                f"--number_of_icl_synthetic_demonstrations {synthetic} is more than the {shown} passages of a prompt: pass at most "
                f"{shown}, or a larger --number_of_icl_demonstrations"
            )
        self._template = template = for_model(config, load_passages, "passages", "passages-continuation")
        self._seeds = {name: seed_sentences(args, language, shown) for name, language in config.languages.items()}
        self._kept: dict[str, list[str]] = {name: [] for name in config.languages}
        self._kept_until: dict[str, list[int]] = {name: [0] for name in config.languages}  # [n]: by the first n prompts
        self._first = shown + 1 if template.ends_with_number else None
        self.stop = template.stop
        self.texts_per_prompt = LIST_LENGTH - shown
        pools = ", ".join(f"{len(seeds)} in {name}" for name, seeds in self._seeds.items())
        self.summary = (
            f"template {template.path}, seed sentences: {pools}\nat most {LAG * args.request_batch_size} prompts of a language are in "
            "flight; the first ones, as many, show seeds alone"
        )
        self.settings = {
            "prompt_template_digest": template.digest,
            **template.chat_template,
            **{f"example_sentences_digest {name}": digest(seeds) for name, seeds in self._seeds.items()},
            "number_of_icl_demonstrations": shown,
            "number_of_icl_synthetic_demonstrations": synthetic,
            "lag": LAG,
        }
        if any(seeds[0].startswith(STAND_IN) for seeds in self._seeds.values()):  # only in a dry run
            self.settings = {}  # not known

    def build(self, prompt: Prompt) -> tuple[str | list[dict[str, str]], None] | None:
        kept_until, size = self._kept_until[prompt.language], self._args.request_batch_size
        earlier = max(prompt.number // size - LAG + 1, 0) * size  # the prompts that this one may draw from
        if earlier >= len(kept_until):
            return None
        rng = random.Random(f"passages {self._args.seed} {prompt.language} {prompt.number}")
        text = self._fill(rng, prompt.language, self._kept[prompt.language][: kept_until[earlier]])
        return as_prompt(text, self._template.style), None

    def later_prompt(self, language: str) -> str | None:
        count = self._args.number_of_icl_synthetic_demonstrations
        kept = [f"[a passage that was kept before, {number}]" for number in range(1, count + 1)]
        return self._fill(random.Random(0), language, kept) if count else None

    def _fill(self, rng: random.Random, language: str, kept: list[str]) -> str:
        """The prompt with seeds and, if there are enough, passages of `kept`."""
        count = self._args.number_of_icl_synthetic_demonstrations
        synthetic = rng.sample(kept, count) if len(kept) >= count else []
        shown = synthetic + rng.sample(self._seeds[language], self._args.number_of_icl_demonstrations - len(synthetic))
        rng.shuffle(shown)
        return self._template.fill(language, shown, LIST_LENGTH)

    def parse(self, response: str) -> list[str] | None:
        return parsing.listed_passages(response, self._first) or None

    def finished_part(self, response: str) -> str:
        return parsing.finished_passages(response, self._first)

    def known_texts(self, language: str) -> list[str]:
        return self._seeds[language]  # a model that repeats them has written nothing

    def judged(self, prompt: Prompt, texts: list[str]) -> None:
        self._kept[prompt.language] += texts
        self._kept_until[prompt.language].append(len(self._kept[prompt.language]))
