"""Published data sets: how many pairs each split has, whether TMX, Moses and the atlas hold the pairs of the parquet files, and whether
publishing the run again gives the same card and pairs."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import zip_longest
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from comptra.verify import Audit
from topxgen.common import provenance
from topxgen.common.console import quiet
from topxgen.corpora.tables import parquet_rows
from topxgen.publication import atlas, dataset, moses, tmx
from topxgen.publication.dataset import CARD, MANIFEST
from topxgen.publication.sources import ALL, Selection, plan
from topxgen.runs.folders import Run, find

Files = dict[tuple[str, str], list[str]]  # by (config, split)


def check(audit: Audit, folder: Path, names: set[str]) -> None:
    if {MANIFEST, CARD} <= names:
        card = folder / CARD
        files = audit.attempt(card, _check_card, audit, card)
        if files and audit.options.with_scores:
            audit.attempt(card, _check_made_again, audit, folder, files, why="its numbers: not computed again")
            audit.attempt(folder / "tmx", _check_tmx, audit, folder, files)
            audit.attempt(folder / "moses", _check_moses, audit, folder, files)
            if (path := folder / "atlas" / "pairs.parquet").is_file():
                audit.attempt(path, _check_atlas, audit, path, files)


def _check_card(audit: Audit, path: Path) -> Files:
    """The number of pairs in each split, by its file; the files of each config, without that of all languages together."""
    from pyarrow import parquet
    from ruamel.yaml import YAML

    front = path.read_text(encoding="utf-8").split("\n---\n")[0].removeprefix("---\n")
    card = YAML(typ="safe", pure=True).load(front)
    files = {
        (config["config_name"], data["split"]): [data["path"]] if isinstance(data["path"], str) else data["path"]
        for config in card["configs"]
        for data in config["data_files"]
    }
    for info in card["dataset_info"]:
        for split in info["splits"]:
            key = info["config_name"], split["name"]
            found = sum(parquet.read_metadata(path.parent / name).num_rows for name in files[key])
            audit.equal(path, f"pairs in {'/'.join(key)}", split["num_examples"], found)
    return {key: names for key, names in files.items() if key[0] != ALL}


def _check_made_again(audit: Audit, folder: Path, files: Files) -> None:
    """The card and the rows, by publishing the run again, if it is below or above the verified folder."""
    card, manifest = folder / CARD, audit.json(folder / MANIFEST)
    if (manifest.get("code"), manifest.get("versions")) != (provenance.code_id("topxgen"), provenance.versions()):
        why = "it was made by another version of this program or of its packages"
        return audit.skip(card, f"its numbers: not computed again: {why}")
    if (run := _run_of(audit, manifest)) is None:
        return audit.skip(card, "its numbers: not computed again: the run that it was made from is not below DIR")
    settings = manifest["settings"]
    options = dataset.Options(
        manifest["languages"], audit.options.languages_file, Selection(settings["min_score"], settings["percentile"]),
        settings["validation_size"], manifest["seed"], allow_undecontaminated=True, repository=settings["repository"],
        command=manifest["command"],
    )  # fmt: skip
    with TemporaryDirectory() as temporary:
        made = Path(temporary) / "made"
        with quiet():
            dataset.publish(run, made, options)
        again = audit.json(made / MANIFEST)
        for key in ("validation", "counts"):
            audit.equal(folder / MANIFEST, key, manifest[key], again[key])
        texts = [path.read_text(encoding="utf-8", errors="replace").split("\n") for path in (card, made / CARD)]
        for number, (line, own) in enumerate(zip_longest(*texts), start=1):
            audit.checked["counts"] += 1
            if line != own:
                audit.problem(card, f"line {number}, by the run", line, own)
                break
        for name in dict.fromkeys(name for names in files.values() for name in names):
            rows = audit.attempt(folder / name, _rows, folder, [name]) or iter(())
            _compare(audit, folder / name, rows, _rows(made, [name]))


def _run_of(audit: Audit, manifest: dict) -> Run | None:
    """The run with the files that were published: the folder of that name in which one of them is."""
    wanted = [(one["file"], one["sha256"]) for config in manifest["inputs"].values() for one in config]
    there = [folder for folder, names in audit.folders.items() if wanted[0][0] in names]
    for folder in there:
        for root in (folder, *folder.resolve().parents):
            if root.resolve().name == manifest["run"]:
                run = find(root)
                configs = plan(run, manifest["languages"], audit.options.languages_file)
                paths = [one.path for config in configs for one in config.sources]
                if sorted((path.name, audit.sha256(path)) for path in paths) == sorted(wanted):
                    return run
    return None


def _rows(folder: Path, names: list[str]) -> Iterator[dict]:
    for name in names:
        yield from parquet_rows(folder / name)


def _check_tmx(audit: Audit, folder: Path, files: Files) -> None:
    for (_, split), names in files.items():
        path = folder / "tmx" / f"{Path(names[0]).parent}.{split}.tmx"
        if path.is_file():
            try:
                audit.attempt(path, _compare, audit, path, _units(path), map(_unit, _rows(folder, names)))
            except ElementTree.ParseError as error:
                audit.problem(path, f"is not XML: {error}")


def _units(path: Path) -> Iterator[tuple]:
    """(id, properties, texts) of each <tu>."""
    body = None
    for event, element in ElementTree.iterparse(path, ["start", "end"]):
        if element.tag == "body":
            body = element
        if event == "end" and element.tag == "tu":
            properties = {one.get("type"): one.text or "" for one in element.iter("prop")}
            yield element.get("tuid"), properties, [one.text or "" for one in element.iter("seg")]
            body.clear()


def _unit(row: dict) -> tuple:
    properties = {tmx.kind_of(name): tmx.clean(str(row[name])) for name in tmx.PROPERTIES if row[name] is not None}
    return re.sub(r"\s", " ", tmx.clean(row["id"])), properties, [tmx.clean(row["source"]), tmx.clean(row["target"])]


def _check_moses(audit: Audit, folder: Path, files: Files) -> None:
    """Configs of the same languages share their files, one behind the other."""
    sides: dict[Path, list[tuple[str, list[str]]]] = {}
    for (_, split), names in files.items():
        if first := next(_rows(folder, names), None):
            stem = folder / "moses" / f"{split}.{first['src']}-{first['tgt']}"
            for side, column in (("src", "source"), ("tgt", "target")):
                sides.setdefault(stem.with_name(f"{stem.name}.{side}"), []).append((column, names))
    for path, parts in sides.items():
        if path.is_file():
            made = (moses.one_line(row[column]) for column, names in parts for row in _rows(folder, names))
            with ExitStack() as stack:
                lines = stack.enter_context(open(path, encoding="utf-8", newline="\n"))
                _compare(audit, path, (line.removesuffix("\n") for line in lines), made)


def _check_atlas(audit: Audit, path: Path, files: Files) -> None:
    """Its pairs are pairs of the data set, and their neighbours the nearest ones by its vectors."""
    import numpy as np

    rows = list(_rows(path.parent.parent, ["atlas/pairs.parquet"]))
    key = itemgetter(*atlas.COLUMNS)
    wanted = set(map(key, rows))
    for names in files.values():
        wanted.difference_update(map(key, _rows(path.parent.parent, names)))
    vectors, claimed = np.array([row["vector"] for row in rows], np.float32), [row["neighbors"] for row in rows]
    nearest = atlas.neighbours(vectors)[1]
    own = atlas.distances(vectors, [one["ids"] for one in claimed])
    for number, row in enumerate(rows):
        audit.checked["counts"] += 1
        if key(row) in wanted:
            audit.problem(path, f"row {number + 1} is no pair of the data set", row["id"])
        if not all(np.allclose(claimed[number]["distances"], found[number], atol=1e-4) for found in (nearest, own)):
            audit.problem(path, f"neighbors of row {number + 1}", claimed[number]["distances"], nearest[number])


def _compare(audit: Audit, path: Path, found: Iterator, made: Iterator) -> None:
    """Up to the first difference. Half characters, U+FFFD in parquet, are a space in TMX and a question mark in Moses."""
    for number, (one, other) in enumerate(zip_longest(found, made), start=1):
        audit.checked["counts"] += 1
        if one != other and ("\ufffd" not in repr(other) or _loosely(one) != _loosely(other)):
            return audit.problem(path, f"pair {number}, by the parquet files", one, other)


def _loosely(value: object) -> str:
    return re.sub("[\ufffd? ]", " ", repr(value))
