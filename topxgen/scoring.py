"""Quality scores for pairs: attached to the records, never a reason to drop one."""

import importlib
from collections.abc import Iterator
from pathlib import Path

from comptra.errors import UserError
from comptra.files import Appender, read_jsonl, to_line, write_atomic
from topxgen.progress import Progress
from topxgen.records import Layout, identified

BLOCK = 1024  # records scored at a time

# One row a scorer: "module:class". A scorer has `score(records) -> list of score lists` and `close()`.
SCORERS = {"confidence": "topxgen.scoring:Confidence", "none": None}
PLANNED = ("blaser",)


class Confidence:
    """The back-translator's own confidence (Apertium: the share of words it knows)."""

    def score(self, records: list[dict]) -> list[list[float | None]]:
        return [record.get("confidences") or [None] * len(record["translations"]) for record in records]

    def close(self) -> None:
        """Nothing is held."""


def require_built(name: str) -> None:
    """Raise UserError for a scorer that is announced but not built."""
    if name in PLANNED:
        raise UserError(f"--scorer {name} is not built yet; choose one of {', '.join(SCORERS)}")


def load(name: str):
    """The scorer of that name. Raises UserError when it cannot be had."""
    require_built(name)
    module, _, attribute = SCORERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)()


def unscored(layout: Layout, language: str, scorer: str) -> int:
    """How many records of a language the scorer has still to see."""
    return sum(1 for record in read_jsonl(layout.translations(language)) if _needs(record, scorer))


def _needs(record: dict, scorer: str) -> bool:
    scores = record.get("scores")
    if not isinstance(scores, list) or len(scores) != len(record.get("translations", [])):
        return True
    if "scorer" in record:
        return record["scorer"] != scorer
    # The original's files say nothing of the scorer: where they have scores, those stand as they are.
    return bool(scores) and all(score is None for score in scores)


def score(layout: Layout, language: str, *, name: str, scorer, progress: Progress) -> None:
    """Fill in `scores` of the records that `scorer` has not scored yet.

    Scores are first appended to a journal; when all are there, the file is rewritten in one rename.
    """
    path, journal_path = layout.translations(language), layout.score_journal(language)
    if not path.exists():
        raise UserError(f"no pairs to score: {path} is missing; run --stages translate first")
    scores = {line["id"]: line["scores"] for line in read_jsonl(journal_path) if line["scorer"] == name}
    with Appender(journal_path) as journal:
        block: list[tuple[str, dict]] = []

        def flush() -> None:
            for (record_id, _), values in zip(block, scorer.score([record for _, record in block]), strict=True):
                scores[record_id] = values
                journal.write({"id": record_id, "scorer": name, "scores": values})
                progress.update(1)
            journal.sync()
            block.clear()

        for record_id, record in identified(read_jsonl(path), "sentence"):
            if _needs(record, name) and record_id not in scores:
                block.append((record_id, record))
                if len(block) >= BLOCK:
                    flush()
        flush()
    if scores:
        write_atomic(path, _scored(path, scores, name))
    journal_path.unlink()


def _scored(path: Path, scores: dict[str, list], name: str) -> Iterator[str]:
    """The lines of the translations file with the new scores in their places."""
    for record_id, record in identified(read_jsonl(path), "sentence"):
        if record_id in scores and _needs(record, name):
            record["scores"], record["scorer"] = scores[record_id], name
        yield to_line(record)
