"""What decontaminations have left: their manifests, reports and hits."""

from collections.abc import Iterator
from typing import Required

import msgspec

from topxgen.common.records import FilteredLayout
from topxgen.common.schemas import fields
from topxgen.decontamination.report import Hit, Overlaps, SharedPair
from topxgen.runs.folders import BackTranslation
from topxgen.runs.reading import Problems, read_file, read_lines

Pairs = list[tuple[str, str]]


Split = fields(
    benchmark=Required[str], split=Required[str], language=Required[str], texts=int,
    published_texts=int,  # of a partial copy
)  # fmt: skip
# What decides what overlaps; what follows the threshold is in manifests only.
Rules = fields(
    ngram_size=int, tokenizer=str, near_duplicate_threshold=float | None,
    tokens_per_ngram=dict[str, int],  # by language
    benchmarks=dict[str, list[Split]], language_not_covered=Pairs, not_loaded=Pairs,
)  # fmt: skip
# What a report says of a language, in any version.
Part = fields(
    input_sha256=str, settings=Rules, counts=dict[str, int], not_checked=list[str], overlaps=list[Overlaps],
    partial=Pairs, language_not_covered=Pairs, not_loaded=Pairs,
)  # fmt: skip


class SharedTexts(SharedPair, total=False):
    match: str


# What two splits share; `pool`: demonstrations are drawn from one of them.
SharedRow = fields(
    language=Required[str], first=Required[tuple[str, str]], second=Required[tuple[str, str]], pool=bool,
    pairs=Required[list[SharedTexts]],
)  # fmt: skip


class Report(msgspec.Struct):
    """decontamination_report.json without its hits, of which there may be millions."""

    settings: Rules = {}
    languages: dict[str, Part] = {}
    between_benchmarks: list[SharedRow] = []


class FullHit(Hit, total=False):
    """With the id of its record, and the language of both texts."""

    id: str | int | None
    language: str


class Audit(Report):
    """decontamination_audit.json, the only file with the hits of an audit."""

    hits: dict[str, list[FullHit]] = {}


# manifest_decontaminate_{Language}.json, as far as it is shown.
Manifest = fields(settings=Rules, counts=dict[str, int], input=fields(bytes=int | None), input_sha256=str, finished=str)


def report(back_translation: BackTranslation, problems: Problems) -> Report | None:
    """The report beside the filtered files; None if there is none."""
    folder = back_translation.filtered
    return read_file(folder / "decontamination_report.json", Report, problems) or None if folder else None


def audit(back_translation: BackTranslation, problems: Problems) -> Audit | None:
    """The report of decontamination.py --audit beside the pairs; None if there is none."""
    return read_file(back_translation.folder / "decontamination_audit.json", Audit, problems) or None


def manifest(back_translation: BackTranslation, language: str, problems: Problems) -> Manifest:
    """That of a language; {} without one, or without filtered files."""
    folder = back_translation.filtered
    return read_file(FilteredLayout(folder).manifest(language), Manifest, problems) if folder else {}


def hits(back_translation: BackTranslation, language: str, problems: Problems) -> Iterator[FullHit]:
    """Every hit of a language, in the order of the pairs' file."""
    if back_translation.filtered:
        path = FilteredLayout(back_translation.filtered).hits(language)
        yield from (hit for _, hit in read_lines(path, FullHit, problems))
