"""scripts/doctor.py and GPUs. There was none: an nvidia-smi that prints what drivers report stands in for one."""

import json
import os
from types import SimpleNamespace

import pytest

from tests.support.doctor_runs import (
    GB10,
    H100,
    V100,
    doctor,
    findings,
    findings_here,
    llama_8b,
    nvidia_smi,
    of,
    write_run,
)
from tests.support.runs import in_process
from topxgen.doctor import arithmetic, checkpoints, gpus
from topxgen.training.model import TrainableModel, count_parameters


def test_the_gpus_of_a_compute_node(tmp_path):
    run = write_run(tmp_path, llama_8b(tmp_path / "llama"), train="bf16: true")
    found = findings_here(run, "--gpu", "h100", code=1)
    writes, trains = of(found, "memory")
    assert "weights 16.1 GB on 1 x 1 GPU of 85.5 GB" in writes and "128.5 GB on each GPU of 85.5 GB" in trains
    assert of(found, "gpus") == ["GPU: 1 x H100, 85.5 GB (--gpu); those of this machine are not looked at -> "]
    found = findings_here(run, "--gpu", "A100-40", "--num_gpus", 2, code=1)
    assert "weights 16.1 GB on 2 x 1 GPU of 42.9 GB" in of(found, "memory")[0]
    small = findings_here(run, "--gpu", "12GB", code=1)
    assert "weights 16.1 GB on 1 x 1 GPU of 12.0 GB" in of(small, "memory", "problem")[0]
    old = findings_here(run, "--gpu", "V100-32", code=1)
    assert any("--bf16 needs a GPU of capability 8.0 or more; V100-32 has 7.0" in text for text in of(old, "packages"))
    for words, says in (
        (("--gpu", "H10"), "--gpu 'H10' does not exist; choose one of B200, H200"),
        (("--gpu", "0GB"), "pass more than 0 GB"),
        (("--num_gpus", 2), "--num_gpus has no effect without --gpu"),
    ):
        result = in_process("scripts/doctor.py", run, *words)
        assert result.returncode == 2 and result.stderr.count("\n") == 1 and says in result.stderr, result.stderr
    assert "--prices has no effect without RUN.yaml" in in_process("scripts/doctor.py", "--prices", 1, 2).stderr
    assert "on a login node: --gpu NAME" in of(findings_here(run, code=1), "gpus", "note")[0]


def test_every_card_is_found_by_the_name_that_drivers_give_it():
    names = {
        "NVIDIA H100 80GB HBM3": "H100", "NVIDIA H100 PCIe": "H100-PCIe", "NVIDIA A100-SXM4-40GB": "A100-40",
        "NVIDIA A100-PCIE-40GB": "A100-40", "NVIDIA A100 80GB PCIe": "A100-80", "NVIDIA A100-SXM4-80GB": "A100-80",
        "NVIDIA L40S": "L40S", "NVIDIA L40": "L40", "NVIDIA L4": "L4", "NVIDIA A10G": "A10G", "NVIDIA A40": "A40",
        "Tesla V100-SXM2-16GB": "V100-16", "Tesla V100-SXM2-32GB": "V100-32", "Tesla T4": "T4", "NVIDIA H200": "H200",
        "NVIDIA GeForce RTX 4090": "RTX-4090", "NVIDIA RTX A6000": "RTX-A6000", "NVIDIA A30": "A30", "NVIDIA B200": "B200",
        "NVIDIA GeForce RTX 3090": "RTX-3090",
    }  # fmt: skip
    for name, key in names.items():
        assert arithmetic.card(name) is arithmetic.CARDS[key], name
    assert set(names.values()) == set(arithmetic.CARDS) and arithmetic.card("NVIDIA GB10") is None


def memory_of(tmp_path, rows, launcher="", more="", train="", code=None, **environment) -> tuple[list[str], list[dict]]:
    run = write_run(tmp_path, llama_8b(tmp_path / "llama"), more=more, train=f"{train}{launcher}bf16: true")
    found = findings(run, PATH=nvidia_smi(tmp_path / "bin", rows), code=code, **environment)
    return of(found, "memory"), found


