"""The shards of datagen.py as one run: what they have read or been answered is put in the one run's order and judged as there.

Files are made anew from those of the whole directory and of all shards, in a folder beside the shards, and replace the directory's
one by one: a merge that was killed is begun again. Nothing is asked of any model.
"""

import logging
import os
import re
import shutil
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from filecmp import cmp
from pathlib import Path
from types import SimpleNamespace

from topxgen.common import checksums, provenance, shards
from topxgen.common.console import Progress, counted
from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_jsonl, replacing
from topxgen.common.merging import (
    Place,
    Ranks,
    id_key,
    lines_of,
    places_in,
    read_placed_ids,
    read_whole_lines,
    responses_of,
)
from topxgen.common.records import (
    Layout,
    OthersRecord,
    ParagraphRecord,
    TranslationRecord,
    TranslationRejects,
    with_ids,
)
from topxgen.common.schemas import decode
from topxgen.generation import deduplication, funnel, min_score, scoring
from topxgen.generation.back_translation import UNANSWERED, unanswered_ids
from topxgen.generation.manifests import has_results, language_manifest, record, remove_manifests, write_manifests
from topxgen.generation.paragraphs import Generation, is_generated, is_native
from topxgen.generation.pipelines import Prompt
from topxgen.generation.sharded import prompt_number
from topxgen.inference.response_cache import ResponseRecord

logger = logging.getLogger(__name__)
STAGING = ".merge"  # what is in the folder of the shards begins so, for each language
_UNANSWERED = 2  # the weight of a record with a sentence that got no answer: one that has all counts, scored or not
_ROW = 1 << 20  # paragraphs that a row of a native text may have, in the keys of their ids
_TARGETS = ("--number_of_instructions", "--number_of_instructions_per_language")


def merge_generation(config, works: list[shards.Work]) -> bool:
    """The paragraphs of languages that one command wrote; whether all shards are finished, the target is reached and no language is empty.

    `config`: a GenerationConfig of the whole directory, by the newest of the shards' commands.
    """
    layout, started = config.layout, provenance.now()
    works_of = {work.part: work for work in works}
    settings = _settings(layout, "generate", works)
    for work in works:
        file = (layout.paragraphs if config.args.paragraphs else layout.responses)(work.part).name
        for one in work.noted:
            if not (one.folder / file).exists() and _manifest(one, layout, "generate", work.part):
                raise UsageError(
                    f"{one.folder / file} is missing, but the shard is finished: run it again with the --output_filenames of the other "
                    "shards"
                )
    staging = _staging(layout, next(iter(works_of)))
    staged = Layout(staging, layout.translate_dir_name, layout.output_filenames)
    merge = _merge_native if config.args.paragraphs else _merge_responses
    results = merge(config, staged, works_of)
    unfinished = False
    for name, work in works_of.items():
        newest = work.newest.note["command"]

        def is_finished(one: shards.Noted, name=name, newest=newest) -> bool:
            is_complete = bool(_manifest(one, layout, "generate", name))
            return is_complete and _targets(one.note["command"]) == _targets(newest)

        left = work.warn_of_unfinished(is_finished)
        unfinished |= bool(left)
        results[name]["complete"] = results[name]["complete"] and not left
        results[name]["shards"] = [one.shard.name for one in work.noted]
    record(layout, "generate", settings)
    _publish(staging, layout.output_dir, lambda: remove_manifests(layout, "generate", list(config.languages)))
    if config.prompts:
        config.pipeline.finish()
    shards.write_merged(layout.output_dir, works)
    for name in config.languages:
        results[name] |= deduplication.recall(config, name) | {"counts": funnel.generation_counts(layout, name)}
    write_manifests(layout, "generate", started, config.args.seed, settings, results, config.languages)
    for name, result in results.items():
        logger.info(f"{name}: {result['counts']['kept']} paragraphs from {len(works_of[name].noted)} shards")
    kept = Counter({name: result["counts"]["kept"] for name, result in results.items()})
    if config.limited and not unfinished and not config.target.reached(kept):
        logger.warning(
            "fewer paragraphs than were asked for (some are near-duplicates of another shard's, or a shard stopped short of its "
            "share): run datagen.py with the same flags without --num_shards and --shard_index to request the rest, or run the "
            "shards with a larger number and merge again"
        )
    empty = {name for name, count in kept.items() if not count}
    funnel.warn_of_none("paragraphs", empty)
    return not empty and all(result["complete"] for result in results.values())


