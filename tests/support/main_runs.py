"""What the tests of main.py share: its flags for a small model, where its files lie, what stands in them."""

from pathlib import Path

from comptra import evaluation_sets
from tests.support.runs import records
from topxgen.text import languages

NAME = "English_to_Basque_{k}_shot_seed_122_{divide}_vanilla_{n}_{steps}_0"


def options(model: str, *more, **changes) -> list:
    flags = {
        "model_name_or_path": model, "inference_api": "hf", "dataset_name_or_path": "udhr", "tgt": "Basque", "k": 2,
        "max_samples": 4, "max_new_tokens": 12, "max_new_tokens_merge": 12, "prompt_style": "raw", "dtype": "float32", **changes,
    }  # fmt: skip
    return [*more, *(word for name, value in flags.items() if value is not None for word in (f"--{name}", value))]


def folder_of(output: Path, model: str, k=2, divide="llm", n=None, steps=0) -> Path:
    """The folder of a run with the default method and decoding, or the only one with others."""
    plain = output / Path(model).name / NAME.format(k=k, divide=divide, n=n, steps=steps)
    others = [*plain.parent.glob(f"{plain.name}_*")]
    return others[0] if len(others) == 1 and not plain.is_dir() else plain


def udhr(count: int) -> evaluation_sets.TestSet:
    sides = map(languages.find, ("English", "Basque"))
    return evaluation_sets.load("udhr", *sides, folder=None, max_samples=count)


def texts(path: Path, key: str = "translation") -> list[str]:
    return [record[key] for record in records(path)]
