"""The stages of datagen.py: generate, translate, score, report."""

import logging

from topxgen import inference
from topxgen.common import provenance
from topxgen.common.errors import UsageError
from topxgen.generation import manifests, scoring
from topxgen.generation.plan import GenerationConfig, prepare_generation

logger = logging.getLogger(__name__)


def generate(run: GenerationConfig, command: list[str]) -> bool:
    """The generate stage; whether it reached its target."""
    from topxgen.common.console import Progress
    from topxgen.generation.funnel import generation_counts
    from topxgen.generation.paragraphs import MAX_BARREN_STEPS, Generation, Target

    args, layout, started = run.args, run.layout, provenance.now()
    builder, template, settings, texts, _ = prepare_generation(run)
    check_origin(run)
    provenance.check_settings(layout.settings("generate"), settings)
    target = Target(tuple(sorted(run.languages)), args.number_of_instructions, args.number_of_instructions_per_language)
    total = max(target.total, target.minimum * len(target.languages))
    with (
        Progress("generate", total, "paragraphs") as progress,
        Generation(
            layout,
            target,
            build_prompt=builder.build,
            answer_format=template.answer,
            texts_per_prompt=texts,
            step_size=args.request_batch_size,
            seed=args.seed,
            threshold=args.threshold,
            rouge_tokenizer=args.rouge_tokenizer,
            scripts={name: language.script for name, language in run.languages.items()},
            filenames=run.filenames,
            progress=progress,
            verbose=args.verbose,
        ) as generation,
    ):
        if generation.needs_answers():
            logger.info(f"loading {args.model_name_or_path} ({args.inference_api})")
            sampler = inference.load(args.inference_api, run.model_settings())
            provenance.record_settings(layout.settings("generate"), settings)
            manifests.begin(layout, "generate")
            progress.restart_clock()
            try:
                generation.run(sampler, run.sampling_settings(template.stop))
            finally:
                say_retries(sampler)
                sampler.close()
        outcome = generation.outcome()
    counts = {name: generation_counts(layout, name, run.filenames.get(name)) for name in run.languages}
    manifests.write_manifest(
        layout,
        "generate",
        started=started,
        seed=args.seed,
        settings=settings,
        command=command,
        complete=outcome.enough,
        prompts_asked=outcome.requested,
        counts=counts,
    )
    if not outcome.enough:
        kept = sum(count["kept"] for count in counts.values())
        logger.info(
            f"stopped at {kept} of {total} paragraphs: {MAX_BARREN_STEPS} steps in a row kept nothing; see the reasons in "
            f"{layout.output_dir}/*_rejects.jsonl, then change the prompt, the topics or the filters in another --output_dir"
        )
    return outcome.enough


def check_origin(run: GenerationConfig) -> None:
    """Paragraphs with ids of ours belong to the answers beside them: without those, new answers would be
    taken for paragraphs that are there already."""
    from topxgen.common.files import read_jsonl

    if run.layout.settings("generate").exists():
        return
    for name in run.languages:
        path = run.layout.paragraphs(name, run.filenames.get(name))
        if any(str(record.get("id", "")).startswith(f"{name}-") for record in read_jsonl(path)):
            raise UsageError(
                f"{path} holds paragraphs of another run (their ids say so), but not its settings and answers: bring the "
                'whole directory along, or remove the "id" of each line to start from these paragraphs'
            )


def translate(run: GenerationConfig, command: list[str]) -> None:
    """The translate stage."""
    from topxgen.common.console import Progress
    from topxgen.generation.back_translation import back_translate, paragraphs, translated
    from topxgen.generation.funnel import translation_counts
    from topxgen.text import language_id

    args, layout, started = run.args, run.layout, provenance.now()
    translator = run.translator
    for language in run.languages.values():
        translator.check(language, run.target)
    settings = {
        "back_translator": run.back_translator,
        "target_language": run.target.name,
        "splitter": args.splitter,
        "lid_model": args.lid_model,
        **translator.settings,
    }
    provenance.check_settings(layout.settings("translate"), settings)
    identifier = language_id.load(args.lid_model)
    for language in [*run.languages.values(), run.target]:
        if not identifier.knows(language):
            logger.info(
                f"{args.lid_model} cannot tell {language.name}: its sentences are not checked by language; "
                "pass a fastText --lid_model that knows it, such as GlotLID's"
            )
    total = done = 0
    for name, language in run.languages.items():
        there = translated(layout, language)
        ids = [paragraph.id for paragraph in paragraphs(layout, language, run.filenames.get(name))]
        total += len(ids)
        done += sum(paragraph_id in there for paragraph_id in ids)
    provenance.record_settings(layout.settings("translate"), settings)
    if done < total:
        manifests.begin(layout, "translate")
        logger.info(f"loading {translator.version}")
        try:
            translator.load()
            with Progress("translate", total, "paragraphs", done=done) as progress:
                for name, language in run.languages.items():
                    back_translate(
                        layout,
                        language,
                        run.target,
                        translator=translator,
                        identifier=identifier,
                        splitter=args.splitter,
                        filename=run.filenames.get(name),
                        progress=progress,
                        verbose=args.verbose,
                    )
        finally:
            say_retries(translator)
            translator.close()
    manifests.write_manifest(
        layout,
        "translate",
        started=started,
        seed=args.seed,
        settings=settings,
        command=command,
        translator_version=translator.version,
        counts={name: translation_counts(layout, name) for name in run.languages},
    )


