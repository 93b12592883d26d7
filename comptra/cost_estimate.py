"""Estimate of the prompts and tokens of a run (--dry_run): the methods run on a few sentences, with simulated responses."""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

from comptra import evaluation_sets
from comptra.compositional import translate
from comptra.config import EvaluationConfig, directions
from comptra.llm_calls import LLMClient, Texts
from comptra.methods import Shots, Task
from comptra.models import Model
from comptra.ordered_jsonl import unfinished
from topxgen.common import rates
from topxgen.common.errors import Unreachable
from topxgen.inference import REMOTE, SamplingSettings
from topxgen.inference.costs import Estimate, estimated_tokens
from topxgen.inference.tokenizer import count_tokens
from topxgen.prompting.one_line import Candidates
from topxgen.prompting.style import Prompt
from topxgen.text import languages

SAMPLED_SENTENCES = 50
PHRASES = 4  # of a divided sentence, where --number_of_subproblems does not limit them
MIN_THOUGHT_TOKENS = 50
MAX_TRANSLATION_RATIO = 2  # of the longest answers taken for translations by the expected ones
NO_ERROR = "No error"


class _Thought(SamplingSettings):
    """The decoding settings of an answer that is no translation and may be as long as its limit."""


class _EstimatedTask(Task):
    def greedy(self, *values, **named) -> SamplingSettings:
        return _Thought(**vars(super().greedy(*values, **named)))


