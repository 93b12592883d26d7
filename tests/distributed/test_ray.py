"""--distributed ray: the same files as one process writes, whatever becomes of the workers; refusals; nothing left behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from tests.support import tiny_models, tiny_sonar
from tests.support.runs import ROOT, TOPICS, contents, datagen, in_process, lines_in, records
from topxgen import distributed
from topxgen.common import signals
from topxgen.common.errors import UsageError
from topxgen.distributed import Call, Plan, ray_pool
from topxgen.distributed.ray_pool import share

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed here (pip install 'ray>=2.60')"),
    pytest.mark.timeout(300),
]
TRANSLATED = "nllb-tiny"
RAY = ("--distributed", "ray", "--num_workers", 2)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One local cluster for all tests of this process. One thread in each process: how many there are changes the last bits."""
    import torch

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("RAY_ADDRESS", raising=False)
        torch.set_num_threads(1)
        yield
        ray_pool.disconnect()
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def command(tiny_lm, tiny_nllb, tmp_path_factory):
    """LLM, NLLB and BLASER, in several blocks."""
    folder = tmp_path_factory.mktemp("scorers")
    texts = [text for pair in tiny_models.udhr_pairs("Basque") for text in pair]
    tiny_sonar.build_blaser(folder / "blaser.pt", hidden=(32, 16))
    sonar = tiny_sonar.build_sonar(folder / "sonar", texts)
    return (
        "--model_name_or_path", tiny_lm, "--inference_api", "hf", "--dtype", "float32", "--languages", "Basque", "Swahili",
        "--seed_topics_path", TOPICS, "--example_paragraphs", "udhr", "--example_sentences", "udhr",
        "--number_of_icl_demonstrations", 1, "--number_of_icl_phrases", 2, "--prompt_template", "continuation",
        "--max_new_tokens", 48, "--temperature", 0.7, "--number_of_instructions_per_language", 30, "--use_nllb",
        "--nllb_name_or_path", tiny_nllb, "--cache_dir", folder / "cache", "--translate_dir", TRANSLATED,
        "--blaser_name_or_path", folder / "blaser.pt", "--sonar_name_or_path", sonar,
    )  # fmt: skip


@pytest.fixture(scope="module")
def one(command, tmp_path_factory):
    """What one process leaves."""
    folder = tmp_path_factory.mktemp("one")
    datagen(*command, "--output_dir", folder)
    return folder


def workers(parent: int | None = None) -> list[psutil.Process]:
    """The processes of workers of this process's cluster, or another's."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Worker"):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def assert_same(folder: Path, other: Path) -> None:
    """Byte for byte; responses, which are in the order in which they arrived, as sets."""
    names = [path.relative_to(other) for path in sorted(other.rglob("*.jsonl"))]
    assert names == [path.relative_to(folder) for path in sorted(folder.rglob("*.jsonl"))]
    for name in names:
        if "_answers" in name.name:
            by_id = [{record["id"]: record for record in records(where / name)} for where in (folder, other)]
            assert len(by_id[0]) == lines_in(folder / name), f"{name}: twice"
            both = by_id[0].keys() & by_id[1].keys()
            assert both and all(by_id[0][key] == by_id[1][key] for key in both)
        else:
            assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def test_two_workers_write_what_one_process_does(command, one, tmp_path):
    result = datagen(*command, *RAY, "--output_dir", tmp_path)
    assert_same(tmp_path, one)
    assert "(raylet)" not in result.stderr and not result.stdout.startswith("\x1b"), "Ray's own words are in the log"
