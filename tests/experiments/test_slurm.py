"""scripts/slurm/submit.py: what jobs ask for, their scripts, and what they do under a SLURM of the test's own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.perf import slurm_kills
from tests.attack.shooting_range import KEY, Stub
from tests.experiments.test_comparison_run import small
from tests.experiments.test_rounds import write as rounds_file
from tests.support import slurm as support
from tests.support.documentation import fences
from tests.support.run_files import CHECKED, SCORED, write
from tests.support.runs import ROOT, in_process
from topxgen.common.run_files import RunFile, read_changed
from topxgen.experiments import slurm
from topxgen.experiments.chain import commands

DATAGEN = "datagen: {languages: Basque, model_name_or_path: m, seed_topics_path: in/topics_wiki.txt, number_of_instructions: 8"
TRAIN = "train: {model_name_or_path: m, target_languages: Basque, dataset_name_or_path: udhr"


def submit(*words, file: str = "run.yaml") -> subprocess.CompletedProcess:
    return in_process("scripts.slurm.submit", file, *words)


def scripts(*words, file: str = "run.yaml") -> dict[str, str]:
    """The scripts of a dry run by the names of the jobs, in order."""
    result = submit("--dry_run", *words, file=file)
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
    ("slurm: {time: 3}", "with time 3 a job of decontamination gets its signal to stop as it starts, 120 s (warning) and up to 60 s"),
    (f"{TRAIN}}}\nslurm: {{gres: none, time: 1:00:00, train: {{time: 11:00}}}}", "with time 11:00 a job of train gets its signal to stop"),
    ("slurm: {decontamination: {time: 0-0:03}}", "with time 0-0:03 a job of decontamination"),
    (f"{DATAGEN}}}", "section slurm: generate loads m: set its gres"),
    (f"{DATAGEN}, inference_api: openai, use_nllb: true}}", "translate loads facebook/nllb-200-3.3B: set its gres"),
    (f"{TRAIN}}}\nslurm: {{gres: gpu:4, train: {{nodes: 2}}}}", "train on 2 nodes needs launcher: [accelerate, launch"),
    ("main: {model_name_or_path: m, tgt: Basque}", "main loads m: set its gres"),
    ("rounds: 2", "rounds needs a section datagen"),
    ("variants: {a: {}}\nseeds: [1]", "variant a"),
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


def test_times_that_are_long_enough(place):
    needs = "slurm: {gres: none, time: 4, evaluate: {time: 0-0:03:01}, train: {time: 0-1}}"
    write(place, CHECKED, SCORED, f"{TRAIN}}}", needs)
    found = {name: re.search(r"--time=(\S+)", text)[1] for name, text in scripts().items()}
    assert found == {"decontamination": "4", "train": "0-1", "evaluate": "0-0:03:01"}


def test_a_folder_that_a_script_cannot_have(place):
    write(place, CHECKED)
    result = submit("--set", "output_dir=a%b", "--dry_run")
    assert result.returncode == 2 and "SLURM does not accept this path" in result.stderr


def test_without_slurm_nothing_is_submitted(place, monkeypatch):
    monkeypatch.setenv("PATH", str(place))
    write(place, CHECKED)
    result = submit()
    assert result.returncode == 2 and "cannot start squeue: " in result.stderr and result.stderr.count("\n") == 1


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
        "generate-merge",
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
    merge = found["generate-merge"]
    assert f"part {sys.executable} {ROOT}/scripts/merge.py out \\\n    --stages generate\nstage " in merge
    assert f"{ROOT}/datagen.py" in merge and "--num_shards" not in merge and "--array" not in merge
    assert (
        f"run {sys.executable} {ROOT}/scripts/merge.py out/translations \\\n    --stages main\n"
        in found["main-1-merge"]
    )
    assert "run.py" not in merge
    assert "--stages main-1\n" in found["main-1-merge"]
    for text in found.values():
        assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    assert not (place / "out").exists()
    assert list(scripts("--stages", "main-2", "evaluate")) == ["main-2", "main-2-merge", "evaluate"]
    assert "/opt/bin/python" in scripts("--python", "/opt/bin/python")["generate"]


def test_the_published_recipe_as_jobs(monkeypatch):
    monkeypatch.chdir(ROOT)
    result = in_process(
        "scripts.slurm.submit", "configs/runs/topxgen.yaml", "--dry_run", "--set", "output_dir=outputs/nowhere"
    )
    assert result.returncode == 0 and result.stdout.endswith("# 12 jobs\n"), result.stdout + result.stderr
    table = result.stdout.rpartition("\n\n")[2].splitlines()
    assert [line.split()[1:] for line in table[:4]] == [
        ["job", "tasks", "nodes", "gres", "cpus", "time", "limit", "after"],
        ["generate", "8", "1", "gpu:1", "8", "-", "-"],
        ["generate-merge", "1", "1", "gpu:1", "8", "-", "generate"],
        ["translate", "4", "1", "gpu:1", "8", "-", "generate-merge"],
    ]


def test_the_example_of_the_documentation(place):
    (example,) = (block for block in fences(ROOT / "docs/cluster.md", "yaml") if block.startswith("slurm:"))
    launcher = "launcher: [accelerate, launch, --config_file, configs/multi_node.yaml]"
    write(
        place,
        f"{DATAGEN}, use_nllb: true}}",
        "decontamination: {}",
        f"{TRAIN}, {launcher}}}",
        "main: {tgt: Basque}",
        SCORED,
        example,
    )
    found = scripts()
    assert len(found) == 12 and "#SBATCH --array=0-15%8\n" in found["generate"]


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


def dependencies(texts: dict[str, str]) -> dict[str, list[str]]:
    found = {name: re.search(r"^# after (.*)$", text, re.M) for name, text in texts.items()}
    return {name: match[1].split(", ") if match else [] for name, match in found.items()}


def test_an_experiment_as_jobs(tmp_path, monkeypatch):
    """A job for each command of a variant and seed behind what it reads, arrays for the data, and the table behind all."""
    monkeypatch.chdir(ROOT)
    slurm_section = "[generate, translate]\nslurm: {gres: none, generate: {shards: 2}}"
    path = small(tmp_path, "m", **{"[generate, translate]": slurm_section})
    found = scripts(file=str(path))
    after = dependencies(found)
    names = {re.sub(r"^data-.*-", "data-", name.replace("generate-merge", "generate+merge")) for name in found}
    assert {"cold-seed-1-train", "mixed-seed-2-merge", "nothing-main-1", "hot-seed-2-main-2", "comparison"} <= names
    assert {"data-generate", "data-generate+merge", "data-translate", "data-decontamination"} <= names
    data = [name for name in found if name.startswith("data-") and name.endswith("-decontamination")]
    assert set(data) <= set(after["cold-seed-2-train"]) and after["cold-seed-2-merge"] == ["cold-seed-2-train"]
    assert set(after["cold-seed-1-main-2"]) == {"cold-seed-1-train", "cold-seed-1-merge", "cold-seed-1-main-1"}
    assert after["nothing-main-1"] == [] and len(after["comparison"]) == len({*after}) - 1 - 2 * 2
    (line,) = (line for line in found["cold-seed-1-train"].splitlines() if "--jobs" in line)
    assert line.split()[1] == f"{tmp_path}/out/cold/seed-1/train"
    assert f"{tmp_path}/out/run/slurm/small.yaml" in found["comparison"], "the name of the experiment"
    assert found["comparison"].count("scripts/compare.py") == 1 and "--jobs" not in found["comparison"]
    result = in_process("scripts.slurm.submit", path, "--stages", "train", "--dry_run")
    assert result.returncode == 2 and "--stages has no effect" in result.stderr


def test_rounds_as_jobs(tmp_path, monkeypatch):
    """One after the other: round 0 in arrays, later ones without, so that they can see that the rounds have ended."""
    monkeypatch.chdir(ROOT)
    section = "slurm: {gres: none, translate: {shards: 2}, main: {shards: 2}}\nevaluate: {"
    path = rounds_file(tmp_path, "m", **{"evaluate: {": section})
    found = scripts(file=str(path))
    after = dependencies(found)
    names = list(found)
    assert [after[name] for name in names] == [[], *([name] for name in names[:-1])]
    assert "round-0-translate-merge" in names and "round-0-held-out-main-1" in names and "round-2-evaluate" in names
    assert not [name for name in names if name.startswith(("round-1", "round-2")) and "array" in found[name]]
    assert [name for name in names if name.startswith("round-1-")][:3] == [
        "round-1-datagen", "round-1-decontamination", "round-1-train",
    ]  # fmt: skip
    assert "--until round-1-train" in found["round-1-train"]
    (tmp_path / "out").mkdir()
    ended = {"patience": 1, "metric": "chrf", "stopped": "why", "rounds": [{}, {}]}
    (tmp_path / "out/rounds.json").write_text(json.dumps(ended))
    assert not [name for name in scripts(file=str(path)) if name.startswith("round-2")]
    (tmp_path / "out/rounds.json").write_text(json.dumps(ended | {"patience": 0}))
    assert [name for name in scripts(file=str(path)) if name.startswith("round-2")]


def test_the_reason_of_a_job_is_one_line(place):
    write(place, CHECKED)
    file = RunFile(read_changed(place / "run.yaml", []), place / "run.yaml")
    (job,) = slurm.jobs(file, slurm.steps(commands(file, []), place, ["run.yaml"]), sys.executable)
    text = slurm.script(slurm.Planned(job, [], "in/a\ntouch b\n has changed"), place, "t")
    assert "\n# decontamination: in/a?touch b? has changed. scripts" in text


def carry_out(text: str, task: int | None = None, code: int = 0, **variables: str) -> str:
    """Run a job's script here, as a task of SLURM would; what it printed."""
    variables = {"SLURM_JOB_ID": "9", "SLURM_JOB_NAME": "test", **variables}
    if task is not None:
        variables |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(task)}
    result = subprocess.run(["bash", "-c", text], env={**os.environ, **variables}, capture_output=True, text=True)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.mark.parametrize(
    "code, task, variables, requeued",
    [
        (143, None, {}, "requeue 9"),
        (143, 2, {}, "requeue 7_2"),  # not the job, which may be the whole array's
        (143, None, {"SLURM_RESTART_COUNT": "50"}, ""),
        (143, None, {"SLURM_RESTART_COUNT": "49"}, "requeue 9"),
        (0, None, {}, ""),
        (1, None, {}, ""),
        (2, 1, {}, ""),
        (3, None, {}, ""),
    ],
)
def test_exit_codes_that_requeue(place, monkeypatch, code, task, variables, requeued):
    """With a stand-in for scontrol that notes what it is called with."""
    (place / "bin").mkdir()
    (place / "bin/scontrol").write_text('#!/bin/sh\necho "$@" > called\n')
    (place / "bin/scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}/bin:{os.environ['PATH']}")
    line = ("stage", "bash", "-c", f"exit {code}")
    job = slurm.Job(
        "job", "evaluate", "evaluate", slurm.Command("evaluate", "evaluate", (), None), slurm.Resources(), (line,)
    )
    text = slurm.script(slurm.Planned(job, [], "a test"), place / "out", "test")
    name = "job" if task is None else f"job-{task}"
    (place / "out/run/slurm/done").mkdir(parents=True)
    (place / "out/run/slurm/done" / name).write_text("of an earlier success")
    said = carry_out(text, task, code, **variables)
    assert ((place / "called").read_text().strip() if (place / "called").exists() else "") == requeued, said
    failures = [path.name for path in place.glob("out/run/failed/*")]
    assert failures == ([f"evaluate.{name}.json"] if code in (1, 2, 3) else []), said
    if failures:
        assert f"out: {name} failed with exit code {code}, 20" in in_process("scripts/status.py", "out").stdout
        carry_out(text.replace(f"'exit {code}'", "true"), task)
        assert not list(place.glob("out/run/failed/*")), "the next start removes it"
        return
    marks = [path.name for path in place.glob("out/run/slurm/done/*")]
    assert marks == ([name] if code == 0 else [])


