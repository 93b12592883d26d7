"""The section Evaluation: tables of comptra.evaluate and scripts/compare.py, scores against steps, and sentences side by side.

A score is shown only if the translations that are here now are those that were scored: what others say is left out, in red.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Required

from comptra import evaluate
from comptra.report import Options
from comptra.report.sections import evaluation_sentences, evaluation_systems
from comptra.report.sections.evaluation_systems import TOLERANCE, Found
from comptra.scores.systems import loader_of_test_sets
from comptra.tables import Cell, Table, marks_of, matrix, series, title_of, variants
from topxgen.common import hub
from topxgen.common.errors import UsageError
from topxgen.common.schemas import fields
from topxgen.runs.folders import Run, relative

BOOTSTRAP = 1000  # samples for intervals of scores that are computed here
MAX_COMPUTED = 100_000  # translations that are scored here; more take minutes


# What is read of --json of comptra.evaluate: a score, a system, a test set and direction, the whole.
Value = fields(
    score=Required[float | None], segments=int, unscored=int, interval=list[float | None] | None, difference=float | None,
    p=float | None, p_holm=float | None, better=bool | None, interference=list[str],
)  # fmt: skip
Row = fields(
    path=Required[str], sentences=Required[int], scores=Required[dict[str, Value | None]], missing=int, unanswered=int,
    settings=dict | None, columns=dict[str, str] | None, faults=dict[str, int | None] | None, contamination=list[str],
    translations_digest=str,
)  # fmt: skip
Reliability = fields(status=str, note=str | None, source=str | None)
MetricFacts = fields(higher_is_better=bool | None, low=float | None, high=float | None, reliability=Reliability | None)
OverSeeds = fields(baseline=Required[str | None], systems=Required[list[dict]])
Group = fields(
    dataset=Required[str], src=Required[str], tgt=Required[str], step=Required[int], sentences=Required[int],
    systems=Required[list[Row]], titles=Required[dict[str, str]], signatures=Required[dict[str, str]],
    sources_digest=Required[str], metrics=dict[str, MetricFacts], baseline=str | None, clusters=dict[str, list[str]] | None,
    over_seeds=OverSeeds, warnings=list[str], base_models=list[str], references_digest=str | None,
)  # fmt: skip
Mean = fields(metric=Required[str], direction=Required[str], systems=Required[dict[str, dict]])
Report = fields(
    groups=Required[list[Group]], trials=Required[int], seed=Required[int], bootstrap=int, summary=list[Mean],
    notes=list[str], skipped=dict[str, str], failed_metrics=dict[str, str],
)  # fmt: skip

# What is read of comparison.json of scripts/compare.py: the scores of a variant's seeds, a test set and direction, the whole.
SeedScores = fields(
    scores=Required[list[float]], mean=Required[float], sd=Required[float | None], interval=Required[list[float] | None],
    difference=float, difference_interval=list[float], p=float, p_holm=float, better=bool | None,
)  # fmt: skip
ComparedVariant = fields(unanswered=Required[int], paths=Required[list[str]], scores=Required[dict[str, SeedScores]])
Comparison = fields(
    dataset=Required[str], src=Required[str], tgt=Required[str], way=Required[int], sentences=Required[int],
    titles=Required[dict[str, str]], signatures=Required[dict[str, str]], variants=Required[dict[str, ComparedVariant]],
)  # fmt: skip
Variant = fields(
    name=Required[str], seeds=Required[list[int]], equal_pairs=Required[int | None],
    facts=Required[dict[str, float | str | None]],
)  # fmt: skip
Experiment = fields(
    experiment=Required[str], baseline=Required[str | None], samples=Required[int], seed=Required[int],
    variants=Required[list[Variant]], groups=Required[list[Comparison]], failed_metrics=dict[str, str],
)  # fmt: skip


def collect(run: Run, options: Options) -> dict | None:
    """Tables of all reports and comparisons, and the sentences; None if nothing is translated or scored."""
    if not (run.translations or run.evaluations or run.experiments):
        return None
    with hub.offline():
        load = loader_of_test_sets(run.translations, options.benchmark_dir, allow_partial=True)
        args = evaluation_systems.arguments(run.translations or [run.root], options.benchmark_dir)
        found = evaluation_systems.read(run.translations, args, load)
        for folder, problem in found.unread.items():
            options.notice("missing", f"{relative(run.root, folder)} is not shown: {problem}")
        for problem in dict.fromkeys(found.without_references.values()):
            options.notice("missing", f"no references, and so no scores of sentences: {problem}")
        reports = [*_reports(run, options)]
        if not (reports or run.evaluations or run.experiments) and (computed := _computed(run, found, options, load)):
            reports = [("", computed)]
        shown = _readable(_shown_report, reports, found, run, options)
        read = ((path, options.read(path, Experiment, "compare again")) for path in run.experiments)
        compared = [(relative(run.root, path), content) for path, content in read if content is not None]
        comparisons = _readable(_shown_comparison, compared, found, run, options)
        for one in (one for one in [*shown, *comparisons] if one["problems"]):
            options.notice("problem", f"{one['path']} is stale: it has scores that the translations here do not have")
        groups = [group for _, report in reports for group in report["groups"]]
        scored = {found.locate(row["path"]) for group in groups for row in group["systems"]}
        labels = {found.locate(path): label for one in comparisons for path, label in one.pop("labels").items()}
        scored |= labels.keys()
        if reports or comparisons:
            for folder in found.systems.keys() - scored:
                options.notice("missing", f"{relative(run.root, folder)} has no scores in a report; evaluate again")
        sentences = evaluation_sentences.collect(found, [report for _, report in reports], labels, run, options)
    return {"reports": shown, "comparisons": comparisons, "sentences": sentences}


def _reports(run: Run, options: Options) -> Iterator[tuple[str, dict]]:
    for path in run.evaluations:
        report = options.read(path, Report, "evaluate again")
        if report and report.get("groups"):
            yield relative(run.root, path), report
        elif report is not None:
            options.notice("info", f"{relative(run.root, path)} has no scores")


def _computed(run: Run, found: Found, options: Options, load) -> dict | None:
    """A report made here, with the default metrics, of what has references."""
    systems = [one.system for one in found.systems.values()]
    systems = [system for system in systems if system.references is not None and system.sentences]
    total = sum(len(system.sentences) for system in systems)
    command = f"python -m comptra.evaluate {run.root} --bootstrap {BOOTSTRAP} --json {run.root / 'scores.json'}"
    if not systems:
        return None
    if total > MAX_COMPUTED:
        options.notice("missing", f"{total:,} translations are too many to be scored here; run {command}")
        return None
    folders = [system.folder for system in systems]
    args = evaluation_systems.arguments(folders, options.benchmark_dir, "--bootstrap", str(BOOTSTRAP))
    try:
        report, _ = evaluate.evaluate(args, load)
    except (UsageError, OSError) as error:
        options.notice("missing", f"no scores: {error}")
        return None
    options.notice(
        "info", f"no report of comptra.evaluate is here: scores were computed for this page, as by {command}"
    )
    return report


def _readable(show: Callable[..., dict], files: Iterable[tuple[str, dict]], found: Found, run: Run, options: Options):
    """What `show` makes of each file. What it cannot read was not written by our scripts: schemas do not reach to the depth of tables."""
    shown = []
    for path, content in files:
        try:
            shown.append(show(path, content, found, run))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            options.notice("problem", f"{path} cannot be shown: {type(error).__name__} {error}")
    return shown


# Reports


def _shown_report(path: str, report: dict, found: Found, run: Run) -> dict:
    """A report as the page shows it: `problems` in red."""
    unsupported, unknown = {}, []
    for number, group in enumerate(report["groups"]):
        for row in group["systems"]:
            reasons, is_here = evaluation_systems.doubts(group, row, found)
            if reasons:
                unsupported[number, row["path"]] = "; ".join(reasons)
            elif not is_here and path:
                unknown.append(row["path"])
    supported = without(report, set(unsupported))
    problems = [
        f"{relative(run.root, found.locate(row) or Path(row))}, {title_of(report['groups'][number])}: its scores are left out, {reason}"
        for (number, row), reason in unsupported.items()
    ]
    if unsupported:
        problems.append("Comparisons with these systems, and means over directions, are left out, too. Evaluate again.")
    made = matrix.tables(supported, detailed=True)
    several = len(supported["groups"]) > len({(group["dataset"], group["step"]) for group in supported["groups"]})
    directions = [
        {"title": title_of(group), "table": _table(matrix.tables({**supported, "groups": [group]}, detailed=True)[0])}
        for group in (supported["groups"] if several else ())
    ]
    notes = list(dict.fromkeys([*(note for table in made for note in table.notes), *supported.get("notes", ())]))
    return {
        "path": path,
        "problems": problems,
        "unknown": list(dict.fromkeys(unknown)),
        "tables": [_table(table) for table in made],
        "directions": directions,
        "marks": marks_of(made),
        "notes": sorted(notes, key=lambda note: note.startswith("warning:")) + _as_reported(path, supported),
        "skipped": report.get("skipped") or {},
        "panels": list(map(asdict, series.panels(supported))),
    }


def _as_reported(path: str, report: Mapping) -> list[str]:
    """Which numbers rest on the report alone."""
    if not path:
        return []
    again, others = {}, {}
    for group in report["groups"]:
        for name, title in group.get("titles", {}).items():
            kind = again if evaluation_systems.is_recomputed(name, group["signatures"].get(name)) else others
            kind[title] = True
    if not (again or others):
        return []
    computed = ", ".join(title for title in again if title not in others) or "nothing"
    return [
        f"{', '.join([*others, 'intervals and p-values'])} are as reported by {path}; computed again where translations and "
        f"references are here: {computed}"
    ]


def without(report: Mapping, unsupported: set[tuple[int, str]]) -> dict:
    """A copy of a report without the scores of systems, (number of the group, path), and what was computed with them: tests
    against a baseline and clusters of their groups, and all means over directions."""
    report = copy.deepcopy(dict(report))
    for number, group in enumerate(report["groups"]):
        own = {path for place, path in unsupported if place == number}
        if not own:
            continue
        for row in group["systems"]:
            if row["path"] in own:
                row |= {"scores": dict.fromkeys(row["scores"]), "faults": None, "contamination": []}
                row |= dict.fromkeys(("sentences", "missing", "unanswered"), 0)  # that tables count
            for value in filter(None, row["scores"].values()):
                for key in ("difference", "difference_interval", "p", "p_holm", "p_bootstrap", "better"):
                    value.pop(key, None)
        group |= {"clusters": {}, "baseline": None}
        group.pop("over_seeds", None)
    if unsupported:
        report["summary"] = []
    return report


def _table(table: Table) -> dict:
    rows = [[[cell.text, cell.all_marks] if isinstance(cell, Cell) else cell for cell in row] for row in table.rows]
    return {"title": table.title, "header": table.header, "described": table.described, "rows": rows}


# Comparisons


def _shown_comparison(path: str, report: dict, found: Found, run: Run) -> dict:
    problems, unknown, kept = [], [], []
    for group in report["groups"]:
        reasons = []
        for name, variant in group["variants"].items():
            for place, folder in enumerate(variant["paths"]):
                fits = _fits(group, variant, place, found, found.locate(folder))
                if fits is None:
                    unknown.append(folder)
                elif not fits:
                    reasons.append(f"a score of {relative(run.root, found.locate(folder))} ({name}) is another one now")
        if reasons:
            direction = f"{group['dataset']} from {group['src']} into {group['tgt']}"
            problems.append(f"{direction}: the table is left out, {'; '.join(reasons)}. Compare again.")
        else:
            kept.append(group)
    shown = {**report, "groups": kept}
    tables = [_table(Table(title, rows[0], rows[1:])) for title, rows in variants.tables(shown)]
    seeds = {variant["name"]: variant["seeds"] for variant in report["variants"]}
    labels = {
        folder: name + (f", seed {seed}" if seed is not None else "")
        for group in report["groups"]
        for name, variant in group["variants"].items()
        for folder, seed in zip_longest(variant["paths"], seeds.get(name, [])[: len(variant["paths"])])
    }
    return {
        "path": path,
        "experiment": report["experiment"],
        "problems": problems,
        "unknown": list(dict.fromkeys(unknown)),
        "tables": tables,
        "notes": [f"{name}: not computed: {why}" for name, why in report.get("failed_metrics", {}).items()]
        + variants.notes(shown),
        "labels": labels,
    }


def _fits(group: Mapping, variant: Mapping, place: int, found: Found, folder: Path | None) -> bool | None:
    """Whether the translations of a seed have the scores that the comparison says; None if they cannot be compared."""
    if folder in found.unread:
        return False
    if (one := found.systems.get(folder)) is None:
        return None
    same = []
    for metric, value in variant["scores"].items():
        score = one.score(metric, group["signatures"].get(metric), group["sentences"])
        if score is not None and value is not None and len(value["scores"]) > place:
            same.append(math.isclose(score, value["scores"][place], abs_tol=TOLERANCE))
    return all(same) if same else None
