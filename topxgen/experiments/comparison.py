"""Variants of a run, several seeds each: the commands that an experiment file asks for (docs/experiments.md).

An experiment file is a run file with `variants`, whose sections change the flags of the run's, and with the `seeds` of the
training. What variants have in common is done once: the folders of data are named after the flags that decide them.
"""

import argparse
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from topxgen.common import provenance
from topxgen.common.errors import UsageError, did_you_mean, unknown_choice
from topxgen.common.records import default_translate_dir
from topxgen.common.run_files import SECTIONS, VARIANTS, RunFile, Value, read_changed, references
from topxgen.experiments import stages
from topxgen.experiments.chain import Command, commands, flags_by_section, folder_of

# Of an experiment file, besides those of a run file.
KEYS = ("seeds", "pairs", "baseline", "merge_adapters", VARIANTS)
OF_VARIANT = ("mix", "pairs")  # of a variant, besides sections
# Flags that are decided here: (section, flag).
DECIDED = {
    **{(section, "output_dir"): "variants and seeds have folders of their own" for section in ("train", "main")},
    ("train", "seed"): "write seeds: [1, 2, 3] at the top",
    ("decontamination", "output_dir"): "the pairs stay with their data",
    ("decontamination", "input_dir"): "it is the data of the variant",
}
DATA = ("datagen", "decontamination")
# Groups of datagen.py's flags that come after generation: variants that differ in these alone share the paragraphs.
AFTER_GENERATION = ("back-translation", "scores")
# Flags of datagen.py that decide how it runs, not what it writes.
NO_RESULT = {
    *("verbose", "gpu_memory_utilization", "tensor_parallel_size", "data_parallel_size", "trust_remote_code"),
    *("distributed", "num_workers"),
    *("max_concurrent_requests", "request_timeout", "max_retries", "prices", "budget", "accept_unanswered"),
}
_NAME = re.compile(r"(?!data-|comparison\.)[A-Za-z0-9][\w.+-]{0,99}")


@dataclass(frozen=True)
class Job:
    """A command, the folder that keeps its record, and the ids of the jobs whose results it reads."""

    folder: Path
    command: Command
    needs: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.folder}/{self.command.name}"

    @property
    def output(self) -> Path:
        return self.command.args.output_dir


@dataclass(frozen=True)
class Run:
    """A variant with one seed: the training, if there is any, and the translations."""

    seed: int | None
    train: Job | None
    merge: Job | None  # of the adapter into its base
    translate: tuple[Job, ...]

    @property
    def jobs(self) -> list[Job]:
        return [job for job in (self.train, self.merge, *self.translate) if job]


@dataclass(frozen=True)
class Variant:
    name: str
    pairs: int | None  # that each of its models is trained on; None: all
    data: tuple[Job, ...]  # generation and decontamination, also of the variants that it mixes
    runs: tuple[Run, ...]  # one for each seed

    def signature(self, folder: Path) -> tuple:
        """What decides its results: equal for two variants that do not differ, however their flags are written."""
        named = f"{folder}/data-", f"{folder}/{self.name}/"  # folders after the variant or its flags
        return tuple(
            tuple(
                (flag, str(value))
                for flag, value in vars(job.command.args).items()
                if flag not in (*NO_RESULT, "translate_dir") and not any(path in str(value) for path in named)
            )
            for job in (*self.data, *self.runs[0].jobs)
        )


@dataclass(frozen=True)
class Experiment:
    path: Path
    folder: Path
    baseline: str | None
    variants: dict[str, Variant]
    scoring: argparse.Namespace  # flags of comptra.evaluate, of the section evaluate

    def data_jobs(self, names: Collection[str]) -> list[Job]:
        return _once(job for name in names for job in self.variants[name].data)

    def run_jobs(self, names: Collection[str]) -> list[Job]:
        """Untrained models first: what main.py refuses is seen before hours of training."""
        names = sorted(names, key=lambda name: any(run.train for run in self.variants[name].runs))
        return _once(job for name in names for run in self.variants[name].runs for job in run.jobs)

    def job_name(self, job: Job) -> str:
        return "-".join((*job.folder.relative_to(self.folder).parts, job.command.name))

    def order(self) -> list[tuple[Job, list[int]]]:
        """All jobs, each with the places of those that it has to wait for: whose results it reads, and those in its folder. Trainings
        wait for all data, since all take the same number of pairs."""
        data, found = self.data_jobs(self.variants), []
        for job in (*data, *self.run_jobs(self.variants)):
            needs = [
                place
                for place, (other, _) in enumerate(found)
                if other.id in job.needs
                or other.folder == job.folder
                or (job.command.stage == other.command.stage == "datagen" and job.output == other.output)
                or (job.command.stage == "train" and other in data)
            ]
            found.append((job, needs))
        return found


