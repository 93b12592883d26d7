"""Space and locks where a run writes. The probe is a file without a name: nothing is left, also if this process is killed."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from os.path import expanduser
from pathlib import Path

from topxgen.common.lines import split_lines
from topxgen.common.locks import holders, no_record_locks
from topxgen.doctor import GB, NOTE, OK, UNKNOWN, Finding, arithmetic, gb, note, ok, problem
from topxgen.doctor.situation import Situation

LOW = GB  # less than this is little, whatever is written
FULL = 10 << 20
BYTES_PER_TOKEN = 4 * 4  # of text; in the responses, the paragraphs, the pairs and the filtered pairs
# Of network file systems, by the beginning of their names: whether other machines see a lock is up to how they are mounted.
SHARED = ("nfs", "lustre", "gpfs", "beegfs", "cifs", "smb", "fuse", "ceph", "9p", "afs")
SHARED_MEMORY = Path("/dev/shm")


def existing(path: Path) -> Path:
    """The nearest folder that is there."""
    path = Path(expanduser(path)).absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def outputs(situation: Situation) -> list[Path]:
    folders = [getattr(command.args, "output_dir", None) for command in situation.commands]
    folders += [command.args.output for command in situation.stage("merge")]
    return list(dict.fromkeys(folder for folder in folders if folder is not None)) or [Path.cwd()]


def written(situation: Situation) -> dict[Path, float]:
    """Bytes that the stages are going to write by folder, at most, as far as they are known."""
    found: dict[Path, float] = {}
    for command in situation.stage("train"):
        checkpoint = situation.checkpoint(command.args.model_name_or_path)
        if checkpoint is not None and checkpoint.parameters:
            size = training_bytes(checkpoint, command.args)
            if size is not None:
                found[command.args.output_dir] = size
    for command in situation.stage("merge"):  # a copy of the model in the precision of its base
        if (base := situation.checkpoint_behind(command.args.adapter)) is not None:
            found[command.args.output] = base.file_bytes
    for command, estimate in situation.estimates:  # after training: the folder may be the same
        if (tokens := estimate.completion_tokens[1]) and (folder := getattr(command.args, "output_dir", None)):
            found[folder] = found.get(folder, 0) + tokens * BYTES_PER_TOKEN
    return found


def training_bytes(checkpoint, args) -> float | None:
    """--save_total_limit checkpoints, the best and the one that is being written, and the model at the end; None: not known."""
    kept = args.save_total_limit + 2
    if args.use_peft:
        trained = checkpoint.adapter_parameters(args.lora_r, args.target_modules)
        return trained and trained * (arithmetic.MASTER + kept * arithmetic.CHECKPOINT)
    return checkpoint.parameters * (arithmetic.WEIGHT * (kept + 1) + arithmetic.CHECKPOINT * kept)


def disk(situation: Situation) -> Iterator[Finding]:
    from huggingface_hub import constants

    needed = written(situation)
    by_device: dict[int, list[Path]] = {}
    for folder in outputs(situation):
        by_device.setdefault(existing(folder).stat().st_dev, []).append(folder)
    for place in dict.fromkeys(existing(folder) for folder in outputs(situation)):
        try:
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(b"probe")
                file.flush()
        except OSError as error:
            yield problem("output_dir", f"cannot write to {place}: {error.strerror}", "pass another --output_dir")
    unknown = [command.name for command in situation.stage("train") if command.args.output_dir not in needed]
    for first, *others in by_device.values():
        what = f"{first}" + (f" and {len(others)} more" if others else "")
        yield _space("output_dir", first, what, sum(needed.get(folder, 0) for folder in (first, *others)))
    if unknown:
        yield note("output_dir", f"{UNKNOWN}what {', '.join(unknown)} writes: the size of the model is not known here")
    places = {
        "HF_HOME": Path(constants.HF_HOME),
        "vLLM's cache": Path(os.environ.get("VLLM_CACHE_ROOT") or "~/.cache/vllm"),
        "temporary": Path(tempfile.gettempdir()),
    }
    downloads = sum(filter(None, map(situation.download_bytes, situation.assets)))
    for name, folder in places.items():
        yield _space(name, folder, str(folder), downloads if name == "HF_HOME" else 0)
    if SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(SHARED_MEMORY).free
        several = len(situation.gpus.usable) > 1
        if free < LOW and several:
            remedy = "docker run --shm-size=16g, or --ipc=host"
            yield problem("/dev/shm", f"{free / GB:.2f} GB free: processes on several GPUs exchange data there", remedy)
        else:
            yield Finding(NOTE if free < LOW else OK, "/dev/shm", f"{free / GB:,.1f} GB free")


def _space(name: str, folder: Path, what: str, needed: float = 0) -> Finding:
    place = existing(folder)
    usage, counts = shutil.disk_usage(place), os.statvfs(place)
    writes = f"; the run writes up to about {gb(needed)}" if needed else ""
    text = f"{usage.free / GB:,.1f} GB free for {what}{writes}"
    if counts.f_files and not counts.f_favail:
        return problem(
            name, f"no inodes left for {what}: no file can be made", f"remove files, or choose another folder ({name})"
        )
    if usage.free < max(needed, FULL):
        return problem(name, f"{text}: it will end with a full disk", f"make room, or choose another folder ({name})")
    if usage.free < max(2 * needed, LOW):
        return note(name, f"{text}: that is little", "make room before the run")
    return ok(name, text)


def locks(situation: Situation) -> Iterator[Finding]:
    for folder in outputs(situation):
        for holder in holders(folder):
            if holder.state != "left":
                what = f" ({holder.part})" if holder.part else ""
                text = f"{folder}{what}: by process {holder.process or '?'} on {holder.host or '?'}"
                yield note("in use", text, "wait for it or stop it: a second run is refused")
    for place in dict.fromkeys(existing(folder) for folder in outputs(situation)):
        if os.access(place, os.W_OK | os.X_OK):
            yield _lock(place)
        else:
            yield note("locks", f"{UNKNOWN}{place} cannot be written to")


def _lock(place: Path) -> Finding:
    """A record lock that another process is to be kept out by."""
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            program = f"import fcntl; fcntl.lockf({file.fileno()}, fcntl.LOCK_EX | fcntl.LOCK_NB)"
            other = subprocess.run([sys.executable, "-S", "-c", program], pass_fds=[file.fileno()], capture_output=True)
    except OSError as error:
        if no_record_locks(error):
            text = f"{place} has no POSIX record locks ({errno.errorcode.get(error.errno, error.errno)}): a file with a heartbeat keeps others out, and after a kill a minute passes before the next run may start"
            return note("locks", text)
        remedy = "pass an --output_dir on another file system"
        return problem("locks", f"{place}: a file cannot be locked ({error.strerror}): runs are refused", remedy)
    kind = filesystem(place)
    if not other.returncode:
        remedy = "run one at a time, or pass an --output_dir on another file system"
        return problem("locks", f"{place} ({kind}) grants a lock twice: two runs could write to one folder", remedy)
    if kind.startswith(SHARED):
        text = f"{place} ({kind}) has them on this machine; {UNKNOWN}whether other machines see them"
        remedy = "do not start two runs in one folder from two machines unless it is mounted with flock or global locks"
        return note("locks", text, remedy)
    return ok("locks", f"{place} ({kind or 'file system unknown'}) has POSIX record locks")


def filesystem(place: Path) -> str:
    """The type of the file system that `place` is on; "" if it is not known."""
    device, best = place.stat().st_dev, ""
    try:
        for line in split_lines(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")):
            fields, _, rest = line.partition(" - ")
            if fields.split()[2] == f"{os.major(device)}:{os.minor(device)}":
                best = rest.split()[0]
    except (OSError, IndexError):
        pass
    return best
