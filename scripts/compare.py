"""Compare ways of making data: run what is missing of an experiment's variants and seeds, then show one table.

    python scripts/compare.py configs/experiments/native_or_synthetic.yaml --dry_run
    python scripts/compare.py configs/experiments/native_or_synthetic.yaml
    python scripts/compare.py configs/experiments/native_or_synthetic.yaml --only native --set ntrex=/data/NTREX-128

The experiment file is a run file with variants, each of which changes some flags, and with seeds of the training. Stages that
variants have in common run once. The run stops at the first stage that fails; start it again to go on. A variant or a seed that is
added later is all that runs then. The table is in the experiment's folder, too: comparison.md, .csv and .json. docs/experiments.md
says what is computed.
"""

import argparse
import logging
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Required

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from comptra.tables import variants as tables
from topxgen.common import checksums, flag_rules, provenance
from topxgen.common.cli import Parser, choice, run_main
from topxgen.common.console import show
from topxgen.common.errors import UsageError, unknown_choice
from topxgen.common.files import read_json, read_jsonl, write_atomic, write_json
from topxgen.common.flag_rules import Rule
from topxgen.common.locks import OutputLock
from topxgen.common.records import JUDGE_RESPONSES
from topxgen.common.schemas import fields
from topxgen.experiments import assets, comparison, stages
from topxgen.experiments.chain import EXIT_INCOMPLETE, RECORDS, Chain, Record, add_running_flags, check_folders, stops
from topxgen.experiments.comparison import Experiment, Job, Variant
from topxgen.inference.response_cache import ResponseRecord
from topxgen.quality import sonar
from topxgen.retrieval import encoders
from topxgen.retrieval.encoders import ENCODERS, EncoderSettings
from topxgen.runs.trainings import Data, LeftOut
from topxgen.statistics.corpus import Corpus, Pair
from topxgen.statistics.describe import Options, encoding
from topxgen.statistics.describe import describe as statistics_of
from topxgen.text import languages
from topxgen.training import training_data
from topxgen.training.dataset_spec import DatasetSpec

logger = logging.getLogger("topxgen.compare")
RESULT = "comparison"  # .md, .csv, .json
# Columns of the table: of the statistics that scripts/data_stats.py computes (docs/statistics.md).
STATISTICS = {
    "words": ("counts", "words_of_sentences"),
    "words/sentence": ("lengths", "words_per_sentence", "mean"),
    "type/token": ("sentences", "type_token_ratio"),
    "distinct-2": ("sentences", "distinct_2"),
    "compression": ("sentences", "compression_ratio"),
    "self-BLEU": ("sentences", "self_bleu"),
}
ENCODED = {  # with --encoder, for languages that it knows
    "Vendi": ("sentences", "vendi_score"),
    "Vendi of sources": ("translations", "vendi_score"),
}
REMEDY = "remove it and start again: its stage writes it"
RULES = (Rule(("sonar_name_or_path",), "--encoder sonar", lambda args: args.encoder == "sonar"),)


_Times = fields(started=str, finished=str)
# What is read of the manifest of a training.
_Trained = fields(data=Required[Data])


