"""GEMBA: an LLM is asked how good a translation is (--metrics gemba-da, gemba-mqm, gemba-esa).

DA: a direct assessment from 0 to 100 (Kocmi and Federmann 2023a, Large Language Models Are State-of-the-Art Evaluators of
Translation Quality). MQM: errors by severity, weighted (2023b, GEMBA-MQM). ESA: error spans, then a score from 0 to 100 (Kocmi et al.
2024, Error Span Annotation). Prompts are files in comptra/prompts/metrics; an answer that is not in their form has no score.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from comptra.prompts import FOLDER
from comptra.scores.metrics import JUDGE, MetricSettings, Segment
from comptra.scores.segment_cache import default_folder
from topxgen import flags, inference
from topxgen.common.errors import UsageError
from topxgen.common.files import refuse_stand_in
from topxgen.common.lines import split_lines
from topxgen.common.locks import OutputLock
from topxgen.common.provenance import digest, name_with_weights, weights_id
from topxgen.inference import ENGINE_LOG, Answer, Request, SamplingSettings
from topxgen.inference.costs import Meter, Prices
from topxgen.inference.lazy_sampler import LazySampler
from topxgen.inference.response_cache import CachedSampler, request_id
from topxgen.prompting import toml_prompts
from topxgen.prompting.style import CHAT, as_prompt, style_and_template
from topxgen.text.languages import Language
from topxgen.text.thoughts import without_thoughts

logger = logging.getLogger(__name__)
PROMPTS = FOLDER / "metrics"
# Kocmi and Federmann 2023b; those of major and minor errors are Freitag et al.'s (2021).
WEIGHTS = {"critical": 25, "major": 5, "minor": 1}
WORST = 25  # errors beyond this sum do not count
ANSWERS = "answers"  # folder of the responses, in --cache_dir
READING = 3  # version of the rules that read a response; cached scores of another version are not used
_NAMED = "inference_api|base_url|engine_args|prompt_style|prices|budget|model_name_or_path|tokenizer_name_or_path"

_SCORE = re.compile(
    r"(?:(?:final |overall )?(?:score|rating)\s*[:=]\s*)?(\d{1,3}(?:\.\d+)?)(?:\s*/\s*100|\s+out of 100|\s*%)?\.?",
    re.IGNORECASE,
)
_HEADING = re.compile(r"(critical|major|minor)(?: errors?)?\s*:\s*(.*)", re.IGNORECASE)
_NONE = re.compile(r"(?:- )?(?:none|no[ -]errors?)\.?", re.IGNORECASE)
_ERROR = re.compile(r"(?:[-*•]|\d+[.)])\s+\S.*")


def read_score(answer: str, is_cut: bool = False) -> float | None:
    """The number from 0 to 100 that is the first line of an answer, thoughts left out; None if it is none, or not the only one.

    `is_cut`: at the limit of tokens, so that the last line may go on: "8" may be 85.
    """
    answer = answer.rpartition("\n")[0] if is_cut else answer
    lines = [line.strip(" \t_`") for line in split_lines(without_thoughts(answer).replace("**", "")) if line.strip()]
    match = _SCORE.fullmatch(lines[0]) if lines else None
    if match is None or any(re.search(r"\d", line) for line in lines[1:]):
        return None
    return score if (score := float(match[1])) <= 100 else None


def read_errors(answer: str, is_cut: bool = False, *, severities: Sequence[str]) -> dict[str, list[str]] | None:
    """The errors of each of `severities` in an answer, thoughts left out; None unless it has each heading once, and under it one "none"
    or errors, one a line, and for one that is cut at the limit of tokens: errors may be missing."""
    if is_cut:
        return None
    found: dict[str, list[str]] = {}
    name = ""
    for line in split_lines(without_thoughts(answer)):
        line = line.replace("**", "").strip()
        if heading := _HEADING.fullmatch(line.lstrip("# ")):
            name, line = heading[1].lower(), heading[2].strip()
            if name in found or name not in severities:
                return None
            found[name] = []
        if line and not name:
            return None
        if line:
            found[name].append(line)
    if set(found) != set(severities):
        return None
    for name, lines in found.items():
        if len(lines) == 1 and _NONE.fullmatch(lines[0]):
            found[name] = []
        elif not lines or not all(map(_ERROR.fullmatch, lines)) or any(map(_NONE.fullmatch, lines)):
            return None
    return found


def weighted(errors: dict[str, list[str]]) -> float:
    """0 without errors, down to -WORST."""
    return -float(min(WORST, sum(WEIGHTS[name] * len(lines) for name, lines in errors.items())))


def add_flags(add) -> None:
    """The flags of the judge: those of other scripts with a prefix, so that a run file does not give it what is meant for another LLM.

    A key comes from the environment only.
    """

    def prefixed(name: str, *names, **options) -> None:
        if name not in ("--api_key", "--lora_rank"):
            add(f"--{JUDGE}{name.removeprefix('--')}", **{**options, "help": _with_prefix(options["help"])})

    prefixed(
        "--model_name_or_path",
        metavar="MODEL",
        help="the LLM that gemba-da, gemba-mqm and gemba-esa ask: Hub id, folder or name of an API's model",
    )
    flags.add_model_flags(prefixed)
    flags.add_judging_flags(prefixed, max_new_tokens=1024)
    flags.add_api_flags(prefixed)
    flags.add_cost_flags(prefixed)


class Gemba:
    """A SegmentMetric that asks an LLM, greedily. Responses are saved under --cache_dir, and no request is sent twice.

    Raises UsageError for a prompt file that lacks a part, and for what the judge lacks (a key, a tokenizer).
    """

    files: tuple[str, ...] = ()  # prompts, in the order in which they are sent
    places: tuple[str, ...] = ("source", "translation")  # what the first prompt must contain
    title = ""

    def __init__(self, settings: MetricSettings):
        judge = settings.judge
        self._prompts = [self._load(file, i) for i, file in enumerate(self.files)]
        self._folder = (settings.cache_dir or default_folder()) / ANSWERS
        self._judge = replace(judge, model=replace(judge.model, engine_log=self._folder / ENGINE_LOG))
        with _flags_named():
            inference.check(judge.inference_api, judge.model)
            self._style, template = style_and_template(judge.prompt_style, judge.inference_api, judge.model)
            self._meter = Meter(Prices.of(judge.prices), judge.budget)
        weights = weights_id(judge.model.model_name_or_path)  # of a folder, whose model may be trained again
        name = judge.model.model_name_or_path
        options = inference.engine_options(judge.model)
        self._model = [judge.inference_api, judge.model.base_url, name, judge.model.dtype, weights]
        self._model += filter(None, [options, *template.values()])
        decided = [self._model, self._style, judge.max_new_tokens, self._prompts]
        self._asked = digest(json.dumps(decided))
        self.fingerprint = f"{self._asked}-{READING}"
        self.signature = (
            f"{self.title}|judge:{name_with_weights(name)}|api:{judge.inference_api}|style:{'-'.join([self._style, *template.values()])}"
            f"|tokens:{judge.max_new_tokens}|prompts:{digest(json.dumps(self._prompts))[:8]}"
        )
        self._sampler = LazySampler(lambda: inference.load(self._judge.inference_api, self._judge.model))
        self._opened: dict[str, tuple[OutputLock, CachedSampler]] = {}
        self._counts: Counter[str] = Counter()
        self._unreadable = ""  # the first answer that is

    @property
    def name(self) -> str:
        return self.title.lower()

    def _load(self, file: str, number: int) -> dict[str, str]:
        path = toml_prompts.find(PROMPTS, file)
        places = self.places if number == 0 else ("source", "translation", "errors")
        parts = toml_prompts.load_question(path, places)
        if "reference" not in places and any("{reference}" in part for part in parts.values()):
            raise UsageError(f"{path}: {self.name} is given no reference; take {{reference}} out, or use gemba-da")
        return parts

    def score(self, segments: Sequence[Segment], src: Language, tgt: Language) -> list[float | None]:
        rows = (segment._asdict() | {"src": src.name, "tgt": tgt.name} for segment in segments)
        texts = [{name: text for name, text in row.items() if text is not None} for row in rows]
        return self._scores(texts, self._opened_for(src, tgt))

    def _scores(self, texts: list[dict[str, str]], sampler: CachedSampler) -> list[float | None]:
        return [self._read(answer, read_score) for answer in self._ask(0, texts, sampler)]

    def _ask(self, number: int, texts: Sequence[dict[str, str]], sampler: CachedSampler) -> list[Answer | None]:
        """The answers to a prompt filled with each of `texts`; None where there is none."""
        prompt = self._prompts[number]
        part, stop = (prompt["chat"], ()) if self._style == CHAT else (prompt["completion"], (prompt["stop"],))
        prompts = [as_prompt(toml_prompts.fill(part, **values), self._style) for values in texts]
        identity = [*self._model, self._judge.max_new_tokens, stop]
        requests = [Request(request_id([*identity, prompt]), prompt, 0) for prompt in prompts]
        sampling = SamplingSettings(self._judge.max_new_tokens, temperature=0.0, stop=stop)
        distinct = {request.id: request for request in requests}
        answers: dict[str, Answer] = {}
        with _flags_named():  # of a spent budget, and of what the model lacks
            for answer in sampler.generate(inference.from_list(distinct.values()), sampling):
                answers[answer.id] = answer
        given = [answers.get(request.id) for request in requests]
        self._counts["unanswered"] += sum(answer is None or not answer.texts for answer in given)
        return [answer if answer and answer.texts else None for answer in given]

    def _read(self, answer: Answer | None, read):
        """What `read` makes of an answer; answers that it cannot read are counted."""
        if answer is None:
            return None
        self._counts["answers"] += 1
        text, is_cut = answer.texts[0], answer.finish_reasons[:1] == ("length",)
        value = read(text, is_cut)
        if value is None:
            self._counts["unreadable"] += 1
            self._counts["cut"] += is_cut
            self._unreadable = self._unreadable or " ".join(text.split())[:80] or "(empty)"
        return value

    def _opened_for(self, src: Language, tgt: Language) -> CachedSampler:
        """The judge, with the responses of one direction, which is locked: two runs must not pay for the same."""
        part = f"{src.flores}-{tgt.flores}"
        if part not in self._opened:
            folder = self._folder / f"{self.name}-{self._asked}"
            lock = OutputLock(folder, part, flag="--cache_dir")
            path = folder / f"{part}.jsonl"
            if path.exists():
                refuse_stand_in(path)
                self._meter.add_files(self.name, [path])
            is_paid = self._judge.inference_api in inference.REMOTE
            self._opened[part] = lock, CachedSampler(self._meter.wrap(self._sampler, self.name), path, is_paid)
        return self._opened[part][1]

    def close(self) -> None:
        """Free the model and say how many answers had no score, and what they cost."""
        for lock, sampler in self._opened.values():
            sampler.close_file()
            lock.release()
        self._opened.clear()
        self._sampler.close()
        if bad := self._counts["unreadable"]:
            cut = self._counts["cut"]
            why = f"; {cut} of them are cut at --{JUDGE}max_new_tokens {self._judge.max_new_tokens}" if cut else ""
            logger.warning(
                f"{self.name}: {bad} of {self._counts['answers']} answers are not in the requested form and have no score, such "
                f"as {self._unreadable!r}{why}"
            )
        if unanswered := self._counts["unanswered"]:
            logger.warning(f"{self.name}: {unanswered} requests got no response and have no score")
        self._counts.clear()
        if usage := self._meter.usage(self.name):
            logger.info(usage)


class GembaDA(Gemba):
    files, title = ("gemba_da",), "GEMBA-DA"
    places = ("source", "reference", "translation")


class GembaMQM(Gemba):
    files, title = ("gemba_mqm",), "GEMBA-MQM"

    def _scores(self, texts: list[dict[str, str]], sampler: CachedSampler) -> list[float | None]:
        read = partial(read_errors, severities=tuple(WEIGHTS))
        errors = [self._read(answer, read) for answer in self._ask(0, texts, sampler)]
        return [None if one is None else weighted(one) for one in errors]


class GembaESA(Gemba):
    files, title = ("gemba_esa_spans", "gemba_esa"), "GEMBA-ESA"

    def _scores(self, texts: list[dict[str, str]], sampler: CachedSampler) -> list[float | None]:
        read = partial(read_errors, severities=("major", "minor"))
        spans = [self._read(answer, read) for answer in self._ask(0, texts, sampler)]
        asked = [i for i, one in enumerate(spans) if one is not None]
        filled = [texts[i] | {"errors": _listed(spans[i])} for i in asked]
        scores: list[float | None] = [None] * len(texts)
        for i, answer in zip(asked, self._ask(1, filled, sampler), strict=True):
            scores[i] = self._read(answer, read_score)
        return scores


def _listed(errors: dict[str, list[str]]) -> str:
    return "\n".join(f"{name}: {line.lstrip('-*• ')}" for name, lines in errors.items() for line in lines) or "none"


def _with_prefix(text: str) -> str:
    return re.sub(rf"--(?=(?:{_NAMED})\b)", f"--{JUDGE}", text)


@contextmanager
def _flags_named():
    """A UsageError about a flag of the judge names it as comptra.evaluate does."""
    try:
        yield
    except UsageError as error:
        text = re.sub(r" \(or pass --api_key[^)]*\)", "", str(error))
        raise type(error)(_with_prefix(text)) from None
