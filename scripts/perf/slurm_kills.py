"""Kills at random moments of each kind of SLURM job; are the files those of one run of scripts/run.py that nobody killed?

    PYTHONPATH=. OMP_NUM_THREADS=1 python scripts/perf/slurm_kills.py --kills 30 --out /tmp/slurm_kills

A SLURM of the script's own (two nodes on this machine; needs root and Debian's slurmctld, slurmd, slurm-client and munge) runs all stages
of a small run. While a job of a stage that had fewer kills than the others runs, one of its processes gets SIGKILL, or the job SIGKILL
or SIGUSR1 by scancel, or it is requeued. What was cancelled is submitted again. The output is JSON.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from measuring import command_line

from tests.attack.shooting_range import KEY, Stub
from tests.attack.table import make_inputs
from tests.support import slurm, tiny_models
from tests.support.runs import ROOT
from tests.support.tiny_lm import trained_once

STAGES = ("generate", "translate", "score", "decontamination", "main", "evaluate", "merge")
WAYS = ("kill -9", "kill -9", "scancel KILL", "USR1", "requeue")
LONGEST_S = 4.0  # from the moment when a job was seen running to its kill; less in a stage whose jobs end before it


class Killer:
    def __init__(self, cluster: slurm.Cluster, place: Path, kills: int, seed: int):
        self.cluster, self.place, self.each = cluster, place, -(-kills // len(STAGES))
        self.rng, self.by_stage, self.by_way = random.Random(seed), Counter(), Counter()
        self.longest = dict.fromkeys(STAGES, LONGEST_S)
        self.due: dict[tuple[str, str], float] = {}  # by running job and its stage: when it is killed

    @property
    def is_done(self) -> bool:
        return all(self.by_stage[stage] >= self.each for stage in STAGES)

    def look(self) -> None:
        """Kill one of the running jobs if it is time."""
        jobs = [(str(job["id"]), job["name"]) for job in slurm.last_jobs(self.place)]
        names = {key: "merge" if name.endswith("-merge") else name for key, name in jobs}
        running = [key for key, state in self.cluster.jobs().items() if state == "RUNNING"]
        stages = {key: names[key.split("_")[0]] for key in running if key.split("_")[0] in names}
        for missed in self.due.keys() - stages.items():
            del self.due[missed]
            self.longest[missed[1]] = max(0.3, 0.7 * self.longest[missed[1]])
        for key, stage in stages.items():
            if self.by_stage[stage] < self.each:
                at = self.due.setdefault((key, stage), time.monotonic() + self.rng.uniform(0, self.longest[stage]))
                if time.monotonic() >= at and self.kill(key):
                    self.by_stage[stage] += 1
                    self.due.clear()
                    return

    def kill(self, job: str) -> bool:
        way = self.rng.choice(WAYS)
        if way == "kill -9":
            pids = self.cluster.processes(job)
            if not pids:
                return False
            os.kill(self.rng.choice(pids), signal.SIGKILL)
        elif way == "requeue":
            self.cluster.call("scontrol", "requeue", job, check=False)
        else:
            number, whom = ("KILL", "--full") if way == "scancel KILL" else ("USR1", "--batch")
            self.cluster.call("scancel", f"--signal={number}", whom, job, check=False)
        self.by_way[way] += 1
        return True


def submit(place: Path) -> str:
    """What submit.py prints; again if it fails, as when slurmctld does not answer squeue on a busy machine. It submits nothing twice."""
    line = [sys.executable, ROOT / "scripts/slurm/submit.py", "run.yaml"]
    for _ in range(5):
        found = subprocess.run(line, cwd=place, capture_output=True, text=True)
        if not found.returncode:
            return found.stdout
        print(found.stderr, file=sys.stderr, flush=True)
        time.sleep(5)
    raise SystemExit(f"submit.py fails: {found.stderr}")


def campaign(cluster: slurm.Cluster, place: Path, nllb: str, kills: int, seed: int) -> dict:
    """Kills, the same number in each stage; `equal`: whether all results are those of one run."""
    place.mkdir(parents=True)
    make_inputs(place)
    os.environ["OPENAI_API_KEY"], os.environ["SLURM_CONF"] = KEY, cluster.environment["SLURM_CONF"]
    killer, submissions, runs, equal = Killer(cluster, place, kills, seed), 0, 0, True
    with Stub() as stub:
        (place / "run.yaml").write_text("output_dir: out\n" + slurm.whole_run(stub.url("openai"), nllb))
        one = [sys.executable, ROOT / "scripts/run.py", "run.yaml", "--set", "output_dir=one"]
        subprocess.run(one, cwd=place, check=True, capture_output=True)
        expected = slurm.results(place / "one")
        while not killer.is_done:
            while submit(place) != "all stages are complete\n":
                submissions += 1
                slurm.wait_for_all(cluster, place, killer.look, 900)
                print(f"{dict(killer.by_stage)}, {submissions} submissions", file=sys.stderr, flush=True)
            runs += 1
            equal = slurm.results(place / "out") == expected and equal
            print(f"whole run {runs}, after {killer.by_way.total()} kills: equal {equal}", file=sys.stderr, flush=True)
            shutil.rmtree(place / "out")
    return {
        "kills": killer.by_way.total(),
        "by_stage": dict(killer.by_stage),
        "by_way": dict(killer.by_way),
        "runs": runs,
        "submissions": submissions,
        "equal": equal,
    }


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--kills", type=int, default=30, metavar="N", help="at least this many, as many in each stage")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the moments and of who is killed")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="an empty folder for runs and models")
    args = parser.parse_args()
    if reason := slurm.missing():
        sys.exit(reason)
    nllb, pairs = args.out / "nllb", tiny_models.udhr_pairs("Basque")
    trained_once("tiny_nllb", lambda folder: tiny_models.build_nllb(folder, pairs, steps=160))(nllb)
    with slurm.Cluster(args.out / "slurm", nodes=2, cpus=4) as cluster:
        found = campaign(cluster, args.out / "runs", str(nllb), args.kills, args.seed)
    print(json.dumps(found, indent=1))
    sys.exit(not found["equal"])


if __name__ == "__main__":
    main()
