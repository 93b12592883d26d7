"""What responses cost: prices of tokens, what a folder has cost so far, the end of a run at its budget, and estimates."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple, TypedDict

import msgspec

from topxgen.common.console import ONCE, aligned
from topxgen.common.errors import APIUnavailable, UsageError
from topxgen.common.files import read_jsonl
from topxgen.common.provenance import values_of_flag
from topxgen.inference import Answer, Request, SamplingSettings

logger = logging.getLogger(__name__)

# Where the tokenizer is not known. By Gemma 3's, the UDHR has 5.5 characters a token in English and 2.3 to 3.7 in the languages of the paper.
CHARS_PER_TOKEN, ENGLISH_CHARS_PER_TOKEN = 3, 4.5
ENGLISH_WORDS = frozenset(("the", "of", "and", "to", "with"))
# Of a response; the cached ones are part of the prompt's.
COUNTED = ("prompt_tokens", "completion_tokens", "cached_tokens")
PRICE_FLAGS = ("--prices", "--price_per_million_tokens")
UNCOUNTED = "the server does not report the tokens of its responses (usage)"
TokenCount = Annotated[int, msgspec.Meta(ge=0)]


class _Counts(TypedDict, total=False):
    """What every record of a response has, whatever else it holds."""

    error: str | None
    prompt_tokens: TokenCount | None
    completion_tokens: TokenCount | None
    cached_tokens: TokenCount | None


class Prices(NamedTuple):
    """USD for a million tokens."""

    prompt: float
    completion: float
    cached: float  # prompt tokens that the provider had in its cache

    @classmethod
    def of(cls, values: Sequence[float] | None) -> "Prices | None":
        """The values of --prices. Raises UsageError if they are not two or three."""
        if values is None:
            return None
        if len(values) not in (2, 3):
            raise UsageError(f"--prices takes two or three numbers, IN OUT [CACHED], not {len(values)}")
        return cls(values[0], values[1], values[2] if len(values) > 2 else values[0])

    @classmethod
    def of_command(cls, command: list[str]) -> "Prices | None":
        """Those of a recorded command; None if it has none that are valid."""
        words = [word for name in PRICE_FLAGS for word in values_of_flag(command, name)]
        try:
            return cls.of([float(word) for word in words] or None)
        except (ValueError, UsageError):  # not of a command that ran
            return None

    def cost(self, prompt_tokens: float, completion_tokens: float, cached_tokens: float = 0) -> float:
        paid = (prompt_tokens - cached_tokens) * self.prompt + cached_tokens * self.cached
        return (paid + completion_tokens * self.completion) / 1e6


class BudgetSpent(APIUnavailable):
    """The next request could exceed --budget."""


class Meter:
    """Adds up what the responses of a folder cost, by stage, those of earlier runs included."""

    def __init__(self, prices: Prices | None, budget: float | None = None):
        """Raises UsageError for a budget without prices."""
        if budget is not None and prices is None:
            raise UsageError("--budget needs --prices IN OUT: what a million prompt and new tokens cost")
        self.prices, self.budget = prices, budget
        self.progress = None  # a Progress that shows the running total
        self._tokens: dict[str, Counter[str]] = {}
        self._dearest: Counter[str] = Counter()  # USD for the response of each stage that cost most

    def add(self, stage: str, response: dict) -> None:
        """Count the tokens of a record of a response cache."""
        tokens = {name: 0 + (response.get(name) or 0) for name in COUNTED}
        outcome = "failed" if response.get("error") else "responses"
        self._tokens.setdefault(stage, Counter(responses=0)).update({outcome: 1, **tokens})
        if self.prices is not None:
            self._dearest[stage] = max(self._dearest[stage], self.prices.cost(*tokens.values()))

    def add_files(self, stage: str, paths: Iterable[Path]) -> None:
        """Count the responses in files, some of which other processes may be writing: a line that is cut off is left out."""
        for path in paths:
            for response in read_jsonl(path, _Counts, on_cut=lambda _: None):
                self.add(stage, response)

    def spent(self, stage: str | None = None) -> float:
        """USD for a stage, or for all; 0 without prices."""
        if self.prices is None:
            return 0.0
        stages = self._tokens if stage is None else {stage} & self._tokens.keys()
        return sum(self.prices.cost(*(self._tokens[name][key] for key in COUNTED)) for name in stages)

    def responses(self, stage: str | None = None) -> int:
        return sum(counts["responses"] for name, counts in self._tokens.items() if stage in (None, name))

    def totals(self, stage: str) -> dict[str, float]:
        """The responses of a stage, the requests that failed, if any, their tokens, and with prices USD, for a manifest."""
        usage: dict[str, float] = dict(self._tokens.get(stage, {}))
        return usage | ({"usd": round(self.spent(stage), 6)} if self.prices else {})

    def shown(self, stage: str | None = None) -> dict[str, str]:
        """For a progress bar: what the folder has cost, or without prices the tokens of a stage, or of all."""
        if self.prices is not None:
            return {"USD": f"{self.spent():.2f}"}
        stages = [own for name, own in self._tokens.items() if stage in (None, name)]
        tokens = sum(own["prompt_tokens"] + own["completion_tokens"] for own in stages)
        return {"tokens": f"{tokens:,}"} if tokens else {}

    def usage(self, stage: str | None = None) -> str:
        """A line about the tokens of a stage, or of all, and what they cost; "" if there were none."""
        stages = (own for name, own in self._tokens.items() if stage in (None, name))
        counts = sum(stages, Counter())
        if not counts["prompt_tokens"]:
            return ""
        cached = f" ({counts['cached_tokens']:,} of them cached)" if counts["cached_tokens"] else ""
        tokens = f"{counts['prompt_tokens']:,} prompt tokens{cached}, {counts['completion_tokens']:,} new tokens"
        return f"{stage or 'all'}: {tokens}" + (f"; {self.spent(stage):,.2f} USD" if self.prices else "")

    def wrap(self, sampler, stage: str):
        """`sampler`, with its responses counted for `stage`. Its `generate` raises BudgetSpent, when the responses in flight
        have arrived, instead of sending a request that the budget does not cover."""
        return _MeteredSampler(sampler, self, stage)


class _MeteredSampler:
    def __init__(self, sampler, meter: Meter, stage: str):
        self._sampler, self._meter, self._stage = sampler, meter, stage
        self._spent_before = meter.spent()
        self._most = 0.0  # USD for a response that is as long as allowed
        self._finishing = False

    def __getattr__(self, name: str):
        return getattr(self._sampler, name)

    def finish(self) -> None:
        """See topxgen.inference."""
        self._finishing = True
        self._sampler.finish()

    def generate(self, next_request: Callable[[], Request | None], settings: SamplingSettings) -> Iterator[Answer]:
        meter, in_flight, uncounted = self._meter, 0, False
        waiting: Request | None = None  # for the responses in flight: they may cost less than expected

        def affordable() -> Request | None:
            nonlocal waiting, in_flight
            if self._finishing or (uncounted and meter.budget is not None):
                return None
            request, waiting = waiting or next_request(), None
            if request is None:
                return None
            if not self._covered(request, settings, in_flight):
                waiting = request
                return None
            in_flight += 1
            return request

        for answer in self._sampler.generate(affordable, settings):
            in_flight -= 1
            meter.add(self._stage, vars(answer))
            if any(answer.texts) and not (answer.prompt_tokens or answer.completion_tokens) and not uncounted:
                uncounted = True
                if meter.prices is not None and meter.budget is None:
                    logger.warning(f"{UNCOUNTED}: what they cost is missing from the USD shown", extra=ONCE)
            if meter.progress is not None:
                meter.progress.update(0, **meter.shown(self._stage))
            yield answer
        if uncounted and meter.budget is not None and not self._finishing:
            raise UsageError(
                f"{UNCOUNTED}, so that --budget {meter.budget:g} cannot be kept: re-run the same command without it to resume, or choose "
                "a server that reports them"
            )
        if waiting is not None and not self._finishing:
            raise BudgetSpent(
                f"the next request could exceed --budget {meter.budget:g}: {meter.spent():,.4g} USD are spent on the {meter.responses():,} "
                f"responses of this folder ({meter.spent() - self._spent_before:,.4g} in this run), which are saved; re-run the same "
                "command with a larger --budget to resume"
            )

    def _covered(self, request: Request, settings: SamplingSettings, in_flight: int) -> bool:
        """Whether the budget is enough for this request, if it is as dear as the stage's dearest so far (by the mean, the short
        responses that arrive first would promise that the others are cheap); beside others in flight, if all are as long as allowed."""
        meter = self._meter
        if meter.budget is None:
            return True
        dearest, prompt = meter._dearest[self._stage], estimated_tokens(request.prompt)
        longest = settings.max_new_tokens * settings.num_return_sequences
        self._most = max(self._most, dearest, meter.prices.cost(prompt, longest))
        # The first one shows what they cost: at least its prompt.
        alone = dearest or meter.prices.cost(prompt, 1)
        return meter.spent() + ((in_flight + 1) * self._most if in_flight else alone) <= meter.budget


def estimated_tokens(prompt: str | list[dict[str, str]]) -> int:
    """About how many tokens a prompt has, where the tokenizer is not known."""
    text = prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
    return 1 + sum(
        round(len(line) / (ENGLISH_CHARS_PER_TOKEN if _is_english(line) else CHARS_PER_TOKEN))
        for line in text.split("\n")
    )


def _is_english(line: str) -> bool:
    words = line.lower().split()
    return 10 * sum(word in ENGLISH_WORDS for word in words) > len(words)


class Estimate(NamedTuple):
    """What a stage is going to need: (fewest, most) of each; None: not known."""

    stage: str
    work: str  # such as "20 to 40 prompts"
    prompt_tokens: tuple[float, float] = (0, 0)
    completion_tokens: tuple[float, float] = (0, 0)
    hours: tuple[float, float] | None = None
    items: tuple[float, float] | None = None  # what `work` counts: sentences to translate, pairs to score


def estimate_table(
    estimates: Sequence[Estimate], prices: Prices | None, budget: float | None = None, is_remote: bool = True
) -> str:
    """The estimates as lines, with the sums of tokens and money, for which those of an API lack --prices."""
    unpriced = "--prices?" if is_remote and prices is None else "-"
    rows = [("stage", "work", "prompt tokens", "new tokens", "USD", "hours")]
    totals = [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    for estimate in estimates:
        money = tuple(
            prices.cost(*tokens) if prices else 0.0
            for tokens in zip(estimate.prompt_tokens, estimate.completion_tokens, strict=True)
        )
        columns = (estimate.prompt_tokens, estimate.completion_tokens, money)
        for total, column in zip(totals, columns, strict=True):
            total[0], total[1] = total[0] + column[0], total[1] + column[1]
        rows.append((estimate.stage, estimate.work, *_cells(*columns, unpriced), span(estimate.hours) or "unknown"))
    rows.append(("total", "", *_cells(*totals, unpriced), ""))
    lines = aligned(rows, left=len(rows[0]))
    if prices and budget is not None and totals[2][1] > budget:
        lines.append(f"--budget {budget:g} may end the run before it is finished; it can be resumed")
    return "\n".join(lines)


def _cells(prompt, completion, money, unpriced: str) -> tuple[str, str, str]:
    tokens = [token_span(ends) if ends[1] else "-" for ends in (prompt, completion)]
    return (*tokens, span(money) if money[1] else unpriced if prompt[1] or completion[1] else "-")


def span(values: Sequence[float] | None) -> str:
    """(fewest, most) as it is shown."""
    if values is None:
        return ""
    low, high = (f"{value:,.2f}" if value >= 0.1 else f"{value:.2g}" for value in values)
    return low if low == high else f"{low} to {high}"


def token_span(values: Sequence[float]) -> str:
    """(fewest, most) tokens as they are shown: estimates, so two digits are enough."""
    low, high = (f"{float(f'{value:.2g}'):,.0f}" for value in values)
    return low if low == high else f"{low} to {high}"
