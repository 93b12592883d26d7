"""What the commands of run files load that does not come with the package, and whether it is there.

A part of a run, an experiment or rounds makes models and data that later parts read; these are not among it.
"""

import logging
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from os.path import expanduser
from pathlib import Path

from topxgen.common import hub, hub_files, needs
from topxgen.common.files import read_json
from topxgen.common.hub import NOT_DOWNLOADED, snapshot
from topxgen.common.needs import Need
from topxgen.common.run_files import RunFile, read_changed
from topxgen.experiments import comparison, rounds, stages
from topxgen.experiments.chain import Chain, Command, commands
from topxgen.quality import comet_models
from topxgen.translation import apertium

logger = logging.getLogger(__name__)
NAMES_LANGUAGES = ("languages", "target_languages", "src", "tgt")
WRITES = ("output_dir", "output", "ensemble_dir")  # flags of folders that a stage makes


@dataclass(frozen=True)
class Asset:
    """One thing that stages need: a repository of the Hub, a folder or file, a package.

    `problem` is "" if it is there and whole, as far as names, sizes and headers tell; `remedy` says how to get it. `revision` is the
    commit of what is in the Hub's cache.
    """

    needs: tuple[Need, ...]
    stages: tuple[str, ...]
    folder: Path | None = None
    revision: str = ""
    problem: str = ""
    remedy: str = ""

    @property
    def name(self) -> str:
        return self.needs[0].name

    @property
    def kind(self) -> str:
        return self.needs[0].kind

    @property
    def is_on_hub(self) -> bool:
        return self.needs[0].is_on_hub

    @property
    def wanted_revision(self) -> str | None:
        """None: main, also where only some of the needs name one: `problem` says so."""
        revisions = {need.revision for need in self.needs}
        return revisions.pop() or None if len(revisions) == 1 else None

    @property
    def fallback(self) -> str:
        """What happens without it; "" if it is there, damaged, or a stage cannot do without it."""
        absent = self.problem == NOT_DOWNLOADED and all(need.fallback for need in self.needs)
        return self.needs[0].fallback if absent else ""

    @property
    def repo_type(self) -> str:
        return self.needs[0].repo_type

    @property
    def key(self) -> str:
        """Of a repository of the Hub, such as models/org/name."""
        return f"{self.repo_type}s/{self.name}"

    @property
    def size(self) -> int:
        """Bytes of its files that are there."""
        if self.folder is None:
            return 0
        paths = [self.folder] if self.folder.is_file() else self.folder.rglob("*")
        return sum(path.stat().st_size for path in paths if path.is_file())


def read_commands(path: Path, changes: Sequence[str] = ()) -> list[Command]:
    """The commands of a run file, or those of all variants of an experiment or of all rounds, whose names say which. Raises UsageError."""
    tree = read_changed(path, changes)
    if comparison.VARIANTS in tree:
        experiment = comparison.plan(tree, path)
        names = list(experiment.variants)
        jobs = [*experiment.data_jobs(names), *experiment.run_jobs(names)]
        return [
            *(replace(job.command, name=experiment.job_name(job)) for job in jobs),
            Command("evaluate", "evaluate", (), experiment.scoring),
        ]
    if rounds.KEY in tree:
        return [
            replace(command, name=name)
            for number, one in enumerate(rounds.plan(tree, path)[1])
            for name, (_, _, command) in zip(rounds.names(number, one), one.jobs(), strict=True)
        ]
    return commands(RunFile(tree, path))


def assets(found: Iterable[Command], home: Path | None = None) -> list[Asset]:
    """What these commands need, each thing once, in the order in which it is first needed; `home` is a folder in the layout of HF_HOME [the
    environment's]. Asks no network. Raises UsageError for flags that do not go together."""
    wanted = _needs(list(found))
    queue = list(wanted)
    for need in queue:  # it grows: what is there may name more
        for more in followed(need, _place(need, home)):
            if more not in wanted:
                queue.append(more)
            wanted.setdefault(more, []).extend(wanted[need])
    return _grouped(wanted, home)


def require(jobs: Iterable[tuple[Path, Command]]) -> None:
    """Raise UsageError, if there is no Hub, for all that the commands which have to run, each with the folder of its chain, load from
    it and its cache lacks: the last of them may begin days after the first. Evaluation can be run again at any time."""
    found = assets(command for folder, command in jobs if Chain(folder).reason_to_run(command))
    before_evaluation = [asset for asset in found if asset.stages != ("evaluate",)]
    hub.require(
        (need for asset in before_evaluation for need in asset.needs),
        others=(need for asset in found for need in asset.needs),
    )


def _needs(found: list[Command]) -> dict[Need, list[str]]:
    """The stages that have each need."""
    made = [stages.real(value) for command in found for flag in WRITES if (value := vars(command.args).get(flag))]
    made = [folder for folder in made if folder not in (Path.cwd(), *Path.cwd().parents)]
    wanted: dict[Need, list[str]] = {}
    names: list[str] = []
    for command in found:
        for need in stages.STAGES[command.stage].function("needs")(command.args, names):
            if not _is_made(need.name, made):
                wanted.setdefault(need, []).append(command.stage)
        for flag in NAMES_LANGUAGES:
            value = vars(command.args).get(flag) or []
            names += [value] if isinstance(value, str) else value
    return wanted


