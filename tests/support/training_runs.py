"""Commands of short trainings of small models, and what their logs say."""

import argparse
import json
from pathlib import Path

# Log entries that depend on the clock.
CLOCK = ("tokens_per_second", "eval_runtime", "train_runtime", "train_samples_per_second", "train_steps_per_second")


def flags(model, output, **changed) -> list[str]:
    """The command line of a short run on the Basque UDHR; None drops a flag, True passes it without a value."""
    settings = {
        "dataset_name_or_path": "udhr",
        "target_languages": "Basque",
        "reverse": True,
        "targets_only": True,
        "max_length": 256,
        "max_steps": 8,
        "num_warmup_steps": 2,
        "learning_rate": 2e-3,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "logging_steps": 1,
        "eval_steps": 4,
        "save_steps": 4,
        "test_size_ratio": 6,
        **changed,
    }
    words = ["--model_name_or_path", str(model), "--output_dir", str(output)]
    for name, value in settings.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def log(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "train_log.jsonl").read_text().splitlines()]


def timeless(entries: list[dict]) -> list[dict]:
    return [{key: value for key, value in entry.items() if key not in CLOCK} for entry in entries]


def losses(output: Path) -> list[float]:
    return [entry["loss"] for entry in log(output) if "loss" in entry]


def parsed(*words: str) -> argparse.Namespace:
    """Flags of train.py as its parser reads them."""
    import train

    return train.build_parser().parse_args(["--model_name_or_path", "m", "--output_dir", "o", *words])
