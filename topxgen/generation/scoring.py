"""Quality scores for pairs: attached to the records, never a reason to drop one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from topxgen.common.console import Progress
from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_jsonl, repair_tail, to_line, write_atomic
from topxgen.common.provenance import digest
from topxgen.common.records import Layout, with_ids
from topxgen.common.registry import Choice, load_choice
from topxgen.text.languages import Language

BLOCK = 1024  # records scored at a time

# One row a scorer: "module:class", imported when it is chosen. A scorer has
#     id                                  its name in the records: what has another is scored again
#     preflight(languages, target)        raise UsageError for what would fail later; cheap
#     load()                              load its models
#     score(records, source, target)      -> for each record the list of its pairs' scores
#     truncated                           how many texts it had to cut so far
#     close()                             free the models and their memory
SCORERS: dict[str, Choice] = {
    "blaser": Choice("topxgen.generation.scoring:BlaserScorer", "BLASER-2.0-QE on SONAR vectors"),
    "sonar-space": Choice(
        "topxgen.generation.scoring:SonarSpaceScorer",
        "the same through Meta's sonar-space, in an environment of its own",
    ),
    "confidence": Choice("topxgen.generation.scoring:ConfidenceScorer", "the back-translator's own confidence"),
    "none": Choice("", "no scores"),
}


@dataclass(frozen=True)
class ScorerSettings:
    """What to load; a field that a scorer has no use for is ignored by it."""

    blaser: str = "facebook/blaser-2.0-qe"
    sonar: str = "cointegrated/SONAR_200_text_encoder"
    dtype: str = "float32"


class ConfidenceScorer:
    """The back-translator's own confidence (Apertium: the share of words it knows; NLLB: of its model)."""

    id, truncated = "confidence", 0

    def __init__(self, _: ScorerSettings):
        pass

    def preflight(self, languages: Iterable[Language], target: Language) -> None:
        """Nothing can fail."""

    def load(self) -> None:
        """Nothing to load."""

    def score(self, records: list[dict], source: Language, target: Language) -> list[list[float | None]]:
        return [record.get("confidences") or [None] * len(record["translations"]) for record in records]

    def close(self) -> None:
        """Nothing is held."""


class _PairScorer:
    """A scorer over a model that takes lists of sentences and of translations."""

    def __init__(self, settings: ScorerSettings):
        self._settings, self._model = settings, None

    def score(self, records: list[dict], source: Language, target: Language) -> list[list[float | None]]:
        self._model.check(source, target)
        scores = iter(
            self._model.score(
                [text for record in records for text in record["propositions"]],
                [text for record in records for text in record["translations"]],
                source,
                target,
            )
        )
        return [[next(scores) for _ in record["translations"]] for record in records]

    @property
    def truncated(self) -> int:
        return self._model.truncated

    def close(self) -> None:
        if self._model is not None:
            self._model.close()
            self._model = None


class BlaserScorer(_PairScorer):
    """BLASER-2.0-QE over SONAR vectors, on transformers (topxgen.quality.blaser)."""

    @property
    def id(self) -> str:
        names = (_short(self._settings.blaser), _short(self._settings.sonar), self._settings.dtype)
        return f"blaser ({', '.join(names)})"

    def preflight(self, languages: Iterable[Language], target: Language) -> None:
        from topxgen.quality import blaser

        blaser.preflight(self._settings.blaser, self._settings.sonar, [*languages, target])

    def load(self) -> None:
        from topxgen.quality.blaser import Blaser

        self._model = Blaser(self._settings.blaser, self._settings.sonar, dtype=self._settings.dtype)


def _short(name: str) -> str:
    """The last part of a model's name; of a file (model.pt is as good as none) the folder's."""
    path = Path(name)
    return (path.parent if path.suffix in (".pt", ".safetensors") else path).name


