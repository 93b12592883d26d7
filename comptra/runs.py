"""What main.py does with its settled arguments: every check first, then one model after the other."""

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from comptra import (
    compositional,
    dividers,
    language_id,
    languages,
    merging,
    methods,
    provenance,
    retrievers,
    samplers,
    selection,
    test_sets,
    translators,
)
from comptra.arguments import plain_name
from comptra.asking import CHAT, RAW, Asker, LazySampler, style_of
from comptra.errors import UserError
from comptra.files import InUse, OutputLock, read_json, write_json
from comptra.methods import Shots, Task
from comptra.methods import refine as refining
from comptra.progress import Progress, printable
from comptra.prompts import parts
from comptra.prompts.templates import chat_prompt, get_template, trained_template
from comptra.translators import TranslatorSettings

ANSWERS, SETTINGS, MANIFEST = "answers.jsonl", "settings_translate.json", "manifest_translate.json"
DEFAULT_TEMPLATE = "11"
NO_ANSWER = 3  # exit code: some sentences have no translation
SHOWN = 2  # prompts of a dry run


@dataclass(frozen=True)
class Model:
    """One of --model_name_or_path: a whole model, or an adapter on a base."""

    path: str
    base: str
    adapter: str | None
    rank: int = 0  # of the adapter

    @property
    def name(self) -> str:
        return plain_name(Path(self.path).name, "--model_name_or_path")