def test_only_what_is_missing_runs(place):
    """Tasks by their marks and manifests, stages by their records, and all behind what runs."""
    write(place, CHECKED, SCORED, "slurm: {decontamination: {shards: 2}}")
    carry_out(scripts()["decontamination"], 0)
    found = scripts()
    assert list(found) == ["decontamination", "decontamination-merge", "evaluate"]
    assert "#SBATCH --array=1\n" in found["decontamination"]
    assert re.search(r"^# decontamination +1 +1 +- +16 +- +-$", found["evaluate"], re.M)
    assert "#SBATCH --array=0-1\n" in scripts("--set", "decontamination.ngram_size=9")["decontamination"]
    carry_out(found["decontamination"], 1)
    assert list(scripts()) == ["decontamination-merge", "evaluate"]
    manifest = place / "out/checked/shards/0000-of-0002/manifest_decontaminate_Basque.json"
    content = manifest.read_bytes()
    manifest.unlink()
    assert "#SBATCH --array=0\n" in scripts()["decontamination"]
    manifest.write_bytes(content)
    shutil.copy("run.yaml", "out/run/slurm/run.yaml")  # as submit.py does
    for name, text in scripts().items():
        carry_out(text)
        assert (place / f"out/run/slurm/done/{name}").exists()
    assert submit("--dry_run").stdout == "# all stages are complete\n"
    shutil.rmtree(place / "out/checked/shards")
    assert submit("--dry_run").stdout == "# all stages are complete\n"
    with open(place / "in/Basque_translate.jsonl", "ab") as file:
        file.write((place / "in/Basque_translate.jsonl").read_bytes().splitlines(keepends=True)[0])
    found = scripts()
    assert (
        "#SBATCH --array=0-1\n" in found["decontamination"]
        and "Basque_translate.jsonl has changed" in found["decontamination"]
    )


