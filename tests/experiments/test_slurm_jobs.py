"""Jobs under a SLURM of the test's own: when they are requeued, when not, and what is refused."""

import sys
import time
from pathlib import Path

import pytest

from tests.support.run_files import CHECKED, SCORED, write
from tests.support.slurm import NOTHING, last_jobs, log, submit
from topxgen.experiments import slurm

STAGE = """
import os, signal, sys, time
from pathlib import Path

def stop(number, _):
    print("got", signal.Signals(number).name, flush=True)
    sys.exit(143)

signal.signal(signal.SIGUSR1, stop)
signal.signal(signal.SIGTERM, stop)
restarts, name = os.environ.get("SLURM_RESTART_COUNT", "0"), os.environ.get("SLURM_ARRAY_TASK_ID", "x")
with open(f"starts-{name}", "a") as file:
    file.write(restarts + "\\n")
seconds, code = sys.argv[1:3] if restarts == "0" else ("0", "0")
if name in sys.argv[3:] or len(sys.argv) == 3:
    time.sleep(float(seconds))
    sys.exit(int(code))
"""


def start(here: Path, *words, shards: int = 0, kind: str = "stage", incomplete: bool = False, **needs) -> int:
    """Submit a job whose stage sleeps and exits as `words` say, when it is not restarted; its number."""
    (here / "stage.py").write_text(STAGE)
    line = (kind, sys.executable, "stage.py", *map(str, words))
    job = slurm.Job("job", "evaluate", NOTHING.command, slurm.Resources(cpus=1, **needs), (line,), shards, NOTHING)
    planned = slurm.Planned(job, list(range(shards)), "a test")
    return slurm.submit([planned], here / "out", "test", incomplete)[0]["id"]


@pytest.mark.medium
@pytest.mark.parametrize(
    "words, kind, incomplete, state, said",
    [
        ((0, 0), "stage", False, "COMPLETED", "done"),
        ((0, 1), "stage", False, "FAILED", "exit code 1: see above"),
        ((0, 2), "stage", False, "FAILED", "exit code 2, bad input"),
        ((0, 3), "stage", False, "FAILED", "exit code 3, finished, but incomplete: see above"),
        ((0, 3), "stage", True, "COMPLETED", "incomplete: going on"),
        ((0, 3), "part", False, "COMPLETED", "incomplete: going on"),
        ((0, 3), "run", True, "FAILED", "exit code 3, finished, but incomplete: see above"),
    ],
)
def test_exit_codes(here, cluster, words, kind, incomplete, state, said):
    number = start(here, *words, kind=kind, incomplete=incomplete)
    assert cluster.outcome(number) == {str(number): state} and said in log(here)
    assert (here / "starts-x").read_text() == "0\n", "it was requeued"
    assert (here / "out/run/slurm/done/job").exists() == (state == "COMPLETED")


@pytest.mark.medium
def test_a_stage_that_was_stopped_is_requeued_and_goes_on(here, cluster):
    """Exit code 143, of a signal to the batch shell as before a time limit, and of one to the stage itself."""
    number = start(here, 60, 0)
    cluster.wait(lambda: (here / "starts-x").exists())
    cluster.call("scancel", "--signal=USR1", "--batch", number)
    assert cluster.outcome(number) == {str(number): "COMPLETED"} and (here / "starts-x").read_text() == "0\n1\n"
    assert "SIGUSR1: stopping" in log(here) and "got SIGUSR1" in log(here) and "requeuing" in log(here)
    number = start(here, 0, 143)
    assert cluster.outcome(number) == {str(number): "COMPLETED"} and (here / "starts-x").read_text() == "0\n1\n" * 2


@pytest.mark.medium
def test_not_for_ever(here, cluster, monkeypatch):
    monkeypatch.setenv("MAX_RESTARTS", "0")
    number = start(here, 0, 143)
    assert cluster.outcome(number) == {str(number): "FAILED"} and "not requeued after" in log(here)


@pytest.mark.medium
def test_what_is_cancelled_stays_cancelled(here, cluster):
    number = start(here, 60, 0)
    cluster.wait(lambda: (here / "starts-x").exists())
    cluster.call("scancel", number)
    assert cluster.outcome(number) == {str(number): "CANCELLED"}
    time.sleep(4)  # longer than a requeued job waits
    assert (here / "starts-x").read_text() == "0\n" and cluster.jobs()[str(number)] == "CANCELLED"


@pytest.mark.medium
def test_of_an_array_one_task_is_requeued(here, cluster):
    """The last task, whose SLURM_JOB_ID is that of the array."""
    number = start(here, 0, 143, 2, shards=3)
    assert set(cluster.outcome(number).values()) == {"COMPLETED"}
    assert [(here / f"starts-{i}").read_text() for i in range(3)] == ["0\n", "0\n", "0\n1\n"]
    assert len(list((here / "out/run/slurm/done").iterdir())) == 3


@pytest.mark.medium
def test_a_node_that_fails(here, cluster):
    number = start(here, 60, 0)
    cluster.wait(lambda: (here / "starts-x").exists())
    node = cluster.call("squeue", "-h", "-j", number, "-o", "%N").stdout.strip()
    cluster.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    cluster.call(
        "scontrol", "update", f"nodename={node}", "state=resume", check=False
    )  # refused where it is back by itself
    cluster.wait(lambda: "down" not in cluster.call("sinfo", "-h", "-n", node, "-o", "%T").stdout)
    assert cluster.outcome(number) == {str(number): "COMPLETED"} and (here / "starts-x").read_text() == "0\n1\n"


@pytest.mark.medium
def test_while_jobs_are_queued_nothing_is_submitted(here, cluster):
    """Also when submit.py was killed before it noted them, or they were submitted by hand; jobs of other runs do not count."""
    write(here, CHECKED, "slurm: {decontamination: {cpus: 1}}")
    number = start(here, 60, 0)
    (here / "out/run/slurm/jobs.json").unlink()
    result = submit()
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert f"1 job of this run is queued or running, such as {number} test-job " in result.stderr
    assert submit("--set", "output_dir=other", "decontamination.output_dir=other").returncode == 0
    cluster.call("scancel", number, last_jobs(here, "other")[0]["id"])
    cluster.outcome(number)
    cluster.wait(lambda: submit().returncode == 0)
    cluster.call("scancel", last_jobs(here)[0]["id"])


@pytest.mark.medium
def test_jobs_that_sbatch_refuses(here, cluster):
    """None is left: those before it are cancelled."""
    write(here, CHECKED, SCORED, "slurm: {cpus: 1, evaluate: {partition: nowhere}}")
    result = submit()
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert "evaluate.sbatch: sbatch failed: " in result.stderr and "invalid partition" in result.stderr
    assert "the jobs before it are cancelled" in result.stderr
    number = last_jobs(here)[0]["id"]
    assert cluster.outcome(number) == {str(number): "CANCELLED"}


@pytest.mark.slow
def test_a_time_limit(here, cluster):
    """SLURM itself sends the signal, a minute or two before the limit."""
    number = start(here, 600, 0, time="2", warning=60)
    assert cluster.outcome(number, 200) == {str(number): "COMPLETED"} and (here / "starts-x").read_text() == "0\n1\n"
    assert "SIGUSR1: stopping" in log(here)
