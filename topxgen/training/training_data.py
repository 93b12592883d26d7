"""What a model is trained on: the pairs of a source (a named set, a file, a folder, the Hub), and which of them to take.

What comes after is in pairs.py (split, reverse) and exports.py; all of it can be had from here.
"""

import random
import re
from dataclasses import replace
from pathlib import Path

from topxgen.common.errors import UsageError, closest
from topxgen.corpora import benchmarks
from topxgen.corpora.tables import KINDS
from topxgen.training import file_datasets
from topxgen.training.export import FORMATS, export
from topxgen.training.named_datasets import NAMED, SCORED, DatasetSpec, LoadedPairs, sha256, sha256_of_texts
from topxgen.training.pairs import Pair, reverse, split

__all__ = ["FORMATS", "NAMED", "STRATEGIES", "DatasetSpec", "Pair", "export", "load", "reverse", "split", "stream"]

STRATEGIES = ("soonest", "highest", "random")


def load(source: DatasetSpec) -> tuple[list[Pair], dict]:
    """All pairs that are taken, in the order of the files (languages in that of `targets`), and facts for a manifest.

    The facts: under "languages", for each direction, "path", "sha256" (of the file's bytes; of FLORES, the UDHR and the
    Hub of the texts) and "counts": "read", what was dropped and why ("too_short", "marks", "empty", "unaligned"), what
    was selected ("by_percentile" or "by_size", of how many "asked") and "pairs", all that is left.
    Raises UsageError when something is missing, malformed, or not to be had from this source.
    """
    source = _checked(source)
    read = NAMED.get(source.name, _own)(source)
    directions: dict[str, list[int]] = {direction: [] for direction in read.counts}
    for i, pair in enumerate(read.pairs):
        directions[pair.direction].append(i)
    if not read.pairs or (source.name in NAMED and not all(directions.values())):
        direction = next(direction for direction, numbers in directions.items() if not numbers)
        dropped = ", ".join(f"{name} {count:,}" for name, count in read.counts[direction].items())
        raise UsageError(f"{source.name} holds no pairs of {direction} to train on ({dropped or 'it is empty'})")
    facts, taken = {}, []
    for direction, numbers in directions.items():
        chosen, selected = _select(source, read, direction, numbers) if numbers else ([], {})
        taken += chosen
        counts = {**read.counts[direction], **selected, "pairs": len(chosen)}
        facts[direction] = {**read.origins[direction], "counts": counts}
    return [read.pairs[i] for i in sorted(taken)], {"name": source.name, "languages": facts}


def stream(source: DatasetSpec):
    """An IterableDataset of strings source, target, src, tgt, read as it is asked for.

    Raises UsageError for a set with a name, which fits into memory, and for a selection, which needs all pairs.
    """
    source = _checked(source)
    if source.name in NAMED:
        raise UsageError(f"{source.name} is small and is read whole: drop --streaming")
    if source.dataset_size != -1:
        raise UsageError(f"--dataset_size {source.dataset_size} needs all pairs at once: drop it, or drop --streaming")
    if (path := _own_path(source)) is not None:
        return file_datasets.stream_local(path, source.split or "train", _wanted(source))
    return file_datasets.stream_hub(source.name, source.subset, source.split or "train", _wanted(source))


def _checked(source: DatasetSpec) -> DatasetSpec:
    """The source, each language once. Raises UsageError when its settings do not go together."""
    if source.strategy not in STRATEGIES:
        raise UsageError(f"unknown strategy {source.strategy!r}: choose from {', '.join(STRATEGIES)}")
    if source.dataset_size != -1 and source.dataset_size < 1:
        raise UsageError(f"--dataset_size {source.dataset_size} is neither -1 (all) nor a number of pairs from 1 on")
    if source.percentile is not None and not 0 <= source.percentile <= 100:
        raise UsageError(f"--percentile {source.percentile} is not from 0 to 100")
    ranks = {"--percentile": source.percentile is not None, "--strategy highest": source.strategy == "highest"}
    if source.name not in SCORED and any(ranks.values()):
        flag = next(flag for flag, chosen in ranks.items() if chosen)
        raise UsageError(f"{flag} goes by scores, and {source.name} has none, only {SCORED[0]} does: drop it")
    if source.name in NAMED:
        if not source.targets:
            raise UsageError(f"{source.name} has many languages: say which with --target_languages")
        if source.src in source.targets:
            raise UsageError(f"{source.src.name} is both --src and among --target_languages; drop it from one")
    return replace(source, targets=tuple(dict.fromkeys(source.targets)))


