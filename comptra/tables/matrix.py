"""A report of comptra.evaluate as tables for people: for each metric a matrix of systems and languages, with means.

A test set with one direction has one table, with a column for each metric. The systems are distinguished by the columns
that differ (comptra/scores/columns.py), and by its folder where these are equal.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import fmean

from comptra import guard
from comptra.scores.columns import COLUMNS, columns_of
from comptra.scores.reliability import VALIDATED
from comptra.scores.systems import name_without_direction, system_names
from comptra.significance import ALPHA
from comptra.significance.averages import ENGLISH, wholes
from comptra.tables import (
    BEST,
    TIED,
    Cell,
    MetricInfo,
    Table,
    finite,
    mark,
    metric_info,
    own_file,
    reliability_of,
    title_of,
)

LEADING = "chrf"
SCOPES = {f"from {ENGLISH}": "eng->xx", f"into {ENGLISH}": "xx->eng"}  # in a report's summary (averages.py)
NONE = Cell("-")
Columns = dict[str, dict[str, Cell | str]]  # by heading the cells of each system


class Systems:
    """The systems of a report: each once, whatever directions it has, with the columns that tell it from the others."""

    def __init__(self, groups: Sequence[dict]):
        self._keys = names_of(groups)
        found: dict[str, dict[str, str]] = {}
        self.baselines: set[str] = set()
        self._paths: dict[str, str] = {}
        for group, row in [(one, row) for one in groups for row in one["systems"]]:
            key, path, settings = self.key(row), Path(row["path"]), row.get("settings") or {}
            found.setdefault(key, row.get("columns") or columns_of(settings, path))
            self._paths.setdefault(key, str(path.parent.parent / name_without_direction(path, settings)))
            if row["path"] == group.get("baseline"):
                self.baselines.add(key)
        self.columns = _ordered(found, self.baselines)

    def key(self, row: dict) -> str:
        """Of a system in a group: equal for the same system in another direction."""
        return self._keys[row["path"]]

    @cached_property
    def header(self) -> list[str]:
        """The columns that differ; "folder" if they do not tell all systems apart; the model of a single one."""
        values = list(self.columns.values())
        differing = [name for name in COLUMNS if len({own.get(name, "") for own in values}) > 1]
        if len({tuple(own.get(name, "") for name in differing) for own in values}) < len(values):
            differing.append("folder")
        return differing or ["model" if values and values[0].get("model") else "folder"]

    @cached_property
    def _folders(self) -> dict[str, str]:
        """Without the part that all have in common."""
        if len(self._paths) == 1:
            return {key: Path(path).name for key, path in self._paths.items()}
        if len({os.path.isabs(path) for path in self._paths.values()}) > 1:
            return self._paths
        common = os.path.commonpath([os.path.dirname(path) or "." for path in self._paths.values()])
        return {key: os.path.relpath(path, common) if common else path for key, path in self._paths.items()}

    def described(self, key: str) -> list[str]:
        """The cells of `header`."""
        own = self.columns[key]
        cells = [(self._folders[key] if name == "folder" else own.get(name)) or "-" for name in self.header]
        return [cells[0] + (" (baseline)" if key in self.baselines else ""), *cells[1:]]

    def label(self, key: str) -> str:
        cells = zip(self.header, self.described(key), strict=True)
        plain = ("model", "method", "decoding", "folder")
        return ", ".join(cell if name in plain else f"{name} {cell}" for name, cell in cells if cell != "-") or key

    @property
    def constant(self) -> str:
        """What all systems have in common."""
        first = next(iter(self.columns.values()), {})
        return ", ".join(f"{name} {first[name]}" for name in COLUMNS if name not in self.header and first.get(name))


def names_of(groups: Iterable[dict]) -> dict[str, str]:
    """By the path of a run in a report the name of its system (system_names)."""
    return system_names([(row["path"], row.get("settings") or {}) for row in group["systems"]] for group in groups)


def _ordered(found: dict[str, dict[str, str]], baselines: set[str]) -> dict[str, dict[str, str]]:
    """Baselines first; checkpoints of one series by their steps; else as they come."""
    series = {key: tuple(own.get(name) for name in COLUMNS if name != "checkpoint") for key, own in found.items()}
    first = {values: number for number, values in reversed(list(enumerate(series.values())))}

    def order(key: str) -> tuple:
        checkpoint = found[key].get("checkpoint") or "0"
        return key not in baselines, first[series[key]], int(checkpoint) if checkpoint.isdigit() else 0

    return {key: found[key] for key in sorted(found, key=order)}


def tables(report: dict, detailed: bool = False) -> list[Table]:
    """All tables of a report; `detailed` ones of a single direction have intervals, p-values and counts, too."""
    systems = Systems(report["groups"])
    made: list[Table] = []
    for of_dataset in _by_dataset(report["groups"]):
        if len(of_dataset) == 1:
            made.append(_direction_table(of_dataset[0], systems, report, detailed))
            continue
        classes = _by_class(of_dataset)
        for name in _names_with_scores(of_dataset):
            for title, groups in classes:
                scope = SCOPES.get(title) or ("all" if len(classes) == 1 else "")
                made.append(_metric_table(name, title, scope, groups, systems, report))
        if len(classes) > 1:
            made.append(_means_table(classes, systems, report))
    made += [table for own in _by_dataset(report["groups"]) if (table := _fault_table(own, systems))]
    made += [_seeds_table(group) for group in report["groups"] if group.get("over_seeds")]
    titles = {name: title for group in report["groups"] for name, title in group["titles"].items()}
    failed = report.get("failed_metrics") or {}
    lines = [f"{titles.get(name, name)}: not computed: {why}" for name, why in failed.items()]
    return [replace(made[0], notes=lines + made[0].notes), *made[1:]]


def metric_names(groups: Iterable[dict]) -> list[str]:
    """The metrics of groups, chrF++ first."""
    names = dict.fromkeys(name for group in groups for name in group["titles"])
    return sorted(names, key=lambda name: name != LEADING)


def _names_with_scores(groups: Sequence[dict]) -> list[str]:
    """The metrics that have a score somewhere; all if none has."""
    names = metric_names(groups)
    return [name for name in names if _scored(groups, name)] or names


def _by_dataset(groups: Sequence[dict]) -> list[list[dict]]:
    found: dict[tuple, list[dict]] = {}
    for group in groups:
        found.setdefault((group["dataset"], group["step"]), []).append(group)
    return list(found.values())


def _by_class(groups: Sequence[dict]) -> list[tuple[str, list[dict]]]:
    """The directions from English, into English, and between other languages."""
    found: dict[str, list[dict]] = {f"from {ENGLISH}": [], f"into {ENGLISH}": [], "between other languages": []}
    out, into, other = found
    for group in groups:
        found[out if group["src"] == ENGLISH else into if group["tgt"] == ENGLISH else other].append(group)
    return [(title, own) for title, own in found.items() if own]


# Columns: the cells of one, by system


def _scores(group: dict, name: str, systems: Systems, detailed: bool = False) -> dict[str, Cell]:
    """The column of a metric in a direction, best and tied cells included."""
    info = metric_info(group, name)
    tied = set((group.get("clusters") or {}).get(name) or ())
    cells, scores = {}, {}
    for row in group["systems"]:
        value = row["scores"].get(name) or {}
        score = finite(value.get("score"))
        if score is None:
            continue
        key = systems.key(row)
        text = info.format(score)
        if detailed and (interval := value.get("interval")) and None not in map(finite, interval):
            text += f" [{info.format(interval[0])}, {info.format(interval[1])}]"
        cells[key] = Cell(text, _marks(group, name, row, value), TIED if row["path"] in tied else "")
        scores[key] = score
    return _ranked(cells, scores, info)


def _marks(group: dict, name: str, row: dict, value: dict) -> str:
    status = reliability_of(group, name).get("status", "surface")
    is_part = bool(row.get("missing")) or value.get("segments", row["sentences"]) < row["sentences"]
    return mark(value) + "~" * (status not in VALIDATED) + "!" * bool(value.get("interference")) + "<" * is_part


def _ranked(cells: dict[str, Cell], scores: dict[str, float], info: MetricInfo) -> dict[str, Cell]:
    """With the best of `scores` marked, and those that are equal to it as shown; nothing is the best of one."""
    if len(scores) < 2:
        return {key: cell._replace(rank="") for key, cell in cells.items()}
    best = info.format((max if info.higher_is_better else min)(scores.values()))
    ranked = {key: cells[key]._replace(rank=BEST) for key, score in scores.items() if info.format(score) == best}
    return cells | ranked


def _scored(groups: Sequence[dict], name: str) -> list[dict]:
    """The directions in which a system has a score."""
    return [group for group in groups if any(row["scores"].get(name) for row in group["systems"])]


def _averaged(groups: Sequence[dict], name: str) -> list[dict]:
    """Those that means are over."""
    return _scored(wholes(groups), name)


def _averages(report: dict, name: str, dataset: str, scope: str) -> dict:
    """The part of a report's summary on a metric in these directions; {} if it has none."""
    found = (entry for entry in report.get("summary") or () if (entry["metric"], entry["direction"]) == (name, scope))
    return next((entry for entry in found if entry.get("dataset", dataset) == dataset), {})


