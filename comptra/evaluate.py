"""Score the translations of main.py by surface and neural metrics, with significance against a baseline.

    python -m comptra.evaluate outputs/flores --baseline outputs/flores/Meta-Llama-3-8B --csv scores.csv --json scores.json

DIR is the folder of a run (`{model}/{src}_to_{tgt}_{k}_shot_…`, which holds translate_0.jsonl) or any folder above runs,
of main.py or of the original code. The original's do not record what they translate; name it, if no folder above them does
(FLORES, NTREX-128, TICO-19):

    python -m comptra.evaluate original/outputs --dataset_name_or_path flores --benchmark_dir ~/benchmarks

The flags of the original's evaluation (--data_dir, --strategies, --names, --languages, --metric …) are understood, too.

+ and - mark scores that are better and worse than the baseline's with p < 0.05 by paired approximate randomisation (Riezler
and Maxwell 2005), with Holm's correction if several systems are compared. Only systems on the same sentences of the same
direction are compared. A folder that cannot be scored, and a metric that cannot be computed, is named and skipped, and the exit
code is 3.
"""

import argparse
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from comptra import evaluation_sets, guard
from comptra.needs import of_evaluation as needs
from comptra.needs import of_test_set
from comptra.scores import ensemble, gemba, original_flags
from comptra.scores.flags import METRIC_RULES, add_metric_flags, add_model_flags, check_judge
from comptra.scores.systems import System, find_runs, loader_of_test_sets, read_system
from comptra.scoring import score_groups, usable_metrics
from comptra.significance import averages
from comptra.tables import every_eval_ever, export, model_card, series, title_of
from topxgen.common import checksums, flag_rules, hub, provenance
from topxgen.common.cli import EXIT_INCOMPLETE, FLAG, Parser, choice, count, int_range, limit, run_main
from topxgen.common.console import show
from topxgen.common.errors import UsageError
from topxgen.common.files import check_output_directory, check_output_files, csv_text, to_line, write_atomic, write_json
from topxgen.common.flag_rules import Rule
from topxgen.common.needs import Need
from topxgen.flags import add_benchmark_flags, add_language_flags
from topxgen.text import language_id

logger = logging.getLogger(__name__)
MAX_SAMPLES = 1_000_000  # of --trials and --bootstrap
# Of the files to write: an earlier one is replaced, another file is not.
BEGINNINGS = {
    "--csv": "dataset,src,tgt,step,system,",
    "--json": r'\{\s*"trials": ',
    "--markdown": r"## [^\n]+\n\n\| ",
    "--latex": r"% \\usepackage\{booktabs,graphicx\}\n",
    "--segments": r'\{"dataset": "|dataset,direction,system,',
}

RULES = (
    *METRIC_RULES,
    Rule(
        ("dataset_name_or_path", "test_files", "benchmark_dir", "allow_partial_benchmark"),
        "--step 0: phrases have no references",
        lambda args: not args.step,
        harmless=True,
    ),
    Rule(("ensemble_dir",), "--ensemble_by", lambda args: args.ensemble_by),
    Rule(("ensemble_by",), "--ensemble_dir and --step 0", lambda args: args.ensemble_dir and not args.step),
)


