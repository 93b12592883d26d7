"""The GPUs of this machine, as nvidia-smi lists them: no library of CUDA is loaded, no memory of a GPU taken."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from topxgen.common.errors import UsageError, unknown_choice
from topxgen.common.lines import split_lines
from topxgen.doctor import NOTE, OK, UNKNOWN, Finding, arithmetic, note, ok, problem
from topxgen.inference.gpu_groups import listed_gpus

FIELDS = ("index", "uuid", "name", "memory.total", "memory.used", "compute_cap", "mig.mode.current", "driver_version")
QUERY = ("nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits")
PROCESSES = (
    "nvidia-smi",
    "--query-compute-apps=gpu_uuid,pid,process_name,used_memory",
    "--format=csv,noheader,nounits",
)
MIB = 1 << 20
TIMEOUT_S = 5.0
IN_USE = 1 << 30  # bytes that other processes may use without a note
AMD = Path("/dev/kfd")
NONE_THERE = "No devices were found"


@dataclass(frozen=True)
class GPU:
    """Sizes in bytes; None: not known. `users`: processes that compute on it; `mig`: it is divided into instances."""

    index: str
    uuid: str
    name: str
    memory: int | None
    used: int | None
    capability: tuple[int, int] | None
    users: tuple[str, ...] = ()
    mig: bool = False

    @property
    def answers(self) -> bool:
        return not self.name.startswith("[")  # such as [GPU is lost], in place of all that is asked for


@dataclass(frozen=True)
class GPUs:
    """`visible`: of `all`, those that CUDA_VISIBLE_DEVICES leaves; `cuda`: the newest version that the driver runs; `problem`: what is
    not known, and why; `given`: they are those of --gpu, not of this machine."""

    all: tuple[GPU, ...] = ()
    visible: tuple[GPU, ...] = ()
    driver: str = ""
    cuda: tuple[int, int] | None = None
    problem: str = ""
    given: bool = False

    @property
    def usable(self) -> tuple[GPU, ...]:
        return tuple(gpu for gpu in self.visible if gpu.answers)


def of_kind(kind: str, count: int = 1) -> GPUs:
    """`count` GPUs that another machine has: a name of arithmetic.CARDS, or their memory. Raises UsageError for what is neither."""
    name = next((name for name in arithmetic.CARDS if name.lower() == kind.replace(" ", "-").lower()), None)
    if name is not None:
        row = arithmetic.CARDS[name]
        memory, capability = row.memory * MIB, row.capability
    elif match := re.fullmatch(r"(\d+(?:\.\d+)?) ?G(i?)B?", kind, re.IGNORECASE):
        name, memory, capability = kind, int(float(match[1]) * (1 << 30 if match[2] else 10**9)), None
    else:
        raise unknown_choice("--gpu", kind, arithmetic.CARDS, ", or the memory of one, such as 24GB")
    if not memory:
        raise UsageError(f"--gpu {kind}: pass more than 0 GB")
    found = tuple(GPU(str(i), "", name, memory, None, capability) for i in range(count))
    return GPUs(found, found, given=True)


def find() -> GPUs:
    if shutil.which(QUERY[0]) is None:
        devices = list(Path("/dev").glob("nvidia[0-9]*"))
        return GPUs(problem="nvidia-smi is not there, but a device file of a GPU is" if devices else "")
    try:
        listed = _run(QUERY)
        users, header = _run(PROCESSES, check=False), _run(QUERY[:1], check=False)
    except (OSError, subprocess.SubprocessError) as error:
        said = split_lines((getattr(error, "stdout", "") or getattr(error, "stderr", "") or str(error)).strip())
        return GPUs(problem=f"nvidia-smi failed ({said[0][:200] if said else type(error).__name__})")
    return parse(listed, users, header, os.environ)


def _run(command: tuple[str, ...], check: bool = True) -> str:
    result = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", timeout=TIMEOUT_S, check=check
    )
    return result.stdout if not result.returncode else ""


def parse(listed: str, users: str = "", header: str = "", environment: Mapping[str, str] | None = None) -> GPUs:
    """What nvidia-smi's three outputs say: of QUERY, of PROCESSES, and without options."""
    by_gpu: dict[str, list[str]] = {}
    for uuid, pid, *name, _ in _rows(users, 4):  # a process's name may hold commas
        by_gpu.setdefault(uuid, []).append(f"process {pid} ({Path(', '.join(name)).name})")
    found, rows = [], list(_rows(listed, len(FIELDS)))
    for index, uuid, name, total, used, capability, mig, *_ in rows:
        cap = re.fullmatch(r"(\d+)\.(\d+)", capability)
        divided = mig == "Enabled"  # the memory that is listed is that of the whole GPU, which no process gets
        found.append(
            GPU(
                index,
                uuid,
                name,
                None if divided else _bytes(total),
                None if divided else _bytes(used),
                (int(cap[1]), int(cap[2])) if cap else None,
                tuple(by_gpu.get(uuid, ())),
                divided,
            )
        )
    other = [line.strip() for line in split_lines(listed) if line.count(",") < len(FIELDS) - 1 and line.strip()]
    problem = f"nvidia-smi says: {other[0][:200]}" if other and other[0] != NONE_THERE else ""
    cuda = re.search(r"CUDA (?:UMD )?Version:\s*(\d+)\.(\d+)", header)
    visible = _visible(found, listed_gpus(environment or {}))
    driver = rows[0][-1] if rows else ""
    return GPUs(tuple(found), tuple(visible), driver, (int(cuda[1]), int(cuda[2])) if cuda else None, problem)


