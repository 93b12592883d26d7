"""scripts/slurm/submit.py: what jobs ask for, and their scripts, by its dry runs."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.experiments.test_comparison_run import small
from tests.experiments.test_rounds import write as rounds_file
from tests.support.documentation import fences
from tests.support.run_files import CHECKED, SCORED, write
from tests.support.runs import ROOT, in_process
from tests.support.slurm import scripts, submit
from topxgen.common.run_files import RunFile, read_changed
from topxgen.experiments import job_resources, slurm
from topxgen.experiments.chain import Chain, commands

DATAGEN = "datagen: {languages: Basque, model_name_or_path: m, seed_topics_path: in/topics_wiki.txt, number_of_instructions: 8"
TRAIN = "train: {model_name_or_path: m, target_languages: Basque, dataset_name_or_path: udhr"


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
    ("slurm: {extra: ['--array=0-99']}", "extra has '--array=0-99', but --array is set for each job; remove it"),
    ("slurm: {extra: [--exclusive --no-requeue]}", "but --no-requeue is set for each job"),
    ("slurm: {extra: [--exclusive --arr=0-99]}", "but --array is set for each job"),
    ("slurm: {extra: [--exclusive -a 0-99]}", "write options of sbatch"),
    ("slurm: {main: {extra: --wrap=true}}", "section slurm, main: extra has '--wrap=true'"),
    ('slurm: {extra: ["--comment=a\\nrm -rf /"]}', "write options of sbatch"),
    ("slurm: {extra: [--comment='a]}", "write options of sbatch"),
    ("slurm: {extra: [--chdir=/tmp]}", "but --chdir is set for each job"),
    ("slurm: {warning: 5}", "warning is 5, not a whole number from 60 to 65535"),
    ("slurm: {time: 3}", "with time 3 a job of decontamination gets its signal to stop as it starts, 120 s (warning) and up to 60 s"),
    (f"{TRAIN}}}\nslurm: {{gres: none, time: 1:00:00, train: {{time: 11:00}}}}", "with time 11:00 a job of train gets its signal to stop"),
    ("slurm: {decontamination: {time: 0-0:03}}", "with time 0-0:03 a job of decontamination"),
    (f"{DATAGEN}}}", "section slurm: generate loads m: set its gres"),
    (f"{DATAGEN}, inference_api: openai, use_nllb: true}}", "translate loads facebook/nllb-200-3.3B: set its gres"),
    (f"{TRAIN}}}\nslurm: {{gres: gpu:4, train: {{nodes: 2}}}}", "train on 2 nodes needs launcher: [accelerate, launch"),
    ("main: {model_name_or_path: m, tgt: Basque}", "main loads m: set its gres"),
    ("evaluate: {metrics: [gemba-da], dirs: ., judge_model_name_or_path: m}", "evaluate loads gemba-da: set its gres"),
    (f"{DATAGEN}, data_generation_pipeline: self-instruct}}\nslurm: {{gres: none, generate: {{shards: 2}}}}", "they cannot be split; set"),
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


def test_times_as_slurm_has_them():
    times = {"90": 5400, "1:30": 90, "2:03:04": 7384, "1-2": 93600, "1-02:03": 93780, "1-02:03:04": 93784}
    assert {text: job_resources.seconds(text) for text in times} == times


def test_times_that_are_long_enough(place):
    needs = "slurm: {gres: none, time: 4, evaluate: {time: 0-0:03:01}, train: {time: 0-1}}"
    write(place, CHECKED, SCORED, f"{TRAIN}}}", needs)
    found = {name: re.search(r"--time=(\S+)", text)[1] for name, text in scripts().items()}
    assert found == {"decontamination": "4", "train": "0-1", "evaluate": "0-0:03:01"}
    write(place, CHECKED, "slurm: {time: 0}")
    assert "#SBATCH --time=0\n" in scripts()["decontamination"], "SLURM's no limit"


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
    (place / "c.yaml").touch()
    write(
        place,
        f"{DATAGEN}, back_translator: apertium}}",
        "decontamination: {benchmarks: in/bench.tsv}",
        f"{TRAIN}, launcher: [accelerate, launch, --config_file, c.yaml]}}",
        "main: [{tgt: Basque, k: 0}, {tgt: Hausa, k: 0}]",
        "evaluate: {json: out/scores.json, metrics: [chrf, gemba-da], judge_inference_api: openai, judge_model_name_or_path: m}",
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
        f"stage {sys.executable} {ROOT}/scripts/merge.py out/translations \\\n    --stages main\n"
        in found["main-1-merge"]
    )
    assert "run.py" not in merge
    assert "--stages main-1\n" in found["main-1-merge"]
    for text in found.values():
        assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    assert not (place / "out").exists()
    assert list(scripts("--stages", "main-2", "evaluate")) == ["main-2", "main-2-merge", "evaluate"]
    assert "/opt/bin/python" in scripts("--python", "/opt/bin/python")["generate"]


def test_a_stage_that_has_nothing_to_do_is_a_job_all_the_same(place):
    """It was a traceback."""
    write(place, f"{DATAGEN}, stages: score, scorer: none}}")
    assert list(scripts()) == ["score"]


def test_a_budget_is_that_of_each_task(place):
    api = "inference_api: openai, use_nllb: true, prices: [1, 2], budget: 2.5"
    write(
        place,
        f"{DATAGEN}, {api}}}",
        "slurm: {gres: none, generate: {shards: 3}, translate: {shards: 1}, score: {shards: 2}}",
    )
    [line] = submit("--dry_run").stderr.splitlines()
    assert "generate: --budget 2.5 applies to each of its 3 tasks, up to 7.5 USD in all" in line


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
    (place / "configs").symlink_to(ROOT / "configs")
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
    assert [name for name in scripts(file=str(path)) if name.startswith("round-2")], "round 1 may come out otherwise"
    # All is there but round 2.
    monkeypatch.setattr(
        Chain, "what_changed", lambda chain, command, _: "" if chain.folder.name != "round-2" else "new"
    )
    assert not scripts(file=str(path))
    (tmp_path / "out/rounds.json").write_text(json.dumps(ended | {"patience": 0}))
    assert [name for name in scripts(file=str(path)) if name.startswith("round-2")]


def test_the_reason_of_a_job_is_one_line(place):
    write(place, CHECKED)
    file = RunFile(read_changed(place / "run.yaml", []), place / "run.yaml")
    (job,) = slurm.jobs(file, slurm.steps(commands(file, []), place, ["run.yaml"]), sys.executable)
    text = slurm.script(slurm.Planned(job, [], "in/a\ntouch b\n has changed"), place, "t")
    assert "\n# decontamination: in/a?touch b? has changed. scripts" in text
