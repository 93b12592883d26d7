"""Scripts of jobs, carried out without SLURM: exit codes, marks, and what submitting again leaves out."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.perf import slurm_kills
from tests.support.run_files import CHECKED, SCORED, write
from tests.support.runs import ROOT, in_process
from tests.support.slurm import NOTHING, scripts, submit
from topxgen.common.files import write_json
from topxgen.experiments import comparison, slurm
from topxgen.experiments.chain import Chain


def put(program: Path, text: str) -> None:
    """A stand-in for one of SLURM's commands."""
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


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
        (143, None, {"BASH_ENV": "full_disk"}, "requeue 9"),
        (0, None, {}, ""),
        (1, None, {}, ""),
        (2, 1, {}, ""),
        (3, None, {}, ""),
    ],
)
def test_exit_codes_that_requeue(place, monkeypatch, code, task, variables, requeued):
    """With a stand-in for scontrol that notes what it is called with."""
    put(place / "bin/scontrol", 'echo "$@" > called')
    put(place / "full_disk", "exec > /dev/full")
    monkeypatch.setenv("PATH", f"{place}/bin:{os.environ['PATH']}")
    line = ("stage", "bash", "-c", f"exit {code}")
    job = slurm.Job("job", "evaluate", NOTHING.command, slurm.Resources(), (line,), step=NOTHING)
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


def test_a_training_that_fails_on_one_of_several_nodes_is_not_one_that_was_stopped(place):
    """srun ends the other nodes by SIGTERM, and exits as they do."""
    put(place / "bin/scontrol", "echo n1; echo n2")
    put(place / "bin/srun", "exit 143")
    variables = {"PATH": f"{place}/bin:{os.environ['PATH']}", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "n[1-2]"}
    text = f"bash {ROOT}/scripts/slurm/on_nodes.sh accelerate launch train.py"
    carry_out(text, code=1, **variables)


def test_variants_may_have_launchers_of_their_own(place):
    """With a stand-in for srun that runs the command once."""
    put(place / "bin/srun", 'while [ "$1" != bash ]; do shift; done; exec "$@"')
    (place / "launch.py").write_text("import sys; open(sys.argv[1], 'w').close()")
    flags = "model_name_or_path: m, dataset_name_or_path: udhr, target_languages: Basque"
    launcher = f"launcher: [{sys.executable}, launch.py, {{}}]"
    write(
        place,
        f"seeds: [1]\nslurm: {{gres: none}}\ntrain: {{{flags}, {launcher.format('first')}}}",
        "main: {dataset_name_or_path: udhr, src: Basque, tgt: English, inference_api: hf, k: 0}",
        f"variants: {{one: {{}}, two: {{train: {{max_steps: 2, {launcher.format('second')}}}}}}}",
    )
    (place / "out/run/slurm").mkdir(parents=True)
    shutil.copy("run.yaml", "out/run/slurm/run.yaml")  # as submit.py does
    found = scripts()
    for name, started in (("one", "first"), ("two", "second")):
        carry_out(found[f"{name}-seed-1-train"], PATH=f"{place}/bin:{os.environ['PATH']}", SLURM_NNODES="1")
        assert (place / started).exists()


@pytest.mark.medium
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
    assert list(found) == ["decontamination", "decontamination-merge", "evaluate"], "what it reads is written anew"
    assert (
        "#SBATCH --array=0-1\n" in found["decontamination"]
        and "Basque_translate.jsonl has changed" in found["decontamination"]
    )


COMPARED = """
output_dir: out
seeds: [1]
baseline: plain
train: {model_name_or_path: m}
main: {dataset_name_or_path: udhr, src: Basque, tgt: English, inference_api: hf, k: 0}
evaluate: {metrics: [chrf]}
slurm: {gres: none}
variants:
  plain: {train: null}
  other: {train: null, main: {template_key: 14}}
"""


def test_the_table_of_an_experiment_is_made_again_for_what_it_shows(place):
    """Metrics, the baseline and variants are in the file alone, which has the same name."""
    run, changed = (
        place / "run.yaml",
        {"[chrf]": "[chrf, ter]", "baseline: plain": "baseline: other", "  other:": "# other:"},
    )
    run.write_text(COMPARED)
    for job in comparison.read(run).run_jobs(["plain", "other"]):
        record = {"words": list(job.command.words), "inputs": {}, "outputs": {}, "exit_code": 0}
        path = Chain(job.folder).record_path(job.command)
        path.parent.mkdir(parents=True)
        write_json(path, record)
    mark = place / "out/run/slurm/done/comparison"
    mark.parent.mkdir(parents=True)
    write_json(place / "out/comparison.json", {})
    mark.write_text(re.search(r"JOB_DIGEST=(\w+)", scripts()["comparison"])[1])
    assert submit("--dry_run").stdout == "# all stages are complete\n"
    for old, new in changed.items():
        run.write_text(COMPARED.replace(old, new))
        shown = submit("--dry_run").stdout
        assert "# comparison  1 " in shown and "# 1 job; " in shown, new


