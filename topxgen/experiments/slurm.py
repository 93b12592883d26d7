"""The jobs of a run file under SLURM: what each asks for, its script, and which of its tasks still have to run.

A stage with shards is an array, and behind it a job that merges them; each job starts when the one before has succeeded. Of
stages that are complete by their records (chain.py) there is none. A task that has succeeded leaves a mark (scripts/slurm/job.sh):
when the run is submitted again, only tasks without one run.
"""

import argparse
import copy
import hashlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from topxgen import inference
from topxgen.common import failures
from topxgen.common.errors import UsageError
from topxgen.common.files import write_atomic, write_json
from topxgen.common.lines import split_lines
from topxgen.common.provenance import now
from topxgen.common.records import back_translator_of, scorer_of, selector_of
from topxgen.common.run_files import SLURM, RunFile
from topxgen.common.shards import Shard
from topxgen.experiments import stages
from topxgen.experiments.chain import RECORDS, ROOT, STARTER, Chain, Command, same_flags
from topxgen.experiments.job_resources import NO_GPU, SHARDED, Resources, resources, seconds

JOBS = "jobs.json"
SIGNAL_EARLY_S = 60  # SLURM may send the signal that much earlier than it was asked to
LEAVE_S = 30  # of the warning, for the job to requeue itself
TEXT_METRICS = ("auto", "chrf", "bleu", "lang", "ter")  # and what begins so: comptra.evaluate needs no GPU for them
GROWING = ("self-instruct", "knn-instruct")  # pipelines whose prompts show earlier texts: they have no shards
_CLIENT = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")  # variables of SLURM that are no job's
_IGNORED = ("SBATCH_ARRAY_INX", "SBATCH_ERROR", "SBATCH_WAIT")  # what no option undoes
_UNSAFE = re.compile(r"[%\\\"'\x00-\x1f\x7f]")  # what SLURM or a quoted #SBATCH line would take for something else


class Step(NamedTuple):
    """A command for `jobs`: the folder of its record, the words that run it and leave the record, and a name before those of its jobs.

    `needs`: steps by their place in the list. `in_shards`: whether it may be an array, which runs whatever the record's command
    would say.
    """

    command: Command
    records: Path
    record: tuple[str, ...]
    prefix: str = ""
    needs: tuple[int, ...] = ()
    in_shards: bool = True


@dataclass(frozen=True)
class Job:
    """One of the chain. `lines`: the commands, in order, each with the function of job.sh that runs it.

    `shards`: the tasks of an array, 0 for a job that is none. `command` is the job's own, `step` that of which it is one, whose record
    says that all of it is complete. `needs`: the jobs before it.
    """

    name: str
    kind: str
    command: Command
    resources: Resources
    lines: tuple[tuple[str, ...], ...]
    shards: int = 0
    step: Step | None = None
    needs: tuple[str, ...] = ()

    @property
    def record(self) -> str:
        """The name of the step, by which scripts/status.py groups what has failed."""
        return self.step.prefix + self.step.command.name if self.step else self.name

    @property
    def digest(self) -> str:
        """Of what it does, for the marks of its tasks."""
        words = [*self.command.words, self.kind, str(self.shards)]
        return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


class Planned(NamedTuple):
    job: Job
    tasks: list[int]  # those that run, of an array
    reason: str


def _root(command: Command) -> Path:
    """The folder in which a stage keeps its shards."""
    return command.args.output_dir or command.args.input_dir


def model_of(kind: str, args: argparse.Namespace) -> str:
    """The model that a job of this kind loads itself, for which it may need GPUs; "" if it needs none."""
    remote = getattr(args, "inference_api", None) in inference.REMOTE
    if kind == "generate":
        return "" if remote or args.paragraphs else args.model_name_or_path or ""
    if kind == "translate":
        name = back_translator_of(vars(args))
        model = {"llm": "" if remote else args.model_name_or_path or "", "nllb": args.nllb_name_or_path}.get(name, "")
        selector = selector_of(vars(args))
        return model or ("" if selector in (None, "confidence") else selector)
    if kind == "score":
        scorer = scorer_of(vars(args))
        return "" if scorer in ("confidence", "none") else scorer
    if kind == "train":
        return args.model_name_or_path
    if kind == "main":
        return "" if remote else ", ".join(args.model_name_or_path or [args.nllb_name_or_path])
    if kind == "evaluate":
        without = (*TEXT_METRICS, "gemba") if args.judge_inference_api in inference.REMOTE else TEXT_METRICS
        return ", ".join(name for name in args.metrics or () if not name.startswith(without))
    return ""


def steps(commands: Iterable[Command], folder: Path, run: Sequence[str]) -> list[Step]:
    """Of a run, one after the other. `run`: the words of scripts/run.py with the run file, without --stages."""
    return [
        Step(one, folder, ("scripts/run.py", *run, "--stages", one.name), needs=(place - 1,) if place else ())
        for place, one in enumerate(commands)
    ]


