"""Ray Data against our pool of Ray actors (topxgen/distributed), on the stages that map a model over batches of a file.

    PYTHONPATH=. OMP_NUM_THREADS=1 python scripts/perf/ray_data.py --out /tmp/ray_data

Back-translation (a small NLLB) and scoring (BLASER) of two languages, and decontamination; each by one process, by two actors and by Ray
Data with two actors, then both again with one worker killed (kill -9) after the first result, and on a cluster of two nodes, of which one is
killed then. Prints a row for each: seconds to the first
result on disk and to the end, CPU seconds and the largest memory (PSS) of all processes, how often a model was loaded, how many batches
were sent, and whether the files are those of one process.
"""

import json
import logging
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil
from measuring import ROOT, command_line
from ray_kills import write_pairs

from tests.support import tiny_models, tiny_sonar
from tests.support.ray_runs import TRANSLATED, differences, kill_all, ray_start, running_cluster, token
from tests.support.runs import in_process
from tests.support.tiny_lm import trained_once
from topxgen import distributed
from topxgen.common.console import library_output_to
from topxgen.common.registry import Choice
from topxgen.distributed import Call, Plan, Pool, ray_cluster, ray_pool, worker

LANGUAGES = ("Basque", "Swahili")
LOSSES = {"translate": ("none", "worker"), "score": ("none",), "decontaminate": ("none", "worker", "node")}
TIMEOUT_S = 120
PATH = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
WORKERS = ("ray::Worker", "ray::MapWorker")
PROGRESS = {
    "translate": f"{TRANSLATED}/*_translate.jsonl",
    "score": f"{TRANSLATED}/*_scores.jsonl",
    "decontaminate": "*_filtered.jsonl*",
}


class Mapper:
    """What Ray Data makes an actor of."""

    def __init__(self, build: Callable[[], Any], folder: str, environ: dict[str, str], log: Path | None):
        os.environ.update(environ)
        os.chdir(folder)
        note("loaded")
        with library_output_to(log) if log is not None and log.parent.is_dir() else nullcontext():
            self._object = build()

    def __call__(self, row: dict) -> dict:
        note("batch")
        method, arguments = pickle.loads(row["call"])
        return {"result": pickle.dumps(getattr(self._object, method)(*arguments))}


class DataPool(Pool):
    """Each `map` a Dataset: its input is complete before it starts, and its actors end with it."""

    check = staticmethod(ray_cluster.check)

    def __init__(self, build: Callable[[], Any], plan: Plan):
        ray = ray_cluster.connect(plan)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._share = ray_pool.share(nodes, plan)
        self._arguments = (build, os.getcwd(), worker.environment(), plan.log)

    def run(self, next_call):
        raise NotImplementedError("a Dataset cannot ask for what comes next")

    def map(self, calls: Iterable[Call]) -> Iterator[Any]:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.max_consecutive_actor_init_deaths = ray_pool.MAX_LOSSES - 1
        context.execution_options.preserve_order = True
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        workers, cpus, gpus = self._share
        rows = [{"call": pickle.dumps((call.method, call.arguments))} for call in calls]
        if not rows:
            return
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            Mapper,
            fn_constructor_args=self._arguments,
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=distributed.CAPACITY),
            num_cpus=cpus,
            num_gpus=gpus or None,
            max_restarts=-1,
            max_task_retries=-1,
        )
        yield from (pickle.loads(row["result"]) for row in results.iter_rows())

    def close(self) -> None:
        pass


class WorkerWithNotes(worker.Worker):
    """Notes what a Mapper notes."""

    async def load(self, build, folder, environ, log) -> int:
        os.environ.update(environ)
        note("loaded")
        return await super().load(build, folder, environ, log)

    async def call(self, method: str, *arguments) -> Any:
        note("batch")
        return await super().call(method, *arguments)


def note(what: str) -> None:
    with open(os.environ["VLLM_NOTES"], "a", encoding="utf-8") as file:  # workers get the variables VLLM_*
        file.write(f"{what}\n")


def main() -> None:
    if sys.argv[1:2] == ["--stage"]:
        sys.exit(run_stage(*sys.argv[2:]))
    if sys.argv[1:2] == ["--empty"]:
        return empty_calls(sys.argv[2])
    parser = command_line(__doc__)
    parser.add_argument("--paragraphs", type=int, default=3000, metavar="N", help="paragraphs of each of two languages")
    parser.add_argument("--pairs", type=int, default=20_000, metavar="N", help="pairs of the file to decontaminate")
    parser.add_argument("--stages", nargs="+", choices=LOSSES, default=list(LOSSES), help="which of them [all]")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="an empty folder for runs and models")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    for engine in ("ray", "ray-data"):
        environment = os.environ | {"VLLM_NOTES": str(args.out / f"{engine}.notes"), "PYTHONPATH": PATH}
        subprocess.run([sys.executable, __file__, "--empty", engine], cwd=ROOT, env=environment, check=True)
    of_stage = commands(args)
    for stage in args.stages:
        for engine in ("one", "ray", "ray-data"):
            for lost in LOSSES[stage] if engine != "one" else ("none",):
                folder = args.out / f"{stage}-{engine}-{lost}"
                if source := {"translate": "paragraphs", "score": "translate-one-none"}.get(stage):
                    shutil.copytree(args.out / source, folder)
                with two_nodes() if lost == "node" else nullcontext((None, {})) as (node, environment):
                    victims = {"none": (), "worker": WORKERS, "node": (node,)}[lost]
                    row = measured(stage, engine, of_stage[stage], folder, victims, environment)
                expected = args.out / f"{stage}-one-none"
                row["different"] = differences(folder, expected) if row["exit"] in (0, 3) else "ended early"
                print(json.dumps(row | {"lost": lost}), flush=True)


