"""The page of a run: the files that it was made from."""

import base64
import gzip
import json
import re
from pathlib import Path

from comptra.verify import Audit, why_unclaimed

_DATA = re.compile(rb'<script type="application/gzip;base64" id="data-page">([^<]*)</script>')


def check(audit: Audit, folder: Path, names: set[str]) -> None:
    for name in sorted(names):
        if name.endswith(".html"):
            audit.attempt(folder / name, lambda p=folder / name: _check_page(audit, p))


def _check_page(audit: Audit, path: Path) -> None:
    found = _DATA.search(path.read_bytes())
    if not found:
        return
    page = json.loads(gzip.decompress(base64.b64decode(found[1])))
    for source in page["sources"]:
        if why_unclaimed(Path(source["path"]).name):  # it may change later
            continue
        file = audit.locate(str(Path(page["root"]) / source["path"]), path)
        if source["sha256"] is None:
            audit.skip(path, f"{source['path']} changed while the page was made")
        elif file is None:
            audit.problem(path, f"was made from {source['path']}, which is missing")
        else:
            audit.equal(
                path, f"SHA-256 of {source['path']}, which it was made from", source["sha256"], audit.sha256(file)
            )
