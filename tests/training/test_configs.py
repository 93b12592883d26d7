"""configs/ and the scripts that launch training: read by accelerate and DeepSpeed's own code, without starting it.

tests/test_zero3.py trains with them.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import util
from pathlib import Path

import pytest

from tests.support.runs import ROOT

CONFIGS = ROOT / "configs"
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.sh"), *(ROOT / "scripts").glob("*.slurm")])
YAML = sorted(path.name for path in CONFIGS.glob("*.yaml"))
JSON = sorted(path.name for path in CONFIGS.glob("*.json"))
# processes, precision, environment that tells train.py how to run
EXPECTED = {
    "cpu.yaml": (1, "no", {"ACCELERATE_USE_CPU": "True"}),
    "one_gpu.yaml": (1, "bf16", {"ACCELERATE_USE_CPU": "False"}),
    "two_cpu_processes.yaml": (2, "no", {}),
    "four_gpus.yaml": (4, "bf16", {}),
    "zero2.yaml": (4, "bf16", {"ZERO_STAGE": "2", "OFFLOAD_OPTIMIZER_DEVICE": "none"}),
    "zero3.yaml": (4, "bf16", {"ZERO_STAGE": "3", "OFFLOAD_OPTIMIZER_DEVICE": "none", "OFFLOAD_PARAM_DEVICE": "none"}),
    "zero3_offload.yaml": (
        4,
        "bf16",
        {"ZERO_STAGE": "3", "OFFLOAD_OPTIMIZER_DEVICE": "cpu", "OFFLOAD_PARAM_DEVICE": "cpu"},
    ),
    "multi_node.yaml": (8, "bf16", {"ZERO_STAGE": "3", "OFFLOAD_PARAM_DEVICE": "none"}),
}
NODES = ["--num_machines", "2", "--machine_rank", "1", "--main_process_ip", "node0", "--main_process_port", "12345"]
NODES += ["--num_processes", "8"]


def launched(name: str, *options: str):
    """What `accelerate launch` makes of a config and a command line: its arguments, and the environment for train.py."""
    from accelerate.commands import launch
    from accelerate.utils import launch as environments

    options = [*options, *(NODES if name == "multi_node.yaml" else [])]
    train = ["train.py", "--gradient_accumulation_steps", "4"]
    parsed = launch.launch_command_parser().parse_args(["--config_file", str(CONFIGS / name), *options, *train])
    args, defaults, _ = launch._validate_launch_command(parsed)
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        return args, environments.prepare_deepspeed_cmd_env(args)[1]
    if args.multi_gpu:
        return args, environments.prepare_multi_gpu_env(args)
    return args, environments.prepare_simple_launcher_cmd_env(args)[1]


def test_there_is_an_expectation_for_each():
    assert sorted(EXPECTED) == YAML and JSON == ["deepspeed_zero2.json", "deepspeed_zero3.json"]


@pytest.mark.parametrize("name", YAML)
def test_accelerate_reads_it(name):
    from accelerate.commands import launch
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

    config = load_config_from_file(str(CONFIGS / name))  # refuses unknown keys
    assert isinstance(config, ClusterConfig)
    known = vars(launch.launch_command_parser().parse_args(["train.py"]))
    assert set(config.deepspeed_config) <= set(known)  # but takes any here
    processes, precision, environment = EXPECTED[name]
    args, variables = launched(name)
    assert (args.num_processes, args.mixed_precision) == (processes, precision)
    assert variables["ACCELERATE_MIXED_PRECISION"] == precision
    assert args.training_script == "train.py" and args.training_script_args[-1] == "4"
    deepspeed = config.distributed_type.value == "DEEPSPEED"
    assert args.use_deepspeed == deepspeed and args.multi_gpu == (not deepspeed and processes > 1)
    prefix = "ACCELERATE_DEEPSPEED_" if deepspeed else ""
    for key, value in environment.items():
        assert variables[prefix + key] == value, key
    if deepspeed:
        # Left to train.py's flags; without a value accelerate could put one of its own.
        assert variables["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "auto"
        assert variables["ACCELERATE_GRADIENT_CLIPPING"] == "auto"
    if environment.get("ZERO_STAGE") == "3":
        assert variables["ACCELERATE_DEEPSPEED_ZERO3_INIT"] == "true"
        assert variables["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] == "true"


def test_what_a_command_line_changes():
    args, _ = launched("zero3.yaml", "--num_processes", "2")
    assert args.num_processes == 2 and args.nproc_per_node == "2"
    args, _ = launched("multi_node.yaml")
    assert (args.nnodes, args.node_rank, args.nproc_per_node) == ("2", 1, "4")
    assert (args.rdzv_backend, args.rdzv_endpoint) == ("static", "node0:12345")
    # Several nodes without the number of processes are refused, not guessed.
    from accelerate.commands import launch

    config = ["--config_file", str(CONFIGS / "multi_node.yaml"), "train.py"]
    with pytest.raises(ValueError, match="--num_processes"):
        launch._validate_launch_command(launch.launch_command_parser().parse_args(config))


@pytest.mark.parametrize("name", YAML)
def test_the_comment_shows_a_command_that_uses_it(name):
    lines = (CONFIGS / name).read_text(encoding="utf-8").splitlines()
    comment = [line for line in lines if line.startswith("#")]
    assert lines[: len(comment)] == comment
    assert any(f"accelerate launch --config_file configs/{name}" in line for line in comment)
    assert any("train.py" in line for line in comment)


FILL_IN = """
import json, os, sys
from types import SimpleNamespace

