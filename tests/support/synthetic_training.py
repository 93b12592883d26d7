"""What train.py leaves of a synthetic run."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from topxgen.common import lineage
from topxgen.common.files import to_line, write_json
from topxgen.common.provenance import now, versions
from topxgen.common.records import FilteredLayout, Layout


def train(folder: Path, layout: Layout, names: Sequence[str], scorer: str, seed: int, worse: bool = False) -> None:
    """What train.py leaves beside the weights: 3,000 steps, with the held-out loss every 250."""
    rng, steps = np.random.default_rng((seed, worse)), 3000
    directions = [f"English to {name}" for name in names] + [f"{name} to English" for name in names]
    log = []
    for step in range(0, steps + 1, 50):
        at = step / steps
        if step:
            loss = 1.1 + 2.4 * np.exp(-6 * at) + rng.normal(0, 0.04)
            entry = {
                "loss": loss,
                "grad_norm": 1 + rng.random(),
                "learning_rate": 1e-5 * (1 - at),
                "tokens_per_second": 9100.0,
            }
            log.append(entry | {"epoch": at * 3, "step": step})
        if step % 250 == 0:
            held_out = {}
            for place, direction in enumerate(directions):
                slope = (0.8 * at) if worse else (-1.3 * (1 - np.exp(-5 * at)) + 0.25 * at**2)
                held_out[f"eval_loss_{direction}"] = 2.6 + place / 10 + slope + rng.normal(0, 0.01)
            log.append(
                {
                    "eval_loss": float(np.mean(list(held_out.values()))),
                    **held_out,
                    "eval_runtime": 4.2,
                    "epoch": at * 3,
                    "step": step,
                }
            )
    log.append({"train_runtime": 5400.5, "total_flos": 1e18, "train_loss": 1.3, "epoch": 3.0, "step": steps})
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "train_log.jsonl", "w", encoding="utf-8") as file:
        file.writelines(
            to_line({key: float(value) if key != "step" else value for key, value in entry.items()}) for entry in log
        )
    evaluated = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}
    best = min(evaluated, key=evaluated.__getitem__) or 250
    files = {f"English to {name}": FilteredLayout(layout.translate_dir).filtered(name) for name in names}
    counts = {direction: _selected(path) for direction, path in files.items()}
    pairs = 2 * sum(count["pairs"] for count in counts.values())  # of both directions
    data = {
        "name": "topxgen",
        "languages": {
            direction: {
                "path": str(path),
                "sha256": lineage.sha256_of(path),
                "scorer": scorer,
                "counts": counts[direction],
            }
            for direction, path in files.items()
        },
        "train_pairs": pairs - pairs // 20,
        "test_pairs": pairs // 20,
    }
    settings = {
        "model_name_or_path": "meta-llama/Meta-Llama-3-8B", "dataset_name_or_path": "topxgen", "src": "English",
        "target_languages": list(names), "reverse": True, "percentile": None, "use_peft": True, "lora_r": 32, "max_steps": steps,
        "learning_rate": 1e-5, "num_warmup_steps": 500, "packing": "bestfit", "bf16": True, "seed": seed,
    }  # fmt: skip
    warning = sorted(["loss", *(f"loss_{direction}" for direction in directions)]) if worse else []
    write_json(folder / "settings_train.json", settings)
    write_json(
        folder / "manifest_train.json",
        {
            "stage": "train", "complete": True, "started": now(), "finished": now(), "command": ["train.py", "--output_dir", str(folder)],
            "seed": seed, "settings": settings, "versions": versions(), "data": data, "steps": steps, "stopped_early": False,
            "best_checkpoint": f"checkpoint-{best}", "best_metric": evaluated[best], "worse_than_before_training": warning,
            lineage.KEY: lineage.of_training(settings, data),
        },
    )  # fmt: skip


def _selected(path: Path) -> dict[str, int]:
    with open(path, encoding="utf-8") as file:
        read = sum(len(json.loads(line)["propositions"]) for line in file)
    dropped = {"forbidden_characters": read // 300, "duplicates": read // 100}
    return {"read": read, **dropped, "pairs": read - sum(dropped.values())}
