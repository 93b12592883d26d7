"""Sections of run files over the inputs of tests/attack/table.py."""

import json
from pathlib import Path

CHECKED = "decontamination: {input_dir: in, output_dir: out/checked, benchmarks: [in/bench.tsv], num_workers: 1}"
SCORED = "evaluate: {dirs: in/runs, baseline: in/runs/stub-1, trials: 20, json: out/scores.json}"


def write(place: Path, *sections: str) -> None:
    (place / "run.yaml").write_text("\n".join(["output_dir: out", *sections]), encoding="utf-8")


def record(place: Path, name: str) -> dict:
    """What scripts/run.py recorded of a stage."""
    return json.loads((place / "out" / "run" / f"{name}.json").read_text())
