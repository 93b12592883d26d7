"""The stages of main.py: one model after the other, in one direction after the other, each in its folder."""

import argparse
import json
import logging
from contextlib import nullcontext
from itertools import product
from pathlib import Path

from comptra import cost_estimate
from comptra.compositional import translate
from comptra.config import DIVISION_SETTINGS, EvaluationConfig, directions
from comptra.llm_calls import LLMClient, StageProgress
from comptra.manifest import Manifest
from comptra.methods import DIVIDE_ONLY
from comptra.models import Model
from comptra.ordered_jsonl import TRUNCATED, UNANSWERED, UNDIVIDED, UNREADABLE, is_complete, is_torn, marked, read_lines
from comptra.settings import division_settings, flag_settings, run_settings
from topxgen import inference
from topxgen.common import checksums, hub, lineage, provenance, rates, shards, translation_folders
from topxgen.common.cli import EXIT_INCOMPLETE
from topxgen.common.console import counted, show
from topxgen.common.errors import UsageError
from topxgen.common.files import check_are_there, read_json, remove, write_json
from topxgen.common.locks import OutputLock, wait_for_lock
from topxgen.common.provenance import TRANSLATE_MANIFEST as MANIFEST
from topxgen.common.provenance import TRANSLATE_SETTINGS as SETTINGS
from topxgen.common.translation_folders import RESPONSES
from topxgen.inference.costs import Estimate, estimate_table
from topxgen.inference.lazy_sampler import LazySampler
from topxgen.prompting.mt_templates import get_template
from topxgen.prompting.style import RAW
from topxgen.text import languages

logger = logging.getLogger(__name__)

FILES = ("translate_*.jsonl", "draft_*.jsonl", RESPONSES, SETTINGS)  # of a run, beside its manifest
MAX_SHOWN_PROMPTS = 2  # of a dry run


def show_prompts(configs: list[EvaluationConfig]) -> int:
    """Print the folders of the results, an estimate of the work and the first prompts, without loading a model; the exit code."""
    several = len(configs) > 1
    meter, is_remote = configs[0].meter, configs[0].args.inference_api in inference.REMOTE
    everything: list[Estimate] = []
    divided: set[Path] = set()
    for model, config in product(configs[0].models, configs):
        check_outputs(config, model, read_only=True)
        count_responses(config, model)
        where = f"{model.path}, {config.direction}" if several else model.path
        show(f"{where}: {len(config.test_set.sources)} sentences to {config.folder(model)}")
        estimates = cost_estimate.estimate(config, model)
        if config.args.steps:
            folder = config.divisions(model, division_settings(config, model))
            if (folder, config.src) in divided:
                estimates = [one for one in estimates if not one.stage.startswith("divide")]
            divided.add((folder, config.src))
        if estimates and not several:
            show(estimate_table(estimates, meter.prices, meter.budget, is_remote))
        everything += [one._replace(stage=f"{config.part(model)}: {one.stage}") for one in estimates]
        if spent := config.meter.usage(config.part(model)):
            show(f"so far, {spent}")
    if several and everything:
        show(estimate_table(everything, meter.prices, meter.budget, is_remote))
    if any(one.hours is None for one in everything):
        remedy = "try a few sentences (--max_samples) in this directory"
        show(f"hours are unknown until a first run has measured the speed: {remedy}")
    args, model = configs[0].args, configs[0].models[0]
    if not configs[0].uses_llm or args.steps or args.method_translate != "vanilla":
        show("--dry_run cannot show these prompts: they depend on earlier model outputs")
        return 0
    for config in configs:
        task = config.task(model, LLMClient(None, config.style[model.path], None, args.seed))
        sentences = config.test_set.sources[: 1 if several else MAX_SHOWN_PROMPTS]
        for shots, sentence in zip(task.shots(sentences), sentences, strict=True):
            prompt = task.prompt(shots, sentence)
            text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, indent=2)
            show(f"---\n{text}\n---")
    return 0


