"""Quality scores of pairs: added to the records; a reason to drop one only with `--min_score`.

Higher is better for every scorer. A scorer is made from the flags, and has
    id                                  its name in the records; records with another are scored again
    has_models                          whether `load` loads any
    scale                               (lowest, highest) score; one of the user's own may have none
    preflight(languages, target)        raise UsageError for what would fail later; cheap
    load()                              load its models
    score(records, source, target)      -> for each record the list of its pairs' scores, which depend on `records` alone
    truncated                           how many texts it has truncated so far
    weights                             digest of the weights of local models, "" or absent without any
    configured_by                       the model whose configuration and tokenizer decide, too; absent without one
    close()                             free the models and their memory
"""

import argparse
import copy
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from topxgen.common.blocks import in_blocks
from topxgen.common.console import Progress
from topxgen.common.errors import UsageError
from topxgen.common.files import read_jsonl, to_line, write_atomic
from topxgen.common.provenance import digest, weights_id
from topxgen.common.records import Layout, ScoreRecord, TranslationRecord, read_translations, with_ids
from topxgen.common.registry import Choice, load_choice
from topxgen.distributed import Call, InWorkers, Plan
from topxgen.inference import ENGINE_LOG
from topxgen.inference.response_cache import ResponseCache
from topxgen.text.languages import Language

RECORDS_PER_BLOCK = 1024  # scored together, and synced to disk together

SCORERS: dict[str, Choice] = {
    "blaser": Choice("topxgen.generation.scoring:BlaserScorer", "BLASER-2.0-QE on SONAR vectors"),
    "sonar-space": Choice(
        "topxgen.generation.scoring:SonarSpaceScorer", "the same through Meta's sonar-space, in a separate environment"
    ),
    "metricx-qe": Choice(
        "topxgen.generation.scoring:MetricXScorer",
        "MetricX-QE, negated: 0 is best, -25 worst, as higher is better for all",
    ),
    "confidence": Choice("topxgen.generation.scoring:ConfidenceScorer", "the back-translator's own confidence"),
    "none": Choice("topxgen.generation.scoring:no_scorer", "no scores"),
}


def no_scorer(_: argparse.Namespace) -> None:
    """--scorer none."""


class ConfidenceScorer:
    """The back-translator's own confidence (Apertium: the share of words it knows; NLLB: of its model)."""

    id, has_models, truncated = "confidence", False, 0
    scale = (0.0, 1.0)

    def __init__(self, _: argparse.Namespace):
        pass

    def preflight(self, languages: Iterable[Language], target: Language) -> None:
        """Nothing can fail."""

    def load(self) -> None:
        """There is no model."""

    def score(self, records: list[dict], source: Language, target: Language) -> list[list[float | None]]:
        return [record.get("confidences") or [None] * len(record["translations"]) for record in records]

    def close(self) -> None:
        """There is no model."""


class _PairScorer:
    """A scorer over a model that takes lists of sentences and of translations."""

    has_models = True
    scale = (0.0, 5.0)  # BLASER-2.0-QE was trained on 1 to 5

    def __init__(self, args: argparse.Namespace):
        self._args, self._model = args, None

    def score(self, records: list[dict], source: Language, target: Language) -> list[list[float | None]]:
        sentences = [text for record in records for text in record["propositions"]]
        translations = [text for record in records for text in record["translations"]]
        scores = iter(self._scores(sentences, translations, source, target))
        return [[next(scores) for _ in record["translations"]] for record in records]

    def _scores(self, sentences: list[str], translations: list[str], *languages: Language) -> list[float | None]:
        self._model.check(*languages)
        self._model.forget()
        return self._model.score(sentences, translations, *languages)

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
        names = map(_short_name, (self._args.blaser_name_or_path, self._args.sonar_name_or_path))
        return f"blaser ({', '.join(names)}, {self._args.scorer_dtype})"

    def preflight(self, languages: Iterable[Language], target: Language) -> None:
        from topxgen.quality import blaser

        blaser.preflight(self._args.blaser_name_or_path, self._args.sonar_name_or_path, [*languages, target])

    def load(self) -> None:
        from topxgen.quality.blaser import Blaser

        args = self._args
        self._model = Blaser(args.blaser_name_or_path, args.sonar_name_or_path, dtype=args.scorer_dtype)

    @property
    def weights(self) -> str:
        return _weights(self._args.blaser_name_or_path, self._args.sonar_name_or_path)

    @property
    def configured_by(self) -> str:
        path = Path(self._args.sonar_name_or_path)
        return str(path.parent if path.is_file() else path)


