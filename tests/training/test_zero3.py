"""DeepSpeed with the project's configs, really sharded, on two CPU processes that talk over gloo.

First DeepSpeed alone, against a plain loop; then train.py under `accelerate launch` with configs/zero3.yaml, against the
same run without sharding.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import slurm
from tests.support.runs import ROOT, records
from tests.training.test_checkpoints import Bomb
from topxgen.training import checkpoints

pytestmark = pytest.mark.slow
CONFIGS = ROOT / "configs"
WORKER = ROOT / "tests" / "support" / "zero3_worker.py"
DEEPSPEED = "deepspeed==0.19.8"
PACKAGES = (
    DEEPSPEED,
    "hjson==3.1.0",
    "msgpack",
    "ninja",
    "py-cpuinfo",
    "einops",
)  # what it needs beyond the requirements
# accelerate takes DeepSpeed without a GPU for a run of one process. This has it take the CPUs for GPUs, which changes nothing
# of what happens then. Python runs a module of this name at its start.
CPU_AS_GPU = """
import os, sys
from importlib import machinery

if "RANK" in os.environ:
    def accelerate_state(module):
        module.PartialState._prepare_backend = lambda *_: ("gloo", module.DistributedType.MULTI_CPU)

    def training_args(module):
        settle = module.TrainingArguments.__post_init__

        def with_gpu(self):
            self.use_cpu = False
            settle(self)

        module.TrainingArguments.__post_init__ = with_gpu
        module.is_torch_bf16_gpu_available = lambda: True

    class Finder:
        changed = {"accelerate.state": accelerate_state, "transformers.training_args": training_args}

        @classmethod
        def find_spec(cls, name, path, target=None):
            if name not in cls.changed:
                return None
            spec = machinery.PathFinder.find_spec(name, path)
            load = spec.loader.exec_module

            def load_and_change(module):
                load(module)
                cls.changed[name](module)

            spec.loader.exec_module = load_and_change
            return spec

    sys.meta_path.insert(0, Finder)
"""


@pytest.fixture(scope="module")
def environment(request, tmp_path_factory) -> dict[str, str]:
    """Variables for processes that find DeepSpeed, kept out of the environment of the other tests."""
    place = Path(request.config.cache.mkdir(DEEPSPEED))
    if not (place / "deepspeed").is_dir():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", place]
        if subprocess.run([*command, *PACKAGES], env={**os.environ, "DS_BUILD_OPS": "0"}).returncode:
            pytest.skip("deepspeed cannot be fetched here")
    start = tmp_path_factory.mktemp("start")
    (start / "sitecustomize.py").write_text(CPU_AS_GPU)
    return {
        **os.environ,
        "PYTHONPATH": f"{start}{os.pathsep}{place}",
        "PYTHONWARNINGS": "ignore",
        "ACCELERATE_TORCH_DEVICE": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "TORCH_EXTENSIONS_DIR": str(place / "extensions"),  # what DeepSpeed compiles on first use
    }


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# DeepSpeed alone.

STEPS, ROWS, LENGTH, LEARNING_RATE = 6, 4, 48, 2e-3
MAX_GRAD_NORM = 0.5  # below what the gradients have, so that clipping counts


@pytest.fixture(scope="module")
def batches(tiny_lm):
    import torch

    tokens = torch.randint(2, 800, (STEPS, ROWS, LENGTH), generator=torch.Generator().manual_seed(3))
    return tokens.tolist()


@pytest.fixture(scope="module")
def plain(tiny_lm, batches):
    """(losses, weights, gradient norms) of AdamW in one process on the whole batches."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    losses, norms = [], []
    for batch in torch.tensor(batches):
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, model.state_dict(), norms


def train(environment, tiny_lm, batches, folder: Path, config: str, stage: int) -> list[dict]:
    """The reports of two processes."""
    folder.mkdir()
    job = {"model": tiny_lm, "config": str(CONFIGS / config), "stage": stage, "batches": batches}
    job |= {"learning_rate": LEARNING_RATE, "max_grad_norm": MAX_GRAD_NORM}
    (folder / "job.json").write_text(json.dumps(job))
    rendezvous = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    workers = []
    for rank in ("0", "1"):
        variables = {**environment, **rendezvous, "RANK": rank, "LOCAL_RANK": rank}
        command = [sys.executable, WORKER, folder / "job.json"]
        with open(folder / f"output_{rank}.txt", "w") as output:
            workers.append(subprocess.Popen(command, env=variables, stdout=output, stderr=subprocess.STDOUT))
    try:
        codes = [worker.wait(timeout=300) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert codes == [0, 0], (folder / "output_0.txt").read_text() + (folder / "output_1.txt").read_text()
    return [json.loads((folder / f"report_{rank}.json").read_text()) for rank in (0, 1)]


def check_sharded(reports: list[dict]) -> None:
    """Each process holds half of every parameter, and outside a step no more than that of any but the smallest."""
    persistent = reports[0]["config"]["zero_optimization"]["stage3_param_persistence_threshold"]
    for report in reports:
        assert report["held"].keys() == reports[0]["held"].keys()
        for name, held in report["held"].items():
            assert held["shard"] == -(-held["whole"] // 2), name
            if held["kept"]:
                assert held["whole"] <= persistent and held["resident"] == held["whole"], name
            else:
                assert held["resident"] == 0, name
        whole = sum(held["whole"] for held in report["held"].values())
        assert sum(held["resident"] for held in report["held"].values()) < 0.01 * whole


def check_weights(folder: Path, plain_weights: dict, tiny_lm: str) -> None:
    """What the engine saved is a whole model, the one that plain training ends with."""
    import torch
    from transformers import AutoModelForCausalLM

    weights = torch.load(folder / "weights.pt", weights_only=True)
    assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in plain_weights.items()}
    model = AutoModelForCausalLM.from_pretrained(tiny_lm)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights, strict=True)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, plain_weights[name], atol=2e-4, rtol=0)
        assert float((tensor - before[name]).abs().max()) > 1e-3, name


