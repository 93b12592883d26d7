"""Where pairs come from, for the card: models and their terms, commands, what decontamination removed and what is not known."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from topxgen.common import ancestry, lineage, schemas
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json
from topxgen.common.licences import Licence
from topxgen.common.lineage import Link
from topxgen.common.masks import masked, masked_command
from topxgen.common.records import (
    FilteredLayout,
    Layout,
    TranslateSettings,
    back_translator_in,
    model_of,
    other_language,
)
from topxgen.common.schemas import fields
from topxgen.decontamination.report import Part
from topxgen.publication.sources import Config, Source
from topxgen.runs import counts
from topxgen.runs.counts import Funnel
from topxgen.runs.folders import Run
from topxgen.runs.reading import Problems

STAGES = ("generate", "translate", "score")
REPORT = "decontamination_report.json"
WROTE, TRANSLATED = "wrote the paragraphs in", "translated them into"  # languages


_Manifest = fields(command=list[str])
_Report = fields(languages=dict[str, dict], settings=dict)
_OLDER = {"not_checked": [], "partial": [], "language_not_covered": [], "not_loaded": []}


@dataclass(frozen=True)
class Model:
    """`made`: what, with the languages in braces; `licence`: None if its terms are not known."""

    made: str
    languages: str
    name: str
    licence: Licence | None


@dataclass
class Origin:
    """Of a source. `unknown`: lines about what cannot be told from its files."""

    source: Source
    link: Link
    is_native: bool = False  # its texts were given (--paragraphs), not generated
    models: list[Model] = field(default_factory=list)
    commands: dict[str, str] = field(default_factory=dict)  # by stage, without paths of the machine
    report: Part | None = None  # what the decontamination's report has of the language
    unknown: list[str] = field(default_factory=list)
    funnel: Funnel | None = None


def of(run: Run, configs: list[Config]) -> dict[str, list[Origin]]:
    """By config, in the order of its sources. Raises UsageError if a file of the run cannot be read."""
    folders = {source.folder for config in configs for source in config.sources}
    own = tuple(one for one in run.back_translations if one.folder in folders)
    part = replace(
        run, generations=tuple(dict.fromkeys(one.generation for one in own if one.generation)), back_translations=own
    )
    problems = Problems()
    funnels = {
        (one.back_translation.folder, one.language): one
        for one in counts.funnels(part, problems)
        if one.back_translation
    }
    found = {}
    for config in configs:
        found[config.name] = [_of_source(source) for source in config.sources]
        for origin in found[config.name]:
            if (funnel := funnels.get((origin.source.folder, origin.source.name))) is not None:
                origin.funnel = funnel
                origin.unknown += map(masked, funnel.problems)
    found[configs[0].name][0].unknown += map(masked, problems.lines())
    for line in (*problems.lines(), *(line for one in funnels.values() for line in one.problems)):
        if " cannot be read: " in line or " was read twice " in line:  # a card with half the counts would look whole
            raise UsageError(f"{line}; publish when it can be read")
    return found


def _of_source(source: Source) -> Origin:
    origin = Origin(source, lineage.of_pairs(source.path))
    origin.unknown += [masked(link["ends"]) for link in lineage.walk([origin.link]) if "ends" in link]
    _add_models(origin)
    _add_commands(origin)
    if source.filtered is not None:
        _add_report(origin, source.filtered)
    return origin


def _add_models(origin: Origin) -> None:
    source = origin.source
    written = {}
    if source.generation:
        written = _read(source.generation / "settings_generate.json", TranslateSettings, origin)
    if written.get("pipeline") == "paragraphs":
        origin.is_native = True
        origin.unknown.append(
            f"the paragraphs in {source.language.name} are not generated but were given (--paragraphs): their authors' terms apply"
        )
    elif (writer := model_of(written)) is not None:
        origin.models.append(_model(WROTE, source.language.name, writer))
    else:
        origin.unknown.append(f"which model wrote the paragraphs in {source.language.name}: no settings_generate.json")
    translator = back_translator_in(source.folder)
    origin.models.append(_model(TRANSLATED, source.target.name, translator))


def _model(made: str, language: str, name: str) -> Model:
    base = ancestry.hub_name(name)
    shown = masked(name) if base in (None, name) else f"{masked(name)} (from {base})"
    return Model(made, language, shown, ancestry.licence_of(name))


def _add_commands(origin: Origin) -> None:
    source = origin.source
    layout = Layout(source.generation or source.folder.parent, source.folder.name)
    manifests = {stage: layout.manifest(stage, source.name) for stage in STAGES}
    if source.filtered is not None:
        manifests["decontaminate"] = FilteredLayout(source.filtered).manifest(source.name)
    for stage, path in manifests.items():
        if command := _read(path, _Manifest, origin).get("command"):
            origin.commands[stage] = masked_command(command)


def _add_report(origin: Origin, folder: Path) -> None:
    report, name = _read(folder / REPORT, _Report, origin), origin.source.name
    part = report.get("languages", {}).get(name)
    try:
        if part is not None:
            part = {**_OLDER, "settings": report.get("settings"), **part}  # reports of older versions lack some
            schemas.check(part, Part)
            origin.report = part
            return
        problem = f"{REPORT} does not have it"
    except ValueError as error:
        problem = f"{REPORT} is damaged or of another version: {error}"
    origin.unknown.append(f"what decontamination found in {name}: {problem}")


def _read(path: Path, schema: type, origin: Origin) -> dict:
    try:
        content = read_json(path, schema)
        problem = (wrong := other_language(path, content)) and f"{path}: {wrong}"
    except UsageError as error:
        content, problem = {}, str(error)
    if problem is None:
        return content
    origin.unknown.append(masked(problem))
    return {}


def models(all_origins: list[Origin]) -> list[Model]:
    """Each once for what it made, with all languages of that."""
    found: dict[tuple, list[Model]] = {}
    for made in (WROTE, TRANSLATED):
        for model in (model for origin in all_origins for model in origin.models if model.made == made):
            found.setdefault((made, model.name), []).append(model)
    return [
        replace(same[0], languages=", ".join(dict.fromkeys(one.languages for one in same))) for same in found.values()
    ]