class MetricXScorer(_PairScorer):
    """MetricX without references (topxgen.quality.metricx), negated: 0 to -25, so that higher is better as for all scorers."""

    scale = (-25.0, 0.0)

    @property
    def _dtype(self) -> str:
        from topxgen.quality.replicas import default_dtype

        is_given = "scorer_dtype" in getattr(self._args, "given", ())
        return self._args.scorer_dtype if is_given else default_dtype()

    @property
    def weights(self) -> str:
        return _weights(self._args.metricx_name_or_path)

    @property
    def configured_by(self) -> str:
        return self._args.metricx_name_or_path

    @property
    def id(self) -> str:
        path = self._args.metricx_name_or_path.rstrip("/")
        name = path[max(path.lower().rfind("metricx"), 0) :]  # with the version, which a folder above may tell
        return f"metricx-qe ({name}, {self._dtype}, negated)"

    def preflight(self, languages: Iterable[Language], target: Language) -> None:
        from topxgen.quality import metricx

        name = self._args.metricx_name_or_path
        if metricx.read_checkpoint(name).needs_reference:
            raise UsageError(f"{name} scores with references only; pass a metricx-23-qe or metricx-24-hybrid model")

    def load(self) -> None:
        from topxgen.quality.metricx import MetricX

        self._model = MetricX(self._args.metricx_name_or_path, dtype=self._dtype)

    def _scores(self, sentences: list[str], translations: list[str], *_: Language) -> list[float]:
        return [0.0 - error for error in self._model.score(sentences, translations)]


def _weights(*models: str) -> str:
    """A digest of the weights of local models, for the settings: an id, by which earlier versions know scores, has their names
    alone. "" if all are on the Hub."""
    ids = [weights_id(name) for name in models]
    return digest(ids) if any(ids) else ""


def _short_name(name_or_path: str) -> str:
    """The last part of a model's name; of a file (model.pt says nothing) that of its folder."""
    path = Path(name_or_path)
    return (path.parent if path.suffix in (".pt", ".safetensors") else path).name


class SonarSpaceScorer(_PairScorer):
    """The same by its authors' package, in a separate environment (requirements-sonar.txt)."""

    @property
    def id(self) -> str:
        return f"sonar-space ({self._args.scorer_dtype})"

    def preflight(self, languages: Iterable[Language], target: Language) -> None:
        from topxgen.quality import sonar_space

        sonar_space.preflight([*languages, target])

    def load(self) -> None:
        from topxgen.quality.sonar_space import SonarSpace

        self._model = SonarSpace(dtype=self._args.scorer_dtype)


def create(name: str, args: argparse.Namespace):
    """The scorer of that name, its models not loaded; None for none. With --distributed its work is done in workers."""
    scorer = load_choice("--scorer", name, SCORERS)(args)
    if not args.distributed or scorer is None or not scorer.has_models:
        return scorer
    plan = Plan(args.distributed, "scores", args.num_workers, log=args.output_dir.absolute() / ENGINE_LOG)
    of_worker = copy.copy(args)
    of_worker.api_key = of_worker.distributed = None
    return InWorkers(scorer, lambda: partial(_loaded, name, of_worker, scorer.id), plan)


def score_lists(
    scorer, lists: Iterable[list[dict]], source: Language, target: Language
) -> Iterator[tuple[list[list[float | None]], int]]:
    """For each of `lists` of records, in order, the scores and how many texts were truncated."""
    if isinstance(scorer, InWorkers):
        return scorer.map(Call("of", (records, source, target)) for records in lists)
    return (_Scores(scorer).of(records, source, target) for records in lists)


class _Scores:
    def __init__(self, scorer):
        self._scorer = scorer

    def of(self, records: list[dict], source: Language, target: Language) -> tuple[list[list[float | None]], int]:
        before = self._scorer.truncated
        return self._scorer.score(records, source, target), self._scorer.truncated - before


def _loaded(name: str, args: argparse.Namespace, scorer_id: str) -> _Scores:
    """A worker's scorer. Raises UsageError if its scores are others than those that the driver records."""
    scorer = create(name, args)
    if scorer.id != scorer_id:
        raise UsageError(
            f"a worker would score by {scorer.id}, and the process that was started by {scorer_id}: pass --scorer_dtype, or start it "
            "on a node like the workers'"
        )
    scorer.load()
    return _Scores(scorer)


def count_unscored(layout: Layout, language: str, scorer_id: str) -> int:
    """How many records of a language `scorer_id` has not scored. Raises UsageError if there is no translations file."""
    path = layout.translations(language)
    if not path.exists():
        raise UsageError(f"no pairs to score: {path} is missing; run --stages translate first")
    return sum(1 for record in read_jsonl(path, TranslationRecord) if _is_unscored(record, scorer_id))


