"""Sentences of test sets with the translations of all systems, for two of them side by side: sampled to a size, and said so."""

import csv
import io
import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Required

from comptra.report import Options, packing
from comptra.report.sections.evaluation_phrases import Trees
from comptra.report.sections.evaluation_systems import Found, Translations
from comptra.scores import output_faults, segments
from comptra.scores.columns import columns_of
from comptra.scores.metrics import METRICS, Segment
from comptra.scores.segment_cache import default_folder
from comptra.tables import finite, metric_info
from comptra.tables.matrix import Systems
from topxgen.common.errors import UsageError
from topxgen.common.files import read_jsonl
from topxgen.common.schemas import decode, fields
from topxgen.runs.folders import Run

SHARE = 0.25  # of the page's size: all sentences, as the page has them
RATIO = 3  # uncompressed bytes to one, to begin with
HEAD = 1 << 16  # bytes of a file that tell whether it is one of --segments
LEADING = "chrf"
NEAR = 0.001  # scores of one metric differ by less in other batches and on other devices


# A line of --segments, besides its scores.
SegmentLine = fields(
    dataset=Required[str], direction=Required[str], system=Required[str], index=Required[int], source=Required[str],
    translation=Required[str], reference=Required[str | None],
)  # fmt: skip
TEXTS = SegmentLine.__annotations__.keys()
Key = tuple[str, str, str, str]  # direction, source, translation, reference


@dataclass
class TestGroup:
    """Systems on the same sentences, perhaps the first of them alone."""

    __test__ = False

    systems: list[Translations]
    trees: list[Trees] = field(default_factory=list)

    @property
    def longest(self) -> Translations:
        return self.systems[0]

    @property
    def direction(self) -> str:
        one = self.longest.system
        return f"{one.src.flores}-{one.tgt.flores}"

    @cached_property
    def scores(self) -> list[list[float]]:
        """chrF++ of each sentence, by system; [] without references."""
        if self.longest.scorer is None:
            return []
        return [one.scorer.scores(one.statistics).tolist() for one in self.systems]

    @cached_property
    def faults(self) -> list[dict[str, list[bool]]]:
        """By system and fault, which translations have it; unanswered ones, too."""
        found = []
        for one in self.systems:
            system = one.system
            flags = output_faults.find(one.test, system.translations, system.truncated, "cld2")
            flags["unanswered"] = [number in system.unanswered for number in range(len(system.translations))]
            found.append({fault: own for fault, own in flags.items() if own is not None})
        return found

    def spread(self, number: int) -> float:
        """How much the translations of a sentence differ: in chrF++, without references how many there are."""
        if self.scores:
            values = [own[number] for own in self.scores if number < len(own)]
            return max(values) - min(values)
        return len({one.system.translations[number] for one in self.systems if number < len(one.system.translations)})

    def size(self, number: int) -> int:
        """Bytes of a sentence with all that is shown of it."""
        first = self.longest.system
        texts: list[Any] = [first.sentences[number], first.references[number] if first.references else None]
        texts += [one.system.translations[number] for one in self.systems if number < len(one.system.translations)]
        texts += [tree.of(number) for tree in self.trees]
        return len(json.dumps(texts, ensure_ascii=False).encode("utf-8", "replace")) + 12 * len(self.systems)


def collect(
    found: Found, reports: Sequence[Mapping], labels: Mapping[Path | None, str], run: Run, options: Options
) -> list[dict]:
    """A group for each test set and direction; as many sentences of each as fit into SHARE of the page together.

    `labels`: names of systems by their folders, where they have better ones than what distinguishes their settings.
    """
    groups = grouped(one for one in found.systems.values() if one.system.sentences)
    for group in groups:
        group.trees = [Trees(one.system) for one in group.systems]
        for tree in filter(lambda tree: tree.problem, group.trees):
            options.notice("missing", f"no phrases: {tree.problem.replace(f'{run.root}/', '')}")
        for name in dict.fromkeys(tree.unchecked for tree in group.trees if tree.unchecked):
            text = f"phrases that were left out for their language are not marked: {name} is not asked here"
            options.notice("missing", text)
    names = Systems([{"systems": [_row(one) for one in group.systems]} for group in groups])
    segment_scores = read_segments(run, options, groups)
    sizes = [[group.size(number) for number in range(len(group.longest.system.sentences))] for group in groups]
    limit = int(options.page_bytes * SHARE)
    room = limit * RATIO
    while True:
        shares = share([sum(own) for own in sizes], room)
        made = [
            _group(group, names, choose(group, own, part, options.seed), segment_scores, reports)
            for group, own, part in zip(groups, sizes, shares, strict=True)
        ]
        size = packing.packed_size(packing.size_of(made))
        if size <= limit or all(len(one["numbers"]) == 1 for one in made):
            break
        room = int(room * limit / size * 0.95)
    for one, number, group in zip(made, _numbered(made), groups, strict=True):
        one["id"] = number
        for system, read in zip(one["systems"], group.systems, strict=True):
            system["label"] = labels.get(read.system.folder, system["label"])
    return made


