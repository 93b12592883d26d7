"""What main.py claims: counts of translations, the test set that they are of, and models that are still the same."""

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

from comptra import evaluation_sets
from comptra.ordered_jsonl import TRUNCATED, UNDIVIDED, UNREADABLE
from comptra.scores.systems import loader_of_test_sets, read_system, recorded_rooms
from comptra.verify import Audit
from topxgen.common import shards
from topxgen.common.console import quiet
from topxgen.common.files import read_jsonl
from topxgen.common.lineage import KEY
from topxgen.common.provenance import TRANSLATE_MANIFEST, weights_id
from topxgen.corpora import benchmarks
from topxgen.corpora.tables import split_source


def check(audit: Audit, folder: Path, names: set[str]) -> None:
    path = folder / TRANSLATE_MANIFEST
    if path.name in names:
        manifest = audit.json(path)
        if "test_set" not in manifest:  # of datagen.py
            return
        audit.attempt(path, _check_counts, audit, path, manifest, names)
        audit.attempt(path, _check_test_set, audit, path, manifest, why="its test set")
        audit.attempt(path, _check_models, audit, path, manifest)


def _check_counts(audit: Audit, path: Path, manifest: dict, names: set[str]) -> None:
    levels = sorted(name for name in names if re.fullmatch(r"translate_\d+\.jsonl", name))
    rows = {name: list(read_jsonl(path.parent / name)) for name in levels}
    final = rows.get("translate_0.jsonl", [])
    if "ensembled_by" in manifest["settings"]:
        audit.equal(path, "sentences", manifest["sentences"], len(final))
        return audit.equal(path, "chosen", sum(manifest["chosen"]), len(final))
    marks = [UNREADABLE, TRUNCATED]
    counts = {mark: sum(bool(row.get(mark)) for of_level in rows.values() for row in of_level) for mark in marks}
    found = {
        "sentences": len(final),
        "empty_translations": sum(not row["translation"] for row in final),
        "phrases": [len(rows[name]) for name in levels[1:]],
        "unreadable_answers": counts[UNREADABLE],
        "truncated_translations": counts[TRUNCATED],
    }
    for key in found.keys() & manifest.keys():
        audit.equal(path, key, manifest[key], found[key])
    for r, number in enumerate(manifest.get("undivided", ()), start=1):
        room = path.parent.parent
        divisions = [folder / f"divide_{r}.jsonl" for folder in (room, *room.glob("divisions_*"))]
        counts = [sum(bool(row.get(UNDIVIDED)) for row in read_jsonl(file)) for file in divisions if file.is_file()]
        if len(counts) == 1:  # with several it is not known which is the run's
            audit.equal(path, f"undivided of divide_{r}.jsonl", number, counts[0])
    for key in ("usage", "truncated_answers", "phrases_left_out"):
        if manifest.get(key):
            audit.skip(path, f"{key}: counted while the model was at work")


def arguments(audit: Audit, **more) -> argparse.Namespace:
    """The flags of comptra.evaluate that read translations and test sets."""
    from comptra.evaluate import build_parser

    args = build_parser().parse_args([str(audit.root)])
    args.benchmark_dir, args.languages_file = audit.options.benchmark_dir, audit.options.languages_file
    args.allow_partial_benchmark = args.allow_partial = True
    vars(args).update(more)
    return args


def can_load(audit: Audit, dataset: str | None, folders: Iterable[Path] = ()) -> bool:
    """Whether a test set, that of the translations in `folders`, can be read without the Hub."""
    test = evaluation_sets.DATASETS[dataset].test if dataset in evaluation_sets.DATASETS else None
    if test is None or test[0] == "udhr" or benchmarks.folder_or_default(audit.options.benchmark_dir) is not None:
        return True
    return bool(recorded_rooms(folders))


def test_files(audit: Audit, path: Path, manifest: dict) -> list[Path] | None:
    """Those that a manifest names, where they are now; None if it names none."""
    sides = manifest.get("test_set", {}).get("test", {})
    named = [sides.get(side, {}).get("from") for side in ("sources", "references")]
    if manifest["settings"].get("dataset_name_or_path") != "files" or None in named:
        return None
    found = []
    for one in named:
        file = split_source(one)[0]
        there = audit.locate(str(file), path)
        found.append(Path(one.replace(str(file), str(there), 1)) if there else Path(one))
    return found


def _check_test_set(audit: Audit, path: Path, manifest: dict) -> None:
    dataset = manifest["settings"].get("dataset_name_or_path")
    if shards.SETTING in manifest["settings"]:
        return audit.skip(
            path, "the texts of a shard, a part of the test set: they are compared where shards are merged"
        )
    if not can_load(audit, dataset, [path.parent]):
        return audit.skip(path, f"the texts of {dataset}: pass --benchmark_dir with a copy of it")
    args = arguments(audit, test_files=test_files(audit, path, manifest))
    load_test_set = loader_of_test_sets([path.parent], args.benchmark_dir, allow_partial=True)
    with quiet():
        system = read_system(path.parent, args, load_test_set)  # compares the sentences
    claimed = manifest.get("test_set", {}).get("test", {})
    found = system.facts["test"] if system else {}
    for side in ("sources", "references"):
        for key in ("sha256", "lines", "texts"):
            if key in claimed.get(side, {}) and key in found.get(side, {}):
                audit.equal(path, f"test_set.{side}.{key}", claimed[side][key], found[side][key])
    if "pairs" in claimed:
        audit.equal(path, "test_set.pairs", claimed["pairs"], found.get("pairs"))


def _check_models(audit: Audit, path: Path, manifest: dict) -> None:
    for link in (manifest.get(KEY) or {}).get("models", ()):
        # main.py's folder of translations bears the model's name, too, but has no weights.
        for folder in (audit.locate(link["name"], path), Path(link["name"])):
            if link.get("weights") and folder is not None and folder.is_dir() and (found := weights_id(folder)):
                audit.equal(path, f"digest of the weights in {link['name']}", link["weights"], found)
                break