sys.path.insert(0, sys.argv[1])
import train
from topxgen.training import arguments
from transformers import LlamaConfig, M2M100Config
from transformers.integrations.deepspeed import propagate_args_to_deepspeed

LLAMA, NLLB = LlamaConfig(hidden_size=4096), M2M100Config(d_model=1024)
answers = []
for job in json.loads(sys.argv[2]):
    os.environ.update(job["environment"])
    flags = ["--model_name_or_path", "m", "--output_dir", sys.argv[3], "--per_device_train_batch_size", job["rows"],
             "--gradient_accumulation_steps", job["accumulated"], "--bf16", "--max_steps", "100"]
    flags += ["--deepspeed", job["json"]] if job["json"] else []
    args = arguments.training_arguments(train.build_parser().parse_args(flags), "eval_loss", True, False)
    plugin = args.deepspeed_plugin
    if not job["json"]:  # what Trainer does with settings that come from accelerate
        propagate_args_to_deepspeed(SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin)), args)
    model = SimpleNamespace(config=NLLB if job["nllb"] else LLAMA)
    plugin.hf_ds_config.trainer_config_finalize(args, model, 100)
    answers.append({"config": plugin.hf_ds_config.config, "stage": plugin.zero_stage, "init": plugin.zero3_init_flag})
    for name in job["environment"]:
        del os.environ[name]
