"""The stages of datagen.py: generate, translate, score."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from topxgen import distributed, inference
from topxgen.common import checksums, flag_rules, hub, provenance, rates, shards
from topxgen.common.console import ONCE, Progress, counted
from topxgen.common.errors import Unreachable, UsageError
from topxgen.common.files import Appender, check_output_directory, leaving_out_cut_lines, read_jsonl, repair_tail
from topxgen.common.records import Layout, target_language_of
from topxgen.generation import back_translation, deduplication, funnel, min_score, native, scoring, sharded
from topxgen.generation.candidates import collect, collected_ids, select
from topxgen.generation.checks import RULES, check_candidates
from topxgen.generation.manifests import (
    STAGES,
    has_results,
    language_manifest,
    record,
    remove_manifests,
    write_manifests,
)
from topxgen.generation.paragraphs import MAX_UNPRODUCTIVE_STEPS, Generation, is_generated
from topxgen.generation.plan import GenerationConfig
from topxgen.generation.report import removed
from topxgen.text import language_id, sentence_splitting
from topxgen.text.languages import Language

logger = logging.getLogger(__name__)


@leaving_out_cut_lines()
def preflight(config: GenerationConfig, on_unreachable: Callable[[Unreachable], None] | None = None) -> None:
    """Raise UsageError now for what a later stage would raise after hours of generation.

    `on_unreachable` takes the error about what only the Hub has, where it cannot be reached; else it is raised, too.
    """
    unreachable: list[Unreachable] = []
    for check in _checks(config):
        try:
            check()
        except Unreachable as error:
            unreachable.append(error)
    if unreachable:  # the first one lists all that is missing
        if on_unreachable is None:
            raise unreachable[0]
        on_unreachable(unreachable[0])


def _checks(config: GenerationConfig) -> Iterator[Callable[[], object]]:
    args, languages = config.args, config.languages.values()
    yield lambda: _check_output(config)
    yield lambda: distributed.check(args.distributed)
    yield lambda: hub.require(config.needs())
    if args.stages != ["score"]:
        yield lambda: _check_origin(config)
    if "generate" in args.stages:
        yield lambda: config.filters
        if config.prompts:
            yield lambda: inference.check(args.inference_api, config.model_settings(), config.sampling_settings())
        else:
            yield config.generate_settings  # reads the sources
        if args.rouge_tokenizer == "rouge_score" and args.threshold < 1:
            for language in (language for language in languages if language.script != "Latn"):
                text = f"--rouge_tokenizer rouge_score reads a-z and 0-9 alone: near-duplicates in {language.name} are not found"
                yield lambda text=text: logger.warning(text, extra=ONCE)
    if "translate" in args.stages:
        for language in languages:
            yield lambda language=language: config.translator.check(language, config.target_language)
            if text := sentence_splitting.warning(language):
                yield lambda text=text: logger.warning(text, extra=ONCE)
    yield lambda: flag_rules.check(RULES, args)
    if "translate" in args.stages:
        yield lambda: check_candidates(args, config.translator)
        if config.selector is not None:
            yield lambda: config.selector.preflight(languages, config.target_language)
        source = config.whole if config.layout.translates_taken else config.layout
        for language in languages if "generate" not in args.stages else ():
            yield lambda language=language: next(back_translation.read_paragraphs(source, language), None)
            yield lambda language=language: shards.check_merged(source.paragraphs(language.name), language.name)
        yield lambda: language_id.load(args.lid_model)
    if "score" in args.stages and config.scorer is not None:
        if args.min_score is not None:
            yield lambda: min_score.check(config.scorer, args.min_score)
        if "translate" not in args.stages:
            yield lambda: _check_target_language(config)
            for name in config.languages:
                whole = config.shard is not None and not config.layout.translations(name).exists()
                layout = config.whole if whole else config.layout
                yield lambda name=name, layout=layout: scoring.count_unscored(layout, name, config.scorer.id)
                if config.shard is None:
                    yield lambda name=name: shards.check_merged(config.layout.translations(name))
                else:
                    yield lambda name=name: sharded.check_split(config, name)
        yield lambda: config.scorer.preflight(languages, config.target_language)


def check_settings(config: GenerationConfig) -> None:
    """Raise UsageError if the directory has results of other settings."""
    by_stage = (config.generate_settings, config.translate_settings, config.score_settings)
    for stage, settings in zip(STAGES, by_stage, strict=True):
        if stage in config.args.stages:
            path = config.layout.settings(stage)
            if has_results(config.layout.output_dir, path):
                provenance.check_settings(path, settings())
            if config.shard is not None:
                sharded.check_others(config, stage, settings())


def _check_output(config: GenerationConfig) -> None:
    """Raise UsageError for directories that are files, or cannot be written to, and files that are directories."""
    layout = config.layout
    for flag, folder in (("--output_dir", layout.output_dir), ("--translate_dir", layout.translate_dir)):
        check_output_directory(folder, f"{flag} {folder}")
    outputs = [path for name in config.languages for path in layout.jsonl_files(name)]
    outputs += [path for stage in STAGES for path in (layout.manifest(stage), layout.settings(stage))]
    for path in outputs:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is not a file, but this run writes one of that name; pass another --output_dir")
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise UsageError(f"{path} is not readable and writable; change its permissions")


@contextmanager
def _progress(config: GenerationConfig, stage: str, total: int, done: int = 0) -> Iterator[Progress]:
    """The bar of a stage, with what the responses have cost; its rate is kept for the estimates of dry runs."""
    with Progress(stage, total, "paragraphs", done=done) as progress:
        config.meter.progress = progress
        try:
            yield progress
        finally:
            config.meter.progress = None
            if rate := progress.rate():
                rates.record(config.args.output_dir, {stage: rate})


def repair_files(config: GenerationConfig) -> None:
    """Drop torn last lines, which a killed run leaves, before any stage reads the files."""
    for name in config.languages:
        for path in config.layout.jsonl_files(name):
            repair_tail(path)
        _drop_again(config.layout, name)


def _drop_again(layout: Layout, name: str) -> None:
    """Remove the pairs that --min_score has dropped: after a kill, and of a paragraph that was translated again."""
    if layout.settings("score").exists():
        min_score.remove_rejected(layout, name)


def begin_shard(config: GenerationConfig) -> None:
    """Leave a note of the command, and take what others have done of this shard's part."""
    stages = config.args.stages
    sharded.write_notes(config)
    if "generate" in stages and config.prompts:
        sharded.adopt_responses(config)
    if stages == ["score"]:
        sharded.take_translations(config)