def _is_unscored(record: dict, scorer_id: str) -> bool:
    scores = record.get("scores")
    if not isinstance(scores, list) or len(scores) != len(record.get("translations", [])):
        return True
    if "scorer" in record:
        return record["scorer"] != scorer_id
    # Published data does not name its scorer: scores in it are kept.
    return bool(scores) and all(score is None for score in scores)


def was_another(layout: Layout, language: str, scorer_id: str, version: dict) -> bool:
    """Whether an unfinished stage has scores of the same scorer with other weights, configuration or code."""
    now, saved = _id(version), read_jsonl(layout.score_cache(language), ScoreRecord, on_cut=lambda _: None)
    return any(one["scorer"] == scorer_id and one.get("version", now) != now for one in saved)


def _id(version: dict) -> str:
    return digest([f"{name} {value}" for name, value in version.items()])


def forget(layout: Layout, language: str, scorer_id: str) -> None:
    """Have the pairs of a language that the scorer has scored scored again; published scores are not its own."""
    layout.score_cache(language).unlink(missing_ok=True)
    path = layout.translations(language)

    def lines() -> Iterator[str]:
        for record in read_jsonl(path, TranslationRecord):
            if record.get("scorer") == scorer_id:
                record |= {"scores": [None] * len(record["translations"]), "scorer": None}
            yield to_line(record)

    write_atomic(path, lines())


def score(config, source: Language, progress: Progress) -> None:
    """Fill in `scores` of the records that the scorer has not scored yet.

    `config`: a GenerationConfig, its scorer loaded. Scores first go to a cache; when it is complete, the translations
    file is rewritten in one rename. What else is in a batch changes the last bits of a score, so a block of records is
    scored as a whole, after a kill as before it. Raises UsageError for lists that are not parallel.
    """
    layout, target, scorer = config.layout, config.target_language, config.scorer
    path = layout.translations(source.name)
    cache = ResponseCache(layout.score_cache(source.name), schema=ScoreRecord)
    scores: dict[str, tuple[list, int]] = {}  # with how many texts of its block were truncated, at the first record
    version = _id(config.scorer_version)
    waiting: deque[dict[str, str]] = deque()  # blocks that are being scored: the digests of their records by id

    def lists() -> Iterator[list[dict]]:
        unscored = (one for one in read_translations(path) if _is_unscored(one[1], scorer.id))
        for block in in_blocks(unscored, RECORDS_PER_BLOCK):
            # Saved scores must not be given to other texts of the same id.
            digests = {
                record_id: digest([target.flores, *record["propositions"], "", *record["translations"]])
                for record_id, record in block
            }
            saved = {record_id: cache.get(record_id) or {} for record_id in digests}
            if all((saved[key].get("scorer"), saved[key].get("pairs")) == (scorer.id, digests[key]) for key in digests):
                scores.update({key: (one["scores"], one.get("truncated", 0)) for key, one in saved.items()})
                progress.update(len(block))
            else:
                waiting.append(digests)
                yield [record for _, record in block]

    for values, truncated in score_lists(scorer, lists(), source, target):
        digests = waiting.popleft()
        for (record_id, pairs), record_scores in zip(digests.items(), values, strict=True):
            scores[record_id] = record_scores, truncated
            counted, truncated = {"truncated": truncated} if truncated else {}, 0
            line = {"id": record_id, "pairs": pairs, "scorer": scorer.id, "version": version, "scores": record_scores}
            cache.add(line | counted)
        cache.sync()
        progress.update(len(digests))
    cache.close()
    if scores:
        write_atomic(path, _with_scores(path, scores, scorer.id))


def truncated_texts(layout: Layout, language: str) -> dict[str, int]:
    """How many texts were too long for the scorer, for the manifest; {} if nothing has been scored since it was written."""
    if not layout.score_cache(language).exists():
        return {}
    records = read_jsonl(layout.translations(language), TranslationRecord)
    return {"truncated_texts": sum(record.get("truncated_by_scorer") or 0 for record in records)}


def _with_scores(path: Path, scores: dict[str, tuple[list, int]], scorer_id: str) -> Iterator[str]:
    """The lines of the translations file with the new scores."""
    for record_id, record in with_ids(read_jsonl(path, TranslationRecord), "sentence"):
        if record_id in scores and _is_unscored(record, scorer_id):
            record["scores"], truncated = scores[record_id]
            record["scorer"] = scorer_id
            record.pop("truncated_by_scorer", None)
            record |= {"truncated_by_scorer": truncated} if truncated else {}
        yield to_line(record)
