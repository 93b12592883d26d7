"""Pairs with planted lines of benchmarks, and decontamination.py on them."""

import json
from pathlib import Path

from tests.support.runs import in_process, records

SCRIPT = "decontamination.py"


LEAKS = {
    # The first two are in the benchmark (16 and 14 words); the third is near the second.
    "Basque": [
        "Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela, eta batera bizi dira hemen.",
        "Herriko plazan bildu ziren atzo arratsaldean auzokide guztiak urteko jaia ospatzeko asmoz eta pozik.",
        "Herriko plazan bildu ziren atzo goizean auzokide ugari urteko jaia ospatzeko asmoz eta pozik.",
    ],
    "English": [
        "All the neighbours came together in the village square yesterday afternoon to celebrate the yearly feast.",
        "The ferry leaves the harbour every morning at seven and comes back late at night in winter.",
    ],
}


def record(number: int, propositions: list[str], translations: list[str], **more) -> dict:
    return {
        "sentence": " ".join(propositions),
        "propositions": propositions,
        "translations": translations,
        "scores": [float(i) for i in range(len(propositions))],
        "topic": "sea",
        "id": f"Basque-{number}",
        **more,
    }


def data(tmp_path, lines: list[dict | str], name: str = "Basque") -> Path:
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    (folder / f"{name}_translate.jsonl").write_text(text + "\n", encoding="utf-8")
    return folder


def run(input_dir, benchmark_dir, *args, code=0):
    flags = [
        "--benchmarks",
        "flores",
        "--benchmark_dir",
        benchmark_dir,
        "--allow_partial_benchmark",
        "--num_workers",
        1,
    ]
    result = in_process(SCRIPT, "--input_dir", input_dir, *flags, *args)
    assert result.returncode == code, result.stdout + result.stderr
    return result


def kept(folder: Path) -> list[dict]:
    return records(folder / "Basque_translate_filtered.jsonl")


LINES = {
    "Basque": record(0, ["Itsasoa lasai zegoen."], ["The sea was calm."]),
    "Hausa": record(1, ["Teku."], [LEAKS["English"][1]]),
}


HOSTILE = (
    "null",
    "1",
    "1e999",
    "1" + "0" * 300,
    '"x"',
    "[]",
    "{}",
    "[null]",
    '[{"a": 1}]',
    "[" * 300 + "]" * 300,
    "[" * 100_000,
    "NaN",
)