def grouped(systems: Iterable[Translations]) -> list[TestGroup]:
    """Systems by what they translate; one that is not finished goes with those that begin with the same sentences."""
    groups: list[TestGroup] = []
    for one in sorted(systems, key=lambda one: -len(one.system.sentences)):
        for group in groups:
            if _begins(group.longest.system, one.system):
                group.systems.append(one)
                break
        else:
            groups.append(TestGroup([one]))
    return sorted(groups, key=lambda group: _title(group))


def _begins(longer, shorter) -> bool:
    count = len(shorter.sentences)
    if (longer.src, longer.tgt) != (shorter.src, shorter.tgt) or longer.sentences[:count] != shorter.sentences:
        return False
    return (longer.references and longer.references[:count]) == shorter.references


def _title(group: TestGroup) -> tuple[str, str, str]:
    one = group.longest.system
    return "/".join(sorted({system.system.dataset for system in group.systems})), one.src.name, one.tgt.name


def _row(one: Translations) -> dict:
    own = one.system
    return {"path": str(own.folder), "settings": own.settings, "columns": columns_of(own.settings, own.folder)}


def _numbered(made: Sequence[Mapping]) -> Iterator[str]:
    """An id for the address of the page: of equal ones all but the first have a number."""
    seen: dict[str, int] = {}
    for one in made:
        name = "-".join(word for word in (one["dataset"], one["src"], one["tgt"]) if word)
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}"


# Which sentences


