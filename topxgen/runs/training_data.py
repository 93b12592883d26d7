"""What trainings read: by direction the pairs that were read, dropped and selected, and whether the files still have them."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from topxgen.common.records import FilteredLayout
from topxgen.runs import trainings
from topxgen.runs.counts import Funnel, Step, without_zeros
from topxgen.runs.folders import Run, common_end
from topxgen.runs.reading import Problems

# Of the counts of training data: sizes, and what was left out before it was counted as read.
NOT_REASONS = (
    "read", "by_percentile", "by_size", "asked", "duplicates", "pairs", "unaligned", "unaligned_documents",
)  # fmt: skip
OURS = ("topxgen", "ours")  # training sets whose paths are those of filtered files


@dataclass
class TrainingData:
    """What train.py read, by direction, and the sets that it made of it."""

    folder: Path
    name: str
    directions: dict[str, list[Step]]
    train: int | None
    test: int | None
    both_directions: bool
    sources: dict[str, list[Funnel]] = field(default_factory=dict)  # by direction, whose pairs were read
    problems: list[str] = field(default_factory=list)


def training_data(run: Run, found: list[Funnel], problems: Problems) -> list[TrainingData]:
    """What each training read and how it was split; pairs of `found` that it read are compared with what it counted."""
    return [_of_training(folder, found, problems) for folder in run.trainings]


def _of_training(folder: Path, found: list[Funnel], problems: Problems) -> TrainingData:
    manifest = trainings.read_manifest(folder, problems)
    data = manifest["data"]
    both = bool(manifest["settings"].get("reverse"))
    result = TrainingData(
        folder, data.get("name") or data.get("streamed", ""), {}, data.get("train_pairs"), data.get("test_pairs"), both
    )
    total = 0
    for direction, part in data.get("languages", {}).items():
        counts = Counter(part.get("counts", {}))
        removed = {reason: count for reason, count in counts.items() if reason not in NOT_REASONS}
        removed["duplicates"] = counts["duplicates"]
        selected = next((counts[key] for key in ("by_percentile", "by_size") if key in counts), None)
        if selected is not None:
            removed["not_selected"] = counts["read"] - sum(removed.values()) - counts["pairs"]
            if selected not in (counts["pairs"], counts["pairs"] + counts["duplicates"]):
                result.problems.append(
                    f"{folder}: {selected} pairs of {direction} were selected, but {counts['pairs']} are used"
                )
        steps = [Step("read", counts["read"], without_zeros(removed)), Step("selected", counts["pairs"])]
        if steps[0].left != steps[1].count:
            result.problems.append(
                f"{folder}: {counts['read']} pairs of {direction} less what was dropped are {steps[0].left}, but {counts['pairs']} are used"
            )
        result.directions[direction] = steps
        total += counts["pairs"]
        if result.name in OURS:
            result.sources[direction] = sources = _sources(part, found)
            now = sum(one.step("decontaminated").count for one in sources)
            if sources and now != counts["read"]:
                result.problems.append(
                    f"{folder}: {counts['read']} pairs of {direction} were read, but {part['path']} now has {now}"
                )
    expected = total * (2 if both else 1)
    if result.directions and None not in (result.train, result.test) and result.train + result.test != expected:
        result.problems.append(
            f"{folder}: {result.train} pairs to train on and {result.test} to test on are not the {expected} that were selected"
        )
    return result


def _sources(part: trainings.Direction, found: list[Funnel]) -> list[Funnel]:
    """The funnels whose filtered files a training read, where all of them are here; [] else."""
    cleaned = [one for one in found if one.back_translation and one.step("decontaminated")]
    sources = []
    for text in filter(None, part.get("path", "").split(", ")):
        ends = [
            common_end(Path(text), FilteredLayout(one.back_translation.filtered).filtered(one.language))
            for one in cleaned
        ]
        best = max(ends, default=0)
        if best < 2 or ends.count(best) > 1:  # its name and its folder's
            return []
        sources.append(cleaned[ends.index(best)])
    return sources
