"""Self-improvement: rounds of training and back-translation with the model that the round before has trained.

Round 0 is the run as its file describes it. Each later round translates the paragraphs of round 0 again, with the model of the
round before, decontaminates the new pairs, and trains the base model on them: not the model of the round before, so that rounds
differ in their data alone and an error of one is not carried on in the weights. Scores on a held-out set, never those on the
test set, end the rounds.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Required, TypedDict

from topxgen import inference
from topxgen.common import checksums
from topxgen.common.console import aligned, counted, show
from topxgen.common.errors import UsageError, did_you_mean
from topxgen.common.files import read_json, write_json
from topxgen.common.records import FilteredLayout, read_translations, translations_name
from topxgen.common.run_files import RunFile, Value, references
from topxgen.common.schemas import fields
from topxgen.experiments import stages
from topxgen.experiments.chain import Chain, Command, commands, folder_of, stops
from topxgen.text import languages

logger = logging.getLogger(__name__)
KEY = "rounds"
FILE = "rounds.json"
KEYS = ("number", "patience", "metric", "held_out", "datagen")
MAX_ROUNDS = 100
DEFAULT_METRICS = ("bleu", "chrf", "lang")  # of comptra.evaluate
HELD_OUT = {"dataset_name_or_path": "validation"}  # FLORES-200 dev
# Flags of datagen.py that are for generation or for another back-translator than the fine-tuned model.
NOT_FOR_ROUNDS = (
    *("paragraphs", "use_nllb", "nllb_name_or_path", "nllb_engine", "nllb_compute_type", "cache_dir"),
    *("tokenizer_name_or_path", "adapter_name_or_path", "lora_rank"),
    *("base_url", "request_timeout", "max_retries", "budget"),
)
# Flags that a round gives to datagen.py and main.py itself.
DECIDED = {
    "datagen": (
        *("stages", "output_dir", "translate_dir", "paragraphs"),
        *("model_name_or_path", "adapter_name_or_path", "nllb_name_or_path"),
    ),
    "held_out": ("model_name_or_path", "output_dir"),
}
Tree = dict[str, Any]  # of a run file: Value by key


@dataclass(frozen=True)
class Settings:
    """`rounds` of a run file: how many after round 0, and how many in a row may fail to improve the held-out score.

    `held_out` has flags of main.py, `datagen` those of datagen.py for the rounds after round 0.
    """

    number: int
    patience: int = 0
    metric: str = "chrf"
    held_out: Mapping[str, Value] | None = None
    datagen: Mapping[str, Value] | None = None


@dataclass(frozen=True)
class Round:
    """The commands of a round, by the folder that keeps their records."""

    folder: Path
    model: Path
    data: list[Command]  # generation or back-translation, decontamination, training
    held_out: list[Command]
    test: list[Command]

    def jobs(self) -> Iterator[tuple[Path, str, Command]]:
        """Each command, behind the folder that keeps its record and what to say of it."""
        held_out = held_out_folder(self.folder)
        yield from ((self.folder, "", command) for command in self.data)
        yield from ((held_out, "held-out set, ", command) for command in self.held_out)
        yield from ((self.folder, "", command) for command in self.test)


class Result(TypedDict):
    """A round in rounds.json. `mean_score` is null without a scorer; `test` has scores by direction and metric."""

    round: int
    directory: str
    pairs: int
    mean_score: float | None
    held_out: float
    test: dict[str, float]


# What is read of rounds.json.
_Ended = fields(patience=int, metric=str, stopped=str | None, rounds=list[dict])
_System = fields(path=Required[str], scores=Required[dict[str, fields(score=Required[float]) | None]])
# `metrics`: missing in older versions, which had none that falls.
_Group = fields(
    metrics=dict[str, fields(higher_is_better=bool)],
    dataset=Required[str],
    src=Required[str],
    tgt=Required[str],
    systems=Required[list[_System]],
)
# What is read of comptra.evaluate's --json.
Report = fields(groups=Required[list[_Group]])


def names(number: int, one: Round) -> list[str]:
    """Of the commands of a round, in the order of Round.jobs."""
    return [f"round-{number}-{'held-out-' if where else ''}{command.name}" for _, where, command in one.jobs()]


def ended(settings: Settings, rounds: Sequence[Round], allow_incomplete: bool = False) -> int:
    """After which of the rounds no further one begins, by rounds.json; the number of the last one if that is not known, as where
    something up to there has to run again: it may come out otherwise."""
    known = read_json(rounds[0].folder / FILE, _Ended, "remove it and start again")
    same = known.get("patience") == settings.patience and known.get("metric") == settings.metric
    if not same or not known.get("stopped"):
        return len(rounds) - 1
    last = len(known["rounds"]) - 1
    jobs = (job for one in rounds[: last + 1] for job in one.jobs())
    stale = any(Chain(folder).what_changed(command, allow_incomplete) for folder, _, command in jobs)
    return len(rounds) - 1 if stale else last


def held_out_folder(folder: Path) -> Path:
    return folder / "held_out"


def read_settings(value: Value, path: Path | str, patience: int | None = None) -> Settings:
    """`rounds: N` or a mapping of KEYS; `patience` counts instead of the file's. Raises UsageError."""
    where = f"{path}: {KEY}"
    given = dict(value) if isinstance(value, dict) else {"number": value}
    for name in given:
        if name not in KEYS:
            raise UsageError(f"{where} has no key {name}{did_you_mean(name, KEYS)}; choose from {', '.join(KEYS)}")
    if patience is not None:
        given["patience"] = str(patience)
    number = _whole(given.get("number"), f"{where}, number", 1, MAX_ROUNDS)
    patience = _whole(given.get("patience", "0"), f"{where}, patience", 0, MAX_ROUNDS)
    metric = given.get("metric", "chrf")
    if not isinstance(metric, str) or not metric:
        raise UsageError(f"{where}, metric: one metric of comptra.evaluate, such as chrf or bleu")
    for name, flags in (("held_out", "main.py"), ("datagen", "datagen.py")):
        if name in given and not (isinstance(given[name], dict) and given[name]):
            raise UsageError(
                f"{where}, {name} is not a mapping of flags of {flags} to values; leave it out for the default"
            )
        if decided := next((flag for flag in DECIDED[name] if flag in given.get(name, ())), None):
            raise UsageError(f"{where}, {name}: {decided} cannot be set; each round sets it")
    return Settings(number, patience, metric, given.get("held_out", HELD_OUT), given.get("datagen", {}))


