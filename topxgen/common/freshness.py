"""Whether a file has what the stages before it have done since: readers refuse one that has not."""

from pathlib import Path

from topxgen.common import checksums, shards
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json
from topxgen.common.records import FilteredLayout, translations_name
from topxgen.common.schemas import fields

_FILTERED = FilteredLayout(Path()).filtered("").name
# What is read of manifest_decontaminate_{Language}.json.
_Input = fields(path=str, bytes=int | None, modified_ns=int | None)
_Filtering = fields(input=_Input, input_sha256=str)


def check(path: Path) -> None:
    """Raise UsageError if shards have done for `path` what their last merge has not put into it, or if it is `outdated`."""
    shards.check_merged(path)
    if problem := outdated(path):
        raise UsageError(problem)


def outdated(path: Path) -> str | None:
    """The problem with a {Language}_translate_filtered.jsonl if the pairs that it was made of have changed: more of them, or
    other scores. None for other files."""
    if not path.name.endswith(_FILTERED):
        return None
    language = path.name.removesuffix(_FILTERED)
    manifest_path = FilteredLayout(path.parent).manifest(language)
    manifest = read_json(manifest_path, _Filtering)
    # In a folder that was copied, the pairs beside it count: here and at the old place others may have been added.
    source = path.with_name(translations_name(language))
    if not source.is_file():
        source = Path(manifest.get("input", {}).get("path", ""))
    known, status = manifest.get("input", {}), source.stat() if source.is_file() else None
    if status is None or "input_sha256" not in manifest:
        return None
    is_same = status.st_size == known.get("bytes") and (
        status.st_mtime_ns == known.get("modified_ns") or checksums.sha256_of(source) == manifest["input_sha256"]
    )
    if is_same:
        return None
    return (
        f"{path} was made of an earlier state of {source}: run decontamination.py --input_dir {source.parent} --languages "
        f"{language!r} again, with the flags of that run, or, to use it as it is, remove {manifest_path.name}"
    )
