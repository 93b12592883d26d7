"""Score the translations of main.py: BLEU, chrF++ and language consistency, with significance against a baseline.

    python -m comptra.evaluate outputs/flores --baseline outputs/flores/Meta-Llama-3-8B --csv scores.csv --json scores.json

DIR is the folder of a run (`{model}/{src}_to_{tgt}_{k}_shot_…`, which holds translate_0.jsonl) or any folder above such,
of main.py or of the original code. For the original's, which do not say what they translated, name it:

    python -m comptra.evaluate original/outputs --dataset_name_or_path flores --benchmark_dir ~/benchmarks

A * marks a difference from the baseline with p < 0.05 by paired approximate randomisation (Riezler and Maxwell 2005), with
Holm's correction where several systems are compared. Only systems on the same sentences of the same direction are.
"""

import argparse
import logging
import sys
from functools import cache
from pathlib import Path

from comptra import evaluation_sets
from comptra.scores import metrics
from comptra.scores.systems import System, find_runs, read_system
from comptra.scores.tables import csv_text, table, title_of
from topxgen.common import provenance
from topxgen.common.cli import FLAG, Parser, int_range, run_main
from topxgen.common.errors import UsageError
from topxgen.common.files import write_atomic, write_json

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__, prog="python -m comptra.evaluate")
    parser.add_argument("dirs", nargs="+", type=Path, metavar="DIR", help="of runs, or above them")

    group = parser.add_argument_group("what was translated")
    group.add_argument("--dataset_name_or_path", choices=evaluation_sets.DATASETS, help="[what main.py wrote down]")
    group.add_argument("--benchmark_dir", type=Path, metavar="DIR", help="local copies of benchmarks [the Hub]")
    group.add_argument(
        "--test_files", nargs=2, type=Path, metavar=("SRC", "REF"), help="of the data set files [the manifest's]"
    )
    group.add_argument("--languages_file", metavar="TSV", help="rows of your own, as in topxgen/text/languages.tsv")
    group.add_argument(
        "--step", type=int_range(0), default=0, help="which translate_{step}.jsonl; only 0 has references [%(default)s]"
    )
    group.add_argument("--allow_partial", **FLAG, help="score runs that are not done too, on what there is")

    group = parser.add_argument_group("metrics")
    group.add_argument("--metrics", nargs="+", choices=metrics.METRICS, metavar="METRIC", help="[bleu chrf lang]")
    group.add_argument(
        "--tokenize",
        choices=metrics.TOKENIZERS,
        default="auto",
        help="of BLEU; auto: flores200 where its model can be had, else 13a, or what the script needs [%(default)s]",
    )
    group.add_argument("--lid_model", default="cld2", metavar="CLD2_PATH_OR_ID", help="for lang [%(default)s]")

    group = parser.add_argument_group("significance")
    group.add_argument("--baseline", type=Path, metavar="DIR", help="what all others are compared to")
    group.add_argument("--trials", type=int_range(1), default=10000, help="of the test [%(default)s]")
    group.add_argument(
        "--bootstrap", type=int_range(0), default=0, metavar="N", help="samples for 95%% intervals [none]"
    )
    group.add_argument("--seed", type=int_range(0), default=12345, help="[%(default)s, sacrebleu's]")

    group = parser.add_argument_group("files")
    group.add_argument("--csv", type=Path, metavar="FILE", help="one row a system")
    group.add_argument("--json", type=Path, metavar="FILE", help="everything: signatures, versions, fingerprints")
    return parser


def evaluate(args: argparse.Namespace) -> dict:
    """All that --json holds: for each test set and direction, the systems with their scores. Raises UsageError."""
    names = list(dict.fromkeys(args.metrics or metrics.METRICS))
    if args.step:
        if args.metrics and set(names) - metrics.NEED_NO_REFERENCES:
            raise UsageError(
                f"--step {args.step}: phrases have no references; choose --metrics {' '.join(metrics.NEED_NO_REFERENCES)}"
            )
        names = [name for name in names if name in metrics.NEED_NO_REFERENCES]
    baselines = find_runs([args.baseline], args.step) if args.baseline else []
    folders = {folder.resolve(): folder for folder in baselines + find_runs(args.dirs, args.step)}

    @cache
    def load_test_set(dataset, src, tgt, max_samples, test_files):
        return evaluation_sets.load(
            dataset,
            src,
            tgt,
            folder=args.benchmark_dir,
            max_samples=max_samples,
            test_files=test_files,
            need_pool=False,
        )

    groups: dict[tuple, list[System]] = {}
    for folder in folders.values():
        system = read_system(folder, args, load_test_set)
        if system is not None:
            groups.setdefault(system.test, []).append(system)
    if not groups:
        raise UsageError("nothing is translated yet")
    ordered = sorted(
        groups.values(), key=lambda systems: (systems[0].dataset, systems[0].src.name, systems[0].tgt.name)
    )
    settings = metrics.MetricSettings(args.tokenize, args.lid_model)
    resolved = {folder.resolve() for folder in baselines}
    report = {
        "trials": args.trials if args.baseline else 0,
        "bootstrap": args.bootstrap,
        "seed": args.seed,
        "versions": provenance.versions(),
        "groups": [score_group(systems, names, resolved, args, settings) for systems in ordered],
    }
    if args.baseline:
        for group in report["groups"]:
            if not group["baseline"]:
                others = ", ".join(system["path"] for system in group["systems"])
                logger.info(
                    f"--baseline {args.baseline} has not the same sentences of {title_of(group)} as {others}: not compared"
                )
    return report


