"""What scripts/compare.py claims: the scores of variants, and its tables. Rounds: the scores of rounds.json."""

from itertools import chain
from pathlib import Path
from statistics import fmean

from comptra.tables import variants
from comptra.verify import Audit
from comptra.verify.evaluations import metric_flags, near_equal
from comptra.verify.translations import arguments, can_load
from topxgen.common.console import quiet
from topxgen.experiments.rounds import FILE as ROUNDS
from topxgen.experiments.rounds import labels

RESULT = "comparison"


def check(audit: Audit, folder: Path, names: set[str]) -> None:
    path = folder / f"{RESULT}.json"
    if path.name in names and "experiment" in (report := audit.json(path)):
        audit.attempt(path, _check_tables, audit, path, report)
        for group in report["groups"] if audit.options.with_scores else ():
            audit.attempt(path, _check_group, audit, path, report, group, why="its scores")
    if ROUNDS in names:
        path = folder / ROUNDS
        audit.attempt(path, _check_rounds, audit, path, audit.json(path))


def _check_tables(audit: Audit, path: Path, report: dict) -> None:
    for suffix, make in ((".md", variants.markdown), (".csv", variants.csv_text)):
        table = path.with_suffix(suffix)
        if not table.is_file():
            audit.problem(table, f"is missing beside {path.name}")
        elif make(report) != table.read_text(encoding="utf-8", errors="replace"):
            audit.problem(table, f"is not the table of {path.name} (of an earlier version? write it again)")
        else:
            audit.checked["scores"] += 1


def _check_group(audit: Audit, path: Path, report: dict, group: dict) -> None:
    folders = {name: [audit.locate(one, path) for one in one["paths"]] for name, one in group["variants"].items()}
    if None in [folder for own in folders.values() for folder in own]:
        return audit.skip(path, "scores of translations that are not there")
    if not can_load(audit, group["dataset"].split("/")[0], chain.from_iterable(folders.values())):
        return audit.skip(path, f"scores of {group['dataset']}: pass --benchmark_dir with a copy of it")
    flags = metric_flags(group["titles"], group["signatures"])
    if not flags["metrics"]:
        return audit.skip(path, f"{', '.join(group['titles'])}: not metrics of strings")
    seeds = {name: [[folder] for folder in own] for name, own in folders.items()}
    with quiet():
        found, _ = variants.score(seeds, report["baseline"], arguments(audit, **flags, seed=report["seed"]))
    (again,) = found
    for name in group["titles"]:
        if name not in flags["metrics"] or again["signatures"].get(name) != group["signatures"].get(name):
            audit.skip(path, f"{name}: not computed again")
            continue
        for variant, own in group["variants"].items():
            claimed, here = own["scores"].get(name), again["variants"][variant]["scores"].get(name)
            near_equal(audit, path, f"{group['titles'][name]} of {variant}", claimed, here, "scores")


def _check_rounds(audit: Audit, path: Path, content: dict) -> None:
    """By the files of scores of the rounds, whose means they are."""
    for one in content["rounds"]:
        folder, what = audit.locate(one["directory"], path), f"round {one['round']}"
        scores = [] if folder is None else [folder / "held_out" / "scores.json", folder / "scores.json"]
        if not scores or not scores[0].is_file():
            audit.skip(path, f"the scores of {what}: there is no {one['directory']}/held_out/scores.json")
            continue
        held_out, test = (_by_direction(audit, file) if file.is_file() else None for file in scores)
        if held_out is None or test is None:
            audit.skip(path, f"the scores of {what}: of several systems")
            continue
        by_direction: dict[str, list[float]] = {}
        for (direction, name), value in held_out.items():
            if name.endswith(f" {content['metric']}"):
                by_direction.setdefault(direction, []).append(value)
        mine = [fmean(values) for values in by_direction.values()]
        near_equal(audit, path, f"held_out of {what}", one["held_out"], fmean(mine) if mine else None, "scores")
        near_equal(
            audit, path, f"test of {what}", one["test"], {name: value for (_, name), value in test.items()}, "scores"
        )
    by_rank = sorted(content["rounds"], key=lambda one: (-one["held_out"], one["round"]))
    audit.equal(path, "best_round", content["best_round"], by_rank[0]["round"], "scores")


def _by_direction(audit: Audit, path: Path) -> dict[tuple[str, str], float] | None:
    """Scores by direction and name of the column; None if there are several systems of a test set."""
    groups = audit.json(path)["groups"]
    if any(len(group["systems"]) > 1 for group in groups):
        return None
    systems = [group["systems"][0] for group in groups]
    places = [
        (f"{group['src']} to {group['tgt']}", group["dataset"], Path(system["path"]).name)
        for group, system in zip(groups, systems, strict=True)
    ]
    return {
        (direction, f"{label} {name}"): value["score"]
        for (direction, *_), label, system in zip(places, labels(places), systems, strict=True)
        for name, value in system["scores"].items()
        if value
    }
