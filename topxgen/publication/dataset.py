"""Write a data set: parquet by language and split with a card, other formats beside it, checksums of everything.

The folder is written under a temporary name and renamed when all of it is there: a killed run leaves no folder that looks whole.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from topxgen.common import checksums, files, lineage, provenance
from topxgen.common.console import Progress
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json
from topxgen.common.locks import OutputLock
from topxgen.common.masks import masked, masked_json, masked_word
from topxgen.common.registry import Choice
from topxgen.common.reservoir import Reservoir
from topxgen.common.schemas import fields
from topxgen.publication import origins, split
from topxgen.publication.sources import Config, Measured, Paragraph, Selection, paragraphs, plan
from topxgen.runs.folders import Run

CARD, MANIFEST = "README.md", "manifest_publish.json"
TRAIN, VALIDATION = SPLITS = ("train", "validation")
# Beside parquet: made of (folder, config, split), with `write` of rows and `close`.
FORMATS: dict[str, Choice] = {
    "tmx": Choice("topxgen.publication.tmx:Tmx", "a translation memory, for translators' programs"),
    "moses": Choice("topxgen.publication.moses:Moses", "parallel text, .src and .tgt with a sentence a line"),
}
STATISTICS_PARAGRAPHS = 10_000  # of each config; of more, a random sample


def _command() -> list[str]:
    return [masked_word(word) for word in provenance.command_line(())]


@dataclass(frozen=True)
class Options:
    names: Collection[str] | None = None  # of languages; None: all
    languages_file: str | None = None
    selection: Selection = field(default_factory=Selection)
    validation_size: float | None = None
    seed: int = 122
    formats: Collection[str] = ()
    atlas: object = None  # topxgen.publication.atlas.Atlas
    allow_undecontaminated: bool = False
    repository: str | None = None  # on the Hub
    command: list[str] = field(default_factory=_command)  # as the card and the manifest have it


@dataclass
class Part:
    config: Config
    measured: Measured
    origins: list[origins.Origin]  # of its sources
    records: int = 0  # paragraphs of each back-translator
    keys: set[int] = field(default_factory=set)  # of the paragraphs, if there are several back-translators
    rows: dict[str, int] = field(default_factory=dict)  # by split
    bytes: dict[str, int] = field(default_factory=dict)  # in memory, by split
    files: dict[str, int] = field(default_factory=dict)  # size on disk, by split
    sample: Reservoir[Paragraph] = field(default_factory=lambda: Reservoir(STATISTICS_PARAGRAPHS))

    @cached_property
    def has_several(self) -> bool:
        return len({source.back_translator for source in self.config.sources}) > 1

    @property
    def paragraphs(self) -> int:
        return len(self.keys) or self.records

    @property
    def pairs(self) -> int:
        return sum(self.rows.values())


@dataclass(frozen=True)
class Published:
    parts: list[Part]
    cut: list[Path]  # files whose last line is not complete
    validation: split.Validation


_Manifest = fields(seed=int, settings=dict, inputs=dict)


def is_published(run: Run, out: Path, options: Options) -> bool:
    """Whether `out` has all of this data set already, so that there is nothing to do. Raises UsageError as `plan` does, and for a
    data set that differs from this one only by its repository or by files that were changed since."""
    try:
        manifest = read_json(out / MANIFEST, _Manifest)
    except UsageError:
        return False  # check_output says that the folder is not empty
    if not manifest:
        return False
    decisive = _decisive(plan(run, options.names, options.languages_file), options)
    named = manifest.get("settings", {}).get("repository")
    decisive["settings"]["repository"] = named
    if any(manifest.get(key) != value for key, value in decisive.items()):
        return False
    if named != options.repository:
        wanted = f"is for {options.repository}" if options.repository else "would name none"
        raise UsageError(
            f"--out {out} is not empty: it has this data set with a card that names {named or 'no repository'}, and the new card "
            f"{wanted}; pass another folder, or remove it"
        )
    if changed := _changed(out):
        raise UsageError(
            f"--out {out} is not empty: it has this data set, but {' and '.join(changed[:3])} differ from its {checksums.NAME}; pass "
            "another folder, or remove it"
        )
    return True


def _changed(out: Path) -> list[str]:
    """Files that were changed, added or removed since the data set was written."""
    claimed = checksums.read(out)
    there = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    there.pop(checksums.NAME, None)
    return sorted(
        name
        for name in claimed.keys() | there.keys()
        if name not in there or checksums.sha256_of(there[name]) != claimed.get(name)
    )


def check_output(out: Path) -> None:
    """Raise UsageError unless `out` does not exist or is an empty folder, and can be written."""
    files.check_output_directory(out, "--out")
    if out.is_symlink():
        raise UsageError(f"--out {out} is a symbolic link; pass the folder itself")
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"--out {out} is not empty; pass another folder, or remove it")


def publish(run: Run, out: Path, options: Options) -> Published:
    """Write the data set of a run to `out`.

    Raises UsageError for a folder that is not empty, data that was not decontaminated (unless allowed), what `plan` and
    `Selection.measure` refuse, and files that change meanwhile.
    """
    check_output(out)
    configs = plan(run, options.names, options.languages_file)
    if options.atlas is not None:
        for config in configs:
            options.atlas.side(config)
    if not options.allow_undecontaminated:
        _check_decontaminated(configs)
    with OutputLock(out.absolute().parent, part=out.name, flag="--out"):
        check_output(out)
        before = _states(configs)
        with files.replacing_folder(out) as partial:
            published = _write(run, configs, partial, options)
            for path, now in _states(configs).items():  # which were read several times
                if now != before[path]:
                    raise UsageError(
                        f"{path} changed while it was read: a run is writing it; publish when that has finished"
                    )
    return published


def _check_decontaminated(configs: list[Config]) -> None:
    missing = [source for config in configs for source in config.sources if source.filtered is None]
    if missing:
        folder = missing[0].folder
        missing = [source for source in missing if source.folder == folder]
        names = " ".join(dict.fromkeys(repr(source.language.name) for source in missing))
        raise UsageError(
            f"{' and '.join(dict.fromkeys(source.path.name for source in missing))} in {folder}: not decontaminated, so test sets may "
            f"be in it; run decontamination.py --input_dir {folder} --languages {names}, publish another folder alone, or pass "
            "--allow_undecontaminated to publish it with a warning"
        )


def _states(configs: list[Config]) -> dict[Path, tuple]:
    paths = [source.path for config in configs for source in config.sources]
    return {path: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for path in paths for stat in [path.stat()]}


def _write(run: Run, configs: list[Config], folder: Path, options: Options) -> Published:
    from topxgen.publication import card

    cut: dict[Path, None] = {}
    selection = options.selection
    measured = {config.name: selection.measure(config, lambda path: cut.setdefault(path)) for config in configs}
    found = origins.of(run, configs)
    parts = [Part(config, measured[config.name], found[config.name]) for config in configs]

    def read() -> Iterator[Paragraph]:
        for part in parts:
            yield from paragraphs(part.config, selection, part.measured)

    sizes = {part.config.name: part.measured.kept for part in parts}
    validation = split.validation(read, sizes, options.validation_size, options.seed)
    sections = []
    with Progress("write", sum(sizes.values()), "pairs") as bar:
        for part in parts:
            _write_config(part, folder, validation, options, bar)
            _write_lineage(part, folder, selection)
            sections.append(card.section(part, options.seed))
            part.sample = Reservoir(0)  # its memory is for the next
    if options.atlas is not None:
        options.atlas.write(folder)
    published = Published(parts, list(cut), validation)
    text = card.card(run, published, sections, options)
    files.write_atomic(folder / CARD, [text])
    _write_manifest(run, folder, published, options)
    return published


def _write_config(part: Part, folder: Path, validation: split.Validation, options: Options, bar: Progress) -> None:
    from topxgen.publication.parquet import Parquet

    writers: dict[str, list] = {}
    for paragraph in paragraphs(part.config, options.selection, part.measured):
        key = split.key_of(paragraph, options.seed)
        name = VALIDATION if key in validation.keys else TRAIN
        if name not in writers:
            kinds = [Parquet, *(FORMATS[other].load() for other in dict.fromkeys(options.formats))]
            writers[name] = [kind(folder, part.config, name) for kind in kinds]
        for writer in writers[name]:
            writer.write(paragraph.pairs)
        part.records += 1
        if part.has_several:
            part.keys.add(key)
        part.sample.add(paragraph, -key)
        if options.atlas is not None:
            options.atlas.add(part.config, name, paragraph)
        bar.update(len(paragraph.pairs))
    for name in SPLITS:
        for writer in writers.get(name, ()):
            writer.close()
        if name in writers:
            table = writers[name][0]
            part.rows[name], part.bytes[name] = table.rows, table.bytes
            part.files[name] = table.path.stat().st_size


def _write_lineage(part: Part, folder: Path, selection: Selection) -> None:
    """A manifest as train.py --export_dir leaves it, by which models that train on the files know what they come from."""
    link = {"kind": "data", "name": part.config.folder, "stage": "export", "selections": [], "links": []}
    link["links"] = [origin.link for origin in part.origins]
    flags = {"--min_score": selection.min_score, "--percentile": selection.percentile}
    for flag, value in flags.items():
        if value is not None:
            scorer = next(iter(part.measured.scorers)) or None
            numbers = part.measured.kept, part.measured.pairs
            flag = f"{flag} {value:g}"
            link["selections"].append(lineage.selection("training data", scorer, flag, part.config.folder, *numbers))
    names = [f"{name}.parquet" for name in part.rows]
    own = folder / part.config.folder
    files.write_json(
        own / lineage.EXPORT_MANIFEST, {"files": names, lineage.KEY: masked_json(link), checksums.KEY: names}
    )
    checksums.claim(own, [*names, lineage.EXPORT_MANIFEST])


def _decisive(configs: list[Config], options: Options) -> dict:
    """What decides the data set, as the manifest has it."""
    return {
        "seed": options.seed,
        "settings": {
            "min_score": options.selection.min_score,
            "percentile": options.selection.percentile,
            "validation_size": options.validation_size,
            "formats": sorted(set(options.formats)),
            "atlas": options.atlas.settings if options.atlas is not None else None,
            "repository": options.repository,  # the card names it
        },
        "inputs": {
            config.name: [{"file": s.path.name, "sha256": lineage.sha256_of(s.path)} for s in config.sources]
            for config in configs
        },
    }


def _write_manifest(run: Run, folder: Path, published: Published, options: Options) -> None:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    manifest = {
        "stage": "publish",
        "finished": provenance.now(),
        "command": options.command,
        **_decisive([part.config for part in published.parts], options),
        "versions": provenance.versions(),
        "code": provenance.code_id("topxgen"),
        "run": masked(run.root.resolve().name),
        "languages": sorted({part.config.language.name for part in published.parts}),
        "validation": {"asked": published.validation.asked, "pairs": published.validation.pairs},
        "counts": {
            part.config.name: {
                "paragraphs_read": part.measured.paragraphs,
                "paragraphs_without_pairs": part.measured.without_pairs,
                "pairs_read": part.measured.pairs,
                "pairs_with_an_empty_side": part.measured.empty,
                "paragraphs": part.paragraphs,
                **part.rows,
            }
            for part in published.parts
        },
        checksums.KEY: names,
    }
    files.write_json(folder / MANIFEST, manifest)
    checksums.claim(folder, [*names, MANIFEST])