def test_the_campaign_submits_again_after_a_failure(place, monkeypatch):
    """With a stand-in for squeue that fails twice, as slurmctld does on a busy machine, and then for good."""
    write(place, CHECKED)
    (place / "bin").mkdir()
    (place / "bin/squeue").write_text(
        "#!/bin/sh\necho x >> calls\n[ $(wc -l < calls) -gt ${FAILURES:-2} ] || { echo timed out >&2; exit 1; }\n"
    )
    (place / "bin/sbatch").write_text("#!/bin/sh\necho $$\n")
    for name in ("squeue", "sbatch"):
        (place / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}/bin:{os.environ['PATH']}")
    waited = []
    monkeypatch.setattr(slurm_kills.time, "sleep", waited.append)
    assert slurm_kills.submit(place).endswith("logs: out/run/slurm/logs\n") and len(waited) == 2
    assert (place / "calls").read_text() == "x\n" * 3
    monkeypatch.setenv("FAILURES", "99")
    with pytest.raises(SystemExit, match="squeue failed: timed out"):
        slurm_kills.submit(place)
    assert len(waited) == 2 + 5


def test_an_audit_in_shards(place):
    """Its result is the report of its merge, which leaves no other files."""
    write(
        place, CHECKED.replace("num_workers: 1", "num_workers: 1, audit: true"), "slurm: {decontamination: {shards: 2}}"
    )
    for index in range(2):
        carry_out(scripts()["decontamination"], index)
    assert list(scripts()) == ["decontamination-merge"]
    shutil.copy("run.yaml", "out/run/slurm/run.yaml")  # as submit.py does
    carry_out(scripts()["decontamination-merge"])
    assert submit("--dry_run").stdout == "# all stages are complete\n"
    (place / "out/checked/decontamination_audit.json").unlink()
    assert "decontamination_audit.json has changed" in scripts()["decontamination"]
    assert not list(place.glob("out/checked/*.jsonl"))


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
        return bool(found) and set(found.values()) <= support.ENDED

    cluster.wait(ended, seconds)
    return found