def _is_made(name: str, made: Iterable[Path]) -> bool:
    path = stages.real(name)
    return any(path == folder or folder in path.parents for folder in made)


def followed(need: Need, folder: Path | None) -> list[Need]:
    """What a checkpoint in `folder` names: the base model of an adapter, the encoder of a COMET model."""
    if folder is None or not folder.is_dir():
        return []
    if need.kind == needs.COMET and (folder / "hparams.yaml").is_file():
        return [comet_models.encoder_of(comet_models.read_hparams(folder / "hparams.yaml"))]
    if need.kind in (needs.MODEL, needs.TOKENIZER) and (folder / "adapter_config.json").is_file():
        if need.kind == needs.TOKENIZER and hub_files.has_tokenizer({path.name: path for path in folder.iterdir()}):
            return []
        settings = read_json(folder / "adapter_config.json")
        base, revision = settings.get("base_model_name_or_path"), settings.get("revision") or ""
        return [Need(need.kind, base, revision="" if revision == "main" else revision)] if base else []
    return []


def _grouped(wanted: dict[Need, list[str]], home: Path | None) -> list[Asset]:
    groups: dict[tuple[str, str], list[Need]] = {}
    for need in wanted:
        key = need.repo_type if need.kind in needs.ON_HUB else need.kind
        groups.setdefault((key, need.name), []).append(need)
    found = []
    for group in groups.values():
        users = tuple(dict.fromkeys(stage for need in group for stage in wanted[need]))
        folder = _place(group[0], home)
        states = [state(need, folder, home) for need in group]
        problem, remedy = next((one for one in states if one[0]), ("", ""))
        revision = folder.name if folder is not None and group[0].is_on_hub else ""
        # Weights before the tokenizer, as the name of a row.
        group.sort(key=lambda need: need.kind != needs.MODEL)
        found.append(Asset(tuple(group), users, folder, revision, problem, remedy))
    return found


def hub_cache(home: Path | None) -> Path | None:
    return home / "hub" if home is not None else None


def sentencepiece_file(name: str, home: Path | None = None) -> Path:
    """Where sacreBLEU has the model of a SentencePiece tokenizer."""
    from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
    from sacrebleu.utils import SACREBLEU_DIR

    folder = home / "sacrebleu" if home is not None else Path(SACREBLEU_DIR)
    return folder / "models" / Path(SPM_MODELS[name]["url"]).name


def _place(need: Need, home: Path | None) -> Path | None:
    if need.kind == needs.SENTENCEPIECE:
        return sentencepiece_file(need.name, home)
    if need.kind == needs.UDHR_TEXT:
        return Path(need.name)
    if need.kind not in needs.ON_HUB:
        return None
    return snapshot(need.repo_type, need.name, hub_cache(home)) if need.is_on_hub else Path(expanduser(need.name))


def state(need: Need, folder: Path | None, home: Path | None = None) -> tuple[str, str]:
    """(what is wrong, what to do about it), both "" if nothing is."""
    if need.is_on_hub:
        problem = hub_files.problem(need, folder) if folder is not None else NOT_DOWNLOADED
        at = snapshot(need.repo_type, need.name, hub_cache(home), need.revision)
        if folder is not None and need.revision and at != folder:
            problem = f"it is here at {folder.name[:8]}, but an adapter was trained on its revision {need.revision}"
            return problem, "pass another --folder, or the base as a folder"
        return (problem, "scripts/prefetch.py downloads it") if problem else ("", "")
    if need.kind in needs.ON_HUB:
        if not folder.exists():
            return "it does not exist", "pass a folder that exists, or a Hub id"
        problem = hub_files.problem(need, folder) if folder.is_dir() and need.kind != needs.DATASET else ""
        return (problem, "copy or save it again") if problem else ("", "")
    return _elsewhere(need, folder)


def _elsewhere(need: Need, path: Path | None) -> tuple[str, str]:
    """`state` of what no Hub has."""
    match need.kind:
        case needs.SENTENCEPIECE:
            whole = path.is_file() and path.stat().st_size
            return ("", "") if whole else (NOT_DOWNLOADED, "scripts/prefetch.py downloads it")
        case needs.UDHR_TEXT:
            remedy = "clone the repository and pip install -e ."
            return ("", "") if path.is_dir() else ("a wheel does not have it", remedy)
        case needs.SPACY:
            remedy = f"pip install spacy, then python -m spacy download {need.name}"
            return ("", "") if hub.is_installed(need) else ("not installed", remedy)
        case needs.COMET_PYTHON:
            return ("", "") if hub.is_installed(need) else ("there is no interpreter", comet_models.REMEDY)
    remedy = f"apt install apertium apertium-{need.name}, or 'apt-cache search apertium'"
    if shutil.which("apertium") is None:
        return "apertium is not installed", remedy
    return ("", "") if need.name in apertium.installed_pairs() else ("not installed", remedy)
