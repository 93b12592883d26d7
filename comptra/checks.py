"""Checks of main.py's flags against each other. All raise UsageError before a model is loaded."""

import argparse
from collections.abc import Iterator

from comptra import methods
from comptra.candidate_selection import BY_QUALITY
from topxgen import inference
from topxgen.common import flag_rules, translation_folders
from topxgen.common.errors import UsageError
from topxgen.common.flag_rules import Rule
from topxgen.flags import WORKER_RULES, engine_rules

ANNOTATED = ("pos", "morph", "dep", "ner")  # methods that need spaCy, as do:
PARSING_RETRIEVERS, PARSING_DIVIDERS = ("structural", "kernel", "grakel"), ("structural",)


def uses_llm(args: argparse.Namespace) -> bool:
    return translation_folders.asks_llm(vars(args))


def shows_demonstrations(args: argparse.Namespace) -> bool:
    """Whether prompts have demonstrations from the pool."""
    by_method = args.k and args.method_translate not in methods.WITHOUT_DEMONSTRATIONS
    return bool(by_method or (args.steps and args.number_of_merge_demonstrations))


def judges_quality(args: argparse.Namespace) -> bool:
    return args.selection_method in BY_QUALITY or args.method_translate == "maps"


def uses_blaser(args: argparse.Namespace) -> bool:
    return judges_quality(args) and args.selection_method != "comet-qe"


def _divides_by(args: argparse.Namespace, *dividers: str) -> bool:
    return not args.steps or args.method_divide in dividers or ":" in args.method_divide


def _retrieves_by(args: argparse.Namespace, *retrievers: str) -> bool:
    return shows_demonstrations(args) and (args.retriever_type in retrievers or ":" in args.retriever_type)


LLM_FLAGS = (
    "inference_api", "tokenizer_name_or_path", "template_key", "prompt_style", "max_new_tokens", "temperature", "top_p",
    "repetition_penalty", "do_sample", "dtype", "max_model_len", "gpu_memory_utilization", "tensor_parallel_size",
    "data_parallel_size", "engine_args", "deterministic", "lora_rank",
)  # fmt: skip
STEPS_FLAGS = (
    "method_divide", "mode_divide", "number_of_subproblems", "number_of_repetitions", "max_new_tokens_divide", "merge_prompt",
    "number_of_merge_demonstrations", "refine_after_merge", "lid_model",
)  # fmt: skip
# Settings of divisions that a user may vary in one --output_dir; other differences are an edited prompt, say, or other weights.
DIVISION_VARIANTS = (
    "src", "method_divide", "mode_divide", "number_of_subproblems", "number_of_repetitions", "spacy_model",
    "max_new_tokens_divide", "pool_of_keywords",
)  # fmt: skip
DEMONSTRATIONS = "demonstrations (--k, or --number_of_merge_demonstrations with --steps)"
# What each flag needs to have an effect. An implementation of the user's own ("module:attribute") may use any flag.
# fmt: off
RULES = (
    Rule((*LLM_FLAGS, "enable_lora", "base_model_name_or_path", "max_concurrent_requests", "prices", "budget", "accept_unanswered"),
         "an LLM (--method_translate other than nllb, --steps, --number_of_refining_steps)", uses_llm, harmless=True),
    Rule(STEPS_FLAGS, "--steps 1 or more", lambda args: args.steps, switch="steps"),
    Rule(("mode_divide", "max_new_tokens_divide"), "--method_divide llm", lambda args: _divides_by(args, "llm")),
    Rule(("number_of_repetitions",), "--method_divide identity", lambda args: _divides_by(args, "identity")),
    Rule(("number_of_subproblems",), "a --method_divide other than identity", lambda args: not args.steps or args.method_divide != "identity"),
    Rule(("max_new_tokens_merge",), "--steps or --number_of_refining_steps", lambda args: args.steps or args.number_of_refining_steps, harmless=True),
    Rule(("merge_prompt", "number_of_merge_demonstrations", "refine_after_merge", "number_of_refining_steps", "lid_model", "temperature",
          "top_p", "num_beams", "num_return_sequences"),
         "a --method_translate other than none", lambda args: args.method_translate != methods.DIVIDE_ONLY),
    Rule(("k",), "a --method_translate that shows demonstrations",
         lambda args: args.method_translate not in methods.WITHOUT_DEMONSTRATIONS or ":" in args.method_translate, harmless=True),
    Rule(("retriever_tokens",), "--retriever_type bm25s or bm25",
         lambda args: not shows_demonstrations(args) or _retrieves_by(args, "bm25s", "bm25")),
    Rule(("retriever_type", "retriever_tokens"), DEMONSTRATIONS, lambda args: shows_demonstrations(args) or ":" in args.method_translate, switch="k"),
    Rule(("demonstration_pool", "data_dir"), f"{DEMONSTRATIONS} or --steps with --method_divide keyword",
         lambda args: shows_demonstrations(args) or (args.steps and _divides_by(args, "keyword")), switch="k"),
    Rule(("benchmark_dir", "allow_partial_benchmark"), "a --dataset_name_or_path that is not embedded (udhr) or your own (files)",
         lambda args: args.dataset_name_or_path not in ("udhr", "files"), harmless=True),
    Rule(("spacy_model",), "a method, retriever or divider that needs spaCy (pos, morph, dep, ner; structural, kernel)",
         lambda args: args.method_translate in ANNOTATED or ":" in args.method_translate
         or _retrieves_by(args, *PARSING_RETRIEVERS) or (args.steps and _divides_by(args, *PARSING_DIVIDERS))),
    Rule(("nllb_name_or_path", "nllb_engine", "nllb_compute_type", "cache_dir"), "--method_translate nllb",
         lambda args: args.method_translate == "nllb" or ":" in args.method_translate),
    *engine_rules(api=("api_key",), local=("tokenizer_name_or_path", "base_model_name_or_path", "lora_rank", "trust_remote_code")),
    Rule(("distributed",), "a model in this process (--inference_api vllm or hf, or --method_translate nllb)",
         lambda args: args.method_translate == "nllb" or args.inference_api not in inference.REMOTE),
    *WORKER_RULES,
    Rule(("request_batch_size",), "--inference_api hf", lambda args: args.inference_api not in ("vllm", *inference.REMOTE), harmless=True),
    Rule(("temperature", "top_p"), "sampling, which --num_beams above 1 replaces: --num_beams 1", lambda args: args.num_beams == 1),
    Rule(("top_p", "do_sample"), "--temperature above 0", lambda args: args.temperature and args.do_sample, harmless=True),
    Rule(("num_return_sequences",), "a --selection_method that chooses among the responses (greedy keeps the first)",
         lambda args: args.selection_method != "greedy" or args.num_beams > 1 or args.method_translate == "maps", harmless=True),
    Rule(("comet_name_or_path", "comet_python"), "--selection_method comet-qe", lambda args: args.selection_method == "comet-qe"),
    Rule(("blaser_name_or_path",), "--selection_method blaser or --method_translate maps", uses_blaser),
    Rule(("sonar_name_or_path",), "--selection_method blaser, --method_translate maps or --retriever_type SONAR with --k",
         lambda args: uses_blaser(args) or _retrieves_by(args, "SONAR")),
)
# fmt: on


