"""scripts/slurm/submit.py: what jobs ask for, their scripts, and what they do under a SLURM of the test's own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.attack.table import make_inputs
from tests.support import slurm as support
from tests.support.runs import ROOT, in_process
from topxgen.experiments import slurm

CHECKED = "decontamination: {input_dir: in, output_dir: out/checked, benchmarks: [in/bench.tsv], num_workers: 1}"
SCORED = "evaluate: {dirs: in/runs, baseline: in/runs/stub-1, trials: 20, json: out/scores.json}"
DATAGEN = "datagen: {languages: Basque, model_name_or_path: m, seed_topics_path: in/topics_wiki.txt, number_of_instructions: 8"
TRAIN = "train: {model_name_or_path: m, target_languages: Basque, dataset_name_or_path: udhr"
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with inputs, from which commands are started."""
    make_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(place: Path, *sections: str) -> None:
    (place / "run.yaml").write_text("\n".join(["output_dir: out", *sections]), encoding="utf-8")


def submit(*words) -> subprocess.CompletedProcess:
    return in_process("scripts.slurm.submit", "run.yaml", *words)


def scripts(*words) -> dict[str, str]:
    """The scripts of a dry run by the names of the jobs, in order."""
    result = submit("--dry_run", *words)
    assert result.returncode == 0, result.stderr
    texts = result.stdout.split("#!/usr/bin/env bash\n")[1:]
    return {text.split(":")[0].removeprefix("# "): text for text in texts}


MISTAKES = [
    ("slurm: [gpu]", "section slurm is not a mapping"),
    ("slurm: {patition: gpu}", "section slurm: unknown key patition (did you mean partition?)"),
    ("slurm: {main: {shard: 4}}", "section slurm, main: unknown key shard (did you mean shards?)"),
    ("slurm: {main: gpu}", "main is not a mapping"),
    ("slurm: {decontamination: {shards: 0}}", "shards is 0, not a whole number from 1 to 9999"),
    ("slurm: {decontamination: {shards: many}}", "shards is many, not a whole number"),
    ("slurm: {evaluate: {shards: 2}}", "section slurm, evaluate: it has no shards"),
    ("slurm: {main: {nodes: 2}}", "only train runs on several nodes"),
    ("slurm: {mem: lots}", "mem is lots, not a size, such as 64G"),
    ("slurm: {time: 10h}", "time is 10h, not a time as SLURM has it"),
    ("slurm: {gres: 'gpu:1; rm -rf /'}", "not as SLURM has it"),
    ("slurm: {partition: 'a b'}", "partition is a b, not a name"),
    ("slurm: {extra: [constraint=a100]}", "write options of sbatch, such as [--constraint=a100]"),
    ('slurm: {extra: ["--comment=a\\nrm -rf /"]}', "write options of sbatch"),
    ("slurm: {warning: 5}", "warning is 5, not a whole number from 60 to 65535"),
    (f"{DATAGEN}}}", "section slurm: generate loads m and needs gres, its GPUs"),
    (f"{DATAGEN}, inference_api: openai, use_nllb: true}}", "translate loads facebook/nllb-200-3.3B and needs gres"),
    (f"{TRAIN}}}\nslurm: {{gres: gpu:4, train: {{nodes: 2}}}}", "train on 2 nodes needs launcher: [accelerate, launch"),
    ("main: {model_name_or_path: m, tgt: Basque}", "main loads m and needs gres"),
    ("rounds: 2", "run.yaml has rounds, whose stages depend on results: submit it as one job"),
    ("slrum: {gres: gpu:1}", "slrum is neither a section nor a flag, and nothing refers to it (did you mean slurm?)"),
]  # fmt: skip


@pytest.mark.parametrize("section, message", MISTAKES)
def test_a_mistake_is_one_line_before_anything_is_submitted(place, section, message):
    write(place, CHECKED, section)
    for words in ((), ("--dry_run",)):
        result = submit(*words)
        assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
        assert message in result.stderr, result.stderr
    assert not (place / "out").exists()


def test_a_folder_that_a_script_cannot_have(place):
    write(place, CHECKED)
    result = submit("--set", "output_dir=a%b", "--dry_run")
    assert result.returncode == 2 and "SLURM does not take such a path" in result.stderr


def test_without_slurm_nothing_is_submitted(place, monkeypatch):
    monkeypatch.setenv("PATH", str(place))
    write(place, CHECKED)
    result = submit()
    assert result.returncode == 2 and "cannot start sbatch: " in result.stderr and result.stderr.count("\n") == 1


