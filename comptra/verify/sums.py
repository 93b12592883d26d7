"""SHA256SUMS against the files, and the manifests that say which files are in it; their settings against settings_*.json."""

from pathlib import Path

from comptra.verify import Audit
from topxgen.common import checksums, provenance
from topxgen.common.checksums import KEY, NAME


def check(audit: Audit, folder: Path, names: set[str]) -> None:
    entries = _entries(audit, folder) if NAME in names else {}
    audit.sha256_of_all(folder / name for name in entries)
    for name, digest in entries.items():
        _compare(audit, folder, name, digest)
    for name in sorted(names):
        if name.startswith("manifest_") and name.endswith(".json"):
            audit.attempt(folder / name, _check_manifest, audit, folder / name, entries)


def _entries(audit: Audit, folder: Path) -> dict[str, str]:
    path = folder / NAME
    text = audit.attempt(path, lambda: path.read_bytes().decode("utf-8", "surrogateescape")) or ""
    entries, others = checksums.parse(text)
    for number, line in others:
        audit.problem(path, f"line {number} is no checksum, or a second one of its file: {line[:100]}")
    if text and not text.endswith("\n"):
        audit.problem(path, "the last line has no end")
    return entries


def _compare(audit: Audit, folder: Path, name: str, claimed: str) -> None:
    path = folder / name
    if audit.sha256(path) != claimed and checksums.read(folder).get(name) != claimed:
        audit.skip(path, "it was changed by a run while it was read")
        return audit.forget(path)
    if (found := audit.sha256(path)) is None and _may_be_removed(path):
        return audit.skip(path.parent, "the checkpoint was removed")
    if found is None:
        audit.problem(path, f"is missing, and {NAME} has it")
    elif found != claimed:
        audit.problem(path, f"SHA-256 in {NAME}", claimed, found)
    return audit.claim(path)


def _may_be_removed(path: Path) -> bool:
    return path.parent.name.startswith("checkpoint-") and not path.parent.exists()


def _check_manifest(audit: Audit, path: Path, entries: dict[str, str]) -> None:
    manifest = audit.json(path)
    _check_settings(audit, path, manifest.get("settings") or {})
    claimed = manifest.get(KEY)
    if claimed is None:
        if path.name not in entries:
            audit.skip(path, "of an older version, which wrote no SHA256SUMS: its files can have changed unseen")
        return
    for name in [*claimed, path.name]:
        if not (path.parent / name).is_file() and not _may_be_removed(path.parent / name):
            audit.problem(path.parent / name, f"is missing, and {path.name} has it")
        elif name not in entries:
            audit.problem(
                path.parent / name,
                f"has no checksum in {NAME}, but should have by {path.name}: the line was removed, or the run was killed at the "
                "very end (its command, run again, completes it)",
            )


def _check_settings(audit: Audit, path: Path, settings: dict) -> None:
    """What a manifest says of them, by the file that the stage resumes by. Those of scores are of the scorer that came last."""
    file = path.with_name(path.name.replace("manifest_", "settings_", 1))
    if file.is_file() and path.name != "manifest_score.json":
        recorded = provenance.by_todays_names(audit.json(file))
        claimed = provenance.by_todays_names(settings)
        audit.equal(path, "settings", {name: claimed[name] for name in claimed.keys() & recorded.keys()}, recorded)
