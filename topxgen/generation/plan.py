"""The settled settings of a datagen.py command line, and what can be prepared and shown without a model."""

import argparse
import logging
from collections import Counter
from functools import cached_property
from pathlib import Path

from topxgen import inference, translation
from topxgen.common import provenance
from topxgen.common.cli import check_filename
from topxgen.common.console import printable
from topxgen.common.errors import UsageError
from topxgen.common.records import Layout
from topxgen.common.registry import Choice
from topxgen.corpora import examples
from topxgen.generation import prompt_templates, scoring, topics
from topxgen.generation.paragraphs import Target, schedule
from topxgen.generation.pipelines.topxgen import TopXGenPrompts
from topxgen.inference.tokenizer import encode, load_tokenizer
from topxgen.text import languages
from topxgen.translation import TranslatorSettings

logger = logging.getLogger(__name__)

PIPELINES = {"topxgen": Choice("", "texts about topics, with example paragraphs in other languages")}
DRY_RUN_PROMPTS = 2


class GenerationConfig:
    """The settled settings of a command line, checked before anything heavy is loaded."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        found = [languages.find(name, args.languages_file) for name in args.languages]
        self.languages = {language.name: language for language in found}
        self.target = languages.find(args.target_language, args.languages_file)
        self.filenames = self._filenames()
        self.back_translator = args.back_translator or ("nllb" if args.use_nllb else "llm")
        # Apertium stands for machines without models; its own confidence costs nothing.
        self.scorer_name = args.scorer or ("confidence" if self.back_translator == "apertium" else "blaser")
        names = {
            "nllb": args.nllb_name_or_path,
            "llm": args.adapter_name_or_path or args.model_name_or_path or "llm",
        }
        default_dir = Path(names.get(self.back_translator, self.back_translator)).name
        self.layout = Layout(args.output_dir, check_filename(args.translate_dir or default_dir, "--translate_dir"))
        if args.num_beams > inference.MAX_BEAMS:
            raise UsageError(f"--num_beams {args.num_beams} is more than {inference.MAX_BEAMS}")
        if 1 < args.num_beams < args.num_return_sequences:
            raise UsageError(
                f"--num_return_sequences {args.num_return_sequences} is more than --num_beams {args.num_beams}"
            )
        if "generate" in args.stages:
            for value, name in (
                (args.model_name_or_path, "--model_name_or_path"),
                (args.seed_topics_path, "--seed_topics_path"),
            ):
                if not value:
                    raise UsageError(f"the generate stage needs {name}")
            if not args.number_of_instructions and not args.number_of_instructions_per_language:
                raise UsageError(
                    "say how many paragraphs: --number_of_instructions or --number_of_instructions_per_language"
                )

    def _filenames(self) -> dict[str, str]:
        names = self.args.output_filenames
        if names is None:
            return {}
        names = [
            check_filename(name if name.endswith(".jsonl") else f"{name}.jsonl", "--output_filenames") for name in names
        ]
        taken = {f"{language}_{kind}.jsonl" for language in self.languages for kind in ("answers", "rejects")}
        if len(names) != len(self.languages) or len(set(names) - taken) != len(names):
            raise UsageError(
                f"--output_filenames needs one distinct name for each of the {len(self.languages)} languages, other than "
                "{Language}_answers and {Language}_rejects"
            )
        return dict(zip(self.languages, names, strict=True))

    def model_settings(self) -> inference.ModelSettings:
        return inference.ModelSettings.from_args(self.args)

    @cached_property
    def translator(self):
        """The back-translator, its model not loaded. Raises UsageError when it cannot be had."""
        args = self.args
        return translation.create(
            self.back_translator,
            TranslatorSettings.from_args(
                args,
                model=self.model_settings() if args.model_name_or_path else None,
                response_cache=self.layout.translation_answers,
            ),
        )

    @cached_property
    def scorer(self):
        """The scorer, its models not loaded; None for --scorer none."""
        if self.scorer_name == "none":
            return None
        args = self.args
        settings = scoring.ScorerSettings(args.blaser_name_or_path, args.sonar_name_or_path, args.scorer_dtype)
        return scoring.create(self.scorer_name, settings)

    def sampling_settings(self, stop: tuple[str, ...]) -> inference.SamplingSettings:
        return inference.SamplingSettings.from_args(self.args, stop=stop)


def prepare_generation(run: GenerationConfig):
    """(prompt builder, template, settings that decide the texts): everything but the model."""
    args = run.args
    template = prompt_templates.load(args.prompt_template) if args.prompt_template else None
    topic_list = topics.read_topics(Path(args.seed_topics_path))
    if template is None or template.style == "chat" or args.inference_api in inference.REMOTE:
        template = fit_template(run, template)
    paragraphs = load_examples(run, "paragraphs")
    sentences = load_examples(run, "sentences")
    texts = template.texts_per_answer or args.number_of_generations_per_step
    builder = TopXGenPrompts(
        template,
        topic_list,
        paragraphs,
        sentences,
        languages=list(run.languages),
        seed=args.seed,
        texts=texts,
        demonstrations=args.number_of_icl_demonstrations,
        phrases=args.number_of_icl_phrases,
    )
    settings = {
        "pipeline": args.data_generation_pipeline,
        "inference_api": args.inference_api,
        "dtype": args.dtype,
        "max_model_len": args.max_model_len,
        "request_batch_size": args.request_batch_size,
        "model": args.model_name_or_path,
        "tokenizer": args.tokenizer_name_or_path,
        "adapter": args.adapter_name_or_path,
        "seed": args.seed,
        "prompt_template": Path(template.path).name,
        "prompt_template_digest": provenance.digest(template.text),
        "topics_digest": provenance.digest(topic_list),
        "example_paragraphs_digest": provenance.digest(
            [name + text for name in paragraphs for text in paragraphs[name]]
        ),
        **{f"example_sentences_digest {name}": provenance.digest(texts) for name, texts in sentences.items()},
        "number_of_icl_demonstrations": args.number_of_icl_demonstrations,
        "number_of_icl_phrases": args.number_of_icl_phrases,
        "texts_per_prompt": texts,
        "threshold": args.threshold,
        "rouge_tokenizer": args.rouge_tokenizer,
        **vars(run.sampling_settings(template.stop)),
        "stop": list(template.stop),
    }
    return builder, template, settings, texts, len(topic_list)


def fit_template(run: GenerationConfig, template):
    """`template`, or by default `instruct` for a model with a chat template and `continuation` for one without."""
    if run.args.inference_api in inference.REMOTE:
        # Nothing can be looked up: chat models, unless the user says otherwise.
        if template is not None and template.style != "chat" and run.args.inference_api in inference.CHAT_ONLY:
            raise UsageError(
                f"{template.path} is for base models, but {run.args.inference_api} has chat models only: pass "
                "--prompt_template instruct"
            )
        return template or prompt_templates.load("instruct")
    try:
        has_chat_template = bool(load_tokenizer(run.model_settings()).chat_template)
    except UsageError as error:
        if not run.args.dry_run:
            raise
        logger.info(f"not checked: {error}")
        has_chat_template = True
    if template is None:
        return prompt_templates.load("instruct" if has_chat_template else "continuation")
    if not has_chat_template:
        raise UsageError(
            f"{template.path} is for chat models, but {run.args.tokenizer_name_or_path or run.args.model_name_or_path} has no "
            "chat template: pass --prompt_template continuation, or the instruction-tuned model"
        )
    return template


def load_examples(run: GenerationConfig, kind: str) -> dict[str, list[str]]:
    """Example paragraphs or sentences by language; a dry run stands in for a source it cannot reach."""
    args = run.args
    try:
        if kind == "paragraphs":
            if not args.number_of_icl_demonstrations:
                return {}
            return examples.example_paragraphs(args.example_paragraphs, args.languages_file)
        if not args.number_of_icl_phrases:
            return {}
        return {
            name: examples.example_sentences(args.example_sentences, language)[: args.max_samples]
            for name, language in run.languages.items()
        }
    except UsageError as error:
        if not args.dry_run:
            raise
        logger.info(f"not checked: {error}")
    if kind == "paragraphs":
        return {
            f"[language {i}]": [f"[an example paragraph, {i}]"] for i in range(1, args.number_of_icl_demonstrations + 1)
        }
    stand_ins = [f"[an example sentence, {i}]" for i in range(1, args.number_of_icl_phrases + 1)]
    return dict.fromkeys(run.languages, stand_ins)


def dry_run(run: GenerationConfig) -> int:
    """Print the plan: the first prompts, their token counts, an estimate of the whole."""
    args = run.args
    print(f"stages: {' -> '.join(args.stages)}; languages: {', '.join(run.languages)}; output: {args.output_dir}")
    if "generate" in args.stages:
        builder, template, _, texts, topic_count = prepare_generation(run, print)
        try:
            if args.inference_api in inference.REMOTE:
                raise UsageError(f"{args.inference_api} does not give its tokenizer away")
            tokenizer = load_tokenizer(run.model_settings())
        except UsageError as error:
            tokenizer = None
            print(f"token counts are guesses (3 characters a token): {error}")
        steps = schedule(tuple(sorted(run.languages)), args.request_batch_size, args.seed)
        sampled = [prompt for _ in range(8) for prompt in next(steps)]
        counts = []
        for i, prompt in enumerate(sampled):
            content, topic = builder.build(prompt)
            text = content if isinstance(content, str) else content[0]["content"]
            count = len(encode(tokenizer, content)) if tokenizer is not None else len(text) // 3
            counts.append(count)
            if i < DRY_RUN_PROMPTS:
                print(f"\n--- prompt {prompt.id}, topic {topic!r}, {count} tokens\n{printable(text)}\n---")
        target = Target(tuple(run.languages), args.number_of_instructions, args.number_of_instructions_per_language)
        wanted = target.missing(Counter())
        least = -(-wanted // (texts * args.num_return_sequences))
        mean = sum(counts) / len(counts)
        print(
            f"\n{wanted} paragraphs wanted, {texts} a prompt: {least} prompts if all are kept, {2 * least} if half are\n"
            f"about {mean:.0f} tokens a prompt: {mean * least / 1e6:.2f} to {2 * mean * least / 1e6:.2f} million prompt tokens, "
            f"at most {2 * least * args.num_return_sequences * args.max_new_tokens / 1e6:.2f} million new ones\n"
            f"template {template.path}, model {args.model_name_or_path} through {args.inference_api}, "
            f"temperature {args.temperature if args.do_sample else 0:g}, seed {args.seed}"
        )
        if 2 * least > topic_count * len(run.languages):
            print(f"{topic_count} topics: more prompts than that in a language use them again")
    if {"translate", "score"} & set(args.stages):
        print(
            f"back-translator {run.back_translator} into {run.target.name}, files in {run.layout.translate_dir}, "
            f"sentences by {args.splitter}, languages by {args.lid_model}, scores by {run.scorer_name}"
        )
        try:
            for language in run.languages.values():
                run.translator.check(language, run.target)
            print(f"back-translator: {run.translator.version}")
        except UsageError as error:
            print(f"not checked: {error}")
    return 0
