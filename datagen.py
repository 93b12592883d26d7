"""Generate parallel data for a low-resource language: topics -> paragraphs -> sentences -> back-translations -> scores.

With gemma-3-27b-it on a GPU box, as published:

    python datagen.py --model_name_or_path google/gemma-3-27b-it --inference_api vllm --languages Basque Hausa \\
        --seed_topics_path topics/wikipedia_vital_topics.txt --output_dir outputs/gemma --number_of_instructions 50000 \\
        --number_of_icl_demonstrations 8 --number_of_icl_phrases 4 --max_new_tokens 2048 --use_nllb

Without GPU or network (what scripts/demo.sh runs):

    python datagen.py --model_name_or_path models/gemma-3-270m --languages Basque --back_translator apertium \\
        --seed_topics_path topics/wikipedia_vital_topics.txt --example_paragraphs udhr --example_sentences udhr \\
        --number_of_icl_phrases 4 --number_of_instructions 60 --output_dir outputs/demo

Killed? The same command goes on where it stopped. `--dry_run` shows the prompts and the plan.
"""

import argparse
import sys
from pathlib import Path

from comptra import provenance, samplers, splitting, translators
from comptra.arguments import FLAG, boolean, real, whole
from comptra.asking import STYLES
from comptra.errors import UserError
from comptra.translators import nllb
from topxgen import scoring, stages
from topxgen.plan import PIPELINES, Run, dry_run, prepare_generation


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )

    group = parser.add_argument_group("what to make")
    group.add_argument(
        "--data_generation_pipeline", "--dataset_generation_pipeline", choices=PIPELINES, default="topxgen"
    )
    group.add_argument("--stages", nargs="+", choices=stages.STAGES, default=list(stages.STAGES), help="[all]")
    group.add_argument(
        "--languages", nargs="+", required=True, metavar="LANGUAGE", help="English names or FLORES codes"
    )
    group.add_argument(
        "--languages_file", metavar="TSV", help="rows of your own, with the columns of comptra/languages.tsv"
    )
    group.add_argument("--seed_topics_path", metavar="FILE", help="txt (one topic a line) or jsonl")
    group.add_argument("--output_dir", type=Path, required=True, metavar="DIR")
    group.add_argument(
        "--translate_dir", metavar="NAME", help="below the output directory [the back-translator's name]"
    )
    group.add_argument("--output_filenames", nargs="+", metavar="NAME", help="one a language [{Language}.jsonl]")
    group.add_argument(
        "--number_of_instructions", type=whole(0), default=0, metavar="N", help="paragraphs over all languages"
    )
    group.add_argument(
        "--number_of_instructions_per_language",
        type=whole(0),
        default=0,
        metavar="N",
        help="paragraphs at least, in each",
    )
    group.add_argument("--seed", type=whole(0), default=122, help="[%(default)s]")
    group.add_argument("--verbose", **FLAG, help="show the texts")
    group.add_argument("--dry_run", **FLAG, help="show the first prompts, their tokens and an estimate, and leave")

    group = parser.add_argument_group("the model that writes")
    group.add_argument("--model_name_or_path", metavar="MODEL", help="a Hub id or a folder")
    group.add_argument("--tokenizer_name_or_path", metavar="MODEL", help="[the model's]")
    group.add_argument(
        "--inference_api", choices=samplers.BACKENDS, default="vllm", help="openai: any such server, too [%(default)s]"
    )
    group.add_argument("--api_key", help="better: the provider's environment variable; never logged nor written")
    group.add_argument(
        "--request_batch_size", type=whole(1), default=4, help="topics a step; hf: prompts a batch [%(default)s]"
    )
    group.add_argument("--max_in_flight", type=whole(1), help="vllm, APIs: requests at a time [vllm 256, APIs 16]")
    group.add_argument(
        "--dtype", choices=("auto", "bfloat16", "float16", "float32"), default="auto", help="[%(default)s]"
    )
    group.add_argument(
        "--max_model_len", type=whole(16), metavar="TOKENS", help="prompt and answer [8192 or the model's limit]"
    )
    group.add_argument(
        "--gpu_memory_utilization", type=real(0.05, 1), default=0.9, help="vllm: share of each GPU [%(default)s]"
    )
    group.add_argument("--tensor_parallel_size", type=whole(1), metavar="GPUS", help="vllm [all that are visible]")
    group.add_argument("--adapter_name_or_path", metavar="LORA", help="a LoRA adapter on top of the model")
    group.add_argument("--lora_rank", type=whole(1), default=16, help="of the adapter, or more [%(default)s]")
    group.add_argument("--trust_remote_code", **FLAG, help="run code that comes with the model")

    group = parser.add_argument_group("APIs (openai, cohere, anthropic)")
    group.add_argument("--base_url", metavar="URL", help="another server, as http://localhost:8000/v1 of vllm serve")
    group.add_argument(
        "--request_timeout", type=real(0.1), default=600, metavar="SECONDS", help="for one attempt [%(default)s]"
    )
    group.add_argument("--max_retries", type=whole(0), default=8, help="after the first attempt [%(default)s]")
    group.add_argument(
        "--prices",
        nargs=2,
        type=real(0),
        metavar=("IN", "OUT"),
        help="of a million prompt and a million answer tokens, to count the cost",
    )

    group = parser.add_argument_group("how it writes")
    group.add_argument("--max_new_tokens", type=whole(1), default=2048, help="[%(default)s]")
    group.add_argument("--temperature", type=real(0), default=1.0, help="0: greedy [%(default)s]")
    group.add_argument("--top_p", type=real(0.001, 1), default=1.0, help="[%(default)s]")
    group.add_argument("--repetition_penalty", type=real(0.01), default=1.0, help="[%(default)s]")
    group.add_argument("--num_return_sequences", type=whole(1), default=1, help="answers a prompt [%(default)s]")
    group.add_argument("--num_beams", type=whole(1), default=1, help="above 1: beam search [%(default)s]")
    group.add_argument("--do_sample", type=boolean, nargs="?", const=True, default=True, help="false: greedy [true]")

    group = parser.add_argument_group("prompts")
    group.add_argument(
        "--prompt_template", metavar="NAME_OR_PATH", help="topxgen/prompts [by the tokenizer's chat template]"
    )
    group.add_argument(
        "--number_of_icl_demonstrations", type=whole(0), default=4, help="example paragraphs [%(default)s]"
    )
    group.add_argument("--number_of_icl_phrases", type=whole(0), default=0, help="example sentences [%(default)s]")
    group.add_argument(
        "--number_of_generations_per_step", type=whole(1), default=2, help="texts a prompt [%(default)s]"
    )
    group.add_argument(
        "--example_paragraphs", default="xquad", metavar="SOURCE", help="xquad (Hub), udhr (embedded) or a folder"
    )
    group.add_argument(
        "--example_sentences", default="flores", metavar="SOURCE", help="flores (Hub), udhr (embedded) or a folder"
    )
    group.add_argument(
        "--number_of_icl_synthetic_demonstrations", type=whole(0), default=2, help="self-instruct [%(default)s]"
    )
    group.add_argument("--number_of_rounds", type=whole(1), default=1, help="knn-instruct [%(default)s]")
    group.add_argument("--max_samples", type=whole(1), help="at most so many example sentences in the pool [all]")

    group = parser.add_argument_group("filters")
    group.add_argument("--threshold", type=real(0, 1), default=0.7, help="near-duplicate ROUGE-L F1 [%(default)s]")
    group.add_argument("--rouge_tokenizer", choices=("unicode", "original"), default="unicode", help="[%(default)s]")
    group.add_argument("--splitter", choices=splitting.SPLITTERS, default="sentencex", help="[%(default)s]")
    group.add_argument(
        "--lid_model",
        default="cld2",
        metavar="CLD2_PATH_OR_ID",
        help="cld2, or a fastText file or Hub id [%(default)s]",
    )

    group = parser.add_argument_group("back-translation")
    group.add_argument(
        "--back_translator", choices=translators.TRANSLATORS, help="[nllb with --use_nllb, else llm: the model above]"
    )
    group.add_argument("--use_nllb", **FLAG, help="short for --back_translator nllb")
    group.add_argument(
        "--nllb_name_or_path",
        default="facebook/nllb-200-3.3B",
        metavar="MODEL",
        help="NLLB, M2M-100, MADLAD, Marian [%(default)s]",
    )
    group.add_argument("--nllb_engine", choices=nllb.ENGINES, default="ctranslate2", help="[%(default)s]")
    group.add_argument(
        "--nllb_compute_type", choices=nllb.COMPUTE_TYPES, default="auto", help="[float16 on GPU, int8 on CPU]"
    )
    group.add_argument(
        "--cache_dir", default=translators.CACHE_DIR, metavar="DIR", help="of converted models [%(default)s]"
    )
    group.add_argument("--target_language", default="English", help="to translate into [%(default)s]")
    group.add_argument(
        "--template_key", default="11", help="llm: number or name in comptra/prompts/templates.toml [%(default)s]"
    )
    group.add_argument(
        "--prompt_style", choices=STYLES, default="auto", help="llm: raw template or chat [by the tokenizer]"
    )
    group.add_argument("--number_of_demonstrations", type=whole(0), default=5, help="llm: shots [%(default)s]")
    group.add_argument(
        "--demonstration_pool",
        default="flores",
        metavar="SOURCE",
        help="llm: flores (Hub), udhr (embedded) or a folder [%(default)s]",
    )

    group = parser.add_argument_group("scores")
    group.add_argument("--scorer", choices=scoring.SCORERS, help="[blaser; with apertium: confidence]")
    group.add_argument("--blaser_name_or_path", default="facebook/blaser-2.0-qe", metavar="MODEL", help="[%(default)s]")
    group.add_argument(
        "--sonar_name_or_path", default="cointegrated/SONAR_200_text_encoder", metavar="MODEL", help="[%(default)s]"
    )
    group.add_argument("--scorer_dtype", choices=("float32", "bfloat16"), default="float32", help="[%(default)s]")
    return parser


