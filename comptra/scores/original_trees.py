"""The test set of translations of the original code, which record nothing: their folders are named after it,
GENERATIONS/{BENCHMARK}/{strategy}/…/{model or checkpoint-N}/{run}/translate_0.jsonl."""

import logging
import re
from pathlib import Path

from topxgen.common.console import ONCE
from topxgen.common.errors import UsageError

logger = logging.getLogger(__name__)
DEPTH = 6  # folders above a model's in which the name is looked for
# Names of folders, in lower case without punctuation, and the data set in comptra.evaluation_sets.
DATASETS = {
    **dict.fromkeys(("flores", "flores200", "floresplus", "flores200devtest", "floresdevtest"), "flores"),
    **dict.fromkeys(("ntrex", "ntrex128"), "ntrex"),
    **dict.fromkeys(("tico", "tico19"), "tico"),
    "ood": "ood",
    "udhr": "udhr",
}


def dataset_named(name: str) -> str | None:
    """The data set that the name of a folder means, if any."""
    return DATASETS.get(re.sub(r"[^a-z0-9]", "", name.lower()))


def dataset_of(run: Path) -> str | None:
    """The data set that a folder above a run is named after; None if none is. Raises UsageError if they name several.

    It is a guess that the caller checks: each sentence of the translations has to be that of the test set.
    """
    named: dict[str, Path] = {}
    for folder in list(run.absolute().parents)[1 : DEPTH + 1]:
        if dataset := dataset_named(folder.name):
            named.setdefault(dataset, folder)
    if len(named) > 1:
        raise UsageError(
            f"the folders above {run} name several test sets ({', '.join(named)}); pass --dataset_name_or_path"
        )
    for dataset, folder in named.items():
        logger.info(f"{folder}: by its name the test set is {dataset} (else pass --dataset_name_or_path)", extra=ONCE)
        return dataset
    return None
