"""Merge the shards of a run (--num_shards) into its output directory, as if one process had written it.

    python scripts/merge.py outputs/gemma
    python scripts/merge.py outputs/gemma outputs/translations
    python scripts/merge.py outputs/gemma --stages generate

Shards are not changed, and no model is loaded. What is equal to the files of one process:

- generation: paragraphs and rejects, byte for byte, up to the first prompt that no shard has answered; after it the same order
  without the missing prompts. Near-duplicates are found anew among the texts of all shards. Responses: all of them, and possibly
  more, in the order of the prompts.
- translations: the pairs in the order of the paragraphs; byte for byte those of one run if the shards translated the merged
  paragraphs (--stages translate after a merge), else with the differences that other batches can make. The same holds for scores.
- decontamination, main.py: all files, byte for byte, but for commands and times in manifests and reports, and the order of answers.

Missing and unfinished shards are listed with the command that finishes them; merge again after it, with the same result as merging
once at the end. The merged directory is an ordinary run that datagen.py can continue; so can shards, even with another --num_shards
or a larger --number_of_instructions.
"""

import argparse
import resource
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from topxgen.common import shards
from topxgen.common.cli import EXIT_INCOMPLETE, Parser, run_main
from topxgen.common.errors import UsageError
from topxgen.common.files import walk
from topxgen.common.locks import OutputLock
from topxgen.experiments.stages import STAGES

STAGES_OF_SHARDS = ("generate", "translate", "score", "decontamination", "main")


def build_parser() -> Parser:
    parser = Parser(
        __doc__,
        incomplete="shards are missing or not finished, there are fewer paragraphs than were asked for, a language has none, or texts were "
        "not checked",
    )
    # fmt: off
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR",
                        help="output directories with a folder of shards, or with directories that have one")
    parser.add_argument("--stages", nargs="+", choices=STAGES_OF_SHARDS, default=STAGES_OF_SHARDS, metavar="STAGE",
                        help=f"what to merge: {', '.join(STAGES_OF_SHARDS)} [all]")
    # fmt: on
    return parser


def whole_directories(root: Path) -> Iterator[Path]:
    """The directories at or below `root` that have shards; those in shards are not looked for."""
    for name, folders, _ in walk(root):
        if shards.FOLDER in folders:
            folders.remove(shards.FOLDER)
            if any(shards.folders(Path(name))):
                yield Path(name)
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))


def parsed(script: str, command: list[str], output_dir: Path, stages: list[str] | None = None) -> argparse.Namespace:
    """The flags of a shard's command, for the whole directory."""
    sys.argv = [f"{script}.py", *command]  # what manifests record: the command that goes on with the directory
    args = STAGES[script].parser().parse_args(command)
    args.output_dir = output_dir
    if stages is not None:
        args.stages = stages
    return args


def merge_datagen(folder: Path, works: list[shards.Work]) -> bool:
    """The works of datagen.py: paragraphs first, of the languages of one command together, as they share its numbers.

    A language that has had several commands is merged by each, in the order in which they were started: the last one counts.
    """
    from topxgen.generation.merge import merge_generation, merge_translations
    from topxgen.generation.plan import GenerationConfig

    complete = True
    generated = [work for work in works if work.stage == "generate"]
    in_order = sorted(generated, key=lambda work: (_newest(generated, work), _command(work)))
    for command, _ in groupby(in_order, _command):
        config = GenerationConfig(parsed("datagen", command, folder, ["generate"]))
        group = [work for work in generated if work.part in config.languages]
        if others := config.languages.keys() - {work.part for work in group}:
            raise UsageError(f"no shard of {folder} has begun {', '.join(sorted(others))}: run them again")
        with _locked(folder, group, config.locked_parts):
            complete &= merge_generation(config, group)

    def place(work: shards.Work) -> tuple[Path, str]:
        return work.folder, work.part

    translated = [work for work in works if work.stage != "generate"]
    for (room, _), of_place in groupby(sorted(translated, key=place), place):
        # The command of the translations says what may be unanswered.
        group = sorted(of_place, key=lambda work: work.stage != "translate")
        args = parsed("datagen", _command(group[0]), folder, [work.stage for work in group])
        args.translate_dir = room.name
        config = GenerationConfig(args)
        with _locked(folder, group, config.locked_parts):
            complete &= merge_translations(config, group)
    return complete


def merge_decontamination(folder: Path, works: list[shards.Work]) -> bool:
    from topxgen.decontamination.merge import merge_languages

    complete = True
    for command, group in groupby(sorted(works, key=_command), _command):
        of_command = list(group)
        with _locked(folder, of_command, [work.part for work in of_command]):
            complete &= merge_languages(parsed("decontamination", command, folder), of_command)
    return complete


def merge_main(folder: Path, works: list[shards.Work]) -> bool:
    from comptra.merge import merge_runs

    complete = True
    for command, group in groupby(sorted(works, key=_command), _command):
        complete &= merge_runs(parsed("main", command, folder), sys.argv, list(group))
    return complete


def _stage_of(work: shards.Work) -> str:
    return work.stage if work.script == "datagen" else work.script


def _newest(works: list[shards.Work], work: shards.Work) -> str:
    """When the last shard was started whose command is that of this work."""
    return max(other.newest.note["started"] for other in works if _command(other) == _command(work))


def _command(work: shards.Work) -> list[str]:
    """Of the whole directory."""
    return shards.without_flags(work.newest.note["command"], "--num_shards", "--shard_index")


@contextmanager
def _locked(folder: Path, works: list[shards.Work], parts: list[str]) -> Iterator[None]:
    """Keep other processes from what is merged. Raises DirectoryLocked, naming the process, while a shard is at work."""
    with ExitStack() as locks:
        for part in parts:
            locks.enter_context(OutputLock(folder, part))
        for root, part in sorted({(one.root, work.part) for work in works for one in work.noted}):
            locks.enter_context(OutputLock(root, part))
        shards.check_files(one for work in works for one in work.noted)
        yield


def merge(args: argparse.Namespace) -> int:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each shard has files and locks that are open at a time
    complete = True
    for root in args.directories:
        if not root.is_dir():
            raise UsageError(f"{root} is not a directory; pass the --output_dir of a run")
        if not (found := list(whole_directories(root))):
            raise UsageError(
                f"{root} has no {shards.FOLDER} folder with shards, as --num_shards leaves them; pass another directory"
            )
        if not any(_stage_of(work) in args.stages for folder in found for work in shards.works(folder)):
            raise UsageError(f"{root} has no shards of {', '.join(args.stages)}; pass other --stages")
        for folder in found:
            by_script: dict[str, list[shards.Work]] = {}
            for work in shards.works(folder):
                if _stage_of(work) in args.stages:
                    by_script.setdefault(work.script, []).append(work)
            for script, works in by_script.items():
                complete &= MERGES[script](folder, works)
    return 0 if complete else EXIT_INCOMPLETE


MERGES = {"datagen": merge_datagen, "decontamination": merge_decontamination, "main": merge_main}


def main() -> int:
    return run_main(build_parser(), merge, "the shards are unchanged; re-run the same command")


if __name__ == "__main__":
    sys.exit(main())