def _merge_responses(config, staged: Layout, works: dict[str, shards.Work]) -> dict[str, dict]:
    """All responses in the order of the prompts, judged in the one run's order as far as they are there; results by language."""
    args, numbers = config.args, {}
    for name, work in works.items():
        own = config.layout.responses(name)
        paths = [own, *(one.folder / own.name for one in work.noted)]
        numbers[name] = responses_in_order(name, paths, staged.responses(name))
        _copy_own(config.layout, staged, name, is_generated)
    judging = SimpleNamespace(
        layout=staged,
        target=config.target,
        limited=config.limited,
        pipeline=config.pipeline,
        languages=config.languages,
        filters=config.filters,
        # As with a local model: what failed, failed, and is not forgotten.
        args=Namespace(**vars(args) | {"inference_api": "hf", "verbose": False}),
    )
    with (
        Progress("merge", config.target.paragraphs, "paragraphs") as progress,
        Generation(judging, progress, _answered(config, numbers)) as generation,
    ):
        if generation.needs_responses():
            raise AssertionError("a prompt without a response was scheduled")
        complete = generation.complete
    return {
        name: {
            "complete": complete or not config.target.wants(generation.kept, name),
            "prompts_asked": len(numbers[name]),
        }
        for name in config.languages
    }


def responses_in_order(language: str, paths: list[Path], out: Path):
    """Write the responses of files to one, in the order of their prompts; of one prompt's that of the first file counts, and one that
    did not fail before others. The numbers of the prompts, as an array."""

    import numpy as np

    def read(path: Path) -> Iterator[Place]:
        for _, offset, size, response in read_whole_lines(path, ResponseRecord):
            number = prompt_number(response["id"], language)
            if number is None:
                raise UsageError(f"{path}: {response['id']!r} is no prompt of {language}; remove the line")
            yield Place(offset, size, number, bool(response.get("error")))

    places = places_in(paths, read)
    _write(out, responses_of(paths, places, adopted=True))
    return np.unique(places.key)


def _answered(config, numbers: dict) -> Iterator[list[Prompt]]:
    """The one run's schedule without the prompts that no shard has an answer to; `numbers`: sorted ones of those that have."""
    at, left = Counter(), sum(map(len, numbers.values()))
    schedule = config.pipeline.schedule(config.target.languages, config.args.request_batch_size, config.args.seed)
    while left:
        step = []
        for prompt in next(schedule):
            of_language, place = numbers[prompt.language], at[prompt.language]
            if place < len(of_language) and of_language[place] == prompt.number:
                step.append(prompt)
                at[prompt.language] += 1
        left -= len(step)
        if step:
            yield step


def _merge_native(config, staged: Layout, works: dict[str, shards.Work]) -> dict[str, dict]:
    """Native texts in the order of their source; near-duplicates are judged anew, with the texts of all shards."""
    args, kept, results = config.args, Counter(), {}
    for name, work in works.items():
        layout, language = config.layout, config.languages[name]
        folders = [layout.output_dir, *(one.folder for one in work.noted)]
        names = layout.paragraphs(name).name, layout.rejects(name).name
        paths = [folder / filename for folder in folders for filename in names]
        own = re.compile(rf"{re.escape(name)}-native-(\d+)\.(\d+)")

        def read(path: Path, own=own) -> Iterator[Place]:
            for offset, size, text_id, _ in read_placed_ids(path, dict, "text"):
                if match := own.fullmatch(text_id):
                    yield Place(offset, size, int(match[1]) * _ROW + int(match[2]))

        near_duplicates = deduplication.new_index(args)
        for text_id, text in _copy_own(layout, staged, name, is_native):
            near_duplicates.add(text_id, text)
            kept[name] += 1
        places = places_in(paths, read).first_of_each()
        with Appender(staged.paragraphs(name)) as out, Appender(staged.rejects(name)) as rejects:
            for line in lines_of(paths, places):
                if config.limited and not config.target.wants(kept, name):
                    break
                text = decode(line, dict)
                reason = text.pop("reason", None)
                if reason is None or reason.startswith("near_duplicate"):
                    match = near_duplicates.keep(text["id"], text["text"])
                    reason = None if match is None else deduplication.reason(*match)
                topic = {"topic": text["topic"]} if "topic" in text else {}
                if reason is None:
                    out.write({"text": text["text"], **topic, "id": text["id"]})
                    kept[name] += 1
                else:
                    rejects.write({"id": text["id"], "reason": reason, "text": text["text"], **topic})
        Appender(staged.responses(name)).close()
        finished = [language_manifest(Layout(one.root, ""), "generate", language.name) for one in work.noted]
        source = next((manifest["source"] for manifest in finished if "source" in manifest), None)
        results[name] = {} if source is None else {"source": source}
    return {name: {"complete": not config.target.wants(kept, name), **result} for name, result in results.items()}


