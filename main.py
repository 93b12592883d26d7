"""Translate a benchmark with a model: few-shot, with CompTra, or with the methods it is compared to.

Five-shot with demonstrations by BM25, as published:

    python main.py --model_name_or_path meta-llama/Meta-Llama-3-8B --dataset_name_or_path flores --src English --tgt Basque \\
        --k 5 --retriever_type bm25s --template_key 11 --output_dir outputs/flores

CompTra: divide each sentence into phrases, translate these, then the whole with their help:

    python main.py --model_name_or_path google/gemma-3-27b-it --dataset_name_or_path flores --src English --tgt Basque \\
        --k 5 --steps 1 --number_of_subproblems -1 --method_divide llm --merge_prompt vanilla --max_new_tokens 500 \\
        --output_dir outputs/flores

All checkpoints of a LoRA run, their base model loaded once; without network (the embedded UDHR):

    python main.py --model_name_or_path outputs/my-run/checkpoint-* --enable_lora --base_model_name_or_path BASE --lora_rank 32 \\
        --dataset_name_or_path udhr --src English --tgt Basque --k 0 --output_dir outputs/udhr

Killed? The same command goes on where it stopped. Then: python -m comptra.evaluate outputs/udhr
"""

import argparse
import sys
from pathlib import Path

from comptra import candidate_selection, evaluation_sets, methods
from comptra.compositional import divide, merge
from comptra.run import EvaluationConfig
from comptra.translate import show_prompts, translate_all
from topxgen import retrieval
from topxgen.common import provenance
from topxgen.common.cli import FLAG, Parser, choices_help, int_range, run_main
from topxgen.common.flags import (
    add_api_flags,
    add_decoding_flags,
    add_language_flags,
    add_language_id_flag,
    add_model_flags,
    add_nllb_flags,
    add_prompt_style_flag,
    add_quality_flags,
    add_run_flags,
)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)

    group = parser.add_argument_group("what to translate")
    group.add_argument(
        "--dataset_name_or_path",
        choices=evaluation_sets.DATASETS,
        default="flores",
        metavar="NAME",
        help=choices_help("evaluation set", evaluation_sets.DATASETS),
    )
    group.add_argument(
        "--src",
        default="English",
        metavar="LANGUAGE",
        help="source language: English name or FLORES code [%(default)s]",
    )
    group.add_argument("--tgt", required=True, metavar="LANGUAGE", help="target language")
    group.add_argument(
        "--max_samples", type=int_range(1), metavar="N", help="translate only the first N sentences [all]"
    )
    group.add_argument(
        "--benchmark_dir",
        type=Path,
        metavar="DIR",
        help="local copies of benchmarks in their publishers' layout [the Hub]",
    )
    group.add_argument(
        "--data_dir",
        type=Path,
        metavar="DIR",
        help="topxgen: folder with {Language}_translate_filtered.jsonl, the demonstrations",
    )
    group.add_argument(
        "--test_files",
        nargs=2,
        type=Path,
        metavar=("SRC", "REF"),
        help="files: sources and references, one sentence per line",
    )
    group.add_argument(
        "--demonstration_pool",
        nargs=2,
        type=Path,
        metavar=("SRC", "TGT"),
        help="files: pairs to take demonstrations from",
    )
    add_language_flags(group)
    group.add_argument(
        "--output_dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="where translations are written; re-run with the same one to resume",
    )
    group.add_argument(
        "--metadata_dir",
        type=Path,
        metavar="DIR",
        help="where divisions of sentences are kept and shared between runs [OUTPUT_DIR/{model}]",
    )
    add_run_flags(group)
    group.add_argument("--dry_run", **FLAG, help="show the first prompts, then exit")

    group = parser.add_argument_group("the LLM that translates")
    group.add_argument(
        "--model_name_or_path",
        nargs="+",
        metavar="MODEL",
        help="Hub ids, folders or LoRA adapters; several are run in turn",
    )
    group.add_argument(
        "--enable_lora", **FLAG, help="the models are LoRA adapters (detected where there is an adapter_config.json)"
    )
    group.add_argument(
        "--base_model_name_or_path", metavar="MODEL", help="base model of the adapters [the one that they name]"
    )
    add_model_flags(group)

    group = parser.add_argument_group("API models (--inference_api openai, cohere, anthropic)")
    add_api_flags(group)

    group = parser.add_argument_group("prompts and demonstrations")
    group.add_argument(
        "--template_key",
        metavar="KEY",
        help="MT template: a number or name in topxgen/prompting/mt_templates.toml, or a file [the one a checkpoint was "
        "trained with, else 11]",
    )
    add_prompt_style_flag(group)
    group.add_argument(
        "--k", type=int_range(0), default=5, metavar="K", help="demonstrations in a prompt; 0: zero-shot [%(default)s]"
    )
    group.add_argument(
        "--retriever_type",
        choices=retrieval.RETRIEVERS,
        default="bm25s",
        metavar="NAME",
        help=choices_help("how demonstrations are chosen", retrieval.RETRIEVERS),
    )
    group.add_argument(
        "--spacy_model",
        metavar="MODEL",
        help="spaCy pipeline of the source language, for choices that need one [its small one]",
    )

    group = parser.add_argument_group("decoding")
    add_decoding_flags(group, max_new_tokens=75, temperature=0.0)
    group.add_argument(
        "--selection_method",
        choices=candidate_selection.SELECTORS,
        default="greedy",
        metavar="NAME",
        help=choices_help("which of several candidates is kept", candidate_selection.SELECTORS),
    )
    add_quality_flags(group)
    group.add_argument(
        "--comet_python",
        metavar="PYTHON",
        help="comet-qe: Python interpreter of COMET's environment [.venv-comet/bin/python]",
    )

    group = parser.add_argument_group("translation method")
    group.add_argument(
        "--method_translate",
        choices=methods.CHOICES,
        default="vanilla",
        metavar="NAME",
        help=choices_help("how a sentence or phrase is translated", methods.CHOICES),
    )
    add_nllb_flags(group, default="facebook/nllb-200-distilled-600M")
    group.add_argument(
        "--number_of_refining_steps",
        type=int_range(0),
        default=0,
        metavar="N",
        help="ask the LLM to improve its translation N times [%(default)s]",
    )

    group = parser.add_argument_group("compositional translation (CompTra)")
    group.add_argument(
        "--steps",
        type=int_range(0),
        default=0,
        metavar="N",
        help="how often sentences are divided; 0: not at all [%(default)s]",
    )
    group.add_argument(
        "--method_divide",
        choices=divide.DIVIDERS,
        default="llm",
        metavar="NAME",
        help=choices_help("how a sentence is divided into phrases", divide.DIVIDERS),
    )
    group.add_argument(
        "--mode_divide",
        default="vanilla",
        metavar="NAME_OR_PATH",
        help="llm: prompt file of comptra/prompts/divide (vanilla, paraphrase), or one of your own [%(default)s]",
    )
    group.add_argument(
        "--number_of_subproblems",
        type=int,
        default=-1,
        metavar="N",
        help="most phrases per sentence; -1: as many as there are [%(default)s]",
    )
    group.add_argument(
        "--number_of_repetitions",
        type=int_range(1),
        default=4,
        metavar="N",
        help="identity: how often the sentence is repeated [%(default)s]",
    )
    group.add_argument(
        "--max_new_tokens_divide",
        type=int_range(1),
        default=1500,
        metavar="N",
        help="longest answer to a prompt that divides [%(default)s]",
    )
    group.add_argument(
        "--merge_prompt",
        choices=merge.MERGE_PROMPTS,
        default="vanilla",
        metavar="NAME",
        help=choices_help("how the sentence is translated with its phrases", merge.MERGE_PROMPTS),
    )
    group.add_argument(
        "--number_of_merge_demonstrations",
        type=int_range(0),
        default=0,
        metavar="N",
        help="demonstrations from the pool that a merge prompt shows before the phrases [%(default)s]",
    )
    group.add_argument("--refine_after_merge", **FLAG, help="refine the merged translation instead of the phrases'")
    add_language_id_flag(group)
    return parser


def translate(args: argparse.Namespace) -> int:
    """Translate, or with --dry_run show the prompts; the exit code."""
    config = EvaluationConfig(args)
    if args.dry_run:
        return show_prompts(config)
    return translate_all(config, provenance.command_line(("--api_key",)))


def main() -> int:
    return run_main(build_parser(), translate, "finished translations are on disk; re-run the same command to resume")


if __name__ == "__main__":
    sys.exit(main())