def _whole(value: Value, where: str, least: int, most: int) -> int:
    try:
        number = int(value) if isinstance(value, str) else None
    except ValueError:
        number = None
    if number is None or not least <= number <= most:
        raise UsageError(f"{where}: {'null' if value is None else value} is not a whole number from {least} to {most}")
    return number


def plan(tree: Mapping[str, Value], path: Path | str, patience: int | None = None) -> tuple[Settings, list[Round]]:
    """The settings and all rounds, that of the run file itself first; all flags are checked. Runs nothing.

    Raises UsageError for what RunFile raises, sections that are missing, and a held-out set that is the test set.
    """
    settings = read_settings(tree[KEY], path, patience)
    base: Tree = {name: value for name, value in tree.items() if name != KEY}
    for section in ("datagen", "train", "main"):
        if base.get(section) is None:
            raise UsageError(f"{path}: {KEY} needs a section {section}; a round back-translates, trains and translates")
    if isinstance(base["train"], list):
        raise UsageError(f"{path}: {KEY} needs one training, and train is a list; write one mapping")
    base["evaluate"] = {"json": "${output_dir}/scores.json", **(base.get("evaluate") or {})}
    first = _round(base, path, settings, is_first=True)
    datagen, train = first.data[0].args, first.data[-1].args
    if not train.data_dir:
        raise UsageError(f"{path}: {KEY} needs a training on the generated pairs; drop train.dataset_name_or_path")
    if datagen.output_dir != first.folder:
        raise UsageError(f"{path}: {KEY} needs the paragraphs in output_dir ({first.folder}); drop datagen.output_dir")
    rounds = [first]
    for number in range(1, settings.number + 1):
        own = {
            **base,
            "output_dir": str(first.folder / f"round-{number}"),
            "datagen": _back_translation(base["datagen"], settings, train, first, rounds[-1].model, number),
        }
        rounds.append(_round(own, f"{path}, round {number}", settings))
        for section, flag in (("train", "output_dir"), ("train", "data_dir"), ("main", "output_dir")):
            now, before = (
                [vars(c.args)[flag] for c in (*one.data, *one.test) if c.stage == section] for one in rounds[-2:]
            )
            if now == before:
                raise UsageError(
                    f"{path}: {section}.{flag} would be the same in all rounds; leave it out, or write it with ${{output_dir}}, "
                    "which is a folder of the round"
                )
        if rounds[-1].data[0].args.inference_api in inference.REMOTE:
            api = rounds[-1].data[0].args.inference_api
            raise UsageError(
                f"{path}: {api} cannot run the model that a round trains; add datagen: {{inference_api: vllm}} to {KEY}"
            )
    return settings, rounds


