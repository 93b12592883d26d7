"""Where models and data come from: what selected them, which test sets were removed from them, which models wrote them.

A stage copies the links of what it reads into its own manifest (`lineage`, docs/files.md), so that the chain outlives
folders that are moved or removed. What is missing, damaged or of another file raises nothing: its link says why the chain `ends`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Required, TypedDict

from topxgen.common import checksums, schemas
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json
from topxgen.common.provenance import weights_id
from topxgen.common.records import FilteredLayout, Layout, translations_name
from topxgen.common.schemas import fields

KEY = "lineage"  # of manifests
TRAIN_MANIFEST, MERGE_MANIFEST, DATA_MANIFEST = "manifest_train.json", "manifest_merge.json", "data_manifest.json"
MODEL_MANIFESTS = TRAIN_MANIFEST, MERGE_MANIFEST, DATA_MANIFEST
EXPORT_MANIFEST = "manifest_export.json"
GENERATED, BENCHMARKS = ("topxgen", "ours"), ("flores", "udhr")  # names of training sets
# Share of the pairs that --percentile 0, which drops those of the lowest score, drops without selecting.
MAX_LOWEST = 0.01


class Selection(TypedDict):
    """`what` was selected by a metric, because of `flag`: `kept` of `of` (null: not known). `metric` is a name or a scorer's id,
    null if it has none; `where` is a folder."""

    what: str
    metric: str | None
    flag: str
    where: str
    kept: int | None
    of: int | None


def selection(
    what: str, metric: str | None, flag: str, where: str, kept: int | None = None, of: int | None = None
) -> Selection:
    return {"what": what, "metric": metric, "flag": flag, "where": where, "kept": kept, "of": of}


class Text(TypedDict):
    """One side of a benchmark's split, as manifests of decontamination.py name it."""

    benchmark: str
    split: str
    language: str
    sha256: str


class Link(TypedDict, total=False):
    """A model, or the pairs of a language. One without a stage and an end is a base model, of which nothing is known."""

    kind: Required[str]  # model or data
    name: Required[str]
    stage: str  # that made it
    weights: str  # of a model: their digest (provenance.weights_id)
    languages: list[str]  # of pairs: that of the sentences, and that of the translations
    selections: list[Selection]
    removed: list[Text]  # the texts of benchmarks that decontamination.py removed
    texts: list[Text]  # what the data is itself, if it is a benchmark
    writers: list["Link"]  # models that wrote the texts: their `selections` are those of their chains
    links: list["Link"]  # what it was made from
    ends: str


class Translations(TypedDict):
    """`lineage` in the manifest of main.py."""

    models: list[Link]
    demonstrations: Link | None


# manifest_export.json, in the folder of --export_dir.
_Export = fields(files=Required[list[str]], lineage=Required[Link])
_DatagenSettings = fields(
    number_of_candidates=int, select_by=str | None, scorer=str, min_score=float | None,
    model=str | None, adapter=str | None, nllb_name_or_path=str | None,
)  # fmt: skip
# Of the manifest of a stage of datagen.py for a language.
_Datagen = fields(settings=Required[_DatagenSettings], counts=fields(pairs=int, rejected=dict[str, int]))
_FilterSettings = fields(
    benchmarks=Required[fields(sentence=Required[list[Text]], translation=Required[list[Text]])],
    tokens_per_ngram=Required[dict[str, int]],
    drop_on_sentence_overlap=Required[str],
    drop_on_translation_overlap=Required[str],
)
# Of manifest_decontaminate_{Language}.json.
_Decontamination = fields(
    settings=Required[_FilterSettings], outputs=Required[dict[str, dict[str, Any]]], lineage=Required[Link]
)


def walk(links: Iterable[Link]) -> Iterator[Link]:
    """The links and all that they were made from, without the writers of texts; what was made last comes first."""
    for link in links:
        yield link
        yield from walk(link.get("links", ()))


def selections(links: Iterable[Link]) -> list[Selection]:
    """Those of all links, each once."""
    found = [selection for link in walk(links) for selection in link.get("selections", ())]
    return [selection for i, selection in enumerate(found) if selection not in found[:i]]


def checked(value: Any, schema: type, path: Path) -> Any:
    """`value`, read from `path`. Raises UsageError naming the field that does not fit `schema`."""
    try:
        schemas.check(value, schema)
    except ValueError as error:
        raise UsageError(f"{path}: {KEY}: {error}") from None
    return value


def _or_end(kind: str, name: str, make: Callable[[], Link]) -> Link:
    try:
        return make()
    except (UsageError, OSError) as error:
        return {"kind": kind, "name": name, "ends": str(error)}