def log(here: Path) -> str:
    return "".join(path.read_text() for path in sorted((here / "out/run/slurm/logs").iterdir()))


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
    number = start(here, cluster, *words, kind=kind, incomplete=incomplete)
    assert end(cluster, number) == {str(number): state} and said in log(here)
    assert (here / "starts-x").read_text() == "0\n", "it was requeued"
    assert (here / "out/run/slurm/done/job").exists() == (state == "COMPLETED")


@pytest.mark.medium
def test_a_stage_that_was_stopped_is_requeued_and_goes_on(here, cluster):
    """Exit code 143, of a signal to the batch shell as before a time limit, and of one to the stage itself."""
    number = start(here, cluster, 60, 0)
    cluster.wait(lambda: (here / "starts-x").exists())
    cluster.call("scancel", "--signal=USR1", "--batch", number)
    assert end(cluster, number) == {str(number): "COMPLETED"} and (here / "starts-x").read_text() == "0\n1\n"
    assert "SIGUSR1: stopping" in log(here) and "got SIGUSR1" in log(here) and "requeuing" in log(here)
    number = start(here, cluster, 0, 143)
    assert end(cluster, number) == {str(number): "COMPLETED"} and (here / "starts-x").read_text() == "0\n1\n" * 2


@pytest.mark.medium
def test_not_for_ever(here, cluster, monkeypatch):
    monkeypatch.setenv("MAX_RESTARTS", "0")
    number = start(here, cluster, 0, 143)
    assert end(cluster, number) == {str(number): "FAILED"} and "not requeued after" in log(here)


