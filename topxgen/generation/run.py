"""The stages of datagen.py: generate, translate, score, and the report on them."""

import logging

from topxgen import inference
from topxgen.common import provenance
from topxgen.common.console import Progress, printable
from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_json, read_jsonl, repair_tail
from topxgen.common.locks import wait_for_lock
from topxgen.common.records import target_language_of
from topxgen.generation import funnel, scoring
from topxgen.generation.back_translation import back_translate, read_paragraphs, translated_ids
from topxgen.generation.manifests import remove_manifests, write_manifest
from topxgen.generation.paragraphs import MAX_UNPRODUCTIVE_STEPS, Generation, is_generated
from topxgen.generation.plan import GenerationConfig
from topxgen.text import language_id

logger = logging.getLogger(__name__)


def preflight(config: GenerationConfig) -> None:
    """Raise UsageError now for what a later stage would raise after hours of generation."""
    args, languages = config.args, config.languages.values()
    if "generate" in args.stages:
        _ = config.filters
        inference.check(args.inference_api, config.model_settings(), config.sampling_settings())
    if "translate" in args.stages:
        for language in languages:
            config.translator.check(language, config.target_language)
        language_id.load(args.lid_model)
    if "score" in args.stages and config.scorer is not None:
        if "translate" not in args.stages:
            _check_target_language(config)
        config.scorer.preflight(languages, config.target_language)


def repair_files(config: GenerationConfig) -> None:
    """Drop torn last lines, which a killed run leaves, before any stage reads the files."""
    with wait_for_lock(config.layout.output_dir):
        repair_tail(config.layout.shared_translation_responses)
    for name in config.languages:
        for path in config.layout.jsonl_files(name):
            repair_tail(path)


def generate(config: GenerationConfig) -> bool:
    """Topics to paragraphs; whether the target was reached."""
    args, layout, target, started = config.args, config.layout, config.target, provenance.now()
    settings = config.generate_settings()
    _check_origin(config)
    provenance.check_settings(layout.settings("generate"), settings)
    total = max(target.total, sum(target.minimums.values()))
    with Progress("generate", total, "paragraphs") as progress, Generation(config, progress) as generation:
        if generation.needs_responses():
            model = config.model_settings()
            logger.info(
                f"generate: {total} paragraphs in {', '.join(config.languages)}; loading {args.model_name_or_path} "
                f"({inference.describe(args.inference_api, model)})"
            )
            sampler = inference.load(args.inference_api, model)
            provenance.record_settings(layout.settings("generate"), settings)
            remove_manifests(layout, "generate")
            progress.restart_clock()
            try:
                generation.run(config.meter.wrap(sampler, "generate"), config.sampling_settings())
            finally:
                _log_retries(sampler)
                sampler.close()
    counts = {name: funnel.generation_counts(layout, name) for name in config.languages}
    results = {"complete": generation.target_reached, "prompts_asked": generation.requested, "counts": counts}
    write_manifest(layout, "generate", started, args.seed, settings, **results)
    kept, answers = (sum(count[key] for count in counts.values()) for key in ("kept", "answers"))
    if generation.target_reached:
        logger.info(f"generate: kept {kept} paragraphs from {answers} responses")
    else:
        unproductive = generation.unproductive_steps >= MAX_UNPRODUCTIVE_STEPS
        cause = f"{MAX_UNPRODUCTIVE_STEPS} steps in a row kept nothing" if unproductive else "there are no more prompts"
        logger.warning(
            f"generate: stopped at {kept} of {total} paragraphs: {cause}; see the reasons in {layout.output_dir}/"
            "*_rejects.jsonl, then change the prompt, the topics or the filters in another --output_dir"
        )
    return generation.target_reached


def _check_origin(config: GenerationConfig) -> None:
    """Generated paragraphs belong to the responses beside them: without these, the ids of new ones would be taken."""
    if config.layout.settings("generate").exists():
        return
    for name in config.languages:
        path = config.layout.paragraphs(name)
        if any(is_generated(str(record.get("id", "")), name) for record in read_jsonl(path)):
            raise UsageError(
                f"{path} has paragraphs of another run (by their ids), but that run's settings and answers are missing: "
                'copy its whole directory, or remove the "id" of each line to start from these paragraphs'
            )


