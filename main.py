"""Translate a benchmark with an LLM: few-shot, with CompTra, or with the methods that CompTra is compared to.

Five-shot, with demonstrations retrieved by BM25:

    python main.py --model_name_or_path meta-llama/Meta-Llama-3-8B --dataset_name_or_path flores --src English --tgt Basque \\
        --k 5 --retriever_type bm25s --template_key 11 --output_dir outputs/flores

CompTra: divide each sentence into phrases, translate the phrases, then translate the sentence with their help:

    python main.py --model_name_or_path google/gemma-3-27b-it --dataset_name_or_path flores --src English --tgt Basque \\
        --k 5 --steps 1 --number_of_subproblems -1 --method_divide llm --merge_prompt vanilla --max_new_tokens 500 \\
        --output_dir outputs/flores

A table of ten languages in both directions, with the model loaded once for each of the two commands:

    LANGUAGES="Basque Hausa Igbo Kinyarwanda Nepali Somali Sundanese Swahili Urdu Xhosa"
    python main.py --model_name_or_path MODEL --dataset_name_or_path flores --src English --tgt $LANGUAGES --k 5 --output_dir outputs/flores
    python main.py --model_name_or_path MODEL --dataset_name_or_path flores --src $LANGUAGES --tgt English --k 5 --output_dir outputs/flores

All checkpoints of a LoRA run, with the base model loaded once, on the embedded UDHR (no network needed):

    python main.py --model_name_or_path outputs/my-run/checkpoint-* --enable_lora --base_model_name_or_path BASE --lora_rank 32 \\
        --dataset_name_or_path udhr --src English --tgt Basque --k 0 --output_dir outputs/udhr

If a run is interrupted, re-run the same command: it resumes where it left off. To score the translations:
python -m comptra.evaluate outputs/udhr
"""

import argparse
import sys
from collections.abc import Collection
from pathlib import Path

from comptra import candidate_selection, checks, cost_estimate, evaluation_sets, methods, runner
from comptra import needs as wanted
from comptra.compositional import divide, merge
from comptra.config import configurations, directions
from topxgen import flags, retrieval
from topxgen.common import provenance
from topxgen.common.cli import FLAG, Parser, bool_or_count, choice, choices_help, count, int_range, limit, run_main
from topxgen.common.needs import Need
from topxgen.inference.costs import Estimate
from topxgen.prompting.mt_templates import get_template
from topxgen.quality import comet_models
from topxgen.retrieval import bm25
from topxgen.text import languages


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        __doc__,
        section="main",
        rules=(*checks.RULES, flags.SHARD_RULE),
        check=checks.check_values,
        incomplete="sentences without a response",
        uses_apis=True,
    )
    add_data_flags(parser.add_argument_group("what to translate").add_argument)

    add = parser.add_argument_group("the LLM that translates").add_argument
    # fmt: off
    add("--model_name_or_path", nargs="+", metavar="MODEL",
        help="Hub ids, folders or LoRA adapters; several run one after the other")
    add("--enable_lora", **FLAG, help="the models are LoRA adapters [detected by adapter_config.json]")
    add("--base_model_name_or_path", metavar="MODEL", help="base model of the adapters [the one that they name]")
    flags.add_model_flags(add)
    flags.add_node_and_api_groups(parser)

    add = parser.add_argument_group("prompts and demonstrations").add_argument
    add("--template_key", metavar="KEY",
        help="MT template: a number or name in topxgen/prompting/mt_templates.toml, or the path of a .toml file [the template "
             "that a checkpoint was trained with, else 11]")
    flags.add_prompt_style_flag(add)
    add("--k", **count(0, "demonstrations per prompt; 0: zero-shot", 0))
    add("--retriever_type", **choice(retrieval.RETRIEVERS, "bm25s", "how demonstrations are chosen"))
    add("--retriever_tokens", **choice(bm25.TOKENS, "unicode", "bm25s, bm25: what a word is"))
    add("--spacy_model", metavar="MODEL",
        help="spaCy pipeline of the source language, for methods, retrievers and dividers that need one [its small one]")

    add = parser.add_argument_group("decoding").add_argument
    flags.add_decoding_flags(add, max_new_tokens=500, temperature=0.0)
    selectors = candidate_selection.SELECTORS
    add("--selection_method", **choice(selectors, "greedy", "which of several candidates is kept"))
    flags.add_quality_flags(add)
    add("--comet_name_or_path", default=comet_models.QE, metavar="MODEL",
        help="comet-qe: a COMET model that needs no reference, as a Hub id, folder or .ckpt file")
    add("--comet_python", metavar="PYTHON",
        help="comet-qe: Python interpreter of COMET's environment [$COMET_PYTHON, else .venv-comet/bin/python]")

    add = parser.add_argument_group("translation method").add_argument
    add("--method_translate", **choice(methods.CHOICES, "vanilla", "how a sentence or phrase is translated"))
    flags.add_nllb_flags(add, default="facebook/nllb-200-distilled-600M")
    intro = "how often the LLM is asked to improve its translations (with --steps: those of the phrases)"
    add("--number_of_refining_steps", **count(0, intro, 0, maximum=100))
    add("--max_new_tokens_merge",
        **count(1, "longest response to a merge prompt or a refinement, in tokens, if above --max_new_tokens", 1500))
    # fmt: on

    add_comptra_flags(parser.add_argument_group("compositional translation (CompTra)").add_argument)
    return parser


