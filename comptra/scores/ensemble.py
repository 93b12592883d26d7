"""Best of two systems: for each sentence the translation that a reference-free metric prefers.

The result is a system of its own, in a folder as main.py leaves it. Its manifest names the metric, so that its scores by the
metric and its relatives are marked (comptra.guard.interference): they are inflated (Pombal et al. 2025).
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from comptra.ordered_jsonl import TRUNCATED, UNANSWERED
from comptra.scores import segments
from comptra.scores.metrics import MetricSettings, Segment
from comptra.scores.segment_cache import cache_of, file_name
from comptra.scores.systems import System
from topxgen.common import checksums, provenance
from topxgen.common.errors import UsageError
from topxgen.common.files import remove, to_line, write_atomic, write_json
from topxgen.common.provenance import TRANSLATE_MANIFEST as MANIFEST

Score = float | None
METHOD = "best-of-two"  # in settings, as --method_translate


def add(groups: Sequence[list[System]], args: argparse.Namespace) -> None:
    """Add to each group, of two systems on one test set, the best of the two by --ensemble_by, written below --ensemble_dir.

    Earlier ensembles are no members. Raises UsageError for groups of other sizes, and for a metric that reads more than the source
    and the translation, or cannot be computed.
    """
    name = args.ensemble_by
    row = segments.row_of(name)
    if not row.of_segments or row.reads != ("source",):
        raise UsageError(
            f"--ensemble_by {name} does not judge a translation by its source alone; choose a metric without references, such as "
            "blaser-qe, metricx-24-qe or cometkiwi"
        )
    members = [[system for system in group if "ensembled_by" not in system.settings] for group in groups]
    pairs = [(group, own) for group, own in zip(groups, members, strict=True) if own or not any(members)]
    for _, group in pairs:
        if len(group) != 2:
            where = f"from {group[0].src.name} into {group[0].tgt.name}" if group else "of ensembles alone"
            names = ", ".join(str(system.folder) for system in group[:4])
            raise UsageError(f"--ensemble_by takes two systems on each test set; {where} it has {len(group)} ({names})")
    loaded, failed = segments.load([name], MetricSettings.from_args(args))
    if failed:
        raise UsageError(f"--ensemble_by {name}: {failed[name]}")
    cache, metric = cache_of(args), loaded[name]
    try:
        for group, pair in pairs:
            first = pair[0]
            asked = [one for system in pair for one in map(Segment, system.sentences, system.translations)]
            scores = segments.score(name, metric, asked, first.src, first.tgt, cache)
            half = len(first.sentences)
            is_second = second_is_better(scores[:half], scores[half:], row.higher_is_better)
            made = _write(pair, is_second, {"name": name, "signature": metric.signature}, args)
            group[:] = [system for system in group if _members(system) != _members(made)] + [made]
    except segments.FAILURES as error:
        raise error if isinstance(error, UsageError) else UsageError(f"--ensemble_by {name}: {error}") from None
    finally:
        metric.close()


def _members(system: System) -> tuple:
    return system.settings.get("ensembled_by"), system.settings.get("systems", system.folder)


def second_is_better(first: Sequence[Score], second: Sequence[Score], higher_is_better: bool) -> list[bool]:
    """For each sentence whether the second is better; not if both are equal, or it has no score."""
    sign = 1 if higher_is_better else -1
    return [b is not None and (a is None or sign * b > sign * a) for a, b in zip(first, second, strict=True)]


def _write(pair: Sequence[System], is_second: list[bool], metric: dict, args: argparse.Namespace) -> System:
    first, second = pair
    names = [system.short_name for system in pair]
    limits = [limit for limit in (first.settings.get("max_samples"), args.max_samples) if limit is not None]
    test_set = first.dataset, str(min(limits, default=None))  # the same in all directions
    room = args.ensemble_dir / f"{file_name(metric['name'])}-{provenance.digest([*names, *test_set])[:8]}"
    folder = room / f"{first.src.name}_to_{first.tgt.name}"
    chosen = [(second if takes else first) for takes in is_second]
    translations = [system.translations[i] for i, system in enumerate(chosen)]
    settings = {
        "src": first.src.name,
        "tgt": first.tgt.name,
        "dataset_name_or_path": first.dataset,
        "max_samples": len(first.sentences),
        "method_translate": METHOD,
        "ensembled_by": metric["name"],
        "ensemble_of": [str(system.folder.resolve()) for system in pair],
        "systems": names,
    }
    marks = {
        mark: frozenset(i for i, system in enumerate(chosen) if i in getattr(system, mark))
        for mark in (UNANSWERED, TRUNCATED)
    }
    lines = (
        {"sentence": text, "translation": new} | {mark: True for mark, numbers in marks.items() if i in numbers}
        for i, (text, new) in enumerate(zip(first.sentences, translations, strict=True))
    )
    folder.mkdir(parents=True, exist_ok=True)
    remove(folder / MANIFEST)
    write_atomic(folder / "translate_0.jsonl", map(to_line, lines))
    manifest = {
        "stage": "translate",
        "finished": provenance.now(),
        "settings": settings,
        "test_set": first.facts,
        "metric": metric,
        "sentences": len(translations),
        "chosen": [is_second.count(False), is_second.count(True)],
        "versions": provenance.versions(),
        checksums.KEY: ["translate_0.jsonl"],
    }
    write_json(folder / MANIFEST, manifest)
    checksums.claim(folder, ["translate_0.jsonl", MANIFEST])
    return replace(first, folder=folder, translations=translations, settings=settings, **marks)
