"""The stages of datagen.py and their manifests.

manifest_{stage}_{Language}.json is written when a stage is complete for a language; manifest_{stage}.json, made from these,
has all languages of the folder, however they were run: one by one, together, or side by side in several processes.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Required

from topxgen.common import checksums
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, remove, write_json
from topxgen.common.locks import holders, wait_for_lock
from topxgen.common.provenance import (
    check_settings,
    command_line,
    forget_settings,
    now,
    record_settings,
    restore_settings,
    versions,
)
from topxgen.common.records import Layout, other_language
from topxgen.common.schemas import fields
from topxgen.text.languages import Language

STAGES = ("generate", "translate", "score")
SUMS = ("prompts_asked", "truncated_texts")  # results that add up over languages
RUN_KEYS = ("started", "finished", "command", "seed", "settings", "versions")
REMEDY = "remove it: it is made again"


_Counts = fields(rejected=Required[dict[str, int]])


# Of a stage for a language, as far as it is read.
Manifest = fields(
    language=Required[str], started=Required[str], finished=Required[str], command=Required[list], seed=Required[int],
    settings=Required[dict], versions=Required[dict], counts=Required[_Counts], complete=bool, checksums=list[str],
    prompts_asked=int | None, truncated_texts=int, dedup_recall=dict[str, int],
)  # fmt: skip
# Of a stage for all languages of a directory, as far as it is read.
WholeManifest = fields(counts=Required[dict[str, _Counts]], prompts_asked=int | None)


def language_manifest(layout: Layout, stage: str, language: str) -> dict:
    """{} if there is none."""
    path = layout.manifest(stage, language)
    manifest = read_json(path, Manifest, REMEDY)
    if problem := other_language(path, manifest):
        raise UsageError(f"{path}: {problem}; {REMEDY}")
    return manifest


def whole_manifest(layout: Layout, stage: str) -> dict:
    """{} if there is none."""
    return read_json(layout.manifest(stage), WholeManifest, REMEDY)


def remove_manifests(layout: Layout, stage: str, languages: list[str]) -> None:
    """Remove the manifests of languages for which a stage has work to do, and those of the stages after it."""
    for later in STAGES[STAGES.index(stage) :]:
        folder = layout.manifest(later).parent
        if folder.is_dir():
            with wait_for_lock(folder):
                for language in languages:
                    remove(layout.manifest(later, language))
                _combine(layout, later)


def write_manifests(
    layout: Layout,
    stage: str,
    started: str,
    seed: int,
    settings: dict,
    results: dict[str, dict],
    languages: Mapping[str, Language],
) -> None:
    """Write the manifests of a stage, last of its files; `results` by language. One with the same settings and results stays."""
    own_settings = {name: _without_others(settings, name, languages) for name in results}
    folder = layout.manifest(stage).parent
    if stage != "score":  # another scorer scores anew; --min_score records its settings before it drops anything
        restore_settings(layout.settings(stage), settings)
    manifests = {}
    for language, values in results.items():
        earlier = language_manifest(layout, stage, language)
        own = own_settings[language]
        # Settings that a later version has added are no change.
        same = bool(earlier) and own | earlier.get("settings", {}) == own
        if not same or any(earlier.get(name) != value for name, value in values.items()):
            run = (started, now(), command_line(("--api_key",)), seed, own, versions())
            earlier = {"stage": stage, "language": language, **dict(zip(RUN_KEYS, run, strict=True)), **values}
            earlier[checksums.KEY] = checksums.existing(folder, layout.finished_files(stage, language))
            manifests[language] = earlier
        checksums.claim(folder, earlier.get(checksums.KEY, ()))  # before the lock: large files take time
    with wait_for_lock(folder):
        for language in results:
            path = layout.manifest(stage, language)
            if language in manifests:
                write_json(path, manifests[language])
            if checksums.KEY in language_manifest(layout, stage, language):
                checksums.claim_file(path)
        _combine(layout, stage)


def has_results(output_dir: Path, settings: Path) -> bool:
    """Whether there are results beside the settings of a stage, or another process may be about to write some."""
    this = (os.getpid(), socket.gethostname())
    others = any(one.state != "left" and (one.process, one.host) != this for one in holders(output_dir))
    files = (file for kind in ("*.jsonl", "*.bin") for file in settings.parent.glob(kind))
    return others or any(file.is_symlink() or file.stat().st_size for file in files)  # a link may lead nowhere for now


def record(layout: Layout, stage: str, settings: dict) -> None:
    """Save settings that processes for several languages share. Raises UsageError if another one has saved others meanwhile."""
    path = layout.settings(stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(path.parent):
        if has_results(layout.output_dir, path):
            check_settings(path, settings)
        else:
            forget_settings(path, settings)
        record_settings(path, settings)


def _without_others(settings: dict, language: str, languages: Mapping[str, Language]) -> dict:
    """The settings without those of one other language, such as "demonstrations_digest hau_Latn"."""
    others = {word for name, other in languages.items() if name != language for word in (name, other.flores)}
    return {key: value for key, value in settings.items() if key.partition(" ")[2] not in others}


def _combine(layout: Layout, stage: str) -> None:
    """Write manifest_{stage}.json from those of the languages."""
    path = layout.manifest(stage)
    files = sorted(path.parent.glob(f"{path.stem}_*.json"))
    parts = [language_manifest(layout, stage, file.stem.removeprefix(f"{path.stem}_")) for file in files]
    if not parts:
        remove(path)
        return
    latest = max(parts, key=lambda part: part["finished"])
    whole = {"stage": stage, **{name: latest[name] for name in RUN_KEYS}}
    whole["started"] = min(part["started"] for part in parts)
    whole["settings"] = {name: value for part in parts for name, value in part["settings"].items()}
    whole |= {name: sum(part.get(name) or 0 for part in parts) for name in SUMS if any(name in part for part in parts)}
    if stage == "generate" or any("complete" in part for part in parts):
        whole["complete"] = all(part.get("complete", stage != "generate") for part in parts)
    whole |= {
        name: latest[name]
        for name in latest
        if name not in {*whole, *SUMS, "language", "counts", "dedup_recall", checksums.KEY}
    }
    for name in ("dedup_recall", "counts"):
        values = {part["language"]: part[name] for part in parts if name in part}
        whole |= {name: values} if values else {}
    claimed = {name for part in parts for name in part.get(checksums.KEY, ())}
    whole |= {checksums.KEY: sorted(claimed)} if claimed else {}
    if whole != whole_manifest(layout, stage):
        write_json(path, whole)
    if claimed:
        checksums.claim_file(path)