def _wins(averages: dict) -> Columns:
    """The column of wins, losses and ties against the baseline; {} if there are none."""
    counts = {key: own for key, own in averages.get("systems", {}).items() if "wins" in own}
    shown = {key: f"{own['wins']}-{own['losses']}-{own['ties']}" for key, own in counts.items()}
    return {"wins-losses-ties": shown} if shown else {}


def _means(groups: Sequence[dict], name: str, systems: Systems, averages: dict) -> dict[str, Cell]:
    """The column of means over directions. A system that lacks some has (n of N) behind its mean, and is not ranked; means that
    are over other directions than those of the summary have no mark of significance."""
    groups = _averaged(groups, name)
    cells, scores = {}, {}
    for key in systems.columns:
        found, marks = [], set()
        for group in groups:
            for row in group["systems"]:
                value = row["scores"].get(name) or {}
                if systems.key(row) == key and (score := finite(value.get("score"))) is not None:
                    found.append(score)
                    marks |= set(_marks(group, name, row, value)) & set("~!<")
        if not found:
            continue
        info, mean = metric_info(groups[0], name), fmean(found)
        is_whole = len(found) == len(groups)
        if is_whole and averages.get("groups") == len(groups):
            marks |= set(mark(averages["systems"].get(key, {})))
        cells[key] = Cell(info.format(mean) + ("" if is_whole else f" ({len(found)} of {len(groups)})"), "".join(marks))
        if is_whole:
            scores[key] = mean
    return _ranked(cells, scores, metric_info(groups[0], name)) if groups else {}