@pytest.mark.parametrize("printed", ["12", "12;cluster", "12 jobs are waiting\n12", "", "test passed"])
def test_what_sbatch_prints_and_gets(place, monkeypatch, printed):
    """The number below a site's own lines; without one, the jobs before it are cancelled. What the run file requests comes before
    SBATCH_ variables, and a job in which submit.py runs passes none of its own on."""
    write(place, CHECKED, SCORED, "slurm: {evaluate: {partition: cpu}}")
    put(place / "bin/squeue", "printf '7 other R\\t/home/run/slurm/a.sbatch\\n8 \\377\\tx'")
    put(place / "bin/scancel", 'echo "$@" > cancelled')
    second = 'echo "$PRINTED"; env > variables; echo "$@" > called'
    put(place / "bin/sbatch", f'case "$*" in *afterok*) {second};; *) echo 11;; esac')
    monkeypatch.setenv("PATH", f"{place}/bin:{os.environ['PATH']}")
    for name, value in {
        "PRINTED": printed,
        "SLURM_JOB_ID": "5",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_CONF": "here",
        "SBATCH_ERROR": "x",
        "SBATCH_QOS": "low",
    }.items():
        monkeypatch.setenv(name, value)
    result = submit()
    if printed[:2] != "12":
        assert result.returncode == 2 and "sbatch printed no number of a job, but" in result.stderr, result.stderr
        assert (place / "cancelled").read_text() == "11\n"
        return
    assert result.returncode == 0 and "\n12  evaluate: depends" in result.stdout, result.stderr
    called = (place / "called").read_text()
    assert all(
        f"{word} " in called for word in ("--partition=cpu", "--export=ALL", "--requeue", "--dependency=afterok:11")
    )
    variables = (place / "variables").read_text()
    assert "SLURM_CONF=here" in variables and "SBATCH_QOS=low" in variables
    assert not re.search("^(SLURM_(JOB|ARRAY)|SBATCH_ERROR)", variables, re.M)


@pytest.mark.parametrize("offline", [None, "0"])
def test_what_jobs_would_lack_is_said_before_any_is_submitted(place, monkeypatch, offline):
    """Jobs do not ask the Hub unless HF_HUB_OFFLINE is set to another value where submit.py is called."""
    write(
        place,
        "train: {model_name_or_path: org/base, dataset_name_or_path: udhr, target_languages: Basque}",
        "slurm: {gres: none}",
    )
    put(place / "bin/squeue", "")
    put(place / "bin/sbatch", "echo 11")
    monkeypatch.setenv("PATH", f"{place}/bin:{os.environ['PATH']}")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    if offline:
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    result = submit()
    if offline:
        assert result.returncode == 0 and "11  train: not run yet" in result.stdout, result.stderr
    else:
        assert result.returncode == 2 and "missing in its cache" in result.stderr and "model org/base" in result.stderr
        assert not (place / "out/run/slurm/run.yaml").exists()


def test_a_run_in_a_folder_with_any_letters_counts_as_queued(place, monkeypatch):
    folder = place / "a|b"
    put(place / "bin/squeue", f"printf '7 x|y R\\t%s\\n' '{folder}/run/slurm/a.sbatch'")
    monkeypatch.setenv("PATH", f"{place}/bin:{os.environ['PATH']}")
    assert slurm.queued(folder) == ["7 x|y R"]


class InProcess:
    """subprocess.run of a script of the project."""

    @staticmethod
    def run(line: list, **_) -> subprocess.CompletedProcess:
        return in_process("scripts/slurm/submit.py", *line[2:])


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
    monkeypatch.setattr(slurm_kills, "subprocess", InProcess)
    assert slurm_kills.submit(place).endswith("logs: out/run/slurm/logs\n") and len(waited) == 2
    assert (place / "calls").read_text() == "x\n" * 3
    monkeypatch.setenv("FAILURES", "99")
    with pytest.raises(SystemExit, match="squeue failed: timed out"):
        slurm_kills.submit(place)
    assert len(waited) == 2 + 5


@pytest.mark.medium
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
    assert "decontamination_audit.json is gone" in scripts()["decontamination"]
    assert not list(place.glob("out/checked/*.jsonl"))