def _rows(text: str, cells: int) -> Iterator[list[str]]:
    for line in split_lines(text):
        row = [cell.strip() for cell in line.split(",")]
        if len(row) >= cells:
            yield row


def _bytes(mib: str) -> int | None:
    """ "[N/A]" of MIG instances and of what shares the machine's memory is None."""
    return int(mib) * MIB if mib.isdecimal() else None


def _visible(found: list[GPU], listed: tuple[str, ...] | None) -> list[GPU]:
    """As CUDA reads the names in the variable: numbers or beginnings of UUIDs, up to the first that names none."""
    if listed is None:
        return found
    chosen: list[GPU] = []
    if len(set(listed)) < len(listed):  # as torch and CUDA take a repeated one
        return chosen
    for name in listed:
        if name.startswith("MIG-"):  # a part of a GPU, of which nvidia-smi does not list the memory
            chosen.append(GPU(name, name, "MIG instance", None, None, None))
            continue
        by_uuid = (one for one in found if name.startswith("GPU-") and one.uuid.startswith(name))
        gpu = next((one for one in found if one.index == name), next(by_uuid, None))
        if gpu is None:
            break
        chosen.append(gpu)
    return chosen


def check(situation) -> Iterator[Finding]:
    found: GPUs = situation.gpus
    if found.given:
        first = found.all[0]
        what = f"{len(found.all)} x {first.name}, {first.memory / 1e9:.1f} GB"
        yield ok("GPU", f"{what} (--gpu); those of this machine are not looked at")
        return
    if found.problem:
        yield note(
            "GPU", f"{UNKNOWN}{found.problem}", "ask whoever runs the machine; in a container, start it with the GPUs"
        )
        if not found.all:
            return
    if not found.all:
        amd = f"; {AMD} is there, but AMD's GPUs are not looked at" if AMD.exists() else ""
        remedy = "on a login node: --gpu NAME (such as H100) checks the run against the GPUs of the compute nodes"
        text = f"none of NVIDIA's{amd}: models run on the CPU, which suits small ones"
        yield note("GPU", text, remedy if situation.commands else "")
        return
    if not found.visible:
        text = f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')} hides all {len(found.all)}"
        yield problem("GPU", text, "unset CUDA_VISIBLE_DEVICES, or name GPUs by numbers from 0, each once")
    yield from map(_of_one, found.visible)
    if len(kinds := _kinds(found.visible)) > 1:
        remedy = "name GPUs of one kind in CUDA_VISIBLE_DEVICES, by UUID"
        yield note("GPU", f"{', '.join(kinds)}: memory is compared with the smallest, hours are unknown", remedy)
    elif (
        len(_kinds(found.all)) > 1
        and not {gpu.index for gpu in found.visible}.isdisjoint(listed_gpus(os.environ) or ())
        and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID"
    ):
        text = "CUDA numbers GPUs of several kinds by their speed, nvidia-smi by their slots: the jobs may get others than these"
        yield note("GPU", text, "export CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID")
    if hidden := len(found.all) - len(found.visible):
        yield note("GPU", f"{hidden} more of this machine are hidden by CUDA_VISIBLE_DEVICES")


def _kinds(gpus: Iterable[GPU]) -> list[str]:
    return list(dict.fromkeys(gpu.name for gpu in gpus if gpu.answers))


def _of_one(gpu: GPU) -> Finding:
    where = f"GPU {gpu.index}"
    if not gpu.answers:
        return problem(
            where, f"{gpu.name}: it does not answer", "leave it out with CUDA_VISIBLE_DEVICES, and have it reset"
        )
    if gpu.mig:
        remedy = "name instances of nvidia-smi -L in CUDA_VISIBLE_DEVICES; --gpu 20GB checks the run against one of that size"
        return note(where, f"{gpu.name}, MIG: a process gets one of its instances, whose memory is unknown", remedy)
    memory = "memory unknown" if gpu.memory is None else f"{gpu.memory / 1e9:.1f} GB"
    capability = "unknown" if gpu.capability is None else f"{gpu.capability[0]}.{gpu.capability[1]}"
    what = f"{gpu.name}, {memory}, capability {capability}"
    if gpu.users or (gpu.used or 0) > IN_USE:
        who = ", ".join(gpu.users) or "processes that are not shown here"
        used = "" if gpu.used is None else f"{gpu.used / 1e9:.1f} GB "
        what = f"{what}; {used}in use by {who}"
        return note(where, what, "wait for it, or choose others with CUDA_VISIBLE_DEVICES")
    return Finding(OK if gpu.memory and gpu.capability else NOTE, where, what)