def translate_all(configs: list[EvaluationConfig], command: list[str]) -> int:
    """Translate with every model in every direction; the exit code."""
    first = configs[0]
    for model, config in product(first.models, configs):  # before hours of work for the first of them
        check_outputs(config, model)
        count_responses(config, model)
    done: dict[str, dict] = {}  # the summary of each part
    by_base: dict[str, list[Model]] = {}
    for model in first.models:
        by_base.setdefault(model.base, []).append(model)
    try:
        for group in by_base.values():
            progress = StageProgress(counts=first.meter.shown, responses=first.meter.responses)
            to_come = [model.adapter for model in group]
            sampler = LazySampler(lambda base=group[0]: load_model(first, base), progress.open, to_come)
            try:
                for model in group:
                    sampler.use_adapter(to_come.pop(0))
                    retrieve(model, configs)
                    for number, config in enumerate(configs, start=1):
                        if config.several:
                            progress.scope = f"{config.direction} ({number} of {len(configs)}): "
                            logger.info(f"{config.part(model)} (direction {number} of {len(configs)})")
                        done[config.part(model)] = translate_with(config, model, sampler, command, progress)
            finally:
                sampler.close()
    finally:
        if not first.uses_llm:
            first.nllb.close()
    incomplete = {part: summary for part, summary in done.items() if summary.get("unanswered_prompts")}
    if first.several:
        for part, summary in incomplete.items():
            logger.info(f"incomplete: {part}: {counted(summary['unanswered_prompts'], 'prompt')} got no response")
        sentences = sum(summary.get("sentences", 0) for summary in done.values())
        logger.info(
            f"{counted(len(done), 'run')}, {counted(sentences, 'translation')} in {first.args.output_dir}; incomplete: {len(incomplete)}"
        )
        if usage := first.meter.usage():
            logger.info(usage)
    return EXIT_INCOMPLETE if incomplete else 0


def retrieve(model: Model, configs: list[EvaluationConfig]) -> None:
    """Find the demonstrations of all directions that are not complete, if that takes a model, before the LLM is in memory."""
    first = configs[0]
    if first.args.steps or not (first.several and first.retrieves_by_model and first.max_demonstrations):
        return
    for config in configs:
        path, sentences = config.folder(model) / "translate_0.jsonl", config.test_set.sources
        if not (path.is_file() and is_complete(path, len(sentences))):
            config.nearest_by_model(sentences, config.args.k)


def load_model(config: EvaluationConfig, model: Model):
    api, settings = config.args.inference_api, config.model_settings(model)
    logger.info(f"loading {model.base} ({inference.describe(api, settings)})")
    return inference.load(api, settings)