def take_paragraphs(config: GenerationConfig) -> bool:
    """Native texts to paragraphs; whether there are as many as were asked for."""
    layout, started, settings, begun = config.layout, provenance.now(), config.generate_settings(), set()
    _check_origin(config)
    with _progress(config, "generate", native.total(config)) as progress:

        def begin(language: str) -> None:
            if not begun:
                record(layout, "generate", settings)
                progress.restart_clock()
            if language not in begun:
                remove_manifests(layout, "generate", [language])
                begun.add(language)

        kept = native.clean(config, progress, begin)
        if not begun:
            progress.restart_clock()  # what is read from disk says nothing about the rate
    complete = config.target.reached(kept)
    results = {
        name: {
            "complete": not config.target.wants(kept, name),
            "source": config.sources[name].name,
            **deduplication.recall(config, name),
            "counts": funnel.generation_counts(layout, name),
        }
        for name in config.languages
    }
    record(layout, "generate", settings)
    write_manifests(layout, "generate", started, config.args.seed, settings, results, config.languages)
    wanted = "" if complete else f", fewer than the {native.total(config)} that were asked for"
    (logger.info if complete else logger.warning)(
        f"generate: kept {counted(kept.total(), 'paragraph')} of --paragraphs{wanted}"
    )
    return complete


def kept_on_disk(config: GenerationConfig, layout: Layout | None = None) -> Counter:
    """Paragraphs by language. `layout`: if not the run's own."""
    layout = layout or config.layout
    return Counter({name: sum(1 for _ in read_jsonl(layout.paragraphs(name))) for name in config.languages})


