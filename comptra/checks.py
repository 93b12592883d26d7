"""Checks of main.py's flags against each other and against the test set. All raise UsageError before a model is loaded."""

import argparse
import logging
from collections.abc import Iterator
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

PHRASE = ""  # stands for the phrases of a sentence, which are not known yet
MAX_SHOWN = 100  # characters


def check_flags(args: argparse.Namespace, uses_llm: bool) -> None:
    """Values that are out of range, or contradict other flags."""
    if problem := next(_problems(args, uses_llm), None):
        raise UsageError(problem)


def _problems(args: argparse.Namespace, uses_llm: bool) -> Iterator[str]:
    candidates, beams, selection = args.num_return_sequences, args.num_beams, args.selection_method
    phrases = args.number_of_subproblems
    if phrases < -1 or (phrases == 0 and args.steps):
        yield (
            f"--number_of_subproblems {phrases}: pass a number of phrases, or -1 for no limit; 0 goes with --steps 0"
        )
    if beams > inference.MAX_BEAMS:
        yield f"--num_beams {beams} is more than {inference.MAX_BEAMS}"
    if 1 < beams < candidates:
        yield f"--num_return_sequences {candidates} is more than --num_beams {beams}"
    if candidates > 1 and beams == 1 and not (args.do_sample and args.temperature):
        yield (
            f"--num_return_sequences {candidates}: greedy decoding gives one answer; pass --temperature above 0, or --num_beams"
        )
    if candidates == 1 and selection != "greedy" and args.method_translate != "maps":
        yield f"--selection_method {selection} has nothing to choose from: pass --num_return_sequences above 1"
    if beams > 1 and args.inference_api == "vllm" and args.repetition_penalty != 1:
        yield (
            f"--repetition_penalty {args.repetition_penalty:g}: vLLM's beam search does not support it; pass 1, or "
            "--inference_api hf"
        )
    if args.method_translate == "maps" and selection in ("bleu", "chrf"):
        yield f"--selection_method {selection}: maps chooses by quality estimation; pass blaser or comet-qe"
    if not uses_llm and (beams > 1 or candidates > 1 or selection != "greedy"):
        yield (
            "--method_translate nllb has its own decoding and gives one translation: drop --num_beams, --num_return_sequences "
            "and --selection_method, which are for LLMs"
        )
    if args.refine_after_merge and not args.steps:
        yield f"--refine_after_merge {args.refine_after_merge} refines merged translations: pass --steps 1 or more, or drop it"
    if args.method_translate == methods.DIVIDE_ONLY and not args.steps:
        yield "--method_translate none only divides: pass --steps 1 or more"


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
    if not wanted:
        return
    pool, leaks_for = config.test_set.pool, config.test_set.leaks_for
    queries = [*config.test_set.sources, *([PHRASE] if args.steps else [])]
    left_out = max(map(len, map(leaks_for, queries)))
    if wanted > len(pool) - left_out:
        flag = "--k" if wanted == args.k else "--number_of_merge_demonstrations"
        leaking = f" ({left_out} of them overlap a sentence to be translated)" if left_out else ""
        raise UsageError(
            f"{flag} {wanted} is more than the {len(pool)} pairs of the pool of {args.dataset_name_or_path}{leaking}; "
            "pass a smaller number, or choose another data set"
        )
    if leaking := config.test_set.facts["leak_guard"]["leaking_pairs"]:
        first = min(i for indices in config.test_set.leaks.values() for i in indices)
        logger.warning(
            f"{leaking} of the {len(pool)} pairs of the demonstration pool overlap the test set and are not shown with what they "
            f"overlap, such as {' '.join(pool[first])[:MAX_SHOWN]!r}"
        )


def check_choices(config: "EvaluationConfig") -> None:
    """What the chosen methods, retriever, selector and divider need beyond the LLM."""
    args = config.args
    task = config.task(config.models[0], client=None)  # creates the selectors
    methods.check(args.method_translate, task)
    if config.max_demonstrations:
        config.retriever  # noqa: B018 (created now, so that it reports what is missing)
    refines = bool(args.number_of_refining_steps or args.refine_after_merge)
    instructs = args.method_translate in methods.WITH_INSTRUCTIONS or refines
    instructs |= bool(args.steps and config.merge_prompt.has_sections)
    if instructs and RAW in config.style.values():
        logger.warning(
            "cot, maps, step_by_step, TEaR, refinement and these merge prompts give instructions, which models without a chat template rarely follow: "
            "look at some answers first"
        )
    if refines:
        refine.check(task)
    if args.steps:
        divide.check(args.method_divide, config.src, config.divider_settings)
