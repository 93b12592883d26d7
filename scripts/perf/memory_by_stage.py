"""Memory of datagen.py and its children while it runs, stage by stage: one model at a time.

    python scripts/perf/memory_by_stage.py --model_name_or_path models/gemma-3-270m --languages Basque ... (any command line)

With --shapes DIR, NLLB and SONAR of their published shapes with random weights are created in DIR and used
(NLLB by scripts/perf/nllb_speed.py, in models/nllb-600m-shape).
"""

import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import psutil
from measuring import ROOT, command_line

GIB = 1 << 30


def memory(process: psutil.Process) -> int:
    """Resident bytes of a process and its descendants, pages that they share counted once (proportional set)."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def shapes(folder: Path) -> list[str]:
    """Flags for a scorer of the published shape."""
    from tests.support import tiny_models, tiny_sonar

    sonar, blaser = folder / "SONAR_200_text_encoder", folder / "blaser-2.0-qe"
    if not (sonar / "model.safetensors").exists():
        texts = [text for pair in tiny_models.udhr_pairs("Basque") for text in pair]
        tiny_sonar.build_sonar(sonar, texts, 1024, 24, ffn=8192)
        blaser.mkdir(exist_ok=True)
        tiny_sonar.build_blaser(blaser / "model.pt", 1024)
    return ["--sonar_name_or_path", str(sonar), "--blaser_name_or_path", str(blaser)]


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--shapes", type=Path, metavar="DIR")
    args, words = parser.parse_known_args()
    words += shapes(args.shapes) if args.shapes else []
    samples: list[tuple[float, int]] = []
    events: list[tuple[float, str]] = [(time.monotonic(), "start")]
    process = subprocess.Popen(
        [sys.executable, "datagen.py", *words], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )

    def sample() -> None:
        ours = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                samples.append((time.monotonic(), memory(ours)))
            except psutil.Error:
                return
            time.sleep(0.2)

    watcher = threading.Thread(target=sample)
    watcher.start()
    for line in process.stderr:
        print(line, end="", flush=True)
        if line.startswith("loading "):
            events.append((time.monotonic(), line.strip()))
    watcher.join()
    code = process.wait()
    events.append((time.monotonic(), "end"))
    for (begin, name), (end, _) in pairwise(events):
        inside = [size for at, size in samples if begin <= at < end]
        if inside:
            print(
                f"{name}: {inside[0] / GIB:.2f} GiB at its beginning, {max(inside) / GIB:.2f} at most, {inside[-1] / GIB:.2f} at its end"
            )
    return code


if __name__ == "__main__":
    sys.exit(main())