def test_llama_8b_on_one_h100(tmp_path):
    (writes, trains), found = memory_of(tmp_path, [H100.format(0, 0, 4)], code=1)
    assert (
        "weights 16.1 GB on 1 x 1 GPU of 85.5 GB, of which vLLM takes 90%; KV cache 1.1 GB for a sequence of 8,192 tokens"
        in writes
    )
    assert "60.9 GB free for it: 56 at a time" in writes
    assert (
        "full fine-tuning of 8.03 B parameters, one process: 128.5 GB on each GPU of 85.5 GB" in trains
        and "does not fit" in trains
    )
    assert "built for the CPU" in of(found, "driver", "problem")[0]


def test_llama_8b_trained_on_four_with_zero_3_and_with_lora(tmp_path):
    rows = [H100.format(i, i, 4) for i in range(4)]
    (writes, trains), _ = memory_of(
        tmp_path, rows, "launcher: [accelerate, launch, --config_file, configs/zero3.yaml]\n  "
    )
    assert "on 4 x 1 GPU" in writes and "4 GPUs, ZeRO-3: 32.1 GB on each GPU" in trains and "does not fit" not in trains
    for flags, takes in (
        ("bf16: true", "16.1 GB, one process: 17.4 GB on each GPU"),
        ("seed: 1", "32.1 GB in float32, one process: 33.5 GB on each GPU"),
        # 6.98 B parameters in 4 or 8 bits, and 1.05 B of embeddings and output layer in float32
        ("bf16: true\n  load_in_4bit: true", "7.8 GB, one process: 9.1 GB on each GPU"),
        ("bf16: true\n  load_in_8bit: true", "11.2 GB, one process: 12.5 GB on each GPU"),
    ):
        run = write_run(tmp_path, tmp_path / "llama", train=f"use_peft: true\n  lora_r: 32\n  {flags}")
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        trains = of(findings(run, PATH=path, CUDA_VISIBLE_DEVICES="2"), "memory")[1]
        assert f"LoRA of rank 32 (83.9 M parameters) on weights of {takes}" in trains


def test_a_small_gpu_that_others_use(tmp_path):
    row = V100.replace("16384, 0", "16384, 9000")
    (writes, _), found = memory_of(tmp_path, [row], more="dtype: float32", code=1)
    assert "weights 32.1 GB on 1 x 1 GPU of 17.2 GB" in writes and "do not fit -> use more or larger GPUs" in writes
    assert "9.4 GB in use by processes that are not shown here" in of(found, "gpus", "note")[0]
    assert any(
        "capability 8.0 or more; Tesla V100-SXM2-16GB has 7.0" in text for text in of(found, "packages", "problem")
    )


def test_vllm_does_not_start_on_a_gpu_that_is_in_use(tmp_path):
    users = "GPU-00000000-1111-2222-3333-444444444444, 4711, /usr/bin/python, with, commas, 20000"
    run = write_run(tmp_path, llama_8b(tmp_path / "llama"))
    found = findings(run, PATH=nvidia_smi(tmp_path / "bin", [H100.format(0, 0, 20000)], users=users), code=1)
    assert "21.0 GB in use by process 4711 (python, with, commas)" in of(found, "gpus", "note")[0]
    [text] = of(found, "memory", "problem")
    assert (
        "64.5 GB are free on GPU 0: vLLM will not start -> wait, use other GPUs, or --gpu_memory_utilization 0.75"
        in text
    )


