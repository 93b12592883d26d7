"""Several engines of one model in processes of their own: transformers on a tiny model, vLLM (CPU build) on Gemma 3 270M."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import psutil
import pytest

from tests.inference.test_samplers import (
    PROMPTS,
    REQUESTS,
    adapter,
    assert_no_engine_left,
    check_a_long_prompt_is_no_crash,
    check_common,
    engines,
    vllm_run,
)
from tests.support.main_runs import options
from tests.support.runs import ROOT, datagen, lines_in, records, script
from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.inference import (
    ModelSettings,
    Request,
    SamplingSettings,
    data_parallel,
    engine_process,
    from_list,
    gpu_groups,
)
from topxgen.inference.data_parallel import TOGETHER

SETTINGS = SamplingSettings(max_new_tokens=16, temperature=0.8)
GB = 10**9
HEADS = gpu_groups.Heads(32, 8)


def answers_of(sampler, requests=REQUESTS, settings=SETTINGS) -> dict[str, inference.Answer]:
    return {answer.id: answer for answer in sampler.generate(from_list(requests), settings)}


@pytest.fixture(scope="module")
def model(tiny_lm) -> ModelSettings:
    return ModelSettings(tiny_lm, dtype="float32", request_batch_size=3, data_parallel_size=2)


@pytest.fixture(scope="module")
def one(model):
    sampler = inference.load("hf", replace(model, data_parallel_size=1))
    yield sampler
    sampler.close()


@pytest.fixture(scope="module")
def two(model):
    sampler = inference.load("hf", model)
    yield sampler
    sampler.close()


@pytest.mark.medium
def test_two_engines_answer_as_one(one, two):
    check_common(two)
    check_a_long_prompt_is_no_crash(two)
    requests = [Request(f"r{i}", PROMPTS[i % 7], i, log_probabilities=True) for i in range(40)]
    together, alone = answers_of(two, requests), answers_of(one, requests)
    for answer in alone.values():  # float32: the last bits differ with what else is in a batch
        assert together[answer.id].log_probabilities == pytest.approx(answer.log_probabilities, abs=1e-5)
        assert replace(together[answer.id], log_probabilities=()) == replace(answer, log_probabilities=())
    assert two.encode(PROMPTS[3]) == one.encode(PROMPTS[3])


@pytest.mark.medium
def test_requests_that_follow_one_another_go_to_one_engine(two, monkeypatch):
    sent = []
    send = data_parallel._Engine.send

    def record(engine, message):
        if isinstance(message, data_parallel.engine_process.Requests):
            sent.append((engine.name, [request.id for request in message.requests]))
        send(engine, message)

    monkeypatch.setattr(data_parallel._Engine, "send", record)
    requests = [Request(f"r{i}", PROMPTS[0], i) for i in range(8 * TOGETHER)]
    assert len(answers_of(two, requests)) == 8 * TOGETHER
    assert [ids for _, ids in sent] == [[f"r{4 * i + j}" for j in range(TOGETHER)] for i in range(8)]
    assert [name for name, _ in sent[:4]] == 2 * ["engine 1 of 2 (CPU)", "engine 2 of 2 (CPU)"]


@pytest.mark.medium
def test_a_caller_that_has_enough_leaves(two):
    """What is in flight is dropped; the next caller gets its own answers alone."""
    stream = two.generate(from_list(Request(f"old{i}", PROMPTS[0], i) for i in range(200)), SETTINGS)
    assert next(stream).id.startswith("old")
    stream.close()
    assert answers_of(two).keys() == {request.id for request in REQUESTS}


@pytest.mark.medium
def test_requests_that_wait_for_answers(two):
    """A caller that makes the next request of the last answer: after None it is asked again."""
    asked, answered = [], []

    def next_request():
        if len(asked) < 5 and len(asked) == len(answered):
            asked.append(f"r{len(asked)}")
            return Request(asked[-1], PROMPTS[0], 1)
        return None

    for answer in two.generate(next_request, SETTINGS):
        answered.append(answer.id)
    assert answered == asked == [f"r{i}" for i in range(5)]


@pytest.mark.medium
def test_adapters_go_to_all_engines(one, two, tiny_lm, tmp_path):
    folder, greedy = adapter(tiny_lm, tmp_path), replace(SETTINGS, temperature=0.0)
    requests = [Request(f"r{i}", PROMPTS[i % 3], 0) for i in range(16)]
    base = answers_of(two, requests, greedy)
    with pytest.raises(UsageError, match="holds no LoRA adapter"):
        two.use_adapter(tiny_lm)
    for sampler in (one, two):
        sampler.use_adapter(folder)
    adapted = answers_of(two, requests, greedy)
    assert adapted == answers_of(one, requests, greedy) and all(adapted[key] != base[key] for key in base)
    for sampler in (one, two):
        sampler.use_adapter(None)
    assert answers_of(two, requests, greedy) == base == answers_of(one, requests, greedy)


@pytest.mark.medium
def test_an_engine_that_dies(model, tmp_path):
    """One line that names it, after what the others have answered; no process stays."""
    sampler = inference.load("hf", replace(model, engine_log=tmp_path / "engine.log"))
    first, second = (engine.process.pid for engine in sampler._engines)
    answers, stream = [], sampler.generate(from_list(Request(f"r{i}", PROMPTS[0], i) for i in range(400)), SETTINGS)
    with pytest.raises(UsageError) as lost:
        for answer in stream:
            answers.append(answer.id)
            if len(answers) == 3:
                os.kill(second, signal.SIGKILL)
    message = rf"engine 2 of 2 \(CPU\), process {second}, was ended by SIGKILL \(out of memory\?\); see the end of \S+engine.log; all"
    assert lost.match(message) and 3 <= len(answers) < 400 and len(set(answers)) == len(answers)
    sampler.close()
    assert not psutil.pid_exists(first) and not psutil.pid_exists(second)


@pytest.mark.medium
def test_a_model_that_does_not_load(tmp_path):
    with pytest.raises(UsageError, match=r"engine 1 of 2 \(CPU\): cannot load .*: it does not exist"):
        inference.load("hf", ModelSettings(str(tmp_path / "none"), data_parallel_size=2))


PROGRAM = """
import sys
from topxgen import inference
from topxgen.common import signals
from topxgen.inference import ModelSettings, Request, SamplingSettings
signals.CLOSE_S = 120  # a busy machine is no reason to kill an engine
sampler = inference.load("hf", ModelSettings(sys.argv[1], dtype="float32", data_parallel_size=2))
processes = [engine.process for engine in sampler._engines]
print(*(process.pid for process in processes), flush=True)
numbers = iter(range(10**6))
with signals.handled():
    try:
        for answer in sampler.generate(lambda: Request(str(next(numbers)), "Gizon", 1), SamplingSettings(8)):
            print("answer", flush=True)
    except signals.Stopped:
        print("stopped", flush=True)
    sampler.close()
    print(*(process.returncode for process in processes))