def merge_translations(config, works: list[shards.Work]) -> bool:
    """The pairs of a language, in the order of its paragraphs, with what was rejected or not chosen, and with scores as far as there
    are; whether all of the stages is finished, and there are paragraphs.

    `works`: the translate stage, the score stage or both, of one language. Raises UsageError if their paragraphs are not merged, as with
    --stages translate: pairs would be lost.
    """
    layout, started, complete = config.layout, provenance.now(), True
    by_stage, name = {work.stage: work for work in works}, works[0].part
    shards.check_merged(layout.paragraphs(name), paragraphs_of=name)
    settings = {stage: _settings(layout, stage, [work]) for stage, work in by_stage.items()}
    _merge_records(config, name, by_stage, settings)
    shards.write_merged(layout.output_dir, works)
    counts = funnel.translation_counts(layout, name)
    for stage, work in by_stage.items():
        manifests = [_manifest(one, layout, stage, name) for one in work.noted]
        finished = [manifest for manifest in manifests if manifest]
        left = work.warn_of_unfinished(lambda one, stage=stage: bool(_manifest(one, layout, stage, name)))
        without = 0 if left else _left_to_do(layout, stage, name, finished[0]["settings"])
        if without:
            logger.warning(
                f"{name}: {counted(without, 'paragraph')} in no shard; to {stage} the rest, run datagen.py with the same flags without "
                "--num_shards and --shard_index"
            )
        if left or without:
            complete = False
            continue
        if stage == "translate":
            versions = sorted({manifest["translator_version"] for manifest in finished})
            result = funnel.translate_result("; ".join(versions), counts, config.args.accept_unanswered)
            if not result.get("complete", True):
                complete = False
                logger.warning(
                    f"{name}: {counted(counts['rejected'][UNANSWERED], 'sentence')} without an answer: run the shards again to ask again"
                )
        else:
            truncated = sum(manifest.get("truncated_texts", 0) for manifest in finished)
            result = ({"truncated_texts": truncated} if truncated else {}) | {"counts": counts}
        write_manifests(layout, stage, started, finished[0]["seed"], settings[stage], {name: result}, config.languages)
    logger.info(
        f"{name}: {counted(counts['pairs'], 'pair')} of {counted(counts['paragraphs'], 'paragraph')}, {counts['scored']} with a score"
    )
    for what in ("paragraphs", "pairs"):
        funnel.warn_of_none(what, [] if counts[what] else [name])
    return complete and bool(counts["paragraphs"])


def _merge_records(config, name: str, by_stage: dict[str, shards.Work], settings: dict[str, dict]) -> None:
    """Replace the files of a language in the translations' folder."""
    layout = config.layout
    noted = {one.root: one for work in by_stage.values() for one in work.noted}
    translated = {one.root for one in by_stage["translate"].noted} if "translate" in by_stage else set()
    folders = [layout.translate_dir, *(one.folder for one in noted.values())]
    scores_only = [False, *(root not in translated for root in noted)]
    layouts = [replace(layout, output_dir=folder.parent, translate_dir_name=folder.name) for folder in folders]
    staging = _staging(layout, name)
    staged = replace(layout, output_dir=staging, translates_taken=False)
    staged.translate_dir.mkdir()

    def paths_of(file: Callable[[Layout], Path]) -> list[Path]:
        return [file(one) for one in layouts]

    def read_records(path: Path) -> Iterator[Place]:
        unanswered = unanswered_ids(with_rejects[path], name)
        for offset, size, record_id, pairs in read_placed_ids(path, TranslationRecord, "sentence"):
            weight = _UNANSWERED * (record_id in unanswered) + ("scorer" not in pairs)
            yield Place(offset, size, id_key(record_id), weight)

    read_rejects = _by_id(
        TranslationRejects, lambda line: all(r["reason"] in min_score.REASONS for r in line["rejected"])
    )
    read_others = _by_id(OthersRecord)
    read_responses = _by_id(ResponseRecord, lambda line: bool(line.get("error")))
    ids = (key for key, _ in with_ids(read_jsonl(layout.paragraphs(name), ParagraphRecord), "text"))
    ranks, paths = Ranks(ids), paths_of(lambda one: one.translations(name))
    # A folder that was only scored has the pairs of the directory, and no rejects.
    translated_in = (layout if only_scored else one for one, only_scored in zip(layouts, scores_only, strict=True))
    with_rejects = dict(zip(paths, translated_in, strict=True))
    everything = ranks.of(places_in(paths, read_records))
    records = everything.first_of_each()
    _write(staged.translations(name), lines_of(paths, records))

    # What belongs to a record is that of the same shard; of one that was scored elsewhere, that of where it was translated.
    import numpy as np

    scored_by, translated_by = np.full(len(ranks), -1, np.int16), np.full(len(ranks), -1, np.int16)
    scored_by[records.key] = records.file
    origins = everything.only(~np.array(scores_only)[everything.file])
    others = (origins.file != scored_by[origins.key]).astype(np.int8)
    preferred = origins._replace(weight=origins.weight + 2 * _UNANSWERED * others).first_of_each()
    translated_by[preferred.key] = preferred.file
    for file, read in ((Layout.translation_rejects, read_rejects), (Layout.other_candidates, read_others)):
        paths = paths_of(lambda one, file=file: file(one, name))
        lines = ranks.of(places_in(paths, read))
        owner = np.where(lines.weight == 0, translated_by[lines.key], scored_by[lines.key])
        lines = lines.only(lines.file == owner)
        if any(path.exists() for path in paths):
            lines = lines._replace(key=lines.key + lines.weight.astype(np.int64) * len(ranks)).first_of_each()
            _write(file(staged, name), lines_of(paths, lines))
    paths = paths_of(lambda one: one.translation_responses(name))
    if any(path.exists() for path in paths):
        _write(staged.translation_responses(name), responses_of(paths, places_in(paths, read_responses)))

    first = "translate" if "translate" in by_stage else "score"
    for stage, values in settings.items():
        if stage == "translate" or "min_score" in values:
            record(layout, stage, values)
    _publish(staged.translate_dir, layout.translate_dir, lambda: remove_manifests(layout, first, [name]))
    shutil.rmtree(staging)