print("ANSWERS" + json.dumps(answers))
"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> dict[tuple, dict]:
    """What DeepSpeed would be started with, by (config, rows, accumulated, nllb), once train.py's flags are filled in.

    Where DeepSpeed is not installed, an empty package of its name lets transformers' own code run.
    """
    place = tmp_path_factory.mktemp("deepspeed")
    if util.find_spec("deepspeed") is None:
        (place / "deepspeed").mkdir()
        (place / "deepspeed" / "__init__.py").touch()
        (place / "deepspeed-0.19.8.dist-info").mkdir()
        (place / "deepspeed-0.19.8.dist-info" / "METADATA").write_text("Name: deepspeed\nVersion: 0.19.8\n")
    jobs, keys = [], []
    sharded = [name for name in YAML if "ZERO_STAGE" in EXPECTED[name][2]]
    cases = [(name, 4, 4, False) for name in sharded + JSON]
    cases += [(name, 2, 8, True) for name in ("zero3.yaml", "deepspeed_zero3.json", "deepspeed_zero2.json")]
    for key in cases:
        name, rows, accumulated, nllb = key
        variables = {}
        if name in YAML:
            before = dict(os.environ)
            made = launched(name)[1]
            variables = {k: v for k, v in made.items() if k.startswith("ACCELERATE_") and before.get(k) != v}
        path = str(CONFIGS / name) if name in JSON else None
        jobs.append({"environment": variables, "json": path, "nllb": nllb})
        jobs[-1] |= {"rows": str(rows), "accumulated": str(accumulated)}
        keys.append(key)
    result = subprocess.run(
        [sys.executable, "-c", FILL_IN, ROOT, json.dumps(jobs), place / "out"],
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return dict(zip(keys, json.loads(result.stdout.partition("ANSWERS")[2]), strict=True))


@pytest.mark.medium
def test_train_py_decides_what_the_configs_leave_open(filled):
    assert len(filled) == 9
    for (name, rows, accumulated, _), answer in filled.items():
        config = answer["config"]
        assert "auto" not in json.dumps({k: v for k, v in config.items() if k != "comment"}), name
        assert config["train_micro_batch_size_per_gpu"] == rows, name
        assert config["gradient_accumulation_steps"] == accumulated, name
        assert config["train_batch_size"] == rows * accumulated == 16, name  # of one process
        assert config["gradient_clipping"] == 1.0, name
        assert config["bf16"] == {"enabled": True} and not config["fp16"]["enabled"], name
        assert "optimizer" not in config and "scheduler" not in config, (
            name
        )  # --lr_scheduler_type is Trainer's business


@pytest.mark.medium
def test_stages_and_16_bit_weights(filled):
    for (name, *_), answer in filled.items():
        zero = answer["config"]["zero_optimization"]
        stage = 2 if "zero2" in name else 3
        assert zero["stage"] == answer["stage"] == stage and answer["init"] == (stage == 3), name
        if stage == 3:
            assert zero["stage3_gather_16bit_weights_on_model_save"] is True, name
        if name in YAML:
            device = "cpu" if "offload" in name else "none"
            assert zero["offload_optimizer"]["device"] == zero["offload_param"]["device"] == device, name


@pytest.mark.medium
def test_sizes_that_follow_the_model(filled):
    for name, rows, accumulated, nllb, width in (
        ("deepspeed_zero3.json", 4, 4, False, 4096),
        ("deepspeed_zero3.json", 2, 8, True, 1024),
    ):
        zero = filled[name, rows, accumulated, nllb]["config"]["zero_optimization"]
        assert zero["reduce_bucket_size"] == width**2
        assert zero["stage3_prefetch_bucket_size"] == int(0.9 * width**2)
        assert zero["stage3_param_persistence_threshold"] == 10 * width


# scripts/


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_it(path):
    subprocess.run(["bash", "-n", path], check=True)
    text = path.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text and not re.search(r"\beval\b(?!\.sh)", text)


STUB = """#!{python}
import json, os, signal, sys, time
from pathlib import Path

folder = Path(os.environ["RECORDS"])
name = "rank" + os.environ.get("SLURM_NODEID", "")
ignored = signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
if os.environ.get("SAVES", "1") == "1":
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(int(os.environ.get("CODE", 1))))
kept = ("CUDA_VISIBLE_DEVICES", "ACCELERATE_USE_CPU", "HF_HUB_OFFLINE", "MASTER_PORT")
record = {{"args": sys.argv[1:], "ignored": ignored, "environment": {{k: os.environ[k] for k in kept if k in os.environ}}}}
(folder / (name + ".partial")).write_text(json.dumps(record))
os.rename(folder / (name + ".partial"), folder / (name + ".json"))
while "UNTIL_ASKED" in os.environ and not (folder / "calls").exists():
    time.sleep(0.05)
time.sleep(float(os.environ.get("SECONDS_OF_WORK", 0)))
sys.exit(int(os.environ.get("CODE", 0)))
"""


def programs(folder: Path, **texts: str) -> dict[str, str]:
    """An environment whose PATH begins with these programs; they write into `folder`."""
    (folder / "bin").mkdir()
    for name, text in {"accelerate": STUB, **texts}.items():
        (folder / "bin" / name).write_text(text.format(python=sys.executable))
        (folder / "bin" / name).chmod(0o755)
    mine = ("CONFIG", "MODEL", "DATA_DIR", "OUTPUT_DIR", "CUDA_VISIBLE_DEVICES", "ACCELERATE_USE_CPU", "HF_HUB_OFFLINE")
    kept = {k: v for k, v in os.environ.items() if k not in mine}
    return {**kept, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "RECORDS": str(folder)}


def record(folder: Path, name: str = "rank") -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def train_sh(folder: Path, *args: str, cwd: Path = ROOT, **variables: str) -> tuple[dict, str]:
    environment = {**programs(folder), **variables}
    command = ["bash", str(ROOT / "scripts" / "train.sh"), *args]
    result = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=True)
    return record(folder), result.stderr