"""


def left_of(engines: list) -> list:
    """Those that are alive after a while; they are killed."""
    _, alive = psutil.wait_procs(engines, timeout=120)
    for process in alive:
        process.kill()
    return alive


@pytest.mark.medium
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_engines_end_with_their_parent(tiny_lm, number):
    """Killed, it leaves no engine; a signal lets what is in flight finish."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM, tiny_lm], stdout=subprocess.PIPE, text=True) as process:
        engines = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        assert process.stdout.readline() == "answer\n"
        if number == signal.SIGTERM:  # a scheduler sends it to all processes of a job
            for engine in engines:
                engine.send_signal(number)
        process.send_signal(number)
        rest = process.stdout.read()
        alive = left_of(engines)
    assert not alive and (number == signal.SIGKILL or rest.endswith("answer\nstopped\n0 0\n"))


@pytest.mark.medium
def test_the_parent_killed_while_engines_load(tiny_lm):
    with subprocess.Popen([sys.executable, "-c", PROGRAM, tiny_lm], stdout=subprocess.PIPE, text=True) as process:
        engines, until = [], time.monotonic() + 300
        while not engines and time.monotonic() < until:
            engines = psutil.Process(process.pid).children()
            time.sleep(0.05)
        process.kill()
        alive = left_of(engines)
    assert engines and not alive