class Run:
    """A command line whose values all hold. Raises UserError before any model is loaded; nothing is written."""

    def __init__(self, args: argparse.Namespace, say: Callable[[str], None]):
        self.args, self.say = args, say
        self.src, self.tgt = (languages.find(name, args.languages_file) for name in (args.src, args.tgt))
        if self.src.flores == self.tgt.flores:
            raise UserError(f"--src and --tgt are both {self.src.name}; choose two languages")
        self._check_numbers()
        # What never asks an LLM needs none.
        self.asks = not (args.method_translate == "nllb" and not args.steps and not args.number_of_refining_steps)
        self.models = self._models()
        for model in self.models:
            get_template(self.template_key(model), self.src.name, self.tgt.name, extra=args.languages_file)
        self.test_set = test_sets.load(
            args.dataset_name_or_path,
            self.src,
            self.tgt,
            folder=args.benchmark_dir,
            max_samples=args.max_samples,
            data_dir=args.data_dir,
            test_files=args.test_files and tuple(args.test_files),
            pool_files=args.pool_files and tuple(args.pool_files),
            need_pool=bool(self.most_demonstrations),
        )
        if (self.test_set.facts.get("pool") or {}).get("decontaminated") is False:
            say(
                "WARNING: the pool was not decontaminated (no _translate_filtered.jsonl): it may hold the test set; run "
                "decontamination.py"
            )
        if self.most_demonstrations > len(self.test_set.pool):
            flag = "--k" if args.k >= args.number_of_merge_demonstrations else "--number_of_merge_demonstrations"
            raise UserError(
                f"{flag} {self.most_demonstrations} is more than the {len(self.test_set.pool)} pairs of the pool of "
                f"{args.dataset_name_or_path}; ask for fewer, or choose another data set"
            )
        if self.asks:
            samplers.check(args.inference_api, self.model_settings(self.models[0]))
        self.style = self._style()
        if args.method_translate == "nllb":
            self.nllb.check(self.src, self.tgt)
        self.identifier = language_id.load(args.lid_model) if args.steps else None
        if args.steps and not self.identifier.knows(self.tgt):
            say(f"{args.lid_model} cannot tell {self.tgt.name}: phrase translations are not checked by language")
            self.identifier = None
        self._check_choices()

    def _check_numbers(self) -> None:
        args = self.args
        if args.number_of_subproblems == 0 or args.number_of_subproblems < -1:
            raise UserError(f"--number_of_subproblems {args.number_of_subproblems}: a number of phrases, or -1 for all")
        if args.num_beams > samplers.MAX_BEAMS:
            raise UserError(f"--num_beams {args.num_beams} is more than {samplers.MAX_BEAMS}")
        if args.num_beams > 1 and args.inference_api in samplers.REMOTE:
            raise UserError(
                f"--num_beams {args.num_beams}: {args.inference_api} has no beam search; choose --inference_api vllm or hf"
            )
        if 1 < args.num_beams < args.num_return_sequences:
            raise UserError(
                f"--num_return_sequences {args.num_return_sequences} is more than --num_beams {args.num_beams}"
            )
        if args.num_return_sequences > 1 and args.num_beams == 1 and not self.temperature:
            raise UserError(
                f"--num_return_sequences {args.num_return_sequences}: greedy decoding gives one answer; pass --temperature "
                "above 0, or --num_beams"
            )
        if args.num_return_sequences == 1 and args.selection_method != "greedy" and args.method_translate != "maps":
            raise UserError(
                f"--selection_method {args.selection_method} has nothing to choose from: pass --num_return_sequences 4 or so"
            )
        if args.num_beams > 1 and args.inference_api == "vllm" and args.repetition_penalty != 1:
            raise UserError(
                f"--repetition_penalty {args.repetition_penalty:g}: vLLM's beam search has none; pass 1, or --inference_api hf"
            )
        if args.method_translate == "maps" and args.selection_method in ("bleu", "chrf"):
            raise UserError(
                f"--selection_method {args.selection_method}: maps chooses by quality estimation; pass blaser or comet-qe"
            )
        if args.refine_after_merge and not (args.steps and args.number_of_refining_steps):
            raise UserError("--refine_after_merge needs --steps and --number_of_refining_steps of 1 or more")
        if args.method_translate == "none" and not args.steps:
            raise UserError("--method_translate none only divides: pass --steps 1 or more")

    def _check_choices(self) -> None:
        """What the method, the retriever, the selection and the division need beyond models: let them say."""
        task = self.task(self.models[0], asker=None)  # which makes the selectors
        methods.check(self.args.method_translate, task)
        if self.most_demonstrations:
            self._retriever  # noqa: B018 (built here, so that what it lacks is told now)
        asks_in_words = self.args.method_translate in methods.IN_WORDS or self.args.number_of_refining_steps
        if asks_in_words and RAW in self.style.values():
            self.say(
                "cot, maps, step_by_step, TEaR and refining ask in words, which a model without a chat template rarely follows: "
                "look at some answers first"
            )
        if self.args.number_of_refining_steps:
            refining.check(task)
        if self.args.steps:
            merging.check(self.args.merge_prompt)
            dividers.check(self.args.method_divide, self.src, self.division_settings)

    @property
    def temperature(self) -> float:
        return self.args.temperature if self.args.do_sample else 0.0

    @property
    def most_demonstrations(self) -> int:
        args = self.args
        shots = args.method_translate in methods.WITH_SHOTS or (args.steps and args.merge_prompt == merging.REFINE)
        return max(args.k if shots else 0, args.number_of_merge_demonstrations if args.steps else 0)

    # Models

    def _models(self) -> list[Model]:
        args = self.args
        if not args.model_name_or_path:
            if self.asks:
                raise UserError("pass --model_name_or_path (only --method_translate nllb without --steps does without)")
            return [Model(args.nllb_name_or_path, args.nllb_name_or_path, None)]
        if not self.asks:
            if set(args.model_name_or_path) - {args.nllb_name_or_path}:
                raise UserError(
                    f"--method_translate nllb without --steps asks only {args.nllb_name_or_path}: leave --model_name_or_path out, "
                    "or pass that model as --nllb_name_or_path"
                )
            return [Model(args.nllb_name_or_path, args.nllb_name_or_path, None)]
        found = [self._model(path) for path in dict.fromkeys(path.rstrip("/") for path in args.model_name_or_path)]
        names = [model.name for model in found]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(
                f"two models are named {twice!r}, and their results would be in one folder: run them one by one, each with an "
                "--output_dir of its own"
            )
        return found

    def _model(self, path: str) -> Model:
        args = self.args
        base = (args.base_model_name_or_path or "").rstrip("/")
        is_adapter = (args.enable_lora and path != base) or (Path(path) / "adapter_config.json").is_file()
        if not is_adapter:
            if base and path != base:
                raise UserError(
                    f"--base_model_name_or_path is for adapters, but {path} holds none (no adapter_config.json); pass a folder "
                    "that peft saved, or leave it out"
                )
            config = Path(path) / "config.json"
            if config.is_file() and read_json(config).get("is_encoder_decoder"):
                raise UserError(
                    f"{path} is an encoder-decoder model: pass --method_translate nllb --nllb_name_or_path {path}, and an LLM as "
                    "--model_name_or_path only where --steps or refining ask one"
                )
            return Model(path, path, None)
        if args.inference_api in samplers.REMOTE:
            raise UserError(
                f"{path} is a LoRA adapter, and --inference_api {args.inference_api} loads none: serve it (vllm serve BASE "
                "--enable-lora --lora-modules NAME=FOLDER) and pass the name it is served under"
            )
        folder = samplers.adapter_folder(path)
        config = read_json(Path(folder) / "adapter_config.json")
        base = base or (config.get("base_model_name_or_path") or "").rstrip("/")
        if not base:
            raise UserError(f"{path} does not name its base model: pass --base_model_name_or_path")
        rank = max([config.get("r") or 0, *(config.get("rank_pattern") or {}).values()])
        if rank > args.lora_rank:
            raise UserError(f"--lora_rank {args.lora_rank} is less than the rank of {path}: pass --lora_rank {rank}")
        return Model(path, base, folder, rank)

    def template_key(self, model: Model) -> str:
        return self.args.template_key or trained_template(model.path, model.adapter) or DEFAULT_TEMPLATE

    def model_settings(self, model: Model) -> samplers.ModelSettings:
        adapted = any(other.adapter and other.base == model.base for other in self.models)
        return samplers.model_settings(self.args, model=model.base, enable_lora=adapted, notice=self.say)

    def _style(self) -> dict[str, str]:
        """Raw or chat for each model, by its path."""
        styles = {}
        for model in self.models if self.asks else ():
            trained = trained_template(model.path, model.adapter)
            wanted = self.args.prompt_style
            if wanted == "auto" and trained:
                wanted = "raw"  # what it was fine-tuned on, whatever its tokenizer has kept of a chat model
            styles[model.path] = style_of(wanted, self.args.inference_api, self.model_settings(model))
            if styles[model.path] == CHAT and (trained or self.args.template_key):
                self.say(
                    f"{model.path} is asked through its chat template, so "
                    + (
                        f"template {trained}, which it was fine-tuned on, is not used: pass --prompt_style raw"
                        if trained
                        else f"--template_key {self.args.template_key} is not used; --prompt_style raw uses it"
                    )
                )
            elif trained and self.template_key(model) != trained:
                self.say(
                    f"{model.path} was fine-tuned on template {trained}, but is asked with {self.template_key(model)}: expect "
                    "less of it"
                )
        return styles

    # Parts

    @property
    def sampling(self) -> samplers.SamplingSettings:
        return samplers.sampling_settings(self.args)

    @cached_property
    def nllb(self):
        args = self.args
        settings = TranslatorSettings(
            nllb=args.nllb_name_or_path,
            nllb_engine=args.nllb_engine,
            nllb_compute_type=args.nllb_compute_type,
            cache_dir=args.cache_dir,
            trust_remote_code=args.trust_remote_code,
        )
        return translators.create("nllb", settings)

    @cached_property
    def _retriever(self):
        args = self.args
        settings = retrievers.RetrieverSettings(
            seed=args.seed, sonar=args.sonar_name_or_path, spacy_model=args.spacy_model
        )
        return retrievers.create(args.retriever_type, [source for source, _ in self.test_set.pool], self.src, settings)

    def nearest(self, sentences: list[str], k: int) -> list[Shots]:
        """The k pairs of the pool most like each sentence, the most similar last."""
        if not k:
            return [[] for _ in sentences]
        pool = self.test_set.pool
        return [[pool[i] for i in reversed(row)] for row in self._retriever.nearest(sentences, k)]

    @cached_property
    def method(self):
        """The method as a function, None for `none`."""
        return None if self.args.method_translate == "none" else methods.load(self.args.method_translate)

    @property
    def division_settings(self) -> dividers.DividerSettings:
        args = self.args
        return dividers.DividerSettings(
            number_of_subproblems=args.number_of_subproblems,
            number_of_repetitions=args.number_of_repetitions,
            mode_divide=args.mode_divide,
            max_new_tokens=args.max_new_tokens_divide,
            spacy_model=args.spacy_model,
            pool=tuple(source for source, _ in self.test_set.pool),
        )

    @cached_property
    def selector(self):
        return self._selector(self.args.selection_method)

    @cached_property
    def quality(self):
        """For methods that need quality estimation."""
        chosen = self.args.selection_method
        return self._selector(chosen if chosen in selection.BY_QUALITY else "blaser")

    def _selector(self, name: str):
        args = self.args
        settings = selection.SelectionSettings(
            blaser=args.blaser_name_or_path,
            sonar=args.sonar_name_or_path,
            comet_python=args.comet_python,
            scores_dir=self.folder(self.models[0]),  # which is locked
            notice=self.say,
        )
        return selection.create(name, self.src, self.tgt, settings)

    def task(self, model: Model, asker: Asker | None, rest: Callable[[], None] = lambda: None) -> Task:
        """`rest` gives the LLM's memory back before other models are loaded."""

        def roomy(select):
            if select is None:
                return None
            return lambda sentences, candidates: (rest(), select(sentences, candidates))[1]

        def nearest(sentences: list[str], k: int) -> list[Shots]:
            if self.args.retriever_type in retrievers.NEEDS_MODEL:
                rest()
            return self.nearest(sentences, k)

        return Task(
            src=self.src,
            tgt=self.tgt,
            asker=asker,
            template=get_template(
                self.template_key(model), self.src.name, self.tgt.name, extra=self.args.languages_file
            ),
            sampling=self.sampling,
            k=self.args.k,
            nearest=nearest,
            select=roomy(self.selector) if self.args.selection_method in selection.BY_QUALITY else self.selector,
            best_by_quality=roomy(self.quality) if self.args.method_translate == "maps" else None,
            nllb=self.nllb if self.args.method_translate == "nllb" else None,
            rest=rest,
            spacy_model=self.args.spacy_model,
            thinks=asker is not None and self._thinks(model),
            notice=self.say,
        )

    def _thinks(self, model: Model) -> bool:
        """Whether the chat template itself opens the model's thoughts, so that an answer begins inside them."""
        if self.style.get(model.path) != CHAT or self.args.inference_api in samplers.REMOTE:
            return False
        tokenizer = samplers.load_tokenizer(self.model_settings(model))
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": "?"}], add_generation_prompt=True, tokenize=False
        )
        return asked.rstrip().endswith("<think>")

    def plan(self, task: Task) -> compositional.Plan:
        args = self.args
        divide = dividers.DIVIDERS[args.method_divide]
        settings = self.division_settings

        def merge_prompts(sentences: list[str], pairs: list[Shots]):
            extra = task.nearest(sentences, args.number_of_merge_demonstrations)
            drafts = None
            if args.merge_prompt == "refine":
                prompts = [task.prompt(*item) for item in zip(task.shots(sentences), sentences, strict=True)]
                drafts = methods.in_order(task.translate(sentences, prompts), len(sentences))
            return merging.prompts(sentences, pairs, drafts, task, args.merge_prompt, extra)

        refine = None
        if args.number_of_refining_steps:
            refine = partial(refining.refine, task=task, steps=args.number_of_refining_steps)
        return compositional.Plan(
            method=self.method,
            divide=lambda sentences: divide(sentences, task, settings),
            merge_prompts=merge_prompts,
            fits=self._fits,
            refine=refine,
            refine_after_merge=args.refine_after_merge,
            steps=args.steps,
        )

    def _fits(self, translations: list[str]) -> list[bool]:
        if self.identifier is None:
            return [True] * len(translations)
        return self.identifier.is_language(translations, self.tgt)

    # Where things are, and what decides them

    def folder(self, model: Model) -> Path:
        """SPEC section 2."""
        args = self.args
        count = "None" if args.number_of_subproblems < 0 else args.number_of_subproblems
        name = (
            f"{self.src.name}_to_{self.tgt.name}_{args.k}_shot_seed_{args.seed}_{args.method_divide}_{args.merge_prompt}_{count}_"
            f"{args.steps}_{args.number_of_refining_steps}"
        )
        return args.output_dir / model.name / plain_name(name, "the folder of a run")

    def metadata(self, model: Model) -> Path:
        return self.args.metadata_dir or self.args.output_dir / model.name

    def settings(self, model: Model) -> dict:
        """What decides the translations, but how many."""
        args = self.args
        pool = [text for pair in self.test_set.pool for text in pair] if self.most_demonstrations else []
        flags = (
            "dataset_name_or_path", "tokenizer_name_or_path", "inference_api", "base_url", "dtype", "k", "spacy_model",
            "retriever_type", "seed", "max_new_tokens", "top_p", "repetition_penalty", "num_return_sequences", "num_beams",
            "selection_method", "method_translate", "number_of_refining_steps", "steps",
        )  # fmt: skip
        found = {
            "model": model.path,
            "base_model": model.base,
            "weights": [fingerprint(path) for path in dict.fromkeys((model.base, model.adapter or model.base))],
            "src": self.src.name,
            "tgt": self.tgt.name,
            "temperature": self.temperature,
            **{name: getattr(args, name) for name in flags},
            "prompt_style": self.style.get(model.path),
            "template_key": self.template_key(model),
            "template_digest": provenance.digest(self._asked(model)),
            "pool_digest": provenance.digest(pool),
            "prompts_digest": provenance.digest([path.read_text(encoding="utf-8") for path in self._prompt_files()]),
        }
        by_quality = args.selection_method in selection.BY_QUALITY or args.method_translate == "maps"
        for decides, name in (
            (args.retriever_type in retrievers.NEEDS_MODEL and self.most_demonstrations, "sonar_name_or_path"),
            (by_quality, "sonar_name_or_path"),
            (by_quality, "blaser_name_or_path"),
        ):
            if decides:
                found[name] = getattr(args, name)
        if args.method_translate == "nllb":
            found |= self.nllb.settings
        if args.steps:
            names = (
                "merge_prompt",
                "number_of_merge_demonstrations",
                "refine_after_merge",
                "lid_model",
                "max_new_tokens_divide",
            )
            found |= {name: getattr(args, name) for name in names} | self.division(model)
        return found

    def _asked(self, model: Model) -> str:
        """What a model is asked for one sentence with one demonstration: it changes when a template is edited."""
        if self.style.get(model.path) == CHAT:
            return json.dumps(chat_prompt(self.src.name, self.tgt.name, [("a", "b")], "c"))
        template = get_template(self.template_key(model), self.src.name, self.tgt.name, extra=self.args.languages_file)
        return template.get_prompt([("a", "b")], "c")

    def _prompt_files(self) -> list[Path]:
        """The files whose words this run says to a model; users edit them."""
        args = self.args
        found = [("methods", args.method_translate.lower())]
        if args.method_translate in ("pos", "morph", "dep", "ner"):
            found = [("methods", "annotated")]
        if args.number_of_refining_steps:
            found.append(("methods", "refine"))
        if args.steps:
            found += [("merge", args.merge_prompt), ("merge", "norefine" if args.merge_prompt == "refine" else "")]
        folder = Path(__file__).parent / "prompts"
        paths = [folder / kind / f"{name}.toml" for kind, name in found]
        return [path for path in paths if path.is_file()]

    def division(self, model: Model) -> dict:
        """What decides how sentences are divided."""
        args = self.args
        names = ["method_divide", "mode_divide", "number_of_subproblems", "number_of_repetitions", "spacy_model"]
        by_model = args.method_divide == "llm"
        if by_model:
            names += ["max_new_tokens_divide", "inference_api", "dtype", "repetition_penalty", "tokenizer_name_or_path"]
        found = {"src": self.src.name, **{name: getattr(args, name) for name in names}}
        if by_model:
            found |= {"divided_by": model.path, "prompt_style": self.style[model.path]}
            path = parts.find("divide", args.mode_divide, "--mode_divide")
            found["divide_prompt_digest"] = provenance.digest(path.read_text(encoding="utf-8"))
        if args.method_divide == "keyword":
            found["pool_of_keywords"] = provenance.digest([source for source, _ in self.test_set.pool])
        return found

    def show_prompts(self) -> int:
        """Print what would be asked first, and where the results would go; no weights are loaded."""
        for model in self.models:
            print(f"{model.path}: {len(self.test_set.sources)} sentences to {self.folder(model)}")
        model = self.models[0]
        if self.asks and not self.args.steps and self.args.method_translate == "vanilla":
            asker = Asker(None, self.style[model.path], None, self.args.seed)
            task = self.task(model, asker)
            sentences = self.test_set.sources[:SHOWN]
            for shots, sentence in zip(task.shots(sentences), sentences, strict=True):
                prompt = task.prompt(shots, sentence)
                text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, indent=2)
                print(f"---\n{printable(text)}\n---")
        return 0