@pytest.mark.medium
def test_what_is_cancelled_stays_cancelled(here, cluster):
    number = start(here, cluster, 60, 0)
    cluster.wait(lambda: (here / "starts-x").exists())
    cluster.call("scancel", number)
    assert end(cluster, number) == {str(number): "CANCELLED"}
    time.sleep(4)  # longer than a requeued job waits
    assert (here / "starts-x").read_text() == "0\n" and cluster.jobs()[str(number)] == "CANCELLED"


@pytest.mark.medium
def test_of_an_array_one_task_is_requeued(here, cluster):
    """The last task, whose SLURM_JOB_ID is that of the array."""
    number = start(here, cluster, 0, 143, 2, shards=3)
    assert set(end(cluster, number).values()) == {"COMPLETED"}
    assert [(here / f"starts-{i}").read_text() for i in range(3)] == ["0\n", "0\n", "0\n1\n"]
    assert len(list((here / "out/run/slurm/done").iterdir())) == 3


@pytest.mark.medium
def test_a_node_that_fails(here, cluster):
    number = start(here, cluster, 60, 0)
    cluster.wait(lambda: (here / "starts-x").exists())
    node = cluster.call("squeue", "-h", "-j", number, "-o", "%N").stdout.strip()
    cluster.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    cluster.call("scontrol", "update", f"nodename={node}", "state=resume")
    assert end(cluster, number) == {str(number): "COMPLETED"} and (here / "starts-x").read_text() == "0\n1\n"


@pytest.mark.medium
def test_while_jobs_are_queued_nothing_is_submitted(here, cluster):
    """Also when submit.py was killed before it noted them, or they were submitted by hand; jobs of other runs do not count."""
    write(here, CHECKED, "slurm: {decontamination: {cpus: 1}}")
    number = start(here, cluster, 60, 0)
    (here / "out/run/slurm/jobs.json").unlink()
    result = submit()
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert f"1 jobs of this run are queued or running, such as {number} test-job " in result.stderr
    assert submit("--set", "output_dir=other", "decontamination.output_dir=other").returncode == 0
    cluster.call("scancel", number, support.last_jobs(here, "other")[0]["id"])
    end(cluster, number)
    cluster.wait(lambda: submit().returncode == 0)
    cluster.call("scancel", support.last_jobs(here)[0]["id"])


