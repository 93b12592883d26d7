"""Runs of datagen.py --paragraphs: what the tests of native texts share."""

import json
from pathlib import Path

from tests.support.runs import in_process, records
from tests.support.tiny_models import udhr_texts

UDHR = udhr_texts("Basque")
GENERATE = ("--stages", "generate")


def run(folder, source, *more, code=0, languages=("Basque",), stages=GENERATE):
    sources = source if isinstance(source, (list, tuple)) else [source]
    result = in_process(
        "datagen.py", "--paragraphs", *sources, "--languages", *languages, "--output_dir", folder, *stages, *more
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result


def refusal(folder, source, *more, **options) -> str:
    """The one line on stderr of a command that is refused before it writes anything."""
    existed = folder.exists()
    result = run(folder, source, *more, code=2, **options)
    (line,) = result.stderr.strip().splitlines()
    assert folder.exists() == existed
    return line


def write(path: Path, texts, column="text", **columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [dict(zip([column, *columns], row, strict=True)) for row in zip(texts, *columns.values(), strict=True)]
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def kept(folder, language="Basque") -> list[dict]:
    return records(folder / f"{language}.jsonl")


def rejects(folder) -> dict[str, str]:
    return {
        record["id"].removeprefix("Basque-native-"): record["reason"]
        for record in records(folder / "Basque_rejects.jsonl")
    }