@pytest.mark.medium
def test_the_parent_killed_within_a_message(model):
    settings = asdict(replace(model, data_parallel_size=1))
    engine = data_parallel._Engine("engine", ())
    engine.send(engine_process.Start("hf", settings, []))
    assert isinstance(next(engine_process.messages(engine.process.stdout, engine_process.From)), engine_process.Ready)
    engine.process.stdin.write(engine_process.LENGTH.pack(1000) + b"half")
    engine.process.stdin.close()
    try:
        assert engine.process.wait(120) == 1
    finally:
        engine.kill()


@pytest.mark.parametrize(
    "gpus, weights, heads, engines, tensor",
    [
        (8, 16, 32, 8, 1),  # Llama-3-8B: 16 of 72 GB
        (8, 55, 32, 4, 2),  # Gemma 3 27B: 55 GB are more than 55 % of 72
        (4, 140, 64, 1, 4),  # 70B
        (8, 140, 64, 2, 4),
        (8, 810, 128, 1, 8),  # 405B do not fit: vLLM says so
        (6, 55, 32, 3, 2),
        (8, 55, 14, 4, 2),
        (8, 100, 14, 4, 2),  # 14 heads cannot be divided by 4 or 8
        (7, 55, 32, 3, 2),  # one GPU is left over
        (6, 140, 64, 1, 4),
        (3, 55, (12, 2), 1, 2),  # 2 key-value heads cannot be divided by 3, nor 3 by them
        (6, 140, (12, 2), 1, 4),
        (8, 100, (40, 10), 4, 2),  # Phi-3-medium
        (3, 55, 24, 1, 2),  # nor most vocabularies by 3
        (8, None, 32, 1, 8),
        (1, 16, 32, 1, 1),
    ],
)
def test_the_size_of_engines_by_memory(gpus, weights, heads, engines, tensor):
    heads = gpu_groups.Heads(*(heads if isinstance(heads, tuple) else (heads, heads)))
    split = gpu_groups.by_memory(gpus, weights and weights * GB, 80 * GB, 0.9, heads)
    assert (split.engines, split.tensor) == (engines, tensor)


def test_the_size_of_engines_with_pipeline_parallelism():
    split = gpu_groups.by_memory(8, 55 * GB, 80 * GB, 0.9, HEADS, pipeline=2)
    assert (split.engines, split.tensor) == (4, 1)
    assert gpu_groups.share_out(8, None, 2, 2).engines == 2


@pytest.mark.parametrize(
    "wanted, tensor, expected",
    [(None, 2, (4, 2)), (2, None, (2, 4)), (1, None, (1, 8)), (3, 2, (3, 2)), (3, None, (3, 2)), (None, 16, (1, 16))],
)
def test_what_the_flags_say(wanted, tensor, expected):
    split = gpu_groups.share_out(8, wanted, tensor, 1, heads=HEADS)
    assert (split.engines, split.tensor) == expected


@pytest.mark.parametrize("gpus, sizes", [(3, [1, 2]), (6, [1, 2, 4]), (8, [1, 2, 4])])
def test_a_model_that_can_be_divided_among_some_numbers_of_gpus_only(gpus, sizes):
    """12 attention heads with 2 key-value heads, as Qwen2.5-1.5B has."""
    heads = gpu_groups.Heads(12, 2)
    assert gpu_groups.tensor_sizes(gpus, heads) == sizes
    assert gpu_groups.share_out(gpus, 1, None, 1, heads).tensor == sizes[-1]
    with pytest.raises(
        UsageError, match=f"--tensor_parallel_size 3: .* 12 attention heads .2 .*; pass {' or '.join(map(str, sizes))},"
    ):
        gpu_groups.share_out(gpus, 1, 3, 1, heads)


@pytest.mark.parametrize("wanted, tensor", [(5, 2), (9, None), (2, 8)])
def test_more_engines_than_gpus(wanted, tensor):
    with pytest.raises(UsageError, match="need more than the 8 GPUs that are visible here: lower --data_parallel_size"):
        gpu_groups.share_out(8, wanted, tensor, 1, heads=HEADS)


