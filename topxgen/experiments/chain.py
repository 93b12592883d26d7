"""The commands of a run file, and running those whose results are not there yet."""

import argparse
import fcntl
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Required

import msgspec

from topxgen import inference
from topxgen.common import checksums, failures, flag_rules, provenance, signals
from topxgen.common.cli import EXIT_INCOMPLETE, FLAG
from topxgen.common.errors import UsageError, unknown_choice
from topxgen.common.files import read_json, remove, write_json
from topxgen.common.lineage import GENERATED
from topxgen.common.records import FilteredLayout, default_translate_dir, translations_name
from topxgen.common.run_files import LAUNCHER, SECTIONS, RunFile
from topxgen.common.schemas import fields
from topxgen.experiments import stages
from topxgen.inference import adapters
from topxgen.text import languages

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]
RECORDS = "run"  # the folder of the records, in the run's
STARTER = "TOPXGEN_STARTER"  # the environment variable with a bash script that starts launchers, on all nodes of a job
SIGNALLED = 128  # and the number of the signal that has ended a stage, as shells have it
WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
REMEDY = "remove it: the stage runs again"  # for a record that cannot be read
Count = Annotated[int, msgspec.Meta(ge=0)]


# A file as it was, with a digest of its content.
File = fields(size=Required[Count], modified_ns=Required[Count], sha256=Required[str])
Files = dict[str, File]  # by path
# run/{name}.json: a stage that has finished.
Record = fields(
    words=Required[list[str]], launcher=list[str], inputs=Required[Files], outputs=Required[Files], exit_code=Required[int],
    started=str, finished=str, hours=float,
)  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A stage with its flags. `name` is the stage's, with a number if it has several entries (main-1)."""

    stage: str
    name: str
    words: tuple[str, ...]  # of the command line, behind the script
    args: argparse.Namespace
    launcher: tuple[str, ...] = ()

    @property
    def line(self) -> list[str]:
        """The whole command, as subprocess takes it."""
        script = stages.STAGES[self.stage].script
        script = script if script[0] == "-m" else (str(ROOT / script[0]),)
        return [*(self.launcher or [sys.executable]), *script, *self.words]

    def inputs(self) -> list[Path]:
        """The files that it reads, as far as its words name them; those of the launcher say how many processes share a batch."""
        configs = (path for path in _configs(self.launcher) if path.is_file())
        return sorted({*stages.inputs(self.stage, self.args), *configs})

    def shown(self) -> str:
        """The command as it can be pasted into a shell."""
        return shlex.join(os.path.relpath(word) if word.startswith(f"{Path.cwd()}/") else word for word in self.line)


def _configs(launcher: Sequence[str]) -> list[Path]:
    """The files that a launcher's words name, also as --config_file=FILE."""
    words = (word.rpartition("=")[2] if word.startswith("--") else word for word in launcher)
    return [Path(word) for word in words if word.endswith((".yaml", ".yml", ".json"))]


def add_flags(parser: argparse.ArgumentParser, verb: str) -> None:
    """The run file, and which of its stages with which other values."""
    parser.add_argument("file", type=Path, metavar="RUN.yaml", help="a file with a section for each stage")
    parser.add_argument("--stages", nargs="+", default=[], metavar="STAGE",
                        help=f"which stages to {verb}: {', '.join(SECTIONS)}; train-2 is the second entry of train [all that the file has]")  # fmt: skip
    add_set_flag(parser)


def add_set_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE",
                        help="values instead of the file's: name=value for a key at the top, section.flag=value for a flag; null: not given")  # fmt: skip


def same_flags(words: Sequence[str], others: Sequence[str]) -> bool:
    """Whether two command lines have the same flags with the same values, in whatever order a file gives them."""

    def flags(line: Sequence[str]) -> list[list[str]]:
        found: list[list[str]] = [[]]  # positional arguments come first
        for word in line:
            if word.startswith("--"):
                found.append([])
            found[-1].append(word)
        return [found[0], *sorted(found[1:])]

    return flags(words) == flags(others)


