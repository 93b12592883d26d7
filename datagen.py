"""Generate parallel data for a low-resource language: topics -> paragraphs -> sentences -> back-translations -> scores.

With gemma-3-27b-it on a GPU box, as published:

    python datagen.py --model_name_or_path google/gemma-3-27b-it --inference_api vllm --languages Basque Hausa Igbo \\
        --seed_topics_path topics/wikipedia_vital_topics.txt --output_dir outputs/gemma-3-27b-it \\
        --number_of_instructions_per_language 5000 \\
        --number_of_icl_demonstrations 8 --number_of_icl_phrases 4 --max_new_tokens 2048 --use_nllb

Without GPU or network (scripts/demo.sh runs a longer version):

    python datagen.py --model_name_or_path models/gemma-3-270m --languages Basque --back_translator apertium \\
        --seed_topics_path topics/wikipedia_vital_topics.txt --example_paragraphs udhr --example_sentences udhr \\
        --number_of_icl_phrases 4 --number_of_instructions 60 --output_dir outputs/demo

If a run is interrupted, re-run the same command: it resumes. `--dry_run` shows the first prompts and an estimate.
"""

import argparse
import sys
from collections.abc import Collection
from contextlib import ExitStack
from copy import copy
from pathlib import Path

from topxgen import flags, translation
from topxgen.common.cli import FLAG, Parser, choice, choices_help, count, float_range, int_range, limit, run_main
from topxgen.common.locks import OutputLock
from topxgen.common.needs import Need
from topxgen.common.records import NLLB
from topxgen.generation.candidates import SELECTORS
from topxgen.generation.checks import RULES, check_needed
from topxgen.generation.dry_run import dry_run
from topxgen.generation.dry_run import estimates as estimated
from topxgen.generation.filters import FILTERS
from topxgen.generation.manifests import STAGES
from topxgen.generation.pipelines import PIPELINES
from topxgen.generation.plan import GenerationConfig
from topxgen.generation.report import report
from topxgen.generation.run import (
    begin_shard,
    check_settings,
    generate,
    preflight,
    repair_files,
    score,
    take_paragraphs,
    translate,
)
from topxgen.generation.scoring import SCORERS
from topxgen.inference import MAX_BEAMS
from topxgen.inference.costs import Estimate
from topxgen.quality import metricx
from topxgen.retrieval import bm25
from topxgen.retrieval.encoders import ENCODERS
from topxgen.text import sentence_splitting
from topxgen.text.near_duplicates import PREFILTERS
from topxgen.text.words import TOKENIZERS


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        __doc__,
        section="datagen",
        rules=(*RULES, flags.SHARD_RULE),
        check=check_needed,
        incomplete="target not reached, a language without a paragraph, or sentences without a response",
        uses_apis=True,
    )

    add = parser.add_argument_group("what to generate").add_argument
    # fmt: off
    add("--data_generation_pipeline", "--dataset_generation_pipeline", choices=PIPELINES, default="topxgen",
        metavar="PIPELINE",
        help=choices_help("how prompts are made and responses become texts", PIPELINES))
    add("--stages", nargs="+", choices=STAGES, default=list(STAGES),
        help="which stages to run; each reads the files of the one before it [all]")
    add("--languages", nargs="+", required=True, metavar="LANGUAGE",
        help="languages to write in: English names or FLORES codes")
    flags.add_language_flags(add)
    add("--seed_topics_path", metavar="FILE", help="topxgen: topics, txt (one per line) or jsonl")
    add("--paragraphs", nargs="+", metavar="SOURCE",
        help="native texts instead of an LLM's: a txt (one a line), jsonl or parquet file, also file[:900] or file:column, a folder "
             "with {Language}.txt and the like, or a Hub data set id:config:column:split; one, or one for each language")
    add("--output_dir", type=Path, required=True, metavar="DIR",
        help="where everything is written; re-run with the same one to resume")
    add("--translate_dir", metavar="NAME",
        help="folder for translations, inside --output_dir [the back-translator's name]")
    add("--output_filenames", nargs="+", metavar="NAME", help="a file name for each language [{Language}.jsonl]")
    add("--number_of_instructions", **count(0, "stop at N paragraphs over all languages", 0))
    add("--number_of_instructions_per_language", type=int_range(0), nargs="+", metavar="N",
        help="generate at least N paragraphs in each language: one number for all languages, or one for each [0]")
    flags.add_run_flags(add)
    flags.add_shard_flags(add)
    add("--dry_run", **FLAG, help="show the first prompts, their tokens and an estimate, then exit")

    add = parser.add_argument_group("the LLM that writes").add_argument
    add("--model_name_or_path", metavar="MODEL", help="a Hub id, a folder, or an API's name for a model")
    add("--adapter_name_or_path", metavar="LORA", help="a LoRA adapter to load on top of the model")
    flags.add_model_flags(add)
    flags.add_node_and_api_groups(parser)

    add = parser.add_argument_group("decoding").add_argument
    flags.add_decoding_flags(add, max_new_tokens=2048, temperature=1.0)

    add = parser.add_argument_group("prompts").add_argument
    add("--prompt_template", metavar="NAME_OR_PATH",
        help="a file of topxgen/generation/prompts or one of your own [topxgen: instruct for chat models, continuation for base "
             "models; self-instruct: passages, passages-continuation; knn-instruct: neighbours, neighbours-continuation]")
    add("--number_of_icl_demonstrations",
        **count(0, "topxgen: example paragraphs in a prompt, each in another language; self-instruct: passages in a prompt; "
                   "knn-instruct: nearest neighbours in a prompt", 4))
    add("--number_of_icl_phrases", **count(0, "topxgen: example sentences in the target language", 0))
    add("--number_of_generations_per_step", **count(1, "topxgen: texts asked for in a prompt", 2, 100))
    add("--example_paragraphs", default="xquad", metavar="SOURCE",
        help="topxgen: source of example paragraphs: xquad (from the Hub), udhr (embedded) or a folder")
    add("--example_sentences", default="flores", metavar="SOURCE",
        help="source of example sentences and of seed sentences (self-instruct, knn-instruct): flores (from the Hub), udhr (embedded) or a folder")
    flags.add_partial_benchmark_flag(add)
    add("--number_of_icl_synthetic_demonstrations",
        **count(0, "self-instruct: how many of the passages in a prompt are drawn from those kept before", 2))
    add("--number_of_rounds",
        **count(1, "knn-instruct: how many times each passage of the pool asks for one more; the pool doubles", 1))
    add("--encoder", **choice(ENCODERS, "sonar", "knn-instruct: what passages are compared by"))
    add("--encoder_device", metavar="DEVICE",
        help="knn-instruct: where sonar runs: cpu, cuda or cuda:N [cpu beside an LLM on this machine, else the GPU if there is one]")
    add("--max_samples", type=limit, metavar="N", help="use only the first N example or seed sentences; -1: all [all]")

    add = parser.add_argument_group("filters").add_argument
    add("--filters", nargs="+", choices=FILTERS, metavar="NAME",
        help=choices_help("what rejects a text, in this order", FILTERS, "topxgen: all but too_short; else binary too_short"))
    add("--threshold", type=float_range(0, 1),
        help="reject a paragraph whose ROUGE-L F1 with an earlier one is above this [0.7; knn-instruct: 1, which is none]")
    add("--rouge_tokenizer", choices=TOKENIZERS, default="unicode",
        help="words for ROUGE-L; unicode: of any script; rouge_score: a-z and 0-9 only, as in the paper")
    add("--dedup_prefilter",
        **choice(PREFILTERS, "exact", "how the kept paragraphs to compare by ROUGE-L are found; part of the settings"))
    add("--splitter", choices=sentence_splitting.SPLITTERS, default="sentencex",
        help="how paragraphs are split into sentences")
    flags.add_language_id_flag(add)

    add = parser.add_argument_group("back-translation").add_argument
    add("--back_translator", choices=translation.TRANSLATORS, metavar="NAME",
        help=choices_help("what translates the sentences back", translation.TRANSLATORS, "nllb with --use_nllb, else llm"))
    add("--use_nllb", **FLAG, help="short for --back_translator nllb")
    flags.add_nllb_flags(add, default=NLLB)
    add("--target_language", default="English", metavar="LANGUAGE", help="language to translate into")
    add("--template_key", default="11", metavar="KEY",
        help="llm: MT template, a number or name in topxgen/prompting/mt_templates.toml")
    flags.add_prompt_style_flag(add)
    add("--number_of_demonstrations", type=int_range(0), default=5, metavar="K",
        help="llm: example pairs in a prompt, retrieved by BM25")
    add("--retriever_tokens", **choice(bm25.TOKENS, "unicode", "llm: what a word is to BM25"))
    add("--demonstration_pool", default="flores", metavar="SOURCE",
        help="llm: source of example pairs: flores (dev split, from the Hub), udhr (embedded) or a folder")

    add("--number_of_candidates",
        **count(1, "translations of each sentence, of which the best is kept: beams of nllb, samples or beams of llm", 1, MAX_BEAMS))
    add("--select_by", **choice(SELECTORS, None, "what chooses among candidates", "blaser"))
    add("--candidate_temperature", type=float_range(0.01, 2), default=0.7, metavar="T",
        help="llm: temperature of the candidates, unless --num_beams makes them")

    add = parser.add_argument_group("scores").add_argument
    add("--scorer", **choice(SCORERS, None, "what scores the pairs", "blaser; with apertium: confidence"))
    add("--min_score", type=float_range(-1000, 1000), metavar="X",
        help="drop pairs whose score is below this, or that have none, as rejects [scores drop nothing]")
    flags.add_quality_flags(add)
    add("--metricx_name_or_path", default=metricx.DEFAULT, metavar="MODEL",
        help="MetricX model, a folder or Hub id with metricx-23-qe or metricx-24 in its name")
    add("--scorer_dtype", choices=("float32", "bfloat16"), default="float32",
        help="precision of SONAR; of MetricX if given, else bfloat16 on a GPU")
    # fmt: on
    return parser


