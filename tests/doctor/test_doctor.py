"""scripts/doctor.py as a user meets it. There was no GPU: an nvidia-smi that prints what drivers report stands in for one."""

import errno
import fcntl
import json
import os
import pty
import re
import stat
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from scripts import doctor as doctor_script
from tests.support.hub_server import TOKEN, HubServer
from tests.support.runs import GEMMA, ROOT, in_process
from topxgen.doctor import arithmetic, software, storage
from topxgen.doctor.rates import RATES

pytestmark = pytest.mark.usefixtures("gemma")  # the run files are about it
RUN = """
output_dir: {out}
datagen:
  languages: [Basque]
  model_name_or_path: {model}
  number_of_instructions: 100
  seed_topics_path: {topics}
  example_paragraphs: udhr
  example_sentences: udhr
  number_of_icl_demonstrations: 1
  number_of_icl_phrases: 2
  back_translator: {translator}
  scorer: {scorer}
  {more}
train:
  data_dir: ${{datagen.output_dir}}
  model_name_or_path: {model}
  target_languages: [Basque]
  max_steps: 5000
  max_length: 512
  per_device_train_batch_size: 4
  gradient_accumulation_steps: 4
  {train}
"""
H100 = "{}, GPU-0000000{}-1111-2222-3333-444444444444, NVIDIA H100 80GB HBM3, 81559, {}, 9.0, 570.86.15"
V100 = "0, GPU-00000000-1111-2222-3333-444444444444, Tesla V100-SXM2-16GB, 16384, 0, 7.0, 535.104.05"
GB10 = "0, GPU-00000000-1111-2222-3333-444444444444, NVIDIA GB10, [N/A], [N/A], 12.1, 580.95.05"
HEADER = "| NVIDIA-SMI 570.86.15   Driver Version: 570.86.15   CUDA Version: {} |"


def nvidia_smi(folder: Path, rows: list[str], cuda: str = "13.0", users: str = "", code: int = 0) -> str:
    """A folder for PATH with an nvidia-smi of these GPUs."""
    folder.mkdir()
    script = folder / "nvidia-smi"
    outputs = {"gpu": "\n".join(rows), "users": users, "header": HEADER.format(cuda)}
    for name, text in outputs.items():
        (folder / name).write_text(text)
    script.write_text(
        f'#!/bin/sh\ncd {folder}\ncase "$1" in --query-gpu=*) cat gpu;; --query-compute-apps=*) cat users;; *) cat header;; esac\n'
        f"exit {code}\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return f"{folder}:{os.environ['PATH']}"


def llama_8b(folder: Path, layers: int = 32) -> Path:
    """A checkpoint of Llama-3-8B's shape, or with more layers: whole headers, and files of holes."""
    folder.mkdir(parents=True)
    hidden, inner, kv, words = 4096, 14336, 1024, 128256
    shapes = {"model.embed_tokens.weight": (words, hidden), "lm_head.weight": (words, hidden)}
    for i in range(layers):
        own = {"q": (hidden, hidden), "k": (kv, hidden), "v": (kv, hidden), "o": (hidden, hidden)}
        shapes |= {f"model.layers.{i}.self_attn.{name}_proj.weight": shape for name, shape in own.items()}
        own = {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
        shapes |= {f"model.layers.{i}.mlp.{name}_proj.weight": shape for name, shape in own.items()}
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * shape[1]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (end, end + size)}
        end += size
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    config = dict(num_hidden_layers=layers, num_attention_heads=32, num_key_value_heads=8, hidden_size=hidden)
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192, "dtype": "bfloat16"}))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def write_run(
    tmp_path: Path, model=GEMMA, out: Path | None = None, more="", train="use_peft: true", tail="", **changes
) -> Path:
    path = tmp_path / "run.yaml"
    values = {
        "topics": ROOT / "topics" / "wikipedia_vital_topics.txt",
        "translator": "apertium",
        "scorer": "confidence",
    }
    path.write_text(
        RUN.format(model=model, out=out or tmp_path / "out", more=more, train=train, **values | changes) + tail
    )
    return path