def translate_with(
    config: EvaluationConfig, model: Model, sampler: LazySampler, command: list[str], progress: StageProgress
) -> dict:
    """Divide if asked to, translate, and write the manifest, which is returned; {} if there is nothing to translate."""
    args, folder, started, part = config.args, config.folder(model), provenance.now(), config.part(model)
    settings = run_settings(config, model)
    note = {"sentences": len(config.test_set.sources), "prices": args.prices}
    with OutputLock(folder, note=note):
        check_settings(folder, settings)
        if args.shard is not None:
            shards.write_note(folder, args.shard, "main", "translate", "main")
        options = {"paid": args.inference_api in inference.REMOTE, "progress": progress}
        sampler_of_part, style = config.meter.wrap(sampler, part), config.style.get(model.path, RAW)
        client = LLMClient(sampler_of_part, style, folder / RESPONSES, args.seed, **options)
        try:
            task = config.task(model, client, release_llm=sampler.close)
            plan = config.plan(task)
            levels, divisions = divide(config, model, plan, task)
            client.failures.clear()  # of divisions: these sentences are translated whole
            if args.method_translate == DIVIDE_ONLY:
                logger.info(f"{len(levels[-1].sentences)} phrases in {divisions}/divide_{args.steps}.jsonl")
                return {}
            lines_from_original = record_settings(folder, settings)
            sizes = {folder / f"translate_{s}.jsonl": len(level.sentences) for s, level in enumerate(levels)}
            # The manifest of a finished run is kept if there is nothing left to do.
            earlier, accepted = read_json(folder / MANIFEST, Manifest), args.accept_unanswered
            unchanged = bool(earlier) and not earlier.get("unanswered_prompts")
            unchanged &= all(is_complete(*item, accepted) for item in sizes.items())
            if not unchanged:
                remove(folder / MANIFEST)
            translations = translate.translate(levels, plan, task, folder)
            progress.close()
            summary = {
                "stage": "translate",
                "started": started,
                "finished": provenance.now(),
                "command": command,
                "model": model.path,
                "settings": {**settings, "max_samples": args.max_samples, "base_url": args.base_url},
                "test_set": config.test_set.facts,
                "undivided": [count(UNDIVIDED, divisions / f"divide_{r}.jsonl") for r in range(1, plan.steps + 1)],
                **outcome(levels, translations, plan, client),
                "unanswered_translations": count(UNANSWERED, *sizes),
                "unreadable_answers": count(UNREADABLE, *sizes),
                "truncated_translations": count(TRUNCATED, *sizes),
                "lines_from_original": lines_from_original,
                "usage": config.meter.totals(part),
                lineage.KEY: origin(config, model),
                "versions": provenance.versions(),
            }
            if args.verbose:
                show("\n".join(translate.tree(levels, translations, task, plan, 0)))
        finally:
            progress.close()
            client.close()
            rates.record(folder.parent, progress.take_rates())
        of_original = {"lines_from_original": lines_from_original} if lines_from_original else {}
        provenance.restore_settings(folder / SETTINGS, settings | of_original)
        check_are_there([folder / RESPONSES, *sizes])
        finish(folder, None if unchanged else summary)
    print_summary(config, folder, summary)
    if usage := config.meter.usage(part):
        logger.info(usage)
    return summary


def count(mark: str, *paths: Path) -> int:
    """How many lines of the files have a mark."""
    return sum(len(marked(path, mark)) for path in paths)


def finish(folder: Path, summary: dict | None) -> None:
    """Write the manifest, unless a finished run's is kept, and complete the entries in SHA256SUMS."""
    if summary is not None:
        files = [path for pattern in FILES for path in folder.glob(pattern)]
        summary[checksums.KEY] = checksums.existing(folder, files)
        checksums.claim(folder, summary[checksums.KEY])
        write_json(folder / MANIFEST, summary)
    if claimed := read_json(folder / MANIFEST, Manifest).get(checksums.KEY):  # older versions had none
        checksums.claim(folder, [*claimed, MANIFEST])


def record_settings(folder: Path, settings: dict) -> int:
    """Write the settings; how many lines of translate_0.jsonl another program wrote, which are kept as they are."""
    path, inherited = folder / "translate_0.jsonl", {}
    if path.is_file() and not (folder / SETTINGS).is_file() and (lines := path.read_bytes().count(b"\n")):
        logger.info(f"{path} has {lines} lines of another program, which are kept as they are")
        inherited = {"lines_from_original": lines}
    provenance.record_settings(folder / SETTINGS, settings | inherited)
    return provenance.read_settings(folder / SETTINGS).get("lines_from_original", 0)


