"""The shards of decontamination.py as one run: their files one after the other, their counts added up, one report; of an audit that alone."""

import argparse
import logging
import tempfile
from collections import Counter
from pathlib import Path

from topxgen.common import lineage, shards
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, read_jsonl
from topxgen.common.locks import wait_for_lock
from topxgen.common.records import FilteredLayout
from topxgen.decontamination import parallel_jsonl, report
from topxgen.decontamination.run import write_reports

logger = logging.getLogger(__name__)


def merge_languages(args: argparse.Namespace, works: list[shards.Work]) -> bool:
    """Write the files of each language whose shards are all finished, and the report of these; whether those are all languages, and
    everything in them was checked.

    `args`: the flags of the shards' command, for the whole directory. Raises UsageError if shards have different settings or inputs.
    """
    with tempfile.TemporaryDirectory(prefix="decontamination-") as scratch:
        return _merge(args, works, FilteredLayout(Path(scratch) if args.audit else args.output_dir))


def _merge(args: argparse.Namespace, works: list[shards.Work], layout: FilteredLayout) -> bool:
    complete = True
    parts: dict[str, dict] = {}
    loaded: dict[str, list[dict]] = {}
    between: list[dict] = []
    done: list[shards.Work] = []
    for work in works:
        if work.warn_of_unfinished(lambda one, name=work.part: FilteredLayout(one.folder).manifest(name).exists()):
            complete = False
            continue
        of_shards = [one for _, one in work.split() if one is not None]
        parts[work.part], first = _merge_language(args, layout, work.part, of_shards)
        done.append(work)
        between += [row for row in first["between_benchmarks"] if row["language"] not in loaded]
        loaded |= first["benchmarks"]
    if parts:
        paths = FilteredLayout(args.output_dir).reports(args.report, args.audit)
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(paths[0].parent):
            write_reports(args, paths, layout, parts, loaded, between)
        shards.write_merged(args.output_dir, done)
        logger.info(report.summary(parts, args.audit))
    return report.all_checked(parts, args.audit) and complete


def _merge_language(
    args: argparse.Namespace, layout: FilteredLayout, name: str, of_shards: list[shards.Noted]
) -> tuple[dict, report.Report]:
    """(its part of the report, the first shard's report)."""
    own = [FilteredLayout(one.folder) for one in of_shards]
    manifests = [read_json(folder.manifest(name), parallel_jsonl.Manifest) for folder in own]
    reports = [report.earlier(FilteredLayout(one.root).reports(None, args.audit)[0]) for one in of_shards]
    settings = [{key: value for key, value in m["settings"].items() if key != shards.SETTING} for m in manifests]
    for one, manifest, of_shard, found in zip(of_shards, manifests, settings, reports, strict=True):
        if (of_shard, manifest["input"]) != (settings[0], manifests[0]["input"]):
            differing = [key for key in of_shard | settings[0] if of_shard.get(key) != settings[0].get(key)]
            what = f"other settings ({', '.join(differing)})" if differing else "another input"
            raise UsageError(
                f"shard {one.root} has {what} than {of_shards[0].root}: run it again with the command and the benchmark files of "
                "the others"
            )
        if name not in found["languages"]:
            raise UsageError(f"{one.root} has no report of {name}: run the shard again")
    path = Path(manifests[0]["input"]["path"])
    if not path.is_file() or parallel_jsonl.identity(path) != manifests[0]["input"]:
        raise UsageError(f"{path} is not what the shards have read: it was changed or moved; run them again")
    counts = sum((Counter(manifest["counts"]) for manifest in manifests), Counter())
    counts = {key: counts[key] for manifest in manifests for key in manifest["counts"]}
    parallel_jsonl.concatenate(
        [one.folder for one in of_shards],
        {output for manifest in manifests for output in manifest["outputs"]},
        layout.malformed(name).name,
        layout.manifest(name),
        {
            **{key: manifests[0][key] for key in ("input", "input_sha256")},
            "settings": settings[0],
            "counts": counts,
            lineage.KEY: lineage.of_back_translation(path, name),
        },
    )
    parts = [found["languages"][name] for found in reports]
    part = next((part for part in parts if part["counts"].get("records")), parts[0])
    if not counts.get("records"):
        part = part | {"not_checked": [report.without_records(path, Counter(counts))]}
    part = part | {
        "output": None if args.audit else str(layout.filtered(name)),
        "counts": Counter(counts),
        "overlaps": report.counted_overlaps(read_jsonl(layout.hits(name), report.Hit), parts[0]["overlaps"]),
    }
    return part, reports[0]
