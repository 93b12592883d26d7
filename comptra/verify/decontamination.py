"""What decontamination.py claims: digests and counts of its files, its report, and the texts of benchmarks."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path

from comptra.verify import Audit, beginning
from topxgen.common import shards
from topxgen.common.files import read_jsonl, to_line
from topxgen.common.records import PARALLEL, FilteredLayout
from topxgen.common.shards import Shard
from topxgen.corpora import benchmarks
from topxgen.corpora.splits import Split
from topxgen.decontamination import report
from topxgen.decontamination.filter import parse_record
from topxgen.decontamination.parallel_jsonl import part_of
from topxgen.text import languages

_BEGIN, REPORTS = "manifest_decontaminate_", ("decontamination_report.json", "decontamination_audit.json")
# Keys of a row of `overlaps` that its hits decide.
_OF_HITS = ("hits", *report.MATCH_KINDS, "benchmark_texts_hit")


def check(audit: Audit, folder: Path, names: set[str]) -> None:
    for name in sorted(names):
        path = folder / name
        is_audit = name.endswith(".json") and beginning(path).startswith(b'{\n "audit": ')  # of --report
        if name.startswith(_BEGIN) and name.endswith(".json"):
            audit.attempt(path, _check_manifest, audit, path)
        elif name in REPORTS or is_audit:
            audit.attempt(path, _check_report, audit, path)


def _check_manifest(audit: Audit, path: Path) -> None:
    manifest, language = audit.json(path), path.stem.removeprefix(_BEGIN)
    layout, counts = FilteredLayout(path.parent), manifest["counts"]  # of an empty file none
    for name, facts in manifest["outputs"].items():
        output = path.parent / name
        audit.claim(output)
        if audit.equal(path, f"SHA-256 of {name}", facts["sha256"], audit.sha256(output)):
            audit.equal(path, f"bytes of {name}", facts["bytes"], output.stat().st_size)
    _check_benchmarks(audit, path, manifest["settings"]["benchmarks"])
    if not all((path.parent / name).is_file() for name in manifest["outputs"]):
        return
    source = audit.locate(manifest["input"]["path"], path)
    if source is None:
        return audit.skip(path, f"its input {manifest['input']['path']} is not there: its counts and what was kept")
    if not audit.equal(path, f"SHA-256 of its input {source}", manifest["input_sha256"], audit.sha256(source)):
        return None
    found, kept = Counter(), hashlib.sha256()
    own = shards.folder_of(path) if shards.SETTING in manifest["settings"] else None
    shard = own and Shard.of_folder(own)
    for line in _filtered(source, layout.hits(language), found, shard):
        kept.update(line)
    audit.equal(path, "counts", {key: counts[key] for key in found if key in counts}, found)
    filtered = layout.filtered(language)
    if filtered.name in manifest["outputs"]:
        audit.equal(path, f"{filtered.name} by its input and hits", audit.sha256(filtered), kept.hexdigest())


def _filtered(source: Path, hits: Path, counts: Counter, shard: Shard | None) -> Iterator[bytes]:
    """The lines that are kept of a file, or of a shard's part of it, by the hits that were found in it; `counts` are made on the way."""
    by_line: dict[int, list[report.Hit]] = defaultdict(list)
    for hit in read_jsonl(hits, report.Hit):
        by_line[hit["line"]].append(hit)
    zero = ("malformed", "records_overlapping", "paragraphs_dropped", "pairs_dropped_with_paragraph", "pairs_dropped")
    counts.update(dict.fromkeys(("lines", "records", "pairs", *zero), 0))
    first, last, before = part_of(source, shard)
    with open(source, "rb") as file:
        file.seek(first)
        for number, line in enumerate(file, start=before + 1):
            if first >= last:
                return
            first += len(line)
            line = line.removesuffix(b"\n")
            counts["lines"] += 1
            if line.isspace() or not line:
                continue
            try:
                record = parse_record(line)
            except ValueError:
                counts["malformed"] += 1
                continue
            counts.update(records=1, pairs=len(record["propositions"]), records_overlapping=number in by_line)
            if any(hit["dropped"] == "paragraph" for hit in by_line[number]):
                counts.update(paragraphs_dropped=1, pairs_dropped_with_paragraph=len(record["propositions"]))
                continue
            spans = [(hit["pair"], hit.get("pairs", 1)) for hit in by_line[number] if hit["dropped"] == "pair"]
            dropped = {i for first, length in spans for i in range(first, first + length)}
            if not dropped:
                yield line + b"\n"
                continue
            counts["pairs_dropped"] += len(dropped)
            there = [key for key in PARALLEL if record.get(key)]
            lists = {key: [value for i, value in enumerate(record[key]) if i not in dropped] for key in there}
            yield to_line({**record, **lists}).encode("utf-8", "replace")


