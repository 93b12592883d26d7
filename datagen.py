"""Generate parallel data for a low-resource language: topics -> paragraphs -> sentences -> back-translations -> scores.

With gemma-3-27b-it on a GPU box, as published:

    python datagen.py --model_name_or_path google/gemma-3-27b-it --inference_api vllm --languages Basque Hausa \\
        --seed_topics_path topics/wikipedia_vital_topics.txt --output_dir outputs/gemma --number_of_instructions 50000 \\
        --number_of_icl_demonstrations 8 --number_of_icl_phrases 4 --max_new_tokens 2048 --use_nllb

Without GPU or network (what scripts/demo.sh runs):

    python datagen.py --model_name_or_path models/gemma-3-270m --languages Basque --back_translator apertium \\
        --seed_topics_path topics/wikipedia_vital_topics.txt --example_paragraphs udhr --example_sentences udhr \\
        --number_of_icl_phrases 4 --number_of_instructions 60 --output_dir outputs/demo

Killed? The same command goes on where it stopped. `--dry_run` shows the prompts and the plan.
"""

import argparse
import sys
from pathlib import Path

from topxgen import inference, translation
from topxgen.common import provenance
from topxgen.common.cli import FLAG, parse_bool, float_range, int_range
from topxgen.common.console import say
from topxgen.common.errors import UsageError
from topxgen.generation import manifests, scoring
from topxgen.generation.plan import PIPELINES, GenerationConfig, dry_run
from topxgen.generation.run import generate, preflight, report, score, translate
from topxgen.prompting.style import STYLES
from topxgen.text import sentence_splitting
from topxgen.translation import nllb


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )

    group = parser.add_argument_group("what to make")
    group.add_argument(
        "--data_generation_pipeline", "--dataset_generation_pipeline", choices=PIPELINES, default="topxgen"
    )
    group.add_argument("--stages", nargs="+", choices=manifests.STAGES, default=list(manifests.STAGES), help="[all]")
    group.add_argument(
        "--languages", nargs="+", required=True, metavar="LANGUAGE", help="English names or FLORES codes"
    )
    group.add_argument(
        "--languages_file", metavar="TSV", help="rows of your own, with the columns of topxgen/text/languages.tsv"
    )
    group.add_argument("--seed_topics_path", metavar="FILE", help="txt (one topic a line) or jsonl")
    group.add_argument("--output_dir", type=Path, required=True, metavar="DIR")
    group.add_argument(
        "--translate_dir", metavar="NAME", help="below the output directory [the back-translator's name]"
    )
    group.add_argument("--output_filenames", nargs="+", metavar="NAME", help="one a language [{Language}.jsonl]")
    group.add_argument(
        "--number_of_instructions", type=int_range(0), default=0, metavar="N", help="paragraphs over all languages"
    )
    group.add_argument(
        "--number_of_instructions_per_language",
        type=int_range(0),
        default=0,
        metavar="N",
        help="paragraphs at least, in each",
    )
    group.add_argument("--seed", type=int_range(0), default=122, help="[%(default)s]")
    group.add_argument("--verbose", **FLAG, help="show the texts")
    group.add_argument("--dry_run", **FLAG, help="show the first prompts, their tokens and an estimate, and leave")

    group = parser.add_argument_group("the model that writes")
    group.add_argument("--model_name_or_path", metavar="MODEL", help="a Hub id or a folder")
    group.add_argument("--tokenizer_name_or_path", metavar="MODEL", help="[the model's]")
    group.add_argument(
        "--inference_api", choices=inference.BACKENDS, default="vllm", help="openai: any such server, too [%(default)s]"
    )
    group.add_argument("--api_key", help="better: the provider's environment variable; never logged nor written")
    group.add_argument(
        "--request_batch_size", type=int_range(1), default=4, help="topics a step; hf: prompts a batch [%(default)s]"
    )
    group.add_argument("--max_in_flight", type=int_range(1), help="vllm, APIs: requests at a time [vllm 256, APIs 16]")
    group.add_argument(
        "--dtype", choices=("auto", "bfloat16", "float16", "float32"), default="auto", help="[%(default)s]"
    )
    group.add_argument(
        "--max_model_len", type=int_range(16), metavar="TOKENS", help="prompt and answer [8192 or the model's limit]"
    )
    group.add_argument(
        "--gpu_memory_utilization", type=float_range(0.05, 1), default=0.9, help="vllm: share of each GPU [%(default)s]"
    )
    group.add_argument("--tensor_parallel_size", type=int_range(1), metavar="GPUS", help="vllm [all that are visible]")
    group.add_argument("--adapter_name_or_path", metavar="LORA", help="a LoRA adapter on top of the model")
    group.add_argument("--lora_rank", type=int_range(1), default=16, help="of the adapter, or more [%(default)s]")
    group.add_argument("--trust_remote_code", **FLAG, help="run code that comes with the model")

    group = parser.add_argument_group("APIs (openai, cohere, anthropic)")
    group.add_argument("--base_url", metavar="URL", help="another server, as http://localhost:8000/v1 of vllm serve")
    group.add_argument(
        "--request_timeout", type=float_range(0.1), default=600, metavar="SECONDS", help="for one attempt [%(default)s]"
    )
    group.add_argument("--max_retries", type=int_range(0), default=8, help="after the first attempt [%(default)s]")
    group.add_argument(
        "--prices",
        nargs=2,
        type=float_range(0),
        metavar=("IN", "OUT"),
        help="of a million prompt and a million answer tokens, to count the cost",
    )

    group = parser.add_argument_group("how it writes")
    group.add_argument("--max_new_tokens", type=int_range(1), default=2048, help="[%(default)s]")
    group.add_argument("--temperature", type=float_range(0), default=1.0, help="0: greedy [%(default)s]")
    group.add_argument("--top_p", type=float_range(0.001, 1), default=1.0, help="[%(default)s]")
    group.add_argument("--repetition_penalty", type=float_range(0.01), default=1.0, help="[%(default)s]")
    group.add_argument("--num_return_sequences", type=int_range(1), default=1, help="answers a prompt [%(default)s]")
    group.add_argument("--num_beams", type=int_range(1), default=1, help="above 1: beam search [%(default)s]")
    group.add_argument("--do_sample", type=parse_bool, nargs="?", const=True, default=True, help="false: greedy [true]")

    group = parser.add_argument_group("prompts")
    group.add_argument(
        "--prompt_template", metavar="NAME_OR_PATH", help="topxgen/prompts [by the tokenizer's chat template]"
    )
    group.add_argument(
        "--number_of_icl_demonstrations", type=int_range(0), default=4, help="example paragraphs [%(default)s]"
    )
    group.add_argument("--number_of_icl_phrases", type=int_range(0), default=0, help="example sentences [%(default)s]")
    group.add_argument(
        "--number_of_generations_per_step", type=int_range(1), default=2, help="texts a prompt [%(default)s]"
    )
    group.add_argument(
        "--example_paragraphs", default="xquad", metavar="SOURCE", help="xquad (Hub), udhr (embedded) or a folder"
    )
    group.add_argument(
        "--example_sentences", default="flores", metavar="SOURCE", help="flores (Hub), udhr (embedded) or a folder"
    )
    group.add_argument(
        "--number_of_icl_synthetic_demonstrations", type=int_range(0), default=2, help="self-instruct [%(default)s]"
    )
    group.add_argument("--number_of_rounds", type=int_range(1), default=1, help="knn-instruct [%(default)s]")
    group.add_argument("--max_samples", type=int_range(1), help="at most so many example sentences in the pool [all]")

    group = parser.add_argument_group("filters")
    group.add_argument("--threshold", type=float_range(0, 1), default=0.7, help="near-duplicate ROUGE-L F1 [%(default)s]")
    group.add_argument("--rouge_tokenizer", choices=("unicode", "original"), default="unicode", help="[%(default)s]")
    group.add_argument("--splitter", choices=sentence_splitting.SPLITTERS, default="sentencex", help="[%(default)s]")
    group.add_argument(
        "--lid_model",
        default="cld2",
        metavar="CLD2_PATH_OR_ID",
        help="cld2, or a fastText file or Hub id [%(default)s]",
    )

    group = parser.add_argument_group("back-translation")
    group.add_argument(
        "--back_translator", choices=translation.TRANSLATORS, help="[nllb with --use_nllb, else llm: the model above]"
    )
    group.add_argument("--use_nllb", **FLAG, help="short for --back_translator nllb")
    group.add_argument(
        "--nllb_name_or_path",
        default="facebook/nllb-200-3.3B",
        metavar="MODEL",
        help="NLLB, M2M-100, MADLAD, Marian [%(default)s]",
    )
    group.add_argument("--nllb_engine", choices=nllb.ENGINES, default="ctranslate2", help="[%(default)s]")
    group.add_argument(
        "--nllb_compute_type", choices=nllb.COMPUTE_TYPES, default="auto", help="[float16 on GPU, int8 on CPU]"
    )
    group.add_argument(
        "--cache_dir", default=translation.CACHE_DIR, metavar="DIR", help="of converted models [%(default)s]"
    )
    group.add_argument("--target_language", default="English", help="to translate into [%(default)s]")
    group.add_argument(
        "--template_key", default="11", help="llm: number or name in topxgen/prompting/mt_templates.toml [%(default)s]"
    )
    group.add_argument(
        "--prompt_style", choices=STYLES, default="auto", help="llm: raw template or chat [by the tokenizer]"
    )
    group.add_argument("--number_of_demonstrations", type=int_range(0), default=5, help="llm: shots [%(default)s]")
    group.add_argument(
        "--demonstration_pool",
        default="flores",
        metavar="SOURCE",
        help="llm: flores (Hub), udhr (embedded) or a folder [%(default)s]",
    )

    group = parser.add_argument_group("scores")
    group.add_argument("--scorer", choices=scoring.SCORERS, help="[blaser; with apertium: confidence]")
    group.add_argument("--blaser_name_or_path", default="facebook/blaser-2.0-qe", metavar="MODEL", help="[%(default)s]")
    group.add_argument(
        "--sonar_name_or_path", default="cointegrated/SONAR_200_text_encoder", metavar="MODEL", help="[%(default)s]"
    )
    group.add_argument("--scorer_dtype", choices=("float32", "bfloat16"), default="float32", help="[%(default)s]")
    return parser


def main() -> int:
    args = build_parser().parse_args()
    try:
        run = GenerationConfig(args)
        if args.dry_run:
            return dry_run(run)
        preflight(run)
        from topxgen.common.files import OutputLock, repair_tail

        command = provenance.command_line(("--api_key",))
        enough = True
        with OutputLock(args.output_dir):
            repair_tail(run.layout.translation_answers)
            for name in run.languages:
                for path in run.layout.files(name, run.filenames.get(name)):
                    repair_tail(path)
            if "generate" in args.stages:
                enough = generate(run, command)
            if "translate" in args.stages:
                translate(run, command)
            if "score" in args.stages:
                score(run, command)
            report(run)
        return 0 if enough else 3
    except UsageError as error:
        say(f"datagen.py: error: {error}")
        return error.exit_code
    except OSError as error:  # a full disk, a read-only file, a directory where a file should be
        say(f"datagen.py: error: {error}; what is finished is on disk, and the same command goes on from there")
        return 2
    except KeyboardInterrupt:
        say("\nstopped; the same command goes on from here")
        return 130


if __name__ == "__main__":
    sys.exit(main())
