"""Reports as records of Every Eval Ever (Batzner et al. 2026), a common format of evaluation results.

A file for each system and data set, in the layout of its datastore: data/{data set}/{developer}/{model}/{uuid}.json. The name follows
from what is recorded, so that the same results replace their own files. eval.schema.json is the schema of every-eval-ever
0.3.0 (LICENSE.txt is its license); a test compares it, and our records, with the package where that is installed.
"""

import hashlib
import json
import math
import re
import uuid
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath

import topxgen
from comptra.evaluation_sets import DATASETS
from comptra.tables import MetricInfo, finite, metric_info
from comptra.tables.matrix import Systems, metric_names
from topxgen import inference
from topxgen.common import checksums
from topxgen.common.console import without_secrets
from topxgen.common.errors import UsageError
from topxgen.common.files import write_json
from topxgen.common.translation_folders import asks_llm
from topxgen.corpora import benchmarks

SCHEMA = Path(__file__).with_name("eval.schema.json")
ROUNDING = 1e-6
MAX_COMPONENT_CHARS = 100  # of a folder's name
# Names that Windows or the datastore keep.
_RESERVED = re.compile(r"(?i)data|unknown|(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def write(report: dict, folder: Path, timestamp: int) -> list[Path]:
    """Write the records below `folder`; their paths. `timestamp`: seconds since 1970, when they are made.

    Raises UsageError, before any is written, for a record that does not fit the schema.
    """
    made = {folder / path: record for path, record in records(report, timestamp)}
    for path, record in made.items():
        check(record, str(path))
    names = [path.relative_to(folder).as_posix() for path in made]
    checksums.drop_from(folder, names)
    for path, record in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
    checksums.claim(folder, names)
    return list(made)


def check(record: dict, named: str) -> None:
    """Raise UsageError for a record that does not fit the schema; `named` begins the message."""
    errors = sorted(_validator().iter_errors(record), key=str)
    if errors:
        where = "/".join(map(str, errors[0].absolute_path))
        raise UsageError(f"{named} does not fit the schema of Every Eval Ever: {where}: {errors[0].message}")


@cache
def _validator():
    from jsonschema import Draft7Validator

    return Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def records(report: dict, timestamp: int) -> Iterator[tuple[PurePosixPath, dict]]:
    """(path, record) of each system and data set that has a score."""
    systems = Systems(report["groups"])
    parts: dict[tuple[str, str], list[tuple[dict, dict]]] = {}
    for group in report["groups"]:
        for row in group["systems"]:
            parts.setdefault((group["dataset"], systems.key(row)), []).append((group, row))
    for (dataset, key), found in parts.items():
        results = [result for group, row in found for result in _results(group, row, report)]
        if not results:
            continue
        collection = _component(dataset)
        model = _model(found[0][1], systems.columns[key])
        identity = [dataset, key, model["id"], [(one["evaluation_result_id"], one["score_details"]) for one in results]]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode("utf-8", "replace")).digest()
        name = str(uuid.UUID(bytes=digest[:16], version=4))
        yield (
            PurePosixPath("data", collection, *model["id"].split("/"), f"{name}.json"),
            {
                "schema_version": _validator().schema["version"],
                "evaluation_id": f"{collection}-{name[:8]}/{model['id']}/{timestamp}",
                "retrieved_timestamp": str(timestamp),
                "source_metadata": {
                    "source_name": "comptra.evaluate",
                    "source_type": "evaluation_run",
                    "source_organization_name": "not stated",
                    "evaluator_relationship": "other",
                },
                "eval_library": {
                    "name": "topxgen",
                    "version": topxgen.__version__,
                    "additional_details": _texts(report.get("versions") or {}),
                },
                "model_info": model,
                "evaluation_results": results,
            },
        )


def _model(row: dict, columns: Mapping[str, str]) -> dict:
    """`model_info`: a Hub id as it is; a model of one's own belongs to the developer "local"."""
    settings = row.get("settings") or {}
    named = str(settings.get("model") or "")
    is_hub_id = bool(re.fullmatch(r"[\w.-]+/[\w.-]+", named, re.ASCII))
    checkpoint = f"checkpoint-{columns['checkpoint']}" if columns.get("checkpoint") else ""
    own = "-".join(filter(None, (columns.get("model"), checkpoint))) or PurePosixPath(row["path"]).parent.name
    developer, _, name = named.partition("/") if is_hub_id else ("local", "", own)
    api, has_url = settings.get("inference_api"), bool(settings.get("base_url"))
    deployment = "self_deployed" if api in inference.BACKENDS and api not in inference.REMOTE else "unknown"
    deployment = "externally_managed" if api in inference.REMOTE and not has_url else deployment
    is_open = is_hub_id and deployment == "self_deployed"
    return {
        "name": own or name,
        "id": f"{_component(developer)}/{_component(name)}",
        **({"inference_engine": {"name": str(api)}} if deployment == "self_deployed" else {}),
        "additional_details": {
            "deployment_type": deployment,
            "model_availability": "open_weights" if is_open else "unknown",
        },
    }


