"""Checks of main.py's flags against each other and against the test set. All raise UsageError before a model is loaded."""

import argparse
import logging
from collections import Counter
from typing import TYPE_CHECKING

from comptra import methods
from comptra.compositional import divide
from comptra.methods import refine
from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.prompting.style import RAW

if TYPE_CHECKING:
    from comptra.run import EvaluationConfig

logger = logging.getLogger(__name__)


def check_flags(args: argparse.Namespace, uses_llm: bool) -> None:
    """Values that are out of range, or contradict other flags."""
    models = len(set(args.model_name_or_path or ()))
    samples = args.do_sample and args.temperature > 0
    several = args.num_return_sequences > 1
    for is_wrong, message in (
        (
            args.number_of_subproblems == 0 or args.number_of_subproblems < -1,
            f"--number_of_subproblems {args.number_of_subproblems}: pass a number of phrases, or -1 for no limit",
        ),
        (
            args.num_beams > inference.MAX_BEAMS,
            f"--num_beams {args.num_beams} is more than {inference.MAX_BEAMS}",
        ),
        (
            1 < args.num_beams < args.num_return_sequences,
            f"--num_return_sequences {args.num_return_sequences} is more than --num_beams {args.num_beams}",
        ),
        (
            several and args.num_beams == 1 and not samples,
            f"--num_return_sequences {args.num_return_sequences}: greedy decoding gives one answer; pass --temperature above "
            "0, or --num_beams",
        ),
        (
            not several and args.selection_method != "greedy" and args.method_translate != "maps",
            f"--selection_method {args.selection_method} has nothing to choose from: pass --num_return_sequences above 1",
        ),
        (
            args.num_beams > 1 and args.inference_api == "vllm" and args.repetition_penalty != 1,
            f"--repetition_penalty {args.repetition_penalty:g}: vLLM's beam search does not support it; pass 1, or "
            "--inference_api hf",
        ),
        (
            args.method_translate == "maps" and args.selection_method in ("bleu", "chrf"),
            f"--selection_method {args.selection_method}: maps chooses by quality estimation; pass blaser or comet-qe",
        ),
        (
            not uses_llm and (args.num_beams > 1 or several or args.selection_method != "greedy"),
            "--method_translate nllb has its own decoding and gives one translation: drop --num_beams, --num_return_sequences "
            "and --selection_method, which are for LLMs",
        ),
        (
            args.refine_after_merge and not (args.steps and args.number_of_refining_steps),
            "--refine_after_merge needs --steps and --number_of_refining_steps of 1 or more",
        ),
        (
            args.metadata_dir and args.steps and args.method_divide == "llm" and models > 1,
            f"--metadata_dir {args.metadata_dir} holds the divisions of one model, but with --method_divide llm each of {models} "
            "models divides: drop it, or run them one by one",
        ),
        (
            args.method_translate == methods.DIVIDE_ONLY and not args.steps,
            "--method_translate none only divides: pass --steps 1 or more",
        ),
    ):
        if is_wrong:
            raise UsageError(message)


def check_pool(config: "EvaluationConfig") -> None:
    """Whether there are enough demonstrations in the pool, and where they come from."""
    args, wanted = config.args, config.max_demonstrations
    if (config.test_set.facts.get("pool") or {}).get("decontaminated") is False:
        logger.warning(
            "the demonstration pool was not decontaminated (no _translate_filtered.jsonl): it may contain the test set; run "
            "decontamination.py"
        )
    if config.divides_by_pool and not config.test_set.pool:
        logger.info("no demonstration pool: --method_divide keyword picks long words instead of rare ones")
    pool = Counter(source for source, _ in config.test_set.pool)
    equal = max(pool[sentence] for sentence in config.test_set.sources)  # a sentence is never its own demonstration
    if wanted > pool.total() - equal:
        flag = "--k" if wanted == args.k else "--number_of_merge_demonstrations"
        test_sentences = f" ({equal} of them with a sentence to be translated)" if equal else ""
        raise UsageError(
            f"{flag} {wanted} is more than the {pool.total()} pairs of the pool of {args.dataset_name_or_path}{test_sentences}; "
            "pass a smaller number, or choose another data set"
        )


def check_choices(config: "EvaluationConfig") -> None:
    """What the chosen methods, retriever, selector and divider need beyond the LLM."""
    args = config.args
    task = config.task(config.models[0], client=None)  # creates the selectors
    methods.check(args.method_translate, task)
    if config.max_demonstrations:
        config.retriever  # noqa: B018 (created now, so that it reports what is missing)
    instructs = args.method_translate in methods.WITH_INSTRUCTIONS or args.number_of_refining_steps
    if instructs and RAW in config.style.values():
        logger.warning(
            "cot, maps, step_by_step, TEaR and refinement give instructions, which models without a chat template rarely follow: "
            "look at some answers first"
        )
    if args.number_of_refining_steps:
        refine.check(task)
    if args.steps:
        divide.check(args.method_divide, config.src, config.divider_settings)
