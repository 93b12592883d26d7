"""The checked settings of a datagen.py command line, and what --dry_run shows of it."""

import argparse
import logging
from collections import Counter
from functools import cached_property
from pathlib import Path

from topxgen import inference, translation
from topxgen.common.cli import check_filename
from topxgen.common.console import show
from topxgen.common.errors import UsageError
from topxgen.common.records import Layout
from topxgen.common.registry import load_choice
from topxgen.corpora import benchmarks
from topxgen.generation.filters import load_filters
from topxgen.generation.paragraphs import Target
from topxgen.generation.pipelines import PIPELINES
from topxgen.generation.scoring import SCORERS
from topxgen.inference.costs import Meter, Prices
from topxgen.inference.tokenizer import encode, load_tokenizer
from topxgen.text import languages
from topxgen.translation import TranslatorSettings

logger = logging.getLogger(__name__)

DRY_RUN_PROMPTS = 2
# Flags that decide what is generated, besides those of decoding; under other names in settings_generate.json:
# --data_generation_pipeline and those of the model.
GENERATE_FLAGS = (
    "inference_api", "dtype", "max_model_len", "request_batch_size", "seed", "filters", "threshold", "rouge_tokenizer"
)  # fmt: skip


class GenerationConfig:
    """The flags of a command line, checked before anything heavy is loaded, and what they choose."""

    def __init__(self, args: argparse.Namespace):
        """Raises UsageError naming the flag that is wrong or missing."""
        self.args = args
        chosen = [languages.find(name, args.languages_file) for name in args.languages]
        self.languages = {language.name: language for language in chosen}
        self.minimums = self._minimums(chosen)
        self.target_language = languages.find(args.target_language, args.languages_file)
        self.back_translator = args.back_translator or ("nllb" if args.use_nllb else "llm")
        # Apertium is for machines without models; its own confidence costs nothing.
        self.scorer_name = args.scorer or ("confidence" if self.back_translator == "apertium" else "blaser")
        model = {
            "nllb": args.nllb_name_or_path,
            "llm": args.adapter_name_or_path or args.model_name_or_path or "llm",
        }.get(self.back_translator, self.back_translator)
        translate_dir = check_filename(args.translate_dir or Path(model).name, "--translate_dir")
        self.layout = Layout(args.output_dir, translate_dir, self._filenames())
        if args.num_beams > inference.MAX_BEAMS:
            raise UsageError(f"--num_beams {args.num_beams} is more than {inference.MAX_BEAMS}")
        if 1 < args.num_beams < args.num_return_sequences:
            raise UsageError(
                f"--num_return_sequences {args.num_return_sequences} is more than --num_beams {args.num_beams}"
            )
        if "generate" in args.stages:
            if not args.model_name_or_path:
                raise UsageError("the generate stage needs --model_name_or_path")
            if not args.number_of_instructions and not any(self.minimums.values()):
                raise UsageError(
                    "set the number of paragraphs: --number_of_instructions or --number_of_instructions_per_language"
                )

    def _minimums(self, chosen: list[languages.Language]) -> dict[str, int]:
        """The fewest paragraphs to generate in each of the languages as they were given."""
        numbers = self.args.number_of_instructions_per_language or [0]
        if len(numbers) not in (1, len(chosen)):
            raise UsageError(
                f"--number_of_instructions_per_language has {len(numbers)} numbers for {len(chosen)} languages; pass one for all, "
                f"or one for each of {', '.join(language.name for language in chosen)}"
            )
        each = numbers if len(numbers) > 1 else numbers * len(chosen)
        return {language.name: number for language, number in zip(chosen, each, strict=True)}

    def _filenames(self) -> dict[str, str]:
        if self.args.output_filenames is None:
            return {}
        names = [f"{name.removesuffix('.jsonl')}.jsonl" for name in self.args.output_filenames]
        names = [check_filename(name, "--output_filenames") for name in names]
        taken = {f"{language}_{kind}.jsonl" for language in self.languages for kind in ("answers", "rejects")}
        if len(names) != len(self.languages) or len(set(names) - taken) != len(names):
            raise UsageError(
                f"--output_filenames needs one distinct name for each of the {len(self.languages)} languages, other than "
                "{Language}_answers and {Language}_rejects"
            )
        return dict(zip(self.languages, names, strict=True))

    def hub_models(self) -> list[str | None]:
        """The models that the stages of this run load, as far as they are on the Hub."""
        args, translator, models = self.args, self.back_translator, []
        if args.inference_api not in inference.REMOTE and (
            "generate" in args.stages or ("translate" in args.stages and translator == "llm")
        ):
            models += [args.model_name_or_path, args.tokenizer_name_or_path, args.adapter_name_or_path]
        if "translate" in args.stages:
            models += [args.nllb_name_or_path if translator == "nllb" else None, args.lid_model]
        if "score" in args.stages and self.scorer_name == "blaser":
            models += [args.blaser_name_or_path, args.sonar_name_or_path]
        return models

    def hub_datasets(self) -> list[str | None]:
        args = self.args
        sources = [args.example_paragraphs] if args.number_of_icl_demonstrations else []
        sources += [args.example_sentences] if args.number_of_icl_phrases else []
        sources = sources if "generate" in args.stages else []
        if "translate" in args.stages and self.back_translator == "llm" and args.number_of_demonstrations:
            sources.append(args.demonstration_pool)
        return [benchmarks.REPOS.get(source) for source in sources]

    @property
    def locked_parts(self) -> list[str]:
        """What no other process may work on: the languages, and files that --output_filenames names."""
        return sorted({*self.languages, *(self.layout.paragraphs(name).stem for name in self.languages)})

    def model_settings(self) -> inference.ModelSettings:
        log = None if self.args.inference_api in inference.REMOTE else self.args.output_dir / inference.ENGINE_LOG
        return inference.ModelSettings.from_args(self.args, engine_log=log)

    def sampling_settings(self) -> inference.SamplingSettings:
        return inference.SamplingSettings.from_args(self.args, stop=self.pipeline.stop)

    @cached_property
    def pipeline(self):
        """The generation pipeline. Raises UsageError if its topics, templates or examples cannot be read."""
        name = self.args.data_generation_pipeline
        return load_choice("--data_generation_pipeline", name, PIPELINES)(self)

    @cached_property
    def filters(self) -> dict:
        return load_filters(self.args.filters)

    @cached_property
    def target(self) -> Target:
        return Target(tuple(sorted(self.languages)), self.args.number_of_instructions, self.minimums)

    def generate_settings(self) -> dict:
        """What decides the paragraphs, by the names in settings_generate.json."""
        args, sampling = self.args, self.sampling_settings()
        return {
            "pipeline": args.data_generation_pipeline,
            "model": args.model_name_or_path,
            "tokenizer": args.tokenizer_name_or_path,
            "adapter": args.adapter_name_or_path,
            **{flag: getattr(args, flag) for flag in GENERATE_FLAGS},
            **self.pipeline.settings,
            **vars(sampling),
            "stop": list(sampling.stop),
            "decoding": inference.decoding(args.inference_api, self.model_settings()),
        }

    @cached_property
    def translator(self):
        """The back-translator, its model not loaded. Raises UsageError if it is not available."""
        return translation.create(
            self.back_translator,
            TranslatorSettings.from_args(
                self.args,
                model=self.model_settings() if self.args.model_name_or_path else None,
                response_cache=self.layout.translation_responses,
                earlier_responses=self.layout.shared_translation_responses,
                meter=self.meter,
            ),
        )

    @cached_property
    def meter(self) -> Meter:
        """What the folder's responses cost, those of earlier runs and of all languages included."""
        meter = Meter(Prices.of(self.args.prices), self.args.budget)
        for stage, paths in self.layout.all_responses().items():
            meter.add_files(stage, paths)
        return meter

    @cached_property
    def scorer(self):
        """The scorer, its models not loaded; None for --scorer none."""
        return load_choice("--scorer", self.scorer_name, SCORERS)(self.args)