def generate(config: GenerationConfig) -> bool:
    """Topics to paragraphs; whether the target was reached."""
    args, layout, target, started = config.args, config.layout, config.target, provenance.now()
    settings = config.generate_settings()
    _check_origin(config)
    total = target.paragraphs
    with _progress(config, "generate", total) as progress, Generation(config, progress, config.steps()) as generation:
        if generation.needs_responses():
            model = config.model_settings()
            logger.info(
                f"generate: {counted(total, 'paragraph')} in {', '.join(config.languages)}; loading {args.model_name_or_path} "
                f"({inference.describe(args.inference_api, model)})"
            )
            sampler = inference.load(args.inference_api, model)
            record(layout, "generate", settings)
            kept = kept_on_disk(config)
            remove_manifests(layout, "generate", [name for name in config.languages if target.wants(kept, name)])
            progress.restart_clock()
            with _closing(sampler):
                generation.run(config.meter.wrap(sampler, "generate"), config.sampling_settings())
        else:
            progress.restart_clock()  # what is read from disk says nothing about the rate
            for name in config.languages:  # with those whose responses were not waited for
                earlier = language_manifest(layout, "generate", name).get("prompts_asked") or 0
                generation.requested_by_language[name] = max(generation.requested_by_language[name], earlier)
        config.pipeline.finish()
        complete, failed = generation.complete, generation.failed_prompts()  # while its files are open
    counts = {name: funnel.generation_counts(layout, name) for name in config.languages}
    results = {
        name: {
            "complete": complete or not target.wants(generation.kept, name),  # whatever other languages lack
            "prompts_asked": generation.requested_by_language[name],
            **deduplication.recall(config, name),
            "counts": counts[name],
        }
        for name in config.languages
    }
    write_manifests(layout, "generate", started, args.seed, settings, results, config.languages)
    kept, answers = (sum(count[key] for count in counts.values()) for key in ("kept", "answers"))
    if complete:
        logger.info(f"generate: kept {kept} paragraphs from {answers} responses")
    elif config.pipeline.ends and failed:
        logger.warning(
            f"generate: {failed} prompts failed (answer_failed in {layout.output_dir}/*_rejects.jsonl): run the same command again to "
            f"ask them again, or pass --number_of_instructions {kept} to do without them"
        )
    else:
        unproductive = generation.unproductive_steps >= MAX_UNPRODUCTIVE_STEPS
        cause = f"{MAX_UNPRODUCTIVE_STEPS} steps in a row kept nothing" if unproductive else "there are no more prompts"
        logger.warning(
            f"generate: stopped at {kept} of {total} paragraphs: {cause}; see the reasons in {layout.output_dir}/"
            "*_rejects.jsonl, then change the prompt, the topics or the filters in another --output_dir"
        )
    return complete


@contextmanager
def _closing(model) -> Iterator[None]:
    """At the end of the block say how often an API's requests were repeated, and free the model."""
    try:
        yield
    finally:
        if retries := getattr(model, "retries", None):
            logger.info("retries: " + ", ".join(f"{count} {kind}" for kind, count in retries.most_common()))
        model.close()


def _check_origin(config: GenerationConfig) -> None:
    """Raise UsageError for paragraphs of another language, to which --output_filenames in another order leads, and for generated ones
    without the responses that they belong to: the ids of new ones would be taken."""
    layout = config.layout
    is_lost = "generate" in config.args.stages and not layout.settings("generate").exists()
    for name in config.languages:
        path = layout.paragraphs(name)
        ids = {str(record.get("id", "")).rpartition("-")[0] for record in read_jsonl(path)}
        for other in sorted(one.removesuffix("-native") for one in ids):
            if other != name and layout.rejects(other).exists():
                raise UsageError(
                    f"{path} has paragraphs of {other}, not of {name}: pass --languages and --output_filenames in their earlier order"
                )
        if is_lost and any(is_generated(f"{one}-", name) for one in ids):
            raise UsageError(
                f"{path} has paragraphs of another run (by their ids), but that run's settings and answers are missing: "
                'copy its whole directory, or remove the "id" of each line to start from these paragraphs'
            )