def test_zero3_shards_and_learns_the_same(environment, tiny_lm, batches, plain, tmp_path):
    losses, weights, norms = plain
    assert min(norms) > MAX_GRAD_NORM and losses[0] - losses[-1] > 0.1
    reports = train(environment, tiny_lm, batches, tmp_path / "job", "deepspeed_zero3.json", 3)
    check_sharded(reports)
    for report in reports:
        assert report["losses"] == pytest.approx(losses, abs=1e-4)
    check_weights(tmp_path / "job", weights, tiny_lm)


def test_zero2_learns_the_same(environment, tiny_lm, batches, plain, tmp_path):
    reports = train(environment, tiny_lm, batches, tmp_path / "job", "deepspeed_zero2.json", 2)
    for report in reports:
        assert report["losses"] == pytest.approx(plain[0], abs=1e-4)
    check_weights(tmp_path / "job", plain[1], tiny_lm)


def test_the_check_of_sharding_can_fail(environment, tiny_lm, batches, plain, tmp_path):
    """Without ZeRO the same losses come out, of two processes that each hold everything."""
    reports = train(environment, tiny_lm, batches[:2], tmp_path / "job", "deepspeed_zero3.json", 0)
    assert reports[0]["losses"] == pytest.approx(plain[0][:2], abs=1e-4)
    with pytest.raises(AssertionError):
        check_sharded(reports)


# train.py under accelerate.


