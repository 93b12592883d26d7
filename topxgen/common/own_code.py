"""The files of a user's own code: the one that a flag names, and the modules of the user's that it imports."""

import ast
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from os.path import expanduser
from pathlib import Path

_OURS = frozenset(["topxgen", "comptra"])  # versions of this program are recorded in another way


def files_of(location: str) -> list[Path]:
    """The file "path/to/file.py" or of the module "package.module" and what it imports, directly or not, that is not installed; [] if
    there is none. Imports by a computed name are not seen."""
    name = location if location.endswith(".py") else getattr(find_spec(location), "origin", None)
    waiting, files = [Path(expanduser(name or ""))], []
    while waiting:
        file = waiting.pop().resolve()
        if file.is_file() and file not in files:
            files.append(file)
            waiting += () if _is_installed(file) else _imported(file)
    return [*files[:1], *sorted(file for file in files[1:] if not _is_installed(file))]


def _is_installed(file: Path) -> bool:
    return "site-packages" in file.parts or any(file.is_relative_to(prefix) for prefix in (sys.prefix, sys.base_prefix))


def _imported(file: Path) -> Iterator[Path]:
    """Where the modules that a file imports would be, beside it or on the path."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError, RecursionError):
        return
    package = next(folder for folder in file.parents if not (folder / "__init__.py").exists())
    for node in nodes:
        if isinstance(node, ast.Import):
            level, names = 0, [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            level, names = node.level, [f"{node.module or ''}.{alias.name}".strip(".") for alias in node.names]
        else:
            continue
        folders = [file.parents[level - 1]] if level else [file.parent, package, *map(Path, sys.path)]
        for name in names:
            parts = name.split(".")
            if not level and parts[0] in _OURS:
                continue
            for folder in folders:
                yield from (folder.joinpath(*parts[:end]).with_suffix(".py") for end in range(1, len(parts) + 1))
                yield from (folder.joinpath(*parts[:end], "__init__.py") for end in range(1, len(parts) + 1))
