"""Translate the flags of the original's evaluation to those of comptra.evaluate, with a line for each that means something else here."""

import argparse
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from comptra.scores.original_trees import dataset_named
from comptra.scores.systems import direction_of, find_runs
from topxgen.common.cli import FLAG, int_range
from topxgen.common.errors import UsageError
from topxgen.text import languages

logger = logging.getLogger(__name__)
ENSEMBLE_BY, ENSEMBLE_DIR = "blaser-qe", "best-of-two"
# Flags without an effect, and why.
IDLE = {
    "max_input_length": "MetricX reads as many tokens as its publishers trained it on",
    "batch_size": "batches are made of segments of like length (--metric_batch_tokens)",
    "num_workers": "no worker reads data",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    add = parser.add_argument
    for flag in ("--data_dir", "--model_name_or_path", *(f"--{flag}" for flag in IDLE)):
        add(flag)
    for flag in ("--strategies", "--names", "--languages", "--metric"):
        add(flag, nargs="+")
    add("--number_of_predictions", type=int_range(1))
    add("--ensembling", **FLAG)
    return parser


def translated(words: Sequence[str]) -> list[str]:
    """The words of a command line without flags of the original. Raises UsageError for what they name and is not there."""
    parser = _parser()
    flags = {flag for action in parser._actions for flag in action.option_strings}
    if not flags & {word.split("=")[0] for word in words}:
        return list(words)
    parser.add_argument("--dataset_name_or_path")  # ours, too
    args, rest = parser.parse_known_args(list(words))
    found: list[str] = []
    if args.data_dir is not None:
        found += map(str, _runs(args))
    elif chosen := [flag for flag in ("strategies", "names", "languages") if getattr(args, flag)]:
        raise UsageError(f"--{chosen[0]} chooses among the folders of --data_dir; pass it")
    if args.dataset_name_or_path is not None:
        found += ["--dataset_name_or_path", args.dataset_name_or_path]
    found += _metrics(args.metric or (), args.model_name_or_path)
    if args.number_of_predictions is not None:
        logger.info(
            f"--number_of_predictions: the first {args.number_of_predictions} sentences are scored (--max_samples)"
        )
        found += ["--max_samples", str(args.number_of_predictions)]
    if args.ensembling and not any(word.split("=")[0] == "--ensemble_by" for word in rest):
        folder = Path(args.data_dir or ".") / ENSEMBLE_DIR
        logger.info(
            f"--ensembling: the best of two systems by {ENSEMBLE_BY}, written to {folder} (--ensemble_by chooses another metric)"
        )
        found += ["--ensemble_by", ENSEMBLE_BY, "--ensemble_dir", str(folder)]
    for flag, why in IDLE.items():
        if getattr(args, flag) is not None:
            logger.info(f"--{flag} has no effect: {why}")
    return [*found, *rest]


def _runs(args: argparse.Namespace) -> list[Path]:
    """The folders of runs in --data_dir that --dataset_name_or_path, --strategies, --names and --languages choose."""
    root, dataset = Path(args.data_dir), args.dataset_name_or_path
    if root.is_dir() and dataset is not None:
        folders = filter(Path.is_dir, sorted(root.iterdir()))
        below = [folder for folder in folders if dataset_named(folder.name) == dataset]
        root = below[0] if len(below) == 1 else root
    runs = [run for run in find_runs([root], 0) if ENSEMBLE_DIR not in run.relative_to(root).parts]
    for flag in ("strategies", "names"):
        for name in getattr(args, flag) or ():
            if not any(name in _above(run, root) for run in runs):
                known = sorted({part for run in runs for part in _above(run, root)})
                raise UsageError(
                    f"--{flag} {name}: no folder above the runs in {root} has the name ({', '.join(known)})"
                )
        if names := getattr(args, flag):
            runs = [run for run in runs if {*names} & {*_above(run, root)}]
    if args.languages:
        wanted = {languages.find(name).flores for name in args.languages}
        runs = [run for run in runs if wanted & {language.flores for language in direction_of(run.name)}]
    if not runs:
        raise UsageError(f"no runs in {root} are of the --strategies, --names and --languages that are given")
    return runs


def _above(run: Path, root: Path) -> Iterable[str]:
    return run.relative_to(root).parts[:-1]


def _metrics(names: Sequence[str], model: str | None) -> list[str]:
    """--metrics, and the flag of the model that the original's --model_name_or_path names."""
    if not names:
        if model is not None:
            logger.info("--model_name_or_path has no effect without --metric: it names the metric's model")
        return []
    base = Path(model or "").name.lower()
    chosen = [_metric(name, base) for name in names]
    words = ["--metrics", *chosen]
    if model is None:
        return words
    if any(name.startswith("metricx") for name in chosen):
        return [*words, "--metricx_name_or_path", model]
    if comet := [name for name in chosen if "comet" in name]:
        return [*words, "--comet_models", f"{comet[0]}={model}"]
    logger.info(f"--model_name_or_path has no effect with --metric {' '.join(names)}")
    return words


def _metric(name: str, model: str) -> str:
    """The metric of METRICS that the original's name and the name of its model mean."""
    if name == "metricx":
        version = re.search(r"metricx-(23-qe|23|24)", model)
        return f"metricx-{version[1] if version else '24'}"
    if name == "comet":
        return next((ours for part, ours in (("kiwi", "cometkiwi"), ("xcomet", "xcomet")) if part in model), "comet")
    return name