def _check_benchmarks(audit: Audit, path: Path, by_side: dict[str, list[dict]]) -> None:
    """The texts of benchmarks that are on this machine; nothing is downloaded."""
    recorded: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for entry in (entry for side in by_side.values() for entry in side):
        recorded[entry["benchmark"], entry["language"]].append(entry)
    for (name, language), entries in recorded.items():
        folders = _folders(audit, name, [entry.get("source", "") for entry in entries])
        if not folders:
            audit.skip(path, f"the texts of {name}: pass --benchmark_dir with a copy of it")
            continue
        splits = audit.attempt(path, _load, name, language, folders, audit, why=f"the texts of {name} in {language}")
        if splits is None:
            continue
        found = {split.name: split.fingerprint for split in splits}
        for entry in entries:
            what = f"SHA-256 of {name} {entry['split']} in {language}"
            audit.equal(path, what, entry["sha256"], found.get(entry["split"]))


def _folders(audit: Audit, name: str, sources: list[str]) -> list[Path | None]:
    """Where a benchmark may be on this machine, tried in this order: --benchmark_dir, else where it was read, else the variable."""
    if name == "udhr" or benchmarks.local_source(name) is not None:
        return [None]
    if audit.options.benchmark_dir is not None:
        return [audit.options.benchmark_dir]
    default = benchmarks.folder_or_default(None)
    return [*dict.fromkeys(chain.from_iterable(map(benchmarks.folders_of, sources))), *filter(None, [default])]


def _load(name: str, language: str, folders: list[Path | None], audit: Audit) -> list[Split]:
    known = audit.options.languages_file
    found = languages.find(language, known)
    return benchmarks.from_first_of(
        folders, lambda folder: benchmarks.load(name, found, folder, known, allow_partial=True)
    )


def _check_report(audit: Audit, path: Path) -> None:
    content, is_audit = audit.json(path), audit.json(path)["audit"]
    hits = content["hits"]
    for language, part in content["languages"].items():
        _check_overlaps(audit, path, language, part, hits[language])
        output = part.get("output")
        folder = output and audit.locate(output, path)
        if is_audit or folder is None:
            source = audit.locate(part["input"], path)
            if source is None or not is_audit:
                audit.skip(path, f"the files of {language} are not there")
            else:
                audit.equal(path, f"SHA-256 of {source}", part["input_sha256"], audit.sha256(source))
            continue
        layout = FilteredLayout(folder.parent)
        manifest = audit.json(layout.manifest(language)) if layout.manifest(language).is_file() else {}
        for key in ("input_sha256", "counts"):
            if manifest:
                audit.equal(path, f"{key} of {language}", part[key], manifest.get(key))
        audit.equal(path, f"hits of {language}", hits[language], list(read_jsonl(layout.hits(language))))
    markdown = path.with_suffix(".md")
    if not markdown.is_file():
        return audit.problem(markdown, f"is missing beside {path.name}")
    text = "".join(report.as_markdown(content, {name: partial(iter, found) for name, found in hits.items()}))
    if text != (there := markdown.read_text(encoding="utf-8", errors="replace")):
        pairs = enumerate(zip_longest(text.split("\n"), there.split("\n"), fillvalue=""), start=1)
        number, (expected, line) = next(
            ((number, lines) for number, lines in pairs if lines[0] != lines[1]), (0, ("", ""))
        )
        audit.problem(markdown, f"line {number} is not what {path.name} says", line, expected)


def _check_overlaps(audit: Audit, path: Path, language: str, part: report.Part, hits: list[report.Hit]) -> None:
    keys = [(row["side"], row["benchmark"], row["split"]) for row in part["overlaps"]]
    of_hits = [(hit["side"], hit["benchmark"], hit["split"]) for hit in hits]
    known = (hit for hit, key in zip(hits, of_hits, strict=True) if key in keys)
    found = report.counted_overlaps(known, part["overlaps"])
    for key, row, counted in zip(keys, part["overlaps"], found, strict=True):
        claimed = {name: row[name] for name in _OF_HITS if name in row}
        audit.equal(path, f"overlaps of {language} with {' '.join(key)}", claimed, counted)
    for key in dict.fromkeys(key for key in of_hits if key not in keys):
        audit.problem(path, f"has hits of {' '.join(key)} in {language}, but no row of overlaps")
