"""Data as the page holds them: JSON, gzip, base64."""

import base64
import gzip
import json
import re
import zlib
from pathlib import Path
from typing import Any

from topxgen.common.errors import UsageError

LEVEL = 9


def compressed(value: Any) -> bytes:
    """`value` as gzip-compressed JSON, the same bytes each time. Lone surrogates stay, as escapes; NaN and Infinity are null."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return compressed(json.loads(json.dumps(value), parse_constant=lambda _: None))
    return gzip.compress(text.encode("utf-8", "backslashreplace"), LEVEL, mtime=0)


def size_of(value: Any) -> int:
    """Bytes of `value` as Options.max_bytes counts them."""
    return len(compressed(value))


def packed(data: bytes) -> str:
    """Bytes as text of a script element: base64 has no character that HTML could take for its own."""
    return base64.b64encode(data).decode("ascii")


def packed_size(count: int) -> int:
    """Characters that `count` bytes take in the page."""
    return (count + 2) // 3 * 4


def is_page(path: Path) -> bool:
    """Whether a file is a page of scripts/report.py."""
    with open(path, "rb") as file:
        return b'<meta name="generator" content="topxgen report' in file.read(4096)


def elements(text: str) -> dict[str, str]:
    """The packed data of a page by their names, and the rest of it by ""."""
    pattern = re.compile(r'<script type="application/gzip;base64" id="data-([^"]*)">([^<]*)</script>')
    return {match[1]: match[2] for match in pattern.finditer(text)} | {"": pattern.sub("", text)}


def read(page: Path, name: str) -> Any:
    """What the page holds as data of a section or other `name`; None if it has none. Raises UsageError for another file."""
    start = f'<script type="application/gzip;base64" id="data-{name}">'.encode()
    if not is_page(page):
        raise UsageError(f"{page} is not a page of scripts/report.py")
    found = re.search(re.escape(start) + rb"([A-Za-z0-9+/=]*)</script>", page.read_bytes())
    if found is None:
        return None
    try:
        return json.loads(gzip.decompress(base64.b64decode(found[1], validate=True)))
    except (ValueError, OSError, EOFError, zlib.error, RecursionError) as error:
        raise UsageError(f"{page}: its data {name} are damaged ({error}); make the page again") from None