def translate(config: GenerationConfig) -> bool:
    """Paragraphs to sentence pairs; whether each sentence got an answer."""
    args, layout, target, started = config.args, config.layout, config.target_language, provenance.now()
    translator, languages = config.translator, config.languages.values()
    for language in languages:
        translator.check(language, target)
    settings, identifier = config.translate_settings(), _language_identifier(config)
    for language in languages if layout.translates_taken else ():
        paragraphs = list(back_translation.read_paragraphs(config.whole, language))
        sharded.take_paragraphs(
            config, language, back_translation.split_blocks(config, language, identifier, paragraphs)
        )
    totals, done, found = Counter(), Counter(), Counter()  # paragraphs: all, finished, with translations or candidates
    for language in languages:
        back_translation.check_translated(layout, language)
        if not args.accept_unanswered:
            back_translation.forget_unanswered(layout, language.name)
        translated = back_translation.translated_ids(layout, language)
        collected = translated if config.selector is None else translated | collected_ids(layout, language)
        ids = [paragraph.id for paragraph in back_translation.read_paragraphs(layout, language)]
        totals[language.name] = len(ids)
        done[language.name] = sum(paragraph_id in translated for paragraph_id in ids)
        found[language.name] = sum(paragraph_id in collected for paragraph_id in ids)
    record(layout, "translate", settings)
    total = totals.total()
    unfinished = [language for language in languages if done[language.name] < totals[language.name]]
    if unfinished:
        remove_manifests(layout, "translate", [language.name for language in unfinished])
    if found.total() < total:
        logger.info(
            f"translate: the sentences of {counted(total, 'paragraph')} into {target.name}; loading {translator.version}"
        )
        step = back_translation.back_translate if config.selector is None else collect
        with _closing(translator):
            translator.load()
            with _progress(config, "translate", total, found.total()) as progress:
                for language in unfinished:
                    step(config, language, identifier, progress)
    if unfinished and config.selector is not None:
        _select(config, unfinished, total, done.total())
    for language in unfinished:
        _drop_again(layout, language.name)
    for name in config.languages:  # one without paragraphs has an empty file, so that the stages after this find it
        if totals[name] and not layout.translations(name).exists():
            raise removed(layout.translations(name), name)
        Appender(layout.translations(name)).close()
    counts = {name: funnel.translation_counts(layout, name) for name in config.languages}
    accepted = args.accept_unanswered
    results = {name: funnel.translate_result(translator.version, count, accepted) for name, count in counts.items()}
    write_manifests(layout, "translate", started, args.seed, settings, results, config.languages)
    for name in config.languages:
        layout.candidates(name).unlink(missing_ok=True)
    unanswered = _log_translated(config, {name: result["counts"] for name, result in results.items()})
    return accepted or not unanswered


def _language_identifier(config: GenerationConfig):
    """That of --lid_model; languages that it does not know are logged."""
    name = config.args.lid_model
    identifier = language_id.load(name)
    for language in [*config.languages.values(), config.target_language]:
        if not identifier.knows(language):
            logger.warning(
                f"{name} cannot identify {language.name}: the language of its sentences is not checked; pass "
                "a fastText --lid_model that can, such as GlotLID's"
            )
    return identifier


def _log_translated(config: GenerationConfig, counts: dict[str, dict]) -> int:
    """Log what became of the sentences; how many have no answer."""
    pairs, sentences = (sum(count[key] for count in counts.values()) for key in ("pairs", "sentences"))
    logger.info(f"translate: kept {counted(pairs, 'pair')} from {counted(sentences, 'sentence')}")
    if truncated := sum(count.get("truncated_translations", 0) for count in counts.values()):
        logger.warning(
            f"translate: {counted(truncated, 'translation')} cut at the translator's limit of new tokens (truncated in the files)"
        )
    if unanswered := sum(count["rejected"].get(back_translation.UNANSWERED, 0) for count in counts.values()):
        remedy = ": run the same command again to send them again, or add --accept_unanswered to go on without them"
        logger.warning(
            f"translate: {counted(unanswered, 'sentence')} without an answer ({back_translation.UNANSWERED} in "
            f"{config.layout.translate_dir}/*_translate_rejects.jsonl){'' if config.args.accept_unanswered else remedy}"
        )
    return unanswered