def fine_tune(environment, output: Path, launch: list, *args) -> list[dict]:
    """Run train.py by `accelerate launch`; the log that it writes."""
    port = ["--main_process_port", free_port()]
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *launch, *port, "train.py"]
    command += ["--dataset_name_or_path", "udhr", "--target_languages", "Basque", "--reverse", "--targets_only"]
    command += ["--max_length", 256, "--max_steps", 6, "--num_warmup_steps", 2, "--learning_rate", 1e-3]
    command += ["--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 2, "--logging_steps", 1]
    command += ["--eval_steps", 3, "--save_steps", 3, "--output_dir", output, *args]
    result = subprocess.run([*map(str, command)], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return records(output / "train_log.jsonl")


def values(log: list[dict], name: str) -> list[float]:
    return [entry[name] for entry in log if name in entry]


@pytest.mark.parametrize("kind", ["decoder", "decoder, chunked", "adapter, chunked", "nllb", "nllb, chunked"])
def test_train_py_sharded_or_not(environment, request, tmp_path, kind):
    """Losses, held-out losses and the model that comes out; --gradient_accumulation_steps is obeyed.

    In chunks, each of which gathers the output layer, although the processes have different numbers of tokens.
    """
    import torch
    from safetensors.torch import load_file

    model = request.getfixturevalue("tiny_nllb" if "nllb" in kind else "tiny_lm")
    file = "adapter_model.safetensors" if "adapter" in kind else "model.safetensors"
    ddp = {key: value for key, value in environment.items() if key != "PYTHONPATH"} | {"ACCELERATE_USE_CPU": "true"}
    flags = ["--model_name_or_path", model, *(["--use_peft"] if "adapter" in kind else ())]
    launch = ["--config_file", CONFIGS / "two_cpu_processes.yaml"]
    expected = fine_tune(ddp, tmp_path / "ddp", launch, *flags, "--loss_chunk_size", 0)
    launch = ["--config_file", CONFIGS / "zero3.yaml", "--num_processes", 2, "--mixed_precision", "no"]
    chunk = ["--loss_chunk_size", 30 if "chunked" in kind else 0]
    found = fine_tune(environment, tmp_path / "zero3", launch, *flags, *chunk)
    for name in ("loss", "eval_loss", "grad_norm"):
        assert len(values(expected, name)) > 1
        assert values(found, name) == pytest.approx(values(expected, name), abs=2e-3), name
    # DeepSpeed's own files: with ZeRO-3, and only then, each process has parameters to save.
    state = tmp_path / "zero3" / "checkpoint-3" / "global_step3"
    assert len(list(state.glob("zero_pp_rank_?_mp_rank_00_model_states.pt"))) == 2
    weights = load_file(tmp_path / "zero3" / file)
    for name, tensor in load_file(tmp_path / "ddp" / file).items():
        torch.testing.assert_close(weights[name], tensor, atol=2e-3, rtol=0)


def test_checkpoints_of_zero3(environment, tiny_lm, tmp_path):
    """Each is a whole 16-bit model, and training goes on from it as if nothing had happened, also after damage to the last."""
    import torch
    from transformers import AutoModelForCausalLM

    output, launch = tmp_path / "out", ["--config_file", CONFIGS / "zero3.yaml", "--num_processes", 2]
    flags = ["--model_name_or_path", tiny_lm, "--bf16"]
    log = fine_tune(environment, output, launch, *flags)
    plain = AutoModelForCausalLM.from_pretrained(tiny_lm)
    tokens = torch.arange(2, 200)[None]
    for folder in (output, output / "checkpoint-3"):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        assert model.dtype == torch.bfloat16 and model.num_parameters() == plain.num_parameters()
        with torch.no_grad():
            assert float((model(tokens).logits.float() - plain(tokens).logits).abs().max()) > 0.5
    held_out = values(log, "eval_loss")
    assert held_out[-1] < held_out[0]
    # DeepSpeed itself would run what is in the last one now.
    damaged = next((output / "checkpoint-6" / "global_step6").glob("*rank_1*_optim_states.pt"))
    torch.save({"optimizer_state_dict": Bomb(tmp_path / "ran")}, damaged)
    checkpoints.mark_complete(output / "checkpoint-6", processes=2, sharding="ZeRO-3")
    (output / "manifest_train.json").unlink()
    again = fine_tune(environment, output, launch, *flags)
    assert not (tmp_path / "ran").exists() and (output / "unusable-checkpoint-6" / "latest").is_file()
    assert values(again, "eval_loss")[-1] == pytest.approx(held_out[-1], abs=1e-4)
    assert values(again, "loss")[:3] == values(log, "loss")[:3] and len(values(again, "loss")) == 6
    assert values(again, "train_loss")[-1] == pytest.approx(values(log, "train_loss")[-1], rel=1e-3)


RUN = """
output_dir: out
train:
  model_name_or_path: {model}
  dataset_name_or_path: udhr
  target_languages: Basque
  reverse: true
  targets_only: true
  max_length: 256
  max_steps: 6
  num_warmup_steps: 2
  learning_rate: 1e-3
  per_device_train_batch_size: 2
  gradient_accumulation_steps: 2
  logging_steps: 1
  eval_steps: 3
  save_steps: 3
  launcher: [accelerate, launch, --config_file, {configs}/multi_node.yaml, --mixed_precision, "no"]
slurm: {{train: {{gres: none, cpus: 1, nodes: 2}}}}
"""


@pytest.mark.skipif(bool(slurm.missing()), reason="no SLURM here")
def test_zero3_on_two_nodes(environment, tiny_lm, tmp_path):
    """Of a SLURM on this machine, a process on each, by scripts/slurm/submit.py: the losses of two processes on one node."""
    launch = ["--config_file", CONFIGS / "zero3.yaml", "--num_processes", 2, "--mixed_precision", "no"]
    one = fine_tune(environment, tmp_path / "one", launch, "--model_name_or_path", tiny_lm)
    (tmp_path / "run.yaml").write_text(RUN.format(model=tiny_lm, configs=CONFIGS))
    with slurm.Cluster(tmp_path / "slurm", nodes=2, cpus=4) as cluster:
        own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "MAIN_PROCESS_IP": "127.0.0.1"}
        variables = environment | own | {"SLURM_CONF": cluster.environment["SLURM_CONF"]}
        command = [sys.executable, ROOT / "scripts/slurm/submit.py", "run.yaml"]
        subprocess.run(command, env=variables, cwd=tmp_path, check=True)
        states = slurm.wait_for_all(cluster, tmp_path, seconds=600)
    logs = "".join(path.read_text() for path in tmp_path.glob("out/run/slurm/logs/*"))
    assert set(states.values()) == {"COMPLETED"}, logs
    nodes = records(tmp_path / "out" / "train" / "train_log.jsonl")
    for name in ("loss", "eval_loss", "grad_norm"):
        assert values(nodes, name) == pytest.approx(values(one, name), abs=1e-5) and len(values(nodes, name)) > 1
    state = tmp_path / "out" / "train" / "checkpoint-3" / "global_step3"
    assert len(list(state.glob("zero_pp_rank_?_mp_rank_00_model_states.pt"))) == 2