def stops(code: int, allow_incomplete: bool) -> bool:
    """Whether a run ends at a command with this exit code."""
    return code != 0 and not (code == EXIT_INCOMPLETE and allow_incomplete)


def add_running_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--allow_incomplete", **FLAG, help="go on after a stage that finished with exit code 3")
    parser.add_argument("--dry_run", **FLAG, help="show each command, and whether and why it would run; run nothing")


# Flags of the folders of other stages, of models, which may be Hub ids, and of what stages write.
READ_FOLDERS = ("input_dir", "data_dir", "dirs", "baseline")
MODELS = (
    "model_name_or_path",
    "adapter_name_or_path",
    "base_model_name_or_path",
    "nllb_name_or_path",
    "tokenizer_name_or_path",
)
WRITTEN_FOLDERS = ("output_dir", "export_dir", "input_dir", "output")


def flags_by_section() -> dict[str, list[str]]:
    return {section: list(stages.STAGES[section].parser().flags()) for section in SECTIONS}


def folder_of(file: RunFile) -> Path:
    """The folder of a run. Raises UsageError if the file does not name it."""
    folder = file.shared_value("output_dir")
    if not isinstance(folder, str) or not folder:
        raise UsageError(f"{file.path} needs output_dir at the top: the folder of the run")
    return Path(folder)


def commands(file: RunFile, chosen: Collection[str] = (), unused_is_error: bool = True) -> list[Command]:
    """The commands of the stages of a run file that are `chosen` (all that it has, if none is; train-2 is one entry of train), in order; the flags of all stages
    are checked, and unless `unused_is_error` is false also that something uses each value at the top.

    Raises UsageError for what RunFile and its values raise; what argparse refuses ends the program with its line.
    """
    folder, found = folder_of(file), []
    parsers = {section: stages.STAGES[section].parser() for section in SECTIONS}
    flags = {flag for parser in parsers.values() for flag in parser.flags()}
    if unused_is_error:  # before stages miss what a misspelt section has
        file.check_shared(flags, mappings=True)
    for section, parser in parsers.items():
        parser.prog = Path(sys.argv[0]).name
        for number, values in enumerate(file.stage(section, parser.flags())):
            where = file.where(section, number)
            launcher = values.pop(LAUNCHER, None) or []
            if not (isinstance(launcher, list) and all(isinstance(word, str) and word for word in launcher)):
                raise UsageError(f"{where}: {LAUNCHER} is not a list of words, such as [accelerate, launch]")
            config = provenance.values_of_flag(launcher, "--config_file")  # other files may be what a profiler writes
            if config and not Path(config[0]).is_file():
                raise UsageError(f"{where}: {LAUNCHER} names {config[0]}, which does not exist")
            args, words = parser.parse_with([], values, where)
            try:
                parser.check(args)
                flag_rules.check(parser.rules, args, quiet=True)
                stages.check(args, folder)
                if check_early := stages.STAGES[section].function("check_early"):
                    check_early(args)
            except UsageError as error:
                raise UsageError(f"{where}: {error}") from None
            name = f"{section}-{number + 1}" if file.is_list(section) else section
            found.append(Command(section, name, tuple(words), args, tuple(launcher)))
    if unused_is_error:
        file.check_shared(flags)
    names = [*file.sections, *(command.name for command in found if command.name != command.stage)]
    for name in chosen:
        if name not in names:
            raise unknown_choice("--stages", name, names)
    trained = [stages.real(command.args.output_dir) for command in found if command.stage == "train"]
    if len(set(trained)) < len(trained):
        raise UsageError(f"{file.path}: two entries of train have the same output_dir; give each one of its own")
    mains = [command for command in found if command.stage == "main"]
    _check_translations(mains, file)
    _check_models(mains, [command for command in found if command.stage == "train"], file)
    _check_languages(found, file)
    return [command for command in found if not chosen or {command.stage, command.name} & {*chosen}]


def _check_translations(found: Iterable[Command], file: RunFile) -> None:
    """Raise UsageError for two entries of main that would write to one folder: other test sets, say."""
    names: dict[Path, str] = {}
    for command in found:
        for pattern in stages.translation_folders(command.args):
            other = names.setdefault(stages.real(command.args.output_dir) / pattern, command.name)
            if other != command.name:
                raise UsageError(
                    f"{file.path}: {other} and {command.name} have the same folder for their translations; give one of them a "
                    "metadata_dir, the name of a folder of its own"
                )


