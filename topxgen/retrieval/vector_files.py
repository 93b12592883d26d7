"""Vectors of texts in a plain file: rows of little-endian float32, and beside it a manifest of what they are vectors of.

The manifest is written first: a file without one is not ours, and a file that does not fit its manifest is made again.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, replacing, write_json
from topxgen.common.provenance import digest

if TYPE_CHECKING:
    import numpy as np


class Manifest(TypedDict):
    """{name}.bin.json"""

    encoder: str  # its version
    dimension: int
    texts: int
    texts_digest: str
    vectors_digest: str


def manifest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def check_origin(path: Path) -> None:
    """Raise UsageError for a file of vectors that this program has not written: of which texts they are is not known."""
    if path.exists() and not manifest_path(path).exists():
        raise UsageError(
            f"{path} has no {manifest_path(path).name} beside it, so of which texts and encoder its vectors are is not known: move "
            "it away (vectors are made again), or pass another --output_dir"
        )


def read(path: Path, texts: Sequence[str], encoder) -> "np.ndarray | None":
    """The vectors of `texts` by `encoder`, (len(texts), dimension); None if the file has others, is damaged or missing.

    Raises UsageError as `check_origin` does.
    """
    import numpy as np

    check_origin(path)
    if not path.exists():
        return None
    data = path.read_bytes()
    manifest = read_json(manifest_path(path), Manifest, "remove it and the vectors: they are made again")
    if manifest != _manifest(data, texts, encoder):
        return None
    return np.frombuffer(data, "<f4").reshape(len(texts), encoder.dimension)


def write(path: Path, vectors: "np.ndarray", texts: Sequence[str], encoder) -> None:
    data = vectors.astype("<f4").tobytes()
    write_json(manifest_path(path), _manifest(data, texts, encoder))
    with replacing(path, "wb") as file:
        file.write(data)


def _manifest(data: bytes, texts: Sequence[str], encoder) -> Manifest:
    return {
        "encoder": encoder.version,
        "dimension": encoder.dimension,
        "texts": len(texts),
        "texts_digest": digest(list(texts)),
        "vectors_digest": hashlib.sha256(data).hexdigest()[:16],
    }
