"""What --distributed ray refuses, and what workers do not get or do otherwise."""

import os
import pickle
import socket
import subprocess
import sys
import time

import pytest

from tests.support.ray_runs import RAY
from tests.support.runs import ROOT
from topxgen import distributed
from topxgen.common.errors import UsageError
from topxgen.distributed import ray_cluster, worker
from topxgen.distributed.sampler import DistributedSampler
from topxgen.generation import scoring
from topxgen.inference import ModelSettings, gpu_groups

pytestmark = pytest.mark.timeout(600)


def decontaminate_in_a_process(pairs, folder, **environment) -> tuple[int, str, float]:
    command = [
        sys.executable,
        "decontamination.py",
        "--input_dir",
        pairs,
        "--output_dir",
        folder,
        "--benchmarks",
        "udhr",
    ]
    began = time.monotonic()
    result = subprocess.run(
        [*map(str, command), *map(str, RAY)], cwd=ROOT, capture_output=True, text=True, env=os.environ | environment
    )
    return result.returncode, result.stderr, time.monotonic() - began


@pytest.fixture
def silent():
    """A server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    "address, problem",
    [
        (
            "127.0.0.1:1",
            r"no Ray cluster answers at RAY_ADDRESS 127\.0\.0\.1:1 \(Connection refused\): start it, or unset",
        ),
        ("SILENT", r"no Ray cluster answers at .* \(timed out\)"),
        (
            "ray://head:10001",
            "is an address of Ray Client, which is not supported: run the command on a node of the cluster",
        ),
        ("head", "is neither HOST:PORT nor auto"),
        ("head:port", "is neither HOST:PORT nor auto"),
    ],
)
def test_an_address_that_does_not_answer(address, problem, silent, monkeypatch):
    monkeypatch.setattr(ray_cluster, "CONNECT_S", 0.5)
    monkeypatch.setenv("RAY_ADDRESS", silent if address == "SILENT" else address)
    began = time.monotonic()
    with pytest.raises(UsageError, match=problem):
        distributed.check("ray")
    assert time.monotonic() - began < 60


def test_a_server_that_is_not_ray(monkeypatch, silent):
    """It answers, in another protocol; one that answers as gRPC servers do is taken for a cluster."""
    import threading

    for reply, problem in (
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what listens there is not Ray"),
        (bytes((0, 0, 6, 4, 0, 0, 0, 0, 0, 0)), ""),
    ):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer(server=server, reply=reply):
                connection, _ = server.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(reply)
                    time.sleep(0.2)

            threading.Thread(target=answer).start()
            assert ray_cluster._no_grpc(*server.getsockname()) == problem


def test_one_line_exit_2_from_a_script(pairs, tmp_path):
    code, err, seconds = decontaminate_in_a_process(pairs, tmp_path, RAY_ADDRESS="127.0.0.1:1")
    assert (
        code == 2 and err.count("\n") == 1 and "decontamination.py: error: no Ray cluster answers at RAY_ADDRESS" in err
    )
    assert seconds < 120 and not list(tmp_path.glob("*.jsonl"))


def test_without_ray_one_line_says_how_to_install_it(pairs, tmp_path):
    (tmp_path / "hidden" / "ray").mkdir(parents=True)
    (tmp_path / "hidden" / "ray" / "__init__.py").write_text("raise ImportError('No module named ray')\n")
    path = os.pathsep.join([str(tmp_path / "hidden"), str(ROOT)])
    code, err, _ = decontaminate_in_a_process(pairs, tmp_path / "out", PYTHONPATH=path)
    assert (
        code == 2 and err.count("\n") == 1 and "--distributed ray needs Ray" in err and "pip install 'ray>=2.60'" in err
    )


PAIRS = ("--languages", "Basque", "--stages", "translate", "score", "--output_dir", "/nowhere/out")


@pytest.mark.parametrize(
    "script, flags, problem",
    [
        ("datagen.py", (*PAIRS, "--use_nllb", "--num_workers", 2), "--num_workers has no effect without --distributed"),
        (
            "datagen.py",
            (*PAIRS, "--distributed", "ray", "--model_name_or_path", "gpt-x", "--inference_api", "openai", "--scorer", "none"),
            "--distributed has no effect without a model to run in workers",
        ),
        (
            "datagen.py",
            (*PAIRS, "--use_nllb", "--distributed", "ray", "--data_parallel_size", 2, "--model_name_or_path", "m"),
            "--data_parallel_size has no effect without one machine (--distributed has --num_workers)",
        ),
        ("datagen.py", (*PAIRS, "--distributed", "rai"), "'rai' is not one of ray (did you mean ray?)"),
        (
            "main.py",
            ("--model_name_or_path", "m", "--output_dir", "/nowhere/out", "--tgt", "Basque", "--distributed", "ray",
             "--inference_api", "cohere"),
            "--distributed has no effect without a model in this process",
        ),
    ],
)  # fmt: skip
def test_flags_without_effect(script, flags, problem):
    from topxgen.common import flag_rules
    from topxgen.common.cli import Parser

    parser: Parser = __import__(script.removesuffix(".py")).build_parser()
    try:
        args = parser.parse_args([str(flag) for flag in flags])
        with pytest.raises(UsageError) as raised:
            flag_rules.check(parser.rules, args, quiet=True)
        assert problem in str(raised.value)
    except SystemExit as end:
        assert end.code == 2 and "rai" in problem


def test_no_secret_leaves_the_driver(tmp_path, monkeypatch):
    from datagen import build_parser

    for name in ("HF_TOKEN", "OPENAI_API_KEY", "VLLM_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "sk-secret")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    assert worker.environment()["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert "sk-secret" not in worker.environment().values()
    words = ["--languages", "Basque", "--output_dir", str(tmp_path), "--api_key", "sk-secret", "--distributed", "ray"]
    args, built = build_parser().parse_args(words), []
    monkeypatch.setattr(distributed, "start", lambda build, plan: built.append(build))
    scoring.create("blaser", args).load()
    assert b"sk-secret" not in pickle.dumps(built[0]) and args.api_key == "sk-secret"


def test_a_worker_has_the_gpus_of_its_engine(monkeypatch, tiny_lm, caplog):
    """Those of pipeline parallelism, too; without a flag as many as its weights need: here 140 GB, on up to 8 GPUs of 80 GB."""
    caplog.set_level("INFO")
    plans = []

    def start(build, plan):
        plans.append(
            (plan.gpus(8, 80 * 10**9) if callable(plan.gpus) else plan.gpus, build.args[1].tensor_parallel_size)
        )

    monkeypatch.setattr(distributed, "start", start)
    monkeypatch.setattr(gpu_groups, "_heads", lambda settings: gpu_groups.Heads(64, 8))
    monkeypatch.setattr(gpu_groups, "file_bytes", lambda name: 280 * 10**9)  # in float32, which vLLM halves
    pipeline = ["pipeline_parallel_size=2"]
    for backend, tensor, words in (
        ("vllm", None, None), ("vllm", 2, None), ("vllm", 4, pipeline), ("vllm", None, pipeline), ("hf", None, None),
    ):  # fmt: skip
        settings = ModelSettings(tiny_lm, distributed="ray", tensor_parallel_size=tensor, engine_args=words)
        DistributedSampler(backend, settings)
    assert plans == [(4, None), (2, 2), (8, 4), (4, None), (1, None)]
    assert "a worker takes 4 of up to 8 GPUs of a node: weights of 140.0 GB take 49% of the memory" in caplog.text


def test_a_worker_that_would_score_or_translate_otherwise(tiny_nllb, tmp_path):
    from datagen import build_parser
    from topxgen import translation

    args = build_parser().parse_args(
        ["--languages", "Basque", "--output_dir", str(tmp_path), "--scorer_dtype", "bfloat16"]
    )
    with pytest.raises(
        UsageError, match=r"would score by blaser \(.*bfloat16\), and .* by blaser \(x, float32\): pass --scorer_dtype"
    ):
        scoring._loaded("blaser", args, "blaser (x, float32)")
    settings = translation.TranslatorSettings(
        nllb_name_or_path=tiny_nllb, nllb_compute_type="float32", cache_dir=str(tmp_path)
    )
    decided = {"nllb_name_or_path": tiny_nllb, "nllb_engine": "ctranslate2", "nllb_compute_type": "int8"}
    with pytest.raises(
        UsageError, match=r"a worker would translate with the settings .*float32.*, not with those of the run, .*int8"
    ):
        translation._loaded("nllb", settings, decided)


def test_a_worker_without_the_drivers_folder(tmp_path):
    import asyncio

    with pytest.raises(UsageError, match=r"does not have /nowhere/here .*: all nodes must see the project"):
        asyncio.run(worker.Worker().load(list, "/nowhere/here", {}, None))