def _results(group: dict, row: dict, report: dict) -> Iterator[dict]:
    direction = f"{group['src']}-{group['tgt']}" + (f" step {group['step']}" if group["step"] else "")
    for name in metric_names([group]):
        value = row["scores"].get(name) or {}
        score = finite(value.get("score"))
        if score is None:
            continue
        yield {
            "evaluation_result_id": f"{group['dataset']}/{direction}/{name}/{group['sources_digest'][:8]}",
            "evaluation_name": f"{group['dataset']} {direction}",
            "source_data": _source(group),
            "metric_config": _metric(group, name, score),
            "score_details": _score(value, _in_range(score, metric_info(group, name)), row, report),
            "generation_config": _generation(row),
        }


def _source(group: dict) -> dict:
    dataset = DATASETS.get(group["dataset"].partition("/")[0])
    repo = benchmarks.REPOS.get(dataset.test[0]) if dataset and dataset.test else None
    digests = {name: group.get(name) for name in ("sources_digest", "references_digest")}
    details = _texts({"src": group["src"], "tgt": group["tgt"], "sentences": group["sentences"], **digests})
    found = {"dataset_name": group["dataset"] or "not named", "source_type": "hf_dataset" if repo else "other"}
    if repo:  # the format knows train, val and test
        split = "val" if dataset.test[1] == "dev" else "test"
        found |= {"hf_repo": repo, "hf_split": split, "samples_number": group["sentences"]}
    return found | {"additional_details": details}


def _in_range(score: float, info: MetricInfo) -> float:
    """Without what rounding adds to the ends of a metric's range."""
    return next((end for end in (info.low, info.high) if abs(score - end) < ROUNDING), score)


def _metric(group: dict, name: str, score: float) -> dict:
    info, recorded = metric_info(group, name), group.get("metrics", {}).get(name) or {}
    low, high = info.low - ROUNDING, info.high + ROUNDING  # TER goes beyond its range
    return {
        "metric_id": name,
        "metric_name": info.title,
        "metric_kind": recorded.get("family") or name,
        "metric_unit": "points",
        "metric_parameters": {"signature": group["signatures"].get(name, "")},
        "lower_is_better": not info.higher_is_better,
        "score_type": "continuous",
        "min_score": _bound(info.low) if score >= low else "-Infinity",
        "max_score": _bound(info.high) if score <= high else "Infinity",
        "additional_details": _texts(
            {f"reliability_{key}": text for key, text in (recorded.get("reliability") or {}).items()}
        ),
    }


def _bound(value: float) -> float | str:
    return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def _score(value: dict, score: float, row: dict, report: dict) -> dict:
    keys = ("segments", "unscored", "difference", "p", "p_holm", "p_bootstrap", "better")
    details = {key: value[key] for key in keys if value.get(key) is not None}
    details |= {key: row.get(key) or "" for key in ("missing", "unanswered", "edited")}
    details["interference"] = "; ".join(value.get("interference") or ())
    found: dict = {"score": score, "details": _texts(details)}
    if None not in (bounds := tuple(map(finite, value.get("interval") or (None, None)))):
        interval = {"lower": bounds[0], "upper": bounds[1], "confidence_level": 0.95, "method": "bootstrap"}
        found["uncertainty"] = {
            "confidence_interval": interval,
            "num_samples": value.get("segments", row["sentences"]),
            "num_bootstrap_samples": report["bootstrap"],
        }
    return found


def _generation(row: dict) -> dict:
    settings = row.get("settings") or {}
    settings = settings if asks_llm(settings) else {}
    chosen = {"temperature": settings.get("temperature"), "top_p": settings.get("top_p")}
    chosen |= {"max_tokens": settings.get("max_new_tokens")}
    known = {key: value for key, value in chosen.items() if finite(value) is not None}
    return {"generation_args": known, "additional_details": _texts(row.get("columns") or {})}


def _texts(values: Mapping) -> dict[str, str]:
    """What additional_details hold: texts, without what is empty."""
    return {str(key): without_secrets(str(value)) for key, value in values.items() if value not in (None, "")}


def _component(name: str) -> str:
    """`name` as a folder that any system can have, and the datastore takes."""
    safe = re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII)[:MAX_COMPONENT_CHARS].strip(". ") or "unnamed"
    return f"_{safe}" if _RESERVED.fullmatch(safe) else safe
