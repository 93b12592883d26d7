"""Records of the stages of a run file (run/{stage}.json): what they read and wrote."""

from pathlib import Path

from comptra.verify import Audit
from topxgen.common.files import read_json
from topxgen.common.provenance import weights_id
from topxgen.experiments.chain import RECORDS, WEIGHTS, Record


def check(audit: Audit, folder: Path, names: set[str]) -> None:
    if folder.name != RECORDS:
        return
    for name in sorted(names):
        path = folder / name
        if name.endswith(".json") and (record := audit.attempt(path, _record, path)):
            for kind in ("inputs", "outputs"):
                for named, file in record[kind].items():
                    _check_file(audit, path, kind[:-1], named, file)


def _record(path: Path) -> Record | None:
    """None for other files: a run may be in a folder of that name, too."""
    content = path.read_bytes()
    is_record = all(key in content for key in (b'"words"', b'"inputs"', b'"outputs"'))
    return read_json(path, Record) if is_record else None


def _check_file(audit: Audit, path: Path, kind: str, named: str, file: dict) -> None:
    found = audit.locate(named, path)
    if found is None or not found.is_file():
        if kind == "input":
            return audit.skip(path, f"its input {named} is not there")
        return audit.problem(path, f"its {kind} {named} is missing")
    digest = weights_id(found) if found.suffix in WEIGHTS else (audit.sha256(found) or "")[:16]
    if audit.equal(path, f"SHA-256 of its {kind} {named}", file["sha256"], digest):
        audit.equal(path, f"bytes of its {kind} {named}", file["size"], found.stat().st_size)