def _check_models(mains: Iterable[Command], trains: Iterable[Command], file: RunFile) -> None:
    """Raise UsageError for an entry of main that could not load what is to be trained, or a model that is there: an encoder-decoder, an adapter
    of a rank above its lora_rank, or with DoRA for vLLM."""
    trained = {stages.real(command.args.output_dir): command for command in trains}
    for command in mains:
        if command.args.inference_api in inference.REMOTE:  # names that mean something to the server
            continue
        for name in command.args.model_name_or_path or ():
            path = stages.real(name)
            made_by = trained.get(path) or trained.get(path.parent)  # checkpoint-N
            base = Path(made_by.args.model_name_or_path) if made_by else path
            is_nllb = command.args.method_translate == "nllb" and name == command.args.nllb_name_or_path
            if not is_nllb and _settings(read_json, base / "config.json").get("is_encoder_decoder"):
                raise UsageError(
                    f"{file.path}: {base} is an encoder-decoder model, so that {name} is no model_name_or_path of {command.name}: give "
                    f"{command.name} method_translate: nllb and nllb_name_or_path: {name}"
                )
            if made_by is None:
                try:
                    adapters.check_rank(name, _settings(adapters.read_adapter, path), command.args.lora_rank)
                except UsageError as error:
                    raise UsageError(f"{file.path}: {command.name}: {error}") from None
            elif made_by.args.use_peft:
                _check_trained_adapter(name, made_by, command, file)


def _check_trained_adapter(name: str, made_by: Command, command: Command, file: RunFile) -> None:
    if made_by.args.lora_r > command.args.lora_rank:
        raise UsageError(
            f"{file.path}: lora_rank {command.args.lora_rank} of {command.name} is less than lora_r {made_by.args.lora_r} of "
            f"{made_by.name}, which makes {name}: give {command.name} lora_rank: {made_by.args.lora_r}"
        )
    if made_by.args.use_dora and command.args.inference_api == "vllm":
        raise UsageError(
            f"{file.path}: vLLM does not support DoRA (use_dora), by which {made_by.name} makes {name}: give {command.name} "
            "inference_api: hf"
        )


def _settings(read: Callable[[Path], dict], path: Path) -> dict:
    """{} for those that are not there or damaged, which doctor.py, prefetch.py and the stage itself report."""
    try:
        return read(path)
    except UsageError:
        return {}


def _check_languages(found: Iterable[Command], file: RunFile) -> None:
    """Raise UsageError for a language of decontamination or train of which the stages before make no pairs, where the others are, and none are there."""
    raw, filtered = translations_name(""), FilteredLayout(Path()).filtered("").name
    made: dict[tuple[Path, str], set[str]] = {}  # by folder and end of the files' names
    for command in found:
        args = command.args
        flag = "target_languages" if command.stage == "train" else "languages"
        names = {languages.find(name, args.languages_file).name for name in getattr(args, flag, None) or ()}
        reads, writes = [], None
        if command.stage == "datagen":
            writes = args.output_dir / (args.translate_dir or default_translate_dir(vars(args))), raw
        elif command.stage == "decontamination":
            reads, writes = [(args.input_dir, raw)], (args.output_dir or args.input_dir, filtered)
        elif command.stage == "train" and args.dataset_name_or_path in GENERATED:
            reads = [(folder, filtered) for folder in args.data_dir]
        for folder, end in reads:
            there = made.get((stages.real(folder), end)) or names
            for name in sorted(names - there):
                if not (folder / f"{name}{end}").is_file():
                    raise UsageError(
                        f"{file.path}: {command.name} has {flag} {name!r}, of which no stage before it makes pairs (they make "
                        f"{', '.join(sorted(there))}), and there is no {folder / f'{name}{end}'}: add it there, or remove it here"
                    )
        if writes and names and not getattr(args, "audit", False):
            made.setdefault((stages.real(writes[0]), writes[1]), set()).update(names)


