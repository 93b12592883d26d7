"""The command line of main.py, settled: every check that needs no model, and the parts that a run is made of."""

import argparse
import json
import logging
from collections import Counter
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

from comptra import candidate_selection, evaluation_sets, methods, models, prompts
from comptra.compositional import divide, merge, translate
from comptra.llm_calls import LLMClient
from comptra.methods import Shots, Task, vanilla
from comptra.methods import refine as refining
from comptra.models import Model
from topxgen import inference, retrieval, translation
from topxgen.common import provenance
from topxgen.common.cli import check_filename
from topxgen.common.errors import UsageError
from topxgen.common.registry import load_choice
from topxgen.inference.tokenizer import load_tokenizer
from topxgen.prompting import toml_prompts
from topxgen.prompting.mt_templates import MTTemplate, chat_prompt, get_template
from topxgen.prompting.style import CHAT, RAW
from topxgen.text import language_id, languages
from topxgen.translation import TranslatorSettings

logger = logging.getLogger(__name__)


class EvaluationConfig:
    """A command line whose values all hold. Raises UsageError before any model is loaded; nothing is written."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self._tokenizers: dict[str, object] = {}
        self.src, self.tgt = (languages.find(name, args.languages_file) for name in (args.src, args.tgt))
        if self.src.flores == self.tgt.flores:
            raise UsageError(f"--src and --tgt are both {self.src.name}; choose two languages")
        # What never asks an LLM needs none.
        self.asks = not (args.method_translate == "nllb" and not args.steps and not args.number_of_refining_steps)
        self._check_numbers()
        self.models = models.settled(args, self.asks)
        for model in self.models:
            self.template(model)
        self.test_set = evaluation_sets.load(
            args.dataset_name_or_path,
            self.src,
            self.tgt,
            folder=args.benchmark_dir,
            max_samples=args.max_samples,
            data_dir=args.data_dir,
            test_files=args.test_files and tuple(args.test_files),
            pool_files=args.demonstration_pool and tuple(args.demonstration_pool),
            need_pool=bool(self.most_demonstrations or self._divides_by_pool),
        )
        if (self.test_set.facts.get("pool") or {}).get("decontaminated") is False:
            logger.warning(
                "the pool was not decontaminated (no _translate_filtered.jsonl): it may hold the test set; run "
                "decontamination.py"
            )
        if self._divides_by_pool and not self.test_set.pool:
            logger.info(
                "--method_divide keyword: there is no pool that would tell rare words, so long ones are taken for them"
            )
        self._check_pool()
        if self.asks:
            inference.check(args.inference_api, self.model_settings(self.models[0]), self.sampling)
        self.style = models.styles(self.models, args, self.model_settings, self.template) if self.asks else {}
        if args.method_translate == "nllb":
            self.nllb.check(self.src, self.tgt)
        self.identifier = language_id.load(args.lid_model) if args.steps else None
        if args.steps and not self.identifier.knows(self.tgt):
            logger.info(
                f"{args.lid_model} cannot tell {self.tgt.name}: phrase translations are not checked by language"
            )
            self.identifier = None
        self._check_choices()

    def _check_numbers(self) -> None:
        args = self.args
        if args.number_of_subproblems == 0 or args.number_of_subproblems < -1:
            raise UsageError(
                f"--number_of_subproblems {args.number_of_subproblems}: a number of phrases, or -1 for all"
            )
        if args.num_beams > inference.MAX_BEAMS:
            raise UsageError(f"--num_beams {args.num_beams} is more than {inference.MAX_BEAMS}")
        if 1 < args.num_beams < args.num_return_sequences:
            raise UsageError(
                f"--num_return_sequences {args.num_return_sequences} is more than --num_beams {args.num_beams}"
            )
        if args.num_return_sequences > 1 and args.num_beams == 1 and not self.temperature:
            raise UsageError(
                f"--num_return_sequences {args.num_return_sequences}: greedy decoding gives one answer; pass --temperature "
                "above 0, or --num_beams"
            )
        if args.num_return_sequences == 1 and args.selection_method != "greedy" and args.method_translate != "maps":
            raise UsageError(
                f"--selection_method {args.selection_method} has nothing to choose from: pass --num_return_sequences 4 or so"
            )
        if args.num_beams > 1 and args.inference_api == "vllm" and args.repetition_penalty != 1:
            raise UsageError(
                f"--repetition_penalty {args.repetition_penalty:g}: vLLM's beam search has none; pass 1, or --inference_api hf"
            )
        if args.method_translate == "maps" and args.selection_method in ("bleu", "chrf"):
            raise UsageError(
                f"--selection_method {args.selection_method}: maps chooses by quality estimation; pass blaser or comet-qe"
            )
        if not self.asks and (args.num_beams > 1 or args.num_return_sequences > 1 or args.selection_method != "greedy"):
            raise UsageError(
                "--method_translate nllb decodes in its own way and gives one translation: leave out --num_beams, "
                "--num_return_sequences and --selection_method, which are for LLMs"
            )
        if args.refine_after_merge and not (args.steps and args.number_of_refining_steps):
            raise UsageError("--refine_after_merge needs --steps and --number_of_refining_steps of 1 or more")
        if (
            args.metadata_dir
            and args.steps
            and args.method_divide == "llm"
            and len(set(args.model_name_or_path or ())) > 1
        ):
            raise UsageError(
                f"--metadata_dir {args.metadata_dir} holds the divisions of one model, and --method_divide llm has each of "
                f"{len(set(args.model_name_or_path))} models divide: leave it out, or run them one by one"
            )
        if args.method_translate == "none" and not args.steps:
            raise UsageError("--method_translate none only divides: pass --steps 1 or more")

    def _check_pool(self) -> None:
        wanted, pool = self.most_demonstrations, Counter(source for source, _ in self.test_set.pool)
        if not wanted:
            return
        count = pool.total()
        equal = max(pool[sentence] for sentence in self.test_set.sources)  # no sentence is shown its own translation
        if wanted > count - equal:
            flag = "--k" if wanted == self.args.k else "--number_of_merge_demonstrations"
            raise UsageError(
                f"{flag} {wanted} is more than the {count} pairs of the pool of {self.args.dataset_name_or_path}"
                + (f" ({equal} of them with a sentence that is to be translated)" if equal else "")
                + "; ask for fewer, or choose another data set"
            )

    def _check_choices(self) -> None:
        """What the method, the retriever, the selection and the division need beyond models: let them say."""
        task = self.task(self.models[0], asker=None)  # which makes the selectors
        methods.check(self.args.method_translate, task)
        if self.most_demonstrations:
            self._retriever  # noqa: B018 (built here, so that what it lacks is told now)
        asks_in_words = self.args.method_translate in methods.IN_WORDS or self.args.number_of_refining_steps
        if asks_in_words and RAW in self.style.values():
            logger.info(
                "cot, maps, step_by_step, TEaR and refining ask in words, which a model without a chat template rarely follows: "
                "look at some answers first"
            )
        if self.args.number_of_refining_steps:
            refining.check(task)
        if self.args.steps:
            merge.check(self.args.merge_prompt)
            divide.check(self.args.method_divide, self.src, self.division_settings)

    @property
    def temperature(self) -> float:
        return self.args.temperature if self.args.do_sample else 0.0

    @property
    def most_demonstrations(self) -> int:
        args = self.args
        shots = args.method_translate in methods.WITH_SHOTS or (args.steps and args.merge_prompt == merge.REFINE)
        return max(args.k if shots else 0, args.number_of_merge_demonstrations if args.steps else 0)

    @property
    def _divides_by_pool(self) -> bool:
        return bool(self.args.steps) and self.args.method_divide == "keyword"

    # Parts

    def template(self, model: Model) -> MTTemplate:
        key = model.template_key(self.args.template_key)
        return get_template(key, self.src.name, self.tgt.name, extra=self.args.languages_file)

    def model_settings(self, model: Model) -> inference.ModelSettings:
        adapted = any(other.adapter and other.base == model.base for other in self.models)
        return inference.ModelSettings.from_args(self.args, model_name_or_path=model.base, reserve_lora=adapted)

    @property
    def sampling(self) -> inference.SamplingSettings:
        return inference.SamplingSettings.from_args(self.args)

    @cached_property
    def nllb(self):
        return translation.create("nllb", TranslatorSettings.from_args(self.args))

    @cached_property
    def _retriever(self):
        args = self.args
        settings = retrieval.RetrieverSettings.from_args(args)
        return retrieval.create(args.retriever_type, [source for source, _ in self.test_set.pool], self.src, settings)

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
    def division_settings(self) -> divide.DividerSettings:
        args = self.args
        return divide.DividerSettings(
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
        return self._selector(chosen if chosen in candidate_selection.BY_QUALITY else "blaser")

    def _selector(self, name: str):
        args = self.args
        settings = candidate_selection.SelectionSettings(
            blaser=args.blaser_name_or_path,
            sonar=args.sonar_name_or_path,
            comet_python=args.comet_python,
            scores_dir=self.folder(self.models[0]),  # which is locked
        )
        return candidate_selection.create(name, self.src, self.tgt, settings)

    def task(self, model: Model, asker: LLMClient | None, rest: Callable[[], None] = lambda: None) -> Task:
        """`rest` gives the LLM's memory back before other models are loaded."""

        def with_llm_released(select):
            if select is None:
                return None
            return lambda sentences, candidates: (rest(), select(sentences, candidates))[1]

        def nearest(sentences: list[str], k: int) -> list[Shots]:
            if self.args.retriever_type in retrieval.NEEDS_MODEL:
                rest()
            return self.nearest(sentences, k)

        return Task(
            src=self.src,
            tgt=self.tgt,
            asker=asker,
            template=self.template(model),
            sampling=self.sampling,
            k=self.args.k,
            nearest=nearest,
            select=with_llm_released(self.selector)
            if self.args.selection_method in candidate_selection.BY_QUALITY
            else self.selector,
            best_by_quality=with_llm_released(self.quality) if self.args.method_translate == "maps" else None,
            nllb=self.nllb if self.args.method_translate == "nllb" else None,
            rest=rest,
            spacy_model=self.args.spacy_model,
            thinks=asker is not None and self._thinks(model),
        )

    def _thinks(self, model: Model) -> bool:
        """Whether the chat template itself opens the model's thoughts, so that an answer begins inside them."""
        if self.style.get(model.path) != CHAT or self.args.inference_api in inference.REMOTE:
            return False
        asked = self._tokenizer(model).apply_chat_template(
            [{"role": "user", "content": "?"}], add_generation_prompt=True, tokenize=False
        )
        return asked.rstrip().endswith("<think>")

    def plan(self, task: Task) -> translate.Plan:
        args = self.args
        divide_all = load_choice("--method_divide", args.method_divide, divide.DIVIDERS)
        settings = self.division_settings

        def merge_prompts(sentences: list[str], pairs: list[Shots]):
            extra = task.nearest(sentences, args.number_of_merge_demonstrations)
            drafts, lacking = None, set()
            if args.merge_prompt == merge.REFINE:
                drafts = methods.in_order(vanilla.translate(sentences, task), len(sentences))
                lacking = methods.unanswered(drafts)
            return merge.prompts(sentences, pairs, drafts, task, args.merge_prompt, extra), lacking

        refine = None
        if args.number_of_refining_steps:
            refine = partial(refining.refine, task=task, steps=args.number_of_refining_steps)
        return translate.Plan(
            method=self.method,
            divide=lambda sentences: divide_all(sentences, task, settings),
            merge_prompts=merge_prompts,
            fits=self._fits,
            refine=refine,
            refine_after_merge=args.refine_after_merge,
            steps=args.steps,
            with_shots=args.method_translate in methods.WITH_SHOTS,
            keep_drafts=args.method_translate == "nllb",
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
        return args.output_dir / model.name / check_filename(name, "the folder of a run")

    def metadata(self, model: Model) -> Path:
        return self.args.metadata_dir or self.args.output_dir / model.name

    def settings(self, model: Model) -> dict:
        """What decides the translations, but how many."""
        args = self.args
        pool = [text for pair in self.test_set.pool for text in pair] if self.most_demonstrations else []
        flags = ["dataset_name_or_path", "k", "seed", "method_translate", "number_of_refining_steps", "steps"]
        if self.asks:
            flags += [
                "inference_api", "base_url", "dtype", "spacy_model", "retriever_type", "max_new_tokens", "top_p",
                "repetition_penalty", "num_return_sequences", "num_beams", "selection_method",
            ]  # fmt: skip
        found = {
            "model": models.identity(model.path),
            "base_model": models.identity(model.base),
            "weights": self._weights(model),
            "src": self.src.name,
            "tgt": self.tgt.name,
            "temperature": self.temperature,
            **{name: getattr(args, name) for name in flags},
            **self._models_of("tokenizer_name_or_path"),
            "prompt_style": self.style.get(model.path),
            "template_key": Path(self.template(model).key).name,  # of a file; its words are digested
            "template_digest": provenance.digest(self._asked(model)),
            "pool_digest": provenance.digest(pool),
            "prompts_digest": provenance.digest([path.read_text(encoding="utf-8") for path in self._prompt_files()]),
        }
        by_quality = args.selection_method in candidate_selection.BY_QUALITY or args.method_translate == "maps"
        if by_quality or (args.retriever_type in retrieval.NEEDS_MODEL and self.most_demonstrations):
            found |= self._models_of("sonar_name_or_path")
        if by_quality:
            found |= self._models_of("blaser_name_or_path")
        if args.method_translate == "nllb":
            found |= self.nllb.settings | self._models_of("nllb_name_or_path")
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

    def _models_of(self, flag: str) -> dict:
        """A model that is named by a flag, and its weights where it lies on this machine."""
        name = getattr(self.args, flag)
        if name is None:
            return {flag: None}
        found = {flag: models.identity(name)}
        if digest := models.fingerprint(name):
            found[f"{flag.removesuffix('_name_or_path')}_weights"] = digest
        return found

    def _weights(self, model: Model) -> list[str]:
        return [models.fingerprint(path) for path in dict.fromkeys((model.base, model.adapter or model.base))]

    def _asked(self, model: Model) -> str:
        """What a model is asked for one sentence with one demonstration: it changes when a template is edited."""
        if self.style.get(model.path) == CHAT:
            messages = chat_prompt(self.src.name, self.tgt.name, [("a", "b")], "c")
            return json.dumps([messages, self._chat_template(model)])
        return self.template(model).get_prompt([("a", "b")], "c")

    def _tokenizer(self, model: Model):
        """Of a model on this machine."""
        if model.base not in self._tokenizers:
            self._tokenizers[model.base] = load_tokenizer(self.model_settings(model))
        return self._tokenizers[model.base]

    def _chat_template(self, model: Model) -> str:
        """Its text, since what it makes of messages may hold the day's date; "" where a server has it."""
        if self.args.inference_api in inference.REMOTE:
            return ""
        return json.dumps(self._tokenizer(model).chat_template)

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
        paths = [prompts.FOLDER / kind / f"{name}.toml" for kind, name in found]
        return [path for path in paths if path.is_file()]

    def division(self, model: Model) -> dict:
        """What decides how sentences are divided."""
        args = self.args
        names = ["method_divide", "mode_divide", "number_of_subproblems", "number_of_repetitions", "spacy_model"]
        by_model = args.method_divide == "llm"
        if by_model:
            names += ["max_new_tokens_divide", "inference_api", "dtype", "repetition_penalty"]
        found = {"src": self.src.name, **{name: getattr(args, name) for name in names}}
        if by_model:
            found |= self._models_of("tokenizer_name_or_path")
            found |= {"divided_by": models.identity(model.path), "weights": self._weights(model)}
            found["prompt_style"] = self.style[model.path]
            if self.style[model.path] == CHAT:
                found["chat_template_digest"] = provenance.digest(self._chat_template(model))
            path = toml_prompts.find(prompts.FOLDER / "divide", args.mode_divide, "--mode_divide")
            found["divide_prompt_digest"] = provenance.digest(path.read_text(encoding="utf-8"))
        if args.method_divide == "keyword":
            found["pool_of_keywords"] = provenance.digest([source for source, _ in self.test_set.pool])
        return found
