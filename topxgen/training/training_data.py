"""The training and test set that train.py's flags name: read, selected, split, in one or both directions."""

import argparse
import logging
import random

from topxgen.common import provenance
from topxgen.common.errors import UsageError
from topxgen.common.records import CONFIDENCE, back_translator_in
from topxgen.text import languages
from topxgen.text.language_id import doubts
from topxgen.training import file_datasets
from topxgen.training.dataset_spec import DatasetSpec, LoadedPairs, sha256_of_files, sha256_of_texts
from topxgen.training.named_datasets import NAMED
from topxgen.training.pairs import Pair, by_direction, reverse, split

logger = logging.getLogger(__name__)
STRATEGIES = ("soonest", "highest", "random")
DROP_DUPLICATES = ("after", "before")


def build_sets(args: argparse.Namespace) -> tuple[list[Pair], list[Pair], dict]:
    """(training pairs, test pairs, data facts for the manifest) of data that fits in memory."""
    pairs, facts = load(DatasetSpec.from_args(args))
    train, test = split(pairs, args.test_size_ratio, args.seed) if args.test_size_ratio else (pairs, [])
    if args.reverse:
        train, test = reverse(train), reverse(test)
    return train, test, {**facts, "train_pairs": len(train), "test_pairs": len(test), "sha256": digest(train, test)}


def open_stream(args: argparse.Namespace) -> tuple[object, list[Pair], dict]:
    """The same for a stream: its first --size_valid_set pairs are the test set, the rest is shuffled in a buffer."""
    from topxgen.training.streaming import windows

    spec = DatasetSpec.from_args(args)
    pairs = stream(spec)
    test = [pair for window in windows(pairs.take(args.size_valid_set), 1000) for pair in window]
    if args.reverse:
        test = reverse(test)
    train = pairs.skip(args.size_valid_set).shuffle(seed=args.seed, buffer_size=args.shuffle_buffer)
    local = file_datasets.local_path(spec.dataset_name_or_path)
    samples = map(provenance.weights_id, file_datasets.open_rows(spec)[0] if local else ())
    facts = {"streamed": args.dataset_name_or_path, "test_pairs": len(test), "sha256": digest([], test)}
    return train, test, facts | {"files": provenance.digest(list(samples))}


def digest(train: list[Pair], test: list[Pair]) -> str:
    """A digest of both sets, in order."""
    lines = [f"{pair.src}\t{pair.tgt}\t{pair.source}\t{pair.target}" for pair in (*train, *test)]
    return provenance.digest([str(len(train)), *lines])


def load(spec: DatasetSpec) -> tuple[list[Pair], dict]:
    """All pairs that the spec selects, in the order of the files, and facts for the manifest.

    The facts have, under "languages" and the direction, "path", "sha256" (of the file's bytes; for FLORES, the UDHR and the
    Hub of the texts), with a selection by scores the "scorer" (null: it is not named), and "counts": "read"; drops by reason ("too_short", "forbidden_characters", "empty", "unaligned");
    pairs selected ("by_percentile", or "by_size" of "asked"); "duplicates", those selected whose two texts an earlier one
    has, too, which are dropped (with --drop_duplicates before, first); and "pairs", those that remain.
    Raises UsageError for data that is missing, malformed, empty, or lacks what the spec selects by.
    """
    check(spec)
    name = spec.dataset_name_or_path
    data = NAMED.get(name, _load_own)(spec)
    indices = by_direction(data.pairs)
    for direction, counts in data.counts.items():
        if direction not in indices and (name in NAMED or not indices):
            dropped = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
            raise UsageError(f"{name} holds no pairs of {direction} to train on ({dropped or 'it is empty'})")
    facts, selected = {}, []
    for direction, counts in data.counts.items():
        candidates, selection = indices.get(direction, []), {}
        if spec.drop_duplicates == "before":
            candidates = _different(data, candidates, selection)
        chosen, sizes = _select(spec, data, direction, candidates) if candidates else ([], {})
        selection |= sizes
        if spec.drop_duplicates == "after":  # of the published selection
            chosen = _different(data, chosen, selection)
        selected += chosen
        facts[direction] = {**data.origins[direction], "counts": {**counts, **selection, "pairs": len(chosen)}}
        if candidates and (spec.percentile is not None or (spec.strategy == "highest" and spec.dataset_size != -1)):
            facts[direction]["scorer"] = data.scorers[candidates[0]]
    return [data.pairs[i] for i in sorted(selected)], {"name": name, "languages": facts}


def stream(spec: DatasetSpec):
    """A datasets.IterableDataset of strings source, target, src, tgt, read on iteration.

    Raises UsageError for a named data set, which fits in memory, and for a selection, which needs all pairs.
    """
    check(spec)
    if spec.dataset_name_or_path in NAMED:
        raise UsageError(f"{spec.dataset_name_or_path} is small and fits in memory: drop --streaming")
    if spec.dataset_size != -1:
        raise UsageError(f"--dataset_size {spec.dataset_size} needs all pairs at once: drop it, or drop --streaming")
    return file_datasets.stream(spec)


def check(spec: DatasetSpec) -> None:
    """Raise UsageError for settings that contradict each other, and for a file that is not there."""
    name = spec.dataset_name_or_path
    if name not in NAMED:
        file_datasets.local_path(name)
    if spec.dataset_size != -1 and spec.dataset_size < 1:
        raise UsageError(f"--dataset_size {spec.dataset_size} is neither -1 (all) nor a positive number of pairs")
    if name in NAMED:
        if not spec.target_languages:
            raise UsageError(f"{name} covers many languages: choose with --target_languages")
        if spec.src in spec.target_languages:
            raise UsageError(f"{spec.src.name} is both --src and among --target_languages; drop it from one")


