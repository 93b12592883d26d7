"""The Hub's cache as its clients write it, made by hand."""

import hashlib
import os
import shutil
from pathlib import Path


def add(cache: Path, name: str, source: Path, kind: str = "model") -> Path:
    """Put the files of the folder `source` into `cache` as the repository `name`; its snapshot."""
    place = cache / f"{kind}s--{name.replace('/', '--')}"
    commit = hashlib.sha1(name.encode()).hexdigest()
    (place / "blobs").mkdir(parents=True)
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        blob = place / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, blob)
        link = place / "snapshots" / commit / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    return place / "snapshots" / commit