def check_flags(args: argparse.Namespace) -> None:
    """Values that are out of range, contradict other flags, or have no effect with them."""
    check_values(args)
    flag_rules.check(RULES, args)


def check_values(args: argparse.Namespace) -> None:
    """Values that are out of range or contradict other flags."""
    if problem := next(_problems(args), None):
        raise UsageError(problem)


def _problems(args: argparse.Namespace) -> Iterator[str]:
    candidates, beams, selection = args.num_return_sequences, args.num_beams, args.selection_method
    phrases = args.number_of_subproblems
    if phrases == 0 and args.steps:
        yield (
            f"--number_of_subproblems {phrases}: pass a number of phrases, or -1 for no limit; 0 goes with --steps 0"
        )
    if beams > inference.MAX_BEAMS:
        yield f"--num_beams {beams} is more than {inference.MAX_BEAMS}"
    if 1 < beams < candidates:
        yield f"--num_return_sequences {candidates} is more than --num_beams {beams}"
    if candidates > 1 and beams == 1 and not (args.do_sample and args.temperature):
        yield (
            f"--num_return_sequences {candidates}: greedy decoding gives one response; pass --temperature above 0, or --num_beams"
        )
    if candidates == 1 and selection != "greedy" and args.method_translate != "maps":
        yield f"--selection_method {selection} has nothing to choose from: pass --num_return_sequences above 1"
    if problem := inference.beam_problem(args.inference_api, args):
        yield problem
    if args.method_translate == "maps" and selection in ("bleu", "chrf"):
        yield f"--selection_method {selection}: maps chooses by quality estimation; pass blaser or comet-qe"
    if not uses_llm(args) and (beams > 1 or candidates > 1 or selection != "greedy"):
        yield (
            "--method_translate nllb has its own decoding and gives one translation: drop --num_beams, --num_return_sequences "
            "and --selection_method, which are for LLMs"
        )
    if args.method_translate == methods.DIVIDE_ONLY and not args.steps:
        yield "--method_translate none only divides: pass --steps 1 or more"