def translate_all(run: Run, command: list[str]) -> int:
    """Translate with every model; the exit code."""
    for model in run.models:  # before hours of work for the first of them
        provenance.check_settings(run.folder(model) / SETTINGS, run.settings(model))
        if run.args.steps:
            check_division(run.metadata(model), run.division(model))
    failed, bars = 0, Bars()
    groups: dict[str, list[Model]] = {}
    for model in run.models:
        groups.setdefault(model.base, []).append(model)
    for models in groups.values():
        sampler = LazySampler(lambda model=models[0]: load(run, model, bars))
        try:
            for model in models:
                sampler.use_adapter(model.adapter)
                failed += translate_one(run, model, sampler, command, bars)
        finally:
            sampler.close()
    return NO_ANSWER if failed else 0


def load(run: Run, model: Model, bars: "Bars"):
    run.say(f"loading {model.base} ({run.args.inference_api})")
    sampler = samplers.load(run.args.inference_api, run.model_settings(model))
    bars.restart()
    return sampler


class Bars:
    """A progress bar for each thing that is asked, named after the stage it belongs to."""

    def __init__(self):
        self.stage, self._bar = "", None

    def begin(self, stage: str) -> None:
        self.stage = stage

    def asked(self, total: int) -> None:
        self.close()
        self._bar = Progress(self.stage, total, "answers")

    def tick(self, n: int) -> None:
        if self._bar is not None:
            self._bar.update(n)

    def restart(self) -> None:
        """Do not count the time that a model took to load."""
        if self._bar is not None:
            self._bar.restart_clock()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def translate_one(run: Run, model: Model, sampler: LazySampler, command: list[str], bars: Bars) -> int:
    """Translate with one model; how many prompts got no answer."""
    folder, started = run.folder(model), provenance.now()
    settings = run.settings(model)
    with OutputLock(folder):
        provenance.check_settings(folder / SETTINGS, settings)
        asker = Asker(
            sampler,
            run.style.get(model.path, "raw"),
            folder / ANSWERS,
            run.args.seed,
            paid=run.args.inference_api in samplers.REMOTE,
            bars=bars,
        )
        try:
            task = run.task(model, asker, rest=sampler.close)
            plan = run.plan(task)
            levels = divide(run, model, plan, bars, asker.why)
            if plan.method is None:
                run.say(
                    f"{len(levels[-1].sentences)} phrases in {run.metadata(model)}/divide_{run.args.steps - 1}.jsonl"
                )
                return len(asker.failures)
            inherited = 0
            if not (folder / SETTINGS).is_file() and (folder / "translate_0.jsonl").is_file():
                inherited = (folder / "translate_0.jsonl").read_bytes().count(b"\n")
                run.say(f"{folder}/translate_0.jsonl has {inherited} lines of another program: they stay as they are")
            more = {"inherited_lines": inherited} if inherited else {}
            provenance.record_settings(folder / SETTINGS, {**settings, **more})
            (folder / MANIFEST).unlink(missing_ok=True)
            found = compositional.translate(levels, plan, task, folder, bars.begin)
            bars.close()
            if run.args.verbose:
                print("\n".join(map(printable, compositional.tree(levels, found, task, plan, 0))))
        finally:
            bars.close()
            asker.close()
        empty = sum(not text for text in found[0])
        # Of each level below the sentences: phrases whose translation is empty or in another language.
        left_out = [
            sum(not (text and fit) for text, fit in zip(texts, plan.fits(texts), strict=True)) for texts in found[1:]
        ]
        write_json(
            folder / MANIFEST,
            {
                "stage": "translate",
                "started": started,
                "finished": provenance.now(),
                "command": command,
                "settings": {**settings, "max_samples": run.args.max_samples},
                "test_set": run.test_set.facts,
                "sentences": len(found[0]),
                "empty_translations": empty,
                "phrases": [len(level.sentences) for level in levels[1:]],
                "inherited_lines": read_json(folder / SETTINGS).get("inherited_lines", 0),
                "phrases_left_out": left_out,
                "answers_cut_at_limit": {str(limit): count for limit, count in asker.cut.items() if count},
                "unanswered": sorted(set(asker.failures.values())),
                "unanswered_prompts": len(asker.failures),
                "versions": provenance.versions(),
            },
        )
    run.say(f"{len(found[0])} translations in {folder}/translate_0.jsonl")
    for level, count in zip(levels[1:], left_out, strict=True):
        if count:
            run.say(
                f"{count} of {len(level.sentences)} phrases were left out: no translation, or none in {run.tgt.name}"
            )
    if cut := asker.cut[run.args.max_new_tokens]:
        run.say(
            f"{cut} answers ended at the {run.args.max_new_tokens} tokens of --max_new_tokens: they may be cut short"
        )
    if asker.failures:
        run.say(
            f"{len(asker.failures)} prompts got no answer ({asker.why()}): translations that depend on them are empty, and the "
            "same command asks again"
        )
    elif empty:
        run.say(f"{empty} translations are empty: the model said nothing")
    return len(asker.failures)


