"""The funnel of a run: how many prompts, texts, sentences and pairs there are after each step, what each step removed and why.

What a step has, less what is removed from it, is what the next one has. Where files and manifests do not say so, a line of
`problems` does.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from math import isclose
from pathlib import Path

from topxgen.common.records import FilteredLayout, Layout, ParagraphRecord, RejectRecord, TranslationRejects
from topxgen.common.schemas import fields
from topxgen.generation import funnel
from topxgen.inference.response_cache import RESPONSE_KEYS, ResponseRecord
from topxgen.runs import rows as of_rows
from topxgen.runs.folders import BackTranslation, Run, languages_of, layout_of
from topxgen.runs.reading import Problems, read_file, read_lines
from topxgen.runs.rows import Row


@dataclass
class Step:
    """How many there are, and what is removed (by reason) or added before the next step."""

    name: str
    count: int
    removed: dict[str, int] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)
    several: bool = False  # one of the step before can bring several, so that no subtraction leads here

    @property
    def left(self) -> int:
        return self.count - sum(self.removed.values()) + sum(self.added.values())


@dataclass
class Funnel:
    """Of a language in a folder: its paragraphs, its back-translations, or both."""

    language: str
    generation: Path | None = None
    back_translation: BackTranslation | None = None
    steps: list[Step] = field(default_factory=list)
    not_chosen: int = 0  # candidates
    usage: dict[str, int] = field(default_factory=dict)  # tokens of the generation
    problems: list[str] = field(default_factory=list)

    def step(self, name: str) -> Step | None:
        return next((step for step in self.steps if step.name == name), None)


_Counts = fields(counts=dict, prompts_asked=int | None)
OnRow = Callable[[Path, Row], object]


def funnels(run: Run, problems: Problems, on_row: OnRow = lambda folder, row: None) -> list[Funnel]:
    """One for each language of each back-translation, and of each folder of paragraphs that has none.

    `problems` collects what cannot be read. `on_row` gets every row once, with its folder of paragraphs or back-translations.
    """
    generations, found = {}, []
    for folder in run.generations:
        for language in languages_of(folder):
            generations[folder, language] = _generation(folder, language, problems)
            for row in of_rows.texts(folder, language, problems=problems):
                on_row(folder, row)
    used = set()
    for one in run.back_translations:
        for language in one.languages:
            before = generations.get((one.generation, language))
            used.add((one.generation, language))
            found.append(_pairs(one, language, before, problems, on_row))
    return [*(part for key, part in generations.items() if key not in used), *found]


def _generation(folder: Path, language: str, problems: Problems) -> Funnel:
    """Prompts to paragraphs."""
    layout, result = layout_of(folder), Funnel(language, folder)
    counts = funnel.count_generation(
        language,
        responses(layout.responses(language), problems),
        _records(layout.rejects(language), RejectRecord, problems),
        _records(layout.paragraphs(language), ParagraphRecord, problems),
    )
    manifest = _compare(result, layout, "generate", language, counts, problems)
    rejected, removed = Counter(counts["rejected"]), Counter()
    if not counts.get("native"):
        asked = manifest.get("prompts_asked") or counts["prompts"]
        if counts["prompts"] or asked:
            result.steps.append(Step("prompts", asked, without_zeros({"no_response": asked - counts["prompts"]})))
            for reason in funnel.RESPONSE_REASONS:
                removed[reason] = rejected.pop(reason, 0)
            removed["not_needed"] = counts["not_needed"]
            result.steps.append(Step("responses", counts["answers"], without_zeros(removed), several=True))
        result.usage = {key: counts[key] for key in ("prompt_tokens", "completion_tokens") if counts[key]}
    texts = counts["kept"] - counts["brought_along"] + rejected.total()
    if texts or result.steps:
        name = "native_texts" if counts.get("native") else "texts"
        added = without_zeros({"brought_along": counts["brought_along"]})
        result.steps.append(Step(name, texts, _in_order(rejected, funnel.TEXT_REASONS), added, several=True))
    result.steps.append(Step("paragraphs", counts["kept"]))
    return result


def _pairs(one: BackTranslation, language: str, before: Funnel | None, problems: Problems, on_row: OnRow) -> Funnel:
    """Paragraphs to the pairs that are left."""
    layout = one.layout()
    result = Funnel(language, one.generation, one)
    path = of_rows.pairs_file(one, language)
    pairs_are_here = path == layout.translations(language)
    rejects = _records(layout.translation_rejects(language), TranslationRejects, problems) if pairs_are_here else ()
    counts = funnel.count_translation((record for *_, record in of_rows.records(path, problems)), rejects)
    if pairs_are_here:
        _compare(result, layout, "score", language, counts, problems)
        _compare(result, layout, "translate", language, funnel.before_scores(counts), problems)
    dropped, states = Counter(), Counter()
    again = Problems()
    for row in of_rows.rows(one, language, rejected=pairs_are_here, problems=again):
        states[row.state] += 1
        dropped[row.reason] += row.state == "contaminated"
        on_row(one.folder, row)
    problems.add_of_second_reading(again)
    result.not_chosen = states["not_chosen"]
    if before is not None:
        result.steps += [Step(s.name, s.count, dict(s.removed), dict(s.added), s.several) for s in before.steps]
        result.usage, result.problems = before.usage, [*before.problems, *result.problems]
    paragraphs = result.step("paragraphs")
    if paragraphs is None or not (paragraphs.count or not counts["paragraphs"]):
        result.steps = [s for s in result.steps if s is not paragraphs]
        result.steps.append(Step("paragraphs", counts["paragraphs"]))
    elif not pairs_are_here:  # and so not known which were translated
        paragraphs.removed = without_zeros({"without_pairs_here": paragraphs.count - counts["paragraphs"]})
    else:
        paragraphs.removed = without_zeros({"not_translated": paragraphs.count - counts["paragraphs"]})
    rejected = _in_order(Counter(counts["rejected"]), funnel.PAIR_REASONS)
    if pairs_are_here:
        result.steps.append(Step("sentences", counts["sentences"], rejected, several=True))
        result.steps.append(Step("pairs", counts["pairs"], _in_order(+dropped, of_rows.CONTAMINATED)))
    if states["kept"] + states["contaminated"] != counts["pairs"]:
        result.problems.append(
            f"{path} was read twice and had {counts['pairs']} pairs, then {states['kept'] + states['contaminated']}: it is being written"
        )
    if one.filtered is not None:
        _decontaminated(result, one, language, pairs_are_here, problems)
    result.problems += _not_adding_up(result)
    return result


def _decontaminated(
    result: Funnel, one: BackTranslation, language: str, pairs_are_here: bool, problems: Problems
) -> None:
    """The pairs of the filtered file, and whether its manifest speaks of the pairs that are here."""
    layout = FilteredLayout(one.filtered)
    path, manifest = layout.filtered(language), layout.manifest(language)
    if not path.exists():
        return
    left = sum(len(record["propositions"]) for *_, record in of_rows.records(path, problems))
    result.steps.append(Step("decontaminated", left, several=not pairs_are_here))
    if counts := read_file(manifest, _Counts, problems).get("counts"):
        pairs = counts.get("pairs", 0)
        kept = pairs - counts.get("pairs_dropped_with_paragraph", 0) - counts.get("pairs_dropped", 0)
        if pairs_are_here and pairs != result.step("pairs").count:
            result.problems.append(
                f"{language}: {manifest} is of {pairs} pairs, but {of_rows.pairs_file(one, language)} has {result.step('pairs').count}: "
                "run decontamination.py again"
            )
        if kept != left:
            result.problems.append(f"{language}: {manifest} says that {kept} pairs were left, but {path} has {left}")


def _compare(result: Funnel, layout: Layout, stage: str, language: str, counts: dict, problems: Problems) -> dict:
    """The manifest of a stage; what it counts otherwise than the files becomes a problem."""
    path = layout.manifest(stage, language)
    manifest = read_file(path, _Counts, problems)
    file = (layout.paragraphs if stage == "generate" else layout.translations)(language)
    if manifest.get("counts") and not file.exists():
        result.problems.append(f"{language}: {file} is missing, of which {path} has counts")
        return manifest
    for key, recorded in manifest.get("counts", {}).items():
        present = counts.get(key)
        if key == "rejected" and isinstance(recorded, dict):
            differing = {k: (recorded.get(k, 0), present.get(k, 0)) for k in {**recorded, **present}}
        else:
            differing = {key: (recorded, present)} if key in counts else {}
        result.problems += [
            f"{language}: {path} says {name.replace('_', ' ')} {was}, but the files have {now}"
            for name, (was, now) in differing.items()
            if was != now and not (isinstance(was, float) and isinstance(now, float) and isclose(was, now))
        ]
    return manifest


def _not_adding_up(result: Funnel) -> list[str]:
    where = result.back_translation.folder if result.back_translation else result.generation
    lines = []
    for step, following in pairwise(result.steps):
        if not following.several and step.left != following.count:
            lines.append(
                f"{result.language} in {where}: {step.count} {step.name.replace('_', ' ')} less what was removed are {step.left}, but "
                f"{following.name.replace('_', ' ')} are {following.count}"
            )
        lines += [
            f"{result.language} in {where}: {reason.replace('_', ' ')} is {count}"
            for reason, count in step.removed.items()
            if count < 0
        ]
    return lines


def responses(path: Path, problems: Problems) -> Iterator[dict]:
    """The records of a file of responses, of older versions too."""
    for number, record in read_lines(path, ResponseRecord, problems):
        if "answers" in record:  # of older versions
            record["texts"] = record.pop("answers")
        if missing := [key for key in RESPONSE_KEYS if key not in record]:
            problems.add(path, f", line {number} is left out: it has no {missing[0]!r}")
            continue
        yield record


def _records(path: Path, schema: type, problems: Problems) -> Iterator[dict]:
    return (record for _, record in read_lines(path, schema, problems))


def without_zeros(counts: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if count}


def _in_order(counts: Counter, reasons: tuple[str, ...]) -> dict[str, int]:
    """By the order of `reasons`, others behind them."""
    return {reason: counts[reason] for reason in dict.fromkeys((*reasons, *counts)) if counts[reason]}
