"""The share of paragraphs that discuss their topic, judged by an LLM.

Each paragraph is also shown with the topic of another one, as a control: a judge that says yes to these, too, tells nothing.
"""

import math
import random
import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from topxgen import inference
from topxgen.common.console import Progress
from topxgen.common.errors import UsageError
from topxgen.common.files import refuse_stand_in
from topxgen.common.provenance import weights_id
from topxgen.common.records import JUDGE_RESPONSES as RESPONSES
from topxgen.inference import ModelSettings, Request, SamplingSettings
from topxgen.inference.costs import Meter
from topxgen.inference.lazy_sampler import LazySampler
from topxgen.inference.response_cache import CachedSampler, read_responses, request_id
from topxgen.prompting import toml_prompts
from topxgen.prompting.style import CHAT, as_prompt
from topxgen.statistics.corpus import Corpus
from topxgen.text.thoughts import without_thoughts

PROMPTS = Path(__file__).parent / "prompts"
STAGE = "judge"  # in counts of tokens
_VERDICT = re.compile(r"\W*(yes|no)(?!\w)(?!(?:\W+(?:and|or)\W+|\s*/\s*)(?:yes|no)\b)", re.IGNORECASE)


def load_prompt(name: str) -> dict[str, str]:
    """The parts of the file of that name in prompts/, or of a user's (see prompts/topic_judge.toml). Raises UsageError for what is
    missing or unknown in it."""
    path = toml_prompts.find(PROMPTS, name, "--judge_prompt")
    parts = toml_prompts.load_question(path, ("topic", "text"))
    toml_prompts.refuse_unknown(
        path, parts, dict.fromkeys(("chat", "completion"), ("topic", "text", "language")), ("stop",)
    )
    return parts


def verdict(answer: str) -> bool | None:
    """Whether an answer says yes or no with its first word, thoughts left out; None if it says neither, or both."""
    match = _VERDICT.match(without_thoughts(answer))
    return None if match is None else match[1].lower() == "yes"


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), which stays within 0 and 1 and fits small numbers."""
    z = 1.96
    share, scale = successes / trials, 1 + z**2 / trials
    middle = (share + z**2 / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


class Question(NamedTuple):
    """What decides which requests are sent, as it is kept beside the figures. `key`: the model and its options."""

    key: list
    style: str
    template: str
    sample: int
    seed: int

    def drawn(self, corpus: Corpus) -> tuple[list[Request], list[Request]]:
        """The requests about a random sample of the paragraphs that have a topic; and those with another paragraph's topic."""
        pairs = [pair for pair in zip(corpus.topics, corpus.paragraphs, strict=False) if pair[0]]
        random.Random(f"judge {self.seed}").shuffle(pairs)
        own, control = [], []
        for i, (topic, text) in enumerate(pairs[: self.sample]):
            own.append(self._request(corpus, topic, text))
            others = (pairs[(i + step) % len(pairs)][0] for step in range(1, len(pairs)))
            if other := next((other for other in others if other != topic), None):
                control.append(self._request(corpus, other, text))
        return own, control

    def _request(self, corpus: Corpus, topic: str, text: str) -> Request:
        filled = toml_prompts.fill(self.template, language=corpus.language.name, topic=topic, text=text)
        prompt = as_prompt(filled, self.style)
        return Request(request_id([*self.key, prompt]), prompt, self.seed)

    def counted(self, corpora: list[Corpus], responses: Path) -> list[dict | None]:
        """What TopicJudge.judge gives, by the responses in a file; nothing is asked. Raises UsageError if it cannot be read."""
        texts = {record["id"]: record["texts"] for record in read_responses(responses)}
        return [_judged(*self.drawn(corpus), texts) for corpus in corpora]


@dataclass
class TopicJudge:
    """Asks an LLM, greedily, about a sample of the paragraphs of each corpus. Responses are saved in `folder`, and no prompt is
    sent twice, in a later run either."""

    inference_api: str
    model: ModelSettings
    style: str
    chat_template: dict[str, str]  # the setting of a local one
    prompt: dict[str, str]
    max_new_tokens: int
    sample: int
    seed: int
    folder: Path
    meter: Meter

    def __post_init__(self):
        path = self.folder / RESPONSES
        if path.exists():
            refuse_stand_in(path)
            self.meter.add_files(STAGE, [path])
        weights = weights_id(self.model.model_name_or_path)  # of a folder, whose model may be trained again
        model = [self.inference_api, self.model.model_name_or_path, weights, *self.chat_template.values()]
        key = [*model, *filter(None, [inference.engine_options(self.model)]), self.max_new_tokens, self.prompt["stop"]]
        template = self.prompt["chat" if self.style == CHAT else "completion"]
        self.question = Question(key, self.style, template, self.sample, self.seed)
        sampler = LazySampler(lambda: inference.load(self.inference_api, self.model))
        self._sampler = CachedSampler(self.meter.wrap(sampler, STAGE), path, self.inference_api in inference.REMOTE)
        stop = () if self.style == CHAT else (self.prompt["stop"],)
        self._sampling = SamplingSettings(self.max_new_tokens, temperature=0.0, stop=stop)

    def judge(self, corpora: list[Corpus]) -> list[dict | None]:
        """For each corpus `on_topic`, and `control` for the topics of others, see `_counts`; None without topics.

        Raises UsageError if none has topics, and APIUnavailable if the API is not available or the budget is spent; what is
        answered is saved.
        """
        drawn = [self.question.drawn(corpus) for corpus in corpora]
        if not any(own for own, _ in drawn):
            raise UsageError("no paragraph has a topic: there is nothing to judge; drop --judge_model_name_or_path")
        requests = {request.id: request for asked in drawn for request in chain(*asked)}
        texts: dict[str, list[str]] = {}
        with Progress("judge topics", len(requests), "answers") as bar:
            for answer in self._sampler.generate(inference.from_list(requests.values()), self._sampling):
                texts[answer.id] = answer.texts
                bar.update(1, **self.meter.shown())
        return [_judged(*asked, texts) for asked in drawn]

    def close(self) -> None:
        self._sampler.close()


def _judged(own: list[Request], control: list[Request], texts: dict[str, list[str]]) -> dict | None:
    """`texts`: the responses by the id of their request."""
    return {"on_topic": _counts(own, texts), "control": _counts(control, texts)} if own else None


def _counts(requests: list[Request], texts: dict[str, list[str]]) -> dict:
    """How many answers say yes and no, cannot be read, and are missing; the share of yes among yes and no, and its interval."""
    given = [texts[request.id] for request in requests if texts.get(request.id)]
    verdicts = Counter(verdict(response[0]) for response in given)
    yes, read = verdicts[True], verdicts[True] + verdicts[False]
    counts = {"asked": len(requests), "yes": yes, "no": verdicts[False], "unreadable": verdicts[None]}
    low, high = wilson_interval(yes, read) if read else (None, None)
    return counts | {
        "unanswered": len(requests) - verdicts.total(),
        "share": yes / read if read else None,
        "low": low,
        "high": high,
    }


def tells_apart(judged: dict) -> bool:
    """Whether the judge says yes more often to the paragraphs' own topics: the intervals do not overlap."""
    own, control = judged["on_topic"], judged["control"]
    return own["low"] is not None and control["high"] is not None and own["low"] > control["high"]