def _once(jobs: Iterable[Job]) -> list[Job]:
    return list({job.id: job for job in jobs}.values())


def read(path: Path, changes: Iterable[str] = ()) -> Experiment:
    """The experiment in a YAML file, with `changes` as run_files.read_changed takes them. Raises UsageError."""
    return plan(read_changed(path, changes), path)


def plan(tree: Mapping[str, Value], path: Path) -> Experiment:
    """The commands of all variants and seeds; their flags are checked. Runs and reads nothing else.

    Raises UsageError for what RunFile and its values raise, with the variant's name; for a variant that differs from another
    one in nothing; and for what this file's keys must not hold. What argparse refuses ends the program with its line.
    """
    base = {name: value for name, value in tree.items() if name not in KEYS}
    folder = folder_of(RunFile(base, path))
    variants = tree.get(VARIANTS)
    if not isinstance(variants, dict) or not variants:
        raise UsageError(
            f"{path} needs variants: names, each with the sections and flags in which it differs from the run (scripts/run.py runs a file "
            "without variants)"
        )
    seeds, pairs = _seeds(tree.get("seeds"), path), _count(tree.get("pairs"), f"{path}: pairs")
    for name, own in variants.items():
        _check_variant(name, own, variants, path)
    baseline = tree.get("baseline")
    if baseline is not None and (not isinstance(baseline, str) or baseline not in variants):
        raise unknown_choice(f"{path}: baseline", str(baseline), variants)

    if str(tree.get("merge_adapters")).lower() not in ("none", "true", "false"):
        raise UsageError(f"{path}: merge_adapters is {tree['merge_adapters']}; write true or false")
    builder = _Builder(path, folder, base, tree, seeds, flags_by_section())
    built: dict[str, Variant] = {}
    signatures: dict[tuple, str] = {}
    for name, own in sorted(variants.items(), key=lambda item: bool((item[1] or {}).get("mix"))):
        own_pairs = _count(own["pairs"], f"{path}, variant {name}: pairs") if own and "pairs" in own else pairs
        built[name] = builder.variant(name, own or {}, own_pairs, built)
        other = signatures.setdefault(built[name].signature(folder), name)
        if other != name:
            raise UsageError(
                f"{path}: the variants {other} and {name} differ in nothing that decides a result; change one, or remove it"
            )
    return Experiment(path, folder, baseline, {name: built[name] for name in variants}, builder.scoring())


def _seeds(value: Value, path: Path) -> list[int]:
    if not isinstance(value, list) or not value or not all(isinstance(s, str) and s.isdecimal() for s in value):
        raise UsageError(
            f"{path} needs seeds: a list of whole numbers, such as [1, 2, 3]; each variant is trained with each"
        )
    seeds = [int(seed) for seed in value]
    if repeated := next((seed for seed in seeds if seeds.count(seed) > 1), None):
        raise UsageError(f"{path}: seed {repeated} is there twice; the same seed gives the same model")
    return seeds


def _count(value: Value, what: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.isdecimal() or int(value) < 1:
        raise UsageError(f"{what} is {value}; write a number of pairs of 1 or more, or null for all")
    return int(value)


def _check_variant(name: str, own: Value, variants: Mapping[str, Value], path: Path) -> None:
    where = f"{path}, variant {name}"
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{where}: the name is that of a folder; use letters, digits and . _ + - (not data- or comparison.)"
        )
    if own is not None and not isinstance(own, dict):
        raise UsageError(f"{where} is not a mapping of sections to flags")
    for key, value in (own or {}).items():
        if key not in (*SECTIONS, *OF_VARIANT):
            raise UsageError(f"{where}: unknown section {key}{did_you_mean(key, (*SECTIONS, *OF_VARIANT))}")
        if key == "evaluate":
            raise UsageError(f"{where}: all variants are scored alike; write evaluate at the top")
        kinds = dict | list | None if key == "main" else dict | None
        if key in SECTIONS and not isinstance(value, kinds):
            raise UsageError(f"{where}: {key} is not a mapping of flags to values")
    mixed = (own or {}).get("mix")
    if mixed is None:
        return
    if not isinstance(mixed, list) or len(mixed) < 2 or len({str(other) for other in mixed}) < len(mixed):
        raise UsageError(f"{where}: mix is a list of two different variants or more, whose pairs are mixed")
    for other in mixed:
        if other not in variants or other == name:
            raise unknown_choice(f"{where}: mix", str(other), [one for one in variants if one != name])
        if (variants[other] or {}).get("mix"):
            raise UsageError(f"{where}: {other} is a mix itself; name the variants that it mixes")
    if given := next((key for key in DATA if key in own), None):
        raise UsageError(f"{where}: mix takes the data of other variants; remove {given}")
    if "train" in own and own["train"] is None:
        raise UsageError(f"{where}: mix is for training, and train is null; remove one of them")


