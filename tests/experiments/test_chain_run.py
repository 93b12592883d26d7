"""Signals to scripts/run.py; a real run, topics to scores, that is killed and stopped and goes on."""

import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.attack.shooting_range import Stub
from tests.support.processes import locked
from tests.support.run_files import CHECKED, SCORED, record, write
from tests.support.runs import ROOT, in_process
from topxgen.common.locks import OutputLock
from topxgen.common.run_files import RunFile
from topxgen.experiments import chain

LAUNCHED = """
import json, os, signal, sys, time
from pathlib import Path

def note(number, _):
    with open("signals.txt", "a") as file:
        file.write(signal.Signals(number).name + "\\n")
    time.sleep(0.5)
    os._exit(130 if number == signal.SIGINT else 143)

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, note)
Path("started").touch()
time.sleep(600)
"""


def test_the_order_of_flags_in_the_file_does_not_count(place):
    flags = CHECKED.partition("{")[2].removesuffix("}").split(", ")
    write(place, CHECKED)
    assert in_process("scripts/run.py", "run.yaml").returncode == 0
    write(place, f"decontamination: {{{', '.join(reversed(flags))}}}")
    assert "decontamination: complete" in in_process("scripts/run.py", "run.yaml", "--dry_run").stdout
    write(place, CHECKED.replace("in/bench.tsv", "udhr"))
    assert "will run (its flags have changed)" in in_process("scripts/run.py", "run.yaml", "--dry_run").stdout


def test_two_runs_on_one_folder(place):
    write(place, CHECKED)
    with locked(place / "out/run"):
        result = in_process("scripts/run.py", "run.yaml")
    assert result.returncode == 2 and "out/run is in use by process" in result.stderr and result.stderr.count("\n") == 1
    assert in_process("scripts/run.py", "run.yaml").returncode == 0
    with OutputLock(place / "out/run"):  # it was released
        pass