def jobs(file: RunFile, todo: Sequence[Step], python: str) -> list[Job]:
    """All jobs of the steps, complete or not, in order.

    Raises UsageError for what `resources` raises, and for GPUs and launchers that are missing.
    """
    (asked, gres), jobs, last = resources(file), [], []
    for step in todo:
        before = tuple(last[place] for place in step.needs)
        own = asked if step.in_shards else {kind: replace(one, shards=1) for kind, one in asked.items()}
        for job in _jobs_of(step, own, python):
            model = model_of(job.kind, job.command.args)
            if model:
                job = replace(job, resources=replace(job.resources, gres=job.resources.gres or gres))
            jobs.append(replace(job, name=step.prefix + job.name, step=step, needs=before))
            _check_resources(jobs[-1], model, file.path)
            before = (jobs[-1].name,)
        last.append(jobs[-1].name)
    return jobs


def _check_resources(job: Job, model: str, file: Path) -> None:
    """Raise UsageError for what a job that loads `model` ("": none) cannot run with."""
    time, warning, nodes = job.resources.time, job.resources.warning, job.resources.nodes
    args = job.command.args
    if job.shards and job.kind == "generate" and not args.paragraphs and args.data_generation_pipeline in GROWING:
        raise UsageError(
            f"{file}, section {SLURM}: prompts of --data_generation_pipeline {args.data_generation_pipeline} show earlier texts, so that "
            "they cannot be split; set generate: {shards: 1}"
        )
    if model and job.resources.gres is None:
        raise UsageError(
            f"{file}, section {SLURM}: {job.kind} loads {model}: set its gres, such as {job.kind}: {{gres: gpu:1}}, or gres: {NO_GPU} for the CPU"
        )
    if time and seconds(time) <= warning + SIGNAL_EARLY_S:
        raise UsageError(
            f"{file}, section {SLURM}: with time {time} a job of {job.kind} gets its signal to stop as it starts, {warning} s (warning) "
            f"and up to {SIGNAL_EARLY_S} s more before its end; set a longer time"
        )
    if nodes > 1 and [Path(word).name for word in job.command.launcher[:2]] != ["accelerate", "launch"]:
        raise UsageError(
            f"{file}: {job.name} on {nodes} nodes needs launcher: [accelerate, launch, --config_file, configs/multi_node.yaml]"
        )


def _jobs_of(step: Step, asked: Mapping[str, Resources], python: str) -> Iterator[Job]:
    command, (script, *words) = step.command, step.record
    record = [python, str(ROOT / script), *words]
    if command.stage == "train":
        # Not by --set, which a variant with a launcher of its own refuses.
        starter = ("env", f"{STARTER}={ROOT / 'scripts/slurm/on_nodes.sh'}") if command.launcher else ()
        line = ("run", *starter, *record)
        yield Job(command.name, "train", command, asked["train"], (line,))
    elif command.stage == "datagen" and not step.in_shards:
        kind = next(kind for kind in SHARDED[:3] if kind in command.args.stages)
        yield Job(command.name, kind, command, asked[kind], (("stage", *record),))
    elif command.stage == "datagen":
        scored = command.args.scorer != "none"
        chosen = [kind for kind in SHARDED[:3] if kind in command.args.stages]
        kinds = [kind for kind in chosen if kind != "score" or scored] or chosen
        for kind in kinds:
            args = copy.copy(command.args)
            args.stages = [kind]
            own = replace(command, name=kind, words=(*command.words, "--stages", kind), args=args)
            yield from _sharded(own, kind, asked, python, record if kind == kinds[-1] else ())
    elif command.stage in SHARDED:
        yield from _sharded(command, command.stage, asked, python, record)
    else:
        yield Job(command.name, command.stage, command, asked[command.stage], (("stage", *record),))


def _sharded(
    command: Command, kind: str, asked: Mapping[str, Resources], python: str, record: Sequence[str]
) -> Iterator[Job]:
    """The job of a stage, or the array of its shards and the job that merges them. `record`: the command that records that all of the
    section is complete, of which the last one has."""
    needs, whole = asked[kind], [python if word == sys.executable else word for word in command.line]
    last = (("stage", *record),) if record else ()
    if needs.shards > 1:
        line = [*whole, "--num_shards", str(needs.shards), "--shard_index", TASK]
        yield Job(command.name, kind, command, needs, (("stage", *line),), needs.shards)
        merge = (python, str(ROOT / "scripts/merge.py"), str(_root(command)), "--stages", kind)
        if kind == "generate":
            # Near-duplicates of other shards' leave fewer than were asked for: one process adds the others.
            lines = (("part", *merge), ("stage", *whole), *last)
            yield Job(f"{command.name}-merge", kind, command, replace(needs, shards=1, at_once=None), lines)
        else:
            yield Job(f"{command.name}-merge", "merge", command, asked["merge"], (("stage", *merge), *last))
    else:  # what records all of a section runs it, too, but of datagen one stage only
        lines = (("stage", *whole), *last) if command.stage == "datagen" else last
        yield Job(command.name, kind, command, needs, lines)


