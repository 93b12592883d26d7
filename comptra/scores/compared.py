"""What is significant in the scores of one test set: intervals, p-values against the baseline and their correction."""

import argparse
from typing import TYPE_CHECKING

from comptra.scores.metrics import Scorer

if TYPE_CHECKING:
    import numpy as np


def compare(
    group: dict, statistics: list[dict[str, "np.ndarray"]], scorers: dict[str, Scorer], args: argparse.Namespace
) -> None:
    """Add to the scores of a group (see comptra.scores.scoring) "interval", "difference", "p" and "p_holm".

    `statistics` are of the group's systems, the baseline first, by metric: (segments, m).
    """
    from comptra.scores import significance

    functions = [scorer.scores for scorer in scorers.values()]
    columns = [[own[name] for name in scorers] for own in statistics]
    rows = [system["scores"] for system in group["systems"]]
    if args.bootstrap and scorers:
        for scores, own in zip(rows, columns, strict=True):
            intervals = significance.bootstrap_intervals(own, functions, args.bootstrap, args.seed)
            for name, interval in zip(scorers, intervals, strict=True):
                scores[name]["interval"] = list(interval)
    if group["baseline"] and len(rows) > 1 and scorers:
        p_values = significance.randomization_p_values(columns[0], columns[1:], functions, args.trials, args.seed)
        for name, column in zip(scorers, p_values.T.tolist(), strict=True):
            for scores, p, corrected in zip(rows[1:], column, significance.holm(column), strict=True):
                difference = scores[name]["score"] - rows[0][name]["score"]
                scores[name] |= {"difference": difference, "p": p, "p_holm": corrected}