@pytest.mark.parametrize(
    "listed, count, names",
    [
        (None, 2, ("0", "1")),
        ("3,1", 2, ("3", "1")),
        ("GPU-aa, GPU-bb", 2, ("GPU-aa", "GPU-bb")),
        ("2,-1,3", 1, ("2",)),  # CUDA ends at the first that does not exist
        ("MIG-aa,MIG-bb", 1, ("MIG-aa", "MIG-bb")),  # a process sees one
        ("", 0, ()),
    ],
)
def test_gpus_as_the_environment_names_them(monkeypatch, listed, count, names):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert gpu_groups.visible_gpus() == names


def test_the_gpus_of_each_engine(monkeypatch, tiny_lm, caplog):
    """Four GPUs of 80 GB, by their names; what was chosen is logged with its cause."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setattr(gpu_groups, "smallest_memory", lambda: 80 * GB)
    caplog.set_level("INFO")
    model = ModelSettings(tiny_lm)
    settings, groups = gpu_groups.plan("vllm", model)
    assert settings.tensor_parallel_size == 1 and groups == [("4",), ("5",), ("6",), ("7",)]
    assert "4 engines of 1 GPU each on 4 visible GPUs: weights of 0.0 GB take 0% of the memory" in caplog.text
    settings, groups = gpu_groups.plan("vllm", replace(model, tensor_parallel_size=2))
    assert settings.tensor_parallel_size == 2 and groups == [("4", "5"), ("6", "7")]
    assert gpu_groups.plan("vllm", replace(model, data_parallel_size=1)) == (
        replace(model, data_parallel_size=1, tensor_parallel_size=4),
        [],
    )
    assert gpu_groups.plan("hf", model) == (model, [])
    assert gpu_groups.plan("hf", replace(model, data_parallel_size=2))[1] == [("4", "5"), ("6", "7")]
    for number in (0, "two"):
        with pytest.raises(UsageError, match=f"pipeline_parallel_size={number}: pass a number of GPUs"):
            gpu_groups.plan("vllm", replace(model, engine_args=[f"pipeline_parallel_size={number}"]))


def test_the_size_of_weights(tiny_lm, tmp_path):
    size = gpu_groups.file_bytes(tiny_lm)
    assert size == os.path.getsize(f"{tiny_lm}/model.safetensors")
    assert gpu_groups._weights(ModelSettings(tiny_lm, dtype="float32")) == size
    assert gpu_groups._weights(ModelSettings(tiny_lm)) == size // 2  # saved in float32, which auto halves
    (tmp_path / "model.safetensors.index.json").write_text('{"metadata": {"total_size": 123}, "weight_map": {}}')
    assert gpu_groups.file_bytes(str(tmp_path)) == 123
    assert gpu_groups.file_bytes(str(tmp_path.parent)) is None


@pytest.mark.medium
def test_a_run_goes_on_with_another_number_of_engines(tiny_lm, tmp_path):
    """Stopped in the middle by a limit, it ends with the files of a run by one engine."""
    parted, whole = tmp_path / "parted", tmp_path / "whole"
    command = ("--inference_api", "hf", "--dtype", "float32", "--max_model_len", 512, "--max_new_tokens", 24)
    datagen(*vllm_run(tiny_lm, whole), *command, "--number_of_instructions", 20)
    for size, count in ((1, 8), (2, 20)):
        datagen(*vllm_run(tiny_lm, parted), *command, "--number_of_instructions", count, "--data_parallel_size", size)
    assert written(parted) == written(whole) and len(records(parted / "Basque.jsonl")) == 20
    settings = parted / "settings_generate.json"
    settings.write_text(settings.read_text().replace('"inference_api": "hf"', '"inference_api": "vllm"'))
    for flag in ("--deterministic", "--engine_args=enforce_eager=true"):  # but not with other options of vLLM
        refused = (*vllm_run(tiny_lm, parted), *command[2:], "--number_of_instructions", 20, flag)
        with pytest.raises(
            AssertionError, match=r"holds results of other settings \(decoding was .*, now .*(True|true)"
        ):
            datagen(*refused)


WRITTEN = ("Basque.jsonl", "Basque_rejects.jsonl")


def two_vllm(gemma, folder, *more) -> tuple:
    """A run by two engines; float32: in bfloat16 the last bit of a sum depends on the batch."""
    return (*vllm_run(gemma, folder), "--dtype", "float32", "--data_parallel_size", 2, *more)


def written(folder) -> list[bytes]:
    return [(folder / name).read_bytes() for name in WRITTEN]


@pytest.fixture(scope="module")
def by_one_vllm(gemma, tmp_path_factory):
    pytest.importorskip("vllm", reason="vLLM is not installed here (scripts/setup.sh tries)")
    folder = tmp_path_factory.mktemp("one")
    script("datagen.py", *two_vllm(gemma, folder, "--data_parallel_size", 1))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)  # with the engine of `by_one_vllm`
def test_two_vllm_engines_write_what_one_writes(gemma, tmp_path, by_one_vllm):
    result = script("datagen.py", *two_vllm(gemma, tmp_path))
    assert written(tmp_path) == written(by_one_vllm) and len(records(tmp_path / "Basque.jsonl")) >= 20
    assert "Traceback" not in result.stderr
    assert_no_engine_left()


@pytest.mark.slow
@pytest.mark.timeout(1800)  # up to four engines are loaded
def test_a_vllm_engine_killed_in_the_middle(gemma, tmp_path, by_one_vllm):
    """One line, exit 2; resumed with one engine, nothing is lost, nothing doubled, and the files are those of an undisturbed run."""
    answers = tmp_path / "Basque_answers.jsonl"
    command = [sys.executable, "datagen.py", *map(str, two_vllm(gemma, tmp_path))]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while lines_in(answers) < 5:
            assert process.poll() is None
            time.sleep(0.05)
        ours = [child for child in psutil.Process(process.pid).children() if "serve()" in " ".join(child.cmdline())]
        of_vllm = [child for child in ours[1].children(recursive=True) if child.pid in engines()]
        of_vllm[0].kill()
        _, err = process.communicate(timeout=300)
    assert process.returncode == 2 and len(ours) == 2
    lost = [line for line in err.splitlines() if "error:" in line]
    assert len(lost) == 1 and lost[0].startswith("datagen.py: error: engine 2 of 2 (CPU)"), err
    assert "has died" in lost[0] and "re-run the same command to resume" in lost[0] and "Traceback" not in err
    assert_no_engine_left()
    on_disk = records(answers)
    script("datagen.py", *two_vllm(gemma, tmp_path, "--data_parallel_size", 1))
    after = records(answers)
    assert after[: len(on_disk)] == on_disk and len({record["id"] for record in after}) == len(after)
    assert written(tmp_path) == written(by_one_vllm)


@pytest.mark.slow
def test_two_vllm_engines_end_with_a_killed_parent(gemma, tmp_path):
    answers = tmp_path / "Basque_answers.jsonl"
    datagen(*two_vllm(gemma, tmp_path), kill_when=lambda: lines_in(answers) >= 3 and len(engines()) >= 2)
    assert_no_engine_left()


@pytest.mark.slow
@pytest.mark.timeout(1800)  # three engines are loaded
@pytest.mark.parametrize(
    "flags",
    [
        {"steps": 1, "method_divide": "llm", "number_of_subproblems": 2, "max_new_tokens_divide": 48, "max_samples": 4},
        {"temperature": 0.8, "max_samples": 8},
    ],
    ids=["CompTra", "sampling"],
)
def test_two_vllm_engines_translate_as_one(gemma, tmp_path, flags):
    found = []
    for size in (1, 2):
        output = tmp_path / str(size)
        script(
            "main.py",
            *options(gemma, "--output_dir", output, **flags, inference_api="vllm", data_parallel_size=size),
        )
        found.append({str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*_?.jsonl")})
    assert found[0] == found[1] and any(name.endswith("translate_0.jsonl") for name in found[0])