def build_parser() -> Parser:
    parser = Parser(__doc__, incomplete="a stage ended with this code, and the run stopped there", uses_apis=True)
    parser.add_argument("file", type=Path, metavar="EXPERIMENT.yaml", help="a run file with variants and seeds")
    parser.add_argument("--only", nargs="+", default=[], metavar="VARIANT", help="run these variants only [all]")
    # fmt: off
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE",
                        help="other values for this run: name=value at the top of the file, section.flag=value for all variants, "
                        "variants.NAME.section.flag=value for one that has its own")
    parser.add_argument("--jobs", nargs="+", default=[], metavar="ID",
                        help="run these commands alone, as --dry_run names them; no table")
    parser.add_argument("--encoder",
                        **choice(ENCODERS, None, "encoder for the Vendi score of the data", "no Vendi score"))
    parser.add_argument("--sonar_name_or_path", default=sonar.DEFAULT, metavar="MODEL",
                        help="--encoder sonar: a folder or Hub id")
    # fmt: on
    add_running_flags(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    flag_rules.check(RULES, args)
    experiment = comparison.read(args.file, args.set)
    for name in args.only:
        if name not in experiment.variants:
            raise unknown_choice("--only", name, experiment.variants)
    encoder = encoders.create(args.encoder, EncoderSettings.from_args(args)) if args.encoder else None
    names = args.only or list(experiment.variants)
    data, runs = experiment.data_jobs(names), experiment.run_jobs(names)
    jobs, chosen = [*data, *runs], {*args.jobs}
    if unknown := sorted(chosen - {job.id for job in jobs}):
        raise unknown_choice("--jobs", unknown[0], [job.id for job in jobs])
    check_folders(job.command for job in jobs)
    check_results(job for job in runs if not chosen or job.id in chosen)
    if args.dry_run:
        for job in jobs:
            show(f"# {job.folder}/{Chain(job.folder).state(job.command)}")
        if not any(Chain(job.folder).reason_to_run(job.command) for job in data):
            check_pairs(experiment, names)
        return 0
    assets.require((job.folder, job.command) for job in jobs if not chosen or job.id in chosen)
    incomplete = 0
    for number, job in enumerate(jobs, start=1):
        if chosen and job.id not in chosen:
            continue
        if job.command.stage == "train" if chosen else number == len(data) + 1:
            check_pairs(experiment, names)
        code = run_job(job, f"=== {number}/{len(jobs)}  {job.id}", args.allow_incomplete)
        if stops(code, args.allow_incomplete):
            return code
        incomplete = incomplete or code
    if chosen:
        return incomplete
    report = describe(experiment, encoder, args.allow_incomplete)
    if encoder:
        encoder.close()
    write(report, experiment.folder)
    show(tables.text(report))
    return incomplete or (EXIT_INCOMPLETE if report["failed_metrics"] else 0)


def run_job(job: Job, title: str, allow_incomplete: bool) -> int:
    """Run a job unless it is complete; its exit code."""
    with OutputLock(job.folder / RECORDS):
        chain = Chain(job.folder)
        if job.command.stage == "merge" and chain.reason_to_run(job.command):  # it never overwrites
            shutil.rmtree(job.command.args.output, ignore_errors=True)
        return chain.complete(job.command, title, allow_incomplete)


def check_results(jobs: Iterable[Job]) -> None:
    """Raise UsageError for a variant that has changed since it was trained or translated."""
    for job in jobs:
        try:
            Chain(job.folder).check_results(job.command)
        except UsageError as error:
            raise UsageError(f"{job.folder}, {error}; a variant whose flags change needs a new name") from None


def check_pairs(experiment: Experiment, names: Collection[str]) -> None:
    """Raise UsageError if a variant has fewer pairs than it is to be trained on: the numbers would not be equal."""
    counts, most, short = [], None, False
    for name in names:
        variant = experiment.variants[name]
        train = variant.runs[0].train
        if variant.pairs is None or train is None:
            continue
        with of_variant(experiment, name):
            found = usable_pairs(train.command.args)
        shares = training_data.shares_of(variant.pairs, len(found))
        short = short or any(there < share for there, share in zip(found, shares, strict=True))
        counts.append(f"{name} {variant.pairs:,} of {' + '.join(f'{there:,}' for there in found)}")
        most = min(filter(None, (most, len(found) * min(found))))
    if short:
        raise UsageError(
            f"{experiment.path}: not all variants have as many pairs as they are to be trained on: {', '.join(counts)}; with pairs: "
            f"{most} all have, or make more data"
        )
    for name in names:  # what two of the data that it mixes have in common counts once
        train = experiment.variants[name].runs[0].train
        if train is not None and experiment.variants[name].pairs is not None and len(train.command.args.data_dir) > 1:
            with of_variant(experiment, name):
                training_data.load(DatasetSpec.from_args(train.command.args))
    for line in counts:
        logger.info(f"pairs: {line}")


@contextmanager
def of_variant(experiment: Experiment, name: str) -> Iterator[None]:
    """A block whose UsageErrors name the variant."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{experiment.path}, variant {name}: {error}") from None


def usable_pairs(args: argparse.Namespace) -> list[int]:
    """How many different pairs train.py can take, of each folder in --data_dir; of several languages the smallest number."""
    spec = DatasetSpec.from_args(args)
    found = []
    for folder in spec.data_dir or (None,):
        own = replace(spec, dataset_size=-1, data_dir=() if folder is None else folder)
        _, facts = training_data.load(own)
        found.append(min(part["counts"]["pairs"] for part in facts["languages"].values()))
    return found


def describe(experiment: Experiment, encoder=None, allow_incomplete: bool = False) -> dict:
    """The report: data, cost and scores of the variants that are complete; with an encoder, Vendi scores of the data."""
    complete = {
        name: variant
        for name, variant in experiment.variants.items()
        if not any(
            Chain(job.folder).reason_to_run(job.command, allow_incomplete) for run in variant.runs for job in run.jobs
        )
    }
    if left_out := [name for name in experiment.variants if name not in complete]:
        logger.info(f"not in the table, since they are not complete: {', '.join(left_out)}")
    if not complete:
        raise UsageError("no variant is complete yet; run it without --only")
    folders = {
        name: [[folder for job in run.translate for folder in translations(job)] for run in variant.runs]
        for name, variant in complete.items()
    }
    baseline = experiment.baseline if experiment.baseline in complete else None
    groups, failed = tables.score(folders, baseline, experiment.scoring)
    statistics = describe_pairs(complete, Options(encode=encoding(encoder) if encoder else None))
    return {
        "experiment": experiment.path.stem,
        "baseline": baseline,
        "samples": tables.SAMPLES,
        "seed": experiment.scoring.seed,
        "versions": provenance.versions(),
        "variants": [
            {
                "name": name,
                "seeds": [run.seed for run in variant.runs if run.seed is not None],
                "equal_pairs": variant.pairs,
                "facts": facts(variant)
                | columns(statistics[name])
                | (columns(statistics[name], ENCODED) if encoder else {}),
                "statistics": statistics[name],
                "jobs": [
                    [job.id, job.command.line]
                    for job in [*variant.data, *(job for run in variant.runs for job in run.jobs)]
                ],
            }
            for name, variant in complete.items()
        ],
        "failed_metrics": failed,
        "groups": groups,
    }


def write(report: dict, folder: Path) -> None:
    """The report as comparison.md, .csv and .json."""
    for suffix, make in ((".md", tables.markdown), (".csv", tables.csv_text)):
        write_atomic(folder / f"{RESULT}{suffix}", [make(report)])
    write_json(folder / f"{RESULT}.json", report)
    checksums.claim(folder, [f"{RESULT}{suffix}" for suffix in (".md", ".csv", ".json")])


def translations(job: Job) -> list[Path]:
    """The folders with the translations of a run of main.py."""
    files = stages.outputs("main", job.command.args)
    return [path.parent for path in files if path.name == "translate_0.jsonl"]


def facts(variant: Variant) -> dict[str, float | int | None]:
    """Size of a variant's data, and what it took. Tokens are those that the LLM read and wrote to generate the data; hours are of
    the last start of each stage, all seeds together."""
    training = [run.train for run in variant.runs if run.train]
    pairs = texts = None
    if training:
        folder = training[0].command.args.output_dir
        data = read_json(folder / "manifest_train.json", _Trained, REMEDY)["data"]
        pairs = sum(part["counts"]["pairs"] for part in data.get("languages", {}).values())
        left_out = folder / "left_out_pairs.jsonl"
        too_long = sum(row["set"] == "training" for row in read_jsonl(left_out, LeftOut)) if left_out.is_file() else 0
        texts = data["train_pairs"] - too_long if "train_pairs" in data else None
    answers = {
        path
        for job in variant.data
        for folder in (job.folder, job.folder.parent)
        for path in folder.glob("*_answers.jsonl")
        if path.name != JUDGE_RESPONSES
    }
    tokens = [
        sum(record.get(key) or 0 for path in answers for record in read_jsonl(path, ResponseRecord))
        for key in ("prompt_tokens", "completion_tokens")
    ]
    return {
        "pairs": pairs,
        "texts": texts,
        "tokens read": tokens[0] if variant.data else None,
        "tokens written": tokens[1] if variant.data else None,
        "hours data": hours(variant.data) if variant.data else None,
        "hours training": hours(job for run in variant.runs for job in (run.train, run.merge) if job)
        if training
        else None,
        "hours translation": hours(job for run in variant.runs for job in run.translate),
    }


def describe_pairs(variants: dict[str, Variant], options: Options) -> dict[str, dict[str, dict]]:
    """By variant and language the statistics of the pairs that its models are trained on (with its first seed); measures of
    diversity on samples of one size for all variants."""
    corpora: dict[str, dict[str, Corpus]] = {}  # by language and variant
    for name, variant in variants.items():
        train = variant.runs[0].train
        if train is None or train.command.args.streaming:
            continue
        args = train.command.args
        for pair in training_data.load(DatasetSpec.from_args(args))[0]:
            if not pair.src:
                continue  # raw text
            own = corpora.setdefault(pair.tgt, {})
            if name not in own:
                src, tgt = (languages.find(side, args.languages_file) for side in (pair.src, pair.tgt))
                own[name] = Corpus(name, "trained on", tgt, src, pairs=[])
            own[name].pairs.append(Pair(pair.target, pair.source))
    found: dict[str, dict[str, dict]] = {name: {} for name in variants}
    for language, own in corpora.items():
        for name, described in zip(own, statistics_of(list(own.values()), options), strict=True):
            found[name][language] = described
    return found


def columns(by_language: dict[str, dict], wanted: dict[str, tuple] = STATISTICS) -> dict[str, float | int | None]:
    """Those that are wanted, with the language if there are several."""
    found = {}
    for language, described in by_language.items():
        for title, keys in wanted.items():
            value = described
            for key in keys:
                value = value[key] if value is not None else None
            found[f"{title} {language}" if len(by_language) > 1 else title] = value
    return found


def hours(jobs: Iterable[Job]) -> float:
    """By the records of the jobs, or by the manifests of their stages where these say more: data that was there before."""
    total = 0.0
    for job in jobs:
        recorded = read_json(Chain(job.folder).record_path(job.command), Record).get("hours", 0.0)
        manifests = [
            path for path in stages.outputs(job.command.stage, job.command.args) if path.name.startswith("manifest_")
        ]
        total += max(recorded, hours_in(manifests))
    return total


def hours_in(manifests: Iterable[Path]) -> float:
    """The time that manifests cover: those of the languages of one start have nearly the same times."""
    read = [read_json(path, _Times, REMEDY) for path in manifests]
    spans = [(times["started"], times["finished"]) for times in read if {"started", "finished"} <= times.keys()]
    seconds, latest = 0.0, None
    for start, end in sorted(tuple(map(datetime.fromisoformat, span)) for span in spans):
        start, latest = max(start, latest or start), max(end, latest or end)
        seconds += max((end - start).total_seconds(), 0.0)
    return seconds / 3600


def main() -> int:
    return run_main(build_parser(), run, "finished stages are recorded; start again to go on")


if __name__ == "__main__":
    sys.exit(main())
