"""Calls to the LLM: prompts in, texts out; each response is saved to disk before it is used.

Methods send all their prompts at once to an LLMClient. The id of an answer is made of the prompt, the decoding settings and
the seed, so that a run that was killed at any stage finds the answers it had and sends only the remaining prompts.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from comptra.ordered_jsonl import TRUNCATED, UNANSWERED, UNREADABLE
from topxgen.common.console import Progress
from topxgen.inference import Request, SamplingSettings
from topxgen.inference.response_cache import CachedSampler, request_id
from topxgen.prompting.answers import is_cut
from topxgen.prompting.one_line import Candidates
from topxgen.prompting.style import CHAT, Prompt

Texts = Sequence[str]


class StageProgress:
    """The progress bar of the current stage. It opens once the model is loaded, so that its rate does not count loading."""

    def __init__(
        self, shown: bool = True, counts: Callable[[], dict[str, str]] = dict, responses: Callable[[], int] = lambda: 0
    ):
        """`counts`: what to show beside the bar. `responses`: how many the model has given, which saved ones are not."""
        self._shown, self._counts, self.stage, self._total, self._bar = shown, counts, "", 0, None
        self._responses, self._began = responses, (0.0, 0)
        # Responses and seconds, by the kind of stage: divide, translate, merge.
        self._work: dict[str, tuple[int, float]] = {}
        self.scope = ""  # what the stages are of: the direction, if there are several

    def begin(self, stage: str) -> None:
        self.close()
        self.stage = stage

    def expect(self, answers: int) -> None:
        self.close()
        self._total = answers

    def open(self) -> None:
        if self._bar is None and self._shown:
            self._bar = Progress(f"{self.scope}{self.stage}", self._total, "answers")
            self._began = time.monotonic(), self._responses()

    def on_done(self, n: int) -> None:
        self.open()
        if self._bar is not None:
            self._bar.update(n, **self._counts())

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            began, responses = self._began
            if (new := self._responses() - responses) and (elapsed := time.monotonic() - began) > 0:
                before, seconds = self._work.get(kind := self.stage.split()[0], (0, 0.0))
                self._work[kind] = before + new, seconds + elapsed  # a few are asked again in a pass of their own

    def take_rates(self) -> dict[str, float]:
        """Responses per second of each kind of stage since the last call."""
        rates = {kind: responses / seconds for kind, (responses, seconds) in self._work.items()}
        self._work.clear()
        return rates


class LLMClient:
    """Sends prompts to one model in one style: `raw` text, or `chat` messages for its chat template.

    `failures`: why prompts got no response (too long for the model, refused by an API), by request id. `unanswered`: the
    sentences of the current stage that depend on such a prompt (equal sentences have equal prompts, so that the text identifies
    them). `unreadable`: those whose answer holds no translation; `truncated`: those whose translation is cut. Whoever writes
    their results marks them.
    """

    def __init__(
        self,
        sampler,
        style: str,
        cache: Path | None,
        seed: int,
        *,
        paid: bool = False,
        progress: StageProgress | None = None,
    ):
        """`cache`: the file of responses; None for a client that only makes prompts. `paid`: sync each response to disk."""
        self.style, self._seed = style, seed
        self.progress = progress or StageProgress(shown=False)
        self.responses = CachedSampler(sampler, cache, fsync_each=paid) if cache else None
        self.failures: dict[str, str] = {}
        self.unanswered: set[str] = set()
        self.unreadable: set[str] = set()
        self.truncated: set[str] = set()
        self._at_limit: set[str] = set()  # texts that ended at their limit of new tokens
        self._readings: dict[tuple[str, str], set[str]] = {}  # (sentence, translation): the marks that go with it

    @property
    def marks(self) -> dict[str, set[str]]:
        """The sentences of the current stage whose lines get an extra key, by the key."""
        return {UNANSWERED: self.unanswered, UNREADABLE: self.unreadable, TRUNCATED: self.truncated}

    def read(self, sentence: str, answer: str, translation: str) -> str:
        """`translation`, as it was read from `answer`: notes whether it was cut, or could not be read, in case it is `chosen`."""
        if answer.strip() and not translation:
            self._readings[sentence, translation] = self.unreadable
        elif self.was_cut(answer) and is_cut(answer, translation):
            self._readings[sentence, translation] = self.truncated
        return translation

    def was_cut(self, answer: str) -> bool:
        """Whether an answer of the current stage ended at its limit of new tokens."""
        return answer in self._at_limit

    def chosen(self, sentence: str, translation: str) -> str:
        """`translation`, which is the one of `sentence`."""
        self.unreadable.discard(sentence)  # by an earlier draft
        self.truncated.discard(sentence)
        self._readings.get((sentence, translation), set()).add(sentence)
        return translation

    def failure_reasons(self) -> str:
        """Up to three of the reasons in `failures`."""
        return "; ".join(sorted(set(self.failures.values()))[:3])

    def begin_stage(self, name: str) -> None:
        """Start a stage, by the name that its progress bar shows: no sentence is unanswered yet."""
        self.progress.begin(name)
        for marked in (self.unanswered, self.unreadable, self.truncated, self._at_limit, self._readings):
            marked.clear()

    def generate(self, sentences: Texts, prompts: Sequence[Prompt], sampling: SamplingSettings) -> Iterator[Candidates]:
        """Yield (number of the prompt, its texts) as answers finish; no texts: no answer (see `failures`).

        `sentences`: for each prompt the sentence whose result depends on its answer. Equal prompts are sent once.
        """
        numbers: dict[str, list[int]] = {}
        requests = []
        for i, prompt in enumerate(prompts):
            key = self._key(prompt, sampling)
            if key not in numbers:
                seed = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) >> 1
                requests.append(Request(key, prompt, seed))
            numbers.setdefault(key, []).append(i)
        self.progress.expect(len(requests))
        waiting = iter(requests)
        for answer in self.responses.generate(lambda: next(waiting, None), sampling):
            if answer.error:
                self.failures[answer.id] = answer.error
            if not answer.texts:
                self.unanswered.update(sentences[i] for i in numbers[answer.id])
            ended = zip(answer.texts, answer.finish_reasons, strict=False)
            self._at_limit.update(text for text, reason in ended if reason == "length")
            self.progress.on_done(1)
            for i in numbers[answer.id]:
                yield i, answer.texts

    def generate_all(self, sentences: Texts, prompts: Sequence[Prompt], sampling: SamplingSettings) -> list[list[str]]:
        """The texts of each prompt, in order; see `generate`."""
        answers: list[list[str]] = [[] for _ in prompts]
        for i, texts in self.generate(sentences, prompts, sampling):
            answers[i] = texts
        return answers

    def chat(self, *turns: str) -> Prompt:
        """Render alternating user and assistant turns (the user's last) as chat messages or plain text."""
        if self.style == CHAT:
            roles = ("user", "assistant")
            return [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
        return "\n\n".join(turns) + "\n"

    def _key(self, prompt: Prompt, sampling: SamplingSettings) -> str:
        settings = [list(value) if isinstance(value, tuple) else value for value in vars(sampling).values()]
        return request_id([prompt, settings, self._seed])

    def close(self) -> None:
        """Close the response cache; the sampler belongs to whoever made it."""
        self.responses.close_file()