def commands(args) -> dict[str, tuple]:
    """The command of each stage without --output_dir; makes their models and inputs."""
    texts = {name: [text for text in tiny_models.udhr_texts(name) if len(text) > 80] for name in LANGUAGES}
    pairs = tiny_models.udhr_pairs("Basque")
    trained_once("tiny_nllb", lambda folder: tiny_models.build_nllb(folder, pairs, steps=160))(args.out / "nllb")
    tiny_sonar.build_blaser(args.out / "blaser.pt", hidden=(32, 16))
    sonar = tiny_sonar.build_sonar(args.out / "sonar", [text for pair in pairs for text in pair])
    rng = random.Random(3)
    (args.out / "paragraphs").mkdir()
    for name in LANGUAGES:
        with open(args.out / "paragraphs" / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for i in range(args.paragraphs):
                record = {"id": f"{name}-{i:06}", "text": " ".join(rng.sample(texts[name], 2)), "topic": "rights"}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    write_pairs(args.out / "pairs", args.pairs, rng)
    stage = ("datagen.py", "--languages", *LANGUAGES, "--use_nllb", "--nllb_name_or_path", args.out / "nllb")
    stage = (*stage, "--cache_dir", args.out / "cache", "--translate_dir", TRANSLATED, "--stages")
    score = ("score", "--blaser_name_or_path", args.out / "blaser.pt", "--sonar_name_or_path", sonar)
    clean = ("decontamination.py", "--input_dir", args.out / "pairs", "--benchmarks", "udhr")
    return {"translate": (*stage, "translate"), "score": (*stage, *score), "decontaminate": clean}


@contextmanager
def two_nodes() -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """A cluster of two nodes of one core each: the process of the second, and the environment to join it by."""
    # Ray refuses a second node unless this is 1; then it listens on this machine's own address, so with a token.
    several = token() | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "PYTHONPATH": PATH}
    with running_cluster(cpus=1, **several) as (_, environment):
        log = Path(environment["RAY_TMPDIR"], "second")
        with ray_start(log, environment, f"--address={environment['RAY_ADDRESS']}", "--num-cpus=1") as node:
            yield node, environment


def measured(
    stage: str, engine: str, command: tuple, folder: Path, victims: tuple, environment: dict[str, str]
) -> dict:
    """Run a stage; what it took. After its first result one of `victims` is killed: a process, or a worker of one of these names."""
    notes = folder.parent / f"{folder.name}.notes"
    notes.touch()
    environment = {"VLLM_NOTES": str(notes), "PYTHONPATH": PATH} | environment
    words = [sys.executable, __file__, "--stage", engine, *map(str, command), "--output_dir", str(folder)]
    words += ["--num_workers", "1"] if (engine, stage) == ("one", "decontaminate") else []
    began, first, memory, cpu, killed = time.monotonic(), None, 0, {}, False
    with open(folder.parent / f"{folder.name}.log", "wb") as log:
        process = psutil.Popen(words, cwd=ROOT, stdout=log, stderr=log, env=os.environ | environment)
        while process.poll() is None:
            if first is None and any(path.stat().st_size for path in folder.glob(PROGRESS[stage])):
                first = time.monotonic() - began
            if first and not killed:
                killed = kill_one(victims, process)
            used = 0
            for one in [process, *process.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    used += one.memory_full_info().pss
                    cpu[one] = sum(one.cpu_times()[:2])
            memory = max(memory, used)
            if time.monotonic() - began > TIMEOUT_S:
                kill_all(process)
            time.sleep(0.1)
    noted = notes.read_text(encoding="utf-8").split("\n")
    row = {
        "stage": stage,
        "engine": engine,
        "killed": killed,
        "exit": process.returncode,
        "first_s": first and round(first, 1),
    }
    row |= {"seconds": round(time.monotonic() - began, 1), "cpu_s": round(sum(cpu.values()), 1), "mib": memory >> 20}
    return row | {"loaded": noted.count("loaded"), "batches": noted.count("batch")}


def kill_one(victims: tuple, parent: psutil.Process) -> bool:
    for victim in victims:
        if isinstance(victim, psutil.Process):
            kill_all(victim)
            return True
        for one in parent.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if one.cmdline()[:1] and one.cmdline()[0].startswith(victim):
                    one.kill()
                    return True
    return False


class Nothing:
    def do(self) -> None:
        """Nothing."""


def empty_calls(engine: str) -> None:
    """Print what 1,000 calls cost that do nothing, twice with the same pool, as for two languages."""
    add_engines()
    pool = distributed.start(Nothing, Plan(engine, "nothing", 2, gpus=0))
    row: dict[str, Any] = {"calls": 1000, "engine": engine, "seconds": []}
    for _ in range(2):
        began = time.monotonic()
        results = pool.map(Call("do") for _ in range(1000))
        next(results)
        first = time.monotonic() - began
        assert len(list(results)) == 999
        row["seconds"].append([round(first, 2), round(time.monotonic() - began - first, 2)])
    pool.close()
    row["loaded"] = Path(os.environ["VLLM_NOTES"]).read_text(encoding="utf-8").split("\n").count("loaded")
    print(json.dumps(row), flush=True)


def add_engines() -> None:
    distributed.SCHEDULERS["ray-data"] = Choice(f"{Path(__file__).stem}:DataPool")
    ray_pool.Worker = WorkerWithNotes


def run_stage(engine: str, name: str, *arguments: str) -> int:
    if engine != "one":
        add_engines()
        arguments = (*arguments, "--distributed", engine, "--num_workers", "2")
    result = in_process(name, *arguments)
    sys.stderr.write(result.stderr)
    return result.returncode


if __name__ == "__main__":
    main()
