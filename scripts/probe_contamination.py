"""Was a test set in a model's training data? Compare how it translates the test set and twins of it, which no model has seen.

    python scripts/probe_contamination.py --model_name_or_path outputs/my-run --base_model_name_or_path BASE \\
        --dataset_name_or_path ntrex --benchmark_dir /data/benchmarks --src Basque --tgt English --output_dir outputs/probe

A twin is the test set with other numbers and names, swapped consistently in sources and references; sentences in which nothing
can be swapped are left out. main.py translates the original and its twins with every model (all its flags work here, too), and the
report says how much better the original fares, with an interval, and which of its values come back in translations of twins. With
--base_model_name_or_path both are compared with a model from before the training that is in doubt.

If a run is interrupted, re-run the same command: it resumes where it left off. docs/evaluation.md says what the verdict can
and cannot tell.
"""

import argparse
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from comptra import checks, methods
from comptra.config import EvaluationConfig, configurations, directions
from comptra.contamination import drop, twins
from comptra.contamination.twins import REPORT, SWAPS, TWINS, Twins
from comptra.runner import translate_all
from topxgen import inference
from topxgen.common import checksums, provenance
from topxgen.common.cli import ParsedFlags, Parser, float_range, int_range, run_main
from topxgen.common.console import show
from topxgen.common.errors import UsageError
from topxgen.common.files import to_line, write_atomic, write_json
from topxgen.common.hub import model_file
from topxgen.common.locks import OutputLock
from topxgen.experiments.stages import STAGES
from topxgen.text.languages import Language

logger = logging.getLogger("topxgen.probe_contamination")
SETTINGS, POOL = "settings_probe.json", "pool.jsonl"
TRANSLATIONS = "translations"  # the folder of main.py's results
SHOWN = 3  # sentences of a dry run
OWN_FLAGS = ("twins", "margin")


def build_parser() -> Parser:
    parser = STAGES["main"].parser()
    parser.description = __doc__
    # main.py's means the base of adapters, which has not seen what they were trained on.
    parser.flags()["base_model_name_or_path"].help = (
        "the baseline: a model that has not seen the test set, such as the one that was fine-tuned; base model of adapters [no "
        "baseline]"
    )
    parser.flags()["output_dir"].help = "where twins, translations and the report are written; re-run with it to resume"
    parser.flags()["dry_run"].help = "show what would be swapped in the first sentences, then exit"
    add = parser.add_argument_group("the probe").add_argument
    # fmt: off
    add("--twins", type=int_range(1, twins.MAX_TWINS), default=3, metavar="N",
        help=f"how many twins are made, up to {twins.MAX_TWINS}; each is translated")
    add("--margin", type=float_range(0, 100), default=1.0, metavar="POINTS",
        help="chrF++ that the original may be easier than its twins without being suspicious")
    # fmt: on
    return parser


def run(args: argparse.Namespace) -> int:
    """Make the twins, translate, write and show the report; main.py's exit code."""
    if not checks.uses_llm(args) and args.base_model_name_or_path:
        raise UsageError("--base_model_name_or_path is for LLMs; drop it, or run the probe on both translation models")
    if args.method_translate == methods.DIVIDE_ONLY:
        raise UsageError("--method_translate none translates nothing: choose another method")
    folder, plain = args.output_dir, main_flags(args)
    if len(directions(plain)) > 1:
        raise UsageError(
            "the probe takes one direction at a time: pass one --src and one --tgt, and an --output_dir for each"
        )
    (original,) = configurations(plain)
    made = make_twins(original, args)
    if args.dry_run:
        show_swaps(made, original.src, original.tgt)
        return 0
    with OutputLock(folder):
        settings = {
            "src": original.src.name,
            "tgt": original.tgt.name,
            "seed": args.seed,
            "twins": args.twins,
            "test_set_digest": provenance.digest(original.test_set.sources + original.test_set.references),
        }
        provenance.check_settings(folder / SETTINGS, settings)
        provenance.record_settings(folder / SETTINGS, settings)
        write_twins(folder, made, original)
        changes = {
            "dataset_name_or_path": "files",
            "test_files": [folder / TWINS] * 2,
            "output_dir": folder / TRANSLATIONS,
        }
        if original.test_set.pool:
            changes["demonstration_pool"] = [folder / POOL] * 2
        absent = dict.fromkeys(("benchmark_dir", "data_dir", "max_samples")) | {"allow_partial_benchmark": False}
        (config,) = configurations(with_flags(plain, **{"demonstration_pool": None, **absent, **changes}))
        if code := translate_all([config], provenance.command_line(("--api_key",))):
            logger.warning(
                "no report yet, since sentences have no translation; re-run the same command to ask for them again"
            )
            return code
        report = report_on(config, made, len(original.test_set.sources), args)
        write_json(folder / REPORT, report | {"test_set": args.dataset_name_or_path, "settings": settings})
        checksums.claim(folder, [TWINS, SWAPS, POOL, REPORT])
    logger.info(f"report in {folder / REPORT}")
    for system in report["systems"]:
        show(system["verdict"])
    return 0


