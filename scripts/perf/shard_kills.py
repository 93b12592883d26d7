"""Shards and merges killed at random moments: is anything lost or doubled, and are the files those of a run that nobody killed?

    python scripts/perf/shard_kills.py --kills 100 --seed 1
    python scripts/perf/shard_kills.py --stage decontamination --kills 50

--stage datagen: datagen.py in shards, two at a time, generates Basque paragraphs and back-translates the merged ones, through a local server whose answers
depend on the prompt alone; every process, those of scripts/merge.py between them too, is ended by SIGKILL after a random number of
answers or at a random moment. What is left is compared with one merge of the same shards and with one process that translates the merged
paragraphs (all data files, byte for byte), and with one process (up to the first prompt that no shard has answered; which responses are in flight
when a shard has enough, and so what comes after it, is a matter of time). --stage decontamination, main: the shards of decontamination.py
or main.py and their merges, against one process (all data files, byte for byte). The output is JSON.
"""

import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from measuring import ROOT, as_flags, command_line
from ray_kills import write_pairs

from tests.attack.shooting_range import Stub
from tests.support import api_server
from tests.support.runs import records
from tests.support.tiny_models import udhr_pairs
from tests.support.writer import Writer, answer, command
from topxgen.common.translation_folders import RESPONSES

SHARDS = 4
CONTEXT = multiprocessing.get_context("forkserver")  # libraries are loaded once: a process costs its own work
SCRIPTS = ("datagen", "decontamination", "main", "scripts.merge")
CONTEXT.set_forkserver_preload([*SCRIPTS, "topxgen.generation.merge", "topxgen.inference.openai", "openai"])


def process_of(words) -> multiprocessing.Process:
    process = CONTEXT.Process(target=run_main_of, args=([str(word) for word in words],))
    process.start()
    return process


def run_main_of(words: list[str]) -> None:
    sys.argv = words
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    sys.exit(importlib.import_module(words[0].removesuffix(".py").replace("/", ".")).main())


def run(*words) -> None:
    process_of(words).join()


class Killer:
    """Starts processes and kills them."""

    def __init__(self, rng: random.Random, kills: int):
        self.rng, self.left, self.killed = rng, kills, Counter()
        self.seen: dict[tuple[str, str], str] = {}  # responses that were on disk after any of the processes

    def start(self, kind: str, words, lines, enough: int) -> bool:
        """Whether the process ended by itself, rather than by a kill once `lines()` has grown by `enough`."""
        began = lines()
        process = process_of(words)
        while process.is_alive():
            if self.left and lines() >= began + enough:
                time.sleep(self.rng.random() * 0.02)
                process.kill()
                break
            time.sleep(0.001)
        process.join()
        if process.exitcode == -signal.SIGKILL:
            self.left -= 1
            self.killed[kind] += 1
            return False
        return True


def count_lines(folder: Path, pattern: str) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob(pattern))


def split_run(
    server, folder: Path, stages: tuple[str, ...], answers: str, size: int, per_kill: int, killer: Killer
) -> None:
    """All shards until each is finished, with merges between them; then the last merge."""
    words = ["datagen.py", *command(server, folder, "--number_of_instructions", size, "--stages", *stages)]
    left = [f"{index:04d}-of-{SHARDS:04d}" for index in range(SHARDS)]
    while left:
        name = killer.rng.choice(left)
        shard = [*words, "--num_shards", SHARDS, "--shard_index", int(name[:4])]
        own = folder / "shards" / name
        if killer.start(stages[0], shard, lambda own=own: count_lines(own, answers), killer.rng.randint(1, per_kill)):
            left.remove(name)
        killer.seen |= responses(own)
        if killer.rng.random() < 0.3 and any(folder.glob("shards/*/shard_*")):
            began = time.monotonic()
            after = killer.rng.uniform(0.0, 0.4)
            killer.start("merge", ["scripts/merge.py", folder], lambda began=began: time.monotonic() - began, after)
    run("scripts/merge.py", folder)


