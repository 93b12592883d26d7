"""A checked command line of main.py, and the parts that its runs are made of: one for each direction."""

import argparse
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path

from comptra import candidate_selection, checks, evaluation_sets, methods, models, needs
from comptra.compositional import divide, merge, translate
from comptra.llm_calls import LLMClient
from comptra.methods import Shots, Task, refine
from comptra.models import Model
from topxgen import distributed, inference, retrieval, translation
from topxgen.common import hub, provenance, shards, translation_folders
from topxgen.common.cli import check_filename
from topxgen.common.console import ONCE
from topxgen.common.errors import Unreachable, UsageError
from topxgen.common.files import check_output_directory
from topxgen.inference.costs import Meter, Prices
from topxgen.inference.tokenizer import load_tokenizer
from topxgen.prompting.mt_templates import MTTemplate, get_template
from topxgen.prompting.style import RAW
from topxgen.text import language_id, languages
from topxgen.translation import TranslatorSettings

logger = logging.getLogger(__name__)
DIVISION_SETTINGS = "settings_divide.json"
PHRASE = ""  # stands for the phrases of a sentence, which are not known yet
MAX_SHOWN = 100  # characters


def directions(args: argparse.Namespace) -> list[argparse.Namespace]:
    """`args` for each --src with each other --tgt, which are single names in them. Raises UsageError if there is none."""
    pairs: dict[tuple[str, str], tuple[str, str]] = {}
    for typed in product(args.src, args.tgt):
        src, tgt = (languages.find(name, args.languages_file) for name in typed)
        if src.flores != tgt.flores:
            pairs.setdefault((src.flores, tgt.flores), typed)
    if not pairs:
        raise UsageError(f"--src and --tgt are both {src.name}; choose two languages")
    if len(pairs) > 1 and args.metadata_dir is not None:
        raise UsageError("--metadata_dir names the folder of one direction: pass one --src and one --tgt, or drop it")
    found = []
    for src, tgt in pairs.values():
        found.append(copy(args))
        found[-1].src, found[-1].tgt = src, tgt
    return found


def configurations(args: argparse.Namespace) -> "list[EvaluationConfig]":
    """One for each direction. Raises UsageError for whatever is wrong in any of them, before any model is loaded."""
    found: list[EvaluationConfig] = []
    args.shard = shards.chosen(args)
    if args.shard is not None:
        args.output_dir = args.shard.folder(args.output_dir)
    by_direction = directions(args)
    failed: list[UsageError] = []
    for one in by_direction:
        try:
            found.append(EvaluationConfig(one, found[0] if found else None, several=len(by_direction) > 1))
        except UsageError as error:
            if not found:  # most likely of all directions
                raise
            failed.append(error)
    if failed:
        others = ", ".join(str(error).partition(":")[0] for error in failed[1:])
        raise UsageError(f"{failed[0]}" + (f" (also wrong: {others})" if others else ""))
    if len(found) > 1:
        _check_own_texts(found)
    return found


def _check_own_texts(configs: "list[EvaluationConfig]") -> None:
    """Raise UsageError if two languages have the same text: files of one direction cannot serve others."""
    seen: dict[tuple[str, str], str] = {}
    for config in configs:
        for kind, flag in (("test", "--test_files"), ("pool", "--demonstration_pool")):
            facts = config.test_set.facts.get(kind) or {}
            for side, language in (("sources", config.src), ("references", config.tgt)):
                if (sha256 := facts.get(side, {}).get("sha256")) is None:
                    continue
                if (other := seen.setdefault((kind, sha256), language.name)) != language.name:
                    raise UsageError(
                        f"{facts[side]['from']} is the same text in {other} and in {language.name}; with several directions each "
                        f"language needs a text of its own: {flag} with one table that has a column for each language, given twice"
                    )


