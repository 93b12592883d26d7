"""Folders of runs in the middle of their work, processes that hold their locks, and looks at them."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from tests.support.runs import ROOT
from topxgen.runs import stages
from topxgen.runs.status import Watcher

HOLD = """
import sys, time, json
from pathlib import Path
sys.path.insert(0, {root!r})
from topxgen.common.locks import OutputLock
locks = [OutputLock(Path(folder), part, note=note) for folder, part, note in json.loads(sys.argv[1])]
print("held", flush=True)
time.sleep(600)
"""


def hold(*locks) -> subprocess.Popen:
    """A process that holds (folder, part, note)."""
    words = json.dumps([(str(folder), part, note) for folder, part, note in locks])
    command = [sys.executable, "-c", HOLD.format(root=str(ROOT)), words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    process.stdout.close()


def digest(folder: Path) -> dict[str, tuple]:
    """All that a look could change: names, sizes, times of change, contents."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        stat = path.lstat()
        contents = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = stat.st_mode, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, contents
    return found


def write(path: Path, *records: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def paragraph(i: int) -> dict:
    return {"text": f"testu {i}", "id": f"Basque-{i}.0"}


def pair(i: int, score=None) -> dict:
    texts = {"sentence": "a b", "propositions": ["a", "b"], "translations": ["c", "d"]}
    return {**texts, "scores": [score, score], "id": f"Basque-{i}.0"}


def response(i: int, **more) -> dict:
    return {"id": f"Basque-{i}", "texts": ["x"], "prompt_tokens": 1000, "completion_tokens": 100, **more}


NOTE = {
    "stages": ["generate", "translate", "score"],
    "translate_dir": "apertium",
    "paragraphs": 12,
    "prices": [1.0, 10.0],
}


def look(root: Path, **options) -> dict[str, stages.Stage]:
    return {stage.stage: stage for stage in Watcher(root, **options).look().stages}