def doctor(*words, **environment) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "COMET_", "CUDA_"))}
    env |= {"HF_HUB_OFFLINE": "1", **environment}
    if not any(name.startswith(("HF_", "PYTHON")) for name in environment):
        with mock.patch.dict(os.environ, env, clear=True):
            return in_process("scripts/doctor.py", *words)
    command = [sys.executable, "scripts/doctor.py", *map(str, words)]  # these are read once a process
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def findings(*words, code: int | None = None, **environment) -> list[dict]:
    result = doctor(*words, "--json", **environment)
    assert not result.stderr, result.stderr
    found = json.loads(result.stdout)["findings"]
    assert result.returncode == (any(row["level"] == "problem" for row in found) if code is None else code)
    return found


def findings_here(*words, code: int = 0) -> list[dict]:
    """The same in this process."""
    result = in_process("scripts/doctor.py", *words, "--json")
    assert result.returncode == code and not result.stderr, result.stderr
    return json.loads(result.stdout)["findings"]


def of(found: list[dict], check: str, level: str | None = None) -> list[str]:
    return [
        f"{row['subject']}: {row['text']} -> {row['remedy']}"
        for row in found
        if row["check"] == check and level in (None, row["level"])
    ]


# The screen


def test_the_demo_has_no_problem_fits_the_screen_asks_no_network_and_leaves_nothing(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\ndef refuse(*_, **__): raise SystemExit('a socket was opened')\n"
        "socket.socket.connect = socket.socket.bind = socket.getaddrinfo = refuse\n"
    )
    run = write_run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.iterdir())}
    result = doctor(run, PYTHONPATH=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")
    assert result.returncode == 0 and not result.stderr, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    # The first line has the path of the run file, however long.
    assert max(map(len, lines[1:])) <= 100 and "\x1b" not in result.stdout and lines[-1].startswith("0 problems")
    assert any(line.startswith("datagen: generate ") for line in lines) and any(
        line.startswith("train ") for line in lines
    )
    assert {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.iterdir())} == before


def test_a_remedy_is_below_the_problems_that_have_it(capsys):
    found = [
        doctor_script.Finding(*row)
        for row in (
            ("problem", "a", "x", "fetch it"),
            ("problem", "b", "y", "fetch it"),
            ("note", "c", "z", "fetch it"),
            ("ok", "d", "fine"),
            ("ok", "e", "fine"),
        )
    ]
    doctor_script.show_findings(found)
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "problem a x", "problem b y", "-> these 2: fetch it", "note c z", "-> fetch it", "ok d fine", "ok e fine"
    ]  # fmt: skip


def test_the_published_recipe_fits_the_screen():
    lines = doctor(ROOT / "configs/runs/topxgen.yaml", HF_HUB_OFFLINE="1", HF_HOME="/nonexistent").stdout.splitlines()
    assert max(map(len, lines[1:])) <= 100 and len(lines) < 60
    assert any("these" in line and "scripts/prefetch.py downloads it" in line for line in lines)


def test_rounds_whose_models_are_yet_to_come(gemma):
    lines = doctor(ROOT / "configs/runs/self_improvement.yaml").stdout.splitlines()
    text = " ".join(" ".join(lines).split())
    assert "round-1-datagen: unknown: outputs/self-improvement/train is not trained yet" in text
    assert "existing folder" not in text and "0.00 GB" not in text
    rows = [line for line in lines if line.startswith("round-") and "is not trained yet" not in line]
    assert len(rows) == len({line.split("  ")[0] for line in rows}) == 29, "each row names its round"
    assert {row[:8] for row in rows} == {"round-0-", "round-1-", "round-2-"}


def test_the_machine_alone_needs_no_file():
    found = findings()
    assert {row["check"] for row in found} >= {"python", "gpus", "packages", "environments", "disk", "locks"}
    assert all(row["text"] and row["level"] in ("ok", "note", "problem") for row in found)
    assert not [row for row in found if row["text"].startswith("unknown") and row["level"] == "ok"]
    assert [row for row in found if row["level"] == "problem" and not row["remedy"]] == []


