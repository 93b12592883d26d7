"""datagen.py and decontamination.py with --distributed ray in processes of their own, whose workers are killed."""

import hashlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.support import tiny_models, tiny_sonar
from tests.support.runs import ROOT, TOPICS, in_process, lines_in, records

TRANSLATED = "nllb-tiny"
RAY = ("--distributed", "ray", "--num_workers", 2)


def small_command(lm: str, nllb: str, folder: Path, paragraphs: int) -> tuple:
    """datagen.py with an LLM, NLLB and a BLASER with random weights, which it makes in `folder`; without --output_dir."""
    texts = [text for pair in tiny_models.udhr_pairs("Basque") for text in pair]
    tiny_sonar.build_blaser(folder / "blaser.pt", hidden=(32, 16))
    sonar = tiny_sonar.build_sonar(folder / "sonar", texts)
    return (
        "--model_name_or_path", lm, "--inference_api", "hf", "--dtype", "float32", "--languages", "Basque", "Swahili",
        "--seed_topics_path", TOPICS, "--example_paragraphs", "udhr", "--example_sentences", "udhr",
        "--number_of_icl_demonstrations", 1, "--number_of_icl_phrases", 2, "--prompt_template", "continuation",
        "--max_new_tokens", 48, "--temperature", 0.7, "--number_of_instructions_per_language", paragraphs, "--use_nllb",
        "--nllb_name_or_path", nllb, "--cache_dir", folder / "cache", "--translate_dir", TRANSLATED,
        "--blaser_name_or_path", folder / "blaser.pt", "--sonar_name_or_path", sonar,
    )  # fmt: skip


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


@contextmanager
def ray_start(log: Path, environment: dict[str, str], *options: str) -> Iterator[psutil.Process]:
    """A node that `ray start` makes: its process, once it runs."""
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address=127.0.0.1", *options]
    with open(log, "w", encoding="utf-8") as file:
        environment = os.environ | environment
        process = psutil.Popen([*words, "--disable-usage-stats"], env=environment, stdout=file, stderr=file)
        try:
            for _ in range(1800):
                if "Ray runtime started" in log.read_text(encoding="utf-8"):
                    break
                assert process.poll() is None, log.read_text(encoding="utf-8")
                time.sleep(0.1)
            yield process
        finally:
            kill_all(process)


def kill_all(process: psutil.Process) -> None:
    """A process and all that it has started."""
    with suppress(psutil.NoSuchProcess):
        started = [process, *process.children(recursive=True)]
        for one in started:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(started, 60)


@contextmanager
def running_cluster(cpus: int = 4, **environment: str) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """A head node, as on a cluster of one's own: its process, and the environment to join it by."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: the paths of sockets are limited
    environment = {"RAY_TMPDIR": str(folder), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **environment}
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = f"--ray-client-server-port={server.getsockname()[1]}"
    options = ("--head", "--port=0", f"--num-cpus={cpus}", "--include-dashboard=false", client)
    try:
        with ray_start(folder / "log", environment, *options) as process:
            noted = folder / "ray" / "ray_current_cluster"  # which it may write after its message
            for _ in range(300):
                if noted.is_file() and (address := noted.read_text(encoding="utf-8")):
                    break
                time.sleep(0.1)
            yield process, environment | {"RAY_ADDRESS": address}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def token() -> dict[str, str]:
    """What a user sets on all nodes to have Ray ask for a token."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


class Driver:
    """A script with --distributed ray, in a process and a session of its own."""

    def __init__(self, *command):
        words = [sys.executable, *map(str, (*command, *RAY))]
        self.process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.seen: set[psutil.Process] = set()  # what it has started

    def workers(self) -> list[psutil.Process]:
        try:
            self.seen |= set(psutil.Process(self.process.pid).children(recursive=True))
            return workers(self.process.pid)
        except psutil.NoSuchProcess:
            return []

    def wait_for(self, reached) -> bool:
        while self.process.poll() is None and not reached():
            self.workers()
            time.sleep(0.05)
        return self.process.poll() is None

    def ended(self, timeout: float = 600) -> tuple[int, str]:
        """Exit code and stderr; nothing that it started is left."""
        _, err = self.process.communicate(timeout=timeout)
        until = time.monotonic() + 120
        while left := [one for one in self.seen if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]:
            assert time.monotonic() < until, left
            time.sleep(0.1)
        return self.process.returncode, err


def differences(folder: Path, other: Path) -> list[str]:
    """What differs: files byte for byte; responses, in the order in which they arrived, by id, of those that both have."""
    names = [path.relative_to(other) for path in sorted(other.rglob("*.jsonl"))]
    found = (
        [] if names == [path.relative_to(folder) for path in sorted(folder.rglob("*.jsonl"))] else ["names of files"]
    )
    for name in names:
        if "_answers" not in name.name:
            found += [] if (folder / name).read_bytes() == (other / name).read_bytes() else [str(name)]
            continue
        one, two = ({record["id"]: record for record in records(where / name)} for where in (folder, other))
        both = one.keys() & two.keys()
        found += [] if len(one) == lines_in(folder / name) else [f"{name}: twice"]
        found += [] if both and all(one[key] == two[key] for key in both) else [f"{name}: other responses"]
    return found


def decontaminate(pairs, folder, *more):
    words = ("--input_dir", pairs, "--output_dir", folder, "--benchmarks", "udhr", *more)
    result = in_process("decontamination.py", *words)
    assert result.returncode == 0, result.stderr
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.jsonl")}
