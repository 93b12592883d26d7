"""What is made from other files: model cards and records of Every Eval Ever, from the reports of comptra.evaluate, which have been checked
before; reports of scripts/probe_contamination.py."""

import re
from collections.abc import Iterator
from pathlib import Path

from comptra.contamination import drop, twins
from comptra.tables import every_eval_ever, model_card
from comptra.tables.model_card import CARD, EVALUATED_BY
from comptra.verify import Audit
from comptra.verify.evaluations import near_equal
from topxgen.common.files import read_json
from topxgen.text import languages

_RECORD = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.json")


def check(audit: Audit, folder: Path, names: set[str]) -> None:
    card = folder / CARD
    if CARD in names and b"\nmodel-index:" in card.read_bytes():
        audit.attempt(card, _check_card, audit, card)
    for name in sorted(filter(_RECORD.fullmatch, names)):
        path = folder / name
        audit.attempt(path, _check_record, audit, path)
    if {twins.REPORT, twins.TWINS, twins.SWAPS} <= names and audit.options.with_scores:
        path = folder / twins.REPORT
        audit.attempt(path, _check_probe, audit, path, audit.json(path), why="its scores")


def _check_probe(audit: Audit, path: Path, report: dict) -> None:
    settings, systems = report["settings"], {system["name"]: system for system in report["systems"]}
    folders = {name: audit.locate(system["path"], path) for name, system in systems.items()}
    if None in folders.values():
        return audit.skip(path, "scores of translations that are not there")
    variants = twins.read(path.parent, settings["src"], settings["tgt"])
    sides = [languages.find(settings[side], audit.options.languages_file) for side in ("src", "tgt")]
    audit.equal(path, "sentences", report["sentences"], len(variants[0]))
    compared = {name for name, system in systems.items() if system["baseline"]}
    base = next(iter(systems.keys() - compared)) if compared else None
    found = drop.of_systems(variants, folders, tuple(sides), base, report["margin"], settings["seed"])
    for name, own in found.items():
        near_equal(audit, path, name, {key: systems[name][key] for key in own}, own, "scores")


def _check_card(audit: Audit, card: Path) -> None:
    """Scores of test sets in `model-index`, rounded as the card has them."""
    for one in model_card.load(card.parent).data.eval_results or ():
        facts = one.metric_args or {}
        if facts.get("evaluated_by") != EVALUATED_BY:
            continue
        what = f"model-index: {one.metric_name}, {one.dataset_config}"
        found = list(_scores(audit, one.metric_type, one.dataset_config, facts))
        claimed = {"value": one.metric_value, "segments": facts.get("segments"), "interval": facts.get("interval")}
        if not found:
            audit.skip(card, f"{what}: no report here is of these translations")
        elif claimed not in found:
            audit.equal(card, what, claimed, found[0], "scores")
        else:
            audit.checked["scores"] += 1


def _scores(audit: Audit, metric: str, direction: str | None, facts: dict) -> Iterator[dict]:
    """What the reports say of the same translations by the same signature, in the form of a card."""
    for report in audit.reports.values():
        for group in report["groups"]:
            for name, signature in group["signatures"].items():
                if (name, f"{group['src']} to {group['tgt']}") != (metric, direction):
                    continue
                for row in group["systems"] if signature == facts.get("signature") else ():
                    value = row["scores"].get(name)
                    if value and row.get("translations_digest") == facts.get("translations"):
                        interval = value.get("interval")
                        yield {
                            "value": round(value["score"], 4),
                            "segments": value.get("segments"),
                            "interval": interval and [round(end, 4) for end in interval],
                        }


def _check_record(audit: Audit, path: Path) -> None:
    record = read_json(path, dict)
    if "evaluation_results" not in record or "retrieved_timestamp" not in record:
        return
    for report in audit.reports.values():
        for name, made in every_eval_ever.records(report, int(record["retrieved_timestamp"])):
            if name.name == path.name:
                for key in made | record:
                    audit.equal(path, key, record.get(key), made.get(key), "scores")
                return
    audit.skip(path, "no report here has the scores of this record")