def test_a_worker_of_ray_has_as_many_gpus_as_an_engine_without_it(tmp_path):
    model = llama_8b(tmp_path / "llama")
    for more, says in (
        ("", "on 1 x 2 GPU of 17.2 GB"),
        ("distributed: ray", "on 1 x 2 GPU of 17.2 GB"),
        (
            "distributed: ray\n  tensor_parallel_size: 1",
            "on 2 x 1 GPU of 17.2 GB, of which vLLM takes 90%: they do not fit",
        ),
        ("distributed: ray\n  tensor_parallel_size: 2", "on 1 x 2 GPU of 17.2 GB"),
    ):
        run = write_run(tmp_path, model, more=more, train="use_peft: true\n  bf16: true\n  load_in_4bit: true")
        assert says in of(findings_here(run, "--gpu", "16GiB", "--num_gpus", 2, code=1), "memory")[0]


def test_the_longest_sequence_that_fits(tmp_path):
    run = write_run(tmp_path, llama_8b(tmp_path / "llama"))
    row = H100.format(0, 0, 4).replace("81559", "17900")  # 0.8 GB are left
    [text] = of(findings(run, PATH=nvidia_smi(tmp_path / "bin", [row]), code=1), "memory", "problem")[:1]
    assert "not one fits -> --max_model_len 4096" in text


def test_what_is_not_known_of_gpus_is_said(tmp_path):
    (both,), found = memory_of(tmp_path, [GB10], code=1)
    assert "memory unknown" in of(found, "gpus", "note")[0] and both.startswith(
        f"{tmp_path}/llama: datagen, train: unknown: the memory of the GPU is not listed; weights take 16.1 GB"
    )
    users = "GPU-00000000-1111-2222-3333-444444444444, 4711, python, [N/A]"
    [used] = gpus.check(SimpleNamespace(gpus=gpus.parse(GB10, users)))
    assert "capability 12.1; in use by process 4711 (python)" in used.text
    found = findings(
        PATH=nvidia_smi(
            tmp_path / "bad", ["NVIDIA-SMI has failed because it couldn't communicate with the driver"], code=9
        )
    )
    assert "unknown: nvidia-smi failed (NVIDIA-SMI has failed" in of(found, "gpus", "note")[0]


def test_instances_of_mig_do_not_have_the_memory_of_the_gpu(tmp_path):
    row = H100.format(0, 0, 4).replace("Disabled", "Enabled")
    run = write_run(tmp_path, llama_8b(tmp_path / "llama"), train="use_peft: true")
    path = nvidia_smi(tmp_path / "bin", [row])
    found = findings(run, PATH=path, code=1)
    [text] = of(found, "gpus", "note")
    assert (
        "MIG: a process gets one of its instances, whose memory is unknown -> name instances of nvidia-smi -L" in text
    )
    assert "unknown: the memory of the GPU is not listed" in of(found, "memory")[0]
    rows = json.loads(doctor(run, "--json", PATH=path).stdout)["estimates"]
    assert [row["hours"] for row in rows if row["stage"] == "train"] == [None]


def test_gpus_of_two_kinds(tmp_path):
    other = V100.replace("0, GPU-00000000", "1, GPU-00000001")
    run = write_run(tmp_path, llama_8b(tmp_path / "llama"), train="use_peft: true\n  fp16: true")
    path = nvidia_smi(tmp_path / "bin", [H100.format(0, 0, 4), other])
    result = doctor(run, "--json", PATH=path)
    said = json.loads(result.stdout)
    [text] = of(said["findings"], "gpus", "note")
    assert "H100 80GB HBM3, Tesla V100-SXM2-16GB: memory is compared with the smallest, hours are unknown" in text
    assert "by UUID" in text and "GPU of 17.2 GB" in of(said["findings"], "memory")[0]
    assert {row["hours"] for row in said["estimates"]} == {None}
    numbered = of(findings(run, PATH=path, CUDA_VISIBLE_DEVICES="0", code=1), "gpus", "note")
    assert "CUDA numbers GPUs of several kinds by their speed" in numbered[0] and len(numbered) == 2
    assert "hides all 2" in of(findings(PATH=path, CUDA_VISIBLE_DEVICES="", code=1), "gpus", "problem")[0]
    for name, more in (("0", {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}), ("GPU-00000000", {})):
        [text] = of(findings(run, PATH=path, CUDA_VISIBLE_DEVICES=name, code=1, **more), "gpus", "note")
        assert text.startswith("GPU: 1 more of this machine are hidden")