# Models


def of_model(name: str) -> Link:
    """The link of a model or adapter: a folder, or the name of one of the Hub or an API."""
    return _or_end("model", name, lambda: _of_model(name))


def _of_model(name: str) -> Link:
    folder = Path(name)
    for file in MODEL_MANIFESTS if folder.is_dir() else ():
        if link := read_json(folder / file).get(KEY):
            made, there = checked(link, Link, folder / file).get("weights"), weights_id(folder)
            if made and there and made != there:  # without any, of a published model the manifest alone
                ends = f"the weights in {name} are not those that {file} describes"
                return {"kind": "model", "name": name, "ends": ends}
            return {**link, "name": name}
    return {"kind": "model", "name": name}


def of_checkpoint(metric: str, where: str, number: int | None = None) -> Selection:
    """The choice of the best of `number` checkpoints (None: not known) by a metric on held-out pairs."""
    kept = None if number is None else 1
    return selection("checkpoint", metric, f"--metric_for_best_model {metric}", where, kept, number)


def of_training(settings: Mapping, data: Mapping) -> Link:
    """The link of a model of train.py, by its settings and the facts of its data (training_data.load)."""
    base, set_of_pairs = settings.get("model_name_or_path"), of_training_set(settings, data)
    links = [*([of_model(base)] if base else []), *set_of_pairs["links"]]
    return {"kind": "model", "name": "", "stage": "train", "selections": set_of_pairs["selections"], "links": links}


def of_training_set(settings: Mapping, data: Mapping) -> Link:
    """The link of the pairs that train.py has read and selected, which --export_dir writes to files."""
    dataset = settings.get("dataset_name_or_path") or data.get("name", "")
    links, found = [], []
    for direction, part in data.get("languages", {}).items():
        links += _of_data(dataset, settings, direction, part)
        found += _by_score(settings, part)
    if "streamed" in data:
        links.append(_unknown(data["streamed"]))
    if not (data.get("languages") or "streamed" in data):
        links.append({"kind": "data", "name": dataset, "ends": "the manifest does not say what it was trained on"})
    return {"kind": "data", "name": dataset, "stage": "export", "selections": found, "links": links}


def _by_score(settings: Mapping, part: Mapping) -> list[Selection]:
    """What selected the pairs of a direction by their scores: nothing, or one Selection."""
    percentile, counts = settings.get("percentile"), part["counts"]
    drops = ("too_short", "forbidden_characters", *(("duplicates",) * (settings.get("drop_duplicates") == "before")))
    of = counts.get("read", 0) - sum(counts.get(reason, 0) for reason in drops)
    if percentile is not None:
        flag, kept = f"--percentile {percentile:g}", counts.get("by_percentile", of)
        if not percentile and of - kept <= max(1, MAX_LOWEST * of):
            return []
    elif settings.get("strategy") == "highest" and "by_size" in counts:
        flag, kept = f"--strategy highest --dataset_size {counts.get('asked')}", counts["by_size"]
    else:
        return []
    paths = [Path(path) for path in part["path"].split(", ")]
    where = ", ".join(str(path.parent) for path in paths)
    return [selection("training data", part["scorer"], flag, where, kept, of)]


# Data


def _unknown(name: str) -> Link:
    return {"kind": "data", "name": name, "ends": "no manifest says which test sets were removed from it"}


def _of_data(dataset: str, settings: Mapping, direction: str, part: Mapping) -> list[Link]:
    """The data of a direction: a link for each of its files."""
    if dataset in GENERATED:
        return [of_pairs(Path(path)) for path in part["path"].split(", ")]
    match = re.fullmatch("(.+) to (.+)", direction)
    languages = match.groups() if match else ()  # none of raw text
    if dataset in BENCHMARKS:
        split, digests = settings.get("split") or "dev", (part.get("source_sha256", ""), part["sha256"])
        texts = [
            {"benchmark": dataset, "split": split, "language": language, "sha256": sha256}
            for language, sha256 in zip(languages, digests, strict=True)
        ]
        return [{"kind": "data", "name": f"{dataset} {split}", "stage": "benchmark", "texts": texts}]
    path = Path(part["path"])
    for manifest in (path / EXPORT_MANIFEST, path.parent / EXPORT_MANIFEST):
        if path.exists() and manifest.is_file():
            return [_or_end("data", str(path), lambda manifest=manifest: _of_export(manifest, path))]
    texts = [
        {"benchmark": dataset, "split": "", "language": language, "sha256": sha256}
        for language, sha256 in zip(languages, part.get("texts_sha256", ()), strict=False)
    ]
    return [{**_unknown(part["path"]), "texts": texts}]