def _back_translation(
    own: Mapping[str, Value], settings: Settings, train, first: Round, model: Path, number: int
) -> Tree:
    """The section datagen of a round: the paragraphs of round 0, translated by `model`, five-shot as it was trained."""
    given = settings.datagen
    has_api = first.data[0].args.inference_api in inference.REMOTE
    flags: Tree = {
        **own,
        **dict.fromkeys((*NOT_FOR_ROUNDS, "inference_api") if has_api else NOT_FOR_ROUNDS),
        "stages": ["translate", "score"],
        "output_dir": str(first.folder),
        "translate_dir": f"round-{number}",
    }
    if given.get("back_translator") == "nllb":
        return {**flags, **given, "nllb_name_or_path": str(model)}
    flags |= {
        "back_translator": "llm",
        "model_name_or_path": str(model),
        "template_key": "14" if train.template_key == "none" else train.template_key,
        "prompt_style": "raw",
        "number_of_demonstrations": "5",
    }
    if train.use_peft:
        flags |= {
            "model_name_or_path": str(train.model_name_or_path),
            "adapter_name_or_path": str(model),
            "lora_rank": str(train.lora_r),
        }
    return {**flags, **given}


def _round(tree: Tree, path: Path | str, settings: Settings, is_first: bool = False) -> Round:
    file = RunFile(tree, path, references([settings.held_out, settings.datagen]))
    folder = folder_of(file)
    # Later rounds replace values of the file, and so may leave a name of it unused.
    found = commands(file, unused_is_error=is_first)
    data = [command for command in found if command.stage not in ("main", "evaluate")]
    test = [command for command in found if command.stage in ("main", "evaluate")]
    model = data[-1].args.output_dir
    held_out = _held_out(tree, path, settings, folder, model)
    for command in held_out:
        for other in test:
            if command.stage == other.stage == "main" and _test_set(command) == _test_set(other):
                raise UsageError(
                    f"{path}: the held-out set of {KEY}, {command.args.dataset_name_or_path}, is the test set; name another one: "
                    f"held_out: {{dataset_name_or_path: …}}"
                )
    return Round(folder, model, data, held_out, test)


def _test_set(command: Command) -> tuple:
    name = command.args.dataset_name_or_path
    same = {"topxgen": "flores", "ood": "tico"}  # the same sentences, other examples
    return same.get(name, name), command.args.test_files


