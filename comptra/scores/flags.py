"""Flags of comptra.evaluate that choose metrics and their models, and which of them have no effect without which metric."""

import argparse
from pathlib import Path

from comptra.scores import metrics
from topxgen.common.cli import choices_help, count
from topxgen.common.errors import UsageError
from topxgen.common.flag_rules import Rule
from topxgen.common.registry import Choice
from topxgen.flags import MODEL_FLAGS, add_language_id_flag, add_quality_flags, engine_rules
from topxgen.quality import mt_ranker

# What --metrics accepts.
CHOICES = metrics.METRICS | {alias: Choice("", f"the same as {name}") for alias, name in metrics.ALIASES.items()}
CHOICES[metrics.AUTO] = Choice(
    "", "those that this machine can run without a download; says what it leaves out and why"
)

COMETS = tuple(name for name, row in metrics.METRICS.items() if row.family == "comet")
GEMBAS = tuple(name for name, row in metrics.METRICS.items() if row.family == "gemba")
METRICX = tuple(name for name, row in metrics.METRICS.items() if row.family == "metricx")


def metric_names(args: argparse.Namespace) -> list[str]:
    """The metrics that flags of comptra.evaluate choose, each once and by its name in METRICS; with auto all, see scoring.usable_metrics."""
    names = args.metrics or (["lang"] if args.step else metrics.DEFAULT)  # phrases have no references
    if metrics.AUTO in names:
        names = [*metrics.METRICS, *names]
    return list(dict.fromkeys(metrics.ALIASES.get(name, name) for name in names if name != metrics.AUTO))


def measures(args: argparse.Namespace, *chosen: str) -> bool:
    """Whether one of these metrics is computed; one of the user's own ("module:attribute") may use any flag."""
    return any(name in chosen or ":" in name for name in computed(args))


def computed(args: argparse.Namespace) -> list[str]:
    """The metrics that score, or choose between two systems; of comptra.evaluate alone the latter."""
    return [*metric_names(args), *filter(None, [getattr(args, "ensemble_by", None)])]


def check_judge(args: argparse.Namespace) -> None:
    """Raise UsageError for a metric that asks an LLM, without one: a run of several days should not miss it at its last stage."""
    for flag, names in (("metrics", args.metrics or ()), ("ensemble_by", [args.ensemble_by])):
        if (name := next(filter(GEMBAS.__contains__, names), None)) and not args.judge_model_name_or_path:
            raise UsageError(f"--{flag} {name} needs --judge_model_name_or_path, the LLM that judges")


JUDGE_FLAGS = tuple(f"judge_{flag}" for flag in ("model_name_or_path", "prompt_style", "max_new_tokens", *MODEL_FLAGS))
# fmt: off
METRIC_RULES = (
    Rule(("tokenize",), "--metrics bleu", lambda args: measures(args, "bleu")),
    Rule(("metricx_name_or_path",), "--metrics metricx-24 or the like", lambda args: measures(args, *METRICX)),
    Rule(("blaser_name_or_path", "sonar_name_or_path"), "--metrics blaser-qe", lambda args: measures(args, "blaser-qe")),
    Rule(("mt_ranker_name_or_path",), "--metrics mt-ranker", lambda args: measures(args, "mt-ranker")),
    Rule(("metric_dtype", "metric_batch_tokens"), "--metrics blaser-qe, metricx-… or mt-ranker",
         lambda args: measures(args, *METRICX, "blaser-qe", "mt-ranker")),
    Rule(("comet_models",), "--metrics that name each of its metrics",
         lambda args: {name for name, _ in args.comet_models} <= {*computed(args)}),
    Rule(("comet_python",), "--metrics comet or a relative", lambda args: measures(args, *COMETS)),
    Rule(JUDGE_FLAGS, "--metrics gemba-da, gemba-mqm or gemba-esa", lambda args: measures(args, *GEMBAS)),
    *engine_rules("judge_", api=("budget",), local=("tokenizer_name_or_path", "trust_remote_code")),
    Rule(("judge_request_batch_size",), "--judge_inference_api hf", lambda args: args.judge_inference_api == "hf"),
)
# fmt: on


def add_metric_flags(add) -> None:
    """Which metrics, and what the surface ones need. `add`: add_argument of a group."""
    # fmt: off
    add("--metrics", nargs="+", choices=CHOICES, metavar="METRIC",
        help=choices_help("metrics to compute", CHOICES, f"{' '.join(metrics.DEFAULT)}; with --step above 0 lang"))
    add("--tokenize", choices=metrics.TOKENIZERS, default="auto",
        help="sacreBLEU's tokenizer for BLEU; auto: flores200 if its model can be loaded, else zh, char or 13a by the "
             "script")
    add_language_id_flag(add)
    add("--cache_dir", type=Path, metavar="DIR",
        help="where scores of segments are kept for later runs [$TOPXGEN_CACHE/scores, ~/.cache/topxgen/scores]")
    # fmt: on


def comet_model(text: str) -> tuple[str, str]:
    """An argument type: METRIC=MODEL."""
    metric, _, model = text.partition("=")
    if not model or metric not in COMETS:
        raise argparse.ArgumentTypeError(f"{text!r} is not METRIC=MODEL with a metric of {', '.join(COMETS)}")
    return metric, model


def add_model_flags(add) -> None:
    """The models of neural metrics."""
    # fmt: off
    add("--metricx_name_or_path", nargs="+", default=[], metavar="MODEL",
        help="MetricX models, folders or Hub ids; the names say for which of the metrics each is (metricx-23, metricx-23-qe, "
             "metricx-24) [the published ones of size large]")
    add_quality_flags(add)
    add("--mt_ranker_name_or_path", default=mt_ranker.DEFAULT, metavar="MODEL",
        help="MT-Ranker, a folder or Hub id [%(default)s]")
    add("--comet_models", nargs="+", type=comet_model, default=(), metavar="METRIC=MODEL",
        help="COMET models, as Hub ids or local paths: cometkiwi=models/wmt22-cometkiwi-da [those that docs/scoring.md lists]")
    add("--comet_python", metavar="PYTHON",
        help="Python interpreter of COMET's environment [$COMET_PYTHON, else .venv-comet/bin/python]")
    add("--metric_dtype", choices=("float32", "bfloat16"),
        help="precision of these models [bfloat16 on a GPU, else float32; SONAR: float32]")
    # fmt: on
    add("--metric_batch_tokens", **count(1, "tokens of a batch, padding included; fewer need less memory", None))
