"""Runs to publish: files as the stages leave them."""

import json
from pathlib import Path

from tests.support.runs import in_process

SCORER = "blaser (SONAR)"
WORDS = ("mendi", "itsaso", "haran", "ibai", "zubi", "etxe", "kale", "herri", "elur", "euri", "haize", "eguzki")
ENGLISH = ("mountain", "sea", "valley", "river", "bridge", "house", "street", "town", "snow", "rain", "wind", "sun")


def phrase(number: int, words: tuple[str, ...], length: int = 9) -> str:
    """A text that shares hardly a word with that of another number."""
    chosen = [words[(number * 7 + i * (number % 5 + 1)) % len(words)] + str(number * 31 + i) for i in range(length)]
    return " ".join(chosen).capitalize() + "."


def record(number: int, pairs: int = 2, language: str = "Basque", **more) -> dict:
    """A paragraph with sentences of its own."""
    sentences = [phrase(number * 100 + i, WORDS) for i in range(pairs)]
    return {
        "sentence": " ".join([*sentences, f"Esaldi baztertua {number}."]),
        "propositions": sentences,
        "translations": [phrase(number * 100 + i, ENGLISH) for i in range(pairs)],
        "scores": [round(3 + (number * 7 + i) % 20 / 10, 2) for i in range(pairs)],
        "topic": f"Topic {number}",
        "id": f"{language}-{number:06d}.0",
        "confidences": [0.5 + i / 10 for i in range(pairs)],
        "scorer": SCORER,
    } | more


def write(path: Path, *records: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), encoding="utf-8", newline="\n"
    )
    return path


def make_run(
    folder: Path,
    by_language: dict[str, list[dict]],
    *,
    filtered: bool = True,
    writer: str = "google/gemma-3-27b-it",
    translator: str = "facebook/nllb-200-3.3B",
    translate_dir: str = "nllb-200-3.3B",
) -> Path:
    """The output directory of a run whose pairs have been decontaminated, without manifests."""
    pairs = folder / translate_dir
    for language, records in by_language.items():
        write(folder / f"{language}.jsonl", *({"text": r.get("sentence", ""), "id": r.get("id")} for r in records))
        write(pairs / f"{language}_translate.jsonl", *records)
        if filtered:
            write(pairs / f"{language}_translate_filtered.jsonl", *records)
    (folder / "settings_generate.json").write_text(json.dumps({"pipeline": "topxgen", "model": writer}))
    settings = {"back_translator": "nllb", "target_language": "English", "nllb_name_or_path": translator}
    (pairs / "settings_translate.json").write_text(json.dumps(settings))
    return folder


def publish(folder: Path, out: Path, *flags, check: int = 0):
    result = in_process("scripts/publish.py", folder, "--out", out, *flags)
    assert result.returncode == check, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def refused(folder: Path, out: Path, *flags) -> str:
    """The one line with which publish.py refuses; nothing is written."""
    before = sorted(out.parent.iterdir())
    result = publish(folder, out, *flags, check=2)
    lines = [line for line in result.stderr.splitlines() if "error" in line]
    assert len(lines) == 1 and "Traceback" not in result.stderr, result.stderr
    assert sorted(out.parent.iterdir()) == before
    return lines[0]


def rows(out: Path, config: str = "Basque", split: str = "train") -> list[dict]:
    """The rows of a split as they are on disk."""
    from pyarrow import parquet

    path = out / config / f"{split}.parquet"
    return parquet.read_table(path).to_pylist() if path.exists() else []


def front_matter(out: Path) -> dict:
    from ruamel.yaml import YAML

    text = (out / "README.md").read_text(encoding="utf-8")
    return YAML(typ="safe").load(text.split("---\n")[1])