def _held_out(tree: Tree, path: Path | str, settings: Settings, folder: Path, model: Path) -> list[Command]:
    """The commands that translate the held-out set in the directions of `main`, and score it."""
    entries = tree["main"] if isinstance(tree["main"], list) else [tree["main"]]
    output = {"model_name_or_path": str(model), "output_dir": "${output_dir}/translations"}
    changed = [{**entry, **settings.held_out, **output} for entry in entries]
    unnamed = [{**entry, "metadata_dir": None} for entry in changed]  # which tells test sets apart, here the same
    unique = [entry for number, entry in enumerate(changed) if unnamed[number] not in unnamed[:number]]
    scoring = {
        name: value for name, value in tree["evaluate"].items() if name not in ("dirs", "csv", "baseline", "bootstrap")
    }
    if (metrics := scoring.get("metrics")) is not None or settings.metric not in DEFAULT_METRICS:
        metrics = metrics if isinstance(metrics, list) else [metrics] if metrics else []
        scoring["metrics"] = list(dict.fromkeys([*metrics, settings.metric]))
    own = {
        **tree,
        "output_dir": str(held_out_folder(folder)),
        "datagen": {"output_dir": str(folder), **tree["datagen"]},
        "train": {**tree["train"], "output_dir": str(model)},
        "main": unique,
        "evaluate": {**scoring, "json": "${output_dir}/scores.json"},
    }
    return commands(RunFile(own, f"{path}, held-out set"), ["main", "evaluate"], unused_is_error=False)


def show_plan(rounds: Sequence[Round]) -> None:
    """Each command, and whether and why it would run."""
    for number, one in enumerate(rounds):
        for folder, where, command in one.jobs():
            show(f"# round {number}, {where}{Chain(folder).state(command)}")


def run(settings: Settings, rounds: Sequence[Round], allow_incomplete: bool, until: str = "") -> int:
    """Run what is missing, round by round; the exit code. rounds.json has the results and why the rounds ended.

    `until`: the last command, as `names` has it; if the rounds end before it, it is not run."""
    results: list[Result] = []
    incomplete, stopped = 0, ""
    for number, one in enumerate(rounds):
        for name, (folder, where, command) in zip(names(number, one), one.jobs(), strict=True):
            title = f"=== round {number}/{settings.number}  {where}{command.name}"
            code = Chain(folder).complete(command, title, allow_incomplete)
            if stops(code, allow_incomplete):
                return code
            incomplete = incomplete or code
            if name == until and name != names(number, one)[-1]:
                return incomplete
        results.append(result(number, one, settings.metric))
        stopped = reason_to_stop(results, settings) if number < settings.number else ""
        write_json(rounds[0].folder / FILE, summary(results, settings, stopped))
        checksums.claim_file(rounds[0].folder / FILE)
        if stopped or name == until:
            break
    show(table(results, settings.metric))
    best = summary(results, settings, stopped)["best_round"]
    logger.info(f"{f'stopped: {stopped}; ' if stopped else ''}best round: {best}, {rounds[best].model}")
    return incomplete


# Results


def result(number: int, one: Round, metric: str) -> Result:
    """The numbers of a round whose stages are complete, from their files."""
    pairs, scores = 0, []
    for path in _files_of_pairs(one):
        for _, record in read_translations(path):
            pairs += len(record["propositions"])
            scores += [score for score in record.get("scores") or () if score is not None]
    by_direction: dict[str, list[float]] = {}  # entries of main may translate the held-out set in several ways
    for direction, _, _, values in _scores(one.held_out, one.model):
        if metric in values:
            by_direction.setdefault(direction, []).append(values[metric])
    held_out = [fmean(scores_of) for scores_of in by_direction.values()]
    test = list(_scores(one.test, one.model)) if one.test[-1].args.json else []
    check_rises(one.held_out[-1].args.json, metric)
    if not held_out:
        raise UsageError(f"{one.held_out[-1].args.json} has no {metric} of {one.model}; choose another metric")
    return {
        "round": number,
        "directory": str(one.folder),
        "pairs": pairs,
        "mean_score": fmean(scores) if scores else None,
        "held_out": fmean(held_out),
        "test": {
            f"{label} {name}": value
            for label, (*_, values) in zip(labels([place for *place, _ in test]), test, strict=True)
            for name, value in values.items()
        },
    }