def translate(config: GenerationConfig) -> None:
    """Paragraphs to sentence pairs."""
    args, layout, target, started = config.args, config.layout, config.target_language, provenance.now()
    translator, languages = config.translator, config.languages.values()
    for language in languages:
        translator.check(language, target)
    settings = {
        "back_translator": config.back_translator,
        "target_language": target.name,
        "splitter": args.splitter,
        "lid_model": args.lid_model,
        **translator.settings,
    }
    provenance.check_settings(layout.settings("translate"), settings)
    identifier = language_id.load(args.lid_model)
    for language in [*languages, target]:
        if not identifier.knows(language):
            logger.warning(
                f"{args.lid_model} cannot identify {language.name}: the language of its sentences is not checked; pass "
                "a fastText --lid_model that can, such as GlotLID's"
            )
    total = done = 0
    for language in languages:
        translated = translated_ids(layout, language)
        ids = [paragraph.id for paragraph in read_paragraphs(layout, language)]
        total += len(ids)
        done += sum(paragraph_id in translated for paragraph_id in ids)
    provenance.record_settings(layout.settings("translate"), settings)
    if done < total:
        remove_manifests(layout, "translate")
        logger.info(f"translate: the sentences of {total} paragraphs into {target.name}; loading {translator.version}")
        try:
            translator.load()
            with Progress("translate", total, "paragraphs", done=done) as progress:
                for language in languages:
                    back_translate(config, language, identifier, progress)
        finally:
            _log_retries(translator)
            translator.close()
    for name in config.languages:  # one without paragraphs has an empty file, so that the stages after this find it
        Appender(layout.translations(name)).close()
    counts = {name: funnel.translation_counts(layout, name) for name in config.languages}
    results = {"translator_version": translator.version, "counts": counts}
    write_manifest(layout, "translate", started, args.seed, settings, **results)
    pairs, sentences = (sum(count[key] for count in counts.values()) for key in ("pairs", "sentences"))
    logger.info(f"translate: kept {pairs} pairs from {sentences} sentences")


def score(config: GenerationConfig) -> None:
    """Add scores to the pairs."""
    layout, scorer, started, truncated = config.layout, config.scorer, provenance.now(), 0
    if scorer is None:
        return
    unscored = sum(scoring.count_unscored(layout, name, scorer.id) for name in config.languages)
    if unscored:
        remove_manifests(layout, "score")
        by = f"; loading {scorer.id}" if scorer.has_models else f" by {scorer.id}"
        logger.info(f"score: the pairs of {unscored} paragraphs{by}")
        try:
            scorer.load()
            with Progress("score", unscored, "paragraphs") as progress:
                for language in config.languages.values():
                    truncated += scoring.score(config, language, progress)
        finally:
            scorer.close()
    if truncated:
        logger.warning(f"{truncated} texts are longer than the scorer's 514 tokens and were scored by their beginnings")
    counts = {name: funnel.translation_counts(layout, name) for name in config.languages}
    results = ({"truncated_texts": truncated} if unscored else {}) | {"counts": counts}
    write_manifest(layout, "score", started, config.args.seed, {"scorer": scorer.id}, **results)
    logger.info(f"score: {sum(count['scored'] for count in counts.values())} pairs have a score")


def _check_target_language(config: GenerationConfig) -> None:
    """Scoring with the wrong target language would silently give wrong scores."""
    name = config.target_language.name
    earlier = target_language_of(config.layout.translate_dir, name)
    if earlier != name:
        raise UsageError(
            f"the translations in {config.layout.translate_dir} are into {earlier}; pass --target_language {earlier!r}"
        )


def _log_retries(model) -> None:
    if retries := getattr(model, "retries", None):
        logger.info("retries: " + ", ".join(f"{count} {kind}" for kind, count in retries.most_common()))


def report(config: GenerationConfig) -> bool:
    """Print the funnel, the tokens, a few pairs, and where the files are; whether each language has paragraphs."""
    layout = config.layout
    generated = [name for name in config.languages if layout.responses(name).exists()]
    translated = [name for name in config.languages if layout.translations(name).exists()]
    generation = [funnel.generation_counts(layout, name) for name in generated]
    translation = [funnel.translation_counts(layout, name) for name in translated]
    prompts_sent = read_json(layout.manifest("generate")).get("prompts_asked")
    print(f"\nFunnel, {', '.join(config.languages)}:\n{funnel.render(prompts_sent, generation, translation)}\n")
    for stage in ("generate", "translate"):
        if usage := config.meter.usage(stage):
            print(usage)
    for name in translated:
        for sentence, text, value in funnel.sample_pairs(layout.translations(name)):
            shown = "no score" if value is None else f"score {value:.2f}"
            print(f"  {name}: {printable(sentence)}\n  {config.target_language.name}: {printable(text)}  ({shown})\n")
    for name in config.languages:
        paths = [layout.paragraphs(name), *([layout.translations(name)] if name in translated else [])]
        print(
            f"{name}: {', '.join(map(str, paths))}; rejected texts and pairs with reasons: *_rejects.jsonl beside them"
        )
    paragraphs = [*zip(generated, generation, strict=True), *zip(translated, translation, strict=True)]
    empty = {
        "paragraphs": {name for name, counts in paragraphs if not counts.get("kept", counts.get("paragraphs"))},
        "pairs": {name for name, counts in zip(translated, translation, strict=True) if not counts["pairs"]},
    }
    for what, names in empty.items():
        if names:
            logger.warning(f"no {what} were kept in {', '.join(sorted(names))}; see the reasons in *_rejects.jsonl")
    return not empty["paragraphs"]