# Tables


def _table(title: str, columns: Columns, groups: Iterable[dict], systems: Systems, notes: list[str]) -> Table:
    """A row for each system of `groups`; `columns` by their headings."""
    present = {systems.key(row) for group in groups for row in group["systems"]}
    keys = [key for key in systems.columns if key in present]
    rows = [[*systems.described(key), *(column.get(key, NONE) for column in columns.values())] for key in keys]
    common = [f"all systems: {systems.constant}"] if systems.constant else []
    return Table(title, [*systems.header, *columns], rows, len(systems.header), common + notes)


def _direction_table(group: dict, systems: Systems, report: dict, detailed: bool) -> Table:
    """One direction: a column for each metric."""
    rows, names = {systems.key(row): row for row in group["systems"]}, metric_names([group])
    compared = len(rows) - 1 if group.get("baseline") else 0
    columns: Columns = {}
    for name in names:
        title = metric_info(group, name).title
        columns[title] = _scores(group, name, systems, detailed)
        if detailed and compared:
            columns[f"{title} p"] = _p_values(rows, name, "p")
        if detailed and compared > 1:
            columns[f"{title} Holm"] = _p_values(rows, name, "p_holm")
    return _table(title_of(group), columns, [group], systems, _notes([group], names, systems, report, detailed))


def _p_values(rows: dict[str, dict], name: str, which: str) -> dict[str, Cell | str]:
    found = {key: finite((row["scores"].get(name) or {}).get(which)) for key, row in rows.items()}
    return {key: f"{p:.4f}" for key, p in found.items() if p is not None}


def _metric_table(
    name: str, direction: str, scope: str, groups: Sequence[dict], systems: Systems, report: dict
) -> Table:
    """One metric: a column for each direction, their mean, and in how many a system is better and worse than the baseline."""
    groups = [group for group in groups if name in group["titles"]]
    columns = dict(zip(_headings(groups), (_scores(group, name, systems) for group in groups), strict=True))
    if (count := len(_averaged(groups, name))) > 1:
        averages = _averages(report, name, groups[0]["dataset"], scope)
        columns[f"mean of {count}"] = _means(groups, name, systems, averages)
        columns |= _wins(averages)
    title = f"{metric_info(groups[0], name).title}, {_test_set(groups)} {direction}"
    return _table(title, columns, groups, systems, _notes(groups, [name], systems, report))


def _test_set(groups: Sequence[dict]) -> str:
    step = groups[0]["step"]
    return groups[0]["dataset"] + (f", phrases of step {step}" if step else "")