class _Builder:
    """Makes the commands of variants."""

    def __init__(
        self, path: Path, folder: Path, base: dict, tree: Mapping, seeds: list[int], flags: dict[str, list[str]]
    ):
        self._path, self._folder, self._base, self._seeds, self._flags = path, folder, base, seeds, flags
        self._referred = set(references(tree))  # by any variant
        self._merge_adapters = str(tree.get("merge_adapters")).lower() == "true"
        self._sources: dict[str, tuple[list[Path], list[str]]] = {}  # by variant: folders of pairs, languages
        self._decided: dict[Path, Value | Mapping] = {}  # by folder of data: the flags that decide them

    def variant(self, name: str, own: dict, pairs: int | None, built: Mapping[str, Variant]) -> Variant:
        tree = _merged(self._base, own)
        tree["evaluate"] = None
        for (section, flag), reason in DECIDED.items():
            entries = tree.get(section)
            for entry in entries if isinstance(entries, list) else [entries or {}]:
                if isinstance(entry, dict) and flag in entry:
                    raise UsageError(f"{self._where(name)}: {section}.{flag} cannot be set; {reason}")
        if isinstance(tree.get("train"), list):
            raise UsageError(f"{self._where(name)}: train is a list; write one variant for each training")
        if not tree.get("main"):
            raise UsageError(f"{self._where(name)} has no section main, which translates the test set")
        trained = tree.get("train") is not None
        data: tuple[Job, ...] = ()
        if mixed := own.get("mix"):
            tree |= dict.fromkeys(DATA)
            data = tuple(_once(job for other in mixed for job in built[other].data))
            self._use_pairs_of(mixed, name, tree)
        elif not trained and not any(
            one.startswith(tuple(f"{section}." for section in DATA)) for one in references(tree["main"])
        ):
            tree |= dict.fromkeys(DATA)
        elif tree.get("datagen") is not None:
            data = self._data(name, tree)
        if not trained:
            self._use_base_model(name, tree)
        elif pairs is not None:
            self._take(pairs, name, tree["train"])
        needs = tuple(job.id for job in data)
        return Variant(name, pairs if trained else None, data, tuple(self._runs(name, tree, trained, needs)))

    def _where(self, name: str) -> str:
        return f"{self._path}, variant {name}"

    def _file(self, name: str, tree: dict) -> RunFile:
        """`tree`, in which values that only other variants use are no mistakes."""
        return RunFile(tree, self._where(name) if name else self._path, self._referred)

    def _commands(self, name: str, tree: dict, wanted: Collection[str]) -> list[Command]:
        return [command for command in commands(self._file(name, tree)) if command.stage in wanted]

    def _data(self, name: str, tree: dict) -> tuple[Job, ...]:
        """The jobs that make a variant's pairs; names their folders in `tree`, after the flags that decide them."""
        given = self._file(name, tree).stage("datagen", self._flags["datagen"])[0]
        parser = stages.STAGES["datagen"].parser()
        late = {
            action.dest for group in parser._action_groups if group.title in AFTER_GENERATION for action in group._group_actions
        } | {"stages"}  # fmt: skip
        own = tree["datagen"]
        early = {
            flag: value
            for flag, value in given.items()
            if flag not in late and flag not in (*NO_RESULT, "output_dir", "translate_dir")
        }
        tree["datagen"] = own = {"output_dir": str(self._folder / f"data-{_digest(early)}"), **own}
        (datagen,) = self._commands(name, {**tree, "train": None, "main": None, "decontamination": None}, ("datagen",))
        later = {flag: value for flag, value in given.items() if flag in late}
        after = self._file(name, {**tree, "train": None, "main": None})
        checked = []
        if tree.get("decontamination") is not None:
            checked = after.stage("decontamination", self._flags["decontamination"])
        checked = [{flag: value for flag, value in values.items() if flag != "input_dir"} for values in checked]
        if given.get("translate_dir") is None:
            name_of = re.sub(r"[^\w.+-]+", "-", default_translate_dir(vars(datagen.args)))
            own["translate_dir"] = f"{name_of}-{_digest([later, checked])}"
        folder = datagen.args.output_dir / str(given.get("translate_dir") or own["translate_dir"])
        for place, flags in ((datagen.args.output_dir, early), (folder, [early, later, checked])):
            if self._decided.setdefault(place, flags) != flags:
                raise UsageError(
                    f"{self._where(name)}: its data differ from those of another variant in the same folder, {place}; remove "
                    "datagen.output_dir and datagen.translate_dir: by default folders are named after the flags"
                )
        jobs: list[Job] = []
        for command in self._commands(name, {**tree, "train": None, "main": None}, DATA):
            jobs.append(Job(folder, command, tuple(job.id for job in jobs)))
        self._sources[name] = ([jobs[-1].folder], list(datagen.args.languages or ()))
        return tuple(jobs)

    def _use_pairs_of(self, mixed: list[str], name: str, tree: dict) -> None:
        folders: list[str] = []
        for other in mixed:
            if other not in self._sources:
                raise UsageError(f"{self._where(name)}: mix names {other}, which makes no pairs (it has no datagen)")
            own, languages = self._sources[other]
            folders += [str(folder) for folder in own if str(folder) not in folders]
            tree["train"] = {"target_languages": languages, **tree["train"]}
        if len(folders) < len(mixed):
            raise UsageError(
                f"{self._where(name)}: the variants in mix have the same pairs; name variants that differ in their data"
            )
        tree["train"] = {**tree["train"], "data_dir": folders}

    def _use_base_model(self, name: str, tree: dict) -> None:
        """Translate with the model that other variants train."""
        flag = "model_name_or_path"
        if flag in tree:
            return
        model = (self._base.get("train") or {}).get(flag)
        tree["main"] = _with(tree["main"], {flag: model}, defaults=True)
        entries = tree["main"] if isinstance(tree["main"], list) else [tree["main"]]
        if any(entry[flag] is None for entry in entries):
            raise UsageError(f"{self._where(name)} trains nothing, and main has no {flag}; write it there")

    def _take(self, pairs: int, name: str, train: dict) -> None:
        for flag in ("dataset_size", "percentile", "drop_duplicates"):
            if train.get(flag) is not None:
                raise UsageError(
                    f"{self._where(name)}: pairs sets --dataset_size and --drop_duplicates; remove train.{flag}"
                )
        train |= {"dataset_size": str(pairs), "drop_duplicates": "before"}

    def _runs(self, name: str, tree: dict, trained: bool, needs: tuple[str, ...]) -> Iterable[Run]:
        for seed in self._seeds if trained else [None]:
            folder = self._folder / name / (f"seed-{seed}" if trained else "")
            own = {**tree, "main": _with(tree["main"], {"output_dir": str(folder / "translations")})}
            train = merge = None
            if trained:
                own["train"] = {**tree["train"], "seed": str(seed), "output_dir": str(folder / "train")}
                (command,) = self._commands(name, {**own, "main": None}, ("train",))
                train = Job(folder, command, needs)
                if self._merge_adapters and command.args.use_peft:
                    merge = self._merge(train)
                    own["main"] = _with(own["main"], {"model_name_or_path": str(merge.command.args.output)})
            made = merge or train
            translate = [
                Job(folder, command, (made.id,) if made else needs) for command in self._commands(name, own, ("main",))
            ]
            yield Run(seed, train, merge, tuple(translate))

    def _merge(self, train: Job) -> Job:
        words = (str(train.command.args.output_dir), str(train.folder / "merged"))
        args = stages.STAGES["merge"].parser().parse_args(list(words))
        return Job(train.folder, Command("merge", "merge", words, args), (train.id,))

    def scoring(self) -> argparse.Namespace:
        """The flags of comptra.evaluate in the section evaluate; Raises UsageError for those that are decided here."""
        own = self._base.get("evaluate") or {}
        for flag in ("dirs", "baseline", "csv", "json"):
            if isinstance(own, dict) and flag in own:
                raise UsageError(
                    f"{self._path}: evaluate.{flag} cannot be set; all variants are compared with the baseline"
                )
        tree = {**self._base, **dict.fromkeys(SECTIONS), "evaluate": {**own, "dirs": [str(self._folder)]}}
        (command,) = self._commands("", tree, ("evaluate",))
        return command.args


def _merged(base: Mapping[str, Value], own: Mapping[str, Value]) -> dict:
    """The run's tree with a variant's flags; a mapping for main changes all its entries."""
    tree = {name: dict(value) if isinstance(value, dict) else value for name, value in base.items()}
    for section, values in own.items():
        if section in OF_VARIANT:
            continue
        tree[section] = _with(tree.get(section) or {}, values) if isinstance(values, dict) else values
    return tree


def _with(entries: list[dict] | dict, values: Mapping[str, Value], defaults: bool = False) -> list[dict] | dict:
    """A section, of one entry or several, with more values, or if they are `defaults` with those that it has not."""
    if isinstance(entries, list):
        return [_with(entry, values, defaults) for entry in entries]
    return {**entries, **values, **entries} if defaults else {**entries, **values}


def _digest(values: Value | Mapping) -> str:
    return provenance.digest(json.dumps(values, sort_keys=True))[:8]
