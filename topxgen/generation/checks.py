"""Flags of datagen.py that have no effect with the others: one table (see topxgen.common.flag_rules).

Flags of a stage that does not run are not among them: one command serves for all stages, run one by one.
"""

import argparse
from collections.abc import Callable

from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.common.flag_rules import Rule
from topxgen.common.records import back_translator_of, scorer_of, selector_of
from topxgen.common.registry import load_choice
from topxgen.corpora import benchmarks
from topxgen.flags import MODEL_FLAGS, WORKER_RULES, engine_rules
from topxgen.generation.pipelines import PIPELINES


def check_needed(args: argparse.Namespace) -> None:
    """Raise UsageError for a flag that generation needs, and that a run of several days should not miss at its second stage,
    and for a scorer that the third one refuses."""
    if "translate" in args.stages:
        check_scorer(args)
    if "generate" not in args.stages or args.paragraphs:
        return
    if not args.model_name_or_path:
        raise UsageError("the generate stage needs --model_name_or_path")
    ends = load_choice("--data_generation_pipeline", args.data_generation_pipeline, PIPELINES).ends
    if not (args.number_of_instructions or any(args.number_of_instructions_per_language or ()) or ends):
        raise UsageError(
            "set the number of paragraphs: --number_of_instructions or --number_of_instructions_per_language"
        )
    if args.data_generation_pipeline == "topxgen":
        check_topics(args)


def check_topics(args: argparse.Namespace) -> None:
    if not args.seed_topics_path:
        raise UsageError("the topxgen pipeline needs --seed_topics_path: a txt (one topic a line) or jsonl file")


def check_candidates(args: argparse.Namespace, translator) -> None:
    """Raise UsageError if the back-translator has no candidates, or no confidence to select them by."""
    name, count = back_translator_of(vars(args)), args.number_of_candidates
    if count == 1:
        return
    if not hasattr(translator, "candidates"):
        raise UsageError(
            f"--number_of_candidates {count}: --back_translator {name} gives one translation of a sentence; pass 1, or choose nllb or "
            "llm"
        )
    if selector_of(vars(args)) == "confidence" and name == "llm" and not _is_local(args):
        raise UsageError(
            f"--select_by confidence: --inference_api {args.inference_api} returns no token probabilities; choose blaser or "
            "metricx-qe, or --inference_api vllm or hf"
        )
    if selector_of(vars(args)) == "confidence" and name == "llm" and args.num_beams > 1:
        raise UsageError(
            "--select_by confidence: the first of --num_beams is always the likeliest; choose blaser or metricx-qe, or sample "
            "(--num_beams 1)"
        )


def check_scorer(args: argparse.Namespace) -> None:
    """Raise UsageError if the pairs of this run cannot have scores."""
    is_sampled = args.number_of_candidates > 1 and args.num_beams == 1 and _is_local(args)
    if (
        scorer_of(vars(args)) == "confidence"
        and back_translator_of(vars(args)) == "llm"
        and "score" in args.stages
        and not is_sampled
    ):
        raise UsageError(
            "--scorer confidence: an LLM gives confidences only for samples (--number_of_candidates 2 or more) of a model in this process "
            "(--inference_api vllm or hf); choose blaser, sonar-space, metricx-qe or none"
        )


def _judges(*names: str) -> Callable[[argparse.Namespace], bool]:
    """Whether one of `names` scores pairs or chooses among candidates."""

    def holds(args: argparse.Namespace) -> bool:
        chosen = {*_or_own(scorer_of(vars(args))), *_or_own(selector_of(vars(args)) or "none")}
        return not chosen.isdisjoint(names)

    return holds


def uses_llm(args: argparse.Namespace) -> bool:
    return ("generate" in args.stages and not args.paragraphs) or _llm_translates(args)


def _or_own(name: str) -> tuple[str, ...]:
    """An implementation of the user's own ("module:attribute") may use the flags of any other."""
    return ("llm", "nllb", "blaser", "sonar-space", "metricx-qe") if ":" in name else (name,)


