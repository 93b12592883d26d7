"""What a reader must know of the scores of a group: which of them a selection has inflated, and which systems may have learned
the test set. Both follow the manifests from translations to models to data (comptra.guard.chains)."""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache

from comptra.evaluation_sets import DATASETS
from comptra.guard import interference, training_overlap
from comptra.guard.chains import Chain
from comptra.guard.chains import read as read_chain
from comptra.scores.systems import System
from topxgen.common.errors import UsageError
from topxgen.common.hub import listed
from topxgen.common.lineage import Text
from topxgen.corpora import benchmarks, tables
from topxgen.text import languages

MAX_NAMES = 4  # of systems in a line


def annotate(group: dict, systems: Iterable[System], judge: str | None = None) -> None:
    """Add to a group of the report (comptra.scoring) "warnings" and "base_models", to its systems "interference" and
    "contamination", and to their scores "interference": the reasons, [] where there is none.

    `judge`: the LLM that metrics prompt.
    """
    chains = [read_chain(system.folder) for system in systems]
    for row, system, chain in zip(group["systems"], systems, chains, strict=True):
        row["interference"] = []
        for name, value in row["scores"].items():
            reasons = interference.reasons(name, chain, group["metrics"][name]["family"])
            if interference.family_of(name) == interference.PROMPTED:
                reasons += interference.self_preference(judge, chain)
            if value is not None:
                value["interference"] = reasons
                row["interference"] += [f"{group['titles'][name]}: {reason}" for reason in reasons]
        row["contamination"] = [line] if (line := _overlap(system, chain)) else []
    ends: dict[str, list[str]] = {}
    names = [system.short_name for system in systems]  # equal in all directions: these are said once
    for system, name, chain in zip(systems, names, chains, strict=True):
        for end in chain.ends:
            is_ambiguous = names.count(name) > 1
            ends.setdefault(end, []).append(str(system.folder.parent.parent / name) if is_ambiguous else name)
    early = [f"the provenance of {listed(names, MAX_NAMES)} ends here: {end}" for end, names in ends.items()]
    group["warnings"] = [*group.get("warnings", ()), *interference.unknown_selectors(chains), *early]
    group["base_models"] = sorted({name for chain in chains for name in chain.base_models})


def lines(group: dict, metrics: Collection[str], label: Callable[[dict], str]) -> list[str]:
    """The reasons for the marks of `metrics` in a group and its warnings, one line each, for below its table; `label` names a
    system."""
    marked: dict[str, tuple[dict, dict]] = {}
    for row in group["systems"]:
        for name in metrics:
            for reason in (row["scores"].get(name) or {}).get("interference", ()):
                titles, names = marked.setdefault(reason, ({}, {}))
                titles[group["titles"][name]] = names[label(row)] = True
    notes = [
        f"! {', '.join(titles)} of {listed([*names], MAX_NAMES)}: {reason}"
        for reason, (titles, names) in marked.items()
    ]
    overlaps: dict[str, list[str]] = {}
    for row in group["systems"]:
        for line in row.get("contamination", ()):
            overlaps.setdefault(line, []).append(label(row))
    notes += [f"warning: {listed(names, MAX_NAMES)}: {line}" for line, names in overlaps.items()]
    return notes + [f"warning: {line}" for line in group.get("warnings", ())]


def base_models_note(groups: Iterable[dict]) -> list[str]:
    """A line on the models at which the chains end as they should."""
    names = sorted({name for group in groups for name in group.get("base_models", ())})
    return [
        f"unknown: the training data of base models, and the metrics that may have selected it ({', '.join(names)})"
    ] * bool(names)


def _overlap(system: System, chain: Chain) -> str | None:
    dataset = DATASETS.get(system.dataset)
    benchmark = dataset.test[0] if dataset and dataset.test else ""
    sides = training_overlap.sides_of(system.facts, (system.src.name, system.tgt.name), benchmark)
    texts = {system.src.name: system.sentences, system.tgt.name: system.references or []}
    return training_overlap.warning(sides, chain.data, _covers(texts))


def _covers(texts: Mapping[str, list[str]]) -> Callable[[Text, training_overlap.Side], bool]:
    """Whether all sentences of a side are in a file of the user's own that was removed and is still there as it was: a slice of
    it has another digest."""

    own_texts = cache(_own_texts)

    def covers(text: Text, side: training_overlap.Side) -> bool:
        removed = own_texts(text["benchmark"], text["language"], text["sha256"])
        return text["language"] == side.language and bool(removed) and removed.issuperset(texts[side.language])

    return covers


def _own_texts(name: str, language: str, sha256: str) -> frozenset[str]:
    """The texts of a user's own benchmark by its digest; none of one that is not a file, or another one by now."""
    if name in benchmarks.LOADERS or ".py:" in name:  # a manifest must not name code to run
        return frozenset()
    try:
        path = tables.split_source(name)[0]
        if path.suffix.lower() not in benchmarks.SUFFIXES or not path.is_file():
            return frozenset()
        splits = benchmarks.load(name, languages.find(language))
    except UsageError:
        return frozenset()
    return frozenset(text.strip() for split in splits if split.fingerprint == sha256 for text in split.texts)