TASK = "$SLURM_ARRAY_TASK_ID"  # the one word that the shell expands


def plan(todo: Sequence[Job], folder: Path, allow_incomplete: bool = False) -> list[Planned]:
    """The jobs that run, with their tasks; `folder` is the run's. All jobs behind one that runs do, too: their inputs change."""
    planned: list[Planned] = []
    chain_of = cache(Chain)
    first: dict[str, str] = {}  # by planned job: the one because of which it runs
    for number, job in enumerate(todo):
        tasks = list(range(job.shards))
        if behind := next((first[name] for name in job.needs if name in first), None):
            first[job.name] = behind
            planned.append(Planned(job, tasks, f"depends on {behind}"))
            continue
        chain, whole = chain_of(job.step.records), job.step.command
        stale = chain.what_changed(whole, allow_incomplete)
        if not stale:
            continue
        recorded = chain.record(whole).get("words", ())
        if not same_flags(recorded, whole.words):  # else files have changed, of which marks know nothing
            missing = _missing(job, folder)
            merge = todo[number + 1] if job.shards else None
            if not missing or (merge is not None and not _missing(merge, folder)):
                continue
            tasks = [index for index in tasks if index in missing]
        first[job.name] = job.name
        planned.append(Planned(job, tasks, stale))
    return planned


def budgets(planned: Iterable[Planned]) -> Iterator[str]:
    """A line for each array whose tasks have a budget each."""
    for job, tasks, _ in planned:
        budget = getattr(job.command.args, "budget", None)
        if budget is not None and len(tasks) > 1 and job.kind != "score":
            yield (
                f"{job.name}: --budget {budget:g} applies to each of its {len(tasks)} tasks, up to {budget * len(tasks):g} USD in all; "
                "for a limit of the run, divide it by their number"
            )


def place(folder: Path) -> Path:
    """Of the scripts of a run, their logs and marks."""
    return folder / RECORDS / "slurm"


def mark(folder: Path, job: Job) -> Path:
    """What a job leaves when it has succeeded, with its digest; a task of an array with its number behind the name."""
    return place(folder) / "done" / job.name


def _missing(job: Job, folder: Path) -> list[int]:
    """The tasks that have not left their mark, or whose results are no longer there; [0] for a job that is no array."""
    path, command = mark(folder, job), job.command
    if not job.shards:
        return [] if _is_done(path, job, command.args) else [0]
    missing = []
    for index in range(job.shards):
        args = copy.copy(command.args)
        args.output_dir = Shard(index, job.shards).folder(_root(command))
        if not _is_done(path.with_name(f"{path.name}-{index}"), job, args):
            missing.append(index)
    return missing


def _is_done(path: Path, job: Job, args: argparse.Namespace) -> bool:
    is_marked = path.is_file() and path.read_text("utf-8", "replace").strip() == job.digest
    return is_marked and stages.is_complete(job.command.stage, args)


def script(planned: Planned, folder: Path, title: str, allow_incomplete: bool = False) -> str:
    """The text of a job's script; `folder` is the run's, `title` a short name for it. Raises UsageError for paths that no script can
    have."""
    job, folder = planned.job, folder.absolute()
    options = _options(planned, folder, title)
    settings = {
        "JOB_MARK": str(mark(folder, job)),
        "JOB_DIGEST": job.digest,
        "JOB_FAILURE": f"{folder / RECORDS / failures.FOLDER}/{job.record}.{job.name}",
        "LEAVE_SECONDS": str(job.resources.warning - LEAVE_S),
        "ALLOW_INCOMPLETE": str(int(allow_incomplete)),
    }
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"# {job.name}: {''.join(c if c.isprintable() else '?' for c in planned.reason)}. scripts/slurm/submit.py writes this file anew each time it is called.",
            *(f"#SBATCH {option}" for option in options),
            *([f"# after {', '.join(job.needs)}"] if job.needs else []),
            "set -euo pipefail",
            *(f"export {name}={shlex.quote(value)}" for name, value in settings.items()),
            'export HF_HUB_OFFLINE="${HF_HUB_OFFLINE-1}"',
            f". {shlex.quote(str(ROOT / 'scripts/slurm/job.sh'))}",
            *map(_shown, job.lines),
            "finish",
            "",
        ]
    )