def test_gpus_that_do_not_answer(tmp_path):
    """Real outputs: a handle that cannot be had, alone and after a healthy GPU; a GPU that fell off its bus."""
    lost = "1, GPU-00000001-1111-2222-3333-444444444444" + ", [GPU is lost]" * 5 + ", 570.86.15"
    handle = "Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error"
    found = findings(PATH=nvidia_smi(tmp_path / "alone", [handle]))
    assert of(found, "gpus") == [
        f"GPU: unknown: nvidia-smi says: {handle} -> ask whoever runs the machine; in a container, start it with the GPUs"
    ]
    found = findings(PATH=nvidia_smi(tmp_path / "after", [H100.format(0, 0, 4), handle]), code=1)
    assert handle in of(found, "gpus", "note")[0] and "H100" in of(found, "gpus", "ok")[0]
    found = findings(PATH=nvidia_smi(tmp_path / "lost", [H100.format(0, 0, 4), lost]), code=1)
    assert of(found, "gpus", "problem")[0].startswith("GPU 1: [GPU is lost]: it does not answer -> leave it out")
    run = write_run(tmp_path, llama_8b(tmp_path / "llama"))
    found = findings(run, PATH=nvidia_smi(tmp_path / "run_lost", [H100.format(0, 0, 4), lost]), code=1)
    assert "weights 16.1 GB on 1 x 1 GPU of 85.5 GB" in of(found, "memory")[0], "that is lost runs no engine"
    assert "none of NVIDIA's" in of(findings(PATH=nvidia_smi(tmp_path / "no", ["No devices were found"])), "gpus")[0]


def test_hidden_gpus(tmp_path):
    path = nvidia_smi(tmp_path / "bin", [H100.format(i, i, 4) for i in range(2)])
    assert of(findings(PATH=path, CUDA_VISIBLE_DEVICES="GPU-00000001"), "gpus", "ok")[0].startswith("GPU 1: ")
    for names in ("7", "0,0", "1,0,1"):  # torch and CUDA take none of a list that repeats one
        assert "hides all 2" in of(findings(PATH=path, CUDA_VISIBLE_DEVICES=names, code=1), "gpus", "problem")[0]


@pytest.mark.parametrize(
    ("cuda", "level", "says"),
    [("12.4", "problem", "runs CUDA up to 12.4"), ("13.0", "ok", "torch 2.13.0+cpu for CUDA 13.0")],
)
def test_a_driver_that_is_too_old_for_torch(tmp_path, cuda, level, says):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('torch was imported')")
    (tmp_path / "torch" / "version.py").write_text("cuda: Optional[str] = '13.0'\n")
    path = nvidia_smi(tmp_path / "bin", [H100.format(0, 0, 4)], cuda)
    found = findings(PATH=path, PYTHONPATH=str(tmp_path))
    assert says in of(found, "driver", level)[0]
    assert any("libcublas.so.12" in text for text in of(found, "driver", "note"))


LINEAR = ["linear_attention"] * 3 + ["full_attention"]


