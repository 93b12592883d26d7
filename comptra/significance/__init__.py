"""What the scores of one test set show of its systems: intervals, p-values, top clusters, several seeds, several languages."""

ALPHA = 0.05  # of all tests
SAMPLES = 2000  # bootstrap samples of the test over seeds


def better(value: dict, higher_is_better: bool) -> bool | None:
    """Whether a score is significantly better than the baseline's, after correction for the number of systems; None if it is
    neither better nor worse."""
    if value["p_holm"] >= ALPHA:
        return None
    return (value["difference"] > 0) == higher_is_better
