"""The chain behind the translations in a folder, from the manifests: what selected the outputs, the checkpoint and the data."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Required

import msgspec

from comptra.candidate_selection import BY_QUALITY
from comptra.manifest import RunSettings, TracedManifest
from topxgen.common import lineage
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json
from topxgen.common.lineage import Link
from topxgen.common.provenance import TRANSLATE_MANIFEST as MANIFEST
from topxgen.common.schemas import fields

ROUNDS = "rounds.json"  # of a run file with rounds (topxgen.experiments.rounds)


@dataclass(frozen=True)
class Selection:
    """`what` was selected by `metric`, a name or a scorer's id (None: a scorer that is not named). `where`: folder and flag."""

    what: str
    metric: str | None
    where: str
    is_indirect: bool = False  # it selected the data of a model that wrote the training data
    how: str = "selected by"


@dataclass(frozen=True)
class Chain:
    """What led to translations. `writers`: names of the models that wrote them or their training data."""

    selections: list[Selection] = field(default_factory=list)
    data: list[Link] = field(default_factory=list)  # that the weights were trained on
    writers: list[str] = field(default_factory=list)
    base_models: list[str] = field(default_factory=list)  # of which nothing is known
    ends: list[str] = field(default_factory=list)  # why something is not known that manifests should say


# What is read of rounds.json. `number`: of rounds after the first; `stopped`: why before that number.
_Round = fields(round=Required[int], directory=Required[str])
_Rounds = fields(
    number=Required[int], metric=Required[str], best_round=Required[int],
    rounds=Required[Annotated[list[_Round], msgspec.Meta(min_length=1)]], stopped=Required[str | None],
)  # fmt: skip


def read(folder: Path, seen: frozenset[Path] = frozenset()) -> Chain:
    """The chain of the translations in `folder`. `ends` says what is missing or damaged; only a disk that fails raises OSError.
    `seen`: the ensembles that it is a part of."""
    try:
        manifest = read_json(folder / MANIFEST, TracedManifest)
        chosen = _of_outputs(folder, manifest.get("settings", {})) + _of_rounds(folder)
    except UsageError as error:
        return Chain(ends=[str(error)])
    if not manifest:
        return Chain(ends=[f"no {MANIFEST}"])
    if members := manifest.get("settings", {}).get("ensemble_of"):
        return _of_ensemble(chosen, [Path(member) for member in members], seen | {folder.resolve()})
    if (origin := manifest.get(lineage.KEY)) is None:
        return Chain(chosen, ends=["the manifest of the translations, of an earlier version, has no lineage"])
    of_models = list(lineage.walk(origin["models"]))
    of_shots = list(lineage.walk([origin["demonstrations"]] if origin["demonstrations"] else []))
    writers = [writer for link in (*of_models, *of_shots) for writer in link.get("writers", ())]
    chosen += [_selection(found) for link in of_models for found in _effective(link)]
    chosen += [_selection(found, "demonstrations") for link in of_shots for found in _effective(link)]
    chosen += [_selection(found, indirect=link["name"]) for link in writers for found in _effective(link)]
    models = [link for link in of_models if link["kind"] == "model"]
    ends = [link for link in (*of_models, *writers) if "ends" in link and not _is_test_set_matter(link)]
    return Chain(
        list(dict.fromkeys(chosen)),
        [link for link in of_models if link["kind"] == "data"],
        list(dict.fromkeys(link["name"] for link in (*origin["models"], *models, *writers))),
        list(dict.fromkeys(link["name"] for link in models if not ("stage" in link or "ends" in link))),
        list(dict.fromkeys(link["ends"] for link in ends)),
    )


def _is_test_set_matter(link: Link) -> bool:
    """Whether only the removal of test sets is unknown at this end of the chain; training_overlap warns of that."""
    return link["kind"] == "data" and link.get("stage") != "datagen"


def _effective(link: Link) -> list[lineage.Selection]:
    """The selections that discarded something."""
    selections = link.get("selections", ())
    return [one for one in selections if None in (one["kept"], one["of"]) or one["kept"] < one["of"]]


def _selection(found: lineage.Selection, what: str = "", indirect: str = "") -> Selection:
    name = f"the {what or found['what']}"
    if indirect:
        name = f"the {found['what']} of {indirect}, which wrote training data,"
    return Selection(name, found["metric"], f"{found['where']}, {found['flag']}", bool(indirect))


def _of_outputs(folder: Path, settings: RunSettings) -> list[Selection]:
    """What selected among several candidates of a translation, or judged one that was then refined."""
    method, metric = settings.get("method_translate"), settings.get("selection_method") or "greedy"
    what, chosen = "the translation of each sentence", []
    if method == "maps":
        metric = metric if metric in BY_QUALITY else "blaser"
        return [Selection(what, metric, f"{folder}, --method_translate maps")]
    if metric_of_two := settings.get("ensembled_by"):
        chosen.append(Selection(what, metric_of_two, f"{folder}, --ensemble_by {metric_of_two}"))
    if method == "TEaR":  # estimates errors as GEMBA-MQM does, and refines by them
        how = "refined by the kind of judgement of"
        chosen.append(Selection(what, "gemba-mqm", f"{folder}, --method_translate TEaR", how=how))
    if metric != "greedy" and settings.get("num_return_sequences", 1) > 1:
        flag = f"--num_return_sequences {settings['num_return_sequences']} --selection_method {metric}"
        chosen.append(Selection(what, metric, f"{folder}, {flag}"))
    return chosen


def _of_ensemble(chosen: list[Selection], members: list[Path], seen: frozenset[Path]) -> Chain:
    """The chains of an ensemble's systems, after the selection between their translations."""
    chains = [Chain(chosen)]
    for member in members:
        is_there = member.is_dir() and member.resolve() not in seen
        chains.append(read(member, seen) if is_there else Chain(ends=[f"{member} is not there any more"]))
    return Chain(
        *([one for chain in chains for one in getattr(chain, part.name)] for part in dataclasses.fields(Chain))
    )


def _of_rounds(folder: Path) -> list[Selection]:
    """The choice of the best round of self-improvement, if these are its translations: {round}/translations/{model}/{run}."""
    own = folder.resolve().parents
    for round_folder, output_dir in ((own[2], own[2]), (own[2], own[3])) if len(own) > 3 else ():
        found = read_json(output_dir / ROUNDS, _Rounds)
        if not found or len(found["rounds"]) == 1:
            continue
        if not found["stopped"] and len(found["rounds"]) <= found["number"]:  # unfinished: no best round yet
            continue
        names = {one["round"]: Path(one["directory"]).name for one in found["rounds"]}
        name = round_folder.name if round_folder != output_dir else names.get(0)
        if names.get(found["best_round"]) == name:
            flag = f"best of {len(found['rounds'])} rounds by held-out {found['metric']}"
            return [Selection("the round", found["metric"], f"{output_dir / ROUNDS}, {flag}")]
    return []
