"""The shards of main.py as one run: their responses together and their lines in the order of the benchmark; the ordinary run, which
then has everything on disk, writes what is left: divisions and the manifest. No model is loaded."""

import argparse
import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from filecmp import cmp
from itertools import chain, islice, zip_longest
from pathlib import Path

from comptra.config import configurations
from comptra.ordered_jsonl import DivisionLine, read_lines
from comptra.runner import MANIFEST, SETTINGS, translate_all
from topxgen.common import checksums, provenance, shards
from topxgen.common.errors import UsageError
from topxgen.common.files import partial, read_json, read_jsonl, read_placed_jsonl, remove, replacing
from topxgen.common.locks import OutputLock
from topxgen.common.merging import Place, id_key, places_in, responses_of
from topxgen.common.translation_folders import RESPONSES
from topxgen.inference.response_cache import ResponseRecord

logger = logging.getLogger(__name__)
LINES = "translate_0.jsonl"


def merge_runs(args: argparse.Namespace, command: list[str], works: list[shards.Work]) -> bool:
    """Merge the runs of one command, one for each model and direction; whether all their shards are finished, else nothing is done.

    `args`: the flags of the command for the whole directory. Raises UsageError if shards have different settings.
    """
    if sum(work.warn_of_unfinished(_is_finished) for work in works):
        return False
    configs = configurations(args)
    sources = {config.folder(model): config.test_set.sources for config in configs for model in configs[0].models}
    if others := sorted(sources.keys() - {args.output_dir / work.folder for work in works}):
        logger.warning(f"no shard has started {', '.join(map(str, others))}: run the shards again")
        return False
    for work in works:
        folder = args.output_dir / work.folder
        of_shards = [one for _, one in work.split() if one is not None]
        settings = _check_settings(folder, of_shards)
        with ExitStack() as locks:
            for path in (folder, *(one.folder for one in of_shards)):
                locks.enter_context(OutputLock(path))
            shards.check_files(of_shards)
            if work.warn_of_unfinished(lambda one, folder=folder: _is_whole(one, sources[folder])):
                return False
            own = folder / LINES
            # Lines of more or other sentences are refused, and those of another program: they would be lost.
            if read_lines(own, sources[folder], "translation") and not (folder / SETTINGS).is_file():
                raise UsageError(f"{own} has lines of another program, which the shards' would replace: move it away")
            provenance.record_settings(folder / SETTINGS, settings)
            _merge_files(folder, [one.folder for one in of_shards], steps=args.steps)
            shards.write_merged(args.output_dir, [work])
    return translate_all(configs, command) == 0


def _is_finished(one: shards.Noted) -> bool:
    manifest = read_json(one.folder / MANIFEST)
    return bool(manifest) and not manifest.get("unanswered_prompts")


def _is_whole(one: shards.Noted, sources: list[str]) -> bool:
    """Whether it has a line for each of its sentences. Raises UsageError for lines of others, as with a larger --max_samples."""
    own = sources[one.shard.index :: one.shard.count]
    return len(read_lines(one.folder / LINES, own, "translation")) == len(own)


def _check_settings(folder: Path, of_shards: list[shards.Noted]) -> dict:
    """The settings that all shards have. Raises UsageError."""
    every = [provenance.read_settings(one.folder / SETTINGS) for one in of_shards]
    common = [{key: value for key, value in settings.items() if key != shards.SETTING} for settings in every]
    for one, settings in zip(of_shards, common, strict=True):
        if differing := [key for key in settings | common[0] if settings.get(key) != common[0].get(key)]:
            raise UsageError(
                f"shard {one.folder} has other settings than {of_shards[0].folder} ({', '.join(differing)}) and cannot be merged with "
                "it: move one of them away"
            )
    if (folder / LINES).exists():
        provenance.check_settings(folder / SETTINGS, common[0])
    return common[0]


def _merge_files(folder: Path, of_shards: list[Path], steps: int) -> None:
    """Responses; and the lines of sentences and phrases. Without a shard's divisions, the run makes those again from the responses."""

    def read(path: Path) -> Iterator[Place]:
        for _, offset, size, record in read_placed_jsonl(path, ResponseRecord):
            yield Place(offset, size, id_key(record["id"]), bool(record.get("error")))

    paths = [folder / RESPONSES, *(shard / RESPONSES for shard in of_shards)]
    if any(path.exists() for path in paths):
        _replace(folder, RESPONSES, responses_of(paths, places_in(paths, read)))
    sizes = [_lines_of_sentences(shard, steps) for shard in of_shards]
    if None in sizes:
        return
    patterns = ("translate_*.jsonl", "draft_*.jsonl")
    names = {path.name for shard in of_shards for pattern in patterns for path in shard.glob(pattern)}
    for name in sorted(names):
        level = int(name.removesuffix(".jsonl").split("_")[1])
        paths = [shard / name for shard in of_shards]
        if all(path.exists() for path in paths):
            with ExitStack() as stack:
                files = [stack.enter_context(open(path, "rb")) for path in paths]
                rows = zip_longest(*(of_shard[level] for of_shard in sizes), fillvalue=0)  # a sentence of each shard
                parts = (islice(*part) for row in rows for part in zip(files, row, strict=True))
                _replace(folder, name, chain.from_iterable(parts))


def _lines_of_sentences(shard: Path, steps: int) -> list[list[int]] | None:
    """For each level, how many lines each sentence of a shard has there; None if no divisions are those of its phrases."""
    for room in (shard.parent, *sorted(shard.parent.glob("divisions_*"))):
        levels = [[1] * len(list(read_jsonl(shard / LINES)))]
        for r in range(1, steps + 1):
            divided = islice(read_jsonl(room / f"divide_{r}.jsonl", DivisionLine), sum(levels[-1]))
            parts = [line["propositions"] or [] for line in divided]
            translated = (line["sentence"] for line in read_jsonl(shard / f"translate_{r}.jsonl"))
            if [phrase for own in parts for phrase in own] != list(translated):
                break
            counts = map(len, parts)
            levels.append([sum(islice(counts, size)) for size in levels[-1]])
        else:
            return levels
    return None


def _replace(folder: Path, name: str, lines: Iterable[bytes]) -> None:
    """Write a file, and remove the manifest first if that changes it."""
    path = folder / name
    new = partial(path).with_suffix(".merged")
    with replacing(new, "wb") as file:
        file.writelines(lines)
    try:
        if not path.exists() or not cmp(new, path, shallow=False):
            remove(folder / MANIFEST)
            checksums.drop(path)
            new.replace(path)
    finally:
        new.unlink(missing_ok=True)
