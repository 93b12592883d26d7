"""Prompts in, texts out: a model behind a journal, loaded when something must really be asked.

Whatever a method asks is asked of an LLMClient, all prompts at once. Each finished answer is on disk before it is used, under
an id made of the prompt, the decoding settings and the seed. So a killed run, in whichever of its stages, finds again
what it had, and asks the rest.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from topxgen.inference import Request, SamplingSettings
from topxgen.inference.response_cache import CachedSampler, request_id
from topxgen.prompting.style import CHAT, Prompt


class LazySampler:
    """A sampler whose model is loaded at the first request that no journal answers. See topxgen.inference."""

    def __init__(self, load: Callable[[], object]):
        self._load, self._sampler = load, None
        self._adapter: str | None = None

    def use_adapter(self, adapter: str | None) -> None:
        """The LoRA adapter that answers from now on; the base model stays where it is."""
        self._adapter = adapter
        if hasattr(self._sampler, "use_adapter"):
            self._sampler.use_adapter(adapter)

    def generate(self, next_request: Callable[[], Request | None], settings: SamplingSettings):
        first = next_request()
        if first is None:
            return
        if self._sampler is None:
            self._sampler = self._load()
            if self._adapter is not None:
                self._sampler.use_adapter(self._adapter)
        waiting = [first]
        yield from self._sampler.generate(lambda: waiting.pop() if waiting else next_request(), settings)

    @property
    def retries(self):
        return getattr(self._sampler, "retries", None)

    def close(self) -> None:
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None


class LLMClient:
    """Asks one model in one style: `raw` text, or `chat` messages through its chat template.

    `failures` holds why a prompt got no answer (too long for the model, refused by an API), by request id. `bars` is told of
    the work: asked(prompts), tick(n).
    """

    def __init__(self, sampler, style: str, journal: Path | None, seed: int, *, paid: bool = False, bars=None):
        """`journal`: None for one that only makes prompts. `paid`: answers cost money, so that each is flushed to the disk."""
        self.style, self._seed, self._bars = style, seed, bars
        self._journal = CachedSampler(sampler, journal, fsync_each=paid) if journal else None
        self.failures: dict[str, str] = {}

    @property
    def cut(self) -> dict[int, int]:
        """How many answers in the journal ended at a limit of new tokens, by the limit."""
        return dict(self._journal.cut)

    def why(self) -> str:
        """The reasons of the failures, a few of them."""
        return "; ".join(sorted(set(self.failures.values()))[:3])

    def begin(self, total: int) -> None:
        """Work of so many answers begins; of another translator's, too."""
        if self._bars is not None:
            self._bars.asked(total)

    def tick(self, n: int) -> None:
        """So many more are there."""
        if self._bars is not None:
            self._bars.tick(n)

    def ask(self, prompts: Sequence[Prompt], sampling: SamplingSettings) -> Iterator[tuple[int, list[str]]]:
        """(number of the prompt, its texts) as they finish; no texts where there is no answer (see `failures`).

        Equal prompts are asked once.
        """
        numbers: dict[str, list[int]] = {}
        requests = []
        for i, prompt in enumerate(prompts):
            key = self._key(prompt, sampling)
            if key not in numbers:
                seed = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) >> 1
                requests.append(Request(key, prompt, seed))
            numbers.setdefault(key, []).append(i)
        self.begin(len(requests))
        waiting = iter(requests)
        for answer in self._journal.generate(lambda: next(waiting, None), sampling):
            if answer.error:
                self.failures[answer.id] = answer.error
            self.tick(1)
            for i in numbers[answer.id]:
                yield i, answer.texts

    def answers(self, prompts: Sequence[Prompt], sampling: SamplingSettings) -> list[list[str]]:
        """The texts of each prompt, in order."""
        found: list[list[str]] = [[] for _ in prompts]
        for i, texts in self.ask(prompts, sampling):
            found[i] = texts
        return found

    def chat(self, *turns: str) -> Prompt:
        """A conversation, the user's turns and the model's by turns, as this model reads it: the last is the user's."""
        if self.style == CHAT:
            roles = ("user", "assistant")
            return [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
        return "\n\n".join(turns) + "\n"

    def _key(self, prompt: Prompt, sampling: SamplingSettings) -> str:
        settings = [list(value) if isinstance(value, tuple) else value for value in vars(sampling).values()]
        return request_id([prompt, settings, self._seed])

    def close(self) -> None:
        """Close the journal; the sampler belongs to whoever made it."""
        self._journal.close_file()