def main_flags(args: argparse.Namespace) -> argparse.Namespace:
    """The flags as main.py knows them: without ours, and with the baseline as one more model."""
    base, models = _path(args.base_model_name_or_path), [*map(_path, args.model_name_or_path or ())]
    remote = args.inference_api in inference.REMOTE
    adapted = not remote and (args.enable_lora or any(model_file(path, "adapter_config.json") for path in models))
    changes = {}
    if base:
        changes["model_name_or_path"] = [*dict.fromkeys([base, *models])]
    if base and not adapted:
        changes["base_model_name_or_path"] = None
    return with_flags(args, **changes)


def _path(model: str | None) -> str | None:
    """As main.py names it."""
    return model and model.rstrip("/")


def with_flags(args: argparse.Namespace, **changes) -> argparse.Namespace:
    values = {name: value for name, value in vars(args).items() if name not in OWN_FLAGS}
    changed = ParsedFlags(**{**values, **changes})
    changed.given = frozenset(args.given) - {*OWN_FLAGS, *changes}
    return changed


def make_twins(config: EvaluationConfig, args: argparse.Namespace) -> Twins:
    """Raises UsageError if too few sentences can be changed."""
    test_set = config.test_set
    pairs = list(zip(test_set.sources, test_set.references, strict=True))
    made = twins.make(pairs, (config.src.iso639_3, config.tgt.iso639_3), args.twins, args.seed)
    found = f"{len(made.numbers)} of {len(pairs)} sentences have a number or a name that can be swapped on both sides"
    if len(made.numbers) < drop.MIN_SENTENCES:
        raise UsageError(
            f"only {found}, and fewer than {drop.MIN_SENTENCES} say nothing: pass a larger test set, or another language (names are "
            "found where both sides write them in Latin letters, numbers in any script)"
        )
    logger.info(f"{found}; {', '.join(f'{kind}: {n}' for kind, n in made.counts.items())}")
    return made


def write_twins(folder: Path, made: Twins, config: EvaluationConfig) -> None:
    sides = (config.src.name, config.tgt.name)

    def rows(pairs: Iterable[tuple[str, str]]) -> Iterable[str]:
        return (to_line(dict(zip(sides, pair, strict=True))) for pair in pairs)

    variants = [made.originals, *made.twins]
    write_atomic(folder / TWINS, rows(sentence[:2] for variant in variants for sentence in variant))
    write_atomic(
        folder / SWAPS,
        (
            to_line({"sentence": number, "twin": t, "swaps": [swap._asdict() for swap in sentence.swaps]})
            for t, twin in enumerate(made.twins, start=1)
            for number, sentence in zip(made.numbers, twin, strict=True)
        ),
    )
    if config.test_set.pool:
        write_atomic(folder / POOL, rows(config.test_set.pool))


def show_swaps(made: Twins, src: Language, tgt: Language) -> None:
    for number, *variants in list(zip(made.numbers, made.originals, *made.twins, strict=True))[:SHOWN]:
        for t, sentence in enumerate(variants):
            show(
                f"{number}, {f'twin {t}' if t else 'original'}\n  {src.name}: {sentence.source}\n  {tgt.name}: {sentence.reference}"
            )


def report_on(config: EvaluationConfig, made: Twins, total: int, args: argparse.Namespace) -> dict:
    """`total`: the sentences of the test set."""
    baseline = _path(args.base_model_name_or_path)
    folders = {model.name: config.folder(model) for model in config.models}
    base = next((model.name for model in config.models if model.path == baseline), None)
    languages = (config.src, config.tgt)
    found = drop.of_systems([made.originals, *made.twins], folders, languages, base, args.margin, args.seed)
    systems = [
        {"name": name, "path": str(folders[name]), "baseline": baseline if name != base else None, **own}
        for name, own in found.items()
    ]
    return {
        "sentences": len(made.numbers),
        "left_out": total - len(made.numbers),
        "swapped": made.counts,
        "margin": args.margin,
        "level": drop.LEVEL / drop.SIGNALS,
        "samples": drop.SAMPLES,
        "systems": systems,
        "versions": provenance.versions(),
    }


def main() -> int:
    return run_main(build_parser(), run, "finished translations are on disk; re-run the same command to resume")


if __name__ == "__main__":
    sys.exit(main())