def score_group(
    systems: list[System],
    names: list[str],
    baselines: set[Path],
    args: argparse.Namespace,
    settings: metrics.MetricSettings,
) -> dict:
    """The scores of systems on one test set, and their differences from the one that is in `baselines`."""
    from comptra.scores import significance

    systems = sorted(systems, key=lambda system: system.folder.resolve() not in baselines)
    first = systems[0]
    bases = [system for system in systems if system.folder.resolve() in baselines]
    if len(bases) > 1:
        raise UsageError(
            f"--baseline {args.baseline} holds several systems for {first.dataset} from {first.src.name} into {first.tgt.name}; "
            f"name one: {', '.join(str(system.folder) for system in bases)}"
        )
    test = metrics.Test(first.src, first.tgt, first.sentences, first.references)
    scorers = {name: scorer for name in names if (scorer := metrics.create(name, test, settings))}
    functions = [scorer.scores for scorer in scorers.values()]
    statistics = [[scorer.statistics(system.translations) for scorer in scorers.values()] for system in systems]

    rows = []
    for system, its_statistics in zip(systems, statistics, strict=True):
        values = {
            name: {"score": float(scorer.scores(stats.sum(axis=0)[None])[0])}
            for (name, scorer), stats in zip(scorers.items(), its_statistics, strict=True)
        }
        if args.bootstrap and scorers:
            intervals = significance.bootstrap_intervals(its_statistics, functions, args.bootstrap, args.seed)
            for value, interval in zip(values.values(), intervals, strict=True):
                value["interval"] = list(interval)
        rows.append(
            {
                "name": system.short_name,
                "path": str(system.folder),
                "sentences": len(system.translations),
                "missing": system.missing,
                "unanswered": system.unanswered,
                "empty": sum(not text.strip() for text in system.translations),
                "translations_digest": provenance.digest(system.translations),
                "scores": {name: values.get(name) for name in names},
                "settings": system.settings,
            }
        )
    shown = [row["name"] for row in rows]
    for row in rows:  # two outputs of one model
        if shown.count(row["name"]) > 1:
            row["name"] = row["path"]
    if bases and len(systems) > 1 and scorers:
        p_values = significance.randomization_p_values(statistics[0], statistics[1:], functions, args.trials, args.seed)
        for name, column in zip(scorers, p_values.T.tolist(), strict=True):
            for row, p, corrected in zip(rows[1:], column, significance.holm(column), strict=True):
                row["scores"][name] |= {"p": p, "p_holm": corrected}
    return {
        "dataset": "/".join(dict.fromkeys(system.dataset for system in systems)),  # of one test set: flores/topxgen
        "src": first.src.name,
        "tgt": first.tgt.name,
        "step": args.step,
        "sentences": len(first.sentences),
        "test_set": first.facts,
        "sources_digest": provenance.digest(first.sentences),
        "references_digest": provenance.digest(first.references) if first.references is not None else None,
        "baseline": str(bases[0].folder) if bases else None,
        "titles": {name: scorers[name].title if name in scorers else name for name in names},
        "signatures": {name: scorer.signature for name, scorer in scorers.items()},
        "systems": rows,
    }


def print_report(args: argparse.Namespace) -> int:
    """Score, print the table and write the files; the exit code."""
    report = evaluate(args)
    print(table(report))
    if args.csv:
        write_atomic(args.csv, [csv_text(report)])
    if args.json:
        write_json(args.json, report)
    return 0


def main() -> int:
    return run_main(build_parser(), print_report, "the translations are unchanged; fix the problem and re-run")


if __name__ == "__main__":
    sys.exit(main())
