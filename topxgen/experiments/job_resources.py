"""What jobs of a run file request of SLURM: its section `slurm`, checked."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from topxgen.common.errors import UsageError, did_you_mean
from topxgen.common.run_files import SLURM, RunFile, Value
from topxgen.common.shards import MAX_SHARDS

# What has resources of its own: the stages of datagen.py, the others of a run file, and what makes one run of shards.
KINDS = ("generate", "translate", "score", "decontamination", "train", "main", "evaluate", "merge")
SHARDED = ("generate", "translate", "score", "decontamination", "main")
NO_GPU = "none"


@dataclass(frozen=True)
class Resources:
    """What a job asks for; `shards`, and `at_once` of them; `warning`: seconds between SIGUSR1 and the time limit."""

    shards: int = 1
    at_once: int | None = None
    nodes: int = 1
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gres: str | None = None
    cpus: int = 8
    mem: str | None = None
    time: str | None = None
    warning: int = 120
    extra: tuple[str, ...] = ()

    def options(self) -> Iterator[str]:
        yield from ("--requeue", f"--signal=B:USR1@{self.warning}", f"--nodes={self.nodes}", "--ntasks-per-node=1")
        yield f"--cpus-per-task={self.cpus}"
        for name in ("partition", "account", "qos", "gres", "mem", "time"):
            value = getattr(self, name)
            if value not in (None, NO_GPU):
                yield f"--{name}={value}"
        yield from self.extra


# Options of sbatch that a chain of jobs depends on: another value would break it, or be ignored.
OWN_OPTIONS = (
    "array", "chdir", "dependency", "error", "job-name", "no-requeue", "nodes", "ntasks", "ntasks-per-node", "output", "requeue", "signal", "wrap",
)  # fmt: skip
KEYS = tuple(field.name for field in fields(Resources))
_DEFAULTS = {
    "decontamination": Resources(cpus=16),
    "train": Resources(cpus=32, warning=600),  # to finish a step and save
    "merge": Resources(cpus=4),
}
_NUMBERS = {
    "shards": (1, MAX_SHARDS),
    "at_once": (1, MAX_SHARDS),
    "nodes": (1, 10_000),
    "cpus": (1, 4096),
    "warning": (60, 65_535),
}
_PATTERNS = {
    **dict.fromkeys(("partition", "account", "qos"), (re.compile(r"[\w.,@+-]+"), "a name")),
    "gres": (re.compile(r"none|[\w.:,=()-]+"), "as SLURM has it, such as gpu:1 or gpu:a100:4, or none"),
    "mem": (re.compile(r"\d+[KMGT]?"), "a size, such as 64G"),
    "time": (re.compile(r"(\d+-)?\d+(:\d\d){0,2}"), "a time as SLURM has it, such as 20:00:00 or 2-00:00:00"),
}  # fmt: skip


def resources(file: RunFile) -> tuple[dict[str, Resources], str | None]:
    """What each kind of job asks for: defaults, then the section `slurm`, then the mapping in it of that kind; and `gres` at the top
    of the section, which is for jobs that load a model. Raises UsageError."""
    section = file.shared_value(SLURM) or {}
    where = f"{file.path}, section {SLURM}"
    if not isinstance(section, dict):
        raise UsageError(f"{where} is not a mapping; write what jobs request, such as {{partition: gpu, gres: gpu:1}}")
    for kind in KINDS:
        if not isinstance(section.get(kind), dict | None):
            raise UsageError(f"{where}: {kind} is not a mapping, such as {{gres: gpu:1, time: 10:00:00}}")
    shared = _checked({name: value for name, value in section.items() if name not in KINDS}, where, (*KEYS, *KINDS))
    gres, by_stage = shared.pop("gres", None), {}
    for kind in KINDS:
        own = _checked(section.get(kind) or {}, f"{where}, {kind}", KEYS)
        if kind not in SHARDED and "shards" in own:
            raise UsageError(f"{where}, {kind}: it has no shards; those that have are {', '.join(SHARDED)}")
        if kind != "train" and own.get("nodes", 1) > 1:
            raise UsageError(f"{where}, {kind}: only train runs on several nodes; others have shards")
        others = ("nodes",) * (kind != "train") + ("shards", "at_once") * (kind not in SHARDED)
        values = {name: value for name, value in shared.items() if name not in others} | own
        by_stage[kind] = replace(_DEFAULTS.get(kind, Resources()), **values)
    return by_stage, gres


def training_nodes(file: RunFile) -> tuple[int, int | None]:
    """How many nodes train together, and if they are several, how many GPUs each has. Raises UsageError."""
    by_stage, gres = resources(file)
    train = by_stage["train"]
    listed = re.findall(r"(?:^|,)gpu(?::[^:,]*)??:(\d+)(?=[(,]|$)", train.gres or gres or "")  # several kinds, too
    return train.nodes, sum(map(int, listed)) if listed and train.nodes > 1 else None


def seconds(time: str) -> int:
    """Of a time as SLURM has it: minutes, minutes:seconds, hours:minutes:seconds, or days-hours and so on."""
    days, _, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    without_days = {1: (0, *parts, 0), 2: (0, *parts), 3: parts}
    hours, minutes, seconds = (*parts, 0, 0)[:3] if days else without_days[len(parts)]
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds


def _is_quoted(line: str) -> bool:
    """Whether each quote has another one that ends it."""
    try:
        return bool(shlex.split(line))
    except ValueError:
        return False


def _checked(values: Mapping[str, Value], where: str, known: Sequence[str]) -> dict:
    """The values of Resources by name. Raises UsageError."""
    checked = {}
    for name, value in values.items():
        if name not in known:
            raise UsageError(f"{where}: unknown key {name}{did_you_mean(name, known)}; choose from {', '.join(known)}")
        if value is None:
            continue
        if name in _NUMBERS:
            low, high = _NUMBERS[name]
            if not (isinstance(value, str) and re.fullmatch(r"\d{1,6}", value) and low <= int(value) <= high):
                raise UsageError(f"{where}: {name} is {value}, not a whole number from {low} to {high}")
            checked[name] = int(value)
        elif name == "extra":
            lines = value if isinstance(value, list) else [value]
            for line in lines:
                given = re.findall(r"(?<!\S)--([\w-]+)", str(line))  # sbatch takes the beginning of a name, too
                if own := [option for option in OWN_OPTIONS if any(map(option.startswith, given))]:
                    raise UsageError(f"{where}: extra has {line!r}, but --{own[0]} is set for each job; remove it")
                if not (
                    isinstance(line, str)
                    and re.match(r"--(?!.*\s-\w)", line)
                    and line.isprintable()
                    and _is_quoted(line)
                ):
                    raise UsageError(
                        f"{where}: extra has {line!r}; write options of sbatch, such as [--constraint=a100]"
                    )
            checked[name] = tuple(map(str, lines))
        else:
            pattern, meant = _PATTERNS[name]
            if not (isinstance(value, str) and pattern.fullmatch(value) and not value.startswith("-")):
                raise UsageError(f"{where}: {name} is {value}, not {meant}")
            checked[name] = str(value)
    return checked