def check_folders(found: Iterable[Command]) -> None:
    """Raise UsageError for a folder that a command reads, which is not there and which no command before it writes to."""
    written: list[Path] = []
    for command in found:
        flags = vars(command.args)
        is_remote = flags.get("inference_api") in inference.REMOTE
        for flag in READ_FOLDERS if is_remote else (*READ_FOLDERS, *MODELS):
            value = flags.get(flag) or ()
            for name in value if isinstance(value, list | tuple) else [value]:
                path = stages.real(name)
                may_be_hub_id = flag in MODELS and not str(name).startswith((".", "/"))
                if not (
                    may_be_hub_id
                    or os.path.lexists(name)
                    or any(path in (one, *one.parents) or one in path.parents for one in written)
                ):
                    raise UsageError(
                        f"{command.name}: {flag} {name} does not exist, and no stage before it writes to it"
                    )
        written += [stages.real(flags[flag]) for flag in WRITTEN_FOLDERS if flags.get(flag)]


class Chain:
    """The records of a run's folder: which commands are complete, and running the others."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._digests: dict[tuple[str, int, int], str] = {}
        for path in sorted((folder / RECORDS).glob("*.json")):
            record = read_json(path, Record, REMEDY)
            for kind in ("inputs", "outputs"):
                for name, file in record.get(kind, {}).items():
                    self._digests[name, file["size"], file["modified_ns"]] = file["sha256"]

    def record_path(self, command: Command) -> Path:
        return self.folder / RECORDS / f"{command.name}.json"

    def record(self, command: Command) -> Record | dict:
        """{} if it has not finished yet."""
        return read_json(self.record_path(command), Record, REMEDY)

    def reason_to_run(self, command: Command, allow_incomplete: bool = False) -> str:
        """Why a command has to run; "" if it is complete, or may stay as it is."""
        if stages.STAGES[command.stage].always:
            return "its result is what it prints"
        return self.what_changed(command, allow_incomplete)

    def what_changed(self, command: Command, allow_incomplete: bool = False) -> str:
        """Why what a command has left is not its result; "" if it is."""
        record = self.record(command)
        if not record:
            return "not run yet"
        if not same_flags(record["words"], command.words):
            return "its flags have changed"
        if record.get("launcher", []) != [*command.launcher]:
            return "its launcher has changed"
        if record["exit_code"] and not allow_incomplete:
            return f"it ended with exit code {record['exit_code']}"
        if changed := self._changed(record["inputs"], command.inputs()):
            return changed
        if changed := self._changed(record["outputs"], map(Path, record["outputs"])):
            return f"its result {changed}"
        return ""

    def state(self, command: Command) -> str:
        """What would be done and why, and the command."""
        reason = self.reason_to_run(command)
        return f"{command.name}: {f'will run ({reason})' if reason else 'complete'}\n{command.shown()}"

    def check_results(self, command: Command) -> None:
        """Raise UsageError for a command that has to run, and will refuse what other flags have left in its folder."""
        check = stages.STAGES[command.stage].function("check_results")
        if check is not None and self.reason_to_run(command):
            try:
                check(command.args)
            except UsageError as error:
                raise UsageError(f"{command.name}: {error}") from None

    def complete(self, command: Command, title: str, allow_incomplete: bool) -> int:
        """Run a command unless it is complete; its exit code."""
        reason = self.reason_to_run(command)
        if not reason:
            logger.info(f"{title}: complete")
            return 0
        logger.info(f"{title}: {reason}\n{command.shown()}")
        code = self.run(command)
        # All else the stage itself has said.
        if code == EXIT_INCOMPLETE and not allow_incomplete:
            logger.error(
                f"{command.name} finished, but incomplete: run the same command again to retry, or pass --allow_incomplete"
            )
        elif code > SIGNALLED and code - SIGNALLED not in (signal.SIGINT, signal.SIGTERM):
            logger.error(f"{command.name} was ended by signal {code - SIGNALLED}; run the same command again to resume")
        return code

    def run(self, command: Command) -> int:
        """Run a command and record what it read and wrote; its exit code."""
        read, started = self.digests(command.inputs()), provenance.now()
        began = time.monotonic()
        self.record_path(command).parent.mkdir(parents=True, exist_ok=True)
        before = {} if self.what_changed(command) else self.record(command)
        if not before:
            remove(self.record_path(command))
        failures.clear(self.folder / RECORDS, command.name)
        failure = failures.given() or self.folder / RECORDS / failures.FOLDER / f"{command.name}.json"
        with _alone(self.folder / RECORDS) as descriptors:
            starter = os.environ.get(STARTER) if command.launcher else None
            code = _run([*(("bash", starter) if starter else ()), *command.line], descriptors, failure)
        if code not in failures.NO_FAILURE:
            failures.write(failure, code, error=f"ended by signal {code - SIGNALLED}" if code > SIGNALLED else "")
        if code in (0, EXIT_INCOMPLETE):
            record: Record = {
                "words": list(command.words),
                **({"launcher": list(command.launcher)} if command.launcher else {}),
                "inputs": read,
                "outputs": self.digests(stages.outputs(command.stage, command.args)),
                "exit_code": code,
                "started": started,
                "finished": provenance.now(),
                "hours": round((time.monotonic() - began) / 3600, 5),
            }
            if before | {name: record[name] for name in ("words", "started", "finished", "hours")} != record:
                write_json(self.record_path(command), record)
            checksums.claim_file(self.record_path(command))
        elif before:
            remove(self.record_path(command))
        return code

    def digests(self, paths: Iterable[Path]) -> Files:
        found = {}
        for path in paths:
            stat = path.stat()
            key = str(path), stat.st_size, stat.st_mtime_ns
            if key not in self._digests:
                of_file = provenance.weights_id(path) if path.suffix in WEIGHTS else checksums.sha256_of(path)
                self._digests[key] = of_file[:16]
            found[str(path)] = {"size": key[1], "modified_ns": key[2], "sha256": self._digests[key]}
        return found

    def _changed(self, recorded: Files, paths: Iterable[Path]) -> str:
        """The first file that differs from the recorded ones, and how; "" if none does."""
        paths = list(paths)
        now = self.digests(path for path in paths if path.is_file())
        for name in sorted({*now, *recorded}):
            if name not in recorded:
                return f"{name} is new"
            if name not in now:
                return f"{name} is {'no longer read' if Path(name).is_file() else 'gone'}"
            if now[name]["sha256"] != recorded[name]["sha256"]:
                return f"{name} has changed"
        return ""


@contextmanager
def _alone(folder: Path) -> Iterator[list[int]]:
    """Wait until no stage of an earlier run that was killed is at work; the descriptors by which a stage shows that it is.

    A lock of the open file, which a process keeps until it and all that it forked have ended. File systems that have none
    leave it to the stage's own lock.
    """
    descriptor = os.open(folder / ".running", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for a stage that a killed run left running")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            logger.debug("no lock: %s", error)
        yield [descriptor]
    finally:
        os.close(descriptor)


def _run(line: list[str], descriptors: list[int], failure: Path) -> int:
    """Run a command whose output goes where ours goes; its exit code. Signals that end us end it first.

    It is in a process group of its own, so that Ctrl-C in a terminal reaches it once: through us.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, signals.PARENT: str(os.getpid())}
    environment[failures.VARIABLE] = str(failure.absolute())
    sys.stdout.flush()
    try:
        with signals.finishing():
            process = subprocess.Popen(line, env=environment, process_group=0, pass_fds=descriptors)
    except OSError as error:
        raise UsageError(f"cannot start {line[0]}: {error.strerror}; is it installed?") from None
    interruption = None
    while True:
        try:
            # A training takes the time it needs to save.
            with signals.finishing(limited=False) if interruption is not None else nullcontext():
                code = process.wait()
            break
        except KeyboardInterrupt as error:
            interruption = interruption or error
            process.send_signal(signal.SIGTERM if isinstance(error, signals.Stopped) else signal.SIGINT)
    if interruption is not None:
        raise interruption
    return SIGNALLED - code if code < 0 else code