def generate(run: Run, command: list[str]) -> bool:
    """The generate stage; whether it reached its target."""
    from comptra.progress import Progress
    from topxgen.funnel import generation_counts
    from topxgen.generation import MAX_BARREN_STEPS, Generation, Target

    args, layout, started = run.args, run.layout, provenance.now()
    builder, template, settings, texts, _ = prepare_generation(run, say)
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
            say(f"loading {args.model_name_or_path} ({args.inference_api})")
            sampler = samplers.load(args.inference_api, run.model_settings())
            provenance.record_settings(layout.settings("generate"), settings)
            stages.begin(layout, "generate")
            progress.restart_clock()
            try:
                generation.run(sampler, run.sampling_settings(template.stop))
            finally:
                say_retries(sampler)
                sampler.close()
        outcome = generation.outcome()
    counts = {name: generation_counts(layout, name, run.filenames.get(name)) for name in run.languages}
    stages.write_manifest(
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
        say(
            f"stopped at {kept} of {total} paragraphs: {MAX_BARREN_STEPS} steps in a row kept nothing; see the reasons in "
            f"{layout.output_dir}/*_rejects.jsonl, then change the prompt, the topics or the filters in another --output_dir"
        )
    return outcome.enough


def check_origin(run: Run) -> None:
    """Paragraphs with ids of ours belong to the answers beside them: without those, new answers would be
    taken for paragraphs that are there already."""
    from comptra.files import read_jsonl

    if run.layout.settings("generate").exists():
        return
    for name in run.languages:
        path = run.layout.paragraphs(name, run.filenames.get(name))
        if any(str(record.get("id", "")).startswith(f"{name}-") for record in read_jsonl(path)):
            raise UserError(
                f"{path} holds paragraphs of another run (their ids say so), but not its settings and answers: bring the "
                'whole directory along, or remove the "id" of each line to start from these paragraphs'
            )


def translate(run: Run, command: list[str]) -> None:
    """The translate stage."""
    from comptra import language_id
    from comptra.progress import Progress
    from topxgen.back_translation import back_translate, paragraphs, translated
    from topxgen.funnel import translation_counts

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
            say(
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
        stages.begin(layout, "translate")
        say(f"loading {translator.version}")
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
    stages.write_manifest(
        layout,
        "translate",
        started=started,
        seed=args.seed,
        settings=settings,
        command=command,
        translator_version=translator.version,
        counts={name: translation_counts(layout, name) for name in run.languages},
    )


def score(run: Run, command: list[str]) -> None:
    """The score stage."""
    from comptra.progress import Progress
    from topxgen.funnel import translation_counts

    layout, scorer, started, truncated = run.layout, run.scorer, provenance.now(), 0
    if scorer is None:
        return
    total = sum(scoring.unscored(layout, language, scorer.id) for language in run.languages)
    if total:
        stages.begin(layout, "score")
        say(f"loading {scorer.id}")
        try:
            scorer.load()
            with Progress("score", total, "paragraphs with pairs") as progress:
                for language in run.languages.values():
                    truncated += scoring.score(layout, language, run.target, scorer=scorer, progress=progress)
        finally:
            scorer.close()
    if truncated:
        say(f"{truncated} texts were longer than the scorer reads (514 tokens) and scored by their beginnings")
    stages.write_manifest(
        layout,
        "score",
        started=started,
        seed=run.args.seed,
        settings={"scorer": scorer.id},
        command=command,
        **({"truncated_texts": truncated} if total else {}),
        counts={language: translation_counts(layout, language) for language in run.languages},
    )


def check_target(run: Run) -> None:
    """A scorer is told both languages, and would score in the wrong one without a word."""
    from comptra.files import read_json

    earlier = read_json(run.layout.settings("translate")).get("target_language", run.target.name)
    if earlier != run.target.name:
        raise UserError(
            f"the translations in {run.layout.translate_dir} are into {earlier}; pass --target_language {earlier!r}"
        )


def say_retries(model) -> None:
    """What an API made us do again."""
    if retries := getattr(model, "retries", None):
        say("asked again: " + ", ".join(f"{count} times for a {kind}" for kind, count in retries.most_common()))


def report(run: Run) -> None:
    """Print the funnel, a few pairs, and where the files are."""
    from comptra.files import read_json
    from comptra.progress import printable
    from topxgen import funnel

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
            print(funnel.usage(stage, prompt, completion, run.args.prices))
    for name in translated:
        for sentence, translation, value in funnel.sample_pairs(layout.translations(name)):
            shown = "no score" if value is None else f"score {value:.2f}"
            print(f"  {name}: {printable(sentence)}\n  {run.target.name}: {printable(translation)}  ({shown})\n")
    for name in run.languages:
        paragraphs = layout.paragraphs(name, run.filenames.get(name))
        paths = [paragraphs, *([layout.translations(name)] if name in translated else [])]
        print(f"{name}: {', '.join(map(str, paths))}; why texts and pairs were dropped: *_rejects.jsonl beside them")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def preflight(run: Run) -> None:
    """Fail now on what a later stage would fail on, after hours of generation."""
    args = run.args
    if "generate" in args.stages:
        samplers.check(args.inference_api, run.model_settings(), run.sampling_settings(()))
    if "translate" in args.stages:
        from comptra import language_id

        for language in run.languages.values():
            run.translator.check(language, run.target)
        language_id.load(args.lid_model)
    if "score" in args.stages and run.scorer is not None:
        if "translate" not in args.stages:
            check_target(run)
        run.scorer.preflight(run.languages.values(), run.target)


def main() -> int:
    args = build_parser().parse_args()
    try:
        run = Run(args)
        if args.dry_run:
            return dry_run(run)
        preflight(run)
        from comptra.files import OutputLock, repair_tail

        command = provenance.command_line(("--api_key",))
        enough = True
        with OutputLock(args.output_dir):
            repair_tail(run.layout.translation_answers)
            for name in run.languages:
                for path in run.layout.files(name, run.filenames.get(name)):
                    repair_tail(path)
            if "generate" in args.stages:
                enough = generate(run, command)
            if "translate" in args.stages:
                translate(run, command)
            if "score" in args.stages:
                score(run, command)
            report(run)
        return 0 if enough else 3
    except UserError as error:
        say(f"datagen.py: error: {error}")
        return error.exit_code
    except OSError as error:  # a full disk, a read-only file, a directory where a file should be
        say(f"datagen.py: error: {error}; what is finished is on disk, and the same command goes on from there")
        return 2
    except KeyboardInterrupt:
        say("\nstopped; the same command goes on from here")
        return 130


if __name__ == "__main__":
    sys.exit(main())