@pytest.mark.medium
def test_jobs_that_sbatch_refuses(here, cluster):
    """None is left: those before it are cancelled."""
    write(here, CHECKED, SCORED, "slurm: {cpus: 1, evaluate: {partition: nowhere}}")
    result = submit()
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert "evaluate.sbatch: sbatch failed: " in result.stderr and "invalid partition" in result.stderr
    assert "the jobs before it are cancelled" in result.stderr
    number = support.last_jobs(here)[0]["id"]
    assert end(cluster, number) == {str(number): "CANCELLED"}


@pytest.mark.slow
def test_a_time_limit(here, cluster):
    """SLURM itself sends the signal, a minute or two before the limit."""
    number = start(here, cluster, 600, 0, time="2", warning=60)
    assert end(cluster, number, 200) == {str(number): "COMPLETED"} and (here / "starts-x").read_text() == "0\n1\n"
    assert "SIGUSR1: stopping" in log(here)


def train_section(model: str) -> str:
    return (
        f"train: {{model_name_or_path: {model}, dataset_name_or_path: udhr, target_languages: Basque, max_length: 256, max_steps: 30, "
        "num_warmup_steps: 1, test_size_ratio: 4, per_device_train_batch_size: 1, gradient_accumulation_steps: 1, eval_steps: 10, "
        "save_steps: 10, logging_steps: 5, num_workers: 0, learning_rate: 1e-3, "
        f"launcher: [accelerate, launch, --config_file, {ROOT}/configs/two_cpu_processes.yaml]}}"
    )


@pytest.mark.slow
def test_training_on_two_nodes(here, cluster, tiny_lm, monkeypatch):
    """A process on each, stopped in the middle: the model of two processes on one node that are not stopped."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("MAIN_PROCESS_IP", "127.0.0.1")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    write(here, train_section(tiny_lm), "slurm: {train: {gres: none, cpus: 1, nodes: 2}}")
    result = subprocess.run(
        [sys.executable, ROOT / "scripts/run.py", "run.yaml", "--set", "output_dir=one"], capture_output=True
    )
    assert result.returncode == 0, result.stderr
    assert submit().returncode == 0
    (number,) = (job["id"] for job in support.last_jobs(here))
    cluster.wait(lambda: list(here.glob("out/train/checkpoint-10/checkpoint_files.json")), 300)
    cluster.call("scancel", "--signal=USR1", "--batch", number)
    assert end(cluster, number, 240) == {str(number): "COMPLETED"}, log(here)
    said = log(here)
    assert "x 2 processes" in said and "stopped by a signal after saving step" in said and "restart 1" in said
    assert (here / "out/train/model.safetensors").read_bytes() == (here / "one/train/model.safetensors").read_bytes()
    assert json.loads((here / "out/run/train.json").read_text())["exit_code"] == 0
    assert submit().stdout == "all stages are complete\n"


# All stages, as arrays and merges


@pytest.fixture
def whole(here, tiny_nllb, monkeypatch):
    """A folder with a run file of all stages, and what scripts/run.py makes of it, in `one`."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Stub() as stub:
        write(here, support.whole_run(stub.url("openai"), tiny_nllb))
        command = [sys.executable, ROOT / "scripts/run.py", "run.yaml", "--set", "output_dir=one"]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        yield here


@pytest.mark.slow
def test_a_whole_run(whole, cluster):
    assert submit().returncode == 0
    again = submit()
    assert again.returncode == 2 and "jobs of this run are queued or running, such as" in again.stderr
    states = support.wait_for_all(cluster, whole)
    assert set(states.values()) == {"COMPLETED"}, log(whole)
    assert support.results(whole / "out") == support.results(whole / "one")
    assert in_process("scripts/verify.py", "out").returncode == 0
    assert submit().stdout == "all stages are complete\n"
    # Flags of a stage, and all behind it
    first = [line.split()[1] for line in submit("--set", "decontamination.ngram_size=9").stdout.splitlines()[:-1]]
    assert first == ["decontamination,", "decontamination-merge:", "main,", "main-merge:", "evaluate:"]
    cluster.call("scancel", "--user=root")
    cluster.wait(lambda: set(cluster.jobs().values()) <= support.ENDED)