def origin(config: EvaluationConfig, model: Model) -> lineage.Translations:
    """Where the models and the generated demonstrations come from."""
    args, pool = config.args, config.test_set.facts.get("pool") or {}
    names = [model.path, model.base] if config.uses_llm else []
    names += [args.nllb_name_or_path] * (args.method_translate == "nllb")
    shown = config.max_demonstrations and args.dataset_name_or_path == "topxgen"
    is_remote = args.inference_api in inference.REMOTE

    def folder_of(name: str) -> str:
        """Where the manifests of a model are: those that train.py has published, too."""
        published = None if is_remote or Path(name).is_dir() else hub.model_file(name, lineage.TRAIN_MANIFEST)
        return str(published.parent) if published else name

    return {
        "models": [{**lineage.of_model(folder_of(name)), "name": name} for name in dict.fromkeys(names)],
        "demonstrations": lineage.of_pairs(Path(pool["from"])) if shown else None,
    }


def outcome(
    levels: list[translate.Level], translations: list[list[str]], plan: translate.Plan, client: LLMClient
) -> dict:
    """The results of a run in numbers."""
    return {
        "sentences": len(translations[0]),
        "empty_translations": sum(not text for text in translations[0]),
        "phrases": [len(level.sentences) for level in levels[1:]],
        # Of each level below the sentences: those whose translation is empty or in another language.
        "phrases_left_out": [
            sum(not (text and fits) for text, fits in zip(texts, plan.fits(texts), strict=True))
            for texts in translations[1:]
        ],
        "truncated_answers": {str(limit): count for limit, count in client.responses.cut.items()},
        **({"own_temperature": own} if (own := client.responses.own_temperature) else {}),
        "unanswered": sorted(set(client.failures.values())),
        "unanswered_prompts": 0 if plan.accepts_unanswered else len(client.failures),  # the next run sends them again
    }


def print_summary(config: EvaluationConfig, folder: Path, summary: dict) -> None:
    sentences, args = summary["sentences"], config.args
    logger.info(f"{counted(sentences, 'translation')} in {folder}/translate_0.jsonl")
    for undivided in filter(None, summary["undivided"]):
        logger.info(
            f"{counted(undivided, 'sentence or phrase', 'sentences or phrases')} could not be divided: translated whole (pass another "
            "--output_dir to retry)"
        )
    for phrases, left_out in zip(summary["phrases"], summary["phrases_left_out"], strict=True):
        if left_out:
            logger.info(
                f"{left_out} of {counted(phrases, 'phrase')} not used: the translation is empty or not in {config.tgt.name}"
            )
    flags = ["max_new_tokens"]
    flags += ["max_new_tokens_merge"] * bool(args.steps or args.number_of_refining_steps)
    flags += ["max_new_tokens_divide"] * bool(args.steps)
    for limit, cut in summary["truncated_answers"].items():
        flag = " or ".join(f"--{flag}" for flag in flags if getattr(args, flag) == int(limit)) or "intermediate outputs"
        logger.info(f"{counted(cut, 'response')} ended at the limit of {limit} tokens of {flag}, and may be cut short")
    if unanswered := summary["unanswered_prompts"]:
        reasons = "; ".join(summary["unanswered"][:3])
        logger.warning(
            f"{counted(unanswered, 'prompt')} got no response ({reasons}): lines that depend on one are marked as unanswered; re-run "
            "the same command to try again, or add --accept_unanswered to leave these lines as they are"
        )
    elif marks := summary["unanswered_translations"]:
        logger.warning(f"{counted(marks, 'translation')} marked as unanswered for good (--accept_unanswered)")
    if unreadable := summary["unreadable_answers"]:
        logger.warning(
            f"{counted(unreadable, 'response')} without a translation (thoughts that used up the tokens, a merge without the section of "
            "the final translation): the line is empty and marked as unreadable; where it was cut short raise "
            f"--max_new_tokens{'_merge, else --merge_prompt vanilla asks for less' * bool(args.steps)}"
        )
    if truncated := summary["truncated_translations"]:
        remedy = f"raise --max_new_tokens{' or --max_new_tokens_merge' * bool(args.steps)}, with another --output_dir"
        if args.method_translate == "nllb":
            remedy = "that of an encoder-decoder is twice the tokens of the source, as published"
        logger.warning(
            f"{counted(truncated, 'translation')} cut at the limit of new tokens, and marked as truncated; {remedy}"
        )
    if not unreadable and not summary["unanswered_translations"] and (empty := summary["empty_translations"]):
        logger.warning(f"{empty} of {counted(sentences, 'translation')} empty: the model wrote nothing")