def flags_of(args: list[str]):
    """The flags that train.py itself reads out of what accelerate got."""
    import train

    return train.build_parser().parse_args(args[args.index(str(ROOT / "train.py")) + 1 :])


def test_train_sh_is_the_published_recipe(tmp_path):
    found, said = train_sh(tmp_path)
    assert found["args"][:3] == ["launch", "--config_file", str(CONFIGS / "zero3.yaml")]
    assert found["environment"] == {}
    args = flags_of(found["args"])
    assert args.model_name_or_path == "meta-llama/Meta-Llama-3-8B" and args.dataset_name_or_path == "topxgen"
    assert " ".join(args.target_languages) == "Basque Hausa Igbo Kinyarwanda Nepali Somali Sundanese Swahili Urdu Xhosa"
    assert (args.src, args.reverse, args.targets_only, args.bf16) == ("English", True, True, True)
    assert (args.max_steps, args.per_device_train_batch_size, args.gradient_accumulation_steps) == (5000, 4, 4)
    assert (args.learning_rate, args.lr_scheduler_type, args.num_warmup_steps) == (1e-5, "cosine", 500)
    assert (args.weight_decay, args.max_length, args.test_size_ratio) == (0.01, 512, 1000)
    assert str(args.output_dir) == "outputs/Meta-Llama-3-8B-topxgen"
    # The command is printed as one could type it.
    assert said.startswith("+ accelerate launch --config_file ") and "--learning_rate 1e-5" in said


def test_arguments_and_variables_win(tmp_path):
    extra = [
        "--max_steps",
        "7",
        "--target_languages",
        "Basque",
        "--reverse",
        "false",
        "--output_dir",
        "a b $(touch no)",
    ]
    found, said = train_sh(
        tmp_path, *extra, cwd=tmp_path, MODEL="models/tiny", CONFIG=str(CONFIGS / "cpu.yaml"), DATA_DIR="x y"
    )
    assert found["args"][-len(extra) :] == extra
    args = flags_of(found["args"])
    assert (args.max_steps, args.target_languages, args.reverse) == (7, ["Basque"], False)
    assert (args.model_name_or_path, args.data_dir) == ("models/tiny", [Path("x y")])
    assert str(args.output_dir) == "a b $(touch no)" and not (tmp_path / "no").exists()
    assert found["environment"] == {"CUDA_VISIBLE_DEVICES": "0", "ACCELERATE_USE_CPU": "true"}
    again = subprocess.run(["bash", "-c", f"printf '%s\\n' {said[1:]}"], capture_output=True, text=True, cwd=tmp_path)
    assert again.stdout.splitlines()[1:] == found["args"]


