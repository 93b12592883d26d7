"""Scores of the systems on one test set, with significance and confidence intervals."""

import argparse
import logging
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from comptra import guard
from comptra.scores import auto, metrics, output_faults, segments
from comptra.scores.columns import columns_of
from comptra.scores.flags import metric_names
from comptra.scores.metrics import MetricSettings
from comptra.scores.reliability import reliability
from comptra.scores.segment_cache import cache_of
from comptra.scores.segments import Measured
from comptra.scores.systems import System
from comptra.significance import seeds
from comptra.significance.averages import Averages
from topxgen.common import provenance
from topxgen.common.errors import UsageError

logger = logging.getLogger(__name__)
Group = list[System]  # on one test set; the baseline, if there is one, is the first


def baseline_first(systems: Group, baselines: set[Path], args: argparse.Namespace) -> tuple[Group, System | None]:
    """The systems with the baseline, whose resolved folder is in `baselines`, at the head, and the baseline.

    Of a baseline with several seeds it is the run of the first. Raises UsageError if there are several systems.
    """
    ordered = sorted(systems, key=lambda system: system.folder.resolve() not in baselines)
    bases = [system for system in systems if system.folder.resolve() in baselines]
    runs = seeds.runs_of_systems(bases)
    if len(runs) > 1:
        raise UsageError(
            f"--baseline {args.baseline} holds several systems for {bases[0].dataset} from {bases[0].src.name} into "
            f"{bases[0].tgt.name}; name one: {', '.join(str(system.folder) for system in bases)}"
        )
    if not bases:
        return ordered, None
    first = bases[runs[0][0]]
    if len(bases) > 1:
        logger.info(
            f"{len(bases)} seeds of the baseline: single runs are compared with {first.folder}, systems with all"
        )
    return sorted(ordered, key=lambda system: system is not first), first


def usable_metrics(args: argparse.Namespace, has_baseline: bool) -> list[str]:
    """As `metric_names`; of auto those that this machine can run, beside those that are named. Raises UsageError if there is none."""
    if metrics.AUTO not in (args.metrics or ()):
        return metric_names(args)
    usable = auto.usable(MetricSettings.from_args(args), has_references=not args.step, has_baseline=has_baseline)
    named = {metrics.ALIASES.get(name, name) for name in args.metrics}
    return [name for name in metric_names(args) if name in usable or name in named]


def measure_all(
    jobs: Sequence[segments.Job], names: Sequence[str], args: argparse.Namespace
) -> tuple[list[dict[str, Measured]], dict[str, str]]:
    """For each of `jobs` what each of the metrics `names` gives, and why others of these were left out.

    `args` are those of comptra.evaluate. Metrics of segments come last, and one after the other, each on all jobs: a mistake in
    another one shows early, and one model is in memory at a time. Raises UsageError for a metric that does not exist, and if
    none of them can be computed.
    """
    settings, cache = MetricSettings.from_args(args), cache_of(args)
    loaded, failed = segments.load(names, settings)
    if len(names) > 1:
        for name, problem in failed.items():
            logger.warning(f"{name} is left out: {problem}")
    measured: list[dict[str, Measured]] = [{} for _ in jobs]
    for name in sorted((name for name in names if name not in failed), key=lambda name: name in loaded):
        found, problem = segments.measure(name, loaded.get(name), jobs, settings, cache)
        for one, value in zip(measured, found, strict=True):
            if value is not None:
                one[name] = value
        if problem:
            failed[name] = problem
            if len(names) > 1:
                logger.warning(f"{name} is left out: {problem}")
    if len(failed) == len(names) and not any(measured):
        raise UsageError(next(iter(failed.values())))
    return [{name: one[name] for name in names if name in one} for one in measured], failed


def test_of(systems: Group, baseline: System | None) -> metrics.Test:
    first = systems[0]
    rivals = baseline.translations if baseline else None
    return metrics.Test(first.src, first.tgt, first.sentences, first.references, rivals)


def score_groups(
    groups: Sequence[Group], names: Sequence[str], baselines: set[Path], args: argparse.Namespace
) -> tuple[list[dict], list[dict], dict[str, str], Iterator[dict]]:
    """The report of each group, that over groups (Averages.summary), why metrics were left out, and the rows of --segments.

    `args` are those of comptra.evaluate. Raises UsageError as `baseline_first` and `measure_all` do.
    """
    ordered = [baseline_first(systems, baselines, args) for systems in groups]
    jobs = [(test_of(*pair), [system.translations for system in pair[0]]) for pair in ordered]
    measured, failed = measure_all(jobs, names, args)
    systems = [own for own, _ in ordered]
    averages = Averages(systems)
    reports = [score_group(*pair, names, own, args, averages) for pair, own in zip(ordered, measured, strict=True)]
    rows = chain.from_iterable(map(segment_rows, systems, reports, measured))
    return reports, averages.summary(reports), failed, rows