def _headings(groups: Sequence[dict]) -> list[str]:
    """The other language; with the file or the number of sentences where two test sets of one direction differ."""
    sides = [[side for side in (group["src"], group["tgt"]) if side != ENGLISH] for group in groups]
    names = [" to ".join(own) for own in sides]
    headings = [
        name if names.count(name) == 1 else f"{name} ({own_file(group) or group['sentences']})"
        for name, group in zip(names, groups, strict=True)
    ]
    return [
        heading if headings.count(heading) == 1 else f"{heading} {headings[: number + 1].count(heading)}"
        for number, heading in enumerate(headings)
    ]


def _means_table(classes: Sequence[tuple[str, list[dict]]], systems: Systems, report: dict) -> Table:
    """Means of all metrics, from English, into English and over all directions."""
    groups = [group for _, own in classes for group in own]
    columns: Columns = {}
    notes = ["in parentheses: the number of directions in the mean"]
    for name in _names_with_scores(groups):
        title = next(metric_info(group, name).title for group in groups if name in group["titles"])
        for direction, own in [*classes, ("all", groups)]:
            averages = _averages(report, name, groups[0]["dataset"], SCOPES.get(direction, direction))
            if (count := len(_averaged(own, name))) > 1:  # that of one direction is in its own table
                columns[f"{title} {direction} ({count})"] = _means(own, name, systems, averages)
        columns |= {f"{title} {heading}": column for heading, column in _wins(averages).items()}
        notes += _mixed(groups, name, title)
    return _table(f"means, {_test_set(groups)}", columns, groups, systems, notes)


def _fault_table(groups: Sequence[dict], systems: Systems) -> Table | None:
    """How many translations of each system have which fault (output_faults.py), in all directions together; None if none has."""
    counts: dict[str, Counter] = {"sentences": Counter()}
    unknown: dict[str, dict[str, None]] = {}  # the directions in which a fault cannot be determined
    for group, row in ((one, row) for one in groups for row in one["systems"]):
        for name, count in {"sentences": row["sentences"], **(row.get("faults") or {})}.items():
            if count is None:
                unknown.setdefault(name.replace("_", " "), {})[f"{group['src']} to {group['tgt']}"] = None
            else:
                counts.setdefault(name.replace("_", " "), Counter())[systems.key(row)] += count
    if not any(any(by_system.values()) for name, by_system in counts.items() if name != "sentences"):
        return None
    columns = {name: {key: str(count) for key, count in by_system.items()} for name, by_system in counts.items()}
    notes = [f"{name}: not determined for {', '.join(where)}" for name, where in unknown.items()]
    return _table(f"faults of outputs, {_test_set(groups)}", columns, groups, systems, notes)


def _seeds_table(group: dict) -> Table:
    """One direction: a row for each system that differs from others in more than a seed."""
    over_seeds, rows = group["over_seeds"], []
    names = metric_names([group])
    for own in over_seeds["systems"]:
        label = own["name"] + (" (baseline)" if own["name"] == over_seeds["baseline"] else "")
        cells = [_over_seeds(group, name, own["scores"].get(name) or {}) for name in names]
        rows.append([label, str(len(own["paths"])), *cells])
    header = ["system", "seeds", *(metric_info(group, name).title for name in names)]
    values = [(name, own["scores"].get(name) or {}) for name in names for own in over_seeds["systems"]]
    parts = {metric_info(group, name).title: value["segments"] for name, value in values if _is_part(group, value)}
    notes = ["mean ± standard deviation over seeds; p by Student's t over sentences and seeds"]
    notes += [
        f"< {title} over seeds ({group['src']} to {group['tgt']}): of the {number} of {group['sentences']} segments that all runs have "
        "a score of"
        for title, number in parts.items()
    ]
    return Table(f"seeds, {title_of(group)}", header, rows, 2, notes)


def _over_seeds(group: dict, name: str, value: dict) -> Cell:
    if finite(value.get("mean")) is None:
        return NONE
    info = metric_info(group, name)
    spread = f" ± {info.format(value['sd'])}" if finite(value.get("sd")) is not None else ""
    return Cell(info.format(value["mean"]) + spread, mark(value) + "<" * _is_part(group, value))


def _is_part(group: dict, value: dict) -> bool:
    return value.get("segments", group["sentences"]) < group["sentences"]


# Notes


