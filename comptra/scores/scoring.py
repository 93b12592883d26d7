"""Scores of the systems on one test set, with significance and confidence intervals."""

import argparse
from pathlib import Path

from comptra.scores import compared, metrics
from comptra.scores.systems import System
from topxgen.common import provenance
from topxgen.common.errors import UsageError


def score_group(systems: list[System], names: list[str], baselines: set[Path], args: argparse.Namespace) -> dict:
    """The scores of `systems` by the metrics `names`, compared with the system whose resolved folder is in `baselines`.

    `args` are those of comptra.evaluate. Raises UsageError if there are several baselines.
    """
    systems = sorted(systems, key=lambda system: system.folder.resolve() not in baselines)
    first = systems[0]
    bases = [system for system in systems if system.folder.resolve() in baselines]
    if len(bases) > 1:
        raise UsageError(
            f"--baseline {args.baseline} holds several systems for {first.dataset} from {first.src.name} into "
            f"{first.tgt.name}; name one: {', '.join(str(system.folder) for system in bases)}"
        )
    test = metrics.Test(first.src, first.tgt, first.sentences, first.references)
    settings = metrics.MetricSettings(args.tokenize, args.lid_model)
    scorers = {name: scorer for name in names if (scorer := metrics.create(name, test, settings))}
    statistics = [
        {name: scorer.statistics(system.translations) for name, scorer in scorers.items()} for system in systems
    ]

    short_names = [system.short_name for system in systems]
    rows = []
    for system, own_statistics in zip(systems, statistics, strict=True):
        values = {
            name: {"score": float(scorer.scores(own_statistics[name].sum(axis=0)[None])[0])}
            for name, scorer in scorers.items()
        }
        is_ambiguous = short_names.count(system.short_name) > 1  # two outputs of one model
        rows.append(
            {
                "name": str(system.folder) if is_ambiguous else system.short_name,
                "path": str(system.folder),
                "sentences": len(system.translations),
                "missing": system.missing,
                "unanswered": system.unanswered,
                "empty": sum(not text.strip() for text in system.translations),
                "translations_digest": provenance.digest(system.translations),
                "scores": {name: values.get(name) for name in names},
                "settings": system.settings,
            }
        )
    group = {
        "dataset": "/".join(dict.fromkeys(system.dataset for system in systems)),  # equal test sets: flores/topxgen
        "src": first.src.name,
        "tgt": first.tgt.name,
        "step": args.step,
        "sentences": len(first.sentences),
        "test_set": first.facts,
        "sources_digest": provenance.digest(first.sentences),
        "references_digest": provenance.digest(first.references) if first.references is not None else None,
        "baseline": str(bases[0].folder) if bases else None,
        "titles": {name: scorers[name].title if name in scorers else name for name in names},
        "signatures": {name: scorer.signature for name, scorer in scorers.items()},
        "systems": rows,
    }
    compared.compare(group, statistics, scorers, args)
    return group