def _options(planned: Planned, folder: Path, title: str) -> list[str]:
    """Of sbatch, as lines of a script have them."""
    job, logs, array = planned.job, place(folder.absolute()) / "logs", ()
    for path in (Path.cwd(), logs):
        if _UNSAFE.search(str(path)):
            raise UsageError(f"{path}: SLURM does not accept this path; use one without %, quotes and backslashes")
    if job.shards:
        limit = f"%{job.resources.at_once}" if job.resources.at_once else ""
        array = (f"--array={_ranges(planned.tasks)}{limit}",)
    return [
        f"--job-name={job_name(title, job.name)}",
        f'--chdir="{Path.cwd()}"',
        f'--output="{logs}/%x-{"%A_%a" if job.shards else "%j"}.log"',
        "--open-mode=append",
        "--export=ALL",
        *array,
        *job.resources.options(),
    ]


def job_name(title: str, name: str) -> str:
    return re.sub(r"[^\w.-]", "-", f"{title}-{name}", flags=re.ASCII)


def _ranges(numbers: Sequence[int]) -> str:
    """0-3,7 for 0, 1, 2, 3, 7."""
    found = groupby(enumerate(numbers), key=lambda place: place[1] - place[0])
    runs = ([str(number) for _, number in run] for _, run in found)
    return ",".join(f"{run[0]}-{run[-1]}" if run[1:] else run[0] for run in runs)


def _shown(line: Sequence[str]) -> str:
    """A command, quoted for the shell, each flag on a line of its own."""
    text = ""
    for word in line:
        text += (" \\\n    " if word.startswith("--") else " ") + (f'"{word}"' if word == TASK else shlex.quote(word))
    return text.strip()


def queued(folder: Path) -> list[str]:
    """The jobs of a run that wait or run, as "12_3 basque-generate RUNNING", by the scripts that SLURM has of them, so that also those
    count that were submitted by hand or by another user. Raises UsageError."""
    own = place(folder).resolve()
    lines = split_lines(_call(["squeue", "--noheader", "--format=%i %j %T\t%o"]))
    jobs = ((job, Path(path).parent) for job, _, path in (line.rpartition("\t") for line in lines))
    return [job for job, path in jobs if path.parts[-2:] == own.parts[-2:] and path.resolve() == own]


def submit(planned: Sequence[Planned], folder: Path, title: str, allow_incomplete: bool) -> list[dict]:
    """Write the scripts and submit them, each to start when those that it needs have succeeded; the jobs, as jobs.json has them for people.

    Raises UsageError with what sbatch says, after cancelling what was submitted before.
    """
    done: list[dict] = []
    texts = [script(one, folder, title, allow_incomplete) for one in planned]
    (place(folder) / "logs").mkdir(parents=True, exist_ok=True)
    for one, text in zip(planned, texts, strict=True):
        path = place(folder) / f"{one.job.name}.sbatch"
        write_atomic(path, [text])
        ids = [str(job["id"]) for job in done if job["name"] in one.job.needs]
        after = [f"--dependency=afterok:{':'.join(ids)}", "--kill-on-invalid-dep=yes"] if ids else []
        try:
            # On the command line, where they come before what variables such as SBATCH_EXPORT say.
            options = [word for line in _options(one, folder, title) for word in shlex.split(line)]
            number = _job_id(_call(["sbatch", "--parsable", *options, *after, str(path.absolute())]))
        except UsageError as error:
            if done:
                _call(["scancel", *(str(job["id"]) for job in done)])
            raise UsageError(f"{path}: {error}" + "; the jobs before it are cancelled" * bool(done)) from None
        done.append({"id": number, "name": one.job.name, "tasks": one.tasks, "submitted": now()})
        write_json(place(folder) / JOBS, {"jobs": done})
    return done


def _job_id(text: str) -> int:
    """From what `sbatch --parsable` prints: 12, or 12;cluster, perhaps below lines of the site's own. Raises UsageError."""
    if found := re.findall(r"^(\d+)(?:;.*)?$", text, re.M):
        return int(found[-1])
    raise UsageError(f"sbatch printed no number of a job, but {' '.join(text.split())!r}")


def _call(line: list[str]) -> str:
    """What one of SLURM's commands prints. Raises UsageError."""
    # Those of a job from which this is called would be those of the jobs, too, such as the number of an array's task.
    inside = "SLURM_JOB_ID" in os.environ
    environment = {
        name: value
        for name, value in os.environ.items()
        if not (name in _IGNORED or (inside and name.startswith("SLURM_") and name not in _CLIENT))
    }
    try:
        result = subprocess.run(line, capture_output=True, encoding="utf-8", errors="surrogateescape", env=environment)
    except OSError as error:
        raise UsageError(
            f"cannot start {line[0]}: {error.strerror}; is this a login node of a SLURM cluster?"
        ) from None
    if result.returncode:
        raise UsageError(f"{line[0]} failed: {' '.join(result.stderr.split())}")
    return result.stdout