@pytest.mark.slow
def test_a_task_that_failed_runs_alone(whole, cluster):
    """kill -9 of one task's process: the jobs behind are cancelled, and submitting again runs that task and what is behind it."""
    killed = []

    def kill_one() -> None:
        for pid in support.processes_of(whole, "datagen.py", "--stages generate", "--shard_index 1"):
            if not killed:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    assert submit().returncode == 0
    states = support.wait_for_all(cluster, whole, kill_one)
    assert states["generate_1"] == "FAILED" and {states["generate_0"], states["generate_2"]} == {"COMPLETED"}
    others = {state for name, state in states.items() if not name.startswith("generate_")}
    assert others == {"CANCELLED"} and "exit code 137, killed, perhaps for its memory: see above" in log(whole)
    result = submit()
    assert "generate, 1 of 3 tasks: not run yet" in result.stdout and support.last_jobs(whole)[0]["tasks"] == [1], (
        result.stdout
    )
    assert set(support.wait_for_all(cluster, whole).values()) == {"COMPLETED"}, log(whole)
    assert support.results(whole / "out") == support.results(whole / "one")


@pytest.mark.slow
def test_random_kills(cluster, tmp_path, tiny_nllb):
    """A few of the campaign of scripts/perf/slurm_kills.py, in each stage one."""
    found = slurm_kills.campaign(cluster, tmp_path / "runs", tiny_nllb, kills=7, seed=1)
    assert found["by_stage"] == dict.fromkeys(slurm_kills.STAGES, 1) and found["equal"]


@pytest.mark.slow
def test_an_experiment_under_slurm(cluster, tmp_path, tiny_lm, monkeypatch):
    """Its jobs leave the table that scripts/compare.py makes of the same folders, and nothing to be done."""
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(ROOT)
    section = "[generate, translate]\nslurm: {gres: none, cpus: 1, generate: {shards: 2}}"
    path = small(tmp_path, tiny_lm, **{"[generate, translate]": section, "seeds: [1, 2]": "seeds: [1]"})
    result = submit(file=str(path))
    assert result.returncode == 0, result.stderr
    states = support.wait_for_all(cluster, tmp_path, seconds=1200)
    assert set(states.values()) == {"COMPLETED"}, log(tmp_path)
    table = (tmp_path / "out/comparison.json").read_bytes()
    assert [one["name"] for one in json.loads(table)["variants"]] == ["cold", "hot", "mixed", "nothing"]
    assert submit(file=str(path)).stdout == "all stages are complete\n"
    assert in_process("scripts.compare", path).returncode == 0
    assert (tmp_path / "out/comparison.json").read_bytes() == table


@pytest.mark.slow
def test_rounds_under_slurm(cluster, tmp_path, tiny_lm, monkeypatch):
    """The held-out score falls in round 1: they end, the jobs of round 2 do nothing, and scripts/run.py finds all done."""
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(ROOT)
    changed = {"evaluate: {": "slurm: {gres: none, cpus: 1, translate: {shards: 2}}\nevaluate: {"}
    path = rounds_file(tmp_path, tiny_lm, **changed, **{"patience: 1": "patience: 0"})
    result = submit(file=str(path))
    assert result.returncode == 0, result.stderr
    states = support.wait_for_all(cluster, tmp_path, seconds=1200)
    assert set(states.values()) == {"COMPLETED"} and "round-2-evaluate" in states, log(tmp_path)
    table = (tmp_path / "out/rounds.json").read_bytes()
    found = json.loads(table)
    assert [one["round"] for one in found["rounds"]] == [0, 1] and "has not risen for 1 round" in found["stopped"]
    assert not list(tmp_path.glob("out/round-2/*"))
    assert submit(file=str(path)).stdout == "all stages are complete\n"
    assert in_process("scripts.run", path).returncode == 0
    assert (tmp_path / "out/rounds.json").read_bytes() == table
