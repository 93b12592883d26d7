"""The translations that a report of comptra.evaluate is about, as they are now, and whether its scores are theirs."""

import argparse
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from comptra import evaluate
from comptra.evaluation_sets import TestSet
from comptra.scores import surface
from comptra.scores.metrics import MetricSettings, Scorer, Test
from comptra.scores.systems import System, read_lines, read_system
from topxgen.common import provenance
from topxgen.common.errors import UsageError
from topxgen.runs.folders import common_end
from topxgen.text.languages import Language

if TYPE_CHECKING:
    import numpy as np

# Scores of the same version of sacreBLEU are the same to the last bits.
TOLERANCE = 1e-6
# Metrics that the page computes again, and the tokenizers for it that need no model.
RECOMPUTED = {"chrf": ("chrF++", surface.chrf), "bleu": ("BLEU", surface.bleu)}
TOKENIZERS = ("13a", "char", "intl", "none", "zh")
TOKENIZER = re.compile(r"\btok:([^|]+)")


@dataclass
class Translations:
    """A system, and chrF++ of its sentences if there are references: `statistics` are of each sentence, (n, m)."""

    system: System

    @property
    def test(self) -> Test:
        one = self.system
        return Test(one.src, one.tgt, one.sentences, one.references)

    @cached_property
    def scorer(self) -> Scorer | None:
        references = self.system.references
        return None if references is None else _scorer("chrf", "13a", self.system.tgt, tuple(references))

    @cached_property
    def statistics(self) -> "np.ndarray":
        return self.scorer.statistics(self.system.translations)

    def chrf(self) -> float:
        return float(self.scorer.scores(self.statistics.sum(axis=0)[None])[0])

    def score(self, metric: str, signature: str | None, count: int) -> float | None:
        """The corpus score of the first `count` sentences by a metric of strings; None if it cannot be computed here as `signature`
        says."""
        if self.system.references is None or not is_recomputed(metric, signature):
            return None
        scorer = _scorer(metric, _tokenizer(signature), self.system.tgt, tuple(self.system.references[:count]))
        if scorer.signature != signature:
            return None
        own = self.statistics[:count] if metric == "chrf" else scorer.statistics(self.system.translations[:count])
        return float(scorer.scores(own.sum(axis=0)[None])[0])


def is_recomputed(metric: str, signature: str | None) -> bool:
    """Whether the page computes such scores again: those of strings, by tokenizers that need no model."""
    return metric in RECOMPUTED and _tokenizer(signature) in TOKENIZERS


def _tokenizer(signature: str | None) -> str:
    found = TOKENIZER.search(signature or "")
    return found[1] if found else "13a"


@lru_cache(64)  # the references of all systems on a test set are read once
def _scorer(metric: str, tokenizer: str, tgt: Language, references: tuple[str, ...]) -> Scorer:
    test = Test(tgt, tgt, list(references), list(references))
    return RECOMPUTED[metric][1](test, MetricSettings(tokenize=tokenizer))


@dataclass
class Found:
    """All translations below a folder. `systems`: by folder; `unread`: why others could not be read, `without_references` why
    those have none."""

    systems: dict[Path, Translations] = field(default_factory=dict)
    unread: dict[Path, str] = field(default_factory=dict)
    without_references: dict[Path, str] = field(default_factory=dict)

    def locate(self, recorded: str) -> Path | None:
        """The folder of a run whose path was recorded, perhaps before the tree moved: the one whose path ends most like it, in
        the names of model and run at least."""
        path, folders = Path(recorded), [*self.systems, *self.unread]
        if exact := [folder for folder in folders if folder.resolve() == path.resolve()]:
            return exact[0]
        alike = {folder: common_end(path, folder) for folder in folders}
        best = max(alike.values(), default=0)
        nearest = [folder for folder, count in alike.items() if count == best]
        return nearest[0] if best >= 2 and len(nearest) == 1 else None


def arguments(folders: Iterable[Path], benchmark_dir: Path | None, *more: str) -> argparse.Namespace:
    """Those of comptra.evaluate, with its defaults, for unfinished runs, too."""
    where = ["--benchmark_dir", str(benchmark_dir)] if benchmark_dir else []
    return evaluate.build_parser().parse_args([*map(str, folders), "--allow_partial", *where, *more])


def read(folders: Iterable[Path], args: argparse.Namespace, load: Callable[..., TestSet]) -> Found:
    """The systems in `folders`, with references where their test set can be loaded."""
    found = Found()
    for folder in folders:
        try:
            system = read_system(folder, args, load)
        except (UsageError, OSError) as error:
            try:
                system = read_system(folder, args, None)
            except (UsageError, OSError) as worse:
                found.unread[folder] = _line(worse)
                continue
            found.without_references[folder] = _line(error)
        if system is not None:
            found.systems[folder] = Translations(system)
        else:
            found.unread[folder] = "nothing is translated yet"
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def doubts(group: Mapping, row: Mapping, found: Found) -> tuple[list[str], bool]:
    """Why the scores of a system in a report (its `row` of a `group`) are not those of the files; and whether the files are here
    to tell."""
    folder = found.locate(row["path"])
    if folder is None:
        return [], False
    step, count = group.get("step", 0), row["sentences"]
    try:
        lines, _ = read_lines(folder / f"translate_{step}.jsonl")
    except (UsageError, OSError) as error:
        return [_line(error)], True
    recorded = row.get("translations_digest")  # None: of an older version
    if recorded and provenance.digest([line[1] for line in lines[:count]]) != recorded:
        return ["the translations have changed since"], True
    problems = []
    one = found.systems.get(folder)
    if one is not None and (one.system.src.name, one.system.tgt.name) != (group["src"], group["tgt"]):
        return [f"they are from {one.system.src.name} into {one.system.tgt.name}"], True
    if step == 0 and one is not None and one.system.references is not None:
        references = one.system.references[:count]
        if group.get("references_digest") not in (None, provenance.digest(references)):
            problems.append("the references are others than those of the report")
        else:
            problems += _other_scores(one, count, group, row)
    return problems, bool(recorded or problems)


def _other_scores(one: Translations, count: int, group: Mapping, row: Mapping) -> Iterator[str]:
    """The scores that are claimed, and are not those of the files, as far as these can be computed here."""
    for metric, value in row["scores"].items():
        if not value or not isinstance(value.get("score"), int | float):
            continue
        score = one.score(metric, group["signatures"].get(metric), count)
        if score is not None and not math.isclose(score, value["score"], abs_tol=TOLERANCE):
            yield f"{RECOMPUTED[metric][0]} of the files is {score:.2f}, the report says {value['score']:.2f}"