class _Parser(Parser):
    """Also understands the flags of the original's evaluation."""

    def parse_args(self, args=None, namespace=None):
        words = sys.argv[1:] if args is None else list(args)
        try:
            words = original_flags.translated(words)
        except UsageError as error:
            self.error(str(error))
        if args is None:
            sys.argv = [sys.argv[0], *words]
        return super().parse_args(None if args is None else words, namespace)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        __doc__,
        section="evaluate",
        rules=RULES,
        check=check_judge,
        incomplete="folders that could not be scored, or metrics that could not be computed",
        prog="python -m comptra.evaluate",
    )
    parser.add_argument("dirs", nargs="+", type=Path, metavar="DIR", help="folders of runs, or folders above them")

    _add_data_flags(parser.add_argument_group("what was translated").add_argument)
    add_metric_flags(parser.add_argument_group("metrics").add_argument)
    add_model_flags(parser.add_argument_group("models of metrics").add_argument)
    judges = "an LLM that judges (--metrics gemba-da, gemba-mqm, gemba-esa)"
    gemba.add_flags(parser.add_argument_group(judges).add_argument)

    add = parser.add_argument_group("best of two systems").add_argument
    # fmt: off
    add("--ensemble_by", metavar="METRIC",
        help="also score the best of two systems, of each sentence the translation that this metric without references prefers: "
             "blaser-qe, metricx-24-qe, cometkiwi … [none]")
    add("--ensemble_dir", type=Path, metavar="DIR", help="where it is written, a folder for each direction")

    add = parser.add_argument_group("significance").add_argument
    add("--baseline", type=Path, metavar="DIR",
        help="folder of the system that the others are compared with; of a run, its system in the other directions, too [none]")
    add("--trials",
        **count(1, "trials of the approximate randomisation test (top cluster, --baseline)", 10000, MAX_SAMPLES))
    add("--bootstrap", **count(0, "samples for 95%% confidence intervals and the paired bootstrap test", 0, MAX_SAMPLES))
    add("--seed", type=int_range(0, 2**32 - 1), default=12345, help="of trials and samples [%(default)s, sacreBLEU's]")

    add = parser.add_argument_group("files to write").add_argument
    add("--csv", type=Path, metavar="FILE", help="scores, one row per system and direction")
    add("--json", type=Path, metavar="FILE", help="scores, signatures, versions, settings and digests")
    add("--markdown", type=Path, metavar="FILE", help="the tables in Markdown")
    add("--latex", type=Path, metavar="FILE", help="the tables in LaTeX (booktabs), to \\input in a paper")
    add("--every_eval_ever", type=Path, metavar="DIR", help="records of Every Eval Ever, one per system and test set")
    add("--model_card", nargs="+", type=Path, metavar="DIR",
        help="folders of train.py or merge_lora.py: add the scores of their models to their cards (README.md), as model-index "
             "and a table")
    # fmt: on
    add("--plot", type=Path, metavar="FILE", help="scores of checkpoints against steps, as .png, .svg or .pdf")
    add("--segments", type=Path, metavar="FILE", help="scores of each segment: JSON lines, or CSV if it ends in .csv")
    return parser


def _add_data_flags(add) -> None:
    # fmt: off
    add("--dataset_name_or_path",
        **choice(evaluation_sets.DATASETS, None, "test set of the runs", "as main.py recorded it"))
    add_benchmark_flags(add, "that of main.py, if it is still there, else the Hub")
    add("--test_files", nargs=2, type=Path, metavar=("SRC", "REF"),
        help="files: sources and references, as for main.py [as main.py recorded them]")
    # fmt: on
    add_language_flags(add)
    add("--max_samples", type=limit, metavar="N", help="score only the first N sentences; -1: all [all]")
    add("--step", **count(0, "score translate_{N}.jsonl; above 0 these are phrases, which have no references", 0))
    add("--allow_partial", **FLAG, help="also score unfinished runs, on the sentences they have")