def _select(config: GenerationConfig, languages: list[Language], total: int, done: int) -> None:
    """The second half of the translate stage, once the translator's memory is free: the best candidate of each sentence."""
    selector = config.selector
    logger.info(f"select: the best of up to {config.args.number_of_candidates} candidates by {selector.id}")
    with _closing(selector):
        selector.load()
        with _progress(config, "select", total, done) as progress:
            for language in languages:
                select(config, language, progress)
        if selector.truncated:
            logger.warning(
                f"{counted(selector.truncated, 'text')} longer than {selector.id} reads, and judged by the beginning"
            )


def score(config: GenerationConfig) -> None:
    layout, scorer, started = config.layout, config.scorer, provenance.now()
    if scorer is None:
        return
    settings = {name: value for name, value in config.score_settings().items() if value is not None}
    for name in config.languages:
        if checksums.is_changed(path := layout.translations(name)):
            logger.warning(
                f"{path} was changed after it had been written (its digest in {checksums.NAME} is another one): its pairs keep "
                "their scores; to score an edited line again, remove scores from it"
            )
        earlier = language_manifest(layout, "score", name).get("settings", {})
        changed = {key for key, value in settings.items() if earlier.get(key, value) != value}
        is_other = changed and changed <= {"scorer_weights", "scorer_config", "scorer_code"}
        if is_other or scoring.was_another(layout, name, scorer.id, config.scorer_version):
            logger.info(
                f"score: {scorer.id} has other weights, configuration or code than when it scored {name}, which is scored again"
            )
            scoring.forget(layout, name, scorer.id)
    unscored = {name: scoring.count_unscored(layout, name, scorer.id) for name in config.languages}
    if unfinished := [name for name, count in unscored.items() if count]:
        total = sum(unscored.values())
        remove_manifests(layout, "score", unfinished)
        by = f"; loading {scorer.id}" if scorer.has_models else f" by {scorer.id}"
        logger.info(f"score: the pairs of {total} paragraphs{by}")
        with _closing(scorer):
            scorer.load()
            with _progress(config, "score", total) as progress:
                for name in unfinished:
                    scoring.score(config, config.languages[name], progress)
    if config.args.min_score is not None:
        _drop_below_min_score(config)
    counts = {name: funnel.translation_counts(layout, name) for name in config.languages}
    results = {name: scoring.truncated_texts(layout, name) | {"counts": count} for name, count in counts.items()}
    if truncated := sum(result.get("truncated_texts", 0) for result in results.values()):
        logger.warning(f"{counted(truncated, 'text')} longer than the scorer reads, and scored by the beginning")
    write_manifests(layout, "score", started, config.args.seed, settings, results, config.languages)
    for name in config.languages:
        layout.score_cache(name).unlink(missing_ok=True)
    pairs, scored = (sum(count[key] for count in counts.values()) for key in ("pairs", "scored"))
    logger.info(f"score: {counted(scored, 'pair')} with a score")
    if scorer.id == "confidence" and scored < pairs:
        logger.warning(
            f"{pairs - scored} of {counted(pairs, 'pair')} without a score, as the translator gave no confidence (LLMs do not); choose --scorer "
            "blaser or metricx-qe"
        )


def _drop_below_min_score(config: GenerationConfig) -> None:
    layout, minimum = config.layout, config.args.min_score
    record(layout, "score", config.score_settings())
    for name in config.languages:
        if lines := min_score.rejects_below(layout, name, minimum):
            remove_manifests(layout, "score", [name])
            min_score.move(layout, name, lines)
            dropped = sum(len(line["rejected"]) for line in lines)
            logger.info(
                f"score: dropped {counted(dropped, 'pair')} of {name} below --min_score {minimum:g} or without a score"
            )


def _check_target_language(config: GenerationConfig) -> None:
    """Scoring with the wrong target language would silently give wrong scores."""
    name = config.target_language.name
    earlier = target_language_of(config.layout.translate_dir, name)
    if earlier != name:
        raise UsageError(
            f"the translations in {config.layout.translate_dir} are into {earlier}; pass --target_language {earlier!r}"
        )