def test_the_jobs_of_a_run(place):
    """Arrays with merges behind them; GPUs where a model is loaded; a section of the file for each kind."""
    write(
        place,
        f"{DATAGEN}, back_translator: apertium}}",
        "decontamination: {benchmarks: in/bench.tsv}",
        f"{TRAIN}, launcher: [accelerate, launch, --config_file, c.yaml]}}",
        "main: [{tgt: Basque, k: 0}, {tgt: Hausa, k: 0}]",
        "evaluate: {json: out/scores.json}",
        "slurm: {partition: big, gres: gpu:1, generate: {shards: 3, at_once: 2, mem: 64G}, decontamination: {shards: 2, partition: cpu},"
        " train: {nodes: 2, gres: gpu:4, time: 1-00:00:00}, main: {shards: 2}, merge: {extra: [--exclusive]}}",
    )
    found = scripts()
    assert list(found) == [
        "generate", "generate-merge", "translate", "score", "decontamination", "decontamination-merge", "train",
        "main-1", "main-1-merge", "main-2", "main-2-merge", "evaluate",
    ]  # fmt: skip
    options = {name: set(text.split("set -euo")[0].splitlines()) for name, text in found.items()}
    gpus = {name: {line for line in lines if "gres" in line} for name, lines in options.items()}
    assert {name for name, lines in gpus.items() if lines == {"#SBATCH --gres=gpu:1"}} == {
        "generate",
        "main-1",
        "main-2",
    }
    assert gpus["train"] == {"#SBATCH --gres=gpu:4"} and not gpus["evaluate"] | gpus["score"] | gpus["translate"]
    assert {"#SBATCH --array=0-2%2", "#SBATCH --mem=64G", "#SBATCH --partition=big"} <= options["generate"]
    assert {"#SBATCH --array=0-1", "#SBATCH --partition=cpu"} <= options["decontamination"]
    assert {"#SBATCH --nodes=2", "#SBATCH --time=1-00:00:00", "#SBATCH --signal=B:USR1@600"} <= options["train"]
    assert "#SBATCH --exclusive" in options["main-2-merge"] and "#SBATCH --requeue" in options["evaluate"]
    assert f"{sys.executable} {ROOT}/datagen.py \\\n" in found["generate"]
    assert '--stages generate \\\n    --num_shards 3 \\\n    --shard_index "$SLURM_ARRAY_TASK_ID"' in found["generate"]
    assert "run.py" not in found["translate"] and "--stages datagen\n" in found["score"]
    assert f"{ROOT}/scripts/merge.py out\n" in found["generate-merge"] and "run.py" not in found["generate-merge"]
    assert f"{ROOT}/scripts/merge.py out/translations\n" in found["main-1-merge"]
    assert "--stages main-1\n" in found["main-1-merge"]
    for text in found.values():
        assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    assert not (place / "out").exists()
    assert list(scripts("--stages", "main-2", "evaluate")) == ["main-2", "main-2-merge", "evaluate"]
    assert "/opt/bin/python" in scripts("--python", "/opt/bin/python")["generate"]


def test_words_of_the_user_stay_words(place):
    """In a script, no value is more than a word."""
    write(place, CHECKED)
    value = "in/$(touch a) `touch b`; touch c 'd'.tsv"
    (place / value).parent.mkdir(parents=True, exist_ok=True)
    (place / value).write_bytes((place / "in/bench.tsv").read_bytes())
    text = scripts("--set", f"decontamination.benchmarks={json.dumps(value)}")["decontamination"]
    lines = text[text.index("stage ") :].replace("stage ", "printf '%s\\n' ").replace("finish", "")
    shown = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, check=True).stdout
    assert f"decontamination.benchmarks={json.dumps(value)}" in shown.split("\n")
    assert not {"a", "b", "c"} & set(os.listdir(place))


# Under a SLURM of the test's own


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if reason := support.missing():
        pytest.skip(reason)
    with support.Cluster(tmp_path_factory.mktemp("slurm"), nodes=2, cpus=4) as cluster:
        yield cluster