class SonarSpaceScorer(_PairScorer):
    """The same by its authors' package, in an environment of its own (requirements-sonar.txt)."""

    @property
    def id(self) -> str:
        return f"sonar-space ({self._settings.dtype})"

    def preflight(self, languages: Iterable[Language], target: Language) -> None:
        from topxgen.quality import sonar_space

        sonar_space.preflight([*languages, target])

    def load(self) -> None:
        from topxgen.quality.sonar_space import SonarSpace

        self._model = SonarSpace(dtype=self._settings.dtype)


def create(name: str, settings: ScorerSettings):
    """The scorer of that name, its models not loaded yet."""
    return load_choice("--scorer", name, SCORERS)(settings)


def unscored(layout: Layout, language: str, scorer_id: str) -> int:
    """How many records of a language the scorer has still to see. Raises UsageError when there are none at all."""
    path = layout.translations(language)
    if not path.exists():
        raise UsageError(f"no pairs to score: {path} is missing; run --stages translate first")
    return sum(1 for record in read_jsonl(path) if _needs(record, scorer_id))


def _needs(record: dict, scorer_id: str) -> bool:
    scores = record.get("scores")
    if not isinstance(scores, list) or len(scores) != len(record.get("translations", [])):
        return True
    if "scorer" in record:
        return record["scorer"] != scorer_id
    # The original's files say nothing of the scorer: where they have scores, those stand as they are.
    return bool(scores) and all(score is None for score in scores)


def score(layout: Layout, source: Language, target: Language, *, scorer, progress: Progress) -> int:
    """Fill in `scores` of the records that `scorer` has not scored yet; how many texts were too long for it.

    Scores are first appended to a journal; when all are there, the file is rewritten in one rename.
    """
    path, journal_path = layout.translations(source.name), layout.score_journal(source.name)
    repair_tail(journal_path)
    earlier = {
        (line["id"], line.get("pairs")): line for line in read_jsonl(journal_path) if line["scorer"] == scorer.id
    }
    scores: dict[str, list] = {}
    truncated = 0
    with Appender(journal_path) as journal:
        block: list[tuple[str, str, dict]] = []

        def flush() -> int:
            before = scorer.truncated
            found = scorer.score([record for _, _, record in block], source, target)
            cut = scorer.truncated - before
            for i, ((record_id, pairs, _), values) in enumerate(zip(block, found, strict=True)):
                scores[record_id] = values
                # One line carries the count of the block.
                noted = {"truncated": cut} if cut and not i else {}
                journal.write({"id": record_id, "pairs": pairs, "scorer": scorer.id, "scores": values, **noted})
                progress.update(1)
            journal.sync()
            block.clear()
            return cut

        for record_id, record in with_ids(read_jsonl(path), "sentence"):
            if not _needs(record, scorer.id):
                continue
            _check_parallel(path, record_id, record)
            pairs = _fingerprint(record, target)
            if (line := earlier.get((record_id, pairs))) is not None:
                scores[record_id] = line["scores"]
                truncated += line.get("truncated", 0)
                progress.update(1)
                continue
            block.append((record_id, pairs, record))
            if len(block) >= BLOCK:
                truncated += flush()
        if block:
            truncated += flush()
    if scores:
        write_atomic(path, _scored(path, scores, scorer.id))
    journal_path.unlink()
    return truncated


def _fingerprint(record: dict, target: Language) -> str:
    """Of what a score is for: one left in the journal must not come to stand beside other texts."""
    return digest([target.flores, *map(str, record["propositions"]), "", *map(str, record["translations"])])


def _check_parallel(path: Path, record_id: str, record: dict) -> None:
    sides = [record.get("propositions"), record.get("translations")]
    if not all(isinstance(side, list) for side in sides) or len(sides[0]) != len(sides[1]):
        raise UsageError(
            f'{path}, record {record_id}: "propositions" and "translations" are not lists of the same length; mend or '
            "remove the line"
        )


def _scored(path: Path, scores: dict[str, list], scorer_id: str) -> Iterator[str]:
    """The lines of the translations file with the new scores in their places."""
    for record_id, record in with_ids(read_jsonl(path), "sentence"):
        if record_id in scores and _needs(record, scorer_id):
            record["scores"], record["scorer"] = scores[record_id], scorer_id
        yield to_line(record)
