"""The checked settings of a datagen.py command line, and what --dry_run shows of it."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property

from topxgen import inference, translation
from topxgen.common import needs, provenance, shards
from topxgen.common.cli import check_filename
from topxgen.common.errors import UsageError
from topxgen.common.needs import Need
from topxgen.common.records import Layout, back_translator_of, default_translate_dir, scorer_of, selector_of
from topxgen.common.registry import load_choice
from topxgen.corpora import benchmarks
from topxgen.corpora.monolingual import TextSource, hub_id, open_sources
from topxgen.generation import checks, native, scoring, sharded
from topxgen.generation.candidates import SELECTORS
from topxgen.generation.filters import load_filters
from topxgen.generation.paragraphs import Target
from topxgen.generation.pipelines import PIPELINES, Pipeline, Prompt
from topxgen.inference.costs import Meter, Prices
from topxgen.quality import blaser, mt5, sonar
from topxgen.text import language_id, languages
from topxgen.translation import TranslatorSettings, apertium

# Flags that decide what is generated, besides those of decoding; under other names in settings_generate.json:
# --data_generation_pipeline and those of the model.
GENERATE_FLAGS = (
    "inference_api", "dtype", "max_model_len", "request_batch_size", "seed", "threshold", "rouge_tokenizer",
    "dedup_prefilter",
)  # fmt: skip


# What scores pairs or chooses among candidates, and loads a model for it.
JUDGES: dict[str, Callable[[argparse.Namespace], list[Need]]] = {
    "blaser": lambda args: blaser.needs(args.blaser_name_or_path, args.sonar_name_or_path),
    "metricx-qe": lambda args: mt5.needs(args.metricx_name_or_path),
}


class GenerationConfig:
    """The flags of a command line, checked before anything heavy is loaded, and what they choose."""

    def __init__(self, args: argparse.Namespace):
        """Raises UsageError naming the flag that is wrong or missing."""
        self.args, self.whole_dir = args, args.output_dir
        self.shard = shards.chosen(args)
        if self.shard is not None:
            args.output_dir = self.shard.folder(args.output_dir)
        chosen = [languages.find(name, args.languages_file) for name in args.languages]
        self.languages = {language.name: language for language in chosen}
        if len(self.languages) < len(chosen):
            raise UsageError(f"--languages names a language twice: {', '.join(language.name for language in chosen)}")
        self.minimums = self._minimums(chosen)
        self.target_language = languages.find(args.target_language, args.languages_file)
        if self.target_language.name in self.languages and not {"translate", "score"}.isdisjoint(args.stages):
            raise UsageError(
                f"{self.target_language.name} is one of the --languages and the --target_language, which they are translated into: "
                "pass another one"
            )
        flags = vars(args)
        self.back_translator, self.scorer_name = back_translator_of(flags), scorer_of(flags)
        self.selector_name = selector_of(flags)
        translate_dir = check_filename(args.translate_dir or default_translate_dir(flags), "--translate_dir")
        self.layout = Layout(args.output_dir, translate_dir, self._filenames())
        self.whole = replace(self.layout, output_dir=self.whole_dir)  # of which a shard is a part
        if self.shard is not None and "generate" not in args.stages:
            of_whole = replace(self.layout, translates_taken=True)
            if "translate" in args.stages:
                taken = sharded.reads_merged(self.whole, self.layout, list(self.languages))
            else:
                taken = all(of_whole.paragraphs(name).exists() for name in self.languages)
            self.layout = of_whole if taken else self.layout
        if args.num_beams > inference.MAX_BEAMS:
            raise UsageError(f"--num_beams {args.num_beams} is more than {inference.MAX_BEAMS}")
        _ = self.meter.prices  # raises for a --budget without --prices
        if 1 < args.num_beams < args.num_return_sequences:
            raise UsageError(
                f"--num_return_sequences {args.num_return_sequences} is more than --num_beams {args.num_beams}"
            )
        if "generate" in args.stages and args.threshold is None:
            args.threshold = self.pipeline_class.threshold
        if "generate" in args.stages and args.paragraphs and args.number_of_instructions and len(chosen) > 1:
            raise UsageError(
                "--number_of_instructions with --paragraphs is for one language: pass --number_of_instructions_per_language"
            )
        checks.check_needed(args)
        if self.shard is not None and self.prompts and self.pipeline_class.judged is not Pipeline.judged:
            raise UsageError(
                f"--num_shards: prompts of --data_generation_pipeline {args.data_generation_pipeline} show earlier texts, so that they "
                "cannot be split into shards; run one process for each language, all with the same --output_dir"
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
        each = each if self.shard is None else map(self.shard.share, each)
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

    def needs(self) -> list[Need]:
        """What the stages of this run load that does not come with the package."""
        args, translator, found = self.args, self.back_translator, []
        translates, is_local = "translate" in args.stages, args.inference_api not in inference.REMOTE
        if is_local and (self.prompts or (translates and translator == "llm")):
            names = args.adapter_name_or_path, args.model_name_or_path
            found += needs.models(*names, tokenizer=args.tokenizer_name_or_path)
        if self.prompts and checks.encodes_with_sonar(args):
            found += sonar.needs(args.sonar_name_or_path)
        if translates:
            found += language_id.needs(args.lid_model)
            found += needs.models(args.nllb_name_or_path if translator == "nllb" else None)
            if translator == "apertium":
                found += [apertium.need(source, self.target_language) for source in self.languages.values()]
        judges = {self.scorer_name} if "score" in args.stages else set()
        judges |= {self.selector_name} if translates else set()
        for judge, of_judge in JUDGES.items():
            if judge in judges:
                is_optional = not translates or judge != self.selector_name
                found += [replace(need, instead="--scorer none" * is_optional) for need in of_judge(args)]
        return found + self._needed_texts()

    def _needed_texts(self) -> list[Need]:
        args, own = self.args, list(self.languages.values())
        paragraphs = [args.example_paragraphs] if args.number_of_icl_demonstrations else []
        sentences = [args.example_sentences] if args.number_of_icl_phrases else []
        if checks.grows_from_seeds(args):
            paragraphs, sentences = [], [args.example_sentences]
        elif args.data_generation_pipeline != "topxgen":
            paragraphs = sentences = []  # one of the user's own may show other examples, or none
        found = []
        if self.prompts:
            shown = [languages.find(flores) for flores in benchmarks.XQUAD_CODES]
            found += [need for name in paragraphs for need in benchmarks.needs(name, shown)]
            found += [need for name in sentences for need in benchmarks.needs(name, own)]
        if "translate" in args.stages and self.back_translator == "llm" and args.number_of_demonstrations:
            found += benchmarks.needs(args.demonstration_pool, [*own, self.target_language])
        if "generate" in args.stages:
            found += [Need(needs.DATASET, repo) for name in args.paragraphs or () if (repo := hub_id(name))]
        return found

    @property
    def prompts(self) -> bool:
        """Whether the generate stage prompts an LLM, rather than take --paragraphs."""
        return "generate" in self.args.stages and not self.args.paragraphs

    @property
    def limited(self) -> bool:
        """Whether a number of paragraphs is wanted; else all of --paragraphs."""
        return bool(self.args.number_of_instructions or any(self.minimums.values()))

    @cached_property
    def sources(self) -> dict[str, TextSource]:
        """--paragraphs by language. Raises UsageError."""
        return open_sources(self.args.paragraphs, list(self.languages.values()))

    @property
    def locked_parts(self) -> list[str]:
        """What no other process may work on: the languages, and files that --output_filenames names."""
        return sorted({*self.languages, *(self.layout.paragraphs(name).stem for name in self.languages)})

    def lock_note(self, part: str) -> dict:
        """What those who look at the run may want to know: how many paragraphs it aims at, and what tokens cost."""
        args, alone = self.args, len(self.languages) == 1
        note: dict = {
            "stages": list(args.stages),
            "translate_dir": str(self.layout.translate_dir),
            "prices": args.prices,
        }
        if "generate" in args.stages and part in self.languages:
            total = native.total(self) if args.paragraphs else self.target.paragraphs
            note |= {"paragraphs": total if alone else self.minimums[part] or None, "paragraphs_of_all": total}
        return note

    def model_settings(self) -> inference.ModelSettings:
        log = None if self.args.inference_api in inference.REMOTE else self.args.output_dir / inference.ENGINE_LOG
        return inference.ModelSettings.from_args(self.args, engine_log=log)

    def sampling_settings(self) -> inference.SamplingSettings:
        return inference.SamplingSettings.from_args(self.args, stop=self.pipeline.stop)

    @cached_property
    def pipeline_class(self) -> type:
        return load_choice("--data_generation_pipeline", self.args.data_generation_pipeline, PIPELINES)

    @cached_property
    def pipeline(self):
        """The generation pipeline. Raises UsageError if its topics, templates or examples cannot be read."""
        return self.pipeline_class(self)

    @property
    def filter_names(self) -> list[str]:
        return self.args.filters or list(self.pipeline_class.filters)

    @cached_property
    def filters(self) -> dict:
        return load_filters(self.filter_names)

    @cached_property
    def target(self) -> Target:
        total = self.args.number_of_instructions
        total = total if self.shard is None else self.shard.share(total)
        if self.prompts and self.pipeline_class.ends and not self.limited:  # all that the schedule can bring
            total = self.pipeline.prompts * self.args.num_return_sequences
        return Target(tuple(sorted(self.languages)), total, self.minimums)

    def steps(self) -> Iterator[list[Prompt]]:
        """The prompts that this run sends, step by step: those of one run, or a shard's part of them.

        Of N steps of one run a shard has about as many prompts as one step has, and they count as one.
        """
        args, shard = self.args, self.shard
        whole = self.pipeline.schedule(self.target.languages, args.request_batch_size, args.seed)
        if shard is None:
            yield from whole
            return
        for step in whole:
            if own := [replace(one, step=one.step // shard.count) for one in step if shard.takes(one.number)]:
                yield own

    @property
    def shard_setting(self) -> dict[str, str]:
        """In a shard's settings, so that no folder serves two."""
        if self.shard is None:
            return {}
        return {shards.SETTING: self.shard.name + self.layout.translates_taken * " of the whole"}

    def generate_settings(self) -> dict:
        """What decides the paragraphs, by the names in settings_generate.json."""
        rows = {f"language {one.name}": languages.row_id(one) for one in self.languages.values()}
        return self._generate_settings() | rows | self.shard_setting

    def _generate_settings(self) -> dict:
        args = self.args
        if args.paragraphs:
            cleaning = {"filters": self.filter_names}
            cleaning |= {flag: getattr(args, flag) for flag in ("threshold", "rouge_tokenizer", "dedup_prefilter")}
            sources = {f"paragraphs {name}": source.fingerprint for name, source in self.sources.items()}
            own_code = provenance.code_of(filters=self.filter_names, dedup_prefilter=[args.dedup_prefilter])
            return {"pipeline": "paragraphs", **cleaning, **own_code, **sources}
        sampling = self.sampling_settings()
        return {
            "pipeline": args.data_generation_pipeline,
            "model": args.model_name_or_path,
            "tokenizer": args.tokenizer_name_or_path,
            "adapter": args.adapter_name_or_path,
            **provenance.weights_of(model=args.model_name_or_path, adapter=args.adapter_name_or_path),
            **provenance.config_of(tokenizer=args.tokenizer_name_or_path),
            **{flag: getattr(args, flag) for flag in GENERATE_FLAGS},
            "filters": self.filter_names,
            **provenance.code_of(
                pipeline=[args.data_generation_pipeline],
                filters=self.filter_names,
                dedup_prefilter=[args.dedup_prefilter],
                inference_api=[args.inference_api],
            ),
            **self.pipeline.settings,
            **vars(sampling),
            "stop": list(sampling.stop),
            "decoding": inference.decoding(args.inference_api, self.model_settings()),
        }

    def translate_settings(self) -> dict:
        """What decides the pairs, by the names in settings_translate.json; after the translator's `check` of the languages."""
        args = self.args
        rows = {
            f"language {one.name}": languages.row_id(one) for one in (*self.languages.values(), self.target_language)
        }
        return {
            "back_translator": self.back_translator,
            "target_language": self.target_language.name,
            "splitter": args.splitter,
            "lid_model": args.lid_model,
            **provenance.weights_of(lid_model=args.lid_model),
            **provenance.code_of(
                back_translator=[self.back_translator],
                splitter=[args.splitter],
                select_by=[self.selector_name],
                nllb_engine=[args.nllb_engine],
                inference_api=[args.inference_api if self.back_translator == "llm" else None],
            ),
            **rows,
            "number_of_candidates": args.number_of_candidates,
            "select_by": None if self.selector is None else self.selector.id,
            **_version_of("select_by", self.selector),
            **self.translator.settings,
            **self.shard_setting,
        }

    def score_settings(self) -> dict:
        """What decides the scores, and which pairs they drop."""
        return {
            "scorer": "none" if self.scorer is None else self.scorer.id,
            **self.scorer_version,
            "min_score": self.args.min_score,
        }

    @cached_property
    def scorer_version(self) -> dict:
        """Digests of its weights, configuration and code, which its id does not name."""
        return {**_version_of("scorer", self.scorer), **provenance.code_of(scorer=[self.scorer_name])}

    @cached_property
    def translator(self):
        """The back-translator, its model not loaded. Raises UsageError if it is not available."""
        return translation.create(
            self.back_translator,
            TranslatorSettings.from_args(
                self.args,
                model=self.model_settings() if self.args.model_name_or_path else None,
                response_cache=self.layout.translation_responses,
                meter=self.meter,
                engine_log=self.args.output_dir.absolute() / inference.ENGINE_LOG,
            ),
        )

    @cached_property
    def selector(self):
        """What chooses among candidates, an object as the scorer, its models not loaded; None if there is one candidate."""
        if self.selector_name is None:
            return None
        return load_choice("--select_by", self.selector_name, SELECTORS)(self.args)

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
        return scoring.create(self.scorer_name, self.args)


def _version_of(role: str, judge) -> dict[str, str]:
    """{"scorer_weights": digest, "scorer_config": digest} if the judge has a local model: another one under its name is another
    setting."""
    weights, configured_by = getattr(judge, "weights", ""), getattr(judge, "configured_by", None)
    return ({f"{role}_weights": weights} if weights else {}) | provenance.config_of(**{role: configured_by})