def evaluate(args: argparse.Namespace, load_test_set: Callable | None = None) -> tuple[dict, Iterator[dict]]:
    """The report (--json): for each test set and direction, the systems with their scores; and the rows of --segments.

    `load_test_set`: in place of `loader_of_test_sets`. Raises UsageError.
    """
    names = usable_metrics(args, bool(args.baseline))
    baselines = find_runs([args.baseline], args.step) if args.baseline else []
    folders = {folder.resolve(): folder for folder in baselines + find_runs(args.dirs, args.step)}
    load_test_set = load_test_set or loader_of_test_sets(folders, args.benchmark_dir, args.allow_partial_benchmark)
    groups: dict[tuple, list[System]] = {}
    skipped: dict[str, str] = {}
    for folder in folders.values():  # one bad folder of a tree must not hide the scores of the others
        try:
            if system := read_system(folder, args, load_test_set):
                groups.setdefault(system.test, []).append(system)
        except UsageError as error:
            skipped[str(folder)] = str(error)
    if not groups:
        more = f" (and {len(skipped) - 1} other folders)" if len(skipped) > 1 else ""
        raise UsageError(next(iter(skipped.values()), "nothing is translated yet") + more)
    if args.ensemble_by:
        ensemble.add(list(groups.values()), args)
    ordered = sorted(groups.values(), key=lambda group: (group[0].dataset, group[0].src.name, group[0].tgt.name))
    resolved = with_other_directions({folder.resolve() for folder in baselines}, ordered)
    scored, summary, failed, rows = score_groups(ordered, names, resolved, args)
    report = {
        "trials": args.trials if any(group.get("clusters") for group in scored) else 0,
        "bootstrap": args.bootstrap,
        "seed": args.seed,
        "versions": provenance.versions(),
        "skipped": skipped,
        "failed_metrics": failed,
        "groups": scored,
        "summary": summary,
        "notes": averages.notes(summary) + guard.base_models_note(scored),
    }
    for group in report["groups"] if args.baseline else ():
        if not group["baseline"]:
            others = ", ".join(system["path"] for system in group["systems"])
            what = f"translation of {title_of(group)} as {others} has"
            logger.info(f"not compared: --baseline {args.baseline} has no {what}")
    return report, rows


def with_other_directions(baselines: set[Path], groups: list[list[System]]) -> set[Path]:
    """The folders of the baseline, and of the same system in directions that these have no run of."""
    names = averages.names_of(groups)
    same = {names[str(one.folder)] for group in groups for one in group if one.folder.resolve() in baselines}
    without = [group for group in groups if baselines.isdisjoint(one.folder.resolve() for one in group)]
    return baselines | {one.folder.resolve() for group in without for one in group if names[str(one.folder)] in same}


def print_report(args: argparse.Namespace) -> int:
    """Score, print the table and write the files; the exit code."""
    check_judge(args)
    flag_rules.check(RULES, args)
    names = ("csv", "json", "markdown", "latex", "plot", "segments")
    check_output_files({f"--{name}": getattr(args, name) for name in names}, BEGINNINGS)
    if args.plot:
        series.check_format(args.plot)
    for flag in ("every_eval_ever", "ensemble_dir", "cache_dir"):
        if folder := getattr(args, flag):
            check_output_directory(folder, f"--{flag} {folder}")
    if args.model_card:
        model_card.check(args.model_card)
    # Folders that record a data set which is missing are skipped one by one; what the command names must be there.
    of_metrics: list[Need] = []
    with suppress(UsageError):  # a metric that cannot be used is left out, and named then
        of_metrics = needs(args)
    hub.require([*of_test_set(args, ()), *language_id.needs(args.lid_model)], others=of_metrics)
    report, rows = evaluate(args)
    show(export.terminal(report, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
    for file, make in ((args.csv, export.csv_text), (args.markdown, export.markdown), (args.latex, export.latex)):
        if file:
            write_atomic(file, [make(report)])
    if args.json:
        write_json(args.json, report)
    if args.every_eval_ever:
        every_eval_ever.write(report, args.every_eval_ever, int(time.time()))
    if args.segments:
        as_csv = args.segments.suffix.lower() == ".csv"
        write_atomic(args.segments, [csv_text(rows)] if as_csv else map(to_line, rows))
    for file in filter(None, (args.csv, args.markdown, args.latex, args.json, args.segments)):
        checksums.claim_file(file)
    for line in model_card.write(report, args.model_card or ()):
        logger.warning(line)
    for folder, reason in report["skipped"].items():
        logger.warning(f"not scored: {reason if folder in reason else f'{folder}: {reason}'}")
    if args.plot:  # the last, as it may have nothing to show
        series.plot(report, args.plot)
        checksums.claim_file(args.plot)
    return EXIT_INCOMPLETE if report["skipped"] or report["failed_metrics"] else 0


def main() -> int:
    return run_main(build_parser(), print_report, "the translations are unchanged; fix the problem and re-run")


if __name__ == "__main__":
    sys.exit(main())