def check_division(folder: Path, settings: dict) -> None:
    """Raise UserError when the divisions in `folder` were made with other settings."""
    if (folder / "divide_0.jsonl").is_file():
        try:
            provenance.check_settings(folder / "settings_divide.json", settings)
        except UserError as error:
            raise UserError(f"{error} (--metadata_dir puts divisions elsewhere)") from None


def fingerprint(name: str) -> str:
    """A digest of a local model's weights, sizes and both ends of each file; "" for a Hub id. Retrained ones differ."""
    found = hashlib.sha256()
    files = sorted(path for kind in ("*.safetensors", "*.bin") for path in Path(name).glob(kind))
    for path in files:
        size = path.stat().st_size
        with open(path, "rb") as file:
            found.update(f"{path.name} {size} ".encode() + file.read(1 << 16))
            file.seek(max(0, size - (1 << 16)))
            found.update(file.read())
    return found.hexdigest()[:16] if files else ""


def divide(
    run: Run, model: Model, plan: compositional.Plan, bars: Bars, why: Callable[[], str]
) -> list[compositional.Level]:
    """The levels of the run; divisions are shared by all that translate from this language."""
    if not plan.steps:
        return compositional.divide(run.test_set.sources, plan, run.metadata(model), bars.begin)
    folder = run.metadata(model)
    with patient_lock(folder, run.say):
        settings = run.division(model)
        check_division(folder, settings)
        if not (folder / "divide_0.jsonl").is_file():
            (folder / "settings_divide.json").unlink(missing_ok=True)  # of a try that divided nothing
        provenance.record_settings(folder / "settings_divide.json", settings)
        levels = compositional.divide(run.test_set.sources, plan, folder, bars.begin, why)
    bars.close()
    return levels


def patient_lock(folder: Path, say: Callable[[str], None], every: float = 5.0) -> OutputLock:
    """The lock of a folder; waits while another run that divides the same sentences holds it."""
    told = False
    while True:
        try:
            return OutputLock(folder)
        except InUse as error:
            if not told:
                say(f"{error}: waiting")
                told = True
            time.sleep(every)
