"""What main.py does with its settled command line: one model after the other, each in its folder."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

from comptra import ordered_jsonl
from comptra.compositional import translate
from comptra.llm_calls import LazySampler, LLMClient
from comptra.models import Model
from comptra.run import EvaluationConfig
from topxgen import inference
from topxgen.common import provenance
from topxgen.common.console import Progress, printable
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, write_json
from topxgen.common.locks import DirectoryLocked, OutputLock
from topxgen.common.provenance import TRANSLATE_MANIFEST as MANIFEST
from topxgen.common.provenance import TRANSLATE_SETTINGS as SETTINGS
from topxgen.prompting.style import RAW

logger = logging.getLogger(__name__)

ANSWERS = "answers.jsonl"
NO_ANSWER = 3  # exit code: some sentences have no translation
SHOWN_PROMPTS = 2  # prompts of a dry run


def show_prompts(run: EvaluationConfig) -> int:
    """Print what would be asked first, and where the results would go; no weights are loaded."""
    for model in run.models:
        print(f"{model.path}: {len(run.test_set.sources)} sentences to {run.folder(model)}")
    model = run.models[0]
    if run.asks and not run.args.steps and run.args.method_translate == "vanilla":
        task = run.task(model, LLMClient(None, run.style[model.path], None, run.args.seed))
        sentences = run.test_set.sources[:SHOWN_PROMPTS]
        for shots, sentence in zip(task.shots(sentences), sentences, strict=True):
            prompt = task.prompt(shots, sentence)
            text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, indent=2)
            print(f"---\n{printable(text)}\n---")
    else:
        print("its prompts hold answers to earlier ones (or none is asked in words), so that they are not known yet")
    return 0


def translate_all(run: EvaluationConfig, command: list[str]) -> int:
    """Translate with every model; the exit code."""
    for model in run.models:  # before hours of work for the first of them
        check_outputs(run, model)
    failed, bars = 0, ProgressBars()
    groups: dict[str, list[Model]] = {}
    for model in run.models:
        groups.setdefault(model.base, []).append(model)
    for models in groups.values():
        sampler = LazySampler(lambda model=models[0]: load(run, model, bars))
        try:
            for model in models:
                sampler.use_adapter(model.adapter)
                failed += translate_one(run, model, sampler, command, bars)
        finally:
            sampler.close()
    return NO_ANSWER if failed else 0


def load(run: EvaluationConfig, model: Model, bars: "ProgressBars"):
    logger.info(f"loading {model.base} ({run.args.inference_api})")
    sampler = inference.load(run.args.inference_api, run.model_settings(model))
    bars.restart()
    return sampler


class ProgressBars:
    """A progress bar for each thing that is asked, named after the stage it belongs to."""

    def __init__(self):
        self.stage, self._bar = "", None

    def begin(self, stage: str) -> None:
        self.stage = stage

    def asked(self, total: int) -> None:
        self.close()
        self._bar = Progress(self.stage, total, "answers")

    def tick(self, n: int) -> None:
        if self._bar is not None:
            self._bar.update(n)

    def restart(self) -> None:
        """Do not count the time that a model took to load."""
        if self._bar is not None:
            self._bar.restart_clock()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def translate_one(
    run: EvaluationConfig, model: Model, sampler: LazySampler, command: list[str], bars: ProgressBars
) -> int:
    """Translate with one model; how many prompts got no answer."""
    folder, started = run.folder(model), provenance.now()
    settings = run.settings(model)
    with OutputLock(folder):
        check_settings(folder, settings)
        asker = LLMClient(
            sampler,
            run.style.get(model.path, RAW),
            folder / ANSWERS,
            run.args.seed,
            paid=run.args.inference_api in inference.REMOTE,
            bars=bars,
        )
        try:
            task = run.task(model, asker, rest=sampler.close)
            plan = run.plan(task)
            levels = divide(run, model, plan, bars, asker.why)
            asker.failures.clear()  # of divisions: what had none stays whole
            if plan.method is None:
                logger.info(
                    f"{len(levels[-1].sentences)} phrases in {run.metadata(model)}/divide_{run.args.steps - 1}.jsonl"
                )
                return 0
            inherited = 0
            if not (folder / SETTINGS).is_file() and (folder / "translate_0.jsonl").is_file():
                inherited = (folder / "translate_0.jsonl").read_bytes().count(b"\n")
            if inherited:
                logger.info(
                    f"{folder}/translate_0.jsonl has {inherited} lines of another program: they stay as they are"
                )
            more = {"inherited_lines": inherited} if inherited else {}
            provenance.record_settings(folder / SETTINGS, {**settings, **more})
            # A run with nothing left to do leaves what is on record.
            done = (folder / MANIFEST).is_file() and all(
                ordered_jsonl.complete(folder / f"translate_{s}.jsonl", len(level.sentences))
                for s, level in enumerate(levels)
            )
            if not done:
                (folder / MANIFEST).unlink(missing_ok=True)
            found = translate.translate(levels, plan, task, folder, bars.begin)
            bars.close()
            summary = {
                "stage": "translate",
                "started": started,
                "finished": provenance.now(),
                "command": command,
                "model": model.path,
                "settings": {**settings, "max_samples": run.args.max_samples},
                "test_set": run.test_set.facts,
                "undivided": [
                    len(ordered_jsonl.marked(run.metadata(model) / f"divide_{r}.jsonl", ordered_jsonl.UNDIVIDED))
                    for r in range(plan.steps)
                ],
                **outcome(levels, found, plan, asker),
                "inherited_lines": read_json(folder / SETTINGS).get("inherited_lines", 0),
                "versions": provenance.versions(),
            }
            if not done:
                write_json(folder / MANIFEST, summary)
            if run.args.verbose:
                print("\n".join(map(printable, translate.tree(levels, found, task, plan, 0))))
        finally:
            bars.close()
            asker.close()
    print_summary(run, folder, summary)
    return len(asker.failures)


def outcome(levels: list[translate.Level], found: list[list[str]], plan: translate.Plan, asker: LLMClient) -> dict:
    """What became of the sentences, in numbers."""
    return {
        "sentences": len(found[0]),
        "empty_translations": sum(not text for text in found[0]),
        "phrases": [len(level.sentences) for level in levels[1:]],
        # Of each level below the sentences: those whose translation is empty or in another language.
        "phrases_left_out": [
            sum(not (text and fit) for text, fit in zip(texts, plan.fits(texts), strict=True)) for texts in found[1:]
        ],
        "answers_cut_at_limit": {str(limit): count for limit, count in asker.cut.items()},
        "unanswered": sorted(set(asker.failures.values())),
        "unanswered_prompts": len(asker.failures),
    }


def print_summary(run: EvaluationConfig, folder: Path, summary: dict) -> None:
    """What a user has to know of a finished run."""
    count, limit = summary["sentences"], run.args.max_new_tokens
    logger.info(f"{count} translations in {folder}/translate_0.jsonl")
    for undivided in filter(None, summary["undivided"]):
        logger.info(f"{undivided} sentences or phrases stayed whole: they could not be divided (again: --metadata_dir)")
    for phrases, left_out in zip(summary["phrases"], summary["phrases_left_out"], strict=True):
        if left_out:
            logger.info(f"{left_out} of {phrases} phrases were left out: no translation, or none in {run.tgt.name}")
    flags = {str(run.args.max_new_tokens_divide): "--max_new_tokens_divide", str(limit): "--max_new_tokens"}
    for at, cut in summary["answers_cut_at_limit"].items():
        logger.info(f"{cut} answers ended at the {at} tokens of {flags.get(at, 'thoughts')}: they may be cut short")
    if unanswered := summary["unanswered_prompts"]:
        logger.info(
            f"{unanswered} prompts got no answer ({'; '.join(summary['unanswered'][:3])}): the lines that depend on them are marked as "
            "unanswered, and the same command asks again"
        )
    elif empty := summary["empty_translations"]:
        logger.info(f"{empty} of {count} translations are empty: the model said nothing")


def check_outputs(run: EvaluationConfig, model: Model) -> None:
    """Raise UsageError when what is there already was made with other settings, or translates other sentences."""
    folder = run.folder(model)
    if folder.is_dir():
        with OutputLock(folder):
            check_settings(folder, run.settings(model))
            ordered_jsonl.resume(folder / "translate_0.jsonl", run.test_set.sources, "translation")
    if run.args.steps:
        check_division(run.metadata(model), run.division(model))


def check_settings(folder: Path, settings: dict) -> None:
    """Raise UsageError when translations in `folder` were made with other settings; those of a try that made none are void."""
    made = [folder / ANSWERS, *folder.glob("translate_*.jsonl"), *folder.glob("draft_*.jsonl")]
    if not any(path.is_file() and path.stat().st_size for path in made):
        (folder / SETTINGS).unlink(missing_ok=True)
    provenance.check_settings(folder / SETTINGS, settings)


def check_division(folder: Path, settings: dict) -> None:
    """Raise UsageError when the divisions in `folder` were made with other settings."""
    if (folder / "divide_0.jsonl").is_file():
        try:
            provenance.check_settings(folder / "settings_divide.json", settings)
        except UsageError as error:
            raise UsageError(f"{error} (--metadata_dir puts divisions elsewhere)") from None


def divide(
    run: EvaluationConfig, model: Model, plan: translate.Plan, bars: ProgressBars, why: Callable[[], str]
) -> list[translate.Level]:
    """The levels of the run; divisions are shared by all that translate from this language."""
    if not plan.steps:
        return translate.divide(run.test_set.sources, plan, run.metadata(model), bars.begin)
    folder = run.metadata(model)
    with wait_for_lock(folder):
        settings = run.division(model)
        check_division(folder, settings)
        if not (folder / "divide_0.jsonl").is_file():
            (folder / "settings_divide.json").unlink(missing_ok=True)  # of a try that divided nothing
        provenance.record_settings(folder / "settings_divide.json", settings)
        levels = translate.divide(run.test_set.sources, plan, folder, bars.begin, why)
    bars.close()
    return levels


def wait_for_lock(folder: Path, every: float = 5.0) -> OutputLock:
    """The lock of a folder; waits while another run that divides the same sentences holds it."""
    told = False
    while True:
        try:
            return OutputLock(folder)
        except DirectoryLocked as error:
            if not told:
                logger.info(f"{error}: waiting")
                told = True
            time.sleep(every)
