"""Variants of several seeds on the same test sets: their scores, and the tables that show them (scripts/compare.py)."""

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from comptra import scoring
from comptra.scores.segments import Measured
from comptra.scores.systems import System, loader_of_test_sets, read_system
from comptra.significance import ALPHA, SAMPLES
from comptra.tables import MetricInfo, Table, export, mark, metric_info
from topxgen.common import files, provenance, shards
from topxgen.common.console import aligned
from topxgen.common.errors import UsageError
from topxgen.text.words import is_blank


def score(
    variants: Mapping[str, list[list[Path]]], baseline: str | None, args: argparse.Namespace
) -> tuple[list[dict], dict[str, str]]:
    """For each test set and direction what `over_seeds.compare_all` gives by variant and metric; and why metrics were left out.

    `variants`: by name, for each seed the folders of its translations. `args`: flags of comptra.evaluate. Raises UsageError for
    translations that cannot be scored, or that a seed of a variant lacks.
    """
    every = [folder for seeds in variants.values() for folders in seeds for folder in folders]
    load_test_set = loader_of_test_sets(every, args.benchmark_dir, args.allow_partial_benchmark)
    tests: dict[tuple, dict[str, list[System]]] = {}
    for name, seeds in variants.items():
        for folders in seeds:
            for folder in folders:
                shards.check_merged(folder / f"translate_{args.step}.jsonl")
            systems = [system for folder in folders if (system := read_system(folder, args, load_test_set))]
            seen: dict[tuple, int] = {}
            for system in systems:  # one test set may be translated in two ways
                way = seen[system.test] = seen.get(system.test, -1) + 1
                tests.setdefault((*system.test, way), {}).setdefault(name, []).append(system)
    ways: dict[tuple, Counter[str]] = {}
    for (*test, _), by_variant in tests.items():
        ways.setdefault(tuple(test), Counter()).update(by_variant.keys())
    for (src, tgt, *_), counts in ways.items():
        if len({*counts.values()}) > 1:
            shown = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise UsageError(
                f"a test set from {src} into {tgt} is translated in different numbers of ways ({shown}), so that which of them to compare is "
                "not known: give each variant as many entries of main"
            )
    for by_variant in tests.values():
        for name, systems in by_variant.items():
            if len(systems) != len(variants[name]):
                one = systems[0]
                raise UsageError(
                    f"{name} has translations from {one.src.name} into {one.tgt.name} of {len(systems)} of {len(variants[name])} seeds"
                )
    ordered = sorted(tests.items(), key=lambda item: item[0][:2])
    systems = [[system for own in by_variant.values() for system in own] for _, by_variant in ordered]
    jobs = [
        (scoring.test_of(own, next(iter(by_variant.get(baseline, ())), None)), [system.translations for system in own])
        for own, (_, by_variant) in zip(systems, ordered, strict=True)
    ]
    measured, failed = scoring.measure_all(jobs, scoring.usable_metrics(args, baseline is not None), args)
    pairs = zip(ordered, measured, strict=True)
    return [_score_test(by_variant, baseline, key[-1], own, args) for (key, by_variant), own in pairs], failed


def _compared(by_variant: dict[str, list[System]], baseline: str | None, one: Measured, seed: int) -> dict[str, dict]:
    """What `over_seeds.compare_all` gives by variant."""
    from comptra.significance import compared, over_seeds

    statistics, scorer = iter(one.statistics), one.scorer
    by_name = {name: [next(statistics) for _ in systems] for name, systems in by_variant.items()}
    has_all = compared.has_score(one.statistics, scorer)
    return over_seeds.compare_all(by_name, baseline, scorer.scores, SAMPLES, seed, scorer.higher_is_better, has_all)