def _samples(args: argparse.Namespace) -> bool:
    return bool(args.temperature and args.do_sample)


def _llm_translates(args: argparse.Namespace) -> bool:
    return "llm" in _or_own(back_translator_of(vars(args)))


def _has_llm(args: argparse.Namespace) -> bool:
    """Whether one of the stages, run or not, has an LLM."""
    return not args.paragraphs or _llm_translates(args)


def _nllb_translates(args: argparse.Namespace) -> bool:
    return "nllb" in _or_own(back_translator_of(vars(args)))


def grows_from_seeds(args: argparse.Namespace) -> bool:
    """Whether the pipeline starts from a pool of seed sentences (--example_sentences)."""
    return args.data_generation_pipeline in ("self-instruct", "knn-instruct")


def encodes_with_sonar(args: argparse.Namespace) -> bool:
    return args.data_generation_pipeline == "knn-instruct" and args.encoder == "sonar"


def _pipeline_is(*names: str) -> Callable[[argparse.Namespace], bool]:
    """Whether it is one of `names`, or one of the user's own, which may use the flags of any."""
    return lambda args: args.data_generation_pipeline in names or ":" in args.data_generation_pipeline


def _shows_sentences(args: argparse.Namespace) -> bool:
    return bool(grows_from_seeds(args) or args.number_of_icl_phrases)


def _is_local(args: argparse.Namespace) -> bool:
    return args.inference_api not in inference.REMOTE


def _has_work_for_workers(args: argparse.Namespace) -> bool:
    uses_scorer = scorer_of(vars(args)) not in ("confidence", "none")
    return _is_local(args) or back_translator_of(vars(args)) != "llm" or uses_scorer