class _EstimatingClient(LLMClient):
    """Makes up answers and counts tokens, with the model's tokenizer if that is known. `longest`: as many as there may be, else as few."""

    def __init__(
        self, style: str, tokenizer, task_answers: dict[str, str], longest: bool, has_sections: bool, phrases: int
    ):
        super().__init__(None, style, None, 0)
        self._tokenizer, self._answers, self._longest = tokenizer, task_answers, longest
        self._has_sections, self._phrases = has_sections, phrases
        self.counts: dict[str, list[int]] = {}  # by stage: prompts, their tokens, tokens of answers

    def generate(self, sentences: Texts, prompts: Sequence[Prompt], sampling: SamplingSettings) -> Iterator[Candidates]:
        seen = set()
        for i, (sentence, prompt) in enumerate(zip(sentences, prompts, strict=True)):
            text = self._answer(sentence, prompt, sampling)
            if (key := self._key(prompt, sampling)) not in seen:
                seen.add(key)
                count = self.counts.setdefault(self.progress.stage, [0, 0, 0])
                count[0] += 1
                count[1] += count_tokens(self._tokenizer, prompt)
                count[2] += sampling.num_return_sequences * self._answer_tokens(text, sampling)
            yield i, [text] * sampling.num_return_sequences

    def _answer(self, sentence: str, prompt: Prompt, sampling: SamplingSettings) -> str:
        translation = self._answers.get(sentence, sentence)
        if self.progress.stage.startswith("divide"):
            words = sentence.split()
            size = -(-len(words) // self._phrases)
            parts = (words[start : start + size] for start in range(0, len(words), size))
            return "\n".join(f"{i}. {' '.join(part)}" for i, part in enumerate(parts, 1))
        if not self._longest and NO_ERROR in str(prompt):
            return NO_ERROR  # TEaR keeps such a draft
        if isinstance(sampling, _Thought):
            return "word " * ((sampling.max_new_tokens if self._longest else MIN_THOUGHT_TOKENS) * 3 // 5)
        return f"Translation: {translation}\n### Final translation\n{translation}"

    def _answer_tokens(self, text: str, sampling: SamplingSettings) -> int:
        tokens = count_tokens(self._tokenizer, text.partition("\n###")[0].removeprefix("Translation: "))
        if self._longest and self.progress.stage.startswith("merge") and self._has_sections:
            return sampling.max_new_tokens
        return min(sampling.max_new_tokens, tokens * (MAX_TRANSLATION_RATIO if self._longest else 1))


def estimate(config: EvaluationConfig, model: Model) -> list[Estimate]:
    """The prompts of each stage and the tokens of prompts and answers, fewest and most, for sentences not translated yet."""
    test_set, args = config.test_set, config.args
    path = config.folder(model) / "translate_0.jsonl"
    wanted = unfinished(path, len(test_set.sources), args.accept_unanswered)
    sentences = [test_set.sources[number] for number in wanted[:SAMPLED_SENTENCES]]
    if not sentences or not config.uses_llm:
        return []
    scale = len(wanted) / len(sentences)
    references = dict(zip(test_set.sources, test_set.references, strict=True))
    phrases = args.number_of_subproblems if args.number_of_subproblems > 0 else PHRASES
    tokenizer, runs = None, []  # none for an API's, and where it cannot be reached
    if args.inference_api not in REMOTE:
        with suppress(Unreachable):
            tokenizer = config.tokenizer(model)
    for longest in (False, True):
        style, has_sections = config.style[model.path], config.merge_prompt.has_sections
        client = _EstimatingClient(style, tokenizer, references, longest, has_sections, phrases)
        _run(config, model, client, sentences)
        runs.append(client.counts)
    fewest, most = runs
    known = rates.read(config.folder(model).parent)
    estimates = []
    for stage in most:
        low, high = ([round(scale * number) for number in run.get(stage, (0, 0, 0))] for run in (fewest, most))
        prompts = f"{low[0]:,}" if low[0] == high[0] else f"{low[0]:,} to {high[0]:,}"
        hours = rates.hours(known.get(stage.split()[0]), low[0], high[0])
        estimates.append(Estimate(stage, f"{prompts} prompts", (low[1], high[1]), (low[2], high[2]), hours))
    return estimates


def at_a_glance(args: argparse.Namespace) -> list[Estimate]:
    """The work of all models in each direction by the texts alone: without their tokenizers, and tokens and hours for --method_translate
    vanilla without --steps alone. Raises UsageError for a test set that is not there."""
    models, simple = len(args.model_name_or_path or [1]), args.method_translate == "vanilla" and not args.steps
    folders = [args.output_dir / Path(name).name for name in (args.model_name_or_path or ()) if simple]
    speeds = [rates.read(folder).get("translate") for folder in folders]
    estimates = []
    for one in directions(args):
        src, tgt = (languages.find(name, args.languages_file) for name in (one.src, one.tgt))
        test = evaluation_sets.of_flags(args, src, tgt, bool(args.k))
        number = models * len(test.sources)
        asked, answered = (models * sum(map(estimated_tokens, texts)) for texts in (test.sources, test.references))
        prompts = asked + args.k * (asked + answered) if simple else 0
        answers = (answered, MAX_TRANSLATION_RATIO * answered) if simple else (0, 0)
        hours = sum(len(test.sources) / speed for speed in speeds) / 3600 if speeds and all(speeds) else None
        what = f"main: {src.name} to {tgt.name}", f"{number:,} sentences"
        estimates.append(Estimate(*what, (prompts, prompts), answers, None if hours is None else (hours, hours)))
    return estimates


def _run(config: EvaluationConfig, model: Model, client: LLMClient, sentences: list[str]) -> None:
    pool = config.test_set.pool
    first = lambda sentences, candidates: [texts[0] if texts else "" for texts in candidates]  # noqa: E731

    def nearest(sentences: list[str], k: int) -> list[Shots]:
        return [[pool[(i + j) % len(pool)] for j in range(k)] for i in range(len(sentences))]

    real = config.task(model, client)
    changes = {"nearest": nearest, "select": None, "best_by_quality": first, "release_llm": lambda: None}
    task = _EstimatedTask(**{field.name: getattr(real, field.name) for field in fields(real)} | changes)
    plan = replace(config.plan(task), fits=lambda texts: [True] * len(texts))
    if config.args.method_translate == "nllb":
        plan = replace(plan, method=lambda sentences, task: enumerate(sentences), resume_drafts=False)
    with tempfile.TemporaryDirectory() as folder:
        levels = translate.divide(sentences, plan, task, Path(folder))
        if plan.method is not None:
            translate.translate(levels, plan, task, Path(folder))