def _select(
    source: DatasetSpec, read: LoadedPairs, direction: str, numbers: list[int]
) -> tuple[list[int], dict[str, int]]:
    """Those of the pairs `numbers` of a direction that are taken, in any order, and counts of them (SPEC section 6)."""
    size = source.dataset_size
    if source.percentile is not None:
        import numpy as np

        scores = _comparable(source, read, direction, numbers, "--percentile")
        threshold = float(np.percentile(scores, source.percentile))
        best = [i for i, score in zip(numbers, scores, strict=True) if score > threshold]
        if not best:
            raise UsageError(
                f"--percentile {source.percentile:g} leaves none of {len(numbers):,} pairs of {direction}: no score is "
                f"above {threshold:g}; pass a lower one"
            )
        return best, {"by_percentile": len(best)}
    if size == -1:
        return numbers, {}
    if size < len(numbers):
        if source.strategy == "highest":
            scores = _comparable(source, read, direction, numbers, "--strategy highest")
            order = sorted(range(len(numbers)), key=scores.__getitem__, reverse=True)  # stable: ties in file order
            numbers = [numbers[i] for i in order[:size]]
        elif source.strategy == "random":
            # Of the direction, not of its place: another language beside it changes nothing.
            numbers = random.Random(f"{source.seed} {direction}").sample(numbers, size)
        else:
            numbers = numbers[:size]
    return numbers, {"asked": size, "by_size": len(numbers)}


def _comparable(source: DatasetSpec, read: LoadedPairs, direction: str, numbers: list[int], flag: str) -> list[float]:
    scores = [read.scores[i] for i in numbers]
    if lacking := scores.count(None):
        raise UsageError(
            f"{lacking:,} of {len(scores):,} pairs of {direction} in {source.data_dir} have no score, which {flag} goes by: "
            "run datagen.py --stages score and decontamination.py again, or pass --strategy soonest or random"
        )
    scorers = sorted({str(read.scorers[i] or "one that is not named") for i in numbers})
    if len(scorers) > 1:
        raise UsageError(
            f"the pairs of {direction} in {source.data_dir} were scored by {' and '.join(scorers)}, which cannot be compared: "
            f"score all by one (datagen.py --stages score --scorer NAME, then decontamination.py), or drop {flag}"
        )
    return scores


def _own(source: DatasetSpec) -> LoadedPairs:
    """A file, a folder or a data set of the Hub."""
    read, part, wanted = LoadedPairs(), source.split or "train", _wanted(source)
    path = _own_path(source)
    if path is not None:
        files, rows = file_datasets.local_rows(path, part, wanted)
        where = str(path)
    else:
        data = benchmarks.hub_dataset(source.name, source.subset, part)
        files, rows = [], file_datasets.dataset_rows(data, wanted)
        where = benchmarks.hub_name(source.name, source.subset or "default", part)
    pairs = file_datasets.PairReader(rows, wanted, where)
    for pair in pairs:
        read.add(pair)
    digest = sha256(*files) if files else sha256_of_texts((pair.source, pair.target) for pair in read.pairs)
    read.counts = pairs.counts
    read.origins = {direction: {"path": where, "sha256": digest} for direction in pairs.counts}
    return read


def _own_path(source: DatasetSpec) -> Path | None:
    """The path that the name is; None for a Hub id. Raises UsageError when it is neither."""
    path = Path(source.name).expanduser()
    if source.name and path.exists():
        return path
    if path.suffix.lower() not in KINDS and re.fullmatch(r"\w[\w.-]*/[\w.-]+", source.name):
        return None
    if "/" in source.name or path.suffix.lower() in KINDS:
        raise UsageError(f"there is no file or folder {path}")
    near = closest(source.name, NAMED, n=1)
    raise UsageError(
        f"unknown training set {source.name!r}: {f'did you mean {near[0]}? ' if near else ''}choose from "
        f"{', '.join(NAMED)}, or pass a file, a folder, or a Hub id such as org/name"
    )


def _wanted(source: DatasetSpec) -> file_datasets.ColumnMapping:
    return file_datasets.ColumnMapping(source.input_column, source.output_column, source.src, source.targets)