def _score_test(
    by_variant: dict[str, list[System]],
    baseline: str | None,
    way: int,
    measured: dict[str, Measured],
    args: argparse.Namespace,
) -> dict:
    first = next(iter(by_variant.values()))[0]
    compared = {name: _compared(by_variant, baseline, one, args.seed) for name, one in measured.items()}
    scores = {name: by_name for name, by_name in compared.items() if by_name}
    scorers = {name: measured[name].scorer for name in scores}
    return {
        "dataset": first.dataset,
        "src": first.src.name,
        "tgt": first.tgt.name,
        "way": way,
        "sentences": len(first.sentences),
        "sources_digest": provenance.digest(first.sentences),
        "references_digest": provenance.digest(first.references or []),
        "titles": {metric: scorer.title for metric, scorer in scorers.items()},
        "signatures": {metric: scorer.signature for metric, scorer in scorers.items()},
        "variants": {
            name: {
                "empty": sum(is_blank(text) for system in systems for text in system.translations),
                "unanswered": sum(len(system.unanswered) for system in systems),
                "paths": [str(system.folder) for system in systems],
                "scores": {metric: by_name[name] for metric, by_name in scores.items()},
            }
            for name, systems in by_variant.items()
        },
    }


# Tables


def tables(report: dict) -> list[tuple[str, list[list[str]]]]:
    """(title, rows of cells, the first of which is the header): the variants' data and cost, then each test."""
    found = [("data and cost", _data_table(report))]
    for group in report["groups"]:
        way = f", translated in way {group['way'] + 1}" if group["way"] else ""
        title = f"{group['dataset']} from {group['src']} into {group['tgt']}, {group['sentences']} sentences{way}"
        found.append((title, _score_table(group, report["baseline"])))
    return found


def _data_table(report: dict) -> list[list[str]]:
    columns = list(dict.fromkeys(name for variant in report["variants"] for name in variant["facts"]))
    rows = [["variant", "seeds", *columns]]
    for variant in report["variants"]:
        seeds = " ".join(map(str, variant["seeds"])) or "-"
        rows.append([variant["name"], seeds, *(_shown(variant["facts"].get(name)) for name in columns)])
    return rows