class EvaluationConfig:
    """What main.py's flags stand for in one direction: languages, models, test set, and the functions that a run needs.

    Raises UsageError for whatever is wrong in the flags before any model is loaded; writes nothing.
    """

    def __init__(self, args: argparse.Namespace, first: "EvaluationConfig | None" = None, several: bool = False):
        """`args`: see `directions`. `first`: the configuration of the first one of `several` directions, with which the others
        share all that is not of a direction."""
        self.args, self._first = args, first
        self.src, self.tgt = (languages.find(name, args.languages_file) for name in (args.src, args.tgt))
        self.direction = f"{self.src.name} to {self.tgt.name}"
        self.several = several
        self._known_shots: dict[tuple[str, int], Shots] = {}
        self._is_unreachable = False
        self.uses_llm = checks.uses_llm(args)
        if first is None:
            checks.check_flags(args)
            check_output_directory(args.output_dir, f"--output_dir {args.output_dir}")
            self.merge_prompt = merge.load(args.merge_prompt)
            distributed.check(args.distributed)
            with self._if_reachable():
                hub.require(needs.of_translation(args, [self.src], [self.tgt]))
            self.models = models.resolve_models(args, self.uses_llm)
            self._tokenizers: dict[str, object] = {}
        else:
            self.merge_prompt, self.models, self._tokenizers = first.merge_prompt, first.models, first._tokenizers
        with self._named():
            for model in self.models:
                self.template(model)
            need_pool = bool(self.max_demonstrations or self.divides_by_pool)
            self.test_set = evaluation_sets.of_flags(args, self.src, self.tgt, need_pool)
            if args.shard is not None:
                self.test_set = _part_of(self.test_set, args.shard)
            self._check_pool()
        self.style: dict[str, str] = {} if first is None else first.style  # RAW or CHAT, by the model's path
        if self.uses_llm and first is None:
            inference.check(args.inference_api, self.model_settings(self.models[0]), self.sampling)
            for model in self.models:
                self.style[model.path] = RAW if args.prompt_style == "auto" else args.prompt_style
                with self._if_reachable():
                    self.style[model.path] = models.prompt_style(model, args, self.model_settings(model), self.template)
        with self._named():
            if args.method_translate == "nllb":
                self.nllb.check(self.src, self.tgt)
            self._identifier = language_id.load(args.lid_model) if args.steps else None
            if args.steps and not self._identifier.knows(self.tgt):
                logger.info(f"{args.lid_model} cannot identify {self.tgt.name}: the language of phrases is not checked")
                self._identifier = None
            self._check_choices()
        # What the responses of the models cost, in all directions.
        self.meter = Meter(Prices.of(args.prices), args.budget) if first is None else first.meter

    @contextmanager
    def _if_reachable(self) -> Iterator[None]:
        """A dry run goes on, with estimates, without what only the Hub has."""
        try:
            yield
        except Unreachable as error:
            if not self.args.dry_run:
                raise
            if not self._is_unreachable:  # the first one lists all that is missing
                logger.info(f"not checked: {error} (prompts are shown as raw text unless --prompt_style says more)")
            self._is_unreachable = True

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Name the direction in a UsageError, if there are several."""
        try:
            yield
        except UsageError as error:
            raise UsageError(f"{self.direction}: {error}" if self.several else str(error)) from None

    def part(self, model: Model) -> str:
        """The name, in logs and for costs, of a model's run in this direction."""
        return f"{model.name}, {self.direction}" if self.several else model.name

    # Checks that need more than the flags

    def _check_pool(self) -> None:
        """Whether there are enough demonstrations in the pool, and where they come from."""
        args, wanted = self.args, self.max_demonstrations
        if (self.test_set.facts.get("pool") or {}).get("decontaminated") is False:
            logger.warning(
                "the demonstration pool was not decontaminated (no _translate_filtered.jsonl): it may contain the test set; run "
                "decontamination.py",
                extra=ONCE,
            )
        if self.divides_by_pool and not self.test_set.pool:
            logger.info(
                "no demonstration pool: --method_divide keyword picks long words instead of rare ones", extra=ONCE
            )
        if not wanted:
            return
        pool, leaks_for = self.test_set.pool, self.test_set.leaks_for
        queries = [*self.test_set.sources, *([PHRASE] if args.steps else [])]
        left_out = max(map(len, map(leaks_for, queries)))
        if wanted > len(pool) - left_out:
            flag = "--k" if wanted == args.k else "--number_of_merge_demonstrations"
            leaking = f" ({left_out} of them overlap a sentence to be translated)" if left_out else ""
            raise UsageError(
                f"{flag} {wanted} is more than the {len(pool)} pairs of the pool of {args.dataset_name_or_path}{leaking}; "
                "pass a smaller number, or choose another data set"
            )
        if leaking := self.test_set.facts["leak_guard"]["leaking_pairs"]:
            where = f" ({self.direction})" if self.several else ""
            first = min(i for indices in self.test_set.leaks.values() for i in indices)
            logger.warning(
                f"{leaking} of the {len(pool)} pairs of the demonstration pool{where} overlap the test set; they are left out for the sentences "
                f"that they overlap, such as {' | '.join(pool[first])[:MAX_SHOWN]!r}"
            )

    def _check_choices(self) -> None:
        """What the chosen methods, retriever, selector and divider need beyond the LLM."""
        args = self.args
        task = self.task(self.models[0], client=None)  # creates the selectors
        methods.check(args.method_translate, task)
        if self.max_demonstrations:
            self.retriever  # noqa: B018 (created now, so that it reports what is missing)
        refines = bool(args.number_of_refining_steps or args.refine_after_merge)
        instructs = args.method_translate in methods.WITH_INSTRUCTIONS or refines
        instructs |= bool(args.steps and self.merge_prompt.has_sections)
        if instructs and RAW in self.style.values():
            logger.warning(
                "cot, maps, step_by_step, TEaR, refinement and these merge prompts give instructions, which models without a chat template rarely follow: "
                "look at some responses first",
                extra=ONCE,
            )
        if refines:
            refine.check(task)
        if args.steps:
            divide.check(args.method_divide, self.src, self.divider_settings)

    # Where results are

    def folder(self, model: Model) -> Path:
        """The folder of the translations (docs/files.md), an existing one also by the language names that were typed:
        the original has some of its own."""
        args, room = self.args, self.args.output_dir / model.name
        if args.metadata_dir is not None:
            return room / check_filename(args.metadata_dir, "--metadata_dir")
        values = translation_folders.values_of(args) | {
            "template_key": Path(self.template(model).key).name,
            "prompt_style": self.style.get(model.path),
        }
        ours, typed = (
            translation_folders.folder_of(room / check_filename(name, "the folder of a run"), values)
            for src, tgt in ((self.src.name, self.tgt.name), (args.src, args.tgt))
            for name in [translation_folders.original_name(src, tgt, args, self.merge_prompt.name)]
        )
        return typed if typed.is_dir() and not ours.is_dir() else ours

    def divisions(self, model: Model, settings: dict) -> Path:
        """The folder of the divisions by `settings`, which all runs with the model share; those that divide in another way than
        the first run have one of their own."""
        room = self.args.output_dir / model.name
        own = {name: settings[name] for name in checks.DIVISION_VARIANTS if name in settings}
        known = provenance.read_settings(room / DIVISION_SETTINGS) if translate.has_divisions(room) else {}
        if all(known.get(name, value) == value for name, value in own.items()):
            return room
        return room / f"divisions_{provenance.digest(json.dumps(own, sort_keys=True))[:8]}"

    # Models and templates

    def template(self, model: Model) -> MTTemplate:
        key = model.template_key(self.args.template_key)
        return get_template(key, self.src.name, self.tgt.name, extra=self.args.languages_file)

    def model_settings(self, model: Model) -> inference.ModelSettings:
        adapted = any(other.adapter and other.base == model.base for other in self.models)
        log = None if self.args.inference_api in inference.REMOTE else self.args.output_dir / inference.ENGINE_LOG
        chosen = {"model_name_or_path": model.base, "reserve_lora": adapted, "engine_log": log}
        return inference.ModelSettings.from_args(self.args, **chosen)

    @property
    def sampling(self) -> inference.SamplingSettings:
        return inference.SamplingSettings.from_args(self.args)

    def tokenizer(self, model: Model):
        """The tokenizer of a local model."""
        if model.base not in self._tokenizers:
            self._tokenizers[model.base] = load_tokenizer(self.model_settings(model))
        return self._tokenizers[model.base]

    @cached_property
    def nllb(self):
        """The translation model, which all directions share where no LLM has to have its memory in between."""
        if self._first is not None and not self.uses_llm:
            return self._first.nllb
        log = self.args.output_dir.absolute() / inference.ENGINE_LOG
        return translation.create("nllb", TranslatorSettings.from_args(self.args, engine_log=log))

    # Demonstrations

    @property
    def max_demonstrations(self) -> int:
        """The largest number of demonstrations that a prompt takes from the pool."""
        args = self.args
        shows_k = args.method_translate not in methods.WITHOUT_DEMONSTRATIONS
        return max(args.k if shows_k else 0, args.number_of_merge_demonstrations if args.steps else 0)

    @property
    def retrieves_by_model(self) -> bool:
        return self.args.retriever_type in retrieval.NEEDS_MODEL

    @property
    def shots_by_sentence(self) -> bool:
        """Whether all phrases of a sentence have the same demonstrations, as random ones have in CompTra."""
        return bool(self.args.steps) and self.args.retriever_type == "Random"

    @property
    def divides_by_pool(self) -> bool:
        return bool(self.args.steps) and self.args.method_divide == "keyword"

    @cached_property
    def retriever(self):
        settings = retrieval.RetrieverSettings.from_args(self.args)
        sources = [source for source, _ in self.test_set.pool]
        return retrieval.create(self.args.retriever_type, sources, self.src, settings, self.test_set.leaks_for)

    def nearest(self, sentences: list[str], k: int) -> list[Shots]:
        """For each sentence the k most similar pairs of the pool, the most similar last."""
        if not k:
            return [[] for _ in sentences]
        pool = self.test_set.pool
        return [[pool[i] for i in reversed(row)] for row in self.retriever.nearest(sentences, k)]

    def nearest_by_model(self, sentences: list[str], k: int, free: Callable[[], None] = lambda: None) -> list[Shots]:
        """The same for retrievers that need a model: kept, so that `free`, which makes room for it, is called only for new
        sentences."""
        if new := [text for text in dict.fromkeys(sentences) if k and (text, k) not in self._known_shots]:
            free()
            self._known_shots.update(((text, k), shots) for text, shots in zip(new, self.nearest(new, k), strict=True))
        return [self._known_shots[text, k] if k else [] for text in sentences]

    # Methods

    @property
    def divider_settings(self) -> divide.DividerSettings:
        return divide.DividerSettings.from_args(self.args, pool=tuple(source for source, _ in self.test_set.pool))

    @cached_property
    def selector(self):
        return self._selector(self.args.selection_method)

    @cached_property
    def quality_selector(self):
        """For methods that need quality estimation."""
        chosen = self.args.selection_method
        return self._selector(chosen if chosen in candidate_selection.BY_QUALITY else "blaser")

    def _selector(self, name: str):
        scores_dir = self.folder(self.models[0])  # which is locked
        settings = candidate_selection.SelectionSettings.from_args(self.args, scores_dir=scores_dir)
        return candidate_selection.create(name, self.src, self.tgt, settings)

    def task(self, model: Model, client: LLMClient | None, release_llm: Callable[[], None] = lambda: None) -> Task:
        """`release_llm` frees the LLM's memory before another model is loaded."""
        args = self.args

        def with_llm_released(function):
            return lambda *values: (release_llm(), function(*values))[1]

        needs_memory = args.selection_method in candidate_selection.BY_QUALITY
        return Task(
            src=self.src,
            tgt=self.tgt,
            client=client,
            template=self.template(model),
            sampling=self.sampling,
            k=args.k,
            nearest=partial(self.nearest_by_model, free=release_llm) if self.retrieves_by_model else self.nearest,
            select=with_llm_released(self.selector) if needs_memory else self.selector,
            best_by_quality=with_llm_released(self.quality_selector) if args.method_translate == "maps" else None,
            nllb=self.nllb if args.method_translate == "nllb" else None,
            frees_nllb=self.uses_llm,
            release_llm=release_llm,
            spacy_model=args.spacy_model,
            max_new_tokens_merge=args.max_new_tokens_merge,
        )

    def plan(self, task: Task) -> translate.Plan:
        args, merge_prompt = self.args, self.merge_prompt
        divider = divide.load(args.method_divide)

        def merge_prompts(sentences: list[str], pairs: list[Shots]):
            extra = task.nearest(sentences, args.number_of_merge_demonstrations)
            return [merge_prompt.prompt(task, *item) for item in zip(sentences, pairs, extra, strict=True)]

        def merge(sentences: list[str], pairs: list[Shots]):
            prompts = merge_prompts(sentences, pairs)
            return merge_prompt.translate(task.with_room_for_merges, sentences, pairs, prompts)

        return translate.Plan(
            method=methods.load(args.method_translate),
            divide=lambda sentences: divider(sentences, task, self.divider_settings),
            merge_prompts=merge_prompts,
            merge=merge,
            fits=self._is_target_language,
            refine=partial(refine.refine, task=task),
            number_of_refining_steps=args.number_of_refining_steps,
            refine_after_merge=args.refine_after_merge,
            steps=args.steps,
            with_shots=args.method_translate not in methods.WITHOUT_DEMONSTRATIONS,
            shots_by_sentence=self.shots_by_sentence,
            accepts_unanswered=args.accept_unanswered,
            resume_drafts=args.method_translate == "nllb",
        )

    def _is_target_language(self, texts: list[str]) -> list[bool]:
        return self._identifier.is_language(texts, self.tgt) if self._identifier else [True] * len(texts)


def _part_of(test_set: evaluation_sets.TestSet, shard: shards.Shard) -> evaluation_sets.TestSet:
    """The sentences of a shard. The pool, and the facts, are those of the whole set."""
    if shard.index >= (count := len(test_set.sources)):
        raise UsageError(f"--num_shards {shard.count} is more than the {count} sentences; pass a smaller number")
    own = {name: getattr(test_set, name)[shard.index :: shard.count] for name in ("sources", "references")}
    return replace(test_set, **own)
