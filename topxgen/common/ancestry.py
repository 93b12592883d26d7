"""The model of the Hub that a local one was made from, and its terms, for cards."""

import re
from collections.abc import Iterator
from os.path import expanduser
from pathlib import Path
from typing import Any

from topxgen.common import licences, lineage
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json
from topxgen.common.licences import Licence
from topxgen.common.schemas import fields, front_matter

_HUB_ID = re.compile(r"([\w.-]+)/([\w.-]+)", re.ASCII)
_CACHED = re.compile(r"models--([\w.-]+?)--([\w.-]+)", re.ASCII)  # a folder of the Hub's cache
_OUR_FOLDERS = {"models", "model", "outputs", "output", "checkpoints", "data", "runs", ".", ".."}  # no makers of models
MAX_DEPTH = 20


_Adapter = fields(base_model_name_or_path=str | None)
_Config = fields(_name_or_path=Any)


def hub_name(name: str, link: lineage.Link | None = None, depth: int = MAX_DEPTH) -> str | None:
    """The nearest model of the Hub that `name` is or was made from; None if that is not known.

    A local folder is followed by the manifests of ours (`link`: its lineage, if it is known already), the configuration of an
    adapter, and what a copied or quantized folder brought along: its card's `base_model`, its configuration's `_name_or_path`.
    """
    folder = Path(expanduser(name))
    if cached := next((match for part in folder.parts if (match := _CACHED.fullmatch(part))), None):
        return f"{cached[1]}/{cached[2]}"
    if not folder.exists():
        match = _HUB_ID.fullmatch(name)
        gone = link is not None and "ends" in link
        if match and match[1].lower() not in _OUR_FOLDERS and not gone:
            return name
    if depth == 0:
        return None
    if link is None or (not link.get("links") and "ends" not in link and folder.is_dir()):
        link = lineage.of_model(name)
    parents = [(one["name"], one) for one in link.get("links", ()) if one["kind"] == "model"]
    parents += [(parent, None) for parent in _named_in(folder) if parent != name]
    return next((found for parent, own in parents if (found := hub_name(parent, own, depth - 1))), None)


def licence_of(name: str, link: lineage.Link | None = None) -> Licence | None:
    """The terms of the model that `name` is or was made from: by the name on the Hub, or else by the names of the folders that it
    was made from, the first one before its own; a fine-tuned model may be called anything. None if no name tells them."""
    if link is None and Path(name).is_dir():
        link = lineage.of_model(name)
    made_from = reversed(list(_models_of(link))) if link else ()
    return next(filter(None, map(licences.of, (hub_name(name, link), *made_from, name))), None)


def _models_of(link: lineage.Link) -> Iterator[str]:
    """The names of the models that a model was made from; not of those that made its data."""
    for one in link.get("links", ()):
        if one["kind"] == "model":
            yield one["name"]
            yield from _models_of(one)


def _named_in(folder: Path) -> list[str]:
    """Models that the files of a folder name as the one it was made from."""
    if not folder.is_dir():
        return []
    try:
        adapter = read_json(folder / "adapter_config.json", _Adapter).get("base_model_name_or_path")
        config = read_json(folder / "config.json", _Config).get("_name_or_path")
    except (OSError, UsageError):
        adapter = config = None
    named = [adapter, *_base_models_of_card(folder / "README.md"), config]
    return [name for name in named if isinstance(name, str) and name]


def _base_models_of_card(card: Path) -> list:
    try:
        named = front_matter(card.read_text(encoding="utf-8", errors="replace")).get("base_model")
    except OSError:
        return []
    return named if isinstance(named, list) else [named]