def labels(places: Sequence[Sequence[str]]) -> list[str]:
    """Of (direction, test set, folder) of translations: the direction alone, or with the test set, or the folder, where there are others."""
    directions = Counter(direction for direction, *_ in places)
    tests = Counter((direction, test) for direction, test, _ in places)

    def label(direction: str, test: str, folder: str) -> str:
        if directions[direction] == 1:
            return direction
        return f"{direction}, {test if tests[direction, test] == 1 else folder}"

    return [label(*place) for place in places]


def check_rises(path: Path, metric: str) -> None:
    """Raise UsageError if a lower score of `metric` is better, as the scores in `path` say."""
    for group in read_json(path, Report).get("groups", ()):
        if group.get("metrics", {}).get(metric, {}).get("higher_is_better") is False:
            raise UsageError(
                f"rounds go on while {metric} rises, and a lower {metric} is better; choose another metric"
            )


def _files_of_pairs(one: Round) -> Iterator[Path]:
    """The files that the training reads: of each of its languages the decontaminated one if there is one."""
    train = one.data[-1].args
    for folder in train.data_dir:
        for name in train.target_languages:
            language = languages.find(name, train.languages_file).name
            paths = (FilteredLayout(folder).filtered(language), folder / translations_name(language))
            yield from [path for path in paths if path.is_file()][:1]


def _scores(found: Sequence[Command], model: Path) -> Iterator[tuple[str, str, str, dict[str, float]]]:
    """(direction, test set, folder, score by metric) of `model` in the JSON of an evaluation, the last of the commands; of their
    translations alone: the folder may have those of other flags, from before."""
    *translate, evaluate = found
    paths = {path.parent.resolve() for command in translate for path in stages.outputs("main", command.args)}
    report = read_json(evaluate.args.json, Report, "remove it: it is written again")
    for group in report.get("groups", ()):
        for system in group["systems"]:
            path = Path(system["path"]).resolve()
            if path.parent.name == model.name and path in paths:
                values = {name: value["score"] for name, value in system["scores"].items() if value is not None}
                yield f"{group['src']} to {group['tgt']}", group["dataset"], path.name, values


def reason_to_stop(results: Collection[Result], settings: Settings) -> str:
    """Why no further round begins; "" if one does. The same results give the same reason."""
    scores = [one["held_out"] for one in results]
    since = len(scores) - 1 - scores.index(max(scores)) if scores else 0  # the first of the highest
    if since > settings.patience:
        return f"held-out {settings.metric} has not risen for {counted(since, 'round')} (patience {settings.patience})"
    return ""


def summary(results: Sequence[Result], settings: Settings, stopped: str) -> dict:
    """The content of rounds.json."""
    scores = [one["held_out"] for one in results]
    best = results[scores.index(max(scores))]
    return {
        "number": settings.number,
        "patience": settings.patience,
        "metric": settings.metric,
        "held_out_set": dict(settings.held_out),
        "rounds": list(results),
        "best_round": best["round"],
        "stopped": stopped or None,
    }


def table(results: Sequence[Result], metric: str) -> str:
    """A row for each round; the best held-out score is marked."""
    names = list(dict.fromkeys(name for one in results for name in one["test"]))
    rows = [["round", "pairs", "mean score", f"held-out {metric}", *names]]
    best = max(one["held_out"] for one in results)
    for one in results:
        mark = " *" if one["held_out"] == best else "  "
        mean = "-" if one["mean_score"] is None else f"{one['mean_score']:.3f}"
        tests = [f"{one['test'][name]:.2f}" if name in one["test"] else "-" for name in names]
        rows.append([str(one["round"]), f"{one['pairs']:,}", mean, f"{one['held_out']:.2f}{mark}", *tests])
    return "\n".join(aligned(rows, left=0))