def _by_id(schema: type, weight: Callable[[dict], int] = lambda line: 0) -> Callable[[Path], Iterator[Place]]:
    """A function that gives the places of the lines of a file by their ids."""

    def read(path: Path) -> Iterator[Place]:
        for _, offset, size, line in read_whole_lines(path, schema):
            yield Place(offset, size, id_key(line["id"]), weight(line))

    return read


def _left_to_do(layout: Layout, stage: str, name: str, settings: dict) -> int:
    """How many paragraphs of a language have no record, or none that is scored."""
    if stage == "score":
        return scoring.count_unscored(layout, name, settings["scorer"])
    records = sum(1 for _ in read_jsonl(layout.translations(name), TranslationRecord))
    return sum(1 for _ in read_jsonl(layout.paragraphs(name), ParagraphRecord)) - records


def _manifest(one: shards.Noted, layout: Layout, stage: str, name: str) -> dict:
    return language_manifest(replace(layout, output_dir=one.root), stage, name)


def _settings(layout: Layout, stage: str, works: list[shards.Work]) -> dict:
    """The settings that all shards have, and the directory. Raises UsageError naming one that has others."""

    def of(one: shards.Noted, name: str) -> dict:
        path = replace(layout, output_dir=one.root).settings(stage)
        found = provenance.read_settings(path) or _manifest(one, layout, stage, name).get("settings", {})
        return {key: value for key, value in found.items() if key != shards.SETTING}

    settings: dict = {}
    for work in works:
        for one in work.noted:
            own = of(one, work.part)
            for key in settings.keys() & own.keys():
                if settings[key] != own[key]:
                    raise UsageError(
                        f"shard {one.root} has other settings ({key} is {own[key]!r}, of others {settings[key]!r}) and cannot be merged "
                        "with them: move it away, or the others"
                    )
            settings |= own
    if has_results(layout.output_dir, path := layout.settings(stage)):
        provenance.check_settings(path, settings)
    return settings


def _targets(command: list[str]) -> list[str]:
    """The words of a command that say how many paragraphs it wants."""
    found, inside = [], False
    for word in command:
        inside = word.split("=")[0] in _TARGETS if word.startswith("--") else inside
        found += [word] if inside else []
    return found


def _copy_own(layout: Layout, staged: Layout, name: str, is_ours: Callable[[str, str], bool]) -> list[tuple[str, str]]:
    """Begin a file of paragraphs with those of the directory's that came with it: (id, text) of each."""
    paragraphs = with_ids(read_jsonl(layout.paragraphs(name), ParagraphRecord), "text")
    own = [(key, record) for key, record in paragraphs if not is_ours(key, name)]
    with Appender(staged.paragraphs(name)) as out:
        out.write(*(record for _, record in own))
    return [(key, record["text"]) for key, record in own]


def _staging(layout: Layout, language: str) -> Path:
    """A new folder for the files of a merge, of which another process may do one of other languages; the language is locked."""
    folder = layout.output_dir / shards.FOLDER / f"{STAGING}-{language}"
    if folder.is_dir():  # of a merge that was killed
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _write(path: Path, lines: Iterable[bytes]) -> None:
    with replacing(path, "wb") as file:
        file.writelines(lines)


def _publish(staging: Path, folder: Path, before: Callable[[], None]) -> None:
    """Move the files of `staging` to `folder`, unless they are all there already; `before` is called first."""
    files = [path for path in sorted(staging.iterdir()) if path.is_file()]
    folder.mkdir(parents=True, exist_ok=True)
    if any(not (folder / path.name).exists() or not cmp(path, folder / path.name, shallow=False) for path in files):
        before()
        for path in files:
            checksums.drop(folder / path.name)
            os.replace(path, folder / path.name)
    shutil.rmtree(staging)
