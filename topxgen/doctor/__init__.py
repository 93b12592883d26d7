"""What would stop a run on this machine, or make it slow: checks that change nothing, each with a remedy."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from topxgen.common.errors import reason
from topxgen.common.registry import Choice

if TYPE_CHECKING:
    from topxgen.doctor.situation import Situation

logger = logging.getLogger(__name__)
OK, NOTE, PROBLEM = "ok", "note", "problem"
GB = 1e9
UNKNOWN = "unknown: "  # begins the text of a finding that could not be determined; a note or a problem, never ok


@dataclass(frozen=True)
class Finding:
    """`subject`: a word or name; `text`: what was found and why it matters; `remedy`: what to do or run."""

    level: str
    subject: str
    text: str
    remedy: str = ""


def ok(subject: str, text: str) -> Finding:
    return Finding(OK, subject, text)


def note(subject: str, text: str, remedy: str = "") -> Finding:
    return Finding(NOTE, subject, text, remedy)


def problem(subject: str, text: str, remedy: str = "") -> Finding:
    return Finding(PROBLEM, subject, text, remedy)


def gb(size: float) -> str:
    return f"{size / GB:,.1f} GB" if size >= 0.1 * GB else f"{size / GB:.2g} GB"


# Each is a function of a Situation that gives findings.
CHECKS: dict[str, Choice] = {
    "python": Choice("topxgen.doctor.software:python", "whether this Python is supported"),
    "gpus": Choice("topxgen.doctor.gpus:check", "GPUs, their memory, and who else uses them"),
    "driver": Choice("topxgen.doctor.software:driver", "whether torch's build fits the driver and the GPUs"),
    "packages": Choice("topxgen.doctor.software:packages", "versions of the packages that the run uses"),
    "environments": Choice("topxgen.doctor.software:environments", "COMET's separate environment"),
    "inputs": Choice("topxgen.doctor.software:inputs", "keys of APIs; flags and files of the first stage"),
    "memory": Choice("topxgen.doctor.memory:check", "weights, KV cache and optimizer against the memory"),
    "disk": Choice("topxgen.doctor.storage:disk", "free space where the run writes"),
    "locks": Choice("topxgen.doctor.storage:locks", "file locks, and who holds the output directory"),
    "assets": Choice("topxgen.doctor.downloads:assets", "models and data that are not there, or damaged"),
    "access": Choice("topxgen.doctor.downloads:access", "whether the Hub lets this token download them"),
}


def examine(situation: "Situation") -> Iterator[tuple[str, Finding]]:
    """The findings of all checks, with the name of each. A check that fails says so; the others go on."""
    for name, row in CHECKS.items():
        try:
            for finding in row.load()(situation):
                yield name, finding
        except Exception as error:  # a broken package, for example, can raise anything; that must not hide the findings of other checks
            logger.debug("check %s", name, exc_info=True)
            remedy = "scripts/doctor.py --imports says whether a package is broken"
            yield name, problem(name, f"{UNKNOWN}the check failed ({reason(error)})", remedy)