def test_colours_are_for_terminals():
    reader, writer = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "scripts/doctor.py"],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TERM": "xterm", "COLUMNS": "80"},
        stdout=writer,
        stderr=writer,
    ) as process:
        os.close(writer)
        text = b""
        while True:
            try:
                text += os.read(reader, 4096)
            except OSError:
                break
    os.close(reader)
    assert process.returncode == 0 and b"\x1b[32mok" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [("datagen: [", "run.yaml"), ("datagen:\n  no_such_flag: 1\n", "no_such_flag"), ("\0\1", "run.yaml")],
)
def test_garbage_is_one_line(tmp_path, text, says):
    path = tmp_path / "run.yaml"
    path.write_text(f"output_dir: {tmp_path}/out\n{text}")
    result = doctor(path)
    assert result.returncode == 2 and not result.stdout
    assert result.stderr.count("\n") == 1 and says in result.stderr, result.stderr


# What a run lacks


def test_a_model_that_is_missing(tmp_path):
    found = findings(write_run(tmp_path, model="org/none"), code=1)
    assert of(found, "assets", "problem") == [
        "org/none: model for datagen, train: not downloaded -> scripts/prefetch.py downloads it"
    ]
    assert "unknown: whether org/none fits" in of(found, "memory")[0] and "train writes" in "".join(
        of(found, "disk", "note")
    )
    assert "not checked: offline" in of(found, "access", "note")[0]


def test_comets_environment_is_missing(tmp_path):
    run = write_run(tmp_path, tail=f"evaluate:\n  dirs: [{tmp_path}/t]\n  metrics: [comet]\n")
    [text] = of(findings(run, COMET_PYTHON=f"{tmp_path}/python"), "environments", "problem")
    assert (
        f"no interpreter {tmp_path}/python" in text and "evaluate cannot score" in text and "setup.sh --comet" in text
    )
    [text] = of(findings(run, COMET_PYTHON="/usr/bin/python3"), "environments", "problem")
    assert "no package comet for /usr/bin/python3" in text


@pytest.fixture
def gated(tmp_path):
    with HubServer(tmp_path / "repositories") as hub:
        for name in ("org/gated", "org/open"):
            folder = tmp_path / "repositories" / "models" / name
            folder.mkdir(parents=True)
            (folder / "config.json").write_text("{}")
        hub.gated.add("org/gated")
        yield hub


@pytest.mark.parametrize(
    ("model", "token", "level", "says"),
    [
        (
            "org/gated",
            "",
            "problem",
            "there is no token -> accept its terms at https://huggingface.co/org/gated and export HF_TOKEN",
        ),
        ("org/gated", "hf_other", "problem", "your token has no access"),
        ("org/gated", TOKEN, "ok", "1 of 1 may be downloaded with your token"),
        ("org/open", "", "ok", "without a token"),
        ("org/nowhere", "", "problem", "no such repository"),
    ],
)
def test_access_to_gated_models(tmp_path, gated, model, token, level, says):
    environment = {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": gated.url,
        "no_proxy": "127.0.0.1",
        "HF_HOME": str(tmp_path / "home"),
    }
    found = findings(write_run(tmp_path, model=model), **environment, **({"HF_TOKEN": token} if token else {}))
    [text] = of(found, "access", level)
    assert says in text
    assert not any("resolve" in path for path in gated.asked), "nothing is downloaded"


