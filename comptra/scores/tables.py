"""Scores as a table for the terminal, and as CSV."""

import csv
import io

from comptra.scores import guard
from topxgen.common.console import aligned, printable

ALPHA = 0.05
_OF_GROUP, _OF_SYSTEM = ("dataset", "src", "tgt", "step"), ("sentences", "missing", "unanswered", "empty")


def title_of(group: dict) -> str:
    units = f"phrases of step {group['step']}" if group["step"] else "sentences"
    return f"{group['dataset']} from {group['src']} into {group['tgt']}, {group['sentences']} {units}".strip()


def table(report: dict) -> str:
    """The report for the terminal: one aligned table per test set and direction."""
    tables = [_group_table(group, report) for group in report["groups"]]
    return "\n\n".join([*tables, *report.get("notes", ())])


def _group_table(group: dict, report: dict) -> str:
    compared = len(group["systems"]) - 1 if group["baseline"] else 0
    header = ["system"]
    for title in group["titles"].values():
        header += [title] + (["p"] if compared else []) + (["Holm"] if compared > 1 else [])
    rows = [[*header, "empty"]]
    for system in group["systems"]:
        marks = [" (baseline)"] if system["path"] == group["baseline"] else []
        if system["missing"]:
            marks.append(f" (partial: {system['missing']} of {system['missing'] + system['sentences']} are missing)")
        if system["unanswered"]:
            marks.append(f" ({system['unanswered']} unanswered)")
        row = [printable(system["name"]) + "".join(marks)]
        for value in system["scores"].values():
            row.append(_cell(value))
            if compared:
                row.append(_p_cell(value, "p"))
            if compared > 1:
                row.append(_p_cell(value, "p_holm"))
        rows.append([*row, str(system["empty"])])
    lines = [title_of(group), *aligned(rows)]
    for name, signature in group["signatures"].items():
        lines.append(f"{group['titles'][name]}: {signature}")
    if compared:
        corrected = f", Holm's correction over {compared} systems" if compared > 1 else ""
        lines.append(
            f"+ better (higher), - worse (lower) than the baseline, p < {ALPHA}: approximate randomisation, {report['trials']} trials, seed {report['seed']}{corrected}"
        )
    if report["bootstrap"]:
        lines.append(f"[95% interval]: bootstrap, {report['bootstrap']} samples, seed {report['seed']}")
    return "\n".join([*lines, *guard.lines(group)])


def _cell(value: dict | None) -> str:
    if value is None:
        return "-"
    interval = f" [{value['interval'][0]:.1f}, {value['interval'][1]:.1f}]" if "interval" in value else ""
    return f"{value['score']:.2f}{interval}{mark(value)}{'!' if value.get('interference') else ' '}"


def mark(value: dict) -> str:
    """+ better, - worse than the baseline; of one comparison, p_holm is p."""
    if "better" in value:
        return {True: "+", False: "-", None: " "}[value["better"]]
    if value.get("p_holm", 1) < ALPHA:
        return "+" if value["difference"] > 0 else "-"
    return " "


def _p_cell(value: dict | None, key: str) -> str:
    return f"{value[key]:.4f}" if value and key in value else "-"


def csv_text(report: dict) -> str:
    """The report as CSV, one row per system."""
    names = list(dict.fromkeys(name for group in report["groups"] for name in group["titles"]))
    columns = [*_OF_GROUP, "system", "path", "baseline", *_OF_SYSTEM]
    for name in names:
        columns += [f"{name}{end}" for end in ("", "_low", "_high", "_difference", "_p", "_p_holm", "_signature")]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for group in report["groups"]:
        for system in group["systems"]:
            row = {key: group[key] for key in _OF_GROUP} | {key: system[key] for key in _OF_SYSTEM}
            row |= {"system": system["name"], "path": system["path"], "baseline": group["baseline"] or ""}
            for name, value in system["scores"].items():
                if value is None:
                    continue
                low, high = value.get("interval", ("", ""))
                row |= {name: value["score"], f"{name}_low": low, f"{name}_high": high}
                row |= {f"{name}_{key}": value.get(key, "") for key in ("difference", "p", "p_holm")}
                row[f"{name}_signature"] = group["signatures"][name]
            writer.writerow(row)
    return out.getvalue()
