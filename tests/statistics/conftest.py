"""Folders of data as datagen.py and decontamination.py leave them, and as it is published."""

import json
from pathlib import Path

import pytest

from tests.support.tiny_models import udhr_pairs


def write_jsonl(path: Path, records: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def run_folder(tmp_path) -> Path:
    return make_run(tmp_path / "run")


def make_run(folder: Path) -> Path:
    """A run in Basque: 12 paragraphs about 6 topics, 11 of them translated (22 pairs), 9 of these left by decontamination."""
    pairs = [pair for pair in udhr_pairs("Basque") if min(map(len, pair)) > 60][:24]
    topics = ["Tides", "Chess", "Basalt", "Gravity", "Olive oil", "Sourdough"]
    records = [
        {
            "sentence": f"{one} {two}", "topic": topics[i % 6], "propositions": [one, two], "translations": [uno, dos],
            "scores": [round(0.1 * i, 3), None], "scorer": "confidence", "id": f"Basque-{i:06}.0",
        }
        for i, ((one, uno), (two, dos)) in enumerate(zip(pairs[:12], pairs[12:], strict=True))
    ]  # fmt: skip
    texts = [{"text": record["sentence"], "topic": record["topic"], "id": record["id"]} for record in records]
    write_jsonl(folder / "Basque.jsonl", texts)
    write_jsonl(folder / "Basque_rejects.jsonl", [{"id": "x", "reason": "empty"}])
    write_jsonl(folder / "nllb" / "Basque_translate.jsonl", records[:11])
    write_jsonl(folder / "nllb" / "Basque_translate_filtered.jsonl", records[:9])
    write_jsonl(folder / "nllb" / "Basque_translate_rejects.jsonl", [])
    return folder


@pytest.fixture
def published_folder(tmp_path) -> Path:
    """Published data: no ids and topics, scores that are all null; in Hausa, and in Luganda, whose name is not the table's."""
    folder = tmp_path / "data" / "wiki"
    for name, language in (("gemma", "Hausa"), ("llama", "Hausa"), ("llama", "Luganda")):
        pairs = udhr_pairs("Hausa" if language == "Hausa" else "Ganda")[: 10 if name == "gemma" else 14]
        records = [
            {"sentence": text, "propositions": [text], "translations": [english], "scores": [None]}
            for text, english in pairs
        ]
        write_jsonl(folder / name / "topxgen/T=1.0/nllb-200-3.3B" / f"{language}_translate.jsonl", records)
    return folder
