"""Preparation of a shard of datagen.py: its part of the files of an unsharded run, a merge or other shards."""

from collections.abc import Iterator
from pathlib import Path

from topxgen.common import provenance, shards
from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, to_line, write_atomic
from topxgen.common.merging import Place, lines_of, places_in, read_whole_lines
from topxgen.common.records import Layout, read_translations
from topxgen.common.schemas import decode
from topxgen.generation.back_translation import SplitParagraph
from topxgen.generation.manifests import has_results
from topxgen.generation.scoring import RECORDS_PER_BLOCK
from topxgen.inference.response_cache import ResponseRecord, read_responses
from topxgen.text.languages import Language


def reads_merged(whole: Layout, own: Layout, languages: list[str]) -> bool:
    """Whether the translate stage reads the paragraphs of the whole directory, rather than the shard's own.

    Raises UsageError if the whole directory has paragraphs, and the shard has others that are not among them.
    """
    merged = [name for name in languages if whole.paragraphs(name).exists()]
    if merged and len(merged) < len(languages):
        others = ", ".join(name for name in languages if name not in merged)
        raise UsageError(
            f"{whole.output_dir} has paragraphs of {', '.join(merged)}, not of {others}: one command for each"
        )
    for name in merged:
        if own.paragraphs(name).exists() and not shards.is_merged(own.output_dir, own.output_dir, "generate", name):
            raise UsageError(
                f"{whole.paragraphs(name)} does not have the paragraphs of {own.output_dir} yet: run scripts/merge.py "
                f"{whole.output_dir}, or --stages generate translate for those of the shard"
            )
    return bool(merged)


def check_others(config, stage: str, settings: dict) -> None:
    """Raise UsageError if the one run or another shard has other settings: they could not be merged."""
    own, others = config.layout.settings(stage), {key: v for key, v in settings.items() if key != shards.SETTING}
    name = own.relative_to(config.layout.output_dir)
    for folder in (config.whole_dir, *(folder for _, folder in shards.folders(config.whole_dir))):
        if folder / name != own and has_results(folder, folder / name):
            provenance.check_settings(folder / name, others)


def write_notes(config) -> None:
    stages = [stage for stage in config.args.stages if stage != "score" or config.scorer is not None]
    for stage in stages:
        for name in config.languages:
            shards.write_note(config.layout.manifest(stage).parent, config.shard, "datagen", stage, name)


def prompt_number(prompt_id: str, language: str) -> int | None:
    """The number of a prompt by its id; None if it is none of the language's."""
    number = prompt_id.removeprefix(f"{language}-")
    return int(number) if number != prompt_id and number.isdecimal() else None


def adopt_responses(config) -> None:
    """Copy the responses that others have for this shard's prompts: the whole directory, and shards of another number of shards.

    So a run may be split anew, and none of its prompts is paid for twice.
    """
    shard, whole = config.shard, config.whole_dir
    others = [whole, *(folder for other, folder in shards.folders(whole) if other.count != shard.count)]
    for name in config.languages:
        path = config.layout.responses(name)
        sources = [file for folder in others if (file := folder / path.name).exists()]
        known = {record["id"] for record in read_responses(path)} if sources else ()

        def read(source: Path, name=name, known=known) -> Iterator[Place]:
            for _, offset, size, record in read_whole_lines(source, ResponseRecord):
                number = prompt_number(record["id"], name)
                if number is not None and shard.takes(number) and record["id"] not in known:
                    yield Place(offset, size, number, bool(record.get("error")))

        if sources:
            places = places_in(sources, read).first_of_each()
            with Appender(path) as out:
                for line in lines_of(sources, places.only(places.weight == 0)):
                    out.write(decode(line, dict))


def take_paragraphs(config, language: Language, blocks: Iterator[list[SplitParagraph]]) -> None:
    """Write the paragraphs that this shard translates: of the whole directory's blocks those with its number, so that a sentence is
    translated beside the same ones as in one run."""
    own = (to_line(one.paragraph.to_json()) for i, block in enumerate(blocks) if config.shard.takes(i) for one in block)
    write_atomic(config.layout.paragraphs(language.name), own)


def check_split(config, name: str) -> None:
    """Raise UsageError if shards of this number have pairs of their own, of a translation that was split anew since: they would score
    these alone."""
    works = (work for work in shards.works(config.whole_dir) if (work.stage, work.part) == ("translate", name))
    work = next((work for work in works if work.folder.name == config.layout.translate_dir.name), None)
    if work is None or not config.whole.translations(name).exists():
        return
    count, newest = config.shard.count, work.newest.shard.count
    if newest != count and (own := next((one for one in work.noted if one.shard.count == count), None)):
        raise UsageError(
            f"{own.root} has pairs of an earlier split of the translation, which was into {newest} shards since: pass --num_shards {newest} or "
            "a number that was not used before"
        )


def take_translations(config) -> None:
    """For a shard that only scores, and has no pairs of its own: its part of the whole directory's records, in blocks that are
    scored together in one run."""
    for name in config.languages:
        source, path = config.whole.translations(name), config.layout.translations(name)
        if not source.exists() or config.layout.settings("translate").exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        known = {record_id for record_id, _ in read_translations(path)} if path.exists() else set()
        with Appender(path) as out:
            for i, (record_id, record) in enumerate(read_translations(source)):
                if config.shard.takes(i // RECORDS_PER_BLOCK) and record_id not in known:
                    out.write({**record, "id": record_id})
