"""A checked command line of main.py, and the parts that its run is made of."""

import argparse
import logging
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

from comptra import candidate_selection, checks, evaluation_sets, methods, models
from comptra.compositional import divide, merge, translate
from comptra.llm_calls import LLMClient
from comptra.methods import Shots, Task, refine
from comptra.models import Model
from topxgen import inference, retrieval, translation
from topxgen.common import hub
from topxgen.common.cli import check_filename
from topxgen.common.errors import UsageError
from topxgen.common.files import check_output_directory
from topxgen.corpora import benchmarks
from topxgen.inference.costs import Meter, Prices
from topxgen.inference.tokenizer import load_tokenizer
from topxgen.prompting.mt_templates import MTTemplate, get_template
from topxgen.text import language_id, languages
from topxgen.translation import TranslatorSettings

logger = logging.getLogger(__name__)
RESPONSES = "answers.jsonl"


class EvaluationConfig:
    """What main.py's flags stand for: languages, models, test set, and the functions that a run needs.

    Raises UsageError for whatever is wrong in the flags before any model is loaded; writes nothing.
    """

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.src, self.tgt = (languages.find(name, args.languages_file) for name in (args.src, args.tgt))
        if self.src.flores == self.tgt.flores:
            raise UsageError(f"--src and --tgt are both {self.src.name}; choose two languages")
        self.uses_llm = checks.uses_llm(args)
        checks.check_flags(args)
        check_output_directory(args.output_dir, f"--output_dir {args.output_dir}")
        self.merge_prompt = merge.load(args.merge_prompt)
        _require_assets(args)
        self.models = models.resolve_models(args, self.uses_llm)
        for model in self.models:
            self.template(model)
        self.test_set = evaluation_sets.load(
            args.dataset_name_or_path,
            self.src,
            self.tgt,
            folder=args.benchmark_dir,
            allow_partial=args.allow_partial_benchmark,
            max_samples=args.max_samples,
            data_dir=args.data_dir,
            test_files=args.test_files and tuple(args.test_files),
            pool_files=args.demonstration_pool and tuple(args.demonstration_pool),
            need_pool=bool(self.max_demonstrations or self.divides_by_pool),
        )
        checks.check_pool(self)
        self._tokenizers: dict[str, object] = {}
        self.style: dict[str, str] = {}  # RAW or CHAT, by the model's path
        if self.uses_llm:
            inference.check(args.inference_api, self.model_settings(self.models[0]), self.sampling)
            for model in self.models:
                self.style[model.path] = models.prompt_style(model, args, self.model_settings(model), self.template)
        if args.method_translate == "nllb":
            self.nllb.check(self.src, self.tgt)
        self._identifier = language_id.load(args.lid_model) if args.steps else None
        if args.steps and not self._identifier.knows(self.tgt):
            logger.info(f"{args.lid_model} cannot identify {self.tgt.name}: the language of phrases is not checked")
            self._identifier = None
        checks.check_choices(self)
        self.meter = Meter(
            Prices.of(args.prices), args.budget
        )  # what the responses of the models cost, of earlier runs, too
        for model in self.models:
            self.meter.add_files(model.name, self.folder(model).glob(RESPONSES))

    # Where results are

    def folder(self, model: Model) -> Path:
        """The folder of the translations (docs/files.md), an existing one also by the language names that were typed:
        the original has some of its own."""
        args = self.args
        if args.metadata_dir is not None:
            return args.output_dir / model.name / check_filename(args.metadata_dir, "--metadata_dir")
        limit = "None" if args.number_of_subproblems < 0 else args.number_of_subproblems
        divider = Path(args.method_divide).name  # of a user's own, the file and its attribute
        settings = f"{args.k}_shot_seed_{args.seed}_{divider}_{self.merge_prompt.name}_{limit}_{args.steps}_{args.number_of_refining_steps}"
        ours, typed = (
            args.output_dir / model.name / check_filename(f"{src}_to_{tgt}_{settings}", "the folder of a run")
            for src, tgt in ((self.src.name, self.tgt.name), (args.src, args.tgt))
        )
        return typed if typed.is_dir() and not ours.is_dir() else ours

    def divisions(self, model: Model) -> Path:
        """The folder of the divisions, which all runs with the model share."""
        return self.args.output_dir / model.name

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
        return translation.create("nllb", TranslatorSettings.from_args(self.args))

    # Demonstrations

    @property
    def max_demonstrations(self) -> int:
        """The largest number of demonstrations that a prompt takes from the pool."""
        args = self.args
        shows_k = args.method_translate not in methods.WITHOUT_DEMONSTRATIONS
        return max(args.k if shows_k else 0, args.number_of_merge_demonstrations if args.steps else 0)

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
            nearest=with_llm_released(self.nearest) if args.retriever_type in retrieval.NEEDS_MODEL else self.nearest,
            select=with_llm_released(self.selector) if needs_memory else self.selector,
            best_by_quality=with_llm_released(self.quality_selector) if args.method_translate == "maps" else None,
            nllb=self.nllb if args.method_translate == "nllb" else None,
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
            keep_drafts=args.method_translate == "nllb",
        )

    def _is_target_language(self, texts: list[str]) -> list[bool]:
        return self._identifier.is_language(texts, self.tgt) if self._identifier else [True] * len(texts)


def _require_assets(args: argparse.Namespace) -> None:
    """Raise UsageError for all that is neither local nor in the Hub's cache, if there is no Hub."""
    dataset, blaser = evaluation_sets.DATASETS[args.dataset_name_or_path], checks.uses_blaser(args)
    hub.require(
        [
            *(() if args.inference_api in inference.REMOTE else args.model_name_or_path or ()),
            args.tokenizer_name_or_path,
            args.base_model_name_or_path,
            args.nllb_name_or_path if args.method_translate in ("nllb", "refine") else None,
            args.sonar_name_or_path if blaser or (args.retriever_type == "SONAR" and args.k) else None,
            args.blaser_name_or_path if blaser else None,
            args.lid_model if args.steps else None,
        ],
        [] if args.benchmark_dir else [benchmarks.REPOS.get(split[0]) for split in dataset[1:] if split],
    )
