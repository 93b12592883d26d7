"""Runs that differ in nothing but a seed, of train.py or of main.py: one system, whose scores vary with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comptra.manifest import Manifest
from comptra.scores.systems import System
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json
from topxgen.common.lineage import DATA_MANIFEST, MERGE_MANIFEST, TRAIN_MANIFEST
from topxgen.common.provenance import TRANSLATE_MANIFEST, weights_id
from topxgen.common.schemas import fields

_OF_THE_WEIGHTS = ("model", "base_model", "weights")  # in the settings of main.py; another seed gives others
_NO_RESULT = ("max_samples", "base_url", "lines_from_original")


# What is read of the manifest of train.py.
_Trained = fields(metric_for_best_model=str)
# What is read of data_manifest.json, which train.py leaves beside a model.
_Facts = fields(languages=dict[str, fields(sha256=str)])
# What is read of settings_train.json: all of it is compared.
_Settings = fields(seed=int)
# What is read of manifest_merge.json: the adapter comes first.
_Merge = fields(lineage=fields(links=list[fields(name=str)]))


def runs_of_systems(systems: Sequence[System]) -> list[list[int]]:
    """The indices of the runs of each system, sorted by their seeds; most systems have one. A run that repeats the seeds of
    another one says nothing new, and is a system of its own."""
    found: dict[Any, dict[tuple, list[int]]] = {}
    for i, system in enumerate(systems):
        key, seeds = _key(system)
        found.setdefault(key, {}).setdefault(seeds, []).append(i)
    grouped = []
    for by_seeds in found.values():
        grouped.append([own[0] for _, own in sorted(by_seeds.items(), key=lambda item: str(item[0]))])
        grouped += [[i] for own in by_seeds.values() for i in own[1:]]
    return sorted(grouped, key=min)


def seeds_of(system: System) -> list[int | None]:
    """The seeds of the training and of the translations; None where it is not known."""
    return list(_key(system)[1])


def name_of(paths: Sequence[str]) -> str:
    """The paths of runs as one, with * for the part in which they differ."""
    if len(paths) == 1:
        return paths[0]
    start = _equal_letters(paths)
    end = _equal_letters([path[start:][::-1] for path in paths])
    return f"{paths[0][:start]}*{paths[0][len(paths[0]) - end :]}"


def _equal_letters(texts: Sequence[str]) -> int:
    """How many letters all begin with."""
    columns = zip(*texts, strict=False)
    return next((i for i, letters in enumerate(columns) if len(set(letters)) > 1), min(map(len, texts)))


def _key(system: System) -> tuple[Any, tuple[int | None, int | None]]:
    """What is equal for the runs of one system, and the seeds of this one."""
    settings = {name: value for name, value in system.settings.items() if not _is_no_result(name)}
    if not settings:  # of the original code
        return str(system.folder), (None, None)
    seed = settings.pop("seed", None)
    training = _training_of(system.folder)
    if not training:
        return repr(sorted(settings.items())), (None, seed)
    training_seed, trained = training
    settings = {name: value for name, value in settings.items() if name not in _OF_THE_WEIGHTS}
    return repr((sorted(settings.items()), trained)), (training_seed, seed)


def _is_no_result(name: str) -> bool:
    """Digests of configurations, which older versions lack, are of models that other settings name."""
    return name in _NO_RESULT or name.endswith("_config")


def _training_of(folder: Path) -> tuple[int | None, Any] | None:
    """The seed of the training of the model that made the translations in `folder`, and what else decided its weights; None if
    no file of train.py says it."""
    try:
        manifest = read_json(folder / TRANSLATE_MANIFEST, Manifest)
        name, weights = manifest.get("model"), manifest.get("settings", {}).get("weights", [])[-1:]
        if not name or (weights and weights_id(name) not in ("", *weights)):  # of another training, which came later
            return None
        model = Path(name)
        merged = read_json(model / MERGE_MANIFEST, _Merge).get("lineage", {}).get("links", [])
        model = Path(merged[0].get("name", "")) if merged else model
        is_checkpoint = model.name.startswith("checkpoint-")
        output_dir = model.parent if is_checkpoint else model
        settings: dict = dict(read_json(output_dir / "settings_train.json", _Settings))
        facts = read_json(output_dir / DATA_MANIFEST, _Facts)
        best_by = read_json(output_dir / TRAIN_MANIFEST, _Trained).get("metric_for_best_model", "")
    except (UsageError, OSError):  # a damaged manifest of a model spoils no scores
        return None
    if not settings:
        return None
    seed = settings.pop("seed", None)
    settings.pop("data", None)  # the digest of what the seed has drawn
    settings = {name: value for name, value in settings.items() if not _is_no_result(name)}
    files = {name: part.get("sha256") for name, part in facts.get("languages", {}).items()}
    return seed, (sorted(settings.items()), sorted(files.items()), model.name if is_checkpoint else best_by)
