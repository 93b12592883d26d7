"""Sentence translation behind one interface.

A translator has
    load()                               load its model
    translate(sentences, source, target, on_done) -> list of Translation, in the order of the sentences; on_done(n) is
                                         called whenever n more sentences are finished, in the end for all of them
    version                              what a manifest records of it
    settings                             what decides its translations, as a dict
    block_size                           how many sentences to pass at once (a kill loses at most that many)
    check(source, target)                raise UsageError if it cannot translate between the two; also before `load`
    close()                              free the model and its memory
and, unless it has only one translation of a sentence,
    candidates(sentences, source, target, on_done) -> for each sentence up to `number_of_candidates` of them, best first
It sorts and batches sentences itself.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Any

from topxgen.common.errors import UsageError
from topxgen.common.registry import Choice, load_choice
from topxgen.common.settings import Settings
from topxgen.distributed import Call, InWorkers, Plan
from topxgen.inference import ModelSettings
from topxgen.text.languages import Language

TRANSLATORS: dict[str, Choice] = {
    "nllb": Choice("topxgen.translation.nllb:NLLB", "the translation model of --nllb_name_or_path"),
    "llm": Choice("topxgen.translation.llm:LLM", "the LLM of --model_name_or_path, few-shot"),
    "apertium": Choice(
        "topxgen.translation.apertium:Apertium", "Apertium's rules, where its language pair is installed"
    ),
}
CACHE_DIR = "~/.cache/topxgen"


@dataclass(frozen=True)
class Translation:
    """`confidence`: the translator's own estimate of quality, 0 to 1, None if it has none; `segments`: in how many segments a
    sentence longer than the model's limit was translated; `error`: why there is no text; `unanswered`: an API gave no answer;
    `truncated`: it was cut at the limit of new tokens."""

    text: str
    confidence: float | None = None
    segments: int = 1
    error: str | None = None
    unanswered: bool = False
    truncated: bool = False


@dataclass(frozen=True)
class TranslatorSettings(Settings):
    """What to load and how; a translator ignores the fields that it has no use for."""

    nllb_name_or_path: str = "facebook/nllb-200-3.3B"
    nllb_engine: str = "ctranslate2"
    nllb_compute_type: str = "auto"
    cache_dir: str = CACHE_DIR
    number_of_candidates: int = 1  # of a sentence, from `candidates`
    trust_remote_code: bool = False
    # LLM
    inference_api: str = "vllm"
    model: ModelSettings | None = None
    num_beams: int = 1
    candidate_temperature: float = 0.7  # at which candidates are sampled, unless there are beams
    template_key: str = "11"
    prompt_style: str = "auto"
    number_of_demonstrations: int = 5
    demonstration_pool: str = "flores"
    retriever_tokens: str = "unicode"
    allow_partial_benchmark: bool = False
    response_cache: Callable[[str], Path] | None = None  # where responses are kept, by the name of the source language
    meter: Any = field(default=None, compare=False)  # a topxgen.inference.costs.Meter, which counts what responses cost
    # Other translators than the LLM, whose model has its own:
    distributed: str | None = None  # a name in topxgen.distributed.SCHEDULERS, whose workers translate
    num_workers: int | None = None  # with it
    engine_log: Path | None = field(default=None, compare=False)  # gets what they print


def no_progress(_: int) -> None:
    """No-op progress callback."""


class WithCandidates:
    """A translator whose `translations` gives the `count` best of each sentence, best first."""

    number_of_candidates: int

    def translate(
        self, sentences: list[str], source: Language, target: Language, on_done: Callable[[int], None] = no_progress
    ) -> list[Translation]:
        return [found[0] for found in self.translations(sentences, source, target, 1, on_done)]

    def candidates(
        self, sentences: list[str], source: Language, target: Language, on_done: Callable[[int], None] = no_progress
    ) -> list[list[Translation]]:
        return self.translations(sentences, source, target, self.number_of_candidates, on_done)


def by_steps(on_done: Callable[[int], None], total: int, steps: int) -> Callable[[int], None]:
    """A progress callback to be called for `steps` steps, which reports `total` units to `on_done` in proportion."""
    taken = reported = 0

    def on_step(n: int) -> None:
        nonlocal taken, reported
        if not steps:  # reported at once
            return
        taken += n
        finished = total * taken // steps
        on_done(finished - reported)
        reported = finished

    if not steps:
        on_done(total)
    return on_step


def create(name: str, settings: TranslatorSettings):
    """The translator of that name, its model not loaded yet. Raises UsageError for a setting that cannot work."""
    translator = load_choice("--back_translator", name, TRANSLATORS)(settings)
    if settings.distributed is None or name == "llm":
        return translator
    plan = Plan(settings.distributed, "translation", settings.num_workers, log=settings.engine_log)
    return InWorkers(
        translator, lambda: partial(_loaded, name, _of_worker(settings, translator), translator.settings), plan
    )


def _of_worker(settings: TranslatorSettings, local) -> TranslatorSettings:
    """In the precision that this node chose, without what only the process that was started needs."""
    return replace(
        settings,
        nllb_compute_type=local.settings.get("nllb_compute_type", settings.nllb_compute_type),
        distributed=None,
        num_workers=None,
        model=None,
        engine_log=None,
        response_cache=None,
        meter=None,
    )


def _loaded(name: str, settings: TranslatorSettings, decided: dict):
    """A worker's translator. Raises UsageError if it would translate in another way than the driver's settings say."""
    translator = create(name, settings)
    if translator.settings != decided:
        raise UsageError(
            f"a worker would translate with the settings {translator.settings}, not with those of the run, {decided}: all nodes must see the "
            "same models"
        )
    translator.load()
    return translator


def translate_lists(
    translator,
    method: str,
    lists: Iterable[list[str]],
    source: Language,
    target: Language,
    on_done: Callable[[int], None] = no_progress,
) -> Iterator[list]:
    """What the translator's `method` returns for each of `lists` of sentences, in order, side by side in workers if it has some."""
    if not isinstance(translator, InWorkers):
        translate = getattr(translator, method)
        yield from (translate(sentences, source, target, on_done) for sentences in lists)
        return
    asked, given = tee(lists)
    results = translator.map(Call(method, (sentences, source, target)) for sentences in asked)
    # A result first: what was given is behind what was asked.
    for result, sentences in zip(results, given, strict=False):
        on_done(len(sentences))
        yield result
