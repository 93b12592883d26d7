"""Provenance: what was run, when, with which settings, versions and inputs; and what is missing."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from comptra.report import Options
from topxgen.common.failures import Failure
from topxgen.common.masks import masked
from topxgen.common.records import FilteredLayout
from topxgen.common.schemas import fields
from topxgen.runs.folders import Run, relative

# Longer lists and texts of a manifest are cut in the page: indices of sentences, messages of an API.
MAX_ITEMS, MAX_CHARS = 60, 4000
# Shown in places of their own.
_APART = {"stage", "complete", "command", "started", "finished", "settings", "versions", "lineage"}


# What is read of manifests and settings files, and of records of scripts/run.py.
_Manifest = fields(
    stage=str, complete=bool, started=str | None, finished=str | None, command=list[str], settings=dict,
    versions=dict[str, str], lineage=dict,
)  # fmt: skip
_Record = fields(words=list[str], inputs=dict, outputs=dict, exit_code=int, started=str, finished=str, hours=float)


def collect(run: Run, options: Options) -> dict | None:
    """`steps`: of the manifests of a command, or of settings without one, `stage`, `folder`, `languages`, `command`, times,
    `settings`, `versions`, `lineage` and the rest as `facts`; `records`: stages as scripts/run.py recorded them."""
    steps = [step for folder in _folders(run) for step in _together(_steps(run.root, folder, options))]
    records = [record for folder in run.records for record in _records(run.root, folder, options)]
    if not _folders(run) and not records and not run.failures:
        return None
    failed = list(_failures(run, options))
    for text in (*failed, *_missing(run, steps, bool(failed))):
        options.notice("missing", text)
    return {"steps": sorted(steps, key=lambda step: (step["started"] or "", step["folder"])), "records": records}


def _folders(run: Run) -> list[Path]:
    of_pairs = [folder for one in run.back_translations for folder in (one.folder, one.filtered) if folder]
    models = {folder.parent for folder in run.translations}  # divisions of CompTra
    return sorted({*run.generations, *of_pairs, *run.trainings, *run.merges, *run.translations, *models})


def _steps(root: Path, folder: Path, options: Options) -> Iterator[dict]:
    """Of each manifest in a folder, and of each stage that has only settings yet."""
    manifests = {path: options.read(path, _Manifest) for path in sorted(folder.glob("manifest_*.json"))}
    stages = {manifest.get("stage") for manifest in manifests.values() if manifest}
    settings = {path: options.read(path, dict) for path in sorted(folder.glob("settings_*.json"))}
    for path, manifest in manifests.items():
        if manifest:
            yield _step(root, path, manifest)
    for path, values in settings.items():
        stage = path.stem.removeprefix("settings_")
        if values and stage not in stages and stage != "probe":
            yield _step(root, path, {"stage": stage, "complete": False, "settings": values})


def _step(root: Path, path: Path, manifest: dict) -> dict:
    stage = str(manifest.get("stage") or path.stem.partition("_")[2])
    language = path.stem.removeprefix(f"manifest_{stage}").removeprefix("_") if path.stem.startswith("manifest") else ""
    return {
        "stage": stage,
        "folder": relative(root, path.parent),
        "files": [path.name],
        "languages": [language] if language else [],
        # Manifests are written last; those of training say whether it went on to the end.
        "complete": bool(manifest.get("complete", True)),
        **_short_of(manifest, ("started", "finished", "command", "settings", "versions", "lineage")),
        "facts": {key: short(value) for key, value in manifest.items() if key not in _APART},
    }


def _together(steps: Iterable[dict]) -> list[dict]:
    """Manifests of one command in a folder as one step: datagen.py and decontamination.py write one for each language.

    Where there is one for all languages, it has the counts of all; else facts, and settings that differ, are by language.
    """
    groups: dict[str, list[dict]] = {}
    for step in steps:
        same = [step[key] for key in ("stage", "command", "complete")]
        groups.setdefault(json.dumps(same), []).append(step)
    merged = []
    for group in groups.values():
        whole = next((step for step in group if not step["languages"]), None)
        single = whole or (group[0] if len(group) == 1 else None)
        times = {key: [step[key] for step in group if step[key]] for key in ("started", "finished")}
        merged.append(
            (single or group[0])
            | {
                "files": [name for step in group for name in step["files"]],
                "languages": [name for step in group for name in step["languages"]],
                "started": min(times["started"], default=None),
                "finished": max(times["finished"], default=None),
            }
        )
        if not single:
            for key in ("settings", "facts", "lineage"):
                of_each = {step["languages"][0]: step[key] for step in group}
                if key != "settings" or len({json.dumps(settings) for settings in of_each.values()}) > 1:
                    merged[-1][key] = of_each
    return merged


def _records(root: Path, folder: Path, options: Options) -> Iterator[dict]:
    for path in sorted(folder.glob("*.json")):
        if record := options.read(path, _Record):
            kept = ("words", "inputs", "outputs", "exit_code", "started", "finished", "hours")
            yield {"stage": path.stem, "folder": relative(root, folder.parent), **_short_of(record, kept)}


def _failures(run: Run, options: Options) -> Iterator[str]:
    for path in run.failures:
        if failure := options.read(path, Failure):
            error = f": {masked(failure['error'])}" if failure.get("error") else ""
            stage, folder = path.stem.rpartition(".")[2], relative(run.root, path.parents[2])
            yield f"{stage} in {folder} failed with exit code {failure['exit_code']}, {failure['failed']}{error}"


def _missing(run: Run, steps: list[dict], has_failed: bool) -> Iterator[str]:
    """What this run lacks or has not finished."""
    interrupted = "failed or was interrupted" if has_failed else "was interrupted"
    for step in steps:
        if not step["complete"]:
            yield f"{step['stage']} in {step['folder']} began and has no manifest: it is still running, or {interrupted}"
    if run.generations and not run.back_translations:
        yield "paragraphs were not back-translated: there are no pairs"
    for one in run.back_translations:
        name = relative(run.root, one.folder)
        of_folder = {step["stage"] for step in steps if step["folder"] == name}
        if not of_folder & {"translate", "score"}:
            yield f"{name} has no manifest of its pairs: how they were made is not known"
        if one.filtered is None:
            yield f"{name} was not decontaminated"
            continue
        filtered = FilteredLayout(one.filtered)
        if left := [language for language in one.languages if not filtered.filtered(language).exists()]:
            yield f"{name} was not decontaminated in {', '.join(left)}"
    if not run.trainings:
        yield "no model was trained here"
    if not run.translations:
        yield "no test set was translated here"
    elif not run.evaluations and not run.experiments:
        yield "translations were not scored into a file: python -m comptra.evaluate DIR --json FILE writes one"


def _short_of(record: dict, keys: Iterable[str]) -> dict:
    return {key: short(record.get(key)) for key in keys}


def short(value: Any) -> Any:
    """`value` with long lists and texts cut, and a line that says so."""
    if isinstance(value, str) and len(value) > MAX_CHARS:
        return f"{value[:MAX_CHARS]} … {len(value) - MAX_CHARS:,} characters more"
    if isinstance(value, list):
        rest = [f"… {len(value) - MAX_ITEMS:,} more"] if len(value) > MAX_ITEMS else []
        return [*map(short, value[:MAX_ITEMS]), *rest]
    if isinstance(value, dict):
        return {key: short(item) for key, item in value.items()}
    return value
