"""A SLURM of one's own: munged, slurmctld and slurmd as processes of this one, with all of their files in one folder.

    with Cluster(folder, nodes=2, cpus=4) as slurm:
        slurm.call("sbatch", "--wrap", "hostname", "--output", "/tmp/out.log")

Nodes have more CPUs than the machine. Needs Debian's slurmctld, slurmd, slurm-client and munge, and root.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.support.runs import in_process
from topxgen.experiments.slurm import Command, Step

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "setpriv")
# Requeued jobs start again after cred_expire seconds; the scheduler looks every few seconds instead of every minute.
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=6
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldDebug=info
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=100000
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.log
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=5
InactiveLimit=0
MessageTimeout=90
MinJobAge=3600
UnkillableStepTimeout=20
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no cluster here; "" if there can."""
    if absent := [name for name in PROGRAMS if shutil.which(name, path=f"/usr/sbin:{os.environ['PATH']}") is None]:
        return f"{', '.join(absent)} not installed (Debian's slurmctld, slurmd, slurm-client, munge, util-linux)"
    return "" if os.geteuid() == 0 else "SLURM's daemons need root"


class Cluster:
    def __init__(self, folder: Path, nodes: int = 1, cpus: int = 4):
        self.folder, self._processes = folder, []
        self._names, self._cpus = [f"n{number}" for number in range(1, nodes + 1)], cpus
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> "Cluster":
        folder, host = self.folder, socket.gethostname()
        (folder / "state").mkdir(parents=True)
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        ports = _free_ports(len(self._names) + 1)
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={self._cpus} State=UNKNOWN"
            for name, port in zip(self._names, ports[1:], strict=True)
        )
        (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, host=host, ports=ports, nodes=nodes))
        files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid", "seed-file": "munge.seed"}
        try:
            self._start(
                "munged", "--foreground", "--force", *(f"--{key}={folder / name}" for key, name in files.items())
            )
            self.wait(lambda: (folder / "munge.socket").exists())
            self._start("slurmctld", "-D", "-i")
            self.wait(lambda: self.call("scontrol", "ping", check=False).stdout.count(" is UP"))
            for name in self._names:
                self._start("slurmd", "-D", "-N", name)
            self.wait(lambda: self.call("sinfo", "-h", "-N", "-o", "%t").stdout.count("idle") == len(self._names))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        """End the jobs, then the daemons, the last one first."""
        if len(self._processes) > 1:
            self.call("scancel", "--user=root", check=False)
            deadline = time.monotonic() + 120
            while self.call("squeue", "-h", check=False).stdout and time.monotonic() < deadline:
                time.sleep(0.2)
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def call(self, *words, check: bool = True) -> subprocess.CompletedProcess:
        """One of SLURM's commands."""
        return subprocess.run(
            [*map(str, words)], env=self.environment, check=check, capture_output=True, text=True, timeout=300
        )

    def jobs(self) -> dict[str, str]:
        """The state of each job and array task by id (12, or 12_3), those that have ended included; asked again if there is no answer."""
        for left in reversed(range(5)):
            try:
                text = self.call("squeue", "--noheader", "--array", "--states=all", "--format=%i %T").stdout
                return dict(line.split() for line in text.splitlines())
            except (subprocess.SubprocessError, ValueError):
                if not left:
                    raise
                time.sleep(3)

    def outcome(self, job: int, seconds: float = 300) -> dict[str, str]:
        """The states of a job and its tasks once all have ended."""
        found = {}

        def ended() -> bool:
            found.update({key: state for key, state in self.jobs().items() if key.split("_")[0] == str(job)})
            return bool(found) and set(found.values()) <= ENDED

        self.wait(ended, seconds)
        return found

    def processes(self, job: str) -> list[int]:
        """Of our scripts that a running job (12, or 12_3) has started."""
        task = (
            dict(zip(("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"), job.split("_"), strict=True))
            if "_" in job
            else {"SLURM_JOB_ID": job}
        )
        task["SLURM_CONF"] = self.environment["SLURM_CONF"]  # another cluster has jobs of the same number
        wanted = {f"{name}={value}".encode() for name, value in task.items()}
        return [pid for pid in processes_of(None) if wanted <= set(_read(pid, "environ").split(b"\0"))]

    def wait(self, until, seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() > deadline or any(process.poll() is not None for process in self._processes):
                raise TimeoutError(f"waited in vain; see the logs in {self.folder}")
            time.sleep(0.1)

    def _start(self, *words: str) -> None:
        with open(self.folder / f"{words[0]}.out", "ab") as out:
            path = f"/usr/sbin:{os.environ['PATH']}"
            environment = {**self.environment, "PATH": path}
            program = shutil.which(words[0], path=path)
            self._processes.append(
                subprocess.Popen(
                    ["setpriv", "--pdeathsig", "TERM", program, *words[1:]],  # it ends with us, even if we are killed
                    env=environment,
                    stdout=out,
                    stderr=out,
                    process_group=0,
                )
            )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


# scripts/slurm/submit.py

NOTHING = Step(Command("evaluate", "evaluate", (), None), Path(), ())  # to put a job in


def submit(*words, file: str = "run.yaml") -> subprocess.CompletedProcess:
    return in_process("scripts.slurm.submit", file, *words)


def scripts(*words, file: str = "run.yaml") -> dict[str, str]:
    """The scripts of a dry run by the names of the jobs, in order."""
    result = submit("--dry_run", *words, file=file)
    assert result.returncode == 0, result.stderr
    texts = result.stdout.split("#!/usr/bin/env bash\n")[1:]
    return {text.split(":")[0].removeprefix("# "): text for text in texts}


def log(here: Path) -> str:
    return "".join(path.read_text() for path in sorted((here / "out/run/slurm/logs").iterdir()))


# A run of all stages, as arrays and merges, and what is asked of it


def whole_run(url: str, nllb: str) -> str:
    return f"""
languages: Basque
datagen:
  inference_api: openai
  base_url: {url}
  model_name_or_path: stub-1
  max_concurrent_requests: 2
  seed_topics_path: in/topics_wiki.txt
  example_paragraphs: udhr
  example_sentences: udhr
  number_of_icl_demonstrations: 1
  number_of_icl_phrases: 2
  number_of_instructions: 12
  use_nllb: true
  nllb_name_or_path: {nllb}
  cache_dir: cache
  scorer: confidence
decontamination: {{benchmarks: in/bench.tsv, num_workers: 1}}
main:
  model_name_or_path: stub-1
  inference_api: openai
  base_url: {url}
  max_concurrent_requests: 2
  tgt: Basque
  dataset_name_or_path: files
  test_files: ["in/test.tsv:Basque=2,English=1", "in/test.tsv:Basque=2,English=1"]
  k: 0
evaluate: {{json: "${{output_dir}}/scores.json", trials: 50}}
slurm:
  cpus: 1
  gres: none
  generate: {{shards: 3}}
  translate: {{shards: 2}}
  score: {{shards: 2}}
  decontamination: {{shards: 2, cpus: 1}}
  main: {{shards: 3}}
  merge: {{cpus: 1}}
"""


RESULTS = ("Basque.jsonl", "*/Basque_translate.jsonl", "*/Basque_translate_filtered.jsonl")
RESULTS += ("translations/stub-1/*/translate_0.jsonl", "scores.json")


def results(folder: Path) -> dict[str, bytes]:
    paths = [path for pattern in RESULTS for path in sorted(folder.glob(pattern)) if path.stat().st_size]
    assert len(paths) == len(RESULTS), f"{folder} has {paths}"
    found = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    return found | {"scores.json": found["scores.json"].replace(f"{folder.name}/".encode(), b"")}  # it names its inputs


def last_jobs(here: Path, output_dir: str = "out") -> list[dict]:
    return json.loads((here / output_dir / "run/slurm/jobs.json").read_text())["jobs"]


def wait_for_all(cluster, here: Path, meanwhile=lambda: None, seconds: float = 400) -> dict[str, str]:
    """The states of the jobs of the last submission, by name and task, once all have ended."""
    names = {str(job["id"]): job["name"] for job in last_jobs(here)}
    found = {}

    def ended() -> bool:
        meanwhile()
        states = {key: state for key, state in cluster.jobs().items() if key.split("_")[0] in names}
        found.update({key.replace(key.split("_")[0], names[key.split("_")[0]], 1): s for key, s in states.items()})
        return set(states.values()) <= ENDED

    cluster.wait(ended, seconds)
    return found


def processes_of(folder: Path | None, *words: str) -> list[int]:
    """Of our scripts that were started in a folder, with these words in their command."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = _read(int(path.name), "cmdline").replace(b"\0", b" ").decode()
            here = folder is None or os.readlink(path / "cwd") == str(folder)
        except OSError:
            continue
        if here and all(word in command for word in (sys.executable, *words)):
            found.append(int(path.name))
    return found


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended
        return b""
