"""Checks the output of scripts/data_stats.py: recomputes its figures from the files that they describe, and compares its tables."""

import math
from collections.abc import Callable
from pathlib import Path

from comptra.verify import Audit, T, beginning
from comptra.verify.evaluations import near_equal
from comptra.verify.translations import can_load
from topxgen.common import hub
from topxgen.common.console import quiet
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json
from topxgen.corpora.topics import read_categories, read_topics
from topxgen.retrieval import encoders
from topxgen.retrieval.encoders import EncoderSettings
from topxgen.statistics import corpus, describe, tables
from topxgen.statistics.describe import Options
from topxgen.statistics.judge import Question

TABLES = {".csv": tables.csv_text, ".md": tables.markdown}
FIGURES = ("counts", "lengths", "topics", "scores", *describe.SIDES)
# Figures that need more than the texts: which of the settings names it.
TOKENS = ("tokens_of_sentences", "tokens_of_translations")
TOPICS = ("in_file", "covered", "coverage", "not_in_file", "by_category")
VENDI = ("vendi_score",)
_NEAR_VENDI = 1e-4  # relative: vectors of other processors differ


def check(audit: Audit, folder: Path, names: set[str]) -> None:
    for name in sorted(names):
        path = folder / name
        if name.endswith(".json") and beginning(path).startswith(b'{\n  "settings": {\n    "sample": '):
            audit.attempt(path, _check, audit, path)


def _check(audit: Audit, path: Path) -> None:
    content = read_json(path, dict)
    corpora, settings = content["corpora"], content["settings"]
    if audit.options.with_scores:
        options, left_out = _options(audit, path, settings, corpora)
        for language in dict.fromkeys(one["language"] for one in corpora):
            claimed = [one for one in corpora if one["language"] == language]
            _check_language(audit, path, settings, claimed, options, left_out)
    for end, make in TABLES.items():
        table = path.with_suffix(end)
        if table.is_file():
            audit.checked["scores"] += 1
            if table.read_text(encoding="utf-8", errors="replace") != make(corpora):
                audit.problem(table, f"is not the table of {path.name}")


def _options(audit: Audit, path: Path, settings: dict, corpora: list[dict]) -> tuple[Options, set[str]]:
    """What computes the figures again, and the keys of those that cannot be, of which the audit says why."""
    left_out: set[str] = set()

    def attempt(what: str, keys: tuple[str, ...], make: Callable[[], T]) -> T | None:
        if not any(part.get(key) is not None for one in corpora for part in _parts(one) for key in keys):
            return None
        try:
            with hub.offline(), quiet():
                return make()
        except UsageError as error:
            left_out.update(keys)
            return audit.skip(path, f"{what}: not computed again: {error}")

    encoder = attempt("Vendi scores", VENDI, lambda: _encoder(settings))
    tokenizer = attempt("numbers of tokens", TOKENS, lambda: describe.token_counter(_tokenizer(audit, path, settings)))
    topics = attempt("shares of a list of topics", TOPICS, lambda: _topics(audit, path, settings))
    encode = describe.encoding(encoder) if encoder else None
    known, categories = topics or (None, {})
    return Options(settings["sample"], settings["seed"], encode, tokenizer, known, categories), left_out


def _parts(one: dict) -> list[dict]:
    return [one[name] for name in FIGURES if one[name]]


def _encoder(settings: dict):
    version = str(settings.get("encoder"))
    name = version.split(" ")[0]
    if name not in encoders.ENCODERS:  # an encoder of one's own is code, which a file must not name
        raise UsageError(f"the encoder {version} is none of {', '.join(encoders.ENCODERS)}")
    model = settings.get("sonar_name_or_path")
    encoder = encoders.create(name, EncoderSettings(**({"sonar_name_or_path": model} if model else {})))
    if encoder.version != version:
        raise UsageError(f"the encoder was {version}, here it is {encoder.version}")
    return encoder


def _tokenizer(audit: Audit, path: Path, settings: dict) -> str:
    if not (name := settings.get("tokenizer")):
        raise UsageError("the settings name no tokenizer")
    return str(audit.locate(name, path) or name)


def _topics(audit: Audit, path: Path, settings: dict) -> tuple[list[str], dict[str, str]]:
    facts = settings["topics"]
    if (found := audit.locate(facts["path"], path)) is None:
        raise UsageError(f"{facts['path']} is not there")
    if audit.sha256(found) != facts["sha256"]:
        raise UsageError(f"{found} has changed since")
    return read_topics(found), read_categories(found)


def _check_language(
    audit: Audit, path: Path, settings: dict, claimed: list[dict], options: Options, left_out: set[str]
) -> None:
    language = claimed[0]["language"]
    if any(one["is_cut"] for one in claimed):
        return audit.skip(path, f"figures of {language}: not computed again: a file was being written")
    with hub.offline(), quiet():
        why = f"figures of {language}: not computed again"
        read = audit.attempt(path, lambda: [_corpus(audit, path, one) for one in claimed], why=why)
        found = describe.describe(read, options) if read else ()
    for one, own in zip(claimed, found, strict=False):
        for part in FIGURES:
            what = f"{part} of {one['path']}"
            values = one[part] and {key: value for key, value in one[part].items() if key not in left_out}
            if values and own[part] and values.get(VENDI[0]) is not None:
                score, here = values.pop(VENDI[0]), own[part][VENDI[0]]
                is_near = here is not None and math.isclose(score, here, rel_tol=_NEAR_VENDI)
                audit.equal(path, f"{what}.{VENDI[0]}", here if is_near else score, here, "scores")
            near_equal(audit, path, what, values, own[part], "scores")
    if read:
        _check_judge(audit, path, settings["judge"], claimed, read)


def _corpus(audit: Audit, path: Path, claimed: dict) -> corpus.Corpus:
    """Raises UsageError if it is not on this machine."""
    found, options = audit.locate(claimed["path"], path), audit.options
    if found is None and not can_load(audit, claimed["path"]):
        raise UsageError(f"{claimed['path']} is not there")
    wanted = ((claimed["language"],), (claimed["stage"],), options.languages_file, options.benchmark_dir)
    (read,) = corpus.read(str(found or claimed["path"]), corpus.Sources(*wanted, allow_partial=True))
    return read


def _check_judge(audit: Audit, path: Path, facts: dict | None, claimed: list[dict], read: list[corpus.Corpus]) -> None:
    """The shares by the judge, recomputed from its responses."""
    if not any(one.get("judge") for one in claimed):
        return None
    if (responses := audit.locate(facts["responses"], path)) is None:
        return audit.skip(path, f"the judge's shares: not computed again: {facts['responses']} is not there")
    question = Question(**{key: value for key, value in facts.items() if key != "responses"})
    found = audit.attempt(responses, lambda: question.counted(read, responses)) or ()
    for one, own in zip(claimed, found, strict=False):
        near_equal(audit, path, f"judge of {one['path']}", one.get("judge"), own, "scores")