# fmt: off
RULES = (
    Rule(
        (
            "data_generation_pipeline", "seed_topics_path", "prompt_template", "number_of_icl_demonstrations", "number_of_icl_phrases",
            "number_of_generations_per_step", "example_paragraphs", "example_sentences", "number_of_icl_synthetic_demonstrations",
            "number_of_rounds", "max_samples", "max_new_tokens", "temperature", "top_p", "repetition_penalty",
            "num_return_sequences", "do_sample",
        ),
        "an LLM that writes (no --paragraphs)",
        lambda args: not args.paragraphs,
    ),
    Rule(("model_name_or_path", "num_beams", *(flag for flag in MODEL_FLAGS if flag != "trust_remote_code")),
         "an LLM that writes or back-translates (no --paragraphs, or no --use_nllb)", _has_llm),
    Rule(("use_nllb",), "--back_translator nllb", lambda args: args.back_translator in (None, "nllb")),
    Rule(("nllb_name_or_path", "nllb_engine", "nllb_compute_type", "cache_dir"), "--use_nllb", _nllb_translates),
    Rule(("nllb_compute_type", "cache_dir"), "--nllb_engine ctranslate2",
         lambda args: args.nllb_engine == "ctranslate2" or args.nllb_compute_type in ("float16", "bfloat16", "float32")),
    Rule(("template_key", "number_of_demonstrations"), "an LLM that back-translates (no --use_nllb)", _llm_translates, harmless=True),
    Rule(("prompt_style", "demonstration_pool", "retriever_tokens"), "an LLM that back-translates (no --use_nllb)", _llm_translates),
    Rule(("demonstration_pool", "retriever_tokens"), "--number_of_demonstrations", lambda args: args.number_of_demonstrations,
         switch="number_of_demonstrations"),
    Rule(("allow_partial_benchmark",), f"examples or demonstrations of one of {', '.join(benchmarks.SIZES)}",
         lambda args: not benchmarks.SIZES.keys().isdisjoint([args.example_sentences, args.example_paragraphs, args.demonstration_pool]),
         harmless=True),
    Rule(("accept_unanswered",), "an LLM that back-translates through an API", lambda args: _llm_translates(args) and not _is_local(args)),
    Rule(("select_by", "candidate_temperature"), "--number_of_candidates 2 or more", lambda args: args.number_of_candidates > 1),
    Rule(("candidate_temperature",), "an LLM that back-translates (no --use_nllb), with --num_beams 1",
         lambda args: _llm_translates(args) and args.num_beams == 1),
    Rule(("adapter_name_or_path",), "an LLM that writes or back-translates", uses_llm),
    Rule(("lora_rank",), "--adapter_name_or_path", lambda args: args.adapter_name_or_path),
    *engine_rules(api=("budget",), local=("lora_rank",)),
    Rule(("api_key",), "--inference_api openai, cohere or anthropic",
         lambda args: not args.api_key or args.inference_api not in ("vllm", "hf"), harmless=True),
    Rule(("tokenizer_name_or_path",), "a model in this process (--inference_api vllm or hf)", _is_local, harmless=True),
    Rule(("trust_remote_code",), "a model in this process (--inference_api vllm or hf, --use_nllb)",
         lambda args: (_is_local(args) and _has_llm(args)) or _nllb_translates(args)),
    Rule(("distributed",), "a model to run in workers: an LLM that is not an API's, a translator or a scorer", _has_work_for_workers),
    *WORKER_RULES,
    Rule(("num_return_sequences",), "sampling (--temperature above 0) or --num_beams: greedy responses are all equal",
         lambda args: _samples(args) or args.num_beams > 1),
    Rule(("temperature", "top_p"), "sampling, which --num_beams above 1 replaces: --num_beams 1", lambda args: args.num_beams == 1),
    Rule(("top_p", "do_sample"), "--temperature above 0", _samples, harmless=True),
    Rule(("example_paragraphs",), "--number_of_icl_demonstrations", lambda args: args.number_of_icl_demonstrations,
         switch="number_of_icl_demonstrations"),
    Rule(("example_sentences",), "--number_of_icl_phrases", _shows_sentences, switch="number_of_icl_phrases"),
    Rule(("max_samples",), "--number_of_icl_phrases", _shows_sentences, harmless=True),
    Rule(("example_paragraphs",), "--data_generation_pipeline topxgen", _pipeline_is("topxgen")),
    Rule(("seed_topics_path", "number_of_icl_phrases", "number_of_generations_per_step"), "--data_generation_pipeline topxgen",
         _pipeline_is("topxgen"), harmless=True),
    Rule(("number_of_icl_synthetic_demonstrations",), "--data_generation_pipeline self-instruct", _pipeline_is("self-instruct"),
         harmless=True),
    Rule(("number_of_rounds",), "--data_generation_pipeline knn-instruct", _pipeline_is("knn-instruct"), harmless=True),
    Rule(("encoder", "encoder_device"), "--data_generation_pipeline knn-instruct", _pipeline_is("knn-instruct")),
    Rule(("encoder_device",), "another encoder: use runs on the CPU", lambda args: args.encoder != "use"),
    Rule(("rouge_tokenizer", "dedup_prefilter"), "--threshold below 1", lambda args: args.threshold != 1),
    Rule(("blaser_name_or_path",), "--scorer or --select_by blaser", _judges("blaser"), switch="scorer"),
    Rule(("sonar_name_or_path",), "--scorer or --select_by blaser", lambda args: _judges("blaser")(args) or encodes_with_sonar(args),
         switch="scorer"),
    Rule(("min_score",), "a --scorer (not none)", lambda args: scorer_of(vars(args)) != "none"),
    Rule(("metricx_name_or_path",), "--scorer or --select_by metricx-qe", _judges("metricx-qe"), switch="scorer"),
    Rule(("scorer_dtype",), "--scorer or --select_by blaser, sonar-space or metricx-qe", _judges("blaser", "sonar-space", "metricx-qe"),
         switch="scorer"),
)  # fmt: skip
# fmt: on