@pytest.fixture
def asked(gated, tmp_path, monkeypatch) -> Path:
    """This process reaches the small Hub, however slow the machine is; the folder of its cache."""
    home = tmp_path / "home"
    own = {"ENDPOINT": gated.url, "HUGGINGFACE_CO_URL_TEMPLATE": gated.url + "/{repo_id}/resolve/{revision}/{filename}"}
    own |= {"HF_HUB_OFFLINE": False, "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}
    for name, value in own.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    for name, value in (("HF_HUB_OFFLINE", "0"), ("no_proxy", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for module in ("situation", "downloads"):
        monkeypatch.setattr(f"topxgen.doctor.{module}.ANSWER_S", 120.0)
    return home


def test_a_large_model_that_is_not_downloaded_does_not_fit_a_machine_without_a_gpu(tmp_path, gated, asked):
    """400 layers: 178 GB."""
    llama_8b(gated.root / "models" / "org" / "large", layers=400)
    found = findings_here(write_run(tmp_path, model="org/large"), code=1)
    writes, trains = of(found, "memory", "problem")
    assert (
        "org/large: datagen: weights 176.6 GB and a KV cache of 2.1 GB on the CPU" in writes and "do not fit" in writes
    )
    assert (
        "LoRA of rank 16 (524.3 M parameters) on weights of 176.6 GB, one process" in trains
        and "does not fit" in trains
    )
    assert "the run downloads it, 176.58 GB" in of(found, "assets", "note")[0]
    [home] = [text for text in of(found, "disk") if text.startswith("HF_HOME")]
    assert "writes up to about 176.6 GB" in home
    assert not asked.exists(), "nothing is kept"


def test_a_data_set_at_the_hub_has_the_size_of_what_is_read_of_it(tmp_path, gated, asked):
    folder, codes = gated.root / "datasets" / "openlanguagedata" / "flores_plus", ("eng_Latn", "eus_Latn", "hau_Latn")
    (folder / "dev").mkdir(parents=True)
    for code in codes:
        with open(folder / "dev" / f"{code}.parquet", "wb") as file:
            file.truncate(2 << 30)
    configs = "".join(f"- config_name: {code}\n  data_files: dev/{code}.parquet\n" for code in codes)
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    run = write_run(tmp_path, tail=f"decontamination: {{input_dir: {tmp_path}, benchmarks: [flores]}}\n")
    [text] = [
        text for text in of(findings_here(run, "--gpu", "H100", code=1), "assets", "note") if "flores_plus" in text
    ]
    assert "the run downloads it, 4.29 GB" in text
    gated.gated.add("openlanguagedata/flores_plus")  # its card is not for us: which files are read is not known
    [text] = [
        text for text in of(findings_here(run, "--gpu", "H100", code=1), "assets", "note") if "flores_plus" in text
    ]
    assert "the run downloads it, unknown: its size" in text


def test_a_model_at_the_hub_is_measured_as_one_that_is_here(tmp_path, gated, asked):
    llama = llama_8b(gated.root / "models" / "org" / "llama")
    (llama / "original").mkdir()
    with open(llama / "original" / "consolidated.00.pth", "wb") as copy:  # not loaded
        copy.truncate(16 << 30)
    at_hub, here = (
        [
            f"{row['level']} {row['text']}"
            for row in findings_here(write_run(tmp_path, model), "--gpu", "H100", code=1)
            if row["check"] == "memory"
        ]
        for model in ("org/llama", llama)
    )
    assert at_hub == here and "LoRA of rank 16 (41.9 M parameters) on weights of 16.1 GB" in here[1]
    gated.gated.add("org/llama")  # its files are not for us, but their sizes are
    memory = of(findings_here(write_run(tmp_path, "org/llama"), "--gpu", "H100", code=1), "memory")
    assert "weights 16.1 GB" in memory[0] and "unknown: its KV cache" in memory[0]
    assert "LoRA of rank 16 (unknown: its parameters) on weights of 16.1 GB" in memory[1]


def test_what_is_not_known_is_counted_in_the_last_line(tmp_path, asked):
    """A repository without weights, so that nothing is known of what they take."""
    result = in_process("scripts/doctor.py", write_run(tmp_path, model="org/open"))
    assert result.returncode == 0, result.stdout
    assert "unknown: whether org/open fits: the weights are not here" in " ".join(result.stdout.split())
    last = result.stdout.splitlines()[-1]
    assert last.startswith("0 problems, 2 unknown, ") and last.endswith((" notes", " note")), last


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


def test_help_has_the_exit_codes():
    assert "  1    at least one problem" in doctor("--help").stdout


def test_a_hub_that_cannot_be_reached_is_not_one_that_has_it(tmp_path):
    environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}
    result = doctor(write_run(tmp_path, model="org/none"), "--json", **environment)
    found = json.loads(result.stdout)["findings"]
    assert result.returncode == 1 and of(found, "assets", "problem")[0].startswith("org/none: ")
    assert "the Hub cannot be reached" in of(found, "access", "note")[0] and result.stderr.count("\n") == 1


def test_a_broken_package_is_found_and_hides_nothing(tmp_path):
    (tmp_path / "liger_kernel").mkdir()
    (tmp_path / "liger_kernel" / "__init__.py").write_text("raise RuntimeError('built for another torch')\n")
    found = findings("--imports", "liger_kernel", code=1, PYTHONPATH=str(tmp_path))
    assert of(found, "imports") == [
        "liger_kernel: is installed but cannot be imported: RuntimeError: built for another torch -> pip install --force-reinstall liger_kernel"
    ]
    # One that the checks themselves stand on.
    (tmp_path / "psutil.py").write_text("def virtual_memory(): raise TypeError('broken')\n")
    found = findings(write_run(tmp_path), PYTHONPATH=str(tmp_path))
    assert "the check failed (TypeError: broken)" in of(found, "memory", "problem")[0] and of(found, "locks", "ok")


def test_packages_that_flags_need(tmp_path):
    found = findings(write_run(tmp_path, train="use_peft: true\n  use_flash_attn: true\n  bf16: true"), code=1)
    [text] = of(found, "packages", "problem")
    assert text.startswith("flash_attn: not installed; train cannot run without it -> pip install flash-attn")


def test_python_that_is_not_supported(monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.14.0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = in_process("scripts/doctor.py", "--json")
    [text] = of(json.loads(result.stdout)["findings"], "python", "problem")
    assert result.returncode == 1 and "3.14.0 is not supported" in text


# GPUs and memory


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
    run = write_run(tmp_path, tmp_path / "llama", train="use_peft: true\n  lora_r: 32")
    trains = of(findings(run, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}", CUDA_VISIBLE_DEVICES="2"), "memory")[1]
    assert "LoRA of rank 32 (83.9 M parameters) on weights of 16.1 GB, one process: 17.4 GB on each GPU" in trains


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
    found = findings(
        PATH=nvidia_smi(
            tmp_path / "bad", ["NVIDIA-SMI has failed because it couldn't communicate with the driver"], code=9
        )
    )
    assert "unknown: nvidia-smi failed (NVIDIA-SMI has failed" in of(found, "gpus", "note")[0]


def test_hidden_gpus(tmp_path):
    path = nvidia_smi(tmp_path / "bin", [H100.format(i, i, 4) for i in range(2)])
    assert of(findings(PATH=path, CUDA_VISIBLE_DEVICES="GPU-00000001"), "gpus", "ok")[0].startswith("GPU 1: ")
    assert "hides all 2" in of(findings(PATH=path, CUDA_VISIBLE_DEVICES="7", code=1), "gpus", "problem")[0]


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


def test_hours_are_those_of_the_documentation(tmp_path):
    """docs/hardware.md: Llama-3-8B, LoRA, 41 M tokens on one H100: 1.4 h."""
    train = "use_peft: true\n  gradient_checkpointing: true\n  bf16: true"
    run = write_run(tmp_path, llama_8b(tmp_path / "llama"), train=train)
    result = doctor(run, "--json", PATH=nvidia_smi(tmp_path / "bin", [H100.format(0, 0, 4)]))
    rows = {row["stage"]: row for row in json.loads(result.stdout)["estimates"]}
    assert rows["train"]["hours"] == pytest.approx([1.386] * 2, rel=0.001)
    # 20,000 to 120,000 tokens: 79 and 469 steps, each reads 16.06 GB at a third of 3.35 TB/s.
    assert rows["datagen: generate"]["hours"] == pytest.approx(
        [79 * 16.06e9 * 3 / 3.35e12 / 3600, 469 * 16.06e9 * 3 / 3.35e12 / 3600], rel=0.001
    )


def estimates_here(run: Path) -> dict[str, dict]:
    result = in_process("scripts/doctor.py", run, "--gpu", "A100-80", "--json")
    return {row["stage"]: row for row in json.loads(result.stdout)["estimates"]}


def test_hours_that_no_run_has_shown_are_those_of_the_table_of_rates(tmp_path):
    """docs/hardware.md, "Past one machine": tests/test_scale.py compares the table there. Its rates of GPUs are an H100's."""
    share = 312 / 989
    run = write_run(tmp_path, translator="nllb", scorer="blaser", more="nllb_name_or_path: facebook/nllb-200-3.3B")
    text = (
        run.read_text()
        + f"decontamination:\n  input_dir: {tmp_path}/out/nllb-200-3.3B\n  benchmarks: [udhr]\n  num_workers: 3\n"
    )
    run.write_text(text)
    rows = estimates_here(run)
    rate = {name: row.value for name, row in RATES.items()}
    sentences = [int(n.replace(",", "")) for n in re.findall(r"[\d,]+", rows["datagen: translate"]["work"])]
    hours = [n * rate["tokens_per_sentence"] / (rate["nllb_tokens"] * share) / 3600 for n in sentences]
    assert rows["datagen: translate"]["hours"] == pytest.approx(hours) and len(sentences) == 2
    pairs = [int(n.replace(",", "")) for n in re.findall(r"[\d,]+", rows["datagen: score"]["work"])]
    hours = [n / (rate["scored_pairs"] * share) / 3600 for n in pairs]
    assert rows["datagen: score"]["hours"] == pytest.approx(hours)
    hours = [n / (rate["decontaminated_pairs"] * 3) / 3600 for n in sentences]
    assert rows["decontamination"]["hours"] == pytest.approx(hours)
    assert {rows[name]["by"] for name in ("datagen: translate", "datagen: score", "decontamination")} == {"estimate"}
    run.write_text(text.replace("nllb-200-3.3B\n", "nllb-200-distilled-600M\n", 1))
    rows = estimates_here(run)
    assert rows["datagen: translate"]["hours"] is rows["datagen: translate"]["by"] is None, "no rate of this model"


def test_what_an_api_costs(tmp_path):
    run = write_run(tmp_path, "gpt", more="inference_api: openai\n  base_url: http://127.0.0.1:9/v1")
    result = doctor(run, "--json", "--prices", "0", "10", OPENAI_API_KEY="none")
    rows = {row["stage"]: row for row in json.loads(result.stdout)["estimates"]}
    tokens = rows["datagen: generate"]["completion_tokens"]
    assert rows["datagen: generate"]["usd"] == pytest.approx([10 * n / 1e6 for n in tokens]) and tokens[0] > 0
    assert rows["train"]["usd"] is None


def test_layers_with_a_window_keep_no_more_than_it():
    own = arithmetic.Attention(heads=4, kv_heads=1, head_dim=256, windows=(512, 512, None))
    assert own.kv_bytes(2048) == 2 * (512 + 512 + 2048) * 256 * 2 and own.kv_bytes(100) == 2 * 300 * 256 * 2


@pytest.mark.parametrize(
    ("stage", "each"), [(0, 16), (1, 4 + 12 / 4), (2, 2 + 14 / 4), (3, 16 / 4)], ids=lambda value: str(value)
)
def test_zero_shares_optimizer_then_gradients_then_weights(stage, each):
    assert arithmetic.training_bytes(0, 1000, 4, stage) == 1000 * each


# Disk and locks


def test_a_disk_that_will_be_full(tmp_path):
    """Eight checkpoints of 8 B parameters with their optimizer are more than any machine of the tests has."""
    run = write_run(tmp_path, llama_8b(tmp_path / "llama"), train="save_total_limit: 1000")
    [text] = of(findings(run, code=1), "disk", "problem")
    assert "will end with a full disk -> make room" in text


def test_a_folder_that_cannot_be_written_to(tmp_path):
    [text] = of(findings(write_run(tmp_path, out=Path("/proc/doctor")), code=1), "disk", "problem")[:1]
    assert "cannot write to /proc" in text and "pass another --output_dir" in text


@pytest.mark.parametrize(
    ("failure", "level", "says"),
    [
        (errno.ENOLCK, "note", "ENOLCK): a file with a heartbeat keeps others out"),
        (errno.EIO, "problem", "a file cannot be locked (Input/output error)"),
        (None, "problem", "grants a lock twice"),
        (0, "ok", "has POSIX record locks"),
    ],
)
def test_file_systems_with_and_without_locks(tmp_path, monkeypatch, failure, level, says):
    if failure != 0:

        def lockf(*_):
            if failure:
                raise OSError(failure, os.strerror(failure))

        monkeypatch.setattr(fcntl, "lockf", lockf)
    finding = storage._lock(tmp_path)
    assert finding.level == level and says in finding.text
    assert not list(tmp_path.iterdir())


def test_locks_of_network_file_systems_are_not_taken_for_granted(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "filesystem", lambda place: "nfs4")
    assert storage._lock(tmp_path).level == "note" and "unknown: whether other machines" in storage._lock(tmp_path).text


def test_versions_of_a_build_are_compared_as_pip_does():
    from packaging.specifiers import SpecifierSet

    assert software._fits("2.13.0+cu130", SpecifierSet(">=2.13,<2.15")) and not software._fits(
        "2.15.0+cu130", SpecifierSet("<2.15")
    )
    assert not software._fits("2.13.0", SpecifierSet("==2.13.0+cpu"))
