"""What main.py and comptra.evaluate load that does not come with the package."""

import argparse
from collections.abc import Collection, Iterable, Sequence

from comptra import checks, evaluation_sets
from comptra.scores import comet, neural
from comptra.scores.flags import metric_names
from comptra.scores.metrics import AUTO, DEFAULT, MetricSettings
from topxgen import inference
from topxgen.common import needs
from topxgen.common.needs import SENTENCEPIECE, SPACY, Need
from topxgen.corpora import benchmarks
from topxgen.quality import blaser, comet_models, mt5, sonar
from topxgen.text import language_id, languages
from topxgen.text.languages import Language
from topxgen.text.spacy_pipelines import SPACY_MODELS

WITHOUT_MODEL = "BLEU falls back to 13a, zh or char, by the script"
TOKENIZERS = {"auto": "flores200"} | {name: name for name in ("flores200", "flores101", "spBLEU-1K")}  # of --tokenize


def of_translation(
    args: argparse.Namespace, sources: Collection[Language], targets: Collection[Language]
) -> list[Need]:
    """What a command of main.py needs, in these directions."""
    found: list[Need] = []
    if checks.uses_llm(args) and args.inference_api not in inference.REMOTE:
        names = *(args.model_name_or_path or ()), args.base_model_name_or_path
        found += needs.models(*names, tokenizer=args.tokenizer_name_or_path)
    if args.method_translate == "nllb":
        found += needs.models(args.nllb_name_or_path)
    if checks.uses_blaser(args):
        found += blaser.needs(args.blaser_name_or_path, args.sonar_name_or_path)
    if args.retriever_type == "SONAR" and checks.shows_demonstrations(args):
        found += sonar.needs(args.sonar_name_or_path)
    if checks.judges_quality(args) and args.selection_method == "comet-qe":
        found += comet_models.needs(args.comet_name_or_path, args.comet_python)
    if args.steps:
        found += language_id.needs(args.lid_model)
    if _parses(args):
        names = (args.spacy_model or SPACY_MODELS.get(source.iso639_1) for source in sources)
        found += [Need(SPACY, name) for name in dict.fromkeys(names) if name]
    return found + of_test_set(args, [*sources, *targets])


def _parses(args: argparse.Namespace) -> bool:
    """Whether a spaCy pipeline of the source language is loaded."""
    return bool(
        args.method_translate in checks.ANNOTATED
        or (args.retriever_type in checks.PARSING_RETRIEVERS and checks.shows_demonstrations(args))
        or (args.steps and args.method_divide in checks.PARSING_DIVIDERS)
    )


def of_test_set(args: argparse.Namespace, chosen: Sequence[Language]) -> list[Need]:
    dataset = evaluation_sets.DATASETS.get(args.dataset_name_or_path)
    splits = [split[0] for split in (dataset.test, dataset.pool) if split] if dataset else []
    folder = benchmarks.folder_or_default(args.benchmark_dir)
    return [need for name in dict.fromkeys(splits) for need in benchmarks.needs(name, chosen, folder)]


def of_evaluation(args: argparse.Namespace, names: Iterable[str] = ()) -> list[Need]:
    """What a command of comptra.evaluate needs for the metrics that it names; `names`: languages of the runs that it scores.

    --metrics auto takes what there is, and needs nothing but what surface metrics do.
    """
    settings = MetricSettings.from_args(args)
    chosen = [languages.find(name, args.languages_file) for name in dict.fromkeys(names)]
    found = of_test_set(args, chosen)
    metrics = [*DEFAULT, *args.metrics] if AUTO in (args.metrics or ()) else metric_names(args)
    for name in [*metrics, args.ensemble_by or ""]:
        found += of_metric(name, settings)
    judge = settings.judge
    if judge is not None and judge.inference_api not in inference.REMOTE:
        found += needs.models(judge.model.model_name_or_path, tokenizer=judge.model.tokenizer_name_or_path)
    return list(dict.fromkeys(found))


def of_metric(name: str, settings: MetricSettings) -> list[Need]:
    """What a metric of METRICS loads; nothing is known of the user's own."""
    if name == "lang":
        return language_id.needs(settings.lid_model)
    tokenizer = settings.tokenize if name == "bleu" else name.removeprefix("bleu-")
    if name.startswith("bleu") and tokenizer in TOKENIZERS:
        return [Need(SENTENCEPIECE, TOKENIZERS[tokenizer], fallback=WITHOUT_MODEL if tokenizer == "auto" else "")]
    if name == "blaser-qe":
        return blaser.needs(settings.blaser_name_or_path, settings.sonar_name_or_path)
    if name.startswith("metricx-"):
        version, with_reference = int(name.split("-")[1]), not name.endswith("-qe")
        return mt5.needs(neural.metricx_model(settings.metricx_name_or_path, version, with_reference))
    if name == "mt-ranker":
        return mt5.needs(settings.mt_ranker_name_or_path)
    if name in comet.MODELS:
        return comet_models.needs(settings.model_of(name, comet.MODELS[name]), settings.comet_python)
    return []