def dry_run(config: GenerationConfig) -> int:
    """Print the plan: the first prompts, their token counts, an estimate of the whole."""
    args = config.args
    show(f"stages: {' -> '.join(args.stages)}; languages: {', '.join(config.languages)}; output: {args.output_dir}")
    if "generate" in args.stages:
        _show_generation(config)
    if {"translate", "score"} & set(args.stages):
        show(
            f"back-translator {config.back_translator} into {config.target_language.name}, files in "
            f"{config.layout.translate_dir}, sentences by {args.splitter}, languages by {args.lid_model}, scores by "
            f"{config.scorer_name}"
        )
        try:
            for language in config.languages.values():
                config.translator.check(language, config.target_language)
            show(f"back-translator: {config.translator.version}")
        except UsageError as error:
            show(f"not checked: {error}")
    return 0


def _show_generation(config: GenerationConfig) -> None:
    args, pipeline = config.args, config.pipeline
    try:
        if args.inference_api in inference.REMOTE:
            raise UsageError(f"{args.inference_api} does not publish its tokenizer")
        tokenizer = load_tokenizer(config.model_settings())
    except UsageError as error:
        tokenizer = None
        show(f"token counts are estimates (3 characters a token): {error}")
    steps = pipeline.schedule(config.target.languages, args.request_batch_size, args.seed)
    counts = []
    for prompt in [prompt for _, step in zip(range(8), steps, strict=False) for prompt in step]:
        if (built := pipeline.build(prompt)) is None:
            break
        content, topic = built
        text = content if isinstance(content, str) else content[0]["content"]
        count = len(encode(tokenizer, content)) if tokenizer is not None else len(text) // 3
        counts.append(count)
        if len(counts) <= DRY_RUN_PROMPTS:
            show(f"\n--- prompt {prompt.id}, topic {topic!r}, {count} tokens\n{text}\n---")
    wanted = config.target.missing(Counter())
    least = -(-wanted // (pipeline.texts_per_prompt * args.num_return_sequences))
    mean = sum(counts) / max(len(counts), 1)
    most_new = 2 * least * args.num_return_sequences * args.max_new_tokens / 1e6
    show(
        f"\n{wanted} paragraphs wanted, {pipeline.texts_per_prompt} a prompt: {least} prompts if all are kept, "
        f"{2 * least} if half are\nabout {mean:.0f} tokens a prompt: {mean * least / 1e6:.2f} to "
        f"{2 * mean * least / 1e6:.2f} million prompt tokens, at most {most_new:.2f} million new ones\n"
        f"{pipeline.summary}\nmodel {args.model_name_or_path} through {args.inference_api}, temperature "
        f"{args.temperature if args.do_sample else 0:g}, seed {args.seed}"
    )