def _of_export(manifest: Path, path: Path) -> Link:
    exported = read_json(manifest, _Export)
    if path != manifest.parent and path.name not in exported["files"]:
        return _unknown(str(path))
    return {**exported["lineage"], "name": str(path)}


def of_pairs(path: Path) -> Link:
    """The link of a {Language}_translate_filtered.jsonl, or of a {Language}_translate.jsonl."""
    if path.name.endswith(translations_name("")):
        language = path.name.removesuffix(translations_name(""))
        return {**of_back_translation(path, language), "ends": f"{path} was not decontaminated"}
    return _or_end("data", str(path.parent), lambda: _of_filtered(path))


def _of_filtered(path: Path) -> Link:
    layout = FilteredLayout(path.parent)
    language = path.name.removesuffix(layout.filtered("").name)
    link: Link = {"kind": "data", "name": str(path.parent), "stage": "decontaminate", "languages": [language]}
    file = layout.manifest(language)
    if not path.is_file():
        where = "" if path.is_absolute() else " (by its path from the folder where the command ran)"
        return link | {"ends": f"{path} is not there any more{where}"}
    manifest = read_json(file, _Decontamination)
    if not manifest:
        here = path.with_name(translations_name(language))
        return link | {"ends": f"no {file.name} in {path.parent}", "links": [of_back_translation(here, language)]}
    settings, link["links"] = manifest["settings"], [manifest[KEY]]
    if manifest["outputs"].get(path.name, {}).get("sha256") != sha256_of(path):
        return link | {"ends": f"{file} describes another {path.name} than the one that is there"}
    sides = ("sentence", "translation")
    kept = {side: settings[f"drop_on_{side}_overlap"] == "keep" for side in sides}
    texts = [text for side in sides if not kept[side] for text in settings["benchmarks"][side]]
    return link | {
        "languages": list(settings["tokens_per_ngram"]),
        "removed": [{name: text[name] for name in Text.__annotations__} for text in texts],
    }


def sha256_of(path: Path) -> str:
    return _sha256(path, path.stat().st_size, path.stat().st_mtime_ns)


@cache
def _sha256(path: Path, _size: int, _modified_ns: int) -> str:
    return checksums.sha256_of(path)


def of_back_translation(path: Path, language: str) -> Link:
    """The link of a {Language}_translate.jsonl, by the manifests that datagen.py left beside it."""
    return _or_end("data", str(path.parent), lambda: _of_back_translation(path, language))


def _of_back_translation(path: Path, language: str) -> Link:
    layout = Layout(path.parent.parent, path.parent.name)
    translate, score = (_stage(layout, stage, language) for stage in ("translate", "score"))
    link: Link = {"kind": "data", "name": str(path.parent), "stage": "datagen", "languages": [language]}
    if not (translate or score):
        return link | {"ends": f"no manifest of datagen.py in {path.parent}: not known what selected its pairs"}
    found: list[Selection] = []
    where, made, scored = str(path.parent), translate.get("settings", {}), score.get("settings", {})
    if (number := made.get("number_of_candidates") or 1) > 1:
        flag, metric = f"--number_of_candidates {number}", made.get("select_by")
        found.append(selection("back-translation of each sentence", metric, flag, where))
    if (minimum := scored.get("min_score")) is not None:
        counts = score.get("counts", {})
        dropped = sum(counts.get("rejected", {}).get(reason, 0) for reason in ("score_below_min", "score_missing"))
        kept, of = (counts["pairs"], counts["pairs"] + dropped) if "pairs" in counts else (None, None)
        metric, flag = scored.get("scorer"), f"--min_score {minimum:g}"
        found.append(selection("training data", metric, flag, where, kept, of))
    written = _stage(layout, "generate", language).get("settings", {})
    names = [s.get("adapter") or s.get("model") or s.get("nllb_name_or_path") for s in (made, written)]
    return link | {"selections": found, "writers": [*map(writer, dict.fromkeys(filter(None, names)))]}


def writer(name: str) -> Link:
    """A model that wrote texts: its link with all selections of its chain instead of the links, whose number would multiply
    from round to round."""
    link = of_model(name)
    ends = {"ends": link["ends"]} if "ends" in link else {}
    return {"kind": "model", "name": name, "selections": selections([link]), **ends}


def _stage(layout: Layout, stage: str, language: str) -> dict:
    """`settings` and `counts` of a stage for a language; {} if no file has them."""
    if manifest := read_json(layout.manifest(stage, language), _Datagen):
        return manifest
    settings = read_json(layout.settings(stage), _DatagenSettings)
    return {"settings": settings} if settings else {}
