"""Flags that have no effect together with the others: one table of rules for each script.

A flag that does nothing may have cost a day of GPU time before it is noticed. It ends the run, unless published commands give
it, or the flag that would bring it to life is given, too, with the value that switches it off (--steps 0): then one line says so.
"""

import argparse
import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

from topxgen.common.errors import UsageError

logger = logging.getLogger(__name__)


class Rule(NamedTuple):
    """`flags` have an effect only if `holds(args)`."""

    flags: tuple[str, ...]
    needs: str  # what the user has to pass for that: "--steps 1 or more"
    holds: Callable[[argparse.Namespace], bool]
    switch: str = ""  # the flag whose value switches these off; given, it is meant
    harmless: bool = False  # logged, not refused: limits, and flags that published commands pass without effect


# Values that ask for nothing, of flags whose default may be another; published greedy runs have --number_of_subproblems 0.
NEUTRAL = (
    ("k", 0), ("steps", 0), ("number_of_refining_steps", 0), ("refine_after_merge", 0), ("number_of_merge_demonstrations", 0),
    ("number_of_subproblems", -1), ("number_of_subproblems", 0), ("top_p", 1.0), ("repetition_penalty", 1.0), ("num_beams", 1),
    ("num_return_sequences", 1), ("temperature", 0.0), ("bootstrap", 0), ("dataset_size", -1), ("strategy", "soonest"),
    ("num_eval_translations", 0), ("number_of_candidates", 1),
)  # fmt: skip


def check(rules: Iterable[Rule], args: argparse.Namespace, quiet: bool = False) -> None:
    """Log (unless `quiet`), or raise UsageError for, flags of the command line that have no effect. See the head of this file."""
    given, asked = getattr(args, "given", frozenset()), asked_for(args)
    for rule in rules:
        idle = [flag for flag in rule.flags if flag in asked]
        if not idle or rule.holds(args):
            continue
        verb = "has" if len(idle) == 1 else "have"
        problem = f"{', '.join(f'--{flag}' for flag in idle)} {verb} no effect without {rule.needs}"
        if not rule.harmless and rule.switch not in given:
            raise UsageError(f"{problem}: pass that, or drop {'it' if len(idle) == 1 else 'them'}")
        if not quiet:
            logger.info(problem)


def without_effect(rules: Iterable[Rule], args: argparse.Namespace) -> set[str]:
    """The flags that have no effect together with the others, given or not."""
    return {flag for rule in rules if not rule.holds(args) for flag in rule.flags}


def asked_for(args: argparse.Namespace) -> set[str]:
    """The flags of the command line whose values ask for something."""
    given = {flag: getattr(args, flag) for flag in getattr(args, "given", ())}
    return {flag for flag, value in given.items() if value is not False and (flag, value) not in NEUTRAL}
