"""The stages of datagen.py: generate, translate, score, and the report on them."""

import logging
from collections import Counter

from topxgen import inference
from topxgen.common import hub, provenance
from topxgen.common.console import Progress, show
from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_json, read_jsonl, repair_tail
from topxgen.common.locks import wait_for_lock
from topxgen.common.records import target_language_of
from topxgen.generation import funnel, scoring
from topxgen.generation.back_translation import back_translate, read_paragraphs, translated_ids
from topxgen.generation.manifests import STAGES, record, remove_manifests, write_manifests
from topxgen.generation.paragraphs import MAX_UNPRODUCTIVE_STEPS, Generation, is_generated
from topxgen.generation.plan import GenerationConfig
from topxgen.text import language_id

logger = logging.getLogger(__name__)


def preflight(config: GenerationConfig) -> None:
    """Raise UsageError now for what a later stage would raise after hours of generation."""
    args, languages = config.args, config.languages.values()
    hub.require(config.hub_models(), config.hub_datasets())
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
            record(layout.settings("generate"), settings)
            remove_manifests(layout, "generate", list(config.languages))
            progress.restart_clock()
            try:
                generation.run(config.meter.wrap(sampler, "generate"), config.sampling_settings())
            finally:
                _log_retries(sampler)
                sampler.close()
    counts = {name: funnel.generation_counts(layout, name) for name in config.languages}
    results = {
        name: {
            "complete": generation.target_reached,
            "prompts_asked": generation.requested[name],
            "counts": counts[name],
        }
        for name in config.languages
    }
    write_manifests(layout, "generate", started, args.seed, settings, results, config.languages)
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
    totals, done = Counter(), Counter()
    for language in languages:
        translated = translated_ids(layout, language)
        ids = [paragraph.id for paragraph in read_paragraphs(layout, language)]
        totals[language.name] = len(ids)
        done[language.name] = sum(paragraph_id in translated for paragraph_id in ids)
    record(layout.settings("translate"), settings)
    total = totals.total()
    if unfinished := [name for name in totals if done[name] < totals[name]]:
        remove_manifests(layout, "translate", unfinished)
        logger.info(f"translate: the sentences of {total} paragraphs into {target.name}; loading {translator.version}")
        try:
            translator.load()
            with Progress("translate", total, "paragraphs", done=done.total()) as progress:
                for language in languages:
                    back_translate(config, language, identifier, progress)
        finally:
            _log_retries(translator)
            translator.close()
    for name in config.languages:  # one without paragraphs has an empty file, so that the stages after this find it
        Appender(layout.translations(name)).close()
    counts = {name: funnel.translation_counts(layout, name) for name in config.languages}
    # Scores are the next stage's: its work must not change this manifest.
    results = {
        name: {
            "translator_version": translator.version,
            "counts": {key: value for key, value in count.items() if key not in funnel.SCORE_COUNTS},
        }
        for name, count in counts.items()
    }
    write_manifests(layout, "translate", started, args.seed, settings, results, config.languages)
    pairs, sentences = (sum(count[key] for count in counts.values()) for key in ("pairs", "sentences"))
    logger.info(f"translate: kept {pairs} pairs from {sentences} sentences")


def score(config: GenerationConfig) -> None:
    """Add scores to the pairs."""
    layout, scorer, started = config.layout, config.scorer, provenance.now()
    if scorer is None:
        return
    unscored = {name: scoring.count_unscored(layout, name, scorer.id) for name in config.languages}
    if unfinished := [name for name, count in unscored.items() if count]:
        total = sum(unscored.values())
        remove_manifests(layout, "score", unfinished)
        by = f"; loading {scorer.id}" if scorer.has_models else f" by {scorer.id}"
        logger.info(f"score: the pairs of {total} paragraphs{by}")
        try:
            scorer.load()
            with Progress("score", total, "paragraphs") as progress:
                for name in unfinished:
                    scoring.score(config, config.languages[name], progress)
        finally:
            scorer.close()
    counts = {name: funnel.translation_counts(layout, name) for name in config.languages}
    results = {name: scoring.truncated_texts(layout, name) | {"counts": count} for name, count in counts.items()}
    if truncated := sum(result.get("truncated_texts", 0) for result in results.values()):
        logger.warning(f"{truncated} texts are longer than the scorer's 514 tokens and were scored by their beginnings")
    write_manifests(layout, "score", started, config.args.seed, {"scorer": scorer.id}, results, config.languages)
    for name in config.languages:
        layout.score_cache(name).unlink(
            missing_ok=True
        )  # it has the count of truncated texts until the manifest has it
    logger.info(f"score: {sum(count['scored'] for count in counts.values())} pairs have a score")


def _check_target_language(config: GenerationConfig) -> None:
    """Scoring with the wrong target language would silently give wrong scores."""
    name = config.target_language.name
    earlier = target_language_of(config.layout.translate_dir, name)
    if earlier != name:
        raise UsageError(
            f"the translations in {config.layout.translate_dir} are into {earlier}; pass --target_language {earlier!r}"
        )


def _check_unchanged(config: GenerationConfig, generation: dict, translation: dict) -> None:
    """Raise UsageError if the files do not have what the manifests of this run say: some were removed or changed meanwhile."""
    for stage in config.args.stages:
        if stage == "score" and config.scorer is None:
            continue
        for name in config.languages:
            counts = read_json(config.layout.manifest(stage, name)).get("counts", {})
            now = (generation if stage == "generate" else translation).get(name, {})
            if not counts or any(
                now.get(key) != value
                for key, value in counts.items()
                if stage == STAGES[-1] or key not in funnel.SCORE_COUNTS
            ):
                raise UsageError(
                    f"the files of {name} in {config.layout.manifest(stage).parent} were removed or changed while this run was "
                    "going on: re-run the same command"
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
    _check_unchanged(
        config, dict(zip(generated, generation, strict=True)), dict(zip(translated, translation, strict=True))
    )
    manifests = {name: read_json(layout.manifest("generate", name)) for name in config.languages}
    prompts_sent = sum(manifest.get("prompts_asked", 0) for manifest in manifests.values()) or None
    show(f"\nFunnel, {', '.join(config.languages)}:\n{funnel.render(prompts_sent, generation, translation)}\n")
    whole = [read_json(layout.manifest(stage)) for stage in STAGES]
    others = sorted({name for manifest in whole for name in manifest.get("counts", {})} - config.languages.keys())
    if others:
        rows = [list(manifest.get("counts", {}).values()) for manifest in (whole[0], whole[2] or whole[1])]
        show(f"With {', '.join(others)}, as far as finished:\n{funnel.render(whole[0].get('prompts_asked'), *rows)}\n")
    for stage in ("generate", "translate"):
        if usage := config.meter.usage(stage):
            show(usage)
    for name in translated:
        for sentence, text, value in funnel.sample_pairs(layout.translations(name)):
            shown = "no score" if value is None else f"score {value:.2f}"
            show(f"  {name}: {sentence}\n  {config.target_language.name}: {text}  ({shown})\n")
    for name in config.languages:
        paths = [layout.paragraphs(name), *([layout.translations(name)] if name in translated else [])]
        show(
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