def needs(args: argparse.Namespace, names: Collection[str] = ()) -> list[Need]:
    """What a command loads that does not come with the package. Raises UsageError for flags that do not go together."""
    return GenerationConfig(args).needs()


def estimates(args: argparse.Namespace) -> list[Estimate]:
    """What the stages are going to need. Raises UsageError for flags that do not go together, and what is not there."""
    args = copy(args)
    args.dry_run = True  # stand-ins for examples that only the Hub has
    return estimated(GenerationConfig(args))


def datagen(args: argparse.Namespace) -> int:
    """Run the stages; the exit code."""
    config = GenerationConfig(args)
    if args.dry_run:
        return dry_run(config)
    preflight(config)
    check_settings(config)
    complete = True
    with ExitStack() as locks:
        for part in config.locked_parts:  # other languages may be at work in the same directory
            locks.enter_context(OutputLock(args.output_dir, part, note=config.lock_note(part)))
        repair_files(config)
        if config.shard is not None:
            begin_shard(config)
        if "generate" in args.stages:
            complete = take_paragraphs(config) if args.paragraphs else generate(config)
        if "translate" in args.stages:
            complete &= translate(config)
        if "score" in args.stages:
            score(config)
        complete &= report(config)
    return 0 if complete else 3


def main() -> int:
    return run_main(build_parser(), datagen, "finished work is on disk; re-run the same command to resume")


if __name__ == "__main__":
    sys.exit(main())