def test_what_a_killed_run_has_left_is_waited_for(place):
    """A stage keeps the lock of a file until it has ended, whatever became of the run that started it."""
    write(place, CHECKED)
    (place / "out/run").mkdir(parents=True)
    with open(place / "out/run/.running", "w") as left:
        fcntl.flock(left, fcntl.LOCK_EX)
        command = [sys.executable, ROOT / "scripts/run.py", "run.yaml"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while "waiting for a stage that a killed run left running" not in (line := process.stderr.readline()):
            assert line, "it did not wait"
        assert not (place / "out/run/decontamination.json").exists()
    process.communicate(timeout=300)
    assert process.returncode == 0 and (place / "out/run/decontamination.json").exists()


def test_another_launcher_runs_the_training_again(place):
    """Which itself refuses to go on with another number of processes, or finds that it is finished."""
    (place / "launch.py").touch()
    (place / "two.yaml").write_text("num_processes: 2")
    (place / "four.yaml").write_text("num_processes: 4")
    flags = "model_name_or_path: m, dataset_name_or_path: udhr, target_languages: Basque"
    launcher = f"{sys.executable}, launch.py, --config_file"

    def dry_run(config: str) -> str:
        write(place, f"train: {{{flags}, launcher: [{launcher}, {config}]}}")
        return in_process("scripts/run.py", "run.yaml", "--dry_run").stdout.partition("\n")[0]

    dry_run("two.yaml")
    assert in_process("scripts/run.py", "run.yaml").returncode == 0
    assert dry_run("two.yaml") == "# train: complete"
    assert dry_run("four.yaml") == "# train: will run (its launcher has changed)"
    (place / "two.yaml").write_text("num_processes: 4")
    assert dry_run("two.yaml") == "# train: will run (two.yaml has changed)"


def test_what_is_read_through_links_to_folders(place):
    """Copies of benchmarks that lie elsewhere; a link that leads upwards ends."""
    (place / "in/benchmarks").rename(place / "shared")
    (place / "in/benchmarks").mkdir()
    (place / "in/benchmarks/NTREX-128").symlink_to(place / "shared/NTREX-128")
    (place / "shared/NTREX-128/above").symlink_to(place / "shared")
    checked = "decontamination: {input_dir: in, output_dir: out/checked, benchmarks: ntrex, benchmark_dir: in/benchmarks, allow_partial_benchmark: true}"
    write(place, checked)
    (command,) = chain.commands(RunFile.read(place / "run.yaml"))
    read = [str(path) for path in chain.stages.inputs("decontamination", command.args)]
    sides = [f"in/benchmarks/NTREX-128/newstest2019-{side}.txt" for side in ("ref.eus", "src.eng")]
    assert [path for path in read if "newstest" in path] == sides
    assert sum(path.endswith("eus_Latn.dev") for path in read) == 1


@pytest.mark.parametrize(
    "sent, received, code", [("SIGINT", "SIGINT", 130), ("SIGTERM", "SIGTERM", 143), ("SIGUSR1", "SIGTERM", 143)]
)
def test_a_signal_reaches_the_stage_once_and_is_waited_for(place, start, sent, received, code):
    (place / "launch.py").write_text(LAUNCHED)
    words = f"target_languages: Basque, launcher: [{sys.executable}, launch.py]"
    write(place, f"train: {{model_name_or_path: m, dataset_name_or_path: udhr, {words}}}", SCORED)
    process = start()
    wait_for(process, (place / "started").exists)
    os.killpg(process.pid, getattr(signal, sent))  # as a terminal does at Ctrl-C
    out = finish(process, code)
    assert (place / "signals.txt").read_text() == f"{received}\n" and "evaluate" not in out
    assert not (place / "out/run/train.json").exists() and not (place / "out/run/.lock").exists()


@pytest.mark.medium
def test_a_training_has_the_time_it_needs_to_save(place, tmp_path):
    """Longer than other stages have after a signal."""
    (place / "launch.py").write_text(LAUNCHED.replace("sleep(0.5)", "sleep(4)"))
    words = f"target_languages: Basque, launcher: [{sys.executable}, launch.py]"
    write(place, f"train: {{model_name_or_path: m, dataset_name_or_path: udhr, {words}}}")
    code = "from topxgen.common import signals; signals.FINISH_S = signals.CLOSE_S = 1; import sys; from scripts import run; sys.exit(run.main())"
    command = [sys.executable, "-c", code, "run.yaml"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    wait_for(process, (place / "started").exists)
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 143 and "stopped by a signal; finished stages are recorded" in err, err


def real_run(model: str, url: str) -> str:
    return f"""
output_dir: out
languages: Basque
datagen:
  inference_api: openai
  base_url: {url}
  model_name_or_path: stub-1
  max_concurrent_requests: 4
  seed_topics_path: in/topics_wiki.txt
  example_paragraphs: udhr
  example_sentences: udhr
  number_of_icl_demonstrations: 1
  number_of_icl_phrases: 2
  number_of_instructions: 8
  back_translator: llm
  demonstration_pool: udhr
  scorer: none
decontamination: {{benchmarks: in/bench.tsv, num_workers: 1}}
train:
  model_name_or_path: {model}
  max_length: 400
  max_steps: 30
  num_warmup_steps: 1
  test_size_ratio: 2
  per_device_train_batch_size: 1
  gradient_accumulation_steps: 1
  eval_steps: 2
  save_steps: 2
  logging_steps: 1
  num_workers: 0
  learning_rate: 1e-3
main:
  - {{src: English, tgt: Basque, dataset_name_or_path: udhr, inference_api: hf, dtype: float32, max_samples: 3, max_new_tokens: 8, k: 0}}
evaluate: {{json: "${{output_dir}}/scores.json"}}
"""  # fmt: skip


FINAL = (
    "Basque.jsonl",
    "stub-1/Basque_translate.jsonl",
    "stub-1/Basque_translate_filtered.jsonl",
    "train/model.safetensors",
    "translations/train/*/translate_0.jsonl",
)


def final_files(folder: Path, count: int = len(FINAL)) -> dict[str, bytes]:
    paths = [path for pattern in FINAL for path in folder.glob(pattern)]
    assert len(paths) == count, f"{folder} has {paths}"
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def stub():
    with Stub() as stub:
        yield stub.url("openai")


@pytest.fixture
def start(place, monkeypatch):
    """Start scripts/run.py as a process."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-attack-51f0c7d2e94b8a36")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = [sys.executable, str(ROOT / "scripts/run.py"), "run.yaml"]
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    return lambda *words: subprocess.Popen([*command, *words], **options)


def finish(process: subprocess.Popen, code: int = 0) -> str:
    out = "" if process.stdout.closed else process.communicate(timeout=300)[0]
    assert process.returncode == code, out
    return out


def wait_for(process: subprocess.Popen, condition) -> None:
    while process.poll() is None and not condition():
        time.sleep(0.01)


def last_step(place: Path) -> int:
    complete = place.glob("out/train/checkpoint-*/checkpoint_files.json")
    return max((int(path.parent.name.removeprefix("checkpoint-")) for path in complete), default=0)


@pytest.mark.medium
def test_a_killed_and_a_stopped_run_go_on(place, start, stub, tiny_lm):
    """kill -9, then SIGTERM in training: the same files at the end, and finished stages are not run again."""
    (place / "run.yaml").write_text(real_run(tiny_lm, stub))
    words, count = ("--stages", "datagen", "decontamination", "train"), len(FINAL) - 1
    finish(start(*words))
    undisturbed = final_files(place / "out", count)
    (place / "out").rename(place / "undisturbed")
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        before, process = last_step(place), start(*words)
        wait_for(process, lambda before=before: last_step(place) > before)
        process.send_signal(number)
        out = finish(process, code)
        records = {name: record(place, name) for name in ("datagen", "decontamination")}
        assert not (place / "out/run/train.json").exists()
    assert "stopped by a signal; finished stages are recorded" in out
    out = finish(start(*words))
    assert "datagen: complete" in out and "decontamination: complete" in out
    assert {name: record(place, name) for name in records} == records
    assert final_files(place / "out", count) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("stages, count", [(["datagen", "decontamination"], 3), ([], len(FINAL))], ids=["data", "all"])
def test_random_kills(place, start, stub, tiny_lm, capsys, stages, count):
    """KILLS=25 KILLS_SEED=1 pytest -m slow tests/experiments/test_chain.py -k random"""
    (place / "run.yaml").write_text(real_run(tiny_lm, stub))
    words, began = ["--stages", *stages] if stages else [], time.monotonic()
    finish(start(*words))
    whole, undisturbed = time.monotonic() - began, final_files(place / "out", count)
    (place / "out").rename(place / "undisturbed")
    rng, done = random.Random(int(os.environ.get("KILLS_SEED", 0))), []
    wanted = int(os.environ.get("KILLS", 10))
    while len(done) < wanted:
        began, process = time.monotonic(), start(*words)
        name, delay = rng.choice(["SIGKILL", "SIGKILL", "SIGTERM", "SIGINT"]), rng.uniform(0.2, 0.8 * whole)
        wait_for(process, lambda began=began, delay=delay: time.monotonic() - began > delay)
        if process.poll() is None:
            process.send_signal(getattr(signal, name))
            out, _ = process.communicate(timeout=120)
            # Ctrl-C while the interpreter starts or ends: -2, which a shell shows as 130, too
            assert process.returncode in {"SIGKILL": (0, -9), "SIGTERM": (0, 143), "SIGINT": (0, 130, -2)}[name], out
            done.append(name)
            with capsys.disabled():
                complete = ", ".join(sorted(path.stem for path in (place / "out/run").glob("*.json"))) or "nothing"
                print(
                    f"{len(done)}: {name} after {delay:.1f} s, exit {process.returncode}, complete: {complete}",
                    flush=True,
                )
            if len(done) < wanted and rng.random() < 0.5:  # killed again before it ends
                continue
        finish(process if process.returncode == 0 else start(*words))
        assert final_files(place / "out", count) == undisturbed
        shutil.rmtree("out")
    with capsys.disabled():
        print(f"{Counter(done)}: the final files are the same, byte for byte")