def score(run: GenerationConfig, command: list[str]) -> None:
    """The score stage."""
    from topxgen.common.console import Progress
    from topxgen.generation.funnel import translation_counts

    layout, scorer, started, truncated = run.layout, run.scorer, provenance.now(), 0
    if scorer is None:
        return
    total = sum(scoring.unscored(layout, language, scorer.id) for language in run.languages)
    if total:
        manifests.begin(layout, "score")
        logger.info(f"loading {scorer.id}")
        try:
            scorer.load()
            with Progress("score", total, "paragraphs with pairs") as progress:
                for language in run.languages.values():
                    truncated += scoring.score(layout, language, run.target, scorer=scorer, progress=progress)
        finally:
            scorer.close()
    if truncated:
        logger.info(f"{truncated} texts were longer than the scorer reads (514 tokens) and scored by their beginnings")
    manifests.write_manifest(
        layout,
        "score",
        started=started,
        seed=run.args.seed,
        settings={"scorer": scorer.id},
        command=command,
        **({"truncated_texts": truncated} if total else {}),
        counts={language: translation_counts(layout, language) for language in run.languages},
    )


def check_target(run: GenerationConfig) -> None:
    """A scorer is told both languages, and would score in the wrong one without a word."""
    from topxgen.common.files import read_json

    earlier = read_json(run.layout.settings("translate")).get("target_language", run.target.name)
    if earlier != run.target.name:
        raise UsageError(
            f"the translations in {run.layout.translate_dir} are into {earlier}; pass --target_language {earlier!r}"
        )


def say_retries(model) -> None:
    """What an API made us do again."""
    if retries := getattr(model, "retries", None):
        logger.info("asked again: " + ", ".join(f"{count} times for a {kind}" for kind, count in retries.most_common()))


def report(run: GenerationConfig) -> None:
    """Print the funnel, a few pairs, and where the files are."""
    from topxgen.common.console import printable
    from topxgen.common.files import read_json
    from topxgen.generation import funnel

    layout = run.layout
    generation = [
        funnel.generation_counts(layout, name, run.filenames.get(name))
        for name in run.languages
        if layout.answers(name).exists()
    ]
    translated = [name for name in run.languages if layout.translations(name).exists()]
    translation = [funnel.translation_counts(layout, name) for name in translated]
    asked = read_json(layout.manifest("generate")).get("prompts_asked")
    print(f"\nFunnel, {', '.join(run.languages)}:\n{funnel.render(asked, generation, translation)}\n")
    used = [sum(counts[kind] for counts in generation) for kind in ("prompt_tokens", "completion_tokens")]
    for stage, (prompt, completion) in (("generate", used), ("translate", funnel.tokens(layout.translation_answers))):
        if prompt:
            print(funnel.usage(stage, prompt, completion, run.args.price_per_million_tokens))
    for name in translated:
        for sentence, translation, value in funnel.sample_pairs(layout.translations(name)):
            shown = "no score" if value is None else f"score {value:.2f}"
            print(f"  {name}: {printable(sentence)}\n  {run.target.name}: {printable(translation)}  ({shown})\n")
    for name in run.languages:
        paragraphs = layout.paragraphs(name, run.filenames.get(name))
        paths = [paragraphs, *([layout.translations(name)] if name in translated else [])]
        print(f"{name}: {', '.join(map(str, paths))}; why texts and pairs were dropped: *_rejects.jsonl beside them")


def preflight(run: GenerationConfig) -> None:
    """Fail now on what a later stage would fail on, after hours of generation."""
    args = run.args
    if "generate" in args.stages:
        inference.check(args.inference_api, run.model_settings(), run.sampling_settings(()))
    if "translate" in args.stages:
        from topxgen.text import language_id

        for language in run.languages.values():
            run.translator.check(language, run.target)
        language_id.load(args.lid_model)
    if "score" in args.stages and run.scorer is not None:
        if "translate" not in args.stages:
            check_target(run)
        run.scorer.preflight(run.languages.values(), run.target)


def repair_files(run: GenerationConfig) -> None:
    """Drop half-written last lines, which a killed run leaves, before any stage reads the files."""
    from topxgen.common.files import repair_tail

    repair_tail(run.layout.translation_answers)
    for name in run.languages:
        for path in run.layout.files(name, run.filenames.get(name)):
            repair_tail(path)