def test_train_sh_on_one_gpu_and_on_several_machines(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    found, _ = train_sh(tmp_path / "a", CONFIG=str(CONFIGS / "one_gpu.yaml"), CUDA_VISIBLE_DEVICES="3")
    assert found["environment"] == {"CUDA_VISIBLE_DEVICES": "3"}  # the user's choice stays
    variables = {"NUM_MACHINES": "2", "NUM_PROCESSES": "8", "MACHINE_RANK": "0", "MAIN_PROCESS_IP": "n0"}
    found, _ = train_sh(tmp_path / "b", CONFIG=str(CONFIGS / "multi_node.yaml"), MAIN_PROCESS_PORT="12345", **variables)
    launch = found["args"][3 : found["args"].index(str(ROOT / "train.py"))]
    assert " ".join(launch) == (
        "--num_processes 8 --num_machines 2 --machine_rank 0 --main_process_ip n0 --main_process_port 12345"
    )


def test_train_sh_without_config_or_accelerate(tmp_path):
    environment = {**programs(tmp_path), "CONFIG": "configs/zero4.yaml"}
    command = ["bash", ROOT / "scripts" / "train.sh"]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and "zero4.yaml" in result.stderr and "configs/zero3.yaml" in result.stderr
    assert result.stderr.count("\n") == 1 and not (tmp_path / "rank.json").exists()


# scripts/train.slurm, with stand-ins that do what SLURM was seen to do: `scancel --signal` reaches each process of the
# step and not the batch script, `scontrol requeue` ends the job.

SRUN = """#!{python}
import os, subprocess, sys
from pathlib import Path

folder, args = Path(os.environ["RECORDS"]), sys.argv[1:]
command = args[args.index("bash"):]
(folder / "srun").write_text("\\n".join(args[: args.index("bash")]))
steps = [
    subprocess.Popen(command, env={{**os.environ, "SLURM_NODEID": str(node)}}, start_new_session=True)
    for node in range(int(os.environ["SLURM_NNODES"]))
]
(folder / "steps").write_text(" ".join(str(step.pid) for step in steps))
codes = [step.wait() for step in steps]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""
SCANCEL = """#!/bin/bash
echo "scancel $*" >>"$RECORDS/calls"
for step in $(cat "$RECORDS/steps"); do kill -USR1 -- "-$step"; done
"""
SCONTROL = """#!/bin/bash
if [ "$1 $2" = "show hostnames" ]; then printf 'n%s\\n' $(seq 0 $((SLURM_NNODES - 1))); exit; fi
echo "scontrol $*" >>"$RECORDS/calls"
for step in $(cat "$RECORDS/steps"); do kill -TERM -- "-$step" 2>/dev/null; done
exit 0
"""


def slurm(folder: Path, *args: str, nodes: int = 2, usr1: bool = False, **variables: str):
    """(exit code, output, calls of SLURM's commands) of the batch script."""
    environment = programs(folder, srun=SRUN, scancel=SCANCEL, scontrol=SCONTROL)
    environment |= {"SLURM_JOB_ID": "54321", "SLURM_JOB_NODELIST": "n[0-9]", "SLURM_NNODES": str(nodes)}
    environment |= {
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_CPUS_PER_TASK": "32",
        "LOG_DIR": str(folder / "logs"),
        **variables,
    }
    copy = folder / "slurm_script"  # SLURM runs a copy
    copy.write_text((ROOT / "scripts" / "train.slurm").read_text())
    with subprocess.Popen(
        ["bash", copy, *args], env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as job:
        if usr1:
            deadline = time.monotonic() + 300
            while len(list(folder.glob("rank*.json"))) < nodes and time.monotonic() < deadline:
                time.sleep(0.05)
            os.kill(job.pid, signal.SIGUSR1)
        output = job.communicate(timeout=500)[0]
    calls = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    return job.returncode, output, calls


def test_slurm_starts_each_node_with_its_rank(tmp_path):
    code, output, calls = slurm(tmp_path, "--max_steps", "7", "--output_dir", "a b", MODEL="models/tiny")
    assert (code, calls) == (0, []), output
    for node in (0, 1):
        found = record(tmp_path, f"rank{node}")
        launch = found["args"][1 : found["args"].index(str(ROOT / "train.py"))]
        assert (
            launch
            == (
                f"--config_file configs/multi_node.yaml --num_processes 8 --num_machines 2 --machine_rank {node} "
                "--main_process_ip n0 --main_process_port 24321"
            ).split()
        )
        args = flags_of(found["args"])
        assert (args.max_steps, str(args.output_dir), args.model_name_or_path) == (7, "a b", "models/tiny")
        assert found["environment"] == {"HF_HUB_OFFLINE": "1"}
        assert found["ignored"]  # USR1 would end the launcher
    options = (tmp_path / "srun").read_text().splitlines()
    assert {"--ntasks-per-node=1", "--kill-on-bad-exit=1", "--cpus-per-task=32", "--open-mode=append"} <= set(options)
    assert f"--output={tmp_path}/logs/%x-%j-node%n.log" in options and (tmp_path / "logs").is_dir()


def test_slurm_on_one_node_and_online(tmp_path):
    code, _, calls = slurm(tmp_path, nodes=1, CODE="3", HF_HUB_OFFLINE="0", CONFIG="configs/four_gpus.yaml")
    assert (code, calls) == (3, [])  # a fault of train.py ends the job
    found = record(tmp_path, "rank0")
    assert "configs/four_gpus.yaml" in found["args"] and found["environment"] == {"HF_HUB_OFFLINE": "0"}
    assert found["args"][found["args"].index("--num_processes") + 1] == "4"


SAVE, REQUEUE = "scancel --signal=USR1 54321", "scontrol requeue 54321"


def test_slurm_saves_and_requeues_when_the_time_is_up(tmp_path):
    code, output, calls = slurm(tmp_path, usr1=True, SECONDS_OF_WORK="400")
    assert calls == [SAVE, REQUEUE] and code == 1, output
    assert "the time limit is near" in output and "requeuing the job" in output


def test_slurm_does_not_requeue_what_is_done(tmp_path):
    code, output, calls = slurm(tmp_path, usr1=True, UNTIL_ASKED="1", SAVES="0")
    assert calls == [SAVE] and code == 0, output


def test_slurm_requeues_what_does_not_leave(tmp_path):
    begun = time.monotonic()
    _, output, calls = slurm(tmp_path, usr1=True, SECONDS_OF_WORK="600", SAVES="0", LEAVE_SECONDS="1")
    assert calls[:2] == [SAVE, REQUEUE] and time.monotonic() - begun < 400, output


def test_slurm_does_not_go_round_for_ever(tmp_path):
    code, output, calls = slurm(tmp_path, usr1=True, SECONDS_OF_WORK="400", SLURM_RESTART_COUNT="50")
    assert calls == [SAVE] and code == 1 and "MAX_RESTARTS" in output


def test_slurm_elsewhere_than_in_the_project(tmp_path):
    environment = {**os.environ, "SLURM_JOB_ID": "1"}
    script = ROOT / "scripts" / "train.slurm"
    result = subprocess.run(["bash", script], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2 and str(tmp_path) in result.stderr and result.stderr.count("\n") == 1


def test_slurm_leaves_time_to_save():
    text = (ROOT / "scripts" / "train.slurm").read_text()
    ahead = int(re.search(r"^#SBATCH --signal=B:USR1@(\d+)$", text, re.M).group(1))
    patience = int(re.search(r"LEAVE_SECONDS:-(\d+)", text).group(1))
    assert ahead - patience == 60
    # SLURM reads its lines up to the first command.
    head = text[: text.index("\nset -euo")]
    assert head.count("\n#SBATCH ") == text.count("\n#SBATCH ") == 10
