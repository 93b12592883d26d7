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
from topxgen import inference, retrieval, translation
from topxgen.common import provenance
from topxgen.common.cli import FLAG, parse_bool, float_range, int_range
from topxgen.common.errors import UsageError
from topxgen.prompting.style import STYLES
from topxgen.quality import blaser, sonar
from topxgen.translation import nllb


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )

    group = parser.add_argument_group("what to translate")
    group.add_argument(
        "--dataset_name_or_path",
        choices=evaluation_sets.DATASETS,
        default="flores",
        help="udhr is embedded [%(default)s]",
    )
    group.add_argument("--src", default="English", metavar="LANGUAGE", help="English name or FLORES code [%(default)s]")
    group.add_argument("--tgt", required=True, metavar="LANGUAGE")
    group.add_argument("--max_samples", type=int_range(1), metavar="N", help="the first N sentences [all]")
    group.add_argument(
        "--benchmark_dir", type=Path, metavar="DIR", help="local copies, as their publishers ship them [the Hub]"
    )
    group.add_argument("--data_dir", type=Path, metavar="DIR", help="topxgen: {Language}_translate_filtered.jsonl")
    group.add_argument("--test_files", nargs=2, type=Path, metavar=("SRC", "REF"), help="with the data set files")
    group.add_argument("--pool_files", nargs=2, type=Path, metavar=("SRC", "TGT"), help="demonstrations for files")
    group.add_argument("--languages_file", metavar="TSV", help="rows of your own, as in topxgen/text/languages.tsv")
    group.add_argument("--output_dir", type=Path, required=True, metavar="DIR")
    group.add_argument(
        "--metadata_dir",
        type=Path,
        metavar="DIR",
        help="of divisions of one data set in one way [OUTPUT_DIR/{model}]",
    )
    group.add_argument("--seed", type=int_range(0), default=122, help="[%(default)s]")
    group.add_argument("--verbose", **FLAG, help="show how the first sentence was translated: phrases, prompts")
    group.add_argument("--dry_run", **FLAG, help="show the first prompts and leave")

    group = parser.add_argument_group("the model")
    group.add_argument("--model_name_or_path", nargs="+", metavar="MODEL", help="Hub ids, folders, LoRA adapters")
    group.add_argument("--tokenizer_name_or_path", metavar="MODEL", help="[the model's]")
    group.add_argument(
        "--enable_lora", **FLAG, help="the models are adapters (found out by itself where adapter_config.json is)"
    )
    group.add_argument("--base_model_name_or_path", metavar="MODEL", help="of adapters [the one they name]")
    group.add_argument("--lora_rank", type=int_range(1), default=16, help="of the adapters, or more [%(default)s]")
    group.add_argument("--inference_api", choices=inference.BACKENDS, default="vllm", help="[%(default)s]")
    group.add_argument("--api_key", help="better: the provider's environment variable; never logged nor written")
    group.add_argument("--base_url", metavar="URL", help="another server, as http://localhost:8000/v1 of vllm serve")
    group.add_argument("--request_timeout", type=float_range(0.1), default=600, metavar="SECONDS", help="[%(default)s]")
    group.add_argument("--max_retries", type=int_range(0), default=8, help="after the first attempt [%(default)s]")
    group.add_argument("--request_batch_size", type=int_range(1), default=4, help="hf: prompts a batch [%(default)s]")
    group.add_argument("--max_in_flight", type=int_range(1), help="vllm, APIs: requests at a time [vllm 256, APIs 16]")
    group.add_argument("--dtype", choices=("auto", "bfloat16", "float16", "float32"), default="auto")
    group.add_argument("--max_model_len", type=int_range(16), metavar="TOKENS", help="prompt and answer [8192 or less]")
    group.add_argument("--gpu_memory_utilization", type=float_range(0.05, 1), default=0.9, help="vllm [%(default)s]")
    group.add_argument("--tensor_parallel_size", type=int_range(1), metavar="GPUS", help="vllm [all that are visible]")
    group.add_argument("--trust_remote_code", **FLAG, help="run code that comes with the model")

    group = parser.add_argument_group("prompts and demonstrations")
    group.add_argument(
        "--template_key", metavar="KEY", help="number, name or file [the one a checkpoint was trained on, else 11]"
    )
    group.add_argument("--prompt_style", choices=STYLES, default="auto", help="raw template or chat [by the tokenizer]")
    group.add_argument("--k", type=int_range(0), default=5, help="demonstrations [%(default)s]")
    group.add_argument("--retriever_type", choices=retrieval.RETRIEVERS, default="bm25s", help="[%(default)s]")
    group.add_argument("--sonar_name_or_path", default=sonar.DEFAULT, metavar="MODEL", help="[%(default)s]")
    group.add_argument("--spacy_model", metavar="MODEL", help="of the source language, where a choice needs one")

    group = parser.add_argument_group("decoding")
    group.add_argument("--max_new_tokens", type=int_range(1), default=75, help="[%(default)s]")
    group.add_argument("--temperature", type=float_range(0), default=0.0, help="0: greedy [%(default)s]")
    group.add_argument("--top_p", type=float_range(0.001, 1), default=1.0, help="[%(default)s]")
    group.add_argument("--repetition_penalty", type=float_range(0.01), default=1.0, help="[%(default)s]")
    group.add_argument("--num_return_sequences", type=int_range(1), default=1, help="candidates [%(default)s]")
    group.add_argument("--num_beams", type=int_range(1), default=1, help="above 1: beam search [%(default)s]")
    group.add_argument("--do_sample", type=parse_bool, nargs="?", const=True, default=True, help="false: greedy")
    group.add_argument(
        "--selection_method", choices=candidate_selection.SELECTORS, default="greedy", help="[%(default)s]"
    )
    group.add_argument("--blaser_name_or_path", default=blaser.DEFAULT, metavar="MODEL", help="[%(default)s]")
    group.add_argument("--comet_python", metavar="PYTHON", help="comet-qe: of its environment [.venv-comet]")

    group = parser.add_argument_group("method")
    group.add_argument(
        "--method_translate", choices=(*methods.METHODS, "none"), default="vanilla", help="[%(default)s]"
    )
    group.add_argument("--nllb_name_or_path", default="facebook/nllb-200-distilled-600M", metavar="MODEL")
    group.add_argument("--nllb_engine", choices=nllb.ENGINES, default="ctranslate2", help="[%(default)s]")
    group.add_argument("--nllb_compute_type", choices=nllb.COMPUTE_TYPES, default="auto")
    group.add_argument("--cache_dir", default=translation.CACHE_DIR, metavar="DIR", help="of converted models")
    group.add_argument("--number_of_refining_steps", type=int_range(0), default=0, help="[%(default)s]")

    group = parser.add_argument_group("CompTra")
    group.add_argument("--steps", type=int_range(0), default=0, help="divisions; 0: none [%(default)s]")
    group.add_argument("--method_divide", choices=divide.DIVIDERS, default="llm", help="[%(default)s]")
    group.add_argument(
        "--mode_divide", default="vanilla", metavar="NAME_OR_PATH", help="llm: vanilla, paraphrase, a file"
    )
    group.add_argument(
        "--number_of_subproblems", type=int, default=-1, help="phrases at most; -1: as many as there are [%(default)s]"
    )
    group.add_argument("--number_of_repetitions", type=int_range(1), default=4, help="identity [%(default)s]")
    group.add_argument("--max_new_tokens_divide", type=int_range(1), default=1500, help="[%(default)s]")
    group.add_argument("--merge_prompt", choices=merge.MERGE_PROMPTS, default="vanilla", help="[%(default)s]")
    group.add_argument(
        "--number_of_merge_demonstrations",
        type=int_range(0),
        default=0,
        help="of the pool, before the phrases [%(default)s]",
    )
    group.add_argument("--refine_after_merge", **FLAG, help="refine what was merged, not the phrases")
    group.add_argument("--lid_model", default="cld2", metavar="CLD2_PATH_OR_ID", help="for phrases [%(default)s]")
    return parser


def main() -> int:
    args = build_parser().parse_args()
    try:
        run = EvaluationConfig(args, say)
        if args.dry_run:
            return show_prompts(run)
        return translate_all(run, provenance.command_line(("--api_key",)))
    except UsageError as error:
        say(f"error: {error}")
        return error.exit_code
    except OSError as error:  # a full disk, a read-only file, a directory where a file should be
        say(f"error: {error}; what is finished is on disk, and the same command goes on from there")
        return 2
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        return 130


def say(line: str) -> None:
    print(f"main.py: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
