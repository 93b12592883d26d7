"""What comptra.evaluate claims: scores, tests and counts, computed again from the translations; its tables, from its JSON."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from comptra import evaluate
from comptra.scores.metrics import ALIASES, METRICS, TOKENIZERS
from comptra.significance import averages
from comptra.tables import export, matrix
from comptra.verify import Audit, beginning
from comptra.verify.translations import arguments, can_load, test_files
from topxgen.common.console import quiet
from topxgen.common.files import refuse_stand_in
from topxgen.common.provenance import TRANSLATE_MANIFEST

_SURFACE = {name for name, row in METRICS.items() if not row.of_segments}
# Of a system, besides its scores.
_FACTS = ("sentences", "missing", "unanswered", "empty", "faults", "translations_digest", "settings")
_SEGMENTS = (b'{"dataset": ', b"dataset,direction,system,index,")  # how files of --segments begin
_NEAR = 1e-6  # scores of other processors differ in the last digits


def check(audit: Audit, folder: Path, names: set[str]) -> None:
    reports: dict[Path, dict] = {}
    segments = [folder / name for name in sorted(names) if _is_segments(folder / name)]
    rows: list[dict] = []  # of all reports of the folder, if there is a file of segments to compare them with
    for name in sorted(names):
        path = folder / name
        is_candidate = name.endswith(".json") and not name.startswith(("manifest_", "settings_"))
        if is_candidate and (found := _report(audit, path)):
            reports[path] = audit.reports[path] = found
            audit.attempt(path, _check_report, audit, path, found, rows if segments else None)
    for path in segments:
        audit.attempt(path, _check_segments, audit, path, rows)
    for name in sorted(names):
        if (folder / name) not in segments:
            audit.attempt(folder / name, _check_table, audit, folder / name, reports)


def _report(audit: Audit, path: Path) -> dict | None:
    """The report in a JSON file, if it is one of comptra.evaluate."""
    if b'"trials"' not in beginning(path, 200):
        return None
    found = audit.json(path)
    return found if "groups" in found and "experiment" not in found else None


def _check_report(audit: Audit, path: Path, report: dict, rows: list[dict] | None = None) -> None:
    for group in report["groups"]:
        folders = [audit.locate(system["path"], path) for system in group["systems"]]
        for system, folder in zip(group["systems"], folders, strict=True):
            if folder is None:
                audit.skip(path, f"the scores of {system['path']}: it is not there")
        if None not in folders and audit.options.with_scores:
            again = audit.attempt(path, _scored_again, audit, path, report, group, folders, why="its scores")
            if again is not None:
                _compare(audit, path, report, group, folders, again[0])
                if rows is not None:
                    rows += again[1]
    for name in sorted({name for group in report["groups"] for name in group["titles"]} - _SURFACE):
        audit.skip(path, f"{name}: not a metric of strings")
    _check_means(audit, path, report)


def metric_flags(names: Iterable[str], signatures: dict[str, str]) -> dict[str, Any]:
    """Flags that compute the metrics of strings among `names` as their signatures say."""
    tokenizer = re.search(r"tok:([^|]+)", signatures.get("bleu", ""))
    found = tokenizer[1] if tokenizer else "auto"
    flags = {"metrics": [name for name in names if ALIASES.get(name, name) in _SURFACE]}
    return flags | {"tokenize": found if found in TOKENIZERS else "auto"}


def _scored_again(
    audit: Audit, path: Path, report: dict, group: dict, folders: list[Path]
) -> tuple[dict, Iterator[dict]] | None:
    """A group of a report made anew by its metrics of strings, with the rows of its segments; None, and why, if it cannot be."""
    names = [name for name in group["titles"] if name in _SURFACE]
    dataset = group["dataset"].split("/")[0]
    if group["step"] == 0 and not can_load(audit, dataset, folders):
        return audit.skip(path, f"scores of {group['dataset']}: pass --benchmark_dir with a copy of it")
    if not names:
        return None
    paths = [system["path"] for system in group["systems"]]
    baseline = folders[paths.index(group["baseline"])] if group.get("baseline") in paths else None
    manifest = folders[0] / TRANSLATE_MANIFEST
    files = test_files(audit, manifest, audit.json(manifest)) if manifest.is_file() else None
    args = arguments(
        audit,
        **metric_flags(names, group["signatures"]),
        dirs=list(dict.fromkeys(folders)),
        baseline=baseline,
        dataset_name_or_path=dataset or None,
        test_files=files,
        step=group["step"],
        trials=report.get("trials") or 1,
        bootstrap=report.get("bootstrap", 0),
        seed=report.get("seed", 12345),
        max_samples=_max_samples(group, folders),
    )
    with quiet():
        made, rows = evaluate.evaluate(args)
    if len(made["groups"]) != 1:
        return audit.skip(path, f"scores of {group['dataset']}: its translations are of several test sets now")
    return made["groups"][0], rows


def _compare(audit: Audit, path: Path, report: dict, group: dict, folders: list[Path], again: dict) -> None:
    """The claims about a group with what was computed again."""
    same = []
    for name in group["titles"]:
        claimed, here = group["signatures"].get(name), again["signatures"].get(name)
        if claimed == here:
            same.append(name)
        elif name in _SURFACE:
            audit.skip(path, f"{name}: its signature is {here} here, not {claimed}")
    for key in ("sources_digest", "references_digest", "sentences"):
        if key in group:
            audit.equal(path, f"{key} of {group['dataset']}", group[key], again[key])
    by_folder = {Path(system["path"]).resolve(): system for system in again["systems"]}
    named = {}
    for system, folder in zip(group["systems"], folders, strict=True):
        found = by_folder.get(folder.resolve())
        if found is None:
            audit.problem(path, f"{system['path']} cannot be scored any more")
            continue
        named[found["path"]] = system["path"]
        for key in _FACTS:
            if key in system:
                near_equal(audit, path, f"{key} of {system['path']}", system[key], found[key])
        for name in same:
            what = f"{group['titles'][name]} of {system['path']}"
            near_equal(audit, path, what, system["scores"].get(name), found["scores"].get(name), "scores")
    for name, paths in (group.get("clusters") or {}).items() if report.get("trials") else ():
        if name in same:
            found = [named.get(one, one) for one in again.get("clusters", {}).get(name, ())]
            audit.equal(path, f"top cluster by {name}", paths, found, "scores")


def _check_means(audit: Audit, path: Path, report: dict) -> None:
    """The means over directions, by the scores of the report itself."""
    groups = report["groups"]
    names, wholes = matrix.names_of(groups), list(map(id, averages.wholes(groups)))
    for entry in report.get("summary", ()):
        found: dict[int, dict[str, float]] = {}
        for group in groups:
            scopes = averages.scopes(group["src"], group["tgt"])
            if group["dataset"] == entry["dataset"] and entry["direction"] in scopes:
                scores = {names[row["path"]]: row["scores"].get(entry["metric"]) for row in group["systems"]}
                found[id(group)] = {name: value["score"] for name, value in scores.items() if value}
        # In older versions parts of a test set counted, too.
        has_all = sum(map(bool, found.values())) == entry.get("of")
        of_systems = [scores for number, scores in found.items() if has_all or number in wholes]
        common = [scores for scores in of_systems if entry["systems"].keys() <= scores.keys()]
        for name, system in entry["systems"].items():
            mine = [scores[name] for scores in common]
            again = {"mean": sum(mine) / len(mine) if mine else None, "groups": len(mine)}
            what = f"{entry['metric']} of {name}, {entry['dataset']} {entry['direction']}"
            claimed = {key: system[key] for key in again if key in system}
            near_equal(audit, path, what, claimed, again, "scores")


def _max_samples(group: dict, folders: list[Path]) -> int | None:
    """--max_samples of the evaluation, if it was less than what was translated."""
    translations = folders[0] / f"translate_{group['step']}.jsonl"
    refuse_stand_in(translations)
    lines = translations.read_bytes().count(b"\n")
    of_test_set = (group.get("test_set") or {}).get("test", {}).get("pairs")  # an unfinished run has fewer lines
    return group["sentences"] if lines > group["sentences"] else of_test_set


def near_equal(audit: Audit, path: Path, what: str, claimed: Any, found: Any, kind: str = "counts") -> None:
    """As Audit.equal, but numbers with fractions may differ in their last digits."""
    if isinstance(claimed, dict) and isinstance(found, dict):
        for key, value in claimed.items():
            near_equal(audit, path, f"{what}.{key}" if key != "score" else what, value, found.get(key), kind)
    elif isinstance(claimed, list) and isinstance(found, list) and len(claimed) == len(found):
        for one, other in zip(claimed, found, strict=True):
            near_equal(audit, path, what, one, other, kind)
    else:
        is_near = isinstance(claimed, float) and isinstance(found, float | int) and abs(claimed - found) <= _NEAR
        audit.equal(path, what, found if is_near else claimed, found, kind)


# Tables


def _check_table(audit: Audit, path: Path, reports: dict[Path, dict]) -> None:
    if path.suffix == ".csv":
        return _check_csv(audit, path, reports)
    make = {".md": export.markdown, ".tex": export.latex}.get(path.suffix)
    own = path.with_suffix(".json")
    if make is None or not reports or path.name in ("README.md", "decontamination_report.md"):
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    if any(make(report) == text for report in reports.values()):
        audit.checked["scores"] += 1
    elif own in reports:
        audit.problem(path, f"is not the table of {own.name} (of an earlier version? write it again)")
    else:
        audit.skip(path, "it is the table of no report beside it")


def _check_csv(audit: Audit, path: Path, reports: dict[Path, dict]) -> None:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"dataset", "src", "tgt", "step", "path", "system"} <= rows[0].keys():
        return
    for of_json, report in reports.items():
        made = list(csv.DictReader(io.StringIO(export.csv_text(report), newline="")))
        if [row["path"] for row in made] != [row["path"] for row in rows] or (rows[0].keys() - made[0].keys()):
            continue
        for number, (row, again) in enumerate(zip(rows, made, strict=True), start=1):
            for column, cell in row.items():
                audit.equal(path, f"row {number}, {column}, by {of_json.name}", cell, again[column], "scores")
        return
    _check_report(audit, path, _report_of(rows))


def _report_of(rows: list[dict]) -> dict:
    """What a table without its report says, in the form of a report: scores, without tests."""
    names = [key.removesuffix("_signature") for key in rows[0] if key.endswith("_signature")]
    groups: dict[tuple, dict] = {}
    for row in rows:
        key = tuple(row[name] for name in ("dataset", "src", "tgt", "step"))
        if key not in groups:
            groups[key] = {
                **dict(zip(("dataset", "src", "tgt"), key, strict=False)),
                "step": int(row["step"]),
                "titles": {name: name for name in names},
                "signatures": {name: row[f"{name}_signature"] for name in names if row[f"{name}_signature"]},
                "systems": [],
            }
        counts = {name: int(row[name]) for name in ("sentences", "missing", "unanswered", "empty") if row.get(name)}
        scores: dict = dict.fromkeys(names)
        for name in (name for name in names if row[name]):
            scores[name] = {"score": float(row[name]), "segments": int(row[f"{name}_segments"])}
        groups[key]["systems"].append({"path": row["path"], **counts, "scores": scores})
    for group in groups.values():
        group["sentences"] = max(system.get("sentences", 0) for system in group["systems"])
    return {"groups": list(groups.values())}


def _is_segments(path: Path) -> bool:
    return path.suffix in (".jsonl", ".csv") and beginning(path).startswith(_SEGMENTS)


def _check_segments(audit: Audit, path: Path, again: list[dict]) -> None:
    """Rows of --segments with those that were made anew; cells of metrics that were not are left out."""
    with open(path, encoding="utf-8", newline="" if path.suffix == ".csv" else None) as file:
        rows = list(csv.DictReader(file)) if path.suffix == ".csv" else list(map(json.loads, file))
    found = {(row["direction"], row["system"], str(row["index"])): row for row in again}
    metrics = {key for row in again[:1] for key in row if key in METRICS}
    for number, row in enumerate(rows, start=1):
        other = found.get((row["direction"], row["system"], str(row["index"])))
        if other is None:
            audit.skip(path, "rows of which no report beside it tells the translations")
            continue
        for key in ("source", "translation", "reference", *sorted(metrics & row.keys())):
            claimed, here = row[key], other[key]
            if path.suffix == ".csv":
                claimed = float(claimed) if key in metrics and claimed else claimed or None
                here = here if here != "" else None
            near_equal(audit, path, f"row {number}, {key}", claimed, here, "scores" if key in metrics else "counts")
    for name in sorted({key for row in rows[:1] for key in row if key in METRICS} - metrics):
        audit.skip(path, f"{name}: not computed again")