def score_group(
    systems: Group,
    baseline: System | None,
    names: Sequence[str],
    measured: dict[str, Measured],
    args: argparse.Namespace,
    averages: Averages,
) -> dict:
    """The scores of `systems` by the metrics `names`, compared with the baseline, which is the first of them.

    `averages` takes what the group adds to the test of the means over groups.
    """
    from comptra.significance import compared

    first, test = systems[0], test_of(systems, baseline)
    short_names = [system.short_name for system in systems]
    rows = []
    for i, system in enumerate(systems):
        values = {name: _value(system, name, one, i) for name, one in measured.items()}
        found = output_faults.count(test, system.translations, system.truncated, args.lid_model)
        is_ambiguous = short_names.count(system.short_name) > 1  # two outputs of one model
        rows.append(
            {
                "name": str(system.folder) if is_ambiguous else system.short_name,
                "path": str(system.folder),
                "sentences": len(system.translations),
                "missing": system.missing,
                "unanswered": len(system.unanswered),
                "edited": system.is_edited,
                "empty": found["empty"],
                "faults": found,
                "translations_digest": provenance.digest(system.translations),
                "scores": {name: values.get(name) for name in names},
                "settings": system.settings,
                "columns": columns_of(system.settings, system.folder),
            }
        )
    facts = {
        name: describe(name, measured.get(name))
        | {"reliability": reliability(name, segments.row_of(name), test.src, test.tgt)}
        for name in names
    }
    group = {
        "dataset": "/".join(dict.fromkeys(system.dataset for system in systems)),  # equal test sets: flores/topxgen
        "src": first.src.name,
        "tgt": first.tgt.name,
        "step": args.step,
        "sentences": len(first.sentences),
        "test_set": first.facts,
        "sources_digest": provenance.digest(first.sentences),
        "references_digest": provenance.digest(first.references) if first.references is not None else None,
        "baseline": str(baseline.folder) if baseline else None,
        "titles": {name: own["title"] for name, own in facts.items()},
        "signatures": {name: one.scorer.signature for name, one in measured.items()},
        "metrics": facts,
        "systems": rows,
    }
    statistics = [{name: one.statistics[i] for name, one in measured.items()} for i in range(len(systems))]
    compared.compare(group, systems, statistics, {name: one.scorer for name, one in measured.items()}, args, averages)
    guard.annotate(group, systems, getattr(args, "judge_model_name_or_path", None))
    return group


def describe(name: str, measured: Measured | None) -> dict:
    """What a reader of a score must know of its metric."""
    row, scorer = segments.row_of(name), measured.scorer if measured else None
    return {
        "title": scorer.title if scorer else row.title or name,
        "signature": scorer.signature if scorer else None,
        "higher_is_better": (scorer or row).higher_is_better,
        "low": row.low,
        "high": row.high,
        "family": row.family,
        "reads": list(row.reads),
    }


def segment_rows(systems: Group, report: dict, measured: dict[str, Measured]) -> Iterator[dict]:
    """A row for each system and segment, with its score by each metric, None without one: of corpus metrics that of the segment
    alone."""
    first, nothing = systems[0], dict.fromkeys(report["metrics"])
    score_of = {name: one.scorer.segment_scores or one.scorer.scores for name, one in measured.items()}
    for i, (system, row) in enumerate(zip(systems, report["systems"], strict=True)):
        scores = {name: score_of[name](one.statistics[i]).tolist() for name, one in measured.items()}
        for index, source in enumerate(first.sentences):
            yield {
                "dataset": report["dataset"],
                "direction": f"{first.src.flores}-{first.tgt.flores}",
                "system": row["name"],
                "index": index,
                "source": source,
                "translation": system.translations[index],
                "reference": first.references[index] if first.references is not None else None,
                **nothing,
                **{name: values[index] for name, values in scores.items() if not math.isnan(values[index])},
            }


def _value(system: System, name: str, measured: Measured, i: int) -> dict | None:
    total, scored = len(system.translations), measured.counts[i]
    if scored < total:
        logger.warning(
            f"{name} gives {total - scored} of {total} translations of {system.folder} no score: "
            + (f"its mean is over the other {scored}" if scored else "it has no mean")
        )
    if not scored:
        return None
    score = float(measured.scorer.scores(measured.statistics[i].sum(axis=0)[None])[0])
    return {"score": score, "segments": scored} | ({"unscored": total - scored} if scored < total else {})