def share(totals: Sequence[int], room: int) -> list[int]:
    """How much of `room` each of those gets that want `totals`: all alike, and what some leave goes to the others."""
    given = [0] * len(totals)
    order = sorted(range(len(totals)), key=lambda i: totals[i])
    for place, i in enumerate(order):
        given[i] = min(totals[i], room // (len(order) - place))
        room -= given[i]
    return given


def choose(group: TestGroup, sizes: Sequence[int], room: int, seed: int) -> tuple[list[int], int]:
    """The sentences that fit into `room`, one at least, in order, and how many of them were chosen because their translations
    differ most; the others were drawn at random, one after each."""
    everything = range(len(sizes))
    if sum(sizes) <= room:
        return list(everything), 0
    by_spread = iter(sorted(everything, key=lambda number: (-group.spread(number), number)))
    drawn = iter(random.Random(seed).sample(everything, len(sizes)))
    chosen: dict[int, bool] = {}
    for turn in range(2 * len(sizes)):
        number = next(number for number in (drawn if turn % 2 else by_spread) if number not in chosen)
        room -= sizes[number]
        if room < 0 and chosen:
            break
        chosen[number] = turn % 2 == 0
        if len(chosen) == len(sizes):
            break
    return sorted(chosen), sum(chosen.values())


# What is shown of them


def _group(
    group: TestGroup,
    names: Systems,
    chosen: tuple[list[int], int],
    segment_scores: Mapping[Key, Mapping[str, float]],
    reports: Sequence[Mapping],
) -> dict:
    numbers, differing = chosen
    first = group.longest.system
    by_metric: dict[str, list[list[float | None]]] = {}
    if group.scores:
        by_metric[LEADING] = [[_at(own, number) for number in numbers] for own in group.scores]
    for name, values in _other_scores(group, numbers, segment_scores, reports):
        by_metric.setdefault(name, values)
    metrics = []
    for name in by_metric:
        reported = (one for report in reports for one in report["groups"] if name in one["titles"])
        unreported = {"titles": {name: METRICS[name].title} if name in METRICS else {}}
        info = metric_info(next(reported, unreported), name)
        metrics.append({"name": name, "title": info.title, "higher": info.higher_is_better, "digits": info.digits})
    dataset, src, tgt = _title(group)
    systems = []
    for i, one in enumerate(group.systems):
        scores = {
            name: [_rounded(value, metric["digits"]) for value in by_metric[name][i]]
            for name, metric in zip(by_metric, metrics, strict=True)
        }
        trees = {place: tree for place, number in enumerate(numbers) if (tree := group.trees[i].of(number))}
        faults = {
            fault: places
            for fault, flags in group.faults[i].items()
            if (places := [place for place, number in enumerate(numbers) if _at(flags, number)])
        }
        systems.append(
            {
                "id": names.key(_row(one)),
                "label": names.label(names.key(_row(one))),
                "path": str(one.system.folder),
                "sentences": len(one.system.sentences),
                "missing": one.system.missing,
                "translations": [_at(one.system.translations, number) for number in numbers],
                "scores": scores,
                "corpus": round(one.chrf(), 2) if group.scores else None,
                "faults": faults,
                "trees": trees,
            }
        )
    return {
        "dataset": dataset,
        "src": src,
        "tgt": tgt,
        "total": len(first.sentences),
        "differing": differing,
        "numbers": [number + 1 for number in numbers],
        "sources": [first.sentences[number] for number in numbers],
        "references": first.references and [first.references[number] for number in numbers],
        "metrics": metrics,
        "systems": systems,
    }


def _at(values: Sequence, number: int) -> Any:
    return values[number] if number < len(values) else None


def _rounded(value: float | None, digits: int) -> float | None:
    return None if (value := finite(value)) is None else round(value, digits)


def _other_scores(
    group: TestGroup,
    numbers: Sequence[int],
    segment_scores: Mapping[Key, Mapping[str, float]],
    reports: Sequence[Mapping],
) -> Iterator[tuple[str, list[list[float | None]]]]:
    """Metrics besides chrF++, and their scores of `numbers` by system: those in files of --segments, then those that the reports
    have and the cache of comptra.evaluate keeps."""
    known = [
        [segment_scores.get((group.direction, *_scored(one, number)), {}) for number in numbers]
        for one in group.systems
    ]
    for name in dict.fromkeys(name for own in known for scores in own for name in scores):
        yield name, [[scores.get(name) for scores in own] for own in known]
    first = group.longest.system
    signatures = {
        (name, signature)
        for report in reports
        for one in report["groups"]
        if (one["src"], one["tgt"]) == (first.src.name, first.tgt.name)
        for name, signature in one["signatures"].items()
    }
    for name, signature in sorted(signatures):
        row = METRICS.get(name)
        if row is None or not row.of_segments or "rival" in row.reads:
            continue
        if "reference" in row.reads and not group.scores:
            continue
        values = [_kept(name, signature, one, numbers) for one in group.systems]
        if any(value is not None for own in values for value in own):
            yield name, values


def _scored(one: Translations, number: int) -> tuple[str, str, str]:
    """Source, translation and reference of a sentence; empty ones where it is not translated yet."""
    system = one.system
    if number >= len(system.sentences):
        return "", "", ""
    return system.sentences[number], system.translations[number], system.references[number] if system.references else ""


def _kept(name: str, signature: str, one: Translations, numbers: Sequence[int]) -> list[float | None]:
    """The scores of the cache; None for sentences that are not translated yet, too."""
    system = one.system
    done = [number for number in numbers if number < len(system.sentences)]
    asked = [Segment(*_scored(one, number)) for number in done]
    values = segments.kept(name, signature, asked, system.src, system.tgt, default_folder()) or []
    return [*values, *[None] * (len(numbers) - len(values))]


# Files of --segments


def read_segments(run: Run, options: Options, groups: Sequence[TestGroup]) -> dict[Key, dict[str, float]]:
    """The scores of these groups' translations in files of --segments beside the reports; by what was scored, so that scores of
    translations or references that have changed are not among them."""
    systems = [(group.direction, one) for group in groups for one in group.systems]
    wanted = {(direction, *_scored(one, n)) for direction, one in systems for n in range(len(one.system.sentences))}
    found: dict[Key, dict[str, float]] = {}
    differing: set[str] = set()  # by other weights, tokenizers or baselines, which these files do not name
    folders = {run.root, *(report.parent for report in run.evaluations)}
    paths = (path for folder in folders for path in (*folder.glob("*.jsonl"), *folder.glob("*.csv")))
    for path in sorted(paths):
        try:
            for line in _lines(path) if _is_segments(path) else ():
                scored = line["direction"], line["source"], line["translation"]
                # Without references here, those of the file are taken as they are.
                for key in wanted & {(*scored, line.get("reference") or ""), (*scored, "")}:
                    own = found.setdefault(key, {})
                    for name in line:
                        is_score = name not in TEXTS and name != LEADING
                        value = finite(line[name]) if is_score else None
                        if value is not None and not math.isclose(own.setdefault(name, value), value, abs_tol=NEAR):
                            differing.add(name)
        except (UsageError, OSError, csv.Error, ValueError) as error:
            options.notice("problem", " ".join(str(error).split()))
    for name in sorted(differing):
        options.notice("missing", f"scores of sentences by {name} differ between files of --segments: not shown")
    return {key: {name: own[name] for name in own if name not in differing} for key, own in found.items()}


def _is_segments(path: Path) -> bool:
    wanted = {"dataset", "direction", "system", "index", "source", "translation"}
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            head = file.read(HEAD)
        if path.suffix == ".csv":
            return wanted <= set(next(csv.reader(io.StringIO(head.decode("utf-8-sig", "replace"))), ()))
        return all(f'"{name}"'.encode() in head for name in wanted) and bool(decode(head.split(b"\n")[0], SegmentLine))
    except (ValueError, csv.Error):
        return False


def _lines(path: Path) -> Iterator[dict]:
    if path.suffix == ".jsonl":
        yield from read_jsonl(path, SegmentLine, on_cut=lambda _: None)
        return
    with open(path, newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            scores = {name: float(cell) if cell else None for name, cell in row.items() if name not in TEXTS}
            yield row | scores