def check_outputs(config: EvaluationConfig, model: Model, read_only: bool = False) -> None:
    """Raise UsageError if results on disk were made with other settings, or are of other sentences."""
    folder, path = config.folder(model), config.folder(model) / "translate_0.jsonl"
    if folder.is_dir():
        with nullcontext() if read_only else OutputLock(folder):
            check_settings(folder, run_settings(config, model), read_only)
            if not (read_only and is_torn(path)):
                read_lines(path, config.test_set.sources, "translation")
    if config.args.steps:
        settings = division_settings(config, model)
        check_division(config.divisions(model, settings), settings)


def count_responses(config: EvaluationConfig, model: Model) -> None:
    """Add what the responses of earlier runs, or of merged shards, cost."""
    config.meter.add_files(config.part(model), config.folder(model).glob(RESPONSES))


def check_results(args: argparse.Namespace) -> None:
    """Raise UsageError for translations by other flags, as far as they are known before the test set is read."""
    values, models = translation_folders.values_of(args), args.model_name_or_path or [args.nllb_name_or_path]
    for name, one in product(models, directions(args)):
        src, tgt = (languages.find(side, args.languages_file).name for side in (one.src, one.tgt))
        if args.template_key is not None:
            key = get_template(args.template_key, src, tgt, extra=args.languages_file).key
            values["template_key"] = Path(key).name
        room, merge_prompt = args.output_dir / Path(name).name, Path(args.merge_prompt).stem
        folder = room / (args.metadata_dir or translation_folders.original_name(src, tgt, args, merge_prompt))
        if args.metadata_dir is None:
            folder = translation_folders.folder_of(folder, values)
        check_settings(folder, flag_settings(args), read_only=True)


def check_settings(folder: Path, settings: dict, read_only: bool = False) -> None:
    """Raise UsageError if translations in `folder` were made with other settings; those of a run without results are removed."""
    if not any(translation_folders.results(folder)):
        if not read_only:
            provenance.forget_settings(folder / SETTINGS, settings)
        return
    provenance.check_settings(folder / SETTINGS, settings)


def check_division(folder: Path, settings: dict) -> None:
    """Raise UsageError if divisions in `folder` were made with other settings."""
    if translate.has_divisions(folder):
        try:
            provenance.check_settings(folder / DIVISION_SETTINGS, settings)
        except UsageError as error:
            raise UsageError(f"{error} (runs below it share their divisions: pass another --output_dir)") from None


def divide(
    config: EvaluationConfig, model: Model, plan: translate.Plan, task: translate.Task
) -> tuple[list[translate.Level], Path]:
    """The levels of the run, and the folder of the divisions, which all runs that divide alike share."""
    sources = config.test_set.sources
    if not plan.steps:
        return translate.divide(sources, plan, task, config.folder(model)), config.folder(model)
    settings = division_settings(config, model)
    while True:
        folder = config.divisions(model, settings)
        lock = wait_for_lock(folder)
        if folder == config.divisions(model, settings):
            break
        lock.release()  # the run that held it has divided in another way
    with lock:
        check_division(folder, settings)
        if not translate.has_divisions(folder):
            provenance.forget_settings(folder / DIVISION_SETTINGS, settings)  # of a run that divided nothing
        provenance.record_settings(folder / DIVISION_SETTINGS, settings)
        had = checksums.read(folder)
        levels = translate.divide(sources, plan, task, folder)
        if DIVISION_SETTINGS in had:  # older versions had no checksums
            names = ("divide", "parent")
            checksums.claim(folder, [f"{name}_{r}.jsonl" for name in names for r in range(1, plan.steps + 1)])
        return levels, folder
