"""A SLURM of one's own: munged, slurmctld and slurmd as processes of this one, with all of their files in one folder.

    with Cluster(folder, nodes=2, cpus=4) as slurm:
        slurm.call("sbatch", "--wrap", "hostname", "--output", "/tmp/out.log")

Nodes have more CPUs than the machine. Needs Debian's slurmctld, slurmd, slurm-client and munge, and root.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")
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
MinJobAge=3600
UnkillableStepTimeout=20
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no cluster here; "" if there can."""
    if absent := [name for name in DAEMONS if shutil.which(name, path=f"/usr/sbin:{os.environ['PATH']}") is None]:
        return f"{', '.join(absent)} not installed (Debian's slurmctld, slurmd, slurm-client, munge)"
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
            deadline = time.monotonic() + 30
            while self.call("squeue", "-h", check=False).stdout and time.monotonic() < deadline:
                time.sleep(0.2)
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def call(self, *words, check: bool = True) -> subprocess.CompletedProcess:
        """One of SLURM's commands."""
        return subprocess.run(
            [*map(str, words)], env=self.environment, check=check, capture_output=True, text=True, timeout=60
        )

    def jobs(self) -> dict[str, str]:
        """The state of each job and array task by id (12, or 12_3), those that have ended included."""
        text = self.call("squeue", "--noheader", "--array", "--states=all", "--format=%i %T").stdout
        return dict(line.split() for line in text.splitlines())

    def wait(self, until, seconds: float = 60) -> None:
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
                subprocess.Popen([program, *words[1:]], env=environment, stdout=out, stderr=out, process_group=0)
            )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