def _notes(
    groups: Sequence[dict], names: Sequence[str], systems: Systems, report: dict, detailed: bool = False
) -> list[str]:
    """What the scores of these metrics in these directions need to be understood."""
    lines: list[str] = []
    for name in names:
        title = next((metric_info(group, name).title for group in groups if name in group["titles"]), name)
        targets: dict[str, dict[str, None]] = {}  # by signature, which may depend on the target language
        for group in (group for group in groups if name in group["signatures"]):
            targets.setdefault(group["signatures"][name], {})[group["tgt"]] = None
        several = len({group["signatures"].get(name) for group in report["groups"]} - {None}) > 1
        for text, own in targets.items():
            where = f" into {', '.join(own)}" if several else ""
            lines.append(f"{title}{where}: {text}")
        lines += _mixed(groups, name, title)
        infos = {metric_info(group, name).higher_is_better for group in groups}
        if infos == {False}:
            lines.append(f"{title}: lower is better")
        lines += _reliability(groups, name, title)
    lines += _parts(groups)
    lines += _incomplete(groups, names, systems)
    tested = [len(group["systems"]) - 1 for group in groups if group.get("baseline") or group.get("clusters")]
    if compared := max(tested, default=0):
        holm = f", Holm's correction over {compared} systems for each metric and direction" if compared > 1 else ""
        test = f"paired approximate randomisation, {report['trials']} trials, seed {report['seed']}"
        lines.append(f"p < {ALPHA}: {test}{holm}")
    if detailed and report.get("bootstrap"):
        lines.append(f"[95% interval]: bootstrap, {report['bootstrap']} samples, seed {report['seed']}")
    for group in groups:
        lines += guard.lines(group, names, lambda row: systems.label(systems.key(row)))
    return list(dict.fromkeys(lines))


def _reliability(groups: Sequence[dict], name: str, title: str) -> Iterator[str]:
    """The languages for which the metric is not validated, and why."""
    languages: dict[str, list[str]] = {}
    for group in groups:
        found = reliability_of(group, name)
        if found.get("status", "surface") not in VALIDATED:
            source = f" ({found['source']})" if found.get("source") else ""
            language = group["src"] if group["tgt"] == ENGLISH else group["tgt"]
            languages.setdefault(f"{found.get('note') or found['status']}{source}", []).append(language)
    for why, names in languages.items():
        named = ", ".join(dict.fromkeys(names))
        yield f"~ {title} for {named}: {why.removeprefix(f'{named}: ')}"


def _mixed(groups: Sequence[dict], name: str, title: str) -> list[str]:
    signatures = {group["signatures"].get(name) for group in _averaged(groups, name)}
    several = f"{title}: the mean is over scores of different signatures, which are not comparable"
    return [several] if len(signatures) > 1 else []


def _parts(groups: Sequence[dict]) -> Iterator[str]:
    """Of which test sets the scores are of the first sentences, or of a copy that lacks some."""
    where: dict[str, list[str]] = {}
    for group in groups:
        test = (group.get("test_set") or {}).get("test", {})
        if test.get("pairs", 0) < test.get("of", 0):
            line = f"the first {test['pairs']:,} of {test['of']:,} sentences"
            where.setdefault(line, []).append(f"{group['src']} to {group['tgt']}")
        for size in {test.get(side, {}).get("published_texts") for side in ("sources", "references")} - {None}:
            line = f"an incomplete copy of the test set: {test.get('of', 0):,} of {size:,} sentences"
            where.setdefault(line, []).append(f"{group['src']} to {group['tgt']}")
    for line, own in where.items():
        yield f"{groups[0]['dataset']}: {line}" + (f" ({', '.join(own)})" if len(own) < len(groups) else "")


def _incomplete(groups: Sequence[dict], names: Sequence[str], systems: Systems) -> list[str]:
    """What systems lack, or what was changed of them, and in which directions."""
    where: dict[str, list[str]] = {}
    for group in groups:
        for row in group["systems"]:
            label, sentences, missing = systems.label(systems.key(row)), row["sentences"], row.get("missing")
            found = []
            if missing:
                found.append(f"< {label}: partial: {missing} of {missing + sentences} sentences are missing")
            if row.get("unanswered"):
                found.append(f"{label}: {row['unanswered']} unanswered")
            if row.get("edited"):
                found.append(f"{label}: the translations were changed after they had been written")
            for name in names:
                scored = (row["scores"].get(name) or {}).get("segments", sentences)
                if scored < sentences:
                    title = metric_info(group, name).title
                    found.append(f"< {title} of {label}: {scored} of {sentences} segments have a score")
            for line in found:
                where.setdefault(line, []).append(f"{group['src']} to {group['tgt']}")
    return [line + (f" ({', '.join(own)})" if len(groups) > 1 else "") for line, own in where.items()]