def _shown(value: float | str | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if value < 1 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _score_table(group: dict, baseline: str | None) -> list[list[str]]:
    compared = len(group["variants"]) - 1 if baseline in group["variants"] else 0
    columns = (["difference [95%]", "p"] if compared else []) + (["Holm"] if compared > 1 else [])
    header = ["variant"]
    for title in group["titles"].values():
        header += [f"{title} mean ± sd [95%]", *columns]
    rows = [header]
    for name, variant in group["variants"].items():
        marks = " (baseline)" if name == baseline else ""
        marks += f" ({variant['unanswered']} unanswered)" if variant["unanswered"] else ""
        row = [name + marks]
        for metric, value in variant["scores"].items():
            info = metric_info(group, metric)
            row.append(f"{info.format(value['mean'])}{_spread(value, info)}{mark(value) or ' '}")
            if "p" in value:
                difference, low, high = (
                    info.format(one, "+") for one in (value["difference"], *value["difference_interval"])
                )
                row.append(f"{difference} [{low}, {high}]")
                shown = (f"{p:.4f}" if p >= 0.0001 else "<0.0001" for p in (value["p"], value["p_holm"]))
                row += [*shown][: len(columns) - 1]
            else:
                row += ["-"] * len(columns)
        rows.append(row)
    return rows


def _spread(value: dict, info: MetricInfo) -> str:
    """Over seeds."""
    if value["sd"] is None:
        return ""
    sd, low, high = map(info.format, (value["sd"], *value["interval"]))
    return f" ± {sd} [{low}, {high}]"


def notes(report: dict) -> list[str]:
    """What the tables need to be understood."""
    signatures: dict[str, dict[str, None]] = {}
    for group in report["groups"]:
        for metric, signature in group["signatures"].items():
            signatures.setdefault(group["titles"][metric], {})[signature] = None
    lines = [f"{title}: {' and '.join(own)}" for title, own in signatures.items()]
    infos = {metric_info(group, metric) for group in report["groups"] for metric in group["titles"]}
    lines += sorted(f"{info.title}: lower is better" for info in infos if not info.higher_is_better)
    lines += [line for group in report["groups"] for line in _parts(group)]
    seeds = max((len(variant["seeds"]) for variant in report["variants"]), default=0)
    if unequal := unequal_texts(report["variants"]):
        lines.append(unequal)
    spread = f"± standard deviation and [95% interval of the mean] over {seeds} seeds of the training"
    lines.append(spread if seeds > 1 else "one seed of the training: p is of these models alone")
    if report["baseline"]:
        count = len(report["variants"]) - 1
        holm = f", Holm's correction over {count} variants for each metric and direction" if count > 1 else ""
        lines.append(
            f"+ better, - worse than {report['baseline']}, p < {ALPHA}: Student's t over sentences and seeds "
            f"({report['samples']} bootstrap samples of sentences, seed {report['seed']}){holm}"
        )
    return lines


def _parts(group: dict) -> list[str]:
    """Of which metrics the scores are of a part of the sentences, as models have no score of others."""
    found: dict[str, int] = {}
    for variant in group["variants"].values():
        for metric, value in variant["scores"].items():
            if value.get("segments", group["sentences"]) < group["sentences"]:
                found[group["titles"][metric]] = value["segments"]
    test = f"{group['dataset']} from {group['src']} into {group['tgt']}"
    return [
        f"{title}, {test}: of the {number:,} of {group['sentences']:,} sentences that all models have a score of"
        for title, number in found.items()
    ]


def unequal_texts(variants: list[dict]) -> str:
    """Says so if models that are to be trained on equal numbers of pairs are not; "" if they are, or need not be."""
    by_pairs: dict[int, dict[str, int]] = {}
    for variant in variants:
        if variant["equal_pairs"] and variant["facts"]["texts"] is not None:
            by_pairs.setdefault(variant["equal_pairs"], {})[variant["name"]] = variant["facts"]["texts"]
    unequal = (own for own in by_pairs.values() if len({*own.values()}) > 1)
    shown = "; ".join(", ".join(f"{name} {n:,}" for name, n in own.items()) for own in unequal)
    why = "what is longer than --max_length is left out, and held-out groups differ"
    return f"UNEQUAL numbers of texts ({why}): {shown}" if shown else ""


def text(report: dict) -> str:
    """The tables for the terminal."""
    parts = ["\n".join([title, *aligned(rows)]) for title, rows in tables(report)]
    return "\n\n".join([*parts, "\n".join(notes(report))])


def markdown(report: dict) -> str:
    parts = [f"# {export.markdown_text(report['experiment'])}"]
    for title, rows in tables(report):
        parts.append(f"## {export.markdown_text(title)}\n\n{export.markdown_of(Table(title, rows[0], rows[1:]))}")
    parts.append("\n".join(export.markdown_items(notes(report))))
    return "\n\n".join(parts) + "\n"


def csv_text(report: dict) -> str:
    """One row for each test, metric and variant."""
    facts = list(dict.fromkeys(name for variant in report["variants"] for name in variant["facts"]))
    columns = ["dataset", "src", "tgt", "sentences", "metric", "signature", "variant", "baseline", "seeds", "scores"]
    columns += ["mean", "sd", "mean_low", "mean_high", "difference", "difference_low", "difference_high", "p", "p_holm"]
    lines = []
    described = {variant["name"]: variant for variant in report["variants"]}
    for group in report["groups"]:
        for name, variant in group["variants"].items():
            for metric, value in variant["scores"].items():
                row = {key: group[key] for key in columns[:4]} | described[name]["facts"]
                row |= {"metric": metric, "signature": group["signatures"][metric], "variant": name}
                row |= {"baseline": report["baseline"] or "", "seeds": " ".join(map(str, described[name]["seeds"]))}
                row["scores"] = " ".join(f"{one:.4f}" for one in value["scores"])
                row |= {"mean": value["mean"], "sd": value["sd"]}
                row["mean_low"], row["mean_high"] = value["interval"] or ("", "")
                row["difference_low"], row["difference_high"] = value.get("difference_interval", ("", ""))
                row |= {key: value[key] for key in ("difference", "p", "p_holm") if key in value}
                lines.append(row)
    return files.csv_text(lines, [*columns, *facts])