def add_data_flags(add) -> None:
    add("--dataset_name_or_path", **choice(evaluation_sets.DATASETS, "flores", "evaluation set"))
    # fmt: off
    add("--src", nargs="+", default=["English"], metavar="LANGUAGE",
        help="source languages: English names or FLORES codes [English]")
    add("--tgt", nargs="+", required=True, metavar="LANGUAGE",
        help="target languages; each --src is translated into each other --tgt")
    add("--max_samples", type=limit, metavar="N", help="translate only the first N sentences; -1: all [all]")
    flags.add_benchmark_flags(add)
    add("--data_dir", type=Path, metavar="DIR",
        help="topxgen: folder of the demonstrations, {Language}_translate_filtered.jsonl")
    two_files = {"nargs": 2, "type": Path}
    add("--test_files", **two_files, metavar=("SRC", "REF"),
        help="files: sources and references, one sentence per line; a slice of lines as in text.txt[1000:]")
    add("--demonstration_pool", **two_files, metavar=("SRC", "TGT"),
        help="files: pairs to take demonstrations from, one sentence per line; slices as for --test_files")
    flags.add_language_flags(add)
    add("--output_dir", type=Path, required=True, metavar="DIR",
        help="where translations are written; re-run with the same directory to resume")
    add("--metadata_dir", metavar="NAME",
        help="name of the run's folder in OUTPUT_DIR/{model} [{src}_to_{tgt}_{k}_shot_seed_{seed}_...]")
    flags.add_run_flags(add)
    flags.add_shard_flags(add)
    add("--dry_run", **FLAG,
        help="show the first prompts and an estimate of the prompts, tokens and cost of each stage, then exit")
    # fmt: on


def add_comptra_flags(add) -> None:
    add("--steps", **count(0, "how often sentences are divided; 0: not at all", 0, maximum=10))
    add("--method_divide", **choice(divide.DIVIDERS, "llm", "how a sentence is divided into phrases"))
    # fmt: off
    add("--mode_divide", default="vanilla", metavar="NAME_OR_PATH",
        help="llm: prompt that divides; vanilla: short self-contained phrases; paraphrase: rewordings of the whole sentence; or "
             "another file of comptra/prompts/divide, or the path of a .toml file")
    add("--number_of_subproblems", type=int_range(-1), default=-1, metavar="N",
        help="maximum number of phrases per sentence; -1: no limit; 0 goes with --steps 0")
    add("--number_of_repetitions", **count(1, "identity: how often the sentence is repeated", 4, maximum=1000))
    add("--max_new_tokens_divide", **count(1, "longest response to a prompt that divides, in tokens", 1500))
    intro = "how the sentence is translated with its phrases"
    add("--merge_prompt", default=merge.VANILLA, metavar="NAME_OR_PATH",
        help=choices_help(intro, merge.MERGE_PROMPTS, "vanilla") + "; or another file of comptra/prompts/merge, or the path of a .toml file")
    add("--number_of_merge_demonstrations",
        **count(0, "demonstrations from the pool that precede the phrases in a merge prompt", 0))
    add("--refine_after_merge", type=bool_or_count, nargs="?", const=1, default=0, metavar="N",
        help="how often the LLM is asked to improve each merged translation; without a number: once")
    # fmt: on
    flags.add_language_id_flag(add)


def needs(args: argparse.Namespace, names: Collection[str] = ()) -> list[Need]:
    """What a command loads that does not come with the package."""
    src, tgt = ([languages.find(name, args.languages_file) for name in side] for side in (args.src, args.tgt))
    return wanted.of_translation(args, src, tgt)


def estimates(args: argparse.Namespace) -> list[Estimate]:
    """The work of each direction, for all models. Raises UsageError for a test set that is not there."""
    return cost_estimate.at_a_glance(args)


def check_early(args: argparse.Namespace) -> None:
    """Raise UsageError for a prompt that is not there, and a folder that would be that of several directions."""
    for one in directions(args):
        sides = (languages.find(name, args.languages_file).name for name in (one.src, one.tgt))
        if args.template_key is not None:
            get_template(args.template_key, *sides, extra=args.languages_file)
    if args.steps:
        merge.load(args.merge_prompt)
        if args.method_divide == "llm":
            divide.prompt_file(args.mode_divide)


def check_results(args: argparse.Namespace) -> None:
    """Raise UsageError if the folders of the translations have some by other flags."""
    runner.check_results(args)


def translate(args: argparse.Namespace) -> int:
    """Check the flags, then translate with each model in each direction, or with --dry_run show the prompts; the exit code."""
    configs = configurations(args)
    if args.dry_run:
        return runner.show_prompts(configs)
    return runner.translate_all(configs, provenance.command_line(("--api_key",)))


def main() -> int:
    return run_main(build_parser(), translate, "finished translations are on disk; re-run the same command to resume")


if __name__ == "__main__":
    sys.exit(main())