def shares_of(size: int, folders: int) -> list[int]:
    """How many of `size` pairs of a direction each --data_dir gives: the first ones give what is left over."""
    return [size // folders + (folder < size % folders) for folder in range(folders)]


def _different(data: LoadedPairs, indices: list[int], selection: dict) -> list[int]:
    """`indices` in order, without those of pairs whose two texts an earlier one has, too, which `selection` counts."""
    first = {(data.pairs[i].source, data.pairs[i].target): i for i in sorted(indices, reverse=True)}
    if len(first) < len(indices):
        selection["duplicates"] = len(indices) - len(first)
    return sorted(first.values())


def _select(spec: DatasetSpec, data: LoadedPairs, direction: str, indices: list[int]) -> tuple[list[int], dict]:
    """Indices of the pairs of a direction that are selected, in any order, and their counts."""
    size = spec.dataset_size
    if spec.percentile is not None:
        import numpy as np

        scores = _scores(spec, data, direction, indices, "--percentile")
        threshold = float(np.percentile(scores, spec.percentile))
        above = [i for i, score in zip(indices, scores, strict=True) if score > threshold]
        if not above:
            raise UsageError(
                f"--percentile {spec.percentile:g} leaves none of {len(indices):,} pairs of {direction}: no score is "
                f"above {threshold:g}; pass a lower one"
            )
        return above, {"by_percentile": len(above)}
    if size == -1:
        return indices, {}
    folders = max(1, len(spec.data_dir))
    of_folder = [[i for i in indices if data.folders[i] == folder] for folder in range(folders)]
    shares = shares_of(size, folders)
    if folders > 1 and any(len(own) < share for own, share in zip(of_folder, shares, strict=True)):
        counts = ", ".join(f"{len(own):,} in {path}" for own, path in zip(of_folder, spec.data_dir, strict=True))
        raise UsageError(
            f"--dataset_size {size} takes {' and '.join(f'{share:,}' for share in sorted(set(shares)))} pairs of {direction} from "
            f"each --data_dir, but there are {counts}: pass at most {folders * min(map(len, of_folder))}"
        )
    if size > len(indices):
        logger.warning(
            f"--dataset_size {size}, but there are only {len(indices):,} pairs of {direction}: all are taken"
        )
    chosen = []
    for number, (own, share) in enumerate(zip(of_folder, shares, strict=True)):
        chosen += _take(spec, data, direction, own, share, number)
    return chosen, {"asked": size, "by_size": len(chosen)}


def _take(
    spec: DatasetSpec, data: LoadedPairs, direction: str, indices: list[int], size: int, folder: int
) -> list[int]:
    """`size` of the indices, which are of one folder, by the strategy; all, if there are fewer."""
    if size >= len(indices) or spec.strategy == "soonest":
        return indices[:size]
    if spec.strategy == "highest":
        scores = dict(zip(indices, _scores(spec, data, direction, indices, "--strategy highest"), strict=True))
        return sorted(indices, key=scores.__getitem__, reverse=True)[:size]  # stable: ties in file order
    # Seeded by the direction: adding another language does not change the sample.
    return random.Random(f"{spec.seed} {direction}" + f" {folder}" * bool(folder)).sample(indices, size)


def _scores(spec: DatasetSpec, data: LoadedPairs, direction: str, indices: list[int], flag: str) -> list[float]:
    """Their scores. Raises UsageError if some have none, or they come from different scorers: confidences from different translators."""
    scores = [data.scores[i] for i in indices]
    if unscored := scores.count(None):
        raise UsageError(
            f"{flag} needs scores, but {unscored:,} of {len(scores):,} pairs of {direction} in {_where(spec)} have none: run "
            "datagen.py --stages score and decontamination.py again, or pass --strategy soonest or random"
        )
    scorers = sorted({str(data.scorers[i] or "an unnamed scorer") for i in indices})
    if scorers == [CONFIDENCE]:
        folders = {data.folders[i] for i in indices}
        scorers = sorted({f"{CONFIDENCE} of {back_translator_in(spec.data_dir[folder])}" for folder in folders})
    if len(scorers) > 1:
        raise UsageError(
            f"the pairs of {direction} in {_where(spec)} were scored by {' and '.join(scorers)}, whose scores are not "
            "comparable: score all with one (datagen.py --stages score --scorer NAME, then decontamination.py), or drop "
            f"{flag}"
        )
    return scores


def _where(spec: DatasetSpec) -> str:
    return " and ".join(map(str, spec.data_dir))


def _load_own(spec: DatasetSpec) -> LoadedPairs:
    """A file, a folder or a data set on the Hub."""
    data = LoadedPairs()
    files, rows, where = file_datasets.open_rows(spec)
    reader = file_datasets.PairReader(rows, where, spec)
    for pair in reader:
        data.add(pair)
    sha256 = sha256_of_files(*files) if files else sha256_of_texts((pair.source, pair.target) for pair in data.pairs)
    data.counts = reader.counts
    indices = by_direction(data.pairs)
    known = {language.name: language for language in (spec.src, *spec.target_languages)}
    for name in reader.counts:
        pairs = [data.pairs[i] for i in indices.get(name, [])]
        sides = [pair.source for pair in pairs], [pair.target for pair in pairs]
        # As the digests of benchmarks' splits: evaluate recognises a test set that was trained on.
        digests = [provenance.texts_sha256(texts) for texts in sides]
        data.origins[name] = {"path": where, "sha256": sha256, "texts_sha256": digests}
        if pairs and pairs[0].src:
            for texts, language in zip(sides, (pairs[0].src, pairs[0].tgt), strict=True):
                if problem := doubts(texts, known.get(language) or languages.find(language, spec.languages_file)):
                    logger.warning(f"{where}, {name}: {problem}")
    return data