# As at the Hub, which leaves to transformers' defaults what is commented. 8,192 tokens; layers * tokens * numbers of keys and values.
@pytest.mark.parametrize(
    ("config", "numbers"),
    [
        (dict(num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, hidden_size=4096), 32 * 8192 * 2 * 8 * 128),
        # layer_types: each sixth has no window
        (dict(model_type="gemma3", text_config=dict(model_type="gemma3_text", num_hidden_layers=62, num_attention_heads=32,
              num_key_value_heads=16, head_dim=128, sliding_window=1024)), (10 * 8192 + 52 * 1024) * 2 * 16 * 128),
        # and 8 heads, 4 of keys, of 256
        (dict(model_type="gemma3", text_config=dict(model_type="gemma3_text", num_hidden_layers=34, hidden_size=2560,
              sliding_window=1024)), (5 * 8192 + 29 * 1024) * 2 * 4 * 256),
        (dict(model_type="qwen2", num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2, hidden_size=896,
              sliding_window=1024, use_sliding_window=False), 24 * 8192 * 2 * 2 * 64),
        (dict(model_type="mistral", num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, hidden_size=4096,
              sliding_window=4096), 32 * 8192 * 2 * 8 * 128),  # at most
        (dict(num_hidden_layers=27, num_attention_heads=16, num_key_value_heads=16, hidden_size=2048, kv_lora_rank=512,
              qk_rope_head_dim=64), 27 * 8192 * (512 + 64)),  # DeepSeek-V2-Lite
        (dict(num_hidden_layers=48, num_attention_heads=16, num_key_value_heads=2, head_dim=256, layer_types=LINEAR * 12),
         12 * 8192 * 2 * 2 * 256),  # Qwen3-Next
        (dict(model_type="gpt2", n_layer=12), 12 * 8192 * 2 * 12 * 64),
    ],
    ids=["Llama 3 8B", "Gemma 3 27B", "Gemma 3 4B", "Qwen 2", "Mistral 7B", "DeepSeek", "Qwen3-Next", "GPT-2"],
)  # fmt: skip
def test_the_kv_cache_of_architectures(config, numbers):
    own = checkpoints.attention(config)
    assert own.kv_bytes(8192) == 2 * numbers and own.kv_bytes(8192, 4) == 4 * numbers
    assert own.kv_bytes(100) == own.kv_bytes(200) / 2


def test_the_kv_cache_has_the_precision_of_the_model(tmp_path):
    llama = llama_8b(tmp_path / "llama")
    for flags, takes in (
        ("dtype: float32", "2.1 GB for a sequence of 8,192 tokens, 44.8 GB free for it: 20 at a time"),
        (
            "engine_args: [kv_cache_dtype=fp8]",
            "0.5 GB for a sequence of 8,192 tokens, 60.9 GB free for it: 113 at a time",
        ),
    ):
        found = findings_here(write_run(tmp_path, llama, more=flags), "--gpu", "H100", code=1)
        assert takes in of(found, "memory")[0]


TEXT = dict(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
VISION = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14
)


@pytest.mark.parametrize(
    ("name", "config", "active"),
    [
        ("MixtralConfig", TEXT | dict(num_local_experts=4, num_experts_per_tok=1), 2 * 3 * 3 * 64 * 128),
        ("Gemma3Config", dict(text_config=TEXT | {"head_dim": 32}, vision_config=VISION, mm_tokens_per_image=4), 0),
    ],
    ids=["experts", "vision"],
)  # fmt: skip
def test_parameters_are_those_of_transformers_and_peft(tmp_path, name, config, active):
    """`active`: of 4 experts a token passes through one."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**config))
    model.save_pretrained(tmp_path)
    own, every = checkpoints.read(tmp_path), count_parameters(model)[1]
    assert own.parameters == every and own.active_parameters == every - active
    arguments = {"lora_r": 8, "lora_alpha": 8, "lora_dropout": 0.0, "use_dora": False, "target_modules": None}
    trainable = SimpleNamespace(
        is_decoder=True, args=SimpleNamespace(**arguments, load_in_8bit=False, load_in_4bit=False)
    )
    adapted = TrainableModel._with_adapters(trainable, model)
    assert own.adapter_parameters(8) == own.adapter_parameters(8, ["all-linear"]) == count_parameters(adapted)[0]


@pytest.mark.parametrize(
    ("stage", "each"), [(0, 16), (1, 4 + 12 / 4), (2, 2 + 14 / 4), (3, 16 / 4)], ids=lambda value: str(value)
)
def test_zero_shares_optimizer_then_gradients_then_weights(stage, each):
    assert arithmetic.training_bytes(0, 1000, 4, stage) == 1000 * each