def stage_alone(stage: str, folder: Path, killer: Killer, size: int) -> dict:
    """Shards of a script, each started until it ends by itself, and merges between; against one run of it."""
    sentences = [pair for pair in udhr_pairs("Basque") if not set("\t\r\n") & set("".join(pair))]
    with Stub() as stub:
        if stage == "decontamination":
            write_pairs(folder / "pairs", size, random.Random(3))
            words = ["decontamination.py", "--input_dir", folder / "pairs", "--benchmarks", "udhr"]
        else:
            rows = (sentences * (size // len(sentences) + 1))[:size]
            table = folder / "test.tsv"
            table.write_text("".join(f"{src} {i}\t{tgt}\n" for i, (src, tgt) in enumerate(rows)), encoding="utf-8")
            words = ["main.py", *as_flags(
                inference_api="openai", base_url=stub.url("openai"), model_name_or_path="stub-1", dataset_name_or_path="files",
                tgt="Basque", k=0, max_concurrent_requests=2,
            ), "--test_files", *[f"{table}:Basque=2,English=1"] * 2]  # fmt: skip
        one, killed = folder / "one", folder / "killed"
        run(*words, "--output_dir", one)
        left = list(range(SHARDS))
        while left:
            index = killer.rng.choice(left)
            began, after = time.monotonic(), killer.rng.uniform(0.2, 2.0)
            shard = [*words, "--output_dir", killed, "--num_shards", SHARDS, "--shard_index", index]
            if killer.start(stage, shard, lambda began=began: time.monotonic() - began, after):
                left.remove(index)
        while not killer.start("merge", ["scripts/merge.py", killed], time.monotonic, killer.rng.uniform(0.1, 1.0)):
            pass
    found, expected = data_files(killed), data_files(one)
    for files in (found, expected):  # responses are in the order in which they came
        files.update({name: b"".join(sorted(t.split(b"\n"))) for name, t in files.items() if name.endswith(RESPONSES)})
    return {
        "kills": dict(killer.killed),
        "all_kills": killer.killed.total(),
        "files": len(expected),
        "lines": sum(text.count(b"\n") for text in expected.values()),
        "equal_to_one_run": bool(expected) and found == expected,
    }


def data_files(folder: Path) -> dict[str, bytes]:
    names = {str(path.relative_to(folder)): path for path in folder.rglob("*.jsonl")}
    return {
        name: path.read_bytes()
        for name, path in names.items()
        if not name.startswith("shards/") and "_answers" not in name
    }


def responses(folder: Path) -> dict[tuple[str, str], str]:
    """By file and id, of a directory without its shards, or of a shard; a last line that a kill has cut is none."""
    found = {}
    for path in (path for pattern in ("*_answers.jsonl", "*/*_answers.jsonl") for path in folder.glob(pattern)):
        whole = path.read_bytes().rpartition(b"\n")[0].split(b"\n")
        found |= {(path.name, record["id"]): json.dumps(record["texts"]) for record in map(json.loads, whole)}
    return found


def upto_gap(one: Path, merged: Path) -> bool:
    """Whether paragraphs and rejects are those of one run up to the first prompt without a response."""
    asked = {int(record["id"][-6:]) for record in records(merged / "Basque_answers.jsonl")}
    gap = next(number for number in range(len(asked) + 1) if number not in asked)

    def below(folder: Path, name: str) -> list[dict]:
        return [record for record in records(folder / name) if int(record["id"].split(".")[0][-6:]) < gap]

    found = [[below(folder, name) for folder in (one, merged)] for name in ("Basque.jsonl", "Basque_rejects.jsonl")]
    return bool(found[0][1]) and all(ours == theirs[: len(ours)] for theirs, ours in found)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--stage", choices=("datagen", "decontamination", "main"), default="datagen")
    parser.add_argument("--paragraphs", type=int, default=240, help="or pairs, or sentences to translate")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    api_server.answer = answer
    os.environ["OPENAI_API_KEY"] = api_server.KEY
    killer = Killer(random.Random(args.seed), args.kills)
    if args.stage != "datagen":
        with tempfile.TemporaryDirectory() as name:
            found = stage_alone(args.stage, Path(name), killer, args.paragraphs)
        print(json.dumps(found, indent=1))
        sys.exit(not found["equal_to_one_run"])
    generate = (("generate",), "Basque_answers.jsonl", args.paragraphs, 3)
    translate = (("translate",), "*/Basque_translate_answers.jsonl", args.paragraphs, 25)
    with tempfile.TemporaryDirectory() as name, Writer(delay=0.01) as server:
        one, once, killed = (Path(name) / part for part in ("one", "once", "killed"))
        run("datagen.py", *command(server, one, "--number_of_instructions", args.paragraphs, "--stages", "generate"))
        server.given.clear()
        for part in (generate, translate):
            split_run(server, killed, *part, killer)
        answered_twice = sum(count > 1 for count in server.given.values())
        shutil.copytree(killed / "shards", once / "shards")
        run("scripts/merge.py", once)
        merged_once = data_files(once)
        for path in once.glob("*/Basque_translate*"):
            path.unlink()
        shutil.rmtree(once / "shards")
        run("datagen.py", *command(server, once, "--number_of_instructions", args.paragraphs, "--stages", "translate"))
        found = data_files(killed)
        ids = [record["id"] for file in ("Basque.jsonl", "Basque_rejects.jsonl") for record in records(killed / file)]
        pairs = [record["id"] for record in records(next(killed.glob("*/Basque_translate.jsonl")))]
        left = responses(killed)
        result = {
            "kills": dict(killer.killed),
            "all_kills": killer.killed.total(),
            "equal_to_one_merge": found == merged_once,
            "equal_to_one_process_that_translates": found == data_files(once),
            "equal_to_one_run_up_to_the_gap": upto_gap(one, killed),
            "responses": len(left),
            "responses_seen_and_lost": sum(left.get(key) != texts for key, texts in killer.seen.items()),
            "prompts_answered_twice": answered_twice,  # in flight when it was killed
            "texts_doubled": len(ids) - len(set(ids)),
            "pairs_doubled": len(pairs) - len(set(pairs)),
            "paragraphs": len(records(killed / "Basque.jsonl")),
            "verify": subprocess.run(
                [sys.executable, "scripts/verify.py", killed], cwd=ROOT, capture_output=True, check=False
            ).returncode,
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