@pytest.fixture
def here(cluster, place, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return place


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


def start(here: Path, cluster, *words, shards: int = 0, kind: str = "stage", incomplete: bool = False, **needs) -> int:
    """Submit a job whose stage sleeps and exits as `words` say, when it is not restarted; its number."""
    (here / "stage.py").write_text(STAGE)
    line = (kind, sys.executable, "stage.py", *map(str, words))
    command = slurm.Command("evaluate", "evaluate", (), None)
    job = slurm.Job("job", "evaluate", "evaluate", command, slurm.Resources(cpus=1, **needs), (line,), shards)
    planned = slurm.Planned(job, list(range(shards)), "a test")
    return slurm.submit([planned], here / "out", "test", incomplete)[0]["id"]


def end(cluster, number: int, seconds: float = 60) -> dict[str, str]:
    """The states of a job and its tasks once all have ended."""
    found = {}

    def ended() -> bool:
        found.update({k: v for k, v in cluster.jobs().items() if k.split("_")[0] == str(number)})
        return bool(found) and set(found.values()) <= ENDED

    cluster.wait(ended, seconds)
    return found


def running(cluster, name: str) -> None:
    cluster.wait(lambda: cluster.jobs().get(name) == "RUNNING")


def log(here: Path) -> str:
    return "".join(path.read_text() for path in sorted((here / "out/run/slurm/logs").iterdir()))


@pytest.mark.parametrize(
    "words, kind, incomplete, state, said",
    [
        ((0, 0), "stage", False, "COMPLETED", "done"),
        ((0, 1), "stage", False, "FAILED", "exit code 1: see above"),
        ((0, 2), "stage", False, "FAILED", "exit code 2, bad input"),
        ((0, 3), "stage", False, "FAILED", "exit code 3, finished, but incomplete: see above"),
        ((0, 3), "stage", True, "COMPLETED", "going on (--allow_incomplete)"),
        ((0, 3), "run", True, "FAILED", "exit code 3, finished, but incomplete: see above"),
    ],
)
def test_exit_codes(here, cluster, words, kind, incomplete, state, said):
    number = start(here, cluster, *words, kind=kind, incomplete=incomplete)
    assert end(cluster, number) == {str(number): state} and said in log(here)
    assert (here / "starts-x").read_text() == "0\n", "it was requeued"
    assert (here / "out/run/slurm/done/job").exists() == (state == "COMPLETED")


def test_a_stage_that_was_stopped_is_requeued_and_goes_on(here, cluster):
    """Exit code 143, of a signal to the batch shell as before a time limit, and of one to the stage itself."""
    number = start(here, cluster, 60, 0)
    cluster.wait(lambda: (here / "starts-x").exists())
    cluster.call("scancel", "--signal=USR1", "--batch", number)
    assert end(cluster, number) == {str(number): "COMPLETED"} and (here / "starts-x").read_text() == "0\n1\n"
    assert "SIGUSR1: stopping" in log(here) and "got SIGUSR1" in log(here) and "requeuing" in log(here)
    number = start(here, cluster, 0, 143)
    assert end(cluster, number) == {str(number): "COMPLETED"} and (here / "starts-x").read_text() == "0\n1\n" * 2


def test_not_for_ever(here, cluster, monkeypatch):
    monkeypatch.setenv("MAX_RESTARTS", "0")
    number = start(here, cluster, 0, 143)
    assert end(cluster, number) == {str(number): "FAILED"} and "not requeued after" in log(here)


def test_what_is_cancelled_stays_cancelled(here, cluster):
    number = start(here, cluster, 60, 0)
    cluster.wait(lambda: (here / "starts-x").exists())
    cluster.call("scancel", number)
    assert end(cluster, number) == {str(number): "CANCELLED"}
    time.sleep(4)  # longer than a requeued job waits
    assert (here / "starts-x").read_text() == "0\n" and cluster.jobs()[str(number)] == "CANCELLED"


def test_of_an_array_one_task_is_requeued(here, cluster):
    """The last task, whose SLURM_JOB_ID is that of the array."""
    number = start(here, cluster, 0, 143, 2, shards=3)
    assert set(end(cluster, number).values()) == {"COMPLETED"}
    assert [(here / f"starts-{i}").read_text() for i in range(3)] == ["0\n", "0\n", "0\n1\n"]
    assert len(list((here / "out/run/slurm/done").iterdir())) == 3


def test_a_node_that_fails(here, cluster):
    number = start(here, cluster, 60, 0)
    cluster.wait(lambda: (here / "starts-x").exists())
    node = cluster.call("squeue", "-h", "-j", number, "-o", "%N").stdout.strip()
    cluster.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    cluster.call("scontrol", "update", f"nodename={node}", "state=resume")
    assert end(cluster, number) == {str(number): "COMPLETED"} and (here / "starts-x").read_text() == "0\n1\n"


@pytest.mark.slow
def test_a_time_limit(here, cluster):
    """SLURM itself sends the signal, a minute or two before the limit."""
    number = start(here, cluster, 600, 0, time="2", warning=60)
    assert end(cluster, number, 200) == {str(number): "COMPLETED"} and (here / "starts-x").read_text() == "0\n1\n"
    assert "SIGUSR1: stopping" in log(here)
